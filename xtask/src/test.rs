//! `cargo xtask test [tier]`: the three tiers of tests.

use std::time::Instant;

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::{cluster, deploy, images, workspace};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// 1 = pure, 2 = on a real API server, 3 = on a real node; all of them without this argument.
    #[arg(value_parser = clap::value_parser!(u8).range(1..=3))]
    tier: Option<u8>,
    /// Run only the tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
}

/// Runs the tests, each tier after the one below it.
pub fn run(args: &Args) -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(workspace::root());
    let filter: &[String] = args.filter.as_slice();
    for tier in 1..=3 {
        if args.tier.is_some_and(|only| only != tier) {
            continue;
        }
        let started = Instant::now();
        println!("=== tier {tier}");
        match tier {
            1 => cmd!(shell, "cargo test --workspace --quiet -- {filter...}").run(),
            2 => cmd!(
                shell,
                "cargo test --workspace --test control_plane -- {filter...}"
            )
            .run(),
            _ => {
                cluster::up()?;
                images::build_and_load()?;
                deploy::all()?;
                // One scenario at a time would leave the node idle; more than four starve two cores.
                cmd!(
                    shell,
                    "cargo test --package holdfast-e2e --test scenarios -- --test-threads=4 {filter...}"
                )
                .run()
            }
        }
        .with_context(|| format!("tier {tier} failed"))?;
        println!("=== tier {tier} took {} s", started.elapsed().as_secs());
    }
    Ok(())
}
