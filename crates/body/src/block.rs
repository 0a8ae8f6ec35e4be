//! One encoded block: reading rows back and searching.

use crate::{
    BodyError, Dictionary, PreparedQuery, RowSet,
    column::SAME,
    column_read::{ColumnReader, ReadBuffers, Texts},
    encoder::{FEW_ROWS, MAX_ROWS},
    ints::{self, Wanted},
    query::{Literal, Plan, bit_of},
    sections::{Buffers, Sections, prefix},
    wire::append,
};

/// Buffers that reading reuses; one per thread.
#[derive(Default)]
pub struct Scratch {
    buffers: Buffers,
    read: ReadBuffers,
    present: Vec<Present>,
    ids: Vec<u64>,
    few: Texts,
    columns: Vec<Texts>,
    line: Vec<u8>,
    hits: Vec<bool>,
    /// Which rows of their template are wanted, template by template.
    picks: Vec<u32>,
}

/// A template of a block.
#[derive(Debug, Clone, Copy)]
struct Present {
    template: u32,
    /// Rows of the template in this block.
    count: u32,
    slots: u32,
    /// First of its columns among those that were read.
    first_column: u32,
    /// First of its values among those of templates with few rows.
    first_few: u32,
    /// Next row to be read.
    next: u32,
    /// First of its entries in `Scratch::hits`.
    first_hit: u32,
    wanted: bool,
    /// How many of its rows are wanted, when only some are, and the first of them in `Scratch::picks`.
    picked: u32,
    first_pick: u32,
}

impl Present {
    fn is_few(&self) -> bool {
        self.count < FEW_ROWS
    }

    /// Those of its rows that are wanted.
    fn picks<'a>(&self, picks: &'a [u32]) -> &'a [u32] {
        &picks[self.first_pick as usize..][..self.picked as usize]
    }
}

/// One encoded block.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    bytes: &'a [u8],
    rows: u32,
}

