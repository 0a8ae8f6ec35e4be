//! Records that can be told apart, and reading them all back.

use std::{collections::BTreeMap, ops::Range, path::PathBuf};

use arrow::{array::AsArray, datatypes::UInt32Type};
use futures::StreamExt as _;
use tempfile::TempDir;
use trine_model::TenantId;
use trine_schema::{
    Labels, LogBatch, LogBatchBuilder, LogRecord, LogScan, ScanError, Tables, columns::attributes_of,
    logs::column,
};
use trine_store::Store;

/// Streams that the records are spread over, per tenant.
pub const STREAMS: u64 = 7;
/// Tenants that the batches are spread over.
pub const TENANTS: [&str; 2] = ["default", "other"];
/// Nanoseconds of a day: records of a few days make a few compacted segments.
const DAY_NS: i64 = 86_400_000_000_000;

/// One batch, described so that it can be made again.
#[derive(Debug, Clone)]
pub struct Batch {
    pub tenant: usize,
    /// Every record ever made has a number of its own.
    pub ids: Range<u64>,
}

fn labels_of(id: u64) -> Labels {
    Labels::from_pairs(&[
        ("service.name", ["cart", "pay", "ship"][(id % 3) as usize]),
        ("n", &(id % STREAMS).to_string()),
    ])
}

fn timestamp_of(id: u64) -> i64 {
    // Out of order, over three days.
    1_700_000_000_000_000_000 + (id as i64 * 7919 % 1000) * 1_000_000 + (id as i64 % 3) * DAY_NS
}

/// The whole content of a record follows from its number.
fn body_of(id: u64) -> String {
    let padding = "x".repeat((id * 31 % 200) as usize);
    format!("record {id} took {} ms from 10.0.{}.{} {padding}", id * 7 % 1000, id % 256, id * 3 % 256)
}

impl Batch {
    pub fn build(&self, store: &Store) -> LogBatch {
        let tenant = TenantId::new(TENANTS[self.tenant]).unwrap();
        let mut builder = LogBatchBuilder::new(tenant.clone(), 8, 256);
        for id in self.ids.clone() {
            let stream = store.registry().intern(&tenant, labels_of(id)).unwrap();
            builder.attribute_display("id", id);
            builder.body(&body_of(id));
            builder.push(&LogRecord { stream, timestamp: timestamp_of(id), ..Default::default() }).unwrap();
        }
        builder.finish()
    }
}

/// What a scan over everything found.
#[derive(Debug, Default)]
pub struct Found {
    /// How often each record was found.
    pub counts: BTreeMap<u64, u32>,
    /// What the scan itself says is missing.
    pub partial: Vec<String>,
}

/// Reads every record of every tenant and checks that each is what its number says.
pub async fn scan(store: &Store) -> Result<Found, ScanError> {
    let mut found = Found::default();
    for tenant in TENANTS {
        let scan = LogScan::all(TenantId::new(tenant).unwrap());
        let stats = scan.stats.clone();
        let mut batches = store.scan_logs(scan);
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let bodies = batch.column(column::BODY).as_string::<i32>();
            let streams = batch.column(column::STREAM).as_primitive::<UInt32Type>();
            let attributes = batch.column(column::ATTRIBUTES).as_map();
            let times =
                batch.column(column::TIMESTAMP).as_primitive::<arrow::datatypes::TimestampNanosecondType>();
            for row in 0..batch.num_rows() {
                let pairs: Vec<_> = attributes_of(attributes, row).collect();
                let [("id", id)] = pairs[..] else {
                    panic!("a wrong record is served: attributes {pairs:?}")
                };
                let id: u64 = id.parse().expect("a wrong record is served");
                let stream = store.registry().get(streams.value(row));
                assert_eq!(bodies.value(row), body_of(id), "a wrong record is served");
                assert_eq!(times.value(row), timestamp_of(id), "record {id}");
                assert_eq!((stream.tenant.as_str(), &stream.labels), (tenant, &labels_of(id)), "record {id}");
                *found.counts.entry(id).or_default() += 1;
            }
        }
        found.partial.extend(stats.snapshot().partial);
    }
    Ok(found)
}

/// A directory in memory where there is one: thousands of stores are opened and synced.
pub fn scratch() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
