use std::time::Duration;

use proptest::prelude::*;

use super::{Seen, State, Step};
use crate::{
    clock::Tick,
    lease::{Timing, TimingError},
};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn at(seconds: u64) -> Tick {
    Tick::at(secs(seconds))
}

fn timing() -> Timing {
    Timing::new(secs(15), secs(10), secs(2)).unwrap()
}

fn lease(holder: &str, renewed: u64) -> Seen {
    Seen {
        holder: holder.to_owned(),
        duration: secs(15),
        renewed: renewed.to_string(),
        transitions: 0,
    }
}

#[test]
fn a_missing_lease_is_created_and_a_released_one_taken_at_once() {
    let mut state = State::new("a", timing());
    assert_eq!(state.see(None, at(0)), Step::Create);
    assert_eq!(state.see(Some(lease("", 1)), at(1)), Step::Take);
}

#[test]
fn a_foreign_lease_is_taken_only_after_it_stood_still_for_its_duration() {
    let mut state = State::new("b", timing());
    // However old the renew time looks, the clock of its holder does not count.
    assert_eq!(state.see(Some(lease("a", 0)), at(1000)), Step::Wait);
    assert_eq!(state.see(Some(lease("a", 0)), at(1014)), Step::Wait);
    assert_eq!(
        state.see(Some(lease("a", 1)), at(1015)),
        Step::Wait,
        "a renewal starts the wait anew"
    );
    assert_eq!(state.see(Some(lease("a", 1)), at(1029)), Step::Wait);
    assert_eq!(state.see(Some(lease("a", 1)), at(1030)), Step::Take);
}

#[test]
fn a_holder_with_a_longer_duration_is_given_it() {
    let mut state = State::new("b", timing());
    let long = Seen {
        duration: secs(60),
        ..lease("a", 0)
    };
    assert_eq!(state.see(Some(long.clone()), at(0)), Step::Wait);
    assert_eq!(state.see(Some(long.clone()), at(59)), Step::Wait);
    assert_eq!(state.see(Some(long), at(60)), Step::Take);
}

#[test]
fn leadership_counts_from_before_the_request() {
    let mut state = State::new("a", timing());
    state.see(None, at(0));
    // The request was begun at 1 and answered at 9.
    state.won(lease("a", 1), at(1));
    assert!(state.leads(at(10)));
    assert!(!state.leads(at(11)));
    assert_eq!(state.see(Some(lease("a", 1)), at(9)), Step::Renew);
}

#[test]
fn a_lease_seen_in_other_hands_ends_leadership_at_once() {
    let mut state = State::new("a", timing());
    state.won(lease("a", 1), at(1));
    assert_eq!(state.see(Some(lease("b", 2)), at(2)), Step::Wait);
    assert!(!state.leads(at(2)));
    state.won(lease("a", 3), at(3));
    assert_eq!(state.see(None, at(4)), Step::Create, "somebody deleted it");
    assert!(!state.leads(at(4)));
    state.won(lease("a", 5), at(5));
    state.released();
    assert!(!state.leads(at(5)));
}

#[test]
fn durations_must_leave_a_margin() {
    assert_eq!(
        Timing::new(secs(10), secs(10), secs(2)),
        Err(TimingError::RenewDeadline)
    );
    assert_eq!(
        Timing::new(secs(15), secs(10), secs(5)),
        Err(TimingError::RetryPeriod)
    );
}

/// One thing that happens to one of two candidates in the simulation.
#[derive(Clone, Copy, Debug)]
struct Turn {
    who: usize,
    /// Time passes before the read, between read and write, and before the answer arrives, in quarters of a second.
    waits: [u8; 3],
    /// The process is stopped for this many seconds afterwards.
    stopped: u8,
    write_is_lost: bool,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (
        0usize..2,
        [0u8..8, 0u8..12, 0u8..12],
        prop_oneof![8 => Just(0u8), 1 => 1u8..30],
        prop::bool::weighted(0.1),
    )
        .prop_map(|(who, waits, stopped, write_is_lost)| Turn {
            who,
            waits,
            stopped,
            write_is_lost,
        });
    prop::collection::vec(turn, 1..120)
}

proptest! {
    /// Two candidates against one compare-and-swap store, with slow and lost answers and stops: never do both lead at one time.
    #[test]
    fn two_candidates_never_lead_at_once(turns in turns()) {
        let mut states = [State::new("a", timing()), State::new("b", timing())];
        let mut store: Option<(Seen, u64)> = None;
        let mut busy = [0u64; 2];
        let mut now = 0u64; // quarters of a second
        let tick = |quarters: u64| Tick::at(Duration::from_millis(quarters * 250));
        let mut wins = 0;
        for turn in turns {
            now += u64::from(turn.waits[0]);
            if busy[turn.who] > now {
                continue;
            }
            let read = store.clone();
            let me = states[turn.who].me().to_owned();
            let step = states[turn.who].see(read.clone().map(|(seen, _)| seen), tick(now));
            if step != Step::Wait {
                now += u64::from(turn.waits[1]);
                let begun = tick(now);
                now += u64::from(turn.waits[2]);
                let version = read.as_ref().map(|(_, version)| *version);
                if store.as_ref().map(|(_, version)| *version) == version {
                    let seen = lease(&me, now);
                    store = Some((seen.clone(), version.unwrap_or(0) + 1));
                    if !turn.write_is_lost {
                        states[turn.who].won(seen, begun);
                        wins += 1;
                    }
                }
            }
            prop_assert!(!(states[0].leads(tick(now)) && states[1].leads(tick(now))));
            busy[turn.who] = now + u64::from(turn.stopped) * 4;
        }
        prop_assume!(wins > 0);
    }
}
