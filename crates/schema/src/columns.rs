//! Columns of a batch: the parts that builders are made of, and what reads them back.
//!
//! The parts keep raw buffers; columns without values take no memory.

use std::{
    fmt,
    io::Write as _,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{
        ArrayData, ArrayRef, AsArray, BinaryArray, BooleanBufferBuilder, FixedSizeBinaryArray, MapArray,
        RecordBatch, StringArray, StructArray,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{ArrowNativeType, DataType, Field, Fields, TimeUnit},
};

use crate::label_name_eq;

/// Nanoseconds since 1970, UTC.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

fn map_entries() -> Fields {
    Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)])
}

fn map_field() -> Arc<Field> {
    Arc::new(Field::new("entries", DataType::Struct(map_entries()), false))
}

/// Map of text to text.
pub(crate) fn map_type() -> DataType {
    DataType::Map(map_field(), false)
}

/// Text column as raw Arrow buffers.
pub(crate) struct TextColumn {
    pub(crate) offsets: Vec<i32>,
    pub(crate) data: Vec<u8>,
}

/// Position in the text of a column, as Arrow writes it.
pub(crate) fn offset(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("BUG: a batch is bounded far below 2 GiB")
}

/// A column of the builder.
fn text_array(offsets: Buffer, data: Vec<u8>, nulls: Option<NullBuffer>) -> StringArray {
    // SAFETY: text enters the columns only as whole `&str`s, or through `LogBatchBuilder::body_bytes`, whose
    // rows its `push` checks before it closes them; what is discarded is cut off at the end of the last closed
    // row.
    unsafe { crate::unchecked::text_array(offsets, data, nulls) }
}

impl TextColumn {
    pub(crate) fn new(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, data: Vec::with_capacity(bytes) }
    }

    pub(crate) fn close(&mut self) {
        self.offsets.push(offset(self.data.len()));
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.data.extend_from_slice(text.as_bytes());
        self.close();
    }

    /// Cuts off all rows from number `rows` on, and what was staged.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        let end = self.committed();
        self.data.truncate(end);
    }

    pub(crate) fn committed(&self) -> usize {
        *self.offsets.last().expect("offsets start with 0") as usize
    }

    pub(crate) fn finish(self) -> StringArray {
        text_array(Buffer::from_vec(self.offsets), self.data, None)
    }
}

/// So many bytes of zeros are shared by all batches, for columns that hold nothing.
const SHARED_ZEROS: usize = 1 << 20;

/// Zeros, aligned for every number.
fn zeros(bytes: usize) -> Buffer {
    if bytes > SHARED_ZEROS {
        return Buffer::from_vec(vec![0u64; bytes.div_ceil(8)]).slice_with_length(0, bytes);
    }
    shared_zeros().slice_with_length(0, bytes)
}

fn shared_zeros() -> &'static Buffer {
    static ZEROS: OnceLock<Buffer> = OnceLock::new();
    ZEROS.get_or_init(|| Buffer::from_vec(vec![0u64; SHARED_ZEROS / 8]))
}

/// Bytes of memory that whole batches (not slices) hold, without the zeros that all batches share.
pub fn memory(records: &RecordBatch) -> usize {
    fn of(data: &ArrayData) -> usize {
        let shared = shared_zeros().as_ptr();
        let own = data.buffers().iter().filter(|buffer| buffer.data_ptr().as_ptr().cast_const() != shared);
        let nulls = data.nulls().map_or(0, |nulls| nulls.buffer().len());
        own.map(Buffer::len).sum::<usize>() + nulls + data.child_data().iter().map(of).sum::<usize>()
    }
    records.columns().iter().map(|column| of(&column.to_data())).sum()
}

/// Numbers of which most equal the one before, written when another one comes. All zero they take no memory.
pub(crate) struct Runs<T> {
    data: Vec<T>,
    pub(crate) last: T,
}

impl<T: ArrowNativeType> Runs<T> {
    pub(crate) fn new() -> Self {
        Self { data: Vec::new(), last: T::default() }
    }

    /// The value from `row` on. Rows only rise.
    #[inline]
    pub(crate) fn set(&mut self, row: usize, value: T) {
        if value != self.last {
            self.data.resize(row, self.last);
            self.last = value;
        }
    }

