//! Operators between two sides. Which series meet is found once, then pairs are calculated column by column.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Bits, Column, Context, Eval, Result, Steps, eval, merge_same};
use crate::{
    annotations::{Annotations, Operation},
    engine::Error,
    histogram::{Histogram, Incompatible, ResetHint},
    labels::Labels,
    parser::{BinaryOp, Cardinality, Expr, Matching, Pos},
    value::Sample,
};

/// Evaluates a binary expression.
pub(super) fn binary(
    context: &Context<'_>,
    expr: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Eval> {
    let Expr::Binary { op, left, right, matching, return_bool, .. } = expr else {
        return Err(Error::execution("a binary expression was expected"));
    };
    let operation = Operator { context, op: *op, return_bool: *return_bool, pos: expr.pos() };
    let left = eval(context, left, steps, notes)?;
    let right = eval(context, right, steps, notes)?;
    match (left, right) {
        (Eval::Scalar(mut left), Eval::Scalar(right)) => {
            for (left, right) in left.iter_mut().zip(&right) {
                let value = number(*op, *left, *right);
                *left = if op.is_comparison() { f64::from(compare(*op, *left, *right)) } else { value };
            }
            Ok(Eval::Scalar(left))
        }
        (Eval::Vector(columns), Eval::Scalar(values)) => {
            operation.with_scalar(columns, &values, false, notes).map(Eval::Vector)
        }
        (Eval::Scalar(values), Eval::Vector(columns)) => {
            operation.with_scalar(columns, &values, true, notes).map(Eval::Vector)
        }
        (Eval::Vector(left), Eval::Vector(right)) => {
            let sides = Sides::new(left, right, matching);
            if op.is_set() { sides.set(*op) } else { operation.vectors(sides, matching, steps, notes) }
                .map(Eval::Vector)
        }
        _ => Err(Error::execution("binary expression must contain only scalar and instant vector types")),
    }
}

fn compare(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Eq => left == right,
        BinaryOp::Ne => left != right,
        BinaryOp::Lt => left < right,
        BinaryOp::Le => left <= right,
        BinaryOp::Gt => left > right,
        BinaryOp::Ge => left >= right,
        _ => true,
    }
}

fn number(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => left,
    }
}

/// An operator where it stands.
struct Operator<'a> {
    context: &'a Context<'a>,
    op: BinaryOp,
    return_bool: bool,
    pos: Pos,
}

/// Both sides as one pair of samples has them.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Float(f64),
    Histogram(&'a Arc<Histogram>),
}

