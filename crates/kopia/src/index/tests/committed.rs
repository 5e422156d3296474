//! The index of a whole repository.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holdfast_store::Secret;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::blobs::IndexBlobs;
use super::super::entry::supersedes;
use super::super::{CommittedIndex, IndexBuilder};
use super::{any_content, content};
use crate::blob::memory::{BlobFault, FaultRule, Operation};
use crate::blob::{BlobId, BlobMetadata, BlobStorage, MemoryBlobs, Retention};
use crate::content::{ContentId, ContentInfo, Prefix};
use crate::epoch::Clock;
use crate::error::{KopiaError, KopiaResult};
use crate::format::{CreateOptions, RepositoryFormat};

const SESSION: &str = "s0123456789abcdef1";

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn clock() -> Clock {
    Arc::new(|| time(0))
}

/// A format of the version. Made once: its key takes long to compute.
pub(super) async fn format(version: u8) -> Arc<RepositoryFormat> {
    static FORMATS: tokio::sync::Mutex<BTreeMap<u8, Arc<RepositoryFormat>>> =
        tokio::sync::Mutex::const_new(BTreeMap::new());
    let mut formats = FORMATS.lock().await;
    if let Some(format) = formats.get(&version) {
        return format.clone();
    }
    let options = CreateOptions {
        version,
        ..CreateOptions::default()
    };
    let format =
        RepositoryFormat::create(&MemoryBlobs::new(), &Secret::new("golden"), &options, time(0)).await;
    let format = Arc::new(format.unwrap());
    formats.insert(version, format.clone());
    format
}

async fn open(storage: impl BlobStorage, version: u8) -> KopiaResult<CommittedIndex> {
    CommittedIndex::open(
        Arc::new(storage),
        format(version).await,
        &std::env::temp_dir(),
        clock(),
    )
    .await
}

fn builder(contents: impl IntoIterator<Item = ContentInfo>) -> IndexBuilder {
    contents.into_iter().collect()
}

/// What a blob of these contents is called, without prefix, and what is in it.
async fn sealed(contents: impl IntoIterator<Item = ContentInfo>, suffix: &str) -> (String, Bytes) {
    let blobs = IndexBlobs::new(
        Arc::new(MemoryBlobs::new()),
        format(3).await,
        &std::env::temp_dir(),
    )
    .unwrap();
    blobs.seal(builder(contents).build(2).unwrap(), suffix).unwrap()
}

async fn put(blobs: &MemoryBlobs, prefix: &str, contents: impl IntoIterator<Item = ContentInfo>) -> BlobId {
    let (name, data) = sealed(contents, "s1-c1").await;
    let id = BlobId::from(format!("{prefix}{name}"));
    blobs.insert(id.clone(), data, time(0));
    id
}

fn all(index: &CommittedIndex) -> Vec<ContentInfo> {
    index.contents().unwrap().collect::<KopiaResult<_>>().unwrap()
}

fn merged(contents: &[ContentInfo]) -> BTreeMap<ContentId, ContentInfo> {
    let mut model: BTreeMap<ContentId, ContentInfo> = BTreeMap::new();
    for info in contents {
        if model.get(&info.id).is_none_or(|known| supersedes(info, known)) {
            model.insert(info.id, info.clone());
        }
    }
    model
}

