//! Reading source corpora: the sixteen-system lines and OTLP JSON files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use trine_model::{Severity, SpanId, TraceId};

use super::template::System;
use crate::record::{Record, Source, StreamLabels};

/// Where the corpora lie when no path is given, seen from the checkout.
pub const DEFAULT_DIR: &str = "../shared/data";
/// Archive of the sixteen systems inside that folder.
const ARCHIVE: &str = "loghub_2k.tar.zst";
/// How the files of the sixteen systems end.
const SUFFIX: &str = "_2k.log";
/// Window a compressed corpus may need, as a power of two (`zstd --long=27`).
const WINDOW_LOG_MAX: u32 = 27;
/// Largest file read from an archive, bytes.
const MAX_FILE: u64 = 64 << 20;

/// The systems at `path`: a folder with `*_2k.log` files, the archive, or a folder that holds it.
pub fn systems(path: &Path) -> Result<Vec<System>> {
    let files = if path.is_dir() && path.join(ARCHIVE).is_file() {
        archive(&path.join(ARCHIVE))?
    } else if path.is_dir() {
        folder(path)?
    } else {
        archive(path)?
    };
    if files.is_empty() {
        bail!(
            "no {SUFFIX} file in {}; give --corpus the folder or the archive that has them",
            path.display()
        );
    }
    Ok(files.iter().map(|(name, text)| System::new(name, text)).collect())
}

fn system_name(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?.strip_suffix(SUFFIX)?;
    Some(name.to_ascii_lowercase())
}

fn folder(path: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(system_name) {
            let bytes = std::fs::read(entry.path())?;
            files.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the regular files of a tar (ustar: 512-byte headers, octal sizes) inside zstd.
fn archive(path: &Path) -> Result<Vec<(String, String)>> {
    const BLOCK: u64 = 512;
    let mut reader = open(path)?;
    let (mut files, mut header) = (Vec::new(), [0u8; BLOCK as usize]);
    loop {
        if let Err(error) = reader.read_exact(&mut header) {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                break;
            }
            return Err(error).with_context(|| format!("read {}", path.display()));
        }
        if header[0] == 0 {
            break;
        }
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim_end_matches('\0').trim().to_owned()
        };
        let (name, size) = (text(0..100), text(124..136));
        let size = u64::from_str_radix(&size, 8)
            .with_context(|| format!("size {size:?} of {name} in {}; is it a tar?", path.display()))?;
        if size > MAX_FILE {
            bail!("{name} in {} has {size} bytes, more than the bound of {MAX_FILE}", path.display());
        }
        let mut bytes = vec![0; size as usize];
        reader.read_exact(&mut bytes)?;
        std::io::copy(&mut reader.by_ref().take(size.next_multiple_of(BLOCK) - size), &mut std::io::sink())?;
        if let Some(name) = system_name(&name) {
            files.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    files.sort();
    Ok(files)
}

/// A file, decompressed when its name ends in `.zst`.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    if path.extension().is_some_and(|e| e == "zst") {
        let mut decoder = zstd::Decoder::new(file)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(file))
}

/// The log records of OTLP JSON files, in order of time, again and again with advancing time.
pub struct OtlpFile {
    labels: Vec<StreamLabels>,
    records: Vec<Record>,
    next: usize,
    /// Added to the times of this round.
    shift_ns: i64,
    span_ns: i64,
    last_ns: i64,
}

impl OtlpFile {
    /// Reads `paths` (one export request per line, plain or `.zst`); times are moved so that the first
    /// record lies at `start_ns`.
    pub fn new(paths: &[PathBuf], start_ns: i64) -> Result<Self> {
        let (mut labels, mut by_labels, mut records) = (Vec::new(), HashMap::new(), Vec::new());
        for path in paths {
            for (number, line) in BufReader::new(open(path)?).lines().enumerate() {
                let request: Value = serde_json::from_str(&line?)
                    .with_context(|| format!("line {} of {} is no JSON", number + 1, path.display()))?;
                for resource in list(&request, "resourceLogs") {
                    let get = |key: &str| attribute(&resource["resource"], key);
                    let key = (get("service.name"), get("k8s.pod.name"), get("service.namespace"));
                    let stream = *by_labels.entry(key.clone()).or_insert_with(|| {
                        let (service, pod, namespace) = key;
                        labels.push(StreamLabels { service, pod, namespace });
                        labels.len() - 1
                    });
                    for scope in list(resource, "scopeLogs") {
                        records.extend(list(scope, "logRecords").iter().map(|r| record(r, stream)));
                    }
                }
            }
        }
        records.sort_by_key(|r| r.timestamp_ns);
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            bail!("no log record in {paths:?}; give files of OTLP JSON export requests");
        };
        let span_ns = last.timestamp_ns - first.timestamp_ns + 1_000_000_000;
        let shift_ns = start_ns - first.timestamp_ns;
        Ok(Self { labels, records, next: 0, shift_ns, span_ns, last_ns: i64::MIN })
    }

    /// Records of one round.
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Never: an empty file is refused.
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn attribute(owner: &Value, key: &str) -> String {
    let found = list(owner, "attributes").iter().find(|a| a["key"] == key);
    found.and_then(|a| a["value"]["stringValue"].as_str()).unwrap_or_default().to_owned()
}

fn record(value: &Value, stream: usize) -> Record {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let level = Severity::from_number(value["severityNumber"].as_i64().unwrap_or(0)).level();
    Record {
        timestamp_ns: text("timeUnixNano").parse().unwrap_or(0),
        stream,
        level,
        line: value["body"]["stringValue"].as_str().unwrap_or_default().to_owned(),
        trace_id: TraceId::from_hex(text("traceId").as_bytes()).ok(),
        span_id: SpanId::from_hex(text("spanId").as_bytes()).ok(),
        attributes: Vec::new(),
    }
}

impl Source for OtlpFile {
    fn streams(&self) -> &[StreamLabels] {
        &self.labels
    }

    fn common_substring(&self) -> &'static str {
        "ontroller#"
    }

    fn next_into(&mut self, record: &mut Record) {
        if self.next == self.records.len() {
            (self.next, self.shift_ns) = (0, self.shift_ns + self.span_ns);
        }
        record.clone_from(&self.records[self.next]);
        self.next += 1;
        record.timestamp_ns = (record.timestamp_ns + self.shift_ns).max(self.last_ns + 1);
        self.last_ns = record.timestamp_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlp_json_is_read_in_order_of_time_and_repeats_later() {
        let dir = std::env::temp_dir().join(format!("trine-bench-otlp-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("logs.jsonl");
        let request = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"ts"}}]},"scopeLogs":[{"logRecords":[{"timeUnixNano":"2000","body":{"stringValue":"b"},"severityNumber":17},{"timeUnixNano":"1000","body":{"stringValue":"a"},"traceId":"49a51828322183eb20bfe4ace3060000"}]}]}]}"#;
        std::fs::write(&path, request).unwrap();
        let mut source = OtlpFile::new(&[path], 5_000).unwrap();
        let mut read = || {
            let mut record = Record::default();
            source.next_into(&mut record);
            record
        };
        let (a, b, again) = (read(), read(), read());
        assert_eq!((a.line.as_str(), a.timestamp_ns, a.trace_id.is_some()), ("a", 5_000, true));
        assert_eq!((b.line.as_str(), b.timestamp_ns, b.level), ("b", 6_000, trine_model::Level::Error));
        assert_eq!((again.line.as_str(), again.timestamp_ns), ("a", 5_000 + 1_000_001_000));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
