//! What the parsers of expositions promise a sink.

use trine_protocols::exposition::{
    ExpositionExemplar, Format, MetadataField, ParseOptions, Series, Sink, parse,
};
use trine_schema::NativeHistogram;

/// Keeps what it is told; expects the series it was told before, in their order.
#[derive(Default)]
struct Recorder {
    told: Vec<(Vec<u8>, Option<i64>, u64)>,
    expects: Option<(Vec<Vec<u8>>, usize)>,
}

impl Sink for Recorder {
    fn expected(&mut self, rest: &[u8]) -> Option<usize> {
        let (texts, next) = self.expects.as_ref()?;
        let text = texts.get(*next)?;
        Series::begins(rest, text).then_some(text.len())
    }

    fn float(&mut self, series: &Series<'_>, at_ms: Option<i64>, value: f64) -> Result<(), String> {
        assert!(!series.labels().is_empty(), "a series has a name");
        self.told.push((series.text.to_vec(), at_ms, value.to_bits()));
        if let Some((_, next)) = &mut self.expects {
            *next += 1;
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        series: &Series<'_>,
        at_ms: Option<i64>,
        histogram: &NativeHistogram,
    ) -> Result<(), String> {
        let bytes = histogram.to_bytes();
        assert!(NativeHistogram::from_bytes(&bytes).is_some(), "a histogram that is told can be kept");
        self.float(series, at_ms, histogram.count)
    }

    fn start(&mut self, sample: usize, _: i64) {
        assert!(sample <= self.told.len(), "a start is of a sample that was told");
    }

    fn exemplar(&mut self, _: ExpositionExemplar) {
        assert!(!self.told.is_empty(), "an exemplar is of a sample");
    }

    fn metadata(&mut self, family: &str, _: MetadataField<'_>) {
        assert!(!family.is_empty(), "a family has a name");
    }
}

/// A body is taken or refused, and a sink that expects series is told the same as one that does not.
pub(crate) fn parsed(format: Format, bytes: &[u8]) {
    let options = ParseOptions { native_histograms: true, always_classic_histograms: true };
    let mut first = Recorder::default();
    let outcome = parse(format, bytes, options, &mut first);
    let texts = first.told.iter().map(|(text, ..)| text.clone()).collect();
    let mut second = Recorder { told: Vec::new(), expects: Some((texts, 0)) };
    assert_eq!(parse(format, bytes, options, &mut second), outcome);
    assert_eq!(second.told, first.told);
}
