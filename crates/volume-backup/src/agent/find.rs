//! Snapshots by what people call them.

use holdfast_kopia::ObjectId;
use holdfast_kopia::manifest::{ManifestId, Manifests};
use holdfast_kopia::restore::RestoreSource;
use holdfast_kopia::snapshot::{SnapshotManifest, SourceInfo, list_snapshots, load_snapshot};

use super::failure::Failure;

/// The name of the newest complete snapshot of a source.
const LATEST: &str = "latest";

/// What is to be restored.
pub(super) struct Restorable {
    pub(super) source: RestoreSource,
    /// Why its snapshot is not complete, if it is not, such as `checkpoint`.
    pub(super) incomplete: Option<String>,
}

/// A snapshot by its id.
pub(super) async fn by_id(manifests: &Manifests, id: &str) -> Result<SnapshotManifest, Failure> {
    let id: ManifestId = id
        .parse()
        .map_err(|_| not_found(format!("\"{id}\" is not the id of a snapshot")))?;
    Ok(load_snapshot(manifests, &id).await?)
}

/// What is to be restored: a snapshot by its id, the latest of a source, or an object.
pub(super) async fn restorable(
    manifests: &Manifests,
    name: &str,
    source: Option<&SourceInfo>,
) -> Result<Restorable, Failure> {
    if name == LATEST {
        let source = source.ok_or_else(|| {
            Failure::permanent(
                "ArgumentInvalid",
                "`latest` needs --source-path: the latest of what?",
            )
        })?;
        return root(latest(manifests, source).await?);
    }
    // A manifest's id is 32 digits; so is the id of an object, but only of a file's, and that is restored by its path.
    if let Ok(id) = name.parse::<ManifestId>()
        && manifests.metadata(&id).is_ok()
    {
        return root(load_snapshot(manifests, &id).await?);
    }
    match name.parse::<ObjectId>() {
        Ok(object) => Ok(Restorable {
            source: object.into(),
            incomplete: None,
        }),
        Err(_) => Err(not_found(format!("there is no snapshot {name}"))),
    }
}

async fn latest(manifests: &Manifests, source: &SourceInfo) -> Result<SnapshotManifest, Failure> {
    list_snapshots(manifests, Some(source))
        .await?
        .into_iter()
        .filter(SnapshotManifest::is_complete)
        .max_by_key(|snapshot| snapshot.start_time)
        .ok_or_else(|| {
            not_found(format!(
                "there is no complete snapshot of {}@{}:{}",
                source.user_name, source.host, source.path
            ))
        })
}

fn root(snapshot: SnapshotManifest) -> Result<Restorable, Failure> {
    let incomplete = (!snapshot.is_complete()).then(|| snapshot.incomplete.clone());
    match snapshot.root_entry {
        Some(root) => Ok(Restorable {
            source: root.into(),
            incomplete,
        }),
        None => Err(Failure::permanent(
            "RepositoryDamaged",
            "the snapshot has no root",
        )),
    }
}

fn not_found(message: String) -> Failure {
    Failure::permanent("SnapshotNotFound", message)
}
