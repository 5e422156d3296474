//! Times.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

const NANOS: i64 = 1_000_000_000;

/// A time in nanoseconds since 1970, UTC; written as RFC 3339 with as many digits of the second as it has. Times before
/// 1677 or after 2262 wrap around, as they do in kopia.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(i64);

impl UtcTime {
    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From seconds since 1970 and nanoseconds to add, as in `st_mtime`.
    pub const fn from_unix(seconds: i64, nanos: i64) -> Self {
        Self(seconds.wrapping_mul(NANOS).wrapping_add(nanos))
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Seconds since 1970 and nanoseconds to add (0 to 999,999,999), as `utimensat` takes them.
    pub const fn to_unix(self) -> (i64, i64) {
        (self.0.div_euclid(NANOS), self.0.rem_euclid(NANOS))
    }

    /// As jiff has it.
    pub fn to_timestamp(self) -> Timestamp {
        // All that 64 bits of nanoseconds can say is within jiff's range.
        Timestamp::from_nanosecond(self.0.into()).unwrap_or_default()
    }
}

impl From<Timestamp> for UtcTime {
    fn from(time: Timestamp) -> Self {
        Self::from_unix(time.as_second(), time.subsec_nanosecond().into())
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_timestamp().fmt(f)
    }
}

impl fmt::Debug for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for UtcTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UtcTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let time: Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(time.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_000_000_070, "2023-11-14T22:13:20.00000007Z"),
            (1_700_000_000_500_000_000, "2023-11-14T22:13:20.5Z"),
            (-1_500_000_000, "1969-12-31T23:59:58.5Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ];
        for (nanos, text) in cases {
            let time = UtcTime::from_nanos(nanos);
            assert_eq!(time.to_string(), text);
            assert_eq!(
                serde_json::from_str::<UtcTime>(&format!("\"{text}\"")).unwrap(),
                time
            );
            let (seconds, part) = time.to_unix();
            assert_eq!(UtcTime::from_unix(seconds, part), time);
        }
        // Go's zero time, and what kopia makes of it.
        let zero: UtcTime = serde_json::from_str("\"0001-01-01T00:00:00Z\"").unwrap();
        assert_eq!(zero.nanos(), -6_795_364_578_871_345_152);
        let offset: UtcTime = serde_json::from_str("\"1970-01-01T02:00:00.25+02:00\"").unwrap();
        assert_eq!(offset.nanos(), 250_000_000);
    }
}
