//! Copies runs of rows out of several batches into one.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, MapArray, MutableArrayData, RecordBatch, RecordBatchOptions, StringArray,
        TimestampNanosecondArray, UInt8Array, UInt32Array, make_array, new_null_array,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, SchemaRef, TimestampNanosecondType, UInt8Type, UInt32Type},
};

use arrow::error::ArrowError;

use crate::SegmentError;

/// Rows `start..end` of one batch.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub batch: usize,
    pub start: usize,
    pub end: usize,
}

/// The rows of the pieces, one after another. Batches have the columns of `schema`.
pub fn gather(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    pieces: &[Piece],
) -> Result<RecordBatch, SegmentError> {
    // A memtable has thousands of small batches and one call needs few of them: number those anew.
    let mut numbers = vec![usize::MAX; batches.len()];
    let (mut used, mut renumbered) = (Vec::new(), Vec::with_capacity(pieces.len()));
    for piece in pieces {
        let number = &mut numbers[piece.batch];
        if *number == usize::MAX {
            *number = used.len();
            used.push(&batches[piece.batch]);
        }
        renumbered.push(Piece { batch: *number, ..*piece });
    }
    let rows = pieces.iter().map(|piece| piece.end - piece.start).sum();
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
    let nulls = arrays.iter().any(|array| array.null_count() > 0);
    if nulls && arrays.iter().all(|array| array.null_count() == array.len()) {
        return Ok(new_null_array(data_type, rows));
    }
    Ok(match data_type {
        DataType::UInt32 if !nulls => {
            let slices: Vec<&[u32]> =
                arrays.iter().map(|a| &**a.as_primitive::<UInt32Type>().values()).collect();
            Arc::new(UInt32Array::from(copied(&slices, pieces, rows)))
        }
        DataType::UInt8 if !nulls => {
            let slices: Vec<&[u8]> =
                arrays.iter().map(|a| &**a.as_primitive::<UInt8Type>().values()).collect();
            Arc::new(UInt8Array::from(copied(&slices, pieces, rows)))
        }
        DataType::Timestamp(_, zone) if !nulls => {
            let slices: Vec<&[i64]> =
                arrays.iter().map(|a| &**a.as_primitive::<TimestampNanosecondType>().values()).collect();
            let times = TimestampNanosecondArray::from(copied(&slices, pieces, rows));
            Arc::new(times.with_timezone_opt(zone.clone()))
        }
        DataType::Utf8 if !nulls => text(arrays, pieces, rows)?,
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

fn copied<T: Copy>(slices: &[&[T]], pieces: &[Piece], rows: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(rows);
    for piece in pieces {
        out.extend_from_slice(&slices[piece.batch][piece.start..piece.end]);
    }
    out
}

fn text(arrays: &[&ArrayRef], pieces: &[Piece], rows: usize) -> Result<ArrayRef, ArrowError> {
    let columns: Vec<(&[i32], &[u8])> = arrays
        .iter()
        .map(|array| {
            let array = array.as_string::<i32>();
            (array.value_offsets(), array.value_data())
        })
        .collect();
    let place = |piece: &Piece| {
        let (offsets, data) = columns[piece.batch];
        (&offsets[piece.start..=piece.end], data)
    };
    let bytes: usize = pieces
        .iter()
        .map(|piece| {
            let (offsets, _) = place(piece);
            (offsets[offsets.len() - 1] - offsets[0]) as usize
        })
        .sum();
    if i32::try_from(bytes).is_err() {
        return generic(arrays, pieces, rows);
    }
    let (mut data, mut ends) = (Vec::with_capacity(bytes), Vec::with_capacity(rows + 1));
    ends.push(0i32);
    for piece in pieces {
        let (offsets, source) = place(piece);
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let shift = data.len() as i32 - first;
        data.extend_from_slice(&source[first as usize..last as usize]);
        ends.extend(offsets[1..].iter().map(|end| end + shift));
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(data), None)?))
}

fn generic(arrays: &[&ArrayRef], pieces: &[Piece], rows: usize) -> Result<ArrayRef, ArrowError> {
    let data: Vec<_> = arrays.iter().map(Array::to_data).collect();
    let mut out = MutableArrayData::new(data.iter().collect(), false, rows);
    for piece in pieces {
        out.try_extend(piece.batch, piece.start, piece.end)?;
    }
    Ok(make_array(out.freeze()))
}
