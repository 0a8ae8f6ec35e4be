//! One of `scrape_configs`.

use std::time::Duration;

use crate::{
    relabel::{Action, Anchored, RelabelRule},
    target::Target,
    yaml::Node,
};

use super::{
    Common, Fields, FileDiscovery, Global, Http, Job, Limits, Notes, Protocol, is_legacy_label_name,
    protocols, read_groups, times,
};

/// How often a file of targets is read again though nothing seems to have changed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// `None` when it is so wrong that there is no job; the errors are told in any case.
pub(super) fn read(node: &Node, global: &Global, notes: &mut Notes<'_>) -> Option<Job> {
    let mut fields = Fields::of(node, "a job of scrape_configs", notes)?;
    let job_name = fields.text("job_name", notes).unwrap_or_default();
    if job_name.is_empty() {
        notes.error(node.place, "a job of scrape_configs has no job_name");
    }
    let (scrape_interval, scrape_timeout) =
        times(&mut fields, (global.scrape_interval, global.scrape_timeout), notes);
    let scheme = fields.read("scheme", notes, |text| match text {
        "http" | "https" => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is neither http nor https")),
    });
    let common = Common::read(&mut fields, notes);
    let native_histograms = common.native_histograms.unwrap_or(global.native_histograms);
    let legacy_names = common.legacy_names.unwrap_or(global.legacy_names);
    let default_protocols = || {
        let all = Protocol::ALL.iter().map(|(_, protocol)| *protocol);
        all.filter(|protocol| native_histograms || *protocol != Protocol::PrometheusProto).collect()
    };
    let escaping = common.escaping.or_else(|| global.escaping.clone());
    let before = notes.errors.len();
    let relabel_configs = rules("relabel_configs", &mut fields, legacy_names, notes);
    let rules_are_sound = notes.errors.len() == before;
    let mut job = Job {
        job_name,
        scrape_interval,
        scrape_timeout,
        metrics_path: fields.text("metrics_path", notes).unwrap_or_else(|| "/metrics".into()),
        scheme: scheme.unwrap_or_else(|| "http".into()),
        params: params(&mut fields, notes),
        honor_labels: fields.truth("honor_labels", notes).unwrap_or(false),
        honor_timestamps: fields.truth("honor_timestamps", notes).unwrap_or(true),
        track_timestamps_staleness: fields.truth("track_timestamps_staleness", notes).unwrap_or(false),
        http: Http::read(&mut fields, notes),
        static_configs: Vec::new(),
        file_sd_configs: Vec::new(),
        relabel_configs,
        metric_relabel_configs: rules("metric_relabel_configs", &mut fields, legacy_names, notes),
        limits: Limits::read(&mut fields, notes).or(global.limits),
        protocols: protocols(&mut fields, notes)
            .or_else(|| global.protocols.clone())
            .unwrap_or_else(default_protocols),
        fallback: fields.read("fallback_scrape_protocol", notes, Protocol::read).map(Protocol::format),
        enable_compression: fields.truth("enable_compression", notes).unwrap_or(true),
        native_histograms,
        always_classic_histograms: common
            .always_classic_histograms
            .unwrap_or(global.always_classic_histograms),
        extra_scrape_metrics: common.extra_scrape_metrics.unwrap_or(global.extra_scrape_metrics),
        legacy_names,
        escaping: escaping.unwrap_or_else(|| if legacy_names { "underscores" } else { "allow-utf-8" }.into()),
    };
    targets(&mut job, &mut fields, rules_are_sound, notes);
    fields.ignore(&["scrape_failure_log_file"], "failures are shown with the target", notes);
    for name in ["native_histogram_bucket_limit", "native_histogram_min_bucket_factor"] {
        let text = fields.text(name, notes);
        if let Some(text) = text.filter(|text| text.parse() != Ok(0.0)) {
            let place = fields.place_of(name).unwrap_or(node.place);
            notes.error(
                place,
                format!("{name} {text} is not supported; leave it out, or scrape classic histograms"),
            );
        }
    }
    fields.end(notes);
    Some(job)
}

