//! Scraping targets, and what Prometheus' API tells of them.

use std::sync::Arc;

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
        let limit = params.get("limit").map_or(Ok(-1), |text| text.parse::<i64>());
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
