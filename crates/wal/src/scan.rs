//! Finds out what a log file holds after the program ended in whatever way.
//!
//! Entries are read while their checksums hold and their sequences follow each other. At the first
//! that does not, the question is whether a crash left it (nothing acknowledged is missing) or
//! whether the disk lost something:
//!
//! - In a file that another file follows, every entry up to that file's first sequence was
//!   acknowledged, for the next file is begun only then. If they are all there, what follows in
//!   this file is the leftover of a group that was taken back, and no damage. If not, it is damage.
//! - In the last file it is damage if the header of an entry of a *later group* follows, because a
//!   group is begun only when the one before has been synced. Entries of the same group prove
//!   nothing: sectors of one unfinished write reach the disk in any order. Without proof it is a
//!   torn tail.
//!
//! After damage the search goes on at every byte for a header whose checksum, salted per file,
//! holds, whose payload's checksum holds, and whose sequence can stand there. A last group that was
//! acknowledged and rotted afterwards cannot be told from a torn one; it is reported as torn.

use std::{io, ops::RangeInclusive, path::PathBuf};

use crate::{
    Corruption, Disk, WalError,
    format::{ENTRY_HEADER_BYTES, EntryHeader, FILE_HEADER_BYTES, FileHeader, ReadHeader, VERSION},
    reader::{Found, Reader},
};

/// Good entries that follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub start: u64,
    pub end: u64,
    pub sequences: RangeInclusive<u64>,
    /// Where the last group begins.
    pub last_group: u64,
}

/// One file, looked through.
#[derive(Debug)]
pub struct FileScan {
    pub path: PathBuf,
    /// The sequence in its name.
    pub first: u64,
    /// The sequence after its last entry. If the header is unreadable, no entry of the file is at
    /// or above it.
    pub next: u64,
    pub len: u64,
    pub salt: u64,
    pub runs: Vec<Run>,
    pub corruptions: Vec<Corruption>,
    /// Where the torn tail begins, in the last file.
    pub torn: Option<u64>,
}

/// Looks through a file. `limit` is the first sequence of the file after it.
pub fn scan_file(
    disk: &dyn Disk,
    path: PathBuf,
    first: u64,
    limit: Option<u64>,
) -> Result<FileScan, WalError> {
    let failed = |source| WalError::Io { action: "read", path: path.clone(), source };
    let mut reader = disk.open_read(&path).and_then(Reader::new).map_err(failed)?;
    let len = reader.len();
    let header = reader.bytes(0, FILE_HEADER_BYTES as usize).map_err(failed)?;
    let header = FileHeader::decode(header, first);
    let mut scan =
        FileScan { path, first, next: first, len, salt: 0, runs: vec![], corruptions: vec![], torn: None };
    match header {
        ReadHeader::Good(_) if len < FILE_HEADER_BYTES && limit.is_none() => scan.torn = Some(0),
        ReadHeader::Good(header) => {
            scan.salt = header.salt;
            scan.entries(&mut reader, limit).map_err(|source| WalError::Io {
                action: "read",
                path: scan.path.clone(),
                source,
            })?;
        }
        ReadHeader::Newer(version) => {
            return Err(WalError::Version { file: scan.path, version, supported: VERSION });
        }
        // The header is synced before the first entry is written: this file never had one.
        ReadHeader::Bad if len <= FILE_HEADER_BYTES && limit.is_none() => {
            scan.torn = (len > 0).then_some(0);
        }
        ReadHeader::Bad => {
            let most = len.saturating_sub(FILE_HEADER_BYTES) / ENTRY_HEADER_BYTES;
            scan.next = limit.unwrap_or(first + most.max(1));
            scan.damage(0, "the header is unreadable", first..=scan.next - 1);
        }
    }
    Ok(scan)
}

