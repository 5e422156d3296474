//! Backups of small trees into memory. What kopia says to them is tested in tier 3.

mod attributes;
mod memory;
mod silence;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Backup, BackupOptions, BackupReport, BackupSource, BackupTarget, ErrorPolicy};
use crate::blob::MemoryBlobs;
use crate::blob::memory::{BlobFault, FaultRule, Operation};
use crate::compression::HeaderId;
use crate::content::{ContentId, Prefix, WriterOptions};
use crate::error::{KopiaError, KopiaResult};
use crate::format::CreateOptions;
use crate::manifest::Manifests;
use crate::object::testing::MemoryContents;
use crate::object::{ContentSink, ContentSource, ObjectId, ObjectStream, object_length};
use crate::policy::{Policy, set_policy};
use crate::snapshot::{
    DirEntry, DirectoryStream, EntryKind, ParentFilter, SnapshotManifest, SourceInfo, list_snapshots,
    parent_snapshots,
};
use crate::splitter::Splitter;
use crate::{ConnectOptions, Repository};
use holdfast_store::Secret;

/// A repository in memory that counts what is written and can be told to be slow.
#[derive(Clone)]
struct Memory {
    contents: MemoryContents,
    splitter: Splitter,
    /// Contents of files that were written.
    data: Arc<AtomicU64>,
    /// While set, contents of files wait; what waits is told here.
    blocked: Arc<AtomicBool>,
    waiting: Arc<AtomicU64>,
    flushed: Arc<Mutex<Vec<ContentId>>>,
    time: Arc<AtomicU64>,
}

impl Memory {
    fn new(splitter: &str) -> Self {
        Self {
            contents: MemoryContents::default(),
            splitter: Splitter::by_name(splitter).unwrap(),
            data: Arc::default(),
            blocked: Arc::default(),
            waiting: Arc::default(),
            flushed: Arc::default(),
            time: Arc::default(),
        }
    }

    /// Contents of files written since the last call.
    fn written(&self) -> u64 {
        self.data.swap(0, Ordering::SeqCst)
    }

    /// Manifests as another client would see them.
    async fn manifests(&self) -> Manifests {
        let flushed = self.flushed.lock().unwrap().clone();
        let is_manifest = |id: &ContentId| id.prefix() == Some(Prefix::MANIFEST);
        let ids = flushed.into_iter().filter(is_manifest).collect();
        Manifests::load(self.contents.source(), ids).await.unwrap()
    }
}

impl ContentSink for Memory {
    fn put(&self, prefix: Option<Prefix>, data: Vec<u8>, compression: HeaderId) -> KopiaResult<ContentId> {
        if prefix.is_none() {
            self.data.fetch_add(1, Ordering::SeqCst);
            self.waiting.fetch_add(1, Ordering::SeqCst);
            while self.blocked.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.contents.put(prefix, data, compression)
    }
}

#[async_trait]
impl BackupTarget for Memory {
    fn sink(&self) -> Arc<dyn ContentSink> {
        Arc::new(self.clone())
    }

    fn source(&self) -> Arc<dyn ContentSource> {
        self.contents.source()
    }

    fn splitter(&self) -> KopiaResult<Splitter> {
        Ok(self.splitter)
    }

    async fn flush(&self) -> KopiaResult<()> {
        *self.flushed.lock().unwrap() = self.contents.ids();
        Ok(())
    }

