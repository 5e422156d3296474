//! Taking a backup.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::{Absent, Store};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::compress::Codec;
use crate::copy::{Copied, Copier, CopyTarget};
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::lsn::{Lsn, Segment, SegmentSize};
use crate::manifest::ManifestCheck;
use crate::metadata::{Inventory, InventoryEntry, Sentinel};
use crate::progress::{Phase, Progress};
use crate::replication::{
    BackupEvent, BaseBackup, BaseBackupOptions, ConnectOptions, Connection, ReplicationError, SystemIdentity,
};
use crate::verify::verify;
use crate::wal::{StoredWal, WalTarget, store_wal};
use crate::writer::{Limits, ObjectWriter};

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
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            codec: Codec::default(),
            part_bytes: (1 << 30) - 1,
            memory: 64 << 20,
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            wal_patience: Duration::from_secs(60),
            stall: Duration::from_mins(10),
            label: "holdfast".to_owned(),
            max_rate_kib: None,
            verify_pages: true,
            files_metadata_bytes: 4 << 20,
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
            request.store.bytes_moved(),
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
            tracing::warn!(%name, "what was stored of a failed backup remains; the storage does not answer")
        }
    }
}

pub(crate) async fn remove_folder(store: &Store, name: &str) -> WalgResult<usize> {
    let objects = store.list(&layout::folder(name)).await?;
    let keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
    store.delete(&keys).await?;
    Ok(keys.len())
}

/// What is known about the server.
struct Server {
    version: u32,
    identity: SystemIdentity,
    standby: bool,
    size: SegmentSize,
    data_directory: String,
}

async fn run(request: BackupRequest<'_>, claimed: &Mutex<Option<String>>) -> WalgResult<Completed> {
    let BackupRequest {
        store,
        options,
        progress,
        ..
    } = request;
    store.check().await?;
    let host = request.server.host.as_str();
    let mut wal = Connection::connect(request.server).await?;
    let server = inspect(&mut wal).await?;
    let limits = Limits::new(options.memory, options.workers);
    let slot = format!("holdfast_{:016x}", RandomState::new().build_hasher().finish());
    wal.create_temporary_slot(&slot).await?;
    let history = store_history(request, &mut wal, &limits, server.identity.timeline).await?;

    progress.enter(Phase::Checkpoint);
    let connection = Connection::connect(request.server).await?;
    let base_options = BaseBackupOptions {
        label: options.label.clone(),
        max_rate_kib: options.max_rate_kib,
        verify_checksums: options.verify_pages,
        ..BaseBackupOptions::default()
    };
    let started = (request.now)();
    let mut base = connection.base_backup(&base_options).await?;
    refuse_tablespaces(&base, host)?;
    let timeline = base.timeline();
    if timeline != server.identity.timeline {
        let problem = format!(
            "{host} changed from timeline {} to {timeline}",
            server.identity.timeline
        );
        return Err(WalgError::WalMissing {
            host: host.to_owned(),
            problem,
        });
    }
    progress.set_total(
        base.tablespaces()
            .iter()
            .filter_map(|space| space.size_kib)
            .sum::<u64>()
            * 1024,
    );

    let name = layout::backup_name(base.start_lsn(), timeline, server.size, server.standby);
    claim(request, &name).await?;
    *claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
    progress.set_name(&name);
    progress.enter(Phase::Copying);
    tracing::info!(%name, %host, start = %base.start_lsn(), standby = server.standby, "backup started");

    let first = Segment::containing(base.start_lsn(), timeline, server.size);
    let stream = wal
        .start_physical(Some(&slot), first.start(server.size), timeline)
        .await?;
    let (finish, finished) = watch::channel(None);
    let codec = options.codec;
    let target = CopyTarget {
        store,
        backup: &name,
        host,
        codec,
        limits: &limits,
        part_bytes: options.part_bytes,
        progress,
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
        let copied = copy(request, &mut base, target).await?;
        let end = base
            .end()
            .ok_or_else(|| WalgError::Internal("a backup without an end".to_owned()))?;
        progress.enter(Phase::ArchivingWal);
        // The receiver lives in the other branch.
        finish.send_replace(Some(end.finish_lsn));
        Ok::<_, WalgError>((copied, end.finish_lsn, (request.now)()))
    };
    let stored = store_wal(wal_target, stream, first, finished);
    let ((data, finish_lsn, complete), wal) = tokio::try_join!(Box::pin(data), Box::pin(stored))?;
    if let Err(error) = base.close().await {
        tracing::debug!(%error, "the server did not take the good-bye");
    }
    let facts = Facts {
        server: &server,
        start_lsn: data.start_lsn,
        finish_lsn,
        started,
        complete,
    };
    let commit = Commit {
        request,
        target,
        name: &name,
        timeline,
    };
    commit.run(facts, data, wal, history).await
}

async fn inspect(connection: &mut Connection) -> WalgResult<Server> {
    let identity = connection.identify_system().await?;
    let standby = connection.is_in_recovery().await?;
    let size = connection.wal_segment_size().await?;
    let data_directory = match connection.show("data_directory").await {
        Ok(path) => path,
        // Only members of pg_read_all_settings see it, and only people read it.
        Err(error) if error.is_permission_denied() => String::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(Server {
        version: connection.server_version(),
        identity,
        standby,
        size,
        data_directory,
    })
}

fn refuse_tablespaces(base: &BaseBackup, host: &str) -> WalgResult<()> {
    let found: Vec<String> = base
        .tablespaces()
        .iter()
        .filter_map(|space| {
            Some(format!(
                "{} at {}",
                space.oid?,
                space.location.as_deref().unwrap_or("?")
            ))
        })
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{host} has tablespaces ({}); backups of them are not supported yet",
        found.join(", ")
    );
    Err(WalgError::Unsupported { what })
}

