// Tells the story of `node/otel.js` over each OTLP transport of OpenTelemetry's own SDK: Otel.java GRPC-URL HTTP-URL.
// Ids and the times of spans and logs are the same in every run.

import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.common.KeyValue;
import io.opentelemetry.api.common.Value;
import io.opentelemetry.api.logs.Severity;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.context.Context;
import io.opentelemetry.exporter.otlp.http.logs.OtlpHttpLogRecordExporter;
import io.opentelemetry.exporter.otlp.http.metrics.OtlpHttpMetricExporter;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.logs.OtlpGrpcLogRecordExporter;
import io.opentelemetry.exporter.otlp.metrics.OtlpGrpcMetricExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.common.CompletableResultCode;
import io.opentelemetry.sdk.logs.SdkLoggerProvider;
import io.opentelemetry.sdk.logs.export.BatchLogRecordProcessor;
import io.opentelemetry.sdk.logs.export.LogRecordExporter;
import io.opentelemetry.sdk.metrics.Aggregation;
import io.opentelemetry.sdk.metrics.InstrumentSelector;
import io.opentelemetry.sdk.metrics.SdkMeterProvider;
import io.opentelemetry.sdk.metrics.View;
import io.opentelemetry.sdk.metrics.export.AggregationTemporalitySelector;
import io.opentelemetry.sdk.metrics.export.MetricExporter;
import io.opentelemetry.sdk.metrics.export.PeriodicMetricReader;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.IdGenerator;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;

class Otel {
  /** 2024-05-01T12:00:00Z and so many nanoseconds. */
  static long at(long nanoseconds) {
    return 1_714_564_800_000_000_000L + nanoseconds;
  }

  record Counting(String prefix, AtomicLong traces, AtomicLong spans) implements IdGenerator {
    @Override
    public String generateTraceId() {
      return prefix.repeat(8) + String.format("%024d", traces.incrementAndGet());
    }

    @Override
    public String generateSpanId() {
      return prefix.repeat(8) + String.format("%08d", spans.incrementAndGet());
    }
  }

  record Exporters(String name, SpanExporter spans, LogRecordExporter logs) {}

  static void delivered(CompletableResultCode result) {
    if (!result.join(30, SECONDS).isSuccess()) {
      throw new IllegalStateException("not delivered", result.getFailureThrowable());
    }
  }

  static Resource resource(String name, String instance) {
    return Resource.create(
        Attributes.builder()
            .put("service.name", "java-" + name)
            .put("service.namespace", "shop")
            .put("service.instance.id", instance)
            .put("host.cpus", 2)
            .put("tags", "a", "b")
            .build());
  }

