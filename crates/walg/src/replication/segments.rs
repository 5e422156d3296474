//! Cutting a stream of WAL into segments.

use std::cmp::Ordering;

use bytes::Bytes;
use holdfast_fault::{Class, Fault};

use super::wal_stream::WalChunk;
use crate::lsn::{Lsn, Segment, SegmentSize};

/// Zeros to fill a segment with.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What to do with the segment that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentEvent {
    /// A segment begins; data follow.
    Begin(Segment),
    /// The next bytes of the segment.
    Data(Bytes),
    /// The segment is whole.
    End(Segment),
}

/// WAL that does not fit onto what came before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// WAL is missing.
    #[error("wal from {expected} to {got} is missing")]
    Gap {
        /// What should have come.
        expected: Lsn,
        /// What came.
        got: Lsn,
    },
    /// WAL came twice.
    #[error("wal at {got} came again after {expected}")]
    Overlap {
        /// What should have come.
        expected: Lsn,
        /// What came.
        got: Lsn,
    },
}

impl Fault for SegmentError {
    fn class(&self) -> Class {
        Class::Transient
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "WalGap",
            Self::Overlap { .. } => "WalOverlap",
        }
    }
}

/// Cuts chunks of WAL into segments without holding any data: bytes go through as they come.
///
/// ```
/// # use bytes::Bytes;
/// # use holdfast_walg::lsn::{Lsn, Segment, SegmentSize};
/// # use holdfast_walg::replication::{SegmentEvent, WalChunk, WalSegments};
/// let size = SegmentSize::default();
/// let first = Segment::containing(Lsn(0x2_0000_0028), 1, size);
/// let mut segments = WalSegments::starting_with(first, size);
/// let chunk = WalChunk { start: first.start(size), data: Bytes::from_static(b"wal"), server_end: first.end(size) };
/// let events: Vec<_> = segments.push(chunk)?.collect();
/// assert_eq!(events, [SegmentEvent::Begin(first), SegmentEvent::Data(Bytes::from_static(b"wal"))]);
/// assert_eq!(segments.pad().last(), Some(SegmentEvent::End(first)));
/// # Ok::<(), holdfast_walg::replication::SegmentError>(())
/// ```
#[derive(Debug)]
pub struct WalSegments {
    timeline: u32,
    size: SegmentSize,
    next: Lsn,
    open: Option<Segment>,
}

impl WalSegments {
    /// Expects the first byte of `segment` first.
    pub fn starting_with(segment: Segment, size: SegmentSize) -> Self {
        Self {
            timeline: segment.timeline,
            size,
            next: segment.start(size),
            open: None,
        }
    }

    /// The position of the byte that must come next.
    pub fn position(&self) -> Lsn {
        self.next
    }

    /// The segment that has begun and is not whole.
    pub fn open(&self) -> Option<Segment> {
        self.open
    }

    /// Takes the next chunk. Take all events before the next call: bytes in events that nobody takes are lost, and the
    /// next chunk then leaves a gap.
    pub fn push(&mut self, chunk: WalChunk) -> Result<SegmentEvents<'_>, SegmentError> {
        let (expected, got) = (self.next, chunk.start);
        match got.cmp(&expected) {
            Ordering::Less => Err(SegmentError::Overlap { expected, got }),
            Ordering::Greater => Err(SegmentError::Gap { expected, got }),
            Ordering::Equal => Ok(SegmentEvents {
                segments: self,
                data: chunk.data,
            }),
        }
    }

    /// Fills the open segment with zeros, as PostgreSQL's own files are behind the last record; nothing when none is
    /// open. What comes next is then the next segment.
    pub fn pad(&mut self) -> impl Iterator<Item = SegmentEvent> + '_ {
        std::iter::from_fn(|| {
            self.open?;
            self.step(&mut Bytes::from_static(&ZEROS))
        })
    }

    fn step(&mut self, data: &mut Bytes) -> Option<SegmentEvent> {
        if let Some(segment) = self.open
            && segment.end(self.size) == self.next
        {
            self.open = None;
            return Some(SegmentEvent::End(segment));
        }
        if data.is_empty() {
            return None;
        }
        let Some(segment) = self.open else {
            let segment = Segment::containing(self.next, self.timeline, self.size);
            self.open = Some(segment);
            return Some(SegmentEvent::Begin(segment));
        };
        let missing = usize::try_from(segment.end(self.size).0 - self.next.0).unwrap_or(usize::MAX);
        let part = data.split_to(missing.min(data.len()));
        self.next = self.next.plus(part.len() as u64);
        Some(SegmentEvent::Data(part))
    }
}

