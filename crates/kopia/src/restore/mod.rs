//! Restore of a snapshot.
//!
//! Files are not fetched one after the other: contents of many files are planned together, so that each range of a pack is
//! read once, several at a time, and each content is decoded once. Memory is bounded whatever the tree, by the budget of
//! the repository and some megabytes for what is planned. Nothing outside of the target is ever written, whatever names and links the snapshot or
//! the target have; see the module `target`.
//!
//! Of existing files, kopia's rules hold. Two things are restored better than kopia does: directories get their own times
//! (kopia sets the latest time of what is in them), and a program that runs as its owner does not run as somebody else if
//! the owner cannot be set.

mod device;
mod hard_links;
mod job;
mod options;
mod planner;
mod progress;
mod target;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::ByteBudget;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use self::hard_links::HardLinks;
use self::job::attributes;
pub use self::options::{RestoreOptions, RestoreSource, RestoreTarget};
use self::planner::Planner;
pub use self::progress::{RestoreCounts, RestoreProgress};
use self::target::{Descriptors, Directory, Target};
use self::writer::Writer;
use crate::error::{KopiaError, KopiaResult};
use crate::repository::Repository;
use crate::snapshot::EntryKind;
pub use crate::tree::{Failure, OnError};
use crate::tree::{Failures, MetadataSource, Packs, Visitor, Window, expect, fetch, resume, walk};

pub(crate) use self::target::MAX_DEPTH;

/// What is wrong with a name, if a restore would refuse it.
pub(crate) fn check_name(name: &[u8]) -> Result<(), &'static str> {
    self::target::EntryName::new(name).map(|_| ())
}

/// How many pieces may be planned before they are read; each is some megabytes of a pack, or little.
const PIECES: usize = 64;

/// Restores snapshots.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    options: RestoreOptions,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    /// Numbers at the end.
    pub counts: RestoreCounts,
    /// Entries some of whose attributes the kernel did not permit to set.
    pub denied: u64,
    /// The first of these attributes.
    pub denied_attributes: Vec<DeniedAttribute>,
    /// The first entries that failed; all of them are counted in [`RestoreCounts::failed`].
    pub failures: Vec<Failure>,
}

/// An attribute that the kernel did not permit to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedAttribute {
    /// Path of the entry below the root of the snapshot; empty for the root.
    pub path: PathBuf,
    /// `owner`, `permissions`, `times`, or the name of an extended attribute.
    pub attribute: String,
    /// The answer of the operating system.
    pub error: String,
}

impl Restore {
    /// With these options.
    pub const fn new(options: RestoreOptions) -> Self {
        Self { options }
    }

    /// Restores something of a repository. Needs a tokio runtime with timers and I/O; blocking threads of it are used for
    /// decoding and writing. It waits until no other restore or verification reads the same open repository.
    ///
    /// # Errors
    ///
    /// [`Entry`](KopiaError::Entry) with the path of the first entry that failed, if failures end everything
    /// ([`OnError::Stop`](OnError::Stop)); [`Cancelled`](KopiaError::Cancelled); [`Io`](KopiaError::Io),
    /// [`TargetExists`](KopiaError::TargetExists) and [`Argument`](KopiaError::Argument) about the target. What was
    /// restored until then stays.
    pub async fn run(
        &self,
        repository: &Repository,
        source: &RestoreSource,
        target: &RestoreTarget,
        progress: Arc<RestoreProgress>,
        cancel: &CancellationToken,
    ) -> KopiaResult<RestoreReport> {
        let packs = Arc::new(repository.contents().clone());
        self.run_with(
            packs,
            repository.buffers().clone(),
            source,
            target,
            progress,
            cancel,
        )
        .await
    }

    pub(crate) async fn run_with(
        &self,
        packs: Arc<dyn Packs>,
        memory: ByteBudget,
        source: &RestoreSource,
        target: &RestoreTarget,
        progress: Arc<RestoreProgress>,
        cancel: &CancellationToken,
    ) -> KopiaResult<RestoreReport> {
        let run = Run {
            options: self.options.clone(),
            packs,
            memory,
            progress,
            stop: cancel.child_token(),
        };
        if let RestoreSource::Entry(entry) = source {
            expect(entry, &run.progress.total_files, &run.progress.total_bytes);
        }
        let report = match target {
            RestoreTarget::Path(path) => run.to_path(source.clone(), path).await?,
            RestoreTarget::BlockDevice(path) => device::restore(&run, source.clone(), path).await?,
        };
        if cancel.is_cancelled() {
            return Err(KopiaError::Cancelled);
        }
        Ok(report)
    }
}

