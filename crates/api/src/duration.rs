//! Durations as Go writes them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration in Go's notation: `10m0s`, `1h30m`, `1.5h`, `250ms`, `0`.
///
/// The text is kept as it came, so that decoding never fails and writing back changes nothing; [`GoDuration::to_std`]
/// reads it. The definition says `type: string`, as for every duration of the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct GoDuration(pub String);

/// Why a text is not a usable duration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// The text does not follow the notation.
    Malformed(String),
    /// The duration is below zero.
    Negative(String),
    /// The duration does not fit.
    TooLong(String),
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "{text:?} is not a duration such as 10m0s"),
            Self::Negative(text) => write!(f, "duration {text:?} is below zero"),
            Self::TooLong(text) => write!(f, "duration {text:?} is too long"),
        }
    }
}

impl std::error::Error for DurationError {}

impl GoDuration {
    /// The duration the text stands for, cut to whole nanoseconds.
    ///
    /// # Errors
    /// When the text does not follow Go's notation, is negative, or exceeds 64 bits of nanoseconds (292 years).
    pub fn to_std(&self) -> Result<Duration, DurationError> {
        let malformed = || DurationError::Malformed(self.0.clone());
        let too_long = || DurationError::TooLong(self.0.clone());
        let (negative, mut rest) = match self.0.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, self.0.strip_prefix('+').unwrap_or(&self.0)),
        };
        if rest == "0" {
            return Ok(Duration::ZERO);
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut total: u128 = 0;
        while !rest.is_empty() {
            let (whole, tail) = split_digits(rest);
            let (fraction, tail) = tail.strip_prefix('.').map_or(("", tail), split_digits);
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            let unit_length = tail
                .find(|c: char| c == '.' || c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_length);
            let unit = unit_in_nanoseconds(unit).ok_or_else(malformed)?;
            if !whole.is_empty() {
                let count = whole.parse::<u64>().map_err(|_| too_long())?;
                total += u128::from(count) * unit;
            }
            if !fraction.is_empty() {
                // 18 digits are below any nanosecond of an hour; more would only overflow.
                let digits = &fraction[..fraction.len().min(18)];
                let scale = 10_u128.pow(u32::try_from(digits.len()).unwrap_or(18));
                total += u128::from(digits.parse::<u64>().map_err(|_| malformed())?) * unit / scale;
            }
            rest = tail;
        }
        if total > u128::from(i64::MAX.unsigned_abs()) {
            return Err(too_long());
        }
        if negative && total > 0 {
            return Err(DurationError::Negative(self.0.clone()));
        }
        u64::try_from(total)
            .map(Duration::from_nanos)
            .map_err(|_| too_long())
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_in_nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

impl From<Duration> for GoDuration {
    /// Writes hours, minutes and seconds as Go does, and the fraction of a second with them: `1h0m0s`, `1.5s`.
    fn from(duration: Duration) -> Self {
        let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let fraction = format!("{nanos:09}");
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        let seconds = format!("{seconds}{point}{fraction}s");
        Self(match (hours, minutes) {
            (0, 0) => seconds,
            (0, minutes) => format!("{minutes}m{seconds}"),
            (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
        })
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("10m0s", 600_000),
            ("4h0m0s", 14_400_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("250ms", 250),
            ("+1m", 60_000),
            ("2000us", 2),
            ("3000µs", 3),
            ("100000000000000000000h", -1),
            ("", -2),
            ("-", -2),
            ("5", -2),
            ("s", -2),
            (".s", -2),
            ("5 m", -2),
            ("5d", -2),
            ("9999999h", -1),
            ("-5m", -3),
        ];
        for (text, expected) in table {
            let got = GoDuration(text.to_owned()).to_std();
            match (expected, got) {
                (-1, Err(DurationError::TooLong(_)))
                | (-2, Err(DurationError::Malformed(_)))
                | (-3, Err(DurationError::Negative(_))) => {}
                (ms, Ok(got)) => assert_eq!(i128::from(ms), got.as_millis().cast_signed(), "{text}"),
                (_, Err(e)) => panic!("{text}: {e}"),
            }
        }
    }

    #[test]
    fn writes_what_go_would() {
        let table = [
            (0, "0s"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (600_000, "10m0s"),
            (3_600_000, "1h0m0s"),
            (5_400_250, "1h30m0.25s"),
        ];
        for (ms, text) in table {
            let written = GoDuration::from(Duration::from_millis(ms));
            assert_eq!(written.to_string(), text);
            assert_eq!(written.to_std(), Ok(Duration::from_millis(ms)));
        }
    }
}
