//! The name of a content.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::error::KopiaError;

/// The longest hash that any of kopia's algorithms gives, in bytes.
pub(crate) const MAX_HASH: usize = 32;

/// A hash of up to 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash {
    // The order of the fields is the order of kopia's indexes: by bytes, the shorter first.
    bytes: [u8; MAX_HASH],
    length: u8,
}

impl Hash {
    /// From its bytes; none if there are too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut all = [0; MAX_HASH];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let length = u8::try_from(bytes.len()).ok()?;
        Some(Self { bytes: all, length })
    }

    /// The first `length` bytes of a digest, 32 at most.
    pub(crate) fn truncate(digest: &[u8], length: usize) -> Self {
        let length = length.min(digest.len()).min(MAX_HASH);
        let mut bytes = [0; MAX_HASH];
        bytes[..length].copy_from_slice(&digest[..length]);
        // At most 32, so nothing is cut off.
        let length = length.to_le_bytes()[0];
        Self { bytes, length }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HEXLOWER.encode_display(self.as_bytes()).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of metadata a content is: one letter from `g` to `z`. Contents with a prefix are kept in packs of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(u8);

impl Prefix {
    /// A directory.
    pub const DIRECTORY: Self = Self(b'k');
    /// Manifests.
    pub const MANIFEST: Self = Self(b'm');
    /// A list of the contents of an object.
    pub const INDIRECT: Self = Self(b'x');

    /// From the letter; none if it is not one of `g` to `z`.
    pub const fn new(letter: u8) -> Option<Self> {
        match letter {
            b'g'..=b'z' => Some(Self(letter)),
            _ => None,
        }
    }

    /// The letter.
    pub const fn letter(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(self.0))
    }
}

/// The name of a content: an optional letter and the hash of the data. Ordered as kopia's indexes are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId {
    prefix: Option<Prefix>,
    hash: Hash,
}

impl ContentId {
    /// The name of data with this hash.
    pub const fn new(prefix: Option<Prefix>, hash: Hash) -> Self {
        Self { prefix, hash }
    }

    /// Its letter.
    pub const fn prefix(&self) -> Option<Prefix> {
        self.prefix
    }

    /// Its hash.
    pub const fn hash(&self) -> &Hash {
        &self.hash
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(prefix) = self.prefix {
            write!(f, "{prefix:?}")?;
        }
        self.hash.fmt(f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentId {
    type Err = KopiaError;

    fn from_str(text: &str) -> Result<Self, KopiaError> {
        let wrong = |problem| KopiaError::corrupt(format_args!("content id {text:?}"), problem);
        let first = text.bytes().next().ok_or_else(|| wrong("it is empty"))?;
        let prefix = Prefix::new(first);
        let digits = &text.as_bytes()[usize::from(prefix.is_some())..];
        let bytes = HEXLOWER_PERMISSIVE
            .decode(digits)
            .map_err(|_| wrong("it is not hexadecimal"))?;
        if bytes.is_empty() {
            return Err(wrong("it has no hash"));
        }
        let hash = Hash::new(&bytes).ok_or_else(|| wrong("its hash is too long"))?;
        Ok(Self { prefix, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{self, Bound};

    #[test]
    fn names_read_as_they_are_written() {
        for text in ["00ff", "kdeadbeef", "x0123456789abcdef0123456789abcdef"] {
            assert_eq!(text.parse::<ContentId>().unwrap().to_string(), text);
        }
        let long = "00".repeat(33);
        for text in ["", "k", "0", "k0", "zz", "A\u{e9}", "é00", &long] {
            assert!(text.parse::<ContentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn contents_without_a_prefix_come_first() {
        let id = |text: &str| text.parse::<ContentId>().unwrap();
        assert!(id("ff") < id("g00") && id("g00ff") < id("g01") && id("00") < id("0000"));
    }

    #[test]
    fn hostile_names_are_harmless() {
        let golden = [&b"x0123456789abcdef0123456789abcdef"[..], b"00ff", b"kdeadbeef"];
        hostile::check(&golden, Bound::new(1024, 20), |text| {
            if let Ok(id) = String::from_utf8_lossy(text).parse::<ContentId>() {
                assert_eq!(id.to_string().parse::<ContentId>().unwrap(), id);
            }
        });
    }
}
