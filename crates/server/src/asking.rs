//! What every query shares: parameters, budgets, and how the end of one is counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequest, RawQuery, Request},
    http::{HeaderValue, Method, StatusCode},
    response::Response,
};
use trine_logql::LogqlError;
use trine_query::SqlError;
use trine_schema::{ScanStats, ScanStatsSnapshot};

use crate::{
    App,
    error::ApiError,
    media_type::media_type,
    metrics::Language,
    time::{now_ns, parse_duration, parse_time},
};

/// Longest form body of a query in bytes.
const MAX_FORM_BYTES: usize = 1 << 20;

/// Query parameters of the URL and, for POST with a form, of the body; names may repeat.
pub struct Params(Vec<(String, String)>);

impl Params {
    /// All of them, in their order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The last value of a parameter; an empty one counts as not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that has to be there.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::bad_request(format!("parameter {name:?} is missing")))
    }

    /// A time, when it is given.
    fn time(&self, name: &str, now: i64) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|text| parse_time(name, text, now)).transpose()
    }

    /// A duration in nanoseconds.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|text| parse_duration(name, text)).transpose()
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let parse = |text: &str| {
            text.parse().map_err(|_| ApiError::bad_request(format!("{name}={text:?} is no whole number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// `start` and `end` (or `since` before the end); without any, the hour before now.
    pub fn range(&self) -> Result<(i64, i64), ApiError> {
        const HOUR_NS: i64 = 3_600_000_000_000;
        let now = now_ns();
        let end = self.time("end", now)?.unwrap_or(now);
        let start = match (self.time("start", now)?, self.duration("since")?) {
            (Some(start), _) => start,
            (None, since) => end.saturating_sub(since.unwrap_or(HOUR_NS)),
        };
        if start > end {
            return Err(ApiError::bad_request(format!("start {start} lies after end {end}; swap them")));
        }
        Ok((start, end))
    }
}

impl From<Vec<(String, String)>> for Params {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        let form = request.method() == Method::POST
            && media_type(request.headers()) == "application/x-www-form-urlencoded";
        let mut pairs = Vec::new();
        if let Ok(RawQuery(Some(query))) =
            axum::RequestExt::extract_parts_with_state::<RawQuery, _>(&mut request, state).await
        {
            pairs.extend(form_pairs(query.as_bytes()));
        }
        if form {
            let body = axum::body::to_bytes(request.into_body(), MAX_FORM_BYTES)
                .await
                .map_err(|error| ApiError::bad_request(format!("the form cannot be read: {error}")))?;
            pairs.extend(form_pairs(&body));
        }
        Ok(Self(pairs))
    }
}

fn form_pairs(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

/// When a query has to be answered, and the budget that says so.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    limit: Duration,
}

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// What the caller is told who was not answered in time.
    pub fn missed(&self) -> SqlError {
        SqlError::Timeout { limit_ms: self.limit.as_millis() as u64 }
    }
}

/// One query under way: its counters, and the metrics it reports to when it ends.
pub struct Asking {
    app: Arc<App>,
    language: Language,
    begun: Instant,
    failed: bool,
    pub stats: Arc<ScanStats>,
}

impl Asking {
    pub fn begin(app: &Arc<App>, language: Language) -> Self {
        Self { app: app.clone(), language, begun: Instant::now(), failed: true, stats: Arc::default() }
    }

    /// The answer is complete.
    pub fn succeeded(mut self) -> ScanStatsSnapshot {
        self.failed = false;
        self.stats.snapshot()
    }
}

/// A query that is dropped half way (an error, a closed connection) counts as failed.
impl Drop for Asking {
    fn drop(&mut self) {
        self.app.metrics.asked(self.language, self.begun.elapsed(), self.failed);
    }
}

/// What a query touched, as response headers; `X-Trine-Partial` names what is missing.
pub fn stats_headers(response: &mut Response, stats: &ScanStatsSnapshot) {
    let summary = format!(
        "elapsed_ms={:.3} segments_scanned={} segments_skipped={} granules_scanned={} granules_skipped={} bytes_scanned={} rows_scanned={} rows_matched={}",
        stats.elapsed_ns as f64 / 1e6,
        stats.segments_scanned,
        stats.segments_skipped,
        stats.granules_scanned,
        stats.granules_skipped,
        stats.bytes_scanned,
        stats.rows_scanned,
        stats.rows_matched,
    );
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            response.headers_mut().insert(name, value);
        }
    };
    set("x-trine-stats", &summary);
    if !stats.partial.is_empty() {
        set("x-trine-partial", &stats.partial.join("; ").replace(['\n', '\r'], " "));
    }
}

impl From<LogqlError> for ApiError {
    fn from(error: LogqlError) -> Self {
        match error {
            LogqlError::Scan(scan) => scan.into(),
            bad_input => Self::bad_request(bad_input.to_string()),
        }
    }
}

impl From<SqlError> for ApiError {
    fn from(error: SqlError) -> Self {
        let status = match &error {
            SqlError::BadQuery { .. } => StatusCode::BAD_REQUEST,
            SqlError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            SqlError::Memory { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            SqlError::Storage(_) | SqlError::Bug(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// Longest time budget a caller may ask for with `timeout`.
pub fn budget(params: &Params, limit: Duration) -> Result<Duration, ApiError> {
    let asked = params.duration("timeout")?.map(|ns| Duration::from_nanos(ns.unsigned_abs()));
    Ok(asked.map_or(limit, |asked| asked.min(limit)))
}
