//! `volume-backup agent` moves the data of volumes to and from kopia repositories.

use std::process::ExitCode;

use clap::Parser;
use volume_backup::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
