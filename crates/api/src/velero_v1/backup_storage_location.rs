//! BackupStorageLocation: a bucket and how to reach it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{GoDuration, SecretKeySelector};

crate::open_enum! {
    /// How a location may be used.
    pub enum AccessMode: enum {
        /// Backups are read only.
        ReadOnly = "ReadOnly",
        /// Backups are read and written; an absent mode means the same.
        ReadWrite = "ReadWrite",
    }
}

crate::open_enum! {
    /// Whether a location can be reached.
    pub enum LocationPhase: enum {
        /// It can be reached.
        Available = "Available",
        /// It cannot, or nobody has looked yet.
        Unavailable = "Unavailable",
    }
}

/// Where backups are stored, and how to reach it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "velero.io",
    version = "v1",
    kind = "BackupStorageLocation",
    plural = "backupstoragelocations",
    shortname = "bsl",
    namespaced,
    doc = "A place in object storage that holds backups.",
    status = "BackupStorageLocationStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Whether the location can be reached"
    ),
    printcolumn(
        name = "Last Validated",
        type_ = "date",
        json_path = ".status.lastValidationTime",
        description = "Time since the location was last tried"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Default",
        type_ = "boolean",
        json_path = ".spec.default",
        description = "Whether backups go here that name no location"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BackupStorageLocationSpec {
    /// How the location may be used; absent means ReadWrite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Time between two comparisons of the location with the cluster; 0 turns them off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub backup_sync_period: Option<GoDuration>,
    /// Settings of the provider, such as region and s3Url.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, String>>,
    /// Key of the Secret that holds the access data; absent for the server's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<SecretKeySelector>,
    /// Whether backups go here that name no location.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<bool>,
    /// The bucket.
    pub object_storage: ObjectStorageLocation,
    /// Provider of the storage, such as aws, azure or gcp, with or without the domain of its plugin.
    pub provider: String,
    /// Time between two checks that the location can be reached; 0 turns them off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub validation_frequency: Option<GoDuration>,
}

/// A bucket, and a folder in it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStorageLocation {
    /// Name of the bucket.
    pub bucket: String,
    /// Certificates to trust when connecting, PEM in base64. Older form of caCertRef; not together with it.
    #[serde(rename = "caCert", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "byte"))]
    pub ca_cert: Option<ByteString>,
    /// Key of the Secret that holds the certificates to trust when connecting, PEM. Since Velero 1.18.
    #[serde(rename = "caCertRef", skip_serializing_if = "Option::is_none")]
    pub ca_cert_ref: Option<SecretKeySelector>,
    /// Folder in the bucket; absent or empty for the whole bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// What is known of the location.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStorageLocationStatus {
    /// Unused; accessMode of the spec counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Unused; no longer written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_synced_revision: Option<String>,
    /// When the location was last compared with the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub last_synced_time: Option<Time>,
    /// When the location was last tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub last_validation_time: Option<Time>,
    /// Why the phase is what it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the location can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<LocationPhase>,
}
