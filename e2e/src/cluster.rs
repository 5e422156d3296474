//! The way to the cluster.

use anyhow::{Context, Result};
use holdfast_testkit::local;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::kubectl::Kubectl;

/// A client and a kubectl for the same cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The command line.
    pub kubectl: Kubectl,
}

impl Cluster {
    /// Connects. Fails when there is no cluster, and says how to get one.
    pub async fn connect() -> Result<Self> {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let path = local::kubeconfig()?;
        let kubeconfig =
            Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config).context("cannot make a client")?;
        client
            .apiserver_version()
            .await
            .context("the cluster does not answer: run `cargo xtask cluster up`")?;
        let program = tokio::task::spawn_blocking(local::kubectl)
            .await
            .context("building kubectl panicked")??;
        Ok(Self {
            client,
            kubectl: Kubectl::new(program, path),
        })
    }
}
