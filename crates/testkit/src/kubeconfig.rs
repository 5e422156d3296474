//! Kubeconfig files.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use serde_json::json;

/// The text of a kubeconfig for one user with a bearer token. `authority` is the CA's certificate, PEM.
pub fn with_token(server: &str, authority: &str, token: &str) -> String {
    let authority = ByteString(authority.as_bytes().to_vec());
    // JSON is YAML, and quoting is its business.
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "holdfast", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": "holdfast", "user": {"token": token}}],
        "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": "holdfast"}}],
        "current-context": "holdfast",
    })
    .to_string()
}

/// Writes a file that only its owner can read, because it holds a key or a token. Replaces an older one.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let unfinished = path.with_added_extension("unfinished");
    let _ = fs::remove_file(&unfinished);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
