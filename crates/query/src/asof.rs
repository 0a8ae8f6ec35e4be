//! `metric_at(metric, service, at)`: what a metric of a service showed at an instant.
//!
//! As an instant query of PromQL does, it takes the last sample of each series within five minutes before the
//! instant, none of a series that ended, and makes one number of those of all series: `avg`, or what a fourth
//! argument names (`sum`, `min`, `max`). The samples of a batch of rows are read at once.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, StringArray, TimestampNanosecondArray},
    compute::cast,
    datatypes::{DataType, TimestampNanosecondType},
};
use async_trait::async_trait;
use datafusion::{
    common::{Result, exec_err, plan_err},
    error::DataFusionError,
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
        async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl},
    },
};
use trine_schema::{LabelMatch, LabelMatcher, Samples, ScanError, metrics::METRIC_NAME, metrics::STALE_NAN};

use crate::{
    columns::{label_value, timestamp_type},
    metrics::series,
    pushdown::Condition,
    scan::{QueryContext, scan_error},
    selection::{Selection, Services},
};

/// How old a sample may be, as Prometheus' look-back.
const LOOK_BACK_NS: i64 = 300_000_000_000;

const MS: i64 = 1_000_000;

/// The function, for one query.
pub(crate) fn metric_at(context: Arc<QueryContext>) -> ScalarUDF {
    let signature = Signature::one_of(vec![TypeSignature::Any(3), TypeSignature::Any(4)], Volatility::Stable);
    AsyncScalarUDF::new(Arc::new(MetricAt { context, signature })).into_scalar_udf()
}

struct MetricAt {
    context: Arc<QueryContext>,
    signature: Signature,
}

impl fmt::Debug for MetricAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricAt")
    }
}

impl PartialEq for MetricAt {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.context, &other.context)
    }
}

impl Eq for MetricAt {}

impl Hash for MetricAt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.context).cast::<u8>().hash(state);
    }
}

impl ScalarUDFImpl for MetricAt {
    fn name(&self) -> &'static str {
        "metric_at"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("BUG: metric_at is asked for in its own step of a plan")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for MetricAt {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = |array: &ArrayRef| -> Result<StringArray> {
            Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
        };
        let question = Question {
            metric: text(&arrays[0])?,
            service: text(&arrays[1])?,
            at: cast(&arrays[2], &timestamp_type())?.as_primitive::<TimestampNanosecondType>().clone(),
            how: arrays.get(3).map(text).transpose()?,
        };
        let context = self.context.clone();
        let answer = tokio::task::spawn_blocking(move || question.answer(&context));
        let values = answer.await.map_err(|error| DataFusionError::External(Box::new(error)))??;
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

/// Samples of the series of one service.
type OfService = Vec<(Vec<i64>, Vec<f64>)>;

/// The arguments of a batch of rows.
struct Question {
    metric: StringArray,
    service: StringArray,
    at: TimestampNanosecondArray,
    how: Option<StringArray>,
}

impl Question {
    fn is_set(&self, row: usize) -> bool {
        self.metric.is_valid(row) && self.service.is_valid(row) && self.at.is_valid(row)
    }

    fn answer(&self, context: &QueryContext) -> Result<Float64Array> {
        let rows = || (0..self.at.len()).filter(|row| self.is_set(*row));
        let metrics: HashSet<&str> = rows().map(|row| self.metric.value(row)).collect();
        let mut read = HashMap::new();
        for metric in metrics {
            let of_metric = || rows().filter(|row| self.metric.value(*row) == metric);
            let times = || of_metric().map(|row| self.at.value(row));
            let (Some(first), Some(last)) = (times().min(), times().max()) else { continue };
            let services = of_metric().map(|row| self.service.value(row).to_owned()).collect();
            let samples = samples(context, metric, services, first, last).map_err(scan_error)?;
            read.insert(metric, samples);
        }
        (0..self.at.len())
            .map(|row| {
                let known = self.is_set(row).then(|| read.get(self.metric.value(row))).flatten();
                let Some(of_service) = known.and_then(|known| known.get(self.service.value(row))) else {
                    return Ok(None);
                };
                let how = self.how.as_ref().map_or("avg", |how| how.value(row));
                one_of(how, &shown(of_service, self.at.value(row)))
            })
            .collect()
    }
}

/// By service, what the metric's series have from the look-back before `first` to `last`.
fn samples(
    context: &QueryContext,
    metric: &str,
    services: HashSet<String>,
    first: i64,
    last: i64,
) -> Result<HashMap<String, OfService>, ScanError> {
    let mut selection = Selection::all(context, None);
    let value = LabelMatch::Equal(metric.to_owned());
    selection.add(Condition::Stream(LabelMatcher { name: METRIC_NAME.to_owned(), value }));
    selection.add(Condition::Time(first.saturating_sub(LOOK_BACK_NS), last.saturating_add(1)));
    selection.services = Some(Services { label: "service_name", any: Arc::new(services) });
    let mut found: HashMap<String, OfService> = HashMap::new();
    let mut bytes = 0;
    for series in series(context, &selection)? {
        context.check_deadline()?;
        let mut samples = Samples::default();
        series.data.load(&mut samples)?;
        bytes += samples.timestamps.len() * 16;
        if bytes > context.memory_limit {
            return Err(ScanError::Memory { limit: context.memory_limit });
        }
        let seen = |time: i64| (selection.start..=selection.last()).contains(&time.saturating_mul(MS));
        let pairs = samples.timestamps.iter().copied().zip(samples.values);
        let of_range = pairs.filter(|(time, _)| seen(*time)).unzip();
        let service = label_value(&series.stream, "service_name").unwrap_or("").to_owned();
        found.entry(service).or_default().push(of_range);
    }
    Ok(found)
}

/// The last value of each series at the instant.
fn shown(series: &OfService, at: i64) -> Vec<f64> {
    let last = |(times, values): &(Vec<i64>, Vec<f64>)| {
        let place = times.partition_point(|time| time.saturating_mul(MS) <= at).checked_sub(1)?;
        let fresh = times[place].saturating_mul(MS) > at.saturating_sub(LOOK_BACK_NS);
        Some(values[place]).filter(|value| fresh && value.to_bits() != STALE_NAN)
    };
    series.iter().filter_map(last).collect()
}

fn one_of(how: &str, values: &[f64]) -> Result<Option<f64>> {
    if values.is_empty() {
        return Ok(None);
    }
    Ok(Some(match how {
        "avg" => values.iter().sum::<f64>() / values.len() as f64,
        "sum" => values.iter().sum(),
        "min" => values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        other => return plan_err!("metric_at knows avg, sum, min and max, not {other:?}"),
    }))
}