impl<'a> Block<'a> {
    /// Checks the version; everything else is checked when it is read.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BodyError> {
        let (lengths, _) = prefix(bytes)?;
        if lengths[7] > MAX_ROWS {
            return Err(BodyError::Corrupt("a block has more rows than any writer makes"));
        }
        Ok(Self { bytes, rows: lengths[7] as u32 })
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Template id of each row, appended to `ids`.
    pub fn template_ids(&self, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<(), BodyError> {
        let mut sections = Sections::open(self.bytes, &mut scratch.buffers)?;
        self.head(&mut sections, None, &mut scratch.present)?;
        self.ids(&mut sections, &scratch.present, &mut scratch.ids)?;
        ids.extend(scratch.ids.iter().map(|&i| scratch.present[i as usize].template));
        Ok(())
    }

    /// Rebuilds lines: all, or those of `rows`, which must be ascending. Bytes are appended to `out`;
    /// the end of each line, as a position in `out`, is appended to `ends`.
    pub fn decode(
        &self,
        dictionary: &Dictionary,
        rows: Option<&[u32]>,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
        ends: &mut Vec<i32>,
    ) -> Result<(), BodyError> {
        let Scratch { buffers, read, present, ids, few, columns, picks, .. } = scratch;
        let mut sections = Sections::open(self.bytes, buffers)?;
        self.head(&mut sections, Some(dictionary), present)?;
        self.ids(&mut sections, present, ids)?;
        if let Some(rows) = rows {
            pick(rows, ids, present, picks)?;
        } else {
            present.iter_mut().for_each(|template| template.wanted = true);
        }
        let mut reader = ColumnReader::new(sections, read);
        read_few(&mut reader, present, few)?;
        let mut used = 0;
        // What lies behind the last wanted template needs not even be passed by.
        let end = present.iter().rposition(|template| template.wanted).map_or(0, |last| last + 1);
        for template in present[..end].iter_mut().filter(|template| !template.is_few()) {
            let wanted = match rows {
                Some(_) if template.picked < template.count => Wanted::These(template.picks(picks)),
                _ => Wanted::All,
            };
            used = read_template(&mut reader, template, wanted, columns, used)?;
        }
        let mut put = |id: u64| {
            let template = &mut present[id as usize];
            let mut nth = template.next;
            template.next += 1;
            if rows.is_some() && template.is_few() {
                nth = template.picks(picks)[nth as usize];
            }
            rebuild(dictionary, template, nth, few, columns, out);
            let end =
                i32::try_from(out.len()).map_err(|_| BodyError::Corrupt("rebuilt lines exceed 2 GiB"))?;
            ends.push(end);
            Ok(())
        };
        match rows {
            Some(rows) => rows.iter().try_for_each(|&row| put(ids[row as usize])),
            None => ids.iter().try_for_each(|&id| put(id)),
        }
    }

    /// Sets `found` to the rows that match. With `within`, only those rows are looked at.
    pub fn search(
        &self,
        dictionary: &Dictionary,
        query: &PreparedQuery,
        within: Option<&RowSet>,
        scratch: &mut Scratch,
        found: &mut RowSet,
    ) -> Result<(), BodyError> {
        found.reset(self.rows);
        let Scratch { buffers, read, present, ids, few, columns, line, hits, picks } = scratch;
        let mut sections = Sections::open(self.bytes, buffers)?;
        self.head(&mut sections, Some(dictionary), present)?;
        let plan_of = |template: &Present| query.plan(template.template);
        if present.iter().all(|template| plan_of(template) == Plan::Never) {
            return Ok(());
        }
        if present.iter().all(|template| plan_of(template) == Plan::Always) {
            found.insert_all();
            if let Some(within) = within {
                found.intersect(within);
            }
            return Ok(());
        }
        self.ids(&mut sections, present, ids)?;
        if let Some(within) = within {
            for (row, &id) in ids.iter().enumerate() {
                present[id as usize].wanted |= within.contains(row as u32);
            }
        }
        hits.clear();
        for template in present.iter_mut() {
            template.first_hit = hits.len() as u32;
            let plan = plan_of(template);
            hits.resize(hits.len() + template.count as usize, plan == Plan::Always);
            template.wanted =
                matches!(plan, Plan::Slots(_) | Plan::Rebuild) && (within.is_none() || template.wanted);
        }
        let mut reader = ColumnReader::new(sections, read);
        read_few(&mut reader, present, few)?;
        let mut verify = false;
        for template in present.iter_mut() {
            let first = template.first_hit as usize;
            let hits = &mut hits[first..first + template.count as usize];
            match plan_of(template) {
                Plan::Slots(slots) if template.wanted && !template.is_few() => {
                    search_slots(&mut reader, template, slots, query, columns, hits)?;
                    verify |= query.must_verify() && hits.contains(&true);
                }
                _ => {
                    if !template.is_few() {
                        read_template(&mut reader, template, Wanted::All, columns, 0)?;
                    }
                    if template.wanted {
                        for (nth, hit) in hits.iter_mut().enumerate() {
                            line.clear();
                            rebuild(dictionary, template, nth as u32, few, columns, line);
                            *hit = query.matches(line);
                        }
                    }
                }
            }
        }
        if verify {
            // Rows with a literal in a variable are candidates of a regular expression: only now are
            // the other variables of their templates worth reading.
            let mut sections = Sections::open(self.bytes, buffers)?;
            self.head(&mut sections, None, &mut Vec::new())?;
            ints::decode(self.rows as usize, Wanted::Nothing, &mut sections, &mut Vec::new())?;
            let mut reader = ColumnReader::new(sections, read);
            for template in present.iter_mut() {
                let first = template.first_hit as usize;
                let hits = &hits[first..first + template.count as usize];
                let candidates = matches!(plan_of(template), Plan::Slots(_)) && !template.is_few();
                template.wanted &= candidates && hits.contains(&true);
            }
            read_few(&mut reader, present, few)?;
            for template in present.iter_mut().filter(|template| !template.is_few()) {
                let first = template.first_hit as usize;
                let hits = &mut hits[first..first + template.count as usize];
                picks.clear();
                if template.wanted {
                    picks.extend((0..template.count).filter(|&nth| hits[nth as usize]));
                }
                read_template(&mut reader, template, Wanted::These(picks), columns, 0)?;
                for (i, &nth) in picks.iter().enumerate() {
                    line.clear();
                    rebuild(dictionary, template, i as u32, few, columns, line);
                    hits[nth as usize] = query.matches(line);
                }
            }
        }
        for (row, &id) in ids.iter().enumerate() {
            let template = &mut present[id as usize];
            if hits[(template.first_hit + template.next) as usize] {
                found.insert(row as u32);
            }
            template.next += 1;
        }
        if let Some(within) = within {
            found.intersect(within);
        }
        Ok(())
    }

    /// Templates of the block.
    fn head(
        &self,
        sections: &mut Sections<'_>,
        dictionary: Option<&Dictionary>,
        present: &mut Vec<Present>,
    ) -> Result<(), BodyError> {
        present.clear();
        let count = sections.head.bounded(self.rows as usize)?;
        let (mut template, mut rows, mut first_few) = (0u32, 0u64, 0u32);
        for _ in 0..count {
            let step = sections.head.zigzag32()?;
            template =
                template.checked_add_signed(step).ok_or(BodyError::Corrupt("a template id overflows"))?;
            let count = sections.head.bounded(self.rows as usize)? as u32;
            rows += u64::from(count);
            let slots = match dictionary {
                Some(dictionary) if (template as usize) < dictionary.len() => {
                    dictionary.slots_of(template).len() as u32
                }
                Some(_) => return Err(BodyError::Corrupt("a template id is not in the dictionary")),
                None => 0,
            };
            let entry = Present {
                template,
                count,
                slots,
                first_column: 0,
                first_few,
                next: 0,
                first_hit: 0,
                wanted: false,
                picked: 0,
                first_pick: 0,
            };
            if entry.is_few() {
                first_few += count * slots;
            }
            present.push(entry);
        }
        if rows == u64::from(self.rows) {
            Ok(())
        } else {
            Err(BodyError::Corrupt("rows of templates do not add up"))
        }
    }

    /// Position in `present` of the template of each row, checked against the counts.
    fn ids(
        &self,
        sections: &mut Sections<'_>,
        present: &[Present],
        ids: &mut Vec<u64>,
    ) -> Result<(), BodyError> {
        ints::decode(self.rows as usize, Wanted::All, sections, ids)?;
        let mut counts = vec![0u32; present.len()];
        for &id in ids.iter() {
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            *counts
                .get_mut(id)
                .ok_or(BodyError::Corrupt("a row has a template that the block has not"))? += 1;
        }
        if counts.iter().zip(present).all(|(count, template)| *count == template.count) {
            Ok(())
        } else {
            Err(BodyError::Corrupt("rows of a template differ from its count"))
        }
    }
}

/// Notes for every template which of its rows the wanted rows of the block are. `rows` ascend.
fn pick(rows: &[u32], ids: &[u64], present: &mut [Present], picks: &mut Vec<u32>) -> Result<(), BodyError> {
    picks.clear();
    picks.resize(rows.len(), 0);
    for &row in rows {
        let id = ids.get(row as usize);
        let id = id.ok_or(BodyError::Corrupt("a block has fewer rows than asked for"))?;
        present[*id as usize].picked += 1;
    }
    let mut first = 0;
    for template in present.iter_mut() {
        template.wanted = template.picked > 0;
        template.first_pick = first;
        first += std::mem::take(&mut template.picked);
    }
    let mut from = 0;
    for &row in rows {
        let row = row as usize;
        debug_assert!(from == 0 || row >= from, "BUG: the rows asked for do not ascend");
        for &id in ids.get(from..row).unwrap_or_default() {
            present[id as usize].next += 1;
        }
        let template = &mut present[ids[row] as usize];
        picks[(template.first_pick + template.picked) as usize] = template.next;
        template.picked += 1;
        template.next += 1;
        from = row + 1;
    }
    present.iter_mut().for_each(|template| template.next = 0);
    Ok(())
}

/// Reads the common column of the templates with few rows when one of them is wanted.
fn read_few(
    reader: &mut ColumnReader<'_, '_>,
    present: &[Present],
    few: &mut Texts,
) -> Result<(), BodyError> {
    let values =
        present.iter().filter(|template| template.is_few()).map(|t| (t.count * t.slots) as usize).sum();
    few.clear();
    if values > 0 {
        if present.iter().any(|template| template.is_few() && template.wanted) {
            reader.read(values, Wanted::All, &[], few)?;
        } else {
            reader.skip(values)?;
        }
    }
    Ok(())
}

/// Reads the wanted rows of a template's columns from `columns[first]` on, or passes them by; the next free column.
fn read_template(
    reader: &mut ColumnReader<'_, '_>,
    template: &mut Present,
    wanted: Wanted<'_>,
    columns: &mut Vec<Texts>,
    first: usize,
) -> Result<usize, BodyError> {
    let (rows, slots) = (template.count as usize, template.slots as usize);
    if !template.wanted {
        for _ in 0..slots {
            reader.skip(rows)?;
        }
        return Ok(first);
    }
    template.first_column = first as u32;
    if columns.len() < first + slots {
        columns.resize_with(first + slots, Texts::default);
    }
    for slot in 0..slots {
        let (earlier, rest) = columns[first..].split_at_mut(slot);
        reader.read(rows, wanted, earlier, &mut rest[0])?;
    }
    Ok(first + slots)
}

/// Marks the rows of a template one of whose variables holds the needle.
fn search_slots(
    reader: &mut ColumnReader<'_, '_>,
    template: &Present,
    slots: u64,
    query: &PreparedQuery,
    columns: &mut Vec<Texts>,
    hits: &mut [bool],
) -> Result<(), BodyError> {
    if columns.is_empty() {
        columns.push(Texts::default());
    }
    let texts = &mut columns[0];
    let literals = query.literals().unwrap_or_default();
    for slot in 0..template.slots {
        // A column that repeats an earlier one cannot hold more than that one did.
        let mut wanted = slots & bit_of(slot) != 0 && reader.sections.head.peek() != Some(SAME);
        if wanted && literals.iter().any(|literal| reader.probe(literal) == Some(true)) {
            hits.fill(true);
            wanted = false;
        }
        if !wanted || literals.iter().all(|literal| reader.probe(literal) == Some(false)) {
            reader.skip(hits.len())?;
            continue;
        }
        reader.read(hits.len(), Wanted::All, &[], texts)?;
        for literal in literals {
            mark(texts, literal, hits);
        }
    }
    Ok(())
}

/// Marks the values that hold the literal.
fn mark(texts: &Texts, literal: &Literal, hits: &mut [bool]) {
    let (mut from, mut nth) = (0usize, 0usize);
    while let Some(start) = literal.finder.find(&texts.bytes[from..]) {
        let start = from + start;
        while texts.ends[nth] as usize <= start {
            nth += 1;
        }
        // A hit across two values is none; look again from the next byte on.
        let value_end = texts.ends[nth] as usize;
        if start + literal.finder.needle().len() <= value_end {
            hits[nth] = true;
            from = value_end;
        } else {
            from = start + 1;
        }
    }
}

/// Appends the `nth` line of a template.
#[inline]
fn rebuild(
    dictionary: &Dictionary,
    template: &Present,
    nth: u32,
    few: &Texts,
    columns: &[Texts],
    out: &mut Vec<u8>,
) {
    let id = template.template as usize;
    let first = dictionary.first_piece[id] as usize;
    let slots = template.slots as usize;
    let pieces = &dictionary.pieces[first..=first + slots];
    let text = &dictionary.text;
    append(out, text, pieces[0].0 as usize, pieces[0].1 as usize);
    if template.is_few() {
        let start = template.first_few as usize + nth as usize;
        for (slot, &piece) in pieces[1..].iter().enumerate() {
            out.extend_from_slice(few.get(start + slot * template.count as usize));
            append(out, text, piece.0 as usize, piece.1 as usize);
        }
    } else {
        let start = template.first_column as usize;
        for (column, &piece) in columns[start..start + slots].iter().zip(&pieces[1..]) {
            let (start, end) = column.place(nth as usize);
            append(out, &column.bytes, start, end);
            append(out, text, piece.0 as usize, piece.1 as usize);
        }
    }
}
