//! Queries against small data, as readable files: `tests/cases/*.logqltest`.
//!
//! A file holds data and queries. Times count from 2026-01-01T00:00:00Z.
//! ```text
//! stream {service.name="web"}
//! 10s INFO [user=7] GET /                  a line: time, level or -, attributes, text
//!
//! query 0s..5m step 1m                     or `query 5m` (instant), `limit 2`, `forward`
//! sum(count_over_time({service_name="web"}[1m]))
//! ----
//! {} 1m=1                                  the answer, up to an empty line
//! ```
//! Run with `UPDATE_EXPECT=1` to write the answers anew.

mod memory;

use std::{fmt::Write as _, path::Path, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, executor::block_on};
use memory::Memory;
use proptest::prelude::*;
use trine_logql::{
    Answer, Expr, Label, LogqlError, Request, TailFilter, loki_json, parse, parse_query_duration, run,
    run_stream, write_duration,
};
use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{Direction, Labels, LogBatchBuilder, LogRecord};

/// 2026-01-01T00:00:00Z
const BASE: i64 = 1_767_225_600_000_000_000;

fn time(text: &str) -> i64 {
    BASE + parse_query_duration(text).unwrap_or_else(|| panic!("{text:?} is no time"))
}

fn show_time(timestamp: i64) -> String {
    let mut text = String::new();
    write_duration(&mut text, timestamp - BASE).unwrap();
    text
}

/// Reads `name="value"` pairs.
fn labels(text: &str) -> Labels {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    let pairs: Vec<(&str, &str)> = inner
        .split(", ")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    Labels::from_pairs(&pairs)
}

fn add_line(memory: &mut Memory, stream: u32, line: &str) {
    let mut parts = line.splitn(3, ' ');
    let (at, level, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
    let (attributes, body) = match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some(found) => found,
        None => ("", rest),
    };
    let mut builder = LogBatchBuilder::new(TenantId::default(), 1, 64);
    let mut record = LogRecord {
        stream,
        timestamp: time(at),
        severity: Severity::from_text(level).unwrap_or_default(),
        ..LogRecord::default()
    };
    for (name, value) in attributes.split(' ').filter_map(|pair| pair.split_once('=')) {
        match name {
            "trace_id" => record.trace_id = Some(value.parse::<TraceId>().unwrap()),
            "span_id" => record.span_id = Some(value.parse::<SpanId>().unwrap()),
            _ => builder.attribute(name, value),
        }
    }
    builder.body(&body.replace("\\n", "\n").replace("\\e", "\u{1b}"));
    builder.push(&record).unwrap();
    memory.batches.push(builder.finish());
}

fn show_labels(labels: &[Label]) -> String {
    let pairs: Vec<String> = labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn show(answer: &Result<Answer, LogqlError>) -> String {
    let mut out = String::new();
    match answer {
        Err(error) => writeln!(out, "error: {error}").unwrap(),
        Ok(Answer::Streams(streams)) => {
            for stream in streams {
                writeln!(out, "{}", show_labels(&stream.labels)).unwrap();
                for entry in &stream.entries {
                    writeln!(out, "  {} {}", show_time(entry.timestamp), entry.line.escape_debug()).unwrap();
                }
            }
        }
        Ok(Answer::Matrix(series)) => {
            for one in series {
                write!(out, "{}", one.labels).unwrap();
                one.points.iter().for_each(|(at, value)| write!(out, " {}={value}", show_time(*at)).unwrap());
                out.push('\n');
            }
        }
        Ok(Answer::Vector(samples)) => {
            samples.iter().for_each(|sample| writeln!(out, "{} {}", sample.labels, sample.value).unwrap());
        }
        Ok(Answer::Scalar(_, value)) => writeln!(out, "{value}").unwrap(),
    }
    if out.is_empty() { "nothing\n".to_owned() } else { out }
}

fn ask(memory: &Arc<Memory>, options: &str, query: &str) -> Result<Answer, LogqlError> {
    let mut words = options.split(' ');
    let (start, end) = match words.next().unwrap().split_once("..") {
        Some((start, end)) => (time(start), time(end)),
        None => (time("0s"), time(options.split(' ').next().unwrap())),
    };
    let mut request = Request::new(TenantId::default(), parse(query)?, start, end);
    while let Some(word) = words.next() {
        match word {
            "step" => request.step = parse_query_duration(words.next().unwrap()),
            "interval" => request.interval = parse_query_duration(words.next().unwrap()),
            "limit" => request.limit = words.next().unwrap().parse().unwrap(),
            "forward" => request.direction = Direction::Forward,
            other => panic!("unknown option {other:?}"),
        }
    }
    block_on(run(memory.clone(), request))
}

/// Runs a file; returns it with the answers that came.
fn run_file(text: &str, rollups: bool) -> String {
    let mut out = String::new();
    let mut memory = Arc::new(Memory { rollups, ..Memory::default() });
    let mut stream = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(spelled) = line.strip_prefix("stream ") {
            stream = memory.registry.intern(&TenantId::default(), labels(spelled)).unwrap();
        } else if let Some(options) = line.strip_prefix("query ") {
            let mut query = String::new();
            for line in lines.by_ref().take_while(|line| *line != "----") {
                writeln!(query, "{line}").unwrap();
            }
            for _ in lines.by_ref().take_while(|line| !line.is_empty()) {}
            let answer = ask(&memory, options, &query);
            writeln!(out, "{query}----\n{}", show(&answer)).unwrap();
        } else {
            add_line(Arc::get_mut(&mut memory).expect("no query runs"), stream, line);
        }
    }
    out
}

#[test]
fn cases_give_the_answers_they_show() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = run_file(&text, false);
        assert_eq!(found, run_file(&text, true), "{}: roll-ups change the answers", file.display());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, found).unwrap();
        } else {
            assert_eq!(found.trim_end(), text.trim_end(), "{}: run with UPDATE_EXPECT=1", file.display());
        }
    }
}
