//! How a column is stored; columns that are stored alike share one `Spec`.

use crate::{
    ChunkError,
    decimal::{MAX_DIGITS, Mapping},
    error::corrupt,
    wire::{Reader, put_varint},
};

const CONSTANT: u8 = 4;
const DIFFERENCES: u8 = 8;
const LINKED: u8 = 16;
const CENTER: u8 = 32;
const EXCEPTIONS: u8 = 64;
const DIVISOR: u8 = 128;
/// Stands in place of a number of digits.
const FEW: u8 = 255;

/// number\[i\] = base + divisor × (residual\[i\] + center), base being the first number or, with
/// `differences`, the number before; plus the same number of the column before when `linked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(clippy::struct_excessive_bools)] // they are the flags of one byte
pub(crate) struct Spec {
    pub mapping: Mapping,
    /// All numbers are the first one; there are no residuals.
    pub constant: bool,
    pub differences: bool,
    pub linked: bool,
    /// The column stores a center of its differences.
    pub center: bool,
    /// The column stores values that its numbers do not give.
    pub exceptions: bool,
    pub divisor: u64,
    /// Last bits of a residual that are stored as they are.
    pub shift: u8,
    pub model: u8,
}

impl Spec {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (mapping, digits) = match self.mapping {
            Mapping::Whole => (0, None),
            Mapping::Decimal { digits } => (1, Some(digits)),
            Mapping::Few => (1, Some(FEW)),
            Mapping::Large => (2, None),
            Mapping::Bits => (3, None),
        };
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        out.push(
            mapping
                | flag(self.constant, CONSTANT)
                | flag(self.differences, DIFFERENCES)
                | flag(self.linked, LINKED)
                | flag(self.center, CENTER)
                | flag(self.exceptions, EXCEPTIONS)
                | flag(self.divisor != 1, DIVISOR),
        );
        out.extend(digits);
        if !self.constant {
            out.extend([self.shift, self.model]);
        }
        if self.divisor != 1 {
            put_varint(out, self.divisor);
        }
    }

    pub(crate) fn parse(reader: &mut Reader<'_>, models: usize) -> Result<Self, ChunkError> {
        let flags = reader.u8()?;
        let mapping = match flags & 3 {
            0 => Mapping::Whole,
            1 => match reader.u8()? {
                FEW => Mapping::Few,
                digits => Mapping::Decimal { digits },
            },
            2 => Mapping::Large,
            _ => Mapping::Bits,
        };
        if matches!(mapping, Mapping::Decimal { digits } if usize::from(digits) > MAX_DIGITS) {
            return Err(corrupt("a column has too many decimals"));
        }
        let constant = flags & CONSTANT != 0;
        let (shift, model) = if constant { (0, 0) } else { (reader.u8()?, reader.u8()?) };
        if shift > 63 || (!constant && usize::from(model) >= models) {
            return Err(corrupt("a column has no model"));
        }
        Ok(Self {
            mapping,
            constant,
            differences: flags & DIFFERENCES != 0,
            linked: flags & LINKED != 0,
            center: flags & CENTER != 0,
            exceptions: flags & EXCEPTIONS != 0,
            divisor: if flags & DIVISOR != 0 { reader.varint()? } else { 1 },
            shift,
            model,
        })
    }
}
