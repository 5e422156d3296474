//! A limit on bytes per second.
//!
//! A token bucket as a virtual clock: each transfer moves the time at which the bucket is even again, and waits while
//! that time is more than a second ahead of what it costs itself. The crates that offer this (governor, leaky-bucket)
//! bring clocks, maps and quotas per key for what is a sum under a lock here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What may be transferred at once after a pause.
const BURST: Duration = Duration::from_secs(1);

/// What one transfer waits at most.
const LONGEST: Duration = Duration::from_hours(24);

/// Lets so many bytes pass in a second, on average; a second's worth at once.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    even: Mutex<Instant>,
}

impl Pace {
    /// None for no limit; a limit of nothing is none as well.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Option<Self> {
        Some(Self {
            bytes_per_second: bytes_per_second.filter(|limit| *limit > 0)?,
            even: Mutex::new(Instant::now()),
        })
    }

    /// Waits until so many bytes may pass. Those who wait are served in the order they came.
    pub(crate) async fn pass(&self, bytes: usize) {
        // More than a day for one transfer is a limit nobody meant; it must not overflow the clock.
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = u64::try_from(nanoseconds).map_or(LONGEST, |n| Duration::from_nanos(n).min(LONGEST));
        let until = {
            let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *even = (*even).max(now) + cost;
            (*even - BURST).max(now)
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_average_keeps_to_the_limit() {
        let pace = Pace::new(Some(1_000_000)).unwrap();
        let start = Instant::now();
        pace.pass(900_000).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            pace.pass(200_000).await;
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((9.8..10.0).contains(&seconds), "{seconds}");
        // A pause does not save up more than a second's worth.
        tokio::time::sleep(Duration::from_hours(1)).await;
        let start = Instant::now();
        pace.pass(3_000_000).await;
        let seconds = start.elapsed().as_secs_f64();
        assert!((1.9..2.1).contains(&seconds), "{seconds}");
    }

    #[test]
    fn no_limit_is_no_limit() {
        assert!(Pace::new(None).is_none() && Pace::new(Some(0)).is_none());
    }
}
