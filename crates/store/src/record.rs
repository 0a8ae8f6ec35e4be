//! What one log entry holds.
//!
//! Entry kinds:
//! - *streams*: labels of streams, by the number that the following batches use for them. The flag
//!   `fresh` says that numbers given before are void: another process wrote them.
//! - *batch*, a kind per signal: one [`AnyBatch`] with tenant, batch key and time of arrival. The head is copied, the
//!   Arrow buffers are handed to the log as they are, so a row costs no copy here. Columns that
//!   hold nothing (all null, all zero, no attributes) are left out.
//!
//! Streams are defined once per memtable generation, before their first use in it, so a log that is
//! cut at a generation's start is complete. All numbers are little-endian.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, GenericByteArray, ListArray, MapArray,
        PrimitiveArray, RecordBatch, StructArray, new_empty_array, new_null_array,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{
        ArrowPrimitiveType, BinaryType, ByteArrayType, DataType, Float64Type, Int64Type, SchemaRef,
        TimestampNanosecondType, UInt8Type, UInt32Type, Utf8Type,
    },
};
use trine_model::TenantId;
use trine_schema::{AnyBatch, Labels, Signal, StreamRef};

const KIND_STREAMS: u8 = 1;
const KIND_LOGS: u8 = 2;
const KIND_SPANS: u8 = 3;
const KIND_METRICS: u8 = 4;
/// Version of all kinds.
const VERSION: u8 = 1;

/// Buffers begin at multiples of this inside an entry, so that replay can use them in place.
const ALIGN: usize = 8;
static ZEROS: [u8; ALIGN] = [0; ALIGN];

/// Buffer length that stands for "no validity bitmap".
const ABSENT: u32 = u32::MAX;

/// A batch on its way into the log.
pub(crate) struct EncodedBatch {
    head: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl EncodedBatch {
    /// The parts of the entry, in order, without copying.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(1 + 2 * self.buffers.len());
        parts.push(self.head.as_slice());
        for buffer in &self.buffers {
            parts.push(buffer.as_slice());
            let rest = buffer.len() % ALIGN;
            if rest != 0 {
                parts.push(&ZEROS[rest..]);
            }
        }
        parts
    }

    /// Length of the entry in bytes.
    pub fn len(&self) -> usize {
        self.head.len() + self.buffers.iter().map(|b| b.len().next_multiple_of(ALIGN)).sum::<usize>()
    }
}

/// Why an entry does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log entry {0}")]
pub(crate) struct RecordError(pub String);

fn bad(what: impl std::fmt::Display) -> RecordError {
    RecordError(what.to_string())
}

struct Writer {
    lengths: Vec<u32>,
    buffers: Vec<Buffer>,
}

impl Writer {
    fn buffer(&mut self, buffer: Buffer) {
        self.lengths.push(buffer.len() as u32);
        self.buffers.push(buffer);
    }

    fn nulls(&mut self, nulls: Option<&NullBuffer>) {
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => self.buffer(nulls.inner().sliced()),
            None => self.lengths.push(ABSENT),
        }
    }

    fn primitive<T: ArrowPrimitiveType>(&mut self, array: &dyn Array) {
        let array = array.as_primitive::<T>();
        self.nulls(array.nulls());
        self.buffer(array.values().inner().clone());
    }

    /// Any array of a type that [`decode_array`] knows.
    fn array(&mut self, array: &dyn Array) {
        match array.data_type() {
            DataType::UInt8 => self.primitive::<UInt8Type>(array),
            DataType::UInt32 => self.primitive::<UInt32Type>(array),
            DataType::Int64 => self.primitive::<Int64Type>(array),
            DataType::Float64 => self.primitive::<Float64Type>(array),
            DataType::Timestamp(..) => self.primitive::<TimestampNanosecondType>(array),
            DataType::FixedSizeBinary(_) => self.fixed(array.as_fixed_size_binary()),
            DataType::Utf8 => self.bytes(array.as_string()),
            DataType::Binary => self.bytes(array.as_binary()),
            DataType::Map(..) => {
                let map = array.as_map();
                let (start, length) = self.offsets(map.offsets());
                self.array(&map.entries().slice(start, length));
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (start, length) = self.offsets(list.offsets());
                self.array(&list.values().slice(start, length));
            }
            DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| self.array(column)),
            other => unreachable!("BUG: no table has a column of {other}"),
        }
    }

    /// Offsets that start at zero, and the range of values they cover.
    fn offsets(&mut self, offsets: &OffsetBuffer<i32>) -> (usize, usize) {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        if first == 0 {
            self.buffer(offsets.inner().inner().clone());
        } else {
            self.buffer(Buffer::from_vec(offsets.iter().map(|o| o - first).collect::<Vec<i32>>()));
        }
        (first as usize, (last - first) as usize)
    }

    fn bytes<T: ByteArrayType<Offset = i32>>(&mut self, array: &GenericByteArray<T>) {
        self.nulls(array.nulls());
        let (start, length) = self.offsets(array.offsets());
        self.buffer(array.values().slice_with_length(start, length));
    }

    fn fixed(&mut self, array: &FixedSizeBinaryArray) {
        self.nulls(array.nulls());
        self.buffer(array.values().clone());
    }
}

