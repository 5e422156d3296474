//! Pgpolicy: SQL to apply to clusters.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared::WorkStatus;

crate::open_enum! {
    /// Where a policy stands.
    pub enum PgpolicyState: string {
        /// Seen, nothing done yet.
        Created = "pgpolicy Created",
        /// Ready to be applied.
        Processed = "pgpolicy Processed",
    }
}

/// Where the SQL comes from.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "crunchydata.com",
    version = "v1",
    kind = "Pgpolicy",
    plural = "pgpolicies",
    shortname = "pgp",
    category = "pgo",
    namespaced,
    doc = "SQL that is applied to clusters by name.",
    status = "PgpolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    )
)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgpolicySpec {
    /// Namespace of the policy; the same as the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the policy; the same as the object's. A cluster that has it carries a label of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address that the SQL is fetched from (HTTP GET) whenever the policy is applied; wins over sql.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The SQL itself. It runs as the superuser on the primary, in the database postgres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// How far the work is; upstream leaves it empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkStatus>,
}

/// What became of the policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct PgpolicyStatus {
    /// Where the policy stands: "pgpolicy Created" or "pgpolicy Processed".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PgpolicyState>,
    /// The same in a sentence, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Added by Holdfast: what is true of the policy, by type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::conditions::conditions")]
    pub conditions: Option<Vec<Condition>>,
}
