//! One process per directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// Name of the lock file in the directory.
const LOCK_FILE: &str = "LOCK";

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} is in use by {}; stop it or choose another directory",
        .dir.display(), .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, where that could be read.
        pid: Option<u32>,
    },
    /// The operating system refused.
    #[error("could not lock {}: {source}; check its permissions", .dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Holds a directory until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Gives the lock back by name, not by closing the file: a child that another thread is just
    /// starting has a copy of the descriptor until its `exec`, and would keep the lock that long.
    fn drop(&mut self) {
        // When it fails, closing releases it a moment later.
        let _ = self.file.unlock();
    }
}

/// Takes a directory for this process. The directory must exist. The lock is the kernel's (`flock`
/// on the file `LOCK`), so a dead process never leaves it behind; the process id inside is for people.
pub fn lock_directory(dir: &Path) -> Result<DirLock, LockError> {
    let io_error = |source| LockError::Io { dir: dir.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The holder may be between taking the lock and writing its id.
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(LockError::Held { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io_error(source)),
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io_error)?;
    Ok(DirLock { file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_directory(dir.path()).unwrap();
        let refused = lock_directory(dir.path()).unwrap_err();
        assert!(matches!(&refused, LockError::Held { pid: Some(pid), .. } if *pid == std::process::id()));
        assert!(refused.to_string().contains(&format!("in use by process {}", std::process::id())));
        drop(first);
        lock_directory(dir.path()).unwrap();
    }

    #[test]
    fn a_copy_of_the_descriptor_in_a_child_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = lock_directory(dir.path()).unwrap();
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        lock_directory(dir.path()).unwrap();
    }
}
