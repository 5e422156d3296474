//! A limit on the bytes that the readers hold, for threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting thread looks whether it is still wanted.
const CHECK: Duration = Duration::from_millis(100);

/// Bytes that readers may hold at the same time.
#[derive(Debug)]
pub(super) struct Budget {
    free: Mutex<u64>,
    freed: Condvar,
    total: u64,
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of so many bytes.
    pub(super) fn new(total: u64) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(total),
            freed: Condvar::new(),
            total,
        })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A number is never half changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes so many bytes (at most all there are) if they are free now.
    pub(super) fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let bytes = bytes.min(self.total);
        let mut free = self.lock();
        *free = free.checked_sub(bytes)?;
        Some(self.share(bytes))
    }

    /// Waits until so many bytes (at most all there are) are free and takes them; none if `stopped` says so first.
    ///
    /// Whoever waits must hold no share, else two could wait for each other.
    pub(super) fn take(self: &Arc<Self>, bytes: u64, stopped: impl Fn() -> bool) -> Option<Share> {
        let bytes = bytes.min(self.total);
        let mut free = self.lock();
        loop {
            if stopped() {
                return None;
            }
            if let Some(rest) = free.checked_sub(bytes) {
                *free = rest;
                return Some(self.share(bytes));
            }
            free = self
                .freed
                .wait_timeout(free, CHECK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn share(self: &Arc<Self>, bytes: u64) -> Share {
        Share {
            budget: Arc::clone(self),
            bytes,
        }
    }

    fn give_back(&self, bytes: u64) {
        *self.lock() += bytes;
        self.freed.notify_all();
    }
}

impl Share {
    /// Gives back what exceeds `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        if let Some(excess) = self.bytes.checked_sub(bytes).filter(|excess| *excess > 0) {
            self.bytes = bytes;
            self.budget.give_back(excess);
        }
    }

    /// Takes over what another share holds.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Budget::new(10);
        let mut first = budget.take(8, || false).unwrap();
        assert!(budget.try_take(3).is_none());
        first.shrink(5);
        let second = budget.try_take(3).unwrap();
        first.merge(second);
        assert!(budget.try_take(3).is_none());
        assert!(budget.take(3, || true).is_none());
        let waiting = std::thread::spawn({
            let budget = Arc::clone(&budget);
            move || budget.take(u64::MAX, || false).map(|share| share.bytes)
        });
        drop(first);
        assert_eq!(waiting.join().unwrap(), Some(10));
        assert_eq!(*budget.lock(), 10);
    }
}
