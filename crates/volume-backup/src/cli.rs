//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::agent;

/// Backup and restore of volumes.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Move the data: take, restore, verify or list snapshots in a kopia repository. Needs no API server.
    Agent(Box<agent::Args>),
}

impl Cli {
    /// Does what the arguments say.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Agent(args) => agent::run(*args),
        }
    }
}
