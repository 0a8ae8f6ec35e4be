//! Joining blocks of several encoders without encoding their lines again: one dictionary for all, and
//! blocks and indexes whose template ids are changed to those of the new dictionary.

use hashbrown::HashMap;

use crate::{
    BlockIndex, BodyError, Dictionary, Options,
    dictionary::{self, Slot},
    sections::{compress, compressor, expand, prefix},
    wire::{Reader, put_varint, put_zigzag},
};

/// Gathers the templates of several dictionaries into one; equal texts become one template.
pub struct DictionaryMerger {
    options: Options,
    ids: HashMap<Box<[u8]>, u32>,
    /// Bounds of the slots by template.
    slots: Vec<Vec<Slot>>,
}

impl DictionaryMerger {
    /// A merger that has no template yet.
    pub fn new(options: Options) -> Self {
        Self { options, ids: HashMap::new(), slots: Vec::new() }
    }

    /// Takes in the templates of a dictionary; returns their new ids by old id. `None` when there would be
    /// more templates than the options allow; what was taken in stays.
    pub fn add(&mut self, dictionary: &Dictionary) -> Option<Vec<u32>> {
        let mut ids = Vec::with_capacity(dictionary.len());
        for id in 0..dictionary.len() as u32 {
            let (text, slots) = (dictionary.text_of(id), dictionary.slots_of(id));
            if let Some(known) = self.ids.get(text) {
                for (all, slot) in self.slots[*known as usize].iter_mut().zip(slots) {
                    all.widen(*slot);
                }
                ids.push(*known);
                continue;
            }
            let new = self.slots.len() as u32;
            if new as usize >= self.options.max_templates.max(1) {
                return None;
            }
            self.ids.insert(text.into(), new);
            self.slots.push(slots.to_vec());
            ids.push(new);
        }
        Some(ids)
    }

    /// The dictionary, serialised; [`Dictionary::parse`] reads it.
    pub fn finish(self) -> Vec<u8> {
        let mut texts: Vec<(u32, Box<[u8]>)> = self.ids.into_iter().map(|(text, id)| (id, text)).collect();
        texts.sort_unstable_by_key(|(id, _)| *id);
        dictionary::write(texts.iter().zip(&self.slots).map(|((_, text), slots)| (&**text, slots.as_slice())))
    }
}

/// Appends the block with its template ids changed: `ids` has the new id by old id.
pub fn renumber_block(
    block: &[u8],
    ids: &[u32],
    options: &Options,
    out: &mut Vec<u8>,
) -> Result<(), BodyError> {
    let (mut lengths, mut sections) = prefix(block)?;
    let stored = sections.take(lengths[1])?;
    let mut head = Vec::new();
    expand(stored, lengths[0], &mut head)?;
    let mut reader = Reader::new(&head);
    let count = reader.bounded(lengths[7])?;
    let mut renumbered = Vec::with_capacity(head.len() + 16);
    put_varint(&mut renumbered, count as u64);
    let (mut before, mut last) = (0u32, 0u32);
    for _ in 0..count {
        before = before.checked_add_signed(reader.zigzag32()?).ok_or(NO_SUCH_TEMPLATE)?;
        let id = *ids.get(before as usize).ok_or(NO_SUCH_TEMPLATE)?;
        put_zigzag(&mut renumbered, i64::from(id) - i64::from(last));
        put_varint(&mut renumbered, reader.varint()?);
        last = id;
    }
    renumbered.extend_from_slice(&head[reader.position()..]);
    let mut packed = Vec::new();
    compress(&mut compressor(options.zstd_level), &renumbered, &mut packed);
    let shorter = if packed.len() < renumbered.len() { &packed } else { &renumbered };
    (lengths[0], lengths[1]) = (renumbered.len(), shorter.len());
    out.push(block[0]);
    out.extend(lengths.iter().flat_map(|length| (*length as u32).to_le_bytes()));
    out.extend_from_slice(shorter);
    out.extend_from_slice(&block[block.len() - sections.left()..]);
    Ok(())
}

const NO_SUCH_TEMPLATE: BodyError =
    BodyError::Corrupt("a block names a template that its dictionary has not");

impl BlockIndex {
    /// Changes the template ids: `ids` has the new id by old id.
    pub fn renumber(&mut self, ids: &[u32]) -> Result<(), BodyError> {
        for (template, _) in &mut self.templates {
            *template = *ids.get(*template as usize).ok_or(NO_SUCH_TEMPLATE)?;
        }
        self.templates.sort_unstable();
        Ok(())
    }
}
