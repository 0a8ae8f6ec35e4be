//! Samples as Prometheus sends them by remote write: targets scraped every 15 s, each at a phase of its own,
//! and in each push the newest samples of some targets, one of each series.

mod hosts;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::hosts::{Fleet, Random};
use super::frames::FrameWriter;
use super::write_truth;
use crate::encode::{Labels, RemoteWrite, Series, Version};

/// Time between two samples of a series, seconds.
pub const STEP_S: i64 = 15;
/// Window of the questions' rates, seconds.
pub const RATE_S: i64 = 300;
/// Step of the questions over time, seconds.
pub const QUERY_STEP_S: i64 = 60;
/// Series of the answer to "the top".
pub const TOP: usize = 10;
/// Samples of one push; Prometheus sends 2,000 unless told, most set more.
const PUSH_SAMPLES: usize = 5_000;
/// Times at which the right rates are known.
const KNOWN_RATES: i64 = 8;
/// What the questions about a histogram ask for.
const BUCKETS: &str = "http_request_duration_seconds_bucket";

/// Which series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FleetKind {
    /// Hosts with a node_exporter and one instrumented service, about 500 series each
    Hosts,
    /// One counter of requests with a hundred series in each process
    Counters,
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct FleetPlan {
    /// Which series.
    pub kind: FleetKind,
    /// How many.
    pub series: usize,
    /// Samples of each.
    pub samples: usize,
    /// Equal plans give equal loads.
    pub seed: u64,
    /// Time of the first scrapes but for their phases, Unix seconds.
    pub start_s: i64,
}

impl FleetPlan {
    /// A time that no sample reaches, Unix seconds.
    pub const fn end_s(&self) -> i64 {
        self.start_s + (self.samples as i64 + 1) * STEP_S
    }
}

/// The right answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FleetTruth {
    /// Samples in all.
    pub samples: u64,
    /// Series in all.
    pub series: u64,
    /// Bytes of all request bodies.
    pub wire_bytes: u64,
    /// First time that questions over time ask for, Unix seconds.
    pub from_s: i64,
    /// Last time that questions ask for, Unix seconds.
    pub to_s: i64,
    /// Each metric and how many samples it has.
    pub metrics: Vec<(String, u64)>,
    /// The counter that questions ask for.
    pub counter: String,
    /// Sum of its series' rates at some times.
    pub rates: Vec<(i64, f64)>,
    /// The highest rates of its series at the last time, highest first.
    pub top: Vec<f64>,
    /// The buckets that questions ask for, if there are any.
    pub buckets: Option<String>,
}

/// `series` counters of requests, a hundred in each process.
fn counters(plan: &FleetPlan) -> Fleet {
    let mut random = Random(plan.seed.wrapping_mul(1009));
    let mut fleet = Fleet { times: Vec::new(), series: Vec::new() };
    while fleet.series.len() < plan.series {
        let target = fleet.times.len();
        let phase = (random.unit() * STEP_S as f64 * 1000.0) as i64;
        let time = |i: i64| (plan.start_s * 1000 + phase + i * STEP_S * 1000) * 1_000_000;
        fleet.times.push((0..plan.samples as i64).map(time).collect());
        for number in 0..100 {
            let (handler, method, code) = (number / 20, number / 5 % 4, number % 5);
            let method = ["GET", "POST", "PUT", "DELETE"][method];
            let code = [200, 204, 400, 404, 500][code];
            let rate = 10f64.powf(-1.5 + 3.0 * random.unit());
            let mut total = (random.unit() * 1e6).round();
            let grow = |_| {
                total += random.events(rate * STEP_S as f64);
                total
            };
            fleet.series.push(hosts::Series {
                metric: "http_requests_total".to_owned(),
                labels: format!(r#"code="{code}",handler="/api/{handler}",method="{method}""#),
                target,
                values: (0..plan.samples).map(grow).collect(),
            });
        }
    }
    fleet.series.truncate(plan.series);
    fleet
}

/// All labels of a series, sorted.
fn labels(series: &hosts::Series, kind: FleetKind) -> Labels {
    let mut labels: Labels = vec![("__name__".to_owned(), series.metric.clone())];
    let (job, port) = match kind {
        FleetKind::Hosts => ("node", 9100),
        FleetKind::Counters => ("app", 8080),
    };
    labels.push(("instance".to_owned(), format!("{job}-{:04}.internal:{port}", series.target)));
    labels.push(("job".to_owned(), job.to_owned()));
    // Values hold neither commas nor quotes.
    let pairs = series.labels.split(',').filter_map(|pair| pair.split_once('='));
    labels.extend(pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())));
    labels.sort();
    labels
}

