//! DataUpload: the data of one snapshot into a repository.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NodeOs, TransferPhase, TransferProgress};
use crate::GoDuration;

crate::open_enum! {
    /// What kind of snapshot holds the data.
    #[derive(Default)]
    pub enum SnapshotType {
        /// A CSI VolumeSnapshot.
        #[default]
        Csi = "CSI",
    }
}

/// Which snapshot to move, and where to.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v2alpha1",
    kind = "DataUpload",
    plural = "datauploads",
    shortname = "du",
    namespaced,
    doc = "The transfer of a volume snapshot's data into a repository.",
    status = "DataUploadStatus",
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
        name = "Incremental Bytes",
        type_ = "integer",
        format = "int64",
        priority = 10,
        json_path = ".status.incrementalBytes",
        description = "Bytes new or changed since the backup before"
    ),
    printcolumn(
        name = "Storage Location",
        type_ = "string",
        json_path = ".spec.backupStorageLocation",
        description = "Backup storage location that receives the data"
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
pub struct DataUploadSpec {
    /// Name of the backup storage location that receives the data.
    pub backup_storage_location: String,
    /// Set to true to stop the transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// The CSI snapshot, when snapshotType is CSI.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub csi_snapshot: Option<CsiSnapshot>,
    /// Settings of the data mover, such as ParallelFilesUpload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub data_mover_config: Option<BTreeMap<String, String>>,
    /// Data mover that shall do the work: absent, empty or "velero" for the built-in one; others are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datamover: Option<String>,
    /// Time that each step of the preparation may take, such as 10m0s.
    pub operation_timeout: GoDuration,
    /// What kind of snapshot holds the data; only CSI exists.
    pub snapshot_type: SnapshotType,
    /// Namespace of the volume that was backed up.
    pub source_namespace: String,
    /// Name of the volume claim that the snapshot was taken of.
    #[serde(rename = "sourcePVC")]
    pub source_pvc: String,
}

/// A CSI snapshot, and how it was made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CsiSnapshot {
    /// CSI driver that made the snapshot. Since Velero 1.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Class that the snapshot was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_class: Option<String>,
    /// Storage class of the volume that the snapshot was taken of.
    pub storage_class: String,
    /// Name of the VolumeSnapshot.
    pub volume_snapshot: String,
}

/// What became of the transfer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataUploadStatus {
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
    /// What a data mover has to say besides; the built-in one says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub data_mover_result: Option<BTreeMap<String, String>>,
    /// Bytes new or changed since the backup before. Since Velero 1.18.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental_bytes: Option<i64>,
    /// Why the phase is what it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Node that does the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Operating system of that node. Since Velero 1.16.
    #[serde(rename = "nodeOS", skip_serializing_if = "Option::is_none")]
    pub node_os: Option<NodeOs>,
    /// Directory that was read, as the agent sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where the transfer stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<TransferPhase>,
    /// How far the transfer is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<TransferProgress>,
    /// The snapshot in the repository.
    #[serde(rename = "snapshotID", skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// When the transfer began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub start_timestamp: Option<Time>,
}
