//! The database that is backed up or restored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME_PATTERN, embedded};

/// Which pods hold the database, and how to log in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetCluster {
    /// Labels of the pods that hold the database, in the namespace of this object. The first of them by name is used.
    #[schemars(schema_with = "embedded::label_selector")]
    pub labels_selector: LabelSelector,
    /// Secret to log in to the database with. Without it the commands get no user and no password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<BackupPolicySecret>,
}

/// A Secret with the name and the password of a database user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicySecret {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// Key of the user's name within the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "username"))]
    pub username_key: Option<String>,
    /// Key of the password within the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "password"))]
    pub password_key: Option<String>,
}

impl BackupPolicySecret {
    /// Key of the user's name, with the default of the definition.
    pub fn username_key(&self) -> &str {
        self.username_key.as_deref().unwrap_or("username")
    }

    /// Key of the password, with the default of the definition.
    pub fn password_key(&self) -> &str {
        self.password_key.as_deref().unwrap_or("password")
    }
}
