//! What objects need of contents.

use async_trait::async_trait;

use crate::compression::HeaderId;
use crate::content::{ContentId, ContentReader, ContentWriter, Prefix};
use crate::error::KopiaResult;

/// Where objects are written to. Its calls block (they hash, compress and encrypt, and wait while too much is in
/// flight), so they are made by threads of their own, not by async tasks.
pub trait ContentSink: Send + Sync {
    /// Stores data, unless it is there already.
    fn put(&self, prefix: Option<Prefix>, data: Vec<u8>, compression: HeaderId) -> KopiaResult<ContentId>;

    /// Stores several at once, which hashes faster than one after the other. The names are in the order of the data.
    fn put_batch(
        &self,
        prefix: Option<Prefix>,
        data: Vec<Vec<u8>>,
        compression: HeaderId,
    ) -> KopiaResult<Vec<ContentId>> {
        let put = |data| self.put(prefix, data, compression);
        data.into_iter().map(put).collect()
    }
}

/// Where objects are read from.
#[async_trait]
pub trait ContentSource: Send + Sync {
    /// The data of a content.
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>>;

    /// Bytes of the data of a content, without reading it.
    async fn length(&self, id: &ContentId) -> KopiaResult<u64>;
}

impl ContentSink for ContentWriter {
    fn put(&self, prefix: Option<Prefix>, data: Vec<u8>, compression: HeaderId) -> KopiaResult<ContentId> {
        Self::put(self, prefix, data, compression)
    }

    fn put_batch(
        &self,
        prefix: Option<Prefix>,
        data: Vec<Vec<u8>>,
        compression: HeaderId,
    ) -> KopiaResult<Vec<ContentId>> {
        Self::put_batch(self, prefix, data, compression)
    }
}

#[async_trait]
impl ContentSource for ContentReader {
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        Self::get(self, id).await
    }

    async fn length(&self, id: &ContentId) -> KopiaResult<u64> {
        self.info(id).map(|info| info.original_length.into())
    }
}
