//! What the targets are and how they are: `/api/v1/targets`, `/api/v1/targets/metadata`, `/api/v1/scrape_pools`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use trine_schema::Metadata;

use crate::{LabelSet, duration};

/// How the last scrape of a target went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// There was none yet.
    #[default]
    Unknown,
    /// Well.
    Up,
    /// Not.
    Down,
}

impl Health {
    /// `unknown`, `up` or `down`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target that is scraped.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetState {
    /// Labels before relabelling, with those that begin with `__`.
    pub discovered_labels: LabelSet,
    /// Labels of its series.
    pub labels: LabelSet,
    /// `job_name` of its configuration.
    pub scrape_pool: String,
    /// With parameters.
    pub scrape_url: String,
    /// Why the last scrape failed, or its samples were not stored; else empty.
    pub last_error: String,
    /// Begin of the last scrape, milliseconds since 1970.
    pub last_scrape_ms: Option<i64>,
    /// How long it took.
    pub last_scrape_duration: Duration,
    /// How it went.
    pub health: Health,
    /// Time from scrape to scrape.
    pub scrape_interval: Duration,
    /// Longest time of a scrape.
    pub scrape_timeout: Duration,
    /// Samples that were scraped but never stored, because the store refused their batches.
    pub samples_lost: u64,
}

/// A target that relabelling dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTarget {
    /// Labels before relabelling.
    pub discovered_labels: LabelSet,
    /// `job_name` of its configuration.
    pub scrape_pool: String,
}

/// All targets at one moment, by pool and URL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Targets {
    /// Those that are scraped.
    pub active: Vec<TargetState>,
    /// Those that are not, as far as they are kept (`keep_dropped_targets`).
    pub dropped: Vec<DroppedTarget>,
    /// How many were dropped, by pool.
    pub dropped_counts: BTreeMap<String, usize>,
}

/// Which targets a request asks for (`state`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TargetFilter {
    /// Both.
    #[default]
    Any,
    /// Those that are scraped.
    Active,
    /// Those that were dropped.
    Dropped,
}

impl TargetFilter {
    /// By the parameter; an unknown one means both, as in Prometheus.
    pub fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "active" => Self::Active,
            "dropped" => Self::Dropped,
            _ => Self::Any,
        }
    }
}

/// Milliseconds since 1970 as RFC 3339.
fn time(ms: Option<i64>) -> String {
    let time = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "0001-01-01T00:00:00Z".into(), |time| time.to_string())
}

impl TargetState {
    fn to_json(&self) -> Value {
        json!({
            "discoveredLabels": self.discovered_labels.to_json(),
            "labels": self.labels.to_json(),
            "scrapePool": self.scrape_pool,
            "scrapeUrl": self.scrape_url,
            "globalUrl": self.scrape_url,
            "lastError": self.last_error,
            "lastScrape": time(self.last_scrape_ms),
            "lastScrapeDuration": self.last_scrape_duration.as_secs_f64(),
            "health": self.health.name(),
            "scrapeInterval": duration::format(self.scrape_interval),
            "scrapeTimeout": duration::format(self.scrape_timeout),
        })
    }
}

impl Targets {
    /// The `data` of `/api/v1/targets?state=…&scrapePool=…`.
    pub fn to_json(&self, filter: TargetFilter, pool: Option<&str>) -> Value {
        let of_pool = |name: &str| pool.is_none_or(|pool| pool == name);
        let active = self.active.iter().filter(|target| of_pool(&target.scrape_pool));
        let active: Vec<_> = match filter {
            TargetFilter::Dropped => Vec::new(),
            _ => active.map(TargetState::to_json).collect(),
        };
        let dropped = self.dropped.iter().filter(|target| of_pool(&target.scrape_pool));
        let dropped: Vec<_> = match filter {
            TargetFilter::Active => Vec::new(),
            _ => dropped
                .map(|target| {
                    json!({
                        "discoveredLabels": target.discovered_labels.to_json(),
                        "scrapePool": target.scrape_pool,
                    })
                })
                .collect(),
        };
        let counts: BTreeMap<_, _> = match filter {
            TargetFilter::Active => BTreeMap::new(),
            _ => self.dropped_counts.iter().filter(|(name, _)| of_pool(name)).collect(),
        };
        json!({"activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": counts})
    }
}

/// Metadata of a metric as one target tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetMetadata {
    /// Labels of the target.
    pub target: LabelSet,
    /// The metric family.
    pub metric: String,
    /// Its type, unit and help.
    pub metadata: Metadata,
}

/// The `data` of `/api/v1/targets/metadata`; `metric` is the parameter, which is not repeated in the answer.
pub fn metadata_to_json(list: &[TargetMetadata], metric: Option<&str>) -> Value {
    let item = |item: &TargetMetadata| {
        let mut object = json!({
            "target": item.target.to_json(),
            "type": item.metadata.kind,
            "help": item.metadata.help,
            "unit": item.metadata.unit,
        });
        if metric.is_none() {
            object["metric"] = item.metric.clone().into();
        }
        object
    };
    list.iter().filter(|item| metric.is_none_or(|metric| metric == item.metric)).map(item).collect()
}

/// The `data` of `/api/v1/scrape_pools`.
pub fn scrape_pools_to_json(pools: &[String]) -> Value {
    json!({"scrapePools": pools})
}
