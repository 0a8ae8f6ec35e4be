//! Scraping targets, and what Prometheus' API tells of them.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use trine_model::TenantId;
use trine_promql::api::Reply;
use trine_schema::MetricBatch;
use trine_scrape::{
    ScrapeConfig, ScrapeError, Scraper, ScraperOptions, TargetFilter, Targets, metadata_to_json,
    scrape_pools_to_json,
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
    answer(params, |params| {
        let all = app.scraper.get().map(|scraper| scraper.metadata(|_| true)).unwrap_or_default();
        metadata_to_json(&all, params.get("metric"))
    })
}

fn answer(params: Result<Params, ApiError>, data: impl FnOnce(&Params) -> serde_json::Value) -> Response {
    match params {
        Ok(params) => prometheus::send(Reply::json(&data(&params))),
        Err(error) => error.into_response(),
    }
}
