//! Windows of metadata packs in memory.
//!
//! Walking a directory tree reads many small contents that were written one after the other. So packs of metadata are
//! read in windows, and the windows used last are kept, as they are stored: encrypted.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::OnceCell;

use crate::blob::{BlobId, BlobStorage};
use crate::error::{KopiaError, KopiaResult};

/// Bytes that are read at once.
pub(crate) const WINDOW: u64 = 512 << 10;
/// Sizes of so many packs are remembered.
const MAX_SIZES: usize = 10_000;

/// A part of a pack, by its number.
type Key = (BlobId, u64);

/// Windows of packs, the most of them that were used last.
#[derive(Debug)]
pub(crate) struct WindowCache {
    storage: Arc<dyn BlobStorage>,
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    windows: HashMap<Key, Window>,
    /// Counts uses.
    uses: u64,
    sizes: HashMap<BlobId, u64>,
}

#[derive(Debug, Default)]
struct Window {
    /// Filled by who comes first; the others wait for that.
    data: Arc<OnceCell<Bytes>>,
    used: u64,
}

impl WindowCache {
    /// Keeps at most so many bytes; none if that is less than a window.
    pub(crate) fn new(storage: Arc<dyn BlobStorage>, bytes: u64) -> Self {
        Self {
            storage,
            most: usize::try_from(bytes / WINDOW).unwrap_or(usize::MAX),
            state: Mutex::default(),
        }
    }

    /// Bytes of a pack.
    pub(crate) async fn read(&self, pack: &BlobId, range: Range<u64>) -> KopiaResult<Bytes> {
        let (first, end) = (range.start / WINDOW, range.end.div_ceil(WINDOW));
        // What would push everything else out is not kept.
        if end.saturating_sub(first) > self.most as u64 / 2 {
            return self
                .storage
                .get_range(pack, range.start, range.end - range.start)
                .await;
        }
        let size = self.size(pack).await?;
        if range.end > size {
            return Err(KopiaError::corrupt(
                format_args!("pack {pack}"),
                format_args!("it ends at {size}, before {}", range.end),
            ));
        }
        let mut parts = BytesMut::new();
        for number in first..end {
            let begin = number * WINDOW;
            let window = self
                .window(pack, number, (begin + WINDOW).min(size) - begin)
                .await?;
            let from = range.start.max(begin) - begin;
            let to = range.end.min(begin + WINDOW) - begin;
            let part = window.slice(usize_of(from)?..usize_of(to)?);
            if end - first == 1 {
                return Ok(part);
            }
            parts.extend_from_slice(&part);
        }
        Ok(parts.freeze())
    }

    async fn window(&self, pack: &BlobId, number: u64, length: u64) -> KopiaResult<Bytes> {
        let data = self.state().enter((pack.clone(), number), self.most);
        let fetch = || self.storage.get_range(pack, number * WINDOW, length);
        data.get_or_try_init(fetch).await.cloned()
    }

    async fn size(&self, pack: &BlobId) -> KopiaResult<u64> {
        if let Some(size) = self.state().sizes.get(pack) {
            return Ok(*size);
        }
        let Some(size) = self.storage.size(pack).await? else {
            return Err(KopiaError::BlobNotFound {
                blob: pack.to_string(),
            });
        };
        let mut state = self.state();
        if state.sizes.len() >= MAX_SIZES {
            state.sizes.clear();
        }
        state.sizes.insert(pack.clone(), size);
        Ok(size)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The place of a window, which may have to be filled; what was used longest ago makes room.
    fn enter(&mut self, key: Key, most: usize) -> Arc<OnceCell<Bytes>> {
        self.uses += 1;
        let uses = self.uses;
        if !self.windows.contains_key(&key) && self.windows.len() >= most {
            let oldest = self
                .windows
                .iter()
                .min_by_key(|(_, window)| window.used)
                .map(|(key, _)| key.clone());
            oldest.and_then(|key| self.windows.remove(&key));
        }
        let window = self.windows.entry(key).or_default();
        window.used = uses;
        Arc::clone(&window.data)
    }
}

fn usize_of(value: u64) -> KopiaResult<usize> {
    usize::try_from(value).map_err(|_| KopiaError::Argument {
        name: "range",
        problem: "it is too large for this machine".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::MemoryBlobs;
    use crate::blob::memory::Operation;

    #[tokio::test]
    async fn neighbours_are_read_once() {
        let blobs = MemoryBlobs::new();
        let data: Vec<u8> = (0..3 * WINDOW + 1000)
            .map(|at| (at / 1000).to_le_bytes()[0])
            .collect();
        let pack = BlobId::from("q1");
        blobs.put(&pack, vec![data.clone().into()], None).await.unwrap();
        let cache = WindowCache::new(Arc::new(blobs.clone()), 4 * WINDOW);
        let mut expected = 0;
        let middle = WINDOW / 2;
        for (begin, length, requests) in [
            (10, 100, 1),
            (middle, 500, 0),
            (WINDOW - 5, 10, 1),
            (3 * WINDOW + 500, 500, 1),
            (2 * WINDOW, 10, 1),
            // All of it is more than half of the cache: read as it is.
            (0, 3 * WINDOW, 1),
            (0, 0, 0),
        ] {
            let read = cache.read(&pack, begin..begin + length).await.unwrap();
            let (begin, length) = (usize::try_from(begin).unwrap(), usize::try_from(length).unwrap());
            assert_eq!(read, data[begin..begin + length]);
            expected += requests;
            assert_eq!(blobs.calls(Operation::GetRange), expected, "{begin}");
        }
        assert_eq!(blobs.calls(Operation::Metadata), 1);
        // A fifth window makes room by the one used longest ago, the first.
        blobs.put(&"q2".into(), vec![data.into()], None).await.unwrap();
        cache.read(&"q2".into(), 0..10).await.unwrap();
        cache.read(&pack, WINDOW..WINDOW + 1).await.unwrap();
        assert_eq!(blobs.calls(Operation::GetRange), expected + 1);
        cache.read(&pack, 0..1).await.unwrap();
        assert_eq!(blobs.calls(Operation::GetRange), expected + 2);
    }

    #[tokio::test]
    async fn what_is_not_there_is_said() {
        let blobs = MemoryBlobs::new();
        let cache = WindowCache::new(Arc::new(blobs.clone()), 4 * WINDOW);
        let error = cache.read(&"q1".into(), 0..10).await.unwrap_err();
        assert!(matches!(error, KopiaError::BlobNotFound { .. }), "{error}");
        blobs
            .put(&"q1".into(), vec![vec![0; 9].into()], None)
            .await
            .unwrap();
        let error = cache.read(&"q1".into(), 0..10).await.unwrap_err();
        assert!(matches!(error, KopiaError::Corrupt { .. }), "{error}");
    }
}
