//! Where things lie, and how a segment file comes into being durably.
//!
//! ```text
//! DIR/VERSION      layout version
//! DIR/LOCK         who works on it
//! DIR/catalog.db   see catalog.rs
//! DIR/wal/         the log
//! DIR/segments/2026-11-20/0000000012-L0-340-377.parquet (logs), ….spans.parquet, ….metrics
//!              day of the latest row / id - level - log sequences inside
//! DIR/quarantine/  files that failed a check, each with a .reason.txt
//! ```
//!
//! A file name tells the segment's id, level, log sequences and signal, so a lost catalog can be rebuilt from
//! the files. `object_store`'s local backend does not sync, so local segments are written here: a
//! temporary name, sync, rename, sync of the directory. Reads go through `object_store` either way.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::TryStreamExt;
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, path::Path as ObjectPath,
};
use trine_schema::Signal;
use trine_segment::{SegmentError, block_on};

use crate::{StoreError, catalog::Sources};

/// Written into `VERSION`.
pub(crate) const LAYOUT_VERSION: u32 = 1;

/// Bytes that are handed to the system at once.
const WRITE_BYTES: usize = 1 << 20;

/// A segment is synced every so many bytes, so that a sync of the log never waits for much more than
/// this to reach the disk.
const SYNC_EVERY: usize = 8 << 20;

/// Prefix of files that are being written.
const TEMPORARY: &str = ".tmp-";

/// Longest sources text in a file name (names end at 255 bytes).
pub(crate) const MAX_SOURCES_TEXT: usize = 180;

/// The directory's parts.
pub(crate) struct Files {
    dir: PathBuf,
    /// Rooted at `segments/`.
    pub objects: Arc<dyn ObjectStore>,
    /// Whether segments are written by ourselves, not by `objects`.
    local: bool,
}

/// What a segment's path tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SegmentName {
    pub id: u64,
    pub signal: Signal,
    pub level: u8,
    pub sources: Sources,
}

/// How names of segments of a signal end. Spans come before logs, whose ending they share.
const ENDINGS: [(Signal, &str); 3] =
    [(Signal::Spans, ".spans.parquet"), (Signal::Logs, ".parquet"), (Signal::Metrics, ".metrics")];

impl SegmentName {
    /// Path below `segments/`.
    pub fn path(&self, max_timestamp: i64) -> String {
        let sources = self.sources.to_text().replace(',', "_");
        let (day, (id, level)) = (day_text(day_of(max_timestamp)), (self.id, self.level));
        let ending =
            ENDINGS.iter().find(|(signal, _)| *signal == self.signal).map_or("", |(_, ending)| ending);
        format!("{day}/{id:010}-L{level}-{sources}{ending}")
    }

    /// Reads [`SegmentName::path`] back.
    pub fn parse(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let (name, signal) =
            ENDINGS.iter().find_map(|(signal, ending)| Some((name.strip_suffix(ending)?, *signal)))?;
        let mut parts = name.splitn(3, '-');
        let id = parts.next()?.parse().ok()?;
        let level = parts.next()?.strip_prefix('L')?.parse().ok()?;
        let sources = Sources::from_text(&parts.next()?.replace('_', ","))?;
        (!sources.0.is_empty()).then_some(Self { id, signal, level, sources })
    }

    /// Reads the name that a segment has in quarantine ([`Files::quarantine_segment`]).
    pub fn parse_quarantined(name: &str) -> Option<Self> {
        Self::parse(name.split_once('_')?.1)
    }
}

/// Days since 1970 of a timestamp in nanoseconds.
pub(crate) fn day_of(timestamp: i64) -> i64 {
    timestamp.div_euclid(86_400_000_000_000)
}

/// `2026-11-20`. Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn day_text(days: i64) -> String {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Whether the chain of causes says that the disk is full.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |e: &io::Error| {
        matches!(
            e.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    };
    let mut cause = Some(error);
    while let Some(e) = cause {
        if e.downcast_ref::<io::Error>().is_some_and(full) {
            return true;
        }
        cause = e.source();
    }
    // The Parquet writer hands an error of the file on as text.
    error.to_string().contains("No space left on device")
}

fn io_error(doing: impl Into<String>, e: &io::Error) -> StoreError {
    if is_full(e) { StoreError::Full(doing.into()) } else { StoreError::io(doing, e) }
}

fn object_error(doing: impl Into<String>, e: &object_store::Error) -> StoreError {
    if is_full(e) { StoreError::Full(doing.into()) } else { StoreError::io(doing, e) }
}

/// A failed segment write, told apart.
pub(crate) fn segment_error(doing: impl Into<String>, e: &SegmentError) -> StoreError {
    if is_full(e) {
        return StoreError::Full(doing.into());
    }
    match e {
        SegmentError::Corrupt { file, .. } | SegmentError::Version { file, .. } => {
            StoreError::Corrupt { what: format!("segment {file}"), reason: e.to_string() }
        }
        _ => StoreError::io(doing, e),
    }
}

/// Makes a rename or create in the directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| io_error(format!("syncing {}", dir.display()), &e))
}

