//! When a pack is finished, and when a thread has to wait: decisions without side effects.
//!
//! # Why nobody waits for ever
//!
//! Bytes are counted as *held* from when a content is appended to an open pack until that pack is stored or has failed,
//! under one lock, in which nothing else waits. So at any time what is held is in open packs, in packs that are being
//! uploaded, or in failed packs. A thread that finds no room
//!
//! - gets an error if a pack has failed;
//! - waits if something is being uploaded: every upload ends, because the storage has deadlines, and wakes all who wait;
//! - otherwise everything held is in open packs, and it finishes the larger one itself, which makes it an upload.
//!
//! A thread that waits holds no lock and nothing that an upload needs. A content longer than the whole bound is let in
//! when nothing is held.

/// Limits of a writer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The most that may be held.
    pub(super) bound: u64,
    /// A pack of this length is finished.
    pub(super) full: u64,
    /// A pack of this length may be finished if there is a reason.
    pub(super) worthwhile: u64,
    /// With fewer uploads in flight, it is a reason that the network is idle.
    pub(super) eager: usize,
}

/// What is held now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// All bytes.
    pub(super) bytes: u64,
    /// Length of both open packs; 0 if there is none.
    pub(super) open: [u64; 2],
    /// Packs that are being uploaded.
    pub(super) uploading: usize,
}

/// What a thread with a content has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Append it.
    Append,
    /// Finish this open pack and look again.
    Finish(usize),
    /// Wait until something changes and look again.
    Wait,
}

impl Limits {
    /// kopia's maintenance writes contents again that are in packs of less than 60 % of the largest size, so packs are
    /// only finished early beyond that, with a margin for what is no content.
    pub(super) fn new(bound: u64, full: u64) -> Self {
        Self {
            bound,
            full,
            worthwhile: (full / 8 * 5).max(1),
            eager: 2,
        }
    }

    /// Before a content that costs `cost` is appended to the open pack `kind`.
    pub(super) fn before(&self, held: Held, kind: usize, cost: u64) -> Step {
        let length = held.open[kind];
        if length >= self.worthwhile && length + cost > self.full {
            return Step::Finish(kind);
        }
        if held.bytes == 0 || held.bytes.saturating_add(cost) <= self.bound {
            return Step::Append;
        }
        let larger = usize::from(held.open[1] > held.open[0]);
        if held.open[larger] >= self.worthwhile || (held.uploading == 0 && held.open[larger] > 0) {
            return Step::Finish(larger);
        }
        Step::Wait
    }

    /// After a content was appended to the open pack `kind`: whether to finish that.
    pub(super) fn after(&self, held: Held, kind: usize) -> bool {
        let length = held.open[kind];
        length >= self.full || (length >= self.worthwhile && held.uploading < self.eager)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn packs_are_finished_early_while_the_network_is_idle() {
        let limits = Limits::new(44 * MIB, 20 * MIB);
        let held = |open, uploading| Held {
            bytes: 0,
            open: [open, 0],
            uploading,
        };
        assert!(!limits.after(held(12 * MIB, 0), 0));
        assert!(limits.after(held(13 * MIB, 1), 0));
        assert!(!limits.after(held(13 * MIB, 2), 0));
        assert!(limits.after(held(20 * MIB, 2), 0));
        assert_eq!(limits.before(held(18 * MIB, 2), 0, 4 * MIB), Step::Finish(0));
        assert_eq!(
            limits.before(held(12 * MIB, 2), 0, 9 * MIB),
            Step::Append,
            "too small to be left"
        );
    }

    /// Plays threads that put contents and a storage that answers now and then.
    fn play(bound: u64, full: u64, contents: &[(bool, u64)], answers: &[bool]) -> Result<(), TestCaseError> {
        let limits = Limits::new(bound, full);
        let mut held = Held {
            bytes: 0,
            open: [0, 0],
            uploading: 0,
        };
        let mut uploads: Vec<u64> = Vec::new();
        let mut answers = answers.iter().copied().cycle();
        for (metadata, cost) in contents {
            let kind = usize::from(*metadata);
            let finish = |held: &mut Held, uploads: &mut Vec<u64>, kind: usize| {
                uploads.push(std::mem::take(&mut held.open[kind]));
                held.uploading += 1;
            };
            for round in 0.. {
                prop_assert!(round < 1000, "a thread waits for ever");
                match limits.before(held, kind, *cost) {
                    Step::Append => break,
                    Step::Finish(kind) => {
                        prop_assert!(held.open[kind] > 0, "an empty pack is finished");
                        finish(&mut held, &mut uploads, kind);
                    }
                    Step::Wait => {
                        prop_assert!(!uploads.is_empty(), "a thread waits for nothing");
                        held.bytes -= uploads.remove(0);
                        held.uploading -= 1;
                    }
                }
            }
            held.bytes += cost;
            held.open[kind] += cost;
            prop_assert!(held.bytes <= bound.max(*cost), "{held:?}");
            if limits.after(held, kind) {
                finish(&mut held, &mut uploads, kind);
            }
            if !uploads.is_empty() && answers.next() == Some(true) {
                held.bytes -= uploads.remove(0);
                held.uploading -= 1;
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_bound_holds_and_nobody_waits_for_ever(
            bound in 1..100_u64,
            full in 1..60_u64,
            contents in proptest::collection::vec((any::<bool>(), 1..30_u64), 1..200),
            answers in proptest::collection::vec(any::<bool>(), 1..20),
        ) {
            play(bound, full, &contents, &answers)?;
        }
    }
}
