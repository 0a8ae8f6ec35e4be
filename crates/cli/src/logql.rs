//! `trine logql`.

use std::{io::Write, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::client::{
    BOLD, Client, Output, PLAIN, RangeOptions, ServerOptions, csv_field, read_json, show_line, show_time,
};

/// Order of lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DirectionArg {
    /// Newest first
    Backward,
    /// Oldest first
    Forward,
}

/// Examples:
///   trine logql '{service_name="cart"} |= "timeout"' --from -15m
///   trine logql 'sum by (level) (count_over_time({}[5m]))' --from -1h --step 5m
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct LogqlArgs {
    /// A log query or a metric query
    query: String,
    #[command(flatten)]
    range: RangeOptions,
    /// Evaluate a metric query at these distances, e.g. 1m; without it, once at --to
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// Most lines of a log query
    #[arg(long, short, default_value_t = 100)]
    limit: usize,
    /// Which end of the range comes first
    #[arg(long, value_enum, default_value = "backward")]
    direction: DirectionArg,
    /// How to print the answer
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    /// Tell on standard error what the query touched
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(args: LogqlArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let direction = match args.direction {
        DirectionArg::Backward => "backward",
        DirectionArg::Forward => "forward",
    };
    // `query_range` refuses nothing; an instant is asked for only where it makes a difference.
    let instant = args.step.is_none() && !args.query.trim_start().starts_with('{');
    let mut parameters = vec![
        ("query", args.query.clone()),
        ("limit", args.limit.to_string()),
        ("direction", direction.into()),
    ];
    let response = if instant {
        parameters.extend(args.range.to.clone().map(|to| ("time", to)));
        client.send(client.get("/loki/api/v1/query").query(&parameters)).await?
    } else {
        parameters.extend(args.range.from.clone().map(|from| ("start", from)));
        parameters.extend(args.range.to.clone().map(|to| ("end", to)));
        parameters.extend(args.step.clone().map(|step| ("step", step)));
        client.send(client.get("/loki/api/v1/query_range").query(&parameters)).await?
    };
    let Some(answer) = read_json(response, args.output, args.stats).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    print(&answer["data"], args.output, args.direction)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints `data` of Loki's answer.
pub fn print(data: &Value, output: Output, direction: DirectionArg) -> anyhow::Result<()> {
    let empty = Vec::new();
    let results = data["result"].as_array().unwrap_or(&empty);
    // What is read by programs keeps every byte of the lines; for people colours go where they cannot be shown.
    let mut out: Box<dyn Write> = match output {
        Output::Table => Box::new(anstream::stdout().lock()),
        _ => Box::new(std::io::stdout().lock()),
    };
    match data["resultType"].as_str() {
        Some("streams") => print_lines(&mut out, results, output, direction)?,
        Some("matrix" | "vector") => print_series(&mut out, results, output)?,
        _ => writeln!(out, "{}", data["result"][1].as_str().unwrap_or(""))?,
    }
    Ok(())
}

fn print_lines(
    out: &mut impl Write,
    results: &[Value],
    output: Output,
    direction: DirectionArg,
) -> anyhow::Result<()> {
    let no_labels = Map::new();
    let mut lines: Vec<(i64, &Map<String, Value>, &str)> = Vec::new();
    for stream in results {
        let labels = stream["stream"].as_object().unwrap_or(&no_labels);
        for entry in stream["values"].as_array().into_iter().flatten() {
            let time = entry[0].as_str().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            lines.push((time, labels, entry[1].as_str().unwrap_or("")));
        }
    }
    // Lines of all streams as one: people read the newest last when they asked for the oldest first.
    lines.sort_by_key(|line| line.0);
    if matches!(direction, DirectionArg::Backward) {
        lines.reverse();
    }
    if output == Output::Csv {
        writeln!(out, "timestamp,labels,line")?;
    }
    for (time, labels, line) in lines {
        match output {
            Output::Csv => {
                let labels = csv_field(&Value::from(labels.clone()).to_string());
                writeln!(out, "{},{labels},{}", show_time(time), csv_field(line))?;
            }
            Output::Jsonl => writeln!(out, "{}", json!({"timestamp": time, "labels": labels, "line": line}))?,
            _ => show_line(out, time, labels, line)?,
        }
    }
    Ok(())
}

fn print_series(out: &mut impl Write, results: &[Value], output: Output) -> anyhow::Result<()> {
    if output == Output::Csv {
        writeln!(out, "timestamp,labels,value")?;
    }
    for series in results {
        let labels = &series["metric"];
        if output == Output::Table {
            writeln!(out, "{BOLD}{}{PLAIN}", show_labels(labels))?;
        }
        // Of a native histogram (PromQL) the value is an object.
        let many = ["values", "histograms"].iter().filter_map(|name| series[name].as_array()).flatten();
        let one = ["value", "histogram"].iter().filter_map(|name| series.get(name));
        for point in many.chain(one) {
            let seconds = point[0].as_f64().unwrap_or(0.0);
            let value = &point[1];
            let time = show_time(((seconds * 1e3).round() as i64).saturating_mul(1_000_000));
            match output {
                Output::Csv => {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    writeln!(out, "{time},{},{}", csv_field(&labels.to_string()), csv_field(&value))?;
                }
                Output::Jsonl => {
                    writeln!(out, "{}", json!({"timestamp": seconds, "labels": labels, "value": value}))?;
                }
                _ => writeln!(out, "  {}  {}", &time[..time.len().min(23)], show_value(value))?,
            }
        }
    }
    Ok(())
}

/// A number, or a native histogram as Prometheus' own tools write it: `{count:3, sum:4.5, (1,2]:3}`.
fn show_value(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some(histogram) = value.as_object() else { return text(value) };
    let mut shown = format!("{{count:{}, sum:{}", text(&value["count"]), text(&value["sum"]));
    for bucket in histogram.get("buckets").and_then(Value::as_array).into_iter().flatten() {
        // Which ends belong to it.
        let (open, close) = match bucket[0].as_u64() {
            Some(0) => ('(', ']'),
            Some(1) => ('[', ')'),
            Some(2) => ('(', ')'),
            _ => ('[', ']'),
        };
        let [from, to, count] = [1, 2, 3].map(|place| text(&bucket[place]));
        shown = [shown, format!(", {open}{from},{to}{close}:{count}")].concat();
    }
    shown + "}"
}

fn show_labels(labels: &Value) -> String {
    let pairs: Vec<_> = labels.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(output: Output) -> String {
        let buckets = json!([[3, "-1e-09", "1e-09", "4"], [0, "1", "2", "1"], [1, "-2", "-1", "2"]]);
        let histogram = json!({"count": "7", "sum": "4.5", "buckets": buckets});
        let series = json!({"metric": {"__name__": "h"}, "histogram": [1.5, histogram]});
        let mut out = anstream::StripStream::new(Vec::new());
        print_series(&mut out, &[series], output).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn native_histograms_are_one_field_and_readable() {
        let table = printed(Output::Table);
        let shown = "  1970-01-01 00:00:01.500  {count:7, sum:4.5, [-1e-09,1e-09]:4, (1,2]:1, [-2,-1):2}";
        assert_eq!(table.lines().nth(1), Some(shown));
        let csv = printed(Output::Csv);
        let row = csv.lines().nth(1).unwrap();
        let value = row.strip_prefix("1970-01-01 00:00:01.500000000,\"{\"\"__name__\"\":\"\"h\"\"}\",");
        let value = value.unwrap_or_else(|| panic!("{row}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        let value: Value = serde_json::from_str(&value.replace("\"\"", "\"")).unwrap();
        assert_eq!(value["count"], "7");
        let line: Value = serde_json::from_str(&printed(Output::Jsonl)).unwrap();
        assert_eq!(line["value"]["buckets"][1][2], "2");
    }
}
