//! Replay of the sixteen-system lines: 600 streams walk through their system's lines, time advances,
//! and (unless asked not to) variables are fresh.

use std::fmt::Write as _;

use trine_model::{SpanId, TraceId};

use super::clock::Moment;
use super::template::{Behaviour, Kind, Piece, Slot, System};
use crate::record::{Record, Source, StreamLabels};
use crate::rng::{Rng, mix};

/// Services by system; wordy systems run more often, as they do. Others get one.
const SERVICES: [(&str, usize); 16] = [
    ("android", 3),
    ("apache", 1),
    ("bgl", 3),
    ("hadoop", 5),
    ("hdfs", 3),
    ("healthapp", 1),
    ("hpc", 1),
    ("linux", 2),
    ("mac", 3),
    ("openssh", 2),
    ("openstack", 5),
    ("proxifier", 1),
    ("spark", 2),
    ("thunderbird", 3),
    ("windows", 2),
    ("zookeeper", 3),
];
/// Pods of one service; times 40 services is 600 streams.
const PODS: usize = 15;
/// Share of records that carry a trace id.
const TRACED: f64 = 0.09;
/// Traces under way at one time.
const ACTIVE_TRACES: usize = 64;
/// Values a pool remembers; a system has one for ids and one for addresses.
const POOL: usize = 256;
/// Mean lines of a session of one stream.
const SESSION_LINES: f64 = 1.0 / 60.0;
/// Counters of a stream, by place in the line.
const COUNTERS: usize = 8;
/// Lines one stream writes in a row, at most.
const MAX_BURST: u64 = 7;

struct Stream {
    system: usize,
    cursor: usize,
    session: u64,
    counters: [u64; COUNTERS],
}

struct Pools {
    ids: Vec<u64>,
    addresses: Vec<u32>,
}

/// The replay; see the module's text.
pub struct Replay {
    systems: Vec<System>,
    pools: Vec<Pools>,
    labels: Vec<StreamLabels>,
    streams: Vec<Stream>,
    traces: Vec<(TraceId, u64)>,
    rng: Rng,
    now_ns: i64,
    mean_gap_ns: f64,
    mutate: bool,
    current: usize,
    burst_left: u64,
    spans: Vec<(usize, usize)>,
}

impl Replay {
    /// A replay of `systems` from `start_ns` on, `mean_gap_ns` between records on average. With
    /// `mutate` off the lines stay as they are and only the records' time advances.
    pub fn new(systems: Vec<System>, seed: u64, start_ns: i64, mean_gap_ns: f64, mutate: bool) -> Self {
        let mut rng = Rng::new(seed);
        let (mut labels, mut streams) = (Vec::new(), Vec::new());
        for (index, system) in systems.iter().enumerate() {
            let services = SERVICES.iter().find(|(name, _)| *name == system.name).map_or(1, |(_, n)| *n);
            for service in 1..=services {
                let replica_set = rng.next_u64() & 0xFFFF_FFFF;
                let namespace = ["prod", "prod", "prod", "staging", "infra"][rng.below(5) as usize];
                for _ in 0..PODS {
                    let service = format!("{}-{service}", system.name);
                    let pod = format!("{service}-{replica_set:08x}-{:05x}", rng.next_u64() & 0xF_FFFF);
                    labels.push(StreamLabels { service, pod, namespace: namespace.to_owned() });
                    streams.push(Stream {
                        system: index,
                        cursor: rng.below(system.lines.len() as u64) as usize,
                        session: rng.next_u64(),
                        counters: std::array::from_fn(|_| rng.next_u64() >> 20),
                    });
                }
            }
        }
        let pools = systems
            .iter()
            .map(|_| Pools {
                ids: (0..POOL).map(|_| rng.next_u64()).collect(),
                addresses: (0..POOL).map(|_| rng.next_u64() as u32).collect(),
            })
            .collect();
        let traces = (0..ACTIVE_TRACES).map(|_| fresh_trace(&mut rng)).collect();
        Self {
            systems,
            pools,
            labels,
            streams,
            traces,
            rng,
            now_ns: start_ns,
            mean_gap_ns,
            mutate,
            current: 0,
            burst_left: 0,
            spans: Vec::new(),
        }
    }

