//! The program `trine`: the only place where the parts are wired together.

mod allocator;
mod client;
mod config;
mod demo;
mod load;
mod logql;
mod promql;
mod server;
mod sql;
mod tail;
mod trace;
mod verify;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Keeps every log line, span and sample, shows it within milliseconds, answers questions over all of them.
///
/// Start with `trine demo`. Client commands talk to a running server (`--server`, by default
/// http://127.0.0.1:7070).
///
/// Exit codes: 0 done, 1 failed or found problems, 2 wrong usage, 130 stopped by Ctrl-C.
#[derive(Parser)]
#[command(name = "trine", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server: takes logs, traces and metrics in, stores them, answers queries
    Server(server::ServerCommand),
    /// Run a server in a fresh directory with a live sample, and show what to ask
    Demo(demo::DemoArgs),
    /// Send files of OTLP JSON lines (plain, gzip, zstd) to a server
    Load(load::LoadArgs),
    /// Ask with SQL
    Sql(sql::SqlArgs),
    /// Ask with LogQL
    Logql(logql::LogqlArgs),
    /// Show a trace by its id
    Trace(trace::TraceArgs),
    /// Ask with PromQL
    Promql(promql::PromqlArgs),
    /// Follow new lines as they are stored
    Tail(tail::TailArgs),
    /// Check every byte that is stored
    Verify(verify::VerifyArgs),
    /// Make loads and measure servers with them
    Bench {
        #[command(subcommand)]
        command: trine_bench::cli::BenchCommand,
    },
    /// Print completions for a shell; `source <(trine completions bash)`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    allocator::tune();
    let matches = match config::matches(Cli::command()) {
        Ok(matches) => matches,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "trine", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Server(server) if server.print_config => {
            let settings = matches.subcommand_matches("server").expect("BUG: just matched");
            print(&config::print(settings))
        }
        Command::Server(server) if server.config_schema => print(&format!("{:#}\n", config::schema())),
        command => match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => {
                let result = runtime.block_on(run(command));
                // A blocked read of standard input must not hold up the end.
                runtime.shutdown_background();
                result
            }
            Err(error) => Err(error.into()),
        },
    };
    match result {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn complain(error: &anyhow::Error) {
    anstream::eprintln!("{}error:{} {error:#}", client::RED, client::PLAIN);
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Server(server) => server::run(server.settings).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Logql(args) => logql::run(args).await,
        Command::Trace(args) => trace::run(args).await,
        Command::Promql(args) => promql::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Bench { command } => trine_bench::cli::run(command).await.map(|()| ExitCode::SUCCESS),
        Command::Completions { .. } => unreachable!("BUG: handled before the runtime starts"),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
