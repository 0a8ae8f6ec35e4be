//! Batches as plain rows, to compare.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use trine_model::TenantId;
use trine_protocols::{Decoded, Limits};
use trine_schema::{
    MetricBatch, NativeHistogram, RowKind, SpanBatch, StreamRegistry,
    columns::attributes_of,
    logs::column,
    metrics::{self, METRIC_NAME, STALE_NAN},
    spans,
};

/// Stands for the time of arrival.
pub const NOW: i64 = 1_700_000_000_000_000_000;

pub type Pairs = Vec<(String, String)>;
/// Time, name, attributes.
pub type Event = (i64, String, Pairs);
/// Trace id, span id, trace state, attributes.
pub type Link = (String, String, Option<String>, Pairs);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    pub labels: String,
    pub timestamp: i64,
    pub observed: Option<i64>,
    pub severity: u8,
    pub severity_text: Option<String>,
    pub body: String,
    pub trace_id: Option<String>,
    pub span_id: Option<String>,
    pub flags: u32,
    pub event_name: Option<String>,
    pub scope_name: Option<String>,
    pub attributes: Pairs,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanRow {
    pub labels: String,
    pub timestamp: i64,
    pub duration: i64,
    pub trace_id: String,
    pub span_id: String,
    pub parent: Option<String>,
    pub operation: String,
    pub kind: u8,
    pub status: u8,
    pub status_message: Option<String>,
    pub trace_state: Option<String>,
    pub flags: u32,
    pub scope_name: Option<String>,
    pub attributes: Pairs,
    pub events: Vec<Event>,
    pub links: Vec<Link>,
}

