//! A storage with a cache before it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::CacheOptions;
use super::entries::{DiskCache, EntryName, Part};
use crate::blob::{BlobId, BlobMetadata, BlobStorage, Retention};
use crate::content::METADATA_WINDOW;
use crate::crypto::ContentHasher;
use crate::error::{KopiaError, KopiaResult};
use crate::index::IN_MEMORY;

/// A size takes so many bytes.
const SIZE: u64 = 8;

/// Reads indexes and metadata packs from the cache if they are there, and keeps them there if not.
#[derive(Debug)]
pub(crate) struct CachedBlobs {
    storage: Arc<dyn BlobStorage>,
    cache: Arc<DiskCache>,
}

impl CachedBlobs {
    /// For the repository whose contents are named by `hasher`, which has a key that nobody else knows.
    ///
    /// # Errors
    ///
    /// Those of making the directory.
    pub(crate) async fn open(
        storage: Arc<dyn BlobStorage>,
        options: &CacheOptions,
        hasher: &ContentHasher,
    ) -> KopiaResult<Self> {
        let secret = hasher.hash(b"the key of a cache on disk");
        let options = options.clone();
        let opened = tokio::task::spawn_blocking(move || DiskCache::open(&options, secret.as_bytes())).await;
        let cache = Arc::new(opened.map_err(|_| KopiaError::Cancelled)??);
        Ok(Self { storage, cache })
    }

    async fn look_up(&self, name: EntryName, most: u64) -> Option<Bytes> {
        let cache = Arc::clone(&self.cache);
        let found = tokio::task::spawn_blocking(move || cache.get(&name, most)).await;
        // It is only not there if the process is about to end.
        found.ok().flatten()
    }

    async fn keep(&self, entries: Vec<(EntryName, Vec<Bytes>)>) {
        let cache = Arc::clone(&self.cache);
        let kept = tokio::task::spawn_blocking(move || {
            for (name, data) in entries {
                cache.put(&name, &data);
            }
        });
        // It is only not kept if the process is about to end.
        let _ = kept.await;
    }

    fn name(&self, id: &BlobId, part: Part) -> EntryName {
        self.cache.name(id.as_str(), part)
    }
}

/// Whether it is an index, or a log of compactions: blobs that are named by the hash of what is in them.
fn is_index(id: &BlobId) -> bool {
    id.as_str().starts_with(['x', 'n', 'm'])
}

/// Whether it is a pack of metadata. Its name is random, so there is never another one of the name.
fn is_metadata(id: &BlobId) -> bool {
    id.as_str().starts_with('q')
}

#[async_trait]
impl BlobStorage for CachedBlobs {
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes> {
        if !is_index(id) {
            return self.storage.get(id, limit).await;
        }
        let name = self.name(id, Part::Whole);
        if let Some(data) = self.look_up(name, limit).await {
            return Ok(data);
        }
        let data = self.storage.get(id, limit).await?;
        self.keep(vec![(name, vec![data.clone()])]).await;
        Ok(data)
    }

    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        if !is_index(id) && !is_metadata(id) {
            return self.storage.get_range(id, offset, length).await;
        }
        let name = self.name(id, Part::Range { offset, length });
        if let Some(data) = self.look_up(name, length).await
            && data.len() as u64 == length
        {
            return Ok(data);
        }
        let data = self.storage.get_range(id, offset, length).await?;
        self.keep(vec![(name, vec![data.clone()])]).await;
        Ok(data)
    }

    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()> {
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        // Longer indexes are read in pieces.
        let index = is_index(id) && length <= IN_MEMORY;
        if !index && !is_metadata(id) {
            return self.storage.put(id, pieces, retention).await;
        }
        let kept = pieces.clone();
        self.storage.put(id, pieces, retention).await?;
        if index {
            self.keep(vec![(self.name(id, Part::Whole), kept)]).await;
        } else {
            let mut entries = Vec::new();
            let mut offset = 0;
            for window in windows(kept) {
                let length = window.iter().map(|piece| piece.len() as u64).sum();
                entries.push((self.name(id, Part::Range { offset, length }), window));
                offset += length;
            }
            let size = Bytes::copy_from_slice(&length.to_be_bytes());
            entries.push((self.name(id, Part::Size), vec![size]));
            self.keep(entries).await;
        }
        Ok(())
    }

    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        self.storage.metadata(id).await
    }

    async fn size(&self, id: &BlobId) -> KopiaResult<Option<u64>> {
        if !is_metadata(id) {
            return self.storage.size(id).await;
        }
        let name = self.name(id, Part::Size);
        let kept = self.look_up(name, SIZE).await;
        if let Some(size) = kept.and_then(|kept| <[u8; 8]>::try_from(kept.as_ref()).ok()) {
            return Ok(Some(u64::from_be_bytes(size)));
        }
        let size = self.storage.size(id).await?;
        if let Some(size) = size {
            let size = Bytes::copy_from_slice(&size.to_be_bytes());
            self.keep(vec![(name, vec![size])]).await;
        }
        Ok(size)
    }

    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        self.storage.list(prefix).await
    }

    async fn delete(&self, id: &BlobId) -> KopiaResult<()> {
        self.storage.delete(id).await
    }

    fn location(&self) -> String {
        self.storage.location()
    }
}

/// Cuts a blob as it will be read: in windows of the same length, without copying.
fn windows(pieces: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let most = usize::try_from(METADATA_WINDOW).unwrap_or(usize::MAX);
    let mut windows = Vec::new();
    let mut window = Vec::new();
    let mut room = most;
    for mut piece in pieces {
        while !piece.is_empty() {
            let part = piece.split_to(room.min(piece.len()));
            room -= part.len();
            window.push(part);
            if room == 0 {
                windows.push(std::mem::take(&mut window));
                room = most;
            }
        }
    }
    if !window.is_empty() {
        windows.push(window);
    }
    windows
}
