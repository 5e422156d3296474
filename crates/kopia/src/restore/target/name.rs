//! Names of entries, judged before anything is created by them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A name that stands for one entry of the directory it is used in, and for nothing else.
///
/// The names of a snapshot are data of others: `..`, `a/b` or an absolute path must not lead anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryName<'a>(&'a OsStr);

impl<'a> EntryName<'a> {
    /// Judges a name; the error says what is wrong with it.
    pub(crate) fn new(name: &'a [u8]) -> Result<Self, &'static str> {
        match name {
            b"" => Err("its name is empty"),
            b"." | b".." => Err("its name means a directory that exists already"),
            _ if name.contains(&b'/') => Err("its name contains a slash"),
            _ if name.contains(&0) => Err("its name contains a NUL"),
            _ => Ok(Self(OsStr::from_bytes(name))),
        }
    }

    /// The name.
    pub(crate) const fn as_os_str(self) -> &'a OsStr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_one_entry_pass() {
        for name in ["", ".", "..", "/", "/etc", "a/b", "../x", "a/", "a\0b", "\0"] {
            assert!(EntryName::new(name.as_bytes()).is_err(), "{name:?}");
        }
        let long = "x".repeat(255);
        for name in [
            "a", "...", "..a", ".a", " ", "\n", "-rf", "~", "a\\b", "\u{fffd}", &long,
        ] {
            assert_eq!(EntryName::new(name.as_bytes()).unwrap().as_os_str(), name);
        }
        assert!(EntryName::new(b"\xff\xfe").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn what_passes_is_one_plain_component(name: Vec<u8>) {
            if let Ok(name) = EntryName::new(&name) {
                let path = std::path::Path::new("/top").join(name.as_os_str());
                let mut components = path.components().skip(2);
                proptest::prop_assert!(matches!(components.next(), Some(std::path::Component::Normal(_))));
                proptest::prop_assert!(components.next().is_none());
            }
        }
    }
}
