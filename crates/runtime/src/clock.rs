//! The two clocks: the wall clock, read once per pass, and a steady clock that counts time asleep.

use std::time::Duration;

use jiff::Timestamp;

/// The wall clock. A pass reads it once and hands the value in; pure code never calls this.
#[expect(
    clippy::disallowed_methods,
    reason = "the single place that reads the wall clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A reading of the steady clock: time since boot, including time the machine was suspended.
///
/// A lease goes on expiring while this process is stopped or the machine sleeps. `std::time::Instant` is
/// `CLOCK_MONOTONIC` on Linux, which stands still during suspend, so it would let a woken leader believe that no time
/// has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(Duration);

impl Tick {
    /// The steady clock now.
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let spec = rustix::time::clock_gettime(clock);
        let seconds = u64::try_from(spec.tv_sec).unwrap_or(0);
        Self(Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(spec.tv_nsec).unwrap_or(0)))
    }

    /// A reading at this time since boot; for tests on a manual clock.
    pub const fn at(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Time since boot.
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this reading is; zero if it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This reading, later by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Tick;

    #[test]
    fn the_steady_clock_runs_forward() {
        let first = Tick::now();
        let second = Tick::now();
        assert!(second >= first);
        assert!(second.since(first) < Duration::from_mins(1));
        assert!(first.since_boot() > Duration::ZERO);
    }

    #[test]
    fn a_difference_is_never_negative() {
        let early = Tick::at(Duration::from_secs(1));
        let late = early.plus(Duration::from_secs(2));
        assert_eq!(late.since(early), Duration::from_secs(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
