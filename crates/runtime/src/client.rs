//! The connection to the API server: every call ends, few at a time, and none writes without the lease.
//!
//! kube 5's own client retries 429, 503 and 504 up to fifteen times with pauses of up to 1,000 s and has no read time-out, so
//! one call may last for hours. Here a call has one deadline that covers waiting for a free place, connecting, the
//! headers and the whole body; whoever made the call decides whether to try again.

mod layer;

pub use layer::DeadlineExceeded;

use std::time::Duration;

use kube::{Client, Config, client::ClientBuilder, config::KubeConfigOptions};

use crate::{args::ClientArgs, gate::Gate};

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read.
    #[error("cannot read the kubeconfig")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// There is neither a kubeconfig nor a service account.
    #[error("found neither a kubeconfig nor a pod's service account")]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The client refuses the configuration.
    #[error("cannot build a client for the API server")]
    Build(#[source] Box<kube::Error>),
}

/// A place to connect to, from which clients for each purpose are made.
#[derive(Clone, Debug)]
pub struct Endpoint {
    config: Config,
    limits: Limits,
}

/// What bounds the calls of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When a call that got no whole answer is given up.
    pub deadline: Duration,
    /// How many calls may be in flight at once; watches count until they have begun.
    pub concurrency: usize,
}

impl Endpoint {
    /// Reads the configuration that the arguments name.
    pub async fn find(args: &ClientArgs) -> Result<Self, ConnectError> {
        let limits = Limits {
            deadline: args.api_deadline,
            concurrency: usize::from(args.api_concurrency),
        };
        Ok(Self::new(configuration(args).await?, limits))
    }

    /// An endpoint with this configuration.
    pub fn new(mut config: Config, limits: Limits) -> Self {
        config.default_retry = false;
        // The call's own deadline comes first and names the call; this one ends attempts that nobody waits for any more.
        config.connect_timeout = Some(limits.deadline * 2);
        Self { config, limits }
    }

    /// The namespace of the pod, or of the kubeconfig's context.
    pub fn default_namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// The deadline of a call.
    pub fn deadline(&self) -> Duration {
        self.limits.deadline
    }

    /// A client whose writes pass `gate`.
    pub fn client(&self, gate: &Gate) -> Result<Client, ConnectError> {
        let builder =
            ClientBuilder::try_from(self.config.clone()).map_err(|e| ConnectError::Build(Box::new(e)))?;
        Ok(builder
            .with_layer(&layer::CallLayer::new(self.limits, gate.clone()))
            .build())
    }
}

async fn configuration(args: &ClientArgs) -> Result<Config, ConnectError> {
    let kubeconfig_error = |e| ConnectError::Kubeconfig(Box::new(e));
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &args.kubeconfig {
        let kubeconfig = kube::config::Kubeconfig::read_from(path).map_err(kubeconfig_error)?;
        return Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(kubeconfig_error);
    }
    if options.context.is_some() {
        return Config::from_kubeconfig(&options).await.map_err(kubeconfig_error);
    }
    Config::infer()
        .await
        .map_err(|e| ConnectError::Infer(Box::new(e)))
}
