//! `cargo xtask cluster status`.

use std::process::Command;

use anyhow::{Result, bail};
use holdfast_testkit::{environment, local, parts::Part, process::Daemon};

use super::{cgroups, given, host, node, state};

/// Prints what runs. Fails when the cluster is not up.
pub(crate) fn print() -> Result<()> {
    if let Some(kubeconfig) = given::kubeconfig()? {
        println!(
            "{} names the cluster of {}",
            environment::KUBECONFIG,
            kubeconfig.display()
        );
        let nodes = node::output(
            Command::new(given::kubectl()?)
                .arg("--kubeconfig")
                .arg(kubeconfig)
                .args(["get", "nodes"]),
            None,
        )?;
        print!("{nodes}");
        return Ok(());
    }
    let root = environment::workspace_root();
    let Some(layout) = state::load(&local::checkout_id(&root)) else {
        bail!("no cluster of this checkout runs: run `cargo xtask cluster up`");
    };
    // The pid files are root's, for they hold what the parts are started with.
    host::require_root()?;
    let mut missing = Vec::new();
    for part in Part::ALL {
        // These are started by others, when they are needed.
        if matches!(
            part,
            Part::Kubectl | Part::Ctr | Part::ContainerdShim | Part::Pause
        ) {
            continue;
        }
        let daemon = Daemon::load(&layout.pid_file(part.name())).filter(|daemon| daemon.identity.is_alive());
        if let Some(daemon) = daemon {
            println!("{:<26} runs, pid {}", part.name(), daemon.identity.pid);
        } else {
            println!("{:<26} does not run", part.name());
            missing.push(part.name());
        }
    }
    println!(
        "{:<26} {}",
        "processes with pods",
        cgroups::members(&layout.cgroup()).len()
    );
    println!("{:<26} {}", "addresses", layout.network());
    println!("{:<26} {}", "API server", layout.server());
    println!("{:<26} {}", "S3 server", layout.s3_endpoint());
    println!("{:<26} {}", "logs", layout.logs().display());
    if !missing.is_empty() {
        bail!(
            "not running: {} (`cargo xtask cluster up` starts what is missing)",
            missing.join(", ")
        );
    }
    let node = node::running(&layout)?;
    print!("{}", node.kubectl(&["get", "nodes", "--output=wide"])?);
    println!("export KUBECONFIG={}", layout.kubeconfig().display());
    Ok(())
}
