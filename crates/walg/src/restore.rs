//! Restoring a backup into an empty directory.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt};
use holdfast_store::Store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::catalog::resolve;
use crate::compress::Codec;
use crate::copy::EXCLUDED;
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::lsn::SegmentSize;
use crate::manifest::{ManifestCheck, SeenFiles};
use crate::metadata::{InventoryEntry, Sentinel};
use crate::progress::{Phase, Progress};
use crate::unpack::{Pieces, make_directory, unpack, write_stream};
use crate::verify::verify;

/// Pieces of a download that wait for the thread that unpacks them.
const PIECES: usize = 4;

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Archives that are unpacked at the same time. Each holds about 10 MiB.
    pub workers: usize,
    /// Size of a WAL segment, for backups of wal-g, which do not say it.
    pub segment_size: SegmentSize,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            workers: workers.clamp(1, 4),
            segment_size: SegmentSize::default(),
        }
    }
}

/// What a restore needs besides its options.
#[derive(Clone, Copy, Debug)]
pub struct RestoreRequest<'a> {
    /// Where the backup is: the store at wal-g's prefix.
    pub store: &'a Store,
    /// Name of the backup, or LATEST.
    pub name: &'a str,
    /// Directory that becomes the data directory; created when missing, and must be empty.
    pub target: &'a Path,
    /// How.
    pub options: &'a RestoreOptions,
    /// Told what happens.
    pub progress: &'a Progress,
    /// Asks to stop.
    pub cancel: &'a CancellationToken,
}

/// A data directory that is ready to start.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Name of the backup.
    pub name: String,
    /// Its sentinel.
    pub sentinel: Sentinel,
    /// Files whose checksums were compared with the server's manifest; none when the backup has no manifest.
    pub compared_files: Option<u64>,
    /// WAL segments put into `pg_wal`.
    pub wal_segments: u64,
}

/// Restores a backup of ours or a full backup of wal-g. PostgreSQL started on the directory recovers to the end of the
/// backup from the WAL beside it and needs no `restore_command`.
///
/// `pg_control` comes second to last and `backup_label` last, so that a directory that is incomplete cannot start.
/// After a failure the directory is emptied again.
pub async fn restore(request: RestoreRequest<'_>) -> WalgResult<Restored> {
    prepare(request.target)?;
    let result = tokio::select! {
        biased;
        () = request.cancel.cancelled() => Err(WalgError::Cancelled { phase: "restoring" }),
        result = Box::pin(run(request)) => result,
    };
    if result.is_err() {
        empty(request.target);
    }
    result
}

fn prepare(target: &Path) -> WalgResult<()> {
    match fs::read_dir(target) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(WalgError::TargetNotEmpty {
                    path: target.to_owned(),
                });
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make_directory(target)?,
        Err(error) => return Err(WalgError::io(target)(error)),
    }
    match fs::set_permissions(target, Permissions::from_mode(0o700)) {
        // A mounted volume may belong to root and be open to the group; the server checks what it accepts.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other.map_err(WalgError::io(target)),
    }
}

/// Removes what an unfinished restore left in a directory that was empty before.
fn empty(target: &Path) {
    let Ok(entries) = fs::read_dir(target) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot remove what an unfinished restore left");
        }
    }
}

async fn run(request: RestoreRequest<'_>) -> WalgResult<Restored> {
    let RestoreRequest {
        store,
        target,
        options,
        progress,
        ..
    } = request;
    store.check().await?;
    let name = resolve(store, request.name).await?;
    progress.set_name(&name);
    let verified = verify(store, &name, options.segment_size).await?;
    let sentinel = verified.sentinel;
    refuse_unsupported(&name, &sentinel)?;

    let archives = Archives::find(store, &name).await?;
    let wal_bytes: u64 = verified.wal.iter().map(|entry| entry.size).sum();
    progress.set_total(archives.bytes + wal_bytes);
    progress.enter(Phase::Copying);
    tracing::info!(%name, parts = archives.parts.len(), target = %target.display(), "restore started");
    let unpacked = archives
        .parts
        .iter()
        .map(|(key, codec)| fetch_archive(request, &name, key, *codec, false));
    let mut unpacked = futures::stream::iter(unpacked).buffer_unordered(options.workers.max(1));
    let mut seen = SeenFiles::default();
    while let Some(files) = unpacked.try_next().await? {
        seen.merge(files);
    }
    drop(unpacked);

    progress.enter(Phase::ArchivingWal);
    let wal = verified.wal.iter().map(|entry| fetch_wal(request, &name, entry));
    futures::stream::iter(wal)
        .buffer_unordered(options.workers.max(1))
        .try_collect::<()>()
        .await?;

    for (key, codec) in &archives.last {
        seen.merge(fetch_archive(request, &name, key, *codec, true).await?);
    }
    progress.enter(Phase::Verifying);
    let compared_files = compare(store, &name, &seen).await?;
    sync(target).await?;
    progress.enter(Phase::Finished);
    let wal_segments = verified.wal_segments;
    tracing::info!(%name, ?compared_files, wal_segments, "restore complete");
    Ok(Restored {
        name,
        sentinel,
        compared_files,
        wal_segments,
    })
}

fn refuse_unsupported(name: &str, sentinel: &Sentinel) -> WalgResult<()> {
    let tablespaces = sentinel.tablespaces();
    let what = if sentinel.is_delta() {
        format!("backup {name} is a delta backup; restoring those is not supported yet")
    } else if !tablespaces.is_empty() {
        format!(
            "backup {name} has the tablespaces {}; they are not supported yet",
            tablespaces.join(", ")
        )
    } else {
        return Ok(());
    };
    Err(WalgError::Unsupported { what })
}

