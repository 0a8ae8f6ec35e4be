//! What a scraped target exposes: the Prometheus text format (0.0.4 and 1.0.0), OpenMetrics 1.0 text and the
//! delimited protobuf format (`io.prometheus.client.MetricFamily`), read as Prometheus 3 reads them.
//!
//! [`parse`] walks over the body once and tells a [`Sink`] what it meets, in order. It builds no labels: a
//! sample comes with the *text* of its series ([`Series::text`]), which is the same on every scrape of the
//! target, so that a sink looks up what it made of that text before and asks for [`Series::labels`] only when
//! it is new. A sink that guesses the next text right ([`Sink::expected`]) spares even reading it.
//!
//! A body is taken or refused as a whole: at the first broken line [`parse`] stops, and what the sink was
//! told so far is void. Any bytes end in `Ok` or an [`ExpositionError`].

mod content_type;
mod number;
mod openmetrics;
mod protobuf;
mod series;
mod text;

use trine_schema::NativeHistogram;

use crate::DecodeError;

pub use content_type::Format;
pub use series::Series;

/// Why a body is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpositionError {
    /// The target does not say what it sends, or sends what is not understood.
    #[error("{0}")]
    ContentType(String),
    /// A line of a text format is broken, or the sink refused what it says.
    #[error("line {line}: {reason}: {excerpt:?}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
        /// The line, cut to 120 characters.
        excerpt: String,
    },
    /// A metric family in protobuf says what cannot be, or the sink refused it.
    #[error("metric family {family:?}: {reason}")]
    Family {
        /// Its name, cut to 120 characters.
        family: String,
        /// What is wrong.
        reason: String,
    },
    /// The bytes are not protobuf.
    #[error(transparent)]
    Protobuf(#[from] DecodeError),
}

/// Type of a metric family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Not told.
    #[default]
    Unknown,
    /// Only grows.
    Counter,
    /// Any value.
    Gauge,
    /// Buckets of a counter.
    Histogram,
    /// Buckets that may shrink.
    GaugeHistogram,
    /// Quantiles.
    Summary,
    /// Labels with the value 1.
    Info,
    /// One series per state.
    StateSet,
}

impl Kind {
    /// As [`trine_schema::Metadata::kind`] has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }

    /// The label whose value is a number: it is written in one way (`1` becomes `1.0`), however the target
    /// writes it.
    fn number_label(self) -> Option<&'static str> {
        match self {
            Self::Histogram => Some("le"),
            Self::Summary => Some("quantile"),
            _ => None,
        }
    }

    /// Whether its samples have a start.
    fn starts(self) -> bool {
        matches!(self, Self::Counter | Self::Histogram | Self::Summary)
    }
}

/// One piece of a family's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataField<'a> {
    /// Its type.
    Kind(Kind),
    /// Its unit.
    Unit(&'a str),
    /// Its help.
    Help(&'a str),
}

/// An exemplar of the sample that was told last.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpositionExemplar {
    /// Milliseconds since 1970.
    pub at_ms: Option<i64>,
    /// What was observed.
    pub value: f64,
    /// Names and values in the order of the body.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

/// Takes what a body says. An `Err` of a method refuses the whole body with that reason.
pub trait Sink {
    /// The length of the series text that `rest`, the body from the next sample on, begins with, if it begins
    /// with the text of the series that the sink expects now and nothing else can be meant
    /// ([`Series::begins`]). The parser then does not read it again.
    fn expected(&mut self, rest: &[u8]) -> Option<usize>;

    /// A float sample; without a time it is of the time of the scrape.
    fn float(&mut self, series: &Series<'_>, at_ms: Option<i64>, value: f64) -> Result<(), String>;

    /// A native histogram.
    fn histogram(
        &mut self,
        series: &Series<'_>,
        at_ms: Option<i64>,
        histogram: &NativeHistogram,
    ) -> Result<(), String>;

    /// Sample number `sample` of this body (from 0) began at `start_ms`, milliseconds since 1970.
    fn start(&mut self, sample: usize, start_ms: i64);

    /// An exemplar of the last sample.
    fn exemplar(&mut self, exemplar: ExpositionExemplar);

    /// Metadata of a family.
    fn metadata(&mut self, family: &str, field: MetadataField<'_>);
}

/// What of native histograms is taken. Only the protobuf format has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// Take them; else a histogram is read by its classic buckets.
    pub native_histograms: bool,
    /// Take the classic buckets too of a histogram that has both.
    pub always_classic_histograms: bool,
}

/// Tells `sink` what `body` says.
pub fn parse<S: Sink>(
    format: Format,
    body: &[u8],
    options: ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError> {
    match format {
        Format::Text => text::parse(body, sink),
        Format::OpenMetrics => openmetrics::parse(body, sink),
        Format::Protobuf => protobuf::parse(body, options, sink),
    }
}

/// Characters of a broken line or a name that errors show.
const EXCERPT: usize = 120;

/// What is wrong, and at which byte.
#[derive(Debug)]
struct Bad {
    at: usize,
    reason: String,
}

/// Writes a formatting as `Bad` at a byte.
fn bad<T>(at: usize, reason: impl Into<String>) -> Result<T, Bad> {
    Err(Bad { at, reason: reason.into() })
}

impl Bad {
    /// With the number and the text of the line of `body`.
    fn in_line(self, body: &[u8]) -> ExpositionError {
        let at = self.at.min(body.len());
        let begin = memchr::memrchr(b'\n', &body[..at]).map_or(0, |end| end + 1);
        let end = memchr::memchr(b'\n', &body[begin..]).map_or(body.len(), |length| begin + length);
        // A character has at most 4 bytes.
        let shown = &body[begin..end.min(begin + 4 * EXCERPT)];
        ExpositionError::Line {
            line: memchr::memchr_iter(b'\n', &body[..begin]).count() + 1,
            reason: self.reason,
            excerpt: String::from_utf8_lossy(shown).chars().take(EXCERPT).collect(),
        }
    }
}