/// Whether a column says anything: a value, a number besides 0, an item of a list.
fn holds_something(array: &ArrayRef) -> bool {
    let filled = |offsets: &OffsetBuffer<i32>| offsets[0] != offsets[offsets.len() - 1];
    match array.data_type() {
        DataType::UInt8 => array.as_primitive::<UInt8Type>().values().iter().any(|number| *number != 0),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().values().iter().any(|number| *number != 0),
        DataType::Map(..) => filled(array.as_map().offsets()),
        DataType::List(_) => filled(array.as_list::<i32>().offsets()),
        _ => array.null_count() < array.len(),
    }
}

/// Prepares a batch for the log; it must have the schema of its signal.
pub(crate) fn encode_batch(batch: &AnyBatch, key: Option<u128>, at_ms: i64) -> EncodedBatch {
    let records = &batch.records;
    let mut writer = Writer { lengths: Vec::with_capacity(40), buffers: Vec::with_capacity(32) };
    let mut present = 0u16;
    for (position, array) in records.columns().iter().enumerate() {
        if holds_something(array) {
            present |= 1 << position;
            writer.array(array);
        }
    }
    let tenant = batch.tenant.as_str().as_bytes();
    let mut head = Vec::with_capacity(48 + tenant.len() + 4 * writer.lengths.len());
    head.extend_from_slice(&[kind_of(batch.signal), VERSION, u8::from(key.is_some()), tenant.len() as u8]);
    head.extend_from_slice(&at_ms.to_le_bytes());
    head.extend_from_slice(&key.unwrap_or(0).to_le_bytes());
    head.extend_from_slice(&(records.num_rows() as u32).to_le_bytes());
    head.extend_from_slice(&present.to_le_bytes());
    head.extend_from_slice(&(writer.lengths.len() as u16).to_le_bytes());
    head.extend_from_slice(tenant);
    writer.lengths.iter().for_each(|length| head.extend_from_slice(&length.to_le_bytes()));
    head.resize(head.len().next_multiple_of(ALIGN), 0);
    EncodedBatch { head, buffers: writer.buffers }
}

fn kind_of(signal: Signal) -> u8 {
    match signal {
        Signal::Logs => KIND_LOGS,
        Signal::Spans => KIND_SPANS,
        Signal::Metrics => KIND_METRICS,
    }
}

/// Defines streams; `fresh` voids all numbers before.
pub(crate) fn encode_streams<'a>(
    fresh: bool,
    streams: impl Iterator<Item = (StreamRef, &'a TenantId, &'a Labels)>,
) -> Vec<u8> {
    let mut out = vec![KIND_STREAMS, VERSION, u8::from(fresh), 0];
    for (number, tenant, labels) in streams {
        let (tenant, labels) = (tenant.as_str(), labels.to_json());
        out.extend_from_slice(&number.to_le_bytes());
        out.push(tenant.len() as u8);
        out.extend_from_slice(tenant.as_bytes());
        out.extend_from_slice(&(labels.len() as u32).to_le_bytes());
        out.extend_from_slice(labels.as_bytes());
    }
    out
}

/// One entry read back.
pub(crate) enum Record {
    Streams {
        fresh: bool,
        streams: Vec<(StreamRef, TenantId, Labels)>,
    },
    /// The `stream` column holds the writer's numbers.
    Batch {
        batch: AnyBatch,
        key: Option<u128>,
        at_ms: i64,
    },
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| bad("ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.take(length)?).map_err(bad)
    }
}

