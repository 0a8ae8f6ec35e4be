//! Remote write's protobuf, as much of it as the test needs.

use trine_promql::{Buckets, Histogram, MemorySource, ResetHint};

/// Length of the time slices that are sent one after the other, milliseconds.
const SLICE: i64 = 10 * 60_000;

/// Write requests with all samples, in order of time.
pub fn requests(source: &MemorySource) -> Vec<Vec<u8>> {
    let times = || {
        source.iter().flat_map(|(_, samples)| samples.timestamps.iter().chain(&samples.histogram_timestamps))
    };
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Vec::new() };
    let mut requests = Vec::new();
    let mut from = *first;
    while from <= *last {
        let inside = |time: &i64| (from..from + SLICE).contains(time);
        let mut request = Vec::new();
        for (labels, samples) in source.iter() {
            let mut series = Vec::new();
            for (name, value) in labels.iter() {
                let mut label = Vec::new();
                bytes(&mut label, 1, name.as_bytes());
                bytes(&mut label, 2, value.as_bytes());
                bytes(&mut series, 1, &label);
            }
            for (time, value) in
                samples.timestamps.iter().zip(&samples.values).filter(|(time, _)| inside(time))
            {
                let mut sample = Vec::new();
                double(&mut sample, 1, *value);
                integer(&mut sample, 2, *time as u64);
                bytes(&mut series, 2, &sample);
            }
            let histograms = samples.histogram_timestamps.iter().zip(&samples.histograms);
            for (time, value) in histograms.filter(|(time, _)| inside(time)) {
                bytes(&mut series, 4, &histogram(*time, value));
            }
            bytes(&mut request, 1, &series);
        }
        requests.push(request);
        from += SLICE;
    }
    requests
}

fn histogram(time: i64, histogram: &Histogram) -> Vec<u8> {
    let mut out = Vec::new();
    double(&mut out, 2, histogram.count);
    double(&mut out, 3, histogram.sum);
    integer(&mut out, 4, zigzag(i64::from(histogram.schema)));
    double(&mut out, 5, histogram.zero_threshold);
    double(&mut out, 7, histogram.zero_count);
    buckets(&mut out, (8, 10), &histogram.negative);
    buckets(&mut out, (11, 13), &histogram.positive);
    integer(&mut out, 14, if histogram.reset_hint == ResetHint::Gauge { 3 } else { 0 });
    integer(&mut out, 15, time as u64);
    if !histogram.custom_bounds.is_empty() {
        doubles(&mut out, 16, &histogram.custom_bounds);
    }
    out
}

fn buckets(out: &mut Vec<u8>, (spans, counts): (u64, u64), buckets: &Buckets) {
    for (offset, length) in buckets.spans() {
        let mut span = Vec::new();
        integer(&mut span, 1, zigzag(i64::from(offset)));
        integer(&mut span, 2, u64::from(length));
        bytes(out, spans, &span);
    }
    doubles(out, counts, &buckets.count);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn integer(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn doubles(out: &mut Vec<u8>, field: u64, values: &[f64]) {
    let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes(out, field, &packed);
}
