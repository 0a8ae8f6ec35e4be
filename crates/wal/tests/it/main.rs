//! The log on a simulated disk and on a real one.

use std::{path::Path, sync::Arc};

use trine_testing::SimDisk;
use trine_wal::{Entry, Wal, WalConfig, WalError};

mod damage;
mod faults;
mod real;
mod simulation;

/// Directory of the log on a simulated disk.
const DIR: &str = "data/wal";

fn open(disk: &SimDisk, config: WalConfig) -> Result<(Wal, trine_wal::Replay), WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), config)
}

/// Small files, so that a few groups fill some.
fn small_files() -> WalConfig {
    WalConfig { max_file_bytes: 10 << 10, ..WalConfig::default() }
}

fn append(wal: &mut Wal, payloads: &[Vec<u8>]) -> Result<std::ops::RangeInclusive<u64>, WalError> {
    // Each payload in two parts, the first of which may be empty.
    let parts: Vec<[&[u8]; 2]> =
        payloads.iter().map(|bytes| bytes.split_at(bytes.len() / 3).into()).collect();
    let group: Vec<Entry<'_>> = parts.iter().map(|parts| Entry { parts }).collect();
    wal.append_group(&group)
}
