//! A backup from its start to the snapshot's manifest.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checkpoint::{Checkpoints, publish};
use super::chunker::zero_piece;
use super::engine::{Engine, Sink};
use super::options::{BackupOptions, BackupReport, BackupSource};
use super::plan::{IgnoredErrors, Plan};
use super::progress::{Progress, ProgressNumbers};
use super::rules::{Rules, compression_named};
use super::threads::{self, Start};
use crate::compression::HeaderId;
use crate::error::{KopiaError, KopiaResult};
use crate::manifest::Manifests;
use crate::object::{ContentSink, ContentSource};
use crate::policy::{Policy, PolicyTree, effective_policy};
use crate::snapshot::{EntryName, SnapshotManifest, SnapshotStats, SourceInfo, UtcTime};
use crate::splitter::Splitter;

/// Files up to this size are read whole, if the splitter never cuts them.
const SMALL: u64 = 2 << 20;

/// Threads, unless there are more cores or something else was asked for.
const READERS: usize = 16;

/// Threads that read large files at the same time.
const LARGE_READERS: usize = 4;

/// The longest time between two checkpoints, as in kopia: its maintenance deletes contents that no snapshot refers to
/// when they are a day old, and counts on checkpoints for those of backups under way.
const LONGEST_INTERVAL: Duration = Duration::from_mins(45);

/// How long a cancelled backup waits for its threads. One may hang in a network file system.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a backup needs of a repository.
#[async_trait]
pub trait BackupTarget: Send + Sync {
    /// Where contents go.
    fn sink(&self) -> Arc<dyn ContentSink>;

    /// Where contents are read from.
    fn source(&self) -> Arc<dyn ContentSource>;

    /// Where objects are cut.
    fn splitter(&self) -> KopiaResult<Splitter>;

    /// Makes everything that was written visible to others.
    async fn flush(&self) -> KopiaResult<()>;

    /// The time.
    fn now(&self) -> Timestamp;
}

/// A backup that is to be made.
#[derive(Clone, Debug)]
pub struct Backup {
    source: BackupSource,
    info: SourceInfo,
    parents: Vec<SnapshotManifest>,
    options: BackupOptions,
    progress: Arc<Progress>,
    cancel: CancellationToken,
}

