//! Debian packages of this machine's own release, taken apart without installing them.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::cluster::node::output;

/// What lies at a path in a package.
pub(crate) enum Content {
    /// A file, with its mode.
    File(Vec<u8>, u32),
    /// A symbolic link, or a hard link, which is as good.
    Link(PathBuf),
}

/// Fetches a package by apt-get, once, and returns those of its files that `wanted` accepts, by their path without `./` in front.
///
/// Fails with one clear line where there is no apt-get: other systems build deploy/images/Containerfile.
pub(crate) fn extract(package: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<(PathBuf, Content)>> {
    let file = fetch(package)?;
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let mut archive = tar::Archive::new(child.stdout.take().context("dpkg-deb without output")?);
    let mut found = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path).to_path_buf();
        if !path.to_str().is_some_and(&wanted) {
            continue;
        }
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                found.push((path, Content::File(content, entry.header().mode()?)));
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name()?.context("a link without target")?;
                found.push((path, Content::Link(target.into_owned())));
            }
            tar::EntryType::Link => {
                let target = entry.link_name()?.context("a link without target")?;
                found.push((
                    path,
                    Content::Link(Path::new("/").join(target.strip_prefix("./").unwrap_or(&target))),
                ));
            }
            _ => {}
        }
    }
    if !child.wait()?.success() {
        bail!("dpkg-deb cannot read {}", file.display());
    }
    if found.is_empty() {
        bail!("the package {package} has none of the files an image needs");
    }
    Ok(found)
}

fn fetch(package: &str) -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or("unknown")
            .trim_matches('"')
    };
    let folder = super::cache()?.join(format!("packages-{}-{}", field("ID="), field("VERSION_ID=")));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = File::create(folder.join(".lock")).context("cannot lock the packages' cache")?;
    lock.lock().context("cannot lock the packages' cache")?;
    if let Some(found) = find(&folder, package) {
        return Ok(found);
    }
    let download = || {
        output(
            Command::new("apt-get")
                .args(["download", package])
                .current_dir(&folder),
            None,
        )
    };
    if download().is_err() {
        if let Err(error) = Command::new("apt-get").arg("--version").output() {
            bail!(
                "images are made from Debian's packages ({error}); elsewhere build deploy/images/Containerfile"
            );
        }
        // A new machine has no package lists yet, and old lists name what the archive no longer has.
        output(Command::new("apt-get").args(["--quiet", "update"]), None)?;
        download().with_context(|| format!("cannot fetch the Debian package {package}"))?;
    }
    find(&folder, package).with_context(|| format!("apt-get fetched no file for the package {package}"))
}

fn find(folder: &Path, package: &str) -> Option<PathBuf> {
    let prefix = format!("{package}_");
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with(&prefix)
            && Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "deb")
    })
}
