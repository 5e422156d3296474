//! What is backed up: trees and files of several kinds, made anew for each run of the bench.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_testkit::parts::say;

use crate::cluster::node::output;

const MIB: u64 = 1024 * 1024;
/// Number of small text files, if there are as many.
const TEXT_FILES: usize = 80_000;
/// Files that are larger are no small ones.
const SMALL: u64 = MIB;
/// One file in so many is changed, and one MiB in so many of a large file: 5 %.
const CHANGED: u64 = 20;

/// The kinds of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Many small text files: source code of Go modules.
    Text,
    /// Four files of 512 MiB that nothing can make smaller.
    Random,
    /// A file of 8 GiB of which every other 64 MiB are a hole.
    Sparse,
    /// A database directory after pgbench.
    Pgdata,
    /// Some of both, for a server that is far away.
    Latency,
}

impl Data {
    pub(super) const ALL: [Self; 5] = [
        Self::Text,
        Self::Random,
        Self::Sparse,
        Self::Pgdata,
        Self::Latency,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Random => "random",
            Self::Sparse => "sparse",
            Self::Pgdata => "pgdata",
            Self::Latency => "latency",
        }
    }

    /// Bytes on disk while a case runs: the data, a repository of it, what was changed, and what is restored, with its holes filled.
    pub(super) fn room(self, restores: u64) -> u64 {
        let gib = |n: u64| n * 1024 * MIB;
        match self {
            Self::Text => gib(3 + 2 * restores),
            Self::Pgdata => gib(5),
            Self::Random => gib(7),
            Self::Sparse => gib(18),
            Self::Latency => gib(1 + restores),
        }
    }

    /// Whether there are so many files that their deletion is felt afterwards. Then what is restored stays until the case is over.
    pub(super) fn has_many_files(self) -> bool {
        matches!(self, Self::Text | Self::Latency)
    }

    /// Makes the data in `folder`, which must not exist.
    pub(super) fn make(self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        match self {
            Self::Text => text(folder, TEXT_FILES),
            Self::Random => (1..=4).try_for_each(|n| random(&folder.join(format!("random-{n}")), 512 * MIB)),
            Self::Sparse => sparse(&folder.join("disk.img"), 8 * 1024 * MIB, 64 * MIB),
            Self::Pgdata => pgdata(folder),
            Self::Latency => {
                text(&folder.join("text"), TEXT_FILES / 10)?;
                random(&folder.join("random"), 256 * MIB)
            }
        }
    }
}

/// Copies files of Go's module cache: those of k8s.io first, then as many others as are needed.
fn text(folder: &Path, wanted: usize) -> Result<()> {
    let cache = output(Command::new("go").args(["env", "GOMODCACHE"]), None)
        .context("the text files come from Go's module cache")?;
    let cache = PathBuf::from(cache.trim());
    let kubernetes = cache.join("k8s.io");
    ensure!(
        kubernetes.is_dir(),
        "{} does not exist: the text files are those of Kubernetes' modules, which `cargo xtask cluster up` fetches",
        kubernetes.display()
    );
    let mut left = wanted;
    copy_small(&kubernetes, &folder.join("k8s.io"), &mut left)?;
    let mut others: Vec<PathBuf> = fs::read_dir(&cache)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    // `cache` holds archives and what the go command notes, not sources.
    others.retain(|path| path.is_dir() && !path.ends_with("cache") && !path.ends_with("k8s.io"));
    others.sort();
    for path in others {
        let name = path.file_name().unwrap_or_default();
        copy_small(&path, &folder.join(name), &mut left)?;
    }
    if left > 0 {
        say(&format!(
            "Go's module cache has only {} of {wanted} files",
            wanted - left
        ));
    }
    Ok(())
}

/// Copies a tree of small files until enough were copied, in the order of their names so that the same cache gives the same data.
fn copy_small(from: &Path, to: &Path, left: &mut usize) -> Result<()> {
    if *left == 0 {
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(from)
        .with_context(|| format!("cannot read {}", from.display()))?
        .collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_small(&entry.path(), &target, left)?;
        } else if kind.is_file() && *left > 0 && entry.metadata()?.len() <= SMALL {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
            *left -= 1;
        }
    }
    Ok(())
}

fn random(path: &Path, length: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    fill(&mut file, length)
}

fn sparse(path: &Path, length: u64, run: u64) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    for begin in (0..length).step_by(usize::try_from(2 * run)?) {
        file.seek(SeekFrom::Start(begin))?;
        fill(&mut file, run)?;
    }
    file.set_len(length).context("cannot make a hole")
}

fn fill(file: &mut File, length: u64) -> Result<()> {
    let mut random = File::open("/dev/urandom").context("/dev/urandom")?;
    let mut piece = vec![0; usize::try_from(MIB)?];
    for _ in 0..length / MIB {
        random.read_exact(&mut piece)?;
        file.write_all(&piece).context("cannot write random data")?;
    }
    Ok(())
}

