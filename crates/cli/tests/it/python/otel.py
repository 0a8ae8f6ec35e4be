"""Delivers 100 records over each OTLP transport with OpenTelemetry's own SDK."""

import logging
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

grpc, http = sys.argv[1:]
exporters = {
    "grpc": GrpcExporter(endpoint=grpc, insecure=True),
    "http": HttpExporter(endpoint=f"{http}/v1/logs"),
}
trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("test")
for name, exporter in exporters.items():
    provider = LoggerProvider(resource=Resource.create({"service.name": f"py-{name}"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logging.getLogger(name)
    logger.addHandler(LoggingHandler(logger_provider=provider))
    with tracer.start_as_current_span("order"):
        for i in range(100):
            logger.warning("order %d is late", i, extra={"order": i})
    provider.shutdown()
