//! Reading contents.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use bytes::Bytes;
use futures::future::FutureExt;
use futures::{Stream, StreamExt, stream};

use super::cache::WindowCache;
use super::plan::{MergeRules, PackRange, plan_ranges};
use super::writer::{Parts, Pending, Shared};
use crate::blob::BlobId;
use crate::compression::{HeaderId, decompress};
use crate::content::{ContentId, ContentInfo};
use crate::crypto::content_iv;
use crate::error::{KopiaError, KopiaResult};

/// Reads contents of a repository. Clones share everything.
///
/// [`get`](Self::get) is for single contents, above all metadata. Who wants many contents of files plans
/// ([`plan_ranges`]), reads ranges ([`read_range`](Self::read_range)), and decodes what is in them
/// ([`decode_in_place`](Self::decode_in_place)) on threads of its own; [`read_many`](Self::read_many) does that for few.
#[derive(Clone)]
pub struct ContentReader {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    cache: WindowCache,
    /// Writers of this repository object, whose contents are seen before they are flushed.
    writers: RwLock<Vec<Weak<Shared>>>,
}

impl ContentReader {
    /// `metadata_cache` is how many bytes of metadata packs are kept in memory.
    pub(crate) fn new(parts: Parts, metadata_cache: u64) -> Self {
        let cache = WindowCache::new(Arc::clone(&parts.storage), metadata_cache);
        let inner = Inner {
            parts,
            cache,
            writers: RwLock::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// From now on, contents of this writer are seen.
    pub(crate) fn see(&self, writer: &Arc<Shared>) {
        let mut writers = self.inner.writers.write().unwrap_or_else(PoisonError::into_inner);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(writer));
    }

    /// Where a content is. It may be marked as deleted; it can be read all the same, until maintenance removes it.
    ///
    /// Reads files of the local index: fast, but not for async tasks that must not wait for a disk.
    ///
    /// # Errors
    ///
    /// [`ContentNotFound`](KopiaError::ContentNotFound); [`Corrupt`](KopiaError::Corrupt) if it has a length that no
    /// content has in kopia; those of reading the local index.
    pub fn info(&self, id: &ContentId) -> KopiaResult<ContentInfo> {
        match self.pending(id) {
            Some(Pending::Stored(info) | Pending::Memory(info, _)) => Ok(info),
            None => self.committed(id),
        }
    }

    /// Reads a content.
    ///
    /// If its pack is gone, the index is refreshed once: maintenance may have moved the content to another pack.
    ///
    /// # Errors
    ///
    /// [`ContentNotFound`](KopiaError::ContentNotFound); [`Corrupt`](KopiaError::Corrupt) naming the content and its
    /// pack if the pack is missing or too short, or the content is not what was stored; those of the storage.
    pub async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        let info = match self.pending(id) {
            Some(Pending::Memory(info, sealed)) => return self.decode(&info, &sealed),
            Some(Pending::Stored(info)) => info,
            None => self.committed(id)?,
        };
        match self.read(&info).await {
            Err(KopiaError::BlobNotFound { .. }) => {
                self.inner.parts.index.refresh().await?;
                let moved = self.info(id)?;
                if moved.pack == info.pack {
                    return Err(missing_pack(&info));
                }
                let sealed = self.read(&moved).await.map_err(|error| named(&moved, error))?;
                self.decode(&moved, &sealed)
            }
            result => self.decode(&info, &result.map_err(|error| named(&info, error))?),
        }
    }

    /// Reads bytes of a pack, past any cache.
    pub async fn read_range(&self, pack: &BlobId, range: Range<u64>) -> KopiaResult<Bytes> {
        let length = range.end.saturating_sub(range.start);
        self.inner
            .parts
            .storage
            .get_range(pack, range.start, length)
            .await
    }

