//! What kopia does not keep: extended attributes, access control lists, which names are one file. kopia must not mind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use holdfast_testkit::tree::{Times, ensure_same};
use rustix::fs::XattrFlags;

use crate::fixture::{Arena, id, utf8};
use crate::trees::{self, MIB};

/// kopia's own name for the source.
const NAMES: [&str; 4] = ["--source-user", "judge", "--source-host", "kopia"];
const WITH: [&str; 5] = [
    "--source-user",
    "judge",
    "--source-host",
    "kopia",
    "--extended-attributes",
];

/// Owner, group and others as in the mode 0640, and one more user who may read.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 210, 4, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16,
    0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// May use raw sockets.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn set(path: impl AsRef<Path>, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path.as_ref(), name, value, XattrFlags::empty()).unwrap();
}

/// What a tree has beside what kopia keeps: of each path its extended attributes, and the first path that is the same file.
type Kept = BTreeMap<PathBuf, (BTreeMap<String, Vec<u8>>, PathBuf)>;

fn kept(root: &Path) -> Kept {
    let mut kept = Kept::new();
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let below = path.strip_prefix(root).unwrap().to_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            entries.sort();
            left.extend(entries.into_iter().rev());
        }
        let first = files
            .entry(metadata.ino())
            .or_insert_with(|| below.clone())
            .clone();
        let mut names = vec![0; 64 << 10];
        let length = rustix::fs::llistxattr(&path, &mut names).unwrap();
        let names = names[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty());
        let values = names.map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(&path, name, &mut value).unwrap();
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        });
        kept.insert(below, (values.collect(), first));
    }
    kept
}

/// A tree with everything that we keep and kopia does not. Only root may make it.
fn attributed(folder: &Path) {
    trees::odd(folder);
    let path = |name: &str| folder.join(name);
    fs::create_dir_all(path("shared/below")).unwrap();
    set(folder, "user.of", b"the root");
    set(path("shared"), "system.posix_acl_default", &ACL);
    set(path("shared"), "trusted.of", b"a directory");
    for (name, seed, length) in [("small", 1, 1000), ("large", 2, 9 * MIB), ("tool", 3, 5000)] {
        fs::write(path(name), trees::noise(seed, length)).unwrap();
        set(path(name), "user.name", name.as_bytes());
    }
    std::os::unix::fs::chown(path("tool"), Some(1234), Some(5678)).unwrap();
    set(path("tool"), "security.capability", &CAPABILITY);
    set(path("small"), "system.posix_acl_access", &ACL);
    set(path("small"), "user.odd \u{e9}%\"\n", &[0, 255, 128]);
    std::os::unix::fs::symlink("small", path("shared/link")).unwrap();
    set(path("shared/link"), "trusted.of", b"a link");
    for (first, second) in [
        ("small", "shared/below/small too"),
        ("small", "shared/small three"),
        ("large", "shared/below/large too"),
        ("shared/link", "shared/below/link too"),
    ] {
        fs::hard_link(path(first), path(second)).unwrap();
    }
    // Made before the directory had a list to hand down; a restore must not hand it down either.
    fs::create_dir(path("plain")).unwrap();
    fs::write(path("plain/file"), "plain").unwrap();
}

impl Arena {
    /// We restore a snapshot, and everything is as it was.
    fn everything_comes_back(&self, id: &str, source: &Path) {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap();
        let restored = target.path().join("restored");
        let summary = self.agent.run("restore", &[id, utf8(&restored)], &[]);
        assert_eq!(summary["attributes_denied"], 0, "{summary}");
        assert_eq!(
            (&summary["hard_links"], &summary["hard_links_copied"]),
            (&4.into(), &0.into()),
            "{summary}"
        );
        ensure_same(source, &restored, Times::All).unwrap();
        let (expected, found) = (kept(source), kept(&restored));
        assert_eq!(expected.len(), found.len());
        for (path, expected) in &expected {
            assert_eq!(&found[path], expected, "{}", path.display());
        }
    }

    fn has_content(&self, id: &str) -> bool {
        let contents = self.kopia.run(&["content", "list"]).unwrap();
        contents
            .lines()
            .any(|line| line.split_whitespace().next() == Some(id))
    }
}

