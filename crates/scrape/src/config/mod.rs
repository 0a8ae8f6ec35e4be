//! `scrape_configs` as Prometheus writes them
//! (<https://prometheus.io/docs/prometheus/latest/configuration/configuration/>).

mod fields;
mod groups;
mod http;
mod job;

use std::{
    collections::HashSet,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use trine_protocols::exposition::Format;

use crate::{
    LabelSet, RelabelRule, glob,
    yaml::{self, Node},
};

pub use fields::ConfigError;
pub(crate) use fields::{Fields, Notes};
pub use groups::TargetGroup;
pub(crate) use groups::read_groups;
pub use http::{Authorization, BasicAuth, Credentials, Http, Secret, SecretBytes, Tls, TlsVersion};

/// Everything that is scraped.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScrapeConfig {
    /// What jobs inherit.
    pub global: Global,
    /// Jobs with unique names, those of `scrape_config_files` behind the others.
    pub jobs: Vec<Job>,
    /// What was passed over.
    pub warnings: Vec<ConfigError>,
}

/// `global`.
#[allow(clippy::struct_excessive_bools)] // they are the format's
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Time from scrape to scrape.
    pub scrape_interval: Duration,
    /// Longest time of a scrape.
    pub scrape_timeout: Duration,
    /// Labels of this server towards others. As in Prometheus the series it keeps do not have them; they are for
    /// `/federate` and remote read.
    pub external_labels: LabelSet,
    pub(crate) limits: Limits,
    pub(crate) protocols: Option<Vec<Protocol>>,
    pub(crate) native_histograms: bool,
    pub(crate) always_classic_histograms: bool,
    pub(crate) extra_scrape_metrics: bool,
    pub(crate) legacy_names: bool,
    pub(crate) escaping: Option<String>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(60),
            scrape_timeout: Duration::from_secs(10),
            external_labels: LabelSet::default(),
            limits: Limits::default(),
            protocols: None,
            native_histograms: false,
            always_classic_histograms: false,
            extra_scrape_metrics: false,
            legacy_names: false,
            escaping: None,
        }
    }
}

/// Bounds of a job; `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest body after decompression, in bytes.
    pub body_size: Option<usize>,
    /// Most samples of a scrape, behind relabelling.
    pub samples: Option<usize>,
    /// Most labels of a series.
    pub labels: Option<usize>,
    /// Longest label name in bytes.
    pub label_name_length: Option<usize>,
    /// Longest label value in bytes.
    pub label_value_length: Option<usize>,
    /// Most targets.
    pub targets: Option<usize>,
    /// Most dropped targets that are kept to be shown.
    pub dropped_targets: Option<usize>,
}

impl Limits {
    fn read(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Self {
        let body_size = fields.read("body_size_limit", notes, bytes).filter(|bytes| *bytes > 0);
        Self {
            body_size,
            samples: fields.limit("sample_limit", notes),
            labels: fields.limit("label_limit", notes),
            label_name_length: fields.limit("label_name_length_limit", notes),
            label_value_length: fields.limit("label_value_length_limit", notes),
            targets: fields.limit("target_limit", notes),
            dropped_targets: fields.limit("keep_dropped_targets", notes),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            body_size: self.body_size.or(other.body_size),
            samples: self.samples.or(other.samples),
            labels: self.labels.or(other.labels),
            label_name_length: self.label_name_length.or(other.label_name_length),
            label_value_length: self.label_value_length.or(other.label_value_length),
            targets: self.targets.or(other.targets),
            dropped_targets: self.dropped_targets.or(other.dropped_targets),
        }
    }
}

/// One of `scrape_configs`.
#[allow(clippy::struct_excessive_bools)] // they are the format's
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Unique; the label `job` by default.
    pub job_name: String,
    /// Time from scrape to scrape.
    pub scrape_interval: Duration,
    /// Longest time of a scrape, at most the interval.
    pub scrape_timeout: Duration,
    /// Path of the request.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Parameters of the request, by name.
    pub params: Vec<(String, Vec<String>)>,
    /// Whether labels of the target's samples win over those of the target.
    pub honor_labels: bool,
    /// Whether timestamps of the target are taken.
    pub honor_timestamps: bool,
    /// Whether series with timestamps of the target end when they vanish.
    pub track_timestamps_staleness: bool,
    /// How to connect.
    pub http: Http,
    /// Targets that are listed.
    pub static_configs: Vec<TargetGroup>,
    /// Files that list targets.
    pub file_sd_configs: Vec<FileDiscovery>,
    /// Rules for targets.
    pub relabel_configs: Vec<RelabelRule>,
    /// Rules for series.
    pub metric_relabel_configs: Vec<RelabelRule>,
    /// Bounds.
    pub limits: Limits,
    /// Formats to ask for, best first.
    pub protocols: Vec<Protocol>,
    /// Format of a target that does not say what it sends.
    pub fallback: Option<Format>,
    /// Whether compressed answers are asked for.
    pub enable_compression: bool,
    /// Whether native histograms are taken.
    pub native_histograms: bool,
    /// Whether the classic buckets of a native histogram are taken too.
    pub always_classic_histograms: bool,
    /// Whether `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes` are written.
    pub extra_scrape_metrics: bool,
    /// Whether names beyond `[a-zA-Z0-9_:]` are refused.
    pub legacy_names: bool,
    /// How a target is asked to write such names.
    pub escaping: String,
}

