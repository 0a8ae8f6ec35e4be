//! Prometheus remote write, versions 1.0 and 2.0
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec/>, …`_2_0/`).
//!
//! How requests map:
//! - a series is its labels: in any order, names once, empty values dropped, with `__name__`;
//! - its samples may come in any order; histograms of both kinds (integer, float) and with custom bounds are
//!   kept as [`trine_schema::NativeHistogram`], those finer than schema 8 are merged down to it;
//! - metadata become a row per metric and request. Version 2 sends them with each series: the metric of
//!   `x_bucket`, `x_sum`, `x_count` is `x` where the type is histogram or summary;
//! - a bad series rejects its samples, a bad sample itself; the others are taken.

mod histogram;
mod v1;
mod v2;

pub use v1::decode_v1;
pub use v2::decode_v2;

use trine_schema::{MetricBatch, RowKind};

use crate::DecodeError;

/// The versions, which share an address and differ in their `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

impl Version {
    /// From a `Content-Type` value; without a `proto` parameter it is version 1.
    pub fn from_content_type(text: &str) -> Result<Self, DecodeError> {
        let unknown = || DecodeError::UnknownContentType(text.chars().take(100).collect());
        let mut parts = text.split(';').map(str::trim);
        if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-protobuf")) {
            return Err(unknown());
        }
        let parameters = parts.filter_map(|part| part.split_once('='));
        let proto = parameters
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("proto"))
            .map(|(_, value)| value.trim().trim_matches('"'))
            .next_back();
        match proto {
            None | Some("prometheus.WriteRequest") => Ok(Self::V1),
            Some("io.prometheus.write.v2.Request") => Ok(Self::V2),
            Some(_) => Err(unknown()),
        }
    }
}

/// What was written, for the headers of an answer to version 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// `X-Prometheus-Remote-Write-Samples-Written`: float samples.
    pub samples: usize,
    /// `X-Prometheus-Remote-Write-Histograms-Written`: native histograms.
    pub histograms: usize,
    /// `X-Prometheus-Remote-Write-Exemplars-Written`.
    pub exemplars: usize,
}

impl Written {
    /// Counts the rows of a batch; without one nothing was written.
    pub fn of(batch: Option<&MetricBatch>) -> Self {
        let Some(batch) = batch else { return Self::default() };
        Self {
            samples: batch.rows_of(RowKind::Float),
            histograms: batch.rows_of(RowKind::Histogram),
            exemplars: batch.rows_of(RowKind::Exemplar),
        }
    }
}
