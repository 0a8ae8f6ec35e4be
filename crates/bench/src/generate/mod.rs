//! Making loads: a [`Source`] of records, needles planted in it, an encoder, files; spans ([`traces`]) and
//! samples ([`fleet`]) likewise.
//!
//! A load is made before the clock of a measurement starts. `NAME` holds the encoded data and
//! `NAME.truth.json` the right answers ([`Truth`]). Formats that are sent ([`Format::Loki`],
//! [`Format::Otlp`], [`Format::JsonBodies`]) are sequences of [`frames`].

pub mod clock;
pub mod corpus;
pub mod fleet;
pub mod frames;
pub mod replay;
pub mod shop;
pub mod template;
pub mod traces;
pub mod truth;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::corpus::{DEFAULT_DIR, OtlpFile, systems};
use self::frames::FrameWriter;
use self::replay::Replay;
use self::shop::Shop;
use self::truth::{Keeper, Truth};
use crate::encode::{Encoder, Format};
use crate::record::{Record, Source, StreamLabels};

/// Records of one push.
pub const PUSH_RECORDS: usize = 5_000;
/// Time a load spans per raw gigabyte: one hour, as a system of 1.6 k lines a second would write.
pub const SPAN_NS_PER_GB: f64 = 3600.0 * 1e9;
/// Where generated time begins unless told: 2026-11-19 08:00:00 UTC.
pub const DEFAULT_START_NS: i64 = 1_795_075_200_000_000_000;

/// Which lines a load is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Corpus {
    /// The sixteen-system lines with fresh variables.
    Replay,
    /// The sixteen-system lines as they are.
    Unmutated,
    /// OTLP JSON files.
    Trainticket,
    /// The made-up shop; needs no data.
    Shop,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which lines.
    pub corpus: Corpus,
    /// File or folder of the lines; [`DEFAULT_DIR`] when none is given.
    pub path: Option<PathBuf>,
    /// Bytes of all bodies together.
    pub raw_bytes: u64,
    /// Seed; equal plans give equal loads.
    pub seed: u64,
    /// Time of the first record, Unix nanoseconds.
    pub start_ns: i64,
}

impl Plan {
    /// Length of the load in time, nanoseconds.
    pub fn span_ns(&self) -> i64 {
        (self.raw_bytes as f64 / 1e9 * SPAN_NS_PER_GB) as i64
    }

    /// The records' source.
    pub fn source(&self) -> Result<Box<dyn Source>> {
        let path = || self.path.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR));
        Ok(match self.corpus {
            Corpus::Replay | Corpus::Unmutated => {
                let mutate = self.corpus == Corpus::Replay;
                let mut replay = Replay::new(systems(&path())?, self.seed, self.start_ns, 1.0, mutate);
                replay.set_mean_gap(SPAN_NS_PER_GB / 1e9 * replay.mean_line());
                Box::new(replay)
            }
            Corpus::Trainticket => {
                let mut path = path();
                if path.is_dir() {
                    path = path.join("trainticket/logs.jsonl.zst");
                }
                Box::new(OtlpFile::new(&[path], self.start_ns)?)
            }
            // A request writes about 338 bytes: three lines.
            Corpus::Shop => Box::new(Shop::new(self.seed, self.start_ns, 1e9 / 3600.0 / 338.0)),
        })
    }
}

/// Makes a load and hands it over in batches of [`PUSH_RECORDS`] records.
pub fn batches(plan: &Plan, mut take: impl FnMut(&[Record], &[StreamLabels]) -> Result<()>) -> Result<Truth> {
    let mut source = plan.source()?;
    let common = source.common_substring();
    let mut keeper =
        Keeper::new(plan.seed, plan.raw_bytes, plan.start_ns, plan.span_ns(), common, source.streams());
    let mut batch: Vec<Record> = vec![Record::default(); PUSH_RECORDS];
    while !keeper.full() {
        let mut filled = 0;
        while filled < PUSH_RECORDS && !keeper.full() {
            source.next_into(&mut batch[filled]);
            keeper.pass(&mut batch[filled], source.streams());
            filled += 1;
        }
        take(&batch[..filled], source.streams())?;
    }
    Ok(keeper.finish())
}

