//! What the server tells about itself, and lists that are empty because Trine has no rules and sends no alerts.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{Api, Failure, Reply, Request};
use crate::labels::{Labels, METRIC_NAME};

/// The Prometheus whose language and API this is, by which Grafana chooses what it asks for.
pub const PROMETHEUS_VERSION: &str = "3.14.0";

/// How far back series count for `status/tsdb`, milliseconds: as long as Prometheus' head reaches at least.
const HEAD_MS: i64 = 2 * 3_600_000;
/// Most entries of each list of `status/tsdb`.
const MAX_TSDB_LIMIT: i64 = 10_000;

/// What is told. `/api/v1/` precedes the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// `status/config`
    Config,
    /// `status/flags`
    Flags,
    /// `status/runtimeinfo`
    RuntimeInfo,
    /// `status/buildinfo`
    BuildInfo,
    /// `status/walreplay`
    WalReplay,
    /// `rules`
    Rules,
    /// `alerts`
    Alerts,
    /// `alertmanagers`
    Alertmanagers,
    /// `notifications`
    Notifications,
}

/// What the server knows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of Trine.
    pub version: String,
    /// Of the source, empty if not known.
    pub revision: String,
    /// The settings, as text in the form in which they are given.
    pub config: String,
    /// Command line options and their values.
    pub flags: BTreeMap<String, String>,
    /// When the server began, milliseconds since 1970.
    pub start_ms: i64,
    /// Where it runs.
    pub working_directory: String,
    /// The machine's name.
    pub hostname: String,
    /// Threads of queries.
    pub threads: usize,
    /// How long data is kept, such as `15d`; empty if for ever.
    pub retention: String,
    /// Files that are set aside because they are damaged.
    pub corruptions: u64,
}

fn rfc3339(millis: i64) -> String {
    Timestamp::from_millisecond(millis).unwrap_or_default().to_string()
}

/// Tells about the server.
pub fn report(report: Report, facts: &Facts, now_ms: i64) -> Reply {
    Reply::json(&match report {
        Report::Config => json!({"yaml": facts.config}),
        Report::Flags => json!(facts.flags),
        Report::RuntimeInfo => json!({
            "startTime": rfc3339(facts.start_ms),
            "CWD": facts.working_directory,
            "hostname": facts.hostname,
            "serverTime": rfc3339(now_ms),
            "reloadConfigSuccess": true,
            "lastConfigTime": rfc3339(facts.start_ms),
            "corruptionCount": facts.corruptions,
            "goroutineCount": facts.threads,
            "GOMAXPROCS": facts.threads,
            "GOMEMLIMIT": i64::MAX,
            "GOGC": "",
            "GODEBUG": "",
            "storageRetention": facts.retention,
        }),
        Report::BuildInfo => json!({
            "version": PROMETHEUS_VERSION,
            "revision": facts.revision,
            "branch": format!("trine-{}", facts.version),
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }),
        Report::WalReplay => json!({"min": 0, "max": 0, "current": 0}),
        Report::Rules => json!({"groups": []}),
        Report::Alerts => json!({"alerts": []}),
        Report::Alertmanagers => json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}),
        Report::Notifications => json!([]),
    })
}

/// The entries that count most, as `{"name":…,"value":…}`.
fn most(counts: HashMap<String, u64>, limit: usize) -> Json {
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sorted.truncate(limit);
    sorted.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

impl Api {
    /// `status/tsdb`: which metrics and labels the newest series are made of.
    pub(super) fn tsdb(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let limit = match request.get("limit") {
            "" => 10,
            text => match text.parse::<i64>() {
                Ok(limit) if limit > MAX_TSDB_LIMIT => {
                    return Err(Failure::bad_data(format!("limit must not exceed {MAX_TSDB_LIMIT}")));
                }
                Ok(limit) if limit > 0 => limit as usize,
                _ => return Err(Failure::bad_data("limit must be a positive number")),
            },
        };
        let start = request.now_ms - HEAD_MS;
        let (_, series) = self.source(request, request.deadline).find(&[], start, i64::MAX)?;
        Ok(Reply::json(&cardinality(&series, limit, start, request.now_ms)))
    }
}

fn cardinality(series: &[Labels], limit: usize, start: i64, now: i64) -> Json {
    let mut pairs: HashMap<(&str, &str), u64> = HashMap::new();
    for (name, value) in series.iter().flat_map(Labels::iter) {
        *pairs.entry((name, value)).or_default() += 1;
    }
    let (mut metrics, mut values, mut bytes, mut by_pair) =
        (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
    for (&(name, value), &count) in &pairs {
        if name == METRIC_NAME {
            metrics.insert(value.to_owned(), count);
        }
        *values.entry_ref(name).or_insert(0) += 1;
        *bytes.entry_ref(name).or_insert(0) += value.len() as u64;
        by_pair.insert(format!("{name}={value}"), count);
    }
    json!({
        "headStats": {
            "numSeries": series.len(),
            "numLabelPairs": pairs.len(),
            "chunkCount": 0,
            "minTime": start,
            "maxTime": now,
        },
        "seriesCountByMetricName": most(metrics, limit),
        "labelValueCountByLabelName": most(values, limit),
        "memoryInBytesByLabelName": most(bytes, limit),
        "seriesCountByLabelValuePair": most(by_pair, limit),
    })
}
