//! Bounds, times and the border to a source.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use trine_promql::{
    Answer, Buckets, Data, Engine, Error, Histogram, Labels, Load, MAX_STEPS, MemorySource, Samples,
    Selected, Selection, Series, Source, SourceError, Value,
};

const MINUTE: i64 = 60_000;

fn source(series: usize) -> MemorySource {
    let mut source = MemorySource::default();
    for number in 0..series {
        let samples = source.series(Labels::new([("__name__", "m_total"), ("i", &number.to_string())]));
        samples.timestamps = Arc::new((0..60).map(|minute| minute * MINUTE).collect());
        samples.values = (0..60).map(|minute| f64::from(minute) * (number + 1) as f64).collect();
    }
    source
}

/// Native histograms whose sums, counts and layouts differ.
fn with_histograms(mut source: MemorySource, series: usize) -> MemorySource {
    for number in 0..series {
        let samples = source.series(Labels::new([("__name__", "native"), ("i", &number.to_string())]));
        for minute in 0..60 {
            let counts = vec![f64::from(minute), f64::from(minute) * 0.3];
            samples.histogram_timestamps.push(i64::from(minute) * MINUTE);
            samples.histograms.push(Arc::new(Histogram {
                schema: (number % 3) as i32,
                count: counts.iter().sum(),
                sum: f64::from(minute) * (number as f64 + 0.1),
                positive: Buckets { index: vec![number as i32 % 7, 9], count: counts },
                ..Histogram::default()
            }));
        }
    }
    source
}

fn text(answer: Result<Answer, Error>) -> String {
    answer.map_or_else(|error| error.to_string(), |answer| answer.value.to_string())
}

#[test]
fn a_query_holds_no_more_samples_than_allowed() {
    let engine = Engine { max_samples: 100, ..Engine::default() };
    let many = text(engine.range(&source(10), "m_total", 0, 20 * MINUTE, MINUTE));
    assert_eq!(many, "query processing would load too many samples into memory in query execution");
    let answer = engine.range(&source(4), "m_total", 0, 20 * MINUTE, MINUTE).unwrap();
    assert_eq!(answer.statistics.peak_samples, 84);
    assert_eq!(answer.statistics.series, 4);
}

#[test]
fn a_query_ends_at_its_time() {
    let engine = Engine { timeout: Duration::ZERO, ..Engine::default() };
    let late = text(engine.instant(&source(1), "m_total", 0));
    assert_eq!(late, "query timed out in expression evaluation");
}

#[test]
fn senseless_times_are_refused() {
    let engine = Engine::default();
    let range = |query, end, step| text(engine.range(&source(1), query, 0, end, step));
    assert_eq!(range("m_total", -1, 1), "end timestamp must not be before start time");
    assert!(range("m_total", 10, 0).starts_with("zero or negative query resolution step"));
    assert!(
        range("m_total", (MAX_STEPS + 1) * MINUTE, MINUTE)
            .starts_with("exceeded maximum resolution of 11,000")
    );
    let matrix = "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector";
    assert_eq!(range("m_total[5m]", 10, 1), matrix);
}

#[test]
fn values_print_as_prometheus_prints_them() {
    let engine = Engine::default();
    let instant = |query| text(engine.instant(&source(1), query, MINUTE));
    assert_eq!(instant("1e6"), "scalar: 1000000 @[60.000]");
    assert_eq!(instant("\"a\""), "a");
    assert_eq!(instant("m_total / 0"), "{i=\"0\"} => +Inf @[60.000]");
    assert_eq!(instant("m_total[2m]"), "{__name__=\"m_total\", i=\"0\"} =>\n0 @[0.000]\n1 @[60.000]");
}

#[test]
fn one_thread_and_many_say_the_same() {
    let source = with_histograms(source(1000), 500);
    for query in [
        "sum(rate(m_total[5m]))",
        "max by (i) (increase(m_total[5m]))",
        "count(m_total > 100)",
        "min(delta(m_total[3m]))",
        "topk(3, rate(m_total[5m]))",
        "avg(m_total)",
        "avg(rate(m_total[5m]))",
        "sum(m_total)",
        "histogram_sum(avg(native))",
        "histogram_quantile(0.9, sum(rate(native[5m])))",
    ] {
        let run = |threads| {
            let engine = Engine { threads, ..Engine::default() };
            engine.range(&source, query, 0, 50 * MINUTE, MINUTE).unwrap().value
        };
        let (Value::Matrix(one), Value::Matrix(four)) = (run(1), run(4)) else { panic!("{query}") };
        assert_eq!(one.len(), four.len(), "{query}");
        for (one, four) in one.iter().zip(&four) {
            assert_eq!(one.labels, four.labels);
            for ((_, one), (_, four)) in one.floats.iter().zip(&four.floats) {
                assert!((one - four).abs() <= 1e-12 * one.abs(), "{query}: {one} and {four}");
            }
        }
    }
}

/// Series that are read one by one.
struct Lazy {
    inner: MemorySource,
    loads: Arc<AtomicUsize>,
    fails: bool,
}

struct One {
    samples: Samples,
    loads: Arc<AtomicUsize>,
    fails: bool,
}

impl Load for One {
    fn load(&self, samples: &mut Samples) -> Result<(), SourceError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        if self.fails {
            return Err("the disk is gone".into());
        }
        samples.clone_from(&self.samples);
        Ok(())
    }
}

impl Source for Lazy {
    fn select(&self, selection: &Selection<'_>) -> Result<Selected, SourceError> {
        let mut selected = self.inner.select(selection)?;
        for Series { data, .. } in &mut selected.series {
            let Data::Ready(samples) = &data else { continue };
            let (samples, loads) = ((**samples).clone(), self.loads.clone());
            *data = Data::Lazy(Arc::new(One { samples, loads, fails: self.fails }));
        }
        selected.warnings.push("a part is missing".to_owned());
        Ok(selected)
    }
}

#[test]
fn series_are_loaded_once_when_their_turn_comes() {
    let loads = Arc::new(AtomicUsize::new(0));
    let lazy = Lazy { inner: source(300), loads: loads.clone(), fails: false };
    let engine = Engine::default();
    let query = "sum(rate(m_total[5m])) + count(m_total)";
    let answer = engine.range(&lazy, query, 0, 50 * MINUTE, MINUTE).unwrap();
    assert_eq!(loads.load(Ordering::Relaxed), 600);
    assert_eq!(answer.warnings, ["a part is missing"]);
    let eager = engine.range(&source(300), query, 0, 50 * MINUTE, MINUTE).unwrap();
    assert_eq!(answer.value, eager.value);
    let broken = Lazy { inner: source(1), loads, fails: true };
    assert_eq!(text(engine.instant(&broken, "m_total", 0)), "expanding series: the disk is gone");
}

#[test]
fn a_long_chain_fits_the_stack() {
    let chain = vec!["m_total"; 250].join(" + ");
    let answer = text(Engine::default().instant(&source(1), &chain, MINUTE));
    let nested = format!("{}m_total{}", "abs(".repeat(80), ")".repeat(80));
    assert_eq!(text(Engine::default().instant(&source(1), &nested, MINUTE)), "{i=\"0\"} => 1 @[60.000]");
    assert_eq!(answer, "{i=\"0\"} => 250 @[60.000]");
}
