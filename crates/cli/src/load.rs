//! `trine load`: files of OTLP JSON lines to a server.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, IsTerminal, Read},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    client::{Client, Output, PLAIN, RED, ServerOptions, YELLOW},
    server::Stop,
};

/// Each line of a file is one OTLP export request of logs, traces or metrics, as the OpenTelemetry
/// collector's file exporter writes them; signals may be mixed. A file loaded again within the server's
/// deduplication window (10 minutes, `trine server --dedup-window`) is stored once; later its logs and spans
/// are stored a second time.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Files: plain, gzip or zstd; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// `json`, `jsonl` and `csv` print the counts for scripts
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: ServerOptions,
}

/// Requests under way at a time.
const CONCURRENCY: usize = 4;
/// Longest line in bytes; the server's own bound on a body is lower or equal.
const MAX_LINE_BYTES: usize = 256 << 20;
/// Complaints printed; the rest are only counted.
const MAX_COMPLAINTS: u64 = 20;
/// Longest wait for a server that is full or gone before a line counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    complaints: AtomicU64,
    /// Of each file, whether there was anything in it, be it refused.
    filled: Vec<AtomicBool>,
}

/// One line and where it stands.
struct Request {
    /// Which of the files.
    file: usize,
    place: String,
    body: Vec<u8>,
}

pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let client = Arc::new(Client::new(&args.server)?);
    client.send(client.get("/api/v1/status")).await?;
    let mut stop = Stop::listen()?;
    let filled = args.files.iter().map(|_| AtomicBool::new(false)).collect();
    let counts = Arc::new(Counts { filled, ..Counts::default() });
    let begun = Instant::now();
    let bar = progress_bar(&args.files);

    let (send, receive) = mpsc::channel::<Request>(CONCURRENCY);
    let receive = Arc::new(tokio::sync::Mutex::new(receive));
    let reading = {
        let (files, bar) = (args.files.clone(), bar.clone());
        let read = move || {
            files.iter().enumerate().try_for_each(|(number, file)| read_file(number, file, &send, &bar))
        };
        tokio::task::spawn_blocking(read)
    };
    let workers: Vec<_> = (0..CONCURRENCY)
        .map(|_| {
            let (client, counts, receive, bar) =
                (client.clone(), counts.clone(), receive.clone(), bar.clone());
            tokio::spawn(async move {
                loop {
                    let Some(request) = receive.lock().await.recv().await else { return anyhow::Ok(()) };
                    send_line(&client, &counts, &bar, request).await?;
                }
            })
        })
        .collect();
    let mut aborts: Vec<_> = workers.iter().map(tokio::task::JoinHandle::abort_handle).collect();
    aborts.push(reading.abort_handle());
    let all = async {
        for worker in workers {
            worker.await??;
        }
        drop(receive);
        reading.await?
    };
    let interrupted = tokio::select! {
        done = all => {
            if let Err(error) = done {
                // What was stored before stays stored, and is told beside the error.
                bar.finish_and_clear();
                report(&counts, begun.elapsed(), true, args.output);
                return Err(error);
            }
            false
        }
        () = stop.asked() => {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
            true
        }
    };
    bar.finish_and_clear();
    report(&counts, begun.elapsed(), interrupted, args.output);
    let empty = args.files.iter().zip(&counts.filled).filter(|(_, filled)| !filled.load(Relaxed));
    let empty: Vec<_> = empty.map(|(file, _)| file).collect();
    for file in empty.iter().filter(|_| !interrupted) {
        anstream::eprintln!(
            "{RED}error:{PLAIN} {}: there is no record in it; OTLP JSON has \"resourceLogs\", \"resourceSpans\" or \
             \"resourceMetrics\" in every line",
            file.display()
        );
    }
    let clean = counts.rejected.load(Relaxed) + counts.failed.load(Relaxed) == 0 && empty.is_empty();
    Ok(match (interrupted, clean) {
        (true, _) => ExitCode::from(130),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

fn report(counts: &Counts, took: Duration, interrupted: bool, output: Output) {
    let [requests, accepted, rejected, duplicates, failed] =
        [&counts.requests, &counts.accepted, &counts.rejected, &counts.duplicates, &counts.failed]
            .map(|count| count.load(Relaxed));
    let seconds = took.as_secs_f64();
    if output != Output::Table {
        let report = [
            ("requests", json!(requests)),
            ("accepted_records", json!(accepted)),
            ("rejected_records", json!(rejected)),
            ("duplicate_requests", json!(duplicates)),
            ("failed_requests", json!(failed)),
            ("seconds", json!(seconds)),
            ("interrupted", json!(interrupted)),
        ];
        if output == Output::Csv {
            println!("{}", report.each_ref().map(|(name, _)| (*name).to_owned()).join(","));
            println!("{}", report.map(|(_, value)| value.to_string()).join(","));
        } else {
            println!("{}", Value::from_iter(report));
        }
        return;
    }
    let state = if interrupted { "stopped after" } else { "loaded" };
    println!("{state} {accepted} records in {requests} requests, {seconds:.1} s");
    if duplicates > 0 {
        println!("{duplicates} of the requests were known to the server and not stored again");
    }
    if rejected + failed > 0 {
        println!("{rejected} records were rejected, {failed} requests failed");
    }
}

fn progress_bar(files: &[PathBuf]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sizes: Option<Vec<u64>> = files.iter().map(|file| Some(file.metadata().ok()?.len())).collect();
    let (bar, template) = match sizes {
        Some(sizes) => (
            ProgressBar::new(sizes.iter().sum()),
            "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left, {msg}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {bytes_per_sec}, {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a literal"))
}

/// The file's lines, unpacked by what its first bytes say.
fn open(file: &PathBuf, bar: &ProgressBar) -> anyhow::Result<Box<dyn BufRead>> {
    let mut raw: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?)
    };
    let mut magic = Vec::new();
    raw.by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let raw = bar.wrap_read(Cursor::new(magic.clone()).chain(raw));
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(raw))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::new(raw)?;
            // Long windows, as `zstd --long=31` makes them.
            decoder.window_log_max(31)?;
            Box::new(BufReader::new(decoder))
        }
        _ => Box::new(BufReader::with_capacity(1 << 20, raw)),
    })
}

