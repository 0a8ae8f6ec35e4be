//! Prometheus' HTTP API without the sockets: a request's parameters in, status and body out
//! (<https://prometheus.io/docs/prometheus/latest/querying/api/>).

mod chunks;
mod federate;
mod json;
mod listing;
mod params;
mod query;
mod read_frames;
mod remote_read;
mod status;
mod tree;
mod wire;

use std::{sync::Arc, time::Instant};

use trine_model::TenantId;
use trine_schema::{ScanError, ScanStats, Tables};

use crate::{
    engine::{Engine, Error},
    labels::Matcher,
    tables::{LabelCache, TablesSource},
};

pub use read_frames::{FRAMES, ReadFrames};
pub use remote_read::{ReadQuery, ReadRequest, decode_read_queries, decode_read_request};
pub use status::{Facts, PROMETHEUS_VERSION, Report, report};

/// Most warnings and most infos that an answer tells.
const MAX_ANNOTATIONS: usize = 10;
/// What is said when `limit` cut an answer.
const TRUNCATED: &str = "results truncated due to limit";

/// What is asked. `/api/v1/` precedes the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `query`
    Query,
    /// `query_range`
    QueryRange,
    /// `query_exemplars`
    QueryExemplars,
    /// `format_query`
    FormatQuery,
    /// `parse_query`
    ParseQuery,
    /// `series`
    Series,
    /// `labels`
    Labels,
    /// `label/<name>/values`
    LabelValues(String),
    /// `metadata`
    Metadata,
    /// `status/tsdb`
    TsdbStatus,
}

/// A request as the server hands it over.
pub struct Request<'a> {
    /// Parameters of the URL and of a form, in the order in which they came; names may repeat.
    pub params: &'a [(String, String)],
    /// Whose series.
    pub tenant: TenantId,
    /// Where they are.
    pub tables: &'a dyn Tables,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// When the caller is answered at the latest; the parameter `timeout` only shortens it.
    pub deadline: Instant,
    /// Counts what is touched.
    pub stats: Arc<ScanStats>,
}

/// An answer as the server sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP's status.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// How the body is compressed (`Content-Encoding`).
    pub encoding: Option<&'static str>,
    /// Sent as it is.
    pub body: Vec<u8>,
}

const JSON: &str = "application/json";

impl Reply {
    /// `{"status":"success","data":…}`
    fn success(data: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::with_notes(data, &[], &[])
    }

    /// As [`Reply::success`], of data small enough for a tree, such as what scrapes tell of their targets.
    pub fn json(data: &serde_json::Value) -> Self {
        Self::success(|out| out.extend_from_slice(data.to_string().as_bytes()))
    }

    /// As [`Reply::success`], with warnings and infos; of many only the first.
    fn with_notes(data: impl FnOnce(&mut Vec<u8>), warnings: &[String], infos: &[String]) -> Self {
        let mut body = Vec::with_capacity(1024);
        body.extend_from_slice(br#"{"status":"success","data":"#);
        data(&mut body);
        for (name, kind, notes) in [("warnings", "warning", warnings), ("infos", "info", infos)] {
            if notes.is_empty() {
                continue;
            }
            let omitted = notes.len().saturating_sub(MAX_ANNOTATIONS);
            let more = (omitted > 0).then(|| format!("{omitted} more {kind} annotations omitted"));
            body.extend_from_slice(format!(",\"{name}\":").as_bytes());
            let told = notes.iter().take(MAX_ANNOTATIONS).chain(&more);
            json::list(&mut body, told, |out, note| json::html_safe(out, note));
        }
        body.push(b'}');
        Self { status: 200, content_type: JSON, encoding: None, body }
    }

    /// What a caller is told whose request failed before it came here; `status` is HTTP's.
    pub fn failed(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            400..=421 => Kind::BadData,
            422..=498 => Kind::Execution,
            499 => Kind::Canceled,
            503 | 504 => Kind::Timeout,
            _ => Kind::Internal,
        };
        Failure { kind, message: message.into() }.into()
    }
}

/// Kinds of failures, as answers name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    BadData,
    Execution,
    Canceled,
    Timeout,
    Internal,
}

/// A request that was not answered.
#[derive(Clone, Debug)]
struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    fn bad_data(message: impl Into<String>) -> Self {
        Self { kind: Kind::BadData, message: message.into() }
    }

    fn parameter(name: &str, what: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {what}"))
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        let kind = match &error {
            ScanError::Deadline(_) => Kind::Timeout,
            ScanError::Memory { .. } => Kind::Execution,
            ScanError::Storage(_) => Kind::Internal,
        };
        Self { kind, message: error.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Parse(_) | Error::BadRange(_) => return Self::parameter("query", error),
            Error::Execution(_) | Error::TooManySamples => Kind::Execution,
            Error::Timeout => Kind::Timeout,
            Error::Source(source) => match source.downcast::<ScanError>() {
                Ok(scan) => return (*scan).into(),
                Err(other) => {
                    let message = Error::Source(other).to_string();
                    return Self { kind: Kind::Internal, message };
                }
            },
        };
        Self { kind, message: error.to_string() }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        let (status, kind) = match failure.kind {
            Kind::BadData => (400, "bad_data"),
            Kind::Execution => (422, "execution"),
            Kind::Canceled => (499, "canceled"),
            Kind::Timeout => (503, "timeout"),
            Kind::Internal => (500, "internal"),
        };
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(br#"{"status":"error","errorType":"#);
        json::string(&mut body, kind);
        body.extend_from_slice(br#","error":"#);
        json::html_safe(&mut body, &failure.message);
        body.push(b'}');
        Self { status, content_type: JSON, encoding: None, body }
    }
}

/// Answers requests; what it remembers serves the next ones.
#[derive(Default)]
pub struct Api {
    /// Bounds and choices of queries; `timeout` is the requests' own.
    pub engine: Engine,
    labels: LabelCache,
}

impl Api {
    /// With an engine's bounds and choices.
    pub fn new(engine: Engine) -> Self {
        Self { engine, labels: LabelCache::default() }
    }

    /// Answers a request. A long calculation that may block on reading: not for threads that serve sockets.
    pub fn answer(&self, endpoint: &Endpoint, request: &Request<'_>) -> Reply {
        let answer = match endpoint {
            Endpoint::Query => self.query(request),
            Endpoint::QueryRange => self.query_range(request),
            Endpoint::QueryExemplars => self.exemplars(request),
            Endpoint::FormatQuery => query::format(request),
            Endpoint::ParseQuery => query::parse(request),
            Endpoint::Series => self.series(request),
            Endpoint::Labels => self.label_names(request),
            Endpoint::LabelValues(name) => self.label_values(request, name),
            Endpoint::Metadata => listing::metadata(request),
            Endpoint::TsdbStatus => self.tsdb(request),
        };
        answer.unwrap_or_else(Reply::from)
    }

    fn source<'a>(&'a self, request: &'a Request<'_>, deadline: Instant) -> TablesSource<'a> {
        TablesSource {
            tables: request.tables,
            tenant: request.tenant.clone(),
            deadline: Some(deadline),
            stats: request.stats.clone(),
            cache: &self.labels,
        }
    }
}

/// All matchers that stand in a query, by selector.
fn selectors(expr: &crate::parser::Expr) -> Vec<&[Matcher]> {
    use crate::parser::Expr;
    match expr {
        Expr::Vector(selector) | Expr::Matrix { selector, .. } => vec![&selector.matchers],
        expr => expr.children().into_iter().flat_map(selectors).collect(),
    }
}
