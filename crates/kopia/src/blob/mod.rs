//! Blobs: the objects of the storage, by name.

pub mod memory;
mod sharded;
mod store;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::error::KopiaResult;

pub use memory::MemoryBlobs;
pub use store::{Layout, StoreBlobs};

/// Name of a blob, without the prefix of the repository and whatever a layout adds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Arc<str>);

impl BlobId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for BlobId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for BlobId {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A blob that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobMetadata {
    /// Its name.
    pub id: BlobId,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, by the clock of the storage.
    pub modified: Timestamp,
}

/// What keeps a blob from being deleted (S3 object lock).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// `COMPLIANCE` or `GOVERNANCE`.
    pub mode: RetentionMode,
    /// Until when.
    pub until: Timestamp,
}

/// How strict a retention is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionMode {
    /// Nobody can shorten it.
    Compliance,
    /// Those with a special right can.
    Governance,
}

/// Where blobs are. Every method retries what may pass by itself and has a deadline; so callers never do.
#[async_trait]
pub trait BlobStorage: Send + Sync + fmt::Debug + 'static {
    /// Reads a blob of at most `limit` bytes; [`BlobNotFound`](crate::KopiaError::BlobNotFound) if there is none.
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes>;

    /// Reads exactly `length` bytes from `offset`; a blob that is too short is damaged.
    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes>;

    /// Stores a blob made of `pieces`, replacing what was there.
    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()>;

    /// Looks for a blob.
    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>>;

    /// The size of a blob, if there is one. For blobs that are never replaced by others of their name, such as packs.
    async fn size(&self, id: &BlobId) -> KopiaResult<Option<u64>> {
        Ok(self.metadata(id).await?.map(|blob| blob.size))
    }

    /// All blobs whose name begins so, sorted by name.
    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>>;

    /// Deletes a blob; that there is none is no error.
    async fn delete(&self, id: &BlobId) -> KopiaResult<()>;

    /// Where the repository is, as people write it, for messages.
    fn location(&self) -> String;
}
