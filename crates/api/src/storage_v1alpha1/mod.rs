//! `storage.kubeblocks.io/v1alpha1`: StorageProvider, which a BackupRepo of KubeBlocks refers to.
//!
//! An object without `spec` is refused, unlike upstream, as it could never provide anything.

mod storage_provider;

pub use storage_provider::{
    ParametersSchema, StorageProvider, StorageProviderPhase, StorageProviderSpec, StorageProviderStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::schema::{Shape, crd};

const SHAPE: Shape = Shape {
    status_subresource: true,
    spec_required: true,
};

/// The definitions of this group.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![crd::<StorageProvider>(SHAPE)]
}

#[cfg(test)]
mod tests;
