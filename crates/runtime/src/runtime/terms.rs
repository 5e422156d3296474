//! The terms of one process: winning, working, losing, releasing.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::{About, RunError};
use crate::{
    api_error::chain,
    args::RuntimeArgs,
    client::{ConnectError, Endpoint},
    events::Events,
    gate::Gate,
    lease::{self, Elector, LeaseError, Timing},
    metrics::{Metrics, Standard},
    readiness::{Latch, Readiness},
    shutdown::Shutdown,
    term::Term,
};

/// How long Events that wait may take after the work has ended.
const EVENTS_GRACE: Duration = Duration::from_secs(2);
/// How long work that was dropped may take to reach an await.
const ABORT_GRACE: Duration = Duration::from_secs(5);
/// How long giving the lease up may take.
const RELEASE_GRACE: Duration = Duration::from_secs(3);

/// What terms are made from.
pub(super) struct Terms {
    pub(super) about: About,
    pub(super) args: RuntimeArgs,
    pub(super) endpoint: Endpoint,
    pub(super) metrics: Metrics,
    pub(super) standard: Standard,
    pub(super) readiness: Readiness,
    pub(super) shutdown: Shutdown,
}

impl Terms {
    /// Without leader election: one term that nothing but the process itself ends.
    pub(super) async fn single<F, Fut, E>(&self, work: F) -> Result<(), RunError>
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

    /// Term after term, each from winning the Lease until losing it or the end of the process.
    pub(super) async fn elected<F, Fut, E>(&self, timing: Timing, work: F) -> Result<(), RunError>
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
