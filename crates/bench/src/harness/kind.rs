//! The servers the harness can speak to: where to push, how to settle, how they are told apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::signal::Signal;
use crate::encode::Format;

/// Longest time a server gets to finish its background work.
const MAX_SETTLE: Duration = Duration::from_mins(15);
/// VictoriaLogs and VictoriaMetrics write what they hold in memory every 5 s
/// (`-inmemoryDataFlushInterval`); their forced flush only makes it searchable. Without this pause a part of
/// the load would not be on disk yet.
const VICTORIA_FLUSH: Duration = Duration::from_secs(10);
/// A server is idle when it used less than this part of one core …
const IDLE_CPU: f64 = 0.03;
/// … in this many looks, one second apart, in a row.
const IDLE_LOOKS: u32 = 3;

/// Which server answers at the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Trine.
    Trine,
    /// VictoriaLogs.
    #[value(name = "victorialogs")]
    VictoriaLogs,
    /// Loki.
    Loki,
    /// VictoriaMetrics, one node.
    #[value(name = "victoriametrics")]
    VictoriaMetrics,
    /// Prometheus, with `--web.enable-remote-write-receiver` and `--web.enable-admin-api`.
    Prometheus,
}

impl Kind {
    /// Name as its makers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trine => "Trine",
            Self::VictoriaLogs => "VictoriaLogs",
            Self::Loki => "Loki",
            Self::VictoriaMetrics => "VictoriaMetrics",
            Self::Prometheus => "Prometheus",
        }
    }

    /// Looks at `/metrics`, which each of them prefixes with its name.
    pub async fn of(http: &Client, base: &str) -> Result<Self> {
        let url = format!("{base}/metrics");
        let text =
            http.get(&url).send().await.with_context(|| format!("nothing answers at {url}"))?.text().await?;
        let has = |prefix: &str| text.lines().any(|l| l.starts_with(prefix));
        if has("trine_") {
            Ok(Self::Trine)
        } else if has("vl_") {
            Ok(Self::VictoriaLogs)
        } else if has("loki_") {
            Ok(Self::Loki)
        } else if has("vm_") {
            Ok(Self::VictoriaMetrics)
        } else if has("prometheus_tsdb_") {
            Ok(Self::Prometheus)
        } else {
            bail!("{base} is none of the servers known by its /metrics; name it with --kind")
        }
    }

    /// Path and query of the push endpoint; absent where the server does not take this.
    pub const fn push_path(self, signal: Signal, protocol: Protocol) -> Option<&'static str> {
        Some(match (self, signal, protocol) {
            (Self::Trine | Self::Loki, Signal::Logs, Protocol::Loki) => "/loki/api/v1/push",
            (Self::Trine, Signal::Logs, Protocol::Otlp) => "/v1/logs",
            (Self::Trine, Signal::Logs, Protocol::Jsonlines) => {
                "/api/v1/ingest/jsonlines?_time_field=ts&_msg_field=line&_stream_fields=service_name,pod,namespace"
            }
            // A body stays a body: without the parameter JSON in it would be taken apart.
            (Self::VictoriaLogs, Signal::Logs, Protocol::Loki) => {
                "/insert/loki/api/v1/push?disable_message_parsing=1"
            }
            (Self::VictoriaLogs, Signal::Logs, Protocol::Otlp) => "/insert/opentelemetry/v1/logs",
            (Self::VictoriaLogs, Signal::Logs, Protocol::Jsonlines) => {
                "/insert/jsonline?_time_field=ts&_msg_field=line&_stream_fields=service_name,pod,namespace"
            }
            (Self::Loki, Signal::Logs, Protocol::Otlp) => "/otlp/v1/logs",
            (Self::Trine, Signal::Traces, Protocol::Otlp) => "/v1/traces",
            (Self::Trine, Signal::Metrics, Protocol::RemoteWrite | Protocol::RemoteWrite2) => {
                "/prometheus/api/v1/write"
            }
            (Self::VictoriaMetrics, Signal::Metrics, Protocol::RemoteWrite)
            | (Self::Prometheus, Signal::Metrics, Protocol::RemoteWrite | Protocol::RemoteWrite2) => {
                "/api/v1/write"
            }
            _ => return None,
        })
    }

    /// What stands before `/api/v1/query`.
    pub const fn prometheus_prefix(self) -> &'static str {
        match self {
            Self::Trine => "/prometheus",
            _ => "",
        }
    }

    /// Where a server that has settled keeps what counts as its data.
    pub fn data_folder(self, data_dir: &Path) -> PathBuf {
        match self {
            // Its head stays in a log and in memory for hours; the snapshot of `settle` has it as a block.
            Self::Prometheus => data_dir.join("snapshots"),
            _ => data_dir.to_owned(),
        }
    }

    /// Makes the server finish: flush to disk, merge, then wait until its process is idle.
    pub async fn settle(self, http: &Client, base: &str, process: Option<Process>) -> Result<()> {
        let steps: &[RequestBuilder] = &match self {
            Self::Trine => vec![
                http.post(format!("{base}/api/v1/admin/flush")),
                http.post(format!("{base}/api/v1/admin/compact")),
            ],
            Self::VictoriaLogs | Self::VictoriaMetrics => vec![
                http.get(format!("{base}/internal/force_flush")),
                http.get(format!("{base}/internal/force_merge")),
            ],
            Self::Loki => vec![http.post(format!("{base}/flush"))],
            Self::Prometheus => vec![http.post(format!("{base}/api/v1/admin/tsdb/snapshot"))],
        };
        if matches!(self, Self::VictoriaLogs | Self::VictoriaMetrics) {
            tokio::time::sleep(VICTORIA_FLUSH).await;
        }
        for step in steps {
            let step = step.try_clone().context("bug: a request without a body can be cloned")?;
            let answer =
                step.timeout(MAX_SETTLE).send().await.context("the server did not finish its work")?;
            if !answer.status().is_success() {
                bail!(
                    "{} answered {}: {}",
                    answer.url().path().to_owned(),
                    answer.status(),
                    answer.text().await?
                );
            }
        }
        if let Some(process) = process {
            wait_idle(process).await?;
        }
        Ok(())
    }
}

