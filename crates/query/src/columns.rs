//! The columns of the SQL table `logs` and how they are made from what is stored.
//!
//! Values that belong to the stream or the level (service, labels, stream id) are looked up once
//! per distinct stream of a batch and then gathered as views, so a row costs 16 bytes and no copy.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, MapArray, MapBuilder, RecordBatch,
        RecordBatchOptions, StringArray, StringBuilder, StringViewArray, UInt32Array,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    compute::take,
    datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit, UInt8Type, UInt32Type},
    error::ArrowError,
};
use trine_model::Severity;
use trine_schema::{Stream, StreamRegistry, columns::attributes_of, label_name_eq, logs::column};

/// Where the values of a column come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A stored column as it is.
    Stored(usize),
    /// The stream's service; empty where it has none.
    Service,
    /// Name of the severity's level; null when unset.
    Level,
    /// `trace_id` or `span_id` as lower-case hex.
    Hex(usize),
    /// All labels of the stream.
    Labels,
    /// The stream's id in hex.
    StreamId,
    /// One label of the stream; null where it has none.
    Label(String),
    /// One attribute of the row; null where it has none.
    Attribute(String),
    /// The label, else the attribute of that name.
    LabelOrAttribute(String),
}

impl Source {
    /// Stored columns it needs.
    fn inputs(&self) -> &'static [usize] {
        match self {
            Self::Stored(index) | Self::Hex(index) => {
                const ALL: [usize; column::COUNT] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
                &ALL[*index..=*index]
            }
            Self::Service | Self::Labels | Self::StreamId | Self::Label(_) => &[column::STREAM],
            Self::Level => &[column::SEVERITY_NUMBER],
            Self::Attribute(_) => &[column::ATTRIBUTES],
            Self::LabelOrAttribute(_) => &[column::STREAM, column::ATTRIBUTES],
        }
    }
}

/// Columns every query sees, in the order of `SELECT *`.
static BASE: [(&str, Source); 15] = [
    ("timestamp", Source::Stored(column::TIMESTAMP)),
    ("observed_timestamp", Source::Stored(column::OBSERVED_TIMESTAMP)),
    ("service", Source::Service),
    ("level", Source::Level),
    ("severity_number", Source::Stored(column::SEVERITY_NUMBER)),
    ("severity_text", Source::Stored(column::SEVERITY_TEXT)),
    ("body", Source::Stored(column::BODY)),
    ("trace_id", Source::Hex(column::TRACE_ID)),
    ("span_id", Source::Hex(column::SPAN_ID)),
    ("trace_flags", Source::Stored(column::TRACE_FLAGS)),
    ("event_name", Source::Stored(column::EVENT_NAME)),
    ("scope_name", Source::Stored(column::SCOPE_NAME)),
    ("labels", Source::Labels),
    ("attributes", Source::Stored(column::ATTRIBUTES)),
    ("stream_id", Source::StreamId),
];

/// Names of the columns that `SELECT *` shows.
pub(crate) fn base_names() -> impl Iterator<Item = &'static str> {
    BASE.iter().map(|(name, _)| *name)
}

/// The SQL columns of one query: the base and the labels and attributes it names.
#[derive(Debug, Clone)]
pub(crate) struct LogColumns {
    pub(crate) schema: SchemaRef,
    pub(crate) sources: Vec<Source>,
}

fn labels_type() -> DataType {
    let entries = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Utf8, true),
    ]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn field(name: &str, source: &Source) -> Field {
    let stored = trine_schema::logs::schema();
    match source {
        Source::Stored(index) => {
            let stored = stored.field(*index);
            Field::new(name, stored.data_type().clone(), stored.is_nullable())
        }
        Source::Service | Source::StreamId => Field::new(name, DataType::Utf8View, false),
        Source::Level | Source::Label(_) => Field::new(name, DataType::Utf8View, true),
        Source::Hex(_) | Source::Attribute(_) | Source::LabelOrAttribute(_) => {
            Field::new(name, DataType::Utf8, true)
        }
        Source::Labels => Field::new(name, labels_type(), false),
    }
}

impl LogColumns {
    /// The base columns and `extra` ones behind them.
    pub(crate) fn new(extra: impl IntoIterator<Item = (String, Source)>) -> Self {
        let base = BASE.iter().map(|(name, source)| ((*name).to_owned(), source.clone()));
        let (fields, sources): (Vec<Field>, Vec<Source>) =
            base.chain(extra).map(|(name, source)| (field(&name, &source), source)).unzip();
        Self { schema: Arc::new(Schema::new(fields)), sources }
    }

    /// Only these columns.
    pub(crate) fn project(&self, columns: &[usize]) -> Result<Self, ArrowError> {
        Ok(Self {
            schema: Arc::new(self.schema.project(columns)?),
            sources: columns.iter().map(|index| self.sources[*index].clone()).collect(),
        })
    }

    /// Source of the column with this name.
    pub(crate) fn source(&self, name: &str) -> Option<&Source> {
        self.schema.index_of(name).ok().map(|index| &self.sources[index])
    }

    /// Stored columns to read for these, rising.
    pub(crate) fn stored(&self) -> Vec<usize> {
        let mut stored: Vec<usize> =
            self.sources.iter().flat_map(|source| source.inputs().iter().copied()).collect();
        stored.sort_unstable();
        stored.dedup();
        stored
    }

