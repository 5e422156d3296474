//! Taking a backup.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::Store;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::commit::{Commit, Facts};
use crate::compress::Codec;
use crate::copy::{Copied, Copier, CopyTarget};
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::manifest::ManifestCheck;
use crate::metadata::{InventoryEntry, Sentinel};
use crate::progress::{Phase, Progress};
use crate::replication::{BackupEvent, BaseBackup, ConnectOptions, ReplicationError};
use crate::start::{Started, start};
use crate::wal::{WalTarget, store_wal};
use crate::writer::ObjectWriter;

/// How to take a backup.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Compression of everything that is large.
    pub codec: Codec,
    /// A part is closed once it holds more than so many bytes, `WALG_TAR_SIZE_THRESHOLD`.
    pub part_bytes: u64,
    /// Bytes of buffers in flight, at least [`crate::LEAST_BUDGET`].
    pub memory: u64,
    /// Threads that compress.
    pub workers: usize,
    /// How long the server may take to complete the last WAL segment. A primary does so at once; a standby only when
    /// WAL comes from its primary. After that the beginning of the segment is kept with the backup.
    pub wal_patience: Duration,
    /// How long nothing at all may move.
    pub stall: Duration,
    /// Text in `backup_label`.
    pub label: String,
    /// Most KiB per second that the server shall send.
    pub max_rate_kib: Option<u32>,
    /// Whether the server checks the checksums of its pages, where it has them.
    pub verify_pages: bool,
    /// Largest `files_metadata.json` in bytes.
    pub files_metadata_bytes: usize,
    /// Whom the backup is taken for, kept in the sentinel's user data: [`crate::delete`] can be told to spare others'.
    pub owner: Option<String>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            codec: Codec::default(),
            part_bytes: (1 << 30) - 1,
            memory: 64 << 20,
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            wal_patience: Duration::from_mins(1),
            stall: Duration::from_mins(10),
            label: "holdfast".to_owned(),
            max_rate_kib: None,
            verify_pages: true,
            files_metadata_bytes: 4 << 20,
            owner: None,
        }
    }
}

/// What a backup needs besides its options.
#[derive(Clone, Copy, Debug)]
pub struct BackupRequest<'a> {
    /// Where it goes: the store at wal-g's prefix.
    pub store: &'a Store,
    /// The server.
    pub server: &'a ConnectOptions,
    /// How.
    pub options: &'a BackupOptions,
    /// Told what happens.
    pub progress: &'a Progress,
    /// Asks to stop.
    pub cancel: &'a CancellationToken,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// A backup that was taken, stored and read back.
#[derive(Clone, Debug)]
pub struct Completed {
    /// Its name.
    pub name: String,
    /// Its sentinel.
    pub sentinel: Sentinel,
    /// When the sentinel was stored, by the clock of the storage.
    pub modified: Timestamp,
    /// WAL segments it needs, all of them stored.
    pub wal_segments: u64,
    /// Its timeline.
    pub timeline: u32,
    /// Whether the last WAL segment is kept with the backup, padded with zeros.
    pub last_segment_padded: bool,
}

/// Takes a full backup. It exists for others once this succeeds, and not before.
///
/// After a failure, or when asked to stop, what was stored for this backup is removed (best effort, for at most half a
/// minute). WAL segments stay: each is complete and true by itself.
pub async fn take(request: BackupRequest<'_>) -> WalgResult<Completed> {
    let claimed = Mutex::new(None);
    request.progress.restart();
    request.progress.watch(request.store);
    let result = tokio::select! {
        biased;
        () = request.cancel.cancelled() => Err(WalgError::Cancelled { phase: request.progress.phase().as_str() }),
        error = stalled(request) => Err(error),
        result = Box::pin(run(request, &claimed)) => result,
    };
    let mine = claimed.lock().unwrap_or_else(PoisonError::into_inner).take();
    match result {
        Ok(completed) => Ok(completed),
        Err(error) => {
            clean_up(
                request.store,
                mine.filter(|_| !matches!(error, WalgError::BackupExists { .. })),
            )
            .await;
            Err(error)
        }
    }
}

/// Ends when neither the server nor the storage moved a byte for too long.
async fn stalled(request: BackupRequest<'_>) -> WalgError {
    let after = request.options.stall;
    let moved = || {
        (
            request.progress.read(),
            request.store.bytes_sent(),
            request.progress.phase(),
        )
    };
    let (mut last, mut since) = (moved(), tokio::time::Instant::now());
    loop {
        tokio::time::sleep(after / 20).await;
        let current = moved();
        // A checkpoint moves nothing and has a limit of its own.
        if current != last || current.2 == Phase::Checkpoint {
            (last, since) = (current, tokio::time::Instant::now());
        } else if since.elapsed() >= after {
            return WalgError::Stalled {
                after,
                phase: current.2.as_str(),
            };
        }
    }
}