/// A local file on its way to durability.
struct DurableFile {
    file: File,
    buffer: Vec<u8>,
    unsynced: usize,
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            self.file.write_all(bytes)?;
            self.unsynced += bytes.len();
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl Files {
    /// Creates the folders; `objects` replaces the local file system for segments.
    pub fn create(dir: &Path, objects: Option<Arc<dyn ObjectStore>>) -> Result<Self, StoreError> {
        for folder in ["segments", "quarantine"] {
            let path = dir.join(folder);
            fs::create_dir_all(&path).map_err(|e| io_error(format!("creating {}", path.display()), &e))?;
        }
        sync_dir(dir)?;
        Self::existing(dir, objects)
    }

    /// Over folders that are there.
    pub fn existing(dir: &Path, objects: Option<Arc<dyn ObjectStore>>) -> Result<Self, StoreError> {
        let local = objects.is_none();
        let objects = match objects {
            Some(objects) => objects,
            None => Arc::new(
                LocalFileSystem::new_with_prefix(dir.join("segments"))
                    .map_err(|e| object_error("opening segments/", &e))?,
            ),
        };
        Ok(Self { dir: dir.to_owned(), objects, local })
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Checks `VERSION`, or writes it into a new directory.
    pub fn check_version(dir: &Path) -> Result<(), StoreError> {
        let path = dir.join("VERSION");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == LAYOUT_VERSION.to_string() => Ok(()),
            Ok(found) => {
                Err(StoreError::Version { path, found: found.trim().to_owned(), known: LAYOUT_VERSION })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                write_durably(&path, format!("{LAYOUT_VERSION}\n").as_bytes())
            }
            Err(e) => Err(io_error(format!("reading {}", path.display()), &e)),
        }
    }

    /// Writes a segment; when this returns it is durable under its name. `produce` writes the bytes.
    /// On an error nothing is left behind.
    pub fn write<T>(
        &self,
        path: &str,
        produce: impl FnOnce(&mut (dyn Write + Send)) -> Result<T, SegmentError>,
    ) -> Result<T, StoreError> {
        let doing = || format!("writing segment {path}");
        if !self.local {
            let mut bytes = Vec::new();
            let out = produce(&mut bytes).map_err(|e| rows_error(doing(), e))?;
            let object = ObjectPath::from(path);
            let put = self.objects.put(&object, PutPayload::from(bytes));
            block_on(put).map_err(|e| object_error(doing(), &e))?;
            return Ok(out);
        }
        let segments = self.dir.join("segments");
        let (folder, name) = path.split_once('/').expect("BUG: a segment path is day/name");
        let folder = segments.join(folder);
        let fresh = !folder.exists();
        let temporary = folder.join(format!("{TEMPORARY}{name}"));
        let run = || -> Result<T, StoreError> {
            fs::create_dir_all(&folder).map_err(|e| io_error(doing(), &e))?;
            let file = File::create(&temporary).map_err(|e| io_error(doing(), &e))?;
            let mut file = DurableFile { file, buffer: Vec::with_capacity(WRITE_BYTES), unsynced: 0 };
            let out = produce(&mut file).map_err(|e| rows_error(doing(), e))?;
            file.flush()
                .and_then(|()| file.file.sync_all())
                .and_then(|()| fs::rename(&temporary, folder.join(name)))
                .map_err(|e| io_error(doing(), &e))?;
            sync_dir(&folder)?;
            if fresh {
                sync_dir(&segments)?;
            }
            Ok(out)
        };
        run().inspect_err(|_| {
            // Best effort: what stays is swept at the next open.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Removes a segment file; one that is gone already is fine.
    pub fn remove(&self, path: &str) -> Result<(), StoreError> {
        match block_on(self.objects.delete(&ObjectPath::from(path))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(object_error(format!("removing segment {path}"), &e)),
        }
    }

    /// Removes day folders that are empty and files that were being written.
    pub fn sweep_local(&self) -> Result<Vec<String>, StoreError> {
        let mut swept = Vec::new();
        if !self.local {
            return Ok(swept);
        }
        let fail = |e: io::Error| io_error("sweeping segments/", &e);
        for folder in fs::read_dir(self.dir.join("segments")).map_err(fail)? {
            let folder = folder.map_err(fail)?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in fs::read_dir(&folder).map_err(fail)? {
                let file = file.map_err(fail)?;
                if file.file_name().to_string_lossy().starts_with(TEMPORARY) {
                    fs::remove_file(file.path()).map_err(fail)?;
                    swept.push(file.path().display().to_string());
                }
            }
            // Fails when it is not empty, which is fine.
            let _ = fs::remove_dir(&folder);
        }
        Ok(swept)
    }

    /// Paths of all segment files.
    pub fn list(&self) -> Result<Vec<String>, StoreError> {
        let all = block_on(self.objects.list(None).try_collect::<Vec<_>>());
        let all = all.map_err(|e| object_error("listing segments/", &e))?;
        let mut paths: Vec<String> = all.into_iter().map(|object| object.location.to_string()).collect();
        paths.retain(|path| !path.contains(TEMPORARY));
        paths.sort_unstable();
        Ok(paths)
    }

    /// Moves a segment into `quarantine/`; returns its name there.
    pub fn quarantine_segment(&self, path: &str, reason: &str) -> Result<String, StoreError> {
        let name = path.replace('/', "_");
        let target = self.dir.join("quarantine").join(&name);
        let doing = format!("moving {path} into quarantine");
        self.note_quarantined(&name, reason)?;
        if self.local {
            match fs::rename(self.dir.join("segments").join(path), &target) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(doing, &e)),
                _ => {}
            }
        } else {
            let object = ObjectPath::from(path);
            let bytes = block_on(async { self.objects.get(&object).await?.bytes().await });
            match bytes {
                Ok(bytes) => write_durably(&target, &bytes)?,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(object_error(doing, &e)),
            }
            self.remove(path)?;
        }
        sync_dir(&self.dir.join("quarantine"))?;
        Ok(name)
    }

    /// Copies any file of the data directory into `quarantine/` as evidence.
    pub fn quarantine_copy(&self, file: &Path, name: &str, reason: &str) -> Result<(), StoreError> {
        self.note_quarantined(name, reason)?;
        match fs::copy(file, self.dir.join("quarantine").join(name)) {
            // A simulated disk has no such file.
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io_error(format!("copying {} into quarantine", file.display()), &e))
            }
            _ => sync_dir(&self.dir.join("quarantine")),
        }
    }

