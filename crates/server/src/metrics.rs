//! Counters about ourselves, in Prometheus' text format at `/metrics`.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use trine_store::StoreStatus;

use crate::scraping::ScrapeFacts;

/// The doors through which data comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OtlpGrpc,
    OtlpHttp,
    Loki,
    JsonLines,
    Zipkin,
    Jaeger,
    RemoteWrite,
    Scrape,
}

impl Protocol {
    const ALL: [Self; 8] = [
        Self::OtlpGrpc,
        Self::OtlpHttp,
        Self::Loki,
        Self::JsonLines,
        Self::Zipkin,
        Self::Jaeger,
        Self::RemoteWrite,
        Self::Scrape,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::Loki => "loki",
            Self::JsonLines => "jsonlines",
            Self::Zipkin => "zipkin",
            Self::Jaeger => "jaeger",
            Self::RemoteWrite => "remote_write",
            Self::Scrape => "scrape",
        }
    }
}

#[derive(Default)]
struct Door {
    requests: AtomicU64,
    bytes: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

/// The languages in which data is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Sql,
    LogQl,
    Tail,
    PromQl,
    Traces,
}

#[derive(Default)]
struct Asked {
    queries: AtomicU64,
    failed: AtomicU64,
    seconds_ns: AtomicU64,
}

/// All counters of the server.
#[derive(Default)]
pub struct Metrics {
    doors: [Door; Protocol::ALL.len()],
    asked: [Asked; 5],
}

impl Metrics {
    /// A request was taken apart: `accepted` records kept, `rejected` refused one by one.
    pub fn ingested(&self, protocol: Protocol, bytes: usize, accepted: usize, rejected: usize) {
        let door = &self.doors[protocol as usize];
        door.requests.fetch_add(1, Relaxed);
        door.bytes.fetch_add(bytes as u64, Relaxed);
        door.accepted.fetch_add(accepted as u64, Relaxed);
        door.rejected.fetch_add(rejected as u64, Relaxed);
    }

    /// A request was refused as a whole.
    pub fn ingest_failed(&self, protocol: Protocol) {
        let door = &self.doors[protocol as usize];
        door.requests.fetch_add(1, Relaxed);
        door.failed.fetch_add(1, Relaxed);
    }

