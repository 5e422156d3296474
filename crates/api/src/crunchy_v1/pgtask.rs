//! Pgtask: one piece of work on a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::{PgStorageSpec, WorkStatus};

crate::open_enum! {
    /// Where a task stands.
    pub enum PgtaskState: string {
        /// Seen, nothing done yet.
        Created = "pgtask Created",
        /// Taken up; spec.status says how far it is.
        Processed = "pgtask Processed",
    }
}

crate::open_enum! {
    /// What a task does. Words of other releases are kept.
    pub enum TaskType: string {
        /// Records the milestones of a longer operation; does nothing itself.
        Workflow = "workflow",
        /// Lists the policies that a new cluster gets, as keys of the parameters.
        AddPolicies = "addpolicies",
        /// Removes the Jobs of a cluster's backups.
        DeleteBackups = "delete-backups",
        /// Records that automatic failover was switched; does nothing itself.
        Autofailover = "autofailover",
        /// Makes a chosen replica the primary.
        Failover = "failover",
        /// Removes a cluster, a replica or a backup with its data.
        DeleteData = "delete-data",
        /// Runs a pgBackRest command in the repository's pod.
        Backrest = "backrest",
        /// Restores a cluster from its pgBackRest repository.
        Restore = "restore",
        /// Dumps a database with pg_dump or pg_dumpall.
        PgDump = "pgdump",
        /// Restores such a dump.
        PgRestore = "pgrestore",
        /// Restores a copy that pg_basebackup made.
        PgBasebackupRestore = "pgbasebackuprestore",
        /// Puts a pgBouncer in front of a cluster.
        AddPgbouncer = "add-pgbouncer",
        /// Takes the pgBouncer away.
        DeletePgbouncer = "delete-pgbouncer",
        /// Changes the settings of the pgBouncer.
        ReconfigurePgbouncer = "reconfigure-pgbouncer",
        /// Lets the pgBouncer's user in, once the primary is ready.
        UpdatePgbouncerAuths = "update-pgbouncer-auths",
        /// Runs pgbench against a cluster.
        Benchmark = "benchmark",
        /// First step of a clone: copies the pgBackRest repository.
        CloneStep1 = "clone-step1",
        /// Second step of a clone: restores from the copy.
        CloneStep2 = "clone-step2",
        /// Third step of a clone: creates the Pgcluster.
        CloneStep3 = "clone-step3",
        /// Moves a cluster to another image of the same PostgreSQL major version.
        MinorUpgrade = "minorupgradecluster",
    }
}

/// What to do.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "crunchydata.com",
    version = "v1",
    kind = "Pgtask",
    plural = "pgtasks",
    shortname = "pgt",
    category = "pgo",
    namespaced,
    doc = "One piece of work on a cluster, done once.",
    status = "PgtaskStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.tasktype"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.parameters.pg-cluster"),
    printcolumn(name = "Status", type_ = "string", json_path = ".spec.status"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgtaskSpec {
    /// Namespace of the task; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the task; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Volume that the work writes to, where it needs one, such as that of a dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storagespec: Option<PgStorageSpec>,
    /// What to do, such as backrest, restore, failover, pgdump, delete-data or workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasktype: Option<TaskType>,
    /// How far the work is: "job submitted", "job completed" or "job error" for work done by a Job, else "in
    /// progress" and "completed".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkStatus>,
    /// What the work needs to know, by name; the names depend on the type. Progress is recorded here too, as a name
    /// with a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
}

/// What became of the task.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgtaskStatus {
    /// Where the task stands: "pgtask Created" or "pgtask Processed".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PgtaskState>,
    /// The same in a sentence, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Added by Holdfast: what is true of the task, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
