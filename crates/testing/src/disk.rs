//! A disk in memory that forgets what was not synced when the power goes.
//!
//! Each file has bytes as a running program sees them and bytes that are durable; what lies between
//! is a list of writes and cuts since the last sync. [`SimDisk::crash`] makes a random part of that
//! list durable: sector by sector, in any order, anything from nothing to all. The same for
//! creates, renames and removes in a directory since it was last synced. Everything random comes
//! from the seed.
//!
//! A failed sync behaves as Linux does: a part of the writes reached the disk, and the rest is
//! forgotten by the kernel. Programs go on to see it, later syncs succeed without it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use trine_wal::{Disk, DiskFile};

use crate::Random;

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

type FileId = u64;

struct State {
    random: Random,
    files: HashMap<FileId, Content>,
    /// As programs see it.
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    /// In the order they were done.
    unsynced_names: Vec<NameChange>,
    next_file: FileId,
    /// Counts crashes: handles from before one are dead.
    boot: u64,
    /// Operations that change something until the power goes.
    power_cut_after: Option<u64>,
    power_is_off: bool,
    /// Syncs until one fails.
    failing_sync_after: Option<u64>,
    capacity: Option<u64>,
    /// Percent of writes that write less than asked.
    short_writes: u64,
}

#[derive(Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone)]
enum NameChange {
    Create(PathBuf, FileId),
    Rename(PathBuf, PathBuf, FileId),
    Remove(PathBuf),
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Create(path, _) | Self::Rename(_, path, _) | Self::Remove(path)) = self;
        path.parent() == Some(dir)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Create(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Content {
    /// Makes a random part of the unsynced changes durable, the rest is forgotten.
    fn keep_some(&mut self, random: &mut Random) {
        let percent = *random.pick(&[0, 10, 50, 90, 100]);
        let sector = *random.pick(&[512, 4096]);
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::SetLen(len) => {
                    if random.chance(percent) {
                        self.durable.resize(len, 0);
                    }
                }
                Change::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let end = bytes.len().min(((offset + at) / sector + 1) * sector - offset);
                        if random.chance(percent) {
                            put(&mut self.durable, offset + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                }
            }
        }
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// What becomes of an operation that is all or nothing.
#[cfg(feature = "objects")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Atomic {
    Done,
    /// Done, and nobody was told.
    DoneInTheDark,
    Lost,
}

pub(crate) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    /// Called by everything that changes something. True: the power goes in this very operation.
    fn power_goes(&mut self) -> io::Result<bool> {
        if self.power_is_off {
            return Err(power_is_off());
        }
        if let Some(left) = &mut self.power_cut_after {
            if *left == 0 {
                self.power_is_off = true;
                return Ok(true);
            }
            *left -= 1;
        }
        Ok(false)
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let goes = self.power_goes()?;
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
        if goes { Err(power_is_off()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<FileId> {
        if self.power_is_off {
            return Err(power_is_off());
        }
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].bytes.len() as u64).sum()
    }

    /// Whether an injected failure of this sync is due.
    fn sync_fails(&mut self) -> bool {
        match &mut self.failing_sync_after {
            Some(0) => {
                self.failing_sync_after = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

impl SimDisk {
    /// An empty disk with power on and no faults.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            files: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            next_file: 0,
            boot: 0,
            power_cut_after: None,
            power_is_off: false,
            failing_sync_after: None,
            capacity: None,
            short_writes: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics inside the disk")
    }

    /// The power goes and comes back: open files are dead, what was not synced is kept in random
    /// parts. Cuts and failing syncs still due are called off; capacity stays.
    pub fn crash(&self) {
        let mut state = self.state();
        let state = &mut *state;
        let percent = *state.random.pick(&[0, 50, 100]);
        for change in std::mem::take(&mut state.unsynced_names) {
            if state.random.chance(percent) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        let names = &state.names;
        state.files.retain(|id, _| names.values().any(|kept| kept == id));
        let mut ids: Vec<FileId> = state.files.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let file = state.files.get_mut(&id).expect("just listed");
            file.keep_some(&mut state.random);
            file.bytes.clone_from(&file.durable);
        }
        state.boot += 1;
        state.power_is_off = false;
        state.power_cut_after = None;
        state.failing_sync_after = None;
    }

    /// Everything that was written so far is durable now, as after minutes of quiet.
    pub fn settle(&self) {
        let mut state = self.state();
        for file in state.files.values_mut() {
            file.durable.clone_from(&file.bytes);
            file.unsynced.clear();
        }
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
    }

    /// The power goes in the middle of the operation after the next `operations` that change
    /// something; from then on everything fails until [`SimDisk::crash`].
    pub fn cut_power_after(&self, operations: u64) {
        self.state().power_cut_after = Some(operations);
    }

    /// The power goes now.
    pub fn cut_power(&self) {
        self.state().power_is_off = true;
    }

    /// Whether the power is on.
    pub fn has_power(&self) -> bool {
        !self.state().power_is_off
    }

    /// Counts an operation of something else on the same power that changes all or nothing. It
    /// says whether the power goes in it and, if so, whether the change was made nevertheless.
    #[cfg(feature = "objects")]
    pub(crate) fn atomic_operation(&self) -> io::Result<Atomic> {
        let mut state = self.state();
        Ok(match (state.power_goes()?, state.random.chance(50)) {
            (false, _) => Atomic::Done,
            (true, true) => Atomic::DoneInTheDark,
            (true, false) => Atomic::Lost,
        })
    }

    /// The sync after the next `syncs` fails, once.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.state().failing_sync_after = Some(syncs);
    }

    /// Bytes that fit; writes beyond get `StorageFull`, after a part of them was written.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Percent of writes that write only a part and say so.
    pub fn set_short_writes(&self, percent: u64) {
        self.state().short_writes = percent;
    }

    /// Paths and lengths of all files, sorted.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        state.names.iter().map(|(path, id)| (path.clone(), state.files[id].bytes.len() as u64)).collect()
    }

    /// The content of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[path]].bytes.clone()
    }

    /// Overwrites bytes on the disk behind everybody's back, as rot does.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        let id = state.names[path];
        let file = state.files.get_mut(&id).expect("a name has a file");
        put(&mut file.bytes, offset as usize, bytes);
        put(&mut file.durable, offset as usize, bytes);
    }

    /// Flips one bit, as rot does.
    pub fn flip_bit(&self, path: &Path, bit: u64) {
        let byte = self.content(path)[(bit / 8) as usize];
        self.overwrite(path, bit / 8, &[byte ^ (1 << (bit % 8))]);
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.files()).finish()
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        if self.state().power_is_off { Err(power_is_off()) } else { Ok(()) }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if state.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Content::default());
        state.change_name(NameChange::Create(path.to_owned(), id))?;
        Ok(Box::new(SimFile { disk: self.clone(), id, boot: state.boot }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        Ok(Box::new(SimFile { disk: self.clone(), id: state.find(path)?, boot: state.boot }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_write(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.power_is_off {
            return Err(power_is_off());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(from)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path)?;
        state.change_name(NameChange::Remove(path.to_owned()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        if state.power_goes()? {
            return Err(power_is_off());
        }
        if state.sync_fails() {
            return Err(io::Error::other("injected: the sync of a directory failed"));
        }
        for change in std::mem::take(&mut state.unsynced_names) {
            if change.is_in(dir) {
                change.apply(&mut state.durable_names);
            } else {
                state.unsynced_names.push(change);
            }
        }
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
    boot: u64,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "file {} of boot {}", self.id, self.boot)
    }
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, FileId) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.power_is_off || state.boot != self.boot {
            return Err(power_is_off());
        }
        act(&mut state, self.id)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, id| Ok(state.files[&id].bytes.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|state, id| {
            let bytes = state.files[&id].bytes.get(offset as usize..).unwrap_or_default();
            let count = bytes.len().min(buffer.len());
            buffer[..count].copy_from_slice(&bytes[..count]);
            Ok(count)
        })
    }

    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|state, id| {
            let goes = state.power_goes()?;
            let mut bytes = parts.iter().map(|part| &**part).collect::<Vec<_>>().concat();
            if goes || (bytes.len() > 1 && state.random.chance(state.short_writes)) {
                let count = state.random.below(bytes.len() as u64).max(1);
                bytes.truncate(count as usize);
            }
            if let Some(capacity) = state.capacity {
                let free = capacity.saturating_sub(state.used());
                let room = (state.files[&id].bytes.len() as u64 + free).saturating_sub(offset);
                if room == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                bytes.truncate(room as usize);
            }
            let count = bytes.len();
            let file = state.files.get_mut(&id).expect("an open file exists");
            put(&mut file.bytes, offset as usize, &bytes);
            file.unsynced.push(Change::Write { offset: offset as usize, bytes });
            if goes { Err(power_is_off()) } else { Ok(count) }
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.with(|state, id| {
            if state.power_goes()? {
                return Err(power_is_off());
            }
            let fails = state.sync_fails();
            let file = state.files.get_mut(&id).expect("an open file exists");
            if fails {
                file.keep_some(&mut state.random);
                return Err(io::Error::other("injected: the sync failed"));
            }
            for change in std::mem::take(&mut file.unsynced) {
                match change {
                    Change::SetLen(len) => file.durable.resize(len, 0),
                    Change::Write { offset, bytes } => put(&mut file.durable, offset, &bytes),
                }
            }
            Ok(())
        })
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.with(|state, id| {
            let goes = state.power_goes()?;
            let file = state.files.get_mut(&id).expect("an open file exists");
            file.bytes.resize(len as usize, 0);
            file.unsynced.push(Change::SetLen(len as usize));
            if goes { Err(power_is_off()) } else { Ok(()) }
        })
    }

    fn reserve(&mut self, _len: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &mut Box<dyn DiskFile>, offset: u64, bytes: &[u8]) {
        assert_eq!(file.write_at(offset, &[IoSlice::new(bytes)]).unwrap(), bytes.len());
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_sectors_of_the_rest() {
        let path = Path::new("d/f");
        let mut lengths = std::collections::BTreeSet::new();
        let mut holes = 0;
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let mut file = disk.create(path).unwrap();
            write(&mut file, 0, &[1; 700]);
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            write(&mut file, 700, &[2; 2000]);
            assert_eq!(disk.content(path).len(), 2700, "the program sees what it wrote");
            disk.crash();
            let bytes = disk.content(path);
            assert_eq!(bytes[..700], [1; 700]);
            holes += u32::from(bytes[700..].contains(&0));
            lengths.insert(bytes.len());
            assert!(file.len().is_err(), "a handle from before the crash is dead");
        }
        assert!(lengths.contains(&700) && lengths.contains(&2700) && lengths.len() > 3, "{lengths:?}");
        assert!(holes > 10, "sectors are lost in any order: {holes}");
    }

    #[test]
    fn names_survive_for_sure_only_when_the_directory_was_synced() {
        let mut present = 0;
        for seed in 0..100 {
            let disk = SimDisk::new(seed);
            disk.create(Path::new("d/synced")).unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.create(Path::new("d/unsynced")).unwrap();
            disk.crash();
            assert!(disk.open_read(Path::new("d/synced")).is_ok());
            present += u32::from(disk.open_read(Path::new("d/unsynced")).is_ok());
        }
        assert!((20..80).contains(&present), "{present}");
    }

    #[test]
    fn what_a_failed_sync_forgot_no_later_sync_makes_durable() {
        let path = Path::new("d/f");
        let mut lost = 0;
        for seed in 0..100 {
            let disk = SimDisk::new(seed);
            let mut file = disk.create(path).unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            write(&mut file, 0, b"x");
            disk.fail_sync_after(0);
            assert!(file.sync_data().is_err());
            assert!(file.sync_data().is_ok());
            assert_eq!(disk.content(path), b"x");
            disk.crash();
            lost += u32::from(disk.content(path).is_empty());
        }
        assert!(lost > 10, "{lost}");
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(10));
        let mut file = disk.create(Path::new("d/f")).unwrap();
        assert_eq!(file.write_at(0, &[IoSlice::new(&[0; 20])]).unwrap(), 10);
        assert_eq!(file.write_at(10, &[IoSlice::new(&[0])]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.set_len(5).unwrap();
        assert_eq!(file.write_at(5, &[IoSlice::new(&[0; 20])]).unwrap(), 5);
    }

    #[test]
    fn power_goes_in_the_middle_of_an_operation_and_stays_away_until_the_crash() {
        let disk = SimDisk::new(1);
        let mut file = disk.create(Path::new("d/f")).unwrap();
        disk.cut_power_after(1);
        write(&mut file, 0, b"x");
        assert!(file.sync_data().is_err());
        assert!(disk.list(Path::new("d")).is_err());
        disk.crash();
        assert!(disk.list(Path::new("d")).is_ok());
    }
}
