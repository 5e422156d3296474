//! When a pass is repeated. Pure: the attempt and a random number in, a delay out.

use std::time::Duration;

use holdfast_fault::Class;

/// Exponential back-off with jitter: `first`, twice that, and so on up to `most`, each shortened by up to half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest delay after the first failure.
    pub first: Duration,
    /// The longest delay of all.
    pub most: Duration,
}

impl Backoff {
    /// The delay after the failure number `attempt`, counted from 0; `random` is in 0..1.
    pub fn delay(self, attempt: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(attempt.min(31)));
        jittered(doubled.min(self.most), random)
    }
}

/// Half of `longest` and a random part of the other half, so that objects that failed together do not come back together.
fn jittered(longest: Duration, random: f64) -> Duration {
    longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// How passes are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// After a [`Class::Transient`] error, a deadline or a panic.
    pub transient: Backoff,
    /// After a [`Class::Conflict`]: prompt, for the next read settles most of them.
    pub conflict: Backoff,
    /// After a [`Class::Denied`] error: slow, for a person must act.
    pub denied: Duration,
    /// After a pass that awaits a change, in case the change was missed; also after a [`Class::Invalid`] error.
    pub resync: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            transient: Backoff {
                first: Duration::from_secs(1),
                most: Duration::from_mins(5),
            },
            conflict: Backoff {
                first: Duration::from_millis(100),
                most: Duration::from_secs(5),
            },
            denied: Duration::from_mins(5),
            resync: Duration::from_hours(1),
        }
    }
}

impl Policy {
    /// The delay after an error of this class, when it is failure number `attempt` in a row, counted from 0.
    pub fn after_error(&self, class: Class, attempt: u32, random: f64) -> Duration {
        match class {
            Class::Invalid => jittered(self.resync, random),
            Class::Denied => jittered(self.denied, random),
            Class::Conflict => self.conflict.delay(attempt, random),
            Class::Transient => self.transient.delay(attempt, random),
        }
    }

    /// The delay after a pass that awaits a change.
    pub fn resync(&self, random: f64) -> Duration {
        jittered(self.resync, random)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_fault::Class;
    use proptest::prelude::*;

    use super::Policy;

    #[test]
    fn transient_failures_come_back_slower_each_time_up_to_the_limit() {
        let policy = Policy::default();
        let delays: Vec<_> = (0..12)
            .map(|n| policy.after_error(Class::Transient, n, 1.0).as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn each_class_has_its_pace() {
        let policy = Policy::default();
        assert_eq!(
            policy.after_error(Class::Conflict, 0, 0.0),
            Duration::from_millis(50)
        );
        assert_eq!(policy.after_error(Class::Denied, 7, 1.0), Duration::from_mins(5));
        assert_eq!(
            policy.after_error(Class::Invalid, 7, 1.0),
            Duration::from_hours(1)
        );
    }

    proptest! {
        #[test]
        fn jitter_takes_at_most_half(attempt in 0u32..100, random in 0f64..1.0) {
            let policy = Policy::default();
            for class in [Class::Transient, Class::Conflict, Class::Denied, Class::Invalid] {
                let (least, delay, most) = (
                    policy.after_error(class, attempt, 0.0),
                    policy.after_error(class, attempt, random),
                    policy.after_error(class, attempt, 1.0),
                );
                prop_assert!(least <= delay && delay <= most && least * 2 >= most && !least.is_zero());
            }
        }
    }
}
