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
        let now = self.target.now();
        let manifest = SnapshotManifest {
            end_time: now.into(),
            incomplete: CHECKPOINT.to_owned(),
            root_entry: Some(root),
            ..self.prototype.clone()
        };
        let id = save_snapshot(manifests, &manifest, now)?;
        if let Some(last) = self.last.replace(id) {
            manifests.delete(&last, now);
        }
        self.count += 1;
        commit(self.target, manifests).await
    }
}

/// Writes manifests, and everything that was written before.
pub(super) async fn commit(target: &dyn BackupTarget, manifests: &mut Manifests) -> KopiaResult<()> {
    let sink = target.sink();
    // It waits if too much is being uploaded.
    tokio::task::block_in_place(|| manifests.flush(sink.as_ref()))?;
    target.flush().await
}
