//! From arguments to running work: start, election, terms, drain, stop.

mod terms;

use std::{future::Future, io, time::Duration};

use tokio_util::sync::CancellationToken;

use self::terms::Terms;
use crate::{
    admin::{Admin, Reply},
    api_error::chain,
    args::RuntimeArgs,
    client::{ConnectError, Endpoint},
    lease::{Timing, TimingError},
    metrics::{Metrics, MetricsError, Standard},
    readiness::Readiness,
    shutdown::Shutdown,
    telemetry::{self, TelemetryError},
    term::Term,
};

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// The binary's name: reporter of Events, and with `holdfast-` in front the default name of the Lease.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// The process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    /// The admin address cannot be bound.
    #[error("cannot listen on {address}")]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no way to the API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A metric cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The durations of the election do not fit together.
    #[error("the lease's durations do not fit together")]
    Lease(#[from] TimingError),
}

/// The work did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The work failed.
    #[error("the controller failed")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The work panicked.
    #[error("the controller panicked")]
    Panicked,
    /// Work in flight did not end within the grace period and was dropped.
    #[error("work in flight did not end within {} ms and was dropped", .0.as_millis())]
    Grace(Duration),
    /// A second signal came.
    #[error("stopped at once by a second signal")]
    Forced,
    /// Dropped work did not reach an await: it blocks a thread, which is a defect.
    #[error("dropped work does not stop")]
    Stuck,
    /// No client for a new term.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Everything started, nothing running yet.
#[derive(Debug)]
pub struct Runtime {
    about: About,
    args: RuntimeArgs,
    endpoint: Endpoint,
    timing: Timing,
    metrics: Metrics,
    standard: Standard,
    readiness: Readiness,
    admin: Admin,
    shutdown: Shutdown,
}

impl Runtime {
    /// Sets up logs, TLS, signals, metrics, the admin server and the way to the API server. Once per process.
    pub async fn start(about: About, args: &RuntimeArgs) -> Result<Self, StartError> {
        telemetry::init(&args.log)?;
        install_crypto_provider();
        let shutdown = Shutdown::on_signals().map_err(StartError::Signals)?;
        let endpoint = Endpoint::find(&args.client).await?;
        let runtime = Self::assemble(about, args, endpoint, shutdown).await?;
        tracing::info!(name = about.name, version = about.version, admin = %args.admin_address, "started");
        Ok(runtime)
    }

    /// The same from parts, touching nothing that is global to the process.
    pub async fn assemble(
        about: About,
        args: &RuntimeArgs,
        endpoint: Endpoint,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        let lease = &args.lease;
        let timing = Timing::new(
            lease.lease_duration,
            lease.lease_renew_deadline,
            lease.lease_retry_period,
        )?;
        let (metrics, readiness) = (Metrics::new(), Readiness::new());
        let standard = Standard::register(&metrics, about.version)?;
        let address = args.admin_address;
        let admin = Admin::bind(address, &readiness, &metrics).await;
        let admin = admin.map_err(|source| StartError::Admin { address, source })?;
        Ok(Self {
            about,
            args: args.clone(),
            endpoint,
            timing,
            metrics,
            standard,
            readiness,
            admin,
            shutdown,
        })
    }

    /// Adds a route to the admin server.
    #[must_use]
    pub fn route(
        mut self,
        path: &'static str,
        handler: impl Fn() -> futures::future::BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Self {
        self.admin = self.admin.route(path, handler);
        self
    }

    /// The address of the admin server, with the port it got.
    pub fn admin_address(&self) -> io::Result<std::net::SocketAddr> {
        self.admin.address()
    }

    /// The registry.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Runs `work` for each term of leadership until it ends or the process shall end.
    ///
    /// With leader election `work` is called anew for each term: when the lease is lost, its future is dropped at once and the process
    /// stands by again. On SIGTERM `term.shutdown` is cancelled, and the future gets the grace period to end.
    pub async fn run<F, Fut, E>(self, work: F) -> Result<(), RunError>
    where
        F: Fn(Term) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let Self {
            about,
            args,
            endpoint,
            timing,
            metrics,
            standard,
            readiness,
            admin,
            shutdown,
        } = self;
        let stop = CancellationToken::new();
        let admin = tokio::spawn(admin.serve(stop.clone()));
        let terms = Terms {
            about,
            args,
            endpoint,
            metrics,
            standard,
            readiness: readiness.clone(),
            shutdown,
        };
        let result = if terms.args.lease.leader_election {
            terms.elected(timing, work).await
        } else {
            terms.single(work).await
        };
        readiness.drain();
        stop.cancel();
        if let Err(error) = admin.await {
            tracing::error!(%error, "the admin server panicked");
        }
        match &result {
            Ok(()) => tracing::info!("stopped"),
            Err(error) => tracing::error!(error = chain(error), "stopped"),
        }
        result
    }
}

/// Makes ring the process's TLS provider. Further calls change nothing.
///
/// rustls panics at the first connection when two providers are compiled in and none was chosen.
pub fn install_crypto_provider() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("a TLS provider was installed before");
    }
}

/// Runs `future` on a tokio runtime of at most four threads, as many as there are processors.
///
/// A controller waits most of the time. With tokio's default of one thread per processor it would pay for 64 stacks and allocator
/// arenas on a node with 64 processors.
///
/// # Errors
///
/// The operating system refuses threads.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let output = runtime.block_on(future);
    // Work that blocks a thread must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(output)
}
