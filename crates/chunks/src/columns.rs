//! Columns of numbers that lie together: choosing how to store each, writing them.

use std::collections::HashMap;

use crate::{
    cluster::cluster,
    decimal::{Mapping, common_divisor, few_values, to_numbers},
    model::{Counts, TOKENS, put_lengths},
    residuals,
    spec::Spec,
    wire::{bits_for, put_ints, put_varint, put_zigzag, varint_len, zigzag},
};

/// Samples of a column that can be read without those before them. With 256, six hours take 1 % less and the
/// newest sample of all series takes twice as long to read.
pub(crate) const PIECE: usize = 128;
/// Columns that may hang on each other: a reader of one reads so many.
pub(crate) const MAX_CHAIN: usize = 16;
/// Differences looked at to choose a form.
const SAMPLE: usize = 256;
/// Bits of the median residual that become a token; the rest is stored as it is.
const TOKEN_BITS: u32 = 2;

/// Kinds of values that no number stands for. Others have their bits after [`OTHER`].
pub(crate) const EXCEPTIONS: [u64; 5] = [
    0x7ff0_0000_0000_0002, // Prometheus' stale marker
    0x7ff8_0000_0000_0001, // its NaN
    0x7ff8_0000_0000_0000, // everyone else's
    0x7ff0_0000_0000_0000, // +Inf
    0x8000_0000_0000_0000, // -0.0
];
/// The value's 8 bytes follow.
pub(crate) const OTHER: u8 = EXCEPTIONS.len() as u8;

/// A column whose model is not chosen yet.
struct Pending {
    spec: Spec,
    len: usize,
    first: i64,
    center: i64,
    exceptions: Vec<u8>,
    /// Ends of its parts of the writer's residuals and starts.
    residuals_end: usize,
    starts_end: usize,
}

/// Columns of one unit, to be compressed together.
#[derive(Default)]
pub(crate) struct ColumnsWriter {
    columns: Vec<Pending>,
    residuals: Vec<i64>,
    /// First numbers of the pieces of columns of differences, the first piece aside.
    starts: Vec<i64>,
    numbers: Vec<i64>,
    previous: Vec<i64>,
    chain: usize,
    odd: Vec<u32>,
    sample: Vec<i64>,
}

/// The form of a column: what it costs in bits, about, on a sample.
#[derive(Clone, Copy)]
struct Form {
    cost: u64,
    differences: bool,
    linked: bool,
    center: i64,
}

impl ColumnsWriter {
    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Samples of all columns that are not constant.
    pub(crate) fn weight(&self) -> usize {
        self.residuals.len()
    }

    /// Adds a column of values. `alike`: it has the times of the column before, which may help to say it
    /// shorter.
    pub(crate) fn push_values(&mut self, values: &[f64], alike: bool) {
        std::mem::swap(&mut self.numbers, &mut self.previous);
        let mut mapping = to_numbers(values, &mut self.numbers, &mut self.odd);
        let mut exceptions = exceptions(values, &self.odd);
        // A list serves noise that repeats, and values between which NaNs or others keep standing.
        let scattered = exceptions.len() * 8 > values.len();
        if (mapping == Mapping::Bits || scattered)
            && let Some(few) = few_values(values, &mut self.numbers)
        {
            mapping = Mapping::Few;
            exceptions.clear();
            let mut last = 0i64;
            for value in few {
                put_zigzag(&mut exceptions, value.wrapping_sub(last));
                last = value;
            }
        }
        let linkable = alike
            && self.chain + 1 < MAX_CHAIN
            && self.previous.len() == self.numbers.len()
            && matches!(mapping, Mapping::Decimal { .. })
            && self.columns.last().is_some_and(|last| last.spec.mapping == mapping);
        self.push(mapping, exceptions, linkable);
    }

    /// Adds a column of whole numbers.
    pub(crate) fn push_numbers(&mut self, numbers: &[i64]) {
        self.numbers.clear();
        self.numbers.extend_from_slice(numbers);
        self.push(Mapping::Whole, Vec::new(), false);
    }

