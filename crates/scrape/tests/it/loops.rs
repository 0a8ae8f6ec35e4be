//! Targets over a simulated time: what is written, and when.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
use trine_model::TenantId;
use trine_protocols::exposition::Format;
use trine_schema::{MetricBatch, StreamRegistry};
use trine_scrape::{
    Fetch, FetchError, Fetched, Health, ScrapeConfig, Scraper, ScraperOptions, TargetFilter, metadata_to_json,
};

use crate::rows::lines;

/// Where simulated time begins, in milliseconds since 1970: a multiple of all intervals here.
const BEGIN_MS: i64 = 1_700_000_040_000;

/// What targets answer, by host, one after the other; the last again and again.
type Answers = Arc<Mutex<HashMap<String, VecDeque<Result<&'static str, &'static str>>>>>;

struct Simulated(Answers);

impl Fetch for Simulated {
    fn fetch(
        &self,
        url: reqwest::Url,
        _: Duration,
    ) -> futures::future::BoxFuture<'_, Result<Fetched, FetchError>> {
        let mut answers = self.0.lock();
        let host = url.host_str().unwrap_or_default();
        let list = answers.get_mut(host).unwrap_or_else(|| panic!("no answer for {host}"));
        let answer = if list.len() > 1 { list.pop_front() } else { list.front().copied() };
        Box::pin(async move {
            match answer {
                Some(Ok(body)) => {
                    let format = if body.ends_with("# EOF\n") { Format::OpenMetrics } else { Format::Text };
                    Ok(Fetched { format, body: body.as_bytes().to_vec() })
                }
                Some(Err("hangs")) => std::future::pending().await,
                Some(Err(reason)) => Err(FetchError::Failed(reason.into())),
                None => panic!("an empty list of answers"),
            }
        })
    }
}

struct World {
    scraper: Scraper,
    answers: Answers,
    registry: Arc<StreamRegistry>,
    batches: mpsc::UnboundedReceiver<MetricBatch>,
    /// How many batches are refused next.
    refuse: Arc<Mutex<usize>>,
}

fn config(yaml: &str) -> ScrapeConfig {
    ScrapeConfig::parse(yaml, Path::new("prometheus.yml")).unwrap()
}

impl World {
    fn new(yaml: &str) -> Self {
        let answers = Answers::default();
        let registry = Arc::new(StreamRegistry::new());
        let begin = Instant::now();
        let own = answers.clone();
        let options = ScraperOptions {
            clock: Arc::new(move || BEGIN_MS * 1_000_000 + begin.elapsed().as_nanos() as i64),
            fetch: Box::new(move |_| Ok(Arc::new(Simulated(own.clone())))),
            ..ScraperOptions::new(TenantId::default(), registry.clone())
        };
        let (sender, batches) = mpsc::unbounded_channel();
        let refuse = Arc::<Mutex<usize>>::default();
        let refusals = refuse.clone();
        let append = move |batch| {
            let mut refusals = refusals.lock();
            let taken = if *refusals > 0 {
                *refusals -= 1;
                Err("the log is full")
            } else {
                sender.send(batch).map_err(|_| "gone")
            };
            async move { taken }
        };
        let scraper = Scraper::start(config(yaml), options, append).unwrap();
        Self { scraper, answers, registry, batches, refuse }
    }

    fn answer(&self, host: &str, answers: &[Result<&'static str, &'static str>]) {
        self.answers.lock().insert(host.into(), answers.iter().copied().collect());
    }

    /// The rows of the next batch; times as seconds from the interval's place in the first batch.
    async fn next(&mut self) -> Vec<String> {
        let batch = self.batches.recv().await.expect("the scraper runs");
        lines(&batch, &self.registry)
    }

    /// The next batch without reports and labels of the target, its times counted from `base` in seconds.
    async fn samples(&mut self, base: &mut Option<i64>) -> String {
        let rows = self.next().await;
        let short = |row: &String| {
            let (time, rest) = row.split_once(' ').unwrap();
            let time: i64 = time.parse().unwrap();
            let base = *base.get_or_insert(time);
            let rest = rest.replace("{instance=a,job=j}", "").replace("instance=a,job=j,", "");
            format!("{} {rest}", (time - base) as f64 / 1000.0)
        };
        let rows: Vec<_> = rows.iter().map(short).filter(|row| !row.contains(" scrape_")).collect();
        rows.join("; ")
    }
}

