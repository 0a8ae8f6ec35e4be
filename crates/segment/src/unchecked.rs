//! Building text without checking its UTF-8 a second time. The only `unsafe` of this crate.

use arrow::{
    array::StringArray,
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
};

/// Text made of whole values that were copied from checked text: value `i` is `data[ends[i]..ends[i + 1]]`.
/// The caller must have filled both from the values of `StringArray`s, as [`crate::gather`] does; the
/// function stays inside the crate for that. Offsets and lengths are checked here.
pub(crate) fn text_of_copies(ends: Vec<i32>, data: Vec<u8>, nulls: Option<NullBuffer>) -> StringArray {
    // `OffsetBuffer::new` panics when offsets fall.
    let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
    let last = *offsets.last().expect("offsets are never empty") as usize;
    assert!(last <= data.len(), "BUG: text ends behind its bytes");
    assert!(
        nulls.as_ref().is_none_or(|nulls| nulls.len() == offsets.len() - 1),
        "BUG: text has another number of rows than its nulls"
    );
    // SAFETY: `new_unchecked` asks for what `try_new` checks. Offsets do not fall (`OffsetBuffer::new`), start
    // at 0 or above and end within the data (asserted), nulls have one bit per value (asserted), and each
    // value is a copy of one whole value of a `StringArray`, which is UTF-8.
    unsafe { StringArray::new_unchecked(offsets, Buffer::from_vec(data), nulls) }
}
