//! Ending a cluster completely, whatever state it is in.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use holdfast_testkit::process::poll;
use nix::mount::{MntFlags, umount2};

use super::{cgroups, layout::Layout, node::ip, state};

/// Ends all processes, and removes all that the cluster made: interface and routes, control groups, mounts, files. The logs stay.
///
/// The node's own namespaces, with their bridge, iptables rules and mounts, end with the last process.
pub(crate) fn stop(layout: &Layout) -> Result<()> {
    cgroups::kill(&layout.cgroup())?;
    cgroups::remove(&layout.cgroup())?;
    // With the node's namespace the kernel removes the other end of the cable, a moment later.
    let interface = layout.interface();
    if Path::new("/sys/class/net").join(&interface).exists() {
        let _ = ip(&["link", "delete", &interface]);
    }
    let gone = || (!Path::new("/sys/class/net").join(&interface).exists()).then_some(());
    poll(Duration::from_secs(10), Duration::from_millis(20), gone)
        .with_context(|| format!("cannot remove the interface {interface}"))?;
    unmount_below(&layout.state())?;
    remove(&layout.state())?;
    for file in ["kubeconfig", "s3.env"] {
        let path = layout.folder().join(file);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    state::forget(layout)
}

/// Nothing is ever mounted in the host's namespace; should it be, deleting files through a mount would be worse than a detached mount.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new);
    let mut points: Vec<&Path> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    for point in points {
        umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    // Mounts of the ended namespace keep some folders busy for a moment.
    let mut failure = None;
    let removed = || match fs::remove_dir_all(folder) {
        Ok(()) => Some(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(()),
        Err(error) => {
            failure = Some(error);
            None
        }
    };
    if poll(Duration::from_secs(10), Duration::from_millis(100), removed).is_none() {
        let error = failure.map_or_else(|| anyhow::anyhow!("unknown cause"), anyhow::Error::from);
        return Err(error.context(format!("cannot remove {}", folder.display())));
    }
    Ok(())
}