impl Backup {
    /// Of a directory or device, for a source that the repository knows it by.
    pub fn new(source: BackupSource, info: SourceInfo) -> Self {
        Self {
            source,
            info,
            parents: Vec::new(),
            options: BackupOptions::default(),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    /// Compares with these snapshots, best one first: what has not changed is not read
    /// ([`parent_snapshots`](crate::snapshot::parent_snapshots) finds them). Checkpoints among them are deleted when the
    /// backup is complete.
    #[must_use]
    pub fn parents(mut self, parents: Vec<SnapshotManifest>) -> Self {
        self.parents = parents;
        self
    }

    /// With other options.
    #[must_use]
    pub fn options(mut self, options: BackupOptions) -> Self {
        self.options = options;
        self
    }

    /// Ends when this is cancelled. The writer of contents should be cancelled by the same, or a thread that waits for an
    /// upload holds it up for some seconds.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// The numbers, to be asked for while it runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Makes the backup: walks, reads and stores, then saves the snapshot's manifest, after everything that it refers to.
    /// Must be called within a tokio runtime of several threads. `manifests` are those of the repository; what was put
    /// there before is saved, too.
    ///
    /// # Errors
    ///
    /// [`KopiaError::Io`] with the path of the first entry that cannot be read, unless
    /// [`ErrorPolicy::Skip`](super::ErrorPolicy::Skip) says to go on; those of the repository;
    /// [`KopiaError::Cancelled`]. Only checkpoints refer to what was written then.
    pub async fn run(
        &self,
        target: &dyn BackupTarget,
        manifests: &mut Manifests,
    ) -> KopiaResult<BackupReport> {
        let runtime = Handle::current();
        if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Err(argument("runtime", "a backup needs a runtime of several threads"));
        }
        let begun = UtcTime::from(target.now());
        let prototype = SnapshotManifest {
            source: self.info.clone(),
            start_time: begun,
            ..SnapshotManifest::default()
        };
        let policies = self.unless_cancelled(effective_policy(manifests, &self.info));
        let policies = Arc::new(policies.await?);
        let plan = self.plan(target.splitter()?, policies.root())?;
        let sink = Sink(target.sink());
        let engine = Engine::new(sink, target.source(), runtime, plan, Arc::clone(&self.progress));
        let engine = Arc::new(engine);
        let mut checkpoints = Checkpoints {
            target,
            prototype: prototype.clone(),
            last: None,
            count: 0,
        };
        let threads = threads::start(&engine, self.start(begun, policies)?)?;
        let waited = self.wait(&engine, &mut checkpoints, manifests).await;
        if let Err(error) = waited {
            engine.end(Err(error));
        }
        self.join(threads).await?;
        let root = engine.take_result().unwrap_or(Err(KopiaError::Cancelled))?;

        let numbers = self.progress.numbers();
        let mut snapshot = SnapshotManifest {
            description: self.options.description.clone(),
            end_time: target.now().into(),
            stats: stats(&numbers),
            root_entry: Some(root),
            tags: self.options.tags.clone(),
            pins: self.options.pins.clone(),
            ..prototype
        };
        let superseded = self.parents.iter().filter(|parent| !parent.is_complete());
        let superseded = superseded.filter_map(|parent| parent.id.as_ref());
        let superseded = superseded.chain(&checkpoints.last);
        let id = tokio::select! {
            biased;
            id = publish(target, manifests, &snapshot, superseded) => id?,
            () = self.cancel.cancelled() => return Err(KopiaError::Cancelled),
        };
        snapshot.id = Some(id);
        Ok(BackupReport {
            snapshot,
            skipped: engine.take_skipped(),
            numbers,
            checkpoints: checkpoints.count,
        })
    }

    /// Waits until the work is over; saves checkpoints meanwhile.
    async fn wait(
        &self,
        engine: &Arc<Engine>,
        checkpoints: &mut Checkpoints<'_>,
        manifests: &mut Manifests,
    ) -> KopiaResult<()> {
        let mut next = Instant::now() + self.options.checkpoint_interval;
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(KopiaError::Cancelled),
                () = engine.over.notified() => return Ok(()),
                () = tokio::time::sleep_until(next) => {}
            }
            let saved = tokio::select! {
                biased;
                () = self.cancel.cancelled() => Err(KopiaError::Cancelled),
                saved = checkpoints.save(engine, manifests) => saved,
            };
            // When the work ends meanwhile, the checkpoint is given up; why it ended is what counts.
            match saved {
                Err(KopiaError::Cancelled) if engine.has_ended() => return Ok(()),
                saved => saved?,
            }
            next = Instant::now() + self.options.checkpoint_interval;
        }
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = KopiaResult<T>>) -> KopiaResult<T> {
        let done = self.cancel.run_until_cancelled(work).await;
        done.unwrap_or(Err(KopiaError::Cancelled))
    }

    async fn join(&self, threads: Vec<JoinHandle<()>>) -> KopiaResult<()> {
        let join =
            tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
        tokio::select! {
            biased;
            joined = join => match joined {
                Ok(true) => Ok(()),
                _ => Err(KopiaError::corrupt("a thread of the backup", "it panicked")),
            },
            () = async {
                self.cancel.cancelled().await;
                tokio::time::sleep(PATIENCE).await;
            } => Err(KopiaError::Cancelled),
        }
    }

    fn plan(&self, splitter: Splitter, policy: &Policy) -> KopiaResult<Plan> {
        let options = &self.options;
        if options.checkpoint_interval.is_zero() || options.checkpoint_interval > LONGEST_INTERVAL {
            return Err(argument(
                "checkpoint_interval",
                "it must be more than zero and at most 45 minutes",
            ));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let readers = match options.readers {
            0 => READERS.max(2 * cores),
            readers => readers,
        };
        let metadata_compression = options.metadata_compression.unwrap_or_else(|| {
            let name = policy.metadata_compressor();
            name.map_or(HeaderId::NONE, compression_named)
        });
        let file_splitter = Splitter::of_policy(&policy.splitter.algorithm, splitter)?;
        let errors = &policy.error_handling;
        let (BackupSource::Directory(root) | BackupSource::Device(root)) = &self.source;
        Ok(Plan {
            root: root.clone(),
            readers,
            large_readers: LARGE_READERS.max(cores),
            read_budget: options.read_budget,
            splitter,
            file_splitter,
            zero_piece: zero_piece(file_splitter),
            small: SMALL.min(file_splitter.min_size() as u64),
            parallel_above: options.parallel_above.or_else(|| policy.part_size()),
            metadata_compression,
            errors: options.errors,
            named_errors: options.named_errors,
            verify_reused: options.verify_reused,
            extended_attributes: options.extended_attributes,
            attribute_budget: options.attribute_budget,
            ignored: IgnoredErrors {
                files: errors.ignore_file_errors.unwrap_or(false),
                directories: errors.ignore_directory_errors.unwrap_or(false),
                unknown_types: errors.ignore_unknown_types.unwrap_or(true),
            },
        })
    }

    fn start(&self, now: UtcTime, policies: Arc<PolicyTree>) -> KopiaResult<Start> {
        let name = match &self.source {
            BackupSource::Directory(path) => root_name(path)?,
            BackupSource::Device(path) => path.as_os_str().into(),
        };
        let previous = match &self.source {
            BackupSource::Directory(_) => self
                .parents
                .iter()
                .filter_map(SnapshotManifest::root_object)
                .collect(),
            BackupSource::Device(_) => Vec::new(),
        };
        Ok(Start {
            source: self.source.clone(),
            name,
            previous,
            rules: Rules::above_root(policies),
            now: now.nanos(),
        })
    }
}

/// The name of a root in its snapshot: the last part of the path, as kopia has it.
fn root_name(path: &Path) -> KopiaResult<EntryName> {
    if let Some(name) = path.file_name() {
        return Ok(name.into());
    }
    let path = path
        .canonicalize()
        .map_err(|error| KopiaError::io("look for", path, error))?;
    Ok(path.file_name().map_or_else(|| "/".into(), Into::into))
}

/// The numbers as kopia counts them.
fn stats(numbers: &ProgressNumbers) -> SnapshotStats {
    let long = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let short = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
    SnapshotStats {
        total_size: long(numbers.stored_bytes.saturating_add(numbers.cached_bytes)),
        excluded_total_size: long(numbers.excluded_bytes),
        file_count: short(numbers.hashed_files),
        cached_files: short(numbers.cached_files),
        non_cached_files: short(numbers.opened_files),
        dir_count: short(numbers.directories),
        excluded_file_count: short(numbers.excluded_files),
        excluded_dir_count: short(numbers.excluded_directories),
        ignored_error_count: short(numbers.errors),
        error_count: 0,
    }
}

fn argument(name: &'static str, problem: &str) -> KopiaError {
    KopiaError::Argument {
        name,
        problem: problem.to_owned(),
    }
}
