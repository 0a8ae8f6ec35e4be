//! Needles and what the right answers are: questions are checked, not only timed.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trine_model::{Level, SpanId, TraceId};

use crate::record::{Record, StreamLabels};
use crate::rng::Rng;

/// A word no corpus has.
pub const RARE_WORD: &str = "zyxomma";
/// A token no corpus has; the question asks for a part of its inside.
pub const RARE_TOKEN: &str = "ref=a81f:Kq7ZwvQ9xx93";
/// Finds [`RARE_TOKEN`] by a part that is no token of its own.
pub const RARE_REGEX: &str = "q7Z[vw]{2}Q9x";
/// Where the needles lie, as parts of the whole: three lines have the word, two the token.
const WORD_AT: [f64; 3] = [0.13, 0.47, 0.88];
const TOKEN_AT: [f64; 2] = [0.29, 0.71];
/// The trace begins here and has so many lines, a few hundred records apart.
const TRACE_AT: f64 = 0.333;
/// Lines of the planted trace.
pub const TRACE_LINES: usize = 4;
const TRACE_APART: u64 = 150;
/// The window of the first question begins at this part of the time span …
const WINDOW_AT: f64 = 0.6;
/// … and lasts so long, or a quarter of the span if that is shorter. Nanoseconds.
const WINDOW_NS: i64 = 300_000_000_000;
/// Lines the first question asks for.
pub const LAST_LINES: usize = 1000;
const MINUTE_NS: i64 = 60_000_000_000;

/// Right answers for one generated load.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Records.
    pub lines: u64,
    /// Bytes of all bodies.
    pub raw_bytes: u64,
    /// Bytes of the pushes as they are sent.
    pub wire_bytes: u64,
    /// Streams with at least one record.
    pub streams: usize,
    /// First record's time, Unix nanoseconds.
    pub first_ns: i64,
    /// Last record's time.
    pub last_ns: i64,
    /// Records with a trace id.
    pub traced: u64,
    /// Last lines of a service.
    pub tail: Tail,
    /// Rare word and its lines.
    pub rare_word: (String, u64),
    /// Rare regex and its lines.
    pub rare_regex: (String, u64),
    /// Trace id in hex and its lines.
    pub trace: (String, u64),
    /// Common substring and its lines.
    pub common: (String, u64),
    /// Records by level per minute: minute start in Unix nanoseconds, level, count.
    pub levels: Vec<(i64, String, u64)>,
}

/// The last [`LAST_LINES`] lines of `service` in `[from_ns, to_ns)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The service.
    pub service: String,
    /// Window start, inclusive.
    pub from_ns: i64,
    /// Window end, exclusive.
    pub to_ns: i64,
    /// Lines the answer has: 1,000 or all there are.
    pub lines: u64,
    /// Time of the oldest line of the answer.
    pub oldest_ns: i64,
    /// Time of the newest line of the answer.
    pub newest_ns: i64,
}

/// Plants needles while a load is made and keeps count.
pub struct Keeper {
    truth: Truth,
    goal: u64,
    trace: TraceId,
    trace_next: u64,
    words: usize,
    tokens: usize,
    by_level: BTreeMap<(i64, Level), u64>,
    last: VecDeque<i64>,
    seen: Vec<bool>,
    spans: Rng,
}

impl Keeper {
    /// For a load of `raw_bytes` from `start_ns` over about `span_ns`.
    pub fn new(
        seed: u64,
        raw_bytes: u64,
        start_ns: i64,
        span_ns: i64,
        common: &str,
        streams: &[StreamLabels],
    ) -> Self {
        let mut rng = Rng::new(seed ^ 0x6E65_6564_6C65);
        let trace = TraceId(rng.id());
        let from_ns = start_ns + (span_ns as f64 * WINDOW_AT) as i64;
        let tail = Tail {
            service: streams.get(streams.len() / 2).map(|s| s.service.clone()).unwrap_or_default(),
            from_ns,
            to_ns: from_ns + WINDOW_NS.min(span_ns / 4),
            ..Tail::default()
        };
        let truth = Truth {
            tail,
            rare_word: (RARE_WORD.into(), 0),
            rare_regex: (RARE_REGEX.into(), 0),
            trace: (trace.to_string(), 0),
            common: (common.to_owned(), 0),
            ..Truth::default()
        };
        Self {
            truth,
            goal: raw_bytes,
            trace,
            trace_next: 0,
            words: 0,
            tokens: 0,
            by_level: BTreeMap::new(),
            last: VecDeque::with_capacity(LAST_LINES + 1),
            seen: vec![false; streams.len()],
            spans: rng,
        }
    }

    /// Plants what is due in `record` and counts it.
    pub fn pass(&mut self, record: &mut Record, streams: &[StreamLabels]) {
        let truth = &mut self.truth;
        let done = truth.raw_bytes as f64 / self.goal as f64;
        if WORD_AT.get(self.words).is_some_and(|at| done >= *at) {
            self.words += 1;
            truth.rare_word.1 += 1;
            record.line.push(' ');
            record.line.push_str(RARE_WORD);
        } else if TOKEN_AT.get(self.tokens).is_some_and(|at| done >= *at) {
            self.tokens += 1;
            truth.rare_regex.1 += 1;
            record.line.push(' ');
            record.line.push_str(RARE_TOKEN);
        } else if done >= TRACE_AT && truth.trace.1 < TRACE_LINES as u64 && truth.lines >= self.trace_next {
            self.trace_next = truth.lines + TRACE_APART;
            truth.trace.1 += 1;
            record.trace_id = Some(self.trace);
            record.span_id = Some(SpanId(self.spans.id()));
        }
        if truth.lines == 0 {
            truth.first_ns = record.timestamp_ns;
        }
        truth.last_ns = record.timestamp_ns;
        truth.lines += 1;
        truth.raw_bytes += record.line.len() as u64;
        truth.traced += u64::from(record.trace_id.is_some());
        truth.common.1 += u64::from(record.line.contains(&truth.common.0));
        let minute = record.timestamp_ns.div_euclid(MINUTE_NS) * MINUTE_NS;
        *self.by_level.entry((minute, record.level)).or_insert(0) += 1;
        if let Some(seen) = self.seen.get_mut(record.stream) {
            *seen = true;
        }
        let tail = &truth.tail;
        if (tail.from_ns..tail.to_ns).contains(&record.timestamp_ns)
            && streams[record.stream].service == tail.service
        {
            self.last.push_back(record.timestamp_ns);
            if self.last.len() > LAST_LINES {
                self.last.pop_front();
            }
        }
    }

    /// True once the load has its bytes.
    pub const fn full(&self) -> bool {
        self.truth.raw_bytes >= self.goal
    }

    /// The counts, `wire_bytes` still 0.
    pub fn finish(self) -> Truth {
        let mut truth = self.truth;
        truth.streams = self.seen.iter().filter(|s| **s).count();
        truth.tail.lines = self.last.len() as u64;
        truth.tail.oldest_ns = self.last.front().copied().unwrap_or(0);
        truth.tail.newest_ns = self.last.back().copied().unwrap_or(0);
        truth.levels =
            self.by_level.into_iter().map(|((at, level), n)| (at, level.name().to_owned(), n)).collect();
        truth
    }
}
