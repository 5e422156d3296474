//! dataprotection.kubeblocks.io/v1alpha1.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The definitions of this group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    Vec::new()
}
