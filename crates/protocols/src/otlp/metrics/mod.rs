//! OTLP metrics: `ExportMetricsServiceRequest` becomes series as Prometheus 3's OTLP receiver makes them by
//! default (OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility").
//!
//! - Names: `http.server.duration` in `s` is `http_server_duration_seconds`; counters end in `_total`, gauges
//!   of unit `1` in `_ratio`; attribute keys become labels with underscores.
//! - Explicit histograms become `_bucket` (cumulative, `le`), `_sum`, `_count`; exponential ones native
//!   histograms, those finer than scale 8 merged down to it; summaries `quantile` series, `_sum`, `_count`.
//! - A resource gives `job` (`service.namespace/service.name`) and `instance` (`service.instance.id`); its
//!   other attributes are labels of `target_info`, which has a sample per 2.5 minutes that have points.
//! - Beyond Prometheus' defaults each series also gets `service_name`, `service_namespace`,
//!   `deployment_environment_name`, `k8s_namespace_name`, `k8s_pod_name` and `k8s_container_name` where the
//!   resource has them: by these metrics are joined with logs and spans. Scopes give no labels, as there.
//! - "No recorded value" is a stale marker. A time of 0 is that of arrival; exemplars keep all their
//!   attributes.
//! - JSON may hold `NaN`, `Infinity` and `-Infinity` without quotes, as Python writes them.
//! - Delta temporality becomes cumulative ([`DeltaState`]).

mod attributes;
mod delta;
mod json;
mod names;
mod point;
mod point_json;
mod point_protobuf;
mod protobuf;
mod resource;
mod translate;

pub use delta::{DeltaState, DeltaUpdate};
pub use json::decode_metrics_json;
pub use protobuf::decode_metrics_protobuf;
