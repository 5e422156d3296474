//! What is needed of a repository.

use std::borrow::Cow;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::blob::BlobId;
use crate::content::{ContentId, ContentInfo, ContentReader};
use crate::error::KopiaResult;

/// Where contents are, and how to read them when many are wanted.
#[async_trait]
pub(crate) trait Packs: Send + Sync + 'static {
    /// Where a content is, with lengths that a content can have. It may read a local file, so it is not for async tasks.
    fn info(&self, id: &ContentId) -> KopiaResult<ContentInfo>;

    /// Reads a range of a pack.
    async fn read(&self, pack: &BlobId, range: Range<u64>) -> KopiaResult<Bytes>;

    /// Reads one content, by itself. Should its pack be gone, it may be in another one meanwhile.
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>>;

    /// The data of a content from its bytes in the pack: decrypted, decompressed.
    fn decode<'a>(&self, info: &ContentInfo, packed: &'a mut [u8]) -> KopiaResult<Cow<'a, [u8]>>;

    /// Whether data are those that a content is named after.
    fn check_hash(&self, info: &ContentInfo, data: &[u8]) -> KopiaResult<()>;
}

#[async_trait]
impl Packs for ContentReader {
    fn info(&self, id: &ContentId) -> KopiaResult<ContentInfo> {
        self.info(id)
    }

    async fn read(&self, pack: &BlobId, range: Range<u64>) -> KopiaResult<Bytes> {
        self.read_range(pack, range).await
    }

    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        self.get(id).await
    }

    fn decode<'a>(&self, info: &ContentInfo, packed: &'a mut [u8]) -> KopiaResult<Cow<'a, [u8]>> {
        self.decode_in_place(info, packed)
    }

    fn check_hash(&self, info: &ContentInfo, data: &[u8]) -> KopiaResult<()> {
        self.check_hash(info, data)
    }
}
