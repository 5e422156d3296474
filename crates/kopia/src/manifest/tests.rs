use proptest::prelude::*;

use super::compaction::COMPACT_FROM;
use super::*;
use crate::hostile::{self, Bound};
use crate::object::testing::MemoryContents;
use crate::snapshot::{
    ParentFilter, SnapshotManifest, SourceInfo, list_snapshots, load_snapshot, parent_snapshots,
    save_snapshot,
};

const FIRST: &[u8] = include_bytes!("../../testdata/manifest/first.json.gz");
const SECOND: &[u8] = include_bytes!("../../testdata/manifest/second.json.gz");

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

async fn load(contents: &MemoryContents) -> Manifests {
    Manifests::load(contents.source(), contents.ids()).await.unwrap()
}

fn golden() -> MemoryContents {
    let contents = MemoryContents::default();
    for data in [FIRST, SECOND] {
        contents
            .put(Some(Prefix::MANIFEST), data.to_vec(), HeaderId::NONE)
            .unwrap();
    }
    contents
}

fn unpacked(packed: &[u8]) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut text).unwrap();
    text
}

#[tokio::test]
async fn what_kopia_wrote_is_read() {
    let manifests = load(&golden()).await;
    assert_eq!(manifests.find(&Labels::new()).len(), 4);
    let policies = manifests.find(&labels(&[(TYPE, "policy")]));
    assert_eq!(policies.len(), 2);
    assert!(policies[0].modified < policies[1].modified);
    let snapshots = list_snapshots(&manifests, None).await.unwrap();
    assert_eq!(
        snapshots[0].id.as_ref().unwrap().as_str(),
        "351b248861583a1e229f0b92d475db75"
    );
    assert_eq!(snapshots[0].source.to_string(), "root@host:/tree");
    assert_eq!(snapshots[0].stats.file_count, 21);
    assert!(load_snapshot(&manifests, &policies[0].id).await.is_err());
    let missing = "00000000000000000000000000000000".parse().unwrap();
    let error = manifests.get::<SnapshotManifest>(&missing).await.unwrap_err();
    assert!(matches!(error, KopiaError::ManifestNotFound { .. }));
}

#[tokio::test]
async fn what_is_written_is_as_kopia_writes_it() {
    for golden in [FIRST, SECOND] {
        let mut document = DocumentWriter::new();
        document::read(golden, &mut |entry: Entry<'_>| {
            document.entry(
                &entry.id,
                entry.labels.as_ref(),
                entry.modified,
                Some(entry.json()),
            )
        })
        .unwrap();
        assert_eq!(unpacked(&document.finish().unwrap()), unpacked(golden));
    }
}

#[tokio::test]
async fn the_newest_entry_of_a_manifest_counts() {
    let contents = MemoryContents::default();
    let mut manifests = load(&contents).await;
    let of = labels(&[(TYPE, "test"), ("name", "a")]);
    let first = manifests.put(of.clone(), "one", at(1)).unwrap();
    assert!(manifests.is_dirty());
    assert_eq!(manifests.get::<String>(&first).await.unwrap(), "one");
    manifests.flush(&contents).unwrap();
    let second = manifests.replace(of.clone(), "<two>", at(2)).unwrap();
    assert!(manifests.get::<String>(&first).await.is_err());
    manifests.flush(&contents).unwrap();
    assert!(!manifests.is_dirty());
    for manifests in [manifests, load(&contents).await] {
        let found = manifests.find(&of);
        assert_eq!(found.len(), 1);
        assert_eq!(manifests.get::<String>(&second).await.unwrap(), "<two>");
        assert!(manifests.get::<String>(&first).await.is_err());
        assert!(manifests.get::<u32>(&second).await.is_err());
        assert!(manifests.find(&labels(&[("name", "b")])).is_empty());
    }
    assert!(
        load(&contents)
            .await
            .put(Labels::new(), "no type", at(3))
            .is_err()
    );
}

#[tokio::test]
async fn what_a_clock_ahead_wrote_can_be_deleted() {
    let contents = MemoryContents::default();
    let mut manifests = load(&contents).await;
    let id = manifests
        .put(labels(&[(TYPE, "test")]), "from tomorrow", at(86_400))
        .unwrap();
    manifests.flush(&contents).unwrap();
    manifests.delete(&id, at(0));
    manifests.flush(&contents).unwrap();
    assert!(load(&contents).await.find(&Labels::new()).is_empty());
}

