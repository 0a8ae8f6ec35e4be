//! What the tests share.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::array::AsArray;
use futures::StreamExt;
use trine_model::TenantId;
use trine_schema::{Labels, LogBatch, LogBatchBuilder, LogRecord, LogScan, Tables, logs::column};
use trine_store::{Appended, Store, StoreConfig};

/// A store that does nothing by itself.
pub fn config(dir: &Path) -> StoreConfig {
    StoreConfig { compaction: false, ..StoreConfig::new(dir) }
}

pub fn open(dir: &Path) -> Arc<Store> {
    Store::open(config(dir)).unwrap()
}

/// Rows `ids` of the stream `{app="app-<n>"}`; body `line <id> of <app>`, a timestamp of `id` seconds.
pub fn batch_of(store: &Store, app: u32, ids: std::ops::Range<u64>) -> LogBatch {
    let tenant = TenantId::default();
    let labels = Labels::from_pairs(&[("app", &format!("app-{app}"))]);
    let stream = store.registry().intern(&tenant, labels).unwrap();
    let mut builder = LogBatchBuilder::new(tenant, ids.clone().count(), 0);
    for id in ids {
        builder.attribute("id", &id.to_string());
        builder.body(&format!("line {id} of app-{app}"));
        let timestamp = id as i64 * 1_000_000_000;
        builder.push(&LogRecord { stream, timestamp, ..Default::default() }).unwrap();
    }
    builder.finish()
}

pub async fn append(store: &Store, app: u32, ids: std::ops::Range<u64>) {
    let rows = ids.clone().count();
    assert_eq!(store.append(batch_of(store, app, ids), None).await.unwrap(), Appended::Stored { rows });
}

/// Every body with how often it is seen and what its stream's `app` label says.
pub async fn lines(store: &Store, scan: LogScan) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut batches = store.scan_logs(LogScan { projection: vec![column::STREAM, column::BODY], ..scan });
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        let streams = batch.column(0).as_primitive::<arrow::datatypes::UInt32Type>();
        let bodies = batch.column(1).as_string::<i32>();
        for (row, body) in bodies.iter().enumerate() {
            let body = body.unwrap();
            let stream = store.registry().get(streams.value(row));
            let app = stream.labels.get("app").unwrap();
            assert!(body.ends_with(app), "{body:?} came back under the stream of {app}");
            *found.entry(body.to_owned()).or_default() += 1;
        }
    }
    found
}

/// Asserts that exactly these ids of these apps are there, each once.
pub async fn expect(store: &Store, want: &[(u32, std::ops::Range<u64>)]) {
    let scan = LogScan::all(TenantId::default());
    let stats = scan.stats.clone();
    let found = lines(store, scan).await;
    let want: BTreeMap<String, u32> = want
        .iter()
        .flat_map(|(app, ids)| ids.clone().map(move |id| (format!("line {id} of app-{app}"), 1)))
        .collect();
    let missing = want.keys().filter(|line| !found.contains_key(*line)).count();
    let wrong: Vec<_> = found.iter().filter(|(line, n)| want.get(*line) != Some(n)).take(5).collect();
    assert!(missing == 0 && wrong.is_empty(), "{missing} lines are missing, wrong: {wrong:?}");
    assert_eq!(*stats.partial.lock(), Vec::<String>::new());
}

/// All segment files.
pub fn segment_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(dir.join("segments")).unwrap() {
        let folder = folder.unwrap().path();
        files.extend(std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    }
    files.sort();
    files
}

/// Flips a byte in the middle of a file.
pub fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(path, bytes).unwrap();
}
