//! All targets of a configuration: starts, stops and replaces their tasks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use trine_model::TenantId;
use trine_schema::{MetricBatch, StreamRegistry};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    DroppedTarget, Fetch, LabelSet, ScrapeConfig, TargetMetadata, TargetState, Targets,
    cache::Cache,
    config::Job,
    discovery::{self, Files},
    fetch::HttpFetch,
    reading::Reading,
    rules::SampleRules,
    run::{Append, Clock, Ended, Ending, Loop, Status, Surroundings},
    target::{Found, Target},
};

/// Why scraping cannot begin or go on with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScrapeError {
    /// A job's certificates cannot be used.
    #[error("{0}")]
    Client(String),
    /// The scraper was stopped before.
    #[error("scraping was stopped; start it anew")]
    Stopped,
}

/// Makes what asks the targets of a job; tests put their own in place of HTTP.
pub type MakeFetch = Box<dyn Fn(&Job) -> Result<Arc<dyn Fetch>, String> + Send + Sync>;

/// Scrapes the targets of a configuration until it is stopped. Dropping it stops it too.
pub struct Scraper {
    commands: mpsc::Sender<Command>,
    view: Arc<RwLock<View>>,
    around: Arc<Surroundings>,
}

enum Command {
    Reload(Box<ScrapeConfig>, oneshot::Sender<Result<(), ScrapeError>>),
    Stop(oneshot::Sender<()>),
}

/// What makes a target one: its labels behind relabelling, and its URL.
type Key = (LabelSet, String);

/// What a job's addresses came to.
#[derive(Default)]
struct Addresses {
    active: HashMap<Key, Target>,
    dropped: Vec<LabelSet>,
    problems: Vec<String>,
}

/// What is shown of the pools, by name.
type View = BTreeMap<String, PoolView>;

#[derive(Default)]
struct PoolView {
    active: Vec<(Arc<Target>, Arc<Mutex<Status>>)>,
    dropped: Vec<LabelSet>,
    dropped_count: usize,
    problems: Vec<String>,
}

/// What surrounds a scraper.
pub struct ScraperOptions {
    /// Whose series.
    pub tenant: TenantId,
    /// Knows the series.
    pub registry: Arc<StreamRegistry>,
    /// Nanoseconds since 1970; the system's clock by default.
    pub clock: Clock,
    /// HTTP by default.
    pub fetch: MakeFetch,
}

impl ScraperOptions {
    /// With the system's clock and HTTP.
    pub fn new(tenant: TenantId, registry: Arc<StreamRegistry>) -> Self {
        let clock = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
        };
        let fetch = |job: &Job| Ok(Arc::new(HttpFetch::new(Arc::new(job.clone()))?) as Arc<dyn Fetch>);
        Self { tenant, registry, clock: Arc::new(clock), fetch: Box::new(fetch) }
    }
}

impl Scraper {
    /// Begins to scrape, in tasks of the runtime it is called in. Each target has at most one batch under way;
    /// `append` is called again with a batch it refused until the target's next scrape is due, then the batch is
    /// lost and counted ([`TargetState::samples_lost`]).
    pub fn start<F, Fut, E>(
        config: ScrapeConfig,
        options: ScraperOptions,
        append: F,
    ) -> Result<Self, ScrapeError>
    where
        F: Fn(MetricBatch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let append: Append = Arc::new(move |batch| {
            let appended = append(batch);
            Box::pin(async move { appended.await.map_err(|error| error.to_string()) })
        });
        let ScraperOptions { tenant, registry, clock, fetch } = options;
        let seed = xxh3_64(format!("{:?}", config.global.external_labels).as_bytes());
        let around =
            Arc::new(Surroundings { tenant, registry, append, clock, seed, bytes: AtomicU64::new(0) });
        let view = Arc::new(RwLock::new(View::new()));
        let (commands, receiver) = mpsc::channel(4);
        let mut manager = Manager {
            around: around.clone(),
            fetch,
            view: view.clone(),
            pools: BTreeMap::new(),
            leaving: Vec::new(),
        };
        let fetches = manager.fetches(&config)?;
        tokio::spawn(async move {
            manager.apply(config, fetches).await;
            manager.run(receiver).await;
        });
        Ok(Self { commands, view, around })
    }

    /// Goes on with another configuration. Targets it does not change are not interrupted; when it cannot be used
    /// nothing changes.
    pub async fn reload(&self, config: ScrapeConfig) -> Result<(), ScrapeError> {
        let (done, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Reload(Box::new(config), done)).await;
        sent.map_err(|_| ScrapeError::Stopped)?;
        answer.await.map_err(|_| ScrapeError::Stopped)?
    }

    /// Stops: requests are given up, batches under way are appended. Series are not ended, since a server that
    /// stops goes on later.
    pub async fn stop(&self) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// Bytes of all bodies so far, unpacked.
    pub fn body_bytes(&self) -> u64 {
        self.around.bytes.load(Relaxed)
    }