/// Makes a load into one file per format; all files hold the same records. Writes the right answers
/// beside each and returns them for the first.
pub fn write_files(plan: &Plan, outputs: &[(PathBuf, Format)]) -> Result<Truth> {
    let mut files = Vec::new();
    for (path, format) in outputs {
        files.push((FrameWriter::create(path)?, Encoder::new(*format)));
    }
    let mut body = Vec::new();
    let truth = batches(plan, |records, streams| {
        for (file, encoder) in &mut files {
            body.clear();
            encoder.encode(records, streams, &mut body)?;
            if encoder.format().framed() {
                file.frame(&body, records.len())?;
            } else {
                file.raw(&body)?;
            }
        }
        Ok(())
    })?;
    let mut first = None;
    for ((path, _), (file, _)) in outputs.iter().zip(files) {
        let truth = Truth { wire_bytes: file.finish()?, ..truth.clone() };
        write_truth(path, &truth)?;
        first.get_or_insert(truth);
    }
    Ok(first.unwrap_or(truth))
}

/// Where the right answers of a load lie.
pub fn truth_path(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(".truth.json");
    PathBuf::from(name)
}

/// Writes the right answers beside `data`.
pub fn write_truth<T: Serialize>(data: &Path, truth: &T) -> Result<()> {
    Ok(std::fs::write(truth_path(data), serde_json::to_vec_pretty(truth)?)?)
}

/// Reads the right answers beside `data`.
pub fn read_truth<T: DeserializeOwned>(data: &Path) -> Result<T> {
    let path = truth_path(data);
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not a truth file", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::truth::{RARE_REGEX, RARE_WORD, TRACE_LINES};

    /// The promised answers are those a plain scan of the records gives.
    #[test]
    fn truth_agrees_with_a_scan() {
        let plan = Plan {
            corpus: Corpus::Shop,
            path: None,
            raw_bytes: 20_000_000,
            seed: 4,
            start_ns: DEFAULT_START_NS,
        };
        let mut all: Vec<(Record, String)> = Vec::new();
        let truth = batches(&plan, |records, streams| {
            all.extend(records.iter().map(|r| (r.clone(), streams[r.stream].service.clone())));
            Ok(())
        })
        .unwrap();
        let count = |f: &dyn Fn(&Record) -> bool| all.iter().filter(|(r, _)| f(r)).count() as u64;
        assert_eq!(truth.lines, all.len() as u64);
        assert_eq!(truth.rare_word.1, 3);
        assert_eq!(count(&|r| r.line.contains(RARE_WORD)), 3);
        let regex = regex::Regex::new(RARE_REGEX).unwrap();
        assert_eq!((truth.rare_regex.1, count(&|r| regex.is_match(&r.line))), (2, 2));
        let trace = |r: &Record| r.trace_id.is_some_and(|t| t.to_string() == truth.trace.0);
        assert_eq!((truth.trace.1, count(&trace)), (TRACE_LINES as u64, TRACE_LINES as u64));
        assert!(truth.common.1 > 100, "the common substring is common, got {}", truth.common.1);
        assert_eq!(truth.common.1, count(&|r| r.line.contains(&truth.common.0)));
        assert_eq!(truth.levels.iter().map(|l| l.2).sum::<u64>(), truth.lines);
        let window: Vec<i64> = all
            .iter()
            .filter(|(r, s)| {
                *s == truth.tail.service && (truth.tail.from_ns..truth.tail.to_ns).contains(&r.timestamp_ns)
            })
            .map(|(r, _)| r.timestamp_ns)
            .collect();
        let answer = &window[window.len().saturating_sub(1000)..];
        assert!(!answer.is_empty(), "the window of the first question is empty");
        assert_eq!(
            (truth.tail.lines, truth.tail.oldest_ns, truth.tail.newest_ns),
            (answer.len() as u64, answer[0], answer[answer.len() - 1])
        );
        let span = truth.last_ns - truth.first_ns;
        let off = span as f64 / plan.span_ns() as f64;
        assert!((0.8..1.25).contains(&off), "20 MB span {off} of the promised time");
    }
}
