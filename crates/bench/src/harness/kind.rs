//! The three servers the harness can speak to: where to push, how to settle, how they are told apart.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::encode::Format;

/// Longest time a server gets to finish its background work.
const MAX_SETTLE: Duration = Duration::from_mins(15);
/// VictoriaLogs writes what it holds in memory every 5 s (`-inmemoryDataFlushInterval`); its forced
/// flush only makes it searchable. Without this pause a part of the load would not be on disk yet.
const VICTORIALOGS_FLUSH: Duration = Duration::from_secs(10);
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
}

impl Kind {
    /// Name as its makers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trine => "Trine",
            Self::VictoriaLogs => "VictoriaLogs",
            Self::Loki => "Loki",
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
        } else {
            bail!("{base} is neither Trine nor VictoriaLogs nor Loki by its /metrics; name it with --kind")
        }
    }

    /// Path and query of the push endpoint.
    pub const fn push_path(self, protocol: Protocol) -> Option<&'static str> {
        Some(match (self, protocol) {
            (Self::Trine | Self::Loki, Protocol::Loki) => "/loki/api/v1/push",
            (Self::Trine, Protocol::Otlp) => "/v1/logs",
            (Self::Trine, Protocol::Jsonlines) => {
                "/api/v1/ingest/jsonlines?_time_field=ts&_msg_field=line&_stream_fields=service_name,pod,namespace"
            }
            // A body stays a body: without the parameter JSON in it would be taken apart.
            (Self::VictoriaLogs, Protocol::Loki) => "/insert/loki/api/v1/push?disable_message_parsing=1",
            (Self::VictoriaLogs, Protocol::Otlp) => "/insert/opentelemetry/v1/logs",
            (Self::VictoriaLogs, Protocol::Jsonlines) => {
                "/insert/jsonline?_time_field=ts&_msg_field=line&_stream_fields=service_name,pod,namespace"
            }
            (Self::Loki, Protocol::Otlp) => "/otlp/v1/logs",
            (Self::Loki, Protocol::Jsonlines) => return None,
        })
    }

    /// Makes the server finish: flush to disk, merge, then wait until its process is idle.
    pub async fn settle(self, http: &Client, base: &str, process: Option<Process>) -> Result<()> {
        let steps: &[RequestBuilder] = &match self {
            Self::Trine => vec![
                http.post(format!("{base}/api/v1/admin/flush")),
                http.post(format!("{base}/api/v1/admin/compact")),
            ],
            Self::VictoriaLogs => vec![
                http.get(format!("{base}/internal/force_flush")),
                http.get(format!("{base}/internal/force_merge")),
            ],
            Self::Loki => vec![http.post(format!("{base}/flush"))],
        };
        if self == Self::VictoriaLogs {
            tokio::time::sleep(VICTORIALOGS_FLUSH).await;
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
}

impl Protocol {
    /// How files of its pushes are written.
    pub const fn format(self) -> Format {
        match self {
            Self::Loki => Format::Loki,
            Self::Otlp => Format::Otlp,
            Self::Jsonlines => Format::JsonBodies,
        }
    }

    /// Adds the headers a push needs.
    pub fn headers(self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Loki => {
                request.header("content-type", "application/x-protobuf").header("content-encoding", "snappy")
            }
            Self::Otlp => request.header("content-type", "application/x-protobuf"),
            Self::Jsonlines => request.header("content-type", "application/x-ndjson"),
        }
    }
}
