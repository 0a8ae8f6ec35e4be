//! Native histograms as they travel: spans of buckets and their counts (Prometheus' remote write, "Native
//! Histograms" specification).

/// Schema of histograms whose bounds are listed in `custom_bounds`.
pub const CUSTOM_BOUNDS: i32 = -53;

/// Whether a counter is known to have started anew before a histogram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ResetHint {
    /// Nothing is known; readers compare.
    #[default]
    Unknown = 0,
    /// It started anew.
    Reset = 1,
    /// It did not.
    NotReset = 2,
    /// It is no counter.
    Gauge = 3,
}

/// Buckets of one side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BucketSpans {
    /// Runs of consecutive buckets: distance from the end of the run before (of the first run: its first
    /// index), and length.
    pub spans: Vec<(i32, u32)>,
    /// Observations of each bucket of all runs, not cumulative.
    pub counts: Vec<f64>,
}

/// A native histogram sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NativeHistogram {
    /// What is known of a reset.
    pub reset_hint: ResetHint,
    /// Resolution, -4 to 8: bounds grow by `2^(2^-schema)`; or [`CUSTOM_BOUNDS`].
    pub schema: i32,
    /// Half width of the bucket around zero.
    pub zero_threshold: f64,
    /// Observations in it.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Their sum; [`crate::metrics::STALE_NAN`] when the series ended here.
    pub sum: f64,
    /// Buckets above zero, or all of them with custom bounds.
    pub positive: BucketSpans,
    /// Buckets below zero.
    pub negative: BucketSpans,
    /// Upper bounds of custom buckets, ascending, without `+Inf`.
    pub custom_bounds: Vec<f64>,
}

impl NativeHistogram {
    /// Most buckets of one side, spans of one side and custom bounds that [`NativeHistogram::from_bytes`]
    /// reads.
    pub const MAX_BUCKETS: usize = 1 << 16;

    /// Bytes for a payload: hint, schema, four numbers, then both sides and the bounds, each with its lengths
    /// before it; little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![self.reset_hint as u8];
        out.extend_from_slice(&self.schema.to_le_bytes());
        let numbers = |out: &mut Vec<u8>, list: &[f64]| {
            list.iter().for_each(|number| out.extend_from_slice(&number.to_bits().to_le_bytes()));
        };
        numbers(&mut out, &[self.zero_threshold, self.zero_count, self.count, self.sum]);
        for side in [&self.positive, &self.negative] {
            out.extend_from_slice(&(side.spans.len() as u32).to_le_bytes());
            out.extend_from_slice(&(side.counts.len() as u32).to_le_bytes());
            for (offset, length) in &side.spans {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
            }
            numbers(&mut out, &side.counts);
        }
        out.extend_from_slice(&(self.custom_bounds.len() as u32).to_le_bytes());
        numbers(&mut out, &self.custom_bounds);
        out
    }

    /// Reads back [`NativeHistogram::to_bytes`]; `None` when the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let reset_hint = match reader.array::<1>()? {
            [0] => ResetHint::Unknown,
            [1] => ResetHint::Reset,
            [2] => ResetHint::NotReset,
            [3] => ResetHint::Gauge,
            _ => return None,
        };
        let schema = i32::from_le_bytes(reader.array()?);
        let [zero_threshold, zero_count, count, sum] =
            [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
        let [positive, negative] = [reader.side()?, reader.side()?];
        let bounds = reader.length()?;
        let custom_bounds = reader.numbers(bounds)?;
        reader.0.is_empty().then_some(Self {
            reset_hint,
            schema,
            zero_threshold,
            zero_count,
            count,
            sum,
            positive,
            negative,
            custom_bounds,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<f64> {
        self.array().map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)))
    }

    fn length(&mut self) -> Option<usize> {
        self.array()
            .map(|bytes| u32::from_le_bytes(bytes) as usize)
            .filter(|length| *length <= NativeHistogram::MAX_BUCKETS)
    }

    fn numbers(&mut self, length: usize) -> Option<Vec<f64>> {
        (0..length).map(|_| self.number()).collect()
    }

    fn side(&mut self) -> Option<BucketSpans> {
        let (spans, counts) = (self.length()?, self.length()?);
        let span = |_| Some((i32::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?)));
        let spans = (0..spans).map(span).collect::<Option<_>>()?;
        Some(BucketSpans { spans, counts: self.numbers(counts)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_come_back_and_what_is_none_is_refused() {
        let histogram = NativeHistogram {
            reset_hint: ResetHint::Gauge,
            schema: -4,
            zero_threshold: 1e-9,
            zero_count: 2.0,
            count: 9.0,
            sum: -3.5,
            positive: BucketSpans { spans: vec![(-3, 2), (7, 1)], counts: vec![1.0, 2.0, 3.0] },
            negative: BucketSpans { spans: vec![(0, 1)], counts: vec![1.0] },
            custom_bounds: vec![0.5, 1.0],
        };
        let bytes = histogram.to_bytes();
        assert_eq!(NativeHistogram::from_bytes(&bytes), Some(histogram));
        for cut in 0..bytes.len() {
            assert_eq!(NativeHistogram::from_bytes(&bytes[..cut]), None, "cut at {cut}");
        }
        let long = [&bytes[..], &[0]].concat();
        assert_eq!(NativeHistogram::from_bytes(&long), None);
        let stale = NativeHistogram { sum: f64::from_bits(crate::metrics::STALE_NAN), ..Default::default() };
        let back = NativeHistogram::from_bytes(&stale.to_bytes()).unwrap();
        assert_eq!(back.sum.to_bits(), crate::metrics::STALE_NAN);
    }
}