impl Operator<'_> {
    /// Two samples; `None` if they do not go together. The second value tells whether a comparison holds.
    fn samples(
        &self,
        left: Operand<'_>,
        right: Operand<'_>,
        notes: &mut Annotations,
    ) -> Option<(Sample, bool)> {
        let op = self.op;
        let trims = matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        let names = |operand: Operand<'_>| match operand {
            Operand::Float(_) => "float",
            Operand::Histogram(_) => "histogram",
        };
        let changed = |histogram: &Histogram, change: &dyn Fn(&mut Histogram)| {
            let mut histogram = histogram.clone();
            change(&mut histogram);
            Some((Sample::Histogram(Arc::new(histogram)), true))
        };
        match (left, right) {
            (Operand::Float(left), Operand::Float(right)) if !trims => {
                return Some((Sample::Float(number(op, left, right)), compare(op, left, right)));
            }
            (Operand::Float(factor), Operand::Histogram(histogram))
            | (Operand::Histogram(histogram), Operand::Float(factor))
                if op == BinaryOp::Mul =>
            {
                return changed(histogram, &|histogram| {
                    histogram.scale(factor);
                    histogram.compact();
                });
            }
            (Operand::Histogram(histogram), Operand::Float(value)) if op == BinaryOp::Div => {
                return changed(histogram, &|histogram| {
                    histogram.divide(value);
                    histogram.compact();
                });
            }
            (Operand::Histogram(histogram), Operand::Float(value)) if trims => {
                return changed(histogram, &|histogram| histogram.trim(value, op == BinaryOp::TrimUpper));
            }
            (Operand::Histogram(left), Operand::Histogram(right)) => match op {
                BinaryOp::Eq | BinaryOp::Ne => {
                    let holds = left.same(right) == (op == BinaryOp::Eq);
                    return Some((Sample::Histogram(left.clone()), holds));
                }
                BinaryOp::Add | BinaryOp::Sub => return self.add_histograms(left, right, notes),
                _ => {}
            },
            _ => {}
        }
        notes.incompatible_types(names(left), op.symbol(), names(right), self.pos);
        None
    }

    fn add_histograms(
        &self,
        left: &Histogram,
        right: &Histogram,
        notes: &mut Annotations,
    ) -> Option<(Sample, bool)> {
        let mut result = left.clone();
        let (told, operation) = if self.op == BinaryOp::Add {
            (result.add(right), Operation::Addition)
        } else {
            (result.subtract(right), Operation::Subtraction)
        };
        match told {
            Err(Incompatible) => {
                notes.incompatible_layout(self.op.symbol(), self.pos);
                return None;
            }
            Ok(told) => {
                if told.reset_collision {
                    notes.reset_collision(operation, self.pos);
                }
                if told.bounds_reconciled {
                    notes.bounds_reconciled(operation, self.pos);
                }
            }
        }
        if self.op == BinaryOp::Sub {
            result.reset_hint = ResetHint::Gauge;
        }
        result.compact();
        Some((Sample::Histogram(Arc::new(result)), true))
    }

    fn with_scalar(
        &self,
        columns: Vec<Column>,
        values: &[f64],
        scalar_left: bool,
        notes: &mut Annotations,
    ) -> Result<Vec<Column>> {
        let renames = self.op.changes_metric() || self.return_bool;
        let plain = !matches!(self.op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        let mut results = Vec::with_capacity(columns.len());
        for mut column in columns {
            if plain {
                let mut dropped = Bits::new(values.len());
                for at in column.present.iter() {
                    let value = column.floats[at];
                    let (left, right) = if scalar_left { (values[at], value) } else { (value, values[at]) };
                    if self.op.is_comparison() {
                        let holds = compare(self.op, left, right);
                        if self.return_bool {
                            column.floats[at] = f64::from(holds);
                        } else if !holds {
                            dropped.set(at);
                        }
                    } else {
                        column.floats[at] = number(self.op, left, right);
                    }
                }
                column.present.and_not(&dropped);
            }
            self.histograms_with_scalar(&mut column, values, scalar_left, plain, notes);
            if !column.is_empty() {
                if renames {
                    self.context.drop_name(&mut column);
                }
                results.push(column);
            }
        }
        if renames && !self.context.engine.delayed_name_removal {
            return merge_same(results);
        }
        Ok(results)
    }

    fn histograms_with_scalar(
        &self,
        column: &mut Column,
        values: &[f64],
        scalar_left: bool,
        only_histograms: bool,
        notes: &mut Annotations,
    ) {
        for (at, &value) in values.iter().enumerate() {
            let sample = match column.histograms.get_mut(at).and_then(Option::take) {
                Some(histogram) => Sample::Histogram(histogram),
                None if !only_histograms && column.present.get(at) => {
                    column.present.clear(at);
                    Sample::Float(column.floats[at])
                }
                None => continue,
            };
            let own = match &sample {
                Sample::Float(value) => Operand::Float(*value),
                Sample::Histogram(histogram) => Operand::Histogram(histogram),
            };
            let scalar = Operand::Float(value);
            let (left, right) = if scalar_left { (scalar, own) } else { (own, scalar) };
            let Some((result, holds)) = self.samples(left, right, notes) else { continue };
            if self.return_bool {
                column.set_float(at, f64::from(holds));
            } else if holds {
                column.set(at, result);
            }
        }
    }

    fn vectors(
        &self,
        sides: Sides,
        matching: &Matching,
        steps: &Steps,
        notes: &mut Annotations,
    ) -> Result<Vec<Column>> {
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let Sides { left, right, signatures } = sides;
        let (many, one) = if swapped { (right, left) } else { (left, right) };
        // Also with `group_right`, Prometheus fills the "many" side by `fill_left`.
        let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
        let pairing = Pairing { operator: self, matching, swapped, steps };
        let fills = fill_many.is_some() || fill_one.is_some();
        if (many.columns.is_empty() || one.columns.is_empty()) && !fills {
            return Ok(Vec::new());
        }
        let mut any_many = Bits::new(steps.count);
        many.columns.iter().for_each(|column| any_many.or(&column.filled()));
        if fills {
            any_many = Bits::full(steps.count);
        }
        let mut results = Vec::new();
        let many_of = many.by_signature(signatures);
        let one_of = one.by_signature(signatures);
        for (many_of, one_of) in many_of.iter().zip(&one_of) {
            let one_filled: Vec<Bits> = one_of.iter().map(|at| one.columns[*at].filled()).collect();
            pairing.refuse_doubles(&one, one_of, &one_filled, &any_many)?;
            let mut any_one = Bits::new(steps.count);
            one_filled.iter().for_each(|filled| any_one.or(filled));
            let mut matched = Bits::new(steps.count);
            let mut outputs: HashMap<Labels, Bits> = HashMap::new();
            for &many_at in many_of {
                let many_column = &many.columns[many_at];
                let filled = many_column.filled();
                for (&one_at, one_filled) in one_of.iter().zip(&one_filled) {
                    let mut both = filled.clone();
                    both.and(one_filled);
                    let pair = pairing.pair(many_column, &one.columns[one_at], &both, notes);
                    pairing.claim(pair, &mut matched, &mut outputs, &mut results)?;
                }
                if let Some(value) = fill_one {
                    let mut alone = filled;
                    alone.and_not(&any_one);
                    if alone.any() {
                        let missing = pairing.missing(&many_column.labels, value, &alone);
                        let pair = pairing.pair(many_column, &missing, &alone, notes);
                        pairing.claim(pair, &mut matched, &mut outputs, &mut results)?;
                    }
                }
            }
            if let Some(value) = fill_many {
                for (&one_at, one_filled) in one_of.iter().zip(&one_filled) {
                    let mut alone = one_filled.clone();
                    alone.and_not(&matched);
                    if alone.any() {
                        let one_column = &one.columns[one_at];
                        let missing = pairing.missing(&one_column.labels, value, &alone);
                        let pair = pairing.pair(&missing, one_column, &alone, notes);
                        let mut none = Bits::new(steps.count);
                        pairing.claim(pair, &mut none, &mut outputs, &mut results)?;
                    }
                }
            }
        }
        merge_same(results)
    }
}

