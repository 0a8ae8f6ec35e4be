//! What is scraped: from an address and the labels of its group to a URL and the labels of its series.

use std::time::Duration;

use reqwest::Url;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    LabelSet,
    config::{Job, TargetGroup},
    duration,
    relabel::relabel,
};

/// One address to scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Labels before relabelling.
    pub(crate) discovered: LabelSet,
    /// Labels behind relabelling, those with `__` included, without `__meta_…`.
    pub(crate) all: LabelSet,
    /// Labels of its series.
    pub(crate) labels: LabelSet,
    pub(crate) url: Url,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// What became of an address.
pub(crate) enum Found {
    Active(Box<Target>),
    /// A rule dropped it; its labels before.
    Dropped(LabelSet),
}

/// Longest address, in bytes.
const MAX_ADDRESS: usize = 4096;

impl Target {
    /// Two targets with the same key are one.
    pub(crate) fn key(&self) -> (LabelSet, String) {
        (self.all.clone(), self.url.to_string())
    }

    /// Time from now to its next scrape: targets are spread over the interval by a hash of what they are, at the
    /// same places after every restart. `now_ns` counts from 1970.
    pub(crate) fn offset(&self, now_ns: i64, seed: u64) -> Duration {
        let mut text = self.url.to_string();
        for (name, value) in self.all.iter() {
            text.extend([name, "\u{0}", value, "\u{0}"]);
        }
        let interval = self.interval.as_nanos().max(1);
        let place = u128::from(xxh3_64(text.as_bytes()) ^ seed) % interval;
        let now = u128::try_from(now_ns).unwrap_or(0) % interval;
        Duration::from_nanos(((place + interval - now) % interval) as u64)
    }

    /// All targets of a group. An error names the address.
    pub(crate) fn of_group<'a>(
        group: &'a TargetGroup,
        job: &'a Job,
    ) -> impl Iterator<Item = Result<Found, String>> + 'a {
        group.targets.iter().map(move |address| {
            Self::found(address, group, job).map_err(|reason| format!("target {address:?}: {reason}"))
        })
    }

    fn found(address: &str, group: &TargetGroup, job: &Job) -> Result<Found, String> {
        let mut labels = group.labels.clone();
        labels.set("__address__", address);
        let first = |values: &[String]| values.first().cloned().unwrap_or_default();
        let params = job.params.iter().map(|(name, values)| (format!("__param_{name}"), first(values)));
        let defaults = [
            ("job", job.job_name.clone()),
            ("__scrape_interval__", duration::format(job.scrape_interval)),
            ("__scrape_timeout__", duration::format(job.scrape_timeout)),
            ("__metrics_path__", job.metrics_path.clone()),
            ("__scheme__", job.scheme.clone()),
        ];
        for (name, value) in defaults.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(params)
        {
            if labels.get(&name).is_empty() {
                labels.set(name, value);
            }
        }
        let discovered = labels.clone();
        if !relabel(&job.relabel_configs, &mut labels) {
            return Ok(Found::Dropped(discovered));
        }
        labels.retain(|name| !name.starts_with("__meta_"));
        let address = labels.get("__address__").to_owned();
        if address.is_empty() {
            return Err("it has no __address__ behind relabelling; give host:port".into());
        }
        if address.contains('/') || address.len() > MAX_ADDRESS {
            let remedy = "scheme and metrics_path are fields of the job";
            return Err(format!("{address:?} is not host:port; {remedy}"));
        }
        if labels.get("instance").is_empty() {
            labels.set("instance", &*address);
        }
        let time = |name: &str| {
            let text = labels.get(name);
            let time = duration::parse(text).filter(|time| !time.is_zero());
            time.ok_or_else(|| format!("{name} is {text:?}, not a duration above 0"))
        };
        let (interval, timeout) = (time("__scrape_interval__")?, time("__scrape_timeout__")?);
        if timeout > interval {
            return Err("__scrape_timeout__ is longer than __scrape_interval__".into());
        }
        let url = url(&labels, &address, job)?;
        let public = labels.public();
        Ok(Found::Active(Box::new(Self { discovered, labels: public, all: labels, url, interval, timeout })))
    }
}

