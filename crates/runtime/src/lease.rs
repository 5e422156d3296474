//! Leader election by a `coordination.k8s.io/v1` Lease.
//!
//! # What is guaranteed
//!
//! - A Lease is taken, renewed and released by PUT with the resourceVersion that was read (compare-and-swap), so of two candidates
//!   that saw the same state one wins.
//! - Expiry is judged by watching the Lease stand still on the local steady clock. No clock of another machine is compared.
//! - The leader counts its own time from *before* the request that renewed it, and stops at the renew deadline (10 s), while others wait
//!   for the lease duration (15 s) from *after* they saw the renewal. The difference is the margin for requests still on their way.
//! - Work of a term is dropped when the term ends, and its writes are refused by the term's [`Gate`](crate::gate::Gate) at
//!   the same instant, also when the process was stopped and no timer ran.
//!
//! # What is not
//!
//! This is cooperative: only writes through the term's client are gated. See [`gate`](crate::gate) for the window that remains.

mod elector;
mod state;

pub(crate) use elector::identity;
pub use elector::{Elector, LeaseError, Tenure};
pub use state::{Seen, State, Step};

use std::time::Duration;

/// The three durations of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last renewal they saw.
    pub duration: Duration,
    /// When a leader that could not renew stops.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry_period: Duration,
}

/// The durations of an election do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The leader would work on while another one starts.
    #[error("the renew deadline must be below the lease duration by at least one second")]
    RenewDeadline,
    /// There would be one attempt to renew at most.
    #[error("the retry period must be below half of the renew deadline")]
    RetryPeriod,
}

impl Timing {
    /// Durations that fit together.
    pub fn new(
        duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, TimingError> {
        if duration < renew_deadline + Duration::from_secs(1) {
            return Err(TimingError::RenewDeadline);
        }
        if renew_deadline <= retry_period * 2 {
            return Err(TimingError::RetryPeriod);
        }
        Ok(Self {
            duration,
            renew_deadline,
            retry_period,
        })
    }
}
