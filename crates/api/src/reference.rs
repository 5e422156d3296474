//! References to other objects, as the core API writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names an object of the cluster, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct ObjectReference {
    /// Group and version of the object, such as "apps/v1".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Path to the part of the object that is meant, such as "spec.containers{name}"; empty for the whole object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
    /// Kind of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the object; absent for a cluster-scoped one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Version of the object that the reference was made for, if one in particular is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// UID of the object; tells it from an earlier one of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Names one key of a Secret in the namespace of the object that holds the reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretKeySelector {
    /// Key within the Secret.
    pub key: String,
    /// Name of the Secret. The empty default exists for old objects only; a usable reference names one.
    #[serde(default)]
    pub name: String,
    /// Whether a missing Secret or key is acceptable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}
