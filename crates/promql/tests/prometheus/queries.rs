//! The series both answer from, and the queries.

use std::sync::Arc;

use trine_promql::{Buckets, CUSTOM_BUCKETS, Histogram, Labels, MemorySource, ResetHint, STALE};

/// First sample, milliseconds since 1970.
pub const START: i64 = 1_700_000_000_000;
/// When instant queries are asked.
pub const END: i64 = START + 80 * 60_000 + 7_000;
const SCRAPE: i64 = 15_000;
const SCRAPES: i64 = 400;

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) % below
    }

    fn pick<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.next(texts.len() as u64) as usize]
    }
}

/// Counters with resets and gaps, gauges with NaN and stale markers, classic and native histograms.
pub fn source() -> MemorySource {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut source = MemorySource::default();
    for (number, (job, code)) in
        ["api", "db"].into_iter().flat_map(|job| ["200", "404", "500"].map(|code| (job, code))).enumerate()
    {
        let labels = |name: &str| {
            let instance = format!("host-{number}:9100");
            Labels::new([("__name__", name), ("job", job), ("code", code), ("instance", &instance)])
        };
        let (mut count, mut level) = (random.next(100) as f64, 50.0);
        for scrape in 0..SCRAPES {
            let time = START + scrape * SCRAPE + random.next(3_000) as i64;
            let gap = number == 2 && (100..140).contains(&scrape) || random.next(40) == 0;
            if gap {
                continue;
            }
            count = if random.next(60) == 0 { 0.0 } else { count + random.next(20) as f64 };
            level += random.next(200) as f64 / 10.0 - 9.95;
            let stale = number == 4 && scrape == 200;
            let nan = number == 5 && (50..55).contains(&scrape);
            let gauge = if stale {
                f64::from_bits(STALE)
            } else if nan {
                f64::NAN
            } else {
                level
            };
            for (name, value) in [("requests_total", count), ("level", gauge)] {
                let samples = source.series(labels(name));
                Arc::make_mut(&mut samples.timestamps).push(time);
                samples.values.push(value);
            }
        }
    }
    for instance in ["a", "b"] {
        let mut counts = [0.0; 6];
        let mut sum = 0.0;
        for scrape in 0..SCRAPES {
            let time = START + scrape * SCRAPE + 500;
            for (bucket, count) in counts.iter_mut().enumerate() {
                *count += random.next(5 + bucket as u64) as f64;
            }
            sum += random.next(100) as f64 / 7.0;
            if instance == "b" && scrape == 250 {
                (counts, sum) = ([1.0; 6], 3.0);
            }
            let total: f64 = counts.iter().sum();
            let mut below = 0.0;
            for (count, le) in counts.iter().zip(["0.1", "0.5", "1", "2.5", "5", "+Inf"]) {
                below += count;
                let labels = [("__name__", "latency_bucket"), ("instance", instance), ("le", le)];
                let samples = source.series(Labels::new(labels));
                Arc::make_mut(&mut samples.timestamps).push(time);
                samples.values.push(below);
            }
            for (name, custom) in [("native", false), ("custom", true), ("gauge_native", false)] {
                let samples = source.series(Labels::new([("__name__", name), ("instance", instance)]));
                let hint = if name == "gauge_native" { ResetHint::Gauge } else { ResetHint::Unknown };
                let index = if custom { vec![0, 1, 2, 3, 4, 5] } else { vec![-2, -1, 0, 1, 3, 4] };
                let negative = if custom {
                    Buckets::default()
                } else {
                    Buckets { index: vec![0, 2], count: vec![counts[0], counts[1]] }
                };
                let zero = if custom { 0.0 } else { counts[2] };
                samples.histogram_timestamps.push(time);
                samples.histograms.push(Arc::new(Histogram {
                    reset_hint: hint,
                    schema: if custom { CUSTOM_BUCKETS } else { 1 },
                    zero_threshold: if custom { 0.0 } else { 0.001 },
                    zero_count: zero,
                    count: total + zero + negative.count.iter().sum::<f64>(),
                    sum,
                    positive: Buckets { index, count: counts.to_vec() },
                    negative,
                    custom_bounds: if custom { Arc::from([0.1, 0.5, 1.0, 2.5, 5.0]) } else { Arc::default() },
                }));
            }
        }
    }
    source
}

const FLOATS: [&str; 8] = [
    "requests_total",
    "level",
    "requests_total{job=\"api\"}",
    "level{code=~\"4..|5..\"}",
    "{__name__=~\"requests.*|level\", job!=\"db\"}",
    "level offset 3m",
    "requests_total{code!~\"2..\"} offset -2m",
    "level @ 1700003000",
];