/// One of `file_sd_configs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiscovery {
    /// Paths; the last part may hold `*`.
    pub files: Vec<PathBuf>,
    /// Longest time until a file is read again.
    pub refresh_interval: Duration,
}

/// One of `scrape_protocols`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `PrometheusProto`.
    PrometheusProto,
    /// `OpenMetricsText1.0.0`.
    OpenMetricsText1_0_0,
    /// `OpenMetricsText0.0.1`.
    OpenMetricsText0_0_1,
    /// `PrometheusText1.0.0`.
    PrometheusText1_0_0,
    /// `PrometheusText0.0.4`.
    PrometheusText0_0_4,
}

impl Protocol {
    /// All in the order of preference, by name.
    pub const ALL: [(&'static str, Self); 5] = [
        ("PrometheusProto", Self::PrometheusProto),
        ("OpenMetricsText1.0.0", Self::OpenMetricsText1_0_0),
        ("OpenMetricsText0.0.1", Self::OpenMetricsText0_0_1),
        ("PrometheusText1.0.0", Self::PrometheusText1_0_0),
        ("PrometheusText0.0.4", Self::PrometheusText0_0_4),
    ];

    fn read(text: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("{text:?} is none of {}", names.join(", "))
        })
    }

    /// The media type to ask for.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
        }
    }

    /// Whether its media type takes a way of escaping names.
    pub fn escapes(self) -> bool {
        matches!(self, Self::OpenMetricsText1_0_0 | Self::PrometheusText1_0_0)
    }

    /// What it sends.
    pub fn format(self) -> Format {
        match self {
            Self::PrometheusProto => Format::Protobuf,
            Self::OpenMetricsText1_0_0 | Self::OpenMetricsText0_0_1 => Format::OpenMetrics,
            Self::PrometheusText1_0_0 | Self::PrometheusText0_0_4 => Format::Text,
        }
    }
}

/// Longest configuration, in bytes.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// The bytes of a file that has at most `most`.
fn read_file(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> std::io::Result<String> {
    String::from_utf8(read_file(path, MAX_CONFIG_BYTES)?).map_err(std::io::Error::other)
}

/// A number of bytes: `1048576`, `1KB`, `10MB`, `1GiB`, all by 1024.
fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim() {
        "" | "B" => 0,
        "KB" | "KiB" => 10,
        "MB" | "MiB" => 20,
        "GB" | "GiB" => 30,
        "TB" | "TiB" => 40,
        _ => 64,
    };
    let number: Option<usize> = text[..digits].parse().ok();
    let size = number.filter(|_| unit < 64).and_then(|number| number.checked_mul(1 << unit));
    size.ok_or_else(|| format!("{text:?} is not a number of bytes such as 500KB or 10MB"))
}

/// Legacy names: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(crate) fn is_legacy_label_name(name: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(byte)
}

