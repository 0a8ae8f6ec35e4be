//! Live tail: lines the moment they are stored, as JSON lines over HTTP and over Loki's WebSocket.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use trine_logql::{LabeledEntry, LogqlError, TailFilter, loki_json};
use trine_model::TenantId;
use trine_schema::{Tables, TailLag};

use crate::{
    App,
    asking::{Asking, Params},
    error::ApiError,
    metrics::Language,
    tenant::Tenant,
};

/// A tail without news sends an empty line this often, so that a closed connection is noticed.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a tail hands out.
enum News {
    Lines(Vec<LabeledEntry>),
    Lagged(TailLag),
    Quiet,
}

fn filter(params: &Params) -> Result<TailFilter, ApiError> {
    let query = trine_logql::parse(params.get("query").unwrap_or("{}")).map_err(LogqlError::from)?;
    Ok(TailFilter::new(&query)?)
}

/// Ends when the server stops.
fn news(
    app: &Arc<App>,
    tenant: &TenantId,
    mut filter: TailFilter,
) -> impl Stream<Item = News> + Send + use<> {
    let store = app.store.clone();
    let mut stopping = app.stopping.clone();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let quiet = futures::stream::unfold(heartbeat, |mut heartbeat| async move {
        heartbeat.tick().await;
        Some((News::Quiet, heartbeat))
    });
    let batches = store.tail_logs(tenant).map(move |batch| match batch {
        Ok(batch) => News::Lines(filter.apply(&batch, store.registry())),
        Err(lag) => News::Lagged(lag),
    });
    futures::stream::select(batches, quiet).take_until(async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    })
}

/// `GET /api/v1/tail?query={…}`: one JSON object per line, `{"timestamp": ns, "labels": {…}, "line": "…"}`;
/// `{"skipped_batches": n}` when the reader was too slow.
pub async fn lines(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let news = news(&app, &tenant, filter(&params)?);
    let asking = Asking::begin(&app, Language::Tail);
    let body = news.map(move |news| {
        let _ends_with_the_stream = &asking;
        let mut text = String::new();
        match news {
            News::Lines(entries) => {
                for entry in entries {
                    let labels: serde_json::Map<_, _> =
                        entry.labels.iter().map(|l| (l.name.clone(), l.value.clone().into())).collect();
                    let line = json!({"timestamp": entry.timestamp, "labels": labels, "line": entry.line});
                    text += &line.to_string();
                    text.push('\n');
                }
            }
            News::Lagged(TailLag(batches)) => text = format!("{}\n", json!({"skipped_batches": batches})),
            News::Quiet => text.push('\n'),
        }
        Ok::<_, std::convert::Infallible>(Bytes::from(text))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response())
}

/// Loki's `tail` over a WebSocket.
pub async fn websocket(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    upgrade: WebSocketUpgrade,
    params: Params,
) -> Result<Response, ApiError> {
    let news = news(&app, &tenant, filter(&params)?);
    Ok(upgrade.on_upgrade(async move |socket| {
        let _asking = Asking::begin(&app, Language::Tail);
        send(socket, news).await;
    }))
}

async fn send(mut socket: WebSocket, news: impl Stream<Item = News>) {
    let mut news = std::pin::pin!(news);
    loop {
        let message = tokio::select! {
            news = news.next() => match news {
                None => break,
                Some(News::Lines(entries)) if entries.is_empty() => continue,
                Some(News::Lines(entries)) => Message::text(loki_json::tail_message(&entries, false)),
                Some(News::Lagged(lag)) => {
                    let dropped = json!({"streams": [], "dropped_entries": [{"labels": {"reason": lag.to_string()}, "timestamp": "0"}]});
                    Message::text(dropped.to_string())
                }
                Some(News::Quiet) => Message::Ping(Bytes::new()),
            },
            // The client only speaks to say goodbye or to answer a ping.
            heard = socket.recv() => match heard {
                None | Some(Err(_) | Ok(Message::Close(_))) => break,
                Some(Ok(_)) => continue,
            },
        };
        if socket.send(message).await.is_err() {
            break;
        }
    }
}