    fn now(&self) -> Timestamp {
        let tick = self.time.fetch_add(1, Ordering::SeqCst);
        Timestamp::from_second(1_700_000_000 + i64::try_from(tick).unwrap()).unwrap()
    }
}

fn info() -> SourceInfo {
    SourceInfo {
        host: "default".to_owned(),
        user_name: "default".to_owned(),
        path: "volume".to_owned(),
    }
}

fn backup(folder: &TempDir, options: BackupOptions) -> Backup {
    Backup::new(BackupSource::Directory(folder.path().to_owned()), info()).options(options)
}

/// Backs up with the parents that are there.
async fn run(memory: &Memory, folder: &TempDir, options: BackupOptions) -> KopiaResult<BackupReport> {
    let mut manifests = memory.manifests().await;
    let parents = parent_snapshots(&manifests, &info(), &ParentFilter::default()).await?;
    backup(folder, options)
        .parents(parents)
        .run(memory, &mut manifests)
        .await
}

fn skip() -> BackupOptions {
    BackupOptions {
        errors: ErrorPolicy::Skip,
        ..BackupOptions::default()
    }
}

async fn entries(memory: &Memory, object: ObjectId) -> Vec<DirEntry> {
    let mut stream = DirectoryStream::open(memory.contents.source(), object).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = stream.next().await.unwrap() {
        entries.push(entry);
    }
    entries
}

async fn data(memory: &Memory, object: ObjectId) -> Vec<u8> {
    let mut stream = ObjectStream::open(memory.contents.source(), object).unwrap();
    let mut data = Vec::new();
    while let Some(chunk) = stream.next_chunk().await.unwrap() {
        data.extend(chunk);
    }
    data
}

/// Everything in a snapshot by its path.
async fn tree(memory: &Memory, snapshot: &SnapshotManifest) -> BTreeMap<PathBuf, DirEntry> {
    let mut found = BTreeMap::new();
    let mut left = vec![(PathBuf::new(), snapshot.root_object().unwrap())];
    while let Some((path, object)) = left.pop() {
        for entry in entries(memory, object).await {
            let path = path.join(entry.name.as_os_str());
            if entry.kind == EntryKind::Directory {
                left.push((path.clone(), entry.object.unwrap()));
            }
            found.insert(path, entry);
        }
    }
    found
}

fn write(path: impl AsRef<Path>, data: impl AsRef<[u8]>) {
    fs::write(path, data).unwrap();
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A tree with most of what can be in one.
fn sample() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (index, length) in [0, 1, 1000, 131_071, 131_072, 131_073, 262_144, 1_000_000]
        .into_iter()
        .enumerate()
    {
        write(
            path.join(format!("file-{length}")),
            noise(length, index as u64 + 7),
        );
    }
    for name in ["\n", "<&>", "quote\"", "é", &"x".repeat(255)] {
        write(path.join(name), name);
    }
    fs::create_dir_all(path.join("a/b/c/d/e")).unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    write(path.join("a/b/c/d/e/deep"), "deep");
    symlink("a/b", path.join("link")).unwrap();
    symlink("nowhere", path.join("a/broken")).unwrap();
    for number in 0..200 {
        write(path.join(format!("a/b/{number}")), format!("number {number}"));
    }
    fs::set_permissions(path.join("file-1"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(path.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_stored() {
    let folder = sample();
    write(folder.path().join(OsStr::from_bytes(b"not \xff utf-8")), "x");
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let report = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    let found = tree(&memory, &report.snapshot).await;
    for (path, entry) in &found {
        if path.as_os_str() == "not \u{fffd} utf-8" {
            continue;
        }
        let real = folder.path().join(path);
        let stat = rustix::fs::lstat(&real).unwrap();
        assert_eq!(entry.permissions.to_unix(), stat.st_mode & 0o7777, "{path:?}");
        assert_eq!(
            entry.mtime.to_unix(),
            (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
            "{path:?}"
        );
        assert_eq!((entry.uid, entry.gid), (stat.st_uid, stat.st_gid), "{path:?}");
        match entry.kind {
            EntryKind::File => assert!(
                data(&memory, entry.object.unwrap()).await == fs::read(&real).unwrap(),
                "{path:?}"
            ),
            EntryKind::Symlink => {
                let target = fs::read_link(&real).unwrap();
                assert_eq!(
                    data(&memory, entry.object.unwrap()).await,
                    target.as_os_str().as_bytes()
                );
            }
            _ => assert!(real.is_dir(), "{path:?}"),
        }
    }
    assert_eq!(found.len(), 8 + 5 + 6 + 1 + 2 + 200 + 1);
    let root = report.snapshot.root_entry.clone().unwrap();
    assert_eq!(root.name.as_os_str(), folder.path().file_name().unwrap());
    let summary = root.summary.unwrap();
    assert_eq!(
        (summary.files, summary.symlinks, summary.dirs),
        (8 + 5 + 1 + 200 + 1, 2, 7)
    );
    let stats = &report.snapshot.stats;
    assert_eq!(
        (stats.file_count, stats.non_cached_files, stats.cached_files),
        (215, 215, 0)
    );
    assert_eq!(u64::try_from(stats.total_size).unwrap(), summary.size);
    assert!(report.snapshot.is_complete() && report.snapshot.id.is_some());
    let listed = list_snapshots(&memory.manifests().await, Some(&info()))
        .await
        .unwrap();
    assert_eq!(listed, [report.snapshot]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_is_not_read() {
    let folder = sample();
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let first = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    assert!(memory.written() > 0);
    let second = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    assert_eq!(second.snapshot.root_object(), first.snapshot.root_object());
    assert_eq!(
        (
            memory.written(),
            second.numbers.opened_files,
            second.numbers.read_bytes
        ),
        (0, 0, 0)
    );
    assert_eq!(second.snapshot.stats.cached_files, 216);
    assert_eq!(second.numbers.cached_files, second.numbers.found_files);

    // Each of these makes a file another one.
    write(folder.path().join("a/b/7"), "number 8");
    fs::set_permissions(folder.path().join("a/b/8"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::File::open(folder.path().join("a/b/9"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    write(folder.path().join("a/b/new"), "");
    fs::remove_file(folder.path().join("a/b/10")).unwrap();
    fs::remove_file(folder.path().join("a/b/11")).unwrap();
    symlink("number 11", folder.path().join("a/b/11")).unwrap();
    let third = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    assert_eq!(third.numbers.opened_files, 4);
    let found = tree(&memory, &third.snapshot).await;
    assert!(!found.contains_key(Path::new("a/b/10")));
    assert_eq!(
        data(&memory, found[Path::new("a/b/7")].object.unwrap()).await,
        b"number 8"
    );
    assert_eq!(found[Path::new("a/b/11")].kind, EntryKind::Symlink);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_repository_lost_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("file"), "data");
    let memory = Memory::new("FIXED");
    let first = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    // Another repository with the manifests and directories but without the files.
    let damaged = Memory::new("FIXED");
    for id in memory.contents.ids() {
        if let (Some(prefix), Some((data, compression))) = (id.prefix(), memory.contents.entry(&id)) {
            damaged.contents.put(Some(prefix), data, compression).unwrap();
        }
    }
    damaged.flush().await.unwrap();
    let second = run(&damaged, &folder, BackupOptions::default()).await.unwrap();
    assert_eq!(second.numbers.opened_files, 1);
    assert_eq!(second.snapshot.root_object(), first.snapshot.root_object());
    assert_eq!(damaged.written(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_entries_end_the_backup_or_are_skipped() {
    let folder = sample();
    // Root reads everything, so something that nobody can: an entry on a file system that answers with errors.
    symlink("/proc/self/mem", folder.path().join("fine")).unwrap();
    let source = || Backup::new(BackupSource::Directory("/proc/self/task".into()), info());
    let memory = Memory::new("FIXED");
    let error = source()
        .run(&memory, &mut memory.manifests().await)
        .await
        .unwrap_err();
    let KopiaError::Io { path, .. } = &error else {
        panic!("{error}");
    };
    assert!(path.starts_with("/proc/self/task"), "{error}");
    assert!(memory.flushed.lock().unwrap().is_empty());

    let report = source()
        .options(skip())
        .run(&memory, &mut memory.manifests().await)
        .await
        .unwrap();
    assert!(report.numbers.errors > 0 && !report.skipped.is_empty());
    let summary = report.snapshot.root_entry.unwrap().summary.unwrap();
    assert_eq!(
        (summary.failed, summary.ignored_errors),
        (0, report.numbers.errors)
    );
    assert_eq!(summary.errors.len(), 10);
    assert_eq!(
        u64::try_from(report.snapshot.stats.ignored_error_count).unwrap(),
        report.numbers.errors
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_root_is_an_error_whatever_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new("FIXED");
    let missing = BackupSource::Directory(folder.path().join("missing"));
    let error = Backup::new(missing, info())
        .options(skip())
        .run(&memory, &mut memory.manifests().await)
        .await;
    assert!(matches!(error, Err(KopiaError::Io { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_while_the_backup_runs() {
    for policy in [ErrorPolicy::FailFast, ErrorPolicy::Skip] {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..100 {
            write(folder.path().join(format!("{number:02}")), "x".repeat(number + 1));
        }
        let memory = Memory::new("FIXED");
        memory.blocked.store(true, Ordering::SeqCst);
        let options = BackupOptions {
            errors: policy,
            readers: 1,
            ..BackupOptions::default()
        };
        let backup = backup(&folder, options);
        let running = tokio::spawn({
            let memory = memory.clone();
            async move { backup.run(&memory, &mut memory.manifests().await).await }
        });
        while memory.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The only thread stores a first batch; what comes after it has been listed but not read.
        let inodes = |entry: fs::DirEntry| (std::os::unix::fs::DirEntryExt::ino(&entry), entry.path());
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| inodes(entry.unwrap()))
            .collect();
        files.sort();
        fs::remove_file(&files[99].1).unwrap();
        memory.blocked.store(false, Ordering::SeqCst);
        let result = running.await.unwrap();
        if policy == ErrorPolicy::FailFast {
            let error = result.unwrap_err().to_string();
            assert!(
                error.contains(files[99].1.to_str().unwrap()) && error.contains("No such file"),
                "{error}"
            );
        } else {
            let report = result.unwrap();
            assert_eq!(report.skipped.len(), 1);
            assert_eq!(report.skipped[0].error.kind(), std::io::ErrorKind::NotFound);
            assert_eq!(folder.path().join(&report.skipped[0].path), files[99].1);
            assert_eq!(tree(&memory, &report.snapshot).await.len(), 99);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_files_give_the_objects_of_dense_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (length, some) = (20_usize << 20, noise(400_000, 3));
    let mut dense = vec![0; length];
    for place in [0, 9 << 20] {
        dense[place..place + some.len()].copy_from_slice(&some);
    }
    write(folder.path().join("dense"), &dense);
    let sparse = fs::File::create(folder.path().join("sparse")).unwrap();
    for place in [0, 9 << 20] {
        sparse.write_all_at(&some, place).unwrap();
    }
    sparse.set_len(length as u64).unwrap();
    fs::File::create(folder.path().join("hole"))
        .unwrap()
        .set_len(length as u64)
        .unwrap();
    for parallel_above in [None, Some(3_000_000)] {
        let memory = Memory::new("DYNAMIC-256K-BUZHASH");
        let options = BackupOptions {
            parallel_above,
            ..BackupOptions::default()
        };
        let report = run(&memory, &folder, options).await.unwrap();
        let found = tree(&memory, &report.snapshot).await;
        let object = |name: &str| found[Path::new(name)].object.unwrap();
        assert_eq!(object("dense"), object("sparse"));
        assert!(data(&memory, object("sparse")).await == dense);
        assert!(data(&memory, object("hole")).await == vec![0; length]);
        assert_eq!(found[Path::new("hole")].size, length as u64);
        // Zeros are stored once per backup, not once per piece.
        assert!(memory.written() < 60, "{parallel_above:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_one_file_read_by_several() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device");
    let content = noise(5_000_000, 9);
    write(&path, &content);
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let options = BackupOptions {
        parallel_above: Some(1_000_000),
        ..BackupOptions::default()
    };
    let backup = Backup::new(BackupSource::Device(path.clone()), info()).options(options);
    let report = backup.run(&memory, &mut memory.manifests().await).await.unwrap();
    let root = entries(&memory, report.snapshot.root_object().unwrap()).await;
    assert_eq!(root.len(), 1);
    assert_eq!(
        (root[0].name.as_os_str(), root[0].kind, root[0].size),
        (path.as_os_str(), EntryKind::File, 5_000_000)
    );
    assert!(data(&memory, root[0].object.unwrap()).await == content);
    let missing = Backup::new(BackupSource::Device(folder.path().to_owned()), info());
    assert!(missing.run(&memory, &mut memory.manifests().await).await.is_err());
}

/// In the repository U+FFFD stands for bytes that are not UTF-8.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_become_the_same_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    write(path("a\u{fffd}".as_bytes()), "kept");
    write(path(b"a\xfe"), "left out");
    write(path(b"b\xfe"), "the first");
    write(path(b"b\xff"), "left out");
    fs::create_dir(path(b"c\xfe")).unwrap();
    fs::create_dir(path(b"c\xff")).unwrap();
    write(path(b"c\xff/below"), "left out");
    write(path(b"c\xfd"), "left out");
    write(path(b"d\xfe"), "alone");
    let memory = Memory::new("FIXED");
    let error = run(&memory, &folder, BackupOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("its name is not UTF-8"), "{error}");

    for _ in 0..2 {
        let report = run(&memory, &folder, skip()).await.unwrap();
        let mut left: Vec<&[u8]> = report
            .skipped
            .iter()
            .map(|left| left.path.as_os_str().as_bytes())
            .collect();
        left.sort_unstable();
        assert_eq!(left, [&b"a\xfe"[..], b"b\xff", b"c\xfd", b"c\xff"]);
        assert_eq!(report.numbers.errors, 4);
        assert_eq!(report.snapshot.stats.ignored_error_count, 4);
        let root = entries(&memory, report.snapshot.root_object().unwrap()).await;
        let mut names = Vec::new();
        for entry in &root {
            let held = match entry.kind {
                EntryKind::Directory => Vec::new(),
                _ => data(&memory, entry.object.unwrap()).await,
            };
            names.push((entry.name.to_string(), String::from_utf8(held).unwrap()));
        }
        let expected = [("c", ""), ("a", "kept"), ("b", "the first"), ("d", "alone")];
        assert_eq!(
            names,
            expected.map(|(name, held)| (format!("{name}\u{fffd}"), held.to_owned()))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_can_be_cancelled() {
    let folder = sample();
    let memory = Memory::new("FIXED");
    memory.blocked.store(true, Ordering::SeqCst);
    let cancel = CancellationToken::new();
    let backup = backup(&folder, BackupOptions::default()).cancelled_by(cancel.clone());
    let running = tokio::spawn({
        let memory = memory.clone();
        async move { backup.run(&memory, &mut memory.manifests().await).await }
    });
    while memory.waiting.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    memory.blocked.store(false, Ordering::SeqCst);
    let begun = std::time::Instant::now();
    let result = running.await.unwrap();
    assert!(matches!(result, Err(KopiaError::Cancelled)), "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(memory.flushed.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_is_resumed_from_its_checkpoint() {
    let folder = sample();
    write(folder.path().join("zz-large"), noise(3_000_000, 77));
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let options = BackupOptions {
        checkpoint_interval: Duration::from_millis(20),
        readers: 2,
        ..BackupOptions::default()
    };
    let killed = backup(&folder, options);
    let running = tokio::spawn({
        let memory = memory.clone();
        async move { killed.run(&memory, &mut memory.manifests().await).await }
    });
    // Let it store some, then let a checkpoint pass, then kill it.
    while memory.data.load(Ordering::SeqCst) < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    memory.blocked.store(true, Ordering::SeqCst);
    let checkpoint = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let manifests = memory.manifests().await;
        let found = list_snapshots(&manifests, Some(&info())).await.unwrap();
        if let [one] = found.as_slice() {
            if one.root_entry.as_ref().unwrap().summary.as_ref().unwrap().files > 60 {
                break one.clone();
            }
        } else {
            assert!(found.is_empty(), "only the newest checkpoint is kept");
        }
    };
    running.abort();
    assert_eq!(checkpoint.incomplete, "checkpoint");
    assert_eq!(
        checkpoint
            .root_entry
            .as_ref()
            .unwrap()
            .summary
            .as_ref()
            .unwrap()
            .incomplete,
        "checkpoint"
    );
    let kept = tree(&memory, &checkpoint).await;
    assert!(kept.values().all(|entry| entry.object.is_some()));

    // The threads of the killed run end in their time; another client goes on meanwhile.
    let other = Memory {
        blocked: Arc::default(),
        data: Arc::default(),
        ..memory.clone()
    };
    let report = run(&other, &folder, BackupOptions::default()).await.unwrap();
    assert!(report.numbers.cached_files > 60, "{:?}", report.numbers);
    let all = tree(&other, &report.snapshot).await;
    assert!(
        all.keys()
            .all(|path| !path.to_str().unwrap().contains(".checkpointed."))
    );
    assert!(data(&other, all[Path::new("zz-large")].object.unwrap()).await == noise(3_000_000, 77));
    let left = list_snapshots(&other.manifests().await, Some(&info()))
        .await
        .unwrap();
    assert_eq!(left, [report.snapshot], "the checkpoint is superseded");
    memory.blocked.store(false, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_and_special_files_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("cache")).unwrap();
    write(
        folder.path().join("cache/CACHEDIR.TAG"),
        "Signature: 8a477f597d28d172789f06886806bc55\n# more",
    );
    write(folder.path().join("cache/file"), "x");
    fs::create_dir(folder.path().join("no-cache")).unwrap();
    write(
        folder.path().join("no-cache/CACHEDIR.TAG"),
        "Signature: something else, also long enough",
    );
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    let memory = Memory::new("FIXED");
    let report = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    let found: Vec<_> = tree(&memory, &report.snapshot).await.into_keys().collect();
    assert_eq!(
        found,
        ["cache", "no-cache", "no-cache/CACHEDIR.TAG"].map(PathBuf::from)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_directories_and_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        write(folder.path().join(format!("file {number}")), number.to_string());
    }
    for number in 0..5 {
        write(
            folder.path().join(format!("large {number}")),
            noise(1_500_000, number),
        );
    }
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let options = BackupOptions {
        read_budget: 1000,
        ..BackupOptions::default()
    };
    let report = run(&memory, &folder, options).await.unwrap();
    let found = tree(&memory, &report.snapshot).await;
    assert_eq!(found.len(), 3005);
    assert_eq!(
        data(&memory, found[Path::new("file 2999")].object.unwrap()).await,
        b"2999"
    );
    assert!(data(&memory, found[Path::new("large 3")].object.unwrap()).await == noise(1_500_000, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_heeded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("logs/old")).unwrap();
    fs::create_dir(path.join("data")).unwrap();
    for name in [
        "a.txt",
        "b.tmp",
        "logs/x.log",
        "logs/old/y.log",
        "logs/keep.log",
        "data/z.tmp",
        "data/long",
    ] {
        write(path.join(name), format!("this is {name}"));
    }
    write(path.join("data/long"), "x".repeat(5000));
    write(path.join("logs/.kopiaignore"), "*.log\n!keep.log\n");
    let memory = Memory::new("FIXED");
    let mut manifests = memory.manifests().await;
    let mut policy = Policy::velero(2, i64::MAX);
    policy.files.ignore = vec!["*.tmp".to_owned()];
    policy.files.ignore_dot_files = vec![".kopiaignore".to_owned()];
    policy.files.max_file_size = 4000;
    policy.compression.compressor_name = "zstd".to_owned();
    policy.compression.never_compress = vec![".txt".to_owned()];
    set_policy(&mut manifests, &info(), &policy, memory.now()).unwrap();
    let report = backup(&folder, BackupOptions::default())
        .run(&memory, &mut manifests)
        .await
        .unwrap();
    let found = tree(&memory, &report.snapshot).await;
    let names: Vec<_> = found.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "a.txt",
            "data",
            "logs",
            "logs/.kopiaignore",
            "logs/keep.log",
            "logs/old"
        ]
    );
    let stats = &report.snapshot.stats;
    assert_eq!((stats.excluded_file_count, stats.excluded_dir_count), (5, 0));
    let compression = |name: &str| {
        let object = found[Path::new(name)].object.unwrap();
        memory.contents.entry(object.content().unwrap()).unwrap().1
    };
    assert_eq!(compression("a.txt"), HeaderId::NONE);
    assert_eq!(compression("logs/keep.log"), HeaderId::ZSTD);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_too_long_to_be_read_whole_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("logs")).unwrap();
    let memory = Memory::new("FIXED");
    for (length, refused) in [(1 << 20, false), ((1 << 20) + 1, true)] {
        write(folder.path().join("logs/.kopiaignore"), "#".repeat(length));
        let mut manifests = memory.manifests().await;
        let mut policy = Policy::velero(2, i64::MAX);
        policy.files.ignore_dot_files = vec![".kopiaignore".to_owned()];
        set_policy(&mut manifests, &info(), &policy, memory.now()).unwrap();
        let result = backup(&folder, BackupOptions::default())
            .run(&memory, &mut manifests)
            .await;
        assert_eq!(result.is_err(), refused, "{length}");
        if let Err(error) = result {
            assert!(
                error.to_string().contains("logs/.kopiaignore is longer than"),
                "{error}"
            );
        }
    }
}

/// How many directories below a folder this process has open.
fn open_directories(folder: &TempDir) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let paths = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    paths
        .filter(|path| path.starts_with(folder.path()) && path.is_dir())
        .count()
}

/// Each directory has one file, a small one or a large one, and none of them can be stored for a while.
#[tokio::test(flavor = "multi_thread")]
async fn few_directories_are_open_at_a_time() {
    for length in [1, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..1000 {
            let path = folder.path().join(number.to_string());
            fs::create_dir(&path).unwrap();
            let file = fs::File::create(path.join("file")).unwrap();
            file.set_len(length).unwrap();
        }
        let memory = Memory::new("DYNAMIC-128K-BUZHASH");
        memory.blocked.store(true, Ordering::SeqCst);
        let options = BackupOptions {
            readers: 64,
            ..BackupOptions::default()
        };
        let backup = backup(&folder, options);
        let progress = backup.progress();
        let running = tokio::spawn({
            let memory = memory.clone();
            async move { backup.run(&memory, &mut memory.manifests().await).await }
        });
        // Until all threads wait.
        let mut listed = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = progress.numbers().directories;
            if memory.waiting.load(Ordering::SeqCst) > 0 && now == listed {
                break;
            }
            listed = now;
        }
        let open = open_directories(&folder);
        assert!(open < 400, "{open} directories are open for files of {length}");
        memory.blocked.store(false, Ordering::SeqCst);
        let report = running.await.unwrap().unwrap();
        assert_eq!(
            (report.numbers.directories, report.numbers.hashed_files),
            (1001, 1000)
        );
    }
}

/// Runs itself again, because all threads of a process share the limit.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_descriptors_end_the_backup_whatever_the_policy() {
    const CHILD: &str = "HOLDFAST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = "upload::tests::too_few_descriptors_end_the_backup_whatever_the_policy";
        let child = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 100 && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("d/".repeat(150))).unwrap();
    let memory = Memory::new("FIXED");
    let error = run(&memory, &folder, skip()).await.unwrap_err();
    let KopiaError::Io { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        source.raw_os_error(),
        Some(rustix::io::Errno::MFILE.raw_os_error())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_splitter_of_kopia_that_is_not_here_is_not_replaced() {
    let folder = sample();
    let memory = Memory::new("FIXED");
    for (name, refused) in [("DYNAMIC-4M-RABINKARP", true), ("MADE-UP", false)] {
        let mut manifests = memory.manifests().await;
        let mut policy = Policy::default();
        policy.splitter.algorithm = name.to_owned();
        set_policy(&mut manifests, &info(), &policy, memory.now()).unwrap();
        let result = backup(&folder, BackupOptions::default())
            .run(&memory, &mut manifests)
            .await;
        assert_eq!(result.is_err(), refused, "{name}");
        if let Err(error) = result {
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_tree() {
    super::raise_open_files_limit();
    let folder = tempfile::tempdir().unwrap();
    let mut path = folder.path().to_owned();
    for _ in 0..1500 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    write(path.join("f"), "deep");
    let memory = Memory::new("FIXED");
    let report = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    let summary = report.snapshot.root_entry.unwrap().summary.unwrap();
    assert_eq!((summary.dirs, summary.files), (1501, 1));
}

/// The same on a repository with all its parts: what another connection finds is what was stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_everything() {
    let folder = sample();
    let scratch = tempfile::tempdir().unwrap();
    let blobs = Arc::new(MemoryBlobs::new());
    let password = Secret::new("password");
    let connect = || ConnectOptions::new(scratch.path());
    let created = Repository::create(blobs.clone(), &password, &CreateOptions::default(), connect())
        .await
        .unwrap();
    let mut roots = Vec::new();
    for round in 0..2 {
        let repository = Repository::connect(blobs.clone(), &password, connect())
            .await
            .unwrap();
        let writer = repository.writer(WriterOptions::default()).unwrap();
        let mut manifests = repository.manifests().await.unwrap();
        let parents = parent_snapshots(&manifests, &info(), &ParentFilter::default())
            .await
            .unwrap();
        assert_eq!(parents.len(), round);
        let backup = backup(&folder, BackupOptions::default()).parents(parents);
        let report = backup.run(&writer, &mut manifests).await.unwrap();
        assert_eq!(report.numbers.opened_files, if round == 0 { 214 } else { 0 });
        roots.push(report.snapshot.root_object().unwrap());
    }
    assert_eq!(roots[0], roots[1]);
    created.refresh().await.unwrap();
    let manifests = created.manifests().await.unwrap();
    assert_eq!(list_snapshots(&manifests, Some(&info())).await.unwrap().len(), 2);
    let source: Arc<dyn ContentSource> = Arc::new(created.contents().clone());
    let mut stream = DirectoryStream::open(Arc::clone(&source), roots[0]).unwrap();
    while let Some(entry) = stream.next().await.unwrap() {
        if entry.kind == EntryKind::File {
            let length = object_length(Arc::clone(&source), entry.object.unwrap())
                .await
                .unwrap();
            assert_eq!(length, entry.size, "{:?}", entry.name);
        }
    }
}

/// A repository in memory, and its clock.
async fn timed(blobs: &MemoryBlobs, scratch: &TempDir) -> (Repository, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(1_800_000_000));
    let clock = {
        let seconds = Arc::clone(&seconds);
        move || Timestamp::from_second(seconds.load(Ordering::SeqCst).cast_signed()).unwrap()
    };
    let options = ConnectOptions::new(scratch.path()).clock(Arc::new(clock));
    let (blobs, password) = (Arc::new(blobs.clone()), Secret::new("password"));
    let created = Repository::create(blobs, &password, &CreateOptions::default(), options).await;
    (created.unwrap(), seconds)
}

/// The pack of the manifest is stored, and an index is due at once; the pack of the files cannot be stored.
#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_is_seen_before_its_data() {
    let (folder, scratch, blobs) = (sample(), tempfile::tempdir().unwrap(), MemoryBlobs::new());
    let (repository, clock) = timed(&blobs, &scratch).await;
    blobs.inject(FaultRule::every(Operation::Put, BlobFault::Unavailable).on("p"));
    let writer = repository.writer(WriterOptions::default()).unwrap();
    clock.fetch_add(11 * 60, Ordering::SeqCst);
    let mut manifests = repository.manifests().await.unwrap();
    let result = backup(&folder, BackupOptions::default())
        .run(&writer, &mut manifests)
        .await;
    assert!(matches!(result, Err(KopiaError::Earlier(_))), "{result:?}");
    // What was on its way gets there.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(writer);
    repository.refresh().await.unwrap();
    let seen = repository.index().contents_of(Some(Prefix::MANIFEST)).unwrap();
    assert_eq!(seen.count(), 0, "manifests in an index");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_marked_as_deleted_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("kept"), "some bytes");
    write(folder.path().join("deleted"), "other bytes");
    let (scratch, blobs) = (tempfile::tempdir().unwrap(), MemoryBlobs::new());
    let (repository, _) = timed(&blobs, &scratch).await;
    let writer = repository.writer(WriterOptions::default()).unwrap();
    let mut manifests = repository.manifests().await.unwrap();
    let put = |text: &str| writer.contents().put(None, text.into(), HeaderId::NONE);
    for round in 0..3 {
        let parents = parent_snapshots(&manifests, &info(), &ParentFilter::default())
            .await
            .unwrap();
        let backup = backup(&folder, BackupOptions::default()).parents(parents);
        let report = backup.run(&writer, &mut manifests).await.unwrap();
        assert_eq!(report.numbers.opened_files, [2, 1, 0][round], "round {round}");
        let content = tokio::task::block_in_place(|| put("other bytes")).unwrap();
        assert!(!repository.contents().info(&content).unwrap().deleted);
        if round == 0 {
            writer.contents().flush_deleting(&[content]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_not_further_apart_than_maintenance_allows() {
    let folder = tempfile::tempdir().unwrap();
    for (seconds, accepted) in [(0, false), (2700, true), (2701, false)] {
        let options = BackupOptions {
            checkpoint_interval: Duration::from_secs(seconds),
            ..BackupOptions::default()
        };
        let result = run(&Memory::new("FIXED"), &folder, options).await;
        assert_eq!(result.is_ok(), accepted, "{seconds} s: {result:?}");
    }
}
