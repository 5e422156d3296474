//! `middleware.alauda.io/v1`: one kind, PostgresBackup.
//!
//! Source of the contract: Alauda's API reference. Fields that Holdfast adds are marked as such; all of them are
//! optional, and the controller works without them where an installed foreign CRD prunes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{self, Shape};

/// The definition of the group's kind.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![schema::crd::<PostgresBackup>(Shape::SPEC_AND_STATUS)]
}

/// Names the Secret that holds the access data of the object storage, in wal-g's key names.
pub const STORAGE_ANNOTATION: &str = "backup.middleware.alauda.io/storage";

crate::open_enum! {
    /// Where a backup stands.
    #[derive(Default)]
    pub enum BackupState: enum {
        /// Accepted, nothing started.
        #[default]
        Accepted = "",
        /// The backup job exists.
        Running = "running",
        /// Ended without a usable backup; `error` says why.
        Failed = "failed",
        /// Stored, read back and found whole.
        Succeeded = "succeeded",
        /// The object is being deleted and its data in the storage could not be; `error` says why.
        DeleteFailed = "deleteFailed",
    }
}

/// What to back up, and where the work should run.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, PartialEq, Serialize, JsonSchema)]
#[kube(
    group = "middleware.alauda.io",
    version = "v1",
    kind = "PostgresBackup",
    plural = "postgresbackups",
    shortname = "pgbk",
    category = "backup",
    namespaced,
    doc = "One backup of a PostgreSQL cluster, taken once.",
    status = "PostgresBackupStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backupName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.executeNode"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.pgVersion",
        priority = 1
    ),
    printcolumn(
        name = "Done",
        type_ = "integer",
        json_path = ".status.progress.bytesDone",
        priority = 1
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        json_path = ".status.progress.totalBytes",
        priority = 1
    ),
    printcolumn(
        name = "Finished",
        type_ = "date",
        json_path = ".status.finishTime",
        priority = 1
    ),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.error", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct PostgresBackupSpec {
    /// Name of the PostgreSQL cluster in this namespace: the value of its pods' label `cluster-name`.
    pub cluster: String,

    /// Member pod, or Kubernetes node of a member, to take the backup from; a healthy replica, else the leader, when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute_node: Option<String>,
}

/// What became of the backup.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresBackupStatus {
    /// Name of the backup in the storage, as wal-g lists it, e.g. `base_000000010000000000000004`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_name: Option<String>,
    /// UID of the PostgreSQL cluster's object; part of the path in the bucket, so that a re-created cluster has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Where the backup is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_backup_storage: Option<ConfigBackupStorage>,
    /// Why the backup or its deletion failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Member pod that the backup is taken from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execute_node: Option<String>,
    /// End position of the backup in the write-ahead log, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_lsn: Option<i64>,
    /// When the backup ended, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<String>,
    /// When the storage last changed the backup's sentinel, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// Version of the PostgreSQL server, e.g. `15.14`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pg_version: Option<String>,
    /// Start position of the backup in the write-ahead log, in bytes: recovery begins here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_lsn: Option<i64>,
    /// When the backup began, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Where the backup stands: empty, running, failed, succeeded or deleteFailed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<BackupState>,

    /// Added by Holdfast: the generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Added by Holdfast: Ready, Reconciling and Stalled, as kstatus reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Option<Vec<Condition>>,
    /// Added by Holdfast: how far the backup is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<BackupProgress>,
    /// Added by Holdfast: path of the backup's folder in the bucket, without the bucket; what wal-g takes as prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_path: Option<String>,
}

/// The Secret that gives access to the storage, and the bucket.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, JsonSchema)]
pub struct ConfigBackupStorage {
    /// Bucket that holds the backup.
    pub bucket: String,
    /// Name of the Secret with the access data.
    pub name: String,
    /// Namespace of that Secret.
    pub namespace: String,
}

/// How far a backup is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupProgress {
    /// Bytes read from PostgreSQL so far, uncompressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_done: Option<i64>,
    /// Bytes that PostgreSQL expects to send, uncompressed; an estimate until the backup ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// Bytes stored so far, compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_uploaded: Option<i64>,
}