async fn clean_up(store: &Store, name: Option<String>) {
    let limit = Duration::from_secs(15);
    store.abort_open_uploads(limit).await;
    let Some(name) = name else { return };
    let removal = async {
        // First, so that what remains is no backup.
        store.delete(&[layout::sentinel(&name)]).await?;
        remove_folder(store, &name).await
    };
    match tokio::time::timeout(limit, removal).await {
        Ok(Ok(removed)) => tracing::info!(%name, removed, "removed what was stored of a failed backup"),
        Ok(Err(error)) => tracing::warn!(%name, %error, "what was stored of a failed backup remains"),
        Err(_) => {
            tracing::warn!(%name, "what was stored of a failed backup remains; the storage does not answer");
        }
    }
}

pub(crate) async fn remove_folder(store: &Store, name: &str) -> WalgResult<usize> {
    let objects = store.list(&layout::folder(name)).await?;
    let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
    store.delete(&keys).await?;
    Ok(keys.len())
}

async fn run(request: BackupRequest<'_>, claimed: &Mutex<Option<String>>) -> WalgResult<Completed> {
    let BackupRequest {
        store,
        options,
        progress,
        ..
    } = request;
    let claim = |name: &str| *claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
    let started = Box::pin(start(request, claim)).await?;
    let Started {
        server,
        mut base,
        wal,
        first,
        name,
        limits,
        history,
        at,
    } = started;
    let host = request.server.host.as_str();
    let (finish, finished) = watch::channel(None);
    let codec = options.codec;
    let target = CopyTarget {
        store,
        backup: &name,
        host,
        codec,
        limits: &limits,
        part_bytes: options.part_bytes,
    };
    let wal_target = WalTarget {
        store,
        backup: &name,
        host,
        server: request.server,
        codec,
        limits: &limits,
        size: server.size,
        progress,
        patience: options.wal_patience,
    };
    let data = async {
        let data = copy(request, &mut base, target).await?;
        let end = base
            .end()
            .ok_or_else(|| WalgError::Internal("a backup without an end".to_owned()))?;
        progress.enter(Phase::ArchivingWal);
        // The receiver lives in the other branch.
        finish.send_replace(Some(end.finish_lsn));
        Ok::<_, WalgError>((data, end.finish_lsn, (request.now)()))
    };
    let stored = store_wal(wal_target, wal, first, finished);
    let ((data, finish_lsn, complete), wal) = tokio::try_join!(Box::pin(data), Box::pin(stored))?;
    let start_lsn = base.start_lsn();
    if let Err(error) = base.close().await {
        tracing::debug!(%error, "the server did not take the good-bye");
    }
    let facts = Facts {
        server: &server,
        start_lsn,
        finish_lsn,
        started: at,
        complete,
    };
    Commit {
        request,
        target,
        name: &name,
        timeline: first.timeline,
    }
    .run(facts, data, wal, history)
    .await
}

/// The data of a backup, stored.
pub(crate) struct CopiedData {
    pub(crate) copied: Copied,
    pub(crate) manifest: InventoryEntry,
    pub(crate) files: u64,
}

async fn copy(
    request: BackupRequest<'_>,
    base: &mut BaseBackup,
    target: CopyTarget<'_>,
) -> WalgResult<CopiedData> {
    let host = || target.host.to_owned();
    let mut copier = Copier::new(target, request.options.files_metadata_bytes);
    let mut manifest: Option<(ManifestCheck, ObjectWriter)> = None;
    while let Some(event) = base.next().await.map_err(explain)? {
        match event {
            BackupEvent::Archive { .. } | BackupEvent::Progress(_) => {}
            BackupEvent::Data(data) => match &mut manifest {
                None => {
                    request.progress.add_read(data.len() as u64);
                    copier.push(&data).await?;
                }
                Some((check, writer)) => {
                    let compared = check.push(&data, copier.seen());
                    compared.map_err(|problem| WalgError::Damaged {
                        host: host(),
                        problem,
                    })?;
                    writer.write(&data).await?;
                }
            },
            BackupEvent::ManifestStarted => {
                copier.close().await?;
                let upload = target.store.upload(&layout::manifest(target.backup));
                let writer = ObjectWriter::new(upload, Codec::None, target.limits);
                manifest = Some((ManifestCheck::new(&[]), writer));
            }
        }
    }
    let Some((check, writer)) = manifest else {
        return Err(WalgError::Archive {
            host: host(),
            problem: "it has no manifest".to_owned(),
        });
    };
    let files = check.finish().map_err(|problem| WalgError::Damaged {
        host: host(),
        problem,
    })?;
    let written = writer.finish().await?;
    let manifest = InventoryEntry {
        key: written.key,
        size: written.stored.size,
    };
    Ok(CopiedData {
        copied: copier.finish().await?,
        manifest,
        files,
    })
}

/// Tells people what a failed page checksum means for them.
fn explain(error: ReplicationError) -> WalgError {
    if error.sqlstate() == Some("XX001") {
        tracing::error!(%error, "the database has damaged pages; see the server's log for where they are");
    }
    error.into()
}
