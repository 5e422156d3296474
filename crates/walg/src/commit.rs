//! Making a stored backup visible: its documents, the sentinel last, and the look whether it is whole.

use bytes::Bytes;
use holdfast_store::Absent;
use jiff::Timestamp;

use crate::backup::{BackupRequest, Completed, CopiedData};
use crate::copy::CopyTarget;
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::lsn::Lsn;
use crate::metadata::{Inventory, InventoryEntry, Sentinel};
use crate::progress::Phase;
use crate::start::Server;
use crate::verify::verify;
use crate::wal::StoredWal;

/// What the documents of a backup say.
pub(crate) struct Facts<'a> {
    pub(crate) server: &'a Server,
    pub(crate) start_lsn: Lsn,
    pub(crate) finish_lsn: Lsn,
    pub(crate) started: Timestamp,
    pub(crate) complete: Timestamp,
}

/// Makes a stored backup visible.
pub(crate) struct Commit<'a> {
    pub(crate) request: BackupRequest<'a>,
    pub(crate) target: CopyTarget<'a>,
    pub(crate) name: &'a str,
    pub(crate) timeline: u32,
}

impl Commit<'_> {
    pub(crate) async fn run(
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
            user_data: self.request.options.owner.as_deref().map(Sentinel::owned_by),
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