fn params(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Vec<(String, Vec<String>)> {
    let mut params: Vec<(String, Vec<String>)> = Vec::new();
    if let Some(node) = fields.node("params")
        && let crate::yaml::Value::Map(pairs) = &node.value
    {
        for (name, list) in pairs {
            let crate::yaml::Value::List(list) = &list.value else {
                notes.error(list.place, format!("a parameter is {}, not a list of texts", list.what()));
                continue;
            };
            let values = list.iter().map(|value| value.text().unwrap_or_default().to_owned()).collect();
            params.push((name.text().unwrap_or_default().to_owned(), values));
        }
    }
    params.sort();
    params
}

fn targets(job: &mut Job, fields: &mut Fields<'_>, rules_are_sound: bool, notes: &mut Notes<'_>) {
    let list = fields.list("static_configs", notes);
    for (group, places) in read_groups(list, "a group of static_configs", notes) {
        // What rules make of an address is known only where all rules are.
        for (found, place) in Target::of_group(&group, job).zip(places).filter(|_| rules_are_sound) {
            if let Err(reason) = found {
                notes.error(place, reason);
            }
        }
        job.static_configs.push(group);
    }
    for node in fields.list("file_sd_configs", notes) {
        let Some(mut own) = Fields::of(node, "a part of file_sd_configs", notes) else { continue };
        let mut files = Vec::new();
        for (file, place) in own.texts("files", notes) {
            let path = std::path::Path::new(file);
            let known = path.extension().is_some_and(|extension| {
                ["json", "yml", "yaml"].iter().any(|known| extension.eq_ignore_ascii_case(known))
            });
            if !known || path.parent().is_some_and(|parent| parent.to_string_lossy().contains('*')) {
                let reason =
                    format!("{file:?} does not end with .json, .yml or .yaml, or has '*' in a folder's name");
                notes.error(place, reason);
            }
            files.push(notes.path(file));
        }
        if files.is_empty() {
            notes.error(node.place, "a part of file_sd_configs names no files");
        }
        let refresh_interval = own.duration("refresh_interval", notes).unwrap_or(REFRESH_INTERVAL);
        job.file_sd_configs.push(FileDiscovery { files, refresh_interval });
        own.end(notes);
    }
}

fn rules(
    name: &'static str,
    fields: &mut Fields<'_>,
    legacy_names: bool,
    notes: &mut Notes<'_>,
) -> Vec<RelabelRule> {
    let mut rules = Vec::new();
    for node in fields.list(name, notes) {
        let Some(mut own) = Fields::of(node, "a rule", notes) else { continue };
        let mut rule = RelabelRule::default();
        if let Some(action) = own.read("action", notes, |text| {
            let known = Action::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            known.map(|(_, action)| *action).ok_or_else(|| {
                let names: Vec<_> = Action::NAMES.iter().map(|(name, _)| *name).collect();
                format!("{text:?} is none of {}", names.join(", "))
            })
        }) {
            rule.action = action;
        }
        rule.source_labels =
            own.texts("source_labels", notes).into_iter().map(|(label, _)| label.to_owned()).collect();
        if let Some(separator) = own.text("separator", notes) {
            rule.separator = separator;
        }
        let regex = own.read("regex", notes, |text| {
            Anchored::new(text).map_err(|error| format!("{text:?} is not a regular expression: {error}"))
        });
        if let Some(regex) = regex {
            rule.regex = regex;
        }
        rule.modulus = own.number("modulus", notes).unwrap_or(0);
        rule.target_label = own.text("target_label", notes).unwrap_or_default();
        if let Some(replacement) = own.text("replacement", notes) {
            rule.replacement = replacement;
        }
        own.end(notes);
        let legacy = legacy_names && !rule.target_label.is_empty() && !rule.target_label.contains('$');
        if legacy && !is_legacy_label_name(&rule.target_label) {
            notes.error(node.place, format!("target_label {:?} is no legacy label name", rule.target_label));
        }
        match rule.check() {
            Ok(()) => rules.push(rule),
            Err(reason) => notes.error(node.place, format!("{name}: {reason}")),
        }
    }
    rules
}
