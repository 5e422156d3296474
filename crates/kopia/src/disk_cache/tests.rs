use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::CacheOptions;
use super::entries::{DiskCache, EntryName, FOLDER, LEDGER, Part, UNFINISHED};
use crate::blob::memory::Operation;
use crate::blob::{BlobStorage, MemoryBlobs};
use crate::content::WriterOptions;
use crate::format::{CreateOptions, REPOSITORY, RepositoryFormat};
use crate::snapshot::{ParentFilter, SourceInfo, parent_snapshots};
use crate::upload::{Backup, BackupReport, BackupSource};
use crate::{ConnectOptions, Repository};

/// A directory with a cache.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self, limit: u64) -> CacheOptions {
        CacheOptions {
            directory: self.0.path().to_owned(),
            limit,
        }
    }

    fn open(&self, limit: u64) -> DiskCache {
        DiskCache::open(&self.options(limit), b"secret").unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join(FOLDER)
    }

    /// The files of entries.
    fn entries(&self) -> Vec<PathBuf> {
        files(&self.folder())
            .into_iter()
            .filter(|path| path.file_name().unwrap() != LEDGER)
            .collect()
    }

    /// What entries and remains take, in whole blocks.
    fn used(&self) -> u64 {
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len().div_ceil(4096) * 4096);
        self.entries().iter().map(size).sum()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn name(cache: &DiskCache, number: u64) -> EntryName {
    cache.name(&format!("q{number}"), Part::Whole)
}

/// Bytes that are others for each number.
fn data(number: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&number.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes.into()
}

fn put(cache: &DiskCache, number: u64, length: usize) {
    cache.put(&name(cache, number), &[data(number, length)]);
}

/// Whether an entry is there; it must be the right one then.
fn has(cache: &DiskCache, number: u64, length: usize) -> bool {
    let found = cache.get(&name(cache, number), u64::MAX);
    found.is_some_and(|found| {
        assert_eq!(found, data(number, length));
        true
    })
}

#[test]
fn entries_come_back_to_those_who_know_the_secret() {
    let place = Place::new();
    let cache = place.open(1 << 20);
    let part = Part::Range {
        offset: 5,
        length: 10,
    };
    let ranged = cache.name("q1", part);
    cache.put(&ranged, &[data(1, 4), data(2, 6)]);
    put(&cache, 1, 1000);
    put(&cache, 2, 0);
    let again = place.open(1 << 20);
    assert!(has(&again, 1, 1000) && has(&again, 2, 0) && !has(&again, 3, 0));
    let expected = [data(1, 4), data(2, 6)].concat();
    assert_eq!(again.get(&again.name("q1", part), 10).unwrap(), expected);
    assert!(cache.get(&cache.name("q1", Part::Size), 10).is_none());
    let other = DiskCache::open(&place.options(1 << 20), b"another").unwrap();
    assert!(other.get(&name(&other, 1), 1 << 20).is_none());
    // Nobody learns from the names what is there.
    for path in place.entries() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.len() == 64 && !name.contains('q'), "{name}");
    }
}

/// What becomes of the bytes of a file.
type Damage = fn(&[u8]) -> Vec<u8>;

#[test]
fn what_is_damaged_is_removed_and_not_given() {
    let place = Place::new();
    let cache = place.open(1 << 20);
    let whole = |path: &Path| fs::read(path).unwrap();
    let damages: [(&str, Damage); 7] = [
        ("first byte", |old| flipped(old, 0)),
        ("first byte of data", |old| flipped(old, 32)),
        ("last byte", |old| flipped(old, old.len() - 1)),
        ("one byte less", |old| old[..old.len() - 1].to_vec()),
        ("one byte more", |old| [old, &[0]].concat()),
        ("only a part of the code", |old| old[..31].to_vec()),
        ("nothing", |_| Vec::new()),
    ];
    for (what, damage) in damages {
        put(&cache, 1, 5000);
        let [path] = place.entries().try_into().unwrap();
        fs::write(&path, damage(&whole(&path))).unwrap();
        assert!(!has(&cache, 1, 5000), "{what}");
        assert_eq!(place.entries(), Vec::<PathBuf>::new(), "{what}");
    }
    // An entry that was put in the place of another.
    put(&cache, 1, 5000);
    let [first] = place.entries().try_into().unwrap();
    let bytes = whole(&first);
    put(&cache, 2, 5000);
    for path in place.entries() {
        fs::write(path, &bytes).unwrap();
    }
    assert!(has(&cache, 1, 5000) && !has(&cache, 2, 5000));
    // One that is longer than it can be is not read.
    let named = name(&cache, 1);
    assert!(cache.get(&named, 4999).is_none());
}

