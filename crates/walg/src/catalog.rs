//! Listing and deleting backups.

use futures::{StreamExt, TryStreamExt};
use holdfast_store::Store;
use jiff::Timestamp;

use crate::backup::remove_folder;
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::metadata::Sentinel;
use crate::verify::read_sentinel;

/// A backup in storage.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// When its sentinel was stored, by the clock of the storage.
    pub modified: Timestamp,
}

/// All backups, oldest first.
pub async fn list(store: &Store) -> WalgResult<Vec<Listed>> {
    let (objects, _) = store.list_level(layout::BACKUPS).await?;
    let mut backups: Vec<Listed> = objects
        .into_iter()
        .filter_map(|object| {
            let name = layout::backup_of_sentinel(&object.key)?.to_owned();
            Some(Listed {
                name,
                modified: object.modified,
            })
        })
        .collect();
    backups.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
    Ok(backups)
}

/// The name itself, or the newest backup's for `LATEST`.
pub async fn resolve(store: &Store, name: &str) -> WalgResult<String> {
    if name != "LATEST" {
        return Ok(name.to_owned());
    }
    let newest = list(store).await?.pop();
    newest
        .map(|backup| backup.name)
        .ok_or_else(|| WalgError::BackupNotFound {
            name: name.to_owned(),
            location: store.location(layout::BACKUPS),
        })
}

/// Reads the sentinel of a backup.
pub async fn describe(store: &Store, name: &str) -> WalgResult<Sentinel> {
    Ok(read_sentinel(store, name).await?.0)
}

/// Removes a backup: its sentinel first, so that what is half removed is no backup, then everything else of it.
/// WAL stays, because other backups and recovery to a point in time need it; `wal-g delete garbage` removes what
/// nothing needs any more. Removing a backup that is not there succeeds.
///
/// A backup that is marked permanent, or that a delta backup of wal-g depends on, is left alone.
///
/// Names repeat: a replica gives the same one until its next restart point, so a failed attempt and a later backup can
/// share it. With `owner`, a whole backup that was taken for somebody else is spared, and there is nothing to remove.
pub async fn delete(store: &Store, name: &str, owner: Option<&str>) -> WalgResult<()> {
    if !layout::is_backup_name(name) {
        let location = store.location(layout::BACKUPS);
        return Err(WalgError::BackupNotFound {
            name: name.to_owned(),
            location,
        });
    }
    store.check().await?;
    let key = layout::sentinel(name);
    if store.head(&key).await?.is_some() {
        match read_sentinel(store, name).await {
            Ok((sentinel, _)) if owner.is_some_and(|owner| sentinel.owner() != Some(owner)) => {
                tracing::warn!(
                    name,
                    "a backup of this name was taken for somebody else and stays"
                );
                return Ok(());
            }
            Ok((sentinel, _)) => refuse_permanent(store, name, &sentinel).await?,
            // What cannot be read protects nothing.
            Err(WalgError::Corrupt { problem, .. }) => {
                tracing::warn!(name, problem, "deleting a damaged backup");
            }
            Err(error) => return Err(error),
        }
        refuse_needed(store, name).await?;
        store.delete(&[key]).await?;
    }
    let removed = remove_folder(store, name).await?;
    tracing::info!(name, removed, "backup deleted");
    Ok(())
}

async fn refuse_permanent(store: &Store, name: &str, sentinel: &Sentinel) -> WalgResult<()> {
    // wal-g marks backups in metadata.json alone.
    let key = layout::metadata(name);
    let marked = if store.head(&key).await?.is_some() {
        let text = store.get(&key, 1 << 20).await?;
        let metadata: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        metadata
            .get("is_permanent")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(false)
    } else {
        false
    };
    if marked || sentinel.is_permanent {
        return Err(WalgError::Permanent {
            name: name.to_owned(),
        });
    }
    Ok(())
}

async fn refuse_needed(store: &Store, name: &str) -> WalgResult<()> {
    let own = layout::own_segment(name);
    let suspects: Vec<String> = list(store)
        .await?
        .into_iter()
        .map(|backup| backup.name)
        .filter(|other| other != name && layout::parent_segment(other).is_some())
        .collect();
    for other in &suspects {
        if layout::parent_segment(other) == own {
            return Err(WalgError::InUse {
                name: name.to_owned(),
                by: other.clone(),
            });
        }
    }
    // The name tells the parent; a chain's full backup is told by the sentinel alone.
    let chains = suspects.into_iter().map(|other| async move {
        let sentinel = describe(store, &other).await?;
        let bases = [sentinel.delta_from, sentinel.delta_full_name];
        Ok::<_, WalgError>(
            bases
                .into_iter()
                .flatten()
                .any(|base| base == name)
                .then_some(other),
        )
    });
    let mut needing = futures::stream::iter(chains).buffer_unordered(8);
    while let Some(found) = needing.try_next().await? {
        if let Some(by) = found {
            return Err(WalgError::InUse {
                name: name.to_owned(),
                by,
            });
        }
    }
    Ok(())
}
