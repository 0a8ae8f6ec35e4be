//! What holds for metrics alone.

use std::ops::Range;

use trine_model::TenantId;
use trine_schema::{Labels, MetricBatch, MetricBatchBuilder, MetricScan, Samples, Tables};
use trine_store::{Store, StoreConfig};

use crate::kit::{config, open, segment_files};

/// Samples of `{__name__="x",n="<n>"}` at these seconds, all of one value.
fn samples(store: &Store, series: Range<u32>, seconds: Range<i64>, value: f64) -> MetricBatch {
    let tenant = TenantId::default();
    let mut builder = MetricBatchBuilder::new(tenant.clone(), 0);
    for n in series {
        let labels = Labels::from_pairs(&[("__name__", "x"), ("n", &n.to_string())]);
        let stream = store.registry().intern(&tenant, labels).unwrap();
        seconds.clone().for_each(|second| builder.float(stream, second * 1000, value, 0));
    }
    builder.finish()
}

/// Number of series, and the value of the first one at a second.
fn found(store: &Store, second: i64) -> (usize, Option<f64>) {
    let scan = MetricScan::all(TenantId::default());
    let series = store.select_series(&scan).unwrap();
    let mut samples = Samples::default();
    let Some(first) = series.first() else { return (0, None) };
    first.data.load(&mut samples).unwrap();
    assert_eq!(*scan.stats.partial.lock(), Vec::<String>::new());
    let at = samples.timestamps.binary_search(&(second * 1000)).ok();
    (series.len(), at.map(|at| samples.values[at]))
}

/// A merge of the two small segments would carry the older value past the large one, which stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_later_arrival_counts_whatever_is_merged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { segment_bytes: 200_000, ..config(dir.path()) }).unwrap();
    for (seconds, value) in [(0..10, 1.0), (5..9_005, 2.0), (9_010..9_020, 3.0), (9_020..9_030, 4.0)] {
        store.append(samples(&store, 0..1, seconds, value), None).await.unwrap();
        store.flush().await.unwrap();
    }
    let values = || [4, 7, 9_004, 9_025].map(|second| found(&store, second).1.unwrap() as u64);
    assert_eq!(values(), [1, 2, 2, 4]);
    store.compact().await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 3, "the last two are neighbours");
    assert_eq!(values(), [1, 2, 2, 4]);
}

/// A question about many series must not use up the bound that is there for senders.
#[tokio::test(flavor = "multi_thread")]
async fn reading_registers_no_series() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(samples(&store, 0..500, 0..3, 1.0), None).await.unwrap();
    store.flush().await.unwrap();
    store.close().await;
    let store = open(dir.path());
    assert_eq!(store.status().streams, 0);
    assert_eq!(found(&store, 1), (500, Some(1.0)));
    assert_eq!(store.exemplars(&MetricScan::all(TenantId::default())).unwrap().len(), 0);
    store.compact().await.unwrap();
    assert_eq!(store.status().streams, 0);
    // What is written now and what was found are the same series.
    store.append(samples(&store, 0..1, 3..4, 2.0), None).await.unwrap();
    assert_eq!(store.status().streams, 1);
    assert_eq!(found(&store, 3), (500, Some(2.0)));
    store.flush().await.unwrap();
    assert_eq!((found(&store, 3), found(&store, 1)), ((500, Some(2.0)), (500, Some(1.0))));
}
