//! The columns of the SQL tables and how they are made from what is stored.
//!
//! Values that belong to the stream or the level (service, labels, stream id) are looked up once
//! per distinct stream of a batch and then gathered as views, so a row costs 16 bytes and no copy.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, MapArray, MapBuilder, RecordBatch,
        RecordBatchOptions, StringArray, StringBuilder, StringViewArray, TimestampNanosecondArray,
        UInt32Array,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    compute::{cast, take},
    datatypes::{
        DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, UInt8Type,
        UInt32Type,
    },
    error::ArrowError,
};
use trine_model::Severity;
use trine_schema::{Stream, StreamRegistry, columns::AttributeName, logs, metrics::METRIC_NAME, spans};

use crate::{
    level::level_field,
    tables::{STREAM, TIMESTAMP, Table},
};

/// Nanoseconds of a minute.
pub(crate) const MINUTE_NS: i64 = 60_000_000_000;

/// Where the values of a column come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A stored column as it is.
    Stored(usize),
    /// The stream's service; empty where it has none.
    Service,
    /// Name of the severity's level; null when unset. Of logs.
    Level,
    /// `trace_id`, `span_id` or `parent_span_id` as lower-case hex.
    Hex(usize),
    /// The first instant of the row's minute.
    Minute,
    /// When a span ended.
    End,
    /// A span's status as a word.
    Status,
    /// A span's kind as a word.
    Kind,
    /// Name of the metric; empty where it has none.
    Metric,
    /// This label of the stream; null where it has none. `service_name` is never null.
    Known(&'static str),
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
    fn inputs(&self, table: Table) -> Vec<usize> {
        match self {
            Self::Stored(index) | Self::Hex(index) => vec![*index],
            Self::Minute => vec![TIMESTAMP],
            Self::End => vec![TIMESTAMP, spans::column::DURATION],
            Self::Status => vec![spans::column::STATUS_CODE],
            Self::Kind => vec![spans::column::KIND],
            Self::Level => vec![logs::column::SEVERITY_NUMBER],
            // Spans hand out single attributes.
            Self::Attribute(_) if table == Table::Spans => Vec::new(),
            Self::LabelOrAttribute(_) if table == Table::Spans => vec![STREAM],
            Self::Attribute(_) => table.attributes().into_iter().collect(),
            Self::LabelOrAttribute(_) => std::iter::once(STREAM).chain(table.attributes()).collect(),
            Self::Service
            | Self::Labels
            | Self::StreamId
            | Self::Label(_)
            | Self::Metric
            | Self::Known(_) => vec![STREAM],
        }
    }

    /// Whether all rows of one stream have the same value.
    pub(crate) fn is_of_stream(&self) -> bool {
        self.inputs(Table::Metrics) == [STREAM] && !matches!(self, Self::LabelOrAttribute(_))
    }
}

/// The SQL columns of one query: the base and the labels and attributes it names.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) table: Table,
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

fn field(table: Table, name: &str, source: &Source) -> Field {
    let stored = table.stored();
    match source {
        // Of few texts: a scan of spans hands out codes of them.
        Source::Stored(spans::column::OPERATION) if table == Table::Spans => {
            Field::new(name, DataType::Utf8View, false)
        }
        Source::Stored(index) => {
            let stored = stored.field(*index);
            Field::new(name, stored.data_type().clone(), stored.is_nullable())
        }
        Source::Service | Source::StreamId | Source::Metric | Source::Status | Source::Kind => {
            Field::new(name, DataType::Utf8View, false)
        }
        Source::Level => level_field(name),
        Source::Known(label) => Field::new(name, DataType::Utf8View, *label != "service_name"),
        Source::Hex(index) => Field::new(name, DataType::Utf8, stored.field(*index).is_nullable()),
        Source::Attribute(_) if table != Table::Spans => Field::new(name, DataType::Utf8, true),
        Source::Label(_) | Source::Attribute(_) | Source::LabelOrAttribute(_) => {
            Field::new(name, DataType::Utf8View, true)
        }
        Source::Labels => Field::new(name, labels_type(), false),
        Source::Minute | Source::End => Field::new(name, timestamp_type(), false),
    }
}

