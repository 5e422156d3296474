//! The volume that a BackupPolicy stores its backups on, where no BackupRepo is used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME_PATTERN, QUANTITY_PATTERN};
use crate::IntOrString;

crate::open_enum! {
    /// Whether a missing claim is created.
    pub enum CreatePvcPolicy: enum {
        /// It is created, to be mounted by many nodes at a time.
        IfNotPresent = "IfNotPresent",
        /// It is not; the backup fails.
        Never = "Never",
    }
}

/// The volume that backups are stored on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaim {
    /// Name of the claim, in the namespace of this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the storage class, if the claim is created. Not together with persistentVolumeConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub storage_class_name: Option<String>,
    /// Size of the volume, if the claim is created; 100Gi when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY_PATTERN))]
    pub init_capacity: Option<IntOrString>,
    /// Whether a missing claim is created, with access mode ReadWriteMany: IfNotPresent, or Never (the backup fails).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "IfNotPresent"))]
    pub create_policy: Option<CreatePvcPolicy>,
    /// ConfigMap with a template of the persistent volume, if the claim is created. The template stands under the key
    /// persistentVolume; $(GENERATE_NAME) in it becomes the claim's name, a dash and its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_config_map: Option<PersistentVolumeConfigMap>,
}

impl PersistentVolumeClaim {
    /// Whether a missing claim is created, with the default of the definition.
    pub fn create_policy(&self) -> CreatePvcPolicy {
        self.create_policy
            .clone()
            .unwrap_or(CreatePvcPolicy::IfNotPresent)
    }
}

/// A ConfigMap with a template of a persistent volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeConfigMap {
    /// Name of the ConfigMap.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// Namespace of the ConfigMap.
    #[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9\-]*[a-z0-9])?$"))]
    pub namespace: String,
}
