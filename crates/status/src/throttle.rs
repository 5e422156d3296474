//! How often the progress of an object may be written, pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How much time lies between two writes of the progress of one object.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The turns of all objects, by UID.
#[derive(Debug)]
pub(crate) struct Throttle<P> {
    slots: HashMap<String, Slot<P>>,
}

#[derive(Debug)]
struct Slot<P> {
    last: Instant,
    pending: Option<P>,
}

impl<P: Clone> Throttle<P> {
    pub(crate) fn new() -> Self {
        Self {
            slots: HashMap::new(),
        }
    }

    /// Whether this value may be written now; else it is kept as the one to flush.
    ///
    /// The turn is taken before the request, so that two reports at once make one write, and an API server that fails is
    /// not asked more often either.
    pub(crate) fn admit(&mut self, uid: &str, value: &P, now: Instant) -> bool {
        let has_served = |slot: &Slot<P>| now.saturating_duration_since(slot.last) >= INTERVAL;
        // A slot without a value that has served its time says nothing anymore.
        self.slots
            .retain(|_, slot| slot.pending.is_some() || !has_served(slot));
        match self.slots.get_mut(uid) {
            Some(slot) if !has_served(slot) => {
                slot.pending = Some(value.clone());
                false
            }
            _ => {
                self.slots.insert(
                    uid.to_owned(),
                    Slot {
                        last: now,
                        pending: None,
                    },
                );
                true
            }
        }
    }

    /// Takes the value that waits, and the turn.
    pub(crate) fn take(&mut self, uid: &str, now: Instant) -> Option<P> {
        let slot = self.slots.get_mut(uid)?;
        let value = slot.pending.take()?;
        slot.last = now;
        Some(value)
    }

    /// Puts back a value that could not be written, unless a later one has come.
    pub(crate) fn put_back(&mut self, uid: &str, value: P, now: Instant) {
        let slot = self.slots.entry(uid.to_owned()).or_insert(Slot {
            last: now,
            pending: None,
        });
        slot.pending.get_or_insert(value);
    }

    pub(crate) fn forget(&mut self, uid: &str) {
        self.slots.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::{INTERVAL, Throttle};
    use std::time::{Duration, Instant};

    #[test]
    fn one_turn_per_interval_and_object() {
        let start = Instant::now();
        let mut throttle = Throttle::new();
        let mut turns = Vec::new();
        for tick in 0..=200 {
            let now = start + Duration::from_millis(100) * tick;
            if throttle.admit("a", &tick, now) {
                turns.push(tick);
            }
        }
        assert_eq!(turns, [0, 50, 100, 150, 200]);
        assert!(
            throttle.admit("b", &0, start + Duration::from_secs(20)),
            "another object has turns of its own"
        );
    }

    #[test]
    fn the_last_value_waits_to_be_flushed_once() {
        let start = Instant::now();
        let mut throttle = Throttle::new();
        assert!(throttle.admit("a", &1, start));
        assert_eq!(throttle.take("a", start), None, "the first value needs no flush");
        assert!(!throttle.admit("a", &2, start));
        assert!(!throttle.admit("a", &3, start));
        let later = start + Duration::from_secs(3);
        assert_eq!(throttle.take("a", later), Some(3));
        assert_eq!(throttle.take("a", later), None);
        assert!(
            !throttle.admit("a", &4, start + INTERVAL),
            "a flush takes the turn"
        );
        assert!(throttle.admit("a", &5, later + INTERVAL));
        assert_eq!(
            throttle.take("a", later + INTERVAL),
            None,
            "a value that was written waits no longer"
        );
    }

    #[test]
    fn a_failed_value_waits_unless_a_later_one_came() {
        let start = Instant::now();
        let mut throttle = Throttle::new();
        assert!(throttle.admit("a", &1, start));
        throttle.put_back("a", 1, start);
        assert_eq!(throttle.take("a", start), Some(1));
        assert!(!throttle.admit("a", &2, start));
        throttle.put_back("a", 1, start);
        assert_eq!(throttle.take("a", start), Some(2));
        throttle.forget("a");
        throttle.put_back("a", 3, start);
        assert_eq!(throttle.take("a", start), Some(3));
    }

    #[test]
    fn objects_that_are_over_take_no_memory() {
        let start = Instant::now();
        let mut throttle = Throttle::new();
        for object in 0..1000 {
            assert!(throttle.admit(&object.to_string(), &1, start));
        }
        throttle.forget("0");
        assert_eq!(throttle.slots.len(), 999);
        assert!(throttle.admit("late", &1, start + INTERVAL));
        assert_eq!(throttle.slots.len(), 1);
    }
}
