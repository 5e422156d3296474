//! What older snapshots know of a directory.

use std::collections::HashMap;
use std::sync::Arc;

use super::list::{Kind, Listing, Metadata};
use super::slots::{Slot, Slots};
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId, PartStream};
use crate::snapshot::{DirEntry, DirectoryStream, EntryKind};

/// Entries between two looks at whether to go on.
const ENTRIES_PER_CHECK: usize = 256;

/// What was found.
#[derive(Debug)]
pub(super) struct Known {
    /// Stored are the files and links that have not changed; of directories it says what they were.
    pub(super) slots: Slots,
    /// How many files and links have not changed.
    pub(super) unchanged: usize,
    /// Bytes of those.
    pub(super) bytes: u64,
    /// What else directories were, in snapshots that are less good.
    pub(super) further: HashMap<u32, Vec<ObjectId>>,
}

/// Reads the directory as older snapshots have it, best one first, and compares by kopia's rule: same name, kind,
/// permissions, owner, size and modification time is the same file.
///
/// A directory that cannot be read any more, or whose content is gone, is as if it were not there. Ends with
/// [`Cancelled`](KopiaError::Cancelled) soon after `stopped`, also where it never has to wait.
pub(super) async fn compare(
    source: &Arc<dyn ContentSource>,
    listing: &Listing,
    previous: &[ObjectId],
    verify: bool,
    stopped: &dyn Fn() -> bool,
) -> KopiaResult<Known> {
    let mut known = Known {
        slots: Slots::new(listing.len()),
        unchanged: 0,
        bytes: 0,
        further: HashMap::new(),
    };
    for object in previous {
        let added = known.add(source, listing, *object, verify, stopped);
        match added.await {
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
        stopped: &dyn Fn() -> bool,
    ) -> KopiaResult<()> {
        let mut stream = DirectoryStream::open(Arc::clone(source), object)?;
        let mut seen = 0_usize;
        while let Some(entry) = stream.next().await? {
            if seen.is_multiple_of(ENTRIES_PER_CHECK) && stopped() {
                return Err(KopiaError::Cancelled);
            }
            seen += 1;
            let Some(object) = entry.object else { continue };
            let is_directory = entry.kind == EntryKind::Directory;
            let Some(at) = listing.find(is_directory, entry.name.as_bytes()) else {
                continue;
            };
            if is_directory {
                self.add_directory(at, object);
                continue;
            }
            let Some(current) = listing.entries().get(at) else {
                continue;
            };
            if self.slots.is_stored(at)
                || !is_unchanged(&entry, &listing.metadata(current))
                || (verify && !is_reachable(source, object).await?)
            {
                continue;
            }
            self.slots.set(at, Slot::Stored(object));
            self.unchanged += 1;
            self.bytes += current.size();
        }
        Ok(())
    }

    fn add_directory(&mut self, at: usize, object: ObjectId) {
        match self.slots.get(at) {
            Slot::Before(best) if best != object => {
                let Ok(index) = u32::try_from(at) else { return };
                let further = self.further.entry(index).or_default();
                if !further.contains(&object) {
                    further.push(object);
                }
            }
            Slot::Before(_) => {}
            _ => self.slots.set(at, Slot::Before(object)),
        }
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
        && old.name.is_certain()
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
