//! Columns with alike tokens share a model.

use crate::{
    model::{Counts, TOKENS, code_lengths},
    residuals::Codes,
};

/// Models of a group of columns; the more, the better they fit and the more they take.
const MAX_MODELS: usize = 8;
/// Tokens that pay for a further model.
const TOKENS_PER_MODEL: u64 = 1500;
/// Bits that a token costs which a model does not have: such a column goes elsewhere.
const MISSING: u32 = 20;
/// Bits of a model's lengths in the header, about.
const MODEL_COST: u64 = 200;

/// Tokens of one column that occur.
struct Column {
    tokens: Vec<(u8, u32)>,
    model: usize,
    cost: u64,
}

impl Column {
    fn cost(&self, lengths: &[u8; TOKENS]) -> u64 {
        let bits = |&(token, n): &(u8, u32)| match lengths[usize::from(token)] {
            0 => u64::from(MISSING * n),
            length => u64::from(length) * u64::from(n),
        };
        self.tokens.iter().map(bits).sum()
    }

    /// What it would cost with a model of its own.
    fn entropy(&self) -> u64 {
        let all: u32 = self.tokens.iter().map(|(_, n)| n).sum();
        let bits = |&(_, n): &(u8, u32)| n as f32 * (all as f32 / n as f32).log2();
        self.tokens.iter().map(bits).sum::<f32>() as u64
    }

    fn own_lengths(&self) -> [u8; TOKENS] {
        let mut counts = [0; TOKENS];
        self.tokens.iter().for_each(|&(token, n)| counts[usize::from(token)] = n);
        code_lengths(&counts)
    }

    fn choose(&mut self, models: &[[u8; TOKENS]]) {
        self.cost = u64::MAX;
        for (model, lengths) in models.iter().enumerate() {
            let cost = self.cost(lengths);
            if cost < self.cost {
                (self.model, self.cost) = (model, cost);
            }
        }
    }
}

fn lengths_of(columns: &[Column], models: usize) -> Vec<[u8; TOKENS]> {
    let mut counts: Vec<Counts> = vec![[0; TOKENS]; models];
    for column in columns {
        column.tokens.iter().for_each(|&(token, n)| counts[column.model][usize::from(token)] += n);
    }
    counts.iter().map(code_lengths).collect()
}

/// Chooses models for columns with these tokens: the models, and which one each column takes.
pub(crate) fn cluster(columns: &[Counts]) -> (Vec<Codes>, Vec<u8>) {
    let occurring = |counts: &Counts| {
        let occurring = counts.iter().enumerate().filter(|(_, n)| **n > 0);
        Column { tokens: occurring.map(|(token, n)| (token as u8, *n)).collect(), model: 0, cost: 0 }
    };
    let mut columns: Vec<Column> = columns.iter().map(occurring).collect();
    let tokens: u64 = columns.iter().flat_map(|column| &column.tokens).map(|(_, n)| u64::from(*n)).sum();
    let most = MAX_MODELS.min(1 + (tokens / TOKENS_PER_MODEL) as usize);
    let mut models = lengths_of(&columns, 1);
    columns.iter_mut().for_each(|column| column.choose(&models));
    let owns: Vec<u64> = if most > 1 { columns.iter().map(Column::entropy).collect() } else { Vec::new() };
    while models.len() < most {
        // The column that its model fits worst becomes the seed of another one.
        let Some((worst, _)) =
            columns.iter().enumerate().max_by_key(|(i, column)| column.cost - owns[*i].min(column.cost))
        else {
            break;
        };
        let before: u64 = columns.iter().map(|column| column.cost).sum();
        let saved: Vec<(usize, u64)> = columns.iter().map(|column| (column.model, column.cost)).collect();
        let mut tried = models.clone();
        tried.push(columns[worst].own_lengths());
        for _ in 0..2 {
            columns.iter_mut().for_each(|column| column.choose(&tried));
            tried = lengths_of(&columns, tried.len());
        }
        columns.iter_mut().for_each(|column| column.cost = column.cost(&tried[column.model]));
        let after: u64 = columns.iter().map(|column| column.cost).sum();
        if after + MODEL_COST > before {
            columns
                .iter_mut()
                .zip(saved)
                .for_each(|(column, (model, cost))| (column.model, column.cost) = (model, cost));
            break;
        }
        models = tried;
    }
    // Some may have lost all their columns.
    let mut kept = Vec::new();
    let mut renamed = vec![0u8; models.len()];
    for (model, lengths) in models.iter().enumerate() {
        if columns.iter().any(|column| column.model == model && !column.tokens.is_empty()) {
            renamed[model] = kept.len() as u8;
            kept.push(Codes { lengths: *lengths, codes: crate::model::codes(lengths) });
        }
    }
    (kept, columns.iter().map(|column| renamed[column.model]).collect())
}
