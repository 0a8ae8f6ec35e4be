//! Prometheus scraping: `scrape_configs` in Prometheus' own YAML, targets that are listed or come from files,
//! relabelling, and a task per target that asks for its metrics and appends them.
//!
//! [`ScrapeConfig::load`] → [`Scraper::start`] → batches of samples to a callback; [`Scraper::targets`] tells how
//! the targets are. `docs/scrape.md` says what is supported and what differs from Prometheus.

mod cache;
pub mod config;
mod discovery;
mod duration;
mod fetch;
mod glob;
mod label_set;
mod reading;
mod relabel;
mod rules;
mod run;
mod scraper;
mod state;
mod target;
mod yaml;

pub use config::{ConfigError, ScrapeConfig};
pub use fetch::{Fetch, FetchError, Fetched};
pub use label_set::LabelSet;
pub use relabel::{Action, Anchored, RelabelRule, relabel};
pub use scraper::{MakeFetch, ScrapeError, Scraper, ScraperOptions};
pub use state::{
    DroppedTarget, Health, TargetFilter, TargetMetadata, TargetState, Targets, metadata_to_json,
    scrape_pools_to_json,
};
pub use yaml::Place;