const RANGES: [&str; 8] = [
    "requests_total[5m]",
    "level[2m]",
    "requests_total{job=\"db\"}[47s]",
    "level[10m] offset 1m",
    "requests_total[3m] @ 1700003333",
    "(level > 40)[7m:13s]",
    "sum by (job) (requests_total)[11m:1m]",
    "level[4m:17s] offset 30s",
];

const OVER_TIME: [&str; 27] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "resets",
    "changes",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "absent_over_time",
    "mad_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
    "ts_of_last_over_time",
    "ts_of_first_over_time",
    "quantile_over_time",
    "predict_linear",
    "double_exponential_smoothing",
];

const SAMPLES: [&str; 40] = [
    "abs",
    "ceil",
    "floor",
    "exp",
    "sqrt",
    "ln",
    "log2",
    "log10",
    "sgn",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "deg",
    "rad",
    "hour",
    "minute",
    "month",
    "year",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "timestamp",
    "round",
    "clamp_min",
    "clamp_max",
    "clamp",
    "absent",
    "sort",
    "sort_desc",
    "scalar",
];

fn over_time(function: &str, range: &str) -> String {
    match function {
        "quantile_over_time" => format!("quantile_over_time(0.3, {range})"),
        // Up to 3.9 a NaN among the samples was passed over.
        "mad_over_time" => format!("mad_over_time({})", range.replace("level", "requests_total")),
        "predict_linear" => format!("predict_linear({range}, 600)"),
        "double_exponential_smoothing" => format!("double_exponential_smoothing({range}, 0.3, 0.6)"),
        function => format!("{function}({range})"),
    }
}

fn aggregation(op: &str, by: &str, inner: &str) -> String {
    match op {
        "topk" | "bottomk" => format!("{op}{by} (2, {inner})"),
        "quantile" => format!("quantile{by} (0.7, {inner})"),
        "limitk" => format!("count{by} (limitk{by} (2, {inner}))"),
        "limit_ratio" => format!("limit_ratio{by} (0.5, {inner})"),
        "count_values" => format!("count_values{by} (\"v\", round({inner}, 20))"),
        op => format!("{op}{by} ({inner})"),
    }
}

/// All queries: every function on several selectors, every operator, and combinations picked at random.
pub fn all() -> Vec<String> {
    let mut queries = Vec::new();
    for (at, function) in OVER_TIME.iter().enumerate() {
        for range in [RANGES[at % RANGES.len()], RANGES[(at + 3) % RANGES.len()], RANGES[0]] {
            queries.push(over_time(function, range));
        }
    }
    for (at, function) in SAMPLES.iter().enumerate() {
        let vector = FLOATS[at % FLOATS.len()];
        let rest = match *function {
            "clamp" => ", 10, 60",
            "clamp_min" | "clamp_max" | "round" => ", 42.5",
            _ => "",
        };
        queries.push(format!("{function}({vector}{rest})"));
        queries.push(format!("{function}(requests_total{rest})"));
    }
    let aggregations = [
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "quantile",
        "limitk",
        "limit_ratio",
        "count_values",
    ];
    let groupings = ["", " by (job)", " without (instance)", " by (code, none)"];
    for op in aggregations {
        for (at, by) in groupings.iter().enumerate() {
            queries.push(aggregation(op, by, FLOATS[at]));
            queries.push(aggregation(op, by, "rate(requests_total[3m])"));
        }
    }
    let operators = [
        "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "> bool", "== bool", "and",
        "or", "unless",
    ];
    let matchings = ["", "on(instance)", "ignoring(code)", "on(job, code)"];
    for op in operators {
        for matching in matchings {
            queries.push(format!("level {op} {matching} requests_total"));
        }
        if !matches!(op, "and" | "or" | "unless") {
            queries.push(format!("level {op} 50"));
            queries.push(format!("50 {op} level"));
            queries.push(format!("sum by (job) (level) {op} on(job) group_right level"));
            queries.push(format!("level {op} on(job) group_left avg by (job) (level)"));
        }
    }
    queries.extend(histograms());
    queries.extend(special().map(str::to_owned));
    let mut random = Random(77);
    for _ in 0..400 {
        queries.push(generated(&mut random, 3));
    }
    queries
}

