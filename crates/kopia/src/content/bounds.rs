//! How long a content can be.
//!
//! Indexes say how long contents are, and what they say decides what is allocated. So it is believed only as far as kopia
//! can have written it.

use super::{ContentInfo, Prefix};
use crate::error::{KopiaError, KopiaResult};

/// The longest piece of an object, in bytes. kopia's splitters cut after twice their average at the latest, and the largest
/// average is 8 MiB (`repo/splitter`).
pub(crate) const MAX_PIECE: u32 = 16 << 20;

/// More than what encryption adds.
const SEALED: u32 = 64;

/// Lengths in indexes have 28 bits (`v2MaxContentLength` in `repo/content/index`).
const MAX_LENGTH: u32 = 1 << 28;

/// The manifests of a repository may be one content that is not cut. They are gzip, which is not compressed to a tenth once
/// more: who wants us to allocate so much must have stored so much.
const MANIFEST_RATIO: u32 = 10;

/// Whether contents with this prefix are pieces of objects: of files, directories and lists.
pub(crate) fn is_piece(prefix: Option<Prefix>) -> bool {
    matches!(prefix, None | Some(Prefix::DIRECTORY | Prefix::INDIRECT))
}

impl ContentInfo {
    /// Whether its lengths are such as kopia writes.
    ///
    /// # Errors
    ///
    /// [`KopiaError::Corrupt`] naming the content if not.
    pub(crate) fn check_lengths(&self) -> KopiaResult<()> {
        let (packed, original) = if is_piece(self.id.prefix()) {
            (MAX_PIECE + SEALED, MAX_PIECE)
        } else {
            let original = self.packed_length.saturating_mul(MANIFEST_RATIO);
            (MAX_LENGTH, original.clamp(MAX_PIECE, MAX_LENGTH))
        };
        if self.packed_length <= packed && self.original_length <= original {
            return Ok(());
        }
        let problem = format_args!(
            "no content has {} bytes and {} in its pack",
            self.original_length, self.packed_length
        );
        Err(KopiaError::corrupt(
            format_args!("the index entry of content {}", self.id),
            problem,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::HeaderId;
    use crate::content::{ContentId, Hash};
    use crate::splitter::Splitter;

    const MIB: u32 = 1 << 20;

    #[test]
    fn what_kopia_writes_is_allowed_and_no_more() {
        let allows = |prefix: Option<Prefix>, packed_length, original_length| {
            let info = ContentInfo {
                id: ContentId::new(prefix, Hash::new(&[0; 16]).unwrap()),
                pack: "p".into(),
                offset: 0,
                packed_length,
                original_length,
                compression: HeaderId::ZSTD,
                format_version: 3,
                encryption_key: 0,
                timestamp: 0,
                deleted: false,
            };
            info.check_lengths().is_ok()
        };
        let longest = Splitter::by_name("DYNAMIC-8M-BUZHASH").unwrap().max_size();
        assert_eq!(longest, MAX_PIECE as usize);
        for prefix in [None, Some(Prefix::DIRECTORY), Some(Prefix::INDIRECT)] {
            assert!(allows(prefix, 100, MAX_PIECE));
            assert!(allows(prefix, MAX_PIECE + 28, MAX_PIECE));
            assert!(!allows(prefix, 100, MAX_PIECE + 1));
            assert!(!allows(prefix, MAX_PIECE + MIB, MAX_PIECE));
        }
        for prefix in [Prefix::MANIFEST, Prefix::new(b'z').unwrap()].map(Some) {
            assert!(allows(prefix, 100, MAX_PIECE));
            assert!(allows(prefix, 200 * MIB + 28, 200 * MIB));
            assert!(allows(prefix, 150 * MIB, 200 * MIB));
            assert!(!allows(prefix, 100, MAX_PIECE + 1));
            assert!(!allows(prefix, 10 * MIB, 200 * MIB));
            assert!(!allows(prefix, 300 * MIB, 200 * MIB));
        }
    }
}
