//! The environment variables that testkit and the tasks understand, read in one place.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Names a folder for finished binaries and images, instead of `holdfast` in the user's cache folder.
pub const CACHE: &str = "HOLDFAST_CACHE";
/// Names the kubeconfig of an existing cluster, to be used instead of a local one.
pub const KUBECONFIG: &str = "HOLDFAST_KUBECONFIG";
/// Names a file with the access data of an S3 server, for a cluster named by `HOLDFAST_KUBECONFIG`.
pub const S3_ENV: &str = "HOLDFAST_S3_ENV";
/// Names the registry (`host/path`) that an existing cluster pulls images from.
pub const REGISTRY: &str = "HOLDFAST_REGISTRY";

/// The value of an environment variable; none when it is unset, empty or not UTF-8.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where testkit and the tasks read the environment"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where finished binaries and images are kept between runs, shared by all checkouts of a user.
///
/// `$HOLDFAST_CACHE`, else `$XDG_CACHE_HOME/holdfast`, else `~/.cache/holdfast`. Fails when none of the three is set.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = variable(CACHE) {
        return std::path::absolute(dir).context(CACHE);
    }
    let base = match variable("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(variable("HOME").with_context(|| format!("neither {CACHE} nor HOME is set"))?)
            .join(".cache"),
    };
    Ok(base.join("holdfast"))
}

/// The top folder of this checkout.
///
/// Cargo says at run time where the package lies; that matters where two checkouts share a target folder. A program started without
/// Cargo uses the checkout that it was built in.
pub fn workspace_root() -> PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let started_in = variable("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let top = |folder: &Path| {
        folder
            .ancestors()
            .find(|folder| folder.join("e2e/cluster").is_dir())
            .map(Path::to_path_buf)
    };
    started_in
        .as_deref()
        .and_then(top)
        .or_else(|| top(built_in))
        .unwrap_or_else(|| built_in.to_path_buf())
}
