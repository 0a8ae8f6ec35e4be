//! `trine trace`.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use trine_model::TenantId;
use trine_protocols::{Limits, otlp::decode_spans_protobuf};
use trine_schema::StreamRegistry;
use trine_traces::{
    Trace, assemble, parse_trace_id,
    waterfall::{self, waterfall},
};

use crate::client::{Client, PLAIN, ServerOptions, YELLOW, print_stats, warn_partial};

/// Shows a trace as a waterfall: its spans as a tree, each with a bar on the common time axis.
/// Signs: ✗ failed, ? the parent is not there, ×2 stored twice, clock? starts before its parent.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag of the command line
pub struct TraceArgs {
    /// Id of the trace in hex digits; leading zeros may be missing
    id: String,
    /// Print the trace as OTLP JSON
    #[arg(long)]
    json: bool,
    /// Show events and links below their spans
    #[arg(long, short, conflicts_with = "json")]
    events: bool,
    /// Show attributes below their spans
    #[arg(long, short, conflicts_with = "json")]
    attributes: bool,
    /// Show every span: fold no equal siblings, leave out no rows
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Columns of the picture [default: those of the terminal, else 120]
    #[arg(long, value_name = "COLUMNS", conflicts_with = "json")]
    width: Option<usize>,
    /// Tell on standard error what the query touched
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// Width where there is no terminal.
const WIDTH: usize = 120;

pub async fn run(args: TraceArgs) -> anyhow::Result<ExitCode> {
    let id = parse_trace_id(&args.id)?;
    let client = Client::new(&args.server)?;
    let accept = if args.json { "application/json" } else { "application/protobuf" };
    let response = client.send(client.get(&format!("/api/v1/traces/{id}")).header("accept", accept)).await?;
    warn_partial(&response);
    print_stats(&response, args.stats);
    let body = response.bytes().await.context("the answer broke off")?;
    if args.json {
        let mut out = std::io::stdout().lock();
        out.write_all(&body)?;
        out.write_all(b"\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let defaults = waterfall::Options::default();
    let options = waterfall::Options {
        width: args.width.unwrap_or_else(terminal_width),
        // Taken out again where standard output is no terminal.
        color: true,
        events: args.events,
        attributes: args.attributes,
        fold: !args.all,
        max_rows: if args.all { usize::MAX } else { defaults.max_rows },
    };
    let text = waterfall(&decode(&body)?, &options);
    anstream::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The trace that the server wrote as OTLP.
fn decode(body: &[u8]) -> anyhow::Result<Trace> {
    // What is stored went through the server's limits once; the form has grown since.
    let limits = Limits {
        max_body_bytes: usize::MAX,
        max_records: usize::MAX,
        max_record_bytes: Limits::MAX_RECORD_BYTES,
        max_attributes_per_record: usize::MAX,
        max_events_per_span: usize::MAX,
        max_labels_per_stream: usize::MAX,
        max_label_name_bytes: usize::MAX,
        max_label_value_bytes: usize::MAX,
        max_scope_bytes: usize::MAX,
        max_expanded_bytes: Limits::MAX_EXPANDED_BYTES,
        ..Limits::default()
    };
    let registry = StreamRegistry::new();
    let decoded = decode_spans_protobuf(body, &TenantId::default(), &registry, 0, &limits)
        .context("the server's answer is no trace")?;
    if decoded.rejected > 0 {
        let (rejected, why) = (decoded.rejected, decoded.error_message());
        anstream::eprintln!("{YELLOW}warning:{PLAIN} {rejected} spans cannot be shown: {why}");
    }
    let Some(batch) = decoded.batch else { bail!("the server's answer holds no span that can be shown") };
    let traces = assemble(&[batch.records], &registry)?;
    traces.into_iter().next().context("the server's answer holds no span")
}

fn terminal_width() -> usize {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return WIDTH;
    }
    rustix::termios::tcgetwinsize(&stdout).map_or(WIDTH, |size| usize::from(size.ws_col))
}
