//! Verification of trees that are kept in memory.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::compression::HeaderId;
use crate::content::{ContentId, Prefix};
use crate::object::testing::MemoryContents;
use crate::restore::{MAX_DEPTH, Restore, RestoreOptions, RestoreTarget};
use crate::snapshot::Permissions;
use crate::tree::testing::{MemoryPacks, Node, directory, keep, noise, object, sample, shared};

async fn verify(packs: &Arc<MemoryPacks>, root: &DirEntry, read_percent: f64) -> VerifyReport {
    verify_within(8 << 20, packs, root, read_percent).await
}

async fn verify_within(
    memory: u64,
    packs: &Arc<MemoryPacks>,
    root: &DirEntry,
    read_percent: f64,
) -> VerifyReport {
    let verification = begin(memory, packs, read_percent);
    next(&verification, root, &Arc::default()).await
}

fn begin(memory: u64, packs: &Arc<MemoryPacks>, read_percent: f64) -> Verification {
    let options = VerifyOptions {
        read_percent,
        ..VerifyOptions::default()
    };
    let lengths = packs.list().into_iter().map(|pack| (pack.id, pack.size));
    Verification::with(shared(packs), lengths.collect(), ByteBudget::new(memory), options).unwrap()
}

async fn next(verification: &Verification, root: &DirEntry, progress: &Arc<VerifyProgress>) -> VerifyReport {
    let never = CancellationToken::new();
    verification
        .verify(root, Arc::clone(progress), &never)
        .await
        .unwrap()
}

fn paths(report: &VerifyReport) -> BTreeSet<&str> {
    assert_eq!(report.failed, report.failures.len() as u64);
    assert_eq!(report.is_sound(), report.failures.is_empty());
    report
        .failures
        .iter()
        .map(|failure| failure.path.to_str().unwrap())
        .collect()
}

fn kept() -> (Arc<MemoryPacks>, DirEntry) {
    let packs = Arc::new(MemoryPacks::default());
    let root = keep(&packs, &sample());
    (packs, root)
}

#[tokio::test]
async fn a_sound_tree_is_sound() {
    let (packs, root) = kept();
    let report = verify(&packs, &root, 0.0).await;
    assert_eq!(paths(&report), BTreeSet::new());
    let counts = report.counts;
    assert_eq!((counts.files, counts.symlinks, counts.directories), (308, 1, 6));
    assert_eq!((counts.bytes, counts.read_contents), (counts.total_bytes, 0));

    let report = verify(&packs, &root, 100.0).await;
    assert_eq!(paths(&report), BTreeSet::new());
    let files = packs.ids().iter().filter(|id| id.prefix().is_none()).count();
    assert_eq!(report.counts.read_contents, files as u64);

    let some = verify(&packs, &root, 30.0).await.counts.read_contents;
    assert!(some > 0 && some < files as u64);
}

#[tokio::test]
async fn what_is_missing_is_found_without_reading() {
    let id = MemoryContents::id(None, &noise(7, 100));
    let (packs, root) = kept();
    packs.forget(&id);
    assert_eq!(
        paths(&verify(&packs, &root, 0.0).await),
        ["deep/a/b/c", "deep/a/b/same"].into()
    );

    let (packs, root) = kept();
    let pack = packs.location(&id).pack;
    packs.remove_pack(&pack);
    for percent in [0.0, 100.0] {
        let report = verify(&packs, &root, percent).await;
        assert!(paths(&report).contains("deep/a/b/c"));
        assert_eq!(report.damaged_packs.keys().collect::<Vec<_>>(), [&pack]);
        assert!(report.damaged_packs[&pack] >= report.counts.failed);
    }

    let (packs, root) = kept();
    let info = packs.location(&id);
    packs.change_pack(&info.pack, |data| data.truncate(info.offset as usize + 10));
    let report = verify(&packs, &root, 0.0).await;
    assert!(paths(&report).contains("deep/a/b/c"));
    assert_eq!(report.damaged_packs.keys().collect::<Vec<_>>(), [&info.pack]);
}

#[tokio::test]
async fn what_is_damaged_is_found_by_reading() {
    let id = MemoryContents::id(None, &noise(1000, 1_000_001)[..131_072]);
    let (packs, root) = kept();
    let info = packs.location(&id);
    packs.change_pack(&info.pack, |data| data[info.offset as usize + 70_000] ^= 1);
    assert_eq!(paths(&verify(&packs, &root, 0.0).await), BTreeSet::new());
    let report = verify(&packs, &root, 100.0).await;
    assert_eq!(paths(&report), ["large", "same"].into());
    assert_eq!(report.damaged_packs, [(info.pack, 2)].into());
}

