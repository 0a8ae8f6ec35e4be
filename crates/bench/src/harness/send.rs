//! Sending frames, of a file or as they are made, over several connections.
//!
//! Where order matters, frame `n` of `c` connections goes over connection `n mod c`, one after the other;
//! else each goes over the next that is free.
//!
//! A thread reads ahead, so that what is sent is in memory before it is wanted; a push that is refused
//! with 429 or 503 is sent again after a pause and counted.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, TryStreamExt};
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::sync::{Mutex, mpsc};

use super::kind::Protocol;
use super::process::{Memory, Process};
use crate::generate::traces::{self, TracePlan};
use crate::generate::write_truth;

/// Frames read ahead for each connection.
const AHEAD: usize = 4;
/// Largest frame, bytes.
const MAX_FRAME: u32 = 256 << 20;
/// Pause before a refused push is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// A push that is refused so often in a row ends the run.
const MAX_RETRIES: u32 = 600;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where and how to send.
#[derive(Debug, Clone)]
pub struct Target {
    /// Client; its pool holds the connections.
    pub http: Client,
    /// Full URL of the push endpoint.
    pub url: String,
    /// Shape of the bodies.
    pub protocol: Protocol,
    /// Tenant header, if any.
    pub tenant: Option<String>,
    /// Pushes under way at one time.
    pub connections: usize,
    /// Frames keep their order on each connection; the file was made for so many.
    pub ordered: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Records the server took.
    pub lines: u64,
    /// Time from the first byte to the last answer.
    pub wall: Duration,
    /// Pushes sent again because the server was busy.
    pub retries: u64,
    /// Highest resident set in each quarter of the time, bytes.
    pub rss_quarters: [u64; 4],
    /// Highest resident set without mapped files, bytes.
    pub rss_anonymous: u64,
}

/// Where bodies come from.
#[derive(Debug, Clone)]
pub enum Data {
    /// A file of frames.
    File(PathBuf),
    /// Spans that are made while they are sent, as their file would be too large; the right answers are
    /// written beside where the file would be.
    Traces(TracePlan, PathBuf),
}

impl Data {
    /// Hands over all frames in order, until `take` fails.
    fn frames(&self, mut take: impl FnMut(Frame) -> Result<()>) -> Result<()> {
        match self {
            Self::File(path) => {
                let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                let mut file = std::io::BufReader::with_capacity(1 << 16, file);
                while let Some(frame) = read_frame(&mut file)? {
                    take(frame)?;
                }
                Ok(())
            }
            Self::Traces(plan, file) => {
                let frame = |body: &[u8], spans| take((spans as u32, Bytes::copy_from_slice(body)));
                write_truth(file, &traces::requests(plan, frame)?)
            }
        }
    }
}

/// Records and the body that holds them.
type Frame = (u32, Bytes);

/// Reads the next frame; `None` at the end of the file.
fn read_frame(file: &mut impl Read) -> Result<Option<Frame>> {
    let mut head = [0u8; 8];
    if let Err(error) = file.read_exact(&mut head) {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error.into()) };
    }
    let both = u64::from_le_bytes(head);
    let (len, records) = (both as u32, (both >> 32) as u32);
    if len > MAX_FRAME {
        bail!("a frame of {len} bytes is larger than {MAX_FRAME}; is this a file of `bench generate`?");
    }
    let mut body = vec![0; len as usize];
    file.read_exact(&mut body).context("the last frame is cut short; generate the file again")?;
    Ok(Some((records, Bytes::from(body))))
}

/// Frames that wait for a connection.
type Queue = Mutex<mpsc::Receiver<Result<Frame>>>;

/// Reads or makes frames on a thread of its own, into one queue or one for each connection. A queue that is
/// closed ends it.
fn read_ahead(data: &Data, target: &Target) -> Vec<Queue> {
    let queues = if target.ordered { target.connections } else { 1 };
    let ahead = target.connections * AHEAD / queues;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..queues).map(|_| mpsc::channel(ahead)).unzip();
    let data = data.clone();
    std::thread::spawn(move || {
        let mut turn = senders.iter().cycle();
        let mut wanted = true;
        let made = data.frames(|frame| {
            wanted = turn.next().is_some_and(|sender| sender.blocking_send(Ok(frame)).is_ok());
            ensure!(wanted, "nobody takes frames any more");
            Ok(())
        });
        if let Err(error) = made
            && wanted
        {
            _ = senders[0].blocking_send(Err(error));
        }
    });
    receivers.into_iter().map(Mutex::new).collect()
}

/// The next frame that is not there to keep the order alone.
async fn next_frame(queue: &Queue) -> Result<Option<Frame>> {
    loop {
        match queue.lock().await.recv().await.transpose()? {
            Some((0, _)) => {}
            frame => return Ok(frame),
        }
    }
}

/// Sends one body, again and again while the server is busy; counts the repeats.
pub async fn push(target: &Target, body: Bytes, retries: &AtomicU64) -> Result<()> {
    let request = || {
        let request = target.protocol.headers(target.http.post(&target.url)).body(body.clone());
        match &target.tenant {
            Some(tenant) => request.header("x-scope-orgid", tenant),
            None => request,
        }
    };
    post(&target.url, request, retries).await
}

