//! Samples as Prometheus remote write, 1.0 (`prometheus.WriteRequest` of `prompb/remote.proto`) and 2.0
//! (`io.prometheus.write.v2.Request` of `prompb/io/prometheus/write/v2/types.proto`), in a snappy block.

use std::collections::HashMap;

use anyhow::{Context, Result};

use super::protobuf::{bytes, double, message, number, packed, varint};

/// Label names and values, sorted by name, the metric's name under `__name__`.
pub type Labels = Vec<(String, String)>;

/// One series of a request: its labels and samples (Unix milliseconds, value).
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// Sorted by name.
    pub labels: &'a Labels,
    /// In order of time.
    pub samples: &'a [(i64, f64)],
}

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

/// Writes requests; keeps its buffers.
pub struct RemoteWrite {
    version: Version,
    plain: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl RemoteWrite {
    /// An encoder for one version.
    pub fn new(version: Version) -> Self {
        Self { version, plain: Vec::new(), snappy: snap::raw::Encoder::new() }
    }

    /// Appends a body to `out`.
    pub fn encode(&mut self, series: &[Series<'_>], out: &mut Vec<u8>) -> Result<()> {
        self.plain.clear();
        match self.version {
            Version::V1 => series.iter().for_each(|s| series_v1(s, &mut self.plain)),
            Version::V2 => request_v2(series, &mut self.plain),
        }
        let start = out.len();
        out.resize(start + snap::raw::max_compress_len(self.plain.len()), 0);
        let written = self.snappy.compress(&self.plain, &mut out[start..]);
        out.truncate(start + written.context("a push is larger than snappy can hold")?);
        Ok(())
    }
}

fn series_v1(series: &Series<'_>, out: &mut Vec<u8>) {
    message(1, out, |out| {
        for (name, value) in series.labels {
            message(1, out, |out| {
                bytes(1, name.as_bytes(), out);
                bytes(2, value.as_bytes(), out);
            });
        }
        samples(2, series.samples, out);
    });
}

/// The same message in both versions.
fn samples(field: u32, samples: &[(i64, f64)], out: &mut Vec<u8>) {
    for (at, value) in samples {
        message(field, out, |out| {
            double(1, *value, out);
            number(2, *at as u64, out);
        });
    }
}

/// Labels are places in a table of symbols, whose first is empty.
fn request_v2(series: &[Series<'_>], out: &mut Vec<u8>) {
    let (mut symbols, mut places) = (vec![""], HashMap::new());
    let refs: Vec<Vec<u64>> = series
        .iter()
        .map(|s| {
            let texts = s.labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
            let place = |text| {
                *places.entry(text).or_insert_with(|| {
                    symbols.push(text);
                    symbols.len() as u64 - 1
                })
            };
            texts.map(place).collect()
        })
        .collect();
    for symbol in symbols {
        bytes(4, symbol.as_bytes(), out);
    }
    for (series, refs) in series.iter().zip(&refs) {
        message(5, out, |out| {
            packed(1, refs, out, varint);
            samples(2, series.samples, out);
        });
    }
}
