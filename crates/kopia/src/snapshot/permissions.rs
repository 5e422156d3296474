//! Permissions of files.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// The permissions of an entry: nine bits, and set-user-ID, set-group-ID and sticky. kopia writes them as an octal
/// string with the last three where Go has them, not where POSIX has them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u32);

/// Where POSIX has a bit and where Go has it.
const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

impl Permissions {
    /// From `st_mode`; the file type in it is left out.
    pub const fn from_unix(mode: u32) -> Self {
        let mut bits = mode & 0o777;
        let mut index = 0;
        while index < SPECIAL.len() {
            let (posix, go) = SPECIAL[index];
            if mode & posix != 0 {
                bits |= go;
            }
            index += 1;
        }
        Self(bits)
    }

    /// What `chmod` takes.
    pub const fn to_unix(self) -> u32 {
        let mut mode = self.0 & 0o777;
        let mut index = 0;
        while index < SPECIAL.len() {
            let (posix, go) = SPECIAL[index];
            if self.0 & go != 0 {
                mode |= posix;
            }
            index += 1;
        }
        mode
    }

    /// Whether all bits are zero; kopia leaves the field out then.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// From the text in the repository. Go takes any integer literal that fits 32 bits.
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let lower = digits.to_ascii_lowercase();
        let (base, digits) = match lower.as_bytes() {
            [b'0', b'x', ..] => (16, &lower[2..]),
            [b'0', b'b', ..] => (2, &lower[2..]),
            [b'0', b'o', ..] => (8, &lower[2..]),
            [b'0', _, ..] => (8, &lower[1..]),
            _ => (10, lower.as_str()),
        };
        let plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
        let value = i32::from_str_radix(digits, base).ok().filter(|_| plain)?;
        let value = if negative { -value } else { value };
        Some(Self(u32::from_ne_bytes(value.to_ne_bytes())))
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:o}", self.0)
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("permissions are not a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_come_back() {
        for mode in (0..0o10000).step_by(7).chain([0o4755, 0o2755, 0o1777, 0o7777]) {
            let permissions = Permissions::from_unix(mode | 0o100_000);
            assert_eq!(permissions.to_unix(), mode);
            assert_eq!(Permissions::parse(&permissions.to_string()), Some(permissions));
        }
        assert_eq!(Permissions::from_unix(0o4755).to_string(), "040000755");
        assert_eq!(Permissions::parse("0x1ff"), Some(Permissions(0o777)));
        assert_eq!(Permissions::parse("0"), Some(Permissions(0)));
        for text in ["", "0o", "-", "09", "rwx", "0777777777777", "+-1", "0é"] {
            assert_eq!(Permissions::parse(text), None, "{text}");
        }
    }
}