fn read_file(
    number: usize,
    file: &PathBuf,
    send: &mpsc::Sender<Request>,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut lines = open(file, bar)?;
    for line in 1u64.. {
        let mut body = Vec::new();
        let place = format!("{}:{line}", file.display());
        let read = lines.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut body);
        if read.with_context(|| format!("cannot read {place}"))? == 0 {
            break;
        }
        if body.len() == MAX_LINE_BYTES {
            bail!("{place} is longer than {MAX_LINE_BYTES} bytes; is this a file of OTLP JSON lines?");
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if send.blocking_send(Request { file: number, place, body }).is_err() {
            break;
        }
    }
    Ok(())
}

/// Where an export request goes, by the name that stands first in it.
fn path(body: &[u8]) -> &'static str {
    const SIGNALS: [(&[u8], &str); 3] = [
        (b"\"resourceLogs\"", "/v1/logs"),
        (b"\"resourceSpans\"", "/v1/traces"),
        (b"\"resourceMetrics\"", "/v1/metrics"),
    ];
    let first = SIGNALS.iter().filter_map(|(name, path)| Some((memchr::memmem::find(body, name)?, *path)));
    first.min().map_or("/v1/logs", |(_, path)| path)
}

/// Sends one line, again and again while the server is full or away. Fails only when there is no
/// server any more.
async fn send_line(
    client: &Client,
    counts: &Counts,
    bar: &ProgressBar,
    request: Request,
) -> anyhow::Result<()> {
    let complain = |what: &str| {
        if counts.complaints.fetch_add(1, Relaxed) < MAX_COMPLAINTS {
            bar.suspend(|| anstream::eprintln!("{YELLOW}{}:{PLAIN} {what}", request.place));
        }
    };
    let begun = Instant::now();
    let mut wait = Duration::from_millis(100);
    loop {
        let sent = client
            .post(path(&request.body))
            .header("Content-Type", "application/json")
            .body(request.body.clone())
            .send()
            .await;
        let retry = match sent {
            Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                response.text().await.unwrap_or_default()
            }
            Ok(response) => {
                counts.requests.fetch_add(1, Relaxed);
                if take_answer(response, counts, &complain).await {
                    counts.filled[request.file].store(true, Relaxed);
                }
                bar.set_message(format!("{} records", counts.accepted.load(Relaxed)));
                return Ok(());
            }
            Err(error) => {
                let error = client.unreachable(&error);
                if begun.elapsed() > PATIENCE {
                    return Err(error);
                }
                error.to_string()
            }
        };
        if begun.elapsed() > PATIENCE {
            counts.failed.fetch_add(1, Relaxed);
            counts.filled[request.file].store(true, Relaxed);
            complain(&retry);
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

/// Counts what became of a request. Whether there was anything in it.
async fn take_answer(response: reqwest::Response, counts: &Counts, complain: &impl Fn(&str)) -> bool {
    let status = response.status();
    let header = |name: &str| -> u64 {
        response.headers().get(name).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0)
    };
    let (accepted, duplicate) = (header("x-trine-accepted"), header("x-trine-duplicate"));
    counts.accepted.fetch_add(accepted, Relaxed);
    counts.duplicates.fetch_add(duplicate, Relaxed);
    let rejected = header("x-trine-rejected");
    let answer: Value = response.json().await.unwrap_or_default();
    if !status.is_success() {
        counts.failed.fetch_add(1, Relaxed);
        complain(answer["message"].as_str().unwrap_or(status.as_str()));
    } else if rejected > 0 {
        counts.rejected.fetch_add(rejected, Relaxed);
        complain(answer["partialSuccess"]["errorMessage"].as_str().unwrap_or("records were rejected"));
    }
    !status.is_success() || accepted + duplicate + rejected > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_tells_the_signal() {
        assert_eq!(path(br#"{"resourceSpans":[{"resource":{}}]}"#), "/v1/traces");
        assert_eq!(path(br#"{ "resourceMetrics" : [{"name":"\"resourceLogs\""}]}"#), "/v1/metrics");
        assert_eq!(path(br#"{"resourceLogs":[{"body":{"stringValue":"resourceSpans"}}]}"#), "/v1/logs");
        assert_eq!(path(b"{}"), "/v1/logs");
    }
}
