//! Extended attributes and hard links, as snapshots have them.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use rustix::fs::XattrFlags;

use super::*;
use crate::content::Prefix;
use crate::restore::target::Values;
use crate::snapshot::{DirectoryWriter, EntryName, ExtendedAttributes, HardLink, Permissions, UtcTime};
use crate::tree::testing::object;

/// Owner, group and others as in the mode 0640, and one more user who may read.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 210, 4, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16,
    0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// May use raw sockets.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn values<const N: usize>(values: [(&str, &[u8]); N]) -> Values {
    values
        .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
        .into()
}

fn attributes<const N: usize>(of: [(&str, &[u8]); N]) -> ExtendedAttributes {
    ExtendedAttributes {
        values: values(of),
        link: None,
    }
}

fn linked(id: &str, names: u64) -> ExtendedAttributes {
    ExtendedAttributes {
        values: Values::new(),
        link: Some(HardLink {
            id: id.to_owned(),
            names,
        }),
    }
}

fn entry(name: &str, kind: EntryKind, mode: u32) -> DirEntry {
    DirEntry {
        name: EntryName::from(name),
        kind,
        permissions: Permissions::from_unix(mode),
        mtime: UtcTime::from_unix(1_500_000_000, 42),
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..DirEntry::default()
    }
}

fn with_field(mut entry: DirEntry, json: &[u8]) -> DirEntry {
    let field = serde_json::from_slice(json).unwrap();
    entry
        .extra
        .get_or_insert_default()
        .insert("holdfast".to_owned(), field);
    entry
}

fn file(packs: &MemoryPacks, name: &str, data: &[u8], attributes: &ExtendedAttributes) -> DirEntry {
    let entry = DirEntry {
        size: data.len() as u64,
        object: Some(object(packs, None, data)),
        ..entry(name, EntryKind::File, 0o640)
    };
    if attributes.is_empty() {
        entry
    } else {
        with_field(entry, &attributes.to_json())
    }
}

fn directory_of(packs: &MemoryPacks, name: &str, entries: &[DirEntry], own: Option<&[u8]>) -> DirEntry {
    let mut json = Vec::new();
    let mut write = |part: &[u8]| {
        json.extend_from_slice(part);
        Ok(())
    };
    let mut writer = DirectoryWriter::with_attributes(&mut write, own);
    for entry in entries {
        writer.add(entry).unwrap();
    }
    let summary = writer.finish(UtcTime::default(), "").unwrap();
    DirEntry {
        object: Some(object(packs, Some(Prefix::DIRECTORY), &json)),
        summary: Some(Box::new(summary)),
        ..entry(name, EntryKind::Directory, 0o750)
    }
}

/// The attributes that a file has, but those that a security module gives to all.
fn there(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    names
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .filter(|name| !name.is_empty() && name != "security.selinux")
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, &*name, &mut value).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

