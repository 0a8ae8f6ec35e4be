//! Push → visible: a marked line is pushed while the server works under a steady load, then asked for
//! without pause until an answer holds it. The time runs from before the push to after that answer.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trine_model::Level;

use super::kind::Kind;
use super::questions::form_encoded;
use super::send::{Target, push};
use crate::encode::Encoder;
use crate::record::{Record, StreamLabels};
use crate::rng::Rng;

/// A line that does not show for so long ends the run.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// One in so many marked lines begins a stream of its own.
const NEW_STREAM_EVERY: u64 = 4;
/// Pause between marked lines, milliseconds, at most.
const MAX_PAUSE_MS: u64 = 20;

/// Times from push to visible, milliseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Visible {
    /// All marked lines, new streams included.
    pub all: Vec<f64>,
    /// Those that began a stream.
    pub new_streams: Vec<f64>,
    /// Of all, the time to the acknowledgement alone.
    pub acknowledged: Vec<f64>,
}

/// Marks lines until `end`.
pub async fn probe(target: &Target, kind: Kind, base: &str, end: Instant) -> Result<Visible> {
    let mut found = Visible::default();
    let mut rng = Rng::new(now_ns() as u64);
    let run = rng.next_u64() & 0xFFFF_FFFF;
    let mut encoder = Encoder::new(target.protocol.format());
    let retries = AtomicU64::new(0);
    for number in 0u64.. {
        if Instant::now() >= end && number > 0 {
            break;
        }
        let fresh = number % NEW_STREAM_EVERY == 0;
        let pod = if fresh { format!("probe-{run:x}-{number}") } else { format!("probe-{run:x}") };
        let streams = [StreamLabels { service: "bench-probe".into(), pod, namespace: "bench".into() }];
        let mark = format!("mark{run:x}n{number}x");
        let timestamp_ns = now_ns();
        let line = format!("visible {mark} yet");
        let record = Record { timestamp_ns, level: Level::Info, line: line.clone(), ..Record::default() };
        let mut body = Vec::new();
        encoder.encode(&[record], &streams, &mut body)?;
        let begun = Instant::now();
        push(target, Bytes::from(body), &retries).await?;
        let acknowledged = begun.elapsed();
        while !shows(target, kind, base, &mark, &line, timestamp_ns).await? {
            if begun.elapsed() > MAX_WAIT {
                bail!("a marked line did not show within {} s", MAX_WAIT.as_secs());
            }
        }
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        found.all.push(ms);
        found.acknowledged.push(acknowledged.as_secs_f64() * 1000.0);
        if fresh {
            found.new_streams.push(ms);
        }
        tokio::time::sleep(Duration::from_millis(1 + rng.below(MAX_PAUSE_MS))).await;
    }
    Ok(found)
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// Asks once for the marked line.
async fn shows(target: &Target, kind: Kind, base: &str, mark: &str, line: &str, at: i64) -> Result<bool> {
    const AROUND_NS: i64 = 1_000_000_000;
    let (from, to) = ((at - AROUND_NS).to_string(), (at + AROUND_NS).to_string());
    let (path, query) = match kind {
        Kind::VictoriaLogs => ("/select/logsql/query", mark.to_owned()),
        Kind::Trine | Kind::Loki => {
            ("/loki/api/v1/query_range", format!(r#"{{service_name="bench-probe"}} |= `{mark}`"#))
        }
    };
    let form = form_encoded(&[("query", query), ("start", from), ("end", to), ("limit", "10".into())]);
    let mut request = target.http.post(format!("{base}{path}"));
    if let Some(tenant) = &target.tenant {
        request = request.header("x-scope-orgid", tenant);
    }
    let answer =
        request.header("content-type", "application/x-www-form-urlencoded").body(form).send().await?;
    let status = answer.status();
    let body = answer.bytes().await.context("read an answer")?;
    if !status.is_success() {
        bail!("{base}{path} answered {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    // Only the line has the words around the mark; a query that is echoed has not.
    Ok(String::from_utf8_lossy(&body).contains(line))
}
