//! Checkpoints: snapshots of what there is so far.

use std::sync::Arc;

use super::engine::Engine;
use super::publish::CHECKPOINT;
use super::run::BackupTarget;
use crate::error::{KopiaError, KopiaResult};
use crate::manifest::{ManifestId, Manifests};
use crate::snapshot::{SnapshotManifest, save_snapshot};

/// Saves checkpoints of one run, of which the newest is kept.
pub(super) struct Checkpoints<'a> {
    /// Where to.
    pub(super) target: &'a dyn BackupTarget,
    /// What all manifests of the run have: the source, when it began.
    pub(super) prototype: SnapshotManifest,
    /// The newest.
    pub(super) last: Option<ManifestId>,
    /// How many were saved.
    pub(super) count: u32,
}

impl Checkpoints<'_> {
    /// Saves one; nothing if there is nothing to save yet.
    pub(super) async fn save(&mut self, engine: &Arc<Engine>, manifests: &mut Manifests) -> KopiaResult<()> {
        let worker = Arc::clone(engine);
        let root = tokio::task::spawn_blocking(move || worker.checkpoint()).await;
        let root = root.map_err(|error| KopiaError::corrupt("a checkpoint", error))??;
        let Some(root) = root else {
            return Ok(());
        };
        let manifest = SnapshotManifest {
            end_time: self.target.now().into(),
            incomplete: CHECKPOINT.to_owned(),
            root_entry: Some(root),
            ..self.prototype.clone()
        };
        let id = publish(self.target, manifests, &manifest, self.last.as_ref()).await?;
        self.last = Some(id);
        self.count += 1;
        Ok(())
    }
}

/// Saves a snapshot's manifest in place of others, after everything that it refers to.
///
/// That takes two flushes. In one, the manifest's pack may be stored and get into an index before the packs of the files;
/// if these then fail, others see a snapshot whose data are nowhere.
pub(super) async fn publish<'a>(
    target: &dyn BackupTarget,
    manifests: &mut Manifests,
    snapshot: &SnapshotManifest,
    superseded: impl IntoIterator<Item = &'a ManifestId>,
) -> KopiaResult<ManifestId> {
    target.flush().await?;
    let now = target.now();
    let id = save_snapshot(manifests, snapshot, now)?;
    for old in superseded {
        manifests.delete(old, now);
    }
    let sink = target.sink();
    // It waits if too much is being uploaded.
    tokio::task::block_in_place(|| manifests.flush(sink.as_ref()))?;
    target.flush().await?;
    Ok(id)
}
