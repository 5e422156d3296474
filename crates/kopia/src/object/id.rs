//! The name of an object.

use std::fmt;
use std::str::FromStr;

use crate::content::ContentId;
use crate::error::KopiaError;

/// The deepest indirection that makes sense: each level multiplies the size by tens of thousands.
const MAX_INDIRECTION: u8 = 8;

/// The name of an object: `I` for each level of indirection, `Z` if the object itself is compressed (as kopia did
/// before index version 2), then the content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    indirection: u8,
    compressed: bool,
    content: ContentId,
}

impl ObjectId {
    /// An object that is one content.
    pub const fn direct(content: ContentId) -> Self {
        Self {
            indirection: 0,
            compressed: false,
            content,
        }
    }

    /// The object whose parts this object lists.
    #[must_use]
    pub const fn listed_by(self) -> Self {
        Self {
            indirection: self.indirection + 1,
            ..self
        }
    }

    /// The list of this object's parts, if it is an indirect object.
    pub const fn list(self) -> Option<Self> {
        match self.indirection.checked_sub(1) {
            Some(indirection) => Some(Self { indirection, ..self }),
            None => None,
        }
    }

    /// The content, if the object is not indirect.
    pub const fn content(&self) -> Option<&ContentId> {
        if self.indirection == 0 {
            Some(&self.content)
        } else {
            None
        }
    }

    /// How many lists of parts there are, each of the parts of the next, until the parts are data.
    pub(crate) const fn indirection(&self) -> u8 {
        self.indirection
    }

    /// The content: of the data, or of the list of parts if the object is indirect.
    pub(crate) const fn innermost(&self) -> &ContentId {
        &self.content
    }

    /// Whether the data of the content is compressed by itself, below the compression that the index records.
    pub const fn is_compressed(&self) -> bool {
        self.compressed
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..self.indirection {
            f.write_str("I")?;
        }
        if self.compressed {
            f.write_str("Z")?;
        }
        self.content.fmt(f)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = KopiaError;

    fn from_str(text: &str) -> Result<Self, KopiaError> {
        let rest = text.trim_start_matches('I');
        let indirection = u8::try_from(text.len() - rest.len())
            .ok()
            .filter(|depth| *depth <= MAX_INDIRECTION)
            .ok_or_else(|| KopiaError::corrupt("an object id", "it is too indirect"))?;
        let stripped = rest.strip_prefix('Z');
        if indirection > 0 && stripped.is_some() {
            return Err(KopiaError::corrupt(
                "an object id",
                "it is both indirect and compressed",
            ));
        }
        let name = stripped.unwrap_or(rest);
        Ok(Self {
            indirection,
            compressed: stripped.is_some(),
            // kopia once wrote a `D` for direct objects.
            content: name.strip_prefix('D').unwrap_or(name).parse()?,
        })
    }
}

impl serde::Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ObjectId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{self, Bound};

    #[test]
    fn names_read_as_they_are_written() {
        for text in ["00ff", "kdeadbeef", "Ix0123", "IIx0123", "Z00ff"] {
            assert_eq!(text.parse::<ObjectId>().unwrap().to_string(), text);
        }
        assert!("I".repeat(300).parse::<ObjectId>().is_err());
        assert_eq!("D00ff".parse::<ObjectId>().unwrap().to_string(), "00ff");
        for text in ["ZI00", "IZx00", "DD00", "", "I"] {
            assert!(text.parse::<ObjectId>().is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_names_are_harmless() {
        let golden = [
            &b"IIx0123456789abcdef0123456789abcdef"[..],
            b"Z00ff",
            b"D00ff",
            b"kdeadbeef",
        ];
        hostile::check(&golden, Bound::new(1024, 20), |text| {
            if let Ok(id) = String::from_utf8_lossy(text).parse::<ObjectId>() {
                assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
            }
        });
    }
}