impl FileScan {
    fn damage(&mut self, offset: u64, reason: &str, lost: RangeInclusive<u64>) {
        let file = self.path.clone();
        self.corruptions.push(Corruption { file, offset, reason: reason.to_owned(), lost: Some(lost) });
    }

    fn entries(&mut self, reader: &mut Reader, limit: Option<u64>) -> io::Result<()> {
        let mut at = FILE_HEADER_BYTES;
        let mut run: Option<Run> = None;
        while at < self.len && limit.is_none_or(|limit| self.next < limit) {
            let (reason, resume) = match reader.entry(self.salt, at)? {
                Found::Entry { header, end, .. } if header.sequence == self.next => {
                    extend(&mut run, at, end, &header);
                    at = end;
                    self.next += 1;
                    continue;
                }
                Found::Entry { .. } => ("the sequence is not the next one", at),
                Found::Damage { reason, resume } => (reason, resume),
            };
            let good = self.search(reader, resume, limit)?;
            let last_seen = match limit {
                Some(limit) => Some(limit - 1),
                None => self.durable_after(reader, resume)?,
            };
            match (good, last_seen) {
                // Nothing proves that the bad entry had been durable.
                (_, None) => {
                    self.torn = Some(at);
                    break;
                }
                (None, Some(last)) => {
                    self.damage(at, reason, self.next..=last);
                    self.next = last + 1;
                    break;
                }
                (Some((offset, sequence)), Some(_)) => {
                    self.damage(at, reason, self.next..=sequence - 1);
                    self.runs.extend(run.take());
                    self.next = sequence;
                    at = offset;
                }
            }
        }
        self.runs.extend(run);
        if let Some(limit) = limit
            && self.next < limit
        {
            self.damage(at, "the file ends too early", self.next..=limit - 1);
            self.next = limit;
        }
        Ok(())
    }

    /// The next good entry at or after `from` with a sequence that can stand there: its offset and
    /// sequence.
    fn search(
        &self,
        reader: &mut Reader,
        mut from: u64,
        limit: Option<u64>,
    ) -> io::Result<Option<(u64, u64)>> {
        while from + ENTRY_HEADER_BYTES <= self.len {
            from = match reader.entry(self.salt, from)? {
                Found::Entry { header, .. } if self.can_follow(&header, from, limit) => {
                    return Ok(Some((from, header.sequence)));
                }
                Found::Entry { end, .. } => end,
                Found::Damage { resume, .. } => resume,
            };
        }
        Ok(None)
    }

    /// Looks through the rest of the last file for the header of an entry of a later group than the
    /// one that is missing; if there is one, the last sequence seen. The payloads do not matter.
    fn durable_after(&self, reader: &mut Reader, mut from: u64) -> io::Result<Option<u64>> {
        let (mut proven, mut last) = (false, 0);
        while from + ENTRY_HEADER_BYTES <= self.len {
            let Some(header) = reader.bare_header(self.salt, from)? else {
                from += 1;
                continue;
            };
            if self.can_follow(&header, from, None) {
                proven |= header.group_first() > self.next;
                last = last.max(header.sequence);
            }
            from += ENTRY_HEADER_BYTES + u64::from(header.length);
        }
        Ok(proven.then_some(last))
    }

    /// Whether an entry at an offset can be one after the missing one.
    fn can_follow(&self, header: &EntryHeader, offset: u64, limit: Option<u64>) -> bool {
        // Every entry in between takes a header at least.
        let end = limit.unwrap_or(self.next + offset / ENTRY_HEADER_BYTES);
        header.sequence > self.next && header.sequence < end
    }
}

fn extend(run: &mut Option<Run>, at: u64, end: u64, header: &EntryHeader) {
    let run = run.get_or_insert_with(|| Run {
        start: at,
        end,
        sequences: header.sequence..=header.sequence,
        last_group: at,
    });
    run.end = end;
    run.sequences = *run.sequences.start()..=header.sequence;
    if header.group_index == 0 {
        run.last_group = at;
    }
}
