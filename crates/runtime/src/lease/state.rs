//! The election as a state machine: what was seen and what the steady clock says in, what to do out. Pure.

use std::time::Duration;

use super::Timing;
use crate::clock::Tick;

/// What matters of a Lease that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; empty when it was released.
    pub holder: String,
    /// How long its holder asks others to wait.
    pub duration: Duration,
    /// Changes with each renewal: the renew time as text, compared for equality only.
    pub renewed: String,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: create it.
    Create,
    /// It is free or stood still for long enough: take it by PUT with the version that was read.
    Take,
    /// It is ours: renew it by PUT with the version that was read.
    Renew,
    /// Somebody else holds it: look again after the retry period.
    Wait,
}

/// What one candidate knows.
#[derive(Clone, Debug)]
pub struct State {
    me: String,
    timing: Timing,
    /// The Lease as last seen, and when it was first seen so.
    observed: Option<(Seen, Tick)>,
    /// When the request that last took or renewed the Lease was begun.
    held_since: Option<Tick>,
}

impl State {
    /// A candidate that knows nothing yet. `me` must be unique to this process, not only to this pod: a restarted container must
    /// not take its predecessor's Lease for its own.
    pub fn new(me: impl Into<String>, timing: Timing) -> Self {
        Self {
            me: me.into(),
            timing,
            observed: None,
            held_since: None,
        }
    }

    /// This candidate's identity.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// The Lease as it was read at `now`; `None` when there is none. Answers what to do.
    pub fn see(&mut self, seen: Option<Seen>, now: Tick) -> Step {
        let Some(seen) = seen else {
            self.observed = None;
            self.held_since = None;
            return Step::Create;
        };
        let since = match &self.observed {
            Some((known, since)) if *known == seen => *since,
            _ => now,
        };
        self.observed = Some((seen.clone(), since));
        if seen.holder == self.me {
            return Step::Renew;
        }
        // Somebody else, or nobody: whatever we believed to hold is gone.
        self.held_since = None;
        // The longer of both, for the holder may run with other settings during a rollout.
        let patience = self.timing.duration.max(seen.duration);
        if seen.holder.is_empty() || now.since(since) >= patience {
            Step::Take
        } else {
            Step::Wait
        }
    }

    /// A create, take or renew that was begun at `begun` has succeeded.
    pub fn won(&mut self, seen: Seen, begun: Tick) {
        self.held_since = Some(begun);
        self.observed = Some((seen, begun));
    }

    /// The Lease was given up.
    pub fn released(&mut self) {
        self.held_since = None;
    }

    /// Until when this candidate surely leads; `None` when it does not hold the Lease.
    pub fn until(&self) -> Option<Tick> {
        self.held_since
            .map(|since| since.plus(self.timing.renew_deadline))
    }

    /// Whether this candidate leads at `now`.
    pub fn leads(&self, now: Tick) -> bool {
        self.until().is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests;