/// Increase per second of a counter between the first and the last sample in `(at - window, at]`.
fn slope(times: &[i64], values: &[f64], at_s: i64, window_s: i64) -> Option<f64> {
    let second = |s: i64| s * 1_000_000_000;
    let from = times.partition_point(|t| *t <= second(at_s - window_s));
    let to = times.partition_point(|t| *t <= second(at_s));
    if to < from + 2 {
        return None;
    }
    let grown: f64 = values[from..to].windows(2).map(|w| if w[1] < w[0] { w[1] } else { w[1] - w[0] }).sum();
    Some(grown / ((times[to - 1] - times[from]) as f64 / 1e9))
}

fn truth(plan: &FleetPlan, fleet: &Fleet) -> FleetTruth {
    let counter = match plan.kind {
        FleetKind::Hosts => "node_cpu_seconds_total",
        FleetKind::Counters => "http_requests_total",
    };
    let mut metrics: BTreeMap<&str, u64> = BTreeMap::new();
    for series in &fleet.series {
        *metrics.entry(&series.metric).or_default() += series.values.len() as u64;
    }
    let (from_s, to_s) = (plan.start_s + RATE_S, plan.start_s + plan.samples as i64 * STEP_S);
    let rates_at = |at_s: i64| {
        let of_counter = fleet.series.iter().filter(|s| s.metric == counter);
        of_counter.filter_map(move |s| slope(&fleet.times[s.target], &s.values, at_s, RATE_S))
    };
    let steps = (to_s - from_s) / QUERY_STEP_S;
    let known = |n: i64| from_s + (steps * n / KNOWN_RATES) * QUERY_STEP_S;
    let mut top: Vec<f64> = rates_at(to_s).collect();
    top.sort_by(|a, b| b.total_cmp(a));
    top.truncate(TOP);
    FleetTruth {
        samples: metrics.values().sum(),
        series: fleet.series.len() as u64,
        wire_bytes: 0,
        from_s,
        to_s,
        counter: counter.to_owned(),
        rates: (0..=KNOWN_RATES).map(|n| (known(n), rates_at(known(n)).sum())).collect(),
        top,
        buckets: metrics.contains_key(BUCKETS).then(|| BUCKETS.to_owned()),
        metrics: metrics.into_iter().map(|(name, samples)| (name.to_owned(), samples)).collect(),
    }
}

/// The fleet of a plan.
fn made(plan: &FleetPlan) -> Fleet {
    let start_ms = plan.start_s * 1000;
    match plan.kind {
        FleetKind::Hosts => {
            hosts::fleet(plan.series, plan.samples, STEP_S, start_ms, plan.seed.wrapping_mul(42))
        }
        FleetKind::Counters => counters(plan),
    }
}