/// One side's columns with the number of the labels each is matched by.
struct Side {
    columns: Vec<Column>,
    signature: Vec<usize>,
}

impl Side {
    fn by_signature(&self, signatures: usize) -> Vec<Vec<usize>> {
        let mut of = vec![Vec::new(); signatures];
        for (at, signature) in self.signature.iter().enumerate() {
            of[*signature].push(at);
        }
        of
    }

    /// At which steps any series of each signature has a sample.
    fn filled(&self, signatures: usize) -> Vec<Option<Bits>> {
        let mut filled: Vec<Option<Bits>> = vec![None; signatures];
        for (column, signature) in self.columns.iter().zip(&self.signature) {
            match &mut filled[*signature] {
                Some(bits) => bits.or(&column.filled()),
                empty => *empty = Some(column.filled()),
            }
        }
        filled
    }
}

struct Sides {
    left: Side,
    right: Side,
    signatures: usize,
}

impl Sides {
    fn new(left: Vec<Column>, right: Vec<Column>, matching: &Matching) -> Self {
        let mut known: HashMap<Labels, usize> = HashMap::with_capacity(left.len());
        let mut side = |columns: Vec<Column>| {
            let signature = columns.iter().map(|column| {
                let next = known.len();
                *known.entry(column.labels.matching(matching.on, &matching.labels)).or_insert(next)
            });
            Side { signature: signature.collect(), columns }
        };
        let (left, right) = (side(left), side(right));
        Self { left, right, signatures: known.len() }
    }

    fn set(self, op: BinaryOp) -> Result<Vec<Column>> {
        let Self { left, right, signatures } = self;
        let filtered = |side: Side, other: &[Option<Bits>], keep_matched: bool| {
            let columns = side.columns.into_iter().zip(side.signature);
            let columns = columns.filter_map(|(mut column, signature)| {
                let mut wanted = column.filled();
                match &other[signature] {
                    Some(other) if keep_matched => wanted.and(other),
                    Some(other) => wanted.and_not(other),
                    None if keep_matched => return None,
                    None => {}
                }
                column.keep(&wanted);
                (!column.is_empty()).then_some(column)
            });
            columns.collect::<Vec<_>>()
        };
        match op {
            BinaryOp::And => Ok(filtered(left, &right.filled(signatures), true)),
            BinaryOp::Unless => Ok(filtered(left, &right.filled(signatures), false)),
            _ => {
                let present = left.filled(signatures);
                let mut columns = left.columns;
                columns.extend(filtered(right, &present, false));
                merge_same(columns)
            }
        }
    }
}

struct Pairing<'a> {
    operator: &'a Operator<'a>,
    matching: &'a Matching,
    swapped: bool,
    steps: &'a Steps,
}