    fn push(&mut self, mapping: Mapping, exceptions: Vec<u8>, linkable: bool) {
        let len = self.numbers.len();
        let first = self.numbers.first().copied().unwrap_or(0);
        let mut spec = Spec {
            mapping,
            constant: true,
            differences: false,
            linked: false,
            center: false,
            exceptions: !exceptions.is_empty(),
            divisor: 1,
            shift: 0,
            model: 0,
        };
        let mut pending =
            Pending { spec, len, first, center: 0, exceptions, residuals_end: 0, starts_end: 0 };
        if self.numbers.iter().any(|number| *number != first) {
            let form = self.choose(linkable);
            spec.constant = false;
            spec.differences = form.differences;
            spec.linked = form.linked;
            if form.linked {
                // What is stored is the difference; the numbers stay for the column after this one.
                self.previous.iter_mut().zip(&self.numbers).for_each(|(p, n)| *p = n.wrapping_sub(*p));
            }
            let numbers = if form.linked { &self.previous } else { &self.numbers };
            spec.divisor = common_divisor(numbers);
            let divisor = spec.divisor as i64;
            pending.first = numbers[0];
            if form.differences {
                pending.center = form.center / divisor;
                spec.center = pending.center != 0;
            } else {
                pending.first = form.center;
            }
            let from = self.residuals.len();
            add_residuals(numbers, &spec, &pending, &mut self.residuals, &mut self.starts);
            spec.shift = shift_for(&self.residuals[from..]);
            pending.spec = spec;
        }
        self.chain = if spec.linked { self.chain + 1 } else { 0 };
        pending.residuals_end = self.residuals.len();
        pending.starts_end = self.starts.len();
        self.columns.push(pending);
    }

    /// The cheapest form of the numbers.
    fn choose(&mut self, linkable: bool) -> Form {
        let mut best: Option<Form> = None;
        for linked in [false, true].into_iter().take(1 + usize::from(linkable)) {
            for differences in [true, false] {
                self.take_sample(linked, differences);
                let form = cost(&mut self.sample, linked, differences);
                if best.is_none_or(|best| form.cost < best.cost) {
                    best = Some(form);
                }
            }
        }
        best.expect("a form was tried")
    }

    /// Numbers, or differences of neighbours, of up to four stretches of the column.
    fn take_sample(&mut self, linked: bool, differences: bool) {
        let len = self.numbers.len();
        let number = |at: usize| {
            let other = if linked { self.previous[at] } else { 0 };
            self.numbers[at].wrapping_sub(other)
        };
        self.sample.clear();
        let (stretches, size) = if len <= SAMPLE { (1, len) } else { (4, SAMPLE / 4) };
        for stretch in 0..stretches {
            let from = (len - size) * stretch / (4 - 1);
            let at = from + usize::from(differences)..from + size;
            if differences {
                self.sample.extend(at.map(|at| number(at).wrapping_sub(number(at - 1))));
            } else {
                self.sample.extend(at.map(number));
            }
        }
    }

    /// Appends the columns, compressed, to `out`.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        let mut counts: Vec<Counts> = vec![[0; TOKENS]; self.columns.len()];
        let (mut from, mut residuals) = (0, &self.residuals[..]);
        for (column, counts) in self.columns.iter().zip(&mut counts) {
            let (own, rest) = residuals.split_at(column.residuals_end - from);
            (from, residuals) = (column.residuals_end, rest);
            pieces(column).fold(own, |own, len| {
                let (piece, rest) = own.split_at(len);
                residuals::count(piece, u32::from(column.spec.shift), counts);
                rest
            });
        }
        let (models, chosen) = cluster(&counts);
        put_varint(out, models.len() as u64);
        models.iter().for_each(|model| put_lengths(out, &model.lengths));
        let mut specs: Vec<Spec> = Vec::new();
        let mut known = HashMap::new();
        let mut ids = Vec::new();
        for (column, model) in self.columns.iter_mut().zip(chosen) {
            column.spec.model = if column.spec.constant { 0 } else { model };
            ids.push(*known.entry(column.spec).or_insert_with(|| {
                specs.push(column.spec);
                specs.len() as u64 - 1
            }));
        }
        put_varint(out, specs.len() as u64);
        specs.iter().for_each(|spec| spec.write(out));
        put_ints(out, &ids);

        let mut data = Vec::with_capacity(self.residuals.len());
        let mut sizes = Vec::new();
        let (mut residuals, mut starts) = (&self.residuals[..], &self.starts[..]);
        let (mut residual, mut start) = (0, 0);
        let mut stream = Vec::new();
        for column in &self.columns {
            let at = data.len();
            let (own, rest) = residuals.split_at(column.residuals_end - residual);
            (residual, residuals) = (column.residuals_end, rest);
            let (own_starts, rest) = starts.split_at(column.starts_end - start);
            (start, starts) = (column.starts_end, rest);
            put_zigzag(&mut data, column.first);
            if column.spec.center {
                put_zigzag(&mut data, column.center);
            }
            own_starts.iter().for_each(|start| put_zigzag(&mut data, *start));
            stream.clear();
            let (mut own, mut left) = (own, pieces(column).count());
            for len in pieces(column) {
                let (piece, rest) = own.split_at(len);
                own = rest;
                left -= 1;
                let before = stream.len();
                let model = &models[usize::from(column.spec.model)];
                residuals::write(piece, u32::from(column.spec.shift), model, &mut stream);
                if left > 0 {
                    put_varint(&mut data, (stream.len() - before) as u64);
                }
            }
            if column.spec.exceptions {
                put_varint(&mut data, column.exceptions.len() as u64);
                data.extend_from_slice(&column.exceptions);
            }
            data.extend_from_slice(&stream);
            sizes.push((data.len() - at) as u64);
        }
        put_ints(out, &sizes);
        out.extend_from_slice(&data);
        self.columns.clear();
        self.residuals.clear();
        self.starts.clear();
        self.chain = 0;
    }
}

