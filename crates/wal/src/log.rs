//! The log: groups of entries in, one sync per group, and nothing acknowledged is ever lost.
//!
//! # Guarantees
//! - When [`Wal::append_group`] returns `Ok` (and `fsync` is on), its entries survive a power cut:
//!   the next [`Wal::open`] replays each of them once and in order, until they are truncated.
//! - Entries have sequences without gaps. What an interrupted append, or one that poisoned the log, left
//!   behind may be replayed, but only as a beginning of that group, right after the last acknowledged
//!   entry. A group refused for lack of space never is.
//! - What is replayed was appended, byte for byte. Damage is reported with file, offset and the
//!   sequences lost; good entries after it are still handed over.
//! - Entries below a truncation may come back after a crash: say what is needed by
//!   [`WalConfig::first_needed`].
//!
//! # Algorithm
//! Files bear the sequence of their first entry and are described in the `format` module. One is
//! active; a group is written behind its last entry by as few `pwritev` as possible, straight from
//! the caller's memory, and made durable by one `fdatasync`. The space of a file is reserved when it
//! is begun, because a sync then has less to write to the file system's journal: with groups of
//! 1 MiB 0.4-0.6 instead of 2.4 CPU-seconds per GB on ext4. When a group does not fit, a new file is
//! begun: header written, file synced, directory synced, and only then the group. After opening, the
//! first append always begins a new file.
//!
//! # Crash cases
//! | when | what is left | what happens |
//! |---|---|---|
//! | in a write, or after it before the sync | any sectors of the last group | `open` keeps the entries of the group before the first bad one and cuts off the rest |
//! | the process dies, the machine does not | the group is in the page cache, perhaps nowhere else | `open` writes the last group once more, in place, and syncs: what it hands over is durable |
//! | while a file is begun, or it could not be begun | no file, or one without a whole header | it has no entry; the sequence in its name still counts, the file before it gets no more entries, and the next try takes its place |
//! | in a truncation | files from the oldest on are gone | each removal is synced before the next, so no hole appears |
//! | a sync failed, also the sync of a new file | unknown | the log is poisoned: every append fails until a restart. The sync is never tried again, because the kernel forgets what it failed to write |
//! | no space left | a part of the group | it is cut off and the cut synced, the append fails with [`WalError::Full`], a later one can work; if the cut fails, the log is poisoned. A crash before the sync leaves a torn tail |
//! | any other failure of a write | a part of the group | poisoned |
//!
//! A file with damage is kept in its place as long as entries in it are needed, because the good ones
//! are nowhere else; truncation then renames it to `*.wal.corrupt` instead of removing it.
//!
//! Without `fsync` all this holds for a dying process, and nothing for a dying machine.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Disk, DiskFile, Recovery, Replay, TornTail, WalError,
    format::{
        ENTRY_HEADER_BYTES, EntryHeader, FILE_HEADER_BYTES, FileHeader, MAX_ENTRY_BYTES, file_name,
        parse_file_name,
    },
    scan::{FileScan, scan_file},
};

/// Default of [`WalConfig::max_file_bytes`].
pub const DEFAULT_MAX_FILE_BYTES: u64 = 64 << 20;
/// Bytes copied at once when the last group is written again.
const REWRITE_BYTES: usize = 1 << 20;

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// A file that would grow beyond this many bytes is followed by a new one; a group larger than
    /// this has a file of its own.
    pub max_file_bytes: u64,
    /// Whether a group is synced before it is acknowledged.
    pub fsync: bool,
    /// Entries below this sequence are stored elsewhere by now: they are not replayed, damage that
    /// concerns only them is not reported, and no sequence below it is given out, even if the log
    /// was lost. At least 1.
    pub first_needed: u64,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { max_file_bytes: DEFAULT_MAX_FILE_BYTES, fsync: true, first_needed: 1 }
    }
}

