//! A set of row numbers of one block.

/// Rows `0..len`, one bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    len: u32,
}

impl RowSet {
    /// Empty set over rows `0..len`.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    /// Forgets all rows; the set is over `0..len` from now on.
    pub fn reset(&mut self, len: u32) {
        self.words.clear();
        self.words.resize(len.div_ceil(64) as usize, 0);
        self.len = len;
    }

    /// Number of rows the set is over (not how many are in it).
    pub fn domain(&self) -> u32 {
        self.len
    }

    /// Adds a row; a row outside the domain is ignored.
    #[inline]
    pub fn insert(&mut self, row: u32) {
        if row < self.len {
            self.words[(row >> 6) as usize] |= 1 << (row & 63);
        }
    }

    /// Adds all rows of the domain.
    pub fn insert_all(&mut self) {
        self.words.fill(u64::MAX);
        self.trim();
    }

    /// Whether the row is in the set.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        row < self.len && self.words[(row >> 6) as usize] >> (row & 63) & 1 == 1
    }

    /// How many rows are in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no row is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Keeps the rows that are in both; both must have the same domain.
    pub fn intersect(&mut self, other: &Self) {
        for (i, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(i).copied().unwrap_or(0);
        }
    }

    /// Adds the rows of the other set.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.trim();
    }

    /// Keeps exactly the rows of the domain that were not in the set.
    pub fn complement(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.trim();
    }

    /// Rows in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                Some(i as u32 * 64 + bit)
            })
        })
    }

    /// Clears the bits past the domain.
    fn trim(&mut self) {
        if self.len & 63 != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len & 63)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_like_sets_at_word_borders() {
        for len in [0, 1, 63, 64, 65, 130] {
            let mut set = RowSet::new(len);
            for row in (0..len + 5).step_by(3) {
                set.insert(row);
            }
            let expected: Vec<u32> = (0..len).step_by(3).collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), expected);
            let mut rest = set.clone();
            rest.complement();
            assert_eq!(rest.count() + set.count(), len);
            let mut all = set.clone();
            all.union(&rest);
            let mut full = RowSet::new(len);
            full.insert_all();
            assert_eq!(all, full);
            set.intersect(&rest);
            assert!(set.is_empty());
        }
    }
}
