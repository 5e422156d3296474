//! How often and how long something is tried.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::error::{StoreError, StoreResult};

/// How long operations are tried. Delays between attempts grow exponentially, with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long one operation is tried altogether. A server that is away for less than this is survived.
    pub total: Duration,
    /// How long one attempt may take; an attempt that carries data gets a second more for every 256 KiB.
    pub attempt: Duration,
    /// Delay after the first failure.
    pub first_delay: Duration,
    /// Longest delay.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            total: Duration::from_mins(10),
            attempt: Duration::from_secs(30),
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(15),
        }
    }
}

/// What so many bytes take on the slowest connection that is good enough.
fn transfer_time(bytes: u64) -> Duration {
    Duration::from_secs(bytes / (256 << 10))
}

/// One failed attempt.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Trying again is pointless.
    Final(StoreError),
    /// Trying again may help; the text says what happened.
    Retry(String),
}

impl RetryPolicy {
    pub(crate) fn attempt_limit(&self, bytes: u64) -> Duration {
        self.attempt + transfer_time(bytes)
    }

    fn delays(&self) -> impl Iterator<Item = Duration> + Send {
        ExponentialBuilder::default()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.max_delay)
            .with_jitter()
            .without_max_times()
            .build()
    }

    /// How long so many bytes may take altogether, whatever the number of attempts.
    pub(crate) fn total_limit(&self, bytes: u64) -> Duration {
        self.total + transfer_time(bytes)
    }

    /// Runs `operation` until it succeeds, fails for good or the time is over. It learns the number of the attempt.
    pub(crate) async fn run<T, F>(
        &self,
        action: &'static str,
        location: &str,
        bytes: u64,
        mut operation: impl FnMut(u32) -> F,
    ) -> StoreResult<T>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let start = Instant::now();
        let limit = self.attempt_limit(bytes);
        let mut delays = self.delays();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let detail = match tokio::time::timeout(limit, operation(attempts)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(Failed::Final(error))) => return Err(error),
                Ok(Err(Failed::Retry(detail))) => detail,
                Err(_) => format!("no answer within {} s", limit.as_secs()),
            };
            let delay = delays.next().unwrap_or(self.max_delay);
            if start.elapsed() + delay >= self.total {
                let location = location.to_owned();
                return Err(StoreError::Unavailable {
                    action,
                    location,
                    attempts,
                    elapsed: start.elapsed(),
                    detail,
                });
            }
            tracing::warn!(action, location, attempt = attempts, %detail, "storage failed, trying again");
            tokio::time::sleep(delay).await;
        }
    }
}
