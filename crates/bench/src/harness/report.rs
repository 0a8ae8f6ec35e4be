//! What one run measured, as JSON for machines and as a table for people, and ratios between runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::questions::{logs, metrics, traces};
use super::signal::Signal;

/// Median and p95 of one question in one language.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Timing {
    /// Median, milliseconds.
    pub median_ms: f64,
    /// 95th percentile, milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, milliseconds.
    #[serde(default)]
    pub p99_ms: f64,
    /// All answers were right.
    pub ok: bool,
    /// The first wrong answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

impl Timing {
    /// Without the median.
    fn rest(&self) -> String {
        let verdict = match &self.wrong {
            Some(wrong) => format!("WRONG: {wrong}"),
            None if self.ok => "right".to_owned(),
            None => "WRONG".to_owned(),
        };
        format!("p95 {} p99 {}  {verdict}", short(self.p95_ms), short(self.p99_ms))
    }

    /// All of it for people.
    pub fn line(&self) -> String {
        format!("{:>10} ms    {}", short(self.median_ms), self.rest())
    }
}

/// One run. Absent values were not measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Server, and language or variant.
    pub name: String,
    /// Of what the load consists.
    #[serde(default)]
    pub signal: Signal,
    /// What was sent: corpus, bytes, seed, protocol.
    #[serde(default)]
    pub load: String,
    /// Lines, spans or samples sent.
    #[serde(default)]
    pub lines: u64,
    /// Server CPU seconds per raw gigabyte until everything was acknowledged.
    #[serde(default)]
    pub cpu_s_per_gb_taking_in: Option<f64>,
    /// The same with flush and compaction.
    pub cpu_s_per_gb: Option<f64>,
    /// Server CPU seconds per million spans or samples until everything was acknowledged.
    #[serde(default)]
    pub cpu_s_per_million_taking_in: Option<f64>,
    /// The same with flush and compaction.
    #[serde(default)]
    pub cpu_s_per_million: Option<f64>,
    /// Lines, spans or samples per second at full speed.
    pub lines_per_s: Option<f64>,
    /// Pushes the server was too busy for.
    #[serde(default)]
    pub retries: u64,
    /// Highest resident set up to the end of compaction, MiB.
    pub peak_rss_mib: Option<f64>,
    /// Highest resident set without mapped files while taking in, MiB.
    #[serde(default)]
    pub peak_anonymous_mib: Option<f64>,
    /// Highest resident set in each quarter of the intake, MiB: flat or growing.
    #[serde(default)]
    pub rss_quarters_mib: Option<[f64; 4]>,
    /// Bytes on disk per raw byte after compaction.
    pub disk_per_raw: Option<f64>,
    /// Bytes on disk per span or sample after compaction.
    #[serde(default)]
    pub disk_per_item: Option<f64>,
    /// Rate of the steady load under which visibility was measured, lines, spans or samples per second.
    #[serde(default)]
    pub steady_lines_per_s: Option<f64>,
    /// Push → visible, milliseconds.
    pub visible_p50_ms: Option<f64>,
    /// Push → visible, milliseconds.
    pub visible_p99_ms: Option<f64>,
    /// Push → visible of lines that begin a stream, milliseconds.
    #[serde(default)]
    pub visible_new_stream_p99_ms: Option<f64>,
    /// Push → acknowledged, milliseconds.
    #[serde(default)]
    pub acknowledged_p99_ms: Option<f64>,
    /// What the server does not have although it acknowledged it.
    #[serde(default)]
    pub lost: Vec<String>,
    /// By question, or question and language where there are several.
    pub queries: BTreeMap<String, Timing>,
}

/// The value below which `q` of the values lie.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * q) as usize;
    sorted.get(place.min(sorted.len().checked_sub(1)?)).copied()
}

struct Row {
    name: String,
    unit: &'static str,
    value: Option<f64>,
    more: String,
}

impl Report {
    /// Keeps CPU seconds of the intake in the measure of the signal.
    pub fn set_cpu_taking_in(&mut self, seconds: Option<f64>, raw_bytes: u64) {
        match self.signal {
            Signal::Logs => self.cpu_s_per_gb_taking_in = seconds.map(|s| s / (raw_bytes as f64 / 1e9)),
            _ => self.cpu_s_per_million_taking_in = seconds.map(|s| s / (self.lines as f64 / 1e6)),
        }
    }

    /// Keeps CPU seconds up to the end of compaction in the measure of the signal.
    pub fn set_cpu(&mut self, seconds: Option<f64>, raw_bytes: u64) {
        match self.signal {
            Signal::Logs => self.cpu_s_per_gb = seconds.map(|s| s / (raw_bytes as f64 / 1e9)),
            _ => self.cpu_s_per_million = seconds.map(|s| s / (self.lines as f64 / 1e6)),
        }
    }

    /// Keeps bytes on disk in the measure of the signal.
    pub fn set_disk(&mut self, bytes: Option<u64>, raw_bytes: u64) {
        match self.signal {
            Signal::Logs => self.disk_per_raw = bytes.map(|b| b as f64 / raw_bytes as f64),
            _ => self.disk_per_item = bytes.map(|b| b as f64 / self.lines as f64),
        }
    }

