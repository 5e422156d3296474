//! Manifests of snapshots.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::entry::DirEntry;
use super::source::SourceInfo;
use super::time::UtcTime;
use crate::manifest::ManifestId;
use crate::object::ObjectId;

/// A snapshot: what it is of, when, and its root. As JSON it has kopia's fields in kopia's order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotManifest {
    /// The manifest's id. Not kept in the document: it is written empty and filled in when it is read.
    #[serde(serialize_with = "empty", deserialize_with = "none")]
    pub id: Option<ManifestId>,
    /// What it is of.
    pub source: SourceInfo,
    /// What its maker says of it; Velero says `Kopia Uploader`.
    pub description: String,
    /// When it was begun.
    #[serde(rename = "startTime")]
    pub start_time: UtcTime,
    /// When it was finished.
    #[serde(rename = "endTime")]
    pub end_time: UtcTime,
    /// Numbers of the run.
    pub stats: SnapshotStats,
    /// Why it is not complete; empty if it is. `checkpoint` for those made in the middle of a run.
    #[serde(rename = "incomplete", skip_serializing_if = "String::is_empty")]
    pub incomplete: String,
    /// The root, by the name that the source has.
    #[serde(rename = "rootEntry")]
    pub root_entry: Option<DirEntry>,
    /// Tags, which are labels of the manifest too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub tags: BTreeMap<String, String>,
    /// What kopia once computed of its use of storage; kept as it is.
    #[serde(rename = "storageStats", skip_serializing_if = "Option::is_none")]
    pub storage_stats: Option<Value>,
    /// Names of pins, each of which keeps the snapshot from being deleted; Velero's is `velero-pin`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub pins: Vec<String>,
    /// Fields that this version does not know, to be kept.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Numbers of the run that made a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SnapshotStats {
    /// Bytes of all files.
    pub total_size: i64,
    /// Bytes of files that were left out.
    pub excluded_total_size: i64,
    /// Number of files.
    pub file_count: i32,
    /// Files taken from an older snapshot.
    pub cached_files: i32,
    /// Files that were read.
    pub non_cached_files: i32,
    /// Number of directories.
    pub dir_count: i32,
    /// Files that were left out.
    pub excluded_file_count: i32,
    /// Directories that were left out.
    pub excluded_dir_count: i32,
    /// Errors that were to be ignored.
    pub ignored_error_count: i32,
    /// Errors.
    pub error_count: i32,
}

impl SnapshotManifest {
    /// The root's object.
    pub fn root_object(&self) -> Option<ObjectId> {
        self.root_entry.as_ref()?.object
    }

    /// Whether it is the end of a run, not a checkpoint.
    pub const fn is_complete(&self) -> bool {
        self.incomplete.is_empty()
    }

    /// Adds and removes pins; whether that changed anything.
    pub fn update_pins(&mut self, add: &[String], remove: &[String]) -> bool {
        let before: BTreeSet<_> = self.pins.iter().cloned().collect();
        let mut after: BTreeSet<_> = before.union(&add.iter().cloned().collect()).cloned().collect();
        after.retain(|pin| !remove.contains(pin));
        let changed = after != before;
        self.pins = after.into_iter().collect();
        changed
    }
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn empty<S: serde::Serializer>(_: &Option<ManifestId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("")
}

fn none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<ManifestId>, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| None)
}

/// Go writes an empty list as null where it is not left out.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