#[tokio::test]
async fn another_content_in_its_place_is_found() {
    // Both are sound by themselves, so only the hash tells.
    let packs = Arc::new(MemoryPacks::default());
    let root = keep(
        &packs,
        &directory([("a", Node::File(noise(1, 50))), ("b", Node::File(noise(2, 50)))]),
    );
    let [a, b] = [1, 2].map(|seed| MemoryContents::id(None, &noise(seed, 50)));
    let there = packs.location(&b).offset;
    packs.change_entry(&a, |info| info.offset = there);
    assert_eq!(paths(&verify(&packs, &root, 100.0).await), ["a"].into());
}

#[tokio::test]
async fn damaged_directories_and_lists_are_named() {
    for (prefix, expected) in [(b'k', None), (b'x', Some(["large", "same", "sparse"]))] {
        let (packs, root) = kept();
        for id in packs.ids() {
            if id.prefix().is_some_and(|found| found.letter() == prefix)
                && root.object.unwrap().content() != Some(&id)
            {
                let info = packs.location(&id);
                packs.change_pack(&info.pack, |data| data[info.offset as usize] ^= 1);
            }
        }
        let report = verify(&packs, &root, 0.0).await;
        let expected = expected.map_or_else(|| ["deep", "many", "none"].into(), Into::into);
        assert_eq!(paths(&report), expected);
    }
}

#[tokio::test]
async fn lengths_and_names_are_compared() {
    let packs = Arc::new(MemoryPacks::default());
    let mut root = keep(&packs, &Node::File(noise(1, 300_000)));
    root.size += 1;
    assert_eq!(verify(&packs, &root, 0.0).await.counts.failed, 1);
    let mut root = keep(&packs, &Node::File(noise(1, 100)));
    root.size += 1;
    assert_eq!(verify(&packs, &root, 0.0).await.counts.failed, 1);
    let bad = directory([
        ("..", directory([])),
        ("a/b", Node::File(vec![1])),
        ("good", Node::File(vec![1])),
    ]);
    assert_eq!(verify(&packs, &keep(&packs, &bad), 0.0).await.counts.failed, 2);
}

#[tokio::test]
async fn a_directory_of_very_many_directories() {
    let packs = Arc::new(MemoryPacks::default());
    let file = || Node::File(b"x".to_vec());
    let many = (0..20_000).map(|number| (format!("{number}"), directory([("f", file())])));
    let node = directory([
        ("first", directory([("second", directory([("f", file())]))])),
        ("many", Node::Directory(many.collect())),
    ]);
    let report = verify(&packs, &keep(&packs, &node), 100.0).await;
    assert_eq!(paths(&report), BTreeSet::new());
    assert_eq!((report.counts.directories, report.counts.files), (20_004, 20_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_verification_ends_soon() {
    let (packs, root) = kept();
    *packs.delay.lock().unwrap() = Duration::from_hours(1);
    let cancel = CancellationToken::new();
    let timer = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        timer.cancel();
    });
    let verification = begin(1 << 20, &packs, 100.0);
    let run = verification.verify(&root, Arc::default(), &cancel);
    let result = tokio::time::timeout(Duration::from_secs(2), run).await.unwrap();
    assert!(matches!(result, Err(KopiaError::Cancelled)), "{result:?}");
}

/// A directory of which the JSON is not what a backup of ours would write.
fn written_as(packs: &MemoryPacks, json: &str) -> DirEntry {
    DirEntry {
        kind: EntryKind::Directory,
        object: Some(object(packs, Some(Prefix::DIRECTORY), json.as_bytes())),
        permissions: Permissions::from_unix(0o750),
        ..DirEntry::default()
    }
}

/// Paths of which a restore says that something is wrong.
async fn not_restored(packs: &Arc<MemoryPacks>, root: &DirEntry) -> BTreeSet<String> {
    let place = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        on_error: OnError::Continue { list: 100 },
        sync: false,
        owners: false,
        ..RestoreOptions::default()
    };
    let report = Restore::new(options)
        .run_with(
            shared(packs),
            ByteBudget::new(8 << 20),
            &root.clone().into(),
            &RestoreTarget::Path(place.path().to_owned()),
            Arc::default(),
            &CancellationToken::new(),
        )
        .await
        .unwrap();
    let path = |failure: &Failure| failure.path.to_str().unwrap().to_owned();
    report.failures.iter().map(path).collect()
}

