//! `trine verify`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::Value;

use crate::client::{Client, GREEN, Output, PLAIN, RED, ServerOptions, YELLOW};

/// With --data-dir the directory is read directly (no server may have it open) and nothing is
/// changed; otherwise the running server checks itself and sets damaged files aside.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Data directory to check offline
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `json` for scripts
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let report = match args.data_dir {
        Some(dir) => {
            let report = tokio::task::spawn_blocking(move || trine_store::verify_directory(&dir)).await??;
            trine_server::verify_json(&report)
        }
        None => {
            let client = Client::new(&args.server)?;
            client.send(client.post("/api/v1/admin/verify")).await?.json().await?
        }
    };
    let ok = report["ok"].as_bool().unwrap_or(false);
    if args.output == Output::Table {
        print(&report, ok);
    } else {
        println!("{report}");
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Value, ok: bool) {
    let list = |name: &str| -> Vec<String> {
        report[name].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    for note in list("notes") {
        anstream::println!("{YELLOW}note:{PLAIN} {note}");
    }
    for problem in list("problems") {
        anstream::println!("{RED}damaged:{PLAIN} {problem}");
    }
    let verdict = if ok { format!("{GREEN}all is well{PLAIN}") } else { format!("{RED}damage found{PLAIN}") };
    anstream::println!(
        "{verdict}: {} segments, {} rows, {} bytes read, {} records of the log",
        report["segments"],
        report["rows"],
        report["bytes"],
        report["wal_records"]
    );
}