    /// A query ended.
    pub fn asked(&self, language: Language, took: Duration, failed: bool) {
        let asked = &self.asked[language as usize];
        asked.queries.fetch_add(1, Relaxed);
        asked.failed.fetch_add(u64::from(failed), Relaxed);
        asked.seconds_ns.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// The text of `/metrics`.
    pub fn render(&self, store: &StoreStatus, free_bytes: usize, scrape: Option<&ScrapeFacts>) -> String {
        let mut text = Text::default();
        let doors = |field: fn(&Door) -> &AtomicU64| -> Vec<(String, f64)> {
            Protocol::ALL
                .iter()
                .map(|p| {
                    (
                        format!("{{protocol=\"{}\"}}", p.name()),
                        field(&self.doors[*p as usize]).load(Relaxed) as f64,
                    )
                })
                .collect()
        };
        text.many(
            "trine_ingest_requests_total",
            "counter",
            "Requests that brought data.",
            doors(|d| &d.requests),
        );
        let mut bytes = doors(|d| &d.bytes);
        bytes[Protocol::Scrape as usize].1 = scrape.map_or(0.0, |scrape| scrape.body_bytes as f64);
        text.many(
            "trine_ingest_bytes_total",
            "counter",
            "Bytes of bodies as they came, of scrapes after unpacking.",
            bytes,
        );
        text.many(
            "trine_ingest_records_total",
            "counter",
            "Records stored, or known as stored before.",
            doors(|d| &d.accepted),
        );
        text.many(
            "trine_ingest_rejected_records_total",
            "counter",
            "Records refused one by one.",
            doors(|d| &d.rejected),
        );
        text.many(
            "trine_ingest_failed_requests_total",
            "counter",
            "Requests refused as a whole.",
            doors(|d| &d.failed),
        );
        let asked = |value: fn(&Asked) -> f64| -> Vec<(String, f64)> {
            let languages = [
                (Language::Sql, "sql"),
                (Language::LogQl, "logql"),
                (Language::Tail, "tail"),
                (Language::PromQl, "promql"),
                (Language::Traces, "traces"),
            ];
            languages
                .map(|(l, name)| (format!("{{language=\"{name}\"}}"), value(&self.asked[l as usize])))
                .into()
        };
        text.many(
            "trine_queries_total",
            "counter",
            "Queries that ended.",
            asked(|a| a.queries.load(Relaxed) as f64),
        );
        text.many(
            "trine_queries_failed_total",
            "counter",
            "Queries that ended with an error.",
            asked(|a| a.failed.load(Relaxed) as f64),
        );
        text.many(
            "trine_query_seconds_total",
            "counter",
            "Time spent on queries.",
            asked(|a| a.seconds_ns.load(Relaxed) as f64 / 1e9),
        );

        let free = vec![(String::new(), free_bytes as f64)];
        text.many(
            "trine_ingest_free_bytes",
            "gauge",
            "Room for more request bodies; at 0 senders wait.",
            free,
        );
        if let Some(scrape) = scrape {
            text.scraping(scrape);
        }
        let counters = &store.counters;
        let seconds = |ns: u64| ns as f64 / 1e9;
        for (name, kind, help, value) in [
            ("trine_store_rows", "gauge", "Rows in memtables and segments.", store.rows as f64),
            (
                "trine_store_segment_bytes",
                "gauge",
                "Bytes of all segments on disk.",
                store.segment_bytes as f64,
            ),
            (
                "trine_store_wal_bytes",
                "gauge",
                "Bytes of the write-ahead log on disk.",
                store.wal_bytes as f64,
            ),
            ("trine_store_memtable_rows", "gauge", "Rows in memtables.", store.memtable_rows as f64),
            ("trine_store_memtable_bytes", "gauge", "Memory of the memtables.", store.memtable_bytes as f64),
            (
                "trine_store_index_bytes",
                "gauge",
                "Memory of the segment indexes kept for the next query.",
                store.index_bytes as f64,
            ),
            (
                "trine_store_index_loads_total",
                "counter",
                "Segment indexes read into memory.",
                store.index_loads as f64,
            ),
            (
                "trine_store_index_load_seconds_total",
                "counter",
                "Time spent reading segment indexes.",
                seconds(store.index_load_ns),
            ),
            ("trine_store_streams", "gauge", "Streams known to the process.", store.streams as f64),
            (
                "trine_store_quarantined_files",
                "gauge",
                "Files set aside because they failed a check.",
                store.quarantined.len() as f64,
            ),
            (
                "trine_store_poisoned",
                "gauge",
                "1 when a failed sync stopped the store.",
                f64::from(u8::from(store.poisoned.is_some())),
            ),
            (
                "trine_store_full",
                "gauge",
                "1 while the disk is full.",
                f64::from(u8::from(store.full.is_some())),
            ),
            ("trine_store_appended_rows_total", "counter", "Rows stored.", counters.appended_rows as f64),
            (
                "trine_store_appended_bytes_total",
                "counter",
                "Bytes of bodies and attributes stored.",
                counters.appended_bytes as f64,
            ),
            (
                "trine_store_duplicate_batches_total",
                "counter",
                "Batches known by their key and not stored again.",
                counters.duplicate_batches as f64,
            ),
            (
                "trine_store_rejected_batches_total",
                "counter",
                "Batches the store refused.",
                counters.rejected_batches as f64,
            ),
            ("trine_store_wal_groups_total", "counter", "Group commits.", counters.wal_groups as f64),
            (
                "trine_store_wal_written_bytes_total",
                "counter",
                "Bytes written to the log.",
                counters.wal_written_bytes as f64,
            ),
            (
                "trine_store_wal_sync_seconds_total",
                "counter",
                "Time spent in syncs of the log.",
                seconds(counters.wal_sync_ns),
            ),
            (
                "trine_store_flushes_total",
                "counter",
                "Memtables written to segments.",
                counters.flushes as f64,
            ),
            (
                "trine_store_flush_seconds_total",
                "counter",
                "Time spent in flushes.",
                seconds(counters.flush_ns),
            ),
            ("trine_store_compactions_total", "counter", "Compactions.", counters.compactions as f64),
            (
                "trine_store_compaction_seconds_total",
                "counter",
                "Time spent in compactions.",
                seconds(counters.compaction_ns),
            ),
            (
                "trine_store_retention_rows_total",
                "counter",
                "Rows dropped by retention.",
                counters.retained_out_rows as f64,
            ),
        ] {
            text.many(name, kind, help, vec![(String::new(), value)]);
        }
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn scraping(&mut self, scrape: &ScrapeFacts) {
        for (name, help, value) in [
            (
                "trine_scrape_config_last_reload_successful",
                "1 unless the last reading of the scrape configuration failed.",
                f64::from(u8::from(scrape.reading.refused.is_none())),
            ),
            (
                "trine_scrape_config_last_reload_success_timestamp_seconds",
                "When a scrape configuration was taken last.",
                scrape.reading.taken_s,
            ),
            (
                "trine_scrape_problems",
                "Files of targets and targets that cannot be used; /health names them.",
                scrape.problems as f64,
            ),
        ] {
            self.many(name, "gauge", help, vec![(String::new(), value)]);
        }
    }

    fn many(&mut self, name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}
