//! The cluster that the e2e tests run on: the local one of `cargo xtask cluster up`, or the one `HOLDFAST_KUBECONFIG` names.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{
    environment,
    parts::{Part, hex},
    process::{self, Daemon},
};

/// A short name of this checkout, the same for every run in it and another for every other folder of the machine.
pub fn checkout_id(root: &Path) -> String {
    hex(&Sha256::digest(root.as_os_str().as_encoded_bytes())[..4])
}

/// `target/cluster` of this checkout: kubeconfig, `s3.env`, logs and data of the local cluster.
pub fn folder() -> PathBuf {
    environment::workspace_root().join("target/cluster")
}

/// Where all local clusters of this machine keep what runs: one folder for each, outside the checkouts, so that it outlives them.
pub const RUN_FOLDER: &str = "/run/holdfast";

/// The pid files of this checkout's cluster.
pub fn run_folder() -> PathBuf {
    Path::new(RUN_FOLDER).join(checkout_id(&environment::workspace_root()))
}

/// The kubeconfig to use: `HOLDFAST_KUBECONFIG`, else the local cluster's. Fails when neither exists.
pub fn kubeconfig() -> Result<PathBuf> {
    let path = environment::variable(environment::KUBECONFIG)
        .map_or_else(|| folder().join("kubeconfig"), PathBuf::from);
    if !path.is_file() {
        bail!(
            "{} does not exist: run `cargo xtask cluster up`, or set {}",
            path.display(),
            environment::KUBECONFIG
        );
    }
    Ok(path)
}

/// The kubectl of the pinned Kubernetes version; built first when the cache has none.
pub fn kubectl() -> Result<PathBuf> {
    Part::Kubectl.ensure()
}

/// Access to the S3 server: that of the local cluster, in `target/cluster/s3.env`, or the one in `$HOLDFAST_S3_ENV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// The variables by their names in wal-g's and the AWS tools' environment.
    pub variables: BTreeMap<String, String>,
}

impl S3 {
    /// Reads the file. Fails when the local cluster was not started, or when a cluster was given and no S3 server with it.
    pub fn load() -> Result<Self> {
        use crate::environment::{KUBECONFIG, S3_ENV};
        let path = match (environment::variable(S3_ENV), environment::variable(KUBECONFIG)) {
            (Some(path), _) => PathBuf::from(path),
            (None, None) => folder().join("s3.env"),
            (None, Some(_)) => bail!(
                "{KUBECONFIG} is set, so no S3 server is started: name one that pods and this machine reach, by {S3_ENV}=FILE with \
                 lines AWS_ENDPOINT=http://..., AWS_REGION=..., AWS_ACCESS_KEY_ID=..., AWS_SECRET_ACCESS_KEY=..., \
                 AWS_S3_FORCE_PATH_STYLE=true"
            ),
        };
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: run `cargo xtask cluster up`", path.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Self {
            variables: pairs
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                .collect(),
        }
    }

    /// One variable, such as `AWS_ENDPOINT`; empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }
}

/// Where the S3 server's identity is kept.
pub fn s3_pid_file() -> PathBuf {
    run_folder().join("versitygw.json")
}

/// Ends the local cluster's S3 server, as a crash would; its data stay. Returns when its port is closed.
///
/// Fails when the local cluster does not run (a cluster given by `HOLDFAST_KUBECONFIG` has no S3 server of ours).
pub fn stop_s3() -> Result<()> {
    let daemon = Daemon::load(&s3_pid_file()).context("the local cluster's S3 server was never started")?;
    // The pid file stays: it says how to start the server again.
    daemon.identity.stop(Duration::ZERO)
}

/// Starts the local cluster's S3 server again, with the data it had; does nothing while it runs. Returns when it answers.
///
/// Fails when the local cluster does not run, or the server does not listen within 30 s.
pub fn start_s3() -> Result<()> {
    let pid_file = s3_pid_file();
    let daemon = Daemon::load(&pid_file).context("the local cluster's S3 server was never started")?;
    if !daemon.identity.is_alive() {
        Daemon::start(daemon.launch, &pid_file)?;
    }
    wait_for_s3()
}

/// Waits until the local cluster's S3 server accepts connections; fails after 30 s.
pub fn wait_for_s3() -> Result<()> {
    let endpoint = S3::load()?.get("AWS_ENDPOINT").to_owned();
    let address = endpoint.trim_start_matches("http://").to_owned();
    let probe = || TcpStream::connect(&address).ok();
    process::poll(Duration::from_secs(30), Duration::from_millis(20), probe)
        .with_context(|| format!("no S3 server answers at {endpoint}"))
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_checkout_has_an_id_of_its_own() {
        let (one, other) = (
            checkout_id(Path::new("/a/holdfast")),
            checkout_id(Path::new("/b/holdfast")),
        );
        assert_ne!(one, other);
        assert_eq!(one, checkout_id(Path::new("/a/holdfast")));
        assert_eq!(one.len(), 8);
    }

    #[test]
    fn the_s3_file_is_read_as_a_shell_would() {
        let s3 = S3::parse("# access\nAWS_REGION=us-east-1\nAWS_SECRET_ACCESS_KEY=a=b\n");
        assert_eq!(s3.get("AWS_REGION"), "us-east-1");
        assert_eq!(s3.get("AWS_SECRET_ACCESS_KEY"), "a=b");
        assert_eq!(s3.get("AWS_ENDPOINT"), "");
    }
}
