//! Rows of a scanned batch as the pipeline takes them: line, time, labels.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{Array as _, AsArray as _, FixedSizeBinaryArray, MapArray, RecordBatch, StringArray},
    datatypes::{TimestampNanosecondType, UInt8Type, UInt32Type},
};
use hashbrown::HashMap;
use trine_schema::{StreamRef, StreamRegistry, columns::attributes_of, logs::column};

use crate::pipeline::labels::{BaseLabels, DETECTED_LEVEL, LEVEL, LabelSet, Wanted, level_word};

/// Metadata that stands in columns of its own.
const COLUMN_LABELS: [(&str, usize); 7] = [
    ("trace_id", column::TRACE_ID),
    ("span_id", column::SPAN_ID),
    ("scope_name", column::SCOPE_NAME),
    ("severity_text", column::SEVERITY_TEXT),
    ("event_name", column::EVENT_NAME),
    (LEVEL, column::SEVERITY_NUMBER),
    (DETECTED_LEVEL, column::SEVERITY_NUMBER),
];

/// Columns that deliver the wanted metadata, besides stream, time and body.
pub fn metadata_columns(wanted: &Wanted) -> Vec<usize> {
    let mut columns = match wanted {
        Wanted::All => vec![
            column::SEVERITY_NUMBER,
            column::SEVERITY_TEXT,
            column::TRACE_ID,
            column::SPAN_ID,
            column::EVENT_NAME,
            column::SCOPE_NAME,
            column::ATTRIBUTES,
        ],
        Wanted::Names(names) => {
            let mut columns: Vec<usize> = COLUMN_LABELS
                .iter()
                .filter(|(name, _)| wanted.has(name))
                .map(|(_, column)| *column)
                .collect();
            if names.iter().any(|name| !name.starts_with("__")) {
                columns.push(column::ATTRIBUTES);
            }
            columns
        }
    };
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Labels of streams under their Prometheus-style names, made once per stream.
#[derive(Default)]
pub struct BaseCache(HashMap<StreamRef, Arc<BaseLabels>>);

impl BaseCache {
    /// The labels of a stream.
    pub fn get(&mut self, stream: StreamRef, registry: &StreamRegistry) -> &Arc<BaseLabels> {
        self.0.entry(stream).or_insert_with(|| Arc::new(BaseLabels::new(&registry.get(stream))))
    }
}

/// One batch; columns that were not asked for are missing.
pub struct Rows<'a> {
    streams: Option<&'a [u32]>,
    timestamps: Option<&'a [i64]>,
    bodies: Option<&'a StringArray>,
    severities: Option<&'a [u8]>,
    severity_texts: Option<&'a StringArray>,
    trace_ids: Option<&'a FixedSizeBinaryArray>,
    span_ids: Option<&'a FixedSizeBinaryArray>,
    event_names: Option<&'a StringArray>,
    scope_names: Option<&'a StringArray>,
    attributes: Option<&'a MapArray>,
    /// Number of rows.
    pub len: usize,
}

impl<'a> Rows<'a> {
    /// The columns of a batch with a projection of [`trine_schema::logs::schema`].
    pub fn new(batch: &'a RecordBatch) -> Self {
        let text = |name| Some(batch.column_by_name(name)?.as_string::<i32>());
        let id = |name| Some(batch.column_by_name(name)?.as_fixed_size_binary());
        Self {
            streams: batch.column_by_name("stream").map(|a| &**a.as_primitive::<UInt32Type>().values()),
            timestamps: batch
                .column_by_name("timestamp")
                .map(|a| &**a.as_primitive::<TimestampNanosecondType>().values()),
            bodies: text("body"),
            severities: batch
                .column_by_name("severity_number")
                .map(|a| &**a.as_primitive::<UInt8Type>().values()),
            severity_texts: text("severity_text"),
            trace_ids: id("trace_id"),
            span_ids: id("span_id"),
            event_names: text("event_name"),
            scope_names: text("scope_name"),
            attributes: batch.column_by_name("attributes").map(|array| array.as_ref().as_map()),
            len: batch.num_rows(),
        }
    }

    /// Stream of a row.
    pub fn stream(&self, row: usize) -> StreamRef {
        self.streams.map_or(0, |streams| streams[row])
    }

    /// Time of a row.
    pub fn timestamp(&self, row: usize) -> i64 {
        self.timestamps.map_or(0, |timestamps| timestamps[row])
    }

    /// Line of a row.
    pub fn body(&self, row: usize) -> &'a str {
        self.bodies.map_or("", |bodies| bodies.value(row))
    }

    /// Bytes of a row's line.
    pub fn body_len(&self, row: usize) -> usize {
        self.bodies.map_or(0, |bodies| bodies.value_length(row) as usize)
    }

    /// Severity number of a row, 0 when not projected.
    pub fn severity(&self, row: usize) -> u8 {
        self.severities.map_or(0, |severities| severities[row])
    }

    /// Fills in the row's labels: those of the stream, then the record's metadata.
    pub fn load(
        &self,
        row: usize,
        base: &Arc<BaseLabels>,
        labels: &mut LabelSet,
        wanted: &Wanted,
        hex: &mut String,
    ) {
        labels.reset(base);
        for (name, ids) in [("trace_id", self.trace_ids), ("span_id", self.span_ids)] {
            if let Some(ids) = ids
                && ids.is_valid(row)
            {
                hex.clear();
                for byte in ids.value(row) {
                    let _ = write!(hex, "{byte:02x}");
                }
                labels.add_metadata(name, hex, wanted);
            }
        }
        let texts = [
            ("scope_name", self.scope_names),
            ("severity_text", self.severity_texts),
            ("event_name", self.event_names),
        ];
        for (name, column) in texts {
            if let Some(column) = column
                && column.is_valid(row)
            {
                labels.add_metadata(name, column.value(row), wanted);
            }
        }
        if let Some(attributes) = self.attributes {
            for (name, value) in attributes_of(attributes, row) {
                labels.add_metadata(name, value, wanted);
            }
        }
        labels.set_level(level_word(self.severity(row)), wanted.has(DETECTED_LEVEL));
    }
}
