//! The catalog: which segments exist and how far the log is flushed, in one SQLite file.
//!
//! Guarantee: segments appear and disappear in one transaction, together with the flushed sequence
//! number and the batch keys that must outlive the log. A rollback journal with full sync is used,
//! not SQLite's own log: damage to that log would make SQLite forget commits without a word.
//!
//! Damage is found at open: SQLite's own check, a CRC-32C per row, and a sum over all rows in
//! `meta`, so that neither a flipped byte nor a vanished row goes unseen. A damaged catalog is
//! rebuilt from the segments' own metadata (see `recover.rs`).

use std::{path::Path, time::Duration};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use trine_model::TenantId;
use trine_schema::Signal;
use trine_segment::{BodyEncoding, SegmentMeta};

use crate::{QuarantinedFile, StoreError};

/// How long SQLite waits for a reader from outside (a curious `sqlite3`) before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (
  id INTEGER PRIMARY KEY, signal TEXT NOT NULL, path TEXT NOT NULL, level INTEGER NOT NULL,
  sources TEXT NOT NULL,
  rows INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, file_bytes INTEGER NOT NULL,
  min_timestamp INTEGER NOT NULL, max_timestamp INTEGER NOT NULL, root BLOB NOT NULL,
  tail_offset INTEGER NOT NULL, tenants TEXT NOT NULL, body TEXT NOT NULL,
  crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batch_keys (key BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
  name TEXT PRIMARY KEY, reason TEXT NOT NULL, rows INTEGER NOT NULL, min_timestamp INTEGER NOT NULL,
  max_timestamp INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaving (path TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('flushed_sequence', 0), ('flushed_check', 0), ('segments_sum', 0);
";

/// Keeps `flushed_check` from being a plain copy, so that one flipped page cannot fit by chance.
const FLUSHED_CHECK: i64 = 0x5452_494e_455f_4b31;

/// What the catalog knows of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    /// Never used twice.
    pub id: u64,
    /// What its rows are.
    pub signal: Signal,
    /// Below `segments/`.
    pub path: String,
    /// 0 from a flush, 1 and up from compactions.
    pub level: u8,
    /// Log sequences whose rows went in.
    pub sources: Sources,
    /// What the segment's writer told.
    pub meta: SegmentMeta,
}

impl SegmentRow {
    /// Segments in this order are taken for older first.
    pub fn arrival(&self) -> (u64, u64) {
        (self.sources.last(), self.id)
    }

    fn crc(&self) -> u32 {
        crc32c::crc32c(format!("{self:?}").as_bytes())
    }
}

/// Ascending, disjoint, non-touching inclusive ranges of log sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sources(pub Vec<(u64, u64)>);

impl Sources {
    pub fn range(first: u64, last: u64) -> Self {
        Self(vec![(first, last)])
    }

    /// Union of several.
    pub fn union<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut ranges: Vec<(u64, u64)> = all.into_iter().flat_map(|s| s.0.iter().copied()).collect();
        ranges.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match out.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => out.push((first, last)),
            }
        }
        Self(out)
    }

    /// Whether every sequence of `other` is in `self`.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(first, last)| self.0.iter().any(|(a, b)| a <= first && last <= b))
    }

    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |range| range.1)
    }

    /// `1-5,9-12`
    pub fn to_text(&self) -> String {
        self.0.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(",")
    }

    pub fn from_text(text: &str) -> Option<Self> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.split(',').filter(|part| !part.is_empty()).map(range).collect::<Option<Vec<_>>>().map(Self)
    }
}

/// Everything in the catalog, read once at open.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub flushed_sequence: u64,
    pub segments: Vec<SegmentRow>,
    /// Batch key and wall clock in milliseconds, oldest first.
    pub keys: Vec<(u128, i64)>,
    pub quarantined: Vec<QuarantinedFile>,
    /// Files of segments that merges or retention took out, which may still lie there.
    pub leaving: Vec<String>,
}

/// What a flush commits.
pub(crate) struct FlushCommit<'a> {
    /// One per signal that has rows.
    pub segments: &'a [SegmentRow],
    pub flushed_sequence: u64,
    /// Keys of the flushed batches.
    pub keys: &'a [(u128, i64)],
    /// Keys older than this are forgotten.
    pub forget_keys_before_ms: i64,
    /// Of more keys than this the oldest are forgotten.
    pub most_keys: usize,
}

/// The open catalog.
pub(crate) struct Catalog {
    connection: Mutex<Connection>,
}

