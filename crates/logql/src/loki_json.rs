//! Answers as Loki's HTTP API writes them
//! (<https://grafana.com/docs/loki/latest/reference/loki-http-api/>).

use std::{fmt::Write as _, sync::Arc};

use serde_json::json;
use trine_schema::ScanStatsSnapshot;

use crate::{Answer, Label, LabelKind, LabeledEntry, SeriesLabels};

/// The body of `query` and `query_range`. `categorize` is what the request header
/// `X-Loki-Response-Encoding-Flags: categorize-labels` asks for: stream labels alone name the
/// stream, the others stand with each line.
pub fn query_response(answer: &Answer, stats: &ScanStatsSnapshot, categorize: bool) -> String {
    let mut out = String::with_capacity(4096);
    out.push_str(r#"{"status":"success","data":{"resultType":""#);
    out.push_str(match answer {
        Answer::Streams(_) => "streams",
        Answer::Matrix(_) => "matrix",
        Answer::Vector(_) => "vector",
        Answer::Scalar(..) => "scalar",
    });
    out.push('"');
    if categorize && matches!(answer, Answer::Streams(_)) {
        out.push_str(r#","encodingFlags":["categorize-labels"]"#);
    }
    out.push_str(r#","result":"#);
    let mut returned = 0;
    match answer {
        Answer::Streams(streams) => list(&mut out, streams, |out, stream| {
            returned += stream.entries.len();
            open_stream(out, &stream.labels, categorize);
            list(out, &stream.entries, |out, entry| {
                line(out, entry.timestamp, &entry.line, &stream.labels, categorize);
            });
            out.push('}');
        }),
        Answer::Matrix(series) => list(&mut out, series, |out, one| {
            returned += one.points.len();
            metric(out, &one.labels);
            out.push_str(r#","values":"#);
            list(out, &one.points, |out, (time, value)| point(out, *time, *value));
            out.push('}');
        }),
        Answer::Vector(samples) => list(&mut out, samples, |out, sample| {
            returned += 1;
            metric(out, &sample.labels);
            out.push_str(r#","value":"#);
            point(out, sample.timestamp, sample.value);
            out.push('}');
        }),
        Answer::Scalar(time, value) => point(&mut out, *time, *value),
    }
    out.push_str(r#","stats":"#);
    let _ = write!(out, "{}", stats_json(stats, returned));
    if !stats.partial.is_empty() {
        let _ = write!(out, r#"}},"warnings":{}"#, json!(stats.partial));
        out.push('}');
        return out;
    }
    out.push_str("}}");
    out
}

/// One message of `tail`: `{"streams":[...],"dropped_entries":[]}`.
pub fn tail_message(entries: &[LabeledEntry], categorize: bool) -> String {
    let mut streams: Vec<(&Arc<[Label]>, Vec<&LabeledEntry>)> = Vec::new();
    for entry in entries {
        match streams.iter_mut().find(|(labels, _)| **labels == entry.labels) {
            Some((_, members)) => members.push(entry),
            None => streams.push((&entry.labels, vec![entry])),
        }
    }
    let mut out = String::from(r#"{"streams":"#);
    list(&mut out, &streams, |out, (labels, members)| {
        open_stream(out, labels, categorize);
        list(out, members, |out, entry| line(out, entry.timestamp, &entry.line, labels, categorize));
        out.push('}');
    });
    if categorize {
        out.push_str(r#","encodingFlags":["categorize-labels"]"#);
    }
    out.push_str(r#","dropped_entries":[]}"#);
    out
}

fn stats_json(stats: &ScanStatsSnapshot, returned: usize) -> serde_json::Value {
    let seconds = stats.elapsed_ns as f64 / 1e9;
    let per_second = |count: u64| if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 };
    json!({
        "summary": {
            "bytesProcessedPerSecond": per_second(stats.bytes_scanned),
            "linesProcessedPerSecond": per_second(stats.rows_scanned),
            "totalBytesProcessed": stats.bytes_scanned,
            "totalLinesProcessed": stats.rows_scanned,
            "totalPostFilterLines": stats.rows_matched,
            "execTime": seconds,
            "queueTime": 0,
            "subqueries": 0,
            "totalEntriesReturned": returned,
            "splits": 0,
            "shards": 0,
        },
        "trine": {
            "segmentsScanned": stats.segments_scanned,
            "segmentsSkipped": stats.segments_skipped,
            "granulesScanned": stats.granules_scanned,
            "granulesSkipped": stats.granules_skipped,
            "partial": stats.partial,
        },
    })
}

fn list<T>(out: &mut String, items: &[T], mut each: impl FnMut(&mut String, &T)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        each(out, item);
    }
    out.push(']');
}

/// Appends a JSON string.
fn text(out: &mut String, value: &str) {
    out.push('"');
    let mut copied = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&value[copied..at]);
        copied = at + 1;
        let _ = match byte {
            b'"' => write!(out, "\\\""),
            b'\\' => write!(out, "\\\\"),
            b'\n' => write!(out, "\\n"),
            b'\r' => write!(out, "\\r"),
            b'\t' => write!(out, "\\t"),
            other => write!(out, "\\u{other:04x}"),
        };
    }
    out.push_str(&value[copied..]);
    out.push('"');
}

fn object<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push('{');
    for (i, (name, value)) in pairs.enumerate() {
        if i > 0 {
            out.push(',');
        }
        text(out, name);
        out.push(':');
        text(out, value);
    }
    out.push('}');
}

fn of_kind(labels: &[Label], kind: LabelKind) -> impl Iterator<Item = (&str, &str)> {
    labels
        .iter()
        .filter(move |label| label.kind == kind)
        .map(|label| (label.name.as_str(), label.value.as_str()))
}

fn open_stream(out: &mut String, labels: &[Label], categorize: bool) {
    out.push_str(r#"{"stream":"#);
    if categorize {
        object(out, of_kind(labels, LabelKind::Stream));
    } else {
        object(out, labels.iter().map(|label| (label.name.as_str(), label.value.as_str())));
    }
    out.push_str(r#","values":"#);
}

fn line(out: &mut String, timestamp: i64, line: &str, labels: &[Label], categorize: bool) {
    let _ = write!(out, "[\"{timestamp}\",");
    text(out, line);
    if categorize {
        out.push_str(",{");
        let mut comma = "";
        for (name, kind) in [("structuredMetadata", LabelKind::Metadata), ("parsed", LabelKind::Parsed)] {
            if labels.iter().any(|label| label.kind == kind) {
                let _ = write!(out, "{comma}\"{name}\":");
                object(out, of_kind(labels, kind));
                comma = ",";
            }
        }
        out.push('}');
    }
    out.push(']');
}

fn metric(out: &mut String, labels: &SeriesLabels) {
    out.push_str(r#"{"metric":"#);
    object(out, labels.0.iter().map(|(name, value)| (name.as_str(), value.as_str())));
}

/// `[seconds,"value"]`
fn point(out: &mut String, time: i64, value: f64) {
    let (seconds, milliseconds) =
        (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000) / 1_000_000);
    let _ = write!(out, "[{seconds}");
    if milliseconds > 0 {
        let fraction = format!("{milliseconds:03}");
        let _ = write!(out, ".{}", fraction.trim_end_matches('0'));
    }
    out.push_str(",\"");
    let _ = match value {
        value if value.is_nan() => write!(out, "NaN"),
        value if value.is_infinite() => write!(out, "{}Inf", if value > 0.0 { "+" } else { "-" }),
        value => write!(out, "{value}"),
    };
    out.push_str("\"]");
}
