//! BackupPolicy: what is backed up, how, when, and for how long it is kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME_PATTERN, PersistentVolumeClaim, TargetCluster};

crate::open_enum! {
    /// Whether a policy can be followed.
    pub enum BackupPolicyPhase: enum {
        /// Yes.
        Available = "Available",
        /// No; `failureReason` says why.
        Failed = "Failed",
    }
}

crate::open_enum! {
    /// When the status of a backup is updated.
    pub enum BackupStatusUpdateStage: enum {
        /// Before the backup is made.
        Pre = "pre",
        /// After it was made.
        Post = "post",
    }
}

/// What to back up, how, when, and for how long to keep it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupPolicy",
    plural = "backuppolicies",
    shortname = "bp",
    category = "kubeblocks",
    namespaced,
    doc = "What of a database is backed up, how, when, and for how long the backups are kept.",
    status = "BackupPolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "LAST SCHEDULE",
        type_ = "string",
        json_path = ".status.lastScheduleTime"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.failureReason",
        priority = 1
    )
)]
pub struct BackupPolicySpec {
    /// How long backups are kept; for ever when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// When backups are made; only on request when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How snapshots of the database's volumes are taken; they cannot be when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotPolicy>,
    /// How the database's files are backed up; they cannot be when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datafile: Option<CommonBackupPolicy>,
    /// How the database's log is backed up; it cannot be when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logfile: Option<CommonBackupPolicy>,
}

/// How long backups are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// Time from the start of a backup until it may be deleted: a number and d (days) or h (hours), such as "7d".
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^\d+[d|D|h|H]$"))]
    pub ttl: Option<String>,
}

/// When backups are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// How late a backup may start, in minutes, when its time was missed; it is skipped after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1440))]
    pub starting_deadline_minutes: Option<i64>,
    /// When snapshots are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SchedulePolicy>,
    /// When the database's files are backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datafile: Option<SchedulePolicy>,
    /// When the database's log is backed up. For a tool that archives continuously: at which interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logfile: Option<SchedulePolicy>,
}

/// When backups of one type are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulePolicy {
    /// Times in cron's notation, in UTC: minute, hour, day of the month, month, day of the week.
    pub cron_expression: String,
    /// Whether the schedule is in force.
    pub enable: bool,
}

/// What the three ways of backing up have in common.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasePolicy {
    /// The database.
    pub target: TargetCluster,
    /// Number of scheduled backups to keep; the oldest beyond it are deleted. 0 keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 7))]
    pub backups_history_limit: Option<i32>,
    /// Number of times that a failed backup is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_fail_attempted: Option<i32>,
    /// What else to find out about a backup and to write into its status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_status_updates: Option<Vec<BackupStatusUpdate>>,
}

impl BasePolicy {
    /// Number of scheduled backups to keep (0: all), with the default of the definition.
    pub fn backups_history_limit(&self) -> i32 {
        self.backups_history_limit.unwrap_or(7)
    }
}

/// How snapshots of a database's volumes are taken.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPolicy {
    /// What all ways of backing up have.
    #[serde(flatten)]
    pub base: BasePolicy,
    /// Commands that run in the database's pod before and after a snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<BackupPolicyHook>,
}

/// How a database's files or its log are backed up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommonBackupPolicy {
    /// What all ways of backing up have.
    #[serde(flatten)]
    pub base: BasePolicy,
    /// The volume that backups are stored on, where no BackupRepo is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
    /// Name of the BackupRepo that backups are stored in; the default one, if there is one, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub backup_repo_name: Option<String>,
    /// Name of the BackupTool that makes the backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub backup_tool_name: Option<String>,
}

/// Commands around a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyHook {
    /// Commands to run before the snapshot; if one fails, the backup fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_commands: Option<Vec<String>>,
    /// Commands to run after the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_commands: Option<Vec<String>>,
    /// Image that runs the commands in the database's pod; the controller's tools image when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Container of the database's pod to run the commands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
}

/// One thing to find out about a backup and to write into its status.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatusUpdate {
    /// Where in the status the result goes, with dots, such as "manifests.backupLog"; into the status itself when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Container of the database's pod to run the script in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Command and its arguments, found in that container, that prints a JSON object. Without it the file backup.info
    /// of the backup is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Whether this is done with the service account of the database's pod rather than with the controller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_target_pod_service_account: Option<bool>,
    /// When it is done: pre (before the backup) or post (after it).
    pub update_stage: BackupStatusUpdateStage,
}

/// Whether the policy can be followed, and when it last was.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyStatus {
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether the policy can be followed: Available or Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPolicyPhase>,
    /// Why the policy cannot be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,
    /// When the schedule last started a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When a scheduled backup last ended successfully.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// Added by Holdfast: what is true of the policy, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
