//! Epochs: which index blobs are valid together, and how one is added.
//!
//! Time is cut into epochs, so that index blobs can be compacted while others write: writers add blobs to the current
//! epoch, and compactions only replace those of epochs that ended two epochs ago, when nobody writes there any more.
//! Blobs that a compaction replaced are deleted hours later. Therefore what was found by listing is to be used only for
//! a while (the *refresh frequency*), and an index must not take two epochs to write.
//!
//! Compaction and deletion belong to the maintenance of kopia and are not done here.

mod names;
mod ranges;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use jiff::Timestamp;

use crate::blob::{BlobId, BlobMetadata, BlobStorage};
use crate::error::{KopiaError, KopiaResult};
use crate::format::{EpochParameters, RetentionConfig};
use ranges::{Range, longest_chain};

/// How often something is tried that took too long for what it relied upon.
const ATTEMPTS: u32 = 10;
/// Compactions keep away from the last two epochs.
const UNSETTLED: i64 = 2;
/// When the blobs of more epochs than this are needed, one listing of all is better than one of each.
const SINGLE_LISTINGS: i64 = 16;

/// Tells the time. Must go on while the machine sleeps.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The index blobs that are valid together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActiveIndexes {
    /// The blobs.
    pub blobs: Vec<BlobMetadata>,
    /// What was deleted until then, in seconds since 1970, is to be taken as if it had never been.
    pub deletion_watermark: Option<i64>,
}

/// Index blobs of a repository with epochs.
pub struct EpochManager {
    storage: Arc<dyn BlobStorage>,
    parameters: EpochParameters,
    retention: Option<RetentionConfig>,
    clock: Clock,
}

impl fmt::Debug for EpochManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochManager")
            .field("storage", &self.storage)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

/// What the listings said.
#[derive(Debug, Default)]
struct Snapshot {
    write_epoch: i64,
    deletion_watermark: Option<i64>,
    single: HashMap<i64, Vec<BlobMetadata>>,
    ranges: Vec<Range>,
    /// Of the write epoch and its neighbours.
    uncompacted: BTreeMap<i64, Vec<BlobMetadata>>,
    valid_until: Timestamp,
}

impl EpochManager {
    /// For the repository in `storage`, with the parameters and the retention that are kept in it.
    pub fn new(
        storage: Arc<dyn BlobStorage>,
        parameters: EpochParameters,
        retention: Option<RetentionConfig>,
        clock: Clock,
    ) -> Self {
        Self {
            storage,
            parameters,
            retention,
            clock,
        }
    }

