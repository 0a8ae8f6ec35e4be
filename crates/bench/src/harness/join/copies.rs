//! Copies of a real system's telemetry: the files of OTLP JSON lines, with other times and ids in each copy.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::harness::signal::Signal;

/// A copy lies so much later than the one before, nanoseconds: whole minutes, and more than the files span.
const SHIFT_NS: i64 = 16 * 3600 * 1_000_000_000;
const MINUTE_NS: i64 = 60_000_000_000;
/// Spans are slow when they take longer, nanoseconds.
const SLOW_NS: i64 = 1_000_000_000;
/// Severity numbers of ERROR.
const ERROR: std::ops::RangeInclusive<i64> = 17..=20;
/// zstd's window in the files, as a power of two.
const MAX_WINDOW_LOG: u32 = 31;
/// The metric that the join names in one of its forms.
pub const METRIC: &str = "trainticket_cpu_usage_rate_percent";
/// Digits of a time of our days, hex digits of a trace id and of a span id, as JSON and the lines have them.
const PLACES: &str =
    r#"UnixNano": ?"(\d{19})"|[Tt]raceI[Dd]"?: ?"?([0-9a-f]{32})|[Ss]panI[Dd]"?: ?"?([0-9a-f]{16})"#;
/// Of an id these digits differ between copies.
const ID_DIGITS: usize = 8;

/// One export request and where its times and ids stand.
pub struct Request {
    /// What it holds.
    pub signal: Signal,
    body: Vec<u8>,
    times: Vec<(usize, i64)>,
    ids: Vec<(usize, u32)>,
}

impl Request {
    fn new(signal: Signal, body: Vec<u8>, places: &Regex) -> Result<Self> {
        let (mut times, mut ids) = (Vec::new(), Vec::new());
        for found in places.captures_iter(&body) {
            let hex = |at: usize| {
                let digits = std::str::from_utf8(&body[at..at + ID_DIGITS])?;
                anyhow::Ok((at, u32::from_str_radix(digits, 16)?))
            };
            if let Some(time) = found.get(1) {
                times.push((time.start(), std::str::from_utf8(time.as_bytes())?.parse()?));
            } else if let Some(trace) = found.get(2) {
                // Senders may keep the time or nothing at either end of an id.
                ids.push(hex(trace.start() + ID_DIGITS)?);
            } else if let Some(span) = found.get(3) {
                ids.push(hex(span.start())?);
            }
        }
        Ok(Self { signal, body, times, ids })
    }

    /// The request in the copy of that number; the first, 0, is as the file has it.
    pub fn copy(&self, number: u32) -> Vec<u8> {
        let mut body = self.body.clone();
        for (at, ns) in &self.times {
            let mut rest = ns + i64::from(number) * SHIFT_NS;
            for digit in body[*at..*at + 19].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        // An odd factor: no two copies have the same mask.
        let mask = number.wrapping_mul(0x9E37_79B9);
        for (at, id) in &self.ids {
            let mut rest = id ^ mask;
            for digit in body[*at..*at + ID_DIGITS].iter_mut().rev() {
                *digit = b"0123456789abcdef"[(rest % 16) as usize];
                rest /= 16;
            }
        }
        body
    }
}

/// What one copy holds, and what the join finds in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Log records.
    pub logs: u64,
    /// Spans.
    pub spans: u64,
    /// Samples of different series or times.
    pub samples: u64,
    /// Slow spans with an error of their trace between their start and their end.
    pub pairs: u64,
    /// These with each sample of the span's service in the minute of its start.
    pub joined: u64,
    /// The same, of [`METRIC`] alone.
    pub named: u64,
}

/// Collects what the join is made of.
#[derive(Default)]
struct Counter {
    counts: Counts,
    /// Start, end and service of slow spans by trace.
    slow: HashMap<String, Vec<(i64, i64, String)>>,
    /// Trace and time of errors.
    errors: Vec<(String, i64)>,
    seen: HashSet<(u64, i64)>,
    /// Samples by service and minute: all, and those of [`METRIC`].
    samples: HashMap<(String, i64), (u64, u64)>,
}

impl Counter {
    fn take(&mut self, signal: Signal, request: &Value) {
        match signal {
            Signal::Logs => {
                for (_, record) in items(request, ["resourceLogs", "scopeLogs", "logRecords"]) {
                    self.counts.logs += 1;
                    let trace = record["traceId"].as_str().filter(|id| !id.is_empty());
                    if let Some(trace) = trace
                        && ERROR.contains(&record["severityNumber"].as_i64().unwrap_or(0))
                    {
                        self.errors.push((trace.to_owned(), nanos(&record["timeUnixNano"])));
                    }
                }
            }
            Signal::Traces => {
                for (resource, span) in items(request, ["resourceSpans", "scopeSpans", "spans"]) {
                    self.counts.spans += 1;
                    let (start, end) = (nanos(&span["startTimeUnixNano"]), nanos(&span["endTimeUnixNano"]));
                    if end - start > SLOW_NS {
                        let trace = span["traceId"].as_str().unwrap_or_default().to_owned();
                        self.slow.entry(trace).or_default().push((start, end, service(resource)));
                    }
                }
            }
            Signal::Metrics => {
                for (resource, metric) in items(request, ["resourceMetrics", "scopeMetrics", "metrics"]) {
                    let service = service(resource);
                    let name = metric["name"].as_str().unwrap_or_default();
                    for point in metric["gauge"]["dataPoints"].as_array().into_iter().flatten() {
                        let at = nanos(&point["timeUnixNano"]);
                        let mut series = DefaultHasher::new();
                        (resource.to_string(), name, point["attributes"].to_string()).hash(&mut series);
                        if self.seen.insert((series.finish(), at)) {
                            self.counts.samples += 1;
                            let minute = (service.clone(), at.div_euclid(MINUTE_NS));
                            let (all, named) = self.samples.entry(minute).or_default();
                            *all += 1;
                            *named += u64::from(name == METRIC);
                        }
                    }
                }
            }
        }
    }

