//! The command line: one binary, the controller and its agent.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use holdfast_runtime::{About, Runtime, RuntimeArgs, block_on};

use crate::agent;
use crate::config::Config;
use crate::controller::{self, NAME};
use crate::metrics::Metrics;

/// Backups of PostgreSQL clusters as PostgresBackup objects.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile PostgresBackups.
    Controller(Box<ControllerArgs>),
    /// Move the data: take, restore, verify, list or delete a backup. Needs no API server.
    Agent(Box<agent::Args>),
}

#[derive(Args, Debug)]
struct ControllerArgs {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    config: Config,
}

impl Cli {
    /// Does what the arguments say.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Agent(args) => agent::run(*args),
            Command::Controller(args) => match controller(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("pg-backup: {error:#}");
                    ExitCode::FAILURE
                }
            },
        }
    }
}

fn controller(args: &ControllerArgs) -> anyhow::Result<()> {
    block_on(async {
        let about = About {
            name: NAME,
            version: env!("CARGO_PKG_VERSION"),
        };
        let runtime = Runtime::start(about, &args.runtime).await?;
        let metrics = Arc::new(Metrics::register(runtime.metrics())?);
        let config = &args.config;
        Ok(runtime
            .run(|term| controller::run(term, config.clone(), metrics.clone()))
            .await?)
    })
    .context("cannot start threads")?
}
