//! PodVolumeRestore: one snapshot back into a volume of a pod.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TransferPhase, TransferProgress, UploaderType};
use crate::ObjectReference;

/// Which snapshot to restore, and into which volume.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "PodVolumeRestore",
    plural = "podvolumerestores",
    shortname = "pvr",
    namespaced,
    doc = "The restore of one volume of a pod that waits for it, done on the pod's node.",
    status = "PodVolumeRestoreStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "Phase of the restore, such as New or InProgress"
    ),
    printcolumn(
        name = "Started",
        type_ = "date",
        json_path = ".status.startTimestamp",
        description = "Time since the restore began"
    ),
    printcolumn(
        name = "Bytes Done",
        type_ = "integer",
        format = "int64",
        json_path = ".status.progress.bytesDone",
        description = "Bytes handled so far"
    ),
    printcolumn(
        name = "Total Bytes",
        type_ = "integer",
        format = "int64",
        json_path = ".status.progress.totalBytes",
        description = "Bytes to handle"
    ),
    printcolumn(
        name = "Storage Location",
        type_ = "string",
        json_path = ".spec.backupStorageLocation",
        description = "Backup storage location that holds the data"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the object was created"
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.node",
        description = "Node that does the work"
    ),
    printcolumn(
        name = "Uploader Type",
        type_ = "string",
        json_path = ".spec.uploaderType",
        description = "What reads the data"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeRestoreSpec {
    /// Name of the backup storage location that holds the data.
    pub backup_storage_location: String,
    /// Set to true to stop the restore. Since Velero 1.17.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// The pod that mounts the volume.
    pub pod: ObjectReference,
    /// Address of a restic repository; empty for kopia.
    pub repo_identifier: String,
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Size of the snapshot's content in bytes. Since Velero 1.18.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_size: Option<i64>,
    /// Namespace that the volume was backed up from; it selects the repository.
    pub source_namespace: String,
    /// Settings of the uploader, such as WriteSparseFiles and ParallelFilesDownload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub uploader_settings: Option<BTreeMap<String, String>>,
    /// What reads the data; absent or empty means restic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader_type: Option<UploaderType>,
    /// Name of the volume within the pod.
    pub volume: String,
}

/// What became of the restore.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodVolumeRestoreStatus {
    /// When a node took the work. Since Velero 1.17.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub accepted_timestamp: Option<Time>,
    /// When the restore ended, successfully or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub completion_timestamp: Option<Time>,
    /// Why the phase is what it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Node that does the work. Since Velero 1.17.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where the restore stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<TransferPhase>,
    /// How far the restore is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<TransferProgress>,
    /// When the restore began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub start_timestamp: Option<Time>,
}
