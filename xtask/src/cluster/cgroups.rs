//! The cluster's control groups, version 1 or 2. They also know every process of the cluster, containers and shims included, which
//! is how a crashed cluster is ended completely without guessing at names.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::process::poll;
use nix::{sys::signal::Signal, unistd::Pid};

/// The mounted hierarchies.
struct Hierarchies {
    /// All that hold controllers: one of version 2, or one for each controller of version 1.
    all: Vec<PathBuf>,
    /// The one in which processes are tracked.
    tracking: PathBuf,
    /// Version 2 without controllers beside version 1; runc makes groups there too.
    beside: Option<PathBuf>,
    unified: bool,
}

fn hierarchies() -> Result<Hierarchies> {
    parse(&fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?)
}

fn parse(mounts: &str) -> Result<Hierarchies> {
    let mut all = Vec::new();
    let mut tracking = None;
    let mut unified = None;
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, point, kind, options, ..] = fields[..] else {
            continue;
        };
        match kind {
            "cgroup" if !all.contains(&PathBuf::from(point)) => {
                all.push(PathBuf::from(point));
                if options.split(',').any(|option| option == "pids") {
                    tracking = Some(PathBuf::from(point));
                }
            }
            "cgroup2" => unified = Some(PathBuf::from(point)),
            _ => {}
        }
    }
    match (tracking, unified) {
        (Some(tracking), beside) => Ok(Hierarchies {
            all,
            tracking,
            beside,
            unified: false,
        }),
        (None, Some(root)) if all.is_empty() => Ok(Hierarchies {
            all: vec![root.clone()],
            tracking: root,
            beside: None,
            unified: true,
        }),
        _ => bail!("no usable control groups: neither version 2 nor version 1 with the controller pids"),
    }
}

/// Makes the group `name` in every hierarchy and returns the file that takes the pids of the node's own parts.
pub(crate) fn create(name: &str) -> Result<PathBuf> {
    let found = hierarchies()?;
    for hierarchy in &found.all {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot create {}", group.display()))?;
        if found.unified {
            enable_controllers(hierarchy);
            enable_controllers(&group);
        }
    }
    let parts = found.tracking.join(name).join("node");
    fs::create_dir_all(&parts).with_context(|| format!("cannot create {}", parts.display()))?;
    Ok(parts.join("cgroup.procs"))
}

/// Version 2: hands all controllers down. Some cannot be where processes sit in the group; kubelet says which one it misses.
fn enable_controllers(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Ends every process in the group `name` and below it. Fails when one survives for 20 s.
pub(crate) fn kill(name: &str) -> Result<()> {
    let group = hierarchies()?.tracking.join(name);
    let ended = || {
        let pids = processes(&group);
        for pid in &pids {
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        pids.is_empty().then_some(())
    };
    match poll(Duration::from_secs(20), Duration::from_millis(20), ended) {
        Some(()) => Ok(()),
        None => bail!("processes survive SIGKILL: {:?}", processes(&group)),
    }
}

/// All processes of the cluster now.
pub(crate) fn members(name: &str) -> Vec<i32> {
    hierarchies()
        .map(|found| processes(&found.tracking.join(name)))
        .unwrap_or_default()
}

fn processes(group: &Path) -> Vec<i32> {
    let mut found: Vec<i32> = fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        // Zero stands for a process of a namespace that we cannot see; signalling it would hit ourselves.
        .filter(|pid| *pid > 0)
        .collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes(&entry.path()));
        }
    }
    found
}

/// Removes the group `name`, empty of processes, from every hierarchy.
pub(crate) fn remove(name: &str) -> Result<()> {
    let found = hierarchies()?;
    for hierarchy in found.all.into_iter().chain(found.beside) {
        let group = hierarchy.join(name);
        // The kernel takes a moment to let go of what has just ended.
        let gone = || {
            remove_tree(&group);
            (!group.exists()).then_some(())
        };
        poll(Duration::from_secs(10), Duration::from_millis(50), gone)
            .with_context(|| format!("cannot remove {}", group.display()))?;
    }
    Ok(())
}

fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_and_the_mixture_are_told_apart() {
        let two = parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").unwrap();
        assert!(two.unified);
        assert_eq!(two.tracking, Path::new("/sys/fs/cgroup"));
        let hybrid = "c /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\nc /sys/fs/cgroup/pids cgroup rw,pids 0 0\n\
                      c /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let one = parse(hybrid).unwrap();
        assert!(!one.unified);
        assert_eq!(one.all.len(), 2);
        assert_eq!(one.beside.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(one.tracking, Path::new("/sys/fs/cgroup/pids"));
        assert!(parse("proc /proc proc rw 0 0\n").is_err());
    }
}
