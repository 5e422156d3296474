//! Which clusters exist on this machine: one record each under /run/holdfast, claimed under a lock.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use holdfast_testkit::{local, parts::say};

use super::{
    layout::{Layout, choose_slot},
    stop, sysctls,
};

const RECORD: &str = "cluster.json";
/// The lock on what all clusters share.
const MACHINE: &str = "machine";

/// Holds off other commands on the same cluster until it is dropped.
pub(crate) fn lock(name: &str) -> Result<File> {
    let folder = Path::new(local::RUN_FOLDER);
    let path = lock_file(name);
    loop {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        if file.try_lock().is_err() {
            say("waiting for another `cargo xtask cluster`");
            file.lock().context("cannot lock the cluster")?;
        }
        // Who held it before may have removed the file with the cluster; then the lock is on nothing.
        let locked = file.metadata().context("cannot look at the lock")?.ino();
        if fs::metadata(&path).is_ok_and(|now| now.ino() == locked) {
            return Ok(file);
        }
    }
}

fn lock_file(name: &str) -> PathBuf {
    Path::new(local::RUN_FOLDER).join(format!("{name}.lock"))
}

/// The record of one cluster; none when it has none.
pub(crate) fn load(id: &str) -> Option<Layout> {
    serde_json::from_slice(&fs::read(Path::new(local::RUN_FOLDER).join(id).join(RECORD)).ok()?).ok()
}

/// All records of this machine.
pub(crate) fn all() -> Vec<Layout> {
    let entries = fs::read_dir(local::RUN_FOLDER).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| load(entry.file_name().to_str()?))
        .collect()
}

/// Gives a checkout a slot that nothing else on this machine uses, and records it.
pub(crate) fn claim(root: &Path) -> Result<Layout> {
    let _lock = lock(MACHINE)?;
    let id = local::checkout_id(root);
    let taken: Vec<u8> = all()
        .iter()
        .filter(|layout| layout.id() != id)
        .map(|layout| layout.slot)
        .collect();
    let routes = Command::new("ip")
        .args(["-4", "route", "show", "table", "all"])
        .output()
        .context("cannot run ip(8)")?;
    let routes = String::from_utf8_lossy(&routes.stdout).into_owned();
    let routes: Vec<&str> = routes.lines().filter_map(destination).collect();
    let slot = choose_slot(&id, &taken, &routes)
        .context("all networks for local clusters (10.160-191.0.0/16) are in use")?;
    let layout = Layout::new(root.to_path_buf(), slot);
    if all().is_empty() {
        sysctls::remember()?;
    }
    fs::create_dir_all(layout.run()).context("cannot create the run folder")?;
    fs::write(layout.run().join(RECORD), serde_json::to_string(&layout)?)
        .context("cannot record the cluster")?;
    Ok(layout)
}

/// The destination of one line of `ip route`; some lines begin with a type.
fn destination(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    match words.next()? {
        "local" | "broadcast" | "unreachable" | "blackhole" | "prohibit" | "multicast" => words.next(),
        word => Some(word),
    }
}

/// Stops the clusters whose checkout was deleted, so that a CI clone that was thrown away does not keep a node running.
pub(crate) fn remove_orphans(root: &Path) {
    for orphan in all() {
        if orphan.root != root && !orphan.root.join("Cargo.toml").exists() {
            say(&format!(
                "stopping the cluster of {}, which no longer exists",
                orphan.root.display()
            ));
            let stopped = lock(&orphan.id()).and_then(|_lock| stop::stop(&orphan));
            // Its parts may have kept writing while the checkout was deleted.
            let _ = fs::remove_dir_all(orphan.folder());
            for folder in orphan.folder().ancestors().skip(1).take(2) {
                let _ = fs::remove_dir(folder);
            }
            if let Err(error) = stopped {
                say(&format!("cannot stop it: {error:#}"));
            }
        }
    }
}

/// Forgets a cluster, whose lock the caller holds. The empty mount points go with the last one: removing them earlier would unmount
/// them under the others.
pub(crate) fn forget(layout: &Layout) -> Result<()> {
    let _lock = lock(MACHINE)?;
    if layout.run().exists() {
        fs::remove_dir_all(layout.run()).context("cannot remove the run folder")?;
    }
    let _ = fs::remove_file(lock_file(&layout.id()));
    if all().is_empty() {
        sysctls::restore()?;
        // They may be in use by a kubelet of the host's own; then they are not empty and stay.
        for mount_point in super::node::MOUNT_POINTS {
            let _ = fs::remove_dir(mount_point);
        }
        let _ = fs::remove_file(lock_file(MACHINE));
        let _ = fs::remove_dir(local::RUN_FOLDER);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::destination;

    #[test]
    fn the_destination_may_follow_a_type() {
        assert_eq!(
            destination("10.1.0.0/24 dev eth0 scope link"),
            Some("10.1.0.0/24")
        );
        assert_eq!(
            destination("local 10.1.0.7 dev eth0 table local"),
            Some("10.1.0.7")
        );
        assert_eq!(destination("default via 10.1.0.1"), Some("default"));
    }
}
