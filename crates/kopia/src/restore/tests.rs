//! Restores of trees that are kept in memory.

mod extended;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::content::ContentId;
use crate::snapshot::DirEntry;
use crate::tree::OnError;
use crate::tree::testing::{MemoryPacks, Node, directory, keep, noise, sample, shared};

const LIST: OnError = OnError::Continue { list: 100 };

fn options(on_error: OnError) -> RestoreOptions {
    RestoreOptions {
        on_error,
        sync: false,
        ..RestoreOptions::default()
    }
}

async fn restore(
    packs: &Arc<MemoryPacks>,
    root: &DirEntry,
    target: &Path,
    options: RestoreOptions,
) -> KopiaResult<RestoreReport> {
    restore_cancellable(packs, root, target, options, &CancellationToken::new()).await
}

async fn restore_cancellable(
    packs: &Arc<MemoryPacks>,
    root: &DirEntry,
    target: &Path,
    options: RestoreOptions,
    cancel: &CancellationToken,
) -> KopiaResult<RestoreReport> {
    restore_within(ByteBudget::new(64 << 20), packs, root, target, options, cancel).await
}

async fn restore_within(
    memory: ByteBudget,
    packs: &Arc<MemoryPacks>,
    root: &DirEntry,
    target: &Path,
    options: RestoreOptions,
    cancel: &CancellationToken,
) -> KopiaResult<RestoreReport> {
    let target = RestoreTarget::Path(target.to_owned());
    let progress = Arc::default();
    Restore::new(options)
        .run_with(
            shared(packs),
            memory,
            &root.clone().into(),
            &target,
            progress,
            cancel,
        )
        .await
}

fn assert_same(node: &Node, path: &Path) {
    let stat = fs::symlink_metadata(path).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_500_000_000, 42), "{path:?}");
    match node {
        Node::File(data) => {
            assert_eq!(stat.mode(), 0o100_640, "{path:?}");
            assert!(fs::read(path).unwrap() == *data, "{path:?}");
        }
        Node::Link(points_to) => assert_eq!(fs::read_link(path).unwrap(), Path::new(points_to)),
        Node::Directory(nodes) => {
            assert_eq!(stat.mode(), 0o040_750, "{path:?}");
            let there: BTreeSet<_> = fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert_eq!(there, nodes.iter().map(|(name, _)| name.into()).collect());
            for (name, node) in nodes {
                assert_same(node, &path.join(name));
            }
        }
    }
}

fn kept(node: &Node) -> (Arc<MemoryPacks>, DirEntry, TempDir) {
    let packs = Arc::new(MemoryPacks::default());
    let root = keep(&packs, node);
    (packs, root, tempfile::tempdir().unwrap())
}

/// Contents that are in one tree and not in another.
fn contents_of(node: &Node) -> BTreeSet<ContentId> {
    let packs = MemoryPacks::default();
    keep(&packs, node);
    packs.ids().into_iter().collect()
}

#[tokio::test]
async fn a_tree_comes_back_as_it_was() {
    let (packs, root, place) = kept(&sample());
    let target = place.path().join("new/target");
    let report = restore(&packs, &root, &target, options(OnError::Stop))
        .await
        .unwrap();
    assert_same(&sample(), &target);
    let counts = report.counts;
    assert_eq!((counts.files, counts.symlinks, counts.failed), (308, 1, 0));
    assert_eq!(
        (counts.files + counts.symlinks, counts.bytes),
        (counts.total_files, counts.total_bytes)
    );
    // "large" and "same", "c" and "same" share contents; each was decoded once, and many were read together.
    let contents = packs.ids().len() as u64;
    // Only the list of parts that both large files have was needed twice.
    assert_eq!(packs.decoded.load(Ordering::Relaxed), contents + 1);
    assert!(packs.reads.load(Ordering::Relaxed) < contents / 10);
    assert!(fs::metadata(target.join("sparse")).unwrap().blocks() * 512 < 100_000);

    // Once more, over what is there: the same; and passing over what is there, nothing is read but directories.
    restore(&packs, &root, &target, options(OnError::Stop))
        .await
        .unwrap();
    assert_same(&sample(), &target);
    let before = packs.decoded.load(Ordering::Relaxed);
    let again = RestoreOptions {
        skip_existing: true,
        ..options(OnError::Stop)
    };
    let report = restore(&packs, &root, &target, again).await.unwrap();
    assert_eq!((report.counts.skipped, report.counts.files), (309, 0));
    assert_eq!(
        report.counts.skipped_bytes,
        report.counts.total_bytes + "../elsewhere".len() as u64
    );
    assert!(packs.decoded.load(Ordering::Relaxed) - before < 20);
}

