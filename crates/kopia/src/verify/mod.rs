//! Verification of a snapshot: whether it could be restored.
//!
//! Always: every directory and every list of parts is read and understood, every content is in the index, its pack exists
//! and is long enough, names and lengths make sense. To a chosen share: contents are read, decrypted and compared with the
//! hash that is their name. Whatever is wrong is reported with the paths that it affects.

mod checker;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_store::ByteBudget;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::checker::{Checker, Directory, Planner};
pub use self::options::{VerifyCounts, VerifyOptions, VerifyProgress};
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

/// Verifies snapshots.
#[derive(Clone, Debug, Default)]
pub struct Verify {
    options: VerifyOptions,
}

/// The packs of a repository and their lengths in bytes: listed once for any number of snapshots.
#[derive(Clone, Debug)]
pub struct PackLengths(Arc<HashMap<BlobId, u64>>);

impl PackLengths {
    /// Lists the packs of a repository.
    pub async fn list(repository: &Repository) -> KopiaResult<Self> {
        let mut lengths = HashMap::new();
        for prefix in ["p", "q"] {
            let packs = repository.storage().list(prefix).await?;
            lengths.extend(packs.into_iter().map(|pack| (pack.id, pack.size)));
        }
        Ok(Self(Arc::new(lengths)))
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Numbers at the end.
    pub counts: VerifyCounts,
    /// The first entries with which something is wrong; all of them are counted in [`VerifyCounts::failed`].
    pub failures: Vec<Failure>,
    /// Packs that are missing or damaged, and how often a file wants a content of each that cannot be had; the first
    /// of them, as many as failures are listed.
    pub damaged_packs: BTreeMap<BlobId, u64>,
}

impl VerifyReport {
    /// Whether nothing is wrong, as far as was looked.
    pub const fn is_sound(&self) -> bool {
        self.counts.failed == 0
    }
}

impl Verify {
    /// With these options.
    pub const fn new(options: VerifyOptions) -> Self {
        Self { options }
    }

    /// Verifies an entry: the root of a snapshot, or something below it. Needs a tokio runtime with timers and I/O.
    ///
    /// # Errors
    ///
    /// That something is wrong with the snapshot is no error but the report. The only error is
    /// [`Cancelled`](KopiaError::Cancelled).
    pub async fn run(
        &self,
        repository: &Repository,
        lengths: &PackLengths,
        root: &DirEntry,
        progress: Arc<VerifyProgress>,
        cancel: &CancellationToken,
    ) -> KopiaResult<VerifyReport> {
        let packs = Arc::new(repository.contents().clone());
        self.run_with(
            packs,
            Arc::clone(&lengths.0),
            repository.buffers().clone(),
            root,
            progress,
            cancel,
        )
        .await
    }

    pub(crate) async fn run_with(
        &self,
        packs: Arc<dyn Packs>,
        lengths: Arc<HashMap<BlobId, u64>>,
        memory: ByteBudget,
        root: &DirEntry,
        progress: Arc<VerifyProgress>,
        cancel: &CancellationToken,
    ) -> KopiaResult<VerifyReport> {
        expect(root, &progress.total_files, &progress.total_bytes);
        let list = OnError::Continue {
            list: self.options.list,
        };
        let checker = Arc::new(Checker::new(
            Arc::clone(&packs),
            Arc::clone(&progress),
            list,
            cancel.clone(),
        ));
        let (pieces, fetched) = mpsc::channel(PIECES);
        let planner = Planner {
            window: Window::new(Arc::clone(&packs), Arc::clone(&checker), pieces),
            checker: Arc::clone(&checker),
            packs: Arc::clone(&packs),
            source: Arc::new(MetadataSource::new(Arc::clone(&packs), cancel.clone())),
            lengths,
            share: self.options.share(),
        };
        let runtime = tokio::runtime::Handle::current();
        let planning = spawn_blocking({
            let (packs, root, cancel) = (Arc::clone(&packs), root.clone(), cancel.clone());
            move || runtime.block_on(plan(packs, root, planner, &cancel))
        });
        let options = FetchOptions::new(memory, self.options.parallel_reads, self.options.workers);
        let fetching = fetch(packs, Arc::clone(&checker), fetched, options, cancel.clone());
        let (all_planned, ()) = tokio::join!(planning, fetching);
        resume(all_planned).unwrap_or(Err(KopiaError::Cancelled))?;
        if cancel.is_cancelled() {
            return Err(KopiaError::Cancelled);
        }
        let (failures, damaged_packs) = checker.finish()?;
        Ok(VerifyReport {
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
    let top = Arc::new(Directory::root());
    match root.object {
        Some(object) if root.kind == EntryKind::Directory => {
            walk(packs, top, object, &mut planner, cancel).await?;
        }
        _ => planner.entry(&top, root).await?,
    }
    planner.window.submit().await
}
