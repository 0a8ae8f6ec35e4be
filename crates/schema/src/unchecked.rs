//! Text columns whose UTF-8 was checked before.

use arrow::{
    array::StringArray,
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
};

/// Text without checking its UTF-8 a second time: row `n` is `data[offsets[n]..offsets[n + 1]]`. Offsets (32 bits
/// each) and lengths are checked; wrong ones are a bug of the caller and panic.
///
/// # Safety
/// Each row must be UTF-8.
pub unsafe fn text_array(offsets: Buffer, data: Vec<u8>, nulls: Option<NullBuffer>) -> StringArray {
    // Panics when offsets fall or begin below 0.
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let last = *offsets.last().expect("offsets are never empty") as usize;
    assert!(last <= data.len(), "BUG: text ends behind its bytes");
    assert!(
        nulls.as_ref().is_none_or(|nulls| nulls.len() == offsets.len() - 1),
        "BUG: text has another number of rows than its nulls"
    );
    // SAFETY: `new_unchecked` asks for what `try_new` checks. Offsets do not fall and begin at 0 or above
    // (`OffsetBuffer::new`), they end within the data and nulls have one bit per row (asserted); that each
    // row is UTF-8 is the caller's promise.
    unsafe { StringArray::new_unchecked(offsets, Buffer::from_vec(data), nulls) }
}
