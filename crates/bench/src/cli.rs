//! `trine bench …` as clap sees it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::encode::Format;
use crate::generate::{Corpus, DEFAULT_START_NS, Plan, write_files};

/// The subcommands of `trine bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Make a load and its right answers, as files
    Generate(GenerateArgs),
}

/// Which load.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Which lines the load is made of
    #[arg(long, value_enum, default_value = "replay")]
    pub corpus: Corpus,
    /// Folder or file of the lines; for `replay` and `unmutated` a folder of *_2k.log files or the
    /// archive of them, for `trainticket` an OTLP JSON file [default: ../shared/data]
    #[arg(long, value_name = "PATH")]
    pub corpus_path: Option<PathBuf>,
    /// Bytes of all bodies together: a number with kB, MB, GB or nothing behind it
    #[arg(long, default_value = "1GB", value_parser = parse_bytes)]
    pub raw_bytes: u64,
    /// Equal seeds give equal loads
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Time of the first record, Unix seconds
    #[arg(long, default_value_t = DEFAULT_START_NS / 1_000_000_000)]
    pub start: i64,
}

impl PlanArgs {
    /// The plan these arguments ask for.
    pub fn plan(&self) -> Plan {
        Plan {
            corpus: self.corpus,
            path: self.corpus_path.clone(),
            raw_bytes: self.raw_bytes,
            seed: self.seed,
            start_ns: self.start * 1_000_000_000,
        }
    }
}

/// Arguments of `trine bench generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// File to write; the format's ending is added when several formats are asked for
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How to write it; may be repeated, all files then hold the same records
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Vec<Format>,
}

/// `10GB` as bytes; decimal units.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => bail!("unit {unit:?} is unknown; write kB, MB or GB"),
    };
    let number: f64 =
        number.parse().map_err(|_| anyhow::anyhow!("{text:?} is no size; write one such as 10GB"))?;
    if number * factor < 1.0 {
        bail!("{text:?} is less than a byte; write a size such as 10GB");
    }
    Ok((number * factor) as u64)
}

/// Runs one subcommand.
pub async fn run(command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Generate(args) => tokio::task::spawn_blocking(move || generate(&args)).await?,
    }
}

fn generate(args: &GenerateArgs) -> Result<()> {
    let outputs: Vec<(PathBuf, Format)> = if let [format] = args.format[..] {
        vec![(args.out.clone(), format)]
    } else {
        let name = |f: Format| PathBuf::from(format!("{}.{}", args.out.display(), f.extension()));
        args.format.iter().map(|f| (name(*f), *f)).collect()
    };
    let truth = write_files(&args.plan.plan(), &outputs)?;
    println!("{} lines, {} bytes of bodies, {} streams", truth.lines, truth.raw_bytes, truth.streams);
    for (path, _) in outputs {
        println!("{}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1GB", 1_000_000_000), ("1.5 MB", 1_500_000), ("7", 7), ("20k", 20_000)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        assert!(parse_bytes("1GiB").is_err() && parse_bytes("").is_err() && parse_bytes("0").is_err());
    }
}
