//! The controller, in this process, as its ServiceAccount.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use holdfast_runtime::client::{Endpoint, Limits};
use holdfast_runtime::shutdown::Shutdown;
use holdfast_runtime::{About, RunError, Runtime, RuntimeArgs};
use holdfast_testkit::ControlPlane;
use kube::Config as ClientConfig;
use pg_backup::config::Config;
use pg_backup::controller::{self, NAME};
use pg_backup::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Namespace of the controller, as in deploy/pg-backup.
pub(crate) const NAMESPACE: &str = "holdfast-system";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    config: Config,
}

/// A running controller.
pub(crate) struct Controller {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Controller {
    /// Starts one for the objects of `namespace`, with a Lease of its own.
    pub(crate) async fn start(control_plane: &ControlPlane, namespace: &str) -> Self {
        let flags = Flags::parse_from([
            "pg-backup",
            "--log=warn",
            "--admin-address=127.0.0.1:0",
            "--pod-name=pg-backup-0",
            &format!("--pod-namespace={NAMESPACE}"),
            &format!("--lease-namespace={NAMESPACE}"),
            &format!("--lease-name={namespace}"),
            &format!("--namespaces={namespace}"),
        ]);
        // Another test of this binary may have set it up already.
        let _ = holdfast_runtime::telemetry::init(&flags.runtime.log);
        let token = control_plane
            .service_account_token(NAMESPACE, NAME)
            .await
            .expect("a token");
        let mut config: ClientConfig = control_plane.config();
        config.auth_info.token = Some(token.into());
        let limits = Limits {
            deadline: Duration::from_secs(10),
            concurrency: 16,
        };
        let endpoint = Endpoint::new(config, limits);
        let shutdown = Shutdown::manual();
        let stop = shutdown.requested.clone();
        let about = About {
            name: NAME,
            version: "test",
        };
        let runtime = Runtime::assemble(about, &flags.runtime, endpoint, shutdown)
            .await
            .expect("a runtime");
        let metrics = Arc::new(Metrics::register(runtime.metrics()).expect("metrics"));
        let config = flags.config;
        let task = tokio::spawn(async move {
            runtime
                .run(|term| controller::run(term, config.clone(), metrics.clone()))
                .await
        });
        Self { stop, task }
    }

    /// Ends it as SIGTERM would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}