    /// Mean bytes of a line over all streams, unmutated; sizes the gap between records.
    pub fn mean_line(&self) -> f64 {
        let of_system = |s: &System| {
            s.lines.iter().map(|l| l.text.len()).sum::<usize>() as f64 / s.lines.len().max(1) as f64
        };
        let means: Vec<f64> = self.systems.iter().map(of_system).collect();
        self.streams.iter().map(|s| means[s.system]).sum::<f64>() / self.streams.len().max(1) as f64
    }

    /// Sets the mean time between records, nanoseconds.
    pub const fn set_mean_gap(&mut self, mean_gap_ns: f64) {
        self.mean_gap_ns = mean_gap_ns;
    }
}

fn fresh_trace(rng: &mut Rng) -> (TraceId, u64) {
    (TraceId(rng.id()), 2 + rng.below(5))
}

impl Source for Replay {
    fn streams(&self) -> &[StreamLabels] {
        &self.labels
    }

    fn common_substring(&self) -> &'static str {
        "rminating"
    }

    fn next_into(&mut self, record: &mut Record) {
        if self.burst_left == 0 {
            // A service is as busy as any other, but some of its pods are far busier than the rest.
            let service = self.rng.below((self.streams.len() / PODS) as u64) as usize;
            self.current = service * PODS + self.rng.skewed(PODS);
            self.burst_left = 1 + self.rng.below(MAX_BURST);
        }
        self.burst_left -= 1;
        self.now_ns += self.rng.gap(self.mean_gap_ns);
        let stream = &mut self.streams[self.current];
        let system = &self.systems[stream.system];
        let source = &system.lines[stream.cursor];
        stream.cursor = (stream.cursor + 1) % system.lines.len();
        if self.rng.chance(SESSION_LINES) {
            stream.session = self.rng.next_u64();
        }
        record.timestamp_ns = self.now_ns;
        record.stream = self.current;
        record.level = source.level;
        record.attributes.clear();
        record.line.clear();
        if self.mutate {
            let moment = Moment::new(self.now_ns);
            let pools = &mut self.pools[stream.system];
            self.spans.clear();
            for piece in &source.pieces {
                let from = record.line.len();
                match *piece {
                    Piece::Literal(start, end) => record.line.push_str(&source.text[start..end]),
                    Piece::Time(format) => moment.write(format, &mut record.line),
                    Piece::Copy(of) => {
                        let (start, end) = self.spans[of];
                        let text = record.line[start..end].to_owned();
                        record.line.push_str(&text);
                    }
                    Piece::Var(slot, start, end) => {
                        let (slot, own) = (&system.slots[slot], &source.text[start..end]);
                        variable(slot, own, stream, pools, &mut self.rng, &mut record.line);
                    }
                }
                self.spans.push((from, record.line.len()));
            }
        } else {
            record.line.push_str(&source.text);
        }
        (record.trace_id, record.span_id) = (None, None);
        if self.rng.chance(TRACED) {
            let slot = self.rng.below(ACTIVE_TRACES as u64) as usize;
            record.trace_id = Some(self.traces[slot].0);
            record.span_id = Some(SpanId(self.rng.id()));
            self.traces[slot].1 -= 1;
            if self.traces[slot].1 == 0 {
                self.traces[slot] = fresh_trace(&mut self.rng);
            }
        }
    }
}

/// Appends a value of `slot`; `own` is the one the source line has.
fn variable(slot: &Slot, own: &str, stream: &mut Stream, pools: &mut Pools, rng: &mut Rng, out: &mut String) {
    // Equal places of lines of the same width share the session's value.
    let session = || mix(stream.session ^ (slot.ordinal * 64 + own.len()) as u64);
    match slot.behaviour {
        Behaviour::Keep => out.push_str(own),
        Behaviour::Observed => {
            out.push_str(&slot.values[rng.below(slot.values.len() as u64) as usize]);
        }
        Behaviour::Session => draw(slot.kind, own, session(), out),
        Behaviour::Fresh => draw(slot.kind, own, rng.next_u64(), out),
        Behaviour::Counter => {
            let counter = &mut stream.counters[slot.ordinal % COUNTERS];
            *counter += 1 + rng.below(3);
            digits(own.len(), *counter, own.starts_with('0'), out);
        }
        Behaviour::Near => near(own, rng, out),
        Behaviour::Pool if slot.kind == Kind::Ip => {
            let place = rng.skewed(POOL);
            if rng.chance(0.02) {
                pools.addresses[place] = rng.next_u64() as u32;
            }
            let [a, b, c, d] = pools.addresses[place].to_be_bytes();
            // Most traffic comes from inside.
            _ = if a < 160 { write!(out, "10.{}.{c}.{d}", b % 16) } else { write!(out, "{a}.{b}.{c}.{d}") };
        }
        Behaviour::Pool => {
            let place = rng.below(POOL as u64) as usize;
            if rng.chance(0.3) {
                pools.ids[place] = rng.next_u64();
            }
            digits(own.len(), pools.ids[place], false, out);
        }
    }
}