/// Reads an entry.
pub(crate) fn decode(payload: Vec<u8>) -> Result<Record, RecordError> {
    let mut reader = Reader(&payload);
    let [kind, version, flag, length] = reader.array()?;
    if version != VERSION {
        return Err(bad(format!("has version {version}, this program knows {VERSION}")));
    }
    match kind {
        KIND_STREAMS => {
            let mut streams = Vec::new();
            while !reader.0.is_empty() {
                let number = u32::from_le_bytes(reader.array()?);
                let [length] = reader.array()?;
                let tenant = TenantId::new(reader.text(length.into())?).map_err(bad)?;
                let length = u32::from_le_bytes(reader.array()?);
                let labels = Labels::from_json(reader.text(length as usize)?);
                streams.push((
                    number,
                    tenant,
                    labels.ok_or_else(|| bad("holds labels that are no JSON object"))?,
                ));
            }
            Ok(Record::Streams { fresh: flag != 0, streams })
        }
        _ => {
            let signal = Signal::ALL.into_iter().find(|signal| kind_of(*signal) == kind);
            let signal = signal.ok_or_else(|| bad(format!("is of unknown kind {kind}")))?;
            let at_ms = i64::from_le_bytes(reader.array()?);
            let key = u128::from_le_bytes(reader.array()?);
            let rows = u32::from_le_bytes(reader.array()?) as usize;
            let present = u16::from_le_bytes(reader.array()?);
            let count = u16::from_le_bytes(reader.array()?);
            let tenant = TenantId::new(reader.text(length.into())?).map_err(bad)?;
            let lengths =
                (0..count).map(|_| Ok(u32::from_le_bytes(reader.array()?))).collect::<Result<Vec<_>, _>>()?;
            let start = (payload.len() - reader.0.len()).next_multiple_of(ALIGN);
            let mut buffers =
                Buffers { payload: Buffer::from_vec(payload), at: start, lengths: lengths.into_iter() };
            let records = decode_columns(&mut buffers, &signal.schema(), rows, present)?;
            let key = (flag & 1 != 0).then_some(key);
            Ok(Record::Batch { batch: AnyBatch { signal, tenant, records }, key, at_ms })
        }
    }
}

struct Buffers {
    payload: Buffer,
    at: usize,
    lengths: std::vec::IntoIter<u32>,
}

impl Buffers {
    fn next(&mut self) -> Result<Option<Buffer>, RecordError> {
        let length = self.lengths.next().ok_or_else(|| bad("lists too few buffers"))?;
        if length == ABSENT {
            return Ok(None);
        }
        let length = length as usize;
        if self.at + length > self.payload.len() {
            return Err(bad("ends early"));
        }
        let buffer = self.payload.slice_with_length(self.at, length);
        self.at += length.next_multiple_of(ALIGN);
        // The entry's own memory may begin anywhere.
        let aligned = buffer.as_ptr().align_offset(ALIGN) == 0;
        Ok(Some(if aligned { buffer } else { Buffer::from_slice_ref(buffer.as_slice()) }))
    }

    fn values(&mut self, bytes: usize) -> Result<Buffer, RecordError> {
        let buffer = self.next()?.ok_or_else(|| bad("lacks a buffer"))?;
        if buffer.len() == bytes { Ok(buffer) } else { Err(bad("has a buffer of the wrong length")) }
    }

    fn nulls(&mut self, rows: usize) -> Result<Option<NullBuffer>, RecordError> {
        match self.next()? {
            None => Ok(None),
            Some(bits) if bits.len() * 8 >= rows => {
                Ok(Some(NullBuffer::new(BooleanBuffer::new(bits, 0, rows))))
            }
            Some(_) => Err(bad("has a validity bitmap that is too short")),
        }
    }

    fn offsets(&mut self, rows: usize) -> Result<OffsetBuffer<i32>, RecordError> {
        let offsets = ScalarBuffer::<i32>::from(self.values((rows + 1) * 4)?);
        if offsets[0] == 0 && offsets.windows(2).all(|two| two[0] <= two[1]) {
            Ok(OffsetBuffer::new(offsets))
        } else {
            Err(bad("has offsets that fall"))
        }
    }

    fn bytes<T: ByteArrayType<Offset = i32>>(
        &mut self,
        rows: usize,
    ) -> Result<GenericByteArray<T>, RecordError> {
        let nulls = self.nulls(rows)?;
        let offsets = self.offsets(rows)?;
        let values = self.values(offsets[rows] as usize)?;
        GenericByteArray::try_new(offsets, values, nulls).map_err(bad)
    }