  /** The order, in whose span logs and measurements are made. */
  static Context spans(String prefix, Resource resource, SpanExporter exporter) {
    var tracers =
        SdkTracerProvider.builder()
            .setResource(resource)
            .setIdGenerator(new Counting(prefix, new AtomicLong(), new AtomicLong()))
            .addSpanProcessor(BatchSpanProcessor.builder(exporter).build())
            .build();
    var tracer = tracers.tracerBuilder("shop").setInstrumentationVersion("1.2").build();
    var order =
        tracer.spanBuilder("order").setNoParent().setSpanKind(SpanKind.SERVER).setStartTimestamp(at(0), NANOSECONDS)
            .startSpan();
    order.setAttribute("text", "näme €");
    order.setAttribute("empty", "");
    order.setAttribute("whole", 9007199254740991L);
    order.setAttribute("part", 0.5);
    order.setAttribute("yes", true);
    order.setAttribute(AttributeKey.stringArrayKey("texts"), List.of("a", "b"));
    order.setAttribute(AttributeKey.longArrayKey("wholes"), List.of(1L, -2L));
    order.setAttribute(AttributeKey.doubleArrayKey("parts"), List.of(0.25, 1.5));
    order.setAttribute(AttributeKey.booleanArrayKey("truths"), List.of(true, false));
    var inOrder = Context.root().with(order);
    var pay =
        tracer.spanBuilder("pay").setParent(inOrder).setSpanKind(SpanKind.CLIENT)
            .setStartTimestamp(at(1_000_001), NANOSECONDS).startSpan();
    pay.addEvent(
        "retry", Attributes.builder().put("attempt", 2).put("why", "timed out").build(), at(2_000_002), NANOSECONDS);
    pay.addEvent("gave up", at(3_000_003), NANOSECONDS);
    pay.setStatus(StatusCode.ERROR, "declined");
    pay.end(at(4_000_004), NANOSECONDS);
    var stock =
        tracer.spanBuilder("stock").setParent(inOrder).setStartTimestamp(at(4_100_000), NANOSECONDS).startSpan();
    stock.end(at(4_100_000), NANOSECONDS);
    var mail =
        tracer.spanBuilder("mail").setNoParent().setSpanKind(SpanKind.PRODUCER)
            .addLink(order.getSpanContext(), Attributes.builder().put("reason", "follows").put("number", 1).build())
            .addLink(pay.getSpanContext())
            .setStartTimestamp(at(5_000_000_000L), NANOSECONDS).startSpan();
    mail.end(at(6_000_000_000L), NANOSECONDS);
    var state = TraceState.builder().put("other", "2").put("vendor", "1").build();
    var caller =
        SpanContext.createFromRemoteParent(
            prefix.repeat(8) + "abcdef".repeat(4), "00f067aa0ba902b7", TraceFlags.getSampled(), state);
    var sent =
        tracer.spanBuilder("sent").setParent(Context.root().with(Span.wrap(caller))).setSpanKind(SpanKind.CONSUMER)
            .setStartTimestamp(at(7_000_000_000L), NANOSECONDS).startSpan();
    sent.setStatus(StatusCode.OK);
    sent.end(at(7_000_000_001L), NANOSECONDS);
    order.setStatus(StatusCode.OK);
    order.end(at(10_000_000), NANOSECONDS);
    delivered(tracers.forceFlush());
    tracers.close();
    return inOrder;
  }

  static void logs(Resource resource, LogRecordExporter exporter, Context inOrder) {
    var loggers =
        SdkLoggerProvider.builder()
            .setResource(resource)
            .addLogRecordProcessor(BatchLogRecordProcessor.builder(exporter).build())
            .build();
    var logger = loggers.loggerBuilder("shop.log").setInstrumentationVersion("3").build();
    logger.logRecordBuilder()
        .setTimestamp(at(1), NANOSECONDS).setObservedTimestamp(at(2), NANOSECONDS)
        .setSeverity(Severity.ERROR).setSeverityText("error").setEventName("order.failed")
        .setBody("declined\nby the bank")
        .setAttribute(AttributeKey.longKey("order"), 7L).setAttribute(AttributeKey.doubleKey("rate"), 0.5)
        .setAttribute(AttributeKey.booleanKey("late"), true)
        .setAttribute(AttributeKey.stringArrayKey("tags"), List.of("x", "y"))
        .setContext(inOrder).emit();
    logger.logRecordBuilder()
        .setTimestamp(at(3), NANOSECONDS).setObservedTimestamp(at(4), NANOSECONDS)
        .setBody("neither severity nor span").setContext(Context.root()).emit();
    var body =
        Value.of(
            KeyValue.of("text", Value.of("t")),
            KeyValue.of("whole", Value.of(-3)),
            KeyValue.of("part", Value.of(1.5)),
            KeyValue.of("list", Value.of(Value.of("x"), Value.of(false))),
            KeyValue.of("bytes", Value.of(new byte[] {1, 2, -1})));
    logger.logRecordBuilder()
        .setTimestamp(at(5), NANOSECONDS).setObservedTimestamp(at(6), NANOSECONDS)
        .setSeverity(Severity.INFO2).setBody(body).setContext(Context.root()).emit();
    // Only this SDK sends no time for it.
    logger.logRecordBuilder()
        .setObservedTimestamp(at(8), NANOSECONDS).setSeverity(Severity.TRACE)
        .setBody("no time of its own").setContext(Context.root()).emit();
    delivered(loggers.forceFlush());
    loggers.close();
  }

