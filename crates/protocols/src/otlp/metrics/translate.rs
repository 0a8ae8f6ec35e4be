//! Data points become samples of Prometheus series, in the same way for both encodings.

use std::{collections::HashSet, sync::Arc};

use trine_model::TenantId;
use trine_schema::{
    Labels, Metadata, MetricBatch, MetricBatchBuilder, RawKey, StreamRef, StreamRegistry,
    metrics::{METRIC_NAME, STALE_NAN},
};

use super::{
    DeltaState, DeltaUpdate,
    attributes::Attributes,
    names::{self, Kind},
    point::{Exemplar, Point},
    resource::{Resource, TARGET_INFO},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, check_labels, timestamp},
};

/// Most buckets and quantiles of a point that become series of their own: each may hold all its labels.
const MAX_SERIES_PER_POINT: usize = 4096;

/// `AggregationTemporality`.
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// A metric below its resource.
pub(super) struct Metric<'a> {
    /// Of resource, name, unit and kind.
    key: RawKey,
    kind: Kind,
    delta: bool,
    /// The series of its metadata, which holds its name.
    family: StreamRef,
    name: String,
    unit: &'a str,
    description: &'a str,
}

/// Which series of a point.
#[derive(Debug, Clone, Copy)]
enum Role {
    Plain,
    Sum,
    Count,
    Bucket(f64),
    Quantile(f64),
}

/// A request on its way.
pub(super) struct Translator<'r> {
    pub(super) intake: Intake<'r, MetricBatchBuilder>,
    spelling: RawKey,
    deltas: DeltaUpdate,
    /// Metrics whose metadata were written.
    described: HashSet<StreamRef>,
    /// Samples of `target_info` that were written.
    informed: HashSet<(StreamRef, i64)>,
    /// Series and values of one point; reused.
    rows: Vec<(StreamRef, f64)>,
}

/// Times of a point in milliseconds; a start of 0 is not known.
#[derive(Debug, Clone, Copy)]
struct Times {
    at_ms: i64,
    start_ms: i64,
}

