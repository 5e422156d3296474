//! DataDownload: one snapshot of a repository into a new volume.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeOs, TransferPhase, TransferProgress};
use crate::GoDuration;

/// Which snapshot to restore, and into which volume.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v2alpha1",
    kind = "DataDownload",
    plural = "datadownloads",
    shortname = "dd",
    namespaced,
    doc = "The transfer of a snapshot's data from a repository into a new volume.",
    status = "DataDownloadStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.phase",
        description = "Phase of the transfer, such as New or InProgress"
    ),
    printcolumn(
        name = "Started",
        type_ = "date",
        json_path = ".status.startTimestamp",
        description = "Time since the transfer began"
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
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DataDownloadSpec {
    /// Name of the backup storage location that holds the data.
    pub backup_storage_location: String,
    /// Set to true to stop the transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// Settings of the data mover, such as WriteSparseFiles and ParallelFilesDownload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_mover_config: Option<BTreeMap<String, String>>,
    /// Data mover that shall do the work: absent, empty or "velero" for the built-in one; others are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datamover: Option<String>,
    /// Operating system of the node that shall do the work; absent means linux. Since Velero 1.16.
    #[serde(rename = "nodeOS", skip_serializing_if = "Option::is_none")]
    pub node_os: Option<NodeOs>,
    /// Time that each step of the preparation may take, such as 10m0s.
    pub operation_timeout: GoDuration,
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Size of the snapshot's content in bytes. Since Velero 1.18.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_size: Option<i64>,
    /// Namespace that the volume was backed up from; it selects the repository.
    pub source_namespace: String,
    /// The volume that receives the data.
    pub target_volume: TargetVolume,
}

/// The volume that receives the data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetVolume {
    /// Namespace of the volume claim.
    pub namespace: String,
    /// Name of the volume; empty until the data is there.
    pub pv: String,
    /// Name of the volume claim.
    pub pvc: String,
}

/// What became of the transfer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataDownloadStatus {
    /// Node that prepares the work. Since Velero 1.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_by_node: Option<String>,
    /// When a node took the work. Since Velero 1.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub accepted_timestamp: Option<Time>,
    /// When the transfer ended, successfully or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub completion_timestamp: Option<Time>,
    /// Why the phase is what it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Node that does the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where the transfer stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<TransferPhase>,
    /// How far the transfer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<TransferProgress>,
    /// When the transfer began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub start_timestamp: Option<Time>,
}
