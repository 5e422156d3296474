//! What a controller's work is given: everything it may use while this process leads.

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    metrics::{Metrics, Standard},
    readiness::{Latch, Readiness},
};

/// One term of work: from becoming the leader (or from the start, without leader election) until that ends.
///
/// Clones share everything. Do not keep one beyond the work that it was given to: its client refuses writes then.
#[derive(Clone)]
pub struct Term {
    /// The binary's name.
    pub name: &'static str,
    /// A client whose calls end at their deadline and whose writes are refused when the term is over.
    pub client: Client,
    /// The registry, for the controller's own families.
    pub metrics: Metrics,
    /// The families that all controllers share.
    pub standard: Standard,
    /// The latches of the process.
    pub readiness: Readiness,
    /// Publishes Events.
    pub events: Events,
    /// Cancelled when the process shall end: start nothing new, finish or hand back what is in flight.
    pub shutdown: CancellationToken,
    /// Namespaces to watch; none means all.
    pub namespaces: Arc<[String]>,
    /// How many passes of one runner may run at once.
    pub concurrency: u16,
    pub(crate) starting: Arc<Latch>,
}

impl std::fmt::Debug for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Term")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Term {
    /// Says that all watches are registered, so that readiness depends on them alone.
    ///
    /// [`Runner::run`](crate::runner::Runner::run) says it; so build all runners before the first one runs. Only work without a runner has
    /// to call this.
    pub fn started(&self) {
        self.starting.set();
    }
}