impl<'r> Translator<'r> {
    pub(super) fn new(
        tenant: &'r TenantId,
        registry: &'r StreamRegistry,
        now_ns: i64,
        limits: &'r Limits,
        deltas: &Arc<DeltaState>,
        (rows, dialect): (usize, Dialect),
    ) -> Self {
        let intake = Intake::new(tenant, registry, now_ns, limits, rows, 0);
        Self {
            spelling: intake.spelling(dialect),
            intake,
            deltas: DeltaUpdate::new(deltas),
            described: HashSet::new(),
            informed: HashSet::new(),
            rows: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Decoded<MetricBatch>, DeltaUpdate) {
        (self.intake.finish_records(), self.deltas)
    }

    pub(super) fn resource<'a>(&self, attributes: Attributes<'a>) -> Resource<'a> {
        Resource::new(attributes, self.spelling)
    }

    /// Begins a metric; `temporality` is that of sums and histograms.
    pub(super) fn metric<'a>(
        &mut self,
        resource: &Resource<'_>,
        (name, unit, description): (&'a str, &'a str, &'a str),
        kind: Kind,
        temporality: u64,
    ) -> Result<Metric<'a>, Fault> {
        let delta = match kind {
            Kind::Gauge | Kind::Summary => false,
            _ if temporality == CUMULATIVE => false,
            _ if temporality == DELTA => true,
            _ => return Err(bad("aggregation_temporality is not given; send cumulative or delta")),
        };
        let own = RawKey::of(name.as_bytes()).with(RawKey::of(unit.as_bytes()));
        let own = own.with(RawKey::numbers(kind as u64, 0));
        let family = self.intake.stream_of(self.spelling.with(own), |limits| {
            let name = names::metric_name(name, unit, kind)?;
            let pairs = vec![(METRIC_NAME.into(), name.into())];
            check_labels(&pairs, limits, "shorten it")?;
            Ok(Labels::new(pairs)?)
        })?;
        Ok(Metric {
            key: resource.key.with(own),
            kind,
            delta,
            family,
            name: String::new(),
            unit,
            description,
        })
    }

    /// Writes the metadata of a metric of which points were taken.
    pub(super) fn describe(&mut self, metric: &Metric<'_>) -> Result<(), DecodeError> {
        if self.described.insert(metric.family) {
            let metadata = Metadata {
                kind: metric.kind.type_name().into(),
                unit: names::unit_name(metric.unit),
                help: metric.description.into(),
            };
            self.intake.metadata(metric.family, &metadata);
        }
        self.intake.check_expanded()
    }

    /// Takes a data point, all its rows or none.
    #[inline]
    pub(super) fn point(
        &mut self,
        resource: &mut Resource<'_>,
        metric: &mut Metric<'_>,
        attributes: &Attributes<'_>,
        point: &mut Point,
    ) -> Result<(), Fault> {
        let now_ns = self.intake.now_ns;
        let arrived = point.time == 0;
        let at_ns = if arrived { now_ns } else { timestamp(point.time)? };
        let times = Times { at_ms: at_ns / 1_000_000, start_ms: timestamp(point.start)? / 1_000_000 };
        // Behind the first row nothing may be refused.
        point.exemplars.iter().try_for_each(|exemplar| timestamp(exemplar.time).map(|_| ()))?;
        let key = metric.key.with(attributes.key());
        let kind = metric.kind;
        let mut of = |translator: &mut Self, role| translator.series(resource, metric, attributes, key, role);
        self.rows.clear();
        match kind {
            Kind::Gauge | Kind::Counter | Kind::UpDown => {
                let series = of(self, Role::Plain)?;
                let reason = "the data point has no value; send as_double or as_int";
                let value = if point.is_stale() { 0.0 } else { point.value.ok_or_else(|| bad(reason))? };
                self.rows.push((series, value));
            }
            Kind::Histogram => {
                check_series(point.bounds.len())?;
                let count = of(self, Role::Count)?;
                self.rows.push((count, point.count as f64));
                let mut below = 0u64;
                for (bound, count) in point.explicit()? {
                    below = below.saturating_add(count);
                    let bucket = of(self, Role::Bucket(bound))?;
                    self.rows.push((bucket, below as f64));
                }
                let all = of(self, Role::Bucket(f64::INFINITY))?;
                self.rows.push((all, point.count as f64));
                if let Some(sum) = point.sum {
                    let series = of(self, Role::Sum)?;
                    self.rows.push((series, sum));
                }
            }
            Kind::Summary => {
                check_series(point.quantiles.len())?;
                for (quantile, value) in &point.quantiles {
                    let series = of(self, Role::Quantile(*quantile))?;
                    self.rows.push((series, *value));
                }
                let (sum, count) = (of(self, Role::Sum)?, of(self, Role::Count)?);
                self.rows.extend([(sum, point.sum.unwrap_or(0.0)), (count, point.count as f64)]);
            }
            Kind::Exponential => {
                let series = of(self, Role::Plain)?;
                self.rows.push((series, 0.0));
            }
        }
        if kind == Kind::Exponential {
            self.native(metric, point, times)?;
        } else {
            self.floats(metric, point, times)?;
        }
        if arrived {
            self.intake.arrived();
        }
        resource.point(times.at_ms);
        self.exemplars(metric, point, times)
    }

    fn floats(&mut self, metric: &Metric<'_>, point: &Point, times: Times) -> Result<(), Fault> {
        let Times { at_ms, mut start_ms } = times;
        let now_ms = self.intake.now_ns / 1_000_000;
        if point.is_stale() {
            self.rows.iter_mut().for_each(|(_, value)| *value = f64::from_bits(STALE_NAN));
        } else if metric.delta {
            start_ms = self.deltas.floats(&mut self.rows, (at_ms, start_ms), now_ms)?;
        }
        for (series, value) in &self.rows {
            self.intake.float(*series, at_ms, *value, start_ms)?;
        }
        Ok(())
    }

    fn native(&mut self, metric: &Metric<'_>, point: &Point, times: Times) -> Result<(), Fault> {
        let Times { at_ms, mut start_ms } = times;
        let series = self.rows[0].0;
        let mut histogram = point.native()?;
        if metric.delta && !point.is_stale() {
            let now_ms = self.intake.now_ns / 1_000_000;
            start_ms = self.deltas.histogram(series, &mut histogram, (at_ms, start_ms), now_ms)?;
        }
        self.intake.histogram(series, at_ms, &histogram, start_ms)
    }

    /// Exemplars belong to the series of the point, or to that of the bucket that holds their value.
    fn exemplars(&mut self, metric: &Metric<'_>, point: &mut Point, times: Times) -> Result<(), Fault> {
        let bounds = match metric.kind {
            Kind::Histogram => &point.bounds[..],
            _ => &[],
        };
        for Exemplar { time, value, labels } in point.exemplars.drain(..) {
            let series = match metric.kind {
                Kind::Summary => continue,
                Kind::Histogram => {
                    // The first row is the count, those of the buckets follow in order.
                    let buckets = self.rows.len() - 2 - usize::from(point.sum.is_some());
                    let bucket = bounds.partition_point(|bound| *bound < value).min(buckets);
                    self.rows[1 + bucket].0
                }
                _ => self.rows[0].0,
            };
            let at_ms = if time == 0 { times.at_ms } else { timestamp(time)? / 1_000_000 };
            self.intake.exemplar(series, at_ms, value, &labels)?;
        }
        Ok(())
    }

    /// A series of a point.
    #[inline]
    fn series(
        &mut self,
        resource: &mut Resource<'_>,
        metric: &mut Metric<'_>,
        attributes: &Attributes<'_>,
        point: RawKey,
        role: Role,
    ) -> Result<StreamRef, Fault> {
        let key = match role {
            Role::Plain => point,
            Role::Sum => point.with(RawKey::numbers(1, 0)),
            Role::Count => point.with(RawKey::numbers(2, 0)),
            Role::Bucket(bound) => point.with(RawKey::numbers(3, bound.to_bits())),
            Role::Quantile(quantile) => point.with(RawKey::numbers(4, quantile.to_bits())),
        };
        let registry = self.intake.registry();
        self.intake.stream_of(key, |limits| {
            if metric.name.is_empty() {
                let family = registry.get(metric.family);
                family.labels.get(METRIC_NAME).unwrap_or_default().clone_into(&mut metric.name);
            }
            let (suffix, label, value) = match role {
                Role::Plain => ("", "", String::new()),
                Role::Sum => ("_sum", "", String::new()),
                Role::Count => ("_count", "", String::new()),
                Role::Bucket(bound) => ("_bucket", "le", names::number(bound)),
                Role::Quantile(quantile) => ("", "quantile", names::number(quantile)),
            };
            let name = format!("{}{suffix}", metric.name);
            let own = [(METRIC_NAME, name.as_str()), (label, value.as_str())];
            let own = &own[..=usize::from(!label.is_empty())];
            resource.parsed(limits)?.series(attributes.pairs(limits)?, own, limits)
        })
    }

    /// Writes `target_info` of a resource whose points were taken.
    pub(super) fn inform(&mut self, resource: &mut Resource<'_>) -> Result<(), DecodeError> {
        if resource.info_times().next().is_none() {
            return Ok(());
        }
        let key = resource.key.with(RawKey::numbers(5, 0));
        let series = self.intake.stream_of(key, |limits| {
            let labels = resource.parsed(limits)?.info(limits)?;
            labels.ok_or_else(|| bad("a resource that is told by its series alone has no target_info"))
        });
        let series = match series {
            Ok(series) => series,
            Err(Fault::Request(error)) => return Err(error),
            Err(Fault::Record(_)) => return Ok(()),
        };
        for at_ms in resource.info_times() {
            if self.informed.insert((series, at_ms))
                && let Err(Fault::Request(error)) = self.intake.float(series, at_ms, 1.0, 0)
            {
                return Err(error);
            }
        }
        self.intake.check_expanded()?;
        match self.intake.metric(TARGET_INFO) {
            Ok(family) if self.described.insert(family) => {
                let metadata =
                    Metadata { kind: "gauge".into(), unit: String::new(), help: "Target metadata".into() };
                self.intake.metadata(family, &metadata);
                Ok(())
            }
            Err(Fault::Request(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

fn check_series(count: usize) -> Result<(), Fault> {
    if count <= MAX_SERIES_PER_POINT {
        return Ok(());
    }
    let text =
        format!("the point has {count} buckets or quantiles, {MAX_SERIES_PER_POINT} are allowed; send fewer");
    Err(Fault::Record(text.into()))
}
