//! `pg-backup controller` reconciles PostgresBackups; `pg-backup agent` moves the data.

use std::process::ExitCode;

use clap::Parser;
use pg_backup::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
