//! Pgreplica: one replica of a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{PgContainerResources, PgStorageSpec, WorkStatus};

crate::open_enum! {
    /// Where a replica stands.
    pub enum PgreplicaState: string {
        /// Seen, nothing made yet.
        Created = "pgreplica Created",
        /// Waits until its cluster is initialized.
        PendingInit = "pgreplica Pending init",
        /// Waits until the restore of its cluster has ended.
        PendingRestore = "pgreplica Pending restore",
        /// Its parts exist.
        Processed = "pgreplica Processed",
    }
}

/// Which cluster the replica belongs to, and what it runs on.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "crunchydata.com",
    version = "v1",
    kind = "Pgreplica",
    plural = "pgreplicas",
    shortname = "pgr",
    category = "pgo",
    namespaced,
    doc = "One streaming replica of a Pgcluster.",
    status = "PgreplicaStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clustername"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".spec.replicastorage.size",
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
pub struct PgreplicaSpec {
    /// Namespace of the replica; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the replica; the same as the object's, and of its Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the Pgcluster that it replicates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clustername: Option<String>,
    /// Volume of the replica's data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicastorage: Option<PgStorageSpec>,
    /// Memory and CPU of the database container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerresources: Option<PgContainerResources>,
    /// How far the making of the replica is: "completed" when its parts exist, "restore" when they are to be made
    /// anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkStatus>,
    /// Labels that the parts of the replica get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userlabels: Option<BTreeMap<String, String>>,
}

/// What became of the replica.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgreplicaStatus {
    /// Where the replica stands: "pgreplica Created", "pgreplica Pending init", "pgreplica Pending restore" or
    /// "pgreplica Processed".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PgreplicaState>,
    /// The same in a sentence, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Added by Holdfast: what is true of the replica, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
