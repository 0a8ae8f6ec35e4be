//! Scraping targets, and what Prometheus' API tells of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use trine_model::TenantId;
use trine_promql::{api::Reply, parser::parse_selector};
use trine_schema::MetricBatch;
use trine_scrape::{
    LabelSet, ScrapeConfig, ScrapeError, Scraper, ScraperOptions, TargetFilter, TargetMetadata, Targets,
    metadata_to_json, scrape_pools_to_json,
};
use trine_store::StoreError;

use crate::{App, asking::Params, error::ApiError, metrics::Protocol, prometheus};

/// How the last reading of the scrape configuration went.
#[derive(Debug)]
pub struct LastReload(Mutex<Reading>);

#[derive(Debug, Clone)]
pub struct Reading {
    /// Seconds since 1970 of the last configuration that was taken.
    pub taken_s: f64,
    /// Why a later one was not.
    pub refused: Option<String>,
}

impl LastReload {
    /// A configuration was taken now.
    pub fn taken() -> Self {
        Self(Mutex::new(Reading { taken_s: now_s(), refused: None }))
    }

    pub fn record(&self, outcome: Result<(), String>) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_ok() {
            reading.taken_s = now_s();
        }
        reading.refused = outcome.err();
    }

    pub fn reading(&self) -> Reading {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What `/metrics` tells of scraping.
pub struct ScrapeFacts {
    pub reading: Reading,
    /// Bytes of all bodies, unpacked.
    pub body_bytes: u64,
    /// Files and targets that cannot be used.
    pub problems: usize,
}

/// `None` where nothing is scraped.
pub fn facts(app: &App) -> Option<ScrapeFacts> {
    let scraper = app.scraper.get()?;
    Some(ScrapeFacts {
        reading: app.reload.reading(),
        body_bytes: scraper.body_bytes(),
        problems: scraper.problems().len(),
    })
}

/// What is wrong with scraping: a configuration that was refused, files and targets that cannot be used.
pub fn complaints(app: &App) -> Vec<String> {
    let Some(scraper) = app.scraper.get() else { return Vec::new() };
    let refused = app.reload.reading().refused;
    let mut complaints: Vec<String> = refused
        .map(|reason| format!("scraping goes on by the configuration before: {reason}"))
        .into_iter()
        .collect();
    let problems = scraper.problems();
    let more = problems.len().saturating_sub(MAX_COMPLAINTS);
    complaints
        .extend(problems.into_iter().take(MAX_COMPLAINTS).map(|problem| format!("scraping: {problem}")));
    if more > 0 {
        complaints.push(format!("scraping: {more} more targets and files cannot be used"));
    }
    complaints
}

/// Most files and targets that `/health` names.
const MAX_COMPLAINTS: usize = 20;

/// Begins to scrape into the default tenant.
pub fn start(app: &Arc<App>, config: ScrapeConfig) -> Result<Scraper, ScrapeError> {
    let options = ScraperOptions::new(TenantId::default(), app.store.registry().clone());
    let app = Arc::downgrade(app);
    Scraper::start(config, options, move |batch: MetricBatch| {
        let app = app.upgrade();
        async move {
            let app = app.ok_or(StoreError::Closed)?;
            let rows = batch.records.num_rows();
            let stored = app.store.append(batch, None).await;
            match &stored {
                Ok(_) => app.metrics.ingested(Protocol::Scrape, 0, rows, 0),
                Err(_) => app.metrics.ingest_failed(Protocol::Scrape),
            }
            stored.map(drop)
        }
    })
}

/// `GET /prometheus/api/v1/targets`
pub async fn targets(State(app): State<Arc<App>>, params: Result<Params, ApiError>) -> Response {
    answer(params, |params| {
        let targets = app.scraper.get().map_or_else(Targets::default, |scraper| scraper.targets());
        let filter = TargetFilter::from_name(params.get("state").unwrap_or_default());
        targets.to_json(filter, params.get("scrapePool"))
    })
}

/// `GET /prometheus/api/v1/scrape_pools`
pub async fn pools(State(app): State<Arc<App>>) -> Response {
    answer(Ok(Params::from(Vec::new())), |_| {
        scrape_pools_to_json(&app.scraper.get().map(|scraper| scraper.scrape_pools()).unwrap_or_default())
    })
}

/// `GET /prometheus/api/v1/targets/metadata`
pub async fn metadata(State(app): State<Arc<App>>, params: Result<Params, ApiError>) -> Response {
    let asked = params.and_then(|params| {
        let limit = params.get("limit").map_or(Ok(-1), str::parse::<i64>);
        let limit = limit.map_err(|_| ApiError::bad_request("limit must be a number"))?;
        let matchers = params.get("match_target").map_or(Ok(Vec::new()), parse_selector);
        let matchers = matchers
            .map_err(|what| ApiError::bad_request(format!("invalid parameter \"match_target\": {what}")))?;
        Ok((matchers, usize::try_from(limit).ok(), params))
    });
    let (matchers, limit, params) = match asked {
        Ok(asked) => asked,
        Err(error) => return prometheus::send(Reply::failed(error.status.as_u16(), error.message)),
    };
    let fits = |target: &LabelSet| matchers.iter().all(|matcher| matcher.matches(target.get(&matcher.name)));
    let all = app.scraper.get().map(|scraper| scraper.metadata(fits)).unwrap_or_default();
    prometheus::send(Reply::json(&limited_metadata(&all, params.get("metric"), limit)))
}

/// As Prometheus bounds the list: no further target is told once there are so many.
fn limited_metadata(all: &[TargetMetadata], metric: Option<&str>, limit: Option<usize>) -> serde_json::Value {
    let mut told = Vec::new();
    for target in all.chunk_by(|a, b| a.target == b.target) {
        if limit.is_some_and(|limit| told.len() >= limit) {
            break;
        }
        told.extend(target.iter().filter(|item| metric.is_none_or(|metric| metric == item.metric)).cloned());
    }
    metadata_to_json(&told, metric)
}

fn answer(params: Result<Params, ApiError>, data: impl FnOnce(&Params) -> serde_json::Value) -> Response {
    match params {
        Ok(params) => prometheus::send(Reply::json(&data(&params))),
        Err(error) => error.into_response(),
    }
}