    /// Reads many contents in the order of their packs, neighbours at once, `parallel` ranges at a time; gives each with
    /// its position in `contents`. At most `parallel` ranges of [`MergeRules::longest`] bytes are in memory.
    ///
    /// # Errors
    ///
    /// Each content has its own, as with [`get`](Self::get), which is what reads it if something is wrong with its range.
    pub fn read_many(
        &self,
        contents: Vec<ContentInfo>,
        rules: MergeRules,
        parallel: usize,
    ) -> impl Stream<Item = (usize, KopiaResult<Vec<u8>>)> + Send + 'static {
        let ranges = plan_ranges(&contents, rules);
        let contents: Arc<[ContentInfo]> = contents.into();
        let this = self.clone();
        stream::iter(ranges)
            .map(move |range| {
                let (this, contents) = (this.clone(), Arc::clone(&contents));
                async move { stream::iter(this.read_planned(&range, &contents).await) }.boxed()
            })
            .buffer_unordered(parallel.max(1))
            .flatten()
    }

    async fn read_planned(
        &self,
        range: &PackRange,
        contents: &[ContentInfo],
    ) -> Vec<(usize, KopiaResult<Vec<u8>>)> {
        let possible = |at: &usize| contents[*at].check_lengths().is_ok();
        let data = if range.contents.iter().all(possible) {
            self.read_range(&range.pack, range.range.clone()).await.ok()
        } else {
            None
        };
        let mut decoded = Vec::with_capacity(range.contents.len());
        for &at in &range.contents {
            let info = &contents[at];
            let result = match &data {
                Some(data) => self.decode(info, part_of(data, range, info)),
                // The others may be fine, and each error must name its content.
                None => self.get(&info.id).await,
            };
            decoded.push((at, result));
        }
        decoded
    }

    /// Decrypts and decompresses a content, as it is in a pack.
    ///
    /// # Errors
    ///
    /// As [`decode_in_place`](Self::decode_in_place).
    pub fn decode(&self, info: &ContentInfo, sealed: &[u8]) -> KopiaResult<Vec<u8>> {
        Ok(self.decode_in_place(info, &mut sealed.to_vec())?.into_owned())
    }

    /// Decrypts a content where it is, and decompresses it if need be: the data is a part of `sealed` if it is not
    /// compressed. The encryption proves that this is what was stored under this name: the key of each content is
    /// derived from its name.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](KopiaError::Corrupt) naming the content and its pack if it is not what was stored;
    /// [`Unsupported`](KopiaError::Unsupported) if it is compressed or encrypted in a way that is not known.
    pub fn decode_in_place<'a>(
        &self,
        info: &ContentInfo,
        sealed: &'a mut [u8],
    ) -> KopiaResult<Cow<'a, [u8]>> {
        if info.encryption_key != 0 {
            return Err(KopiaError::Unsupported {
                feature: format!("encryption key {}", info.encryption_key),
                detail: format!(
                    "{} is encrypted with it; kopia has only key 0",
                    named_content(info)
                ),
            });
        }
        info.check_lengths()?;
        let format = &self.inner.parts.format;
        let plain = format
            .cipher
            .open(content_iv(info.id.hash()), sealed, named_content(info))?;
        let data = if info.compression == HeaderId::NONE {
            Cow::Borrowed(&*plain)
        } else {
            let length = usize::try_from(info.original_length).unwrap_or(usize::MAX);
            if plain.first_chunk() != Some(&info.compression.0.to_be_bytes()) {
                let problem = format_args!(
                    "it is not compressed with {}, as the index says",
                    info.compression
                );
                return Err(KopiaError::corrupt(named_content(info), problem));
            }
            let data = decompress(plain, length, named_content(info))?;
            Cow::Owned(data)
        };
        if data.len() as u64 != u64::from(info.original_length) {
            return Err(KopiaError::corrupt(
                named_content(info),
                format_args!("it has {} bytes, not {}", data.len(), info.original_length),
            ));
        }
        Ok(data)
    }

    /// Whether data are those that a content is named after. Reading does not do this, as kopia does not: it takes as long
    /// as all the rest, and the encryption proves nearly the same.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](KopiaError::Corrupt) naming the content and its pack if not.
    pub fn check_hash(&self, info: &ContentInfo, data: &[u8]) -> KopiaResult<()> {
        if self.inner.parts.format.hasher.hash(data) == *info.id.hash() {
            return Ok(());
        }
        Err(KopiaError::corrupt(
            named_content(info),
            "its hash is not its name",
        ))
    }

    fn pending(&self, id: &ContentId) -> Option<Pending> {
        let writers = self.inner.writers.read().unwrap_or_else(PoisonError::into_inner);
        writers
            .iter()
            .filter_map(Weak::upgrade)
            .find_map(|writer| writer.pending(id))
    }

    fn committed(&self, id: &ContentId) -> KopiaResult<ContentInfo> {
        let info = self.inner.parts.index.lookup(id)?;
        let info = info.ok_or_else(|| KopiaError::ContentNotFound { id: id.to_string() })?;
        info.check_lengths()?;
        Ok(info)
    }

    /// The content as it is stored.
    async fn read(&self, info: &ContentInfo) -> KopiaResult<Bytes> {
        let range = info.packed_range();
        if info.id.prefix().is_some() {
            self.inner.cache.read(&info.pack, range).await
        } else {
            self.read_range(&info.pack, range).await
        }
    }
}

impl fmt::Debug for ContentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentReader")
            .field("storage", &self.inner.parts.storage)
            .finish_non_exhaustive()
    }
}

/// The bytes of a content in a range that was read.
fn part_of<'a>(data: &'a [u8], range: &PackRange, info: &ContentInfo) -> &'a [u8] {
    let wanted = info.packed_range();
    let begin = wanted.start.saturating_sub(range.range.start);
    let end = wanted.end.saturating_sub(range.range.start);
    let part = usize::try_from(begin).ok().zip(usize::try_from(end).ok());
    // Too few bytes are noticed when they are decrypted.
    part.and_then(|(begin, end)| data.get(begin..end))
        .unwrap_or_default()
}

/// How a content is called in errors.
fn named_content(info: &ContentInfo) -> String {
    format!("content {} in pack {} at {}", info.id, info.pack, info.offset)
}

fn missing_pack(info: &ContentInfo) -> KopiaError {
    KopiaError::corrupt(named_content(info), "the pack does not exist")
}

/// An error of reading a pack, with the content that was wanted.
fn named(info: &ContentInfo, error: KopiaError) -> KopiaError {
    match error {
        KopiaError::BlobNotFound { .. } => missing_pack(info),
        KopiaError::Corrupt { problem, .. } => KopiaError::corrupt(named_content(info), problem),
        other => other,
    }
}
