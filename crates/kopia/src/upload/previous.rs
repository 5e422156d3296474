//! What older snapshots know of a directory.

use std::sync::Arc;

use super::list::{Kind, Listing, Metadata};
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, PartStream};
use crate::snapshot::{DirEntry, DirectoryStream, EntryKind};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Files and links that have not changed, and their objects.
    pub(super) unchanged: Vec<(u32, ObjectId)>,
    /// Bytes of those.
    pub(super) bytes: u64,
    /// For each directory below, in the order of the listing, what it was in the older snapshots.
    pub(super) below: Vec<Vec<ObjectId>>,
}

/// Reads the directory as older snapshots have it, best one first, and compares by kopia's rule: same name, kind,
/// permissions, owner, size and modification time is the same file.
///
/// A directory that cannot be read any more, or whose content is gone, is as if it were not there.
pub(super) async fn compare(
    source: &Arc<dyn ContentSource>,
    listing: &Listing,
    previous: &[ObjectId],
    verify: bool,
) -> KopiaResult<Known> {
    let mut known = Known {
        below: vec![Vec::new(); listing.directories()],
        ..Known::default()
    };
    let mut is_known = vec![false; listing.len()];
    for object in previous {
        match known.add(source, listing, *object, verify, &mut is_known).await {
            Ok(()) => {}
            Err(error) if is_damage(&error) => {
                tracing::warn!(directory = %object, %error, "an older snapshot cannot be used");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(known)
}

impl Known {
    async fn add(
        &mut self,
        source: &Arc<dyn ContentSource>,
        listing: &Listing,
        object: ObjectId,
        verify: bool,
        is_known: &mut [bool],
    ) -> KopiaResult<()> {
        let mut stream = DirectoryStream::open(Arc::clone(source), object)?;
        while let Some(entry) = stream.next().await? {
            let Some(object) = entry.object else { continue };
            let is_directory = entry.kind == EntryKind::Directory;
            let Some(at) = listing.find(is_directory, entry.name.as_bytes()) else {
                continue;
            };
            if is_directory {
                if let Some(below) = self.below.get_mut(at)
                    && !below.contains(&object)
                {
                    below.push(object);
                }
                continue;
            }
            let Some(current) = listing.entries().get(at) else {
                continue;
            };
            let Some(seen) = is_known.get_mut(at).filter(|seen| !**seen) else {
                continue;
            };
            if !is_unchanged(&entry, &current.metadata) || (verify && !is_reachable(source, object).await?) {
                continue;
            }
            *seen = true;
            self.bytes += current.metadata.size;
            if let Ok(index) = u32::try_from(at) {
                self.unchanged.push((index, object));
            }
        }
        Ok(())
    }
}

fn is_unchanged(old: &DirEntry, now: &Metadata) -> bool {
    let kind = match old.kind {
        EntryKind::File => Kind::File,
        EntryKind::Symlink => Kind::Symlink,
        EntryKind::Directory | EntryKind::Unknown => return false,
    };
    kind == now.kind
        && old.mtime.nanos() == now.mtime
        && old.size == now.size
        && old.permissions.to_unix() == u32::from(now.mode)
        && (old.uid, old.gid) == (now.uid, now.gid)
        && is_certain(old.name.as_bytes())
}

/// Whether the name in the repository stands for one name only. For bytes that are not UTF-8 there is U+FFFD.
fn is_certain(name: &[u8]) -> bool {
    !name.windows(3).any(|bytes| bytes == "\u{fffd}".as_bytes())
}

/// Whether all contents of an object are in the index.
async fn is_reachable(source: &Arc<dyn ContentSource>, object: ObjectId) -> KopiaResult<bool> {
    let look = async {
        if let Some(content) = object.content() {
            return source.length(content).await.map(drop);
        }
        let mut parts = PartStream::open(Arc::clone(source), object).await?;
        while let Some(part) = parts.next().await? {
            source.length(&part.content).await?;
        }
        Ok(())
    };
    match look.await {
        Ok(()) => Ok(true),
        Err(error) if is_damage(&error) => {
            tracing::warn!(%object, %error, "a file of an older snapshot is damaged in the repository; it is read anew");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error says that something is not in the repository or not as it should be.
fn is_damage(error: &KopiaError) -> bool {
    matches!(
        error,
        KopiaError::ContentNotFound { .. } | KopiaError::BlobNotFound { .. } | KopiaError::Corrupt { .. }
    )
}
