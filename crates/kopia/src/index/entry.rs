//! An entry of an index, and which of two entries of a content is the valid one.

use crate::blob::BlobId;
use crate::compression::HeaderId;
use crate::content::{ContentId, ContentInfo, Hash, MAX_HASH, Prefix};

/// The longest key: a letter and the longest hash.
pub(super) const MAX_KEY: usize = 1 + MAX_HASH;

/// A content with the number of its pack instead of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: ContentId,
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) packed_length: u32,
    pub(super) original_length: u32,
    pub(super) format: EntryFormat,
    pub(super) timestamp: i64,
    pub(super) deleted: bool,
}

/// How a content was written; an index has a short list of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct EntryFormat {
    pub(super) compression: HeaderId,
    pub(super) version: u8,
    pub(super) encryption_key: u8,
}

impl Entry {
    pub(super) fn new(info: &ContentInfo, pack: u32) -> Self {
        Self {
            id: info.id,
            pack,
            offset: info.offset,
            packed_length: info.packed_length,
            original_length: info.original_length,
            format: EntryFormat {
                compression: info.compression,
                version: info.format_version,
                encryption_key: info.encryption_key,
            },
            timestamp: info.timestamp,
            deleted: info.deleted,
        }
    }

    pub(super) fn with_pack(&self, pack: BlobId) -> ContentInfo {
        ContentInfo {
            id: self.id,
            pack,
            offset: self.offset,
            packed_length: self.packed_length,
            original_length: self.original_length,
            compression: self.format.compression,
            format_version: self.format.version,
            encryption_key: self.format.encryption_key,
            timestamp: self.timestamp,
            deleted: self.deleted,
        }
    }
}

/// Whether `a` is to be taken rather than `b`: the newer one; of the same second the one that is not deleted; else, so
/// that everybody decides alike, the one whose pack has the greater name.
pub(super) fn supersedes(a: &ContentInfo, b: &ContentInfo) -> bool {
    (a.timestamp, !a.deleted, a.pack.as_str()) > (b.timestamp, !b.deleted, b.pack.as_str())
}

/// A content as indexes write it: the letter or zero, then the hash. The order of these bytes is the order of an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    bytes: [u8; MAX_KEY],
    length: usize,
}

impl Key {
    pub(super) fn of(id: &ContentId) -> Self {
        let hash = id.hash().as_bytes();
        let mut bytes = [0; MAX_KEY];
        bytes[0] = id.prefix().map_or(0, Prefix::letter);
        bytes[1..=hash.len()].copy_from_slice(hash);
        Self {
            bytes,
            length: 1 + hash.len(),
        }
    }

    /// The smallest key that begins so.
    pub(super) fn first(letter: u8) -> Self {
        let mut bytes = [0; MAX_KEY];
        bytes[0] = letter;
        Self { bytes, length: 1 }
    }

    /// From at most [`MAX_KEY`] bytes.
    pub(super) fn from_bytes(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_KEY];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self {
            bytes,
            length: key.len(),
        })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The first eight bytes as a number of the same order, for the index of a run.
    pub(super) fn fence(&self) -> u64 {
        let (first, _) = self.bytes.split_at(8);
        first
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// The content that a key names; none if the letter or the length makes no sense.
pub(super) fn id_of(key: &[u8]) -> Option<ContentId> {
    let (letter, hash) = key.split_first()?;
    let prefix = match letter {
        0 => None,
        letter => Some(Prefix::new(*letter)?),
    };
    if hash.is_empty() {
        return None;
    }
    Some(ContentId::new(prefix, Hash::new(hash)?))
}
