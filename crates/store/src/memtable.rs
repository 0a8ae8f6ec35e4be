//! Rows in memory: immutable batches by signal and tenant.
//!
//! Small batches are folded together (16 of a tier become one of the next), so that ten thousand tiny
//! pushes do not make a scan touch ten thousand batches; a row is copied at most three times.
//! Only the writer thread changes a memtable.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::TimestampNanosecondType,
};
use hashbrown::HashMap;
use trine_model::TenantId;
use trine_schema::{
    Signal,
    columns::{attributes_of, memory},
    signal::TIMESTAMP,
};

/// Batches of fewer rows than these belong to tier 0, 1, 2; larger ones stay as they are.
const TIER_ROWS: [usize; 3] = [64, 512, 4096];

/// So many batches of a tier are folded into one.
const FOLD: usize = 16;

/// Names one batch remembers.
const MAX_NAMES: usize = 1000;

/// A batch in memory.
pub(crate) struct MemBatch {
    pub records: RecordBatch,
    min_timestamp: i64,
    max_timestamp: i64,
    /// Memory in bytes.
    pub bytes: usize,
    /// Attribute names of logs or spans with counts, found when first asked.
    names: OnceLock<Vec<(String, u64)>>,
}

impl MemBatch {
    pub fn new(records: RecordBatch) -> Self {
        let times = records.column(TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
        let (min, max) = times.iter().fold((i64::MAX, i64::MIN), |(min, max), t| (min.min(*t), max.max(*t)));
        // Bytes in use, not bytes reserved: memory never touched is no memory.
        let bytes = memory(&records);
        Self { records, min_timestamp: min, max_timestamp: max, bytes, names: OnceLock::new() }
    }

    fn tier(&self) -> Option<usize> {
        TIER_ROWS.iter().position(|rows| self.records.num_rows() < *rows)
    }

    fn names(&self) -> &[(String, u64)] {
        self.names.get_or_init(|| {
            let attributes = self.records.column_by_name("attributes");
            let map = attributes.expect("BUG: samples are not asked for attributes").as_map();
            let mut counts: HashMap<&str, u64> = HashMap::new();
            for row in 0..self.records.num_rows() {
                for (key, _) in attributes_of(map, row) {
                    if counts.len() < MAX_NAMES || counts.contains_key(key) {
                        *counts.entry(key).or_default() += 1;
                    }
                }
            }
            counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
        })
    }
}

/// What a question asks for, as far as whole batches and segments can be passed by.
pub(crate) struct Wanted<'a> {
    pub signal: Signal,
    pub tenant: &'a TenantId,
    /// First and last nanosecond, both inclusive.
    pub start: i64,
    pub last: i64,
}

impl Wanted<'_> {
    /// Whether rows between these times may be among it.
    pub fn overlaps(&self, min_timestamp: i64, max_timestamp: i64) -> bool {
        max_timestamp >= self.start && min_timestamp <= self.last
    }
}

/// One memtable generation.
pub(crate) struct Memtable {
    /// Counts up from 1.
    pub generation: u64,
    /// By position in [`Signal::ALL`].
    tables: [HashMap<TenantId, Vec<Arc<MemBatch>>>; Signal::ALL.len()],
    pub rows: u64,
    /// Memory in bytes.
    pub bytes: usize,
    /// First and last log sequence in it; `None` while empty.
    pub sequences: Option<(u64, u64)>,
    /// Keys of its batches with their time of arrival in milliseconds.
    pub keys: Vec<(u128, i64)>,
    /// When its first batch came.
    pub born: Option<Instant>,
}

/// Batches of one tenant to fold, and what they become.
pub(crate) struct Folded {
    signal: Signal,
    tenant: TenantId,
    from: Vec<Arc<MemBatch>>,
    into: Arc<MemBatch>,
}