fn url(labels: &LabelSet, address: &str, job: &Job) -> Result<Url, String> {
    let scheme = labels.get("__scheme__");
    if !matches!(scheme, "http" | "https") {
        return Err(format!("__scheme__ is {scheme:?}, neither http nor https"));
    }
    let mut url = Url::parse(&format!("{scheme}://{address}"))
        .map_err(|error| format!("{address:?} is not host:port: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() || address.contains(['?', '#']) {
        return Err(format!("{address:?} is not host:port; basic_auth and params are fields of the job"));
    }
    url.set_path(labels.get("__metrics_path__"));
    let mut params = job.params.clone();
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix("__param_") else { continue };
        match params.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) if !values.is_empty() => value.clone_into(&mut values[0]),
            Some((_, values)) => values.push(value.to_owned()),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    for (name, values) in &params {
        for value in values {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScrapeConfig;

    fn found(yaml: &str) -> Vec<Result<Found, String>> {
        let config = ScrapeConfig::parse(yaml, std::path::Path::new("test.yml")).unwrap();
        let job = &config.jobs[0];
        job.static_configs.iter().flat_map(|group| Target::of_group(group, job)).collect()
    }

    #[test]
    fn a_target_has_a_url_and_labels() {
        let yaml = r#"
scrape_configs:
  - job_name: shop
    metrics_path: /metrics?x
    scrape_interval: 30s
    params: {module: [http_2xx, b], "match[]": ['{a="b"}']}
    static_configs:
      - targets: ["localhost:9090", "[::1]:80", dropped]
        labels: {env: test, __meta_zone: z1, __param_target: "a&b"}
    relabel_configs:
      - {source_labels: [__address__], regex: dropped, action: drop}
      - {source_labels: [__meta_zone], target_label: zone}
"#;
        let mut found = found(yaml).into_iter();
        let Some(Ok(Found::Active(target))) = found.next() else { panic!("no target") };
        assert_eq!(
            target.url.as_str(),
            "http://localhost:9090/metrics%3Fx?match%5B%5D=%7Ba%3D%22b%22%7D&module=http_2xx&module=b&target=a%26b"
        );
        let labels: Vec<_> = target.labels.iter().collect();
        assert_eq!(
            labels,
            [("env", "test"), ("instance", "localhost:9090"), ("job", "shop"), ("zone", "z1")]
        );
        assert_eq!(target.discovered.get("__meta_zone"), "z1");
        assert_eq!(target.discovered.get("__scrape_interval__"), "30s");
        assert_eq!((target.interval.as_secs(), target.timeout.as_secs()), (30, 10));
        assert!(
            matches!(found.next(), Some(Ok(Found::Active(target))) if target.url.as_str().starts_with("http://[::1]/metrics"))
        );
        assert!(
            matches!(found.next(), Some(Ok(Found::Dropped(labels))) if labels.get("__address__") == "dropped")
        );
        assert!(found.next().is_none());
    }

    #[test]
    fn an_address_that_cannot_be_asked_is_an_error() {
        let config = ScrapeConfig::parse("scrape_configs: [{job_name: a}]", std::path::Path::new("t.yml"));
        let job = &config.unwrap().jobs[0];
        for (address, reason) in [
            ("a:bad", "\"a:bad\" is not host:port: invalid port number"),
            ("x:99999", "\"x:99999\" is not host:port: invalid port number"),
            ("", "it has no __address__ behind relabelling; give host:port"),
            ("h/m", "\"h/m\" is not host:port; scheme and metrics_path are fields of the job"),
            ("u:p@h:1", "\"u:p@h:1\" is not host:port; basic_auth and params are fields of the job"),
            ("h:1?a=b", "\"h:1?a=b\" is not host:port; basic_auth and params are fields of the job"),
        ] {
            let group = TargetGroup { targets: vec![address.into()], ..TargetGroup::default() };
            let error = Target::of_group(&group, job).next().unwrap().err();
            assert_eq!(error, Some(format!("target {address:?}: {reason}")));
        }
    }

    #[test]
    fn offsets_are_in_the_interval_and_pinned_to_absolute_time() {
        let yaml =
            "scrape_configs: [{job_name: a, scrape_interval: 10s, static_configs: [{targets: [a, b]}]}]";
        let targets: Vec<_> = found(yaml)
            .into_iter()
            .map(|found| match found {
                Ok(Found::Active(target)) => target,
                _ => panic!("no target"),
            })
            .collect();
        let at = |target: &Target, now: i64| {
            let offset = target.offset(now, 7);
            assert!(offset < Duration::from_secs(10));
            (now + offset.as_nanos() as i64) % 10_000_000_000
        };
        assert_ne!(at(&targets[0], 0), at(&targets[1], 0));
        for now in [0, 1, 5_000_000_000, 9_999_999_999, 1_700_000_000_123_456_789] {
            assert_eq!(at(&targets[0], now), at(&targets[0], 0));
        }
    }
}
