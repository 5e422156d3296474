//! Contents: pieces of data named by their hash, kept in packs.

mod bounds;
mod cache;
mod claims;
mod id;
mod pack;
mod plan;
mod reader;
mod recovery;
mod session;
mod writer;

use crate::blob::BlobId;
use crate::compression::HeaderId;

pub(crate) use bounds::{MAX_PIECE, is_piece};
pub(crate) use cache::WINDOW as METADATA_WINDOW;
pub(crate) use id::MAX_HASH;
pub use id::{ContentId, Hash, Prefix};
pub(crate) use pack::random_bytes;
pub use plan::{MergeRules, PackRange, plan_ranges};
pub use reader::ContentReader;
pub use recovery::read_recovery_data;
pub use session::{SESSION_PREFIX, SessionId, SessionInfo, list_sessions};
pub use writer::{ContentWriter, WriterOptions, WriterStats};
pub(crate) use writer::{Parts, Shared};

/// Where a content is and how it is kept: an entry of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentInfo {
    /// The content.
    pub id: ContentId,
    /// The pack that holds it.
    pub pack: BlobId,
    /// Where in the pack it begins, in bytes.
    pub offset: u32,
    /// Bytes in the pack: compressed, encrypted.
    pub packed_length: u32,
    /// Bytes of the data itself.
    pub original_length: u32,
    /// How it is compressed; 0 is not at all.
    pub compression: HeaderId,
    /// Version of the repository format it was written with.
    pub format_version: u8,
    /// Which key encrypts it; kopia has only number 0.
    pub encryption_key: u8,
    /// When it was written or deleted, in seconds since 1970; the newest entry of a content is the valid one.
    pub timestamp: i64,
    /// Whether the entry says that the content is deleted.
    pub deleted: bool,
}
