//! Names of manifests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::KopiaError;

/// The longest name that kopia itself would make, doubled.
const MAX_LENGTH: usize = 64;

/// The name of a manifest: 32 random hexadecimal digits. Velero calls it the snapshot's id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ManifestId(Box<str>);

impl ManifestId {
    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&bytes).into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ManifestId {
    type Error = KopiaError;

    fn try_from(text: String) -> Result<Self, KopiaError> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if text.is_empty() || text.len() > MAX_LENGTH || !plain {
            return Err(KopiaError::corrupt("a manifest's id", "it is not hexadecimal"));
        }
        Ok(Self(text.into()))
    }
}

impl From<ManifestId> for String {
    fn from(id: ManifestId) -> Self {
        id.0.into()
    }
}

impl FromStr for ManifestId {
    type Err = KopiaError;

    fn from_str(text: &str) -> Result<Self, KopiaError> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for ManifestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ManifestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
