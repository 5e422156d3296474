//! Manifests: small JSON documents with labels.

mod id;

pub use id::ManifestId;
