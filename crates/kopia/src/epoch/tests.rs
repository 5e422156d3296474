//! Tests of epochs, against kopia's own answers and with storage that is slow or changed meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use super::ranges::{Range, longest_chain};
use super::{ActiveIndexes, Clock, EpochManager, names};
use crate::blob::memory::{BlobFault, FaultRule, Operation};
use crate::blob::{BlobId, BlobMetadata, BlobStorage, MemoryBlobs, RetentionMode};
use crate::error::KopiaError;
use crate::format::{EpochParameters, RetentionConfig};
use crate::hostile::{self, Bound};

/// The first second of the tests.
const START: i64 = 1_700_000_000;

/// A clock that goes on by `step` seconds whenever it is asked.
fn ticking(step: i64) -> (Clock, Arc<AtomicI64>) {
    let seconds = Arc::new(AtomicI64::new(START));
    let shared = seconds.clone();
    let clock = move || Timestamp::from_second(shared.fetch_add(step, Ordering::Relaxed)).unwrap();
    (Arc::new(clock), seconds)
}

fn storage(names: &[&str]) -> MemoryBlobs {
    let blobs = MemoryBlobs::new();
    for name in names {
        blobs.insert(*name, "x", Timestamp::from_second(START).unwrap());
    }
    blobs
}

fn manager(blobs: &MemoryBlobs, clock: Clock) -> EpochManager {
    EpochManager::new(Arc::new(blobs.clone()), EpochParameters::STANDARD, None, clock)
}

fn ids(active: &ActiveIndexes) -> Vec<String> {
    let mut ids: Vec<_> = active.blobs.iter().map(|blob| blob.id.to_string()).collect();
    ids.sort();
    ids
}

/// One line of the file that kopia's epoch manager made.
#[derive(Deserialize)]
struct Case {
    blobs: Vec<String>,
    active: Vec<String>,
    watermark: Option<i64>,
}

#[tokio::test]
async fn the_complete_set_is_kopias() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/index/epochs.jsonl");
    let cases = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for line in cases.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let blobs: Vec<_> = case.blobs.iter().map(String::as_str).collect();
        let active = manager(&storage(&blobs), ticking(0).0).active().await.unwrap();
        assert_eq!(ids(&active), case.active, "{line}");
        assert_eq!(active.deletion_watermark, case.watermark, "{line}");
        count += 1;
    }
    assert_eq!(count, 60);
}

