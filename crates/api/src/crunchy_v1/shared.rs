//! Parts that several kinds of the group share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

crate::open_enum! {
    /// How the volume behind a storage specification comes to be.
    pub enum StorageType: enum {
        /// Not said; no volume is made.
        Unset = "",
        /// A claim is created and bound to a volume that exists, chosen by `matchLabels` if given.
        Create = "create",
        /// A claim is created and its storage class makes the volume.
        Dynamic = "dynamic",
        /// The claim that `name` names is used as it is.
        Existing = "existing",
        /// No claim: an emptyDir volume, gone with its pod.
        EmptyDir = "emptydir",
    }
}

crate::open_enum! {
    /// How far the work behind an object is, as `spec.status` has it. Job words may be followed by " [<job name>]".
    pub enum WorkStatus: string {
        /// Nothing done yet.
        Unset = "",
        /// Asked for, not begun.
        Submitted = "submitted",
        /// Begun.
        InProgress = "in progress",
        /// Done.
        Completed = "completed",
        /// The Job exists.
        JobSubmitted = "job submitted",
        /// The Job succeeded.
        JobCompleted = "job completed",
        /// The Job failed.
        JobError = "job error",
        /// A replica is to be made anew after a restore of its cluster.
        Restore = "restore",
    }
}

/// A volume: where it comes from, how large it is, who may write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgStorageSpec {
    /// Name of the claim. The operator fills it in once it has created one; it is given where the type is existing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the storage class that makes the volume; the cluster's default class when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storageclass: Option<String>,
    /// Access mode of the claim, such as "ReadWriteOnce".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accessmode: Option<String>,
    /// Size of the volume as a quantity, such as "10Gi".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Where the volume comes from: create (bind to one that exists), dynamic (the storage class makes it), existing
    /// (use the claim of that name), emptydir (no claim, gone with its pod), or empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storagetype: Option<StorageType>,
    /// Group id, in decimal, that owns the files of the volume; the pods' fsGroup. None when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsgroup: Option<String>,
    /// Further group ids, in decimal and separated by commas, that the pods' processes belong to; for NFS and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplementalgroups: Option<String>,
    /// Label of the volume to bind to, as "key=value"; for the type create.
    #[serde(
        rename = "matchLabels",
        alias = "matchlabels",
        skip_serializing_if = "Option::is_none"
    )]
    pub match_labels: Option<String>,
}

/// What the database container asks for and may use. Taken into account only when all four are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgContainerResources {
    /// Memory that is reserved, as a quantity, such as "512Mi".
    #[serde(rename = "requestsmemory", skip_serializing_if = "Option::is_none")]
    pub requests_memory: Option<String>,
    /// CPU that is reserved, as a quantity, such as "0.5" or "500m".
    #[serde(rename = "requestscpu", skip_serializing_if = "Option::is_none")]
    pub requests_cpu: Option<String>,
    /// Memory that may be used at most, as a quantity, such as "1Gi".
    #[serde(rename = "limitsmemory", skip_serializing_if = "Option::is_none")]
    pub limits_memory: Option<String>,
    /// CPU that may be used at most, as a quantity, such as "2".
    #[serde(rename = "limitscpu", skip_serializing_if = "Option::is_none")]
    pub limits_cpu: Option<String>,
}