    /// Makes the SQL batch from a stored one that holds the columns of [`LogColumns::stored`].
    pub(crate) fn convert(
        &self,
        registry: &StreamRegistry,
        stored: &[usize],
        batch: &RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let input = |index: usize| {
            let position = stored.iter().position(|have| *have == index);
            batch.column(position.expect("BUG: convert got the columns that stored() asked for"))
        };
        let mut known = None;
        let mut streams = || {
            known
                .get_or_insert_with(|| BatchStreams::new(registry, input(column::STREAM).as_primitive()))
                .clone()
        };
        let columns = self
            .sources
            .iter()
            .map(|source| -> Result<ArrayRef, ArrowError> {
                match source {
                    Source::Stored(index) => Ok(input(*index).clone()),
                    Source::Hex(index) => Ok(Arc::new(hex(input(*index).as_fixed_size_binary())?)),
                    Source::Level => levels(input(column::SEVERITY_NUMBER)),
                    Source::Attribute(name) => attribute(input(column::ATTRIBUTES).as_map(), name),
                    Source::LabelOrAttribute(name) => {
                        let labels = streams().column(&Source::Label(name.clone()))?;
                        let attributes = attribute(input(column::ATTRIBUTES).as_map(), name)?;
                        Ok(Arc::new(coalesce(labels.as_string_view(), attributes.as_string())))
                    }
                    Source::Service | Source::Labels | Source::StreamId | Source::Label(_) => {
                        streams().column(source)
                    }
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

/// Value of a label column: as [`trine_schema::LabelMatcher`] sees it, a missing one is `None`.
pub(crate) fn label_value<'a>(stream: &'a Stream, name: &str) -> Option<&'a str> {
    stream.labels.get(name).or_else(|| matches!(name, "service" | "service_name").then(|| stream.service()))
}

/// The distinct streams of a batch, and for each row which of them it is.
#[derive(Clone)]
pub(crate) struct BatchStreams {
    streams: Arc<Vec<Arc<Stream>>>,
    rows: UInt32Array,
}

impl BatchStreams {
    pub(crate) fn new(registry: &StreamRegistry, refs: &UInt32Array) -> Self {
        let mut positions: HashMap<u32, u32> = HashMap::new();
        let mut streams = Vec::new();
        let mut last = (u32::MAX, 0);
        let rows = refs.values().iter().map(|stream_ref| {
            // Rows of one stream lie together.
            if *stream_ref != last.0 || streams.is_empty() {
                let position = *positions.entry(*stream_ref).or_insert_with(|| {
                    streams.push(registry.get(*stream_ref));
                    streams.len() as u32 - 1
                });
                last = (*stream_ref, position);
            }
            last.1
        });
        let rows: Vec<u32> = rows.collect();
        Self { streams: Arc::new(streams), rows: UInt32Array::from(rows) }
    }

    pub(crate) fn column(&self, source: &Source) -> Result<ArrayRef, ArrowError> {
        let streams = self.streams.iter();
        let distinct: ArrayRef = match source {
            Source::Service => Arc::new(StringViewArray::from_iter_values(
                streams.map(|stream| label_value(stream, "service").unwrap_or("")),
            )),
            Source::StreamId => Arc::new(StringViewArray::from_iter_values(
                streams.map(|stream| format!("{:032x}", stream.id.0)),
            )),
            Source::Label(name) => {
                Arc::new(streams.map(|stream| label_value(stream, name)).collect::<StringViewArray>())
            }
            Source::Labels => {
                let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
                for stream in streams {
                    for (key, value) in stream.labels.iter() {
                        maps.keys().append_value(key);
                        maps.values().append_value(value);
                    }
                    maps.append(true)?;
                }
                Arc::new(maps.finish())
            }
            other => return Err(ArrowError::ComputeError(format!("BUG: {other:?} is not of the stream"))),
        };
        take(&distinct, &self.rows, None)
    }
}

/// Level names by severity number, 0 to 24.
pub(crate) fn level_names() -> StringViewArray {
    (0..=24)
        .map(|number| {
            let name = Severity::from_number(number).level().name();
            (!name.is_empty()).then_some(name)
        })
        .collect()
}

fn levels(numbers: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let rows: UInt32Array =
        numbers.as_primitive::<UInt8Type>().unary::<_, UInt32Type>(|number| u32::from(number.min(24)));
    take(&level_names(), &rows, None)
}

fn hex(ids: &FixedSizeBinaryArray) -> Result<StringArray, ArrowError> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity((ids.len() - ids.null_count()) * ids.value_length() as usize * 2);
    let mut offsets = Vec::with_capacity(ids.len() + 1);
    offsets.push(0);
    for row in 0..ids.len() {
        if ids.is_valid(row) {
            for byte in ids.value(row) {
                text.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        }
        offsets.push(text.len() as i32);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    StringArray::try_new(offsets, Buffer::from_vec(text), ids.nulls().cloned())
}

/// Position of the attribute's value in the map's values: the exact name first, else the
/// Prometheus-style one.
fn attribute(map: &MapArray, name: &str) -> Result<ArrayRef, ArrowError> {
    let offsets = map.value_offsets();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let positions: UInt32Array = (0..map.len())
        .map(|row| {
            let found = attributes_of(map, row).position(|(key, _)| key == name).or_else(|| {
                plain.then(|| attributes_of(map, row).position(|(key, _)| label_name_eq(key, name))).flatten()
            });
            found.map(|position| offsets[row] as u32 + position as u32)
        })
        .collect();
    take(map.values(), &positions, None)
}

fn coalesce(first: &StringViewArray, second: &StringArray) -> StringArray {
    first.iter().zip(second).map(|(first, second)| first.or(second)).collect()
}

/// Type of the `timestamp` column.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}
