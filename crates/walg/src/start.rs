//! Beginning a backup: everything that must be known and true before the first byte is stored.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use jiff::Timestamp;

use crate::backup::{BackupRequest, remove_folder};
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::lsn::{Segment, SegmentSize};
use crate::metadata::InventoryEntry;
use crate::progress::Phase;
use crate::replication::{BaseBackup, BaseBackupOptions, Connection, SystemIdentity, WalStream};
use crate::writer::{Limits, ObjectWriter};

/// What is known about the server.
pub(crate) struct Server {
    pub(crate) version: u32,
    pub(crate) identity: SystemIdentity,
    pub(crate) standby: bool,
    pub(crate) size: SegmentSize,
    pub(crate) data_directory: String,
}

/// A backup that the server has begun.
pub(crate) struct Started {
    pub(crate) server: Server,
    pub(crate) base: BaseBackup,
    pub(crate) wal: WalStream,
    /// The first segment that the backup needs.
    pub(crate) first: Segment,
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) history: Option<InventoryEntry>,
    pub(crate) at: Timestamp,
}

/// Reaches storage and server, makes sure that nothing stands in the way, and has the server begin. `claim` is told
/// the name as soon as it is ours.
pub(crate) async fn start(request: BackupRequest<'_>, claim: impl FnOnce(&str)) -> WalgResult<Started> {
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
    // Keeps the WAL of the backup until it was streamed; goes away with the connection.
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
    let at = (request.now)();
    let base = connection.base_backup(&base_options).await?;
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
    let kibibytes: u64 = base.tablespaces().iter().filter_map(|space| space.size_kib).sum();
    progress.set_total(kibibytes * 1024);

    let name = layout::backup_name(base.start_lsn(), timeline, server.size, server.standby);
    make_room(request, &name).await?;
    claim(&name);
    progress.set_name(&name);
    progress.enter(Phase::Copying);
    tracing::info!(%name, %host, start = %base.start_lsn(), standby = server.standby, "backup started");
    let first = Segment::containing(base.start_lsn(), timeline, server.size);
    let wal = wal
        .start_physical(Some(&slot), first.start(server.size), timeline)
        .await?;
    Ok(Started {
        server,
        base,
        wal,
        first,
        name,
        limits,
        history,
        at,
    })
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
async fn make_room(request: BackupRequest<'_>, name: &str) -> WalgResult<()> {
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