/// Makes sure that the name is free; removes what a failed backup of this name left.
async fn claim(request: BackupRequest<'_>, name: &str) -> WalgResult<()> {
    let store = request.store;
    if store.head(&layout::sentinel(name)).await?.is_some() {
        let location = store.location(layout::BACKUPS);
        let (name, host) = (name.to_owned(), request.server.host.clone());
        return Err(WalgError::BackupExists { name, location, host });
    }
    let removed = remove_folder(store, name).await?;
    if removed > 0 {
        tracing::warn!(
            name,
            removed,
            "removed what an unfinished backup of this name left"
        );
    }
    Ok(())
}

async fn store_history(
    request: BackupRequest<'_>,
    connection: &mut Connection,
    limits: &Limits,
    timeline: u32,
) -> WalgResult<Option<InventoryEntry>> {
    if timeline <= 1 {
        return Ok(None);
    }
    let history = connection.timeline_history(timeline).await?;
    let key = layout::history(timeline, request.options.codec);
    let upload = request.store.upload_if_absent(&key);
    let mut writer = ObjectWriter::new(upload, request.options.codec, limits);
    writer.write(&history.content).await?;
    writer.finish().await?;
    let found = request.store.head(&key).await?;
    let size = found.map(|object| object.size).unwrap_or_default();
    Ok(Some(InventoryEntry { key, size }))
}

/// The data of a backup, stored.
struct CopiedData {
    copied: Copied,
    manifest: InventoryEntry,
    start_lsn: Lsn,
    files: u64,
}

async fn copy(
    request: BackupRequest<'_>,
    base: &mut BaseBackup,
    target: CopyTarget<'_>,
) -> WalgResult<CopiedData> {
    let host = || target.host.to_owned();
    let start_lsn = base.start_lsn();
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
        start_lsn,
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

/// What the documents of a backup say.
struct Facts<'a> {
    server: &'a Server,
    start_lsn: Lsn,
    finish_lsn: Lsn,
    started: Timestamp,
    complete: Timestamp,
}

/// Makes a stored backup visible.
struct Commit<'a> {
    request: BackupRequest<'a>,
    target: CopyTarget<'a>,
    name: &'a str,
    timeline: u32,
}

impl Commit<'_> {
    async fn run(
        self,
        facts: Facts<'_>,
        data: CopiedData,
        wal: StoredWal,
        history: Option<InventoryEntry>,
    ) -> WalgResult<Completed> {
        let CopiedData {
            mut copied,
            manifest,
            files,
            ..
        } = data;
        copied.store_last(self.target).await?;
        let mut objects: Vec<InventoryEntry> = copied
            .written
            .iter()
            .map(|written| InventoryEntry {
                key: written.key.clone(),
                size: written.stored.size,
            })
            .collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let files_metadata = copied.files.into_json();
        let sentinel = Sentinel {
            lsn: Some(facts.start_lsn.0),
            pg_version: facts.server.version,
            finish_lsn: Some(facts.finish_lsn.0),
            system_identifier: Some(facts.server.identity.system_id),
            uncompressed_size: copied.written.iter().map(|written| written.raw).sum(),
            compressed_size: objects.iter().map(|object| object.size).sum(),
            files_metadata_disabled: files_metadata.is_none(),
            start_time: Some(facts.started),
            finish_time: Some(facts.complete),
            hostname: self.request.server.host.clone(),
            data_dir: facts.server.data_directory.clone(),
            ..Sentinel::default()
        }
        .current();
        objects.push(
            self.put(layout::metadata(self.name), json(&sentinel.metadata())?)
                .await?,
        );
        if let Some(text) = files_metadata {
            objects.push(self.put(layout::files_metadata(self.name), text.into()).await?);
        }
        objects.push(manifest);
        let wal_segments = wal.entries.len() as u64;
        let inventory = Inventory {
            version: 1,
            objects,
            wal: history.into_iter().chain(wal.entries).collect(),
            wal_segment_size: facts.server.size.bytes(),
        };
        self.put(layout::inventory(self.name), json(&inventory)?).await?;
        self.put_sentinel(&sentinel).await?;
        self.request.progress.enter(Phase::Verifying);
        // When this fails, the sentinel goes again with everything else: see clean_up.
        let verified = verify(self.request.store, self.name, facts.server.size).await?;
        if verified.sentinel != sentinel {
            return Err(WalgError::corrupt(
                self.name,
                "the sentinel differs from what was stored",
            ));
        }
        self.request.progress.enter(Phase::Finished);
        tracing::info!(name = self.name, files, wal_segments, "backup complete");
        Ok(Completed {
            name: self.name.to_owned(),
            sentinel,
            modified: verified.modified,
            wal_segments,
            timeline: self.timeline,
            last_segment_padded: wal.padded,
        })
    }

    async fn put(&self, key: String, data: Bytes) -> WalgResult<InventoryEntry> {
        let size = data.len() as u64;
        self.request.store.put(&key, data).await?;
        Ok(InventoryEntry { key, size })
    }

    async fn put_sentinel(&self, sentinel: &Sentinel) -> WalgResult<()> {
        let store = self.request.store;
        match store
            .put_if_absent(&layout::sentinel(self.name), json(sentinel)?)
            .await?
        {
            Absent::Created => Ok(()),
            Absent::Existed => Err(WalgError::BackupExists {
                name: self.name.to_owned(),
                location: store.location(layout::BACKUPS),
                host: self.request.server.host.clone(),
            }),
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> WalgResult<Bytes> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from)
        .map_err(|error| WalgError::Internal(format!("a document cannot be written: {error}")))
}