fn histograms() -> Vec<String> {
    let mut queries = Vec::new();
    for vector in ["native", "custom", "gauge_native", "rate(native[5m])", "rate(custom[4m])", "sum(native)"]
    {
        for function in
            ["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"]
        {
            queries.push(format!("{function}({vector})"));
        }
        queries.push(vector.to_owned());
        queries.push(format!("histogram_quantile(0.2, {vector})"));
        queries.push(format!("histogram_quantile(0.93, {vector})"));
        queries.push(format!("histogram_fraction(0.2, 3, {vector})"));
        queries.push(format!("-{vector} * 3 / 4"));
        queries.push(format!("avg({vector})"));
        queries.push(format!("count({vector}) + on() max({vector})"));
        queries.push(format!("{vector} - {vector}"));
        queries.push(format!("{vector} == {vector}"));
    }
    for function in OVER_TIME {
        queries.push(over_time(function, "native[5m]"));
        queries.push(over_time(function, "gauge_native[3m]"));
        queries.push(over_time(function, "custom[3m:20s]"));
    }
    for q in ["0", "0.5", "0.99", "1", "NaN", "-1", "2"] {
        queries.push(format!("histogram_quantile({q}, latency_bucket)"));
        queries.push(format!("histogram_quantile({q}, sum by (le) (rate(latency_bucket[5m])))"));
    }
    queries.push("histogram_fraction(0.3, 2, rate(latency_bucket[5m]))".to_owned());
    queries.push("histogram_quantile(0.5, level)".to_owned());
    queries.push("sum({__name__=~\"native|level\"})".to_owned());
    queries.push("sum({__name__=~\"native|custom\"})".to_owned());
    queries.push("native + custom".to_owned());
    queries.push("native + level".to_owned());
    queries.push("native + on(instance) group_right() custom".to_owned());
    queries
}

fn special() -> impl Iterator<Item = &'static str> {
    [
        "1",
        "-1 ^ 2 * 0x10",
        "\"text\"",
        "time() - 1700000000",
        "pi() > bool 3",
        "vector(1) or level",
        "scalar(level{instance=\"host-1:9100\"})",
        "absent(nothing{a=\"b\", c=~\"d\"})",
        "absent_over_time(nothing{a=\"b\"}[5m])",
        "label_replace(level, \"host\", \"$1-${2}\", \"instance\", \"(.*)-(.*):.*\")",
        "label_replace(level, \"__name__\", \"other\", \"job\", \"api\")",
        "label_replace(level, \"instance\", \"\", \"\", \"\")",
        "label_replace(level, \"x\", \"y\", \"job\", \"(\")",
        "label_join(level, \"all\", \"/\", \"job\", \"code\", \"none\")",
        "sort_by_label(level, \"code\")",
        "max_over_time(rate(requests_total[2m])[10m:31s])",
        "avg_over_time(sum by (job) (rate(requests_total[1m]))[6m:] offset 2m)",
        "sum_over_time(level[3m] @ end() offset 1m)",
        "level @ start()",
        "rate(requests_total[5m] @ end())",
        "sum(level @ 1700003000) by (job) + on(job) group_right level",
        "quantile_over_time(scalar(vector(0.4)), level[5m])",
        "topk(scalar(count(level)) - 4, level)",
        "topk(NaN, level)",
        "limit_ratio(-0.3, level)",
        "limit_ratio(1.2, level)",
        "quantile(1.5, level)",
        "count_values(\"code\", round(level, 50))",
        "{job=\"api\"} * 2",
        "rate({job=\"api\"}[5m])",
        "level[1m]",
        "level[1m:20s]",
        "level and on() vector(1)",
        "foo(level)",
        "sum(level",
        "level{",
        "rate(level)",
        "level +",
        "1 == 2",
        "sum by (job) (level) by (job)",
        "level[5m] offset 1m offset 2m",
        "{}",
        "topk(level)",
        "level and 1",
        "level on(job) requests_total",
        "label_join(level, \"a\")",
        "abs(level, 2)",
        "-\"a\"",
        "level[5m:0s]",
    ]
    .into_iter()
}

fn generated(random: &mut Random, depth: u32) -> String {
    if depth == 0 {
        return random.pick(&FLOATS[..6]).to_owned();
    }
    let inner = |random: &mut Random| generated(random, depth - 1);
    match random.next(8) {
        0 => {
            let op = random.pick(&["sum", "avg", "min", "max", "count", "stddev", "quantile"]);
            let by = random.pick(&[" by (job)", " without (code)", " by (job, code)"]);
            let inner = inner(random);
            aggregation(op, by, &inner)
        }
        1 => over_time(random.pick(&OVER_TIME[..18]), random.pick(&RANGES)),
        2 => {
            let (left, right) = (inner(random), inner(random));
            let op = random.pick(&["+", "-", "*", "/", "and", "or", "unless", ">", "<="]);
            format!("({left}) {op} ({right})")
        }
        3 => {
            let inner = inner(random);
            format!("{}({inner})", random.pick(&SAMPLES[..9]))
        }
        4 => {
            let inner = inner(random);
            format!("({inner}) {} {}", random.pick(&["+", "*", "> bool", "<", "/"]), random.next(90))
        }
        5 => {
            let inner = inner(random);
            format!("avg_over_time(({inner})[5m:{}s])", 10 + random.next(60))
        }
        6 => {
            let inner = inner(random);
            format!("-({inner})")
        }
        _ => inner(random),
    }
}
