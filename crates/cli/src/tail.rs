//! `trine tail`.

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::{
    client::{Client, Output, PLAIN, ServerOptions, YELLOW, csv_field, show_line, show_time},
    server::Stop,
};

/// Follows until Ctrl-C. In a pipe the lines are plain.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// A LogQL log query; all lines without one
    #[arg(default_value = "{}")]
    query: String,
    /// How to print the lines (json and jsonl are the same here)
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let mut stop = Stop::listen()?;
    let request = client.get("/api/v1/tail").query(&[("query", &args.query)]);
    let mut chunks = client.send(request).await?.bytes_stream();
    // What is read by programs keeps every byte of the lines; for people colours go where they cannot be shown.
    let mut out: Box<dyn Write + Send> = match args.output {
        Output::Table => Box::new(anstream::stdout()),
        _ => Box::new(std::io::stdout()),
    };
    let mut pending = Vec::new();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            () = stop.asked() => return Ok(ExitCode::from(130)),
        };
        let Some(chunk) = chunk else {
            anstream::eprintln!("{YELLOW}the server ended the tail{PLAIN}");
            return Ok(ExitCode::SUCCESS);
        };
        pending.extend_from_slice(&chunk.context("the connection to the server broke")?);
        let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let mut text = Vec::new();
        for line in pending[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            show(&mut text, line, args.output)?;
        }
        pending.drain(..=end);
        out.write_all(&text)?;
        out.flush()?;
    }
}

fn show(out: &mut Vec<u8>, line: &[u8], output: Output) -> anyhow::Result<()> {
    let entry: Value = serde_json::from_slice(line).context("the server sent no JSON")?;
    if let Some(skipped) = entry["skipped_batches"].as_u64() {
        anstream::eprintln!(
            "{YELLOW}warning:{PLAIN} {skipped} batches were skipped, this reader is too slow"
        );
        return Ok(());
    }
    let time = entry["timestamp"].as_i64().unwrap_or(0);
    let text = entry["line"].as_str().unwrap_or("");
    match output {
        Output::Json | Output::Jsonl => {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        Output::Csv => {
            writeln!(
                out,
                "{},{},{}",
                show_time(time),
                csv_field(&entry["labels"].to_string()),
                csv_field(text)
            )?;
        }
        Output::Table => {
            let no_labels = serde_json::Map::new();
            show_line(out, time, entry["labels"].as_object().unwrap_or(&no_labels), text)?;
        }
    }
    Ok(())
}