impl ScrapeConfig {
    /// Reads a file and those it names in `scrape_config_files`. All that is wrong is told.
    pub fn load(file: &Path) -> Result<Self, Vec<ConfigError>> {
        let text = read_text(file).map_err(|error| {
            let mut notes = Notes::new(file);
            notes.error(yaml::Place::default(), format!("cannot be read: {error}"));
            notes.errors
        })?;
        Self::parse(&text, file)
    }

    /// What [`Self::load`] finds wrong with a file; empty when it can be used.
    pub fn check(file: &Path) -> Vec<ConfigError> {
        Self::load(file).err().unwrap_or_default()
    }

    /// Reads `text` as the content of `file`. Other files are read where the text names them.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut notes = Notes::new(file);
        let mut config = Self::default();
        let mut included = Vec::new();
        match yaml::read(text) {
            Ok(node) => config.read(&node, &mut notes, &mut included),
            Err(fault) => notes.fault(fault),
        }
        let Notes { mut errors, warnings, .. } = notes;
        errors.sort_by_key(|error| error.place);
        config.warnings = warnings;
        let global = config.global.clone();
        for (pattern, place) in included {
            match glob::files(&pattern) {
                Ok(files) => {
                    for path in files {
                        config.include(&path, &global, &mut errors);
                    }
                }
                Err(reason) => errors.push(ConfigError { file: file.to_owned(), place, reason }),
            }
        }
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    fn include(&mut self, path: &Path, global: &Global, errors: &mut Vec<ConfigError>) {
        let mut notes = Notes::new(path);
        match read_text(path).map_err(|error| error.to_string()) {
            Ok(text) => match yaml::read(&text) {
                Ok(node) => {
                    if let Some(mut fields) = Fields::of(&node, "a file of scrape_config_files", &mut notes) {
                        self.jobs(&mut fields, global, &mut notes);
                        fields.end(&mut notes);
                    }
                }
                Err(fault) => notes.fault(fault),
            },
            Err(reason) => notes.error(yaml::Place::default(), format!("cannot be read: {reason}")),
        }
        errors.append(&mut notes.errors);
        self.warnings.append(&mut notes.warnings);
    }

    fn read(&mut self, node: &Node, notes: &mut Notes<'_>, included: &mut Vec<(PathBuf, yaml::Place)>) {
        let Some(mut fields) = Fields::of(node, "the configuration", notes) else { return };
        if let Some(node) = fields.node("global") {
            self.global = Global::read(node, notes);
        }
        let global = self.global.clone();
        self.jobs(&mut fields, &global, notes);
        for (pattern, place) in fields.texts("scrape_config_files", notes) {
            included.push((notes.path(pattern), place));
        }
        fields.ignore(&["rule_files", "alerting"], "rules are not evaluated here", notes);
        fields.ignore(
            &["storage", "runtime", "tracing", "otlp"],
            "it is about Prometheus' own process",
            notes,
        );
        fields.end(notes);
    }

    fn jobs(&mut self, fields: &mut Fields<'_>, global: &Global, notes: &mut Notes<'_>) {
        let mut names: HashSet<String> = self.jobs.iter().map(|job| job.job_name.clone()).collect();
        for node in fields.list("scrape_configs", notes) {
            let Some(job) = job::read(node, global, notes) else { continue };
            if !names.insert(job.job_name.clone()) {
                notes.error(node.place, format!("two jobs have the name {:?}; rename one", job.job_name));
            }
            self.jobs.push(job);
        }
    }
}

impl Global {
    fn read(node: &Node, notes: &mut Notes<'_>) -> Self {
        let mut global = Self::default();
        let Some(mut fields) = Fields::of(node, "global", notes) else { return global };
        (global.scrape_interval, global.scrape_timeout) =
            times(&mut fields, (global.scrape_interval, global.scrape_timeout), notes);
        for (name, value) in fields.pairs("external_labels", notes) {
            match value.text() {
                Some(text) => global.external_labels.set(name, expanded(text)),
                None => notes.error(value.place, format!("external label {name:?} is {}", value.what())),
            }
        }
        global.limits = Limits::read(&mut fields, notes);
        global.protocols = protocols(&mut fields, notes);
        let common = Common::read(&mut fields, notes);
        global.native_histograms = common.native_histograms.unwrap_or(false);
        global.always_classic_histograms = common.always_classic_histograms.unwrap_or(false);
        global.extra_scrape_metrics = common.extra_scrape_metrics.unwrap_or(false);
        global.legacy_names = common.legacy_names.unwrap_or(false);
        global.escaping = common.escaping;
        // It is in every prometheus.yml and says nothing about scraping.
        fields.node("evaluation_interval");
        fields.ignore(
            &[
                "rule_query_offset",
                "query_log_file",
                "query_max_series",
                "query_max_samples_read",
                "query_max_duration",
                "scrape_failure_log_file",
            ],
            "it is about Prometheus' own process",
            notes,
        );
        fields.end(notes);
        global
    }
}

