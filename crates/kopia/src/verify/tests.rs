//! Verification of trees that are kept in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::compression::HeaderId;
use crate::content::Prefix;
use crate::object::testing::MemoryContents;
use crate::restore::{Restore, RestoreOptions, RestoreTarget};
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
    let options = VerifyOptions {
        read_percent,
        ..VerifyOptions::default()
    };
    let lengths = packs
        .list()
        .into_iter()
        .map(|pack| (pack.id, pack.size))
        .collect();
    Verify::new(options)
        .run_with(
            shared(packs),
            Arc::new(lengths),
            ByteBudget::new(memory),
            root,
            Arc::default(),
            &CancellationToken::new(),
        )
        .await
        .unwrap()
}

fn paths(report: &VerifyReport) -> BTreeSet<&str> {
    assert_eq!(report.counts.failed, report.failures.len() as u64);
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
    let run = Verify::default();
    let run = run.run_with(
        shared(&packs),
        Arc::default(),
        ByteBudget::new(1 << 20),
        &root,
        Arc::default(),
        &cancel,
    );
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