#[tokio::test]
async fn far_epochs_are_listed_at_once() {
    // Nothing compacted, a marker from far away: a listing for each epoch would not end.
    let blobs = storage(&[
        "xe9000000000",
        "xn0_a",
        "xn17_b",
        "xn017_c",
        "xn8999999999_d",
        "xn9000000001_e",
        "xn9000000002_f",
    ]);
    let active = manager(&blobs, ticking(0).0).active().await.unwrap();
    assert_eq!(
        ids(&active),
        ["xn0_a", "xn17_b", "xn8999999999_d", "xn9000000001_e"]
    );
    assert!(blobs.calls(Operation::List) < 10);
    for marker in ["xe9223372036854775807", "xe9223372036854775808", "xe-5"] {
        manager(&storage(&[marker, "xr0_9223372036854775807_a"]), ticking(0).0)
            .active()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_listing_that_took_too_long_is_not_used() {
    let blobs = storage(&["xn0_a"]);
    // 600 s for each look at the clock are just too much for 20 minutes; 100 s are not.
    let error = manager(&blobs, ticking(601).0).active().await.unwrap_err();
    assert!(matches!(error, KopiaError::TooSlow { .. }), "{error}");
    manager(&blobs, ticking(100).0).active().await.unwrap();
}

fn shards() -> Vec<(String, Bytes)> {
    ["aa-s1-c2", "bb-s1-c2"]
        .map(|name| (name.to_owned(), Bytes::from_static(b"data")))
        .into()
}

#[tokio::test]
async fn an_index_is_written_into_the_current_epoch() {
    let blobs = storage(&["xe3", "xe4"]);
    let retention = RetentionConfig {
        mode: RetentionMode::Governance,
        period: Duration::from_hours(48),
    };
    let epochs = EpochManager::new(
        Arc::new(blobs.clone()),
        EpochParameters::STANDARD,
        Some(retention),
        ticking(0).0,
    );
    let written = epochs.write(&shards()).await.unwrap();
    assert_eq!(written, ["xn4_aa-s1-c2".into(), "xn4_bb-s1-c2".into()]);
    for blob in &written {
        assert_eq!(&blobs.content(blob).unwrap()[..], b"data");
        assert_eq!(
            blobs.retention(blob).unwrap().until.as_second(),
            START + 48 * 3600
        );
    }
    assert_eq!(
        ids(&epochs.active().await.unwrap()),
        ["xn4_aa-s1-c2", "xn4_bb-s1-c2"]
    );
}

/// A storage that stores an epoch marker after so many writes, as another client would.
#[derive(Debug)]
struct Advancing {
    blobs: MemoryBlobs,
    markers: Vec<(u64, &'static str)>,
}

#[async_trait::async_trait]
impl BlobStorage for Advancing {
    async fn get(&self, id: &BlobId, limit: u64) -> crate::KopiaResult<Bytes> {
        self.blobs.get(id, limit).await
    }

    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> crate::KopiaResult<Bytes> {
        self.blobs.get_range(id, offset, length).await
    }

    async fn put(
        &self,
        id: &BlobId,
        pieces: Vec<Bytes>,
        retention: Option<&crate::blob::Retention>,
    ) -> crate::KopiaResult<()> {
        self.blobs.put(id, pieces, retention).await?;
        for (after, marker) in &self.markers {
            if self.blobs.calls(Operation::Put) == *after {
                self.blobs
                    .insert(*marker, "x", Timestamp::from_second(START).unwrap());
            }
        }
        Ok(())
    }

    async fn metadata(&self, id: &BlobId) -> crate::KopiaResult<Option<BlobMetadata>> {
        self.blobs.metadata(id).await
    }

    async fn list(&self, prefix: &str) -> crate::KopiaResult<Vec<BlobMetadata>> {
        self.blobs.list(prefix).await
    }

    async fn delete(&self, id: &BlobId) -> crate::KopiaResult<()> {
        self.blobs.delete(id).await
    }

    fn location(&self) -> String {
        self.blobs.location()
    }
}

async fn write_while(
    markers: &[(u64, &'static str)],
    step: i64,
) -> (crate::KopiaResult<Vec<BlobId>>, Vec<String>) {
    let blobs = MemoryBlobs::new();
    let storage = Advancing {
        blobs: blobs.clone(),
        markers: markers.to_vec(),
    };
    let epochs = EpochManager::new(
        Arc::new(storage),
        EpochParameters::STANDARD,
        None,
        ticking(step).0,
    );
    let result = epochs.write(&shards()).await;
    (result, blobs.names())
}

#[tokio::test]
async fn one_epoch_further_is_no_harm() {
    let (written, names) = write_while(&[(1, "xe1")], 0).await;
    assert_eq!(written.unwrap().len(), 2);
    assert_eq!(names, ["xe1", "xn0_aa-s1-c2", "xn0_bb-s1-c2"]);
}

#[tokio::test]
async fn two_epochs_further_is_too_late() {
    let (written, names) = write_while(&[(1, "xe1"), (2, "xe2")], 0).await;
    assert!(matches!(written, Err(KopiaError::EpochMoved)));
    assert_eq!(names, ["xe1", "xe2"]);
}

#[tokio::test]
async fn shards_are_never_in_two_epochs() {
    // The second shard comes too late for the listing, and the next listing has another epoch.
    let (written, names) = write_while(&[(1, "xe1")], 450).await;
    assert_eq!(written.unwrap(), ["xn1_aa-s1-c2".into(), "xn1_bb-s1-c2".into()]);
    assert_eq!(names, ["xe1", "xn1_aa-s1-c2", "xn1_bb-s1-c2"]);
}

#[tokio::test]
async fn what_is_written_already_is_not_written_again() {
    let (written, names) = write_while(&[], 450).await;
    assert_eq!(written.unwrap().len(), 2);
    assert_eq!(names, ["xn0_aa-s1-c2", "xn0_bb-s1-c2"]);
}

#[tokio::test]
async fn failures_of_the_storage_are_told() {
    let blobs = storage(&[]);
    for operation in [Operation::List, Operation::Put] {
        blobs.inject(FaultRule::every(operation, BlobFault::Unavailable));
        let error = manager(&blobs, ticking(0).0).write(&shards()).await.unwrap_err();
        assert!(matches!(error, KopiaError::Store(_)), "{error}");
        blobs.heal();
    }
}

#[tokio::test]
async fn an_epoch_ends_when_it_is_old_and_large() {
    let advance = async |count: i64, size: usize, hours: i64| {
        let blobs = storage(&["xe7"]);
        for n in 0..count {
            let time = START + n * hours * 3600 / (count - 1);
            let data = vec![0; size];
            blobs.insert(format!("xn7_{n}"), data, Timestamp::from_second(time).unwrap());
        }
        let advanced = manager(&blobs, ticking(0).0).advance_if_due().await.unwrap();
        assert_eq!(advanced, blobs.names().contains(&"xe8".to_owned()));
        advanced
    };
    assert!(advance(20, 1, 24).await);
    assert!(!advance(19, 1, 24).await);
    assert!(!advance(20, 1, 23).await);
    assert!(advance(2, 5 << 20, 24).await);
    assert!(!advance(2, (5 << 20) - 1, 24).await);
    assert!(
        !manager(&storage(&[]), ticking(0).0)
            .advance_if_due()
            .await
            .unwrap()
    );
}

fn range(first: i64, last: i64) -> Range {
    Range {
        first,
        last,
        blobs: Vec::new(),
    }
}

/// Every chain that begins with epoch 0, one after the other.
fn best_of_all(ranges: &[Range], next: i64) -> Option<(i64, usize)> {
    let chains = ranges
        .iter()
        .filter(|range| range.first == next && range.first <= range.last);
    chains
        .filter_map(|range| {
            let rest = best_of_all(ranges, range.last + 1);
            let (reaches, length) = rest.map_or((range.last, 1), |(reaches, length)| (reaches, length + 1));
            (reaches > 0).then_some((reaches, length))
        })
        .max_by_key(|(reaches, length)| (*reaches, std::cmp::Reverse(*length)))
}

proptest! {
    #[test]
    fn the_chain_reaches_farthest(ends in vec((0_i64..9, -1_i64..9), 0..14)) {
        let ranges: Vec<_> = ends.into_iter().map(|(first, more)| range(first, first + more)).collect();
        let chain = longest_chain(&ranges);
        let found = chain.last().map(|last| (last.last, chain.len()));
        prop_assert_eq!(found, best_of_all(&ranges, 0));
        prop_assert!(chain.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
    }

    #[test]
    fn any_name_is_a_name(name in "\\PC{0,30}", more in "[-_xrcs0-9]{0,30}") {
        for name in [name, more] {
            let _ = (names::epoch_of(&name), names::range_of(&name), names::watermark_of(&name));
            let blob = BlobMetadata { id: name.into(), size: 0, modified: Timestamp::UNIX_EPOCH };
            let _ = names::first_complete_set(&[blob.clone(), blob]);
        }
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let ranges = [
        range(0, i64::MAX),
        range(0, 5),
        range(6, i64::MAX),
        range(i64::MIN, i64::MAX),
    ];
    assert_eq!(longest_chain(&ranges), [&ranges[0]]);
}

#[test]
fn names_say_what_kopia_reads_in_them() {
    assert_eq!(names::epoch_of("xn12_ab-s1-c1"), Some(12));
    assert_eq!(names::epoch_of("xe007"), Some(7));
    assert_eq!(names::epoch_of("xe"), None);
    assert_eq!(names::range_of("xr3_15_ab-s1-c1"), Some((3, 15)));
    assert_eq!(names::range_of("xr3_15"), None);
    assert_eq!(names::watermark_of("xw1700000000"), Some(START));
    assert_eq!(names::watermark_of("xw-62135596801"), None);
    let set: BTreeSet<_> = ["xs1_a-s1-c2", "xs1_b-s1-c2", "xs1_c-s1-c2"]
        .map(|name| (name.to_owned(), "d"))
        .into();
    let blobs: Vec<_> = set
        .iter()
        .map(|(name, _)| BlobMetadata {
            id: name.as_str().into(),
            size: 1,
            modified: Timestamp::UNIX_EPOCH,
        })
        .collect();
    assert_eq!(names::first_complete_set(&blobs).unwrap().len(), 2);
    assert!(names::first_complete_set(&blobs[..1]).is_none());
}

#[test]
fn hostile_names_are_harmless() {
    let golden = [
        &b"xn12_0b071721653c256bc16c7c171bcdc8ae-s63421179c0088565147-c1"[..],
        b"xs7_458c37e92c3a7ee34a080b3037cb9604-sdb0a7f5817bf5b3e147-c2",
        b"xr3_15_57bf3d511f1d941408ffaff851b4a480-s1eb8f6d7d4de32d6147-c1",
        b"xe7",
        b"xw1700000000",
    ];
    hostile::check(&golden, Bound::new(4096, 20), |name| {
        let name = String::from_utf8_lossy(name);
        let (epoch, range) = (names::epoch_of(&name), names::range_of(&name));
        names::watermark_of(&name);
        let blob = BlobMetadata {
            id: (&*name).into(),
            size: 0,
            modified: Timestamp::UNIX_EPOCH,
        };
        names::first_complete_set(&[blob.clone(), blob]);
        if let (Some(epoch), Some((first, last))) = (epoch, range) {
            assert_eq!(epoch, first);
            longest_chain(&[super::ranges::Range {
                first,
                last,
                blobs: Vec::new(),
            }]);
        }
    });
}
