//! Copies runs of rows out of several batches into one.
//!
//! Runs are often a single row (records of many streams arrive mixed), so each kind of column has
//! its own plain loop; only maps with entries go through Arrow's generic copying.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanBufferBuilder, FixedSizeBinaryArray, MapArray, MutableArrayData,
        PrimitiveArray, RecordBatch, RecordBatchOptions, make_array, new_null_array,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, DataType, SchemaRef, TimestampNanosecondType, UInt8Type, UInt32Type},
    error::ArrowError,
};

use crate::SegmentError;

/// Rows `start..end` of one batch.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub batch: u32,
    pub start: u32,
    pub end: u32,
}

impl Piece {
    fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The rows of the pieces, one after another. Batches have the columns of `schema`.
pub fn gather(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    pieces: &[Piece],
) -> Result<RecordBatch, SegmentError> {
    // A memtable has thousands of small batches and one call needs few of them: number those anew.
    let mut numbers = vec![u32::MAX; batches.len()];
    let (mut used, mut renumbered) = (Vec::new(), Vec::with_capacity(pieces.len()));
    for piece in pieces {
        let number = &mut numbers[piece.batch as usize];
        if *number == u32::MAX {
            *number = used.len() as u32;
            used.push(&batches[piece.batch as usize]);
        }
        renumbered.push(Piece { batch: *number, ..*piece });
    }
    let rows = pieces.iter().map(Piece::len).sum();
    let columns = (0..schema.fields().len())
        .map(|position| {
            let arrays: Vec<&ArrayRef> = used.iter().map(|batch| batch.column(position)).collect();
            gather_column(schema.field(position).data_type(), &arrays, &renumbered, rows)
        })
        .collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn gather_column(
    data_type: &DataType,
    arrays: &[&ArrayRef],
    pieces: &[Piece],
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    if arrays.iter().all(|array| array.null_count() == array.len() && !array.is_empty()) {
        return Ok(new_null_array(data_type, rows));
    }
    let nulls = nulls(arrays, pieces, rows);
    Ok(match data_type {
        DataType::UInt32 => Arc::new(primitive::<UInt32Type>(arrays, pieces, rows, nulls)),
        DataType::UInt8 => Arc::new(primitive::<UInt8Type>(arrays, pieces, rows, nulls)),
        DataType::Timestamp(_, zone) => {
            let times = primitive::<TimestampNanosecondType>(arrays, pieces, rows, nulls);
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        DataType::FixedSizeBinary(width) => {
            Arc::new(FixedSizeBinaryArray::try_new(*width, fixed(arrays, pieces, *width as usize), nulls)?)
        }
        DataType::Utf8 => text(arrays, pieces, rows, nulls)?,
        DataType::Map(field, _) if arrays.iter().all(|array| is_empty_map(array.as_map())) => {
            let any = arrays[0].as_map();
            let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0i32; rows + 1]));
            let entries = any.entries().slice(0, 0);
            Arc::new(MapArray::new(field.clone(), offsets, entries, None, false))
        }
        _ => generic(arrays, pieces, rows)?,
    })
}

fn is_empty_map(map: &MapArray) -> bool {
    let offsets = map.value_offsets();
    offsets.first() == offsets.last()
}

/// Which of the rows have a value; none when all have.
fn nulls(arrays: &[&ArrayRef], pieces: &[Piece], rows: usize) -> Option<NullBuffer> {
    let of: Vec<Option<&NullBuffer>> =
        arrays.iter().map(|array| array.nulls().filter(|nulls| nulls.null_count() > 0)).collect();
    if of.iter().all(Option::is_none) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(rows);
    for piece in pieces {
        match of[piece.batch as usize] {
            None => bits.append_n(piece.len(), true),
            Some(nulls) => (piece.start..piece.end).for_each(|row| bits.append(nulls.is_valid(row as usize))),
        }
    }
    Some(NullBuffer::new(bits.finish()))
}

fn primitive<T: ArrowPrimitiveType>(
    arrays: &[&ArrayRef],
    pieces: &[Piece],
    rows: usize,
    nulls: Option<NullBuffer>,
) -> PrimitiveArray<T> {
    let slices: Vec<&[T::Native]> =
        arrays.iter().map(|array| &**array.as_primitive::<T>().values()).collect();
    let mut out = Vec::with_capacity(rows);
    for piece in pieces {
        let slice = slices[piece.batch as usize];
        if piece.len() == 1 {
            out.push(slice[piece.start as usize]);
        } else {
            out.extend_from_slice(&slice[piece.start as usize..piece.end as usize]);
        }
    }
    PrimitiveArray::new(ScalarBuffer::from(out), nulls)
}

fn fixed(arrays: &[&ArrayRef], pieces: &[Piece], width: usize) -> Buffer {
    let slices: Vec<&[u8]> = arrays.iter().map(|array| array.as_fixed_size_binary().value_data()).collect();
    let mut out = Vec::with_capacity(pieces.iter().map(Piece::len).sum::<usize>() * width);
    for piece in pieces {
        let slice = slices[piece.batch as usize];
        out.extend_from_slice(&slice[piece.start as usize * width..piece.end as usize * width]);
    }
    Buffer::from_vec(out)
}

fn text(
    arrays: &[&ArrayRef],
    pieces: &[Piece],
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let arrays: Vec<_> = arrays.iter().map(|array| array.as_string::<i32>()).collect();
    let columns: Vec<(&[i32], &[u8])> =
        arrays.iter().map(|array| (array.value_offsets(), array.value_data())).collect();
    let mut ends = Vec::with_capacity(rows + 1);
    ends.push(0i32);
    let mut end = 0i32;
    for piece in pieces {
        let offsets = &columns[piece.batch as usize].0[piece.start as usize..=piece.end as usize];
        let shift = end.wrapping_sub(offsets[0]);
        let last = end.checked_add(offsets[offsets.len() - 1] - offsets[0]);
        end = last.ok_or_else(|| ArrowError::OffsetOverflowError(i32::MAX as usize))?;
        ends.extend(offsets[1..].iter().map(|end| end.wrapping_add(shift)));
    }
    let mut data = Vec::with_capacity(end as usize);
    for piece in pieces {
        let (offsets, source) = columns[piece.batch as usize];
        let (first, last) = (offsets[piece.start as usize], offsets[piece.end as usize]);
        data.extend_from_slice(&source[first as usize..last as usize]);
    }
    // SAFETY: each row is a copy of one whole value of a `StringArray`, which is UTF-8.
    Ok(Arc::new(unsafe { trine_schema::unchecked::text_array(Buffer::from_vec(ends), data, nulls) }))
}

fn generic(arrays: &[&ArrayRef], pieces: &[Piece], rows: usize) -> Result<ArrayRef, ArrowError> {
    let data: Vec<_> = arrays.iter().map(Array::to_data).collect();
    let mut out = MutableArrayData::new(data.iter().collect(), false, rows);
    for piece in pieces {
        out.try_extend(piece.batch as usize, piece.start as usize, piece.end as usize)?;
    }
    Ok(make_array(out.freeze()))
}
