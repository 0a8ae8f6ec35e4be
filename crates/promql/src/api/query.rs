//! `query`, `query_range` and `query_exemplars`.

use std::time::{Duration, Instant};

use super::{
    Api, Failure, Reply, Request, TRUNCATED, json,
    params::{duration, query_time, time},
    selectors, tree,
};
use crate::{
    engine::{Answer, Engine, Error},
    parser,
    value::Value,
};

const NANOS_PER_MILLI: i64 = 1_000_000;

impl Request<'_> {
    /// A time that must be given.
    fn required_time(&self, name: &str) -> Result<i64, Failure> {
        let millis = time(self.get(name)).map_err(|what| Failure::parameter(name, what))?;
        query_time(name, millis)
    }

    /// When the query must have ended: the server's bound, or sooner if the caller says so.
    fn query_deadline(&self) -> Result<Instant, Failure> {
        let text = self.get("timeout");
        if text.is_empty() {
            return Ok(self.deadline);
        }
        let nanos = duration(text).map_err(|what| Failure::parameter("timeout", what))?;
        let asked = Instant::now().checked_add(Duration::from_nanos(nanos.max(0) as u64));
        Ok(asked.map_or(self.deadline, |asked| asked.min(self.deadline)))
    }
}

impl Api {
    /// The engine as a request wants it.
    fn engine(&self, request: &Request<'_>, deadline: Instant) -> Result<Engine, Failure> {
        let mut engine = self.engine.clone();
        engine.timeout = deadline.saturating_duration_since(Instant::now());
        engine.per_step_statistics |= request.get("stats") == "all";
        let text = request.get("lookback_delta");
        if !text.is_empty() {
            let nanos = duration(text).map_err(|what| {
                Failure::bad_data(format!("error parsing lookback delta duration: {what}"))
            })?;
            if nanos > 0 {
                engine.lookback = Duration::from_nanos(nanos as u64);
            }
        }
        Ok(engine)
    }

    pub(super) fn query(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let limit = request.limit()?;
        let at = query_time("time", request.time_or("time", request.now_ms)?)?;
        let deadline = request.query_deadline()?;
        let engine = self.engine(request, deadline)?;
        let begun = Instant::now();
        let answer = engine.instant(&self.source(request, deadline), request.get("query"), at);
        reply(request, answer, limit, (at, 1), begun)
    }

    pub(super) fn query_range(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let limit = request.limit()?;
        let (start, end) = (request.required_time("start")?, request.required_time("end")?);
        if end < start {
            return Err(Failure::parameter("end", "end timestamp must not be before start time"));
        }
        let step = duration(request.get("step")).map_err(|what| Failure::parameter("step", what))?;
        // Times are milliseconds; a step below one would never end.
        let step = step / NANOS_PER_MILLI;
        if step <= 0 {
            let what =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(Failure::parameter("step", what));
        }
        if (end - start) / step > crate::MAX_STEPS {
            return Err(Failure::bad_data(
                "exceeded maximum resolution of 11,000 points per timeseries. \
                 Try decreasing the query resolution (?step=XX)",
            ));
        }
        let deadline = request.query_deadline()?;
        let engine = self.engine(request, deadline)?;
        let begun = Instant::now();
        let source = self.source(request, deadline);
        let answer = engine.range(&source, request.get("query"), start, end, step);
        reply(request, answer, limit, (start, step), begun)
    }