/// Waits until the process has nothing to do, at most [`MAX_SETTLE`].
async fn wait_idle(process: Process) -> Result<()> {
    let begun = std::time::Instant::now();
    let (mut last, mut idle) = (process.cpu_seconds()?, 0);
    while idle < IDLE_LOOKS && begun.elapsed() < MAX_SETTLE {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = process.cpu_seconds()?;
        idle = if now - last < IDLE_CPU { idle + 1 } else { 0 };
        last = now;
    }
    Ok(())
}

/// How records are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Loki push, snappy protobuf.
    Loki,
    /// OTLP over HTTP, protobuf, not compressed.
    Otlp,
    /// JSON lines.
    Jsonlines,
    /// Prometheus remote write 1.0, snappy protobuf.
    RemoteWrite,
    /// Prometheus remote write 2.0, snappy protobuf.
    #[value(name = "remote-write-2")]
    RemoteWrite2,
}

impl Protocol {
    /// The usual one for a signal.
    pub const fn of(signal: Signal) -> Self {
        match signal {
            Signal::Logs => Self::Loki,
            Signal::Traces => Self::Otlp,
            Signal::Metrics => Self::RemoteWrite,
        }
    }

    /// How files of its pushes of log records are written, if it carries any.
    pub const fn format(self) -> Option<Format> {
        match self {
            Self::Loki => Some(Format::Loki),
            Self::Otlp => Some(Format::Otlp),
            Self::Jsonlines => Some(Format::JsonBodies),
            Self::RemoteWrite | Self::RemoteWrite2 => None,
        }
    }

    /// Adds the headers a push needs.
    pub fn headers(self, request: RequestBuilder) -> RequestBuilder {
        let kind = match self {
            Self::Jsonlines => "application/x-ndjson",
            Self::RemoteWrite2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            Self::Loki | Self::Otlp | Self::RemoteWrite => "application/x-protobuf",
        };
        let request = request.header("content-type", kind);
        match self {
            Self::Otlp | Self::Jsonlines => request,
            Self::Loki => request.header("content-encoding", "snappy"),
            Self::RemoteWrite | Self::RemoteWrite2 => {
                let version = if self == Self::RemoteWrite { "0.1.0" } else { "2.0.0" };
                request
                    .header("content-encoding", "snappy")
                    .header("x-prometheus-remote-write-version", version)
            }
        }
    }
}
