//! What is known of the content of a Backup. Backup tools write most of it, through their file `backup.info`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of the content of a backup.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestsStatus {
    /// The span of time that the backup covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_log: Option<BackupLogStatus>,
    /// What is known of the database cluster, as a JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The volume snapshot that holds the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_snapshot: Option<BackupSnapshotStatus>,
    /// The files that the backup tool wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_tool: Option<BackupToolManifestsStatus>,
    /// What else the backup tool wants a restore to know, by name. Restore commands get it as environment variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_context: Option<BTreeMap<String, String>>,
}

/// The span of time that a backup covers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupLogStatus {
    /// First moment that the log covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// Last moment that the log covers; for a full backup, the moment that it restores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_time: Option<Time>,
}

/// The volume snapshot that holds a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupSnapshotStatus {
    /// Name of the VolumeSnapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_name: Option<String>,
    /// Name of the VolumeSnapshotContent, where the snapshot existed before the backup. Not to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_content_name: Option<String>,
}

/// The files that a backup tool wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupToolManifestsStatus {
    /// Directory of the backup, from the root of the backup volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_path: Option<String>,
    /// Directory of the log that the backup needs for its recovery, from the root of the log's backup volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file_path: Option<String>,
    /// Name of the persistent volume that holds the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// Size of the files, such as "1Gi" or "1.2G".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_total_size: Option<String>,
    /// Checksum of the files: MD5, SHA-1 or SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Position in the database's log that an incremental backup starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}
