//! Writers against a storage in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_store::Secret;
use jiff::Timestamp;

use crate::blob::memory::{BlobFault, FaultRule, Operation};
use crate::blob::{BlobId, BlobMetadata, BlobStorage, MemoryBlobs, Retention, RetentionMode};
use crate::compression::HeaderId;
use crate::content::WriterOptions;
use crate::content::{ContentId, ContentInfo, MergeRules, Prefix, list_sessions, read_recovery_data};
use crate::error::{KopiaError, KopiaResult};
use crate::format::{CreateOptions, RetentionConfig};
use crate::index::IndexBuilder;
use crate::repository::{ConnectOptions, MemoryLimits, Repository, RepositoryWriter};

const MIB: usize = 1 << 20;

/// A repository in memory.
struct Bench {
    blobs: MemoryBlobs,
    repository: Repository,
    scratch: tempfile::TempDir,
    clock: Arc<AtomicI64>,
}

impl Bench {
    async fn new(memory: u64) -> Self {
        Self::created(memory, CreateOptions::default()).await
    }

    async fn created(memory: u64, create: CreateOptions) -> Self {
        let (blobs, scratch) = (MemoryBlobs::new(), tempfile::tempdir().unwrap());
        let clock = Arc::new(AtomicI64::new(1_800_000_000));
        let options = options(&scratch, memory, &clock);
        let repository = Repository::create(Arc::new(blobs.clone()), &password(), &create, options)
            .await
            .unwrap();
        Self {
            blobs,
            repository,
            scratch,
            clock,
        }
    }

    fn writer(&self) -> RepositoryWriter {
        self.repository
            .writer(WriterOptions {
                user: "me".into(),
                host: "here".into(),
                ..WriterOptions::default()
            })
            .unwrap()
    }

    /// Another who opens the repository.
    async fn again(&self) -> Repository {
        let options = options(&self.scratch, 44 << 20, &self.clock);
        Repository::connect(Arc::new(self.blobs.clone()), &password(), options)
            .await
            .unwrap()
    }

    fn names(&self, prefix: &str) -> Vec<BlobId> {
        self.blobs
            .names()
            .iter()
            .filter(|name| name.starts_with(prefix) && !name.starts_with("kopia"))
            .map(|name| name.as_str().into())
            .collect()
    }
}

fn options(scratch: &tempfile::TempDir, packs: u64, clock: &Arc<AtomicI64>) -> ConnectOptions {
    let clock = Arc::clone(clock);
    ConnectOptions::new(scratch.path())
        .memory(MemoryLimits {
            packs,
            ..MemoryLimits::default()
        })
        .clock(Arc::new(move || {
            Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap()
        }))
}

fn password() -> Secret {
    Secret::new("a password")
}

/// Bytes that do not compress and are others for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend(state.to_le_bytes());
    }
    data.truncate(length);
    data
}

/// Puts on a thread of its own.
async fn put(
    writer: &RepositoryWriter,
    prefix: Option<Prefix>,
    data: Vec<u8>,
    compression: HeaderId,
) -> Result<ContentId, KopiaError> {
    let contents = writer.contents().clone();
    tokio::task::spawn_blocking(move || contents.put(prefix, data, compression))
        .await
        .unwrap()
}