#[tokio::test]
async fn compaction_keeps_all_but_old_deletions() {
    let contents = MemoryContents::default();
    let mut manifests = load(&contents).await;
    let mut ids = Vec::new();
    for number in 0..COMPACT_FROM {
        assert!(!manifests.are_scattered());
        let of = labels(&[(TYPE, "test"), ("number", &number.to_string())]);
        ids.push(manifests.put(of, &number, at(0)).unwrap());
        if number == 5 {
            manifests.delete(&ids[0], at(1));
        }
        if number == 10 {
            manifests.delete(&ids[1], at(90_000));
        }
        manifests.flush(&contents).unwrap();
    }
    let mut manifests = load(&contents).await;
    assert!(manifests.are_scattered());
    let data = manifests.compaction(at(100_000)).await.unwrap();
    let text = unpacked(&data);
    assert!(!text.contains(ids[0].as_str()));
    assert!(text.contains(&format!("{{\"id\":\"{}\",\"labels\":null,\"modified\":\"2023-11-15T23:13:20Z\",\"deleted\":true,\"data\":null}}", ids[1])));
    // Those who compacted see the same as those who come later.
    let into = contents
        .put(Some(Prefix::MANIFEST), data.clone(), HeaderId::NONE)
        .unwrap();
    manifests.compacted(into);
    assert_eq!(manifests.contents(), [into]);
    let compacted = MemoryContents::default();
    compacted
        .put(Some(Prefix::MANIFEST), data, HeaderId::NONE)
        .unwrap();
    for manifests in [manifests, load(&compacted).await] {
        assert_eq!(manifests.find(&Labels::new()).len(), COMPACT_FROM - 2);
        assert_eq!(manifests.get::<usize>(&ids[13]).await.unwrap(), 13);
        assert!(manifests.get::<usize>(&ids[1]).await.is_err());
    }
}

fn source() -> SourceInfo {
    SourceInfo {
        host: "default".to_owned(),
        user_name: "default".to_owned(),
        path: "snapshot-pod-volume/kopia/ns/pod/data".to_owned(),
    }
}

fn save(manifests: &mut Manifests, start: i64, incomplete: &str, uploader: Option<&str>) -> ManifestId {
    let mut snapshot = SnapshotManifest {
        source: source(),
        start_time: UtcTime::from_unix(start, 0),
        incomplete: incomplete.to_owned(),
        ..SnapshotManifest::default()
    };
    snapshot
        .tags
        .extend(uploader.map(|value| ("snapshot-uploader".to_owned(), value.to_owned())));
    save_snapshot(manifests, &snapshot, at(start)).unwrap()
}

#[tokio::test]
async fn parents_are_the_latest_complete_snapshot_and_later_checkpoints() {
    let contents = MemoryContents::default();
    let mut manifests = load(&contents).await;
    let early = save(&mut manifests, 5, "checkpoint", None);
    let complete = save(&mut manifests, 10, "", Some("kopia"));
    let between = save(&mut manifests, 15, "checkpoint", None);
    let other = save(&mut manifests, 20, "", None);
    let last = save(&mut manifests, 25, "checkpoint", None);
    manifests.flush(&contents).unwrap();
    let manifests = load(&contents).await;
    let parents = async |filter: ParentFilter| -> Vec<ManifestId> {
        let parents = parent_snapshots(&manifests, &source(), &filter).await.unwrap();
        parents.into_iter().map(|snapshot| snapshot.id.unwrap()).collect()
    };
    assert_eq!(parents(ParentFilter::default()).await, [other, last.clone()]);
    let tags = labels(&[("snapshot-uploader", "kopia")]);
    let filter = ParentFilter {
        tags,
        no_later_than: None,
    };
    assert_eq!(
        parents(filter.clone()).await,
        [complete.clone(), between.clone(), last]
    );
    let no_later_than = Some(UtcTime::from_unix(15, 0));
    assert_eq!(
        parents(ParentFilter {
            no_later_than,
            ..filter
        })
        .await,
        [complete, between]
    );
    let no_later_than = Some(UtcTime::from_unix(5, 0));
    assert_eq!(
        parents(ParentFilter {
            no_later_than,
            ..ParentFilter::default()
        })
        .await,
        [early]
    );
    let elsewhere = SourceInfo {
        path: "else".to_owned(),
        ..source()
    };
    assert!(
        parent_snapshots(&manifests, &elsewhere, &ParentFilter::default())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn snapshots_without_a_source_or_with_odd_tags_are_refused() {
    let mut manifests = load(&MemoryContents::default()).await;
    let mut snapshot = SnapshotManifest::default();
    assert!(save_snapshot(&mut manifests, &snapshot, at(0)).is_err());
    snapshot.source = source();
    snapshot.tags = labels(&[("path", "x")]);
    assert!(save_snapshot(&mut manifests, &snapshot, at(0)).is_err());
}

#[tokio::test]
async fn thousands_are_listed_by_reading_each_content_once() {
    let contents = MemoryContents::default();
    let mut manifests = load(&contents).await;
    for number in 0..5_000 {
        save(&mut manifests, number, "", Some("kopia"));
        if number % 1000 == 999 {
            manifests.flush(&contents).unwrap();
        }
    }
    let manifests = load(&contents).await;
    let before = contents.reads();
    assert_eq!(
        list_snapshots(&manifests, Some(&source())).await.unwrap().len(),
        5_000
    );
    assert_eq!(contents.reads() - before, 5);
    let found = manifests.find(&Labels::new());
    assert!(Arc::ptr_eq(&found[0].labels, &found[4_999].labels));
}

proptest! {
    #[test]
    fn any_content_is_harmless(data: Vec<u8>, gzip: bool) {
        let data = if gzip {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, &data).unwrap();
            packed.finish().unwrap()
        } else {
            data
        };
        let contents = MemoryContents::default();
        contents.put(Some(Prefix::MANIFEST), data, HeaderId::NONE).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(Manifests::load(contents.source(), contents.ids()));
    }
}

/// Bytes in gzip.
fn packed(data: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, data).unwrap();
    packed.finish().unwrap()
}