fn sql(doing: &str) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
    move |e| match e.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full("the catalog".into()),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            corrupt(e.to_string())
        }
        _ => StoreError::io(format!("catalog: {doing}"), e),
    }
}

/// What [`StoreError::Corrupt`] calls the catalog.
pub(crate) const CATALOG: &str = "the catalog";

pub(crate) fn corrupt(reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: CATALOG.into(), reason: reason.into() }
}

impl Catalog {
    /// Opens or creates it and checks it as a whole. [`StoreError::Corrupt`] asks for a rebuild.
    pub fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let connection = Connection::open(path).map_err(sql("open"))?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sql("open"))?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA; PRAGMA foreign_keys = ON;",
            )
            .map_err(sql("open"))?;
        let verdict: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(sql("check"))?;
        if verdict != "ok" {
            return Err(corrupt(verdict));
        }
        connection.execute_batch(TABLES).map_err(sql("create tables"))?;
        let loaded = load(&connection)?;
        Ok((Self { connection: Mutex::new(connection) }, loaded))
    }

    fn transact<T>(
        &self,
        doing: &str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.lock();
        let run = || -> rusqlite::Result<T> {
            let transaction = connection.transaction()?;
            let out = work(&transaction)?;
            let sum = sum_in(&transaction)?;
            transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'segments_sum'", [sum])?;
            transaction.commit()?;
            Ok(out)
        };
        run().map_err(sql(doing))
    }

    /// How far the log is flushed; asked after a commit whose outcome is unknown.
    pub fn flushed_sequence(&self) -> Result<u64, StoreError> {
        let connection = self.connection.lock();
        let query = "SELECT value FROM meta WHERE name = 'flushed_sequence'";
        connection.query_row(query, [], |row| row.get::<_, i64>(0)).map(|n| n as u64).map_err(sql("read"))
    }

    pub fn commit_flush(&self, commit: &FlushCommit<'_>) -> Result<(), StoreError> {
        self.transact("commit a flush", |t| {
            commit.segments.iter().try_for_each(|segment| insert(t, segment))?;
            set_flushed(t, commit.flushed_sequence)?;
            t.execute("DELETE FROM batch_keys WHERE at_ms < ?1", [commit.forget_keys_before_ms])?;
            let mut key = t.prepare_cached("INSERT OR REPLACE INTO batch_keys VALUES (?1, ?2)")?;
            for (k, at_ms) in commit.keys {
                key.execute(params![k.to_be_bytes().as_slice(), at_ms])?;
            }
            t.execute(
                "DELETE FROM batch_keys WHERE key IN (SELECT key FROM batch_keys ORDER BY at_ms
                 LIMIT max(0, (SELECT COUNT(*) FROM batch_keys) - ?1))",
                [commit.most_keys as i64],
            )?;
            Ok(())
        })
    }

    /// Adds and removes segments at once (compaction, retention). The removed ones' files are noted as
    /// leaving until a later call says that they are `gone`.
    pub fn replace(&self, add: &[SegmentRow], remove: &[u64], gone: &[String]) -> Result<(), StoreError> {
        self.transact("commit a compaction", |t| {
            for path in gone {
                t.execute("DELETE FROM leaving WHERE path = ?1", [path])?;
            }
            for id in remove {
                t.execute(
                    "INSERT OR IGNORE INTO leaving SELECT path FROM segments WHERE id = ?1",
                    [*id as i64],
                )?;
                t.execute("DELETE FROM segments WHERE id = ?1", [*id as i64])?;
            }
            add.iter().try_for_each(|segment| insert(t, segment))
        })
    }

    /// Whether the catalog has this segment; asked after a commit whose outcome is unknown.
    pub fn lists(&self, id: u64) -> Result<bool, StoreError> {
        let query = "SELECT EXISTS (SELECT 1 FROM segments WHERE id = ?1)";
        self.connection.lock().query_row(query, [id as i64], |row| row.get(0)).map_err(sql("read"))
    }

    /// Forgets which files were leaving: all are gone.
    pub fn all_gone(&self) -> Result<(), StoreError> {
        self.transact("forget removed files", |t| t.execute("DELETE FROM leaving", []).map(drop))
    }

    /// Notes a file that was set aside; its segment, if it was one, leaves the catalog.
    pub fn quarantine(&self, id: Option<u64>, file: &QuarantinedFile) -> Result<(), StoreError> {
        self.transact("note a quarantined file", |t| {
            if let Some(id) = id {
                t.execute("DELETE FROM segments WHERE id = ?1", [id as i64])?;
            }
            t.execute(
                "INSERT OR REPLACE INTO quarantine VALUES (?1, ?2, ?3, ?4, ?5)",
                params![file.name, file.reason, file.rows as i64, file.min_timestamp, file.max_timestamp],
            )?;
            Ok(())
        })
    }

    /// Fills a fresh catalog with what was found on disk.
    pub fn fill(&self, segments: &[SegmentRow], flushed_sequence: u64) -> Result<(), StoreError> {
        self.transact("rebuild", |t| {
            segments.iter().try_for_each(|segment| insert(t, segment))?;
            set_flushed(t, flushed_sequence)
        })
    }
}