fn flipped(old: &[u8], at: usize) -> Vec<u8> {
    let mut new = old.to_vec();
    new[at] ^= 1;
    new
}

/// As if an entry had been used so many seconds ago.
fn used_ago(cache: &DiskCache, place: &Place, number: u64, seconds: u64) {
    let before = place.entries();
    cache.put(&name(cache, number), &[data(number, 10_000)]);
    let path = place
        .entries()
        .into_iter()
        .find(|path| !before.contains(path))
        .unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000 - seconds);
    fs::File::open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let place = Place::new();
    // Room for ten entries of three blocks; after making room, for eight.
    let limit = 10 * 3 * 4096;
    let cache = place.open(limit);
    for number in 0..10 {
        used_ago(&cache, &place, number, 1000 - number);
    }
    assert_eq!(place.used(), limit);
    // Reading one makes it the newest, whatever it was.
    assert!(has(&cache, 0, 10_000));
    let [newest] = place
        .entries()
        .into_iter()
        .filter(|path| {
            let used = fs::metadata(path).unwrap().modified().unwrap();
            used < SystemTime::UNIX_EPOCH + Duration::from_secs(1_999_999_000)
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_001);
    fs::File::open(newest).unwrap().set_modified(now).unwrap();
    put(&cache, 10, 10_000);
    let left: Vec<u64> = (0..11).filter(|number| has(&cache, *number, 10_000)).collect();
    assert_eq!(left, [0, 4, 5, 6, 7, 8, 9, 10]);
    // What would push everything else out is not kept.
    put(&cache, 11, 100_000);
    assert!(!has(&cache, 11, 100_000));
    // A lower limit holds from the start.
    place.open(limit / 2);
    assert_eq!(place.entries().len(), 4);
}

#[test]
fn remains_are_removed_and_the_files_of_others_are_not() {
    let place = Place::new();
    let limit = 100 * 4096;
    let cache = place.open(limit);
    for number in 0..50 {
        put(&cache, number, 4000);
    }
    // Killed while writing, and somebody has put a file there.
    fs::write(place.folder().join(format!("{UNFINISHED}x1")), [0; 9000]).unwrap();
    fs::write(place.folder().join("notes"), "keep me").unwrap();
    fs::write(place.0.path().join("elsewhere"), "keep me, too").unwrap();
    let again = place.open(limit);
    assert_eq!(place.entries().len(), 51);
    drop(again);
    // Whatever the ledger says, the limit holds.
    for broken in [&b""[..], b"short", &[0; 16], &[0xff; 16]] {
        fs::write(place.folder().join(LEDGER), broken).unwrap();
        for number in 100..250 {
            put(&cache, number, 4000);
            assert!(place.used() <= limit + 4096, "{broken:?}");
        }
    }
    assert!(place.folder().join("notes").exists() && place.0.path().join("elsewhere").exists());
}

#[test]
fn the_limit_holds_while_several_write() {
    let place = Place::new();
    let limit = 64 * 4096;
    let over = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if place.used() > limit {
                    over.store(true, Ordering::Relaxed);
                }
            }
        });
        // Two caches are as good as two processes: each opens the ledger for itself. Two threads share each.
        let writers: Vec<_> = [place.open(limit), place.open(limit)]
            .into_iter()
            .map(Arc::new)
            .flat_map(|cache| [Arc::clone(&cache), cache])
            .enumerate()
            .map(|(which, cache)| {
                scope.spawn(move || {
                    let mut found = 0;
                    for number in 0..300 {
                        // Half of the entries are those of the others.
                        let number =
                            number * 8 + [0, u64::try_from(which).unwrap()][usize::from(number % 2 == 0)];
                        let length = usize::try_from(number % 7).unwrap() * 1500;
                        put(&cache, number, length);
                        found += u64::from(has(&cache, number, length));
                    }
                    found
                })
            })
            .collect();
        let found: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        done.store(true, Ordering::Relaxed);
        assert!(found > 600, "hardly anything was kept: {found}");
    });
    assert!(!over.load(Ordering::Relaxed));
}

