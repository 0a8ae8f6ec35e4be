//! What a server process uses, read from `/proc` and from its data directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// A process by number.
#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

/// Memory of a process, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// Highest resident set so far.
    pub peak: u64,
    /// Resident set now, mapped files included.
    pub now: u64,
    /// Resident set now without mapped files.
    pub anonymous: u64,
}

impl Process {
    /// CPU seconds, user and system, of all threads since the start.
    pub fn cpu_seconds(self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.0);
        let stat =
            std::fs::read_to_string(&path).with_context(|| format!("read {path}; is the process alive?"))?;
        let ticks = ticks(&stat).with_context(|| format!("{path} has an unknown form"))?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Memory now and at its peak.
    pub fn memory(self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.0);
        let status =
            std::fs::read_to_string(&path).with_context(|| format!("read {path}; is the process alive?"))?;
        Ok(memory(&status))
    }
}

/// Fields 14 and 15 (`utime`, `stime`) of `/proc/PID/stat`; the name in field 2 may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn memory(status: &str) -> Memory {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory { peak: field("VmHWM:"), now: field("VmRSS:"), anonymous: field("RssAnon:") }
}

/// Bytes the files below `dir` take on disk (allocated blocks). Files that vanish meanwhile count 0.
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            // st_blocks counts units of 512 bytes whatever the file system's block is.
            Ok(meta) if meta.is_file() => meta.blocks() * 512,
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read_even_with_odd_names() {
        assert_eq!(ticks("7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20"), Some(175));
        let memory = memory("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\nRssAnon:\t 512 kB\n");
        assert_eq!((memory.peak, memory.now, memory.anonymous), (2 << 20, 1 << 20, 512 << 10));
        let me = Process(std::process::id());
        assert!(me.memory().unwrap().now > 0 && me.cpu_seconds().unwrap() >= 0.0);
    }
}
