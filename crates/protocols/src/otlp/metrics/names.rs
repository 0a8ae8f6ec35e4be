//! Names of metrics, units and labels as Prometheus knows them (OpenTelemetry specification, "Prometheus and
//! OpenMetrics Compatibility", with the defaults of Prometheus 3's OTLP receiver: underscores for what is not
//! allowed, suffixes of unit and type).

use crate::intake::{Fault, bad};

/// What the name of a metric depends on besides its name and unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    /// A monotonic sum.
    Counter,
    /// A sum that may fall.
    UpDown,
    Histogram,
    Exponential,
    Summary,
}

impl Kind {
    /// Prometheus' name of the type.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Gauge | Self::UpDown => "gauge",
            Self::Counter => "counter",
            Self::Histogram | Self::Exponential => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// Units of UCUM and what Prometheus calls them.
const UNITS: [(&str, &str); 25] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// The same behind a `/`.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// One half of a unit in words; annotations in braces say nothing.
fn unit_words(unit: &str, known: &[(&str, &str)]) -> String {
    let unit = unit.trim();
    if unit.contains(['{', '}']) {
        return String::new();
    }
    let words = known.iter().find(|(name, _)| *name == unit).map_or(unit, |(_, words)| words);
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        if allowed(c) {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    out
}

/// The unit in words: what is counted, and per what (with `per_` before it). Empty where there is none.
fn unit_halves(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let main = if main.trim() == "1" { String::new() } else { unit_words(main, &UNITS) };
    let mut per = unit_words(per, &PER_UNITS);
    per.truncate(per.trim_end_matches('_').len());
    if !per.is_empty() {
        per.insert_str(0, "per_");
    }
    (main, per)
}

/// A unit as metadata tell it: `s` is `seconds`, `By/s` is `bytes_per_second`.
pub(super) fn unit_name(unit: &str) -> String {
    let (mut main, per) = unit_halves(unit);
    if !main.is_empty() && !per.is_empty() {
        main.truncate(main.trim_end_matches('_').len());
        main.push('_');
    }
    main.push_str(&per);
    main.truncate(main.trim_end_matches('_').len());
    main
}

/// A metric's name: its parts, then the unit and `total` or `ratio`, where they are not there yet.
pub(super) fn metric_name(name: &str, unit: &str, kind: Kind) -> Result<String, Fault> {
    let mut parts: Vec<&str> = name.split(|c| !allowed(c)).filter(|part| !part.is_empty()).collect();
    let (mut main, per) = unit_halves(unit);
    if parts.contains(&&*main) {
        main.clear();
    }
    let per = if parts.contains(&&*per) { "" } else { &*per };
    if !per.is_empty() {
        main.truncate(main.trim_end_matches('_').len());
    }
    parts.extend([&*main, per].into_iter().filter(|part| !part.is_empty()));
    let last = match kind {
        Kind::Counter => "total",
        Kind::Gauge if unit == "1" => "ratio",
        _ => "",
    };
    if !last.is_empty() {
        parts.retain(|part| *part != last);
        parts.push(last);
    }
    let mut out = parts.join("_");
    if !name.contains(allowed) || out.is_empty() {
        return Err(bad("the metric's name has no letter, digit or colon; name it"));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    Ok(out)
}

/// A label's name: `http.method` is `http_method`, `2xx` is `key_2xx`, `_x` is `key_x`.
pub(super) fn label_name(key: &str) -> Result<String, Fault> {
    let mut name = String::with_capacity(key.len() + 4);
    if key.starts_with(|c: char| c.is_ascii_digit()) {
        name.push_str("key_");
    }
    name.extend(key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    if name.starts_with('_') && !name.starts_with("__") {
        name.insert_str(0, "key");
    }
    if name.bytes().all(|byte| byte == b'_') {
        return Err(bad("an attribute's key has no letter or digit; name it"));
    }
    Ok(name)
}

/// A number in a label, as Go writes it: shortest, without an exponent.
pub(super) fn number(value: f64) -> String {
    if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as Prometheus 3 makes them.
    #[test]
    fn names_of_metrics() {
        for (name, unit, kind, want) in [
            ("http.server.request.duration", "s", Kind::Histogram, "http_server_request_duration_seconds"),
            ("system.network.io", "By", Kind::Counter, "system_network_io_bytes_total"),
            ("system.cpu.utilization", "1", Kind::Gauge, "system_cpu_utilization_ratio"),
            ("hw.gpu.memory.utilization_ratio", "1", Kind::Gauge, "hw_gpu_memory_utilization_ratio"),
            ("requests_total", "1", Kind::Counter, "requests_total"),
            ("total.requests", "{request}", Kind::Counter, "requests_total"),
            ("process.threads", "{thread}", Kind::UpDown, "process_threads"),
            ("disk.speed", "By/s", Kind::Gauge, "disk_speed_bytes_per_second"),
            ("memory_bytes", "By", Kind::Gauge, "memory_bytes"),
            ("active..conns--now_", "", Kind::Gauge, "active_conns_now"),
            ("job:rate", "", Kind::Gauge, "job:rate"),
            ("2xx", "", Kind::Counter, "_2xx_total"),
            ("temperature", "Cel", Kind::Gauge, "temperature_celsius"),
            ("broken.packets", "{packet}/s", Kind::Gauge, "broken_packets_per_second"),
            ("speed", "m/s", Kind::Gauge, "speed_meters_per_second"),
            ("x", "foo__bar/ fortnight", Kind::Summary, "x_foo_bar_per_fortnight"),
            ("x", "%", Kind::Gauge, "x_percent"),
            ("\u{e9}t\u{e9}", "ms", Kind::UpDown, "t_milliseconds"),
        ] {
            assert_eq!(metric_name(name, unit, kind).unwrap(), want, "{name} in {unit}");
        }
        assert!(metric_name("", "s", Kind::Gauge).is_err());
        assert!(metric_name("..", "", Kind::Counter).is_err());
    }

    #[test]
    fn names_of_labels_units_and_numbers() {
        for (key, want) in [
            ("http.method", "http_method"),
            ("a--b", "a__b"),
            ("2xx", "key_2xx"),
            ("_x", "key_x"),
            ("__x", "__x"),
            ("\u{e9}x", "key_x"),
        ] {
            assert_eq!(label_name(key).unwrap(), want);
        }
        assert!(label_name("._").is_err() && label_name("").is_err());
        for (unit, want) in
            [("s", "seconds"), ("By/s", "bytes_per_second"), ("1", ""), ("{x}/m", "per_minute")]
        {
            assert_eq!(unit_name(unit), want);
        }
        for (value, want) in [(1.0, "1"), (0.005, "0.005"), (1e21, "1000000000000000000000"), (-2.5, "-2.5")]
        {
            assert_eq!(number(value), want);
        }
        assert_eq!((number(f64::INFINITY), number(f64::NEG_INFINITY)), ("+Inf".into(), "-Inf".into()));
    }
}