impl Pairing<'_> {
    /// Calculates where both have samples.
    fn pair(&self, many: &Column, one: &Column, both: &Bits, notes: &mut Annotations) -> Calculated {
        let operator = self.operator;
        let mut column = Column::new(self.result_labels(&many.labels, &one.labels), self.steps.count);
        column.drop_name = operator.return_bool;
        let mut tried = both.clone();
        if !both.any() {
            return Calculated { column, tried };
        }
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        let only_floats = left.histograms.is_empty() && right.histograms.is_empty();
        if only_floats && !matches!(operator.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            for at in both.iter() {
                let (left, right) = (left.floats[at], right.floats[at]);
                if operator.op.is_comparison() {
                    let holds = compare(operator.op, left, right);
                    if operator.return_bool {
                        column.set_float(at, f64::from(holds));
                    } else if holds {
                        column.set_float(at, left);
                    }
                } else {
                    column.set_float(at, number(operator.op, left, right));
                }
            }
            return Calculated { column, tried };
        }
        let operand = |side: &'_ Column, at: usize| side.present.get(at).then(|| side.floats[at]);
        for at in both.iter() {
            let as_operand = |side: &'_ Column| operand(side, at).map(Operand::Float);
            let left = as_operand(left).or_else(|| left.histogram(at).map(Operand::Histogram));
            let right = as_operand(right).or_else(|| right.histogram(at).map(Operand::Histogram));
            let (Some(left), Some(right)) = (left, right) else { continue };
            match operator.samples(left, right, notes) {
                None => tried.clear(at),
                Some((_, holds)) if operator.return_bool => column.set_float(at, f64::from(holds)),
                Some((sample, true)) => column.set(at, sample),
                Some(_) => {}
            }
        }
        Calculated { column, tried }
    }

    /// A stand-in for a series that is not there.
    fn missing(&self, labels: &Labels, value: f64, steps: &Bits) -> Column {
        let labels = labels.matching(self.matching.on, &self.matching.labels);
        let mut column = Column::new(labels, self.steps.count);
        column.floats.fill(value);
        column.present = steps.clone();
        column
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let drops = self.operator.return_bool && !self.operator.context.engine.delayed_name_removal
            || self.operator.op.changes_metric();
        let mut labels = if drops { many.without_metadata() } else { many.clone() };
        if self.matching.cardinality == Cardinality::OneToOne {
            let names = &self.matching.labels;
            labels = labels.filter(|label| names.iter().any(|name| name == label) == self.matching.on);
        }
        for name in &self.matching.include {
            labels = labels.with(name, one.get(name));
        }
        labels
    }

    /// Two series of the "one" side that match alike may not have samples at the same step.
    fn refuse_doubles(&self, one: &Side, members: &[usize], filled: &[Bits], any_many: &Bits) -> Result<()> {
        for (position, first) in filled.iter().enumerate() {
            for (other, second) in filled.iter().enumerate().skip(position + 1) {
                let mut both = first.clone();
                both.and(second);
                if both.intersects(any_many) {
                    let labels = &one.columns[members[position]].labels;
                    let group = labels.filter(|label| {
                        self.matching.labels.iter().any(|name| name == label) == self.matching.on
                            && (self.matching.on || label != crate::labels::METRIC_NAME)
                    });
                    let mut doubles = [labels.to_string(), one.columns[members[other]].labels.to_string()];
                    doubles.sort();
                    let side = if self.swapped { "left" } else { "right" };
                    let [a, b] = doubles;
                    return Err(Error::execution(format!(
                        "found duplicate series for the match group {group} on the {side} hand-side of the \
                         operation: [{a}, {b}];many-to-many matching not allowed: matching labels must be \
                         unique on one side"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes a result over; a step may not be claimed twice.
    fn claim(
        &self,
        calculated: Calculated,
        matched: &mut Bits,
        outputs: &mut HashMap<Labels, Bits>,
        results: &mut Vec<Column>,
    ) -> Result<()> {
        let Calculated { column, tried } = calculated;
        if self.matching.cardinality == Cardinality::OneToOne {
            if matched.intersects(&tried) {
                return Err(Error::execution(
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
        } else {
            match outputs.get_mut(&column.labels) {
                Some(claimed) if claimed.intersects(&tried) => {
                    return Err(Error::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
                Some(claimed) => claimed.or(&tried),
                None => {
                    outputs.insert(column.labels.clone(), tried.clone());
                }
            }
        }
        matched.or(&tried);
        if !column.is_empty() {
            results.push(column);
        }
        Ok(())
    }
}

/// A pair's results, and where the two went together at all.
struct Calculated {
    column: Column,
    tried: Bits,
}