  static void metrics(Resource resource, MetricExporter exporter, Context inOrder) throws InterruptedException {
    var reader = PeriodicMetricReader.builder(exporter).setInterval(Duration.ofHours(1)).build();
    var meters =
        SdkMeterProvider.builder()
            .setResource(resource)
            .registerMetricReader(reader)
            .registerView(
                InstrumentSelector.builder().setName("size").build(),
                View.builder().setAggregation(Aggregation.base2ExponentialBucketHistogram()).build())
            .build();
    var meter = meters.meterBuilder("shop").setInstrumentationVersion("1.2").build();
    var kind = AttributeKey.stringKey("kind");
    var books = Attributes.of(kind, "book");
    var orders = meter.counterBuilder("orders").setUnit("1").setDescription("Orders taken").build();
    var payload = meter.counterBuilder("payload").setUnit("By").ofDoubles().build();
    var queue = meter.upDownCounterBuilder("queue.length").setUnit("{item}").build();
    var cpu = meter.gaugeBuilder("cpu.utilization").setUnit("1").build();
    var duration =
        meter.histogramBuilder("order.duration").setUnit("s")
            .setExplicitBucketBoundariesAdvice(List.of(0.1, 1.0, 10.0)).build();
    var size = meter.histogramBuilder("size").build();
    var faults = new AtomicLong(100);
    meter.counterBuilder("page.faults").buildWithCallback(result -> result.record(faults.get()));
    meter.upDownCounterBuilder("memory").setUnit("By").buildWithCallback(result -> result.record(4096));
    var room = Attributes.of(AttributeKey.stringKey("room"), "1");
    meter.gaugeBuilder("temperature").setUnit("Cel").buildWithCallback(result -> result.record(-3.5, room));

    orders.add(2, books);
    orders.add(3, Attributes.of(kind, "toy", AttributeKey.booleanKey("gift"), true));
    payload.add(0.5);
    payload.add(1.25);
    queue.add(5);
    queue.add(-2);
    cpu.set(0.75);
    for (var seconds : List.of(0.05, 0.5, 0.5, 5.0, 50.0)) {
      duration.record(seconds, Attributes.empty(), inOrder);
    }
    List.of(0.0, 1.0, 2.0, 4.0).forEach(size::record);
    delivered(meters.forceFlush());
    // Past the millisecond of the first points.
    Thread.sleep(5);
    orders.add(5, books);
    payload.add(1);
    queue.add(-4);
    cpu.set(0.5);
    duration.record(0.5, Attributes.empty(), inOrder);
    List.of(8.0, 0.25).forEach(size::record);
    faults.set(130);
    delivered(meters.forceFlush());
    // The reader's last points are those of before.
    delivered(meters.shutdown());
  }

  public static void main(String[] args) throws InterruptedException {
    var grpc = args[0];
    var http = args[1];
    var all =
        List.of(
            new Exporters(
                "grpc",
                OtlpGrpcSpanExporter.builder().setEndpoint(grpc).build(),
                OtlpGrpcLogRecordExporter.builder().setEndpoint(grpc).setCompression("gzip").build()),
            new Exporters(
                "proto",
                OtlpHttpSpanExporter.builder().setEndpoint(http + "/v1/traces").setCompression("gzip").build(),
                OtlpHttpLogRecordExporter.builder().setEndpoint(http + "/v1/logs").build()));
    for (var prefix = 1; prefix <= all.size(); prefix++) {
      var exporters = all.get(prefix - 1);
      var name = exporters.name();
      var inOrder = spans("" + prefix, resource(name, "one"), exporters.spans());
      logs(resource(name, "one"), exporters.logs(), inOrder);
      for (var instance : List.of("cumulative", "delta")) {
        var temporality =
            instance.equals("delta")
                ? AggregationTemporalitySelector.deltaPreferred()
                : AggregationTemporalitySelector.alwaysCumulative();
        MetricExporter metrics =
            name.equals("grpc")
                ? OtlpGrpcMetricExporter.builder().setEndpoint(grpc).setAggregationTemporalitySelector(temporality)
                    .build()
                : OtlpHttpMetricExporter.builder().setEndpoint(http + "/v1/metrics").setCompression("gzip")
                    .setAggregationTemporalitySelector(temporality).build();
        metrics(resource(name, instance), metrics, inOrder);
      }
    }
  }
}