fn text(column: &dyn Array, row: usize) -> Option<String> {
    let column = column.as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn hex(column: &dyn Array, row: usize) -> Option<String> {
    let column = column.as_fixed_size_binary();
    column.is_valid(row).then(|| column.value(row).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn time(column: &dyn Array, row: usize) -> i64 {
    column.as_primitive::<TimestampNanosecondType>().value(row)
}

fn pairs(column: &dyn Array, row: usize) -> Pairs {
    attributes_of(column.as_map(), row).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What every decoder needs besides the bytes.
#[derive(Default)]
pub struct Context {
    pub tenant: TenantId,
    pub registry: StreamRegistry,
    pub limits: Limits,
}

impl Context {
    /// Rows of what was decoded; counts must agree with the batch.
    pub fn rows(&self, decoded: &Decoded) -> Vec<Row> {
        let Some(batch) = &decoded.batch else {
            assert_eq!(decoded.accepted, 0);
            return Vec::new();
        };
        assert_eq!(batch.tenant, self.tenant);
        let records = &batch.records;
        assert_eq!(decoded.accepted, records.num_rows());
        let observed = records.column(column::OBSERVED_TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        let rows: Vec<Row> = (0..records.num_rows())
            .map(|row| Row {
                labels: self.labels(records, row),
                timestamp: time(records.column(column::TIMESTAMP), row),
                observed: observed.is_valid(row).then(|| observed.value(row)),
                severity: records.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().value(row),
                severity_text: text(records.column(column::SEVERITY_TEXT), row),
                body: text(records.column(column::BODY), row).unwrap(),
                trace_id: hex(records.column(column::TRACE_ID), row),
                span_id: hex(records.column(column::SPAN_ID), row),
                flags: records.column(column::TRACE_FLAGS).as_primitive::<UInt32Type>().value(row),
                event_name: text(records.column(column::EVENT_NAME), row),
                scope_name: text(records.column(column::SCOPE_NAME), row),
                attributes: pairs(records.column(column::ATTRIBUTES), row),
            })
            .collect();
        assert_eq!(decoded.own_times, rows.iter().all(|row| row.timestamp != NOW));
        rows
    }

    /// The same for spans.
    pub fn spans(&self, decoded: &Decoded<SpanBatch>) -> Vec<SpanRow> {
        use spans::column;
        let Some(batch) = &decoded.batch else {
            assert_eq!(decoded.accepted, 0);
            return Vec::new();
        };
        assert_eq!(batch.tenant, self.tenant);
        let records = &batch.records;
        assert_eq!(decoded.accepted, records.num_rows());
        let column = |at: usize| &**records.column(at);
        let small = |at: usize, row: usize| column(at).as_primitive::<UInt8Type>().value(row);
        let rows: Vec<SpanRow> = (0..records.num_rows())
            .map(|row| SpanRow {
                labels: self.labels(records, row),
                timestamp: time(column(column::TIMESTAMP), row),
                duration: column(column::DURATION).as_primitive::<Int64Type>().value(row),
                trace_id: hex(column(column::TRACE_ID), row).unwrap(),
                span_id: hex(column(column::SPAN_ID), row).unwrap(),
                parent: hex(column(column::PARENT_SPAN_ID), row),
                operation: text(column(column::OPERATION), row).unwrap(),
                kind: small(column::KIND, row),
                status: small(column::STATUS_CODE, row),
                status_message: text(column(column::STATUS_MESSAGE), row),
                trace_state: text(column(column::TRACE_STATE), row),
                flags: column(column::TRACE_FLAGS).as_primitive::<UInt32Type>().value(row),
                scope_name: text(column(column::SCOPE_NAME), row),
                attributes: pairs(column(column::ATTRIBUTES), row),
                events: {
                    let events = column(column::EVENTS).as_list::<i32>().value(row);
                    let of = |i| events.as_struct().column(i);
                    (0..events.len())
                        .map(|i| (time(of(0), i), text(of(1), i).unwrap(), pairs(of(2), i)))
                        .collect()
                },
                links: {
                    let links = column(column::LINKS).as_list::<i32>().value(row);
                    let of = |i| links.as_struct().column(i);
                    let link =
                        |i| (hex(of(0), i).unwrap(), hex(of(1), i).unwrap(), text(of(2), i), pairs(of(3), i));
                    (0..links.len()).map(link).collect()
                },
            })
            .collect();
        assert_eq!(decoded.own_times, rows.iter().all(|row| row.timestamp != NOW));
        rows
    }

    /// Rows of metrics, one text each: `name{label="value"} value @milliseconds`, with `since` and the start
    /// where it is known.
    pub fn samples(&self, decoded: &Decoded<MetricBatch>) -> Vec<String> {
        use metrics::column;
        let Some(batch) = &decoded.batch else {
            assert_eq!(decoded.accepted, 0);
            return Vec::new();
        };
        assert_eq!(batch.tenant, self.tenant);
        let records = &batch.records;
        let starts = records.column(column::START).as_primitive::<TimestampNanosecondType>();
        let payloads = records.column(column::PAYLOAD).as_binary::<i32>();
        let kinds = records.column(column::KIND).as_primitive::<UInt8Type>();
        let values = records.column(column::VALUE).as_primitive::<Float64Type>();
        let row = |row: usize| {
            let stream = records.column(column::STREAM).as_primitive::<UInt32Type>().value(row);
            let stream = self.registry.get(stream);
            let labels = stream.labels.iter().filter(|(name, _)| *name != METRIC_NAME);
            let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value:?}")).collect();
            let name = stream.labels.get(METRIC_NAME).unwrap();
            let payload = || std::str::from_utf8(payloads.value(row)).unwrap();
            let number = |value: f64| {
                if value.to_bits() == STALE_NAN { "stale".into() } else { value.to_string() }
            };
            let value = match kinds.value(row) {
                kind if kind == RowKind::Float as u8 => number(values.value(row)),
                kind if kind == RowKind::Exemplar as u8 => {
                    format!("exemplar {} {}", values.value(row), payload())
                }
                kind if kind == RowKind::Metadata as u8 => return format!("# {name} {}", payload()),
                _ => {
                    let h = NativeHistogram::from_bytes(payloads.value(row)).unwrap();
                    let sides = [("+", &h.positive), ("-", &h.negative)];
                    let sides = sides.iter().filter(|(_, side)| !side.counts.is_empty());
                    let sides: String = sides
                        .map(|(sign, side)| format!(" {sign}{:?}{:?}", side.spans, side.counts))
                        .collect();
                    let zero = (h.zero_threshold, h.zero_count);
                    let bounds = if h.custom_bounds.is_empty() {
                        String::new()
                    } else {
                        format!(" {:?}", h.custom_bounds)
                    };
                    format!(
                        "histogram {:?} schema {} zero {zero:?} count {} sum {}{sides}{bounds}",
                        h.reset_hint,
                        h.schema,
                        h.count,
                        number(h.sum)
                    )
                }
            };
            let at = time(records.column(column::TIMESTAMP), row);
            assert_eq!(at % 1_000_000, 0);
            let since = starts.is_valid(row).then(|| format!(" since {}", starts.value(row) / 1_000_000));
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("{name}{labels} {value} @{}{}", at / 1_000_000, since.unwrap_or_default())
        };
        (0..records.num_rows()).map(row).collect()
    }

    fn labels(&self, records: &RecordBatch, row: usize) -> String {
        let stream = records.column(column::STREAM).as_primitive::<UInt32Type>().value(row);
        self.registry.get(stream).labels.to_json()
    }
}
