//! Manifests: small JSON documents with labels.
