//! Backup: one backup of a database.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ManifestsStatus, NAME_PATTERN};
use crate::GoDuration;

crate::open_enum! {
    /// What a backup holds.
    pub enum BackupType: enum {
        /// The files of the database, or a dump.
        Datafile = "datafile",
        /// The database's log, such as WAL or binlog, for recovery to a point in time.
        Logfile = "logfile",
        /// Snapshots of the database's volumes.
        Snapshot = "snapshot",
    }
}

crate::open_enum! {
    /// Where a backup stands.
    pub enum BackupPhase: enum {
        /// Not begun.
        New = "New",
        /// Its work is being done.
        InProgress = "InProgress",
        /// Its continuous work goes on, such as the archiving of logs.
        Running = "Running",
        /// Ended with a usable backup.
        Completed = "Completed",
        /// Ended without one; `failureReason` says why.
        Failed = "Failed",
        /// Being deleted with its data.
        Deleting = "Deleting",
    }
}

/// What to back up, by which policy.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "Backup",
    plural = "backups",
    category = "kubeblocks",
    namespaced,
    doc = "One backup of a database, made as a BackupPolicy says.",
    status = "BackupStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "TYPE", type_ = "string", json_path = ".spec.backupType"),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "SOURCE-CLUSTER",
        type_ = "string",
        json_path = ".status.sourceCluster"
    ),
    printcolumn(name = "TOTAL-SIZE", type_ = "string", json_path = ".status.totalSize"),
    printcolumn(name = "DURATION", type_ = "string", json_path = ".status.duration"),
    printcolumn(
        name = "CREATE-TIME",
        type_ = "string",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "COMPLETION-TIME",
        type_ = "string",
        json_path = ".status.completionTimestamp"
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.failureReason",
        priority = 1
    )
)]
pub struct BackupSpec {
    /// Name of the BackupPolicy, in the same namespace, that says what to back up and how.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub backup_policy_name: String,
    /// What the backup holds: datafile (the database's files or a dump), logfile (its log, for recovery to a point in
    /// time) or snapshot (of its volumes).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "datafile"))]
    pub backup_type: Option<BackupType>,
    /// Name of the Backup that an incremental one builds on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_backup_name: Option<String>,
}

impl BackupSpec {
    /// What the backup holds, with the default of the definition.
    pub fn backup_type(&self) -> BackupType {
        self.backup_type.clone().unwrap_or(BackupType::Datafile)
    }
}

/// What became of the backup.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Where the backup stands: New, InProgress, Running (archiving goes on), Completed, Failed or Deleting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// Name of the Backup that this incremental one builds on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_backup_name: Option<String>,
    /// When the backup may be deleted; never by itself when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// When the work began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the work ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// How long the work took, such as "1h2m0.5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<GoDuration>,
    /// Size of the backed up data, as the backup tool reports it, such as "1Gi" or "1.2G".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,
    /// Why the backup or its deletion failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// Name of the claim whose volume holds the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
    /// Name of the claim whose volume holds the log that the backup needs for its recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file_persistent_volume_claim_name: Option<String>,
    /// Name of the BackupTool that made the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_tool_name: Option<String>,
    /// Name of the database cluster that was backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_cluster: Option<String>,
    /// Number of archiving pods that are available, for a backup whose tool runs as a StatefulSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// What is known of the content of the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<ManifestsStatus>,
    /// Added by Holdfast: the generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Added by Holdfast: what is true of the backup, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
