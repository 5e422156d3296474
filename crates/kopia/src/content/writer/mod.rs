//! Writing contents.
//!
//! A content goes through these steps: its hash is its name; if the repository has it, or this writer is about to store
//! it, that is all. Otherwise it is compressed (if that is asked for and makes it smaller), encrypted, and appended to an
//! open pack, all on the thread that brought it. Full packs are uploaded by the async runtime, several at a time. After
//! many contents, or ten minutes, the packs that are stored get into an index; [`flush`](ContentWriter::flush) does that
//! for everything.

mod commit;
mod limits;
mod shared;
mod upload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::compression::HeaderId;
use crate::content::{ContentId, Prefix};
use crate::error::KopiaResult;

pub(crate) use shared::{Parts, Pending, Shared};

/// How a [`ContentWriter`] works.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Whose session it is, for people who look at session markers.
    pub user: String,
    /// On which host.
    pub host: String,
    /// The most bytes of packs in memory: open ones and those that are being uploaded. A content is counted from when
    /// it is appended to a pack. A single content that is longer is let through alone.
    pub pack_memory: u64,
    /// The most uploads at a time; less if the memory is used up.
    pub parallel_uploads: usize,
    /// After so many contents an index is written, and a pack has no more, which bounds the memory for contents in no
    /// index: about 150 bytes each, and as many again while their index is written. Twice as many can be waiting.
    pub index_after: usize,
    /// Stops everything: threads that wait get [`Cancelled`](crate::KopiaError::Cancelled), uploads are given up.
    pub cancel: tokio_util::sync::CancellationToken,
}

impl Default for WriterOptions {
    /// 40 MiB of packs (two full ones of 20 MiB, or three), 8 uploads, an index each 16,384 contents.
    fn default() -> Self {
        Self {
            user: String::new(),
            host: String::new(),
            pack_memory: 40 << 20,
            parallel_uploads: 8,
            index_after: 16 << 10,
            cancel: tokio_util::sync::CancellationToken::new(),
        }
    }
}

/// What a [`ContentWriter`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Contents that were given.
    pub contents: u64,
    /// Their bytes: all that was hashed.
    pub bytes: u64,
    /// Contents of these that were there already.
    pub duplicates: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// Bytes of contents appended to packs, compressed and encrypted.
    pub packed_bytes: u64,
    /// Packs stored.
    pub packs: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// The most bytes of packs that were in memory.
    pub peak_bytes: u64,
}

/// Writes contents into a repository. Clones share everything.
///
/// [`put`](Self::put) and [`put_batch`](Self::put_batch) work on the calling thread and block while too many packs are
/// in memory: they are for threads of their own (or `spawn_blocking`), never for async tasks. A tokio runtime of several
/// threads must be running meanwhile.
#[derive(Clone, Debug)]
pub struct ContentWriter {
    shared: Arc<Shared>,
}

impl ContentWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Stores a content unless the repository has it, and gives its name. It is safe after [`flush`](Self::flush).
    ///
    /// The memory of `data` is used on: with room for 16 more bytes in it, nothing is copied if it is long.
    ///
    /// # Errors
    ///
    /// A failed upload of an earlier content is reported here; from then on every call fails until a `flush` has
    /// succeeded in repeating it. An unknown compression; those of looking into the index.
    pub fn put(
        &self,
        prefix: Option<Prefix>,
        data: Vec<u8>,
        compression: HeaderId,
    ) -> KopiaResult<ContentId> {
        let hash = self.shared.hash(&data);
        let id = ContentId::new(prefix, hash);
        let _inside = self.shared.enter();
        self.shared.put(id, data, compression)?;
        Ok(id)
    }

    /// As [`put`](Self::put), for several contents, which are hashed side by side: as fast as it gets with as many pieces
    /// of similar length as [`lanes`](Self::lanes) says.
    ///
    /// # Errors
    ///
    /// The first error; contents before it are put.
    pub fn put_batch(
        &self,
        prefix: Option<Prefix>,
        batch: Vec<Vec<u8>>,
        compression: HeaderId,
    ) -> KopiaResult<Vec<ContentId>> {
        let hashes = self.shared.hash_many(&batch);
        let _inside = self.shared.enter();
        let mut ids = Vec::with_capacity(hashes.len());
        for (hash, data) in hashes.into_iter().zip(batch) {
            let id = ContentId::new(prefix, hash);
            self.shared.put(id, data, compression)?;
            ids.push(id);
        }
        Ok(ids)
    }

    /// How many pieces [`put_batch`](Self::put_batch) hashes side by side.
    pub fn lanes(&self) -> usize {
        self.shared.lanes()
    }

    /// Commits: when this is done, every content whose `put` returned before is stored and in an index. Before, nothing
    /// may refer to it. Other threads may go on putting meanwhile; what they put is for the next flush.
    ///
    /// # Errors
    ///
    /// The first failure of an upload or of the index since the last flush. Packs that could not be uploaded are kept,
    /// and the next flush tries them again.
    pub async fn flush(&self) -> KopiaResult<()> {
        self.shared.flush(&[]).await
    }

    /// As [`flush`](Self::flush), and marks contents as deleted, in the same index blob as what was put last or in a later
    /// one: nobody sees that they are gone without seeing what was put in their place. Those that are not there or are
    /// deleted already are left alone.
    ///
    /// For contents that nobody puts again, which is so for manifests: their names are random. Whoever put one of
    /// these meanwhile would be told that it is there.
    pub(crate) async fn flush_deleting(&self, contents: &[ContentId]) -> KopiaResult<()> {
        self.shared.flush(contents).await
    }

    /// What was done so far.
    pub fn stats(&self) -> WriterStats {
        self.shared.stats()
    }
}
