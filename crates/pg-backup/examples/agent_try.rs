//! Temporary.
use clap::Parser;
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: pg_backup::agent::Args,
}
fn main() -> std::process::ExitCode {
    pg_backup::agent::run(Cli::parse().args)
}