    /// Names of the jobs.
    pub fn scrape_pools(&self) -> Vec<String> {
        self.view.read().keys().cloned().collect()
    }

    /// All targets.
    pub fn targets(&self) -> Targets {
        let mut targets = Targets::default();
        for (name, pool) in &*self.view.read() {
            for (target, status) in &pool.active {
                let status = status.lock().clone();
                targets.active.push(TargetState {
                    discovered_labels: target.discovered.clone(),
                    labels: target.labels.clone(),
                    scrape_pool: name.clone(),
                    scrape_url: target.url.to_string(),
                    last_error: status.last_error,
                    last_scrape_ms: status.last_scrape_ms,
                    last_scrape_duration: status.last_duration,
                    health: status.health,
                    scrape_interval: target.interval,
                    scrape_timeout: target.timeout,
                    samples_lost: status.samples_lost,
                });
            }
            for labels in &pool.dropped {
                let scrape_pool = name.clone();
                targets.dropped.push(DroppedTarget { discovered_labels: labels.clone(), scrape_pool });
            }
            targets.dropped_counts.insert(name.clone(), pool.dropped_count);
        }
        targets
    }

    /// Metadata as the targets tell it, of those targets whose labels fit.
    pub fn metadata(&self, fits: impl Fn(&LabelSet) -> bool) -> Vec<TargetMetadata> {
        let mut list = Vec::new();
        for pool in self.view.read().values() {
            for (target, status) in pool.active.iter().filter(|(target, _)| fits(&target.labels)) {
                let families = status.lock().families.clone();
                list.extend(families.iter().map(|(name, metadata)| TargetMetadata {
                    target: target.labels.clone(),
                    metric: name.to_string(),
                    metadata: metadata.clone(),
                }));
            }
        }
        list
    }

    /// What is wrong with files of targets and with single targets, by job.
    pub fn problems(&self) -> Vec<String> {
        let view = self.view.read();
        let of = |(name, pool): (&String, &PoolView)| {
            pool.problems.iter().map(|problem| format!("job {name:?}: {problem}")).collect::<Vec<_>>()
        };
        view.iter().flat_map(of).collect()
    }
}

struct Manager {
    around: Arc<Surroundings>,
    fetch: MakeFetch,
    view: Arc<RwLock<View>>,
    pools: BTreeMap<String, Pool>,
    /// Targets of jobs that are gone.
    leaving: Vec<Ending>,
}

/// The targets of one job.
struct Pool {
    job: Arc<Job>,
    fetch: Arc<dyn Fetch>,
    files: Vec<Files>,
    forced: Arc<Mutex<Option<String>>>,
    running: HashMap<Key, Running>,
    /// Targets that are gone, by their labels: the first that comes with the same labels goes on with their
    /// series.
    ending: HashMap<LabelSet, Ending>,
}

struct Running {
    target: Arc<Target>,
    status: Arc<Mutex<Status>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Ended>,
}

impl Running {
    /// Stops it and returns with what it leaves.
    async fn stop(self) -> Option<(LabelSet, Ended)> {
        let _ = self.stop.send(true);
        let ended = self.task.await.ok()?;
        Some((self.target.labels.clone(), ended))
    }
}

impl Manager {
    fn fetches(&self, config: &ScrapeConfig) -> Result<Vec<Arc<dyn Fetch>>, ScrapeError> {
        config.jobs.iter().map(|job| (self.fetch)(job).map_err(ScrapeError::Client)).collect()
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut poll = interval_at(Instant::now() + discovery::POLL, discovery::POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Reload(config, done)) => {
                        let outcome = match self.fetches(&config) {
                            Ok(fetches) => {
                                self.apply(*config, fetches).await;
                                Ok(())
                            }
                            Err(error) => Err(error),
                        };
                        let _ = done.send(outcome);
                    }
                    Some(Command::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.stop().await,
                },
                _ = poll.tick() => {
                    let mut news = false;
                    for pool in self.pools.values_mut() {
                        if pool.refresh() {
                            news = true;
                            pool.sync(&self.around).await;
                        }
                    }
                    if news {
                        self.show();
                    }
                    self.leaving.retain(|ending| !ending.is_done());
                }
            }
        }
    }

    async fn apply(&mut self, config: ScrapeConfig, fetches: Vec<Arc<dyn Fetch>>) {
        let mut before = std::mem::take(&mut self.pools);
        for (job, fetch) in config.jobs.into_iter().zip(fetches) {
            let name = job.job_name.clone();
            let mut pool = match before.remove(&name) {
                Some(pool) if *pool.job == job => pool,
                Some(mut pool) => {
                    pool.halt(&self.around).await;
                    Pool { ending: std::mem::take(&mut pool.ending), ..Pool::new(job, fetch) }
                }
                None => Pool::new(job, fetch),
            };
            pool.refresh();
            pool.sync(&self.around).await;
            self.pools.insert(name, pool);
        }
        for mut pool in before.into_values() {
            pool.halt(&self.around).await;
            self.leaving.extend(pool.ending.drain().map(|(_, ending)| ending));
        }
        self.show();
    }

    /// Puts the pools where requests see them.
    fn show(&self) {
        let view = self.pools.iter().map(|(name, pool)| (name.clone(), pool.view())).collect();
        *self.view.write() = view;
    }

    async fn stop(&mut self) {
        let pools = std::mem::take(&mut self.pools).into_values();
        let mut running = Vec::new();
        for pool in pools {
            pool.ending.into_values().for_each(Ending::forget);
            running.extend(pool.running.into_values());
        }
        self.leaving.drain(..).for_each(Ending::forget);
        join_all(running.into_iter().map(Running::stop)).await;
    }
}

