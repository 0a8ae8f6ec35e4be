//! What is sent, of any signal: made once into a file, with the right answers and the questions to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::kind::{Kind, Protocol};
use super::questions::{self, Language, Question};
use super::send::Data;
use super::signal::Signal;
use crate::encode::{Format, Version};
use crate::generate::fleet::{FleetKind, FleetPlan, FleetTruth};
use crate::generate::traces::{TracePlan, TraceTruth};
use crate::generate::truth::Truth;
use crate::generate::{Corpus, Plan, fleet, read_truth, traces, truth_path, write_files};

/// Bytes of the log lines for the steady phase, at most.
const MAX_STEADY_BYTES: f64 = 4e9;
/// Spans or samples for the steady phase, at most.
const MAX_STEADY_ITEMS: f64 = 20e6;
/// More spans than these are made while they are sent; their right answers are known only then.
const MAX_FILE_SPANS: u64 = 20_000_000;
const DAY_NS: i64 = 86_400_000_000_000;

/// What to make.
#[derive(Debug, Clone)]
pub enum Load {
    /// Log lines.
    Logs(Plan),
    /// Spans.
    Traces(TracePlan),
    /// Samples.
    Metrics(FleetPlan),
}

/// The right answers.
enum Answers {
    Logs(Arc<Truth>),
    Traces(Arc<TraceTruth>),
    Metrics(Arc<FleetTruth>),
}

/// A load as a file.
pub struct Prepared {
    /// Frames.
    pub data: Data,
    /// Lines, spans or samples.
    pub items: u64,
    /// Bytes of log bodies; of requests for other signals.
    pub raw_bytes: u64,
    answers: Answers,
}

impl Load {
    /// Its signal.
    pub const fn signal(&self) -> Signal {
        match self {
            Self::Logs(_) => Signal::Logs,
            Self::Traces(_) => Signal::Traces,
            Self::Metrics(_) => Signal::Metrics,
        }
    }

    /// In words, for the report.
    pub fn describe(&self, prepared: &Prepared) -> String {
        match self {
            Self::Logs(plan) => {
                format!("{:?} of {} bytes, seed {}", plan.corpus, prepared.raw_bytes, plan.seed)
            }
            Self::Traces(plan) => {
                let per_span = prepared.raw_bytes as f64 / prepared.items as f64;
                format!("traces of {per_span:.0} bytes per span, seed {}", plan.seed)
            }
            Self::Metrics(plan) => format!(
                "{} series ({:?}) of {} samples, seed {}",
                plan.series, plan.kind, plan.samples, plan.seed
            ),
        }
    }

    /// The load's file in `cache`, made if it is not there, for so many ordered connections. A load that is
    /// made while it is sent has no right answers before that: prepare it again.
    pub fn prepare(&self, protocol: Protocol, connections: usize, cache: &Path) -> Result<Prepared> {
        std::fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
        match self {
            Self::Logs(plan) => {
                let format =
                    protocol.format().context("log lines need --protocol loki, otlp or jsonlines")?;
                let data = prepared_logs(plan, format, cache)?;
                let truth: Truth = read_truth(&data)?;
                let (items, raw_bytes) = (truth.lines, truth.raw_bytes);
                Ok(Prepared {
                    data: Data::File(data),
                    items,
                    raw_bytes,
                    answers: Answers::Logs(truth.into()),
                })
            }
            Self::Traces(plan) => {
                let file = span_file(plan, "otlp", cache);
                if plan.spans > MAX_FILE_SPANS && !truth_path(&file).is_file() {
                    let truth = TraceTruth { spans: plan.spans, ..TraceTruth::default() };
                    let (data, answers) = (Data::Traces(*plan, file), Answers::Traces(truth.into()));
                    return Ok(Prepared { data, items: plan.spans, raw_bytes: 0, answers });
                }
                made(&file, |file| traces::write_file(plan, file).map(drop))?;
                let truth: TraceTruth = read_truth(&file)?;
                let (items, raw_bytes) = (truth.spans, truth.wire_bytes);
                let data = match plan.spans {
                    ..=MAX_FILE_SPANS => Data::File(file),
                    _ => Data::Traces(*plan, file),
                };
                Ok(Prepared { data, items, raw_bytes, answers: Answers::Traces(truth.into()) })
            }
            Self::Metrics(plan) => {
                let (version, ending) = match protocol {
                    Protocol::RemoteWrite => (Version::V1, "rw1"),
                    Protocol::RemoteWrite2 => (Version::V2, "rw2"),
                    _ => bail!("samples need --protocol remote-write or remote-write-2"),
                };
                let kind = match plan.kind {
                    FleetKind::Hosts => "hosts",
                    FleetKind::Counters => "counters",
                };
                let data = cache.join(format!(
                    "{kind}-{}x{}-seed{}-at{}-lanes{connections}.{ending}",
                    plan.series, plan.samples, plan.seed, plan.start_s
                ));
                made(&data, |data| fleet::write_file(plan, version, connections, data).map(drop))?;
                let truth: FleetTruth = read_truth(&data)?;
                let (items, raw_bytes) = (truth.samples, truth.wire_bytes);
                Ok(Prepared {
                    data: Data::File(data),
                    items,
                    raw_bytes,
                    answers: Answers::Metrics(truth.into()),
                })
            }
        }
    }

