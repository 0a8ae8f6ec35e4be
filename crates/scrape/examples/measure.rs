//! What a sample of a repeated scrape costs, from the body to the batch:
//! `cargo run --release -p trine-scrape --example measure -- [series] [scrapes]`, or with a file of an exposition
//! in place of the number of series. Prints nanoseconds of CPU per sample by format; the first scrape, in which
//! every series is new, apart.

use std::{fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{sync::mpsc, time::Instant};
use trine_model::TenantId;
use trine_protocols::exposition::Format;
use trine_schema::{MetricBatch, StreamRegistry};
use trine_scrape::{Fetch, FetchError, Fetched, ScrapeConfig, Scraper, ScraperOptions};

/// Answers with bodies whose values change from scrape to scrape.
struct Bodies(Format, Vec<Arc<Vec<u8>>>, std::sync::atomic::AtomicUsize);

impl Fetch for Bodies {
    fn fetch(&self, _: reqwest::Url, _: Duration) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let number = self.2.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let body = self.1[number % self.1.len()].to_vec();
        Box::pin(async move { Ok(Fetched { format: self.0, body }) })
    }
}

/// Seconds of CPU of this process.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn made(series: usize, scrape: usize, open_metrics: bool) -> Vec<u8> {
    let mut text = String::new();
    for number in 0..series {
        if number % 20 == 0 {
            let metric = number / 20;
            writeln!(text, "# TYPE http_requests_{metric} counter\n# HELP http_requests_{metric} Requests.")
                .unwrap();
        }
        let (metric, code) = (number / 20, number % 20);
        let value = number * 1000 + scrape * (number % 7);
        writeln!(
            text,
            "http_requests_{metric}_total{{handler=\"/api/v1/query\",method=\"get\",code=\"{code}\"}} {value}"
        )
        .unwrap();
    }
    if open_metrics {
        text += "# EOF\n";
    }
    text.into_bytes()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().unwrap_or_else(|| "100000".into());
    let scrapes: usize = arguments.next().map_or(20, |text| text.parse().expect("a number of scrapes"));
    for format in [Format::Text, Format::OpenMetrics] {
        let bodies = match first.parse::<usize>() {
            Ok(series) => {
                (0..4).map(|scrape| Arc::new(made(series, scrape, format == Format::OpenMetrics))).collect()
            }
            Err(_) => vec![Arc::new(fs::read(&first).expect("a file of an exposition"))],
        };
        let length = bodies[0].len();
        let fetch = Arc::new(Bodies(format, bodies, std::sync::atomic::AtomicUsize::new(0)));
        let registry = Arc::new(StreamRegistry::new());
        let options = ScraperOptions {
            fetch: Box::new(move |_| Ok(fetch.clone())),
            ..ScraperOptions::new(TenantId::default(), registry)
        };
        let yaml =
            "scrape_configs: [{job_name: j, scrape_interval: 300ms, static_configs: [{targets: [a]}]}]";
        let config = ScrapeConfig::parse(yaml, Path::new("measure.yml")).expect("the configuration is right");
        let (sender, mut batches) = mpsc::unbounded_channel::<(MetricBatch, f64)>();
        let append = move |batch| {
            let taken = sender.send((batch, cpu()));
            async move { taken }
        };
        let begin = (Instant::now(), cpu());
        let scraper = Scraper::start(config, options, append).expect("nothing can fail here");
        let (mut last, mut figures) = (begin.1, Vec::new());
        while figures.len() < scrapes {
            let Some((batch, at)) = batches.recv().await else { break };
            figures.push((at - last) * 1e9 / batch.records.num_rows() as f64);
            last = at;
        }
        let error = scraper.targets().active[0].last_error.clone();
        scraper.stop().await;
        let first = figures.remove(0);
        figures.sort_by(f64::total_cmp);
        println!(
            "{format:?}: {length} bytes; first scrape {first:.0} ns/sample, repeated {:.0} (median of {}) {error}",
            figures[figures.len() / 2],
            figures.len()
        );
    }
}
