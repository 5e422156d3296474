//! What the machine must have: root, and a few programs that Debian's packages bring.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use holdfast_testkit::{environment, parts::say};

/// What the local node needs: programs, or files, and the Debian packages that bring them.
pub(crate) const NODE: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// Where programs are looked for: administrators' folders too, which are not in every user's PATH.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fails with one clear line for anybody but root.
pub(crate) fn require_root() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "the local cluster needs root: run this as root, or set {} to use your own cluster",
            environment::KUBECONFIG
        );
    }
    Ok(())
}

/// Installs what is missing, where apt-get can.
pub(crate) fn require(needed: &[(&str, &'static str)]) -> Result<()> {
    let missing = || -> Vec<&'static str> {
        needed
            .iter()
            .filter(|(file, _)| !is_there(file))
            .map(|(_, package)| *package)
            .collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)?;
    let still = missing();
    if still.is_empty() {
        Ok(())
    } else {
        bail!("still missing after the installation: {}", still.join(" "))
    }
}

/// Whether a program is installed.
pub(crate) fn is_there(file: &str) -> bool {
    if file.starts_with('/') {
        let other = Path::new("/opt/cni/bin").join(Path::new(file).file_name().unwrap_or_default());
        return Path::new(file).exists() || other.exists();
    }
    PATH.split(':')
        .any(|folder| Path::new(folder).join(file).exists())
}

/// Installs Debian packages. Fails with one clear line where there is no apt-get.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if !is_there("apt-get") {
        bail!(
            "missing and no apt-get to install it: {} (or set {})",
            packages.join(" "),
            environment::KUBECONFIG
        );
    }
    say(&format!("installing with apt-get: {}", packages.join(" ")));
    // A new machine has no package lists yet.
    let fresh = fs::read_dir("/var/lib/apt/lists").is_ok_and(|lists| {
        lists
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    });
    if !fresh {
        apt(&["update"])?;
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    if apt(&arguments).is_ok() {
        return Ok(());
    }
    // The lists may be older than the archive.
    apt(&["update"])?;
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .arg("--quiet")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("cannot start apt-get")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {} failed: {}", arguments.join(" "), text.trim());
    }
    Ok(())
}