/// The archives of a backup in the order of their restore.
struct Archives {
    parts: Vec<(String, Codec)>,
    last: Vec<(String, Codec)>,
    bytes: u64,
}

impl Archives {
    async fn find(store: &Store, name: &str) -> WalgResult<Self> {
        let folder = layout::parts(name);
        let objects = store.list(&folder).await?;
        let bytes = objects.iter().map(|object| object.size).sum();
        let (mut parts, mut control, mut label) = (Vec::new(), None, None);
        for object in objects {
            let file = object.key.strip_prefix(&folder).unwrap_or(&object.key);
            let stem = file.find(".tar").map_or(file, |end| &file[..end + 4]);
            let codec = Codec::of_object(file, stem).map_err(|error| WalgError::Unsupported {
                what: format!("{}: {error}", store.location(&object.key)),
            })?;
            let found = (object.key.clone(), codec);
            match stem {
                "pg_control.tar" => control = Some(found),
                "backup_label.tar" => label = Some(found),
                _ => parts.push(found),
            }
        }
        let Some(control) = control else {
            return Err(WalgError::corrupt(
                name,
                format!("{}pg_control.tar is missing", store.location(&folder)),
            ));
        };
        // wal-g has no archive of the label in backups over the replication protocol.
        let last = std::iter::once(control).chain(label).collect();
        Ok(Self { parts, last, bytes })
    }
}

async fn fetch_archive(
    request: RestoreRequest<'_>,
    name: &str,
    key: &str,
    codec: Codec,
    replace: bool,
) -> WalgResult<SeenFiles> {
    let (target, name) = (request.target.to_owned(), name.to_owned());
    fetch(request, key, codec, move |source| {
        unpack(source, &target, &name, replace)
    })
    .await
}

async fn fetch_wal(request: RestoreRequest<'_>, name: &str, entry: &InventoryEntry) -> WalgResult<()> {
    let file = entry.key.rsplit('/').next().unwrap_or(&entry.key);
    let history = file.contains(".history");
    let partial = file.contains(".partial");
    let stem_length = if history { "00000001.history".len() } else { 24 };
    let unreadable = || WalgError::corrupt(name, format!("{} is no WAL", request.store.location(&entry.key)));
    let stem = file.get(..stem_length).ok_or_else(unreadable)?;
    let stored_stem = if partial {
        format!("{stem}.partial")
    } else {
        stem.to_owned()
    };
    let codec = Codec::of_object(file, &stored_stem).map_err(|error| WalgError::Unsupported {
        what: format!("{}: {error}", request.store.location(&entry.key)),
    })?;
    if !history && !stem.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(unreadable());
    }
    let folder = request.target.join("pg_wal");
    let (place, backup) = (folder.join(stem), name.to_owned());
    fetch(request, &entry.key, codec, move |source| {
        write_stream(source, &place, &backup).map(|_| ())
    })
    .await?;
    if !partial {
        // It is archived already. A partial segment is not: the restored server goes on writing in it.
        let status = folder.join("archive_status");
        make_directory(&status)?;
        let done = status.join(format!("{stem}.done"));
        File::create(&done).map_err(WalgError::io(done))?;
    }
    Ok(())
}

/// Downloads an object and hands what it holds, decompressed, to a thread.
async fn fetch<T: Send + 'static>(
    request: RestoreRequest<'_>,
    key: &str,
    codec: Codec,
    consume: impl FnOnce(Box<dyn std::io::Read + Send>) -> WalgResult<T> + Send + 'static,
) -> WalgResult<T> {
    let mut reader = request.store.read(key).await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let place = PathBuf::from(request.store.location(key));
    let consumer = tokio::task::spawn_blocking(move || {
        let source = codec
            .reader(Pieces::new(receiver))
            .map_err(WalgError::io(place))?;
        consume(source)
    });
    while let Some(piece) = reader.next().await? {
        request.progress.add_read(piece.len() as u64);
        if sender.send(piece).await.is_err() {
            // The thread has ended early; its result says why.
            break;
        }
    }
    drop(sender);
    consumer
        .await
        .map_err(|error| WalgError::Internal(format!("unpacking failed: {error}")))?
}

/// Compares what was restored with the server's manifest, if the backup has it.
async fn compare(store: &Store, name: &str, seen: &SeenFiles) -> WalgResult<Option<u64>> {
    let key = layout::manifest(name);
    if store.head(&key).await?.is_none() {
        return Ok(None);
    }
    let damaged = |problem| WalgError::corrupt(name, problem);
    let mut check = ManifestCheck::new(&EXCLUDED);
    let mut reader = store.read(&key).await?;
    while let Some(piece) = reader.next().await? {
        check.push(&piece, seen).map_err(damaged)?;
    }
    check.finish().map(Some).map_err(damaged)
}

/// Makes the file system write everything to the disk: one call instead of one for each of many small files.
async fn sync(target: &Path) -> WalgResult<()> {
    let target = target.to_owned();
    let synced = tokio::task::spawn_blocking(move || {
        let directory = File::open(&target).map_err(WalgError::io(&target))?;
        nix::unistd::syncfs(&directory).map_err(|error| WalgError::io(&target)(error.into()))
    });
    synced
        .await
        .map_err(|error| WalgError::Internal(format!("syncing failed: {error}")))?
}