    /// Cuts off all rows from number `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        if rows <= self.data.len() {
            self.data.truncate(rows);
            self.last = self.data.last().copied().unwrap_or_default();
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Buffer {
        if self.data.is_empty() && self.last == T::default() {
            return zeros(rows * size_of::<T>());
        }
        self.data.resize(rows, self.last);
        Buffer::from_vec(self.data)
    }
}

/// Which rows of an optional column have a value. Rows without one are noted when the next value comes.
pub(crate) struct Validity {
    bits: BooleanBufferBuilder,
    /// So many rows behind `bits` have a value.
    run: usize,
}

impl Validity {
    pub(crate) fn new() -> Self {
        Self { bits: BooleanBufferBuilder::new(0), run: 0 }
    }

    #[inline]
    pub(crate) fn set(&mut self, row: usize) {
        if row > self.bits.len() + self.run {
            self.close(row);
        }
        self.run += 1;
    }

    /// Rows up to `rows` that were not set have no value.
    pub(crate) fn close(&mut self, rows: usize) {
        self.bits.append_n(self.run, true);
        self.run = 0;
        self.bits.append_n(rows - self.bits.len(), false);
    }

    /// Cuts off all rows from number `rows` on.
    fn truncate(&mut self, rows: usize) {
        if rows < self.bits.len() {
            self.bits.truncate(rows);
            self.run = 0;
        } else {
            self.run = self.run.min(rows - self.bits.len());
        }
    }

    pub(crate) fn finish(mut self, rows: usize) -> Option<NullBuffer> {
        if self.run == rows {
            return None;
        }
        self.close(rows);
        Some(NullBuffer::new(self.bits.finish()))
    }
}

/// Optional column of bytes; a row without any costs nothing.
pub(crate) struct OptionalBytes {
    /// Row `n` ends at position `n + 1`.
    offsets: Runs<i32>,
    data: Vec<u8>,
    validity: Validity,
}

impl OptionalBytes {
    pub(crate) fn new() -> Self {
        Self { offsets: Runs::new(), data: Vec::new(), validity: Validity::new() }
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    #[inline]
    pub(crate) fn set(&mut self, row: usize, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.offsets.set(row + 1, offset(self.data.len()));
        self.validity.set(row);
    }

    /// Cuts off all rows from number `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.data.truncate(self.offsets.last as usize);
        self.validity.truncate(rows);
    }

    pub(crate) fn finish(self, rows: usize) -> BinaryArray {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets.finish(rows + 1)));
        BinaryArray::new(offsets, Buffer::from_vec(self.data), self.validity.finish(rows))
    }
}

/// Optional text column; a row without text costs nothing.
pub(crate) struct OptionalText(OptionalBytes);

impl OptionalText {
    pub(crate) fn new() -> Self {
        Self(OptionalBytes::new())
    }

    #[inline]
    pub(crate) fn set(&mut self, row: usize, text: &str) {
        if !text.is_empty() {
            self.0.set(row, text.as_bytes());
        }
    }

    /// Cuts off all rows from number `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows);
    }

    pub(crate) fn finish(self, rows: usize) -> StringArray {
        let OptionalBytes { offsets, data, validity } = self.0;
        text_array(offsets.finish(rows + 1), data, validity.finish(rows))
    }
}

/// Optional column of fixed-size values; a row without a value costs nothing.
pub(crate) struct OptionalFixed<T> {
    data: Vec<T>,
    validity: Validity,
}

impl<T: Copy + Default> OptionalFixed<T> {
    pub(crate) fn new() -> Self {
        Self { data: Vec::new(), validity: Validity::new() }
    }

    #[inline]
    pub(crate) fn set(&mut self, row: usize, value: Option<T>) {
        if let Some(value) = value {
            self.data.resize(row, T::default());
            self.data.push(value);
            self.validity.set(row);
        }
    }

    /// The values, absent ones as zeros, and which are present.
    pub(crate) fn finish(
        mut self,
        rows: usize,
        into: impl Fn(Vec<T>) -> Buffer,
    ) -> (Buffer, Option<NullBuffer>) {
        let values = if self.data.is_empty() {
            zeros(rows * size_of::<T>())
        } else {
            self.data.resize(rows, T::default());
            into(self.data)
        };
        (values, self.validity.finish(rows))
    }
}

