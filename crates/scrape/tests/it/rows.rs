//! Batches as lines of text.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    datatypes::{Float64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use trine_schema::{
    Metadata, MetricBatch, NativeHistogram, StreamRegistry,
    metrics::{METRIC_NAME, STALE_NAN, column},
};

/// One line per row: time in milliseconds, `name{labels}`, what it holds. Durations are left out, since they
/// differ from run to run.
pub fn lines(batch: &MetricBatch, registry: &Arc<StreamRegistry>) -> Vec<String> {
    let records = &batch.records;
    let stream = records.column(column::STREAM).as_primitive::<UInt32Type>();
    let time = records.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
    let kind = records.column(column::KIND).as_primitive::<UInt8Type>();
    let value = records.column(column::VALUE).as_primitive::<Float64Type>();
    let start = records.column(column::START).as_primitive::<TimestampNanosecondType>();
    let payload = records.column(column::PAYLOAD).as_binary::<i32>();
    let number = |value: f64| match value.to_bits() {
        STALE_NAN => "stale".to_owned(),
        _ => value.to_string(),
    };
    (0..records.num_rows())
        .map(|row| {
            let series = registry.get(stream.value(row));
            let labels = series.labels.iter().filter(|(name, _)| *name != METRIC_NAME);
            let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
            let name = series.labels.get(METRIC_NAME).unwrap_or_default();
            let text = || std::str::from_utf8(payload.value(row)).unwrap();
            let what = match kind.value(row) {
                _ if name == "scrape_duration_seconds" && value.value(row).to_bits() != STALE_NAN => {
                    "…".into()
                }
                0 => number(value.value(row)),
                1 => {
                    let histogram = NativeHistogram::from_bytes(payload.value(row)).unwrap();
                    format!("histogram {} {}", histogram.count, number(histogram.sum))
                }
                2 => format!("exemplar {} {}", value.value(row), text()),
                _ => {
                    let Metadata { kind, unit, help } = Metadata::from_json(text()).unwrap();
                    format!("is {kind} {unit} {help}")
                }
            };
            let start = if start.is_valid(row) {
                format!(" since {}", start.value(row) / 1_000_000)
            } else {
                String::new()
            };
            format!("{} {name}{{{}}} {what}{start}", time.value(row) / 1_000_000, labels.join(","))
        })
        .collect()
}

use arrow::array::Array as _;
