//! Queries run on threads of their own: a query is one long calculation, and on the threads that
//! answer sockets it would hold up every push that comes meanwhile.

use std::future::Future;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::AbortHandle,
};

use crate::error::ApiError;

/// Chunks of an answer that may wait for a slow reader.
const WAITING_CHUNKS: usize = 4;

/// A runtime for queries.
pub struct QueryThreads(Option<Runtime>);

/// Stops the work when whoever asked has gone.
struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl QueryThreads {
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("query").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.as_ref().expect("BUG: taken only by drop").spawn(work)
    }

    /// Runs the work there; dropping the future stops it.
    pub async fn run<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Send + 'static + Into<ApiError>,
    {
        let task = self.spawn(work);
        let _stop = StopOnDrop(task.abort_handle());
        match task.await {
            Ok(result) => result.map_err(Into::into),
            Err(error) => {
                let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
                Err(ApiError::new(
                    status,
                    format!("BUG: the query failed: {error}; please report it with the query"),
                ))
            }
        }
    }

    /// Pulls a stream there; dropping the result stops it.
    pub fn pull<E: Send + 'static>(
        &self,
        stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static {
        let (send, receive) = mpsc::channel(WAITING_CHUNKS);
        let task = self.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(chunk) = stream.next().await {
                if send.send(chunk).await.is_err() {
                    break;
                }
            }
        });
        let stop = StopOnDrop(task.abort_handle());
        Box::pin(futures::stream::unfold((receive, stop), |(mut receive, stop)| async move {
            receive.recv().await.map(|chunk| (chunk, (receive, stop)))
        }))
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
