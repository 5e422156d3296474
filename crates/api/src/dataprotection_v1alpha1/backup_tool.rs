//! BackupTool: how one kind of database is backed up and restored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::embedded;
use crate::AnyObject;

crate::open_enum! {
    /// What a backup tool runs as.
    pub enum DeployKind: enum {
        /// A Job, for each backup.
        Job = "job",
        /// A StatefulSet, that archives as long as its schedule is in force.
        StatefulSet = "statefulSet",
    }
}

crate::open_enum! {
    /// What a backup tool makes.
    pub enum BackupToolType: enum {
        /// Backups of the database's files.
        File = "file",
        /// Backups of its log, for recovery to a point in time.
        Pitr = "pitr",
    }
}

crate::open_enum! {
    /// Which pods a logical restore runs for.
    pub enum PodRestoreScope: enum {
        /// Each pod of the database.
        All = "All",
        /// The one pod that takes writes.
        ReadWrite = "ReadWrite",
    }
}

/// The commands that back up and restore a database, and the container they run in.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupTool",
    plural = "backuptools",
    category = "kubeblocks",
    doc = "How one kind of database is backed up and restored, for all namespaces.",
    status = "BackupToolStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "TYPE", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "DEPLOY-KIND", type_ = "string", json_path = ".spec.deployKind"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "IMAGE", type_ = "string", json_path = ".spec.image", priority = 1)
)]
pub struct BackupToolSpec {
    /// Image that holds the commands; that of the database's first container when empty.
    pub image: String,
    /// What the tool runs as: job (once for each backup) or statefulSet (archiving without end).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "job"))]
    pub deploy_kind: Option<DeployKind>,
    /// What the tool backs up: file (the database's files) or pitr (its log, for recovery to a point in time).
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "file"))]
    pub type_: Option<BackupToolType>,
    /// What the container asks for and may use, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::resources")]
    pub resources: Option<AnyObject>,
    /// Environment variables of the container, as in a pod. They come after those that the controller sets and may
    /// refer to them, as in $(BACKUP_DIR).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::env")]
    pub env: Option<Vec<AnyObject>>,
    /// ConfigMaps and Secrets to take environment variables from, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "embedded::env_from")]
    pub env_from: Option<Vec<AnyObject>>,
    /// Program and arguments that make a backup and write it into $BACKUP_DIR. Empty for a tool that only restores.
    pub backup_commands: Vec<String>,
    /// Program and arguments that make an incremental backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental_backup_commands: Option<Vec<String>>,
    /// How files are restored before the database starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub physical: Option<PhysicalConfig>,
    /// How data is restored into the running database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logical: Option<LogicalConfig>,
}

impl BackupToolSpec {
    /// What the tool runs as, with the default of the definition.
    pub fn deploy_kind(&self) -> DeployKind {
        self.deploy_kind.clone().unwrap_or(DeployKind::Job)
    }
}

/// The commands of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupToolRestoreCommand {
    /// Program and arguments that restore a full backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_commands: Option<Vec<String>>,
    /// Program and arguments that restore an incremental backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incremental_restore_commands: Option<Vec<String>>,
}

/// A restore of files, before the database starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalConfig {
    /// The commands.
    #[serde(flatten)]
    pub commands: BackupToolRestoreCommand,
    /// Whether the restore needs the database's log besides; then that must be backed up too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rely_on_logfile: Option<bool>,
}

/// A restore into the running database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogicalConfig {
    /// The commands.
    #[serde(flatten)]
    pub commands: BackupToolRestoreCommand,
    /// Which pods the commands run for: All (each one of the database) or ReadWrite (the one that takes writes).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "All"))]
    pub pod_scope: Option<PodRestoreScope>,
}

impl LogicalConfig {
    /// Which pods the commands run for, with the default of the definition.
    pub fn pod_scope(&self) -> PodRestoreScope {
        self.pod_scope.clone().unwrap_or(PodRestoreScope::All)
    }
}

/// What is known of the tool. Upstream keeps nothing here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupToolStatus {
    /// Added by Holdfast: the generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Added by Holdfast: what is true of the tool, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