const ONE: &str = "scrape_configs: [{job_name: j, scrape_interval: 10s, static_configs: [{targets: [a]}]}]";

#[tokio::test(start_paused = true)]
async fn a_scrape_writes_samples_and_reports() {
    let mut world = World::new(
        "scrape_configs: [{job_name: j, extra_scrape_metrics: true, sample_limit: 100, static_configs: \
         [{targets: ['a:1'], labels: {env: test}}]}]",
    );
    world.answer("a", &[Ok("# HELP m Help.\n# TYPE m counter\nm{x=\"1\"} 2\nm{x=\"2\"} 3 1700000000123\n")]);
    let rows = world.next().await;
    let time = rows[0].split(' ').next().unwrap().to_owned();
    let rows: Vec<_> = rows.iter().map(|row| row.replace(&time, "now")).collect();
    let target = "env=test,instance=a:1,job=j";
    assert_eq!(
        rows,
        [
            format!("now m{{{target},x=1}} 2"),
            format!("1700000000123 m{{{target},x=2}} 3"),
            "now m{} is counter  Help.".into(),
            format!("now up{{{target}}} 1"),
            format!("now scrape_duration_seconds{{{target}}} …"),
            format!("now scrape_samples_scraped{{{target}}} 2"),
            format!("now scrape_samples_post_metric_relabeling{{{target}}} 2"),
            format!("now scrape_series_added{{{target}}} 2"),
            format!("now scrape_timeout_seconds{{{target}}} 10"),
            format!("now scrape_sample_limit{{{target}}} 100"),
            format!("now scrape_body_size_bytes{{{target}}} 68"),
        ]
    );
    let rows = world.next().await;
    let added = rows.iter().find(|row| row.contains("scrape_series_added")).unwrap();
    assert!(added.ends_with(" 0"), "{added}");
    assert!(!rows.iter().any(|row| row.contains(" is counter")), "metadata is written once: {rows:?}");
    let target = &world.scraper.targets().active[0];
    assert_eq!((target.health, &*target.last_error), (Health::Up, ""));
    assert_eq!((&*target.scrape_url, &*target.scrape_pool), ("http://a:1/metrics", "j"));
    let metadata = metadata_to_json(&world.scraper.metadata(|_| true), None);
    assert_eq!(
        metadata.to_string(),
        r#"[{"help":"Help.","metric":"m","target":{"env":"test","instance":"a:1","job":"j"},"type":"counter","unit":""}]"#
    );
}

#[tokio::test(start_paused = true)]
async fn what_vanishes_ends_at_the_scrape_that_misses_it() {
    let mut world = World::new(ONE);
    world.answer(
        "a",
        &[
            Ok("m{x=\"1\"} 1\nm{x=\"2\"} 2\n"),
            Ok("m{x=\"2\"} 3\n"),
            // The same series in another spelling goes on.
            Ok("m{x=\"2\",} 4\nm{x=\"1\"} 5\n"),
            Ok("m{x=\"3\"} 1\nbroken\n"),
            Ok("m{x=\"2\"} 6\n"),
            Err("connection refused"),
            Err("connection refused"),
        ],
    );
    let base = &mut None;
    assert_eq!(world.samples(base).await, "0 m{x=1} 1; 0 m{x=2} 2; 0 up 1");
    assert_eq!(world.samples(base).await, "10 m{x=2} 3; 10 m{x=1} stale; 10 up 1");
    assert_eq!(world.samples(base).await, "20 m{x=2} 4; 20 m{x=1} 5; 20 up 1");
    let broken = world.samples(base).await;
    assert!(
        broken == "30 m{x=2} stale; 30 m{x=1} stale; 30 up 0"
            || broken == "30 m{x=1} stale; 30 m{x=2} stale; 30 up 0",
        "{broken}"
    );
    let error = &world.scraper.targets().active[0].last_error;
    assert_eq!(error, "line 2: the value is not a number: \"broken\"");
    assert_eq!(world.samples(base).await, "40 m{x=2} 6; 40 up 1");
    assert_eq!(world.samples(base).await, "50 m{x=2} stale; 50 up 0");
    assert_eq!(world.samples(base).await, "60 up 0");
}

