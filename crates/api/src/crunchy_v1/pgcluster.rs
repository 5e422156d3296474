//! Pgcluster: a PostgreSQL cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{PgContainerResources, PgStorageSpec, WorkStatus};

crate::open_enum! {
    /// Where a cluster stands.
    pub enum PgclusterState: string {
        /// Seen, nothing made yet.
        Created = "pgcluster Created",
        /// The operator made its parts; the database may still be starting.
        Processed = "pgcluster Processed",
        /// The first backup exists; replicas may start.
        Initialized = "pgcluster Initialized",
        /// A restore is at work.
        Restoring = "pgcluster Restoring",
    }
}

crate::open_enum! {
    /// Whether two members of a cluster may share a node.
    pub enum PodAntiAffinityType: enum {
        /// Not said: the operator's own default.
        Unset = "",
        /// Never; a member that finds no node of its own waits.
        Required = "required",
        /// Only where no other node is free.
        Preferred = "preferred",
        /// The scheduler is not told anything.
        Disabled = "disabled",
    }
}

/// What the cluster is made of. Everything is a string; an empty one means the same as none.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "crunchydata.com",
    version = "v1",
    kind = "Pgcluster",
    plural = "pgclusters",
    shortname = "pgc",
    category = "pgo",
    namespaced,
    doc = "A PostgreSQL cluster: a primary, its replicas and a pgBackRest repository.",
    status = "PgclusterStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".spec.replicas"),
    printcolumn(name = "Tag", type_ = "string", json_path = ".spec.ccpimagetag"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgclusterSpec {
    /// Namespace of the cluster; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the cluster; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the cluster once more; its parts carry it in the label pg-cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clustername: Option<String>,
    /// Names of the Pgpolicies to apply when the database is first up, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policies: Option<String>,
    /// Name of the database image, without registry and tag, such as "crunchy-postgres-ha".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ccpimage: Option<String>,
    /// Tag of the database image; says the versions of the system, PostgreSQL and the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ccpimagetag: Option<String>,
    /// TCP port of PostgreSQL, in decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// TCP port of the pgBadger report server, in decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgbadgerport: Option<String>,
    /// TCP port of the metrics exporter, in decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exporterport: Option<String>,
    /// Node that the primary should run on; any when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodename: Option<String>,
    /// Volume of the primary's data directory.
    #[serde(
        rename = "PrimaryStorage",
        alias = "primarystorage",
        skip_serializing_if = "Option::is_none"
    )]
    pub primary_storage: Option<PgStorageSpec>,
    /// Volume for archived WAL; unused since pgBackRest keeps it.
    #[serde(
        rename = "ArchiveStorage",
        alias = "archivestorage",
        skip_serializing_if = "Option::is_none"
    )]
    pub archive_storage: Option<PgStorageSpec>,
    /// Volume of each replica's data directory.
    #[serde(
        rename = "ReplicaStorage",
        alias = "replicastorage",
        skip_serializing_if = "Option::is_none"
    )]
    pub replica_storage: Option<PgStorageSpec>,
    /// Volume of the pgBackRest repository.
    #[serde(
        rename = "BackrestStorage",
        alias = "backreststorage",
        skip_serializing_if = "Option::is_none"
    )]
    pub backrest_storage: Option<PgStorageSpec>,
    /// Memory and CPU of the database containers.
    #[serde(
        rename = "ContainerResources",
        alias = "containerresources",
        skip_serializing_if = "Option::is_none"
    )]
    pub container_resources: Option<PgContainerResources>,
    /// Host name of the primary: its Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primaryhost: Option<String>,
    /// Name of the ordinary database user that is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the database that is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Number of replicas to start with, in decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<String>,
    /// Way of deploying, in decimal; only "1" was ever defined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Name of the cluster to copy the users' Secrets from; new passwords are made when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secretfrom: Option<String>,
    /// Name of the Secret with the ordinary user's name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usersecretname: Option<String>,
    /// Name of the Secret with the superuser's name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootsecretname: Option<String>,
    /// Name of the Secret with the replication user's name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primarysecretname: Option<String>,
    /// Name of the Secret with the monitoring user's name and password.
    #[serde(
        rename = "collectSecretName",
        alias = "collectsecretname",
        skip_serializing_if = "Option::is_none"
    )]
    pub collect_secret_name: Option<String>,
    /// How far the making of the cluster is: "completed" when its parts exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkStatus>,
    /// When the passwords were last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pswlastupdate: Option<String>,
    /// Name of a ConfigMap with PostgreSQL settings of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customconfig: Option<String>,
    /// Labels that the parts of the cluster get; some of them switch features, such as pgo-backrest or autofail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userlabels: Option<BTreeMap<String, String>>,
    /// Whether two members may share a node: required (never), preferred (if need be), disabled, or empty for the
    /// operator's default.
    #[serde(
        rename = "podPodAntiAffinity",
        alias = "podpodantiaffinity",
        skip_serializing_if = "Option::is_none"
    )]
    pub pod_anti_affinity: Option<PodAntiAffinityType>,
    /// Whether a commit waits for a replica; the operator's default when absent.
    #[serde(
        rename = "syncReplication",
        alias = "syncreplication",
        skip_serializing_if = "Option::is_none"
    )]
    pub sync_replication: Option<bool>,
    /// S3 bucket of the pgBackRest repository.
    #[serde(
        rename = "backrestS3Bucket",
        alias = "backrests3bucket",
        skip_serializing_if = "Option::is_none"
    )]
    pub backrest_s3_bucket: Option<String>,
    /// S3 region of the pgBackRest repository.
    #[serde(
        rename = "backrestS3Region",
        alias = "backrests3region",
        skip_serializing_if = "Option::is_none"
    )]
    pub backrest_s3_region: Option<String>,
    /// S3 endpoint of the pgBackRest repository: a host name, with its port if need be, without a scheme.
    #[serde(
        rename = "backrestS3Endpoint",
        alias = "backrests3endpoint",
        skip_serializing_if = "Option::is_none"
    )]
    pub backrest_s3_endpoint: Option<String>,
}

/// What became of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgclusterStatus {
    /// Where the cluster stands: "pgcluster Created", "pgcluster Processed", "pgcluster Initialized" or "pgcluster
    /// Restoring".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PgclusterState>,
    /// The same in a sentence, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Added by Holdfast: what is true of the cluster, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
