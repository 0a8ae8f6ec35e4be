//! From the labels a target exposes to those of the series that is kept. Done once per new series.

use trine_protocols::exposition::Series;
use trine_schema::metrics::METRIC_NAME;

use crate::{
    LabelSet, RelabelRule,
    config::{Job, Limits, is_legacy_label_name},
    relabel::relabel,
};

/// What is done to every series of one target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleRules {
    /// Labels of the target.
    target: LabelSet,
    honor_labels: bool,
    legacy_names: bool,
    limits: Limits,
    rules: Vec<RelabelRule>,
}

/// The first 50 characters.
fn short(text: &str) -> String {
    text.chars().take(50).collect()
}

impl SampleRules {
    pub(crate) fn new(job: &Job, target: LabelSet) -> Self {
        Self {
            target,
            honor_labels: job.honor_labels,
            legacy_names: job.legacy_names,
            limits: job.limits,
            rules: job.metric_relabel_configs.clone(),
        }
    }

    /// Labels of a series of reports, such as `up`.
    pub(crate) fn report(&self, name: &str) -> LabelSet {
        let mut labels = self.target.clone();
        labels.set(METRIC_NAME, name);
        labels
    }

    /// Labels of an exposed series; `None` when a rule drops it. An error fails the scrape.
    pub(crate) fn apply(&self, series: &Series<'_>) -> Result<Option<LabelSet>, String> {
        let mut labels = LabelSet::default();
        let mut names: Vec<Box<str>> = Vec::new();
        for (name, value) in series.labels() {
            if names.contains(&name) {
                return Err(format!("label {name:?} is given twice"));
            }
            labels.set(&*name, &*value);
            names.push(name);
        }
        self.add_target(&mut labels);
        if !relabel(&self.rules, &mut labels) || labels.is_empty() {
            return Ok(None);
        }
        self.check(&labels)?;
        Ok(Some(labels))
    }

    /// The target's labels. Where both have one: with `honor_labels` that of the series stays, without it moves
    /// to `exported_…`.
    fn add_target(&self, labels: &mut LabelSet) {
        let mut moved = Vec::new();
        for (name, value) in self.target.iter() {
            let own = labels.get(name);
            if !own.is_empty() {
                if self.honor_labels {
                    continue;
                }
                moved.push((name, own.to_owned()));
            }
            labels.set(name, value);
        }
        moved.sort_by_key(|(name, _)| name.len());
        for (name, own) in moved {
            let mut name = format!("exported_{name}");
            while !labels.get(&name).is_empty() {
                name.insert_str(0, "exported_");
            }
            labels.set(name, own);
        }
    }

    fn check(&self, labels: &LabelSet) -> Result<(), String> {
        let metric = labels.get(METRIC_NAME);
        if metric.is_empty() {
            return Err("relabelling left a series without a metric name (__name__)".into());
        }
        if self.legacy_names {
            let legacy_metric = is_legacy_label_name(&metric.replace(':', "_"));
            let wrong = labels.iter().find(|(name, _)| !is_legacy_label_name(name));
            if !legacy_metric || wrong.is_some() {
                let name = wrong.map_or(metric, |(name, _)| name);
                return Err(format!("{:?} is no legacy name (metric_name_validation_scheme)", short(name)));
            }
        }
        let Limits { labels: most, label_name_length, label_value_length, .. } = self.limits;
        let metric = short(metric);
        if let Some(limit) = most.filter(|limit| labels.len() > *limit) {
            return Err(format!(
                "label_limit exceeded (metric: {metric}, number of labels: {}, limit: {limit})",
                labels.len()
            ));
        }
        for (name, value) in labels.iter() {
            if let Some(limit) = label_name_length.filter(|limit| name.len() > *limit) {
                return Err(format!(
                    "label_name_length_limit exceeded (metric: {metric}, label name: {}, length: {}, limit: {limit})",
                    short(name),
                    name.len()
                ));
            }
            if let Some(limit) = label_value_length.filter(|limit| value.len() > *limit) {
                return Err(format!(
                    "label_value_length_limit exceeded (metric: {metric}, label name: {}, value: {:?}, length: {}, \
                     limit: {limit})",
                    short(name),
                    short(value),
                    value.len()
                ));
            }
        }
        Ok(())
    }
}
