//! Sets of small numbers as they are stored: rising differences or a bitmap, whichever is shorter.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_varint};

/// First byte of a list of differences.
const LIST: u8 = 0;
/// First byte of a bitmap.
const BITS: u8 = 1;

/// A set of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberSet(Bytes);

impl NumberSet {
    /// Of rising numbers.
    pub fn new(rising: &[u32]) -> Self {
        let mut list = vec![LIST];
        let mut last = 0;
        for number in rising {
            put_varint(&mut list, u64::from(number - last));
            last = *number;
        }
        let bits = last as usize / 8 + 1;
        if list.len() <= bits {
            return Self(list.into());
        }
        let mut map = vec![0; 1 + bits];
        map[0] = BITS;
        for number in rising {
            map[1 + *number as usize / 8] |= 1 << (number % 8);
        }
        Self(map.into())
    }

    /// Takes the stored form; all numbers must be below `below` and there must be one.
    pub fn read(bytes: Bytes, below: usize, what: &'static str) -> Result<Self, Malformed> {
        let (kind, rest) = bytes.split_first().ok_or(Malformed(what))?;
        match *kind {
            LIST => {
                let (mut reader, mut last, mut first) = (Reader::new(rest), 0u32, true);
                while reader.position() < rest.len() {
                    let step = reader.varint32(what)?;
                    last = last.checked_add(step).filter(|_| first || step > 0).ok_or(Malformed(what))?;
                    first = false;
                }
                if first || last as usize >= below {
                    return Err(Malformed(what));
                }
            }
            BITS => {
                let last = rest.last().filter(|byte| **byte != 0).ok_or(Malformed(what))?;
                let most = (rest.len() - 1) * 8 + 7 - last.leading_zeros() as usize;
                if most >= below {
                    return Err(Malformed(what));
                }
            }
            _ => return Err(Malformed(what)),
        }
        Ok(Self(bytes))
    }

    /// The stored form.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the number is in the set.
    pub fn contains(&self, number: u32) -> bool {
        if self.0[0] == BITS {
            return self.0.get(1 + number as usize / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
        }
        self.iter().take_while(|found| *found <= number).last() == Some(number)
    }

    /// The numbers, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (bits, rest) = (self.0[0] == BITS, &self.0[1..]);
        let (mut reader, mut place, mut last) = (Reader::new(rest), 0usize, 0u32);
        std::iter::from_fn(move || {
            if !bits {
                // The whole was read when it was taken.
                last += reader.varint32("number").ok()?;
                return Some(last);
            }
            loop {
                let byte = *rest.get(place / 8)?;
                place += 1;
                if byte >> ((place - 1) % 8) & 1 == 1 {
                    return Some(place as u32 - 1);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back_in_either_form() {
        let dense: Vec<u32> = (0..500).filter(|n| n % 7 != 3).collect();
        for numbers in [vec![0], vec![7], vec![3, 90_000], dense] {
            let set = NumberSet::new(&numbers);
            let below = numbers.last().unwrap() + 1;
            assert_eq!(NumberSet::read(set.0.clone(), below as usize, "set").as_ref(), Ok(&set));
            assert!(NumberSet::read(set.0.clone(), below as usize - 1, "set").is_err());
            assert_eq!(set.iter().collect::<Vec<_>>(), numbers);
            assert!((0..1_000).all(|n| set.contains(n) == numbers.contains(&n)));
        }
    }
}