#[tokio::test(start_paused = true)]
async fn series_with_own_timestamps_do_not_end_unless_tracked() {
    let body: [Result<&'static str, &'static str>; 2] = [Ok("m 1 1700000040000\n"), Ok("n 1\n")];
    let mut world = World::new(ONE);
    world.answer("a", &body);
    let base = &mut None;
    world.samples(base).await;
    assert!(!world.samples(base).await.contains("stale"));
    let mut world = World::new(&ONE.replace("job_name: j", "job_name: j, track_timestamps_staleness: true"));
    world.answer("a", &body);
    world.samples(base).await;
    assert!(world.samples(base).await.contains(" m stale"));
    let mut world = World::new(&ONE.replace("job_name: j", "job_name: j, honor_timestamps: false"));
    world.answer("a", &body);
    let base = &mut None;
    assert_eq!(world.samples(base).await, "0 m 1; 0 up 1");
}

#[tokio::test(start_paused = true)]
async fn labels_of_target_and_series_both_ways() {
    let body = [Ok("m{instance=\"x\",exported_job=\"y\",job=\"z\"} 1\n")];
    let mut world = World::new(ONE);
    world.answer("a", &body);
    let row = &world.next().await[0];
    let labels = "exported_exported_job=z,exported_instance=x,exported_job=y,instance=a,job=j";
    assert!(row.contains(labels), "{row}");
    let mut world = World::new(&ONE.replace("job_name: j", "job_name: j, honor_labels: true"));
    world.answer("a", &body);
    let row = &world.next().await[0];
    assert!(row.contains("m{exported_job=y,instance=x,job=z}"), "{row}");
}

#[tokio::test(start_paused = true)]
async fn rules_drop_and_rename_once_per_series() {
    let rules = "metric_relabel_configs: [{source_labels: [__name__], regex: 'go_.*', action: drop}, \
                 {source_labels: [__name__], regex: 'm_(.*)', target_label: __name__}, {regex: x, action: labeldrop}]";
    let mut world = World::new(&ONE.replace("job_name: j", &format!("job_name: j, {rules}")));
    world.answer("a", &[Ok("go_a 1\nm_b{x=\"1\"} 2\nm_b{x=\"2\"} 3\n")]);
    let base = &mut None;
    // Two series became one: the second sample repeats the first and is left out.
    assert_eq!(world.samples(base).await, "0 b 2; 0 up 1");
    let error = &world.scraper.targets().active[0].last_error;
    assert!(error.starts_with("1 samples repeat a series"), "{error}");
    let rows = world.next().await;
    let value = |name: &str| rows.iter().find(|row| row.contains(name)).unwrap().rsplit(' ').next().unwrap();
    assert_eq!((value("samples_scraped"), value("post_metric_relabeling")), ("3", "2"));
}