fn expected<const N: usize>(values: [(&str, &[u8]); N]) -> BTreeMap<String, Vec<u8>> {
    values
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .into()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everybody may run this; root sees everything set, others see what is denied to them counted and listed.
#[tokio::test]
async fn attributes_come_back() {
    let packs = Arc::new(MemoryPacks::default());
    let mut read_only = file(&packs, "read only", b"1", &attributes([("user.a", b"x")]));
    read_only.permissions = Permissions::from_unix(0o444);
    let mut tool = file(
        &packs,
        "tool",
        b"2",
        &attributes([("security.capability", &CAPABILITY), ("user.a", b"tool")]),
    );
    if is_root() {
        (tool.uid, tool.gid) = (12345, 54321);
    }
    let link = DirEntry {
        object: Some(object(&packs, None, b"nowhere")),
        ..entry("link", EntryKind::Symlink, 0o777)
    };
    let link = with_field(link, &attributes([("trusted.of", b"link")]).to_json());
    let none = ExtendedAttributes::default();
    let inherits = file(&packs, "inherits nothing", b"3", &none);
    let own = attributes([("system.posix_acl_default", &ACL), ("user.of", b"d")]).to_json();
    let mut below = directory_of(&packs, "d", &[inherits], Some(&own));
    below.permissions = Permissions::from_unix(0o550);
    let large = noise(7, 1_000_001);
    let entries = [
        below,
        file(
            &packs,
            "acl",
            b"4",
            &attributes([("system.posix_acl_access", &ACL)]),
        ),
        file(&packs, "large", &large, &attributes([("user.large", &[9; 1000])])),
        link,
        read_only,
        tool,
    ];
    let own = attributes([("user.of", b"the root")]).to_json();
    let root = directory_of(&packs, "root", &entries, Some(&own));
    let place = tempfile::tempdir().unwrap();
    let report = restore(&packs, &root, place.path(), options(OnError::Stop))
        .await
        .unwrap();
    let path = |name: &str| place.path().join(name);
    assert_eq!(there(place.path()), expected([("user.of", b"the root")]));
    assert_eq!(
        there(&path("d")),
        expected([("system.posix_acl_default", &ACL), ("user.of", b"d")])
    );
    assert_eq!(there(&path("d/inherits nothing")), expected([]));
    assert_eq!(there(&path("acl")), expected([("system.posix_acl_access", &ACL)]));
    assert_eq!(there(&path("large")), expected([("user.large", &[9; 1000])]));
    assert_eq!(there(&path("read only")), expected([("user.a", b"x")]));
    for (name, mode) in [("d", 0o550), ("acl", 0o640), ("read only", 0o444)] {
        let stat = fs::metadata(path(name)).unwrap();
        assert_eq!(stat.mode() & 0o7777, mode, "{name}");
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (1_500_000_000, 42), "{name}");
    }
    let denied: Vec<_> = report
        .denied_attributes
        .iter()
        .map(|denied| (denied.path.to_str().unwrap(), denied.attribute.as_str()))
        .collect();
    if is_root() {
        assert_eq!((denied, report.denied), (Vec::new(), 0));
        // Changing the owner takes capabilities away, so they came later.
        assert_eq!(fs::metadata(path("tool")).unwrap().uid(), 12345);
        assert_eq!(
            there(&path("tool")),
            expected([("security.capability", &CAPABILITY), ("user.a", b"tool")])
        );
        assert_eq!(there(&path("link")), expected([("trusted.of", b"link")]));
    } else {
        assert_eq!(there(&path("tool")), expected([("user.a", b"tool")]));
        assert_eq!(report.denied, 2);
        assert!(denied.contains(&("tool", "security.capability")), "{denied:?}");
        assert!(denied.contains(&("link", "trusted.of")), "{denied:?}");
    }
}

#[tokio::test]
async fn without_the_owner_a_program_gets_no_capabilities() {
    let packs = Arc::new(MemoryPacks::default());
    let mut tool = file(
        &packs,
        "tool",
        b"",
        &attributes([("security.capability", &CAPABILITY)]),
    );
    tool.uid += 1;
    let root = directory_of(&packs, "root", &[tool], None);
    let place = tempfile::tempdir().unwrap();
    let options = RestoreOptions {
        owners: false,
        ..options(OnError::Stop)
    };
    let report = restore(&packs, &root, place.path(), options).await.unwrap();
    assert_eq!(there(&place.path().join("tool")), expected([]));
    assert_eq!(report.denied_attributes[0].attribute, "security.capability");
}

#[tokio::test]
async fn what_was_there_before_makes_way_where_the_snapshot_says_what_there_is() {
    let packs = Arc::new(MemoryPacks::default());
    let entries = [
        file(&packs, "said", b"1", &attributes([("user.new", b"1")])),
        file(&packs, "unsaid", b"2", &ExtendedAttributes::default()),
    ];
    let root = directory_of(&packs, "root", &entries, None);
    for wanted in [true, false] {
        let place = tempfile::tempdir().unwrap();
        for name in ["said", "unsaid"] {
            let path = place.path().join(name);
            fs::write(&path, "old").unwrap();
            let set = |name, value: &[u8]| {
                rustix::fs::setxattr(&path, name, value, XattrFlags::empty()).unwrap();
            };
            set("user.old", b"0");
            set("system.posix_acl_access", &ACL);
        }
        let options = RestoreOptions {
            extended_attributes: wanted,
            ..options(OnError::Stop)
        };
        restore(&packs, &root, place.path(), options).await.unwrap();
        let old = expected([("system.posix_acl_access", &ACL), ("user.old", b"0")]);
        assert_eq!(there(&place.path().join("unsaid")), old);
        let said = if wanted {
            expected([("user.new", b"1")])
        } else {
            old
        };
        assert_eq!(there(&place.path().join("said")), said);
    }
}

