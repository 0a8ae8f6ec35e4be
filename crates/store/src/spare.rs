//! A little space kept for the day the disk is full: to open the catalog and to drop what retention drops, a
//! few pages have to be written.

use std::{fs, path::Path};

use crate::StoreError;

/// File in the data directory.
const SPARE: &str = "spare";
/// Its size: a catalog's journal and a new file of the log.
const BYTES: usize = 512 << 10;
/// It is made when so many times its size is free.
const ROOM: u64 = 64;

/// Makes the file when it is not there and the disk has room.
pub(crate) fn keep(dir: &Path) {
    let file = dir.join(SPARE);
    let room =
        || rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_bavail * disk.f_frsize > ROOM * BYTES as u64);
    if !file.exists() && room() && fs::write(&file, vec![0; BYTES]).is_err() {
        // Half of it helps less than trying again later.
        let _ = fs::remove_file(&file);
    }
}

/// Gives the space away when the error says that it is needed; whether there was any.
pub(crate) fn give(dir: &Path, error: &StoreError) -> bool {
    matches!(error, StoreError::Full(_)) && fs::remove_file(dir.join(SPARE)).is_ok()
}
