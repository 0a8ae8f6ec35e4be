//! The disk as the log sees it: a few operations, so that tests can put a failing one in its place.
//!
//! What a [`Disk`] may lose when the power goes: every write and [`DiskFile::set_len`] since the
//! file's last successful [`DiskFile::sync_data`], sector by sector and in any order; every create,
//! rename and remove in a directory since its last [`Disk::sync_dir`], each on its own.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// A file system. Paths are used as given.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates the directory and its parents where missing.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates a file for reading and writing; `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Names of the files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Renames a file, replacing what bears the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creates, renames and removes in the directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether nothing is in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes parts one after the other at `offset`; may write less than all and says how much.
    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Makes the content and the length durable. After an error nothing is known about what
    /// is on the disk, and a later success does not mean that earlier writes are.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Asks for space up to `len` without changing the length. A hint: it may do nothing.
    fn reserve(&mut self, len: u64);
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// More parts than this per call the kernel refuses (`IOV_MAX` on Linux).
const MAX_PARTS_PER_WRITE: usize = 1024;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let parts = &parts[..parts.len().min(MAX_PARTS_PER_WRITE)];
        Ok(rustix::io::pwritev(&self.0, parts, offset)?)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve(&mut self, len: u64) {
        #[cfg(target_os = "linux")]
        {
            let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&self.0, keep, 0, len).is_err()
                && let Ok(current) = self.len()
            {
                // The file system cannot, or has not that much: give back what it took.
                let _ = self.0.set_len(current);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = len;
    }
}