    fn rows(&self) -> Vec<Row> {
        let row = |name: &str, unit, value| Row { name: name.to_owned(), unit, value, more: String::new() };
        let mut rows = vec![
            row("CPU until acknowledged", "s/GB", self.cpu_s_per_gb_taking_in),
            row("CPU with compaction", "s/GB", self.cpu_s_per_gb),
            row("CPU until acknowledged, per million", "s", self.cpu_s_per_million_taking_in),
            row("CPU with compaction, per million", "s", self.cpu_s_per_million),
            row(&format!("{} per second", self.signal.items()), "1/s", self.lines_per_s),
            row("peak RSS", "MiB", self.peak_rss_mib),
            row("peak RSS without mapped files", "MiB", self.peak_anonymous_mib),
            row("disk per raw byte", "", self.disk_per_raw),
            row("disk per item", "bytes", self.disk_per_item),
            row("push to visible p50", "ms", self.visible_p50_ms),
            row("push to visible p99", "ms", self.visible_p99_ms),
            row("push to visible p99, new streams", "ms", self.visible_new_stream_p99_ms),
            row("push to acknowledged p99", "ms", self.acknowledged_p99_ms),
        ];
        let questions: &[(&str, &str)] = match self.signal {
            Signal::Logs => &logs::QUESTIONS,
            Signal::Traces => &traces::QUESTIONS,
            Signal::Metrics => &metrics::QUESTIONS,
        };
        for (name, text) in questions {
            for (key, timing) in self.queries.iter().filter(|(key, _)| key.split(' ').next() == Some(*name)) {
                let language = key.split_once(' ').map(|(_, l)| format!(", {l}")).unwrap_or_default();
                rows.push(Row {
                    name: format!("{text}{language}"),
                    unit: "ms",
                    value: Some(timing.median_ms),
                    more: timing.rest(),
                });
            }
        }
        rows
    }

    /// For people.
    pub fn table(&self) -> String {
        let items = self.signal.items();
        let mut out = format!("{}: {}, {} {items}\n", self.name, self.load, self.lines);
        if let Some(rate) = self.steady_lines_per_s {
            _ = writeln!(out, "visibility under {} {items}/s", short(rate));
        }
        for lost in &self.lost {
            _ = writeln!(out, "LOST: {lost}");
        }
        if let Some(quarters) = self.rss_quarters_mib {
            let quarters = quarters.map(short).join(", ");
            _ = writeln!(
                out,
                "highest RSS in the quarters of the intake: {quarters} MiB; pushes repeated: {}",
                self.retries
            );
        }
        for row in self.rows() {
            let Some(value) = row.value else { continue };
            let line = format!("{:<50} {:>10} {:<5} {}", row.name, short(value), row.unit, row.more);
            _ = writeln!(out, "{}", line.trim_end());
        }
        out
    }

    /// True when nothing was lost and no question was answered wrongly.
    pub fn all_right(&self) -> bool {
        self.lost.is_empty() && self.queries.values().all(|t| t.ok)
    }

    fn value(&self, row: &str) -> Option<f64> {
        // A peer with one language answers for every language of ours.
        let strip = |name: &str| name.trim_end_matches(", logql").trim_end_matches(", sql").to_owned();
        let rows = self.rows();
        let exact = rows.iter().find(|r| r.name == row);
        exact.or_else(|| rows.iter().find(|r| strip(&r.name) == strip(row))).and_then(|r| r.value)
    }
}

/// Our values beside those of each peer, with the ratio ours/peer.
pub fn compare(ours: &Report, peers: &[Report]) -> String {
    let mut out = format!("{:<50} {:>10}", "", ours.name);
    for peer in peers {
        _ = write!(out, " {:>32}", format!("{} (ratio)", peer.name));
    }
    out.push('\n');
    for row in ours.rows() {
        let Some(value) = row.value else { continue };
        _ = write!(out, "{:<50} {:>10}", row.name, short(value));
        for peer in peers {
            let cell = peer
                .value(&row.name)
                .map_or("-".to_owned(), |theirs| format!("{} ({:.2})", short(theirs), value / theirs));
            _ = write!(out, " {cell:>32}");
        }
        out.push('\n');
    }
    out
}

/// Three significant digits, thousands separated.
fn short(value: f64) -> String {
    if value.abs() >= 1000.0 {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (index, c) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                out.push(',');
            }
            out.push(c);
        }
        return out;
    }
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else if value.abs() >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_quantiles_are_values() {
        assert_eq!(
            [1_234_567.0, 456.7, 12.34, 1.234, 0.0854].map(short),
            ["1,234,567", "457", "12.3", "1.23", "0.085"]
        );
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.99), Some(3.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn ratios_find_the_peer_s_only_language() {
        let timing = |ms| Timing { median_ms: ms, ok: true, ..Timing::default() };
        let ours = Report {
            name: "Trine".into(),
            queries: [("tail logql".to_owned(), timing(2.0)), ("tail sql".to_owned(), timing(4.0))].into(),
            disk_per_raw: Some(0.08),
            ..Report::default()
        };
        let peer = Report {
            name: "Peer".into(),
            queries: [("tail".to_owned(), timing(8.0))].into(),
            disk_per_raw: Some(0.16),
            ..Report::default()
        };
        let text = compare(&ours, &[peer]);
        for part in ["8.00 (0.25)", "8.00 (0.50)", "0.160 (0.50)"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