    /// Puts bytes that could not be used into `quarantine/`.
    pub fn quarantine_bytes(&self, bytes: &[u8], name: &str, reason: &str) -> Result<(), StoreError> {
        self.note_quarantined(name, reason)?;
        write_durably(&self.dir.join("quarantine").join(name), bytes)
    }

    /// Whether the named file (or at least its reason) still lies in `quarantine/`.
    pub fn in_quarantine(&self, name: &str) -> bool {
        let folder = self.dir.join("quarantine");
        folder.join(name).exists() || folder.join(format!("{name}.reason.txt")).exists()
    }

    fn note_quarantined(&self, name: &str, reason: &str) -> Result<(), StoreError> {
        write_durably(
            &self.dir.join("quarantine").join(format!("{name}.reason.txt")),
            format!("{reason}\n").as_bytes(),
        )
    }
}

/// An error of the rows' source is unwrapped: the damaged input is what matters.
fn rows_error(doing: String, e: SegmentError) -> StoreError {
    if let SegmentError::Rows(inner) = e {
        return match inner.downcast::<SegmentError>() {
            Ok(inner) => segment_error(doing, &inner),
            Err(other) => match other.downcast::<StoreError>() {
                Ok(own) => *own,
                Err(other) => StoreError::io(doing, other),
            },
        };
    }
    segment_error(doing, &e)
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let fail = |e: io::Error| io_error(format!("writing {}", path.display()), &e);
    let mut file = File::create(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fail)?;
    sync_dir(path.parent().expect("a file lies in a folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_names_go_there_and_back() {
        for (days, text) in
            [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29"), (20_777, "2026-11-20")]
        {
            assert_eq!(day_text(days), text);
        }
        assert_eq!((day_of(-1), day_of(86_400_000_000_000)), (-1, 1));
        let sources = Sources::from_text("3-9,12-12").unwrap();
        for (signal, ending) in ENDINGS {
            let name = SegmentName { id: 7, signal, level: 1, sources: sources.clone() };
            assert_eq!(name.path(0), format!("1970-01-01/0000000007-L1-3-9_12-12{ending}"));
            assert_eq!(
                SegmentName::parse_quarantined(&name.path(0).replace('/', "_")),
                SegmentName::parse(&name.path(0))
            );
            assert_eq!(SegmentName::parse(&name.path(0)), Some(name));
        }
        for other in ["1970-01-01/x.parquet", "1-L1-.parquet", "1-L1-3.parquet", "1-1-1-2.parquet", "README"]
        {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(day_text(day_of(extreme)).len() == 10);
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::create(dir.path(), None).unwrap();
        let failed: Result<(), _> = files.write("2026-01-01/1-L0-1-1.parquet", |out| {
            out.write_all(&vec![1; 3 << 20]).unwrap();
            let full = io::Error::from(io::ErrorKind::StorageFull);
            Err(SegmentError::Io { file: "(new)".into(), source: full })
        });
        assert!(matches!(failed, Err(StoreError::Full(_))), "{failed:?}");
        assert_eq!(files.list().unwrap(), Vec::<String>::new());
        files
            .write("2026-01-01/1-L0-1-1.parquet", |out| {
                out.write_all(b"abc").unwrap();
                Ok(())
            })
            .unwrap();
        assert_eq!(files.list().unwrap(), ["2026-01-01/1-L0-1-1.parquet"]);
        assert!(files.sweep_local().unwrap().is_empty(), "a temporary file was left");
        assert_eq!(fs::read(dir.path().join("segments/2026-01-01/1-L0-1-1.parquet")).unwrap(), b"abc");
    }
}