/// A restore under way.
struct Run {
    options: RestoreOptions,
    packs: Arc<dyn Packs>,
    memory: ByteBudget,
    progress: Arc<RestoreProgress>,
    /// Cancelled by the caller, or by the first failure if that ends everything.
    stop: CancellationToken,
}

impl Run {
    fn failures(&self) -> Failures {
        Failures::new(self.options.on_error, self.stop.clone())
    }

    async fn to_path(&self, mut source: RestoreSource, path: &Path) -> KopiaResult<RestoreReport> {
        if let RestoreSource::Entry(entry) = &mut source
            && entry.kind != EntryKind::Directory
        {
            // The target says how it is to be called.
            entry.name = path.file_name().unwrap_or_default().into();
        }
        let (target, root) = self.open(&source, path).await?;
        let writer = Arc::new(Writer {
            target,
            files: Descriptors::new(options::OPEN_FILES),
            sparse: self.options.sparse,
            progress: Arc::clone(&self.progress),
            failures: self.failures(),
            cancel: self.stop.clone(),
        });
        let (pieces, fetched) = mpsc::channel(PIECES);
        let planner = Planner {
            window: Window::new(Arc::clone(&self.packs), Arc::clone(&writer), pieces),
            writer: Arc::clone(&writer),
            source: Arc::new(MetadataSource::new(Arc::clone(&self.packs), self.stop.clone())),
            skip_existing: self.options.skip_existing,
            extended: self.options.extended_attributes,
            room: Arc::new(Semaphore::new(planner::ROOM)),
            links: HardLinks::default(),
            stop: self.stop.clone(),
        };
        let planning = self.on_thread({
            let (packs, stop) = (Arc::clone(&self.packs), self.stop.clone());
            move || async move { plan(packs, source, root, planner, &stop).await }
        });
        let fetching = fetch(
            Arc::clone(&self.packs),
            Arc::clone(&writer),
            fetched,
            self.options.fetch(&self.memory),
            self.stop.clone(),
        );
        let (all_planned, ()) = tokio::join!(planning, fetching);
        let failures = writer.failures.finish()?;
        // If it was cancelled from within, that was by a failure.
        all_planned?;
        if self.options.sync && !self.stop.is_cancelled() {
            let writer = Arc::clone(&writer);
            resume(spawn_blocking(move || writer.target.sync()).await)
                .unwrap_or(Err(KopiaError::Cancelled))?;
        }
        Ok(RestoreReport {
            counts: self.progress.counts(),
            denied: writer.target.denied(),
            denied_attributes: writer.target.take_denied(),
            failures,
        })
    }

    /// Opens the target. A single file is restored into the directory that it is to be in, which stays as it is.
    async fn open(&self, source: &RestoreSource, path: &Path) -> KopiaResult<(Target, Arc<Directory>)> {
        let (path, attributes) = match source {
            RestoreSource::Entry(entry) if entry.kind == EntryKind::Directory => {
                (path, Some(attributes(entry)))
            }
            RestoreSource::Entry(_) => (path.parent().unwrap_or(path), None),
            RestoreSource::Directory(_) => (path, None),
        };
        let mut options = self.options.target();
        if matches!(source, RestoreSource::Entry(entry) if entry.kind != EntryKind::Directory) {
            options.overwrite_directories = true;
        }
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        }
        .to_owned();
        let opened = spawn_blocking(move || Target::open(&path, attributes, options)).await;
        resume(opened).unwrap_or(Err(KopiaError::Cancelled))
    }

    /// Runs something that waits for the network and for disks on a thread of its own.
    async fn on_thread<F, T>(&self, work: impl FnOnce() -> F + Send + 'static) -> KopiaResult<T>
    where
        F: Future<Output = KopiaResult<T>>,
        T: Send + 'static,
    {
        let runtime = tokio::runtime::Handle::current();
        let done = spawn_blocking(move || runtime.block_on(work())).await;
        resume(done).unwrap_or(Err(KopiaError::Cancelled))
    }
}

/// Goes through what is to be restored.
async fn plan(
    packs: Arc<dyn Packs>,
    source: RestoreSource,
    root: Arc<Directory>,
    mut planner: Planner,
    stop: &CancellationToken,
) -> KopiaResult<()> {
    match source {
        RestoreSource::Entry(entry) if entry.kind != EntryKind::Directory => {
            planner.entry(&root, *entry).await?;
            planner.leave(root);
        }
        RestoreSource::Entry(entry) => match entry.object {
            Some(object) => walk(packs, root, object, &mut planner, stop).await?,
            None => planner.unreadable(&root, KopiaError::corrupt("the root", "it has no object")),
        },
        RestoreSource::Directory(object) => walk(packs, root, object, &mut planner, stop).await?,
    }
    planner.link_all().await?;
    planner.window.submit().await
}