/// Interval and timeout; the timeout is at most the interval.
fn times(
    fields: &mut Fields<'_>,
    (interval, timeout): (Duration, Duration),
    notes: &mut Notes<'_>,
) -> (Duration, Duration) {
    let interval = fields.duration("scrape_interval", notes).unwrap_or(interval);
    let own = fields.duration("scrape_timeout", notes);
    if let Some(own) = own.filter(|own| *own > interval) {
        let place = fields.place_of("scrape_timeout").unwrap_or(fields.place);
        let reason = format!(
            "scrape_timeout ({}) is longer than scrape_interval ({}); shorten it",
            crate::duration::format(own),
            crate::duration::format(interval)
        );
        notes.error(place, reason);
    }
    (interval, own.unwrap_or(timeout).min(interval))
}

fn protocols(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Option<Vec<Protocol>> {
    fields.place_of("scrape_protocols")?;
    let mut protocols = Vec::new();
    for (text, place) in fields.texts("scrape_protocols", notes) {
        match Protocol::read(text) {
            Ok(protocol) if protocols.contains(&protocol) => {
                notes.error(place, format!("scrape_protocols has {text} twice"));
            }
            Ok(protocol) => protocols.push(protocol),
            Err(reason) => notes.error(place, format!("scrape_protocols: {reason}")),
        }
    }
    if protocols.is_empty() {
        let place = fields.place_of("scrape_protocols").unwrap_or(fields.place);
        notes.error(place, "scrape_protocols is empty; leave it out for the default");
    }
    Some(protocols)
}

/// Fields that jobs have and `global` has for them.
struct Common {
    native_histograms: Option<bool>,
    always_classic_histograms: Option<bool>,
    extra_scrape_metrics: Option<bool>,
    legacy_names: Option<bool>,
    escaping: Option<String>,
}

impl Common {
    fn read(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Self {
        if fields.truth("convert_classic_histograms_to_nhcb", notes) == Some(true) {
            let place = fields.place_of("convert_classic_histograms_to_nhcb").unwrap_or(fields.place);
            notes.error(place, "convert_classic_histograms_to_nhcb is not supported; leave it out or false");
        }
        Self {
            native_histograms: fields.truth("scrape_native_histograms", notes),
            always_classic_histograms: fields.truth("always_scrape_classic_histograms", notes),
            extra_scrape_metrics: fields.truth("extra_scrape_metrics", notes),
            legacy_names: fields.read("metric_name_validation_scheme", notes, |text| match text {
                "utf8" => Ok(false),
                "legacy" => Ok(true),
                _ => Err(format!("{text:?} is neither utf8 nor legacy")),
            }),
            escaping: fields.read("metric_name_escaping_scheme", notes, |text| match text {
                "allow-utf-8" | "underscores" | "dots" | "values" => Ok(text.to_owned()),
                _ => Err(format!("{text:?} is none of allow-utf-8, underscores, dots, values")),
            }),
        }
    }
}

/// `$NAME` and `${NAME}` become what the environment has under that name, `$$` a dollar.
fn expanded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let (name, behind) = if let Some(braced) = after.strip_prefix('{') {
            braced.split_once('}').unwrap_or((braced, ""))
        } else if let Some(behind) = after.strip_prefix('$') {
            out.push('$');
            rest = behind;
            continue;
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            after.split_at(end)
        };
        out += &std::env::var(name).unwrap_or_default();
        rest = behind;
    }
    out + rest
}
