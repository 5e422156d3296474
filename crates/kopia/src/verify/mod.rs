//! Verification of snapshots: whether they could be restored.
//!
//! Always: every directory and every list of parts is read and understood, every content is in the index, its pack exists
//! and is long enough, names and lengths make sense. To a chosen share: contents are read, decrypted and compared with the
//! hash that is their name. Whatever is wrong is reported with the paths that it affects.
//!
//! ```text
//! checker   goes through directories, looks contents up, takes what was read of them
//! entries   when a directory or file is known to be whole: all of it was looked at, and nothing was wrong
//! whole     what was, in bounded memory, so that it is not looked at again for the next snapshot
//! ```

mod checker;
mod entries;
mod options;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use holdfast_store::ByteBudget;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::checker::{Checker, Planner};
use self::entries::Directory;
pub use self::options::{VerifyCounts, VerifyOptions, VerifyProgress};
use self::whole::Whole;
use crate::blob::BlobId;
use crate::error::{KopiaError, KopiaResult};
use crate::repository::Repository;
use crate::snapshot::{DirEntry, EntryKind};
pub use crate::tree::Failure;
use crate::tree::{
    FetchOptions, MetadataSource, OnError, Packs, Visitor, Window, expect, fetch, resume, walk,
};

/// How many pieces may be planned before they are read.
const PIECES: usize = 64;

/// Of the memory for buffers, the part in which is remembered what was found whole: 7.5 MiB of 60. A directory takes 56
/// bytes, a content or file 16.
const REMEMBERED: u64 = 8;

/// Verifies any number of snapshots of a repository, as it is when the verification begins.
///
/// What snapshots share is looked at once, if it is right in all its parts: a directory with everything below it, a file, a
/// content. What is damaged is looked at again, and reported, wherever it is. The memory for that is bounded: what was
/// forgotten is read again.
pub struct Verification {
    options: VerifyOptions,
    packs: Arc<dyn Packs>,
    /// Bytes of each pack that there is.
    lengths: Arc<HashMap<BlobId, u64>>,
    memory: ByteBudget,
    whole: Arc<Whole>,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What was found of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Numbers at the end, of all snapshots that had the same [`VerifyProgress`].
    pub counts: VerifyCounts,
    /// Entries of this snapshot with which something is wrong.
    pub failed: u64,
    /// The first entries with which something is wrong; all of them are counted in [`VerifyReport::failed`].
    pub failures: Vec<Failure>,
    /// Packs that are missing or damaged, and how often a file wants a content of each that cannot be had; the first
    /// of them, as many as failures are listed.
    pub damaged_packs: BTreeMap<BlobId, u64>,
}

impl VerifyReport {
    /// Whether nothing is wrong, as far as was looked.
    pub const fn is_sound(&self) -> bool {
        self.failed == 0
    }
}

impl Verification {
    /// Lists the packs of a repository.
    ///
    /// # Errors
    ///
    /// Those of the storage; that the system has no random numbers.
    pub async fn begin(repository: &Repository, options: VerifyOptions) -> KopiaResult<Self> {
        let mut lengths = HashMap::new();
        for prefix in ["p", "q"] {
            let packs = repository.storage().list(prefix).await?;
            lengths.extend(packs.into_iter().map(|pack| (pack.id, pack.size)));
        }
        let packs = Arc::new(repository.contents().clone());
        Self::with(packs, lengths, repository.buffers().clone(), options)
    }

    pub(crate) fn with(
        packs: Arc<dyn Packs>,
        lengths: HashMap<BlobId, u64>,
        memory: ByteBudget,
        options: VerifyOptions,
    ) -> KopiaResult<Self> {
        Ok(Self {
            options,
            packs,
            lengths: Arc::new(lengths),
            whole: Arc::new(Whole::new(memory.total() / REMEMBERED)?),
            memory,
        })
    }

    /// Verifies an entry: the root of a snapshot, or something below it. Needs a tokio runtime with timers and I/O. It waits
    /// until no other verification or restore reads the same open repository.
    ///
    /// # Errors
    ///
    /// That something is wrong with the snapshot is no error but the report. The only error is
    /// [`Cancelled`](KopiaError::Cancelled).
    pub async fn verify(
        &self,
        root: &DirEntry,
        progress: Arc<VerifyProgress>,
        cancel: &CancellationToken,
    ) -> KopiaResult<VerifyReport> {
        let packs = &self.packs;
        expect(root, &progress.total_files, &progress.total_bytes);
        let list = OnError::Continue {
            list: self.options.list,
        };
        let checker = Arc::new(Checker::new(
            Arc::clone(packs),
            Arc::clone(&progress),
            Arc::clone(&self.whole),
            list,
            cancel.clone(),
        ));
        let (pieces, fetched) = mpsc::channel(PIECES);
        let planner = Planner {
            window: Window::new(Arc::clone(packs), Arc::clone(&checker), pieces),
            checker: Arc::clone(&checker),
            packs: Arc::clone(packs),
            source: Arc::new(MetadataSource::new(Arc::clone(packs), cancel.clone())),
            lengths: Arc::clone(&self.lengths),
            share: self.options.share(),
        };
        let runtime = tokio::runtime::Handle::current();
        let planning = spawn_blocking({
            let (packs, root, cancel) = (Arc::clone(packs), root.clone(), cancel.clone());
            move || runtime.block_on(plan(packs, root, planner, &cancel))
        });
        let options = FetchOptions::new(
            self.memory.clone(),
            self.options.parallel_reads,
            self.options.workers,
        )
        .beside(self.memory.total() / REMEMBERED);
        let fetching = fetch(
            Arc::clone(packs),
            Arc::clone(&checker),
            fetched,
            options,
            cancel.clone(),
        );
        let (all_planned, ()) = tokio::join!(planning, fetching);
        resume(all_planned).unwrap_or(Err(KopiaError::Cancelled))?;
        if cancel.is_cancelled() {
            return Err(KopiaError::Cancelled);
        }
        let failed = checker.count();
        let (failures, damaged_packs) = checker.finish()?;
        Ok(VerifyReport {
            failed,
            counts: progress.counts(),
            failures,
            damaged_packs,
        })
    }
}

async fn plan(
    packs: Arc<dyn Packs>,
    root: DirEntry,
    mut planner: Planner,
    cancel: &CancellationToken,
) -> KopiaResult<()> {
    match root.object {
        Some(object) if root.kind == EntryKind::Directory => {
            let digest = planner.checker.digest(&object);
            if planner.known(digest, 0).is_none() {
                let top = Arc::new(Directory::root(Some(digest)));
                walk(packs, top, object, &mut planner, cancel).await?;
            }
        }
        _ => planner.entry(&Arc::new(Directory::root(None)), root).await?,
    }
    planner.window.submit().await
}
