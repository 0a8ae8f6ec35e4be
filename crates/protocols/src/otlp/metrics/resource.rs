//! What a resource gives to the series below it, and the series `target_info` that holds the rest of it.

use std::collections::BTreeMap;

use trine_schema::{Labels, RawKey, metrics::METRIC_NAME};

use super::{attributes::Attributes, names};
use crate::{
    Limits,
    intake::{Fault, Reason, bad},
    metric_intake::series_labels,
};

const SERVICE_NAME: &str = "service.name";
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// Attributes that become labels of every series, by which metrics are joined with logs and spans.
const PROMOTED: [&str; 6] = [
    SERVICE_NAME,
    SERVICE_NAMESPACE,
    "deployment.environment.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
];

pub(super) const TARGET_INFO: &str = "target_info";

/// Two samples of `target_info` for each time that Prometheus looks back, in milliseconds.
const INFO_INTERVAL_MS: i64 = 150_000;

/// A resource; its attributes are read when a series below it is new.
pub(super) struct Resource<'a> {
    attributes: Attributes<'a>,
    pub(super) key: RawKey,
    parsed: Option<Result<Parsed, Reason>>,
    /// Times of its points: the last one of each interval, in milliseconds.
    times: BTreeMap<i64, i64>,
    last_ms: i64,
}

#[derive(Default)]
pub(super) struct Parsed {
    job: String,
    instance: String,
    /// Labels of every series.
    promoted: Vec<(String, String)>,
    /// Labels of `target_info` besides those two.
    rest: Vec<(String, String)>,
}

/// Labels while they are put together.
#[derive(Default)]
pub(super) struct LabelSet(Vec<(Box<str>, Box<str>)>);

impl LabelSet {
    fn value(&mut self, name: &str) -> Option<&mut Box<str>> {
        self.0.iter_mut().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    /// Adds attributes under the names that Prometheus gives them, in order of their keys. Values whose names
    /// fall together are joined.
    fn attributes(&mut self, mut pairs: Vec<(String, String)>) -> Result<(), Fault> {
        pairs.sort();
        pairs.dedup();
        for (key, text) in pairs.iter().filter(|(key, _)| key != METRIC_NAME) {
            let name = names::label_name(key)?;
            match self.value(&name) {
                Some(value) if !value.is_empty() => *value = format!("{value};{text}").into(),
                _ => self.set(&name, text),
            }
        }
        Ok(())
    }

    pub(super) fn set(&mut self, name: &str, text: &str) {
        match self.value(name) {
            Some(value) => *value = text.into(),
            None => self.0.push((name.into(), text.into())),
        }
    }
}

impl<'a> Resource<'a> {
    pub(super) fn new(attributes: Attributes<'a>, spelling: RawKey) -> Self {
        let key = spelling.with(attributes.key());
        Self { attributes, key, parsed: None, times: BTreeMap::new(), last_ms: i64::MIN }
    }

    pub(super) fn parsed(&mut self, limits: &Limits) -> Result<&Parsed, Fault> {
        if self.parsed.is_none() {
            self.parsed = Some(match parse(&self.attributes, limits) {
                Ok(parsed) => Ok(parsed),
                Err(Fault::Record(reason)) => Err(reason),
                Err(error) => return Err(error),
            });
        }
        match self.parsed.as_ref() {
            Some(Ok(parsed)) => Ok(parsed),
            Some(Err(reason)) => Err(Fault::Record(reason.clone())),
            None => Err(bad("the resource cannot be read")),
        }
    }

    /// Notes the time of a point.
    #[inline]
    pub(super) fn point(&mut self, at_ms: i64) {
        if at_ms != self.last_ms {
            self.last_ms = at_ms;
            let last = self.times.entry(at_ms.div_euclid(INFO_INTERVAL_MS)).or_insert(at_ms);
            *last = at_ms.max(*last);
        }
    }

    /// Times at which `target_info` is to have a sample.
    pub(super) fn info_times(&self) -> impl Iterator<Item = i64> {
        self.times.values().copied()
    }
}

fn parse(attributes: &Attributes<'_>, limits: &Limits) -> Result<Parsed, Fault> {
    let mut parsed = Parsed::default();
    let pairs = attributes.pairs(limits)?;
    let get = |name: &str| pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
    let (name, namespace) = (get(SERVICE_NAME), get(SERVICE_NAMESPACE));
    if !name.is_empty() {
        parsed.job = if namespace.is_empty() { name.into() } else { format!("{namespace}/{name}") };
    }
    get(SERVICE_INSTANCE_ID).clone_into(&mut parsed.instance);
    for key in PROMOTED {
        let value = get(key);
        if !value.is_empty() {
            parsed.promoted.push((names::label_name(key)?, value.into()));
        }
    }
    parsed.rest = pairs;
    parsed.rest.retain(|(key, _)| ![SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE_ID].contains(&&**key));
    Ok(parsed)
}

impl Parsed {
    /// Labels of the series of a point; `own` are set last.
    pub(super) fn series(
        &self,
        attributes: Vec<(String, String)>,
        own: &[(&str, &str)],
        limits: &Limits,
    ) -> Result<Labels, Fault> {
        let mut labels = LabelSet::default();
        labels.attributes(attributes)?;
        for (name, value) in &self.promoted {
            if labels.value(name).is_none_or(|value| value.is_empty()) {
                labels.set(name, value);
            }
        }
        self.identify(&mut labels);
        own.iter().for_each(|(name, value)| labels.set(name, value));
        series_labels(labels.0, limits)
    }

    fn identify(&self, labels: &mut LabelSet) {
        for (name, value) in [("job", &self.job), ("instance", &self.instance)] {
            if !value.is_empty() {
                labels.set(name, value);
            }
        }
    }

    /// Labels of `target_info`; `None` when the resource has nothing more to tell, or nothing to know it by.
    pub(super) fn info(&self, limits: &Limits) -> Result<Option<Labels>, Fault> {
        if self.rest.is_empty() || (self.job.is_empty() && self.instance.is_empty()) {
            return Ok(None);
        }
        let mut labels = LabelSet::default();
        labels.attributes(self.rest.clone())?;
        self.identify(&mut labels);
        labels.set(METRIC_NAME, TARGET_INFO);
        series_labels(labels.0, limits).map(Some)
    }
}
