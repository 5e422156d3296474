//! What all threads of a backup share: the work, the limits, and how it ends.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Share};
use super::directory::Below;
use super::large::{HashBatch, LargeFile, LargeTask};
use super::limits::{OpenDirectories, is_exhausted};
use super::plan::Plan;
use super::progress::Progress;
use super::scheduler::Scheduler;
use super::small::Files;
use super::tree::{Directory, append};
use super::{ErrorPolicy, SkippedEntry};
use crate::compression::HeaderId;
use crate::content::{ContentId, Prefix};
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSink, ContentSource, ObjectId};
use crate::snapshot::{DirEntry, FailedEntry};

/// The contents of the repository, for writing.
#[derive(Clone)]
pub(super) struct Sink(pub(super) Arc<dyn ContentSink>);

impl ContentSink for Sink {
    fn put(&self, prefix: Option<Prefix>, data: Vec<u8>, compression: HeaderId) -> KopiaResult<ContentId> {
        self.0.put(prefix, data, compression)
    }

    fn put_batch(
        &self,
        prefix: Option<Prefix>,
        data: Vec<Vec<u8>>,
        compression: HeaderId,
    ) -> KopiaResult<Vec<ContentId>> {
        self.0.put_batch(prefix, data, compression)
    }
}

/// What is shared.
pub(super) struct Engine {
    /// Where contents go.
    pub(super) sink: Sink,
    /// Where older snapshots are read from.
    pub(super) source: Arc<dyn ContentSource>,
    /// Runs what older snapshots are read by.
    pub(super) runtime: Handle,
    /// What is to be done.
    pub(super) work: Scheduler<HashBatch, LargeTask, Files, Below>,
    /// What the readers may hold.
    pub(super) budget: Arc<Budget>,
    /// What the values of extended attributes may take.
    pub(super) attribute_room: Arc<Budget>,
    /// How many directories are open.
    pub(super) open_directories: OpenDirectories,
    /// The number of the file system that the root is on.
    pub(super) root_device: OnceLock<u64>,
    /// What was decided before the start.
    pub(super) plan: Plan,
    /// The numbers.
    pub(super) progress: Arc<Progress>,
    stopped: AtomicBool,
    /// Cancelled when it is stopped, for what waits for the repository.
    stop: CancellationToken,
    state: Mutex<State>,
    zeros: OnceLock<ObjectId>,
    /// Told when the work is over.
    pub(super) over: Notify,
}

#[derive(Default)]
struct State {
    root: Option<Arc<Directory>>,
    result: Option<KopiaResult<DirEntry>>,
    skipped: Vec<SkippedEntry>,
    large: Vec<Weak<LargeFile>>,
}

impl Engine {
    /// Nothing to do yet.
    pub(super) fn new(
        sink: Sink,
        source: Arc<dyn ContentSource>,
        runtime: Handle,
        plan: Plan,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            sink,
            source,
            runtime,
            work: Scheduler::new(plan.large_readers),
            budget: Budget::new(plan.read_budget),
            attribute_room: Budget::new(plan.attribute_budget),
            open_directories: OpenDirectories::default(),
            root_device: OnceLock::new(),
            plan,
            progress,
            stopped: AtomicBool::new(false),
            stop: CancellationToken::new(),
            state: Mutex::default(),
            zeros: OnceLock::new(),
            over: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment or push.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether threads should end what they do.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends the work with a result, unless it has one.
    pub(super) fn end(&self, result: KopiaResult<DirEntry>) {
        self.lock().result.get_or_insert(result);
        self.stopped.store(true, Ordering::Relaxed);
        self.stop.cancel();
        self.work.stop();
        self.over.notify_one();
    }

    /// Waits for something of the repository, but not longer than until the work is stopped.
    pub(super) fn wait_for<T>(&self, work: impl Future<Output = KopiaResult<T>>) -> KopiaResult<T> {
        let done = self.runtime.block_on(self.stop.run_until_cancelled(work));
        done.unwrap_or(Err(KopiaError::Cancelled))
    }

    /// The result, once there is one.
    pub(super) fn take_result(&self) -> Option<KopiaResult<DirEntry>> {
        self.lock().result.take()
    }

    /// Whether the work has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().result.is_some()
    }

    /// The first entries that were skipped.
    pub(super) fn take_skipped(&self) -> Vec<SkippedEntry> {
        std::mem::take(&mut self.lock().skipped)
    }

    /// Says which directory is the root, for checkpoints.
    pub(super) fn set_root(&self, root: Arc<Directory>) {
        self.lock().root = Some(root);
    }

    /// The root, if it was listed.
    pub(super) fn root(&self) -> Option<Arc<Directory>> {
        self.lock().root.clone()
    }

