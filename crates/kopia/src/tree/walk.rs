//! From directory to directory.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::{MetadataSource, Packs};
use crate::content::ContentId;
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSource, ObjectId};
use crate::snapshot::{DirEntry, DirectoryStream, EntryKind, ExtendedAttributes};

/// How many directories are fetched together, and how many bytes.
const BATCH: usize = 256;
const BATCH_BYTES: u64 = 2 << 20;

/// How many directories may wait, before those of a further directory are taken in small portions.
const WAITING: usize = 16 << 10;
const PORTION: usize = 256;

/// What is done on the way through a tree.
pub(crate) trait Visitor {
    /// A directory that was entered.
    type Directory: Send;

    /// Enters a directory; none if it is not to be read: it failed, which was noted, or is known.
    fn enter(&mut self, parent: &Self::Directory, entry: &DirEntry) -> Option<Self::Directory>;

    /// A file, a symlink, or something unknown.
    fn entry(&mut self, parent: &Self::Directory, entry: DirEntry) -> impl Future<Output = KopiaResult<()>>;

    /// What kopia does not keep of a directory; comes before its entries, or not at all, or again.
    fn own_attributes(&mut self, _directory: &Self::Directory, _attributes: KopiaResult<ExtendedAttributes>) {
    }

    /// An entry whose name says nothing about which it is: another one has it. It is not visited otherwise.
    fn repeated(&mut self, directory: &Self::Directory, entry: &DirEntry, problem: &'static str);

    /// All entries of a directory were visited; those below may still be to come.
    fn leave(&mut self, directory: Self::Directory);

    /// A directory could not be read.
    fn unreadable(&mut self, directory: &Self::Directory, error: KopiaError);
}

/// A directory that waits to be read.
struct Waiting<D> {
    directory: D,
    object: ObjectId,
    /// Entries that were visited already.
    skip: u64,
}

/// Goes through a tree, directories before what is in them. An error ends it: of single entries the visitor takes care.
pub(crate) async fn walk<V: Visitor>(
    packs: Arc<dyn Packs>,
    root: V::Directory,
    object: ObjectId,
    visitor: &mut V,
    cancel: &CancellationToken,
) -> KopiaResult<()> {
    let source = Arc::new(MetadataSource::new(Arc::clone(&packs), cancel.clone()));
    let mut waiting = vec![Waiting {
        directory: root,
        object,
        skip: 0,
    }];
    while !waiting.is_empty() {
        let batch = next_batch(&mut waiting, &*packs);
        let contents: Vec<ContentId> = batch
            .iter()
            .filter_map(|next| next.object.content().copied())
            .collect();
        if batch.len() > 1 {
            source.prefetch(&contents).await;
        }
        for next in batch {
            if cancel.is_cancelled() {
                return Err(KopiaError::Cancelled);
            }
            read(&source, next, &mut waiting, visitor).await?;
        }
    }
    Ok(())
}

/// The directories to be read next: the last ones found, so that few wait.
fn next_batch<D>(waiting: &mut Vec<Waiting<D>>, packs: &dyn Packs) -> Vec<Waiting<D>> {
    let mut batch = Vec::new();
    let mut bytes = 0_u64;
    while batch.len() < BATCH
        && let Some(next) = waiting.last()
    {
        let length = next.object.content().and_then(|content| packs.info(content).ok());
        // A directory of which nothing is known yet is read by itself.
        bytes += length.map_or(BATCH_BYTES, |info| u64::from(info.original_length));
        if !batch.is_empty() && bytes > BATCH_BYTES {
            break;
        }
        batch.extend(waiting.pop());
    }
    batch
}

/// Visits the entries of a directory. Its directories are put to those that wait.
async fn read<V: Visitor>(
    source: &Arc<MetadataSource>,
    next: Waiting<V::Directory>,
    waiting: &mut Vec<Waiting<V::Directory>>,
    visitor: &mut V,
) -> KopiaResult<()> {
    let most = WAITING.saturating_sub(waiting.len()).max(PORTION);
    let Waiting {
        directory,
        object,
        skip,
    } = next;
    let mut found = Vec::new();
    let mut visited = 0;
    let mut all = true;
    // Also of what was visited already.
    let mut names = Names::new();
    let mut entries = match open(source, object) {
        Ok(entries) => Some(entries),
        Err(error) => {
            visitor.unreadable(&directory, error);
            None
        }
    };
    while let Some(stream) = &mut entries {
        let entry = stream.next().await;
        if let Some(attributes) = stream.own_attributes().transpose() {
            visitor.own_attributes(&directory, attributes);
        }
        let entry = match entry {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(KopiaError::Cancelled) => return Err(KopiaError::Cancelled),
            Err(error) => {
                visitor.unreadable(&directory, error);
                break;
            }
        };
        let checked = names.check(&entry);
        visited += 1;
        if visited <= skip {
            continue;
        }
        if let Err(problem) = checked {
            visitor.repeated(&directory, &entry, problem);
            continue;
        }
        if entry.kind == EntryKind::Directory
            && let Some(object) = entry.object
        {
            found.extend(visitor.enter(&directory, &entry).map(|directory| Waiting {
                directory,
                object,
                skip: 0,
            }));
            if found.len() >= most {
                all = false;
                break;
            }
        } else {
            visitor.entry(&directory, entry).await?;
        }
    }
    if all {
        visitor.leave(directory);
    } else {
        waiting.push(Waiting {
            directory,
            object,
            skip: visited,
        });
    }
    // The first one found is the next to be read.
    waiting.extend(found.into_iter().rev());
    Ok(())
}

fn open(source: &Arc<MetadataSource>, object: ObjectId) -> KopiaResult<DirectoryStream> {
    let source: Arc<dyn ContentSource> = Arc::<MetadataSource>::clone(source);
    DirectoryStream::open(source, object)
}
