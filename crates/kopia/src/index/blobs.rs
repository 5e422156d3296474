//! Index blobs: fetched and decrypted into runs, encrypted and named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::file::IndexFile;
use super::packs::PackTable;
use super::run::{RecordLayout, Run, RunWriter};
use super::scratch::{ReadAt, ScratchFile};
use crate::blob::{BlobId, BlobMetadata, BlobStorage};
use crate::crypto::{ContentCipher, blob_iv};
use crate::error::{KopiaError, KopiaResult};
use crate::format::RepositoryFormat;

/// Larger blobs are decrypted into a file, and fetched in pieces.
pub(crate) const IN_MEMORY: u64 = 4 << 20;
/// How much of a larger blob is fetched at once.
const PIECE: u64 = 2 << 20;
/// How many blobs are fetched at once, and how many bytes they have together.
const PARALLEL: usize = 8;
const BUDGET: u32 = 4 << 20;

/// Reads and seals the index blobs of a repository.
#[derive(Debug)]
pub(super) struct IndexBlobs {
    pub(super) storage: Arc<dyn BlobStorage>,
    pub(super) format: Arc<RepositoryFormat>,
    pub(super) scratch: PathBuf,
    pub(super) layout: RecordLayout,
    pub(super) packs: Arc<PackTable>,
    budget: Semaphore,
}

impl IndexBlobs {
    pub(super) fn new(
        storage: Arc<dyn BlobStorage>,
        format: Arc<RepositoryFormat>,
        scratch: &Path,
    ) -> KopiaResult<Self> {
        Ok(Self {
            storage,
            layout: RecordLayout::new(format.hasher.hash_len()),
            format,
            scratch: scratch.to_owned(),
            packs: Arc::new(PackTable::new(ScratchFile::new(scratch)?)),
            budget: Semaphore::new(BUDGET as usize),
        })
    }

    /// Adds a run for each of the blobs. If one fails, those are kept that did not.
    pub(super) async fn load(
        self: &Arc<Self>,
        blobs: &[&BlobMetadata],
        runs: &mut Vec<Arc<Run>>,
    ) -> KopiaResult<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        // Small blobs share a file, so that there may be more of them than files can be open.
        let shared = Arc::new(ScratchFile::new(&self.scratch)?);
        // Collected: with a closure in the stream, this future would not be provably Send.
        let loads: Vec<_> = blobs.iter().map(|blob| self.load_one(blob, &shared)).collect();
        let mut loads = futures::stream::iter(loads).buffer_unordered(PARALLEL);
        while let Some(run) = loads.try_next().await? {
            runs.push(Arc::new(run));
        }
        Ok(())
    }

    async fn load_one(self: &Arc<Self>, blob: &BlobMetadata, shared: &Arc<ScratchFile>) -> KopiaResult<Run> {
        let share = u32::try_from(blob.size).unwrap_or(u32::MAX).min(BUDGET);
        // Held until the run is written.
        let _share = self
            .budget
            .acquire_many(share)
            .await
            .map_err(|_| KopiaError::Cancelled)?;
        if blob.size > IN_MEMORY {
            self.load_large(blob).await
        } else {
            self.load_small(&blob.id, shared.clone()).await
        }
    }

    async fn load_small(self: &Arc<Self>, blob: &BlobId, file: Arc<ScratchFile>) -> KopiaResult<Run> {
        let sealed = self.storage.get(blob, IN_MEMORY).await?;
        let (this, blob) = (self.clone(), blob.clone());
        blocking(move || {
            let data = open(&this.format.cipher, &blob, sealed)?;
            let index = IndexFile::parse(&data, blob.as_str(), this.overhead())?;
            this.stage(&index, &blob, file)
        })
        .await
    }

    async fn load_large(self: &Arc<Self>, blob: &BlobMetadata) -> KopiaResult<Run> {
        let file = ScratchFile::new(&self.scratch)?.into_file();
        let iv = blob_iv(&blob.id)?;
        let mut open =
            self.format
                .cipher
                .open_into(&iv, file, &self.scratch, format_args!("index blob {}", blob.id));
        let mut at = 0;
        while at < blob.size {
            let length = PIECE.min(blob.size - at);
            let piece = self.storage.get_range(&blob.id, at, length).await?;
            at += length;
            open = blocking(move || open.push(&piece).map(|()| open)).await?;
        }
        let length = blob.size.saturating_sub(self.format.cipher.overhead() as u64);
        let (this, blob) = (self.clone(), blob.id.clone());
        blocking(move || {
            let plain = ScratchFile::of(open.finish()?, &this.scratch);
            let index = IndexFile::open(plain, length, blob.as_str(), this.overhead())?;
            let file = Arc::new(ScratchFile::new(&this.scratch)?);
            this.stage(&index, &blob, file)
        })
        .await
    }

    /// Writes the entries of an index as a run.
    fn stage<S: ReadAt>(
        &self,
        index: &IndexFile<S>,
        blob: &BlobId,
        file: Arc<ScratchFile>,
    ) -> KopiaResult<Run> {
        if !index.is_empty() && index.key_size() != self.layout.key_size() {
            return Err(KopiaError::corrupt(
                format_args!("index blob {blob}"),
                "its contents do not have the hash of the repository",
            ));
        }
        let mut names = index.pack_names();
        let mut packs = self.packs.writer(index.pack_count(), names.longest()?)?;
        for number in 0..index.pack_count() {
            packs.add(names.get(number)?)?;
        }
        let numbers = packs.finish()?;
        let mut run = RunWriter::new(file, self.layout, index.len().into());
        let mut entries = index.entries();
        while let Some(mut entry) = entries.next()? {
            entry.pack = numbers.number(entry.pack);
            run.push(&entry)?;
        }
        run.finish(vec![blob.clone()])
    }

    /// Encrypts an index. The name is without prefix: it depends on when the blob is written.
    pub(super) fn seal(&self, mut index: Vec<u8>, suffix: &str) -> KopiaResult<(String, Bytes)> {
        let name = format!("{}-{suffix}", self.format.hasher.hash(&index));
        let iv = blob_iv(&BlobId::from(name.as_str()))?;
        self.format.cipher.seal(&iv, &mut index)?;
        Ok((name, index.into()))
    }

    fn overhead(&self) -> u32 {
        u32::try_from(self.format.cipher.overhead()).unwrap_or(u32::MAX)
    }
}

/// Decrypts a blob of the index as a whole.
pub(super) fn open(cipher: &ContentCipher, blob: &BlobId, sealed: Bytes) -> KopiaResult<Vec<u8>> {
    let what = format!("index blob {blob}");
    cipher.open_vec(&blob_iv(blob)?, sealed.into(), what)
}

/// Runs what reads or writes files or computes for long where that holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> KopiaResult<T> + Send + 'static,
) -> KopiaResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(KopiaError::Cancelled),
        },
    }
}
