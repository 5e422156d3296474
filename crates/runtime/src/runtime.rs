//! From arguments to running work: start, election, terms, drain, stop.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    admin::{Admin, Reply},
    api_error::chain,
    args::RuntimeArgs,
    client::{ConnectError, Endpoint},
    events::Events,
    gate::Gate,
    lease::{self, Elector, LeaseError, Timing, TimingError},
    metrics::{Metrics, MetricsError, Standard},
    readiness::{Latch, Readiness},
    shutdown::Shutdown,
    telemetry::{self, TelemetryError},
    term::Term,
};

/// How long Events that wait may take after the work has ended.
const EVENTS_GRACE: Duration = Duration::from_secs(2);
/// How long work that was dropped may take to reach an await.
const ABORT_GRACE: Duration = Duration::from_secs(5);
/// How long giving the lease up may take.
const RELEASE_GRACE: Duration = Duration::from_secs(3);

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

/// What terms are made from.
struct Terms {
    about: About,
    args: RuntimeArgs,
    endpoint: Endpoint,
    metrics: Metrics,
    standard: Standard,
    readiness: Readiness,
    shutdown: Shutdown,
}

impl Terms {
    async fn single<F, Fut, E>(&self, work: F) -> Result<(), RunError>
    where
        F: Fn(Term) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let (term, events) = self.term(&Gate::open(), self.about.name.to_owned())?;
        self.standard.leader.set((), 1.0);
        let result = self
            .supervise(AbortOnDropHandle::new(tokio::spawn(work(term))))
            .await;
        self.standard.leader.set((), 0.0);
        flush(events).await;
        result
    }

    async fn elected<F, Fut, E>(&self, timing: Timing, work: F) -> Result<(), RunError>
    where
        F: Fn(Term) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        let lease = &self.args.lease;
        let name = lease
            .lease_name
            .clone()
            .unwrap_or_else(|| format!("holdfast-{}", self.about.name));
        let namespace = lease
            .lease_namespace
            .as_deref()
            .unwrap_or(self.endpoint.default_namespace());
        let client = self.endpoint.client(&Gate::open())?;
        let mut elector = Elector::new(client, namespace, &name, lease::identity(), timing);
        let election: Latch = self.readiness.latch("the leader election");
        self.standard.leader.set((), 0.0);
        loop {
            let acquired = elector.acquire(&self.shutdown.requested, || election.set()).await;
            let Some(tenure) = acquired else { return Ok(()) };
            let (term, events) = self.term(&tenure.gate, elector.identity().to_owned())?;
            // Only now, when the term's own latch is there, may the election's go.
            election.set();
            self.standard.leader.set((), 1.0);
            let mut task = AbortOnDropHandle::new(tokio::spawn(work(term)));
            let ended = tokio::select! {
                biased;
                lost = elector.keep(&tenure) => Err(lost),
                ended = self.supervise(&mut task) => Ok(ended),
            };
            self.standard.leader.set((), 0.0);
            match ended {
                Ok(result) => {
                    stopped(task).await?;
                    flush(events).await;
                    // Work is over, so a standby may start at once.
                    if tokio::time::timeout(RELEASE_GRACE, elector.release(&tenure))
                        .await
                        .is_err()
                    {
                        tracing::warn!("the lease was not given up in time; it will expire");
                    }
                    return result;
                }
                Err(lost) => {
                    log_lost(&lost);
                    events.abort();
                    stopped(task).await?;
                }
            }
        }
    }

    /// A term whose writes pass `gate`, and the task of its Events.
    fn term(&self, gate: &Gate, instance: String) -> Result<(Term, JoinHandle<()>), ConnectError> {
        let client = self.endpoint.client(gate)?;
        let (events, task) = Events::start(
            client.clone(),
            self.about.name,
            instance,
            self.standard.events.clone(),
        );
        let term = Term {
            name: self.about.name,
            client,
            metrics: self.metrics.clone(),
            standard: self.standard.clone(),
            readiness: self.readiness.clone(),
            events,
            shutdown: self.shutdown.requested.clone(),
            namespaces: self
                .args
                .watch
                .namespaces
                .iter()
                .filter(|n| !n.is_empty())
                .cloned()
                .collect::<Vec<_>>()
                .into(),
            concurrency: self.args.watch.concurrency,
            starting: Arc::new(self.readiness.latch("the controller's start")),
        };
        Ok((term, task))
    }

    /// Waits for the work to end, within the grace period once the process shall end.
    async fn supervise<T, E>(&self, task: T) -> Result<(), RunError>
    where
        T: Future<Output = Result<Result<(), E>, tokio::task::JoinError>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let grace = self.args.shutdown_grace;
        let over = async {
            self.shutdown.requested.cancelled().await;
            self.readiness.drain();
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            ended = task => match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(RunError::Work(error.into())),
                Err(_) => Err(RunError::Panicked),
            },
            () = self.shutdown.forced.cancelled() => Err(RunError::Forced),
            () = over => Err(RunError::Grace(grace)),
        }
    }
}

fn log_lost(lost: &LeaseError) {
    tracing::error!(
        error = chain(lost),
        "leadership lost; all work is dropped, standing by"
    );
}

/// Aborts the task and waits until it is gone.
async fn stopped<T>(task: AbortOnDropHandle<T>) -> Result<(), RunError> {
    // Its result may have been taken already, and a handle must not be asked twice.
    if task.is_finished() {
        return Ok(());
    }
    task.abort();
    // Ended, aborted or panicked: in any case it runs no more.
    match tokio::time::timeout(ABORT_GRACE, task).await {
        Ok(_) => Ok(()),
        Err(_) => Err(RunError::Stuck),
    }
}

/// Lets the Events that wait go out.
async fn flush(events: JoinHandle<()>) {
    let abort = events.abort_handle();
    if tokio::time::timeout(EVENTS_GRACE, events).await.is_err() {
        abort.abort();
        tracing::debug!("events that were waiting are lost");
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