/// A value of `kind` as long as `own`, all of it from `random`.
fn draw(kind: Kind, own: &str, random: u64, out: &mut String) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    match kind {
        Kind::Int => digits(own.len(), random, own.starts_with('0'), out),
        Kind::Float | Kind::Ip => out.push_str(own),
        Kind::Hex | Kind::Uuid => {
            let (mut bits, mut seed, mut left) = (random, random, 16);
            let (prefix, rest) = own.split_at(if own.starts_with("0x") { 2 } else { 0 });
            out.push_str(prefix);
            for c in rest.chars() {
                if c == '-' {
                    out.push('-');
                    continue;
                }
                if left == 0 {
                    seed = mix(seed);
                    (bits, left) = (seed, 16);
                }
                out.push(char::from(HEX[(bits & 15) as usize]));
                (bits, left) = (bits >> 4, left - 1);
            }
        }
    }
}

/// `len` decimal digits of `value`; the first is not 0 unless `padded`.
fn digits(len: usize, value: u64, padded: bool, out: &mut String) {
    let (mut rest, mut buffer) = (value, [0u8; 64]);
    let len = len.min(buffer.len());
    for place in buffer[..len].iter_mut().rev() {
        if rest == 0 {
            rest = mix(value ^ 1);
        }
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if padded {
        buffer[..len / 2].fill(b'0');
    } else if buffer[0] == b'0' && len > 1 {
        buffer[0] = b'1';
    }
    out.extend(buffer[..len].iter().map(|b| char::from(*b)));
}

/// A number from half to one and a half times `own`, as wide and with as many decimals.
fn near(own: &str, rng: &mut Rng, out: &mut String) {
    let factor = 0.5 + rng.unit();
    if let Some((_, decimals)) = own.split_once('.') {
        let value: f64 = own.parse().unwrap_or(1.0);
        _ = write!(out, "{:.*}", decimals.len(), value * factor);
    } else if let Ok(value) = own.parse::<u64>() {
        let value = (value as f64 * factor) as u64;
        _ = if own.starts_with('0') {
            write!(out, "{value:0w$}", w = own.len())
        } else {
            write!(out, "{value}")
        };
    } else {
        out.push_str(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "081109 203615 148 INFO dfs.DataNode: block blk_38865049064139660 terminating\n\
        081109 203616 149 WARN dfs.DataNode: block blk_99965049064139661 terminating 10.0.0.1\n";

    fn lines(seed: u64, mutate: bool) -> Vec<Record> {
        let systems = vec![System::new("hdfs", LINES)];
        let mut replay = Replay::new(systems, seed, 1_700_000_000_000_000_000, 1e6, mutate);
        (0..2000)
            .map(|_| {
                let mut record = Record::default();
                replay.next_into(&mut record);
                record
            })
            .collect()
    }

    #[test]
    fn a_replay_is_deterministic_advances_and_carries_traces() {
        let (a, b) = (lines(3, true), lines(3, true));
        assert!(a.iter().zip(&b).all(|(x, y)| x.line == y.line && x.trace_id == y.trace_id));
        assert!(a.windows(2).all(|w| w[0].timestamp_ns < w[1].timestamp_ns));
        let traced = a.iter().filter(|r| r.trace_id.is_some()).count();
        assert!((120..250).contains(&traced), "9 % of 2,000 carry a trace, got {traced}");
        assert!(a.iter().all(|r| r.line.starts_with("231114 ") && r.line.contains("terminating")));
        let blocks: std::collections::HashSet<&str> =
            a.iter().filter_map(|r| r.line.split("blk_").nth(1)).collect();
        assert!(blocks.len() > 300, "block ids are fresh, got {}", blocks.len());
    }

    #[test]
    fn an_unmutated_replay_repeats_the_lines() {
        assert!(lines(3, false).iter().all(|r| LINES.lines().any(|l| l == r.line)));
    }
}
