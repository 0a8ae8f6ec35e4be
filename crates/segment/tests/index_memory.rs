//! What a segment says its index takes is what the process grows by. Alone in its process, so that nothing
//! else allocates meanwhile.

#![cfg(target_os = "linux")]

use std::{fs, sync::Arc};

use futures::executor::block_on;
use object_store::{ObjectStore, local::LocalFileSystem};
use trine_model::{TenantId, TraceId};
use trine_schema::{Labels, LogBatchBuilder, LogRecord, StreamRegistry};
use trine_segment::{IndexCache, Segment, SegmentHandle, WriteOptions, sort_batches, write_segment};

/// Indexes held at once, so that their sum stands out.
const COPIES: usize = 60;

/// Bytes of memory that the process has.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

#[test]
fn the_memory_of_an_index_is_told_honestly() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, tenant) = (StreamRegistry::new(), TenantId::default());
    let mut builder = LogBatchBuilder::new(tenant.clone(), 100_000, 0);
    for row in 0..100_000u64 {
        let labels = Labels::from_pairs(&[("app", "shop"), ("pod", &format!("pod-{}", row % 300))]);
        let stream = registry.intern(&tenant, labels).unwrap();
        // Two hundred templates, each row with variables of its own.
        let number = row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = ["load", "store", "send", "take"].map(|word| word.repeat(1 + row as usize % 50));
        builder.body(&format!(
            "{} order {number} in {} ms: node-{row:08x}",
            word[row as usize % 4],
            row % 977
        ));
        let trace_id = Some(TraceId((u128::from(number) + 1).to_be_bytes()));
        let timestamp = row as i64 * 1_000_000;
        builder.push(&LogRecord { stream, timestamp, trace_id, ..LogRecord::default() }).unwrap();
    }
    let rows = sort_batches(&[builder.finish().records], &registry).unwrap().map(Ok::<_, std::io::Error>);
    let file = fs::File::create(directory.path().join("segment")).unwrap();
    let meta = write_segment(file, &registry, rows, &WriteOptions::default()).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    let cache = IndexCache::new(usize::MAX);
    let open = || block_on(Segment::open(store.clone(), "segment".into(), &registry, Some(meta.clone())));
    let handles: Vec<_> =
        (0..2 * COPIES).map(|_| SegmentHandle::new(&Arc::new(open().unwrap()), &cache)).collect();
    // The first take the room that writing the segment left behind.
    let (first, second) = handles.split_at(COPIES);
    first.iter().for_each(|handle| drop(handle.load().unwrap()));
    let before = (resident(), cache.bytes());
    second.iter().for_each(|handle| drop(handle.load().unwrap()));
    let (grown, told) = (resident() - before.0, (cache.bytes() - before.1) as f64);
    assert!(told > 10e6, "{told} bytes are too few to be measured");
    assert!((0.8..1.25).contains(&(grown / told)), "{told} bytes were told, the process grew by {grown}");
}
