//! A limit on the bytes held in memory.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit of the semaphore stands for. A semaphore counts in `u32`, bytes would not fit.
const UNIT: u64 = 1024;

/// A number of bytes that may be in flight at the same time, shared by everything that buffers.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    semaphore: Arc<Semaphore>,
    total: u64,
}

/// A part of a [`ByteBudget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

/// Bytes together with the reservation that covers them.
#[derive(Debug)]
pub struct Buffer {
    /// The data.
    pub bytes: Bytes,
    /// What is given back once the data is no longer held; none for data too small to count.
    pub reservation: Option<Reservation>,
}

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            semaphore: Arc::new(Semaphore::new(units)),
            total: bytes / UNIT * UNIT,
        }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What is reserved now, in bytes.
    pub fn in_flight(&self) -> u64 {
        self.total - self.semaphore.available_permits() as u64 * UNIT
    }

    /// As [`reserve`](Self::reserve), for threads without a runtime; never to be called by an async task.
    pub fn reserve_blocking(&self, bytes: u64) -> Reservation {
        futures::executor::block_on(self.reserve(bytes))
    }

    /// Waits until so many bytes are free and takes them; never more than the whole budget.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let units = u32::try_from(bytes.min(self.total).div_ceil(UNIT)).unwrap_or(u32::MAX);
        match Arc::clone(&self.semaphore).acquire_many_owned(units).await {
            Ok(permit) => Reservation { permit },
            // Nothing closes the semaphore; it is private and has no method that does.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Reservation {
    /// Gives back what exceeds `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let keep = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        if let Some(excess) = self.permit.num_permits().checked_sub(keep) {
            drop(self.permit.split(excess));
        }
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * UNIT
    }
}

impl From<Bytes> for Buffer {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            reservation: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wait_too() {
        let budget = ByteBudget::new(10 * 1024);
        let first = budget.reserve_blocking(8 * 1024);
        let waiting = std::thread::spawn({
            let budget = budget.clone();
            move || budget.reserve_blocking(4 * 1024).bytes()
        });
        drop(first);
        assert_eq!(waiting.join().unwrap(), 4 * 1024);
        assert_eq!(budget.in_flight(), 0);
    }

    #[tokio::test]
    async fn what_is_reserved_comes_back() {
        let budget = ByteBudget::new(10 * 1024);
        let mut first = budget.reserve(8 * 1024).await;
        assert_eq!(budget.in_flight(), 8 * 1024);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(4 * 1024).await.bytes() }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.shrink(5 * 1024 + 1);
        assert_eq!(waiting.await.unwrap(), 4 * 1024);
        drop(first);
        assert_eq!(budget.in_flight(), 0);
        // More than there is would wait for ever.
        assert_eq!(budget.reserve(u64::MAX).await.bytes(), 10 * 1024);
    }
}