impl Columns {
    /// The base columns and `extra` ones behind them.
    pub(crate) fn new(table: Table, extra: impl IntoIterator<Item = (String, Source)>) -> Self {
        let base = table.base().iter().map(|(name, source)| ((*name).to_owned(), source.clone()));
        let (fields, sources): (Vec<Field>, Vec<Source>) =
            base.chain(extra).map(|(name, source)| (field(table, &name, &source), source)).unzip();
        Self { table, schema: Arc::new(Schema::new(fields)), sources }
    }

    /// Only these columns.
    pub(crate) fn project(&self, columns: &[usize]) -> Result<Self, ArrowError> {
        Ok(Self {
            table: self.table,
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
            self.sources.iter().flat_map(|source| source.inputs(self.table)).collect();
        stored.sort_unstable();
        stored.dedup();
        stored
    }

    /// Attributes to ask a scan of spans for, behind those.
    pub(crate) fn attribute_columns(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for source in &self.sources {
            if let (Table::Spans, Source::Attribute(name) | Source::LabelOrAttribute(name)) =
                (self.table, source)
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }

    /// Makes the SQL batch from a stored one that holds the columns of [`Columns::stored`] and
    /// [`Columns::attribute_columns`].
    pub(crate) fn convert(
        &self,
        registry: &StreamRegistry,
        stored: &[usize],
        batch: &RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let refs = stored.iter().position(|have| *have == STREAM);
        let streams = refs.map(|position| BatchStreams::new(registry, batch.column(position).as_primitive()));
        self.with_streams(streams.as_ref(), stored, batch)
    }

    /// As [`Columns::convert`], from a batch with the columns of `wider`, which has these and others.
    pub(crate) fn convert_part(
        &self,
        registry: &StreamRegistry,
        wider: &Self,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let (stored, names) = (wider.stored(), wider.attribute_columns());
        let own = self.stored();
        let mut places: Vec<usize> = Vec::new();
        places.extend(own.iter().filter_map(|index| stored.iter().position(|have| have == index)));
        let attributes = self.attribute_columns();
        let attributes = attributes.iter().filter_map(|name| names.iter().position(|have| have == name));
        places.extend(attributes.map(|place| stored.len() + place));
        self.convert(registry, &own, &batch.project(&places)?)
    }

    /// As [`Columns::convert`], with the streams of the rows at hand; `None` when no column needs them.
    pub(crate) fn with_streams(
        &self,
        streams: Option<&BatchStreams>,
        stored: &[usize],
        batch: &RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let input = |index: usize| {
            let position = stored.iter().position(|have| *have == index);
            batch.column(position.expect("BUG: convert got the columns that stored() asked for"))
        };
        let streams = || streams.expect("BUG: stored() asks for the streams of these columns");
        let names = self.attribute_columns();
        let attribute = |name: &String| -> Result<ArrayRef, ArrowError> {
            if let Some(place) = names.iter().position(|known| known == name) {
                return cast(batch.column(stored.len() + place), &DataType::Utf8View);
            }
            let position = self.table.attributes();
            attribute(
                input(position.expect("BUG: only tables with attributes have columns of them")).as_map(),
                name,
            )
        };
        let columns = self
            .sources
            .iter()
            .map(|source| -> Result<ArrayRef, ArrowError> {
                match source {
                    Source::Stored(index) => match input(*index) {
                        codes if codes.as_any_dictionary_opt().is_some() => cast(codes, &DataType::Utf8View),
                        plain => Ok(plain.clone()),
                    },
                    Source::Hex(index) => Ok(Arc::new(hex(input(*index).as_fixed_size_binary())?)),
                    Source::Level => gathered(input(logs::column::SEVERITY_NUMBER), &level_names(), 24),
                    Source::Status => gathered(input(spans::column::STATUS_CODE), &status_names(), 0),
                    Source::Kind => gathered(input(spans::column::KIND), &kind_names(), 0),
                    Source::Minute => Ok(Arc::new(minutes(input(TIMESTAMP)))),
                    Source::End => Ok(Arc::new(ends(input(TIMESTAMP), input(spans::column::DURATION)))),
                    Source::Attribute(name) => attribute(name),
                    Source::LabelOrAttribute(name) => {
                        let labels = streams().column(&Source::Label(name.clone()))?;
                        let attributes = cast(&attribute(name)?, &DataType::Utf8View)?;
                        Ok(Arc::new(coalesce(labels.as_string_view(), attributes.as_string_view())))
                    }
                    Source::Service
                    | Source::Labels
                    | Source::StreamId
                    | Source::Label(_)
                    | Source::Metric
                    | Source::Known(_) => streams().column(source),
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
    pub(crate) streams: Arc<Vec<Arc<Stream>>>,
    /// Position in `streams` of each row.
    pub(crate) rows: UInt32Array,
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
            Source::Metric => Arc::new(StringViewArray::from_iter_values(
                streams.map(|stream| label_value(stream, METRIC_NAME).unwrap_or("")),
            )),
            Source::Label(name) => labels(streams, name),
            Source::Known(name) => labels(streams, name),
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

fn labels<'a>(streams: impl Iterator<Item = &'a Arc<Stream>>, name: &str) -> ArrayRef {
    Arc::new(streams.map(|stream| label_value(stream, name)).collect::<StringViewArray>())
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

/// Words for OTLP's `StatusCode`.
pub(crate) fn status_names() -> StringViewArray {
    StringViewArray::from_iter_values(["unset", "ok", "error"])
}

/// Words for OTLP's `SpanKind`.
pub(crate) fn kind_names() -> StringViewArray {
    StringViewArray::from_iter_values(["unspecified", "internal", "server", "client", "producer", "consumer"])
}

/// The name at each number; a number without one reads as `otherwise`.
fn gathered(numbers: &ArrayRef, names: &StringViewArray, otherwise: u32) -> Result<ArrayRef, ArrowError> {
    let known = |number: u8| Some(u32::from(number)).filter(|number| (*number as usize) < names.len());
    let rows: UInt32Array = numbers
        .as_primitive::<UInt8Type>()
        .unary::<_, UInt32Type>(|number| known(number).unwrap_or(otherwise));
    take(names, &rows, None)
}

fn minutes(times: &ArrayRef) -> TimestampNanosecondArray {
    let times = times.as_primitive::<TimestampNanosecondType>();
    times.unary::<_, TimestampNanosecondType>(minute_of).with_timezone("UTC")
}

/// First nanosecond of the minute, as `date_trunc` finds it.
pub(crate) fn minute_of(time: i64) -> i64 {
    time.div_euclid(MINUTE_NS).saturating_mul(MINUTE_NS)
}

fn ends(starts: &ArrayRef, durations: &ArrayRef) -> TimestampNanosecondArray {
    let starts = starts.as_primitive::<TimestampNanosecondType>().values();
    let durations = durations.as_primitive::<Int64Type>().values();
    let ends = starts.iter().zip(durations).map(|(start, duration)| start.saturating_add(*duration));
    TimestampNanosecondArray::from_iter_values(ends).with_timezone("UTC")
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

/// Values of the attribute that the name means.
fn attribute(map: &MapArray, name: &str) -> Result<ArrayRef, ArrowError> {
    let offsets = map.value_offsets();
    let name = AttributeName::new(name);
    let positions: UInt32Array = (0..map.len())
        .map(|row| name.position(map, row).map(|position| offsets[row] as u32 + position as u32))
        .collect();
    take(map.values(), &positions, None)
}

fn coalesce(first: &StringViewArray, second: &StringViewArray) -> StringViewArray {
    first.iter().zip(second).map(|(first, second)| first.or(second)).collect()
}

/// Type of the `timestamp` column.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}