/// A database of about 1 GB that was written to, by PostgreSQL of the image that the tests use.
fn pgdata(folder: &Path) -> Result<()> {
    let root = folder.with_extension("postgres");
    fs::create_dir_all(&root)?;
    let archive = crate::images::postgres_files("17")?;
    output(
        Command::new("tar")
            .args(["--extract", "--exclude=./dev/*", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&root),
        None,
    )?;
    // initdb starts a shell that reads from there.
    output(
        Command::new("mknod")
            .args(["--mode=666"])
            .arg(root.join("dev/null"))
            .args(["c", "1", "3"]),
        None,
    )?;
    let run = |words: &str| {
        let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
        output(
            Command::new("chroot")
                .arg("--userspec=101:103")
                .arg(&root)
                .arg(format!("/usr/lib/postgresql/17/bin/{program}"))
                .args(arguments.split('|').filter(|word| !word.is_empty()))
                .env_clear()
                // For chroot itself, which is not where programs are looked for without it.
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("LANG", "C.UTF-8")
                .env("PGHOST", "/tmp")
                .env("PGUSER", "postgres"),
            None,
        )
        .with_context(|| format!("{program} of PostgreSQL 17"))
    };
    let data = "/home/postgres/data";
    run(&format!("initdb --pgdata|{data}|--username=postgres"))?;
    let options = "-c listen_addresses= -c unix_socket_directories=/tmp -c fsync=off -c dynamic_shared_memory_type=mmap";
    run(&format!(
        "pg_ctl start|--wait|--pgdata={data}|--log=/home/postgres/log|--options={options}"
    ))?;
    let loaded = run("pgbench --initialize|--quiet|--scale=60|postgres")
        .and_then(|_| run("pgbench --client=4|--transactions=5000|--no-vacuum|postgres"));
    // It must end whatever came of it.
    let stopped = run(&format!("pg_ctl stop|--wait|--mode=fast|--pgdata={data}"));
    loaded.and(stopped)?;
    fs::remove_dir(folder)?;
    fs::rename(root.join("home/postgres/data"), folder).context("cannot move the database")?;
    fs::remove_dir_all(&root).context("cannot remove PostgreSQL")
}

/// What was changed, and how it was before.
pub(super) struct Change {
    files: Vec<(PathBuf, SystemTime)>,
}

impl Change {
    /// Changes 5 % of the data: one small file in 20, and one MiB in 20 of a large one. Nothing gets longer or shorter, and no hole is
    /// filled.
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut seen = 0;
        collect(folder, &mut |path, metadata| {
            seen += u64::from(metadata.len() < 2 * CHANGED * MIB);
            let large = metadata.len() >= 2 * CHANGED * MIB;
            if metadata.len() > 0 && (large || seen % CHANGED == 0) {
                files.push((path.to_owned(), metadata.modified()?));
            }
            Ok(())
        })?;
        files.iter().try_for_each(|(path, _)| flip(path))?;
        Ok(Self { files })
    }

    /// Makes it as it was, times included.
    pub(super) fn undo(self) -> Result<()> {
        for (path, time) in self.files {
            flip(&path)?;
            OpenOptions::new()
                .write(true)
                .open(&path)?
                .set_modified(time)
                .with_context(|| format!("cannot set the time of {}", path.display()))?;
        }
        Ok(())
    }
}

/// Inverts bits, so that doing it twice changes nothing but the time.
fn flip(path: &Path) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot change {}", path.display()))?;
    let length = file.metadata()?.len();
    let (step, size) = if length < 2 * CHANGED * MIB {
        (length, length.min(64))
    } else {
        (CHANGED * MIB, MIB)
    };
    let mut piece = vec![0; usize::try_from(size)?];
    for begin in (0..length).step_by(usize::try_from(step)?) {
        let size = usize::try_from(size.min(length - begin))?;
        let piece = &mut piece[..size];
        file.read_exact_at(piece, begin)?;
        if piece.iter().any(|byte| *byte != 0) {
            for byte in piece.iter_mut() {
                *byte = !*byte;
            }
            file.write_all_at(piece, begin)?;
        }
    }
    Ok(())
}

/// Visits every file below a folder, in the order of names.
fn collect(folder: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata) -> Result<()>) -> Result<()> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            collect(&entry.path(), visit)?;
        } else if metadata.is_file() {
            visit(&entry.path(), &metadata)?;
        }
    }
    Ok(())
}

/// Number of files below a folder, and their bytes without holes.
pub(super) fn size(folder: &Path) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    collect(folder, &mut |_, metadata| {
        files += 1;
        bytes += metadata.len().min(metadata.blocks() * 512);
        Ok(())
    })?;
    Ok((files, bytes))
}

/// Fails if the disk has too little room.
pub(super) fn ensure_room(folder: &Path, needed: u64) -> Result<()> {
    let disk = nix::sys::statvfs::statvfs(folder).context("cannot ask for the room on the disk")?;
    let free = disk.blocks_available() * disk.fragment_size();
    if free < needed {
        bail!(
            "{} has {} MB free, and {} MB are needed",
            folder.display(),
            free / 1_000_000,
            needed / 1_000_000
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_testkit::tree::Times;

    use super::*;

    #[test]
    fn a_change_can_be_undone_and_leaves_holes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        for n in 0..40 {
            fs::write(data.join(format!("small-{n}")), format!("text {n}")).unwrap();
        }
        sparse(&data.join("large"), 80 * MIB, 20 * MIB).unwrap();
        let copy = folder.path().join("copy");
        output(Command::new("cp").arg("--archive").arg(&data).arg(&copy), None).unwrap();
        let before = size(&data).unwrap();
        let change = Change::make(&data).unwrap();
        let differences = holdfast_testkit::tree::differences(&data, &copy, Times::All).unwrap();
        let changed = |name: &str| {
            differences
                .iter()
                .filter(|line| line.contains(name) && line.contains("other bytes"))
                .count()
        };
        assert_eq!((changed("small-"), changed("large")), (2, 1), "{differences:?}");
        change.undo().unwrap();
        holdfast_testkit::tree::ensure_same(&data, &copy, Times::All).unwrap();
        assert_eq!(size(&data).unwrap(), before);
    }
}
