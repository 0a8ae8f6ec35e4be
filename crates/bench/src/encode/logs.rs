//! Log records as request bodies and files: field tags are those of
//! `opentelemetry/proto/logs/v1/logs.proto` and of Loki's `pkg/push/push.proto`.

use anyhow::{Context, Result};
use trine_model::Level;

use super::protobuf::{bytes, fixed64, message, number, resource, text_value, varint};
use crate::record::{Record, StreamLabels, severity_number};

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// Only the bodies, one per line.
    Lines,
    /// One JSON object per line with all fields.
    Jsonl,
    /// Frames of Loki push requests: protobuf in snappy.
    Loki,
    /// Frames of OTLP export requests: protobuf, not compressed.
    Otlp,
    /// Frames of [`Format::Jsonl`] text.
    JsonBodies,
    /// ClickHouse's RowBinary: time, service, pod, namespace, level, body, trace id, span id.
    RowBinary,
}

impl Format {
    /// True for formats that consist of frames.
    pub const fn framed(self) -> bool {
        matches!(self, Self::Loki | Self::Otlp | Self::JsonBodies)
    }

    /// How files of this format end.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Lines => "log",
            Self::Jsonl => "jsonl",
            Self::Loki => "loki",
            Self::Otlp => "otlp",
            Self::JsonBodies => "jsonbodies",
            Self::RowBinary => "rowbinary",
        }
    }
}

/// Writes batches; keeps its buffers.
pub struct Encoder {
    format: Format,
    by_stream: Vec<(usize, Vec<usize>)>,
    plain: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl Encoder {
    /// An encoder for `format`.
    pub fn new(format: Format) -> Self {
        Self { format, by_stream: Vec::new(), plain: Vec::new(), snappy: snap::raw::Encoder::new() }
    }

    /// The format it writes.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Appends `records` to `out` as one body.
    pub fn encode(&mut self, records: &[Record], streams: &[StreamLabels], out: &mut Vec<u8>) -> Result<()> {
        match self.format {
            Format::Lines => {
                for record in records {
                    out.extend_from_slice(record.line.as_bytes());
                    out.push(b'\n');
                }
            }
            Format::Jsonl | Format::JsonBodies => {
                for record in records {
                    json_line(record, &streams[record.stream], out);
                }
            }
            Format::RowBinary => {
                for record in records {
                    row_binary(record, &streams[record.stream], out);
                }
            }
            Format::Otlp => {
                self.group(records);
                for (stream, members) in &self.by_stream {
                    otlp_resource(records, members, &streams[*stream], out);
                }
            }
            Format::Loki => {
                self.group(records);
                self.plain.clear();
                for (stream, members) in &self.by_stream {
                    loki_stream(records, members, &streams[*stream], &mut self.plain);
                }
                let start = out.len();
                out.resize(start + snap::raw::max_compress_len(self.plain.len()), 0);
                let written = self
                    .snappy
                    .compress(&self.plain, &mut out[start..])
                    .context("a push is larger than snappy can hold")?;
                out.truncate(start + written);
            }
        }
        Ok(())
    }

    /// Sorts the batch's records by stream, keeping their order inside a stream.
    fn group(&mut self, records: &[Record]) {
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|i| records[*i].stream);
        self.by_stream.clear();
        for index in order {
            let stream = records[index].stream;
            match self.by_stream.last_mut() {
                Some((last, members)) if *last == stream => members.push(index),
                _ => self.by_stream.push((stream, vec![index])),
            }
        }
    }
}

