//! Readiness: one latch for each thing that must have happened once.
//!
//! A controller that answers "ready" before its watches have listed decides on a cache with holes. So each watch registers a
//! latch when it is built and sets it when its first list is whole; `/readyz` names the latches that are missing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The latches of a process; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    missing: BTreeMap<u64, String>,
    draining: bool,
}

impl Readiness {
    /// No latch, hence ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers something that must happen before the process is ready.
    ///
    /// The name appears in the body of `/readyz`, so it may name a kind or a namespace, but nothing secret.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        self.with(|state| {
            state.next += 1;
            state.missing.insert(state.next, name.into());
            Latch {
                readiness: self.clone(),
                id: state.next,
            }
        })
    }

    /// What has not happened yet, in the order of registration; empty when the process is ready.
    pub fn missing(&self) -> Vec<String> {
        self.with(|state| {
            let draining = state.draining.then(|| "shutting down".to_owned());
            draining
                .into_iter()
                .chain(state.missing.values().cloned())
                .collect()
        })
    }

    /// Whether everything registered has happened and the process is not shutting down.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Not ready from here on: the process is shutting down.
    pub fn drain(&self) {
        self.with(|state| state.draining = true);
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One thing that must happen once. Dropping it withdraws the requirement: what no longer exists is not waited for.
#[derive(Debug)]
#[must_use = "a dropped latch is no longer waited for"]
pub struct Latch {
    readiness: Readiness,
    id: u64,
}

impl Latch {
    /// It happened; calling again changes nothing.
    pub fn set(&self) {
        self.readiness.with(|state| state.missing.remove(&self.id));
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.set();
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn ready_only_after_each_latch() {
        let readiness = Readiness::new();
        let (jobs, backups) = (
            readiness.latch("watch of Job"),
            readiness.latch("watch of PostgresBackup"),
        );
        assert_eq!(readiness.missing(), ["watch of Job", "watch of PostgresBackup"]);
        backups.set();
        assert_eq!(readiness.missing(), ["watch of Job"]);
        jobs.set();
        jobs.set();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_dropped_latch_is_not_waited_for() {
        let readiness = Readiness::new();
        drop(readiness.latch("gone"));
        assert!(readiness.is_ready());
    }

    #[test]
    fn draining_is_never_ready() {
        let readiness = Readiness::new();
        readiness.drain();
        assert_eq!(readiness.missing(), ["shutting down"]);
    }
}