impl Memtable {
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            tables: Default::default(),
            rows: 0,
            bytes: 0,
            sequences: None,
            keys: Vec::new(),
            born: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.sequences.is_none()
    }

    /// Adds a batch that stands in the log at `sequence`.
    pub fn push(
        &mut self,
        signal: Signal,
        tenant: &TenantId,
        batch: Arc<MemBatch>,
        sequence: u64,
        key: Option<(u128, i64)>,
    ) {
        self.cover(sequence);
        self.born.get_or_insert_with(Instant::now);
        self.rows += batch.records.num_rows() as u64;
        self.bytes += batch.bytes;
        self.keys.extend(key);
        let tenants = &mut self.tables[signal as usize];
        match tenants.get_mut(tenant) {
            Some(batches) => batches.push(batch),
            None => {
                tenants.insert(tenant.clone(), vec![batch]);
            }
        }
    }

    /// Notes that an entry without rows belongs to this generation.
    pub fn cover(&mut self, sequence: u64) {
        let (first, last) = self.sequences.unwrap_or((sequence, sequence));
        self.sequences = Some((first.min(sequence), last.max(sequence)));
    }

    /// The batches that may hold rows of the question.
    pub fn select(&self, wanted: &Wanted<'_>, out: &mut Vec<RecordBatch>) {
        let batches = self.of(wanted.signal, wanted.tenant);
        let overlaps = |b: &&Arc<MemBatch>| wanted.overlaps(b.min_timestamp, b.max_timestamp);
        out.extend(batches.iter().filter(overlaps).map(|b| b.records.clone()));
    }

    /// Latest timestamp of a signal's rows; `i64::MIN` while there is none.
    pub fn max_timestamp(&self, signal: Signal) -> i64 {
        let batches = self.tables[signal as usize].values().flatten();
        batches.map(|b| b.max_timestamp).max().unwrap_or(i64::MIN)
    }

    /// All batches of a signal, those of one tenant together.
    pub fn batches(&self, signal: Signal) -> Vec<RecordBatch> {
        self.tables[signal as usize].values().flatten().map(|b| b.records.clone()).collect()
    }

    /// All batches of a signal and tenant.
    pub fn of(&self, signal: Signal, tenant: &TenantId) -> &[Arc<MemBatch>] {
        self.tables[signal as usize].get(tenant).map_or(&[], Vec::as_slice)
    }

    /// Builds what small batches of the tenant fold into; costs a copy of their rows. Needs no
    /// exclusive access, so readers go on.
    pub fn fold(&self, signal: Signal, tenant: &TenantId) -> Option<Folded> {
        let batches = self.of(signal, tenant);
        for tier in 0..TIER_ROWS.len() {
            // Small batches come in at the end, and folding keeps the list short.
            let from: Vec<_> =
                batches.iter().filter(|b| b.tier() == Some(tier)).take(FOLD).cloned().collect();
            if from.len() == FOLD {
                let records = concat_batches(&signal.schema(), from.iter().map(|b| &b.records))
                    .expect("BUG: all batches have one schema and are far below 2 GiB");
                let into = Arc::new(MemBatch::new(records));
                return Some(Folded { signal, tenant: tenant.clone(), from, into });
            }
        }
        None
    }

    /// Puts the folded batch in the place of the small ones.
    pub fn replace(&mut self, folded: &Folded) {
        let tenants = &mut self.tables[folded.signal as usize];
        let Some(batches) = tenants.get_mut(&folded.tenant) else { return };
        let before = batches.len();
        let is_folded = |b: &Arc<MemBatch>| folded.from.iter().any(|f| Arc::ptr_eq(f, b));
        let at = batches.iter().position(is_folded).expect("BUG: nothing of the fold is in the memtable");
        batches.retain(|b| !is_folded(b));
        assert_eq!(batches.len() + folded.from.len(), before, "BUG: a folded batch was not in the memtable");
        batches.insert(at, folded.into.clone());
        let freed: usize = folded.from.iter().map(|b| b.bytes).sum();
        self.bytes = self.bytes + folded.into.bytes - freed;
    }
}

/// Adds the names of batches to `counts`.
pub(crate) fn count_names(batches: &[Arc<MemBatch>], counts: &mut HashMap<String, u64>) {
    for (name, count) in batches.iter().flat_map(|b| b.names()) {
        match counts.get_mut(name) {
            Some(total) => *total += count,
            None => {
                counts.insert(name.clone(), *count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trine_schema::{LogBatchBuilder, LogRecord};

    use super::*;

    fn batch(timestamp: i64, rows: usize) -> Arc<MemBatch> {
        let mut builder = LogBatchBuilder::new(TenantId::default(), rows, 0);
        for _ in 0..rows {
            builder.attribute("k", "v");
            builder.body("x");
            builder.push(&LogRecord { timestamp, ..Default::default() }).unwrap();
        }
        Arc::new(MemBatch::new(builder.finish().records))
    }

    #[test]
    fn ten_thousand_tiny_batches_become_few_and_no_row_is_lost() {
        let (tenant, mut table) = (TenantId::default(), Memtable::new(1));
        for i in 0..10_000 {
            table.push(Signal::Logs, &tenant, batch(i, 3), i as u64 + 1, None);
            while let Some(folded) = table.fold(Signal::Logs, &tenant) {
                table.replace(&folded);
            }
        }
        let batches = table.of(Signal::Logs, &tenant);
        assert!(batches.len() < 60, "{} batches", batches.len());
        assert_eq!(batches.iter().map(|b| b.records.num_rows()).sum::<usize>(), 30_000);
        assert_eq!(table.bytes, batches.iter().map(|b| b.bytes).sum::<usize>());
        assert_eq!((table.rows, table.sequences), (30_000, Some((1, 10_000))));
        let mut counts = HashMap::new();
        count_names(batches, &mut counts);
        assert_eq!(counts.get("k"), Some(&30_000));
    }

    #[test]
    fn only_batches_of_signal_tenant_and_time_are_selected() {
        let mut table = Memtable::new(1);
        table.push(Signal::Logs, &TenantId::default(), batch(10, 1), 1, None);
        table.push(Signal::Logs, &TenantId::default(), batch(20, 1), 2, None);
        table.push(Signal::Logs, &TenantId::new("other").unwrap(), batch(10, 1), 3, None);
        table.push(Signal::Spans, &TenantId::default(), batch(10, 1), 4, None);
        let select = |start, last| {
            let mut out = Vec::new();
            let tenant = &TenantId::default();
            table.select(&Wanted { signal: Signal::Logs, tenant, start, last }, &mut out);
            out.len()
        };
        assert_eq!((select(0, 9), select(0, 10), select(10, 20), select(21, i64::MAX)), (0, 1, 2, 0));
        assert_eq!(select(20, i64::MAX), 1);
    }
}