    /// Notes a large file that is being read, for checkpoints.
    pub(super) fn add_large(&self, file: &Arc<LargeFile>) {
        let mut state = self.lock();
        state.large.retain(|file| file.strong_count() > 0);
        state.large.push(Arc::downgrade(file));
    }

    /// The large files that are being read.
    pub(super) fn large_files(&self) -> Vec<Arc<LargeFile>> {
        self.lock().large.iter().filter_map(Weak::upgrade).collect()
    }

    /// Waits for room to read so many bytes. The caller must hold none.
    pub(super) fn take_budget(&self, bytes: u64) -> KopiaResult<Share> {
        let share = self.budget.take(bytes, || self.is_stopped());
        share.ok_or(KopiaError::Cancelled)
    }

    /// The object of the longest piece of zeros, which is stored once.
    pub(super) fn zeros(&self, compression: HeaderId) -> KopiaResult<ObjectId> {
        if let Some(object) = self.zeros.get() {
            return Ok(*object);
        }
        let content = self.sink.put(None, vec![0; self.plan.zero_piece], compression)?;
        Ok(*self.zeros.get_or_init(|| ObjectId::direct(content)))
    }

    /// An entry could not be read: ends the backup, or skips the entry, as was asked for.
    pub(super) fn entry_failed(
        &self,
        directory: &Arc<Directory>,
        index: u32,
        action: &'static str,
        errno: Errno,
    ) -> KopiaResult<()> {
        if errno == Errno::CANCELED && self.is_stopped() {
            return Err(KopiaError::Cancelled);
        }
        if is_exhausted(errno) {
            self.progress.failed(1);
            let path = self.full_path(&directory.entry_path(index));
            return Err(KopiaError::io(action, path, errno));
        }
        self.entry_refused(directory, index, action, errno.into())
    }

    /// As [`Engine::entry_failed`], for what is not an answer of the operating system.
    pub(super) fn entry_refused(
        &self,
        directory: &Arc<Directory>,
        index: u32,
        action: &'static str,
        error: std::io::Error,
    ) -> KopiaResult<()> {
        self.progress.failed(1);
        let path = directory.entry_path(index);
        let ignored = if (index as usize) < directory.listing().directories() {
            self.plan.ignored.directories
        } else {
            self.plan.ignored.files
        };
        if self.plan.errors == ErrorPolicy::FailFast && !ignored {
            return Err(KopiaError::io(action, self.full_path(&path), error));
        }
        let failure = self.note_skipped(&path, action, error);
        directory.left(index, failure);
        self.entries_done(directory, 1)
    }

    /// Something that a snapshot cannot hold was found where the policy does not want that.
    pub(super) fn special_failed(&self, directory: &Arc<Directory>, name: &[u8]) -> KopiaResult<()> {
        self.progress.failed(1);
        let mut path = directory.path();
        append(&mut path, name);
        let error = std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "it is a device, a socket or a pipe",
        );
        if self.plan.errors == ErrorPolicy::FailFast {
            return Err(KopiaError::io("store", self.full_path(&path), error));
        }
        directory.left_special(self.note_skipped(&path, "store", error));
        Ok(())
    }

    pub(super) fn note_skipped(
        &self,
        path: &[u8],
        action: &'static str,
        error: std::io::Error,
    ) -> FailedEntry {
        tracing::warn!(path = %path.escape_ascii(), %error, "{action} failed, so the entry is skipped");
        let failure = FailedEntry {
            path: String::from_utf8_lossy(path).into_owned(),
            error: format!("{action}: {error}"),
        };
        let mut state = self.lock();
        if state.skipped.len() < self.plan.named_errors {
            state.skipped.push(SkippedEntry {
                path: PathBuf::from(OsStr::from_bytes(path)),
                action,
                error,
            });
        }
        failure
    }

    /// The path of an entry as it is on this machine.
    pub(super) fn full_path(&self, below_root: &[u8]) -> PathBuf {
        if below_root.is_empty() {
            self.plan.root.clone()
        } else {
            self.plan.root.join(OsStr::from_bytes(below_root))
        }
    }

    /// So many entries of a directory are done. Writes the directory if that was all, and the ones above likewise.
    pub(super) fn entries_done(&self, directory: &Arc<Directory>, count: usize) -> KopiaResult<()> {
        if count == 0 || !directory.entries_done(count) {
            return Ok(());
        }
        let mut directory = Arc::clone(directory);
        loop {
            let (object, summary) = self.write_directory(&directory)?;
            let Some((parent, index)) = directory.parent() else {
                self.end(Ok(directory.dir_entry(object, summary)));
                return Ok(());
            };
            parent.written(*index, object, summary);
            if !parent.entries_done(1) {
                return Ok(());
            }
            let parent = Arc::clone(parent);
            directory = parent;
        }
    }
}
