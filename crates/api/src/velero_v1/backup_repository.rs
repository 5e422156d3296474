//! BackupRepository: one repository for the volumes of one namespace in one location.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::GoDuration;

crate::open_enum! {
    /// Format of a repository.
    pub enum RepositoryType: enum {
        /// The kopia format.
        Kopia = "kopia",
        /// The restic format.
        Restic = "restic",
        /// Not said: objects from before there was a choice, which means restic.
        Unset = "",
    }
}

crate::open_enum! {
    /// Whether a repository can be used.
    pub enum RepositoryPhase: enum {
        /// Not looked at yet.
        New = "New",
        /// It exists and can be opened.
        Ready = "Ready",
        /// It cannot be opened; the message says why.
        NotReady = "NotReady",
    }
}

crate::open_enum! {
    /// How a maintenance run ended.
    pub enum MaintenanceResult: enum {
        /// Successfully.
        Succeeded = "Succeeded",
        /// Unsuccessfully; the message says why.
        Failed = "Failed",
    }
}

/// Which repository this is, and how it is kept.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "BackupRepository",
    plural = "backuprepositories",
    shortname = "repo",
    namespaced,
    doc = "A repository for the volumes of one namespace in one backup storage location.",
    status = "BackupRepositoryStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Repository Type",
        type_ = "string",
        json_path = ".spec.repositoryType"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BackupRepositorySpec {
    /// Name of the backup storage location that holds the repository.
    pub backup_storage_location: String,
    /// Time between two maintenance runs, such as 1h0m0s.
    pub maintenance_frequency: GoDuration,
    /// Settings of the repository's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub repository_config: Option<BTreeMap<String, String>>,
    /// Format of the repository; absent or empty means restic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository_type: Option<RepositoryType>,
    /// Address of the repository for restic; unused for kopia.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restic_identifier: Option<String>,
    /// Namespace whose volumes the repository holds.
    pub volume_namespace: String,
}

/// What is known of the repository.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRepositoryStatus {
    /// When maintenance last succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub last_maintenance_time: Option<Time>,
    /// Why the phase is what it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the repository can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RepositoryPhase>,
    /// The latest maintenance runs, at most three.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent_maintenance: Option<Vec<RecentMaintenance>>,
}

/// One maintenance run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentMaintenance {
    /// When the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub complete_timestamp: Option<Time>,
    /// Why the run ended as it did, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<MaintenanceResult>,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub start_timestamp: Option<Time>,
}
