//! Tasks of this workspace, one file for each command: `cargo xtask help`.

#![allow(
    unreachable_pub,
    reason = "in a binary the lint would only replace pub by pub(crate)"
)]
#![allow(clippy::needless_pass_by_value, reason = "a command consumes its arguments")]
#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "texts of a few lines, written once"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod cluster;
mod crds;
mod demo;
mod deploy;
mod docs;
mod generated;
mod images;
mod rbac;
mod test;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tasks of the Holdfast workspace"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the main job on a real cluster: back up a PostgreSQL cluster, restore it, compare.
    Demo(demo::Args),
    /// Run the tests: all tiers, or one of 1 (pure), 2 (real API server), 3 (real node).
    Test(test::Args),
    /// Start, stop or look at the local cluster.
    Cluster(cluster::Args),
    /// Install controllers into the cluster, all or the named ones.
    Deploy(deploy::Args),
    /// Build the container images and load them into the cluster.
    Images(images::Args),
    /// Generate deploy/crds from crates/api.
    Crds(generated::Args),
    /// Generate each controller's rbac.yaml from its table of verbs.
    Rbac(generated::Args),
    /// Generate docs/metrics.md from the metrics registry.
    Docs(generated::Args),
    /// Measure against the peers, side by side in one run.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with the whole chain of causes; a stack trace would bury it.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(&args),
        Command::Cluster(args) => cluster::run(args),
        Command::Deploy(args) => deploy::run(args),
        Command::Images(args) => images::run(args),
        Command::Crds(args) => crds::run(args.check),
        Command::Rbac(args) => rbac::run(args.check),
        Command::Docs(args) => docs::run(args.check),
        Command::Bench(args) => bench::run(args),
    }
}