fn insert(t: &Transaction<'_>, s: &SegmentRow) -> rusqlite::Result<()> {
    let m = &s.meta;
    let tenants = m.tenants.iter().map(TenantId::as_str).collect::<Vec<_>>().join("\n");
    let insert =
        "INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    t.prepare_cached(insert)?.execute(params![
        s.id as i64,
        s.signal.name(),
        s.path,
        s.level,
        s.sources.to_text(),
        m.rows as i64,
        m.raw_bytes as i64,
        m.file_bytes as i64,
        m.min_timestamp,
        m.max_timestamp,
        m.root.as_slice(),
        m.tail_offset as i64,
        tenants,
        match m.body {
            BodyEncoding::Plain => "plain",
            BodyEncoding::Template => "template",
        },
        s.crc(),
    ])?;
    Ok(())
}

fn set_flushed(t: &Transaction<'_>, sequence: u64) -> rusqlite::Result<()> {
    let sequence = sequence as i64;
    t.execute("UPDATE meta SET value = ?1 WHERE name = 'flushed_sequence'", [sequence])?;
    t.execute("UPDATE meta SET value = ?1 WHERE name = 'flushed_check'", [sequence ^ FLUSHED_CHECK])?;
    Ok(())
}

fn sum_in(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT COALESCE(SUM(crc), 0) FROM segments", [], |row| row.get(0))
}

fn load(connection: &Connection) -> Result<Loaded, StoreError> {
    let meta = |name: &str| -> Result<i64, StoreError> {
        connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(sql("read"))?
            .ok_or_else(|| corrupt(format!("{name} is missing")))
    };
    let flushed = meta("flushed_sequence")?;
    // A fresh catalog has zero in both.
    if flushed ^ FLUSHED_CHECK != meta("flushed_check")? && (flushed, meta("flushed_check")?) != (0, 0) {
        return Err(corrupt("the flushed sequence number does not fit its check"));
    }
    if sum_in(connection).map_err(sql("read"))? != meta("segments_sum")? {
        return Err(corrupt("the sum over the segments does not fit"));
    }
    let segments = rows(connection, "SELECT * FROM segments ORDER BY id", |row| {
        let tenants: String = row.get(12)?;
        let segment = SegmentRow {
            id: row.get::<_, i64>(0)? as u64,
            // What is no signal fails the row's check below.
            signal: Signal::from_name(&row.get::<_, String>(1)?).unwrap_or(Signal::Logs),
            path: row.get(2)?,
            level: row.get(3)?,
            // What does not parse fails the row's check below.
            sources: Sources::from_text(&row.get::<_, String>(4)?).unwrap_or_default(),
            meta: SegmentMeta {
                rows: row.get::<_, i64>(5)? as u64,
                raw_bytes: row.get::<_, i64>(6)? as u64,
                file_bytes: row.get::<_, i64>(7)? as u64,
                min_timestamp: row.get(8)?,
                max_timestamp: row.get(9)?,
                root: row.get(10)?,
                tail_offset: row.get::<_, i64>(11)? as u64,
                tenants: tenants.lines().filter_map(|tenant| TenantId::new(tenant).ok()).collect(),
                body: match row.get::<_, String>(13)?.as_str() {
                    "plain" => BodyEncoding::Plain,
                    _ => BodyEncoding::Template,
                },
            },
        };
        Ok((segment, row.get::<_, u32>(14)?))
    })?;
    let segments = segments.into_iter().map(|(segment, crc)| {
        if segment.crc() == crc {
            Ok(segment)
        } else {
            Err(corrupt(format!("the row of {} fails its check", segment.path)))
        }
    });
    Ok(Loaded {
        flushed_sequence: flushed as u64,
        segments: segments.collect::<Result<_, _>>()?,
        keys: rows(connection, "SELECT key, at_ms FROM batch_keys ORDER BY at_ms", |row| {
            let key: [u8; 16] = row.get(0)?;
            Ok((u128::from_be_bytes(key), row.get(1)?))
        })?,
        quarantined: rows(connection, "SELECT * FROM quarantine", |row| {
            Ok(QuarantinedFile {
                name: row.get(0)?,
                reason: row.get(1)?,
                rows: row.get::<_, i64>(2)? as u64,
                min_timestamp: row.get(3)?,
                max_timestamp: row.get(4)?,
            })
        })?,
        leaving: rows(connection, "SELECT path FROM leaving", |row| row.get(0))?,
    })
}

