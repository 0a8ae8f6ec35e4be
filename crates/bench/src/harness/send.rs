//! Sending a file of frames over several connections.
//!
//! Where order matters, frame `n` of `c` connections goes over connection `n mod c`, one after the other;
//! else each goes over the next that is free.
//!
//! A thread reads ahead, so that the file is in memory before it is wanted; a push that is refused
//! with 429 or 503 is sent again after a pause and counted.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, TryStreamExt};
use reqwest::{Client, StatusCode};
use tokio::sync::{Mutex, mpsc};

use super::kind::Protocol;
use super::process::{Memory, Process};

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

/// Reads frames of `path` on a thread of its own, into one queue or one for each connection.
fn read_ahead(path: PathBuf, target: &Target) -> Vec<Queue> {
    let queues = if target.ordered { target.connections } else { 1 };
    let ahead = target.connections * AHEAD / queues;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..queues).map(|_| mpsc::channel(ahead)).unzip();
    std::thread::spawn(move || {
        let mut file = match File::open(&path).with_context(|| format!("open {}", path.display())) {
            Ok(file) => std::io::BufReader::with_capacity(1 << 16, file),
            Err(error) => {
                _ = senders[0].blocking_send(Err(error));
                return;
            }
        };
        let mut turn = senders.iter().cycle();
        while let (Some(frame), Some(sender)) = (read_frame(&mut file).transpose(), turn.next()) {
            if sender.blocking_send(frame).is_err() {
                break;
            }
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
    for _ in 0..MAX_RETRIES {
        let mut request = target.protocol.headers(target.http.post(&target.url));
        if let Some(tenant) = &target.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let answer = request.body(body.clone()).send().await;
        let answer = answer.with_context(|| format!("push to {}", target.url))?;
        let status = answer.status();
        if status.is_success() {
            answer.bytes().await?;
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        if status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::SERVICE_UNAVAILABLE {
            bail!("{} refused a push with {status}: {}", target.url, text.trim());
        }
        retries.fetch_add(1, Relaxed);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    bail!("{} was busy {MAX_RETRIES} times in a row", target.url)
}

/// Sends all of `data` as fast as the server takes it.
pub async fn full_speed(target: &Target, data: &Path, process: Option<Process>) -> Result<Sent> {
    let frames = read_ahead(data.to_owned(), target);
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
    data: &Path,
    lines_per_s: f64,
    taken: &AtomicU64,
    stop: &AtomicBool,
) -> Result<f64> {
    let frames = read_ahead(data.to_owned(), target);
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
}