/// One entry to append.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The payload in parts that are written one after the other, uncopied.
    pub parts: &'a [&'a [u8]],
}

impl Entry<'_> {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }
}

/// An append log in a directory of its own. One per directory: see [`crate::lock_directory`].
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: WalConfig,
    /// Files that are not written any more, oldest first.
    sealed: VecDeque<Sealed>,
    active: Option<Active>,
    next: u64,
    poisoned: Option<String>,
}

#[derive(Debug)]
struct Sealed {
    path: PathBuf,
    first: u64,
    /// The sequence after its last.
    next: u64,
    bytes: u64,
    damaged: bool,
}

#[derive(Debug)]
struct Active {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    first: u64,
    salt: u64,
    len: u64,
    /// Whether space was asked for; a file that only holds the sequence takes none.
    reserved: bool,
}

/// Files that the log has let go, see [`Wal::release_before`].
#[derive(Debug)]
#[must_use = "the files stay on the disk until it has run"]
pub struct Removal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    fsync: bool,
    files: VecDeque<Sealed>,
}

impl Removal {
    /// Removes the files; damaged ones are renamed to `*.corrupt` instead. After an error it can be run
    /// again.
    pub fn run(&mut self) -> Result<(), WalError> {
        while let Some(oldest) = self.files.front() {
            let path = &oldest.path;
            let (action, done) = if oldest.damaged {
                ("rename", self.disk.rename(path, &path.with_extension("wal.corrupt")))
            } else {
                ("remove", self.disk.remove(path))
            };
            match done {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(action, path, source));
                }
                _ => {}
            }
            if self.fsync {
                self.disk.sync_dir(&self.dir).map_err(|source| io_error("sync", &self.dir, source))?;
            }
            self.files.pop_front();
        }
        Ok(())
    }
}