impl<const N: usize> OptionalFixed<[u8; N]>
where
    [u8; N]: Default,
{
    pub(crate) fn finish_binary(self, rows: usize) -> FixedSizeBinaryArray {
        let (data, nulls) = self.finish(rows, |data| Buffer::from_vec(data.into_flattened()));
        FixedSizeBinaryArray::try_new(N as i32, data, nulls).expect("BUG: every row has N bytes")
    }
}

/// Attributes of rows: map of text to text.
pub(crate) struct Attributes {
    /// Those of row `n` end at position `n + 1`.
    rows: Runs<i32>,
    keys: TextColumn,
    values: TextColumn,
}

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::with_room(0, 0)
    }

    /// With room for so many pairs, and so many bytes of keys and of values.
    pub(crate) fn with_room(pairs: usize, bytes: usize) -> Self {
        Self { rows: Runs::new(), keys: TextColumn::new(pairs, bytes), values: TextColumn::new(pairs, bytes) }
    }

    /// Bytes of keys and values so far, staged ones included.
    pub(crate) fn text_bytes(&self) -> usize {
        self.keys.data.len() + self.values.data.len()
    }

    /// Stages an attribute of the row.
    #[inline]
    pub(crate) fn push(&mut self, key: &str, value: &str) {
        self.keys.push(key);
        self.values.push(value);
    }

    /// Stages an attribute whose value is written by `Display`.
    pub(crate) fn push_display(&mut self, key: &str, value: impl fmt::Display) {
        self.keys.push(key);
        write!(self.values.data, "{value}").expect("writing to memory cannot fail");
        self.values.close();
    }

    /// Closes row number `row` with what was staged.
    #[inline]
    pub(crate) fn close(&mut self, row: usize) {
        let staged = self.keys.offsets.len() - 1;
        self.rows.set(row + 1, offset(staged));
    }

    /// Forgets what was staged.
    pub(crate) fn discard(&mut self) {
        let closed = self.rows.last as usize;
        self.keys.truncate(closed);
        self.values.truncate(closed);
    }

    /// Cuts off all rows from number `rows` on, and what was staged.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.rows.truncate(rows + 1);
        self.discard();
    }

    pub(crate) fn finish(self, rows: usize) -> MapArray {
        let columns =
            vec![Arc::new(self.keys.finish()) as ArrayRef, Arc::new(self.values.finish()) as ArrayRef];
        let entries = StructArray::new(map_entries(), columns, None);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.rows.finish(rows + 1)));
        MapArray::new(map_field(), offsets, entries, None, false)
    }
}

/// Attribute pairs of one row of an attributes column.
pub fn attributes_of(map: &MapArray, row: usize) -> impl Iterator<Item = (&str, &str)> {
    let offsets = map.value_offsets();
    let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
    let (keys, values) = (map.keys().as_string::<i32>(), map.values().as_string::<i32>());
    (start..end).map(move |i| (keys.value(i), values.value(i)))
}

/// Which attribute a name in a question means: the one of just this name, else the first that becomes this
/// name where labels are spelled as Prometheus does, `a_b` for `a.b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeName<'a> {
    /// As asked for.
    pub name: &'a str,
    respelled: bool,
}

impl<'a> AttributeName<'a> {
    /// Of a name in a question.
    pub fn new(name: &'a str) -> Self {
        Self { name, respelled: may_be_respelled(name) }
    }

    /// Whether a stored name is another spelling of this one.
    pub fn is_respelled(&self, stored: &str) -> bool {
        self.respelled && stored != self.name && label_name_eq(stored, self.name)
    }

    /// Position of the attribute that is meant among those of a row.
    pub fn position(&self, map: &MapArray, row: usize) -> Option<usize> {
        let find = |test: &dyn Fn(&str) -> bool| attributes_of(map, row).position(|(key, _)| test(key));
        let exact = find(&|key| key == self.name);
        exact.or_else(|| if self.respelled { find(&|key| self.is_respelled(key)) } else { None })
    }

    /// Value of the attribute that is meant.
    pub fn value<'m>(&self, map: &'m MapArray, row: usize) -> Option<&'m str> {
        let position = self.position(map, row)?;
        Some(map.values().as_string::<i32>().value(map.value_offsets()[row] as usize + position))
    }
}

/// Whether a stored name may be another than this and still be meant.
pub fn may_be_respelled(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