#[test]
fn what_is_written_is_found_here_and_elsewhere() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let format = runtime.block_on(format(3));
    let mut runner = TestRunner::new(Config::with_cases(40));
    let writes = vec((any::<bool>(), vec(any_content(), 1..60)), 1..12);
    runner
        .run(&writes, |writes| {
            let storage = MemoryBlobs::new();
            runtime.block_on(async {
                let open = async || {
                    let storage = Arc::new(storage.clone());
                    CommittedIndex::open(storage, format.clone(), &std::env::temp_dir(), clock())
                        .await
                        .unwrap()
                };
                let (one, other) = (open().await, open().await);
                let mut written = Vec::new();
                for (first, contents) in writes {
                    written.extend(contents.iter().cloned());
                    let (this, that) = if first { (&one, &other) } else { (&other, &one) };
                    this.refresh().await.unwrap();
                    this.write(builder(contents), SESSION).await.unwrap();
                    let expected = merged(&written);
                    prop_assert!(all(this).iter().eq(expected.values()));
                    that.refresh().await.unwrap();
                    prop_assert!(all(that).iter().eq(expected.values()));
                    for info in &written {
                        prop_assert_eq!(that.lookup(&info.id).unwrap(), expected.get(&info.id).cloned());
                        prop_assert_eq!(that.contains(&info.id).unwrap(), !expected[&info.id].deleted);
                    }
                }
                prop_assert!(all(&open().await).iter().eq(merged(&written).values()));
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn contents_are_listed_by_prefix() {
    let index = open(MemoryBlobs::new(), 3).await.unwrap();
    let contents: Vec<_> = (1..200).map(|n| content(n, 10)).collect();
    index.write(builder(contents.clone()), SESSION).await.unwrap();
    for prefix in [
        None,
        Some(Prefix::DIRECTORY),
        Some(Prefix::MANIFEST),
        Some(Prefix::INDIRECT),
    ] {
        let found: Vec<_> = index.contents_of(prefix).unwrap().map(Result::unwrap).collect();
        let expected = merged(&contents)
            .into_values()
            .filter(|info| info.id.prefix() == prefix);
        assert!(expected.eq(found), "{prefix:?}");
    }
    let unknown: ContentId = "k00".parse().unwrap();
    assert!(index.lookup(&unknown).unwrap().is_none());
    assert!(!index.contains(&unknown).unwrap());
    assert!(
        index
            .write(IndexBuilder::new(), SESSION)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_deletion_watermark_hides_what_was_deleted() {
    let blobs = MemoryBlobs::new();
    let info = |n, deleted, timestamp| ContentInfo {
        timestamp,
        deleted,
        ..content(n, 1)
    };
    put(
        &blobs,
        "xn0_",
        [
            info(1, true, 1000),
            info(2, true, 1001),
            info(3, false, 900),
            info(4, false, 900),
        ],
    )
    .await;
    // The newest entry counts even if it is hidden then: the older one does not come back.
    put(&blobs, "xn0_", [info(4, true, 1000)]).await;
    let index = open(blobs.clone(), 3).await.unwrap();
    assert_eq!(all(&index).len(), 4);
    blobs.insert("xw1000", "x", time(0));
    index.refresh().await.unwrap();
    let found = |n| index.lookup(&content(n, 1).id).unwrap().is_some();
    assert_eq!([1, 2, 3, 4].map(found), [false, true, true, false]);
    assert_eq!(all(&index).len(), 2);
}

#[tokio::test]
async fn compactions_replace_what_they_compacted() {
    let blobs = MemoryBlobs::new();
    let mut old = Vec::new();
    for n in 0..10 {
        old.push(put(&blobs, "xn0_", (0..20).map(|m| content(n * 20 + m, 10))).await);
    }
    let index = open(blobs.clone(), 3).await.unwrap();
    let before = all(&index);
    assert_eq!(before.len(), 200);
    for marker in ["xe1", "xe2", "xe3"] {
        blobs.insert(marker, "x", time(0));
    }
    put(&blobs, "xs0_", (0..200).map(|n| content(n, 10))).await;
    index.refresh().await.unwrap();
    assert_eq!(all(&index), before);
    for blob in &old {
        blobs.remove(blob);
    }
    index.refresh().await.unwrap();
    assert_eq!(all(&index), before);
    let own = content(500, 1);
    index.write(builder([own.clone()]), SESSION).await.unwrap();
    index.refresh().await.unwrap();
    assert_eq!(index.lookup(&own.id).unwrap(), Some(own));
    assert_eq!(all(&open(blobs, 3).await.unwrap()), all(&index));
}

#[tokio::test]
async fn an_index_that_was_taken_back_is_forgotten() {
    let blobs = MemoryBlobs::new();
    put(&blobs, "xn0_", [content(1, 1)]).await;
    let back = put(&blobs, "xn0_", [content(2, 1)]).await;
    let index = open(blobs.clone(), 3).await.unwrap();
    assert!(index.lookup(&content(2, 1).id).unwrap().is_some());
    blobs.remove(&back);
    index.refresh().await.unwrap();
    assert!(index.lookup(&content(2, 1).id).unwrap().is_none());
    assert!(index.lookup(&content(1, 1).id).unwrap().is_some());
}

#[tokio::test]
async fn a_refresh_fetches_only_what_is_new() {
    let blobs = MemoryBlobs::new();
    for n in 0..20 {
        put(&blobs, "xn0_", [content(n, 1)]).await;
    }
    let index = open(blobs.clone(), 3).await.unwrap();
    assert_eq!(blobs.calls(Operation::Get), 20);
    index.refresh().await.unwrap();
    assert_eq!(blobs.calls(Operation::Get), 20);
    put(&blobs, "xn0_", [content(30, 1)]).await;
    index.write(builder([content(31, 1)]), SESSION).await.unwrap();
    index.refresh().await.unwrap();
    assert_eq!(blobs.calls(Operation::Get), 21);
    assert_eq!(all(&index).len(), 22);
}

#[tokio::test]
async fn large_blobs_are_decrypted_into_a_file() {
    let blobs = MemoryBlobs::new();
    let contents: Vec<_> = (0..130_000).map(|n| content(n, 100)).collect();
    let id = put(&blobs, "xn0_", contents.clone()).await;
    assert!(blobs.content(&id).unwrap().len() > 4 << 20);
    put(&blobs, "xn0_", (130_000..140_000).map(|n| content(n, 100))).await;
    let index = open(blobs.clone(), 3).await.unwrap();
    assert!(blobs.calls(Operation::GetRange) > 1);
    for n in (0..140_000).step_by(97) {
        assert_eq!(index.lookup(&content(n, 100).id).unwrap(), Some(content(n, 100)));
    }
    assert_eq!(index.contents().unwrap().count(), 140_000);

    for fault in [BlobFault::Truncated, BlobFault::Flipped] {
        blobs.inject(FaultRule::nth(Operation::GetRange, 2, fault));
        damaged(&blobs, &id).await;
    }
    let mut short = blobs.content(&id).unwrap().to_vec();
    short.truncate(short.len() - 1);
    blobs.insert(id.clone(), short, time(0));
    damaged(&blobs, &id).await;
}

/// Opening fails and says which blob is to blame.
async fn damaged(blobs: &MemoryBlobs, id: &BlobId) {
    let error = open(blobs.clone(), 3).await.unwrap_err();
    blobs.heal();
    assert!(matches!(error, KopiaError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(id.as_str()), "{error}");
}

#[tokio::test]
async fn damaged_blobs_are_named() {
    let blobs = MemoryBlobs::new();
    let id = put(&blobs, "xn0_", [content(1, 1)]).await;
    for fault in [BlobFault::Truncated, BlobFault::Flipped] {
        blobs.inject(FaultRule::every(Operation::Get, fault));
        damaged(&blobs, &id).await;
    }
    let data = blobs.content(&id).unwrap();
    blobs.insert(id.clone(), data.slice(..20), time(0));
    damaged(&blobs, &id).await;
    blobs.insert(id.clone(), "", time(0));
    damaged(&blobs, &id).await;
    blobs.remove(&id);
    // The name is part of the encryption.
    let other = BlobId::from("xn0_00000000000000000000000000000000-s1-c1");
    blobs.insert(other.clone(), data, time(0));
    damaged(&blobs, &other).await;
    blobs.remove(&other);
    let nameless = BlobId::from("xn0_00-s1-c1");
    blobs.insert(nameless.clone(), "x", time(0));
    damaged(&blobs, &nameless).await;
}

#[tokio::test]
async fn what_was_encrypted_well_may_still_be_wrong() {
    let blobs = MemoryBlobs::new();
    let seal = IndexBlobs::new(Arc::new(blobs.clone()), format(3).await, &std::env::temp_dir()).unwrap();
    let mut long = content(1, 1);
    long.id = ContentId::new(None, crate::content::Hash::new(&[1; 32]).unwrap());
    for index in [vec![2; 40], builder([long]).build(2).unwrap()] {
        let (name, data) = seal.seal(index, "s1-c1").unwrap();
        let id = BlobId::from(format!("xn0_{name}"));
        blobs.insert(id.clone(), data, time(0));
        damaged(&blobs, &id).await;
        blobs.remove(&id);
    }
}

/// A storage on which something happens at the first [`BlobStorage::get`] of a blob, or before each
/// [`BlobStorage::put`].
#[derive(Debug, Default)]
struct Racing {
    blobs: MemoryBlobs,
    /// What goes, and what comes instead.
    race: Mutex<Option<(BlobId, BlobId, Bytes)>>,
    /// These are listed, but not there.
    ghosts: Vec<&'static str>,
    /// What others store before the first blob, the second, and so on.
    before_put: Mutex<VecDeque<Vec<(BlobId, Bytes)>>>,
}

#[async_trait::async_trait]
impl BlobStorage for Racing {
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes> {
        if let Some((old, new, data)) = self.race.lock().unwrap().take() {
            self.blobs.remove(&old);
            self.blobs.insert(new, data, time(0));
            for marker in ["xe1", "xe2"] {
                self.blobs.insert(marker, "x", time(0));
            }
        }
        self.blobs.get(id, limit).await
    }

    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        self.blobs.get_range(id, offset, length).await
    }

    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()> {
        let others = self.before_put.lock().unwrap().pop_front();
        for (other, data) in others.into_iter().flatten() {
            self.blobs.insert(other, data, time(0));
        }
        self.blobs.put(id, pieces, retention).await
    }

    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        self.blobs.metadata(id).await
    }

    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        let mut blobs = self.blobs.list(prefix).await?;
        let ghosts = self.ghosts.iter().filter(|name| name.starts_with(prefix));
        blobs.extend(ghosts.map(|name| BlobMetadata {
            id: BlobId::from(*name),
            size: 100,
            modified: time(0),
        }));
        Ok(blobs)
    }

    async fn delete(&self, id: &BlobId) -> KopiaResult<()> {
        self.blobs.delete(id).await
    }

    fn location(&self) -> String {
        self.blobs.location()
    }
}

#[tokio::test]
async fn a_blob_that_is_compacted_meanwhile_is_no_failure() {
    let blobs = MemoryBlobs::new();
    let old = put(&blobs, "xn0_", [content(1, 1)]).await;
    let (name, data) = sealed([content(1, 1), content(2, 1)], "s1-c1").await;
    let storage = Racing {
        blobs,
        race: Mutex::new(Some((old, format!("xs0_{name}").into(), data))),
        ..Racing::default()
    };
    let index = open(storage, 3).await.unwrap();
    assert_eq!(all(&index).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_is_never_there_is_named() {
    // Before the clock stands still for the computation of a key.
    format(3).await;
    let storage = Racing {
        ghosts: vec!["xn0_00000000000000000000000000000000-s1-c1"],
        ..Racing::default()
    };
    let error = open(storage, 3).await.unwrap_err();
    assert!(matches!(error, KopiaError::Corrupt { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("xn0_00000000000000000000000000000000-s1-c1"),
        "{error}"
    );
}

/// Begins these epochs.
fn markers(epochs: impl IntoIterator<Item = u32>) -> Vec<(BlobId, Bytes)> {
    let marker = |epoch| (BlobId::from(format!("xe{epoch}")), Bytes::from_static(b"x"));
    epochs.into_iter().map(marker).collect()
}

/// The index is about to be written into epoch 0 when others begin the epochs 1 and 2 and compact epoch 0. From then on
/// kopia reads that compaction in place of what is in epoch 0.
#[tokio::test]
async fn an_index_that_took_two_epochs_is_written_into_the_one_that_is_read() {
    let blobs = MemoryBlobs::new();
    let (theirs, ours) = (content(1, 1), content(2, 1));
    let old = put(&blobs, "xn0_", [theirs.clone()]).await;
    let (compaction, data) = sealed([theirs.clone()], "s2-c1").await;
    let compaction = BlobId::from(format!("xs0_{compaction}"));
    let mut meanwhile = markers(1..=2);
    meanwhile.push((compaction.clone(), data));
    let storage = Racing {
        blobs: blobs.clone(),
        before_put: Mutex::new([meanwhile].into()),
        ..Racing::default()
    };
    let index = open(storage, 3).await.unwrap();
    let written = index.write(builder([ours.clone()]), SESSION).await.unwrap();
    // Once too late, once in time, and nothing of the first is left.
    assert_eq!(blobs.calls(Operation::Put), 2);
    let [blob] = &written[..] else {
        panic!("{written:?}");
    };
    assert!(blob.as_str().starts_with("xn2_"), "{blob}");
    let mut names: Vec<_> = [&old, &compaction, blob].map(ToString::to_string).into();
    names.extend(["xe1".to_owned(), "xe2".to_owned()]);
    names.sort();
    assert_eq!(blobs.names(), names);
    let expected = merged(&[theirs, ours.clone()]);
    assert!(all(&index).iter().eq(expected.values()));
    index.refresh().await.unwrap();
    assert!(all(&index).iter().eq(expected.values()));
    assert!(
        all(&open(blobs.clone(), 3).await.unwrap())
            .iter()
            .eq(expected.values())
    );

    // Left where it was to be written first, it would not be found.
    let data = blobs.content(blob).unwrap();
    blobs.remove(blob);
    blobs.insert(blob.as_str().replace("xn2_", "xn0_"), data, time(0));
    let other = open(blobs, 3).await.unwrap();
    assert_eq!(other.lookup(&ours.id).unwrap(), None);
}

#[tokio::test]
async fn an_index_that_always_takes_two_epochs_is_taken_back_and_said_to_be() {
    let blobs = MemoryBlobs::new();
    let storage = Racing {
        blobs: blobs.clone(),
        before_put: Mutex::new([markers(1..=2), markers(3..=4), markers(5..=6)].into()),
        ..Racing::default()
    };
    let index = open(storage, 3).await.unwrap();
    let own = content(1, 1);
    let error = index.write(builder([own.clone()]), SESSION).await.unwrap_err();
    assert!(matches!(error, KopiaError::EpochMoved), "{error}");
    assert_eq!(blobs.calls(Operation::Put), 3);
    // What is not stored is not said to be: else a later backup would rely on it.
    assert_eq!(index.lookup(&own.id).unwrap(), None);
    assert!(!blobs.names().iter().any(|name| name.starts_with("xn")));
    let written = index.write(builder([own.clone()]), SESSION).await.unwrap();
    assert!(written[0].as_str().starts_with("xn6_"), "{written:?}");
    assert_eq!(open(blobs, 3).await.unwrap().lookup(&own.id).unwrap(), Some(own));
}

#[tokio::test]
async fn repositories_without_epochs_are_written_as_kopia_does() {
    let blobs = MemoryBlobs::new();
    let index = open(blobs.clone(), 1).await.unwrap();
    let written = index
        .write(builder((0..30).map(|n| content(n, 5))), SESSION)
        .await
        .unwrap();
    assert_eq!(written.len(), 1);
    let name = written[0].as_str();
    assert!(
        name.starts_with('n') && name.ends_with(&format!("-{SESSION}")) && name.len() == 33 + 1 + 18,
        "{name}"
    );
    assert_eq!(all(&open(blobs, 1).await.unwrap()), all(&index));
    assert_eq!(all(&index).len(), 30);
}

/// What `kopia content list --deleted --json` says.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    pack_file: String,
    time: i64,
    original_length: u32,
    length: u32,
    #[serde(default)]
    pack_offset: u32,
    #[serde(default)]
    compression: u32,
    #[serde(rename = "contentID")]
    content_id: String,
    deleted: bool,
    format_version: u8,
}

impl From<Listed> for ContentInfo {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.content_id.parse().unwrap(),
            pack: listed.pack_file.into(),
            offset: listed.pack_offset,
            packed_length: listed.length,
            original_length: listed.original_length,
            compression: crate::compression::HeaderId(listed.compression),
            format_version: listed.format_version,
            encryption_key: 0,
            timestamp: listed.time,
            deleted: listed.deleted,
        }
    }
}

#[tokio::test]
async fn kopias_repositories_are_read() {
    for name in ["format1", "format3"] {
        let directory = format!("{}/testdata/index/{name}", env!("CARGO_MANIFEST_DIR"));
        let blobs = MemoryBlobs::new();
        for file in std::fs::read_dir(&directory).unwrap() {
            let file = file.unwrap();
            let id = file.file_name().into_string().unwrap();
            blobs.insert(id, std::fs::read(file.path()).unwrap(), time(0));
        }
        let listed = std::fs::read(format!("{directory}.json")).unwrap();
        let listed: Vec<Listed> = serde_json::from_slice(&listed).unwrap();
        let expected = merged(&listed.into_iter().map(ContentInfo::from).collect::<Vec<_>>());
        assert!(expected.len() > 20 && expected.values().any(|info| info.deleted));

        let format = RepositoryFormat::load(&blobs, &Secret::new("golden"))
            .await
            .unwrap();
        let storage = Arc::new(blobs.clone());
        let index = CommittedIndex::open(storage, Arc::new(format), &std::env::temp_dir(), clock())
            .await
            .unwrap();
        assert!(all(&index).iter().eq(expected.values()), "{name}");
        if name == "format1" {
            // Seven blobs, of which five were compacted, and the log that says so.
            assert_eq!(blobs.calls(Operation::Get), 2 + 1 + 2);
        }
    }
}
