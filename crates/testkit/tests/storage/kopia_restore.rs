//! Restore and verification of what the real kopia wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_kopia::blob::{Layout, StoreBlobs};
use holdfast_kopia::restore::{OnError, Restore, RestoreOptions, RestoreReport, RestoreTarget};
use holdfast_kopia::snapshot::DirEntry;
use holdfast_kopia::verify::{Verification, VerifyOptions, VerifyReport};
use holdfast_kopia::{ConnectOptions, KopiaResult, MemoryLimits, Repository};
use holdfast_store::{RetryPolicy, Secret, Store, StoreConfig};
use holdfast_testkit::kopia::{Kopia, Place};
use holdfast_testkit::tree::{Times, differences, ensure_same};
use tokio_util::sync::CancellationToken;

use crate::trees;

const PASSWORD: &str = "a password";

/// A repository of kopia with one snapshot.
struct Kept {
    place: tempfile::TempDir,
    root: DirEntry,
}

impl Kept {
    /// Has kopia keep a tree.
    fn new(source: &Path, create: &[&str], compression: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let kopia = Kopia::new(&place.path().join("home"), PASSWORD).unwrap();
        kopia
            .create(&Place::Directory(place.path().join("repository")), create)
            .unwrap();
        let compression = format!("--compression={compression}");
        kopia.run(&["policy", "set", "--global", &compression]).unwrap();
        let source = source.to_str().unwrap();
        let snapshot = kopia.run(&["snapshot", "create", source, "--json"]).unwrap();
        let snapshot: serde_json::Value = serde_json::from_str(&snapshot).unwrap();
        let root = serde_json::from_value(snapshot["rootEntry"].clone()).unwrap();
        Self { place, root }
    }

    fn directory(&self) -> PathBuf {
        self.place.path().join("repository")
    }

    async fn open(&self) -> KopiaResult<Repository> {
        open(&self.directory(), self.place.path()).await
    }
}

async fn open(directory: &Path, scratch: &Path) -> KopiaResult<Repository> {
    let path = directory.to_str().unwrap().to_owned();
    let config =
        StoreConfig::from_variables(&BTreeMap::from([("WALG_FILE_PREFIX".to_owned(), path)])).unwrap();
    let store = Store::open(&config, RetryPolicy::default()).unwrap();
    let storage = Arc::new(StoreBlobs::new(store, Layout::Sharded));
    let options = ConnectOptions::new(scratch).memory(MemoryLimits::restore());
    Repository::connect(storage, &Secret::new(PASSWORD), options).await
}

async fn restore(
    repository: &Repository,
    root: &DirEntry,
    target: &Path,
    on_error: OnError,
) -> KopiaResult<RestoreReport> {
    let options = RestoreOptions {
        on_error,
        sync: false,
        ..RestoreOptions::default()
    };
    let target = RestoreTarget::Path(target.to_owned());
    Restore::new(options)
        .run(
            repository,
            &root.clone().into(),
            &target,
            Arc::default(),
            &CancellationToken::new(),
        )
        .await
}

async fn verify(repository: &Repository, root: &DirEntry, read_percent: f64) -> VerifyReport {
    let options = VerifyOptions {
        read_percent,
        ..VerifyOptions::default()
    };
    let verification = Verification::begin(repository, options).await.unwrap();
    let never = CancellationToken::new();
    verification.verify(root, Arc::default(), &never).await.unwrap()
}

/// Each format with other hashes, encryptions, splitters and compressions.
const FORMATS: [(&[&str], &str); 8] = [
    (&[], "none"),
    (
        &[
            "--block-hash=BLAKE3-256",
            "--encryption=CHACHA20-POLY1305-HMAC-SHA256",
        ],
        "zstd-fastest",
    ),
    (
        &[
            "--format-version=1",
            "--block-hash=HMAC-SHA256",
            "--object-splitter=FIXED-1M",
        ],
        "gzip",
    ),
    (
        &[
            "--format-version=2",
            "--block-hash=HMAC-SHA3-256",
            "--object-splitter=DYNAMIC-1M-BUZHASH",
        ],
        "s2-default",
    ),
    (
        &["--block-hash=BLAKE2S-128", "--object-splitter=FIXED-2M"],
        "pgzip-best-speed",
    ),
    (
        &[
            "--block-hash=BLAKE2B-256",
            "--format-block-key-derivation-algorithm=pbkdf2-sha256-600000",
        ],
        "deflate-default",
    ),
    (&["--block-hash=HMAC-SHA224"], "zstd-better-compression"),
    (&["--object-splitter=DYNAMIC-8M-BUZHASH"], "s2-parallel-4"),
];

