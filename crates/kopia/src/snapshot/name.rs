//! Names of files.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::json;

/// The name of a directory's entry: any bytes. In the repository it is a JSON string, so what is not UTF-8 does not
/// survive: kopia writes U+FFFD for each byte of it, and so do we.
///
/// Ordered by bytes, as kopia sorts.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Box<[u8]>);

impl EntryName {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a name of a file.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// Whether the repository keeps it as it is. If not, two files of a directory can have the same name in the
    /// repository, so an entry of an older snapshot must not be taken for this file.
    pub fn is_kept(&self) -> bool {
        std::str::from_utf8(&self.0).is_ok()
    }

    /// Whether it stands for one name only, as the repository has it. U+FFFD may stand for any byte that is not UTF-8.
    pub(crate) fn is_certain(&self) -> bool {
        const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();
        !self
            .0
            .windows(REPLACEMENT.len())
            .any(|bytes| bytes == REPLACEMENT)
    }
}

impl From<&[u8]> for EntryName {
    fn from(name: &[u8]) -> Self {
        Self(name.into())
    }
}

impl From<Vec<u8>> for EntryName {
    fn from(name: Vec<u8>) -> Self {
        Self(name.into())
    }
}

impl From<&str> for EntryName {
    fn from(name: &str) -> Self {
        name.as_bytes().into()
    }
}

impl From<&OsStr> for EntryName {
    fn from(name: &OsStr) -> Self {
        name.as_bytes().into()
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&json::replace_invalid(&self.0))
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", json::replace_invalid(&self.0))
    }
}

impl<'de> Deserialize<'de> for EntryName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = EntryName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<EntryName, E> {
                Ok(text.into())
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<EntryName, E> {
                Ok(match std::str::from_utf8(bytes) {
                    Ok(text) => text.into(),
                    Err(_) => json::replace_invalid(bytes).as_str().into(),
                })
            }
        }

        // As bytes, because Go's reader takes lone surrogates and stray bytes where serde_json's refuses a string.
        deserializer.deserialize_bytes(Name)
    }
}