impl Pool {
    fn new(job: Job, fetch: Arc<dyn Fetch>) -> Self {
        let files = job.file_sd_configs.iter().cloned().map(Files::new).collect();
        Self {
            job: Arc::new(job),
            fetch,
            files,
            forced: Arc::default(),
            running: HashMap::new(),
            ending: HashMap::new(),
        }
    }

    /// Reads files of targets again; whether there is news.
    fn refresh(&mut self) -> bool {
        // Each of them must be looked at.
        self.files.iter_mut().fold(false, |news, files| files.refresh() | news)
    }

    /// All addresses, with their errors, each target once.
    fn found(&self) -> Addresses {
        let mut found = Addresses::default();
        let groups = self.job.static_configs.iter().chain(self.files.iter().flat_map(Files::groups));
        for address in groups.flat_map(|group| Target::of_group(group, &self.job)) {
            match address {
                Ok(Found::Active(target)) => {
                    found.active.insert(target.key(), *target);
                }
                Ok(Found::Dropped(labels)) => found.dropped.push(labels),
                Err(problem) => found.problems.push(problem),
            }
        }
        found.problems.extend(self.files.iter().flat_map(Files::problems).cloned());
        found
    }

    /// Starts targets that are new and stops those that are gone.
    async fn sync(&mut self, around: &Arc<Surroundings>) {
        let found = self.found().active;
        let gone: Vec<_> = self.running.keys().filter(|key| !found.contains_key(*key)).cloned().collect();
        let gone: Vec<_> = gone.iter().filter_map(|key| self.running.remove(key)).collect();
        self.end(gone, around).await;
        *self.forced.lock() = self.job.limits.targets.filter(|limit| found.len() > *limit).map(|limit| {
            format!("target_limit exceeded (number of targets: {}, limit: {limit})", found.len())
        });
        for (key, target) in found {
            if !self.running.contains_key(&key) {
                let running = self.start(target, around);
                self.running.insert(key, running);
            }
        }
        self.ending.retain(|_, ending| !ending.is_done());
    }

    /// Stops all targets.
    async fn halt(&mut self, around: &Arc<Surroundings>) {
        let running = self.running.drain().map(|(_, running)| running).collect();
        self.end(running, around).await;
    }

    async fn end(&mut self, gone: Vec<Running>, around: &Arc<Surroundings>) {
        for (labels, ended) in join_all(gone.into_iter().map(Running::stop)).await.into_iter().flatten() {
            if let Some(ending) = Ending::new(around, ended) {
                self.ending.insert(labels, ending);
            }
        }
    }

    fn start(&mut self, target: Target, around: &Arc<Surroundings>) -> Running {
        let rules = SampleRules::new(&self.job, target.labels.clone());
        let before = self.ending.remove(&target.labels).and_then(Ending::take);
        let reading = match before {
            Some(before) if before.rules == rules => before,
            Some(before) => {
                let cache = Cache::inheriting(before.cache.live());
                Reading::new(around.tenant.clone(), rules, cache)
            }
            None => Reading::new(around.tenant.clone(), rules, Cache::default()),
        };
        let target = Arc::new(target);
        let status = Arc::<Mutex<Status>>::default();
        let (stop, stopped) = watch::channel(false);
        let own = Loop {
            around: around.clone(),
            job: self.job.clone(),
            target: target.clone(),
            fetch: self.fetch.clone(),
            status: status.clone(),
            forced: self.forced.clone(),
            reading,
            version: 0,
        };
        Running { target, status, stop, task: tokio::spawn(own.run(stopped)) }
    }

    fn view(&self) -> PoolView {
        let Addresses { mut dropped, problems, .. } = self.found();
        let dropped_count = dropped.len();
        dropped.truncate(self.job.limits.dropped_targets.unwrap_or(usize::MAX));
        let mut active: Vec<_> =
            self.running.values().map(|running| (running.target.clone(), running.status.clone())).collect();
        active.sort_by(|(one, _), (two, _)| (&one.url, &one.labels).cmp(&(&two.url, &two.labels)));
        PoolView { active, dropped, dropped_count, problems }
    }
}