#[tokio::test(flavor = "multi_thread")]
async fn trees_come_back_as_they_were() {
    let source = tempfile::tempdir().unwrap();
    trees::odd(source.path());
    for (create, compression) in FORMATS {
        let kept = Kept::new(source.path(), create, compression);
        let repository = kept.open().await.unwrap();
        let target = kept.place.path().join("target");
        let report = restore(&repository, &kept.root, &target, OnError::Stop)
            .await
            .unwrap();
        ensure_same(source.path(), &target, Times::All).unwrap();
        let counts = report.counts;
        assert_eq!(
            (counts.files + counts.symlinks, counts.bytes),
            (counts.total_files, counts.total_bytes)
        );
        // Over what is there, with all its modes.
        restore(&repository, &kept.root, &target, OnError::Stop)
            .await
            .unwrap();
        ensure_same(source.path(), &target, Times::All).unwrap();
        let report = verify(&repository, &kept.root, 100.0).await;
        assert!(report.is_sound(), "{:?}", report.failures.first());
        assert_eq!(report.counts.bytes, counts.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_very_many_files() {
    let source = tempfile::tempdir().unwrap();
    trees::many(source.path(), 20_000);
    let kept = Kept::new(source.path(), &[], "none");
    let repository = kept.open().await.unwrap();
    let target = kept.place.path().join("target");
    restore(&repository, &kept.root, &target, OnError::Stop)
        .await
        .unwrap();
    ensure_same(source.path(), &target, Times::All).unwrap();
}

/// All files of a repository whose blobs begin so, by the layout in folders.
fn blobs(directory: &Path, kind: char) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .strip_prefix(directory)
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(kind)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whatever is broken: what verification finds, restore fails for, and everything else is restored.
async fn assert_told(kept: &Kept, source: &Path, broken: &str) {
    let repository = match kept.open().await {
        Ok(repository) => repository,
        // Then nobody takes it for sound.
        Err(error) => return println!("{broken}: {error}"),
    };
    let report = verify(&repository, &kept.root, 100.0).await;
    let target = tempfile::tempdir_in(kept.place.path()).unwrap();
    let all = OnError::Continue { list: 100_000 };
    let restored = restore(&repository, &kept.root, target.path(), all)
        .await
        .unwrap();
    let paths = |failures: &[holdfast_kopia::restore::Failure]| -> BTreeSet<PathBuf> {
        failures.iter().map(|failure| failure.path.clone()).collect()
    };
    let found = paths(&report.failures);
    assert_eq!(paths(&restored.failures), found, "{broken}");
    println!(
        "{broken}: {} affected: {:?}",
        found.len(),
        report.failures.first()
    );
    if found.is_empty() {
        ensure_same(source, target.path(), Times::All).unwrap();
        return;
    }
    // Differences are only at what was named, below it, or, as a difference of names, in the directory that holds it.
    for line in differences(source, target.path(), Times::All).unwrap() {
        let named = found.iter().any(|path| {
            // Without the root there is nothing.
            let Some(parent) = path.parent() else { return true };
            let names = Path::new(".").join(parent);
            line.contains(path.to_str().unwrap()) || line.starts_with(&format!("{}:", names.display()))
        });
        assert!(named || line.starts_with("and "), "{broken}: {line}");
    }
    let stopped = restore(&repository, &kept.root, &target.path().join("x"), OnError::Stop).await;
    assert!(stopped.is_err(), "{broken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_with_what_it_affects() {
    let source = tempfile::tempdir().unwrap();
    trees::small(source.path());
    let kept = Kept::new(source.path(), &[], "none");
    let mut seed = 1_u64;
    let mut random = move |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for kind in ['p', 'q', 'x'] {
        for blob in blobs(&kept.directory(), kind) {
            let whole = std::fs::read(&blob).unwrap();
            let name = blob.file_name().unwrap().to_str().unwrap();
            for _ in 0..4 {
                let at = random(whole.len() as u64);
                let mut changed = whole.clone();
                changed[usize::try_from(at).unwrap()] ^= 1 << random(8);
                std::fs::write(&blob, changed).unwrap();
                assert_told(&kept, source.path(), &format!("{kind} {name} changed at {at}")).await;
                let length = usize::try_from(at).unwrap();
                std::fs::write(&blob, &whole[..length]).unwrap();
                assert_told(&kept, source.path(), &format!("{kind} {name} cut at {at}")).await;
            }
            std::fs::remove_file(&blob).unwrap();
            assert_told(&kept, source.path(), &format!("{kind} {name} missing")).await;
            std::fs::write(&blob, whole).unwrap();
        }
    }
    let repository = kept.open().await.unwrap();
    assert!(verify(&repository, &kept.root, 100.0).await.is_sound());
}