#[test]
fn a_cache_that_is_gone_is_no_error() {
    let place = Place::new();
    let cache = place.open(1 << 20);
    put(&cache, 1, 10);
    fs::remove_dir_all(place.folder()).unwrap();
    assert!(!has(&cache, 1, 10));
    put(&cache, 1, 10);
    assert!(!has(&cache, 1, 10));
    // One that cannot be made is: somebody asked for it.
    fs::write(place.folder(), "a file").unwrap();
    assert!(DiskCache::open(&place.options(1), b"secret").is_err());
}

/// A repository in memory, and a tree to be backed up into it.
struct Bench {
    blobs: MemoryBlobs,
    format: Arc<RepositoryFormat>,
    scratch: TempDir,
    tree: TempDir,
}

impl Bench {
    fn new() -> Self {
        let tree = tempfile::tempdir().unwrap();
        for number in 0..40 {
            let folder = tree.path().join(format!("d{number}"));
            fs::create_dir(&folder).unwrap();
            for file in 0..30 {
                fs::write(folder.join(format!("f{file}")), data(number * 100 + file, 500)).unwrap();
            }
        }
        let blobs = MemoryBlobs::new();
        let format = RepositoryFormat::in_memory(&CreateOptions::default());
        blobs.insert(REPOSITORY, format.description().clone(), Timestamp::UNIX_EPOCH);
        Self {
            blobs,
            format: Arc::new(format),
            scratch: tempfile::tempdir().unwrap(),
            tree,
        }
    }

    fn storage(&self) -> Arc<dyn BlobStorage> {
        Arc::new(self.blobs.clone())
    }

    /// Backs up as a new process would; how often blobs were read or looked for, without the lists.
    async fn backup(&self, cache: Option<CacheOptions>) -> (BackupReport, u64) {
        let before = self.requests();
        let options = ConnectOptions::new(self.scratch.path()).cache(cache);
        let repository = Repository::open(self.storage(), Arc::clone(&self.format), options)
            .await
            .unwrap();
        let mut manifests = repository.manifests().await.unwrap();
        let writer = repository.writer(WriterOptions::default()).unwrap();
        let info = SourceInfo {
            host: "host".to_owned(),
            user_name: "user".to_owned(),
            path: "/tree".to_owned(),
        };
        let parents = parent_snapshots(&manifests, &info, &ParentFilter::default())
            .await
            .unwrap();
        let source = BackupSource::Directory(self.tree.path().to_owned());
        let backup = Backup::new(source, info).parents(parents);
        let report = backup.run(&writer, &mut manifests).await.unwrap();
        (report, self.requests() - before)
    }

    fn requests(&self) -> u64 {
        [Operation::Get, Operation::GetRange, Operation::Metadata]
            .map(|operation| self.blobs.calls(operation))
            .iter()
            .sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_backup_reads_nothing_from_the_storage() {
    let (bench, place) = (Bench::new(), Place::new());
    let cache = Some(place.options(64 << 20));
    for run in 0..5 {
        fs::write(bench.tree.path().join("d7/f7"), data(run, 600)).unwrap();
        bench.backup(cache.clone()).await;
    }
    let (without, cold) = bench.backup(None).await;
    assert_eq!(without.numbers.cached_files, 1200);
    assert!(cold >= 10, "{cold}");
    // What the run without a cache wrote is read, and that is all: its index, its pack of metadata and the size of that;
    // and the description of the repository, which is looked at again whenever an index is written.
    let (_, warm) = bench.backup(cache.clone()).await;
    assert!(warm <= 4, "{warm}");
    let (last, hot) = bench.backup(cache.clone()).await;
    assert_eq!(hot, 1);
    assert_eq!(last.numbers.cached_files, 1200);
    assert_eq!(last.snapshot.root_object(), without.snapshot.root_object());

    // Whatever becomes of the cache, the backup is the same.
    for path in place.entries() {
        let bytes = fs::read(&path).unwrap();
        fs::write(path, flipped(&bytes, 40.min(bytes.len() - 1))).unwrap();
    }
    let (damaged, again) = bench.backup(cache.clone()).await;
    assert!(again >= cold, "{again}");
    assert_eq!(damaged.snapshot.root_object(), without.snapshot.root_object());
    let (_, hot) = bench.backup(cache).await;
    assert_eq!(hot, 1);

    // Nothing of the tree can be read in it.
    for path in place.entries() {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"\"name\""));
    }
}