    fn primitive<T: ArrowPrimitiveType>(&mut self, rows: usize) -> Result<PrimitiveArray<T>, RecordError> {
        let nulls = self.nulls(rows)?;
        let values = self.values(rows * size_of::<T::Native>())?;
        PrimitiveArray::try_new(ScalarBuffer::from(values), nulls).map_err(bad)
    }
}

fn decode_columns(
    buffers: &mut Buffers,
    schema: &SchemaRef,
    rows: usize,
    present: u16,
) -> Result<RecordBatch, RecordError> {
    let columns = schema.fields().iter().enumerate().map(|(position, field)| {
        let kind = field.data_type();
        if present & (1 << position) != 0 {
            decode_array(buffers, kind, rows)
        } else {
            Ok(nothing(kind, rows))
        }
    });
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(bad)
}

/// What stands for a column that was left out.
fn nothing(kind: &DataType, rows: usize) -> ArrayRef {
    match kind {
        DataType::UInt8 => Arc::new(PrimitiveArray::<UInt8Type>::from_value(0, rows)),
        DataType::UInt32 => Arc::new(PrimitiveArray::<UInt32Type>::from_value(0, rows)),
        DataType::Map(entries, sorted) => {
            let none = new_empty_array(entries.data_type()).as_struct().clone();
            Arc::new(MapArray::new(entries.clone(), OffsetBuffer::new_zeroed(rows), none, None, *sorted))
        }
        DataType::List(item) => {
            let none = new_empty_array(item.data_type());
            Arc::new(ListArray::new(item.clone(), OffsetBuffer::new_zeroed(rows), none, None))
        }
        _ => new_null_array(kind, rows),
    }
}

