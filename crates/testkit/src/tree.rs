//! Two directory trees side by side.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context, Result, ensure};

/// How many differences are told; the others are only counted.
const TOLD: usize = 20;

/// Which modification times are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Those of files, symlinks and directories.
    All,
    /// As kopia restores them: a directory has the latest time of anything below it, which is not compared, and the time of a
    /// symlink is rounded to microseconds.
    ByKopia,
}

/// What the two trees differ in, one line each: names, types, bytes, modes, owners, modification times to the nanosecond, targets of
/// symlinks. Empty when they are the same.
///
/// The two roots themselves are compared too. Sockets, pipes and devices are passed over: no backup keeps them.
///
/// Fails when something cannot be read.
pub fn differences(left: &Path, right: &Path, times: Times) -> Result<Vec<String>> {
    let mut comparison = Comparison {
        lines: Vec::new(),
        count: 0,
        times,
    };
    comparison.entry(Path::new("."), left, right)?;
    let Comparison { mut lines, count, .. } = comparison;
    if count > TOLD {
        lines.push(format!("and {} more", count - TOLD));
    }
    Ok(lines)
}

/// Fails with the differences of the two trees, if there are any.
pub fn ensure_same(left: &Path, right: &Path, times: Times) -> Result<()> {
    let lines = differences(left, right, times)?;
    ensure!(
        lines.is_empty(),
        "{} and {} differ:\n{}",
        left.display(),
        right.display(),
        lines.join("\n")
    );
    Ok(())
}

struct Comparison {
    lines: Vec<String>,
    count: usize,
    times: Times,
}

impl Comparison {
    fn note(&mut self, path: &Path, what: impl std::fmt::Display) {
        self.count += 1;
        if self.count <= TOLD {
            self.lines.push(format!("{}: {what}", path.display()));
        }
    }

    fn entry(&mut self, path: &Path, left: &Path, right: &Path) -> Result<()> {
        let (one, other) = (metadata(left)?, metadata(right)?);
        let kinds = (kind(&one), kind(&other));
        if kinds.0 != kinds.1 {
            self.note(path, format_args!("{} and {}", kinds.0, kinds.1));
            return Ok(());
        }
        self.attributes(path, &one, &other);
        if one.is_dir() {
            self.directory(path, left, right)
        } else if one.is_symlink() {
            if fs::read_link(left)? != fs::read_link(right)? {
                self.note(path, "points elsewhere");
            }
            Ok(())
        } else {
            self.file(path, (left, one.len()), (right, other.len()))
        }
    }

    fn attributes(&mut self, path: &Path, one: &Metadata, other: &Metadata) {
        let mode = |metadata: &Metadata| metadata.mode() & 0o7777;
        if mode(one) != mode(other) && !one.is_symlink() {
            self.note(path, format_args!("mode {:o} and {:o}", mode(one), mode(other)));
        }
        let owner = |metadata: &Metadata| (metadata.uid(), metadata.gid());
        if owner(one) != owner(other) {
            self.note(
                path,
                format_args!("owner {:?} and {:?}", owner(one), owner(other)),
            );
        }
        let time = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
        if !self.same_time(one, other) {
            self.note(
                path,
                format_args!("modified {:?} and {:?}", time(one), time(other)),
            );
        }
    }

    fn same_time(&self, one: &Metadata, other: &Metadata) -> bool {
        let time = |metadata: &Metadata| {
            i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
        };
        let apart = (time(one) - time(other)).abs();
        match self.times {
            Times::ByKopia if one.is_dir() => true,
            Times::ByKopia if one.is_symlink() => apart <= 1000,
            Times::ByKopia | Times::All => apart == 0,
        }
    }

    fn directory(&mut self, path: &Path, left: &Path, right: &Path) -> Result<()> {
        let (one, mut other) = (names(left)?, names(right)?);
        for name in &one {
            let below = path.join(name);
            if other.remove(name) {
                self.entry(&below, &left.join(name), &right.join(name))?;
            } else {
                self.note(&below, "missing on the right");
            }
        }
        for name in &other {
            self.note(&path.join(name), "missing on the left");
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, left: (&Path, u64), right: (&Path, u64)) -> Result<()> {
        if left.1 != right.1 {
            self.note(path, format_args!("{} bytes and {} bytes", left.1, right.1));
        } else if let Some(at) = first_difference(left.0, right.0)? {
            self.note(path, format_args!("other bytes in the MiB at {at}"));
        }
        Ok(())
    }
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))
}

fn kind(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() {
        "directory"
    } else if metadata.is_symlink() {
        "symlink"
    } else {
        "file"
    }
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let special = kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device();
        if !special {
            names.insert(entry.file_name());
        }
    }
    Ok(names)
}

/// Where the first MiB begins that is not the same in both files.
fn first_difference(left: &Path, right: &Path) -> Result<Option<u64>> {
    const STEP: u64 = 1024 * 1024;
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let (mut one, mut other) = (open(left)?, open(right)?);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        first.clear();
        second.clear();
        one.by_ref().take(STEP).read_to_end(&mut first)?;
        other.by_ref().take(STEP).read_to_end(&mut second)?;
        if first != second {
            return Ok(Some(at));
        }
        if first.is_empty() {
            return Ok(None);
        }
        at += STEP;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn make(folder: &Path) {
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("sub/file"), vec![7; 3_000_000]).unwrap();
        symlink("sub/file", folder.join("link")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_600_000_000_123_456_789);
        for path in ["sub/file", "sub", "."] {
            File::open(folder.join(path)).unwrap().set_modified(time).unwrap();
        }
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (left, right) = (folder.path().join("left"), folder.path().join("right"));
        make(&left);
        make(&right);
        // The times of symlinks cannot be set by the standard library.
        let lines = differences(&left, &right, Times::All).unwrap();
        assert!(
            lines.iter().all(|line| line.starts_with("./link: modified")),
            "{lines:?}"
        );

        let mut bytes = vec![7; 3_000_000];
        bytes[2_500_000] = 8;
        fs::write(right.join("sub/file"), bytes).unwrap();
        fs::set_permissions(right.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_file(right.join("link")).unwrap();
        fs::create_dir(right.join("link")).unwrap();
        fs::write(right.join("more"), "").unwrap();
        let text = differences(&left, &right, Times::All).unwrap().join("\n");
        for expected in [
            "./sub/file: other bytes in the MiB at 2097152",
            "./sub/file: modified",
            "./sub: mode 755 and 700",
            "./link: symlink and directory",
            "./more: missing on the left",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(ensure_same(&left, &right, Times::All).is_err());
    }
}