/// Sends a request, again and again while the server is busy; counts the repeats.
pub async fn post(url: &str, request: impl Fn() -> RequestBuilder, retries: &AtomicU64) -> Result<()> {
    for _ in 0..MAX_RETRIES {
        let answer = request().send().await.with_context(|| format!("push to {url}"))?;
        let status = answer.status();
        if status.is_success() {
            answer.bytes().await?;
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
            bail!("{url} refused a push with {status}: {}", text.trim());
        }
        retries.fetch_add(1, Relaxed);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    bail!("{url} was busy {MAX_RETRIES} times in a row")
}

/// Sends all of `data` as fast as the server takes it.
pub async fn full_speed(target: &Target, data: &Data, process: Option<Process>) -> Result<Sent> {
    let frames = read_ahead(data, target);
    let (lines, retries) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = process.map(|process| {
        let stop = stop.clone();
        std::thread::spawn(move || watch(process, &stop))
    });
    let begun = Instant::now();
    let (taken, retries) = (&lines, &retries);
    let send = |queue| async move {
        while let Some((records, body)) = next_frame(queue).await? {
            push(target, body, retries).await?;
            taken.fetch_add(u64::from(records), Relaxed);
        }
        anyhow::Ok(())
    };
    let senders: FuturesUnordered<_> = frames.iter().cycle().take(target.connections).map(send).collect();
    // The first failure ends all: in order, none could go on without the others.
    let ended: Result<Vec<()>> = senders.try_collect().await;
    let wall = begun.elapsed();
    stop.store(true, Relaxed);
    let looks = watcher.and_then(|w| w.join().ok()).unwrap_or_default();
    ended?;
    let (lines, retries) = (lines.load(Relaxed), retries.load(Relaxed));
    let mut sent = Sent { lines, wall, retries, ..Sent::default() };
    for (index, look) in looks.iter().enumerate() {
        let quarter = &mut sent.rss_quarters[index * 4 / looks.len()];
        *quarter = look.now.max(*quarter);
        sent.rss_anonymous = sent.rss_anonymous.max(look.anonymous);
    }
    Ok(sent)
}

fn watch(process: Process, stop: &AtomicBool) -> Vec<Memory> {
    let mut looks = Vec::new();
    while !stop.load(Relaxed) {
        looks.extend(process.memory());
        std::thread::sleep(LOOK);
    }
    looks
}

/// Sends `data` at `lines_per_s` until `stop` or the end of the file, counting in `taken`; returns the rate
/// reached.
pub async fn steady(
    target: &Target,
    data: &Data,
    lines_per_s: f64,
    taken: &AtomicU64,
    stop: &AtomicBool,
) -> Result<f64> {
    let frames = read_ahead(data, target);
    let (retries, due) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let begun = Instant::now();
    let send = |queue| async move {
        while !stop.load(Relaxed) {
            let Some((records, body)) = next_frame(queue).await? else { break };
            let before = due.fetch_add(u64::from(records), Relaxed) as f64;
            let at = begun + Duration::from_secs_f64(before / lines_per_s);
            tokio::time::sleep_until(at.into()).await;
            push(target, body, retries).await?;
            taken.fetch_add(u64::from(records), Relaxed);
        }
        // The reader could wait for this queue to have room, and another connection for the reader.
        queue.lock().await.close();
        anyhow::Ok(())
    };
    let senders: FuturesUnordered<_> = frames.iter().cycle().take(target.connections).map(send).collect();
    senders.try_collect::<Vec<()>>().await?;
    Ok(taken.load(Relaxed) as f64 / begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_to_the_end_and_a_cut_one_is_told() {
        let mut file = Vec::new();
        for body in ["first", "second"] {
            file.extend_from_slice(&(body.len() as u32).to_le_bytes());
            file.extend_from_slice(&7u32.to_le_bytes());
            file.extend_from_slice(body.as_bytes());
        }
        let mut rest = &file[..];
        assert_eq!(read_frame(&mut rest).unwrap(), Some((7, Bytes::from_static(b"first"))));
        assert_eq!(read_frame(&mut rest).unwrap(), Some((7, Bytes::from_static(b"second"))));
        assert_eq!(read_frame(&mut rest).unwrap(), None);
        assert!(read_frame(&mut &file[..file.len() - 1][13..]).is_err());
    }

    /// A connection that stops early leaves its queue full; the one that waits for the reader ends all the
    /// same.
    #[tokio::test]
    async fn a_queue_that_is_closed_ends_the_reader_and_the_others() {
        let target = Target {
            http: Client::new(),
            url: String::new(),
            protocol: Protocol::Otlp,
            tenant: None,
            connections: 2,
            ordered: true,
        };
        let plan = TracePlan { spans: 200_000, seed: 1, start_ns: 0 };
        let queues = read_ahead(&Data::Traces(plan, PathBuf::new()), &target);
        queues[0].lock().await.close();
        let drained = async { while next_frame(&queues[1]).await.unwrap().is_some() {} };
        tokio::time::timeout(Duration::from_mins(1), drained).await.expect("the reader waits for nobody");
    }
}
