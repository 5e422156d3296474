//! Kernel settings of the whole machine that every kubelet changes: remembered before the first cluster, restored after the last.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use holdfast_testkit::local;

/// What kubelet sets at its start, below /proc/sys.
const CHANGED: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

fn file() -> std::path::PathBuf {
    Path::new(local::RUN_FOLDER).join("sysctls")
}

/// Writes down the settings, unless an unfinished restoration still waits for its turn.
pub(crate) fn remember() -> Result<()> {
    if file().exists() {
        return Ok(());
    }
    let read = |name: &&str| {
        Some(format!(
            "{name} {}",
            fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim()
        ))
    };
    let lines: Vec<String> = CHANGED.iter().filter_map(read).collect();
    fs::write(file(), lines.join("\n")).context("cannot remember the kernel's settings")
}

/// Sets them back.
pub(crate) fn restore() -> Result<()> {
    let Ok(remembered) = fs::read_to_string(file()) else {
        return Ok(());
    };
    for (name, value) in remembered.lines().filter_map(|line| line.split_once(' ')) {
        fs::write(Path::new("/proc/sys").join(name), value)
            .with_context(|| format!("cannot set {name} back"))?;
    }
    fs::remove_file(file()).context("cannot forget the kernel's settings")
}
