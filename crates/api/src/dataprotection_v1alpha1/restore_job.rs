//! RestoreJob: one restore of a backup into volumes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{TargetCluster, embedded};
use crate::AnyObject;

crate::open_enum! {
    /// Where a restore stands.
    pub enum RestoreJobPhase: enum {
        /// Not begun.
        New = "New",
        /// Files are being restored; the database is stopped.
        InProgressPhy = "InProgressPhy",
        /// Data is being restored into the running database.
        InProgressLogic = "InProgressLogic",
        /// Ended, restored.
        Completed = "Completed",
        /// Ended, not restored; `failureReason` says why.
        Failed = "Failed",
    }
}

/// Which backup to restore, into what.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "RestoreJob",
    plural = "restorejobs",
    category = "kubeblocks",
    namespaced,
    doc = "One restore of a backup into the volumes of a database.",
    status = "RestoreJobStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "COMPLETION-TIME",
        type_ = "date",
        json_path = ".status.completionTimestamp"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "BACKUP",
        type_ = "string",
        json_path = ".spec.backupJobName",
        priority = 1
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.failureReason",
        priority = 1
    )
)]
pub struct RestoreJobSpec {
    /// Name of the Backup to restore, in the same namespace.
    pub backup_job_name: String,
    /// The database to restore into. Its labels must match exactly one StatefulSet, which is stopped meanwhile.
    pub target: TargetCluster,
    /// Volumes of the pod that restores, as in a pod: those of the database.
    #[schemars(schema_with = "embedded::volumes")]
    pub target_volumes: Vec<AnyObject>,
    /// Where the pod that restores has those volumes, as in a container.
    #[schemars(schema_with = "embedded::volume_mounts")]
    pub target_volume_mounts: Vec<AnyObject>,
    /// Number of times that a failed restore is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_fail_attempted: Option<i32>,
}

/// What became of the restore.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreJobStatus {
    /// Where the restore stands: New, InProgressPhy (files, database stopped), InProgressLogic (into the running
    /// database), Completed or Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestoreJobPhase>,
    /// When this object may be deleted; never by itself when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// When the work began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timestamp: Option<Time>,
    /// When the work ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_timestamp: Option<Time>,
    /// Why the restore failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// Added by Holdfast: the generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Added by Holdfast: what is true of the restore, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