#[tokio::test]
async fn what_is_damaged_or_unknown_fails_and_the_data_is_restored() {
    let packs = Arc::new(MemoryPacks::default());
    let plain = |name| file(&packs, name, name.as_bytes(), &ExtendedAttributes::default());
    let newer = br#"{"v":2,"more":1}"#;
    let entries = [
        directory_of(&packs, "d", &[plain("below")], Some(newer)),
        with_field(plain("damaged"), br#"{"v":1,"xattrs":[]}"#),
        with_field(plain("newer"), newer),
        plain("plain"),
    ];
    let root = directory_of(&packs, "root", &entries, None);
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    let error = restore(&packs, &root, &target, options(OnError::Stop))
        .await
        .unwrap_err()
        .to_string();
    // Whichever comes first.
    assert!(error.contains("extended attributes"), "{error}");

    let report = restore(&packs, &root, &target, options(LIST)).await.unwrap();
    let mut failed: Vec<_> = report
        .failures
        .iter()
        .map(|failure| (failure.path.to_str().unwrap(), failure.error.to_string()))
        .collect();
    failed.sort();
    let expected = [
        ("d", "version 2 of extended attributes"),
        ("damaged", "the record of extended attributes is damaged"),
        ("newer", "version 2 of extended attributes"),
    ];
    assert_eq!(failed.len(), expected.len(), "{failed:?}");
    for ((path, error), (expected_path, text)) in failed.iter().zip(expected) {
        assert!(*path == expected_path && error.contains(text), "{path}: {error}");
    }
    for name in ["d/below", "damaged", "newer", "plain"] {
        let name = Path::new(name);
        let data = fs::read(target.join(name)).unwrap();
        assert_eq!(data, name.file_name().unwrap().as_encoded_bytes());
    }

    let options = RestoreOptions {
        extended_attributes: false,
        ..options(OnError::Stop)
    };
    restore(&packs, &root, &target, options).await.unwrap();
}

fn inode(path: &Path) -> (u64, u64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.ino(), stat.nlink())
}

#[tokio::test]
async fn names_of_one_file_are_names_of_one_file_again() {
    let packs = Arc::new(MemoryPacks::default());
    let large = noise(3, 1_000_001);
    let symlink_named = |name| {
        let entry = DirEntry {
            object: Some(object(&packs, None, b"nowhere")),
            ..entry(name, EntryKind::Symlink, 0o777)
        };
        with_field(entry, &linked("5", 2).to_json())
    };
    let with_values = |id, value: &[u8]| ExtendedAttributes {
        values: values([("user.a", value)]),
        ..linked(id, 2)
    };
    let below = [
        file(&packs, "c", b"same", &linked("1", 4)),
        file(&packs, "large", &large, &with_values("2", b"l")),
    ];
    let entries = [
        directory_of(&packs, "d", &below, None),
        file(&packs, "a", b"same", &linked("1", 4)),
        file(&packs, "b", b"same", &linked("1", 4)),
        // The same data, but not the same file.
        file(&packs, "copy", b"same", &ExtendedAttributes::default()),
        file(&packs, "other", b"same", &linked("3", 2)),
        file(&packs, "large", &large, &with_values("2", b"l")),
        // The file was changed between one look and the other.
        file(&packs, "now", b"after", &linked("4", 2)),
        file(&packs, "then", b"before", &linked("4", 2)),
        symlink_named("x"),
        symlink_named("y"),
    ];
    let root = directory_of(&packs, "root", &entries, None);
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    // The second time everything is there already.
    for _ in 0..2 {
        let report = restore(&packs, &root, place.path(), options(OnError::Stop))
            .await
            .unwrap();
        let counts = report.counts;
        assert_eq!((counts.hard_links, counts.hard_links_copied), (4, 0));
        assert_eq!((counts.files, counts.symlinks), (9, 2));
        assert_eq!(counts.files + counts.symlinks, counts.total_files);
        assert_eq!(inode(&path("a")), inode(&path("b")));
        assert_eq!(inode(&path("a")), inode(&path("d/c")));
        assert_eq!(inode(&path("a")).1, 3);
        assert_eq!(inode(&path("large")), inode(&path("d/large")));
        assert_eq!(inode(&path("x")), inode(&path("y")));
        for alone in ["copy", "other", "now", "then"] {
            assert_eq!(inode(&path(alone)).1, 1, "{alone}");
        }
        assert!(fs::read(path("large")).unwrap() == large);
        assert_eq!(there(&path("d/large")), expected([("user.a", b"l")]));
        assert_eq!(fs::read(path("a")).unwrap(), b"same");
        assert_eq!(fs::read(path("then")).unwrap(), b"before");
        assert_eq!(fs::read_link(path("y")).unwrap(), Path::new("nowhere"));
        for directory in ["", "d", "a"] {
            assert_eq!(fs::metadata(path(directory)).unwrap().mtime(), 1_500_000_000);
        }
    }
    // Those who do not want it get files.
    let other = tempfile::tempdir().unwrap();
    let plain = RestoreOptions {
        extended_attributes: false,
        ..options(OnError::Stop)
    };
    restore(&packs, &root, other.path(), plain).await.unwrap();
    assert_eq!(inode(&other.path().join("a")).1, 1);
}

