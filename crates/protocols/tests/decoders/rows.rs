//! Batches as plain rows, to compare.

use arrow::{
    array::{Array, AsArray},
    datatypes::{TimestampNanosecondType, UInt8Type, UInt32Type},
};
use trine_model::TenantId;
use trine_protocols::{Decoded, Limits};
use trine_schema::{StreamRegistry, columns::attributes_of, logs::column};

/// Stands for the time of arrival.
pub const NOW: i64 = 1_700_000_000_000_000_000;

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
    pub attributes: Vec<(String, String)>,
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
        let text = |column: usize, row: usize| {
            let column = records.column(column).as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let hex = |column: usize, row: usize| {
            let column = records.column(column).as_fixed_size_binary();
            column.is_valid(row).then(|| column.value(row).iter().map(|byte| format!("{byte:02x}")).collect())
        };
        let observed = records.column(column::OBSERVED_TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        let rows: Vec<Row> = (0..records.num_rows())
            .map(|row| Row {
                labels: {
                    let stream = records.column(column::STREAM).as_primitive::<UInt32Type>().value(row);
                    self.registry.get(stream).labels.to_json()
                },
                timestamp: records
                    .column(column::TIMESTAMP)
                    .as_primitive::<TimestampNanosecondType>()
                    .value(row),
                observed: observed.is_valid(row).then(|| observed.value(row)),
                severity: records.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().value(row),
                severity_text: text(column::SEVERITY_TEXT, row),
                body: text(column::BODY, row).unwrap(),
                trace_id: hex(column::TRACE_ID, row),
                span_id: hex(column::SPAN_ID, row),
                flags: records.column(column::TRACE_FLAGS).as_primitive::<UInt32Type>().value(row),
                event_name: text(column::EVENT_NAME, row),
                scope_name: text(column::SCOPE_NAME, row),
                attributes: attributes_of(records.column(column::ATTRIBUTES).as_map(), row)
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            })
            .collect();
        assert_eq!(decoded.own_times, rows.iter().all(|row| row.timestamp != NOW));
        rows
    }
}
