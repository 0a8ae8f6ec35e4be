//! Hands over what was in the log when it was opened.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use crate::{
    Corruption, Disk, Recovery, WalError,
    format::ENTRY_HEADER_BYTES,
    reader::{Found, Reader},
    scan::{FileScan, Run},
};

/// Entries that were in the log when it was opened, oldest first. One is in memory at a time.
/// Read it to its end before calling [`crate::Wal::truncate_before`]; appending meanwhile is fine.
/// Every checksum is checked again; an error ends it.
#[derive(Debug)]
pub struct Replay {
    disk: Arc<dyn Disk>,
    files: VecDeque<ReplayFile>,
    reader: Option<Reader>,
    /// Entries below are passed over.
    first_needed: u64,
    recovery: Recovery,
}

/// One entry from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedEntry {
    /// Its number.
    pub sequence: u64,
    /// What was appended, the parts joined.
    pub payload: Vec<u8>,
}

#[derive(Debug)]
struct ReplayFile {
    path: PathBuf,
    salt: u64,
    runs: VecDeque<Run>,
}

impl Replay {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        scans: &[FileScan],
        first_needed: u64,
        recovery: Recovery,
    ) -> Self {
        let files = scans.iter().map(|scan| ReplayFile {
            path: scan.path.clone(),
            salt: scan.salt,
            runs: scan.runs.iter().filter(|run| *run.sequences.end() >= first_needed).cloned().collect(),
        });
        Self { disk, files: files.collect(), reader: None, first_needed, recovery }
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    fn step(&mut self) -> Result<Option<ReplayedEntry>, WalError> {
        loop {
            let Some(file) = self.files.front_mut() else { return Ok(None) };
            let Some(run) = file.runs.front_mut() else {
                self.files.pop_front();
                self.reader = None;
                continue;
            };
            if run.start == run.end {
                file.runs.pop_front();
                continue;
            }
            let failed = |source| WalError::Io { action: "read", path: file.path.clone(), source };
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => none.insert(self.disk.open_read(&file.path).and_then(Reader::new).map_err(failed)?),
            };
            let offset = run.start;
            let sequence = *run.sequences.start();
            let changed = |reason: &str| {
                WalError::Changed(Corruption {
                    file: file.path.clone(),
                    offset,
                    reason: reason.to_owned(),
                    lost: Some(sequence..=sequence),
                })
            };
            let (header, checksum, end) = match reader.header(file.salt, offset).map_err(failed)? {
                Found::Entry { header, checksum, end } if header.sequence == sequence => {
                    (header, checksum, end)
                }
                Found::Entry { .. } => return Err(changed("the sequence is not the next one")),
                Found::Damage { reason, .. } => return Err(changed(reason)),
            };
            run.start = end;
            run.sequences = sequence + 1..=*run.sequences.end();
            if sequence < self.first_needed {
                continue;
            }
            let payload = reader.read(offset + ENTRY_HEADER_BYTES, header.length as usize).map_err(failed)?;
            if payload.len() != header.length as usize
                || crc32c::crc32c_append(checksum.start, &payload) != checksum.end
            {
                return Err(changed("the checksum of the entry does not match"));
            }
            return Ok(Some(ReplayedEntry { sequence, payload }));
        }
    }
}

impl Iterator for Replay {
    type Item = Result<ReplayedEntry, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.files.clear();
        }
        step.transpose()
    }
}
