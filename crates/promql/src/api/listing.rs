//! What there is: series, label names, label values, metadata.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use super::{Api, Failure, Reply, Request, TRUNCATED, json};
use crate::labels::{Labels, Matcher};

/// Cuts a list; whether it was longer is told as a warning.
fn cut<T>(items: &mut Vec<T>, limit: usize, warnings: &mut Vec<String>) {
    if limit > 0 && items.len() > limit {
        items.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
}

impl Api {
    /// Label sets that any of the selectors finds, each once.
    fn found(
        &self,
        request: &Request<'_>,
        mut selectors: Vec<Vec<Matcher>>,
        start: i64,
        end: i64,
    ) -> Result<Vec<Labels>, Failure> {
        if selectors.is_empty() {
            selectors.push(Vec::new());
        }
        let source = self.source(request, request.deadline);
        let (mut all, mut once) = (Vec::new(), 0);
        for (number, matchers) in selectors.iter().enumerate() {
            all.extend(source.find(matchers, start, end)?.1);
            // Not only at the end: many selectors may find the same series again and again.
            let is_last = number + 1 == selectors.len();
            if number > 0 && (is_last || all.len() > 2 * once) {
                all.sort_unstable();
                all.dedup();
                once = all.len();
            }
        }
        Ok(all)
    }

    pub(super) fn series(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        if request.all("match[]").next().is_none() {
            return Err(Failure::bad_data("no match[] parameter provided"));
        }
        let limit = request.limit()?;
        let (start, end) = request.times()?;
        let selectors = request.matchers().map_err(|what| Failure::parameter("match[]", what))?;
        let mut found = self.found(request, selectors, start, end)?;
        let mut warnings = request.stats.snapshot().partial;
        cut(&mut found, limit, &mut warnings);
        Ok(Reply::with_notes(|out| json::list(out, &found, json::labels), &warnings, &[]))
    }

    pub(super) fn label_names(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        self.texts(request, |labels, names| names.extend(labels.iter().map(|(name, _)| name)))
    }

    pub(super) fn label_values(&self, request: &Request<'_>, name: &str) -> Result<Reply, Failure> {
        let name = unescaped(name);
        if name.is_empty() {
            return Err(Failure::bad_data("invalid label name: \"\""));
        }
        self.texts(request, |labels, values| {
            values.extend(Some(labels.get(&name)).filter(|value| !value.is_empty()));
        })
    }

    /// Texts of the label sets found, sorted, each once.
    fn texts(
        &self,
        request: &Request<'_>,
        collect: impl for<'s> Fn(&'s Labels, &mut HashSet<&'s str>),
    ) -> Result<Reply, Failure> {
        let limit = request.limit()?;
        let (start, end) = request.times()?;
        let selectors = request.matchers().map_err(Failure::bad_data)?;
        let found = self.found(request, selectors, start, end)?;
        let mut known = HashSet::new();
        found.iter().for_each(|labels| collect(labels, &mut known));
        let mut sorted: Vec<&str> = known.into_iter().collect();
        sorted.sort_unstable();
        let mut warnings = request.stats.snapshot().partial;
        cut(&mut sorted, limit, &mut warnings);
        Ok(Reply::with_notes(|out| json::list(out, sorted, json::html_safe), &warnings, &[]))
    }
}

/// A name in Prometheus' escaping of values, `U__http_2e_status`; others as they are.
fn unescaped(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut plain = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('_') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('_') {
            plain.push('_');
            rest = after;
            continue;
        }
        let decoded = after
            .split_once('_')
            .and_then(|(code, after)| Some((char::from_u32(u32::from_str_radix(code, 16).ok()?)?, after)));
        let Some((char, after)) = decoded else { return name.to_owned() };
        plain.push(char);
        rest = after;
    }
    plain + rest
}

/// `metadata`: type, help and unit by metric.
pub(super) fn metadata(request: &Request<'_>) -> Result<Reply, Failure> {
    let number = |name: &str| match request.get(name) {
        "" => Ok(-1),
        text => text.parse::<i64>().map_err(|_| Failure::bad_data(format!("{name} must be a number"))),
    };
    let (limit, per_metric) = (number("limit")?, number("limit_per_metric")?);
    let wanted = request.get("metric");
    let mut metrics: BTreeMap<&str, Vec<&trine_schema::Metadata>> = BTreeMap::new();
    let known = request.tables.metric_metadata(&request.tenant)?;
    for (metric, metadata) in &known {
        if !wanted.is_empty() && wanted != metric {
            continue;
        }
        let entries = metrics.entry(metric).or_default();
        if per_metric <= 0 || (entries.len() as i64) < per_metric {
            entries.push(metadata);
        }
    }
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Reply::success(|out| {
        out.push(b'{');
        for (position, (metric, entries)) in metrics.iter().take(most).enumerate() {
            if position > 0 {
                out.push(b',');
            }
            json::html_safe(out, metric);
            out.push(b':');
            json::list(out, entries, |out, metadata| {
                for (name, text) in [
                    ("{\"type\":", &metadata.kind),
                    (",\"help\":", &metadata.help),
                    (",\"unit\":", &metadata.unit),
                ] {
                    out.extend_from_slice(name.as_bytes());
                    json::html_safe(out, text);
                }
                out.push(b'}');
            });
        }
        out.push(b'}');
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read() {
        for (escaped, plain) in [
            ("job", "job"),
            ("U__http_2e_status__code", "http.status_code"),
            ("U___5f_", "_"),
            ("U__bad_zz_", "U__bad_zz_"),
            ("U__a_1F600_b", "a\u{1f600}b"),
        ] {
            assert_eq!(unescaped(escaped), plain, "{escaped}");
        }
    }
}
