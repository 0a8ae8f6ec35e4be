//! `trine bench` without the rest of Trine: builds in a minute.

use clap::Parser;
use trine_bench::cli::{BenchCommand, run};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: BenchCommand,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Cli::parse().command).await
}
