//! Answers as bytes, batch by batch.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    json::{
        WriterBuilder,
        writer::{JsonArray, LineDelimited, Writer},
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::{SqlBatches, SqlError};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One array of objects; nulls are written.
    Json,
    /// One object per line; nulls are written.
    JsonLines,
    /// RFC 4180 with a header line; nulls are empty, nested values are JSON text.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    /// From `json`, `jsonl`, `csv`, `arrow` (also `ndjson`, `jsonlines`).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "jsonl" | "jsonlines" | "ndjson" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "arrow" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// The MIME type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Encodes the batches one by one as they come. An error ends the stream after the bytes before it;
/// without an error the last bytes close the document, so a cut answer is no valid JSON or Arrow.
pub fn encode(
    format: Format,
    schema: &SchemaRef,
    batches: SqlBatches,
) -> impl Stream<Item = Result<Bytes, SqlError>> + Send + use<> {
    let encoder = Encoder::new(format, schema);
    stream::unfold(Some((encoder, batches)), |state| async {
        let (encoder, mut batches) = state?;
        let mut encoder = match encoder {
            Ok(encoder) => encoder,
            Err(error) => return Some((Err(failed(&error)), None)),
        };
        Some(match batches.next().await {
            Some(Ok(batch)) => match encoder.write(&batch) {
                Ok(bytes) => (Ok(bytes), Some((Ok(encoder), batches))),
                Err(error) => (Err(failed(&error)), None),
            },
            Some(Err(error)) => (Err(error), None),
            None => (encoder.finish().map_err(|error| failed(&error)), None),
        })
    })
    .filter(|bytes| futures::future::ready(!matches!(bytes, Ok(bytes) if bytes.is_empty())))
}

fn failed(error: &ArrowError) -> SqlError {
    SqlError::Bug(format!("writing the answer failed: {error}"))
}

/// State between two batches; each writes into a buffer that is taken after the batch.
enum Encoder {
    Json(Box<Writer<Vec<u8>, JsonArray>>),
    JsonLines,
    Csv { schema: SchemaRef, header: bool },
    Arrow { schema: SchemaRef, writer: Box<StreamWriter<Vec<u8>>> },
}

impl Encoder {
    fn new(format: Format, schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Json => {
                let writer = json_options().build::<_, JsonArray>(Vec::new());
                Self::Json(Box::new(writer))
            }
            Format::JsonLines => Self::JsonLines,
            Format::Csv => Self::Csv { schema: text_schema(schema), header: true },
            Format::Arrow => {
                let schema = plain_schema(schema);
                let writer = Box::new(StreamWriter::try_new(Vec::new(), &schema)?);
                Self::Arrow { schema, writer }
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<Bytes, ArrowError> {
        match self {
            Self::Json(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
            Self::JsonLines => json_lines(batch).map(Into::into),
            Self::Csv { schema, header } => {
                let batch = text_batch(schema, batch)?;
                let mut bytes = Vec::new();
                arrow::csv::WriterBuilder::new()
                    .with_header(std::mem::take(header))
                    .build(&mut bytes)
                    .write(&batch)?;
                Ok(bytes.into())
            }
            Self::Arrow { schema, writer } => {
                let columns = batch
                    .columns()
                    .iter()
                    .zip(schema.fields())
                    .map(|(column, field)| cast(column, field.data_type()))
                    .collect::<Result<Vec<_>, _>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                writer.write(&RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)?;
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }

    fn finish(self) -> Result<Bytes, ArrowError> {
        match self {
            Self::Json(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner().into())
            }
            Self::JsonLines | Self::Csv { header: false, .. } => Ok(Bytes::new()),
            // No batch came: the header stands alone.
            Self::Csv { schema, .. } => {
                let mut bytes = Vec::new();
                arrow::csv::WriterBuilder::new()
                    .with_header(true)
                    .build(&mut bytes)
                    .write(&RecordBatch::new_empty(schema))?;
                Ok(bytes.into())
            }
            Self::Arrow { mut writer, .. } => {
                writer.finish()?;
                writer.into_inner().map(Into::into)
            }
        }
    }
}

fn json_options() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true)
}

fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = json_options().build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// String views are young: not every Arrow reader knows them.
fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8View => field.as_ref().clone().with_data_type(DataType::Utf8),
            DataType::BinaryView => field.as_ref().clone().with_data_type(DataType::Binary),
            _ => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

fn text_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let nested = field.data_type().is_nested();
            if nested { Field::new(field.name(), DataType::Utf8, true) } else { field.as_ref().clone() }
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// Nested columns become JSON text.
fn text_batch(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| if column.data_type().is_nested() { json_text(column) } else { Ok(column.clone()) })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema.clone(), columns)
}

/// Each value of a nested column as JSON.
fn json_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Field::new("v", column.data_type().clone(), true);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column.clone()])?;
    let lines = json_lines(&batch)?;
    let lines = std::str::from_utf8(&lines).map_err(|error| ArrowError::JsonError(error.to_string()))?;
    // Every line is {"v":…}.
    let text: StringArray = lines
        .lines()
        .enumerate()
        .map(|(row, line)| column.is_valid(row).then(|| &line[5..line.len() - 1]))
        .collect();
    Ok(Arc::new(text))
}

/// The batch as text, row by row, for a table on a terminal; `None` is a null. Times are RFC 3339,
/// nested values JSON.
pub fn text_rows(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let options = FormatOptions::new().with_display_error(true);
    let columns = batch
        .columns()
        .iter()
        .map(|column| if column.data_type().is_nested() { json_text(column) } else { Ok(column.clone()) })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    let formats = columns
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    let cell = |(column, format): (&ArrayRef, &ArrayFormatter<'_>), row: usize| {
        column.is_valid(row).then(|| format.value(row).to_string())
    };
    Ok((0..batch.num_rows())
        .map(|row| columns.iter().zip(&formats).map(|both| cell(both, row)).collect())
        .collect())
}
