//! Bytes that are not what they ought to be, for the tests of everything that parses.
//!
//! A parser is given golden bytes cut off anywhere, golden bytes that were changed, and bytes that make no sense at all.
//! Each time it must come back, with whatever answer, and must not have allocated more than it is allowed to.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// How many cases of each kind.
const CASES: u32 = 1000;
/// Golden bytes are cut off at so many places.
const CUTS: usize = 400;

/// How much a parser may allocate at one time for an input of `length` bytes: `fixed + length * per_byte`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) fixed: u64,
    pub(crate) per_byte: u64,
}

impl Bound {
    pub(crate) const fn new(fixed: u64, per_byte: u64) -> Self {
        Self { fixed, per_byte }
    }

    fn of(self, length: usize) -> u64 {
        self.fixed + self.per_byte * length as u64
    }
}

/// A change of golden bytes. Places are relative to the length.
#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Set(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, u8),
    Truncate(Index),
}

/// Runs a parser on golden bytes and on what they may become. What the parser gives must be dropped in it.
///
/// # Panics
///
/// With the smallest input that was found for which the parser panics or allocates too much.
#[track_caller]
pub(crate) fn check(golden: &[&[u8]], bound: Bound, parse: impl Fn(&[u8])) {
    check_cases(Location::caller(), CASES, golden, bound, parse);
}

/// The same for parsers that take long.
#[track_caller]
pub(crate) fn check_few(golden: &[&[u8]], bound: Bound, parse: impl Fn(&[u8])) {
    check_cases(Location::caller(), CASES / 10, golden, bound, parse);
}

fn check_cases(caller: &Location<'_>, cases: u32, golden: &[&[u8]], bound: Bound, parse: impl Fn(&[u8])) {
    let worst = Cell::new((0, 0));
    let one = |bytes: &[u8]| {
        // A panic must not leave `measure` half done.
        let mut outcome = Ok(());
        let run = || outcome = catch_unwind(AssertUnwindSafe(|| parse(bytes)));
        let most = measure(run).bytes_max;
        if let Err(panic) = outcome {
            resume_unwind(panic);
        }
        if most > worst.get().0 {
            worst.set((most, bytes.len()));
        }
        if most <= bound.of(bytes.len()) {
            Ok(())
        } else {
            let problem = format!("{most} bytes were allocated for {}", bytes.len());
            Err(TestCaseError::fail(problem))
        }
    };
    for golden in golden {
        for cut in cuts(golden.len()) {
            if let Err(error) = one(&golden[..cut]) {
                panic!("{caller}: cut off at {cut}: {error}");
            }
        }
    }
    let config = Config {
        cases,
        // The seeds would be kept beside this file, whichever parser they are of.
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let arbitrary = vec(any::<u8>(), 0..600);
    if let Err(error) = runner.run(&arbitrary, |bytes| one(&bytes)) {
        panic!("{caller}: arbitrary bytes: {error}");
    }
    if golden.is_empty() {
        return;
    }
    let changed = (any::<Index>(), vec(edit(), 1..6));
    let run = runner.run(&changed, |(which, edits)| {
        let mut bytes = golden[which.index(golden.len())].to_vec();
        for edit in &edits {
            apply(edit, &mut bytes);
        }
        one(&bytes)
    });
    if let Err(error) = run {
        panic!("{caller}: changed bytes: {error}");
    }
    let (most, length) = worst.get();
    eprintln!("{caller}: at most {most} bytes were allocated, for {length} bytes of input");
}

/// Where bytes are cut off: everywhere, or at the ends and at places between.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(CUTS).max(1);
    let edge = CUTS / 4;
    (0..=length).filter(move |at| at % step == 0 || *at < edge || length - at < edge)
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = any::<Index>;
    // Numbers that are often the wrong ones, of all widths and both orders.
    let number = prop_oneof![
        Just(0_u64),
        Just(1),
        Just(0x7f),
        Just(0xff),
        Just(0x7fff_ffff),
        Just(0xffff_ffff),
        Just(u64::MAX >> 1),
        Just(u64::MAX),
        any::<u64>(),
    ];
    let number = (number, 1_usize..=8, any::<bool>()).prop_map(|(number, width, little)| {
        if little {
            number.to_le_bytes()[..width].to_vec()
        } else {
            number.to_be_bytes()[8 - width..].to_vec()
        }
    });
    // What means something in JSON and in names.
    let text = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\\",
        "\\u0000",
        "\\ud800",
        "null",
        "-1",
        "1e999",
        "true",
        "[[[[",
        "{}",
        "18446744073709551616",
        "..",
        "/",
        "\0",
        "\u{fffd}",
        "k",
        "x",
        "I",
        "Z",
        "-s",
        "-c2",
        "_",
    ])
    .prop_map(|text: &str| text.as_bytes().to_vec());
    let bytes = prop_oneof![number, text, vec(any::<u8>(), 0..20)].boxed();
    prop_oneof![
        (place(), 0_u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (place(), bytes.clone()).prop_map(|(at, bytes)| Edit::Set(at, bytes)),
        (place(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (place(), 1_usize..40).prop_map(|(at, length)| Edit::Remove(at, length)),
        (place(), 1_usize..40, 1_u8..30).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        place().prop_map(Edit::Truncate),
    ]
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>) {
    let at = |index: &Index| index.index(bytes.len() + 1);
    let range = |index: &Index, length: usize| -> Range<usize> {
        let start = at(index);
        start..(start + length).min(bytes.len())
    };
    match edit {
        Edit::Flip(index, bit) => {
            if !bytes.is_empty() {
                let at = index.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
        }
        Edit::Set(index, new) => {
            let range = range(index, new.len());
            bytes.splice(range, new.iter().copied());
        }
        Edit::Insert(index, new) => {
            let at = at(index);
            bytes.splice(at..at, new.iter().copied());
        }
        Edit::Remove(index, length) => {
            let range = range(index, *length);
            bytes.drain(range);
        }
        Edit::Repeat(index, length, times) => {
            let range = range(index, *length);
            let part = bytes[range.clone()].repeat(usize::from(*times));
            bytes.splice(range.end..range.end, part);
        }
        Edit::Truncate(index) => {
            let at = at(index);
            bytes.truncate(at);
        }
    }
}

#[test]
fn what_allocates_too_much_is_found() {
    let caught = |parse: fn(&[u8])| {
        let run = || check(&[b"{\"size\":5}"], Bound::new(10_000, 10), parse);
        std::panic::catch_unwind(run).is_err()
    };
    assert!(!caught(|bytes| drop(bytes.to_vec())));
    // The number of elements is believed, whatever it is.
    assert!(caught(|bytes| {
        if let [first, second, ..] = bytes {
            let count = usize::from(*first) * 256 + usize::from(*second);
            drop(Vec::<u64>::with_capacity(count));
        }
    }));
    assert!(caught(|bytes| assert!(!bytes.contains(&0xff))));
}
