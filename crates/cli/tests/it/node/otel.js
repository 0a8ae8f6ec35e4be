// Tells one story over each OTLP transport of OpenTelemetry's own SDK, and its spans in Zipkin's and Jaeger's way:
// otel.js GRPC-URL HTTP-URL SERVER-URL. Ids and the times of spans and logs are the same in every run;
// `java/Otel.java` tells the same story.
"use strict";

const {
  createTraceState, diag, DiagLogLevel, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace,
} = require("@opentelemetry/api");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");
const { BatchLogRecordProcessor, LoggerProvider } = require("@opentelemetry/sdk-logs");
const {
  AggregationTemporality, AggregationType, MeterProvider, PeriodicExportingMetricReader,
} = require("@opentelemetry/sdk-metrics");

const { JaegerExporter } = require("@opentelemetry/exporter-jaeger");
const { ZipkinExporter } = require("@opentelemetry/exporter-zipkin");

const [grpc, http, server] = process.argv.slice(2);
const exporter = (signal, name, transport) =>
  require(`@opentelemetry/exporter-${signal}-otlp-${transport}`)[`OTLP${name}Exporter`];
const transports = { grpc: [grpc, ""], proto: [http, "gzip"], http: [http, "none"] };

// What an exporter could not deliver is only told to the diagnostics.
let failures = 0;
const failed = (...what) => {
  failures += 1;
  console.error(...what);
};
diag.setLogger({ error: failed, warn: failed, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

// 2024-05-01T12:00:00Z and so many nanoseconds.
const at = (nanoseconds) => [1714564800 + Math.floor(nanoseconds / 1e9), nanoseconds % 1e9];

class Counting {
  constructor(prefix) {
    this.prefix = prefix;
    this.traces = 0;
    this.spans = 0;
  }
  generateTraceId() {
    return `${this.prefix}`.repeat(8) + `${++this.traces}`.padStart(24, "0");
  }
  generateSpanId() {
    return `${this.prefix}`.repeat(8) + `${++this.spans}`.padStart(8, "0");
  }
}

// The order, in whose span logs and measurements are made.
async function spans(prefix, resource, spanExporter) {
  const tracers = new BasicTracerProvider({
    resource,
    idGenerator: new Counting(prefix),
    spanProcessors: [new BatchSpanProcessor(spanExporter)],
  });
  const tracer = tracers.getTracer("shop", "1.2");
  const order = tracer.startSpan("order", { kind: SpanKind.SERVER, startTime: at(0), root: true });
  order.setAttributes({
    text: "näme €", empty: "", whole: 9007199254740991, part: 0.5, yes: true,
    texts: ["a", "b"], wholes: [1, -2], parts: [0.25, 1.5], truths: [true, false],
  });
  const inOrder = trace.setSpan(ROOT_CONTEXT, order);
  const pay = tracer.startSpan("pay", { kind: SpanKind.CLIENT, startTime: at(1_000_001) }, inOrder);
  pay.addEvent("retry", { attempt: 2, why: "timed out" }, at(2_000_002));
  pay.addEvent("gave up", {}, at(3_000_003));
  pay.setStatus({ code: SpanStatusCode.ERROR, message: "declined" });
  pay.end(at(4_000_004));
  const stock = tracer.startSpan("stock", { startTime: at(4_100_000) }, inOrder);
  stock.end(at(4_100_000));
  const links = [
    { context: order.spanContext(), attributes: { number: 1, reason: "follows" } },
    { context: pay.spanContext() },
  ];
  const mail = tracer.startSpan("mail", { kind: SpanKind.PRODUCER, startTime: at(5e9), links, root: true });
  mail.end(at(6e9));
  const caller = trace.setSpanContext(ROOT_CONTEXT, {
    traceId: `${prefix}`.repeat(8) + "abcdef".repeat(4),
    spanId: "00f067aa0ba902b7",
    traceFlags: 1,
    isRemote: true,
    traceState: createTraceState("vendor=1,other=2"),
  });
  const sent = tracer.startSpan("sent", { kind: SpanKind.CONSUMER, startTime: at(7e9) }, caller);
  sent.setStatus({ code: SpanStatusCode.OK });
  sent.end(at(7e9 + 1));
  order.setStatus({ code: SpanStatusCode.OK });
  order.end(at(10_000_000));
  await tracers.shutdown();
  return inOrder;
}

async function logs(resource, options, name, inOrder) {
  const Logs = exporter("logs", "Log", name);
  const processors = [new BatchLogRecordProcessor({ exporter: new Logs(options("v1/logs")) })];
  const loggers = new LoggerProvider({ resource, processors });
  const logger = loggers.getLogger("shop.log", "3");
  logger.emit({
    timestamp: at(1), observedTimestamp: at(2), severityNumber: 17, severityText: "error", eventName: "order.failed",
    body: "declined\nby the bank", attributes: { late: true, order: 7, rate: 0.5, tags: ["x", "y"] }, context: inOrder,
  });
  logger.emit({ timestamp: at(3), observedTimestamp: at(4), body: "neither severity nor span", context: ROOT_CONTEXT });
  logger.emit({
    timestamp: at(5), observedTimestamp: at(6), severityNumber: 10, context: ROOT_CONTEXT,
    body: { text: "t", whole: -3, part: 1.5, list: ["x", false], bytes: new Uint8Array([1, 2, 255]) },
  });
  await loggers.shutdown();
}

async function metrics(resource, options, name, temporality, inOrder) {
  const Metrics = exporter("metrics", "Metric", name);
  const reader = new PeriodicExportingMetricReader({
    exporter: new Metrics({ ...options("v1/metrics"), temporalityPreference: temporality }),
    exportIntervalMillis: 3_600_000,
  });
  const exponential = { type: AggregationType.EXPONENTIAL_HISTOGRAM };
  const views = [{ instrumentName: "size", aggregation: exponential }];
  const meters = new MeterProvider({ resource, readers: [reader], views });
  const meter = meters.getMeter("shop", "1.2");
  const orders = meter.createCounter("orders", { unit: "1", description: "Orders taken" });
  const payload = meter.createCounter("payload", { unit: "By" });
  const queue = meter.createUpDownCounter("queue.length", { unit: "{item}" });
  const cpu = meter.createGauge("cpu.utilization", { unit: "1" });
  const duration = meter.createHistogram("order.duration", {
    unit: "s",
    advice: { explicitBucketBoundaries: [0.1, 1, 10] },
  });
  const size = meter.createHistogram("size");
  let faults = 100;
  meter.createObservableCounter("page.faults").addCallback((result) => result.observe(faults));
  meter.createObservableUpDownCounter("memory", { unit: "By" }).addCallback((result) => result.observe(4096));
  meter.createObservableGauge("temperature", { unit: "Cel" })
    .addCallback((result) => result.observe(-3.5, { room: "1" }));

  orders.add(2, { kind: "book" });
  orders.add(3, { kind: "toy", gift: true });
  payload.add(0.5);
  payload.add(1.25);
  queue.add(5);
  queue.add(-2);
  cpu.record(0.75);
  [0.05, 0.5, 0.5, 5, 50].forEach((seconds) => duration.record(seconds, {}, inOrder));
  [0, 1, 2, 4].forEach((bytes) => size.record(bytes));
  await meters.forceFlush();
  // Past the millisecond of the first points.
  await new Promise((done) => setTimeout(done, 5));
  orders.add(5, { kind: "book" });
  payload.add(1);
  queue.add(-4);
  cpu.record(0.5);
  duration.record(0.5, {}, inOrder);
  [8, 0.25].forEach((bytes) => size.record(bytes));
  faults = 130;
  await meters.shutdown();
}

async function main() {
  const resource = (name, instance) => resourceFromAttributes({
    "service.name": `node-${name}`,
    "service.namespace": "shop",
    "service.instance.id": instance,
    "host.cpus": 2,
    tags: ["a", "b"],
  });
  let prefix = 0;
  for (const [name, [base, compression]] of Object.entries(transports)) {
    const options = (path) => (name === "grpc" ? { url: base } : { url: `${base}/${path}`, compression });
    const Spans = exporter("trace", "Trace", name);
    const inOrder = await spans(++prefix, resource(name, "one"), new Spans(options("v1/traces")));
    await logs(resource(name, "one"), options, name, inOrder);
    const { CUMULATIVE, DELTA } = AggregationTemporality;
    await metrics(resource(name, "cumulative"), options, name, CUMULATIVE, inOrder);
    await metrics(resource(name, "delta"), options, name, DELTA, inOrder);
  }
  await spans(++prefix, resource("zipkin", "one"), new ZipkinExporter({ url: `${server}/api/v2/spans` }));
  await spans(++prefix, resource("jaeger", "one"), new JaegerExporter({ endpoint: `${server}/api/traces` }));
  process.exitCode = failures === 0 ? 0 : 1;
}

main();