    /// Other items of the same kind, enough for a time at a rate: the same ones could be taken for a
    /// repeated delivery.
    #[must_use]
    pub fn for_steady(&self, main: &Prepared, rate: f64, time: Duration) -> Self {
        let items = rate * time.as_secs_f64() * 1.2;
        match self {
            Self::Logs(plan) => {
                let mean = main.raw_bytes as f64 / main.items as f64;
                let bytes = (items * mean).clamp(1e6, MAX_STEADY_BYTES);
                Self::Logs(Plan {
                    raw_bytes: (bytes / 1e6).ceil() as u64 * 1_000_000,
                    seed: plan.seed + 1,
                    start_ns: plan.start_ns - DAY_NS,
                    ..plan.clone()
                })
            }
            Self::Traces(plan) => Self::Traces(TracePlan {
                spans: (items.min(MAX_STEADY_ITEMS) / 1e5).ceil() as u64 * 100_000,
                seed: plan.seed + 1,
                start_ns: plan.start_ns - DAY_NS,
            }),
            // Later, not earlier: Prometheus takes nothing that is old.
            Self::Metrics(plan) => Self::Metrics(FleetPlan {
                samples: ((items.min(MAX_STEADY_ITEMS) / plan.series as f64 / 20.0).ceil() as usize).max(1)
                    * 20,
                seed: plan.seed + 1,
                start_s: plan.end_s(),
                ..*plan
            }),
        }
    }

    /// When items that are sent after `taken` others lie, Unix nanoseconds, if their time matters.
    pub fn clock_ns(&self, taken: u64) -> Option<i64> {
        match self {
            Self::Logs(_) | Self::Traces(_) => None,
            Self::Metrics(plan) => {
                let rounds = taken / plan.series as u64;
                Some((plan.start_s + rounds as i64 * fleet::STEP_S) * 1_000_000_000)
            }
        }
    }
}

impl Prepared {
    /// The questions to a server, in those of `languages` that it speaks.
    pub fn questions(&self, kind: Kind, protocol: Protocol, languages: &[Language]) -> Vec<Question> {
        let signal = match self.answers {
            Answers::Logs(_) => Signal::Logs,
            Answers::Traces(_) => Signal::Traces,
            Answers::Metrics(_) => Signal::Metrics,
        };
        let spoken = Language::of(kind, signal);
        let wanted = |l: &&Language| languages.is_empty() || languages.contains(l);
        match &self.answers {
            Answers::Logs(truth) => spoken
                .iter()
                .filter(wanted)
                .flat_map(|l| questions::logs::questions(protocol, *l, truth, spoken.len() > 1))
                .collect(),
            Answers::Traces(truth) => {
                spoken.iter().filter(wanted).flat_map(|l| questions::traces::questions(*l, truth)).collect()
            }
            Answers::Metrics(truth) => questions::metrics::questions(kind, truth),
        }
    }

    /// Questions whose answers show that nothing was lost; nobody looks at their times.
    pub fn counts(&self, kind: Kind) -> Vec<Question> {
        match &self.answers {
            Answers::Logs(_) => Vec::new(),
            Answers::Traces(truth) => questions::traces::counts(truth),
            Answers::Metrics(truth) => questions::metrics::counts(kind, truth),
        }
    }
}

/// Makes a file unless it is whole: the right answers beside it are written last.
fn made(data: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if truth_path(data).is_file() {
        return Ok(());
    }
    eprintln!("making {}", data.display());
    make(data)
}

fn span_file(plan: &TracePlan, extension: &str, cache: &Path) -> PathBuf {
    let at = plan.start_ns / 1_000_000_000;
    cache.join(format!("traces-{}-seed{}-at{at}.{extension}", plan.spans, plan.seed))
}

/// File of spans as rows of `ClickHouse` in `cache`; made if it is not there.
pub fn prepared_span_rows(plan: &TracePlan, cache: &Path) -> Result<PathBuf> {
    let data = span_file(plan, "rowbinary", cache);
    made(&data, |data| traces::write_row_binary(plan, data))?;
    Ok(data)
}

/// File of log lines in `cache`; made if it is not there.
pub fn prepared_logs(plan: &Plan, format: Format, cache: &Path) -> Result<PathBuf> {
    let corpus = match plan.corpus {
        Corpus::Replay => "replay",
        Corpus::Unmutated => "unmutated",
        Corpus::Trainticket => "trainticket",
        Corpus::Shop => "shop",
    };
    let name = format!(
        "{corpus}-{}-seed{}-at{}.{}",
        plan.raw_bytes,
        plan.seed,
        plan.start_ns / 1_000_000_000,
        format.extension()
    );
    let data = cache.join(name);
    made(&data, |data| write_files(plan, &[(data.to_owned(), format)]).map(drop))?;
    Ok(data)
}