#[tokio::test]
async fn names_of_a_file_that_was_not_restored_get_its_data() {
    let packs = Arc::new(MemoryPacks::default());
    let name = |name| file(&packs, name, b"data", &linked("1", 3));
    let root = directory_of(&packs, "root", &[name("a"), name("b"), name("c")], None);
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("a")).unwrap();
    let report = restore(&packs, &root, place.path(), options(LIST)).await.unwrap();
    assert_eq!(report.failures.len(), 1);
    assert_eq!(
        (report.counts.hard_links, report.counts.hard_links_copied),
        (0, 2)
    );
    for name in ["b", "c"] {
        assert_eq!(fs::read(place.path().join(name)).unwrap(), b"data");
    }

    // What is passed over since it is there is no file to be linked to.
    let place = tempfile::tempdir().unwrap();
    restore(&packs, &root, place.path(), options(OnError::Stop))
        .await
        .unwrap();
    fs::remove_file(place.path().join("b")).unwrap();
    let options = RestoreOptions {
        skip_existing: true,
        ..options(OnError::Stop)
    };
    let report = restore(&packs, &root, place.path(), options).await.unwrap();
    assert_eq!((report.counts.skipped, report.counts.files), (2, 1));
    assert_eq!(fs::read(place.path().join("b")).unwrap(), b"data");
    assert_eq!(inode(&place.path().join("b")).1, 1);
}

#[tokio::test]
async fn what_is_in_the_way_of_a_name_is_as_in_the_way_of_a_file() {
    let packs = Arc::new(MemoryPacks::default());
    let name = |name| file(&packs, name, b"data", &linked("1", 4));
    let entries = [name("a"), name("directory"), name("file"), name("link")];
    let root = directory_of(&packs, "root", &entries, None);
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("directory")).unwrap();
    fs::write(place.path().join("file"), "old").unwrap();
    symlink(&victim, place.path().join("link")).unwrap();
    let report = restore(&packs, &root, place.path(), options(LIST)).await.unwrap();
    assert_eq!(report.failures[0].path, Path::new("directory"));
    assert_eq!((report.counts.failed, report.counts.hard_links), (1, 2));
    assert_eq!(inode(&place.path().join("a")), inode(&place.path().join("link")));
    assert_eq!(inode(&place.path().join("a")), inode(&place.path().join("file")));
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
}

#[tokio::test]
async fn very_many_names_wait_in_turns() {
    let packs = Arc::new(MemoryPacks::default());
    let large = noise(5, 3_000_000);
    let entries: Vec<DirEntry> = (0..2500)
        .map(|number| {
            let name = format!("{number:04}");
            // Pairs that are next to each other, and one file that takes its time.
            if number % 2 == 0 {
                file(&packs, &name, &large, &linked("large", 1250))
            } else {
                file(&packs, &name, b"small", &linked(&format!("{}", number / 4), 2))
            }
        })
        .collect();
    let root = directory_of(&packs, "root", &entries, None);
    let place = tempfile::tempdir().unwrap();
    let report = restore(&packs, &root, place.path(), options(OnError::Stop))
        .await
        .unwrap();
    assert_eq!(report.counts.files, 2500);
    assert_eq!(report.counts.hard_links, 1249 + 625);
    assert_eq!(inode(&place.path().join("0000")).1, 1250);
    assert_eq!(inode(&place.path().join("2497")).1, 2);
    assert_eq!(report.counts.bytes, 3_000_000 + 625 * 5);
}
