//! Shows traces of a file of OTLP JSON lines (one export request each): `waterfall FILE [TRACE_ID] [WIDTH]`.
//! Without an id (or with `-`): the traces with the most spans.

use std::io::BufRead;

use trine_model::TenantId;
use trine_protocols::{Limits, otlp};
use trine_schema::StreamRegistry;
use trine_traces::{assemble, parse_trace_id, waterfall};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: waterfall FILE [TRACE_ID] [WIDTH]")?;
    let wanted = arguments.next().filter(|id| id != "-").map(|id| parse_trace_id(&id)).transpose()?;
    let width = arguments.next().map_or(Ok(120), |width| width.parse())?;
    let registry = StreamRegistry::new();
    let mut batches = Vec::new();
    for line in std::io::BufReader::new(std::fs::File::open(file)?).lines() {
        let decoded = otlp::decode_spans_json(
            line?.as_bytes(),
            &TenantId::default(),
            &registry,
            0,
            &Limits::default(),
        )?;
        batches.extend(decoded.batch.map(|batch| batch.records));
    }
    let mut traces = assemble(&batches, &registry)?;
    traces.sort_by_key(|trace| std::cmp::Reverse(trace.spans().len()));
    let shown = traces.iter().filter(|trace| wanted.is_none_or(|id| trace.id == id));
    let options = waterfall::Options { width, color: true, ..Default::default() };
    for trace in shown.take(if wanted.is_some() { 1 } else { 5 }) {
        println!("{}", waterfall::waterfall(trace, &options));
    }
    Ok(())
}
