//! From lines to blocks and their index.

use crate::{
    BlockIndex, Options,
    column::{ColumnWriter, Habit},
    dictionary::{self, Slot, slots_of},
    index::IndexBuilder,
    ints::{self, IntScratch},
    miner::{Miner, Variables},
    sections::Writer,
    values::Span,
    wire::{put_varint, put_zigzag},
};

/// Templates with fewer rows in a block put their values into one common text column.
pub(crate) const FEW_ROWS: u32 = 6;
/// Most rows of a block.
pub(crate) const MAX_ROWS: usize = 1 << 20;

/// Encodes the blocks of one segment and builds its dictionary. Keeps its scratch buffers.
pub struct Encoder {
    miner: Miner,
    /// Slots of all templates; the first of template `t` is `first_slot[t]`.
    slots: Vec<Slot>,
    habits: Vec<Habit>,
    first_slot: Vec<u32>,
    variables: Variables,
    /// Template of each row.
    rows: Vec<u32>,
    /// Rows per template in this block.
    counts: Vec<u32>,
    /// Templates of this block, ascending.
    present: Vec<u32>,
    /// Per template its position in `present`.
    local: Vec<u32>,
    /// Per present template: where its columns start, and how many rows were placed.
    starts: Vec<(u32, u32)>,
    columns: Vec<Span>,
    few: Vec<Span>,
    ids: Vec<u64>,
    index: IndexBuilder,
    column_writer: ColumnWriter,
    ints: IntScratch,
    writer: Writer,
}

impl Encoder {
    /// An encoder with an empty dictionary.
    pub fn new(options: Options) -> Self {
        Self {
            miner: Miner::new(options.max_templates),
            slots: Vec::new(),
            habits: Vec::new(),
            first_slot: vec![0],
            variables: Variables::default(),
            rows: Vec::new(),
            counts: Vec::new(),
            present: Vec::new(),
            local: Vec::new(),
            starts: Vec::new(),
            columns: Vec::new(),
            few: Vec::new(),
            ids: Vec::new(),
            index: IndexBuilder::default(),
            column_writer: ColumnWriter::default(),
            ints: IntScratch::default(),
            writer: Writer::new(options.zstd_level),
        }
    }

    /// Appends one block with the lines to `out`. At most 1,048,576 lines and 2 GiB of text; more is a
    /// bug of the caller and panics.
    pub fn encode_block<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> BlockIndex {
        self.mine(lines);
        self.index.start();
        let writer = &mut self.writer;
        writer.clear();
        put_varint(&mut writer.head, self.present.len() as u64);
        let mut last = 0;
        for &template in &self.present {
            put_zigzag(&mut writer.head, i64::from(template) - i64::from(last));
            put_varint(&mut writer.head, u64::from(self.counts[template as usize]));
            last = template;
        }
        self.ids.clear();
        self.ids.extend(self.rows.iter().map(|&template| u64::from(self.local[template as usize])));
        ints::encode(&mut self.ids, &mut self.ints, writer);
        self.column_writer.start_block();
        let text = self.variables.text.padded();
        // The values of all templates with few rows, one after another, as text.
        self.few.clear();
        for (i, &template) in self.present.iter().enumerate() {
            let count = self.counts[template as usize];
            if count < FEW_ROWS {
                let (first, end) = slots(&self.first_slot, template);
                let start = self.starts[i].0 as usize;
                let columns = &self.columns[start..start + count as usize * (end - first)];
                self.few.extend_from_slice(columns);
                for (slot, values) in self.slots[first..end].iter_mut().zip(columns.chunks(count as usize)) {
                    slot.widen(self.index.column(text, values));
                }
            }
        }
        if !self.few.is_empty() {
            self.column_writer.text(text, &self.few, writer);
        }
        for (i, &template) in self.present.iter().enumerate() {
            let count = self.counts[template as usize];
            if count >= FEW_ROWS {
                let (first, end) = slots(&self.first_slot, template);
                let start = self.starts[i].0 as usize;
                let columns = &self.columns[start..start + count as usize * (end - first)];
                let slots = &mut self.slots[first..end];
                let habits = &mut self.habits[first..end];
                self.column_writer.template(text, columns, slots, habits, &mut self.index, writer);
            }
        }
        writer.finish(self.rows.len() as u32, out);
        let templates = self.present.iter().map(|&t| (t, self.counts[t as usize])).collect();
        self.index.finish(self.rows.len() as u32, templates)
    }

    /// Templates so far.
    pub fn template_count(&self) -> usize {
        self.miner.len()
    }

    /// The dictionary, serialised; [`crate::Dictionary::parse`] reads it.
    pub fn finish(self) -> Vec<u8> {
        dictionary::write((0..self.first_slot.len() - 1).map(|t| {
            let (start, end) = (self.first_slot[t] as usize, self.first_slot[t + 1] as usize);
            (self.miner.text(t as u32), &self.slots[start..end])
        }))
    }

    /// Templates and columns of the lines.
    fn mine<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) {
        self.variables.clear();
        self.rows.clear();
        self.ids.clear();
        let mut bytes = 0usize;
        for line in lines {
            bytes += line.len();
            self.rows.push(self.miner.line(line, &mut self.variables));
        }
        assert!(
            self.rows.len() <= MAX_ROWS && bytes < 2 << 30,
            "BUG: a block takes 1,048,576 rows and 2 GiB"
        );
        for t in self.first_slot.len() as u32 - 1..self.miner.len() as u32 {
            let slots = slots_of(self.miner.text(t));
            self.slots.resize(self.slots.len() + slots, Slot::default());
            self.habits.resize(self.slots.len(), Habit::default());
            self.first_slot.push(self.slots.len() as u32);
        }
        for &template in &self.present {
            self.counts[template as usize] = 0;
        }
        self.present.clear();
        self.counts.resize(self.miner.len(), 0);
        self.local.resize(self.miner.len(), 0);
        for &template in &self.rows {
            let count = &mut self.counts[template as usize];
            if *count == 0 {
                self.present.push(template);
            }
            *count += 1;
        }
        self.present.sort_unstable();
        self.starts.clear();
        let mut start = 0;
        for (i, &template) in self.present.iter().enumerate() {
            self.local[template as usize] = i as u32;
            self.starts.push((start, 0));
            let (first, end) = slots(&self.first_slot, template);
            start += self.counts[template as usize] * (end - first) as u32;
        }
        debug_assert_eq!(start as usize, self.variables.spans.len());
        self.columns.clear();
        self.columns.resize(start as usize, (0, 0));
        let mut spans = self.variables.spans.iter();
        for &template in &self.rows {
            let (start, placed) = &mut self.starts[self.local[template as usize] as usize];
            let stride = self.counts[template as usize];
            let mut at = *start + *placed;
            *placed += 1;
            let (first, end) = slots(&self.first_slot, template);
            for &value in spans.by_ref().take(end - first) {
                self.columns[at as usize] = value;
                at += stride;
            }
        }
    }
}

/// Where the slots of a template start and end among all slots.
#[inline]
fn slots(first_slot: &[u32], template: u32) -> (usize, usize) {
    (first_slot[template as usize] as usize, first_slot[template as usize + 1] as usize)
}
