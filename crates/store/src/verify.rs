//! Reading everything to see whether it is whole.

use std::{path::Path, sync::Arc};

use trine_schema::StreamRegistry;
use trine_segment::{IndexCache, block_on};
use trine_wal::{Disk, RealDisk, Recovery, Wal};

use crate::{
    StoreError, VerifyReport,
    catalog::{Catalog, SegmentRow},
    engine::Engine,
    files::Files,
    recover::{self, Unlisted},
    segment::Opener,
};

/// Checks a store that is open; damaged segments are quarantined.
pub(crate) async fn live(engine: &Arc<Engine>, disk: &Arc<dyn Disk>) -> VerifyReport {
    let mut report = VerifyReport { dir: engine.config.dir.clone(), ..VerifyReport::default() };
    let segments = engine.state.read().segments.clone();
    for live in segments.iter() {
        if let Err(e) = note(&mut report, &live.row, live.segment.verify().await) {
            engine.quarantine(&live.row.path, &e);
        }
    }
    for file in engine.quarantined.lock().iter() {
        let line = format!("{} is in quarantine: {}", file.name, file.reason);
        if !report.problems.iter().any(|known| known.contains(&file.reason)) {
            report.problems.push(line);
        }
    }
    // The log is being written: what looks torn at its end is an append under way.
    note_log(&mut report, Wal::verify(disk.as_ref(), &engine.config.dir.join("wal")));
    report
}

/// Checks a data directory that no store has open; changes nothing in it but the lock file.
pub fn verify_directory(dir: &Path) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport { dir: dir.to_owned(), ..VerifyReport::default() };
    let catalog = dir.join("catalog.db");
    if !catalog.exists() {
        return Err(StoreError::io(
            format!("opening {}", catalog.display()),
            "there is no such file; give the data directory of a store (after a loss of the file alone, \
             `trine server` rebuilds it from the segments)",
        ));
    }
    let _lock = recover::lock(dir)?;
    Files::check_version(dir)?;
    let files = Files::existing(dir, None)?;
    let (registry, indexes) = (StreamRegistry::new(), IndexCache::new(0));
    let opener = Opener { objects: &files.objects, registry: &registry, indexes: &indexes };
    let loaded = match Catalog::open(&catalog) {
        Ok((_, loaded)) => loaded,
        Err(StoreError::Corrupt { reason, .. }) => {
            report.problems.push(format!(
                "catalog.db: {reason}; the next start rebuilds it from the segments and keeps the damaged one"
            ));
            note_log(&mut report, Wal::verify(&RealDisk, &dir.join("wal")));
            return Ok(report);
        }
        Err(other) => return Err(other),
    };
    for row in &loaded.segments {
        let opened = opener.open(row.signal, &row.path, Some(&row.meta));
        let verdict = opened.and_then(|segment| block_on(segment.verify()));
        // The report has the line; offline nothing is moved.
        let _ = note(&mut report, row, verdict);
    }
    for path in files.list()? {
        if loaded.segments.iter().any(|row| row.path == path) {
            continue;
        }
        report.notes.push(match recover::judge(&path, &loaded) {
            Unlisted::Foreign(reason) => {
                format!("segments/{path}: {reason}; the next start moves it to quarantine/")
            }
            _ => format!("segments/{path} is a leftover of a crash; the next start removes it"),
        });
    }
    let quarantined = loaded.quarantined.iter().filter(|file| files.in_quarantine(&file.name));
    report.problems.extend(quarantined.map(|file| format!("quarantine/{}: {}", file.name, file.reason)));
    note_log(&mut report, Wal::verify(&RealDisk, &dir.join("wal")));
    Ok(report)
}

fn note(
    report: &mut VerifyReport,
    row: &SegmentRow,
    verdict: Result<(), trine_segment::SegmentError>,
) -> Result<(), String> {
    report.segments += 1;
    match verdict {
        Ok(()) => {
            report.rows += row.meta.rows;
            report.bytes += row.meta.file_bytes;
            Ok(())
        }
        Err(e) => {
            report.problems.push(format!("segments/{}: {e}", row.path));
            if e.is_corrupt() { Err(e.to_string()) } else { Ok(()) }
        }
    }
}

fn note_log(report: &mut VerifyReport, outcome: Result<Recovery, trine_wal::WalError>) {
    match outcome {
        Ok(recovery) => {
            report.wal_records = recovery.entries;
            report.bytes += recovery.bytes;
            report.problems.extend(recovery.corruptions.iter().map(ToString::to_string));
            report.notes.extend(recovery.torn.as_ref().map(recover::torn_note));
        }
        Err(e) => report.problems.push(format!("wal/: {e}")),
    }
}
