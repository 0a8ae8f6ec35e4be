"""Delivers spans and metrics over each OTLP transport with OpenTelemetry's own SDK."""

import sys

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

grpc, http = sys.argv[1:]
exporters = {
    "grpc": (GrpcSpans(endpoint=grpc, insecure=True), GrpcMetrics(endpoint=grpc, insecure=True)),
    "http": (HttpSpans(endpoint=f"{http}/v1/traces"), HttpMetrics(endpoint=f"{http}/v1/metrics")),
}
for name, (spans, metrics) in exporters.items():
    resource = Resource.create({"service.name": f"py-{name}", "service.instance.id": "one"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(spans))
    tracer = provider.get_tracer("test")
    meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(metrics)])
    meter = meters.get_meter("test")
    orders = meter.create_counter("orders", unit="1")
    lasted = meter.create_histogram("order.duration", unit="s")
    for i in range(50):
        with tracer.start_as_current_span("order", kind=SpanKind.SERVER) as root:
            root.set_attribute("order", i)
            with tracer.start_as_current_span("pay") as pay:
                pay.add_event("retry", {"attempt": 2})
                if i % 10 == 0:
                    pay.set_status(Status(StatusCode.ERROR, "declined"))
        orders.add(2, {"kind": "book"})
        lasted.record(i / 10)
    provider.shutdown()
    meters.shutdown()
    print(f"{root.get_span_context().trace_id:032x}")
