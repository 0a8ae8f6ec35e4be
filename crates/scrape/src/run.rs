//! The task of one target: scrape, append, wait.
//!
//! What it writes at which time is Prometheus': samples have the time at which their scrape began, put on a
//! multiple of the interval where it is within [`TOLERANCE`] of one; a series that is missing ends at the time
//! of the scrape that misses it; when a scrape fails all end at its time; when the target goes, they end at the
//! time its next scrape would have had, a little more than two intervals later, so that a successor can take
//! them over in the meantime ([`Ending`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use trine_model::TenantId;
use trine_schema::{Metadata, MetricBatch, StreamRegistry};

use crate::{
    Fetch, FetchError, Health,
    config::Job,
    reading::{Counts, Reading},
    target::Target,
};

/// How far from its place a scrape may begin and still have the time of its place; at most a hundredth of the
/// interval. Equal distances of time are cheap to keep.
const TOLERANCE: Duration = Duration::from_millis(2);

/// First wait before a refused batch is offered again; it doubles each time.
const RETRY: Duration = Duration::from_millis(50);

/// Takes batches; an error says why it did not.
pub(crate) type Append = Arc<dyn Fn(MetricBatch) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Nanoseconds since 1970.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What all targets share.
pub(crate) struct Surroundings {
    pub(crate) tenant: TenantId,
    pub(crate) registry: Arc<StreamRegistry>,
    pub(crate) append: Append,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    /// Bytes of all bodies, unpacked.
    pub(crate) bytes: AtomicU64,
}

/// How a target is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) health: Health,
    pub(crate) last_error: String,
    pub(crate) last_scrape_ms: Option<i64>,
    pub(crate) last_duration: Duration,
    pub(crate) samples_lost: u64,
    pub(crate) families: Arc<Vec<(Box<str>, Metadata)>>,
}

/// The task's parts.
pub(crate) struct Loop {
    pub(crate) around: Arc<Surroundings>,
    pub(crate) job: Arc<Job>,
    pub(crate) target: Arc<Target>,
    pub(crate) fetch: Arc<dyn Fetch>,
    pub(crate) status: Arc<Mutex<Status>>,
    /// Why no target of the job is scraped.
    pub(crate) forced: Arc<Mutex<Option<String>>>,
    pub(crate) reading: Reading,
    /// Version of the metadata in `status`.
    pub(crate) version: u64,
}

/// A loop that ended.
pub(crate) struct Ended {
    pub(crate) reading: Reading,
    /// When the next scrape would have been, if there was one at all.
    due: Option<Instant>,
    interval: Duration,
    reports: usize,
}

/// The time of a scrape that begins at `now`, in nanoseconds; `place` is where the last one belonged, or this one
/// if it is the first.
fn align(place: &mut i64, now: i64, interval: Duration) -> i64 {
    let tolerance = (interval / 100).min(TOLERANCE).as_nanos() as i64;
    let interval = interval.as_nanos() as i64;
    let steps = (now - *place + interval / 2).div_euclid(interval);
    *place += steps * interval;
    if (now - *place).abs() > tolerance {
        // The clock was set, or the machine is late: the next one may find the same place again.
        *place = now;
    }
    *place
}

