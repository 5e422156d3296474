//! Pgbackup: copies of a cluster made with pg_basebackup.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::PgStorageSpec;

crate::open_enum! {
    /// Where a backup stands.
    pub enum PgbackupState: string {
        /// Seen, nothing done yet.
        Created = "pgbackup Created",
        /// Taken up; spec.backupstatus says how far it is.
        Processed = "pgbackup Processed",
    }
}

crate::open_enum! {
    /// How far a pg_basebackup job is.
    pub enum BackupJobStatus: string {
        /// Not said.
        Unset = "",
        /// Asked for by the client.
        Initial = "initial",
        /// The operator made the Job.
        Submitted = "submitted",
        /// Asked for.
        JobSubmitted = "Backup Job Submitted",
        /// Asked for once more: changing to this word repeats the backup.
        JobReSubmitted = "Backup Job Re-Submitted",
        /// The Job runs.
        JobInProgress = "Backup Job In Progress",
        /// The Job succeeded.
        JobCompleted = "Backup Job Completed",
        /// The Job failed.
        JobError = "Backup Job Error",
    }
}

/// What to copy, with which access data, to where.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "crunchydata.com",
    version = "v1",
    kind = "Pgbackup",
    plural = "pgbackups",
    shortname = "pgb",
    category = "pgo",
    namespaced,
    doc = "Copies of a cluster made with pg_basebackup; named like its cluster.",
    status = "PgbackupStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.backuphost"),
    printcolumn(name = "Status", type_ = "string", json_path = ".spec.backupstatus"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Volume",
        type_ = "string",
        json_path = ".spec.storagespec.name",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgbackupSpec {
    /// Namespace of the backup; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the cluster; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Volume that the copies are written to. The operator fills in its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storagespec: Option<PgStorageSpec>,
    /// Tag of the image that makes the copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ccpimagetag: Option<String>,
    /// Host name of the server to copy; the cluster's primary Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backuphost: Option<String>,
    /// Name of the Secret with the replication user's name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backupusersecret: Option<String>,
    /// TCP port of the server, in decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backupport: Option<String>,
    /// How far the copy is. Changing it to "Backup Job Re-Submitted" makes another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backupstatus: Option<BackupJobStatus>,
    /// Name of an existing claim to write to; one is created from storagespec when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backuppvc: Option<String>,
    /// Further options of pg_basebackup, separated by blanks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backupopts: Option<String>,
    /// The copies that exist: path on the volume, as name and as value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toc: Option<BTreeMap<String, String>>,
}

/// What became of the backup.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgbackupStatus {
    /// Where the backup stands: "pgbackup Created" or "pgbackup Processed".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PgbackupState>,
    /// The same in a sentence, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Added by Holdfast: what is true of the backup, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
