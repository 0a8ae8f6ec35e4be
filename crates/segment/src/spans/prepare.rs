//! Rows made ready to be sorted into granules: attributes apart, texts as codes.
//!
//! Texts get their codes while rows lie as they came, where memory is read in order; sorting then moves four
//! bytes in the place of each text.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray, MapArray, RecordBatch, StringArray, UInt32Array},
    datatypes::{Field, Schema},
};
use hashbrown::HashMap;
use trine_schema::spans::column;

use super::{
    columns::{stored, stored_of},
    rows::{TextParts, attribute_map},
    shape::{MAX_COLUMNS, is_frequent, split_attributes},
};
use crate::{SegmentError, pages::NONE};

/// Texts by code.
pub(super) type Values = Vec<Box<str>>;

/// Columns of text that every segment has.
const TEXTS: [usize; 4] =
    [column::OPERATION, column::STATUS_MESSAGE, column::TRACE_STATE, column::SCOPE_NAME];

/// Rows of a segment in the order in which they came.
pub(super) struct Prepared {
    /// The columns of [`trine_schema::spans::schema`], of attributes only those without a column of their own,
    /// which follow. Columns with `values` are codes, [`NONE`] for null.
    pub batches: Vec<RecordBatch>,
    /// By position of the stored column.
    pub values: Vec<Option<Values>>,
    /// Attributes with columns of their own, sorted.
    pub attributes: Vec<String>,
    /// Bytes of operations and attributes.
    pub raw_bytes: u64,
}

/// Makes batches of [`trine_schema::spans::schema`] ready. Texts of a column that are more bytes than these,
/// for operations and for other columns, stay as they are.
pub(super) fn prepare(
    batches: &[RecordBatch],
    (operation_bytes, text_bytes): (usize, usize),
) -> Result<Prepared, SegmentError> {
    let rows: Vec<usize> = batches.iter().map(RecordBatch::num_rows).collect();
    let maps: Vec<&MapArray> =
        batches.iter().map(|batch| batch.column(column::ATTRIBUTES).as_map()).collect();
    let mut keys = Keys::default();
    let numbers: Vec<Vec<u32>> = maps.iter().map(|map| keys.of(map)).collect();
    let own = keys.frequent(rows.iter().sum());
    let attributes: Vec<String> = own.iter().map(|key| keys.names[*key as usize].to_owned()).collect();
    let mut own_of = vec![NONE; keys.names.len()];
    own.iter().zip(0..).for_each(|(key, place)| own_of[*key as usize] = place);

    let mut columns: Vec<Vec<ArrayRef>> = Vec::with_capacity(batches.len());
    let mut entries: Vec<Vec<Vec<u32>>> = Vec::with_capacity(batches.len());
    for ((batch, map), numbers) in batches.iter().zip(&maps).zip(&numbers) {
        let (rest, own) = apart(map, numbers, &own_of, own.len())?;
        let mut all = batch.columns().to_vec();
        all[column::ATTRIBUTES] = rest;
        columns.push(all);
        entries.push(own);
    }
    let mut values = vec![None; stored::COUNT + own.len()];
    for logical in TEXTS {
        let texts: Vec<&StringArray> =
            batches.iter().map(|batch| batch.column(logical).as_string()).collect();
        let text = |batch: usize, row: usize| {
            let texts: &StringArray = texts[batch];
            texts.is_valid(row).then(|| texts.value(row))
        };
        let most = if logical == column::OPERATION { operation_bytes } else { text_bytes };
        if let Some((found, codes)) = coded(&rows, text, most) {
            values[stored_of(logical).expect("BUG: texts are stored as they are")] = Some(found);
            columns.iter_mut().zip(codes).for_each(|(all, codes)| all[logical] = codes);
        }
    }
    let texts: Vec<&StringArray> = maps.iter().map(|map| map.values().as_string()).collect();
    for place in 0..own.len() {
        let text = |batch: usize, row: usize| {
            let entry = entries[batch][place][row];
            (entry != NONE).then(|| texts[batch].value(entry as usize))
        };
        match coded(&rows, text, text_bytes) {
            Some((found, codes)) => {
                values[stored::COUNT + place] = Some(found);
                columns.iter_mut().zip(codes).for_each(|(all, codes)| all.push(codes));
            }
            None => {
                for (batch, all) in columns.iter_mut().enumerate() {
                    let texts = (0..rows[batch]).map(|row| text(batch, row));
                    all.push(Arc::new(texts.collect::<StringArray>()));
                }
            }
        }
    }
    let batches_of = columns.into_iter().map(as_batch).collect::<Result<_, _>>()?;
    let raw_bytes = batches.iter().map(raw_bytes).sum();
    Ok(Prepared { batches: batches_of, values, attributes, raw_bytes })
}