/// The events of one chunk.
#[derive(Debug)]
pub struct SegmentEvents<'a> {
    segments: &'a mut WalSegments,
    data: Bytes,
}

impl Iterator for SegmentEvents<'_> {
    type Item = SegmentEvent;

    fn next(&mut self) -> Option<SegmentEvent> {
        self.segments.step(&mut self.data)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_mebibyte() -> SegmentSize {
        SegmentSize::from_bytes(1 << 20).unwrap()
    }

    fn chunk(start: u64, data: &[u8]) -> WalChunk {
        WalChunk {
            start: Lsn(start),
            data: Bytes::copy_from_slice(data),
            server_end: Lsn(u64::MAX),
        }
    }

    /// The segments that come out whole.
    fn collect(
        events: impl Iterator<Item = SegmentEvent>,
        open: &mut Vec<u8>,
        done: &mut Vec<(Segment, Vec<u8>)>,
    ) {
        for event in events {
            match event {
                SegmentEvent::Begin(_) => assert!(open.is_empty()),
                SegmentEvent::Data(data) => open.extend(data),
                SegmentEvent::End(segment) => done.push((segment, std::mem::take(open))),
            }
        }
    }

    #[test]
    fn wal_that_does_not_fit_is_refused_and_changes_nothing() {
        let size = one_mebibyte();
        let mut segments = WalSegments::starting_with(
            Segment {
                timeline: 3,
                number: 5,
            },
            size,
        );
        assert_eq!(segments.push(chunk(5 << 20, &[1; 10])).unwrap().count(), 2);
        let expected = Lsn((5 << 20) + 10);
        let gap = segments.push(chunk(expected.0 + 1, b"x")).unwrap_err();
        assert_eq!(
            gap,
            SegmentError::Gap {
                expected,
                got: expected.plus(1)
            }
        );
        assert_eq!(gap.to_string(), "wal from 0/50000A to 0/50000B is missing");
        let overlap = segments.push(chunk(expected.0 - 1, b"x")).unwrap_err();
        assert_eq!(
            overlap,
            SegmentError::Overlap {
                expected,
                got: expected.before()
            }
        );
        assert_eq!(segments.position(), expected);
        assert_eq!(
            segments.open(),
            Some(Segment {
                timeline: 3,
                number: 5
            })
        );
    }

    #[test]
    fn nothing_is_padded_when_no_segment_is_open() {
        let size = one_mebibyte();
        let mut segments = WalSegments::starting_with(
            Segment {
                timeline: 1,
                number: 0,
            },
            size,
        );
        assert_eq!(segments.pad().count(), 0);
        let whole = vec![9; 1 << 20];
        let events: Vec<_> = segments.push(chunk(0, &whole)).unwrap().collect();
        assert_eq!(
            events.last(),
            Some(&SegmentEvent::End(Segment {
                timeline: 1,
                number: 0
            }))
        );
        assert_eq!(segments.pad().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_cutting_gives_the_same_segments(first in 0u64..9, cuts in proptest::collection::vec(1usize..400_000, 1..20)) {
            let size = one_mebibyte();
            let total: usize = cuts.iter().sum();
            let wal: Vec<u8> = (0..=250u8).cycle().take(total).collect();
            let segment = Segment { timeline: 2, number: first };
            let mut segments = WalSegments::starting_with(segment, size);
            let (mut open, mut done, mut at) = (Vec::new(), Vec::new(), 0);
            for cut in cuts {
                let start = segment.start(size).0 + at as u64;
                collect(segments.push(chunk(start, &wal[at..at + cut])).unwrap(), &mut open, &mut done);
                at += cut;
            }
            prop_assert_eq!(segments.open().is_some(), !total.is_multiple_of(1 << 20));
            collect(segments.pad(), &mut open, &mut done);
            prop_assert!(open.is_empty());
            let mut expected = wal;
            expected.resize(expected.len().next_multiple_of(1 << 20), 0);
            for (nth, ((got, data), want)) in done.iter().zip(expected.chunks(1 << 20)).enumerate() {
                prop_assert_eq!(*got, Segment { timeline: 2, number: first + nth as u64 });
                prop_assert!(data == want);
            }
            prop_assert_eq!(done.len() << 20, expected.len());
        }
    }
}