    pub(super) fn exemplars(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let (start, end) = request.times()?;
        if end < start {
            return Err(Failure::bad_data("end timestamp must not be before start timestamp"));
        }
        let expr =
            parser::parse(request.get("query")).map_err(|error| Failure::bad_data(error.to_string()))?;
        let source = self.source(request, request.deadline);
        let mut found = Vec::new();
        for matchers in selectors(&expr) {
            found.extend(request.tables.exemplars(&source.scan(matchers, start, end))?);
        }
        // Several selectors may find one exemplar; stable, so that times stay in order.
        found.sort_by(|a, b| {
            let order = a.series.labels.cmp(&b.series.labels).then(a.timestamp.cmp(&b.timestamp));
            order.then_with(|| a.labels.cmp(&b.labels)).then_with(|| a.value.total_cmp(&b.value))
        });
        found.dedup_by(|a, b| {
            a.series.id == b.series.id
                && a.timestamp == b.timestamp
                && a.value.to_bits() == b.value.to_bits()
                && a.labels == b.labels
        });
        let pairs = |out: &mut Vec<u8>, labels: &trine_schema::Labels| {
            let labels = crate::Labels::new(labels.iter());
            json::labels(out, &labels);
        };
        Ok(Reply::success(|out| {
            let by_series = found.chunk_by(|a, b| a.series.id == b.series.id);
            json::list(out, by_series, |out, exemplars| {
                out.extend_from_slice(br#"{"seriesLabels":"#);
                pairs(out, &exemplars[0].series.labels);
                out.extend_from_slice(br#","exemplars":"#);
                json::list(out, exemplars, |out, exemplar| {
                    out.extend_from_slice(br#"{"labels":"#);
                    pairs(out, &exemplar.labels);
                    out.extend_from_slice(br#","value":"#);
                    json::float(out, exemplar.value);
                    out.extend_from_slice(br#","timestamp":"#);
                    json::seconds(out, exemplar.timestamp);
                    out.push(b'}');
                });
                out.push(b'}');
            });
        }))
    }
}

/// `format_query`.
pub(super) fn format(request: &Request<'_>) -> Result<Reply, Failure> {
    let expr = parser::parse(request.get("query")).map_err(Error::from)?;
    Ok(Reply::success(|out| json::html_safe(out, &expr.pretty())))
}

/// `parse_query`.
pub(super) fn parse(request: &Request<'_>) -> Result<Reply, Failure> {
    let expr = parser::parse(request.get("query")).map_err(Error::from)?;
    Ok(Reply::json(&tree::translated(&expr)))
}

fn reply(
    request: &Request<'_>,
    answer: Result<Answer, Error>,
    limit: usize,
    (start, step): (i64, i64),
    begun: Instant,
) -> Result<Reply, Failure> {
    let mut answer = answer?;
    answer.warnings.extend(request.stats.snapshot().partial);
    if limit > 0 && truncate(&mut answer.value, limit) {
        answer.warnings.push(TRUNCATED.to_owned());
    }
    let wanted = request.get("stats");
    if !matches!(wanted, "" | "true" | "all") {
        answer.warnings.push(format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, \
             use \"true\" or \"all\"",
            crate::format::quote(wanted)
        ));
    }
    let data = |out: &mut Vec<u8>| {
        out.extend_from_slice(br#"{"resultType":""#);
        out.extend_from_slice(answer.value.type_name().as_bytes());
        out.extend_from_slice(br#"","result":"#);
        json::value(out, &answer.value);
        if !wanted.is_empty() {
            let seconds = begun.elapsed().as_secs_f64();
            let samples = &answer.statistics;
            out.extend_from_slice(
                format!(
                    ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{seconds},\"resultSortTime\":0,\
                     \"queryPreparationTime\":0,\"innerEvalTime\":{seconds},\"execQueueTime\":0,\
                     \"execTotalTime\":{seconds}}},\"samples\":{{"
                )
                .as_bytes(),
            );
            if !samples.samples_per_step.is_empty() {
                out.extend_from_slice(br#""totalQueryableSamplesPerStep":"#);
                let by_step = (0..).map(|at| start + at * step).zip(&samples.samples_per_step);
                json::list(out, by_step, |out, (time, count)| {
                    out.extend_from_slice(format!("[{},{count}]", time as f64 / 1000.0).as_bytes());
                });
                out.push(b',');
            }
            let sums = format!(
                "\"totalQueryableSamples\":{},\"peakSamples\":{}}}}}",
                samples.samples, samples.peak_samples
            );
            out.extend_from_slice(sums.as_bytes());
        }
        out.push(b'}');
    };
    Ok(Reply::with_notes(data, &answer.warnings, &answer.infos))
}

/// Whether there were more.
fn truncate(value: &mut Value, limit: usize) -> bool {
    match value {
        Value::Vector(vector) if vector.len() > limit => vector.truncate(limit),
        Value::Matrix(matrix) if matrix.len() > limit => matrix.truncate(limit),
        _ => return false,
    }
    true
}
