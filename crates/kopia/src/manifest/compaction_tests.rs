//! Compaction in a repository, with other clients and with faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

use super::compaction::COMPACT_FROM;
use super::{Labels, ManifestId, Manifests, TYPE};
use crate::KopiaResult;
use crate::blob::MemoryBlobs;
use crate::blob::memory::{BlobFault, FaultRule, Operation};
use crate::compression::HeaderId;
use crate::content::{ContentInfo, Prefix, WriterOptions};
use crate::format::{CreateOptions, REPOSITORY, RepositoryFormat};
use crate::repository::{ConnectOptions, Repository, RepositoryWriter};

/// A repository in memory, and the manifests that must be in it.
struct Bench {
    blobs: MemoryBlobs,
    format: Arc<RepositoryFormat>,
    scratch: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    expected: Vec<(ManifestId, usize)>,
}

/// One client, with what it knows.
struct Client {
    writer: RepositoryWriter,
    manifests: Manifests,
}

impl Bench {
    /// With manifests in so many contents.
    async fn new(contents: usize) -> Self {
        let blobs = MemoryBlobs::new();
        // Not opened by a password, which takes long.
        let format = RepositoryFormat::in_memory(&CreateOptions::default());
        blobs.insert(REPOSITORY, format.description().clone(), Timestamp::UNIX_EPOCH);
        let mut bench = Self {
            blobs,
            format: Arc::new(format),
            scratch: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicI64::new(1_800_000_000)),
            expected: Vec::new(),
        };
        for _ in 0..contents {
            bench.save_one().await;
        }
        bench
    }

    /// A client comes, saves a manifest, and goes.
    async fn save_one(&mut self) {
        let number = self.expected.len();
        let mut client = self.client().await;
        let labels = Labels::from([(TYPE.to_owned(), "test".to_owned())]);
        let now = client.writer.repository().now();
        let id = client.manifests.put(labels, &number, now).unwrap();
        client.commit().await.unwrap();
        self.expected.push((id, number));
    }

    fn options(&self) -> ConnectOptions {
        let clock = Arc::clone(&self.clock);
        ConnectOptions::new(self.scratch.path()).clock(Arc::new(move || {
            Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap()
        }))
    }

    async fn client(&self) -> Client {
        let storage = Arc::new(self.blobs.clone());
        let repository = Repository::open(storage, Arc::clone(&self.format), self.options())
            .await
            .unwrap();
        Client {
            manifests: repository.manifests().await.unwrap(),
            writer: repository.writer(WriterOptions::default()).unwrap(),
        }
    }

    /// Somebody who opens the repository now sees all manifests; in how many contents they are.
    async fn check(&self) -> usize {
        let client = self.client().await;
        assert_eq!(client.manifests.find(&Labels::new()).len(), self.expected.len());
        for (id, number) in &self.expected {
            assert_eq!(client.manifests.get::<usize>(id).await.unwrap(), *number);
        }
        client.manifests.contents().len()
    }
}

impl Client {
    async fn commit(&mut self) -> KopiaResult<()> {
        let contents = self.writer.contents().clone();
        tokio::task::block_in_place(|| self.manifests.flush(&contents))?;
        self.writer.flush().await
    }

    async fn compact(&mut self) -> KopiaResult<bool> {
        self.writer.compact_manifests(&mut self.manifests).await
    }

    /// As another program that compacts without looking what others do, and keeps no note of deletions.
    async fn compact_blindly(&self) {
        let now = self.writer.repository().now();
        let tomorrow = now + jiff::SignedDuration::from_hours(48);
        let data = self.manifests.compaction(tomorrow).await.unwrap();
        let contents = self.writer.contents();
        let into = tokio::task::block_in_place(|| {
            contents.put(Some(Prefix::MANIFEST), data, HeaderId::ZSTD_FASTEST)
        });
        let into = into.unwrap();
        let mut old = self.manifests.contents().to_vec();
        old.retain(|content| *content != into);
        contents.flush_deleting(&old).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_contents_become_one() {
    let mut bench = Bench::new(COMPACT_FROM - 1).await;
    assert!(!bench.client().await.compact().await.unwrap());
    bench.save_one().await;
    let mut client = bench.client().await;
    let old: Vec<ContentInfo> = client
        .manifests
        .contents()
        .iter()
        .map(|id| client.writer.repository().index().lookup(id).unwrap().unwrap())
        .collect();
    let indexes = |blobs: &MemoryBlobs| blobs.names().iter().filter(|name| name.starts_with('x')).count();
    let before = indexes(&bench.blobs);
    assert!(client.compact().await.unwrap());
    assert_eq!(indexes(&bench.blobs), before + 1, "one index blob says it all");
    assert_eq!(bench.check().await, 1);
    // The clock stands still, and yet the deletion is newer than what it deletes.
    let index = Arc::clone(bench.client().await.writer.repository().index());
    for info in old {
        let deletion = ContentInfo {
            deleted: true,
            timestamp: info.timestamp + 1,
            ..info
        };
        assert_eq!(index.lookup(&deletion.id).unwrap().unwrap(), deletion);
    }
    // Whoever has compacted goes on with what it knows.
    assert!(!client.compact().await.unwrap());
    let (id, _) = bench.expected.remove(3);
    let now = client.writer.repository().now();
    client.manifests.delete(&id, now);
    client.commit().await.unwrap();
    assert_eq!(bench.check().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_is_interrupted_all_manifests_are_seen() {
    let mut interrupted = 0;
    for fault in [BlobFault::Unavailable, BlobFault::AnswerLost] {
        for nth in 1.. {
            let bench = Bench::new(COMPACT_FROM).await;
            let mut client = bench.client().await;
            bench.blobs.inject(FaultRule::nth(Operation::Put, nth, fault));
            let result = client.compact().await;
            bench.blobs.heal();
            bench.check().await;
            if result.is_ok() {
                assert_eq!(bench.check().await, 1);
                break;
            }
            interrupted += 1;
            // The next client does what is left to do.
            bench.client().await.compact().await.unwrap();
            assert_eq!(bench.check().await, 1);
        }
    }
    assert!(
        interrupted >= 6,
        "marker, pack and index, each in two ways: {interrupted}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_brings_nothing_back() {
    let mut bench = Bench::new(COMPACT_FROM).await;
    let mut late = bench.client().await;
    let (id, _) = bench.expected.remove(5);
    let mut other = bench.client().await;
    other.manifests.delete(&id, other.writer.repository().now());
    other.commit().await.unwrap();
    bench.client().await.compact_blindly().await;
    assert_eq!(bench.check().await, 1);
    assert!(!late.compact().await.unwrap());
    assert_eq!(bench.check().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_the_same_time_lose_nothing() {
    let mut bench = Bench::new(COMPACT_FROM + 3).await;
    let (mut first, second) = (bench.client().await, bench.client().await);
    // Each has seen what the other has not.
    bench.save_one().await;
    let third = bench.client().await;
    assert!(first.compact().await.unwrap());
    bench.clock.fetch_add(1, Ordering::Relaxed);
    second.compact_blindly().await;
    third.compact_blindly().await;
    let contents = bench.check().await;
    assert!(contents <= 3, "{contents}");
    for _ in contents..COMPACT_FROM {
        bench.save_one().await;
    }
    assert!(bench.client().await.compact().await.unwrap());
    assert_eq!(bench.check().await, 1);
}