    fn finish(self) -> Counts {
        let mut counts = self.counts;
        for (trace, at) in &self.errors {
            for (start, end, service) in self.slow.get(trace).into_iter().flatten() {
                if (start..=end).contains(&at) {
                    let minute = (service.clone(), start.div_euclid(MINUTE_NS));
                    let (all, named) = self.samples.get(&minute).copied().unwrap_or_default();
                    counts.pairs += 1;
                    counts.joined += all;
                    counts.named += named;
                }
            }
        }
        counts
    }
}

/// The items of a request, each with its resource.
fn items<'a>(request: &'a Value, names: [&'a str; 3]) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let list = |value: &'a Value, name: &str| value[name].as_array().into_iter().flatten();
    let [resources, scopes, items] = names;
    list(request, resources).flat_map(move |resource| {
        let scopes = list(resource, scopes);
        scopes.flat_map(move |scope| list(scope, items).map(|item| (&resource["resource"], item)))
    })
}

fn service(resource: &Value) -> String {
    let attributes = resource["attributes"].as_array();
    let named = attributes.into_iter().flatten().find(|a| a["key"] == "service.name");
    named.and_then(|a| a["value"]["stringValue"].as_str()).unwrap_or_default().to_owned()
}

fn nanos(value: &Value) -> i64 {
    value.as_str().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Reads `logs.jsonl.zst`, `spans.jsonl.zst` and `metrics.jsonl.zst` in `folder`. A line that stands there
/// twice counts once: a server takes it for a repeated delivery.
pub fn read(folder: &Path) -> Result<(Vec<Request>, Counts)> {
    let places = Regex::new(PLACES).context("bug: the expression is wrong")?;
    let (mut requests, mut counter) = (Vec::new(), Counter::default());
    for (name, signal) in [("logs", Signal::Logs), ("spans", Signal::Traces), ("metrics", Signal::Metrics)] {
        let path = folder.join(format!("{name}.jsonl.zst"));
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let mut decoder = zstd::stream::read::Decoder::new(file)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        let mut seen = HashSet::new();
        for line in BufReader::new(decoder).lines() {
            let line = line.with_context(|| format!("read {}", path.display()))?;
            if seen.insert(line.clone()) {
                // Python writes numbers that are none without quotes.
                let json = serde_json::from_str(&line.replace(":NaN}", ":0}"))
                    .with_context(|| format!("{} has a line that is no JSON", path.display()))?;
                counter.take(signal, &json);
                requests.push(Request::new(signal, line.into_bytes(), &places)?);
            }
        }
    }
    Ok((requests, counter.finish()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(trace: &str, at: i64) -> Value {
        json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
            "timeUnixNano": at.to_string(), "severityNumber": 17,
            "traceId": trace, "spanId": "0123456789abcdef",
            "body": {"stringValue": format!("TraceID: {trace} SpanID: 0123456789abcdef failed")},
        }]}]}]})
    }

    const TRACE: &str = "49a51828322183eb20bfe4ace3060000";

    #[test]
    fn copies_differ_in_times_and_ids_alone_and_lines_name_the_ids_of_their_record() {
        let places = Regex::new(PLACES).unwrap();
        let at = 1_674_982_122_406_289_933;
        let original = log(TRACE, at).to_string();
        let request = Request::new(Signal::Logs, original.clone().into_bytes(), &places).unwrap();
        assert_eq!(request.copy(0), original.as_bytes());
        let copy: Value = serde_json::from_slice(&request.copy(3)).unwrap();
        let (_, record) = items(&copy, ["resourceLogs", "scopeLogs", "logRecords"]).next().unwrap();
        assert_eq!(nanos(&record["timeUnixNano"]), at + 3 * SHIFT_NS);
        let [trace, span] = ["traceId", "spanId"].map(|id| record[id].as_str().unwrap());
        assert!(trace != TRACE && trace.len() == 32 && span != "0123456789abcdef" && span.len() == 16);
        assert_eq!(record["body"]["stringValue"], format!("TraceID: {trace} SpanID: {span} failed"));
        assert_ne!(request.copy(3), request.copy(4));
    }

    #[test]
    fn the_join_is_counted_by_trace_time_service_and_minute() {
        let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]});
        let minute = 1_674_982_080_000_000_000;
        let span = |start: i64, seconds: i64| {
            json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [{
                "traceId": TRACE, "startTimeUnixNano": start.to_string(),
                "endTimeUnixNano": (start + seconds * 1_000_000_000).to_string(),
            }]}]}]})
        };
        let gauge = |name: &str, at: i64| {
            json!({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [
                {"name": name, "gauge": {"dataPoints": [{"timeUnixNano": at.to_string(), "asDouble": 1.0}]}},
            ]}]}]})
        };
        let mut counter = Counter::default();
        counter.take(Signal::Traces, &span(minute, 5));
        counter.take(Signal::Traces, &span(minute, 1));
        counter.take(Signal::Logs, &log(TRACE, minute + 2_000_000_000));
        counter.take(Signal::Logs, &log(TRACE, minute + 6_000_000_000));
        counter.take(Signal::Logs, &log("00000000000000000000000000000001", minute));
        for (name, at) in [(METRIC, minute), (METRIC, minute), ("up", minute + 1), ("up", minute - 1)] {
            counter.take(Signal::Metrics, &gauge(name, at));
        }
        let want = Counts { logs: 3, spans: 2, samples: 3, pairs: 1, joined: 2, named: 1 };
        assert_eq!(counter.finish(), want);
    }
}