fn rows<T>(
    connection: &Connection,
    query: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(query).map_err(sql("read"))?;
    let found = statement.query_map([], read).map_err(sql("read"))?;
    // A value of a type that no program wrote is damage, not a failing system.
    found.collect::<Result<_, _>>().map_err(|e| corrupt(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(id: u64) -> SegmentRow {
        SegmentRow {
            id,
            signal: Signal::ALL[id as usize % 3],
            path: format!("2026-01-01/{id}.parquet"),
            level: 0,
            sources: Sources::range(id * 10, id * 10 + 9),
            meta: SegmentMeta {
                rows: 10,
                raw_bytes: 1000,
                file_bytes: 100,
                min_timestamp: -5,
                max_timestamp: i64::MAX,
                root: [7; 32],
                tail_offset: 90,
                tenants: vec![TenantId::default(), TenantId::new("x").unwrap()],
                body: BodyEncoding::Template,
            },
        }
    }

    #[test]
    fn sources_merge_when_they_touch_and_cover_only_what_is_whole() {
        let all = Sources::union([&Sources::range(5, 9), &Sources::range(1, 4), &Sources::range(20, 30)]);
        assert_eq!(all.to_text(), "1-9,20-30");
        assert_eq!(Sources::from_text("1-9,20-30"), Some(all.clone()));
        assert!(all.covers(&Sources::range(2, 9)) && !all.covers(&Sources::range(9, 20)));
        assert_eq!((all.last(), Sources::from_text("1-x")), (30, None));
    }

    #[test]
    fn commits_come_back_and_a_vanished_or_changed_row_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let (catalog, loaded) = Catalog::open(&path).unwrap();
        assert_eq!((loaded.flushed_sequence, loaded.segments.len()), (0, 0));
        let commit = |id: u64| {
            let keys = [(id.into(), id as i64 * 1000), (77, id as i64 * 1000)];
            catalog
                .commit_flush(&FlushCommit {
                    segments: &[segment(id)],
                    flushed_sequence: id * 10,
                    keys: &keys,
                    forget_keys_before_ms: 0,
                    most_keys: 2,
                })
                .unwrap();
        };
        commit(1);
        commit(2);
        catalog.replace(&[segment(3)], &[1], &[]).unwrap();
        assert_eq!([1, 2, 3].map(|id| catalog.lists(id).unwrap()), [false, true, true]);
        drop(catalog);
        let (catalog, loaded) = Catalog::open(&path).unwrap();
        assert_eq!(loaded.segments, [segment(2), segment(3)]);
        assert_eq!(loaded.leaving, [segment(1).path]);
        catalog.replace(&[], &[], &loaded.leaving).unwrap();
        assert_eq!(
            (loaded.flushed_sequence, loaded.keys.as_slice()),
            (20, [(2, 2000), (77, 2000)].as_slice())
        );
        drop(catalog);
        assert_eq!(Catalog::open(&path).unwrap().1.leaving, Vec::<String>::new());
        for damage in [
            "DELETE FROM segments WHERE id = 2",
            "UPDATE segments SET rows = 11 WHERE id = 2",
            "UPDATE segments SET signal = 'logs' WHERE id = 2",
            "UPDATE meta SET value = 19 WHERE name = 'flushed_sequence'",
        ] {
            let copy = dir.path().join("copy.db");
            std::fs::copy(&path, &copy).unwrap();
            Connection::open(&copy).unwrap().execute_batch(damage).unwrap();
            assert!(matches!(Catalog::open(&copy), Err(StoreError::Corrupt { .. })), "{damage} went unseen");
        }
        std::fs::write(&path, b"this is no database, it only has the right length to look like one").unwrap();
        assert!(matches!(Catalog::open(&path), Err(StoreError::Corrupt { .. })));
    }
}
