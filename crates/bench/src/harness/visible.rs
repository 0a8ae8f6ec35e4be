//! Push → visible: a marked line, span or sample is pushed while the server works under a steady load, then
//! asked for without pause until an answer holds it. The time runs from before the push to after that answer.
//! What takes long is waited for beside the next marks, and what never shows is counted.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::StatusCode;
use tokio::time::timeout;
use trine_model::{Level, SpanId, TraceId};

use super::kind::{Kind, Protocol};
use super::questions::metrics::instant_value;
use super::questions::traces::{count_spans, trace_path};
use super::questions::{Body, Request, Server};
use super::send::{Target, push};
use super::signal::Signal;
use crate::encode::{Encoder, RemoteWrite, Series, Version, otlp_spans};
use crate::record::{Record, StreamLabels};
use crate::rng::Rng;
use crate::span::{Kind as SpanKind, Span};

/// What does not show for so long is counted as unseen.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// What shows within this time is asked for without pause; the next mark is not pushed before.
const EAGER: Duration = Duration::from_millis(250);
/// Later the pause before the next look is so small a part of the time since the push.
const PAUSE_PART: u32 = 20;
/// One in so many begins a stream or series of its own.
const NEW_STREAM_EVERY: u64 = 4;
/// Pause between two of them, milliseconds, at most.
const MAX_PAUSE_MS: u64 = 20;

/// Times from push to visible, milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Visible {
    /// All of them, new streams included.
    pub all: Vec<f64>,
    /// Those that began a stream.
    pub new_streams: Vec<f64>,
    /// Of all, the time to the acknowledgement alone.
    pub acknowledged: Vec<f64>,
    /// How many did not show within [`MAX_WAIT`]; the times above have them with that.
    pub unseen: u64,
}

impl Visible {
    fn add(&mut self, fresh: bool, seen: Option<Duration>) {
        self.unseen += u64::from(seen.is_none());
        let ms = seen.unwrap_or(MAX_WAIT).as_secs_f64() * 1000.0;
        self.all.push(ms);
        if fresh {
            self.new_streams.push(ms);
        }
    }
}

/// Something that is pushed, and how to see it.
struct Mark {
    body: Vec<u8>,
    look: Request,
    sees: Sees,
}

/// Whether an answer holds the mark.
type Sees = Box<dyn Fn(StatusCode, &[u8]) -> bool + Send + Sync>;

/// What marks are made of.
pub struct Probe<'a> {
    /// Which server it is.
    pub kind: Kind,
    /// Of what signal marks are.
    pub signal: Signal,
    /// Where they are asked for.
    pub server: &'a Server,
    /// Where they are pushed to.
    pub target: &'a Target,
}