/// Makes a load and hands over its pushes as (lane, series); those of one lane are in order.
fn pushes(
    fleet: &Fleet,
    lanes: usize,
    labels: &[Labels],
    mut take: impl FnMut(usize, &[Series<'_>]) -> Result<()>,
) -> Result<()> {
    let mut by_target: Vec<Vec<usize>> = vec![Vec::new(); fleet.times.len()];
    fleet.series.iter().enumerate().for_each(|(index, s)| by_target[s.target].push(index));
    let rounds = fleet.times.first().map_or(0, Vec::len);
    for lane in 0..lanes {
        let mut samples: Vec<(usize, [(i64, f64); 1])> = Vec::with_capacity(PUSH_SAMPLES);
        let mut flush = |samples: &mut Vec<(usize, [(i64, f64); 1])>| {
            let series = samples.iter().map(|(at, sample)| Series { labels: &labels[*at], samples: sample });
            take(lane, &series.collect::<Vec<_>>())?;
            samples.clear();
            anyhow::Ok(())
        };
        for round in 0..rounds {
            for target in (lane..by_target.len()).step_by(lanes) {
                let at_ms = fleet.times[target][round] / 1_000_000;
                for index in &by_target[target] {
                    samples.push((*index, [(at_ms, fleet.series[*index].values[round])]));
                    if samples.len() == PUSH_SAMPLES {
                        flush(&mut samples)?;
                    }
                }
            }
        }
        if !samples.is_empty() {
            flush(&mut samples)?;
        }
    }
    Ok(())
}

/// A request that waits for its place.
#[derive(Debug, Clone, Default)]
struct Push {
    first_ms: i64,
    samples: usize,
    body: Vec<u8>,
}

/// Makes a load into a file of remote write requests for `lanes` connections, with the right answers beside
/// it: frame `n` belongs to lane `n mod lanes`, so that a series' samples stay in order. An empty frame
/// fills the place of a lane that has none left or whose next is not due: Prometheus takes nothing that is
/// an hour behind the newest sample.
pub fn write_file(plan: &FleetPlan, version: Version, lanes: usize, path: &Path) -> Result<FleetTruth> {
    let fleet = made(plan);
    let all: Vec<Labels> = fleet.series.iter().map(|s| labels(s, plan.kind)).collect();
    let mut encoder = RemoteWrite::new(version);
    let mut bodies: Vec<VecDeque<Push>> = vec![VecDeque::new(); lanes];
    pushes(&fleet, lanes, &all, |lane, series| {
        let mut push = Push { first_ms: series[0].samples[0].0, samples: series.len(), body: Vec::new() };
        encoder.encode(series, &mut push.body)?;
        bodies[lane].push_back(push);
        Ok(())
    })?;
    let mut file = FrameWriter::create(path)?;
    while let Some(first_ms) = bodies.iter().filter_map(|lane| Some(lane.front()?.first_ms)).min() {
        for lane in &mut bodies {
            let due = |push: &mut Push| push.first_ms <= first_ms + STEP_S * 1000;
            let push = lane.pop_front_if(due).unwrap_or_default();
            file.frame(&push.body, push.samples)?;
        }
    }
    let mut truth = truth(plan, &fleet);
    truth.wire_bytes = file.finish()?;
    write_truth(path, &truth)?;
    Ok(truth)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn plan(kind: FleetKind) -> FleetPlan {
        FleetPlan { kind, series: 1500, samples: 60, seed: 1, start_s: 1_795_075_200 }
    }

    /// Every series comes whole, in order and on one lane, under labels of its own.
    #[test]
    fn pushes_hold_every_sample_once_and_in_order() {
        for kind in [FleetKind::Hosts, FleetKind::Counters] {
            let (plan, lanes) = (plan(kind), 3);
            let fleet = made(&plan);
            let all: Vec<Labels> = fleet.series.iter().map(|s| labels(s, kind)).collect();
            let mut seen: HashMap<Labels, (usize, Vec<i64>)> = HashMap::new();
            pushes(&fleet, lanes, &all, |lane, series| {
                assert!(series.len() <= PUSH_SAMPLES);
                for one in series {
                    let (first, times) = seen.entry(one.labels.clone()).or_insert((lane, Vec::new()));
                    assert_eq!(*first, lane, "{:?} is on two lanes", one.labels);
                    times.extend(one.samples.iter().map(|s| s.0));
                }
                Ok(())
            })
            .unwrap();
            let truth = truth(&plan, &fleet);
            assert_eq!(seen.len(), plan.series, "{kind:?}: two series have the same labels");
            let (start, end) = (plan.start_s * 1000 - 10, plan.end_s() * 1000);
            for (_, times) in seen.values() {
                assert!(times.windows(2).all(|w| w[0] < w[1]) && times.len() == plan.samples);
                assert!(times.iter().all(|t| (start..end).contains(t)));
            }
            assert_eq!((truth.samples, truth.series), (1500 * 60, 1500));
            assert_eq!(truth.buckets.is_some(), kind == FleetKind::Hosts);
        }
    }

    #[test]
    fn a_rate_is_the_slope_in_its_window_across_a_reset() {
        let times: Vec<i64> = (0..5).map(|i| i * 15_000_000_000).collect();
        let values = [100.0, 130.0, 160.0, 10.0, 40.0];
        assert_eq!(slope(&times, &values, 60, 61), Some((30.0 + 30.0 + 10.0 + 30.0) / 60.0));
        assert_eq!(slope(&times, &values, 30, 30), Some(2.0), "the window is open at its beginning");
        assert_eq!(slope(&times, &values, 30, 15), None);
    }
}