/// Residuals in each piece of a column.
fn pieces(column: &Pending) -> impl Iterator<Item = usize> + use<> {
    let (len, skip) = (column.len, usize::from(column.spec.differences));
    let end = if column.spec.constant { 0 } else { len };
    (0..end).step_by(PIECE).map(move |from| PIECE.min(len - from) - skip)
}

fn add_residuals(
    numbers: &[i64],
    spec: &Spec,
    pending: &Pending,
    residuals: &mut Vec<i64>,
    starts: &mut Vec<i64>,
) {
    let (divisor, center) = (spec.divisor as i64, pending.center);
    let divide = |number: i64| if divisor == 1 { number } else { number / divisor };
    if !spec.differences {
        residuals.extend(numbers.iter().map(|number| divide(number.wrapping_sub(pending.first))));
        return;
    }
    let mut last = pending.first;
    for (at, piece) in numbers.chunks(PIECE).enumerate() {
        if at > 0 {
            // Relative to where the center alone would lead.
            starts.push(divide(piece[0].wrapping_sub(last)).wrapping_sub(center.wrapping_mul(PIECE as i64)));
            last = piece[0];
        }
        let difference = |two: &[i64]| divide(two[1].wrapping_sub(two[0])).wrapping_sub(center);
        residuals.extend(piece.windows(2).map(difference));
    }
}

/// What a column with these numbers or differences costs. The median becomes its center if that pays.
fn cost(sample: &mut [i64], linked: bool, differences: bool) -> Form {
    if sample.is_empty() {
        return Form { cost: u64::MAX, differences, linked, center: 0 };
    }
    let middle = sample.len() / 2;
    let median = *sample.select_nth_unstable(middle).1;
    let bits = |center: i64| -> u64 {
        let bits = |value: &i64| match zigzag(value.wrapping_sub(center)) {
            0 => 1,
            value => 2 * u64::from(bits_for(value)) + 2,
        };
        sample.iter().map(bits).sum::<u64>() / 2
    };
    let with_center = bits(median);
    if !differences {
        return Form { cost: with_center, differences, linked, center: median };
    }
    let without = bits(0);
    let price = 8 * varint_len(zigzag(median)) as u64;
    if with_center + price < without {
        Form { cost: with_center + price, differences, linked, center: median }
    } else {
        Form { cost: without, differences, linked, center: 0 }
    }
}

/// Low bits of residuals that hold nothing but noise.
fn shift_for(residuals: &[i64]) -> u8 {
    let mut counts = [0u32; 65];
    for residual in residuals {
        counts[bits_for(residual.unsigned_abs()) as usize] += 1;
    }
    let half = (residuals.len() as u32 - counts[0]) / 2;
    let mut sum = 0;
    for (bits, count) in counts.iter().enumerate().skip(1) {
        sum += count;
        if sum > half {
            return (bits as u32).saturating_sub(TOKEN_BITS).min(63) as u8;
        }
    }
    0
}

/// Runs of equal values at the positions `odd`: places since the last run, length, kind.
fn exceptions(values: &[f64], odd: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut at, mut end) = (0, 0);
    while at < odd.len() {
        let bits = |i: usize| values[odd[i] as usize].to_bits();
        let run = (at..odd.len())
            .take_while(|&i| bits(i) == bits(at) && odd[i] - odd[at] == (i - at) as u32)
            .count();
        put_varint(&mut out, u64::from(odd[at] - end));
        put_varint(&mut out, run as u64);
        match EXCEPTIONS.iter().position(|known| *known == bits(at)) {
            Some(kind) => out.push(kind as u8),
            None => {
                out.push(OTHER);
                out.extend_from_slice(&bits(at).to_le_bytes());
            }
        }
        end = odd[at] + run as u32;
        at += run;
    }
    out
}