#[tokio::test]
async fn damaged_extended_attributes_are_named_as_a_restore_names_them() {
    let sound = r#"{"v":1,"xattrs":{"user.color":"Z3JlZW4="},"link":{"id":"2a","names":2}}"#;
    for damage in [
        r#"{"v":1,"xattrs":{"user.color":"Z3JlZW4"}}"#,
        r#"{"v":1,"xattrs":{"system.nfs4_acl":""}}"#,
        r#"{"v":1,"xattrs":[]}"#,
        r#"{"v":1,"link":{"id":"","names":2}}"#,
        r#"{"v":2}"#,
        "{}",
        "null",
    ] {
        let packs = Arc::new(MemoryPacks::default());
        let data = object(&packs, None, b"data");
        let file = |name: &str, kind: &str, field: &str| {
            format!(r#"{{"name":"{name}","type":"{kind}","size":4,"obj":"{data}","holdfast":{field}}}"#)
        };
        let tree = |own: &str, entries: &[String]| {
            format!(
                r#"{{"stream":"kopia:directory","holdfast":{own},"entries":[{}]}}"#,
                entries.join(",")
            )
        };
        let below = |name: &str, own: &str, entries: &[String]| {
            let directory = written_as(&packs, &tree(own, entries));
            let object = directory.object.unwrap();
            format!(r#"{{"name":"{name}","type":"d","obj":"{object}"}}"#)
        };
        let entries = [
            below("bad own", damage, &[file("good", "f", sound)]),
            below(
                "good",
                sound,
                &[file("bad", "f", damage), file("good", "f", sound)],
            ),
            file("bad", "f", damage),
            file("bad link", "s", damage),
            file("good link", "s", sound),
        ];
        let root = written_as(&packs, &tree(sound, &entries));
        let expected = BTreeSet::from(["bad own", "good/bad", "bad", "bad link"]);
        for percent in [0.0, 100.0] {
            let report = verify(&packs, &root, percent).await;
            assert_eq!(paths(&report), expected, "{damage}");
            assert_eq!(report.counts.files, 4, "{damage}");
        }
        assert_eq!(
            not_restored(&packs, &root).await,
            expected.iter().map(|path| (*path).to_owned()).collect(),
            "{damage}"
        );
        let root = written_as(&packs, &tree(damage, &[]));
        assert_eq!(paths(&verify(&packs, &root, 0.0).await), [""].into(), "{damage}");
    }
}

#[tokio::test]
async fn a_directory_that_is_read_several_times_is_told_once() {
    let packs = Arc::new(MemoryPacks::default());
    let none = written_as(&packs, r#"{"stream":"kopia:directory","entries":[]}"#);
    let none = none.object.unwrap();
    let entries: Vec<String> = (0..40_000)
        .map(|number| format!(r#"{{"name":"{number}","type":"d","obj":"{none}"}}"#))
        .collect();
    let json = format!(
        r#"{{"stream":"kopia:directory","holdfast":{{"v":2}},"entries":[{}]}}"#,
        entries.join(",")
    );
    let report = verify(&packs, &written_as(&packs, &json), 0.0).await;
    assert_eq!(paths(&report), [""].into());
    assert_eq!((report.counts.failed, report.counts.directories), (1, 40_001));
}

#[tokio::test]
async fn what_takes_more_than_the_memory_is_read_all_the_same() {
    let (packs, root) = kept();
    for id in packs.ids() {
        packs.change_entry(&id, |info| info.compression = HeaderId::ZSTD);
    }
    let run = verify_within(64 << 10, &packs, &root, 100.0);
    let report = tokio::time::timeout(Duration::from_mins(1), run).await.unwrap();
    assert_eq!(paths(&report), BTreeSet::new());
    assert!(report.counts.read_contents > 300);
}

#[tokio::test]
async fn lengths_that_no_content_has_are_found_without_reading() {
    let (packs, root) = kept();
    let id = MemoryContents::id(None, &noise(7, 100));
    packs.change_entry(&id, |info| {
        info.compression = HeaderId::ZSTD;
        info.original_length = 256 << 20;
    });
    for percent in [0.0, 100.0] {
        let report = verify(&packs, &root, percent).await;
        assert_eq!(paths(&report), ["deep/a/b/c", "deep/a/b/same"].into());
    }
}

/// A tree beside others.
fn beside<const N: usize>(tree: Node, others: [(&str, Node); N]) -> Node {
    match (tree, directory(others)) {
        (Node::Directory(mut entries), Node::Directory(others)) => {
            entries.extend(others);
            Node::Directory(entries)
        }
        (tree, _) => tree,
    }
}

#[tokio::test]
async fn what_snapshots_share_is_looked_at_once_and_counted_for_each() {
    let packs = Arc::new(MemoryPacks::default());
    let first = keep(&packs, &sample());
    let new = ("new", Node::File(noise(5000, 300_000)));
    let second = keep(
        &packs,
        &beside(sample(), [new, ("again", directory([("x", sample())]))]),
    );
    let verification = begin(8 << 20, &packs, 100.0);
    let progress = Arc::default();
    let one = next(&verification, &first, &progress).await.counts;
    assert_eq!((one.known_directories, one.known_files), (0, 0));
    let reads = packs.reads.load(Ordering::Relaxed);
    let same = next(&verification, &first, &progress).await.counts;
    assert_eq!(
        packs.reads.load(Ordering::Relaxed),
        reads,
        "nothing is read again"
    );
    assert_eq!((same.directories, same.files, same.symlinks), (12, 616, 2));
    assert_eq!((same.known_directories, same.known_files), (6, 309));
    assert_eq!((same.bytes, same.bytes), (2 * one.bytes, same.total_bytes));
    assert_eq!(same.read_contents, one.read_contents);

    let two = next(&verification, &second, &progress).await.counts;
    // Its root and the directory "again" are new, and of their files the parts of one.
    assert_eq!(
        (two.directories, two.files, two.symlinks),
        (12 + 13, 616 + 617, 4)
    );
    assert_eq!((two.bytes, two.failed), (two.total_bytes, 0));
    assert_eq!(two.known_directories, 6 + 11);
    assert_eq!(two.read_contents, one.read_contents + 3);
}

/// Paths with which something is wrong, of each snapshot.
async fn all_paths(verification: &Verification, roots: &[DirEntry]) -> Vec<BTreeSet<String>> {
    let mut all = Vec::new();
    for root in roots {
        let report = next(verification, root, &Arc::default()).await;
        all.push(paths(&report).into_iter().map(str::to_owned).collect());
    }
    all
}

/// What befalls a repository.
type Damage<'a> = &'a dyn Fn(&MemoryPacks);

#[tokio::test]
async fn what_is_damaged_is_told_for_each_snapshot_and_path() {
    let small = MemoryContents::id(None, &noise(7, 100));
    let piece = MemoryContents::id(None, &noise(1000, 1_000_001)[..131_072]);
    let is = |letter| move |id: &ContentId| id.prefix().is_some_and(|prefix| prefix.letter() == letter);
    let damages: [(&str, f64, Damage<'_>); 6] = [
        ("nothing", 100.0, &|_| ()),
        ("a content is gone", 0.0, &|packs| packs.forget(&small)),
        ("a piece is gone", 0.0, &|packs| packs.forget(&piece)),
        ("a pack is gone", 100.0, &|packs| {
            packs.remove_pack(&packs.location(&small).pack);
        }),
        ("a piece is damaged", 100.0, &|packs| {
            let info = packs.location(&piece);
            packs.change_pack(&info.pack, |data| data[info.offset as usize + 9] ^= 1);
        }),
        ("all lists are damaged", 0.0, &|packs| {
            for id in packs.ids().into_iter().filter(is(b'x')) {
                let info = packs.location(&id);
                packs.change_pack(&info.pack, |data| data[info.offset as usize] ^= 1);
            }
        }),
    ];
    for (name, percent, damage) in damages {
        let packs = Arc::new(MemoryPacks::default());
        let other = directory([("copy", sample()), ("good", directory([("f", Node::Link("x"))]))]);
        let trees = [
            sample(),
            beside(sample(), [("other", other.clone())]),
            other,
            sample(),
        ];
        let roots = trees.map(|tree| keep(&packs, &tree));
        damage(&packs);
        let together = all_paths(&begin(8 << 20, &packs, percent), &roots).await;
        for (root, found) in roots.iter().zip(&together) {
            let alone = all_paths(&begin(8 << 20, &packs, percent), std::slice::from_ref(root)).await;
            assert_eq!(std::slice::from_ref(found), alone, "{name}");
            assert_eq!(found.is_empty(), name == "nothing", "{name}");
        }
    }
}

#[tokio::test]
async fn errors_of_all_snapshots_are_counted() {
    let (packs, root) = kept();
    packs.forget(&MemoryContents::id(None, &noise(7, 100)));
    let sound = keep(&packs, &directory([("f", Node::Link("x"))]));
    let verification = begin(8 << 20, &packs, 0.0);
    let progress = Arc::default();
    for (root, failed, so_far) in [(&root, 2, 2), (&root, 2, 4), (&sound, 0, 4)] {
        let report = next(&verification, root, &progress).await;
        assert_eq!((report.failed, report.counts.failed), (failed, so_far));
        assert_eq!(report.is_sound(), failed == 0);
    }
}

#[tokio::test]
async fn what_is_forgotten_is_looked_at_again() {
    let (packs, root) = kept();
    // Too little memory to remember a directory, or more than 16 contents.
    let verification = begin(4 << 10, &packs, 100.0);
    let progress = Arc::default();
    let one = next(&verification, &root, &progress).await.counts;
    let two = next(&verification, &root, &progress).await.counts;
    assert_eq!((two.known_directories, two.failed), (0, 0));
    assert!(two.known_files <= 16 && two.read_contents >= 2 * one.read_contents - 16);
    assert_eq!((two.files, two.directories), (2 * one.files, 2 * one.directories));
}

#[tokio::test]
async fn what_is_known_may_still_be_nested_too_deeply() {
    let packs = Arc::new(MemoryPacks::default());
    let nested = |inner: DirEntry, levels: u32| {
        (0..levels).fold(inner, |inner, _| {
            let object = inner.object.unwrap();
            let entry = format!(r#"{{"name":"d","type":"d","obj":"{object}"}}"#);
            written_as(
                &packs,
                &format!(r#"{{"stream":"kopia:directory","entries":[{entry}]}}"#),
            )
        })
    };
    let none = written_as(&packs, r#"{"stream":"kopia:directory","entries":[]}"#);
    let deep = nested(none, MAX_DEPTH - 9);
    let just = nested(deep.clone(), 9);
    let too_deep = nested(deep.clone(), 10);
    let verification = begin(64 << 20, &packs, 0.0);
    let progress = Arc::default();
    for (root, failed, known) in [
        (&deep, 0, 0),
        (&just, 0, MAX_DEPTH - 8),
        (&too_deep, 1, MAX_DEPTH - 8),
    ] {
        let report = next(&verification, root, &progress).await;
        assert_eq!(
            (report.failed, report.counts.known_directories),
            (failed, known.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cancelled_verification_did_not_see_is_not_known() {
    let (packs, root) = kept();
    let id = MemoryContents::id(None, &noise(1000, 1_000_001)[..131_072]);
    let info = packs.location(&id);
    packs.change_pack(&info.pack, |data| data[info.offset as usize + 9] ^= 1);
    let verification = begin(8 << 20, &packs, 100.0);
    for milliseconds in 0..20 {
        *packs.delay.lock().unwrap() = Duration::from_millis(2);
        let cancel = CancellationToken::new();
        let timer = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            timer.cancel();
        });
        // It may be done before.
        let _ = verification.verify(&root, Arc::default(), &cancel).await;
        *packs.delay.lock().unwrap() = Duration::ZERO;
    }
    let report = next(&verification, &root, &Arc::default()).await;
    assert_eq!(paths(&report), ["large", "same"].into());
}

#[tokio::test]
async fn entries_with_one_name_are_found_in_each_snapshot() {
    let packs = Arc::new(MemoryPacks::default());
    let file = |text: &str| Node::File(text.into());
    let twice = || directory([("a", file("1")), ("a", file("2")), ("b", file("3"))]);
    let first = keep(&packs, &directory([("below", twice())]));
    let second = keep(&packs, &directory([("below", twice()), ("more", file("4"))]));
    let verification = begin(8 << 20, &packs, 0.0);
    for root in [&first, &first, &second] {
        let report = next(&verification, root, &Arc::default()).await;
        assert_eq!(paths(&report), ["below/a"].into());
    }
}
