//! Queries run on threads of their own: a query is one long calculation, and on the threads that
//! answer sockets it would hold up every push that comes meanwhile.
//!
//! Whoever asked is answered at the deadline, wherever the calculation stands. The work behind ends
//! where it yields next, and gives its permit back only then: what is left of abandoned queries
//! counts among those that run.

use std::{future::Future, sync::Arc};

use axum::http::StatusCode;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::timeout_at,
};
use trine_query::SqlError;

use crate::{asking::Deadline, error::ApiError};

/// Most queries at once; further ones wait. Each may take the memory of one query.
const MAX_RUNNING: usize = 16;

/// Chunks of an answer that may wait for a slow reader.
const WAITING_CHUNKS: usize = 4;

/// Seconds after which asking again makes sense when all permits are taken.
const RETRY_BUSY_S: u32 = 5;

/// The right to run. Every part of a query keeps it.
pub type Permit = Arc<OwnedSemaphorePermit>;

/// A runtime for queries.
pub struct QueryThreads {
    runtime: Option<Runtime>,
    running: Arc<Semaphore>,
}

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
        Ok(Self { runtime: Some(runtime), running: Arc::new(Semaphore::new(MAX_RUNNING)) })
    }

    /// Waits until one more query may run.
    pub async fn admit(&self, deadline: Deadline) -> Result<Permit, ApiError> {
        match timeout_at(deadline.at.into(), self.running.clone().acquire_owned()).await {
            Ok(permit) => Ok(Arc::new(permit.expect("BUG: the semaphore is never closed"))),
            Err(_) => {
                let message =
                    format!("{MAX_RUNNING} queries run and none ended in time; ask again later or ask less");
                let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
                Err(ApiError { retry_after: Some(RETRY_BUSY_S), ..error })
            }
        }
    }

    fn spawn<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let work = async move {
            let _until_it_ends = permit;
            work.await
        };
        self.runtime.as_ref().expect("BUG: taken only by drop").spawn(work)
    }

    /// Runs the work there until the deadline; dropping the future stops it.
    pub async fn run<T, E>(
        &self,
        permit: Permit,
        deadline: Deadline,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Send + 'static + Into<ApiError>,
    {
        let task = self.spawn(permit, work);
        let _stop = StopOnDrop(task.abort_handle());
        match timeout_at(deadline.at.into(), task).await {
            Ok(Ok(result)) => result.map_err(Into::into),
            Ok(Err(error)) => Err(SqlError::Bug(format!("the query failed: {error}")).into()),
            Err(_) => Err(deadline.missed().into()),
        }
    }

    /// Pulls a stream there until the deadline; dropping the result stops it.
    pub fn pull(
        &self,
        permit: Permit,
        deadline: Deadline,
        stream: impl Stream<Item = Result<Bytes, SqlError>> + Send + 'static,
    ) -> impl Stream<Item = Result<Bytes, SqlError>> + Send + Unpin + 'static {
        // `None` is the end of the stream; a channel that closes without it was cut off.
        let (send, receive) = mpsc::channel(WAITING_CHUNKS);
        let task = self.spawn(permit, async move {
            let pulled = async {
                let mut stream = std::pin::pin!(stream);
                loop {
                    let chunk = stream.next().await;
                    let ended = chunk.is_none();
                    if send.send(chunk).await.is_err() || ended {
                        break;
                    }
                }
            };
            // A reader too slow to take the answer must not keep the permit.
            let _ = timeout_at(deadline.at.into(), pulled).await;
        });
        let stop = StopOnDrop(task.abort_handle());
        Box::pin(futures::stream::unfold(Some((receive, stop)), move |state| async move {
            let (mut receive, stop) = state?;
            match timeout_at(deadline.at.into(), receive.recv()).await {
                Ok(Some(chunk)) => Some((chunk?, Some((receive, stop)))),
                Ok(None) if std::time::Instant::now() < deadline.at => {
                    Some((Err(SqlError::Bug("the query ended half way".to_owned())), None))
                }
                Ok(None) | Err(_) => Some((Err(deadline.missed()), None)),
            }
        }))
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, time::Duration};

    use super::*;

    /// Work that holds its thread is not waited for, but keeps its permit until it ends.
    #[tokio::test]
    async fn the_deadline_holds_for_work_that_does_not_yield() {
        let threads = QueryThreads::start().unwrap();
        let deadline = Deadline::after(Duration::from_millis(20));
        let permit = threads.admit(deadline).await.unwrap();
        let (release, blocked) = channel::<()>();
        let work = async move {
            let _ = blocked.recv();
            std::future::pending::<Result<(), ApiError>>().await
        };
        let error = threads.run(permit, deadline, work).await.unwrap_err();
        assert_eq!(error.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(error.message.contains("time limit after 20 ms"), "{}", error.message);
        assert_eq!(threads.running.available_permits(), MAX_RUNNING - 1);

        drop(release);
        let all = threads.running.acquire_many(MAX_RUNNING as u32).await;
        assert_eq!(all.unwrap().num_permits(), MAX_RUNNING);
    }

    #[tokio::test]
    async fn an_answer_that_stalls_ends_with_an_error_and_one_that_ends_does_not() {
        let threads = QueryThreads::start().unwrap();
        let deadline = Deadline::after(Duration::from_secs(1));
        let chunk = || futures::stream::iter([Ok(Bytes::from_static(b"row"))]);
        let permit = threads.admit(deadline).await.unwrap();
        let stalled = chunk().chain(futures::stream::pending());
        let answer: Vec<_> = threads.pull(permit, deadline, stalled).collect().await;
        assert!(
            matches!(answer.as_slice(), [Ok(_), Err(SqlError::Timeout { limit_ms: 1000 })]),
            "{answer:?}"
        );

        let deadline = Deadline::after(Duration::from_secs(600));
        let permit = threads.admit(deadline).await.unwrap();
        let answer: Vec<_> = threads.pull(permit, deadline, chunk()).collect().await;
        assert!(matches!(answer.as_slice(), [Ok(_)]), "{answer:?}");
    }

    #[tokio::test]
    async fn no_more_than_the_bound_run_at_once() {
        let threads = QueryThreads::start().unwrap();
        let deadline = Deadline::after(Duration::from_millis(20));
        let mut permits = Vec::new();
        for _ in 0..MAX_RUNNING {
            permits.push(threads.admit(Deadline::after(Duration::from_secs(600))).await.unwrap());
        }
        assert_eq!(threads.admit(deadline).await.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        permits.pop();
        let deadline = Deadline::after(Duration::from_secs(600));
        let permit = threads.admit(deadline).await.unwrap();
        let done = threads.run(permit, deadline, async { Ok::<_, ApiError>(7) }).await;
        assert_eq!(done.unwrap(), 7);
    }
}
