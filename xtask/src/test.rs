//! `cargo xtask test [tier]`: the three tiers of tests.

use std::time::Instant;

use anyhow::{Context, Result};
use holdfast_testkit::parts::{self, Part};

use crate::{cargo, cluster, deploy, images};

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
    let filter: Vec<&str> = args.filter.iter().map(String::as_str).collect();
    // Always the whole workspace: for a part of it cargo would compile dependencies anew, with fewer features.
    let test = |arguments: &[&str]| cargo::run(&[&["test", "--workspace"], arguments, &filter].concat());
    for tier in 1..=3 {
        if args.tier.is_some_and(|only| only != tier) {
            continue;
        }
        let started = Instant::now();
        println!("=== tier {tier}");
        match tier {
            1 => test(&["--quiet", "--"]),
            2 => test(&["--test", "control_plane", "--test", "storage", "--"]),
            _ => {
                // Two programs of two processors' work each; the parts are built before anything is measured in seconds.
                parts::ensure(&[Part::Kopia, Part::Versitygw])?;
                test(&["--test", "judged", "--", "--test-threads=3"])?;
                cluster::up()?;
                images::build_and_load()?;
                deploy::all()?;
                // One scenario at a time would leave the node idle; more than four starve two cores.
                test(&["--test", "scenarios", "--", "--test-threads=4"])
            }
        }
        .with_context(|| format!("tier {tier} failed"))?;
        println!("=== tier {tier} took {} s", started.elapsed().as_secs());
    }
    Ok(())
}