#[test]
fn hostile_contents_are_harmless() {
    let load = |data: Vec<u8>| {
        let contents = MemoryContents::default();
        contents
            .put(Some(Prefix::MANIFEST), data, HeaderId::NONE)
            .unwrap();
        let loaded = futures::executor::block_on(Manifests::load(contents.source(), contents.ids()));
        if let Ok(manifests) = loaded {
            let ids: Vec<_> = manifests
                .find(&Labels::new())
                .into_iter()
                .map(|found| found.id)
                .collect();
            let mut visit = |_: &ManifestId, document: KopiaResult<SnapshotManifest>| drop(document);
            drop(futures::executor::block_on(manifests.visit(&ids, &mut visit)));
            drop(futures::executor::block_on(manifests.compaction(at(0))));
        }
    };
    // What packs and unpacks takes most of it: some 300 KiB whatever the input is.
    let bound = Bound::new(1 << 20, 400);
    hostile::check(&[FIRST, SECOND], bound, |data| load(data.to_vec()));
    let texts = [FIRST, SECOND].map(unpacked);
    let deleted = r#"{"entries":[{"id":"00ff","labels":null,"modified":"2024-05-06T07:08:09Z","deleted":true,"data":null}]}"#;
    let texts = [texts[0].as_bytes(), texts[1].as_bytes(), deleted.as_bytes()];
    hostile::check(&texts, bound, |text| load(packed(text)));
    let id = b"351b248861583a1e229f0b92d475db75";
    hostile::check(&[id], Bound::new(1024, 10), |text| {
        drop(String::from_utf8_lossy(text).parse::<ManifestId>());
    });
}

/// Data in gzip can be a thousand times as long as its content.
#[test]
fn bombs_take_little_memory() {
    let text = |labels: usize| {
        let mut text = b"{\"entries\":[".to_vec();
        for number in 0..60 {
            let label = "x".repeat(labels);
            let entry =
                format!(r#"{{"id":"{number:08x}","labels":{{"type":"{number}{label}"}},"data":{{}}}},"#);
            text.extend(entry.into_bytes());
        }
        text.pop();
        text.extend(b"]}");
        text
    };
    let read = |data: Vec<u8>| {
        let contents = MemoryContents::default();
        contents
            .put(Some(Prefix::MANIFEST), data, HeaderId::NONE)
            .unwrap();
        let mut result = Ok(());
        let allocated = allocation_counter::measure(|| {
            let loaded = futures::executor::block_on(Manifests::load(contents.source(), contents.ids()));
            result = loaded.map(drop);
        });
        (result, allocated.bytes_max)
    };
    let (result, most) = read(packed(&text(1_000)));
    assert!(result.is_ok() && most < 2 << 20, "{most}");
    // Labels of 60 MiB in 300 KB.
    let (result, most) = read(packed(&text(1 << 20)));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("unpacks to more than"), "{error}");
    assert!(most < 32 << 20, "{most}");
    // Nothing but white space without end, and one value without end.
    for byte in [b' ', b'7'] {
        let long = [&b"{\"entries\":["[..], &vec![byte; 100 << 20]].concat();
        let (result, most) = read(packed(&long));
        assert!(result.is_err() && most < 20 << 20, "{most}");
    }
}