/// The log files of a directory, oldest first.
fn list_files(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, WalError> {
    let names = disk.list(dir).map_err(|source| io_error("list", dir, source))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| parse_file_name(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> WalError {
    WalError::Io { action, path: path.to_owned(), source }
}

/// What a number of scans found, as far as it concerns entries from `first_needed` on.
fn recovery(scans: &[FileScan], first_needed: u64) -> Recovery {
    let mut recovery = Recovery::default();
    for scan in scans {
        recovery.bytes += scan.len;
        for run in &scan.runs {
            let first = (*run.sequences.start()).max(first_needed);
            recovery.entries += (run.sequences.end() + 1).saturating_sub(first);
        }
        let needed = scan.corruptions.iter().filter_map(|corruption| {
            let mut corruption = corruption.clone();
            if let Some(lost) = corruption.lost {
                corruption.lost = Some((*lost.start()).max(first_needed)..=*lost.end());
                if *lost.end() < first_needed {
                    return None;
                }
            }
            Some(corruption)
        });
        recovery.corruptions.extend(needed);
        if let Some(offset) = scan.torn {
            let file = scan.path.clone();
            recovery.torn = Some(TornTail { file, offset, bytes: scan.len - offset });
        }
    }
    recovery
}

/// Scans all files that hold entries from `first_needed` on.
fn scan_all(
    disk: &dyn Disk,
    dir: &Path,
    first_needed: u64,
) -> Result<(Vec<Sealed>, Vec<FileScan>), WalError> {
    let firsts = list_files(disk, dir)?;
    let mut unneeded = Vec::new();
    let mut scans = Vec::new();
    for (position, &first) in firsts.iter().enumerate() {
        let path = dir.join(file_name(first));
        let limit = firsts.get(position + 1).copied();
        match limit {
            Some(next) if next <= first_needed => {
                let len = disk.open_read(&path).and_then(|file| file.len());
                let bytes = len.map_err(|source| io_error("open", &path, source))?;
                unneeded.push(Sealed { path, first, next, bytes, damaged: false });
            }
            _ => scans.push(scan_file(disk, path, first, limit)?),
        }
    }
    Ok((unneeded, scans))
}

/// Cuts a torn tail off the last file and makes what stays durable.
fn repair(disk: &dyn Disk, scan: &FileScan) -> io::Result<()> {
    let Some(run) = scan.runs.last() else {
        return match scan.torn {
            Some(end) => {
                let mut file = disk.open_write(&scan.path)?;
                file.set_len(end)?;
                file.sync_data()
            }
            None => Ok(()),
        };
    };
    let mut file = disk.open_write(&scan.path)?;
    let end = scan.torn.unwrap_or(scan.len);
    file.set_len(end)?;
    // Whether these bytes ever reached the disk nobody knows: the process may have died before
    // the sync, or in a failed one, after which the kernel takes them for written.
    let mut buffer = vec![0; REWRITE_BYTES.min((end - run.last_group) as usize)];
    let mut at = run.last_group;
    while at < end {
        let part = buffer.len().min((end - at) as usize);
        let count = file.read_at(at, &mut buffer[..part])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all(&mut *file, at, &mut [IoSlice::new(&buffer[..count])])?;
        at += count as u64;
    }
    file.sync_data()
}

/// Writes all parts, going on after short writes.
fn write_all(file: &mut dyn DiskFile, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Drops empty parts in front, which would look like a write of nothing.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_at(offset, parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut parts, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Wal {
    /// Opens the log of a directory, which is created where missing, repairs what a crash left
    /// and gives what is in it for replay. Damage is in [`Replay::recovery`], it is not an error.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: WalConfig) -> Result<(Self, Replay), WalError> {
        let first_needed = config.first_needed.max(1);
        disk.create_dir(dir).map_err(|source| io_error("create", dir, source))?;
        if let Some(parent) = dir.parent().filter(|parent| config.fsync && !parent.as_os_str().is_empty()) {
            disk.sync_dir(parent).map_err(|source| io_error("sync", parent, source))?;
        }
        let (unneeded, scans) = scan_all(&*disk, dir, first_needed)?;
        let recovery = recovery(&scans, first_needed);
        let mut next = first_needed;
        if let Some(last) = scans.last() {
            repair(&*disk, last).map_err(|source| io_error("repair", &last.path, source))?;
            next = next.max(last.next);
        }
        let replay = Replay::new(disk.clone(), &scans, first_needed, recovery);
        let scanned = scans.into_iter().map(|scan| Sealed {
            bytes: scan.torn.unwrap_or(scan.len),
            damaged: !scan.corruptions.is_empty(),
            path: scan.path,
            first: scan.first,
            next: scan.next,
        });
        let sealed = unneeded.into_iter().chain(scanned).collect();
        let dir = dir.to_owned();
        Ok((Self { disk, dir, config, sealed, active: None, next, poisoned: None }, replay))
    }

    /// Reads everything and changes nothing; may run beside a log that is being written, whose
    /// last group then may look torn.
    pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Recovery, WalError> {
        loop {
            match scan_all(disk, dir, 1) {
                // The writer cut it off after it was listed: its rows are needed no more.
                Err(WalError::Io { path, source, .. })
                    if source.kind() == io::ErrorKind::NotFound
                        && list_files(disk, dir)?.iter().all(|first| dir.join(file_name(*first)) != path)
                        && path != dir => {}
                scanned => return Ok(recovery(&scanned?.1, 1)),
            }
        }
    }

    /// Appends entries and, with `fsync`, makes them durable by one sync; the sequences they got
    /// (an empty range for an empty group). On an error none is acknowledged, see the module's crash
    /// cases for what may be replayed all the same.
    pub fn append_group(&mut self, group: &[Entry<'_>]) -> Result<RangeInclusive<u64>, WalError> {
        self.check_poison()?;
        let mut group_bytes = 0;
        for entry in group {
            let bytes = entry.bytes();
            if bytes > MAX_ENTRY_BYTES {
                return Err(WalError::EntryTooLarge { bytes, limit: MAX_ENTRY_BYTES });
            }
            group_bytes += ENTRY_HEADER_BYTES + bytes;
        }
        let first = self.next;
        if group.is_empty() {
            return Ok(first..=first - 1);
        }
        let room = self.active.as_ref().is_some_and(|active| {
            active.first == first || active.len + group_bytes <= self.config.max_file_bytes
        });
        if !room {
            self.begin_file(true)?;
        }
        let active = self.active.as_mut().expect("BUG: a file was begun");
        if !active.reserved {
            active.file.reserve(self.config.max_file_bytes);
            active.reserved = true;
        }

        let mut headers = Vec::with_capacity(group.len());
        for (index, entry) in group.iter().enumerate() {
            let header = EntryHeader {
                length: entry.bytes() as u32,
                group_index: index as u32,
                sequence: first + index as u64,
            };
            headers.push(header.encode(active.salt, entry.parts));
        }
        let mut parts = Vec::with_capacity(group.iter().map(|entry| entry.parts.len() + 1).sum());
        for (header, entry) in headers.iter().zip(group) {
            parts.push(IoSlice::new(header));
            parts.extend(entry.parts.iter().map(|part| IoSlice::new(part)));
        }

        if let Err(error) = write_all(&mut *active.file, active.len, &mut parts) {
            return Err(self.take_back(&error));
        }
        if self.config.fsync
            && let Err(error) = active.file.sync_data()
        {
            return Err(self.poison("syncing", &error));
        }
        active.len += group_bytes;
        self.next += group.len() as u64;
        Ok(first..=self.next - 1)
    }

    /// Appends one entry as a group of its own; its sequence.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, WalError> {
        Ok(*self.append_group(&[Entry { parts }])?.start())
    }

    /// The next append begins a new file, so that a later truncation to the next sequence can remove
    /// everything before it.
    pub fn seal(&mut self) {
        if self.poisoned.is_some() {
            return;
        }
        if let Some(Active { path, first, len, .. }) = self.active.take_if(|active| active.first < self.next)
        {
            self.sealed.push_back(Sealed { path, first, next: self.next, bytes: len, damaged: false });
        }
    }

    /// Removes files that hold only entries below `sequence`: [`Wal::release_before`] and [`Removal::run`]
    /// at once.
    pub fn truncate_before(&mut self, sequence: u64) -> Result<(), WalError> {
        let mut removal = self.release_before(sequence)?;
        let done = removal.run();
        // What could not be removed must go before any later file.
        while let Some(file) = removal.files.pop_back() {
            self.sealed.push_front(file);
        }
        done
    }

    /// Lets go of files that hold only entries below `sequence`. When that is all of them and none is
    /// active, an empty file is begun first, because the newest file knows the sequence; without space
    /// for it the newest stays. The files are still there until the removal has run, which may take its time
    /// on another thread; removals must run one after another, in the order they were given out. One that
    /// never runs costs space only: after the next [`Wal::open`] the files are released again.
    pub fn release_before(&mut self, sequence: u64) -> Result<Removal, WalError> {
        let all = self.sealed.back().is_some_and(|last| last.first < last.next && last.next <= sequence);
        if all && self.active.is_none() && self.poisoned.is_none() {
            match self.begin_file(false) {
                Ok(()) | Err(WalError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut files = VecDeque::new();
        while let Some(oldest) = self.sealed.pop_front_if(|oldest| oldest.next <= sequence) {
            if self.sealed.is_empty() && self.active.is_none() {
                self.sealed.push_front(oldest);
                break;
            }
            files.push_back(oldest);
        }
        Ok(Removal { disk: self.disk.clone(), dir: self.dir.clone(), fsync: self.config.fsync, files })
    }

    /// The sequence that the next entry gets.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The oldest sequence that the files of a directory may hold, by their names; `None` when there is none.
    pub fn oldest_sequence(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, WalError> {
        match list_files(disk, dir) {
            Ok(firsts) => Ok(firsts.first().copied()),
            Err(WalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The oldest sequence whose file is still there; the next one when there is none.
    pub fn first_sequence(&self) -> u64 {
        let sealed = self.sealed.front().map(|file| file.first);
        sealed.or(self.active.as_ref().map(|active| active.first)).unwrap_or(self.next)
    }

    /// Bytes of all files, without what is reserved.
    pub fn size_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|file| file.bytes).sum();
        sealed + self.active.as_ref().map_or(0, |active| active.len)
    }

    /// Why nothing can be appended any more, if so.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    fn check_poison(&self) -> Result<(), WalError> {
        match &self.poisoned {
            Some(reason) => Err(WalError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn poison(&mut self, doing: &str, error: &io::Error) -> WalError {
        let reason = format!("{doing} in {} failed: {error}", self.dir.display());
        self.poisoned = Some(reason.clone());
        WalError::Poisoned { reason }
    }

    /// After a failed write: cuts the active file back to its last whole group.
    fn take_back(&mut self, error: &io::Error) -> WalError {
        let active = self.active.as_mut().expect("BUG: nothing was written without a file");
        if !is_full(error) {
            return self.poison("writing", error);
        }
        // The cut is made durable before anything is written over it: else sectors of this group and
        // of the next could both be found after a crash, and look like one group.
        let cut = active.file.set_len(active.len);
        let cut = cut.and_then(|()| if self.config.fsync { active.file.sync_data() } else { Ok(()) });
        if let Err(error) = cut {
            return self.poison("taking back a group for lack of space", &error);
        }
        WalError::Full { dir: self.dir.clone() }
    }

    /// Begins the file for the next sequence. The old one is closed before, even if this fails:
    /// a file that was begun may be found after a crash, and then says where the one before it ends.
    fn begin_file(&mut self, reserve: bool) -> Result<(), WalError> {
        self.seal();
        let first = self.next;
        let path = self.dir.join(file_name(first));
        let mut file = match self.disk.create(&path) {
            // A try before this one, or before a crash, did not get to its end. It is not
            // removed: its name may be all that knows the sequence.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.reopen_begun(&path)?,
            created => created.map_err(|error| self.full_or_io("create", &path, error))?,
        };
        if reserve {
            file.reserve(self.config.max_file_bytes);
        }
        let header = FileHeader::new(first);
        match write_all(&mut *file, 0, &mut [IoSlice::new(&header.encode())]) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return Err(WalError::Full { dir: self.dir.clone() }),
            Err(error) => return Err(self.poison("writing", &error)),
        }
        if self.config.fsync
            && let Err(error) = file.sync_data().and_then(|()| self.disk.sync_dir(&self.dir))
        {
            return Err(self.poison("syncing a new file", &error));
        }
        // One that was begun before a crash is this one.
        if self.sealed.back().is_some_and(|last| last.first == first) {
            self.sealed.pop_back();
        }
        let (salt, len) = (header.salt, FILE_HEADER_BYTES);
        self.active = Some(Active { file, path, first, salt, len, reserved: reserve });
        Ok(())
    }

    fn reopen_begun(&self, path: &Path) -> Result<Box<dyn DiskFile>, WalError> {
        let failed = |source| io_error("open", path, source);
        let mut file = self.disk.open_write(path).map_err(failed)?;
        if file.len().map_err(failed)? > FILE_HEADER_BYTES {
            // Opening looked at every file, so this one came from elsewhere.
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        file.set_len(0).map_err(|error| self.full_or_io("cut", path, error))?;
        Ok(file)
    }

    fn full_or_io(&self, action: &'static str, path: &Path, error: io::Error) -> WalError {
        if is_full(&error) { WalError::Full { dir: self.dir.clone() } } else { io_error(action, path, error) }
    }
}
