use proptest::prelude::*;

use super::*;
use crate::compression::HeaderId;
use crate::content::Prefix;
use crate::hostile::{self, Bound};
use crate::object::testing::MemoryContents;
use crate::object::{ContentSink as _, ListOptions, ObjectOptions, ObjectWriter, PieceOptions};
use crate::splitter::Splitter;

/// Some object.
const ODD_OBJECT: &str = "bed367df1e5dbfea3a8dae64f0cc892f";

const ODD: &[u8] = include_bytes!("../../testdata/snapshot/odd-names.json");
const NESTED: &[u8] = include_bytes!("../../testdata/snapshot/nested-dir.json");
const EMPTY: &[u8] = include_bytes!("../../testdata/snapshot/empty-dir.json");

/// The names in [`ODD`] that are not UTF-8, as kopia wrote them, and as they were on disk.
const NOT_UTF8: [(&str, &[u8]); 3] = [
    ("bad\u{fffd}", b"bad\xc3"),
    ("bad\u{fffd}\u{fffd}utf8", b"bad\xff\xfeutf8"),
    ("surr\u{fffd}\u{fffd}\u{fffd}", b"surr\xed\xa0\x80"),
];

fn parse(text: &[u8], step: usize) -> Result<Directory, String> {
    let (mut parser, mut entries) = (DirectoryParser::default(), Vec::new());
    for part in text.chunks(step) {
        parser.feed(part, &mut |entry| entries.push(entry))?;
    }
    let summary = parser.finish()?.unwrap_or_default();
    Ok(Directory { entries, summary })
}