fn json_line(record: &Record, stream: &StreamLabels, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Labels are generated and need no escaping; bodies do.
    _ = write!(
        out,
        r#"{{"ts":{},"service_name":"{}","pod":"{}","namespace":"{}","level":"{}""#,
        record.timestamp_ns,
        stream.service,
        stream.pod,
        stream.namespace,
        record.level.name()
    );
    if let Some(trace) = record.trace_id {
        _ = write!(out, r#","trace_id":"{trace}""#);
    }
    if let Some(span) = record.span_id {
        _ = write!(out, r#","span_id":"{span}""#);
    }
    for (key, value) in &record.attributes {
        _ = write!(out, r#","{key}":"#);
        _ = serde_json::to_writer(&mut *out, value);
    }
    out.extend_from_slice(br#","line":"#);
    _ = serde_json::to_writer(&mut *out, &record.line);
    out.extend_from_slice(b"}\n");
}

fn row_binary(record: &Record, stream: &StreamLabels, out: &mut Vec<u8>) {
    let mut text = |value: &str| {
        varint(value.len() as u64, out);
        out.extend_from_slice(value.as_bytes());
    };
    text(&stream.service);
    text(&stream.pod);
    text(&stream.namespace);
    text(record.level.name());
    text(&record.line);
    text(&record.trace_id.map(|t| t.to_string()).unwrap_or_default());
    text(&record.span_id.map(|s| s.to_string()).unwrap_or_default());
    out.extend_from_slice(&record.timestamp_ns.to_le_bytes());
}

fn otlp_resource(records: &[Record], members: &[usize], stream: &StreamLabels, out: &mut Vec<u8>) {
    message(1, out, |out| {
        resource(stream, out);
        message(2, out, |out| {
            for member in members {
                otlp_record(&records[*member], out);
            }
        });
    });
}

fn otlp_record(record: &Record, out: &mut Vec<u8>) {
    message(2, out, |out| {
        fixed64(1, record.timestamp_ns as u64, out);
        if record.level != Level::Unset {
            number(2, u64::from(severity_number(record.level)), out);
            bytes(3, record.level.name().as_bytes(), out);
        }
        message(5, out, |out| bytes(1, record.line.as_bytes(), out));
        for (key, value) in &record.attributes {
            text_value(6, key, value, out);
        }
        if let Some(trace) = record.trace_id {
            bytes(9, &trace.0, out);
        }
        if let Some(span) = record.span_id {
            bytes(10, &span.0, out);
        }
        fixed64(11, record.timestamp_ns as u64, out);
    });
}

/// The label set as Loki writes it.
pub fn loki_labels(stream: &StreamLabels) -> String {
    format!(
        r#"{{namespace="{}", pod="{}", service_name="{}"}}"#,
        stream.namespace, stream.pod, stream.service
    )
}

fn loki_stream(records: &[Record], members: &[usize], stream: &StreamLabels, out: &mut Vec<u8>) {
    message(1, out, |out| {
        bytes(1, loki_labels(stream).as_bytes(), out);
        for member in members {
            let record = &records[*member];
            message(2, out, |out| {
                message(1, out, |out| {
                    number(1, record.timestamp_ns.div_euclid(1_000_000_000) as u64, out);
                    number(2, record.timestamp_ns.rem_euclid(1_000_000_000) as u64, out);
                });
                bytes(2, record.line.as_bytes(), out);
                let mut metadata = |key: &str, value: &str| {
                    message(3, out, |out| {
                        bytes(1, key.as_bytes(), out);
                        bytes(2, value.as_bytes(), out);
                    });
                };
                if record.level != Level::Unset {
                    metadata("level", record.level.name());
                }
                if let Some(trace) = record.trace_id {
                    metadata("trace_id", &trace.to_string());
                }
                if let Some(span) = record.span_id {
                    metadata("span_id", &span.to_string());
                }
                for (key, value) in &record.attributes {
                    metadata(key, value);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use trine_model::{SpanId, TraceId};

    fn sample() -> (Vec<Record>, Vec<StreamLabels>) {
        let streams = vec![StreamLabels { service: "s".into(), pod: "p".into(), namespace: "n".into() }];
        let record = Record {
            timestamp_ns: 1_000_000_002,
            level: Level::Warn,
            line: "a \"b\"\n".repeat(40),
            trace_id: Some(TraceId([1; 16])),
            span_id: Some(SpanId([2; 8])),
            ..Record::default()
        };
        (vec![record], streams)
    }

    fn encode(format: Format) -> Vec<u8> {
        let (records, streams) = sample();
        let mut out = Vec::new();
        Encoder::new(format).encode(&records, &streams, &mut out).unwrap();
        out
    }

    /// Walks a message and yields (field, bytes) of its length-delimited fields.
    fn fields(mut rest: &[u8]) -> Vec<(u64, &[u8])> {
        fn number(rest: &mut &[u8]) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = rest[0];
                *rest = &rest[1..];
                value |= u64::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    return value;
                }
            }
        }
        let mut out = Vec::new();
        while !rest.is_empty() {
            let key = number(&mut rest);
            let len = match key & 7 {
                0 => {
                    number(&mut rest);
                    continue;
                }
                1 => 8,
                _ => number(&mut rest) as usize,
            };
            out.push((key >> 3, &rest[..len]));
            rest = &rest[len..];
        }
        out
    }

    #[test]
    fn otlp_nests_resource_scope_and_record() {
        let body = encode(Format::Otlp);
        let resource_logs = fields(&body)[0].1;
        let scope_logs = fields(resource_logs).into_iter().find(|f| f.0 == 2).unwrap().1;
        let record = fields(fields(scope_logs)[0].1);
        let get = |n: u64| record.iter().find(|f| f.0 == n).unwrap().1;
        assert_eq!(get(1), 1_000_000_002u64.to_le_bytes());
        assert_eq!((get(3), get(9), get(10)), (&b"WARN"[..], &[1u8; 16][..], &[2u8; 8][..]));
        assert_eq!(fields(get(5))[0].1, sample().0[0].line.as_bytes());
    }

    #[test]
    fn loki_is_snappy_with_labels_entries_and_metadata() {
        let plain = snap::raw::Decoder::new().decompress_vec(&encode(Format::Loki)).unwrap();
        let stream = fields(fields(&plain)[0].1);
        assert_eq!(stream[0].1, br#"{namespace="n", pod="p", service_name="s"}"#);
        let entry = fields(stream[1].1);
        assert_eq!(entry[0].1, [8, 1, 16, 2]);
        assert_eq!(entry[1].1, sample().0[0].line.as_bytes());
        assert_eq!(fields(entry[2].1), [(1, &b"level"[..]), (2, &b"WARN"[..])]);
    }

    #[test]
    fn json_lines_parse() {
        let value: serde_json::Value = serde_json::from_slice(&encode(Format::Jsonl)).unwrap();
        assert_eq!(value["line"], sample().0[0].line);
        assert_eq!(value["trace_id"], "01010101010101010101010101010101");
        assert_eq!(value["ts"], 1_000_000_002);
    }
}