#[tokio::test]
async fn restores_that_share_memory_take_turns() {
    let (packs, root, place) = kept(&sample());
    let (memory, never) = (ByteBudget::new(1 << 20), CancellationToken::new());
    let to = |name: &str| place.path().join(name);
    let targets = [to("one"), to("two"), to("three")];
    let (packs, root, never) = (&packs, &root, &never);
    let run = |target: &PathBuf| {
        let (memory, target) = (memory.clone(), target.clone());
        async move { restore_within(memory, packs, root, &target, options(OnError::Stop), never).await }
    };
    let all = futures::future::join_all(targets.iter().map(run));
    let reports = tokio::time::timeout(Duration::from_mins(1), all).await;
    assert!(
        reports
            .expect("they wait for each other")
            .iter()
            .all(Result::is_ok)
    );
    for target in &targets {
        assert_same(&sample(), target);
    }
}

#[tokio::test]
async fn a_single_file_and_a_bare_directory() {
    let (packs, root, place) = kept(&Node::File(noise(1, 300_000)));
    let target = place.path().join("d/file");
    restore(&packs, &root, &target, options(OnError::Stop))
        .await
        .unwrap();
    assert_same(&Node::File(noise(1, 300_000)), &target);

    let (packs, root, place) = kept(&sample());
    let target = place.path().join("d");
    fs::create_dir(&target).unwrap();
    let before = fs::metadata(&target).unwrap().mode();
    let source = RestoreSource::Directory(root.object.unwrap());
    Restore::new(options(OnError::Stop))
        .run_with(
            shared(&packs),
            ByteBudget::new(1 << 20),
            &source,
            &RestoreTarget::Path(target.clone()),
            Arc::default(),
            &CancellationToken::new(),
        )
        .await
        .unwrap();
    assert_eq!(fs::metadata(&target).unwrap().mode(), before);
    assert_same(
        &directory([
            ("c", Node::File(noise(7, 100))),
            ("same", Node::File(noise(7, 100))),
        ]),
        &target.join("deep/a/b"),
    );
}

#[tokio::test]
async fn without_sparse_files_have_all_their_blocks() {
    let (packs, root, place) = kept(&sample());
    let target = place.path().join("t");
    let full = RestoreOptions {
        sparse: false,
        ..options(OnError::Stop)
    };
    restore(&packs, &root, &target, full).await.unwrap();
    assert_same(&sample(), &target);
    assert!(fs::metadata(target.join("sparse")).unwrap().blocks() * 512 >= 500_000);
}

/// Breaks something, and expects that exactly these entries fail and all others are restored.
async fn assert_affected(breakage: impl FnOnce(&MemoryPacks), expected: &[&str]) -> Vec<Failure> {
    let node = sample();
    let (packs, root, place) = kept(&node);
    breakage(&packs);
    let target = place.path().join("t");
    let report = restore(&packs, &root, &target, options(LIST)).await.unwrap();
    let failed: BTreeSet<_> = report.failures.iter().map(|f| f.path.to_str().unwrap()).collect();
    assert_eq!(failed, expected.iter().copied().collect());
    assert_eq!(report.counts.failed, expected.len() as u64);
    let Node::Directory(nodes) = node else {
        unreachable!()
    };
    for (name, node) in &nodes {
        if !expected.iter().any(|path| path.split('/').next() == Some(name)) {
            assert_same(node, &target.join(name));
        }
    }

    let stopped = restore(&packs, &root, &place.path().join("s"), options(OnError::Stop)).await;
    match stopped {
        Err(KopiaError::Entry { path, .. }) => assert!(expected.contains(&path.to_str().unwrap())),
        other => panic!("{other:?}"),
    }
    report.failures
}

fn content_of(node: &Node) -> ContentId {
    let Node::File(data) = node else {
        panic!("a file is meant")
    };
    crate::object::testing::MemoryContents::id(None, data)
}

#[tokio::test]
async fn a_content_that_is_in_no_index_affects_its_files() {
    let breakage = |packs: &MemoryPacks| packs.forget(&content_of(&Node::File(noise(7, 100))));
    let failures = assert_affected(breakage, &["deep/a/b/c", "deep/a/b/same"]).await;
    assert!(
        failures
            .iter()
            .all(|failure| matches!(*failure.error, KopiaError::ContentNotFound { .. }))
    );
}

