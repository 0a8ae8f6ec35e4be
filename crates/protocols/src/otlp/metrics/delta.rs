//! Delta points become cumulative ones: a running total per series.
//!
//! Decoding adds a point to the total at once, so that requests that run beside each other build upon each
//! other, and notes in a [`DeltaUpdate`] what the total was before. The update is committed when the store has
//! taken the batch. Dropped before that (the append failed, or the batch was known already) it puts back every
//! total on which nobody has built since; where somebody has, the total stays right and only the sample that
//! was refused is missing. A point of the very time of the last one is that point sent again: it gives the same
//! total and adds nothing, but counts as built upon it, since the first one may fail yet. After a restart totals
//! begin at zero, which readers know as a counter reset.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use trine_schema::{NativeHistogram, StreamRef};

use crate::{intake::Fault, native};

/// Series that had no point for so long give way when there are too many, in milliseconds.
const IDLE_MS: i64 = 3_600_000;

/// Totals are looked through for idle ones at most this often, in milliseconds.
const SWEEP_MS: i64 = 60_000;

/// The running totals of series whose sender gives deltas; one for a process.
#[derive(Debug)]
pub struct DeltaState {
    max_series: usize,
    totals: Mutex<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    by_series: HashMap<StreamRef, Total>,
    next_sweep_ms: i64,
    /// Totals written so far.
    written: u64,
}

#[derive(Debug, Clone)]
struct Total {
    /// Which one of all that were written.
    number: u64,
    last_ms: i64,
    /// When the total was zero; 0 where the sender did not say.
    start_ms: i64,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Float(f64),
    Histogram(Arc<NativeHistogram>),
}

impl Default for DeltaState {
    fn default() -> Self {
        Self::new(Self::MAX_SERIES)
    }
}

impl DeltaState {
    /// Series of a [`DeltaState::default`]; one takes about 100 bytes, a histogram more.
    pub const MAX_SERIES: usize = 500_000;

    /// Totals of at most so many series.
    pub fn new(max_series: usize) -> Self {
        Self { max_series, totals: Mutex::default() }
    }

    /// Series with a total.
    pub fn len(&self) -> usize {
        self.totals.lock().by_series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a request has added to a [`DeltaState`]. Commit it when the store has taken the batch; dropped, it is
/// undone.
#[derive(Debug)]
#[must_use = "dropped it is undone; commit it when the batch was stored"]
pub struct DeltaUpdate {
    state: Arc<DeltaState>,
    /// Series, its total before, and the number of the one that stands there now.
    undo: Vec<(StreamRef, Option<Total>, u64)>,
}

impl DeltaUpdate {
    pub(super) fn new(state: &Arc<DeltaState>) -> Self {
        Self { state: state.clone(), undo: Vec::new() }
    }

    /// The batch was stored.
    pub fn commit(mut self) {
        self.undo.clear();
    }

    /// Replaces differences of series, all of one point, by totals. Gives when they began.
    pub(super) fn floats(
        &mut self,
        rows: &mut [(StreamRef, f64)],
        (at_ms, start_ms): (i64, i64),
        now_ms: i64,
    ) -> Result<i64, Fault> {
        let state = self.state.clone();
        let mut totals = state.totals.lock();
        totals.admit(rows.iter().map(|(series, _)| *series), at_ms, state.max_series, now_ms)?;
        let mut began = start_ms;
        for (series, value) in rows {
            let before = totals.by_series.get(series);
            let mut start = start_ms;
            if let Some(Total { last_ms, start_ms, value: Value::Float(sum), .. }) = before {
                (start, began) = (*start_ms, *start_ms);
                *value = if *last_ms == at_ms { *sum } else { *sum + *value };
            }
            self.put(&mut totals, *series, (at_ms, start), Value::Float(*value));
        }
        Ok(began)
    }

    /// Replaces the difference of a native histogram by the total. Gives when it began.
    pub(super) fn histogram(
        &mut self,
        series: StreamRef,
        histogram: &mut NativeHistogram,
        (at_ms, start_ms): (i64, i64),
        now_ms: i64,
    ) -> Result<i64, Fault> {
        let state = self.state.clone();
        let mut totals = state.totals.lock();
        totals.admit([series].into_iter(), at_ms, state.max_series, now_ms)?;
        let mut start = start_ms;
        let before = totals.by_series.get(&series);
        if let Some(Total { last_ms, start_ms, value: Value::Histogram(sum), .. }) = before {
            start = *start_ms;
            if *last_ms == at_ms {
                histogram.clone_from(sum);
            } else {
                native::add(histogram, sum);
            }
        }
        self.put(&mut totals, series, (at_ms, start), Value::Histogram(Arc::new(histogram.clone())));
        Ok(start)
    }

    fn put(&mut self, totals: &mut Totals, series: StreamRef, (last_ms, start_ms): (i64, i64), value: Value) {
        totals.written += 1;
        let number = totals.written;
        let before = totals.by_series.insert(series, Total { number, last_ms, start_ms, value });
        self.undo.push((series, before, number));
    }
}

impl Drop for DeltaUpdate {
    fn drop(&mut self) {
        if self.undo.is_empty() {
            return;
        }
        let mut totals = self.state.totals.lock();
        for (series, before, number) in self.undo.drain(..).rev() {
            if totals.by_series.get(&series).is_none_or(|total| total.number != number) {
                continue;
            }
            match before {
                Some(before) => totals.by_series.insert(series, before),
                None => totals.by_series.remove(&series),
            };
        }
    }
}

impl Totals {
    /// Refuses points that come too late, and series for which there is no room.
    fn admit(
        &mut self,
        series: impl Iterator<Item = StreamRef>,
        at_ms: i64,
        max_series: usize,
        now_ms: i64,
    ) -> Result<(), Fault> {
        let mut new = 0;
        for series in series {
            match self.by_series.get(&series) {
                Some(total) if at_ms < total.last_ms => {
                    let text = format!(
                        "the delta point of time {at_ms} ms is older than the last one of its series, {} ms; \
                         send them in order",
                        total.last_ms
                    );
                    return Err(Fault::Record(text.into()));
                }
                Some(_) => {}
                None => new += 1,
            }
        }
        if new > 0 && self.by_series.len() + new > max_series && now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms + SWEEP_MS;
            self.by_series.retain(|_, total| total.last_ms > now_ms - IDLE_MS);
        }
        if new > 0 && self.by_series.len() + new > max_series {
            let text = format!(
                "more than {max_series} series with delta temporality are summed up; send cumulative \
                 temporality, or fewer series"
            );
            return Err(Fault::Record(text.into()));
        }
        Ok(())
    }
}
