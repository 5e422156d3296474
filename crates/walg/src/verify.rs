//! Looking whether a backup is whole.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use holdfast_store::Store;
use jiff::Timestamp;

use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::lsn::{Lsn, Segment, SegmentSize};
use crate::metadata::{Inventory, InventoryEntry, Sentinel};

/// Largest sentinel that is read; those of old versions of wal-g list every file.
const SENTINEL_LIMIT: u64 = 64 << 20;

/// Largest inventory that is read.
const INVENTORY_LIMIT: u64 = 16 << 20;

/// Extensions of objects that a restore can read.
const READABLE: [&str; 3] = [".lz4", ".zst", ""];

/// A backup that is whole, as far as names and sizes tell.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its sentinel.
    pub sentinel: Sentinel,
    /// When the sentinel was stored, by the clock of the storage.
    pub modified: Timestamp,
    /// Objects that were found, the sentinel not counted.
    pub objects: u64,
    /// WAL segments that were found.
    pub wal_segments: u64,
    /// WAL that a restore needs.
    pub wal: Vec<InventoryEntry>,
    /// Size of the segments.
    pub segment_size: SegmentSize,
}

/// Reads the sentinel of a backup and looks for everything that belongs to it.
///
/// Backups of ours say themselves what there must be and how large it is. For backups of wal-g the archives and the
/// WAL from start to finish are looked for; `segment_size` is needed for those alone.
pub async fn verify(store: &Store, name: &str, segment_size: SegmentSize) -> WalgResult<Verified> {
    let (sentinel, modified) = read_sentinel(store, name).await?;
    let found: BTreeMap<String, u64> = store
        .list(&layout::folder(name))
        .await?
        .into_iter()
        .map(|object| (object.key, object.size))
        .collect();
    let key = layout::inventory(name);
    let (wal, segment_size) = if found.contains_key(&key) {
        let text = store.get(&key, INVENTORY_LIMIT).await?;
        let inventory: Inventory = serde_json::from_slice(&text)
            .map_err(|error| WalgError::corrupt(name, format!("{}: {error}", store.location(&key))))?;
        for entry in &inventory.objects {
            compare(store, name, entry, found.get(&entry.key).copied())?;
        }
        let size = SegmentSize::from_bytes(inventory.wal_segment_size)
            .map_err(|error| WalgError::corrupt(name, error.to_string()))?;
        (check_wal(store, name, inventory.wal).await?, size)
    } else {
        check_archives(store, name, &found)?;
        (
            find_wal(store, name, &sentinel, segment_size).await?,
            segment_size,
        )
    };
    let wal_segments = wal.iter().filter(|entry| !entry.key.contains(".history")).count() as u64;
    Ok(Verified {
        sentinel,
        modified,
        objects: found.len() as u64,
        wal_segments,
        wal,
        segment_size,
    })
}

/// Reads a sentinel, and when it was stored.
pub(crate) async fn read_sentinel(store: &Store, name: &str) -> WalgResult<(Sentinel, Timestamp)> {
    let key = layout::sentinel(name);
    let missing = || WalgError::BackupNotFound {
        name: name.to_owned(),
        location: store.location(layout::BACKUPS),
    };
    if !layout::is_backup_name(name) {
        return Err(missing());
    }
    let object = store.head(&key).await?.ok_or_else(missing)?;
    let text = store.get(&key, SENTINEL_LIMIT).await?;
    let sentinel = serde_json::from_slice(&text)
        .map_err(|error| WalgError::corrupt(name, format!("{}: {error}", store.location(&key))))?;
    Ok((sentinel, object.modified))
}

fn compare(store: &Store, name: &str, entry: &InventoryEntry, found: Option<u64>) -> WalgResult<()> {
    let location = store.location(&entry.key);
    match found {
        None => Err(WalgError::corrupt(name, format!("{location} is missing"))),
        Some(size) if size != entry.size => Err(WalgError::corrupt(
            name,
            format!("{location} has {size} bytes, not {}", entry.size),
        )),
        Some(_) => Ok(()),
    }
}

async fn check_wal(store: &Store, name: &str, wal: Vec<InventoryEntry>) -> WalgResult<Vec<InventoryEntry>> {
    let looks = wal.into_iter().map(|entry| async move {
        let found = store.head(&entry.key).await?.map(|object| object.size);
        // The archiver may have replaced a segment since by the same data compressed otherwise.
        let size = found
            .ok_or_else(|| WalgError::corrupt(name, format!("{} is missing", store.location(&entry.key))))?;
        if size == 0 {
            return Err(WalgError::corrupt(
                name,
                format!("{} is empty", store.location(&entry.key)),
            ));
        }
        Ok(InventoryEntry { key: entry.key, size })
    });
    futures::stream::iter(looks).buffered(8).try_collect().await
}

fn check_archives(store: &Store, name: &str, found: &BTreeMap<String, u64>) -> WalgResult<()> {
    let parts = layout::parts(name);
    let has = |start: &str| {
        found
            .iter()
            .any(|(key, &size)| size > 0 && key.starts_with(&format!("{parts}{start}")))
    };
    for archive in ["part_", "pg_control.tar"] {
        if !has(archive) {
            return Err(WalgError::corrupt(
                name,
                format!("{} is missing", store.location(&format!("{parts}{archive}"))),
            ));
        }
    }
    Ok(())
}

/// The segments from start to finish of a backup that has no list of them.
async fn find_wal(
    store: &Store,
    name: &str,
    sentinel: &Sentinel,
    size: SegmentSize,
) -> WalgResult<Vec<InventoryEntry>> {
    let (Some(start), Some(finish), Some(timeline)) =
        (sentinel.lsn, sentinel.finish_lsn, layout::timeline_of(name))
    else {
        return Err(WalgError::corrupt(name, "the sentinel lacks LSN or FinishLSN"));
    };
    let last = Segment::containing(Lsn(finish).before(), timeline, size);
    let first = Segment::containing(Lsn(start), timeline, size);
    if last.number.saturating_sub(first.number) > 1_000_000 {
        return Err(WalgError::corrupt(
            name,
            "start and finish are more than a million segments apart",
        ));
    }
    let looks = (first.number..=last.number).map(|number| async move {
        let file = format!("{}/{}", layout::WAL, Segment { timeline, number }.file_name(size));
        find_object(store, &file).await?.ok_or_else(|| {
            WalgError::corrupt(name, format!("WAL segment {} is missing", store.location(&file)))
        })
    });
    futures::stream::iter(looks).buffered(8).try_collect().await
}

/// An object of this name with one of the extensions that can be read.
pub(crate) async fn find_object(store: &Store, name: &str) -> WalgResult<Option<InventoryEntry>> {
    for extension in READABLE {
        if let Some(object) = store.head(&format!("{name}{extension}")).await? {
            return Ok(Some(InventoryEntry {
                key: object.key,
                size: object.size,
            }));
        }
    }
    Ok(None)
}
