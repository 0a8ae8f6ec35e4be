//! Measures the engine alone on series in memory: `cargo run --release --example rate_bench`
//!
//! 10,000 counters over 6 h scraped every 15 s, 1,800 buckets of a classic histogram; medians of nine runs on all
//! threads, and the CPU time of one thread alone, which a busy machine does not change much.

use std::{sync::Arc, time::Instant};

use trine_promql::{Engine, Labels, MemorySource};

const STEP: i64 = 60_000;
const SCRAPE: i64 = 15_000;
const END: i64 = 6 * 3_600_000;

fn source() -> MemorySource {
    let mut source = MemorySource::default();
    // Series of one target share their times.
    let times: Arc<Vec<i64>> =
        Arc::new((0..=(END + 300_000) / SCRAPE).map(|at| at * SCRAPE - 300_000).collect());
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 40) as f64 / 16_777_216.0
    };
    for series in 0..10_000 {
        let (instance, pod) = (format!("i{}", series % 100), format!("p{series}"));
        let labels = Labels::new([("__name__", "x_total"), ("instance", &instance), ("pod", &pod)]);
        let samples = source.series(labels);
        samples.timestamps = times.clone();
        let mut value = 0.0;
        samples.values.extend(times.iter().map(|_| {
            value = if next() < 0.0005 { 0.0 } else { value + (next() * 10.0).floor() };
            value
        }));
    }
    for series in 0..150 {
        let mut below = vec![0.0; times.len()];
        for bucket in 0..12 {
            let (instance, le) = (
                format!("i{series}"),
                if bucket == 11 { "+Inf".to_owned() } else { f64::from(1 << bucket).to_string() },
            );
            let labels = Labels::new([("__name__", "h_bucket"), ("instance", &instance), ("le", &le)]);
            let samples = source.series(labels);
            samples.timestamps = times.clone();
            let mut own = 0.0;
            for below in &mut below {
                own += (next() * 4.0).floor();
                *below += own;
            }
            samples.values.clone_from(&below);
        }
    }
    source
}

fn main() {
    let source = source();
    let engine = Engine { max_samples: usize::MAX, ..Engine::default() };
    let one = Engine { threads: 1, ..engine.clone() };
    println!("{} threads", engine.threads);
    for (query, instant) in [
        ("sum(rate(x_total[5m]))", false),
        ("sum by (instance) (rate(x_total[5m]))", false),
        ("rate(x_total[5m])", false),
        ("x_total", false),
        ("avg(rate(x_total[5m]))", false),
        ("histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))", false),
        ("histogram_quantile(0.9, rate(h_bucket[5m]))", false),
        ("max_over_time(x_total[5m])", false),
        ("sum(x_total * on(instance, pod) x_total)", false),
        ("topk(10, x_total)", true),
        ("topk(10, rate(x_total[5m]))", true),
    ] {
        let run = |engine: &Engine| {
            let (start, cpu) = (Instant::now(), cpu_millis());
            let answer = if instant {
                engine.instant(&source, query, END)
            } else {
                engine.range(&source, query, 0, END, STEP)
            };
            assert!(answer.is_ok(), "{query}: {answer:?}");
            (start.elapsed().as_secs_f64() * 1000.0, cpu_millis() - cpu)
        };
        let mut wall: Vec<f64> = (0..9).map(|_| run(&engine).0).collect();
        let mut cpu: Vec<f64> = (0..5).map(|_| run(&one).1).collect();
        wall.sort_by(f64::total_cmp);
        cpu.sort_by(f64::total_cmp);
        let kind = if instant { " (instant)" } else { "" };
        println!("{:8.1} ms {:8.1} ms CPU  {query}{kind}", wall[4], cpu[2]);
    }
}

/// CPU time of this thread so far; 0 where the system does not tell.
fn cpu_millis() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}
