//! What went wrong with single entries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::{KopiaError, KopiaResult};

/// An entry of a snapshot with which something is wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its path below the root of the snapshot; empty for the root.
    pub path: PathBuf,
    /// What is wrong. Several entries may share one error, as they share a content.
    pub error: Arc<KopiaError>,
}

/// What to do about entries that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The first one ends everything.
    Stop,
    /// The others are worked on; failures are counted and the first of them are listed.
    Continue {
        /// How many are listed.
        list: usize,
    },
}

/// Failures so far.
#[derive(Debug)]
pub(crate) struct Failures {
    policy: OnError,
    count: AtomicU64,
    listed: Mutex<Vec<Failure>>,
    stop: CancellationToken,
}

impl Failures {
    /// None yet. `stop` is cancelled when a failure is to end everything.
    pub(crate) fn new(policy: OnError, stop: CancellationToken) -> Self {
        Self {
            policy,
            count: AtomicU64::new(0),
            listed: Mutex::default(),
            stop,
        }
    }

    /// Notes a failure. That the work was cancelled is none.
    pub(crate) fn add(&self, path: impl FnOnce() -> PathBuf, error: Arc<KopiaError>) {
        if matches!(*error, KopiaError::Cancelled) {
            return;
        }
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let (limit, stop) = match self.policy {
            OnError::Stop => (1, true),
            OnError::Continue { list } => (list, false),
        };
        if before < limit as u64 {
            let failure = Failure { path: path(), error };
            tracing::warn!(path = %failure.path.display(), error = %failure.error, "an entry failed");
            self.listed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(failure);
        }
        if stop {
            self.stop.cancel();
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The list, if the work may count as done; the failure that ended it otherwise.
    pub(crate) fn finish(&self) -> KopiaResult<Vec<Failure>> {
        let mut listed = std::mem::take(&mut *self.listed.lock().unwrap_or_else(PoisonError::into_inner));
        match self.policy {
            OnError::Stop => match listed.pop() {
                Some(Failure { path, error }) => Err(KopiaError::Entry {
                    path: shown(&path),
                    source: error,
                }),
                None => Ok(Vec::new()),
            },
            OnError::Continue { .. } => Ok(listed),
        }
    }
}

/// The root has no name; people read a dot as it.
fn shown(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Arc<KopiaError> {
        Arc::new(KopiaError::ContentNotFound { id: "00".to_owned() })
    }

    #[test]
    fn the_first_failure_ends_everything_or_the_first_are_listed() {
        let stop = CancellationToken::new();
        let failures = Failures::new(OnError::Stop, stop.clone());
        failures.add(|| "x".into(), Arc::new(KopiaError::Cancelled));
        assert!(!stop.is_cancelled() && failures.count() == 0);
        failures.add(|| "a/b".into(), missing());
        failures.add(|| "c".into(), missing());
        assert!(stop.is_cancelled());
        let text = failures.finish().unwrap_err().to_string();
        assert_eq!(text, "a/b: content 00 is in no index of the repository");

        let stop = CancellationToken::new();
        let failures = Failures::new(OnError::Continue { list: 2 }, stop.clone());
        for name in ["a", "b", "c"] {
            failures.add(|| name.into(), missing());
        }
        assert!(!stop.is_cancelled());
        assert_eq!(failures.count(), 3);
        let listed = failures.finish().unwrap();
        assert_eq!(
            listed
                .iter()
                .map(|f| f.path.to_str().unwrap())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