#[tokio::test(start_paused = true)]
async fn limits_fail_the_scrape() {
    for (limit, error) in [
        ("sample_limit: 1", "sample_limit exceeded (samples: 2, limit: 1)"),
        (
            "label_limit: 3",
            "line 1: label_limit exceeded (metric: m, number of labels: 4, limit: 3): \"m{abc=\\\"defg\\\"} 1\"",
        ),
        (
            "label_name_length_limit: 2",
            "line 1: label_name_length_limit exceeded (metric: m, label name: __name__, length: 8, limit: 2): \
             \"m{abc=\\\"defg\\\"} 1\"",
        ),
        (
            "label_value_length_limit: 3",
            "line 1: label_value_length_limit exceeded (metric: m, label name: abc, value: \"defg\", length: 4, limit: \
             3): \"m{abc=\\\"defg\\\"} 1\"",
        ),
        ("target_limit: 1", "target_limit exceeded (number of targets: 2, limit: 1)"),
    ] {
        let targets = if limit.starts_with("target") { "[a, b]" } else { "[a]" };
        let yaml = ONE.replace("job_name: j", &format!("job_name: j, {limit}")).replace("[a]", targets);
        let mut world = World::new(&yaml);
        world.answer("a", &[Ok("m{abc=\"defg\"} 1\nn 2\n")]);
        let rows = world.next().await;
        assert!(rows[0].contains(" up{") && rows[0].ends_with(" 0"), "{limit}: {rows:?}");
        let active = world.scraper.targets().active;
        let told: Vec<_> =
            active.iter().map(|target| &*target.last_error).filter(|error| !error.is_empty()).collect();
        assert!(!told.is_empty() && told.iter().all(|told| *told == error), "{told:?}");
        assert!(world.registry.len() < 12, "{limit}: series beyond a limit are not remembered");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_is_given_up_after_its_timeout() {
    let mut world = World::new(&ONE.replace("job_name: j", "job_name: j, scrape_timeout: 3s"));
    world.answer("a", &[Err("hangs"), Ok("m 1\n")]);
    let base = &mut None;
    assert_eq!(world.samples(base).await, "0 up 0");
    let target = &world.scraper.targets().active[0];
    assert_eq!(target.last_error, "no complete answer within 3s (scrape_timeout)");
    assert_eq!(target.last_scrape_duration, Duration::from_secs(3));
    assert_eq!(world.samples(base).await, "10 m 1; 10 up 1");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_gone_ends_after_two_intervals() {
    let mut world = World::new(ONE);
    world.answer("a", &[Ok("m 1\n")]);
    let base = &mut None;
    assert_eq!(world.samples(base).await, "0 m 1; 0 up 1");
    let begin = Instant::now();
    world.scraper.reload(config("scrape_configs: []")).await.unwrap();
    assert!(world.scraper.targets().active.is_empty());
    let ended = lines(&world.batches.recv().await.unwrap(), &world.registry);
    assert_eq!(ended.len(), 6, "{ended:?}");
    assert!(ended.iter().all(|row| row.ends_with(" stale")), "{ended:?}");
    let at: i64 = ended[0].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(at - base.unwrap(), 10_000, "the time of the scrape it would have had");
    let waited = begin.elapsed().as_secs_f64();
    assert!((20.9..=21.1).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_successor_takes_the_series_over() {
    let mut world = World::new(ONE);
    world.answer("a", &[Ok("m 1\nn 1\n")]);
    let base = &mut None;
    world.samples(base).await;
    // Another path is another target with the same labels; rules that differ make the cache useless.
    let changed = "job_name: j, metrics_path: /x, metric_relabel_configs: [{regex: y, action: labeldrop}]";
    world.scraper.reload(config(&ONE.replace("job_name: j", changed))).await.unwrap();
    world.answer("a", &[Ok("m 2\n")]);
    let next = world.samples(base).await;
    let rows: Vec<_> = next.split("; ").map(|row| row.split_once(' ').unwrap().1).collect();
    assert_eq!(rows, ["m 2", "n stale", "up 1"]);
    for _ in 0..4 {
        assert!(!world.samples(base).await.contains("stale"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_touch_what_it_does_not_change() {
    let mut world = World::new(ONE);
    world.answer("a", &[Ok("m 1\n")]);
    world.answer("b", &[Ok("m 1\n")]);
    let base = &mut None;
    world.samples(base).await;
    let more =
        ONE.replace("]}]}]", "]}]}, {job_name: k, scrape_interval: 1s, static_configs: [{targets: [b]}]}]");
    world.scraper.reload(config(&more)).await.unwrap();
    assert_eq!(world.scraper.scrape_pools(), ["j", "k"]);
    // The first target is next scraped in its place, and none of its series is new.
    let of_a = loop {
        let rows = world.next().await;
        if rows[0].contains("instance=a") {
            break rows;
        }
    };
    let at: i64 = of_a[0].split(' ').next().unwrap().parse().unwrap();
    assert_eq!(at - base.unwrap(), 10_000);
    assert!(of_a.iter().any(|row| row.contains("scrape_series_added") && row.ends_with(" 0")), "{of_a:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_batches_are_offered_again_and_then_counted() {
    let mut world = World::new(ONE);
    world.answer("a", &[Ok("m 1\n")]);
    *world.refuse.lock() = 3;
    let base = &mut None;
    assert_eq!(world.samples(base).await, "0 m 1; 0 up 1");
    assert_eq!(world.scraper.targets().active[0].samples_lost, 0);
    // More than fit into an interval: that batch is lost, the next one is taken.
    *world.refuse.lock() = 8;
    let next = world.samples(base).await;
    assert_eq!(next, "20 m 1; 20 up 1");
    let target = &world.scraper.targets().active[0];
    assert_eq!(target.samples_lost, 6);
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_requests_up_and_ends_nothing() {
    let mut world = World::new(ONE);
    world.answer("a", &[Ok("m 1\n"), Err("hangs")]);
    world.next().await;
    tokio::time::sleep(Duration::from_millis(10_001)).await;
    let begin = Instant::now();
    world.scraper.stop().await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(world.scraper.reload(ScrapeConfig::default()).await.is_err());
    drop(world.scraper);
    assert!(world.batches.recv().await.is_none(), "nothing is written any more");
}

#[tokio::test(start_paused = true)]
async fn files_of_targets_are_read_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets.json");
    std::fs::write(&file, r#"[{"targets": ["a"], "labels": {"env": "x"}}]"#).unwrap();
    let yaml = format!(
        "scrape_configs: [{{job_name: j, scrape_interval: 10s, file_sd_configs: [{{files: ['{}/*.json']}}], \
         relabel_configs: [{{source_labels: [__address__], regex: c, action: drop}}]}}]",
        folder.path().display()
    );
    let world = World::new(&yaml);
    world.answer("a", &[Ok("m 1\n")]);
    world.answer("b", &[Ok("m 1\n")]);
    let wait = async || tokio::time::sleep(Duration::from_secs(6)).await;
    let instances = || -> Vec<String> {
        world.scraper.targets().active.iter().map(|target| target.labels.get("instance").to_owned()).collect()
    };
    wait().await;
    assert_eq!(instances(), ["a"]);
    std::fs::write(&file, r#"[{"targets": ["a"], "labels": {"env": "x"}}, {"targets": ["b", "c"]}]"#)
        .unwrap();
    wait().await;
    assert_eq!(instances(), ["a", "b"]);
    let targets = world.scraper.targets().to_json(TargetFilter::Dropped, Some("j"));
    assert_eq!(targets["droppedTargetCounts"]["j"], 1);
    assert_eq!(targets["droppedTargets"][0]["discoveredLabels"]["__address__"], "c");
    assert!(targets["activeTargets"].as_array().unwrap().is_empty());
    // A broken file changes nothing and is told.
    std::fs::write(&file, "[{\"targets\": [").unwrap();
    wait().await;
    assert_eq!(instances(), ["a", "b"]);
    let problems = world.scraper.problems();
    assert!(problems[0].contains("targets.json:1:14: EOF while parsing"), "{problems:?}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(folder.path().join("other.json"), r#"[{"targets": ["b"]}]"#).unwrap();
    wait().await;
    assert_eq!(instances(), ["b"]);
    assert!(world.scraper.problems().is_empty());
}

#[tokio::test(start_paused = true)]
async fn exemplars_and_starts_of_openmetrics() {
    let mut world = World::new(ONE);
    let body = "# TYPE m counter\nm_total 1 # {trace_id=\"t\"} 2 3.5\nm_created 4\n# EOF\n";
    world.answer("a", &[Ok(body)]);
    let rows = world.next().await;
    assert!(rows[0].ends_with("m_total{instance=a,job=j} 1 since 4000"), "{rows:?}");
    assert_eq!(rows[1], "3500 m_total{instance=a,job=j} exemplar 2 {\"trace_id\":\"t\"}");
    let rows = world.next().await;
    assert!(!rows.iter().any(|row| row.contains("exemplar")), "an exemplar is written once: {rows:?}");
}
