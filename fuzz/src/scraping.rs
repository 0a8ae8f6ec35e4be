//! What scrapes are configured by.

use std::path::Path;

use trine_scrape::{Action, Anchored, LabelSet, RelabelRule, ScrapeConfig, relabel};

/// Any text is a configuration or is refused with places.
pub(crate) fn scrape_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ScrapeConfig::parse(text, Path::new("/nowhere/fuzz.yml")) {
        Ok(config) => {
            for job in config.jobs {
                relabel(&job.relabel_configs, &mut target());
                relabel(&job.metric_relabel_configs, &mut target());
            }
        }
        Err(errors) => assert!(!errors.is_empty(), "refused without a reason"),
    }
}

fn target() -> LabelSet {
    let mut labels = LabelSet::default();
    for (name, value) in [("__address__", "a:1"), ("__meta_é", "x;y"), ("job", "j"), ("a", "")] {
        labels.set(name, value);
    }
    labels
}

/// A rule of any expression and texts that is not refused leaves labels that can be told: the action in a byte, then
/// expression, replacement, target and source, each behind a zero.
pub(crate) fn rule(bytes: &[u8]) {
    const ACTIONS: [Action; 11] = [
        Action::Replace,
        Action::Keep,
        Action::Drop,
        Action::KeepEqual,
        Action::DropEqual,
        Action::HashMod,
        Action::LabelMap,
        Action::LabelDrop,
        Action::LabelKeep,
        Action::Lowercase,
        Action::Uppercase,
    ];
    let Some((action, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let mut parts = text.splitn(4, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let Ok(regex) = Anchored::new(part()) else { return };
    let rule = RelabelRule {
        regex,
        replacement: part().to_owned(),
        target_label: part().to_owned(),
        source_labels: part().split(',').map(str::to_owned).collect(),
        modulus: 7,
        action: ACTIONS[usize::from(*action) % ACTIONS.len()],
        ..RelabelRule::default()
    };
    if rule.check().is_err() {
        return;
    }
    let mut labels = target();
    if relabel(&[rule], &mut labels) {
        let _ = labels.labels();
        assert_eq!(labels.to_json().as_object().map(serde_json::Map::len), Some(labels.len()));
    }
}
