//! Contents in memory, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{ContentSink, ContentSource};
use crate::compression::HeaderId;
use crate::content::{ContentId, Hash, Prefix};
use crate::error::{KopiaError, KopiaResult};

/// Contents by their id, with how they were to be compressed.
#[derive(Clone, Default)]
pub(crate) struct MemoryContents {
    contents: Arc<Mutex<Contents>>,
    reads: Arc<AtomicUsize>,
}

type Contents = BTreeMap<ContentId, (Vec<u8>, HeaderId)>;

impl MemoryContents {
    pub(crate) fn id(prefix: Option<Prefix>, data: &[u8]) -> ContentId {
        let hash = blake3::hash(data);
        ContentId::new(prefix, Hash::new(&hash.as_bytes()[..16]).unwrap())
    }

    pub(crate) fn source(&self) -> Arc<dyn ContentSource> {
        Arc::new(self.clone())
    }

    pub(crate) fn entry(&self, id: &ContentId) -> Option<(Vec<u8>, HeaderId)> {
        self.contents.lock().unwrap().get(id).cloned()
    }

    pub(crate) fn ids(&self) -> Vec<ContentId> {
        self.contents.lock().unwrap().keys().copied().collect()
    }

    /// How often contents have been read.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn insert(&self, id: ContentId, entry: (Vec<u8>, HeaderId)) {
        self.contents.lock().unwrap().insert(id, entry);
    }

    pub(crate) fn data(&self, id: &ContentId) -> Option<Vec<u8>> {
        self.contents
            .lock()
            .unwrap()
            .get(id)
            .map(|(data, _)| data.clone())
    }
}

impl ContentSink for MemoryContents {
    fn put(&self, prefix: Option<Prefix>, data: Vec<u8>, compression: HeaderId) -> KopiaResult<ContentId> {
        let id = Self::id(prefix, &data);
        self.insert(id, (data, compression));
        Ok(id)
    }
}

#[async_trait]
impl ContentSource for MemoryContents {
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.data(id)
            .ok_or_else(|| KopiaError::ContentNotFound { id: id.to_string() })
    }

    async fn length(&self, id: &ContentId) -> KopiaResult<u64> {
        Ok(self.get(id).await?.len() as u64)
    }
}