async fn put_data(writer: &RepositoryWriter, data: Vec<u8>) -> Result<ContentId, KopiaError> {
    put(writer, None, data, HeaderId::NONE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_come_back() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    let mut expected = BTreeMap::new();
    for (seed, length) in [
        (1, 0),
        (2, 1),
        (3, 1000),
        (4, 64 << 10),
        (5, 65 << 10),
        (6, 130 << 10),
        (7, MIB),
    ] {
        expected.insert(
            put_data(&writer, noise(seed, length)).await.unwrap(),
            noise(seed, length),
        );
    }
    let text = b"compressible ".repeat(5000);
    for prefix in [None, Some(Prefix::DIRECTORY), Some(Prefix::MANIFEST)] {
        expected.insert(
            put(&writer, prefix, text.clone(), HeaderId::ZSTD_FASTEST)
                .await
                .unwrap(),
            text.clone(),
        );
    }
    let small = noise(8, 100);
    let kept = put(&writer, Some(Prefix::INDIRECT), small.clone(), HeaderId::ZSTD)
        .await
        .unwrap();
    expected.insert(kept, small);
    assert_eq!(expected.len(), 11);
    // Seen before they are flushed, but not by others.
    for (id, data) in &expected {
        assert_eq!(bench.repository.contents().get(id).await.unwrap(), *data, "{id}");
    }
    assert_eq!(bench.again().await.index().approximate_count(), 0);
    writer.flush().await.unwrap();
    let other = bench.again().await;
    for (id, data) in &expected {
        assert_eq!(bench.repository.contents().get(id).await.unwrap(), *data, "{id}");
        assert_eq!(other.contents().get(id).await.unwrap(), *data, "{id}");
        let info = other.contents().info(id).unwrap();
        assert_eq!(info.compression != HeaderId::NONE, data == &text, "{id}");
        assert_eq!(info.original_length as usize, data.len());
        assert_eq!(info.pack.as_str().starts_with('q'), id.prefix().is_some());
        other.contents().check_hash(&info, data).unwrap();
        assert!(other.contents().check_hash(&info, b"another").is_err());
    }
    let infos: Vec<ContentInfo> = expected
        .keys()
        .map(|id| other.contents().info(id).unwrap())
        .collect();
    let many: Vec<_> =
        futures::StreamExt::collect(other.contents().read_many(infos, MergeRules::default(), 3)).await;
    assert_eq!(many.len(), expected.len());
    for (at, data) in many {
        assert_eq!(&data.unwrap(), expected.values().nth(at).unwrap());
    }
    assert_eq!(
        (
            bench.names("p").len(),
            bench.names("q").len(),
            bench.names("s").len()
        ),
        (1, 1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_hold_their_own_index() {
    let retention = RetentionConfig {
        mode: RetentionMode::Governance,
        period: Duration::from_hours(48),
    };
    let bench = Bench::created(
        44 << 20,
        CreateOptions {
            retention: Some(retention),
            ..CreateOptions::default()
        },
    )
    .await;
    let writer = bench.writer();
    for seed in 0..2000 {
        put_data(&writer, noise(seed, 100)).await.unwrap();
    }
    for seed in 0..10 {
        put(
            &writer,
            Some(Prefix::DIRECTORY),
            noise(seed, 9 * MIB / 5),
            HeaderId::ZSTD,
        )
        .await
        .unwrap();
    }
    writer.flush().await.unwrap();
    let mut found = Vec::new();
    for pack in bench.names("p").iter().chain(&bench.names("q")) {
        let size = bench.blobs.content(pack).unwrap().len() as u64;
        let contents = read_recovery_data(&bench.blobs, bench.repository.format(), pack, size)
            .await
            .unwrap();
        found.extend(contents);
        assert_eq!(
            bench.blobs.retention(pack).unwrap().until.as_second(),
            1_800_000_000 + 48 * 3600
        );
    }
    found.sort_by_key(|info| info.id);
    let indexed: Vec<ContentInfo> = bench
        .again()
        .await
        .index()
        .contents()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(indexed.len(), 2010);
    assert_eq!(found, indexed);
    // Packs of less than 60 % are written again by maintenance, but for the last ones.
    let sizes: Vec<_> = bench
        .names("q")
        .iter()
        .map(|pack| bench.blobs.content(pack).unwrap().len())
        .collect();
    assert_eq!(
        sizes.iter().filter(|size| **size < 12 * MIB).count(),
        1,
        "{sizes:?}"
    );
    // Damage to a pack's end is noticed.
    let pack = &bench.names("p")[0];
    let data = bench.blobs.content(pack).unwrap();
    for (at, length) in [
        (data.len() - 1, data.len()),
        (data.len() - 100, data.len()),
        (0, data.len() - 1),
        (0, 0),
    ] {
        let mut damaged = data.to_vec();
        damaged[at] ^= 1;
        damaged.truncate(length);
        bench.blobs.insert(pack.clone(), damaged, Timestamp::UNIX_EPOCH);
        let read = read_recovery_data(&bench.blobs, bench.repository.format(), pack, length as u64).await;
        assert!(matches!(read, Err(KopiaError::Corrupt { .. })), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_content_is_stored_once() {
    const THREADS: usize = 16;
    const CONTENTS: u64 = 300;
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (contents, barrier) = (writer.contents().clone(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                let seeds = (0..CONTENTS)
                    .map(|at| (at * 7 + thread as u64) % CONTENTS)
                    .collect::<Vec<_>>();
                for seeds in seeds.chunks(4) {
                    let batch = seeds.iter().map(|seed| noise(*seed, 20_000)).collect();
                    contents.put_batch(None, batch, HeaderId::NONE).unwrap();
                }
            })
        })
        .collect();
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
    writer.flush().await.unwrap();
    let stats = writer.contents().stats();
    assert_eq!(stats.contents, THREADS as u64 * CONTENTS);
    assert_eq!(stats.duplicates, (THREADS as u64 - 1) * CONTENTS);
    assert_eq!(stats.packed_bytes, CONTENTS * 20_028);
    let stored: usize = bench
        .names("p")
        .iter()
        .map(|pack| bench.blobs.content(pack).unwrap().len())
        .sum();
    assert!(stored < 20_200 * 300 + 40_000, "{stored}");
    let other = bench.again().await;
    assert_eq!(other.index().approximate_count(), CONTENTS);
    for seed in 0..CONTENTS {
        let data = noise(seed, 20_000);
        let id = ContentId::new(None, bench.repository.format().hasher.hash(&data));
        assert_eq!(other.contents().get(&id).await.unwrap(), data);
    }
    // Another session stores nothing again.
    let writer = other.writer(WriterOptions::default()).unwrap();
    let before = bench.blobs.calls(Operation::Put);
    put_data(&writer, noise(5, 20_000)).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(
        (
            writer.contents().stats().duplicates,
            bench.blobs.calls(Operation::Put)
        ),
        (1, before)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_the_storage_is_slow() {
    const BOUND: u64 = 24 << 20;
    let bench = Bench::new(BOUND).await;
    bench.blobs.inject(FaultRule::every(
        Operation::Put,
        BlobFault::Latency(Duration::from_millis(30)),
    ));
    let writer = bench.writer();
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let contents = writer.contents().clone();
            std::thread::spawn(move || {
                for at in 0..20 {
                    let prefix = (at % 3 == 0).then_some(Prefix::DIRECTORY);
                    contents
                        .put(prefix, noise(thread * 100 + at, MIB + 7), HeaderId::NONE)
                        .unwrap();
                }
            })
        })
        .collect();
    tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
    writer.flush().await.unwrap();
    let stats = writer.contents().stats();
    assert!(
        stats.peak_bytes <= BOUND && stats.peak_bytes > BOUND / 2,
        "{}",
        stats.peak_bytes
    );
    assert_eq!(bench.again().await.index().approximate_count(), 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_larger_than_the_memory_passes_alone() {
    let bench = Bench::new(1 << 20).await;
    let writer = bench.writer();
    for seed in 0..4 {
        put_data(&writer, noise(seed, 2 * MIB)).await.unwrap();
        put_data(&writer, noise(seed, 1000)).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(bench.again().await.index().approximate_count(), 8);
    assert!(writer.contents().stats().peak_bytes < 3 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upload_is_told_and_repeated() {
    for fault in [BlobFault::Unavailable, BlobFault::AnswerLost] {
        for (prefix, nth) in [("s", 1), ("p", 1), ("p", 2), ("q", 1), ("x", 1)] {
            let bench = Bench::new(44 << 20).await;
            let writer = bench.writer();
            bench
                .blobs
                .inject(FaultRule::nth(Operation::Put, nth, fault).on(prefix));
            let mut failed = None;
            for seed in 0..30 {
                // Whatever fails must not be believed to be there afterwards.
                failed = put_data(&writer, noise(seed, MIB)).await.err();
                if failed.is_some() {
                    break;
                }
            }
            if failed.is_none() {
                failed = put(&writer, Some(Prefix::DIRECTORY), b"{}".to_vec(), HeaderId::NONE)
                    .await
                    .err();
            }
            let flushed = writer.flush().await;
            let about = format!("{fault:?} {prefix} {nth}");
            // A flush repeats what had failed before it.
            assert!(failed.is_some() || flushed.is_err(), "{about}");
            writer.flush().await.unwrap();
            for seed in 0..30 {
                put_data(&writer, noise(seed, MIB)).await.unwrap();
            }
            put(&writer, Some(Prefix::DIRECTORY), b"{}".to_vec(), HeaderId::NONE)
                .await
                .unwrap();
            writer.flush().await.unwrap();
            let other = bench.again().await;
            let contents: Vec<ContentInfo> = other.index().contents().unwrap().map(Result::unwrap).collect();
            assert_eq!(contents.len(), 31, "{about}");
            for info in &contents {
                other.contents().get(&info.id).await.unwrap();
            }
            assert_eq!(bench.names("s"), [], "{about}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_in_an_index_whose_pack_is_not_stored() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    bench
        .blobs
        .inject(FaultRule::every(Operation::Put, BlobFault::Unavailable).on("p"));
    put_data(&writer, noise(1, 1000)).await.unwrap();
    put(&writer, Some(Prefix::DIRECTORY), b"{}".to_vec(), HeaderId::NONE)
        .await
        .unwrap();
    for _ in 0..3 {
        assert!(matches!(writer.flush().await, Err(KopiaError::Earlier(_))));
        assert!(put_data(&writer, noise(2, 10)).await.is_err());
    }
    assert_eq!(bench.names("x"), []);
    assert_eq!(
        list_sessions(&bench.blobs, bench.repository.format())
            .await
            .unwrap()
            .len(),
        1
    );
    bench.blobs.heal();
    writer.flush().await.unwrap();
    assert_eq!(bench.again().await.index().approximate_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_marked_while_packs_are_in_no_index() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    writer.flush().await.unwrap();
    assert_eq!(
        (bench.names("s"), bench.names("x")),
        (vec![], vec![]),
        "nothing was written"
    );
    let fill = async |seeds: std::ops::Range<u64>| {
        for seed in seeds {
            put_data(&writer, noise(seed, MIB)).await.unwrap();
        }
        while writer.contents().stats().packs == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    fill(0..14).await;
    let sessions = list_sessions(&bench.blobs, bench.repository.format())
        .await
        .unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!((&*sessions[0].user, &*sessions[0].host), ("me", "here"));
    assert!(bench.names("p")[0].as_str().ends_with(sessions[0].id.as_str()));
    assert_eq!(bench.blobs.retention(&bench.names("s")[0]), None);
    // After an hour the marker is a new one, and the only one.
    bench.clock.fetch_add(3601, Ordering::Relaxed);
    fill(14..28).await;
    while writer.contents().stats().packs < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let later = list_sessions(&bench.blobs, bench.repository.format())
        .await
        .unwrap();
    assert_eq!(
        (later[0].alive.as_second(), &later[0].id),
        (1_800_003_601, &sessions[0].id)
    );
    assert_eq!(later[0].started.as_second(), 1_800_000_000);
    assert_eq!(bench.names("s").len(), 1);
    writer.flush().await.unwrap();
    assert_eq!(bench.names("s"), []);
    // What comes now is of another session.
    put_data(&writer, noise(99, 10)).await.unwrap();
    writer.flush().await.unwrap();
    let others = bench
        .names("p")
        .iter()
        .filter(|pack| !pack.as_str().ends_with(sessions[0].id.as_str()))
        .count();
    assert_eq!(others, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_written_on_the_way() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench
        .repository
        .writer(WriterOptions {
            index_after: 1000,
            ..WriterOptions::default()
        })
        .unwrap();
    // Each pack has some 800 contents, so the threads would wait for ever if no index were written.
    let contents = writer.contents().clone();
    tokio::task::spawn_blocking(move || {
        for seed in 0..6000 {
            contents.put(None, noise(seed, 16_000), HeaderId::NONE).unwrap();
        }
    })
    .await
    .unwrap();
    let on_the_way = bench.names("x").len();
    assert!(on_the_way >= 2, "{on_the_way}");
    assert_eq!(bench.names("s").len(), 1, "the session goes on");
    writer.flush().await.unwrap();
    assert_eq!(bench.again().await.index().approximate_count(), 6000);
    // By time, too.
    let before = bench.names("x").len();
    bench.clock.fetch_add(601, Ordering::Relaxed);
    let contents = writer.contents().clone();
    tokio::task::spawn_blocking(move || {
        for seed in 0..14 {
            contents.put(None, noise(seed, MIB), HeaderId::NONE).unwrap();
        }
    })
    .await
    .unwrap();
    while bench.names("x").len() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What is known of contents in no index is memory, and twenty megabytes may be very many of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_has_no_more_contents_than_an_index() {
    let bench = Bench::new(40 << 20).await;
    let options = WriterOptions {
        index_after: 100,
        ..WriterOptions::default()
    };
    let writer = bench.repository.writer(options).unwrap();
    for seed in 0..1000 {
        put_data(&writer, noise(seed, 50)).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(bench.names("p").len(), 10);
    assert_eq!(bench.again().await.index().approximate_count(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_content_is_written_anew_with_a_later_time() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    let id = put_data(&writer, noise(1, 100)).await.unwrap();
    writer.flush().await.unwrap();
    // Somebody with a clock that goes before deletes it.
    let mut info = bench.repository.contents().info(&id).unwrap();
    info.deleted = true;
    info.timestamp += 1000;
    let deletion = info.timestamp;
    let mut builder = IndexBuilder::new();
    builder.add(info);
    bench.repository.index().write(builder, "s00").await.unwrap();
    assert!(bench.repository.contents().info(&id).unwrap().deleted);
    put_data(&writer, noise(1, 100)).await.unwrap();
    writer.flush().await.unwrap();
    let info = bench.again().await.contents().info(&id).unwrap();
    assert_eq!((info.deleted, info.timestamp), (false, deletion + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_wakes_who_waits() {
    let bench = Bench::new(16 << 20).await;
    bench
        .blobs
        .inject(FaultRule::every(Operation::Put, BlobFault::Stall));
    let options = WriterOptions::default();
    let cancel = options.cancel.clone();
    let writer = bench.repository.writer(options).unwrap();
    let contents = writer.contents().clone();
    let waiting = std::thread::spawn(move || {
        (0..).find_map(|seed| contents.put(None, noise(seed, MIB), HeaderId::NONE).err())
    });
    while writer.contents().stats().peak_bytes < 14 << 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    let error = tokio::task::spawn_blocking(move || waiting.join().unwrap().unwrap())
        .await
        .unwrap();
    assert!(matches!(error, KopiaError::Earlier(error) if matches!(*error, KopiaError::Cancelled)));
    assert!(writer.flush().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_names_content_and_pack() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    let data = put_data(&writer, noise(1, 1000)).await.unwrap();
    let directory = put(
        &writer,
        Some(Prefix::DIRECTORY),
        b"{}".repeat(100),
        HeaderId::ZSTD,
    )
    .await
    .unwrap();
    writer.flush().await.unwrap();
    for id in [data, directory] {
        let info = bench.repository.contents().info(&id).unwrap();
        let whole = bench.blobs.content(&info.pack).unwrap();
        let mut flipped = whole.to_vec();
        flipped[info.offset as usize + 20] ^= 1;
        for damaged in [
            Some(flipped),
            Some(whole[..info.offset as usize + 5].to_vec()),
            Some(Vec::new()),
            None,
        ] {
            match damaged {
                Some(damaged) => bench
                    .blobs
                    .insert(info.pack.clone(), damaged, Timestamp::UNIX_EPOCH),
                None => assert!(bench.blobs.remove(&info.pack)),
            }
            let other = bench.again().await;
            let error = other.contents().get(&id).await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, KopiaError::Corrupt { .. }), "{text}");
            assert!(
                text.contains(&id.to_string()) && text.contains(info.pack.as_str()),
                "{text}"
            );
            bench
                .blobs
                .insert(info.pack.clone(), whole.clone(), Timestamp::UNIX_EPOCH);
        }
        // An index that lies is noticed.
        for lie in [
            ContentInfo {
                original_length: info.original_length + 1,
                ..info.clone()
            },
            ContentInfo {
                original_length: 0,
                ..info.clone()
            },
            ContentInfo {
                packed_length: 27,
                ..info.clone()
            },
            ContentInfo {
                offset: info.offset + 1,
                packed_length: info.packed_length - 1,
                ..info.clone()
            },
            ContentInfo {
                encryption_key: 1,
                ..info.clone()
            },
            ContentInfo {
                compression: HeaderId(0x9999),
                ..info.clone()
            },
        ] {
            let begin = lie.offset as usize;
            let sealed = &whole[begin..begin + lie.packed_length as usize];
            assert!(
                bench.repository.contents().decode(&lie, sealed).is_err(),
                "{lie:?}"
            );
        }
    }
    let unknown = "00112233445566778899aabbccddeeff".parse().unwrap();
    let error = bench.repository.contents().get(&unknown).await.unwrap_err();
    assert!(matches!(error, KopiaError::ContentNotFound { .. }));
}

/// A storage whose uploads of packs wait until they are told how to end.
#[derive(Debug)]
struct Gated {
    blobs: MemoryBlobs,
    /// A permit lets one upload go on.
    gate: tokio::sync::Semaphore,
    failing: AtomicBool,
}

#[async_trait]
impl BlobStorage for Gated {
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes> {
        self.blobs.get(id, limit).await
    }
    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        self.blobs.get_range(id, offset, length).await
    }
    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()> {
        if id.as_str().starts_with('p') {
            self.gate.acquire().await.unwrap().forget();
            if self.failing.load(Ordering::SeqCst) {
                return Err(KopiaError::Cancelled);
            }
        }
        self.blobs.put(id, pieces, retention).await
    }
    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        self.blobs.metadata(id).await
    }
    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        self.blobs.list(prefix).await
    }
    async fn delete(&self, id: &BlobId) -> KopiaResult<()> {
        self.blobs.delete(id).await
    }
    fn location(&self) -> String {
        "a gate".to_owned()
    }
}

/// One thread waits with a content; another brings the same and is told that it is taken care of.
async fn relied_upon(
    failing: bool,
    scratch: &tempfile::TempDir,
) -> (
    RepositoryWriter,
    Arc<Gated>,
    std::thread::JoinHandle<Option<KopiaError>>,
) {
    let storage = Arc::new(Gated {
        blobs: MemoryBlobs::new(),
        gate: tokio::sync::Semaphore::new(0),
        failing: AtomicBool::new(failing),
    });
    let options = options(scratch, 1 << 20, &Arc::new(AtomicI64::new(1_800_000_000)));
    let create = CreateOptions::default();
    let repository = Repository::create(storage.clone(), &password(), &create, options)
        .await
        .unwrap();
    let writer = repository.writer(WriterOptions::default()).unwrap();
    put_data(&writer, noise(1, MIB)).await.unwrap();
    let both = [0, 1].map(|_| {
        let contents = writer.contents().clone();
        std::thread::spawn(move || contents.put(None, noise(2, MIB), HeaderId::NONE).err())
    });
    while !both.iter().any(std::thread::JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (waiting, told): (Vec<_>, Vec<_>) = both.into_iter().partition(|thread| !thread.is_finished());
    assert!(told.into_iter().all(|thread| thread.join().unwrap().is_none()));
    assert_eq!(writer.contents().stats().duplicates, 1);
    let waiting = waiting.into_iter().next().unwrap();
    (writer, storage, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_waits_for_whom_others_rely_on() {
    let scratch = tempfile::tempdir().unwrap();
    let (writer, storage, waiting) = relied_upon(false, &scratch).await;
    let flushing = tokio::spawn({
        let writer = writer.clone();
        async move { writer.flush().await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!flushing.is_finished() && !waiting.is_finished());
    storage.gate.add_permits(10);
    flushing.await.unwrap().unwrap();
    assert!(waiting.join().unwrap().is_none());
    assert_eq!(writer.repository().index().approximate_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_rely_on_and_is_lost_is_never_committed() {
    let scratch = tempfile::tempdir().unwrap();
    let (writer, storage, waiting) = relied_upon(true, &scratch).await;
    storage.gate.add_permits(10);
    let failed = tokio::task::spawn_blocking(move || waiting.join().unwrap())
        .await
        .unwrap();
    assert!(matches!(failed, Some(KopiaError::Earlier(_))));
    storage.failing.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(matches!(
            writer.flush().await,
            Err(KopiaError::ContentNotFound { .. })
        ));
    }
    assert_eq!(storage.list("x").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_as_long_as_those_of_kopia_and_not_longer() {
    let bench = Bench::new(44 << 20).await;
    let writer = bench.writer();
    let longest = vec![7; 16 * MIB];
    let id = put(&writer, None, longest.clone(), HeaderId::ZSTD).await.unwrap();
    let manifests = noise(1, 17 * MIB);
    let manifest = put(&writer, Some(Prefix::MANIFEST), manifests.clone(), HeaderId::ZSTD)
        .await
        .unwrap();
    for prefix in [None, Some(Prefix::DIRECTORY), Some(Prefix::INDIRECT)] {
        let error = put(&writer, prefix, vec![7; 16 * MIB + 1], HeaderId::ZSTD)
            .await
            .unwrap_err();
        assert!(matches!(error, KopiaError::Argument { .. }), "{error}");
    }
    writer.contents().flush().await.unwrap();
    let other = bench.again().await;
    assert!(other.contents().get(&id).await.unwrap() == longest);
    assert!(other.contents().get(&manifest).await.unwrap() == manifests);

    // What an index says is not believed: nothing of such a length is read or decompressed.
    let info = other.contents().info(&id).unwrap();
    let range = info.packed_range();
    let mut sealed = other
        .contents()
        .read_range(&info.pack, range)
        .await
        .unwrap()
        .to_vec();
    let hostile = ContentInfo {
        original_length: 255 << 20,
        ..info
    };
    let error = other
        .contents()
        .decode_in_place(&hostile, &mut sealed)
        .unwrap_err();
    assert!(error.to_string().contains("no content has"), "{error}");
    let hostile = ContentInfo {
        packed_length: (1 << 28) - 1,
        timestamp: hostile.timestamp + 1,
        ..hostile
    };
    let builder: IndexBuilder = [hostile.clone()].into_iter().collect();
    bench.repository.index().write(builder, "s00").await.unwrap();
    let other = bench.again().await;
    let before = bench.blobs.calls(Operation::GetRange);
    let read = other.contents().get(&id).await;
    let many = other
        .contents()
        .read_many(vec![hostile], MergeRules::default(), 1);
    let (_, planned) = futures::StreamExt::next(&mut std::pin::pin!(many)).await.unwrap();
    for error in [read.unwrap_err(), planned.unwrap_err()] {
        assert!(matches!(error, KopiaError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("no content has"), "{error}");
    }
    assert_eq!(bench.blobs.calls(Operation::GetRange), before);
}
