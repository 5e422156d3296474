//! Cargo, called by a program that cargo runs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::environment;

use crate::workspace;

/// What `cargo run` tells the program it runs. A build script that looks at any of it (ring's does) would run again, and
/// all that depends on it be compiled again, each time that cargo is called from here after it was called by a person.
const OF_CARGO_RUN: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];

/// Runs cargo in the workspace.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let program = environment::variable("CARGO").unwrap_or_else(|| "cargo".to_owned());
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).args(arguments);
    for (name, _) in std::env::vars() {
        if OF_CARGO_RUN.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let line = format!("cargo {}", arguments.join(" "));
    // Standard output is for results.
    eprintln!("$ {line}");
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Where cargo puts the release binary of a package.
pub(crate) fn release_binary(name: &str) -> PathBuf {
    let root = workspace::root();
    // A relative path means below the workspace, for cargo is called there.
    let target = environment::variable("CARGO_TARGET_DIR").unwrap_or_else(|| "target".to_owned());
    root.join(target).join("release").join(name)
}
