//! `trine sql`.

use std::{
    io::{IsTerminal, Read, Write},
    process::ExitCode,
};

use anyhow::Context;
use arrow::{
    array::RecordBatch,
    util::{display::FormatOptions, pretty::pretty_format_batches_with_options},
};
use arrow_ipc::reader::StreamReader;
use clap::Args;
use futures::StreamExt;

use crate::client::{Client, DIM, Output, PLAIN, RangeOptions, ServerOptions, print_stats, warn_partial};

/// Table `logs` has the columns timestamp, service, level, body, trace_id, span_id, labels,
/// attributes and more (`SELECT * FROM logs LIMIT 1`); any label or attribute is a column too:
/// SELECT "k8s.pod.name", count(*) FROM logs WHERE level = 'ERROR' GROUP BY 1
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// The statement; `-` reads it from standard input
    query: String,
    #[command(flatten)]
    range: RangeOptions,
    /// How to print the rows
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    /// Tell on standard error what the query touched
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Rows that a table shows at once; its columns must fit what comes.
const TABLE_ROWS: usize = 10_000;

pub async fn run(args: SqlArgs) -> anyhow::Result<ExitCode> {
    let mut query = args.query;
    if query == "-" {
        query.clear();
        std::io::stdin().read_to_string(&mut query).context("cannot read the statement")?;
    }
    let client = Client::new(&args.server)?;
    let format = match args.output {
        Output::Table => "arrow",
        Output::Json => "json",
        Output::Jsonl => "jsonl",
        Output::Csv => "csv",
    };
    let body =
        serde_json::json!({"query": query, "format": format, "from": args.range.from, "to": args.range.to});
    let response = client.send(client.post("/api/v1/sql").json(&body)).await?;
    warn_partial(&response);
    print_stats(&response, args.stats);
    if args.output == Output::Table {
        let bytes = response.bytes().await.map_err(|error| client.unreachable(&error))?;
        print_table(&bytes)?;
    } else {
        let mut chunks = response.bytes_stream();
        let mut out = std::io::stdout().lock();
        while let Some(chunk) = chunks.next().await {
            out.write_all(&chunk.context("the answer broke off; the server's log says why")?)?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows as a table, and how many there are.
pub fn print_table(arrow_stream: &[u8]) -> anyhow::Result<()> {
    let reader =
        StreamReader::try_new(arrow_stream, None).context("the server's answer is no Arrow stream")?;
    // Without a batch there would be no column names.
    let none = RecordBatch::new_empty(reader.schema());
    let mut batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().context("the answer broke off")?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    batches.push(none);
    let mut left = TABLE_ROWS;
    let shown: Vec<RecordBatch> = batches
        .iter()
        .map(|batch| {
            let part = batch.slice(0, batch.num_rows().min(left));
            left -= part.num_rows();
            part
        })
        .collect();
    let options =
        FormatOptions::default().with_null("").with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", pretty_format_batches_with_options(&shown, &options)?)?;
    if rows > TABLE_ROWS {
        writeln!(out, "{DIM}first {TABLE_ROWS} of {rows} rows; --output csv or jsonl prints all{PLAIN}")?;
    } else if rows == 0 || std::io::stdout().is_terminal() {
        writeln!(out, "{DIM}{rows} {}{PLAIN}", if rows == 1 { "row" } else { "rows" })?;
    }
    Ok(())
}