/// Reads what [`Writer::array`] wrote.
fn decode_array(buffers: &mut Buffers, kind: &DataType, rows: usize) -> Result<ArrayRef, RecordError> {
    Ok(match kind {
        DataType::UInt8 => Arc::new(buffers.primitive::<UInt8Type>(rows)?),
        DataType::UInt32 => Arc::new(buffers.primitive::<UInt32Type>(rows)?),
        DataType::Int64 => Arc::new(buffers.primitive::<Int64Type>(rows)?),
        DataType::Float64 => Arc::new(buffers.primitive::<Float64Type>(rows)?),
        DataType::Timestamp(..) => {
            Arc::new(buffers.primitive::<TimestampNanosecondType>(rows)?.with_timezone("UTC"))
        }
        DataType::FixedSizeBinary(width) => {
            let nulls = buffers.nulls(rows)?;
            let values = buffers.values(rows * *width as usize)?;
            Arc::new(FixedSizeBinaryArray::try_new(*width, values, nulls).map_err(bad)?)
        }
        DataType::Utf8 => Arc::new(buffers.bytes::<Utf8Type>(rows)?),
        DataType::Binary => Arc::new(buffers.bytes::<BinaryType>(rows)?),
        DataType::Map(entries, sorted) => {
            let offsets = buffers.offsets(rows)?;
            let items = decode_array(buffers, entries.data_type(), offsets[rows] as usize)?;
            let items = items.as_struct().clone();
            Arc::new(MapArray::try_new(entries.clone(), offsets, items, None, *sorted).map_err(bad)?)
        }
        DataType::List(item) => {
            let offsets = buffers.offsets(rows)?;
            let items = decode_array(buffers, item.data_type(), offsets[rows] as usize)?;
            Arc::new(ListArray::try_new(item.clone(), offsets, items, None).map_err(bad)?)
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| decode_array(buffers, field.data_type(), rows));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, None, rows).map_err(bad)?)
        }
        other => return Err(bad(format!("has a column of {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use trine_model::{SpanId, TraceId};
    use trine_schema::{
        LogBatchBuilder, LogRecord, MetricBatchBuilder, NativeHistogram, Span, SpanBatchBuilder,
    };

    use super::*;

    fn batch(rows: u32, rich: bool) -> AnyBatch {
        let mut builder = LogBatchBuilder::new(TenantId::new("t").unwrap(), 4, 64);
        for i in 0..rows {
            if rich && i % 3 == 0 {
                builder.attribute("key", "value");
                builder.attribute_display("number", i);
            }
            builder.body(&format!("line {i} ä"));
            let record = LogRecord { stream: i, timestamp: i64::from(i) - 5, ..Default::default() };
            let rich_record = LogRecord {
                observed_timestamp: (i % 2 == 0).then_some(7),
                severity_text: "weird",
                trace_id: (i % 2 == 1).then_some(TraceId([i as u8; 16])),
                span_id: Some(SpanId([1; 8])),
                trace_flags: i,
                event_name: "event",
                scope_name: if i % 5 == 0 { "scope" } else { "" },
                ..record
            };
            builder.push(if rich { &rich_record } else { &record }).unwrap();
        }
        builder.finish().into()
    }

    fn round_trip(batch: &AnyBatch, skew: bool) -> (AnyBatch, Option<u128>, i64) {
        let encoded = encode_batch(batch, Some(9), -3);
        let mut payload = encoded.parts().concat();
        assert_eq!(payload.len(), encoded.len());
        if skew {
            // Memory that begins at an odd address.
            payload.insert(0, 0);
            payload.remove(0);
        }
        match decode(payload).unwrap() {
            Record::Batch { batch, key, at_ms } => (batch, key, at_ms),
            Record::Streams { .. } => panic!("a batch became streams"),
        }
    }

    #[test]
    fn batches_come_back_whole_whatever_columns_they_use() {
        for (rows, rich) in [(0, false), (1, false), (100, false), (100, true)] {
            let batch = batch(rows, rich);
            let (back, key, at_ms) = round_trip(&batch, false);
            assert_eq!((back.tenant, key, at_ms), (batch.tenant, Some(9), -3));
            assert_eq!(back.records, batch.records, "{rows} rows, rich {rich}");
        }
    }

    #[test]
    fn a_slice_of_a_batch_comes_back_as_the_slice() {
        let whole = batch(100, true);
        let slice = AnyBatch { records: whole.records.slice(13, 41), ..whole };
        assert_eq!(round_trip(&slice, true).0.records, slice.records);
    }

    fn spans() -> AnyBatch {
        let mut builder = SpanBatchBuilder::new(TenantId::default(), 50);
        for row in 0..50u8 {
            (0..row % 4).for_each(|event| {
                builder.event_attribute("n", "v");
                builder.event(i64::from(event), "retry");
            });
            if row % 7 == 0 {
                builder.link(TraceId([row; 16]), SpanId([row; 8]), if row > 20 { "a=b" } else { "" });
            }
            builder.push(&Span {
                stream: 0,
                timestamp: i64::from(row),
                duration_ns: -i64::from(row),
                trace_id: TraceId([row; 16]),
                span_id: SpanId([row; 8]),
                parent_span_id: (row > 9).then_some(SpanId([1; 8])),
                operation: "GET",
                kind: row % 6,
                status_code: 0,
                status_message: "",
                trace_state: "",
                trace_flags: 0,
                scope_name: "",
            });
        }
        builder.finish().into()
    }

    fn metrics() -> AnyBatch {
        let mut builder = MetricBatchBuilder::new(TenantId::default(), 50);
        for row in 0..25 {
            builder.float(row, i64::from(row), f64::from(row) / 3.0, 0);
            builder.histogram(row, i64::from(row), &NativeHistogram::default(), i64::from(row % 2));
        }
        builder.finish().into()
    }

    #[test]
    fn batches_of_every_signal_come_back_also_slices_of_them() {
        for batch in [batch(50, true), spans(), metrics()] {
            for (offset, length) in [(0, 50), (11, 30), (3, 1)] {
                let slice = AnyBatch { records: batch.records.slice(offset, length), ..batch.clone() };
                let (back, ..) = round_trip(&slice, false);
                assert_eq!((back.signal, back.records), (batch.signal, slice.records));
            }
        }
    }

    #[test]
    fn an_entry_cut_anywhere_is_an_error_and_never_a_panic() {
        for batch in [batch(20, true), spans(), metrics()] {
            let payload = encode_batch(&batch, None, 0).parts().concat();
            for cut in 0..payload.len() - ALIGN {
                assert!(decode(payload[..cut].to_vec()).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn streams_come_back() {
        let tenant = TenantId::default();
        let labels = Labels::from_pairs(&[("a", "1"), ("b", "\"ü\"")]);
        let payload = encode_streams(true, [(7, &tenant, &labels)].into_iter());
        let Record::Streams { fresh, streams } = decode(payload).unwrap() else {
            panic!("streams became a batch")
        };
        assert_eq!((fresh, streams), (true, vec![(7, tenant, labels)]));
    }
}