fn json(directory: &Directory) -> String {
    let mut out = Vec::new();
    directory
        .write_json(&mut |block| {
            out.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
    String::from_utf8(out).unwrap()
}

/// As it was on disk.
fn with_real_names(mut directory: Directory) -> Directory {
    for entry in &mut directory.entries {
        let name = entry.name.to_string();
        if let Some((_, real)) = NOT_UTF8.iter().find(|(written, _)| *written == name) {
            entry.name = EntryName::from(*real);
        }
    }
    directory
}

#[test]
fn directories_are_written_as_kopia_writes_them() {
    for golden in [ODD, NESTED, EMPTY] {
        for step in [1, 1000, golden.len()] {
            let directory = with_real_names(parse(golden, step).unwrap());
            assert_eq!(json(&directory), String::from_utf8_lossy(golden));
        }
    }
    let odd = with_real_names(parse(ODD, 100).unwrap());
    let unkept = odd.entries.iter().filter(|entry| !entry.name.is_kept());
    assert_eq!(unkept.count(), NOT_UTF8.len());
}

#[test]
fn directories_are_built_as_kopia_builds_them() {
    for golden in [ODD, NESTED, EMPTY] {
        let directory = with_real_names(parse(golden, 100).unwrap());
        let mut builder = DirectoryBuilder::default();
        directory
            .entries
            .iter()
            .rev()
            .cloned()
            .for_each(|entry| builder.add(entry));
        // The time of the empty directory, which is its summary's.
        let built = builder.build(directory.summary.max_time, "");
        assert_eq!(json(&built), String::from_utf8_lossy(golden));
    }
}

#[test]
fn the_modes_times_and_kinds_are_those_of_the_tree() {
    let odd = parse(ODD, 100).unwrap();
    let find = |name: &str| {
        odd.entries
            .iter()
            .find(|entry| entry.name == EntryName::from(name))
            .unwrap()
    };
    assert_eq!(find("setuid").permissions.to_unix(), 0o4755);
    assert_eq!(find("setgid").permissions.to_unix(), 0o2755);
    assert_eq!(find("sticky").permissions.to_unix(), 0o1644);
    assert_eq!(find("mode0").permissions.to_unix(), 0);
    assert_eq!(find("epoch").mtime, UtcTime::default());
    assert_eq!(find("before1970").mtime.to_unix(), (-2, 500_000_000));
    assert_eq!((find("plain.txt").uid, find("plain.txt").gid), (1000, 1001));
    assert_eq!(find("badlink").kind, EntryKind::Symlink);
    assert_eq!(find("zdir").summary.as_ref().unwrap().size, 103);
}

#[test]
fn failures_are_counted_and_ten_are_named() {
    let mut below = DirectoryBuilder::default();
    for number in (10..30).rev() {
        below.add_failed(format!("d/{number}"), "denied".to_owned(), number % 2 == 0);
    }
    let below = below.build(UtcTime::default(), "").summary;
    let mut root = DirectoryBuilder::default();
    root.add_failed("a".to_owned(), "gone".to_owned(), false);
    root.add(DirEntry {
        name: "d".into(),
        kind: EntryKind::Directory,
        summary: Some(Box::new(below)),
        ..DirEntry::default()
    });
    let root = root.build(UtcTime::default(), "canceled");
    let summary = &root.summary;
    assert_eq!(
        (summary.failed, summary.ignored_errors, summary.errors.len()),
        (11, 10, 10)
    );
    assert_eq!(summary.errors[0].path, "a");
    assert_eq!(summary.errors[9].path, "d/18");
    assert!(json(&root).contains(r#""incomplete":"canceled","numFailed":11,"numIgnoredErrors":10,"errors":[{"path":"a","error":"gone"},"#));
}

#[test]
fn unknown_fields_are_kept() {
    let text = r#"{"name":"a","type":"f","obj":"00ff","new":{"b":[1,"<"]}}"#;
    let entry: DirEntry = serde_json::from_str(text).unwrap();
    assert_eq!(
        serde_json::to_string(&entry).unwrap(),
        text.replace('<', "\\u003c")
    );
    let text = include_str!("../../testdata/snapshot/manifest.json").trim();
    let text = text.replacen("\"description\":\"\"", "\"description\":\"a&b\"", 1);
    let manifest: SnapshotManifest = serde_json::from_str(&text).unwrap();
    let written = String::from_utf8(crate::json::to_vec(&manifest).unwrap()).unwrap();
    assert_eq!(written, text.replace('&', "\\u0026"));
    let text = format!("{},\"future\":7}}", text.strip_suffix('}').unwrap());
    let mut manifest: SnapshotManifest = serde_json::from_str(&text).unwrap();
    assert!(manifest.update_pins(&["b".to_owned(), "a".to_owned()], &["none".to_owned()]));
    assert!(!manifest.update_pins(&["a".to_owned()], &[]));
    let written = serde_json::to_string(&manifest).unwrap();
    assert!(written.ends_with(r#","pins":["a","b"],"future":7}"#), "{written}");
}

#[tokio::test]
async fn directories_are_streamed() {
    let contents = MemoryContents::default();
    let put = |text: &[u8]| {
        let id = contents.put(Some(Prefix::DIRECTORY), text.to_vec(), HeaderId::NONE);
        crate::ObjectId::direct(id.unwrap())
    };
    let mut stream = DirectoryStream::open(contents.source(), put(ODD)).unwrap();
    let mut count = 0;
    while stream.next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 23);
    assert_eq!(stream.summary().unwrap().files, 21);
    for text in [
        "",
        "{}",
        r#"{"stream":"kopia:indirect","entries":[]}"#,
        r#"{"stream":"kopia:directory","entries":[{"name":7}]}"#,
    ] {
        let mut stream = DirectoryStream::open(contents.source(), put(text.as_bytes())).unwrap();
        assert!(stream.next().await.is_err(), "{text}");
    }
}

#[test]
fn sources_are_labels() {
    let source = SourceInfo {
        host: "default".to_owned(),
        user_name: "default".to_owned(),
        path: "a/b".to_owned(),
    };
    assert_eq!(source.to_string(), "default@default:a/b");
    let labels: Vec<_> = source
        .labels()
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        labels,
        [
            "hostname=default",
            "path=a/b",
            "type=snapshot",
            "username=default"
        ]
    );
}

#[tokio::test]
async fn directories_of_200_000_entries_are_objects_of_several_contents() {
    let mut builder = DirectoryBuilder::default();
    for number in 0..200_000_u32 {
        builder.add(DirEntry {
            name: format!("file-{:06}.txt", number.wrapping_mul(7919) % 200_000)
                .as_str()
                .into(),
            kind: EntryKind::File,
            permissions: Permissions::from_unix(0o644),
            size: number.into(),
            mtime: UtcTime::from_unix(1_700_000_000, number.into()),
            uid: 1000,
            gid: 1000,
            object: Some(ODD_OBJECT.parse().unwrap()),
            ..DirEntry::default()
        });
    }
    let directory = builder.build(UtcTime::default(), "");
    let contents = MemoryContents::default();
    let list = ListOptions {
        prefix: Some(Prefix::DIRECTORY),
        compression: HeaderId::NONE,
        splitter: Splitter::DEFAULT,
    };
    let pieces = PieceOptions {
        prefix: Some(Prefix::DIRECTORY),
        compression: HeaderId::NONE,
        splitter: Splitter::DEFAULT,
        batch: 1,
    };
    let mut writer = ObjectWriter::new(contents.clone(), ObjectOptions { pieces, list });
    directory.write_json(&mut |block| writer.write(block)).unwrap();
    let object = writer.finish().unwrap();
    assert!(object.to_string().starts_with("Ik"), "{object}");
    let mut stream = DirectoryStream::open(contents.source(), object).unwrap();
    for expected in &directory.entries {
        assert_eq!(stream.next().await.unwrap().as_ref(), Some(expected));
    }
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.summary(), Some(&directory.summary));
    assert_eq!(stream.summary().unwrap().files, 200_000);
}

proptest! {
    #[test]
    fn any_directory_is_harmless(text: Vec<u8>, step in 1_usize..50) {
        let _ = parse(&text, step);
    }

    #[test]
    fn any_damage_is_harmless(at in 0..NESTED.len(), byte: u8) {
        let mut text = NESTED.to_vec();
        text[at] = byte;
        if let Ok(directory) = parse(&text, 64) {
            json(&directory);
            let mut builder = DirectoryBuilder::default();
            directory.entries.into_iter().for_each(|entry| builder.add(entry));
            builder.build(UtcTime::default(), "");
        }
    }

    #[test]
    fn names_come_back_as_kopia_reads_them(name: Vec<u8>) {
        let entry = DirEntry { name: name.as_slice().into(), ..DirEntry::default() };
        let text = serde_json::to_string(&entry).unwrap();
        let back: DirEntry = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back.name.to_string(), entry.name.to_string());
        prop_assert_eq!(back.name == entry.name, entry.name.is_kept());
    }
}

#[test]
fn hostile_directories_and_manifests_are_harmless() {
    hostile::check(&[ODD, NESTED, EMPTY], Bound::new(64 << 10, 400), |text| {
        if let Ok(directory) = parse(text, 1000) {
            json(&directory);
        }
    });
    let manifest = include_bytes!("../../testdata/snapshot/manifest.json");
    serde_json::from_slice::<SnapshotManifest>(manifest).unwrap();
    hostile::check(&[manifest], Bound::new(16 << 10, 100), |text| {
        if let Ok(snapshot) = serde_json::from_slice::<SnapshotManifest>(text) {
            snapshot.root_object();
            drop(crate::json::to_vec(&snapshot));
        }
    });
    for golden in [
        &b"2024-05-06T07:08:09.123456789Z"[..],
        b"2024-05-06T07:08:09+02:00",
        b"0755",
        b"-rwxr-xr-x",
    ] {
        hostile::check(&[golden], Bound::new(4096, 20), |text| {
            let text = serde_json::to_vec(&String::from_utf8_lossy(text)).unwrap();
            let _ = serde_json::from_slice::<UtcTime>(&text);
            let _ = serde_json::from_slice::<Permissions>(&text);
            drop(serde_json::from_slice::<EntryName>(&text));
        });
    }
}