/// One batch in the same form, without codes; these attributes get columns.
pub(super) fn prepare_plain(
    batch: &RecordBatch,
    attributes: &[String],
) -> Result<(RecordBatch, u64), SegmentError> {
    let (rest, own) = split_attributes(batch.column(column::ATTRIBUTES).as_map(), attributes)?;
    let mut columns = batch.columns().to_vec();
    columns[column::ATTRIBUTES] = rest;
    columns.extend(own);
    Ok((as_batch(columns)?, raw_bytes(batch)))
}

fn as_batch(columns: Vec<ArrayRef>) -> Result<RecordBatch, SegmentError> {
    let field = |column: &ArrayRef| Field::new("", column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// Bytes of operations and attributes.
fn raw_bytes(batch: &RecordBatch) -> u64 {
    let bytes = |texts: &StringArray, first: usize, last: usize| {
        let ends = texts.value_offsets();
        (ends[last] - ends[first]) as u64
    };
    let map = batch.column(column::ATTRIBUTES).as_map();
    let ends = map.offsets();
    let (first, last) = (ends[0] as usize, ends[ends.len() - 1] as usize);
    let names = batch.column(column::OPERATION).as_string();
    bytes(names, 0, names.len())
        + bytes(map.keys().as_string(), first, last)
        + bytes(map.values().as_string(), first, last)
}

/// Names of attributes by number. One often follows the other, so the next is guessed before it is looked up.
#[derive(Default)]
struct Keys<'a> {
    names: Vec<&'a str>,
    counts: Vec<usize>,
    numbers: HashMap<&'a str, u32>,
    /// By number, and for the beginning of a span: what came next the last time.
    next: Vec<u32>,
    first: u32,
}

impl<'a> Keys<'a> {
    /// The numbers of the names in a batch, from the first that a row has on.
    fn of(&mut self, map: &'a MapArray) -> Vec<u32> {
        let (ends, names) = (map.offsets(), map.keys().as_string::<i32>());
        let mut numbers = Vec::with_capacity((ends[ends.len() - 1] - ends[0]) as usize);
        for row in ends.windows(2) {
            let mut last = None;
            for entry in row[0]..row[1] {
                let number = self.number(last, names.value(entry as usize));
                numbers.push(number);
                last = Some(number);
            }
        }
        numbers
    }

    fn number(&mut self, last: Option<u32>, name: &'a str) -> u32 {
        let guess = last.map_or(self.first, |last| self.next[last as usize]);
        let number = if self.names.get(guess as usize) == Some(&name) {
            guess
        } else {
            *self.numbers.entry(name).or_insert_with(|| {
                self.names.push(name);
                self.counts.push(0);
                self.next.push(NONE);
                self.names.len() as u32 - 1
            })
        };
        match last {
            Some(last) => self.next[last as usize] = number,
            None => self.first = number,
        }
        self.counts[number as usize] += 1;
        number
    }

    /// Those that get columns, by name.
    fn frequent(&self, rows: usize) -> Vec<u32> {
        let count = |number: &u32| self.counts[*number as usize];
        let name = |number: &u32| self.names[*number as usize];
        let mut found: Vec<u32> =
            (0..self.names.len() as u32).filter(|number| is_frequent(count(number), rows)).collect();
        found.sort_unstable_by(|a, b| count(b).cmp(&count(a)).then(name(a).cmp(name(b))));
        found.truncate(MAX_COLUMNS);
        found.sort_unstable_by_key(name);
        found
    }
}

/// Attributes without columns, and for each column by row the place of its value in the map. What a span has
/// twice stays in the map from the second on.
fn apart(
    map: &MapArray,
    numbers: &[u32],
    own_of: &[u32],
    own: usize,
) -> Result<(ArrayRef, Vec<Vec<u32>>), SegmentError> {
    let mut places = vec![vec![NONE; map.len()]; own];
    let (keys, values) = (map.keys().as_string::<i32>(), map.values().as_string::<i32>());
    let (mut rest_keys, mut rest_values) = (TextParts::default(), TextParts::default());
    let mut rest_ends = Vec::with_capacity(map.len() + 1);
    rest_ends.push(0);
    let mut numbers = numbers.iter();
    for (row, ends) in map.offsets().windows(2).enumerate() {
        for (entry, number) in (ends[0] as usize..ends[1] as usize).zip(&mut numbers) {
            let place = places.get_mut(own_of[*number as usize] as usize).map(|places| &mut places[row]);
            match place {
                Some(place) if *place == NONE => *place = entry as u32,
                _ => {
                    rest_keys.push(keys.value(entry));
                    rest_values.push(values.value(entry));
                }
            }
        }
        rest_ends.push(rest_keys.count());
    }
    Ok((attribute_map(rest_ends, rest_keys, rest_values)?, places))
}

/// The texts of a column and their codes by batch; `None` when they are more than `most` bytes.
fn coded<'a>(
    rows: &[usize],
    text: impl Fn(usize, usize) -> Option<&'a str>,
    most: usize,
) -> Option<(Values, Vec<ArrayRef>)> {
    let (mut values, mut codes, mut bytes): (Values, HashMap<&'a str, u32>, usize) = Default::default();
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(rows.len());
    for (batch, rows) in rows.iter().enumerate() {
        let mut last: Option<(&str, u32)> = None;
        let of_batch: Vec<u32> = (0..*rows)
            .map(|row| {
                let Some(text) = text(batch, row) else { return NONE };
                let code = match last {
                    Some((same, code)) if same == text => code,
                    _ => *codes.entry(text).or_insert_with(|| {
                        bytes += text.len() + size_of::<u32>();
                        values.push(text.into());
                        values.len() as u32 - 1
                    }),
                };
                last = Some((text, code));
                code
            })
            .collect();
        if bytes > most {
            return None;
        }
        arrays.push(Arc::new(UInt32Array::from(of_batch)));
    }
    Some((values, arrays))
}

#[cfg(test)]
mod tests {
    use trine_model::{SpanId, TenantId, TraceId};
    use trine_schema::{Span, SpanBatchBuilder, columns::attributes_of};

    use super::*;

    fn batch(rows: std::ops::Range<u32>) -> RecordBatch {
        let mut b = SpanBatchBuilder::new(TenantId::default(), 0);
        for row in rows {
            b.attribute("b", ["x", "y"][row as usize % 2]);
            if row % 3 == 0 {
                b.attribute("a", &row.to_string());
            }
            if row % 7 == 0 {
                b.attribute("b", "again");
            }
            if row == 300 {
                b.attribute("rare", "r");
            }
            b.push(&Span {
                stream: 0,
                timestamp: 0,
                duration_ns: 0,
                trace_id: TraceId([1; 16]),
                span_id: SpanId([1; 8]),
                parent_span_id: None,
                operation: if row < 5 { "first" } else { "op" },
                kind: 0,
                status_code: 0,
                status_message: "",
                trace_state: "",
                trace_flags: 0,
                scope_name: "",
            });
        }
        b.finish().records
    }

    #[test]
    fn attributes_stand_apart_and_texts_are_codes_while_they_are_few_bytes() {
        // A slice, so that its entries do not begin at the first.
        let batches = [batch(0..200), batch(190..500).slice(10, 300)];
        let found = prepare(&batches, (1 << 20, 1_000)).unwrap();
        assert_eq!(found.attributes, ["a", "b"]);
        assert_eq!(found.values[stored::OPERATION].as_ref().unwrap().len(), 2);
        assert!(found.values[stored::COUNT].is_none(), "values of `a` are more than 1000 bytes");
        assert_eq!(found.values[stored::COUNT + 1].as_ref().unwrap().len(), 2);
        let mut raw = 0;
        for (number, prepared) in (0u32..).zip(
            found
                .batches
                .iter()
                .flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1)).collect::<Vec<_>>()),
        ) {
            let a = prepared.column(column::COUNT).as_string::<i32>();
            assert_eq!(
                a.is_valid(0).then(|| a.value(0)),
                (number % 3 == 0).then(|| number.to_string()).as_deref()
            );
            let b =
                prepared.column(column::COUNT + 1).as_primitive::<arrow::datatypes::UInt32Type>().value(0);
            assert_eq!(
                &*found.values[stored::COUNT + 1].as_ref().unwrap()[b as usize],
                ["x", "y"][number as usize % 2]
            );
            let rest: Vec<_> = attributes_of(prepared.column(column::ATTRIBUTES).as_map(), 0).collect();
            let mut want = Vec::new();
            want.extend((number % 7 == 0).then_some(("b", "again")));
            want.extend((number == 300).then_some(("rare", "r")));
            assert_eq!(rest, want);
            raw += if number < 5 { 5 } else { 2 } + 2;
            raw += if number % 3 == 0 { 1 + number.to_string().len() as u64 } else { 0 };
            raw += if number % 7 == 0 { 6 } else { 0 } + if number == 300 { 5 } else { 0 };
        }
        assert_eq!(found.raw_bytes, raw);
    }
}
