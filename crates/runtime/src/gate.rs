//! The leadership gate: what a write has to pass before it leaves the process.
//!
//! Stopping the work when a lease is lost is not enough. A process that is stopped (SIGSTOP, a paused VM, a starved node)
//! does not notice that its lease ran out, and on waking it goes on in the middle of a pass. So every request that
//! changes something first asks the gate, which compares the steady clock with the time until which the lease surely
//! holds. The check costs one clock reading and needs no task of ours to have run.
//!
//! What remains: a process stopped between the check and the system call that sends the request. That window is
//! microseconds wide and cannot be closed from this side; creations under deterministic names and updates with a
//! resourceVersion are safe within it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::Tick;

const CLOSED: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// A write was refused because this process may no longer be the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the leader any more, so nothing may be written")]
pub struct NotLeading;

/// Says whether this process may write; clones share the answer.
///
/// Each term of leadership has a gate of its own that never opens again once closed, so that a task left over from an
/// earlier term cannot write in a later one.
#[derive(Clone, Debug)]
pub struct Gate(Arc<AtomicU64>);

impl Gate {
    /// A gate that is always open: no leader election.
    pub fn open() -> Self {
        Self(Arc::new(AtomicU64::new(ALWAYS)))
    }

    /// A gate that is open until `until`.
    pub fn until(until: Tick) -> Self {
        Self(Arc::new(AtomicU64::new(nanos(until))))
    }

    /// Moves the end of an open gate; a closed one stays closed.
    pub fn extend(&self, until: Tick) {
        let moved = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            (now != CLOSED).then(|| nanos(until))
        });
        // Closed in the meantime: nothing to extend.
        let _: Result<u64, u64> = moved;
    }

    /// Closes the gate for good.
    pub fn close(&self) {
        self.0.store(CLOSED, Ordering::SeqCst);
    }

    /// How long the gate surely stays open from `now`; `None` without an end.
    ///
    /// # Errors
    ///
    /// The gate is closed, or its time is over.
    pub fn remaining(&self, now: Tick) -> Result<Option<Duration>, NotLeading> {
        match self.0.load(Ordering::SeqCst) {
            ALWAYS => Ok(None),
            until => {
                let left = until.saturating_sub(nanos(now));
                if left == 0 {
                    Err(NotLeading)
                } else {
                    Ok(Some(Duration::from_nanos(left)))
                }
            }
        }
    }

    /// Whether something may be written now.
    ///
    /// # Errors
    ///
    /// The gate is closed, or its time is over.
    pub fn check(&self) -> Result<(), NotLeading> {
        self.remaining(Tick::now()).map(|_| ())
    }

    /// Ends when the gate is closed or its time is over; never for a gate without an end.
    pub async fn lost(&self) {
        // Closing does not wake anybody; who closes a gate also drops the work that waits here.
        while let Ok(left) = self.remaining(Tick::now()) {
            let Some(left) = left else {
                return std::future::pending().await;
            };
            tokio::time::sleep(left).await;
        }
    }
}

fn nanos(tick: Tick) -> u64 {
    u64::try_from(tick.since_boot().as_nanos())
        .unwrap_or(ALWAYS - 1)
        .clamp(1, ALWAYS - 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Gate, NotLeading};
    use crate::clock::Tick;

    const fn at(seconds: u64) -> Tick {
        Tick::at(Duration::from_secs(seconds))
    }

    #[test]
    fn a_gate_is_open_until_its_time() {
        let gate = Gate::until(at(100));
        assert_eq!(gate.remaining(at(90)), Ok(Some(Duration::from_secs(10))));
        assert_eq!(gate.remaining(at(100)), Err(NotLeading));
        gate.extend(at(110));
        assert_eq!(gate.remaining(at(100)), Ok(Some(Duration::from_secs(10))));
    }

    #[test]
    fn a_closed_gate_never_opens_again() {
        let gate = Gate::until(at(100));
        gate.clone().close();
        gate.extend(at(200));
        assert_eq!(gate.remaining(at(1)), Err(NotLeading));
    }

    #[test]
    fn without_leader_election_it_has_no_end() {
        assert_eq!(Gate::open().remaining(at(u64::MAX / 2_000_000_000)), Ok(None));
    }
}
