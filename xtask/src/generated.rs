//! Files that are generated and committed: write them, or check that they are up to date.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Arguments of the commands that generate files.
#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail when a file is not what would be generated.
    #[arg(long)]
    pub check: bool,
}

/// Writes `files` (path below the workspace, content), or compares them when `check` is set.
pub fn write_or_check(command: &str, check: bool, files: &[(String, String)]) -> Result<()> {
    let root = workspace::root();
    let stale: Vec<&str> = files
        .iter()
        .filter(|(path, content)| std::fs::read_to_string(root.join(path)).ok().as_deref() != Some(content))
        .map(|(path, _)| path.as_str())
        .collect();
    if check && !stale.is_empty() {
        bail!(
            "out of date: {}; run `cargo xtask {command}` and commit the result",
            stale.join(", ")
        );
    }
    for (path, content) in files.iter().filter(|(path, _)| stale.contains(&path.as_str())) {
        write(&root.join(path), content)?;
        println!("wrote {path}");
    }
    if stale.is_empty() {
        println!("{command}: {} files up to date", files.len());
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("write {}", path.display()))
}