impl Loop {
    /// Scrapes until `stop` is true or its sender is gone.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let interval = self.target.interval;
        let now = (self.around.clock)();
        let offset = self.target.offset(now, self.around.seed);
        let mut due = Instant::now() + offset;
        let mut place = now + offset.as_nanos() as i64;
        let mut scraped = false;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = sleep_until(due) => {}
            }
            let at_ms = align(&mut place, (self.around.clock)(), interval).div_euclid(1_000_000);
            let begin = Instant::now();
            let fetched = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                fetched = self.fetch() => fetched,
            };
            while due <= Instant::now() {
                due += interval;
            }
            let (counts, outcome) = self.read(fetched, at_ms);
            self.report(counts, outcome, at_ms, begin, due, &mut stop).await;
            scraped = true;
        }
        let reports = self.reports();
        Ended { reading: self.reading, due: scraped.then_some(due), interval, reports }
    }

    /// How many series report.
    fn reports(&self) -> usize {
        if self.job.extra_scrape_metrics { 8 } else { 5 }
    }

    async fn fetch(&self) -> Result<crate::Fetched, FetchError> {
        if let Some(reason) = self.forced.lock().clone() {
            return Err(FetchError::Failed(reason));
        }
        let limit = self.target.timeout;
        match timeout(limit, self.fetch.fetch(self.target.url.clone(), limit)).await {
            Ok(fetched) => fetched,
            Err(_) => {
                let limit = crate::duration::format(limit);
                Err(FetchError::Failed(format!("no complete answer within {limit} (scrape_timeout)")))
            }
        }
    }

    fn read(
        &mut self,
        fetched: Result<crate::Fetched, FetchError>,
        at_ms: i64,
    ) -> (Counts, Result<(), String>) {
        let failed = |bytes, reason: String| (Counts { bytes, ..Counts::default() }, Err(reason));
        match fetched {
            Ok(fetched) => {
                self.around.bytes.fetch_add(fetched.body.len() as u64, Relaxed);
                self.reading.read(fetched.format, &fetched.body, &self.job, &self.around.registry, at_ms)
            }
            Err(error) => {
                self.reading.nothing(at_ms);
                failed(if matches!(error, FetchError::TooLong(_)) { -1 } else { 0 }, error.to_string())
            }
        }
    }

    async fn report(
        &mut self,
        counts: Counts,
        outcome: Result<(), String>,
        at_ms: i64,
        begin: Instant,
        due: Instant,
        stop: &mut watch::Receiver<bool>,
    ) {
        let duration = begin.elapsed();
        let reports = [
            f64::from(u8::from(outcome.is_ok())),
            duration.as_secs_f64(),
            counts.scraped as f64,
            counts.kept as f64,
            counts.added as f64,
            self.target.timeout.as_secs_f64(),
            self.job.limits.samples.unwrap_or(0) as f64,
            counts.bytes as f64,
        ];
        let reports = &reports[..self.reports()];
        let batch = self.reading.batch(reports, at_ms, &self.around.registry);
        {
            let mut status = self.status.lock();
            status.health = if outcome.is_ok() { Health::Up } else { Health::Down };
            status.last_error = outcome.err().unwrap_or_default();
            status.last_scrape_ms = Some(at_ms);
            status.last_duration = duration;
            if counts.duplicates + counts.ahead > 0 && status.last_error.is_empty() {
                status.last_error = format!(
                    "{} samples repeat a series of the scrape and {} are over 10 minutes in the future; they are \
                     left out",
                    counts.duplicates, counts.ahead
                );
            }
            if self.version != self.reading.cache.version() {
                self.version = self.reading.cache.version();
                status.families = Arc::new(self.reading.cache.metadata());
            }
        }
        let (rows, appended) = match batch {
            Ok(batch) => (batch.records.num_rows(), append(&self.around, batch, due, Some(stop)).await),
            Err(reason) => (counts.kept, Err(reason)),
        };
        if let Err(reason) = appended {
            self.reading.cache.unwrite();
            let mut status = self.status.lock();
            status.samples_lost += rows as u64;
            status.last_error = format!("{rows} samples are lost, they were not stored: {reason}");
        }
    }
}

/// Offers a batch until it is taken, `until` is there, or the loop is told to stop.
async fn append(
    around: &Surroundings,
    batch: MetricBatch,
    until: Instant,
    mut stop: Option<&mut watch::Receiver<bool>>,
) -> Result<(), String> {
    let mut wait = RETRY;
    loop {
        let Err(reason) = (around.append)(batch.clone()).await else { return Ok(()) };
        if Instant::now() + wait >= until {
            return Err(reason);
        }
        match &mut stop {
            None => sleep(wait).await,
            Some(stop) => tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Err(reason),
                () = sleep(wait) => {}
            },
        }
        wait *= 2;
    }
}

/// A target that is gone, whose series are not ended yet.
pub(crate) struct Ending {
    ended: Arc<Mutex<Option<Ended>>>,
    task: JoinHandle<()>,
}

impl Ending {
    /// `None` when it was never scraped, so that there is nothing to end.
    pub(crate) fn new(around: &Arc<Surroundings>, ended: Ended) -> Option<Self> {
        let (due, interval) = (ended.due?, ended.interval);
        let late = due + interval + interval / 10;
        let around = around.clone();
        let to_due = due.saturating_duration_since(Instant::now()).as_nanos() as i64;
        let at_ms = ((around.clock)() + to_due).div_euclid(1_000_000);
        let ended = Arc::new(Mutex::new(Some(ended)));
        let own = ended.clone();
        let task = tokio::spawn(async move {
            sleep_until(late).await;
            let Some(mut ended) = own.lock().take() else { return };
            let reports = ended.reports;
            if let Ok(batch) = ended.reading.ending(reports, at_ms, &around.registry) {
                // There is no target left that could tell a failure; readers look back five minutes at most.
                let _ = append(&around, batch, Instant::now() + interval, None).await;
            }
        });
        Some(Self { ended, task })
    }

    /// What it was to end, for a successor; `None` when that is done.
    pub(crate) fn take(self) -> Option<Reading> {
        let ended = self.ended.lock().take()?;
        self.task.abort();
        Some(ended.reading)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    /// Ends nothing: the server stops and goes on later.
    pub(crate) fn forget(self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_put_in_their_places() {
        const SECOND: i64 = 1_000_000_000;
        let interval = Duration::from_secs(10);
        let mut place = SECOND;
        for (now, want) in [
            (SECOND + 1_000_000, SECOND),
            (11 * SECOND - 2_000_000, 11 * SECOND),
            // Two were skipped.
            (41 * SECOND + 2_000_000, 41 * SECOND),
            // Late, and in place again.
            (51 * SECOND + 50_000_000, 51 * SECOND + 50_000_000),
            (61 * SECOND, 61 * SECOND),
            (71 * SECOND + 1, 71 * SECOND),
            // The clock was set back.
            (5 * SECOND + 3, 5 * SECOND + 3),
        ] {
            assert_eq!(align(&mut place, now, interval), want, "{now}");
        }
        let mut place = 0;
        let short = Duration::from_millis(100);
        assert_eq!(align(&mut place, 101_500_000, short), 101_500_000, "a hundredth of 100 ms is 1 ms");
    }
}