#[tokio::test]
async fn a_changed_byte_affects_its_files() {
    let id = content_of(&Node::File(noise(1000, 1_000_001)[..131_072].to_vec()));
    let breakage = |packs: &MemoryPacks| {
        let info = packs.location(&id);
        packs.change_pack(&info.pack, |data| data[info.offset as usize + 5] ^= 1);
    };
    let failures = assert_affected(breakage, &["large", "same"]).await;
    assert!(
        failures[0].error.to_string().contains(&id.to_string()),
        "{}",
        failures[0].error
    );
}

#[tokio::test]
async fn a_truncated_pack_affects_what_is_behind() {
    let id = content_of(&Node::File(noise(7, 100)));
    let breakage = |packs: &MemoryPacks| {
        let info = packs.location(&id);
        let behind = info.offset as usize + 10;
        packs.change_pack(&info.pack, |data| data.truncate(behind));
        // Only this content is to be behind.
        for other in packs.ids() {
            let there = packs.location(&other);
            assert!(
                other == id
                    || there.pack != info.pack
                    || (there.offset as usize) < behind
                    || other.prefix().is_some()
            );
        }
    };
    let node = directory([
        ("a", Node::File(noise(1, 1000))),
        ("b", Node::File(noise(7, 100))),
    ]);
    let (packs, root, place) = kept(&node);
    breakage(&packs);
    let report = restore(&packs, &root, &place.path().join("t"), options(LIST))
        .await
        .unwrap();
    assert_eq!(
        report
            .failures
            .iter()
            .map(|f| f.path.to_str().unwrap())
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert_same(&Node::File(noise(1, 1000)), &place.path().join("t/a"));
}

#[tokio::test]
async fn a_missing_pack_affects_everything_in_it() {
    let node = sample();
    let (packs, root, place) = kept(&node);
    let pack = packs.location(&content_of(&Node::File(noise(7, 100)))).pack;
    packs.remove_pack(&pack);
    let report = restore(&packs, &root, &place.path().join("t"), options(LIST))
        .await
        .unwrap();
    assert!(report.counts.failed > 1);
    for failure in &report.failures {
        assert!(matches!(&*failure.error, KopiaError::BlobNotFound { blob } if *blob == pack.to_string()));
        assert!(
            !place.path().join("t").join(&failure.path).is_file()
                || failure.path.starts_with("large")
                || failure.path.starts_with("same")
                || failure.path.starts_with("sparse")
        );
    }
    assert!(
        report
            .failures
            .iter()
            .any(|failure| failure.path == Path::new("deep/a/b/c"))
    );
}

#[tokio::test]
async fn a_lost_directory_is_named() {
    let below = directory([(
        "b",
        directory([
            ("c", Node::File(noise(7, 100))),
            ("same", Node::File(noise(7, 100))),
        ]),
    )]);
    let lost = contents_of(&below);
    let inner: BTreeSet<ContentId> = contents_of(&directory([
        ("c", Node::File(noise(7, 100))),
        ("same", Node::File(noise(7, 100))),
    ]));
    let id = *lost.difference(&inner).next().unwrap();
    assert_affected(|packs| packs.forget(&id), &["deep/a"]).await;
}

#[tokio::test]
async fn an_index_entry_that_lies_is_no_danger() {
    let id = content_of(&Node::File(noise(7, 100)));
    for change in [
        |info: &mut crate::content::ContentInfo| info.packed_length = u32::MAX,
        |info: &mut crate::content::ContentInfo| info.original_length = u32::MAX,
        |info: &mut crate::content::ContentInfo| info.offset = u32::MAX,
        |info: &mut crate::content::ContentInfo| info.packed_length = 0,
        |info: &mut crate::content::ContentInfo| info.original_length = 99,
    ] {
        assert_affected(
            |packs| packs.change_entry(&id, change),
            &["deep/a/b/c", "deep/a/b/same"],
        )
        .await;
    }
}

#[tokio::test]
async fn names_lead_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let bad = ["..", ".", "", "/etc/x", "a/b", "../out", "a\0b"];
    let packs = Arc::new(MemoryPacks::default());
    let file = || Node::File(b"x".to_vec());
    let files = bad.iter().map(|name| ((*name).to_owned(), file()));
    let directories = bad
        .iter()
        .map(|name| ((*name).to_owned(), directory([("x", file())])));
    let node = directory([
        ("files", Node::Directory(files.collect())),
        ("directories", Node::Directory(directories.collect())),
        ("good", file()),
    ]);
    let root = keep(&packs, &node);
    let target = place.path().join("target");
    let report = restore(&packs, &root, &target, options(LIST)).await.unwrap();
    assert_eq!(report.counts.failed, 2 * bad.len() as u64);
    assert_same(&file(), &target.join("good"));
    for name in ["files", "directories"] {
        assert_eq!(fs::read_dir(target.join(name)).unwrap().count(), 0);
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_whose_size_is_wrong_is_damaged() {
    for (data, size) in [
        (noise(1, 1000), 999),
        (noise(1, 300_000), 299_999),
        (noise(1, 300_000), 300_001),
    ] {
        let (packs, mut root, place) = kept(&Node::File(data));
        root.size = size;
        let stopped = restore(&packs, &root, &place.path().join("f"), options(OnError::Stop)).await;
        assert!(matches!(stopped, Err(KopiaError::Entry { .. })), "{stopped:?}");
    }
}

#[tokio::test]
async fn what_is_neither_file_nor_link_is_an_error() {
    let (packs, root, place) = kept(&Node::File(b"x".to_vec()));
    for broken in [
        DirEntry {
            kind: EntryKind::Unknown,
            ..root.clone()
        },
        DirEntry {
            object: None,
            ..root.clone()
        },
        DirEntry {
            object: None,
            kind: EntryKind::Directory,
            ..root.clone()
        },
        // A file is no directory.
        DirEntry {
            kind: EntryKind::Directory,
            ..root.clone()
        },
    ] {
        let stopped = restore(&packs, &broken, &place.path().join("f"), options(OnError::Stop)).await;
        assert!(matches!(stopped, Err(KopiaError::Entry { .. })), "{stopped:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_restore_ends_soon() {
    let (packs, root, place) = kept(&sample());
    *packs.delay.lock().unwrap() = Duration::from_hours(1);
    let cancel = CancellationToken::new();
    let begun = Instant::now();
    tokio::spawn({
        let cancel = cancel.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cancel.cancel();
        }
    });
    let result = restore_cancellable(
        &packs,
        &root,
        &place.path().join("t"),
        options(OnError::Stop),
        &cancel,
    )
    .await;
    assert!(matches!(result, Err(KopiaError::Cancelled)), "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn only_a_device_is_restored_to_as_a_device() {
    let (packs, root, place) = kept(&directory([("/dev/xvda", Node::File(noise(1, 300_000)))]));
    let file = place.path().join("file");
    fs::write(&file, vec![0; 400_000]).unwrap();
    let restore = Restore::new(options(OnError::Stop));
    let run = |source: RestoreSource| {
        let (packs, restore, target) = (
            shared(&packs),
            restore.clone(),
            RestoreTarget::BlockDevice(file.clone()),
        );
        async move {
            restore
                .run_with(
                    packs,
                    ByteBudget::new(1 << 20),
                    &source,
                    &target,
                    Arc::default(),
                    &CancellationToken::new(),
                )
                .await
        }
    };
    assert!(matches!(
        run(root.into()).await,
        Err(KopiaError::Argument { name: "target", .. })
    ));
    let (_, many, _) = kept(&sample());
    assert!(run(many.into()).await.is_err());
    assert_eq!(fs::read(file).unwrap(), vec![0; 400_000]);
}

/// Two files of one name, as older backups have for names that were not UTF-8, and a directory like a file.
fn repeated() -> Node {
    directory([
        ("c", directory([("below", Node::File(b"below".to_vec()))])),
        ("c", directory([("other", Node::File(b"other".to_vec()))])),
        ("a\u{fffd}", Node::File(noise(1, 300_000))),
        ("a\u{fffd}", Node::File(noise(2, 200_000))),
        ("b", Node::File(b"first".to_vec())),
        ("b", Node::File(b"second".to_vec())),
        ("c", Node::File(b"a file".to_vec())),
    ])
}

#[tokio::test]
async fn of_entries_with_one_name_the_first_is_restored_and_the_others_are_errors() {
    let (packs, root, place) = kept(&repeated());
    let target = place.path().join("target");
    let report = restore(&packs, &root, &target, options(LIST)).await.unwrap();
    let mut failed: Vec<_> = report
        .failures
        .iter()
        .map(|failure| failure.path.to_str().unwrap())
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, ["a\u{fffd}", "b", "c", "c"]);
    for failure in &report.failures {
        let text = failure.error.to_string();
        assert!(
            text.contains("another entry of the directory has its name"),
            "{text}"
        );
    }
    assert!(fs::read(target.join("a\u{fffd}")).unwrap() == noise(1, 300_000));
    assert_eq!(fs::read(target.join("b")).unwrap(), b"first");
    assert_eq!(fs::read(target.join("c/below")).unwrap(), b"below");
    assert!(!target.join("c/other").exists());

    let stopped = restore(&packs, &root, &place.path().join("again"), options(OnError::Stop)).await;
    assert!(matches!(stopped, Err(KopiaError::Entry { .. })), "{stopped:?}");
}
