//! Positions in the write-ahead log, and the names of the segments they lie in.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `bytes` further; stays at the last one.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The position one byte before; stays at the first one.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is no log position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a log position such as 0/16B6C50")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |part: &str| {
            let valid = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            valid.then(|| u32::from_str_radix(part, 16).ok()).flatten()
        };
        let parsed = text
            .split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = parsed.ok_or_else(|| ParseLsnError(text.to_owned()))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// The size of a WAL segment, `wal_segment_size`: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize(u64);

impl Default for SegmentSize {
    fn default() -> Self {
        Self(16 << 20)
    }
}

/// A size that no WAL segment has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a WAL segment size: a power of two from 1 MiB to 1 GiB")]
pub struct SegmentSizeError(String);

impl SegmentSize {
    /// Checks a number of bytes.
    pub fn from_bytes(bytes: u64) -> Result<Self, SegmentSizeError> {
        let valid = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        valid
            .then_some(Self(bytes))
            .ok_or_else(|| SegmentSizeError(bytes.to_string()))
    }

    /// Reads what `SHOW wal_segment_size` answers, for example `16MB`.
    pub fn from_setting(text: &str) -> Result<Self, SegmentSizeError> {
        let wrong = || SegmentSizeError(text.to_owned());
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let bytes = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .ok_or_else(wrong)?;
        Self::from_bytes(bytes)
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// One WAL segment of one timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The timeline the segment belongs to.
    pub timeline: u32,
    /// The number of the segment: log position divided by the segment size.
    pub number: u64,
}

impl Segment {
    /// The segment that holds the byte at `lsn`.
    pub fn containing(lsn: Lsn, timeline: u32, size: SegmentSize) -> Self {
        Self {
            timeline,
            number: lsn.0 / size.bytes(),
        }
    }

    /// The next segment of the same timeline.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            timeline: self.timeline,
            number: self.number + 1,
        }
    }

    /// The position of the first byte.
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.number * size.bytes())
    }

    /// The position behind the last byte.
    pub fn end(self, size: SegmentSize) -> Lsn {
        self.next().start(size)
    }

    /// The file name, 24 hexadecimal digits: timeline, upper and lower half of the number.
    pub fn file_name(self, size: SegmentSize) -> String {
        let per_log = (1 << 32) / size.bytes();
        format!(
            "{:08X}{:08X}{:08X}",
            self.timeline,
            self.number / per_log,
            self.number % per_log
        )
    }

    /// Reads a file name of 24 hexadecimal digits.
    pub fn from_file_name(name: &str, size: SegmentSize) -> Option<Self> {
        let valid = name.len() == 24 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
        let part = |range| {
            valid
                .then(|| u32::from_str_radix(&name[range], 16).ok())
                .flatten()
        };
        let (timeline, log, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        let per_log = (1 << 32) / size.bytes();
        (u64::from(low) < per_log).then_some(Self {
            timeline,
            number: u64::from(log) * per_log + u64::from(low),
        })
    }
}

/// The name of a timeline's history file, `00000002.history`.
pub fn history_file_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_read_and_write_as_postgresql_does() {
        assert_eq!(Lsn(0x016B_6C50).to_string(), "0/16B6C50");
        assert_eq!("2A/FF000028".parse(), Ok(Lsn(0x2A_FF00_0028)));
        for wrong in ["", "0", "0/", "/0", "0/123456789", "+1/0", "g/0", "0/0/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn segment_names_follow_the_segment_size() {
        let default = SegmentSize::default();
        let at = |lsn: u64, size| Segment::containing(Lsn(lsn), 1, size).file_name(size);
        assert_eq!(at(0x2_0000_0028, default), "000000010000000200000000");
        assert_eq!(at(0x1_FFFF_FFFF, default), "0000000100000001000000FF");
        let one = SegmentSize::from_setting("1MB").unwrap();
        assert_eq!(at(0x1_FFFF_FFFF, one), "000000010000000100000FFF");
        let big = SegmentSize::from_setting("1GB").unwrap();
        assert_eq!(at(0x1_FFFF_FFFF, big), "000000010000000100000003");
        assert_eq!(Segment::from_file_name("000000010000000100000004", big), None);
        assert_eq!(Segment::from_file_name("00000001000000010000000a", default), None);
        assert_eq!(history_file_name(26), "0000001A.history");
    }

    #[test]
    fn only_real_segment_sizes_pass() {
        for wrong in ["", "MB", "15MB", "2GB", "512kB", "16 XB"] {
            assert!(SegmentSize::from_setting(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            SegmentSize::from_setting("16777216").unwrap(),
            SegmentSize::default()
        );
    }

    proptest! {
        #[test]
        fn names_and_positions_return(lsn in 0u64..u64::MAX / 2, shift in 20u32..=30, timeline in 1u32..) {
            let size = SegmentSize::from_bytes(1 << shift).unwrap();
            let segment = Segment::containing(Lsn(lsn), timeline, size);
            prop_assert!(segment.start(size).0 <= lsn && lsn < segment.end(size).0);
            prop_assert_eq!(Segment::from_file_name(&segment.file_name(size), size), Some(segment));
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }
    }
}