#[test]
fn kopia_does_not_mind_what_it_does_not_keep_and_keeps_it_as_long_as_the_snapshot() {
    let arena = Arena::theirs(&[]);
    let source = arena.path("source");
    attributed(&source);

    // Without the option, what we store is what kopia stores.
    let theirs = arena.kopia.snapshot(&source, &[]).unwrap();
    let plain = arena.agent.backup(&source, &NAMES);
    assert_eq!(plain["root"], theirs.root_entry.obj.as_str());
    assert_eq!(plain["entries_with_attributes"], 0);

    let with = arena.agent.backup(&source, &WITH);
    let root = with["root"].as_str().unwrap().to_owned();
    assert_ne!(root, theirs.root_entry.obj);
    // The root, "shared", "tool"; three names of "small", two of "large", two of the link.
    assert_eq!(with["entries_with_attributes"], 10, "{with}");
    assert_eq!(with["files_hashed"], 0, "{with}");
    arena.kopia_agrees(&[(id(&with), &source)]);
    arena.everything_comes_back(id(&with), &source);

    // Nothing changed: neither kopia nor we read a file, and the directories are those that are there.
    let unchanged = arena.kopia.snapshot(&source, &[]).unwrap();
    assert_eq!(unchanged.stats.non_cached_files, 0);
    assert_eq!(unchanged.root_entry.obj, theirs.root_entry.obj);
    let again = arena.agent.backup(&source, &WITH);
    assert_eq!(
        (again["root"].as_str(), &again["files_hashed"]),
        (Some(root.as_str()), &0.into())
    );

    // Only one of them is left, kopia writes its manifest anew, and whatever looks like garbage goes.
    for other in [&theirs.id, &unchanged.id, id(&plain), id(&again)] {
        arena
            .kopia
            .run(&["snapshot", "delete", other, "--delete"])
            .unwrap();
    }
    arena
        .kopia
        .run(&["snapshot", "pin", id(&with), "--add", "kept"])
        .unwrap();
    let listed = arena.kopia.snapshots().unwrap();
    let [pinned] = listed.as_slice() else {
        panic!("{listed:?}")
    };
    assert_ne!(pinned.id, id(&with));
    arena.kopia.maintain().unwrap();
    arena.kopia_agrees(&[(&pinned.id, &source)]);
    arena.agent.run("verify", &[&pinned.id], &["--percent", "100"]);
    arena.everything_comes_back(&pinned.id, &source);

    // Those who want what kopia would restore get it.
    let plain = arena.path("plain");
    let options = ["--skip-extended-attributes"];
    arena.agent.run("restore", &[&pinned.id, utf8(&plain)], &options);
    ensure_same(&source, &plain, Times::All).unwrap();
    assert!(kept(&plain).values().all(|(values, _)| values.is_empty()));

    // And it is gone when the snapshot is.
    assert!(arena.has_content(&root));
    arena
        .kopia
        .run(&["snapshot", "pin", &pinned.id, "--remove", "kept"])
        .unwrap();
    let last = arena.kopia.snapshots().unwrap().remove(0);
    arena
        .kopia
        .run(&["snapshot", "delete", &last.id, "--delete"])
        .unwrap();
    arena.kopia.maintain().unwrap();
    assert!(!arena.has_content(&root));
}

#[test]
fn an_attribute_that_changed_alone_is_in_the_next_snapshot() {
    let arena = Arena::ours();
    let source = arena.path("source");
    trees::small(&source, 120, 1);
    let first = arena.agent.backup(&source, &["--extended-attributes"]);
    set(source.join("d0/f7"), "user.new", b"1");
    let second = arena.agent.backup(&source, &["--extended-attributes"]);
    assert_eq!(
        (&second["files_hashed"], &second["entries_with_attributes"]),
        (&0.into(), &1.into())
    );
    for (snapshot, expected) in [(&first, 0), (&second, 1)] {
        let target = tempfile::tempdir_in(arena.folder.path()).unwrap();
        arena
            .agent
            .run("restore", &[id(snapshot), utf8(target.path())], &[]);
        let with = kept(target.path())
            .values()
            .filter(|(values, _)| !values.is_empty())
            .count();
        assert_eq!(with, expected);
    }
    arena.kopia_agrees(&[(id(&first), &source), (id(&second), &source)]);
}