impl Probe<'_> {
    /// Pushes marks until `end`, at the times that `clock_ns` tells.
    pub async fn run(&self, end: Instant, clock_ns: impl Fn() -> i64) -> Result<Visible> {
        let mut found = Visible::default();
        let mut rng = Rng::new(now_ns() as u64);
        let run = rng.next_u64() & 0xFFFF_FFFF;
        let retries = AtomicU64::new(0);
        let mut late = Vec::new();
        for number in 0u64.. {
            if Instant::now() >= end && number > 0 {
                break;
            }
            let fresh = number % NEW_STREAM_EVERY == 0;
            let place = if fresh { format!("probe-{run:x}-{number}") } else { format!("probe-{run:x}") };
            // A millisecond apart even where the clock stands still: a series takes one sample at a time.
            let at = clock_ns() + number as i64 * 1_000_000;
            let Mark { body, look, sees } = match self.signal {
                Signal::Logs => self.line(&format!("mark{run:x}n{number}x"), place, at)?,
                Signal::Traces => span(&mut rng, place, at),
                Signal::Metrics => self.sample(number, place, at)?,
            };
            let begun = Instant::now();
            push(self.target, Bytes::from(body), &retries).await?;
            found.acknowledged.push(begun.elapsed().as_secs_f64() * 1000.0);
            let mut seen = tokio::spawn(wait(self.server.clone(), look, sees, begun));
            match timeout(EAGER, &mut seen).await {
                Ok(seen) => found.add(fresh, seen??),
                Err(_) => late.push((fresh, seen)),
            }
            tokio::time::sleep(Duration::from_millis(1 + rng.below(MAX_PAUSE_MS))).await;
        }
        for (fresh, seen) in late {
            found.add(fresh, seen.await??);
        }
        Ok(found)
    }

    fn line(&self, mark: &str, pod: String, at: i64) -> Result<Mark> {
        const AROUND_NS: i64 = 1_000_000_000;
        let line = format!("visible {mark} yet");
        let record = Record { timestamp_ns: at, level: Level::Info, line: line.clone(), ..Record::default() };
        let mut body = Vec::new();
        let format = self.target.protocol.format().context("bug: lines are pushed in no format")?;
        Encoder::new(format).encode(&[record], &[labels(pod)], &mut body)?;
        let (from, to) = ((at - AROUND_NS).to_string(), (at + AROUND_NS).to_string());
        let (path, query) = match self.kind {
            Kind::VictoriaLogs => ("/select/logsql/query", mark.to_owned()),
            _ => ("/loki/api/v1/query_range", format!(r#"{{service_name="bench-probe"}} |= `{mark}`"#)),
        };
        let form = vec![("query", query), ("start", from), ("end", to), ("limit", "10".into())];
        let look = Request { path: path.to_owned(), body: Body::Form(form) };
        // Only the line has the words around the mark; a query that is echoed has not.
        let sees = move |_, answer: &[u8]| String::from_utf8_lossy(answer).contains(&line);
        Ok(Mark { body, look, sees: Box::new(sees) })
    }

    /// A sample whose value is its number.
    fn sample(&self, number: u64, probe: String, at: i64) -> Result<Mark> {
        let series = format!(r#"bench_probe{{probe="{probe}"}}"#);
        let labels = vec![("__name__".to_owned(), "bench_probe".to_owned()), ("probe".to_owned(), probe)];
        let at_ms = at / 1_000_000;
        let sample = [(at_ms, number as f64)];
        let version = match self.target.protocol {
            Protocol::RemoteWrite2 => Version::V2,
            _ => Version::V1,
        };
        let mut body = Vec::new();
        RemoteWrite::new(version).encode(&[Series { labels: &labels, samples: &sample }], &mut body)?;
        let time = format!("{}.{:03}", at_ms / 1000, at_ms % 1000);
        if self.kind == Kind::VictoriaMetrics {
            // Its queries leave out the last 30 s (`-search.latencyOffset`); an export does not.
            let form = vec![("match[]", series), ("start", time.clone()), ("end", time)];
            let look = Request { path: "/api/v1/export".to_owned(), body: Body::Form(form) };
            let want = format!(r#""values":[{number}]"#);
            let sees = move |_, answer: &[u8]| String::from_utf8_lossy(answer).contains(&want);
            return Ok(Mark { body, look, sees: Box::new(sees) });
        }
        let path = format!("{}/api/v1/query", self.kind.prometheus_prefix());
        let look = Request { path, body: Body::Form(vec![("query", series), ("time", time)]) };
        let sees = move |_, answer: &[u8]| instant_value(answer) == Some(number as f64);
        Ok(Mark { body, look, sees: Box::new(sees) })
    }
}

/// Looks until it sees; the time from `begun`, or nothing after [`MAX_WAIT`].
async fn wait(server: Server, look: Request, sees: Sees, begun: Instant) -> Result<Option<Duration>> {
    let until_seen = async {
        loop {
            let answer = server.ask(&look).await?;
            let waited = begun.elapsed();
            if sees(answer.status, &answer.body) {
                return Ok(waited);
            }
            if !answer.status.is_success() && answer.status != StatusCode::NOT_FOUND {
                let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
                bail!("{}{} answered {}: {text}", server.base, look.path, answer.status);
            }
            if waited > EAGER {
                tokio::time::sleep(waited / PAUSE_PART).await;
            }
        }
    };
    timeout(MAX_WAIT.saturating_sub(begun.elapsed()), until_seen).await.ok().transpose()
}

/// A trace of one span.
fn span(rng: &mut Rng, pod: String, at: i64) -> Mark {
    let trace_id = TraceId(rng.id());
    let span = Span {
        trace_id,
        span_id: SpanId(rng.id()),
        parent: None,
        stream: 0,
        name: Cow::Borrowed("visible"),
        kind: SpanKind::Internal,
        start_ns: at - 1_000_000,
        end_ns: at,
        error: None,
        attributes: Vec::new(),
        events: Vec::new(),
    };
    let mut body = Vec::new();
    otlp_spans(&[span], &[labels(pod)], &mut body);
    let look = Request { path: trace_path(&trace_id.to_string()), body: Body::Get("application/protobuf") };
    let sees = |status: StatusCode, answer: &[u8]| status.is_success() && count_spans(answer) == Some(1);
    Mark { body, look, sees: Box::new(sees) }
}

fn labels(pod: String) -> StreamLabels {
    StreamLabels { service: "bench-probe".into(), pod, namespace: "bench".into() }
}

/// The time of day, Unix nanoseconds.
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_shows_is_counted_and_lies_at_the_far_end() {
        let mut found = Visible::default();
        found.add(true, Some(Duration::from_millis(7)));
        found.add(false, None);
        assert_eq!((found.all, found.new_streams, found.unseen), (vec![7.0, 30_000.0], vec![7.0], 1));
    }
}