    /// The index blobs that are valid now.
    pub async fn active(&self) -> KopiaResult<ActiveIndexes> {
        for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot().await?;
            let blobs = self.complete_set(&snapshot).await?;
            // Else a cleanup may have deleted what we found.
            if (self.clock)() < snapshot.valid_until {
                return Ok(ActiveIndexes {
                    blobs,
                    deletion_watermark: snapshot.deletion_watermark,
                });
            }
        }
        Err(self.too_slow("listing the index blobs"))
    }

    /// Writes the shards of an index, given by name without prefix, into the current epoch. All of them are in the same
    /// epoch then.
    ///
    /// Fails with [`EpochMoved`](KopiaError::EpochMoved) if meanwhile two epochs passed; then what was written is deleted
    /// again, and the write may be repeated.
    pub async fn write(&self, shards: &[(String, Bytes)]) -> KopiaResult<Vec<BlobId>> {
        let mut written: Vec<BlobId> = Vec::new();
        let mut epoch = None;
        for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot().await?;
            if epoch.is_some_and(|epoch| epoch != snapshot.write_epoch) {
                self.delete(&written).await?;
                written.clear();
            }
            epoch = Some(snapshot.write_epoch);
            if !self.write_shards(shards, &snapshot, &mut written).await? {
                continue;
            }
            if self.snapshot().await?.write_epoch < snapshot.write_epoch.saturating_add(UNSETTLED) {
                return Ok(written);
            }
            // The epoch may have been compacted without this index, so readers would not see it.
            if let Err(error) = self.delete(&written).await {
                // Nobody relies on it, so it does no harm; maintenance deletes it some day.
                tracing::warn!(%error, "an index blob that came too late could not be deleted");
            }
            return Err(KopiaError::EpochMoved);
        }
        Err(self.too_slow("writing an index"))
    }

    /// Begins a new epoch if the current one lasted long enough and is large enough. Says whether it did.
    ///
    /// kopia 0.21 does this in its maintenance only, not when it writes.
    pub async fn advance_if_due(&self) -> KopiaResult<bool> {
        let snapshot = self.snapshot().await?;
        let current = snapshot.uncompacted.get(&snapshot.write_epoch);
        if !is_over(&self.parameters, current.map_or(&[], Vec::as_slice)) {
            return Ok(false);
        }
        let marker = format!("{}{}", names::MARKER, snapshot.write_epoch.saturating_add(1));
        self.put(&marker.into(), Bytes::from_static(b"epoch-marker"))
            .await?;
        Ok(true)
    }

    /// Whether all shards have been written before the snapshot became too old.
    async fn write_shards(
        &self,
        shards: &[(String, Bytes)],
        snapshot: &Snapshot,
        written: &mut Vec<BlobId>,
    ) -> KopiaResult<bool> {
        for (name, data) in shards {
            let blob = BlobId::from(names::uncompacted(snapshot.write_epoch) + name);
            if written.contains(&blob) {
                continue;
            }
            if (self.clock)() >= snapshot.valid_until {
                return Ok(false);
            }
            self.put(&blob, data.clone()).await?;
            written.push(blob);
        }
        Ok(true)
    }

    async fn put(&self, blob: &BlobId, data: Bytes) -> KopiaResult<()> {
        let retention = self
            .retention
            .map(|retention| retention.starting((self.clock)()))
            .transpose()?;
        self.storage.put(blob, vec![data], retention.as_ref()).await
    }

    async fn delete(&self, blobs: &[BlobId]) -> KopiaResult<()> {
        for blob in blobs {
            self.storage.delete(blob).await?;
        }
        Ok(())
    }

    async fn snapshot(&self) -> KopiaResult<Snapshot> {
        for _ in 0..ATTEMPTS {
            let began = (self.clock)();
            let snapshot = self.list(self.valid_until(began)?).await?;
            if (self.clock)() <= snapshot.valid_until {
                return Ok(snapshot);
            }
        }
        Err(self.too_slow("listing the index blobs"))
    }

    async fn list(&self, valid_until: Timestamp) -> KopiaResult<Snapshot> {
        let (markers, watermarks, single, ranges) = futures::try_join!(
            self.storage.list(names::MARKER),
            self.storage.list(names::WATERMARK),
            self.storage.list(names::SINGLE),
            self.storage.list(names::RANGE),
        )?;
        let write_epoch = markers
            .iter()
            .filter_map(|blob| names::epoch_of(blob.id.as_str()))
            .fold(0, i64::max);
        // After the epoch is known, so that what others wrote in it is there.
        let around = write_epoch.saturating_sub(1).max(0)..=write_epoch.saturating_add(1);
        Ok(Snapshot {
            write_epoch,
            deletion_watermark: watermarks
                .iter()
                .filter_map(|blob| names::watermark_of(blob.id.as_str()))
                .max(),
            single: complete_sets(single, names::epoch_of).collect(),
            ranges: complete_sets(ranges, names::range_of)
                .map(|((first, last), blobs)| Range { first, last, blobs })
                .collect(),
            uncompacted: self.list_epochs(around).await?,
            valid_until,
        })
    }

    /// The uncompacted blobs of each of the epochs.
    async fn list_epochs(
        &self,
        epochs: impl Iterator<Item = i64>,
    ) -> KopiaResult<BTreeMap<i64, Vec<BlobMetadata>>> {
        let lists = epochs.map(async |epoch| {
            let blobs = self.storage.list(&names::uncompacted(epoch)).await?;
            Ok::<_, KopiaError>((epoch, blobs))
        });
        Ok(try_join_all(lists).await?.into_iter().collect())
    }

    /// The blobs that make up the index: ranges first, then each epoch by its compaction or as it is.
    async fn complete_set(&self, snapshot: &Snapshot) -> KopiaResult<Vec<BlobMetadata>> {
        let mut blobs = Vec::new();
        let mut next = 0;
        for range in longest_chain(&snapshot.ranges) {
            if range.last > next {
                blobs.extend(range.blobs.iter().cloned());
                next = range.last.saturating_add(1);
            }
        }
        let known = snapshot.uncompacted.keys().next().copied().unwrap_or(next);
        let settled = snapshot.write_epoch - UNSETTLED;
        let mut older = if known - next > SINGLE_LISTINGS {
            self.list_all_uncompacted().await?
        } else {
            let wanted =
                (next..known).filter(|epoch| *epoch > settled || !snapshot.single.contains_key(epoch));
            self.list_epochs(wanted).await?
        };
        older.retain(|epoch, _| *epoch < known);
        older.extend(
            snapshot
                .uncompacted
                .iter()
                .map(|(epoch, blobs)| (*epoch, blobs.clone())),
        );
        let compacted = snapshot.single.iter().filter(|(epoch, _)| **epoch <= settled);
        older.extend(compacted.map(|(epoch, blobs)| (*epoch, blobs.clone())));
        let wanted = older.into_iter().filter(|(epoch, _)| *epoch >= next);
        blobs.extend(wanted.flat_map(|(_, blobs)| blobs));
        Ok(blobs)
    }

    async fn list_all_uncompacted(&self) -> KopiaResult<BTreeMap<i64, Vec<BlobMetadata>>> {
        let mut epochs: BTreeMap<i64, Vec<BlobMetadata>> = BTreeMap::new();
        for blob in self.storage.list(names::UNCOMPACTED).await? {
            let epoch = names::epoch_of(blob.id.as_str())
                .filter(|epoch| blob.id.as_str().starts_with(&names::uncompacted(*epoch)));
            if let Some(epoch) = epoch {
                epochs.entry(epoch).or_default().push(blob);
            }
        }
        Ok(epochs)
    }

    fn valid_until(&self, began: Timestamp) -> KopiaResult<Timestamp> {
        began
            .checked_add(self.parameters.refresh_frequency)
            .map_err(|error| KopiaError::Argument {
                name: "clock",
                problem: error.to_string(),
            })
    }

    fn too_slow(&self, what: &'static str) -> KopiaError {
        KopiaError::TooSlow {
            what,
            limit: self.parameters.refresh_frequency,
        }
    }
}

/// Whether the epoch with these blobs is to end, by the clock of the storage.
fn is_over(parameters: &EpochParameters, blobs: &[BlobMetadata]) -> bool {
    let times = blobs.iter().map(|blob| blob.modified);
    let Some((first, last)) = times.clone().min().zip(times.max()) else {
        return false;
    };
    let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
    last.duration_since(first).unsigned_abs() >= parameters.min_epoch_duration
        && (blobs.len() >= parameters.advance_on_count as usize || bytes >= parameters.advance_on_total_bytes)
}

/// Groups blobs by what their names say and takes the first complete set of each group.
fn complete_sets<K: Ord>(
    blobs: Vec<BlobMetadata>,
    key: impl Fn(&str) -> Option<K>,
) -> impl Iterator<Item = (K, Vec<BlobMetadata>)> {
    let mut groups: BTreeMap<K, Vec<BlobMetadata>> = BTreeMap::new();
    for blob in blobs {
        if let Some(key) = key(blob.id.as_str()) {
            groups.entry(key).or_default().push(blob);
        }
    }
    groups
        .into_iter()
        .filter_map(|(key, blobs)| Some((key, names::first_complete_set(&blobs)?)))
}
