//! BackupRepo: a place to store backups, for all namespaces.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{QUANTITY_PATTERN, SecretReference};
use crate::IntOrString;

crate::open_enum! {
    /// Where a repository stands.
    pub enum BackupRepoPhase: enum {
        /// Being tried out.
        PreChecking = "PreChecking",
        /// Cannot be used; the conditions say why.
        Failed = "Failed",
        /// Can be used.
        Ready = "Ready",
        /// Being deleted.
        Deleting = "Deleting",
    }
}

crate::open_enum! {
    /// What becomes of a volume when its claim is deleted.
    pub enum PersistentVolumeReclaimPolicy: enum {
        /// It is deleted with its data.
        Delete = "Delete",
        /// It stays.
        Retain = "Retain",
    }
}

crate::open_enum! {
    /// How the data gets into a repository.
    pub enum RepoAccessMethod: enum {
        /// Through a volume that is mounted.
        Mount = "Mount",
        /// Through a program that knows the storage.
        Tool = "Tool",
    }
}

/// Which storage the repository uses, with which settings.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupRepo",
    plural = "backuprepos",
    category = "kubeblocks",
    doc = "A place to store backups, for all namespaces.",
    status = "BackupRepoStatus",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "STORAGEPROVIDER",
        type_ = "string",
        json_path = ".spec.storageProviderRef"
    ),
    printcolumn(name = "DEFAULT", type_ = "boolean", json_path = ".status.isDefault"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct BackupRepoSpec {
    /// Name of the StorageProvider that knows how to make volumes on the storage. Cannot be changed.
    #[schemars(extend("x-kubernetes-validations" = [
        { "rule": "self == oldSelf", "message": "StorageProviderRef is immutable" }
    ]))]
    pub storage_provider_ref: String,
    /// Size of the volume in each namespace. Many kinds of storage do not enforce it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY_PATTERN))]
    pub volume_capacity: Option<IntOrString>,
    /// What becomes of a volume, and of the backups on it, when its claim is deleted: Delete or Retain.
    pub pv_reclaim_policy: PersistentVolumeReclaimPolicy,
    /// Settings of the storage, by the names that the StorageProvider defines; nothing secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
    /// Secret with further settings of the storage, such as its access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<SecretReference>,
    /// How data gets into the repository: Mount (through a mounted volume) or Tool (through a program that knows the
    /// storage). Mount when absent. From later KubeBlocks releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_method: Option<RepoAccessMethod>,
    /// Directory in the storage that all backups go under; its root when absent. From later KubeBlocks releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
}

/// Whether the repository can be used, and what was made for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRepoStatus {
    /// Where the repository stands: PreChecking, Failed, Ready or Deleting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupRepoPhase>,
    /// What is true of the repository, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Secret that was made for the CSI driver.
    #[serde(rename = "generatedCSIDriverSecret", skip_serializing_if = "Option::is_none")]
    pub generated_csi_driver_secret: Option<SecretReference>,
    /// Name of the storage class that was made for the repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_storage_class_name: Option<String>,
    /// Name of the claim, the same in every namespace with a backup, whose volume holds the backups.
    #[serde(rename = "backupPVCName", skip_serializing_if = "Option::is_none")]
    pub backup_pvc_name: Option<String>,
    /// Whether backups that name no repository go into this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// Name of the Secret with the settings of the program that reaches the storage. From later KubeBlocks releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config_secret_name: Option<String>,
}
