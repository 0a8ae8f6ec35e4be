//! Configurations: what is taken, and what is told of the others.

use std::{path::Path, time::Duration};

use trine_scrape::{
    ScrapeConfig,
    config::{Credentials, Protocol},
};

fn errors(yaml: &str) -> Vec<String> {
    let errors = ScrapeConfig::parse(yaml, Path::new("p.yml")).expect_err("it is wrong");
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_prometheus_yml_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    std::fs::create_dir(folder.path().join("more")).unwrap();
    std::fs::write(folder.path().join("more/one.yml"), "scrape_configs: [{job_name: third}]").unwrap();
    let yaml = r#"
# my global config
global:
  scrape_interval: 15s # Set the scrape interval to every 15 seconds.
  evaluation_interval: 15s
  external_labels: {region: eu, code: "$$1"}
  body_size_limit: 10MB
  sample_limit: 1000

alerting:
  alertmanagers:
    - static_configs:
        - targets:
          # - alertmanager:9093

rule_files:
  # - "first_rules.yml"

scrape_config_files: ["more/*.yml"]

scrape_configs:
  - job_name: "prometheus"
    static_configs:
      - targets: ["localhost:9090"]
        labels:
          app: "prometheus"
  - job_name: second
    scrape_interval: 1m30s
    scrape_timeout: 1m
    honor_labels: true
    scheme: https
    metrics_path: /m
    params: {a: [b, c]}
    authorization: {credentials_file: token}
    tls_config: {insecure_skip_verify: true}
    sample_limit: 5
    scrape_native_histograms: true
    fallback_scrape_protocol: PrometheusText0.0.4
    relabel_configs:
      - {source_labels: [a, b], action: Keep, regex: x}
"#;
    std::fs::write(&file, yaml).unwrap();
    let config = ScrapeConfig::load(&file).unwrap();
    assert!(ScrapeConfig::check(&file).is_empty());
    let warned: Vec<_> = config.warnings.iter().map(|warning| warning.place.line).collect();
    assert_eq!(warned, [16, 10], "{:?}", config.warnings);
    assert_eq!(config.global.external_labels.get("code"), "$1");
    let names: Vec<_> = config.jobs.iter().map(|job| &*job.job_name).collect();
    assert_eq!(names, ["prometheus", "second", "third"]);
    let [first, second, _] = &config.jobs[..] else { panic!("three jobs") };
    assert_eq!(
        (first.scrape_interval, first.scrape_timeout),
        (Duration::from_secs(15), Duration::from_secs(10))
    );
    assert_eq!((first.limits.samples, first.limits.body_size), (Some(1000), Some(10 << 20)));
    assert_eq!(first.static_configs[0].labels.get("app"), "prometheus");
    assert_eq!(first.protocols[0], Protocol::OpenMetricsText1_0_0);
    assert_eq!(
        (second.scrape_interval, second.scrape_timeout),
        (Duration::from_secs(90), Duration::from_secs(60))
    );
    assert_eq!(second.protocols[0], Protocol::PrometheusProto);
    assert_eq!(second.limits.samples, Some(5));
    let authorization = second.http.authorization.as_ref().unwrap();
    assert_eq!(authorization.kind, "Bearer");
    assert_eq!(authorization.credentials, Some(Credentials::File(folder.path().join("token"))));
}

#[test]
fn an_empty_file_scrapes_nothing() {
    for yaml in ["", "# nothing\n", "global:\nscrape_configs:\n"] {
        assert!(ScrapeConfig::parse(yaml, Path::new("p.yml")).unwrap().jobs.is_empty());
    }
}

#[test]
fn all_errors_are_told_with_their_places() {
    let yaml = r#"global:
  scrape_interval: 15
  scrape_timeot: 5s
remote_write:
  - url: http://x
scrape_configs:
  - job_name: a
    scrape_interval: 5s
    scrape_timeout: 10s
    kubernetes_sd_configs: [{role: pod}]
    static_configs: [{targets: ["http://a/metrics", "x:99999"]}]
  - job_name: a
    honor_labels: maybe
    relabel_configs:
      - {action: keep, regex: "("}
      - {action: replace}
      - {action: change}
    scrape_protocols: [Json]
    basic_auth: {username: u, password: p, password_file: f}
    tls_config: {ca_file: none.pem}
  - {}
"#;
    let errors = errors(yaml);
    let starts = [
        "p.yml:2:20: scrape_interval: \"15\" is not a duration such as 15s or 1m30s",
        "p.yml:3:3: global has no field \"scrape_timeot\" that is supported; these are: scrape_interval, ",
        "p.yml:4:1: the configuration has no field \"remote_write\" that is supported; these are: global, ",
        "p.yml:9:5: scrape_timeout (10s) is longer than scrape_interval (5s); shorten it",
        "p.yml:10:5: kubernetes_sd_configs is not supported; targets come from static_configs and file_sd_configs",
        "p.yml:11:33: target \"http://a/metrics\": \"http://a/metrics\" is not host:port; scheme and metrics_path are",
        "p.yml:11:53: target \"x:99999\": \"x:99999\" is not host:port: invalid port number",
        "p.yml:12:5: two jobs have the name \"a\"; rename one",
        "p.yml:13:19: honor_labels: \"maybe\" is neither true nor false",
        "p.yml:15:31: regex: \"(\" is not a regular expression: ",
        "p.yml:16:9: relabel_configs: action replace needs a target_label",
        "p.yml:17:9: relabel_configs: action replace needs a target_label",
        "p.yml:17:18: action: \"change\" is none of replace, keep, ",
        "p.yml:18:5: scrape_protocols is empty; leave it out for the default",
        "p.yml:18:24: scrape_protocols: \"Json\" is none of PrometheusProto, ",
        "p.yml:19:17: password and password_file are both given; leave one out",
        "p.yml:20:18: ca_file none.pem cannot be read: ",
        "p.yml:21:5: a job of scrape_configs has no job_name",
    ];
    for (number, start) in starts.iter().enumerate() {
        assert!(
            errors.get(number).is_some_and(|error| error.starts_with(start)),
            "{number}: {start}\n{}",
            errors.join("\n")
        );
    }
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
}

#[test]
fn secrets_are_not_shown() {
    let yaml = "scrape_configs: [{job_name: a, basic_auth: {username: u, password: hidden}}]";
    let config = ScrapeConfig::parse(yaml, Path::new("p.yml")).unwrap();
    assert!(!format!("{config:?}").contains("hidden"));
}

#[test]
fn unsupported_values_are_refused() {
    for (field, error) in [
        ("convert_classic_histograms_to_nhcb: true", "convert_classic_histograms_to_nhcb is not supported"),
        ("native_histogram_bucket_limit: 5", "native_histogram_bucket_limit 5 is not supported"),
        ("proxy_url: http://p", "a job of scrape_configs has no field \"proxy_url\" that is supported"),
        ("scheme: ftp", "scheme: \"ftp\" is neither http nor https"),
        ("body_size_limit: 5X", "body_size_limit: \"5X\" is not a number of bytes such as 500KB or 10MB"),
        ("sample_limit: -1", "sample_limit: \"-1\" is not a whole number"),
        ("static_configs: {targets: [a]}", "static_configs is a mapping, not a list"),
        ("file_sd_configs: [{files: ['*/a.json', b.txt]}]", "\"*/a.json\" does not end with .json"),
    ] {
        let errors = errors(&format!("scrape_configs: [{{job_name: a, {field}}}]"));
        assert!(errors[0].contains(error), "{field}: {errors:?}");
    }
}
