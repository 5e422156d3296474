//! What kopia does not keep: extended attributes, and which names are one file.

use rustix::fs::XattrFlags;

use super::*;
use crate::snapshot::{ExtendedAttributes, HardLink};

fn set(path: impl AsRef<Path>, name: &str, value: impl AsRef<[u8]>) {
    rustix::fs::lsetxattr(path.as_ref(), name, value.as_ref(), XattrFlags::empty()).unwrap();
}

fn with() -> BackupOptions {
    BackupOptions {
        extended_attributes: true,
        ..BackupOptions::default()
    }
}

fn root(report: &BackupReport) -> ObjectId {
    report.snapshot.root_object().unwrap()
}

async fn own(memory: &Memory, directory: ObjectId) -> Option<ExtendedAttributes> {
    let mut stream = DirectoryStream::open(memory.contents.source(), directory).unwrap();
    let first = stream.next().await.unwrap();
    let own = stream.own_attributes().unwrap();
    // It comes before the entries, even before the only one is asked for.
    assert!(first.is_some());
    own
}

/// A tree in which much has extended attributes.
fn attributed() -> TempDir {
    let folder = sample();
    let path = |name: &str| folder.path().join(name);
    write(path("large"), noise(3 << 20, 99));
    set(folder.path(), "user.of", "the root");
    set(path("a"), "user.of", "a");
    set(path("empty"), "user.of", "nothing");
    set(path("file-1000"), "user.color", "green");
    set(path("file-1000"), "user.bytes", [0, 255, b'"']);
    set(path("large"), "user.long", [7; 2000]);
    // Owner, group and others as in the mode, and read for one more user.
    let acl = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 210, 4, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    set(path("file-0"), "system.posix_acl_access", &acl);
    set(path("a/b"), "system.posix_acl_default", &acl);
    fs::hard_link(path("file-1000"), path("a/another name")).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_option_nothing_of_it_is_stored() {
    let folder = attributed();
    let copy = |options: BackupOptions| {
        let folder = &folder;
        async move {
            let memory = Memory::new("DYNAMIC-128K-BUZHASH");
            let report = run(&memory, folder, options).await.unwrap();
            (report, memory)
        }
    };
    let (before, memory) = copy(BackupOptions::default()).await;
    assert_eq!(before.numbers.with_attributes, 0);
    for id in memory.contents.ids() {
        let (data, _) = memory.contents.entry(&id).unwrap();
        assert!(!data.windows(10).any(|part| part == b"\"holdfast\""), "{id}");
    }
    let (after, _) = copy(with()).await;
    assert_ne!(root(&after), root(&before));
    // Attributes do not change when a file was modified.
    for (path, name) in [("file-1000", "user.color"), ("", "user.of")] {
        rustix::fs::removexattr(folder.path().join(path), name).unwrap();
    }
    let (again, _) = copy(BackupOptions::default()).await;
    assert_eq!(root(&again), root(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_without_attributes_are_the_same_objects() {
    let folder = sample();
    set(folder.path().join("file-1000"), "user.color", "green");
    let (plain, more) = (
        Memory::new("DYNAMIC-128K-BUZHASH"),
        Memory::new("DYNAMIC-128K-BUZHASH"),
    );
    let without = run(&plain, &folder, BackupOptions::default()).await.unwrap();
    let with = run(&more, &folder, with()).await.unwrap();
    let (without, with) = (
        tree(&plain, &without.snapshot).await,
        tree(&more, &with.snapshot).await,
    );
    for (path, entry) in &without {
        let same = entry == &with[path];
        assert_eq!(same, path != Path::new("file-1000"), "{path:?}");
        assert_eq!(entry.object, with[path].object, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_kept_and_read_again_each_time() {
    let folder = attributed();
    let memory = Memory::new("DYNAMIC-128K-BUZHASH");
    let first = run(&memory, &folder, with()).await.unwrap();
    assert_eq!(first.numbers.errors, 0);
    // The root, "a", "a/b", "empty", "file-0", "file-1000" twice, "large".
    assert_eq!(first.numbers.with_attributes, 8);
    let found = tree(&memory, &first.snapshot).await;
    let of = |path: &str| {
        ExtendedAttributes::of_entry(&found[Path::new(path)])
            .unwrap()
            .unwrap_or_default()
    };
    let object = |path: &str| found[Path::new(path)].object.unwrap();
    let file = of("file-1000");
    assert_eq!(file.values[b"user.color".as_slice()], b"green");
    assert_eq!(file.values[b"user.bytes".as_slice()], [0, 255, b'"']);
    assert!(matches!(&file.link, Some(HardLink { names: 2, .. })));
    assert_eq!(of("a/another name"), file);
    assert_eq!(of("large").values[b"user.long".as_slice()], [7; 2000]);
    assert_eq!(
        of("file-0").values[b"system.posix_acl_access".as_slice()].len(),
        44
    );
    assert!(of("file-1").is_empty() && of("link").is_empty() && of("a").is_empty());
    for (directory, name) in [
        (root(&first), "user.of"),
        (object("a"), "user.of"),
        (object("a/b"), "system.posix_acl_default"),
    ] {
        let own = own(&memory, directory).await.unwrap();
        assert!(own.values.contains_key(name.as_bytes()), "{own:?}");
    }
    assert_eq!(own(&memory, object("a/b/c")).await, None);

    // Nothing changed, so nothing is stored, and no file is opened.
    memory.written();
    let contents = memory.contents.ids().len();
    let second = run(&memory, &folder, with()).await.unwrap();
    assert_eq!(root(&second), root(&first));
    assert_eq!((memory.written(), second.numbers.opened_files), (0, 0));
    assert_eq!(second.numbers.with_attributes, 8);
    // The manifest of the second.
    assert_eq!(memory.contents.ids().len(), contents + 1);

    // Attributes alone.
    set(folder.path().join("file-1000"), "user.color", "blue");
    set(folder.path().join("file-1"), "user.new", "");
    let third = run(&memory, &folder, with()).await.unwrap();
    assert_eq!((memory.written(), third.numbers.opened_files), (0, 0));
    let found = tree(&memory, &third.snapshot).await;
    for (path, name, value) in [
        ("file-1000", "user.color", "blue"),
        ("a/another name", "user.color", "blue"),
        ("file-1", "user.new", ""),
    ] {
        let read = ExtendedAttributes::of_entry(&found[Path::new(path)]).unwrap();
        assert_eq!(read.unwrap().values[name.as_bytes()], value.as_bytes(), "{path}");
    }
}

/// A folder with files of which each has another value of 2,500 bytes.
fn many(files: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..files {
        let path = folder.path().join(format!("{number:04}"));
        write(&path, "");
        let mut value = number.to_le_bytes().to_vec();
        value.resize(2500, 1);
        set(path, "user.number", value);
    }
    folder
}

/// So few bytes that some values are read when their directory is written.
fn with_little_room() -> BackupOptions {
    BackupOptions {
        attribute_budget: 20_000,
        readers: 1,
        ..with()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_read_when_the_directory_is_written() {
    let folder = many(300);
    let memory = Memory::new("FIXED");
    let report = run(&memory, &folder, with_little_room()).await.unwrap();
    assert_eq!(report.numbers.with_attributes, 300);
    let mut number = 0_u32;
    for entry in entries(&memory, root(&report)).await {
        let read = ExtendedAttributes::of_entry(&entry).unwrap().unwrap();
        assert_eq!(read.values[b"user.number".as_slice()][..4], number.to_le_bytes());
        number += 1;
    }
    assert_eq!(number, 300);
    // It is the snapshot that it is with much room and in another order of reading.
    let again = Memory::new("FIXED");
    let again = run(&again, &folder, with()).await.unwrap();
    assert_eq!(root(&again), root(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_cannot_be_read_end_the_backup_or_are_left_out() {
    for errors in [ErrorPolicy::FailFast, ErrorPolicy::Skip] {
        let folder = many(20);
        let memory = Memory::new("FIXED");
        memory.blocked.store(true, Ordering::SeqCst);
        let options = BackupOptions {
            errors,
            ..with_little_room()
        };
        let backup = backup(&folder, options);
        let running = tokio::spawn({
            let memory = memory.clone();
            async move { backup.run(&memory, &mut memory.manifests().await).await }
        });
        while memory.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // All were read and are about to be stored; attributes of some are still to be read.
        for entry in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        memory.blocked.store(false, Ordering::SeqCst);
        let result = running.await.unwrap();
        if errors == ErrorPolicy::FailFast {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("read the extended attributes of"), "{error}");
            continue;
        }
        let report = result.unwrap();
        let (kept, left) = (report.numbers.with_attributes, report.numbers.errors);
        assert!(kept > 0 && left > 0 && kept + left == 20, "{kept} and {left}");
        assert_eq!(report.skipped.len() as u64, left);
        // The data of all is there.
        assert_eq!(entries(&memory, root(&report)).await.len(), 20);
    }
}
