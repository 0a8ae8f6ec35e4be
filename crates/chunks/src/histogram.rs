//! What the columns of a histogram series mean.

use crate::{
    ChunkError, MAX_COLUMNS,
    error::corrupt,
    wire::{Reader, put_varint, put_zigzag},
};

/// Consecutive buckets of one sign: the index of the first, and how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Index of the first bucket. A bucket `i` of a scale `s` ends at 2^(i / 2^s), as in OpenTelemetry.
    pub offset: i32,
    /// Number of buckets.
    pub len: u32,
}

/// Bounds of a histogram's buckets.
#[derive(Debug, Clone, PartialEq)]
pub enum Bounds {
    /// Exponential (native) buckets.
    Exponential {
        /// OpenTelemetry's scale, Prometheus' schema.
        scale: i32,
        /// Values up to this distance from zero are counted in a column of their own.
        zero_threshold: f64,
        /// Buckets of positive values.
        positive: Buckets,
        /// Buckets of negative values.
        negative: Buckets,
    },
    /// Upper bounds of all buckets but the last, which has none.
    Explicit(Vec<f64>),
}

/// Layout of a run of histograms. Columns: count, sum, the `extra` ones (such as minimum and maximum), then
/// for exponential bounds the zero count, the positive and the negative buckets; for explicit ones the
/// buckets.
///
/// A series whose buckets change gets a run per layout; a bucket that a sample lacks is an empty one, so a
/// writer takes the union of neighbouring samples' buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramLayout {
    /// Bounds of the buckets.
    pub bounds: Bounds,
    /// Columns after the sum whose meaning is the caller's.
    pub extra: u32,
    /// A number of the caller's: temporality, a hint about counter resets, whether counts are floats.
    pub flags: u32,
}

impl HistogramLayout {
    /// Number of columns.
    pub fn columns(&self) -> usize {
        let buckets = match &self.bounds {
            Bounds::Exponential { positive, negative, .. } => {
                1 + positive.len as usize + negative.len as usize
            }
            Bounds::Explicit(bounds) => bounds.len() + 1,
        };
        2 + self.extra as usize + buckets
    }

    /// Bytes for [`BlockWriter::push_run`](crate::BlockWriter::push_run).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, u64::from(self.flags));
        put_varint(&mut out, u64::from(self.extra));
        match &self.bounds {
            Bounds::Explicit(bounds) => {
                out.push(0);
                put_varint(&mut out, bounds.len() as u64);
                bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_bits().to_le_bytes()));
            }
            Bounds::Exponential { scale, zero_threshold, positive, negative } => {
                out.push(1);
                put_zigzag(&mut out, i64::from(*scale));
                out.extend_from_slice(&zero_threshold.to_bits().to_le_bytes());
                for buckets in [positive, negative] {
                    put_zigzag(&mut out, i64::from(buckets.offset));
                    put_varint(&mut out, u64::from(buckets.len));
                }
            }
        }
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChunkError> {
        let mut reader = Reader::new(bytes);
        let small =
            |number: i64| i32::try_from(number).map_err(|_| corrupt("a bucket's number is out of bounds"));
        let flags = reader.bounded(u32::MAX as usize)? as u32;
        let extra = reader.bounded(MAX_COLUMNS)? as u32;
        let bounds = match reader.u8()? {
            0 => {
                let count = reader.bounded(MAX_COLUMNS)?;
                let mut bounds = Vec::new();
                for _ in 0..count {
                    bounds.push(f64::from_bits(reader.u64()?));
                }
                Bounds::Explicit(bounds)
            }
            1 => {
                let scale = small(reader.zigzag()?)?;
                let zero_threshold = f64::from_bits(reader.u64()?);
                let mut buckets = || -> Result<Buckets, ChunkError> {
                    let offset = small(reader.zigzag()?)?;
                    Ok(Buckets { offset, len: reader.bounded(MAX_COLUMNS)? as u32 })
                };
                Bounds::Exponential { scale, zero_threshold, positive: buckets()?, negative: buckets()? }
            }
            _ => return Err(corrupt("a histogram has unknown bounds")),
        };
        if !reader.is_empty() {
            return Err(corrupt("a histogram's layout is too long"));
        }
        Ok(Self { bounds, extra, flags })
    }
}
