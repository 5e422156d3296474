//! StorageProvider: how volumes are made on one kind of storage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AnyObject;

crate::open_enum! {
    /// Whether a storage provider can be used.
    pub enum StorageProviderPhase: enum {
        /// Its CSI driver is not there.
        NotReady = "NotReady",
        /// It can be used.
        Ready = "Ready",
    }
}

/// The CSI driver of a kind of storage, and templates of what it needs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "storage.kubeblocks.io",
    version = "v1alpha1",
    kind = "StorageProvider",
    plural = "storageproviders",
    category = "kubeblocks",
    doc = "How volumes for backups are made on one kind of storage, such as S3 or NFS.",
    status = "StorageProviderStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "CSIDRIVER", type_ = "string", json_path = ".spec.csiDriverName"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct StorageProviderSpec {
    /// Name of the CSI driver that mounts the volumes; none is needed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi_driver_name: Option<String>,
    /// Go template of the data of the Secret for the CSI driver, in YAML: a map of strings. It sees .Parameters, the
    /// settings of the BackupRepo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csi_driver_secret_template: Option<String>,
    /// Go template of the program's settings, for storage that is reached without a volume. It sees .Parameters. From
    /// later KubeBlocks releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasafed_config_template: Option<String>,
    /// Go template of the StorageClass, in YAML. It sees .Parameters and .CSIDriverSecretRef.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_template: Option<String>,
    /// Go template of the claim, in YAML. It sees .Parameters and .GeneratedStorageClassName. Without it a plain claim
    /// of the generated StorageClass is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_template: Option<String>,
    /// The settings that the templates need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_schema: Option<ParametersSchema>,
}

/// The settings that the templates of a storage provider need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParametersSchema {
    /// OpenAPI v3 schema of the settings.
    #[serde(rename = "openAPIV3Schema", skip_serializing_if = "Option::is_none")]
    pub open_api_v3_schema: Option<AnyObject>,
    /// Names of the settings that are secret, and so come from a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_fields: Option<Vec<String>>,
}

/// Whether the storage provider can be used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageProviderStatus {
    /// Whether the storage provider can be used: NotReady or Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<StorageProviderPhase>,
    /// What is true of the storage provider, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
    /// Added by Holdfast: the generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
