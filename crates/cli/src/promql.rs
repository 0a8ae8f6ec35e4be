//! `trine promql`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;

use crate::{
    client::{Client, Output, RangeOptions, ServerOptions, read_json},
    logql,
    server::parse_duration,
};

/// Examples:
///   trine promql 'sum by (job) (rate(http_requests_total[5m]))'
///   trine promql 'up' --from -1h --step 1m
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct PromqlArgs {
    /// The expression
    query: String,
    #[command(flatten)]
    range: RangeOptions,
    /// Evaluate at these distances between --from (by default an hour before --to) and --to, e.g. 1m;
    /// without it, once at --to
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// How to print the answer
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    /// Tell on standard error what the query touched
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Length of a range whose begin is not given.
const DEFAULT_RANGE_S: f64 = 3600.0;

pub async fn run(args: PromqlArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let now = Timestamp::now();
    let to = args.range.to.as_deref().map_or(Ok(seconds(now)), |to| instant(to, now))?;
    let mut parameters = vec![("query", args.query.clone())];
    let path = match (&args.step, &args.range.from) {
        (None, Some(_)) => bail!("--from asks for a range; give --step too, e.g. --step 1m"),
        (None, None) => {
            parameters.push(("time", to.to_string()));
            "/prometheus/api/v1/query"
        }
        (Some(step), from) => {
            let from = from.as_deref().map_or(Ok(to - DEFAULT_RANGE_S), |from| instant(from, now))?;
            parameters.extend([("start", from.to_string()), ("end", to.to_string()), ("step", step.clone())]);
            "/prometheus/api/v1/query_range"
        }
    };
    let response = client.send(client.get(path).query(&parameters)).await?;
    let Some(answer) = read_json(response, args.output, args.stats).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    for remark in ["warnings", "infos"].iter().filter_map(|name| answer[name].as_array()).flatten() {
        anstream::eprintln!("{}", remark.as_str().unwrap_or_default());
    }
    logql::print(&answer["data"], args.output, logql::DirectionArg::Forward)?;
    Ok(ExitCode::SUCCESS)
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}

/// Seconds since 1970 of an instant as [`RangeOptions`] spells it.
fn instant(text: &str, now: Timestamp) -> anyhow::Result<f64> {
    if let Some(back) = text.strip_prefix('-') {
        let back = parse_duration(back).map_err(anyhow::Error::msg)?;
        return Ok(seconds(now) - back.as_secs_f64());
    }
    if let Ok(number) = text.parse::<f64>() {
        // Beyond the year 5000 in seconds it is nanoseconds.
        return Ok(if number.abs() > 1e11 { number / 1e9 } else { number });
    }
    let time: Timestamp =
        text.parse().with_context(|| format!("{text:?} is no instant; write RFC 3339, seconds or -15m"))?;
    Ok(seconds(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_every_spelling() {
        let now = Timestamp::from_second(1_000).unwrap();
        let read = |text| instant(text, now).unwrap();
        assert_eq!((read("-15m"), read("12.5")), (100.0, 12.5));
        assert_eq!((read("1700000000000000000"), read("1970-01-01T00:01:00Z")), (1.7e9, 60.0));
        assert!(instant("soon", now).unwrap_err().to_string().contains("\"soon\""));
    }
}
