//! Finding snapshots, and what a new one is compared with.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::manifest::SnapshotManifest;
use super::source::{SourceInfo, TYPE, TYPE_SNAPSHOT};
use super::time::UtcTime;
use crate::error::{KopiaError, KopiaResult};
use crate::manifest::{ManifestId, ManifestMetadata, Manifests};

/// Which older snapshots a new one may be compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentFilter {
    /// Tags that complete snapshots must have with these values. kopia asks for none; Velero for its
    /// `snapshot-requester` and `snapshot-uploader`. Checkpoints have no tags, so none are asked of them.
    pub tags: BTreeMap<String, String>,
    /// Only those that were begun up to then.
    pub no_later_than: Option<UtcTime>,
}

/// The snapshots of a source, or all, in the order they were saved. A manifest that cannot be read is logged and left
/// out, as kopia does: it must not keep others from being backed up or restored.
pub async fn list_snapshots(
    manifests: &Manifests,
    source: Option<&SourceInfo>,
) -> KopiaResult<Vec<SnapshotManifest>> {
    let all = || BTreeMap::from([(TYPE.to_owned(), TYPE_SNAPSHOT.to_owned())]);
    let found = manifests.find(&source.map_or_else(all, SourceInfo::labels));
    let ids: Vec<_> = found.iter().map(|manifest| manifest.id.clone()).collect();
    let mut read = BTreeMap::new();
    manifests
        .visit(
            &ids,
            &mut |id, document: KopiaResult<SnapshotManifest>| match document {
                Ok(mut snapshot) => {
                    snapshot.id = Some(id.clone());
                    read.insert(id.clone(), snapshot);
                }
                Err(error) => tracing::warn!(manifest = %id, %error, "a snapshot's manifest is left out"),
            },
        )
        .await?;
    Ok(ids.iter().filter_map(|id| read.remove(id)).collect())
}

/// A snapshot by its manifest's id.
pub async fn load_snapshot(manifests: &Manifests, id: &ManifestId) -> KopiaResult<SnapshotManifest> {
    let ManifestMetadata { labels, .. } = manifests.metadata(id)?;
    if labels.get(TYPE).is_none_or(|kind| kind != TYPE_SNAPSHOT) {
        return Err(KopiaError::corrupt(
            format_args!("manifest {id}"),
            "it is no snapshot",
        ));
    }
    let mut snapshot: SnapshotManifest = manifests.get(id).await?;
    snapshot.id = Some(id.clone());
    Ok(snapshot)
}

/// Puts a snapshot's manifest, to be written when the manifests are flushed; its id.
///
/// # Errors
///
/// [`KopiaError::Argument`] if its source is not complete or a tag has the name of another label.
pub fn save_snapshot(
    manifests: &mut Manifests,
    snapshot: &SnapshotManifest,
    now: Timestamp,
) -> KopiaResult<ManifestId> {
    let argument = |name, problem: &str| KopiaError::Argument {
        name,
        problem: problem.to_owned(),
    };
    let SourceInfo {
        host,
        user_name,
        path,
    } = &snapshot.source;
    if host.is_empty() || user_name.is_empty() || path.is_empty() {
        return Err(argument(
            "source",
            "a snapshot must have a host, a user and a path",
        ));
    }
    let mut labels = snapshot.source.labels();
    for (tag, value) in &snapshot.tags {
        if labels.insert(tag.clone(), value.clone()).is_some() {
            return Err(argument("tags", "a tag has the name of a label of the source"));
        }
    }
    manifests.put(labels, snapshot, now)
}

/// The snapshots whose files a new one need not read again: the latest complete one, then the checkpoints of runs begun
/// after it, which did not come to their end.
pub async fn parent_snapshots(
    manifests: &Manifests,
    source: &SourceInfo,
    filter: &ParentFilter,
) -> KopiaResult<Vec<SnapshotManifest>> {
    let mut snapshots = list_snapshots(manifests, Some(source)).await?;
    // Labels that are empty match any; the source must be this one.
    snapshots.retain(|snapshot| {
        let early = filter
            .no_later_than
            .is_none_or(|latest| snapshot.start_time <= latest);
        early && snapshot.source == *source
    });
    let (complete, checkpoints): (Vec<_>, Vec<_>) =
        snapshots.into_iter().partition(SnapshotManifest::is_complete);
    let has_tags = |snapshot: &SnapshotManifest| {
        let mut tags = filter.tags.iter();
        tags.all(|(tag, value)| snapshot.tags.get(tag) == Some(value))
    };
    let complete = complete.into_iter().filter(has_tags);
    let latest = complete.max_by_key(|snapshot| snapshot.start_time);
    let since = latest
        .as_ref()
        .map_or(UtcTime::default(), |snapshot| snapshot.start_time);
    let after = checkpoints
        .into_iter()
        .filter(|snapshot| snapshot.start_time > since);
    Ok(latest.into_iter().chain(after).collect())
}
