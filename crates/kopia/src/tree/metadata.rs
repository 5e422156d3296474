//! Directories and lists of parts, fetched many at a time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Packs;
use crate::content::{ContentId, ContentInfo, MergeRules, PackRange, plan_ranges};
use crate::error::{KopiaError, KopiaResult};
use crate::object::ContentSource;

/// How many ranges are in flight.
const PARALLEL: usize = 8;

/// Directories that belong together are near to each other; this is what is read beyond them rather than ask again.
const RULES: MergeRules = MergeRules {
    gap: 64 << 10,
    longest: 2 << 20,
};

/// The contents of the directories that come next, so that a tree of small directories does not take a request for each.
pub(crate) struct MetadataSource {
    packs: Arc<dyn Packs>,
    cancel: CancellationToken,
    ready: Mutex<HashMap<ContentId, Vec<u8>>>,
}

impl MetadataSource {
    pub(crate) fn new(packs: Arc<dyn Packs>, cancel: CancellationToken) -> Self {
        Self {
            packs,
            cancel,
            ready: Mutex::default(),
        }
    }

    /// Fetches contents, in place of those that were fetched before. One that fails is left out: whoever asks for it
    /// gets its error then.
    pub(crate) async fn prefetch(&self, wanted: &[ContentId]) {
        let infos: Vec<ContentInfo> = wanted.iter().filter_map(|id| self.packs.info(id).ok()).collect();
        let ranges = plan_ranges(&infos, RULES);
        let under_way = ranges.iter().map(|range| self.read(range, &infos));
        let mut ready = HashMap::with_capacity(infos.len());
        let mut done = futures::stream::iter(under_way).buffer_unordered(PARALLEL);
        while let Some(contents) = done.next().await {
            ready.extend(contents);
        }
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    async fn read(&self, range: &PackRange, infos: &[ContentInfo]) -> Vec<(ContentId, Vec<u8>)> {
        let Ok(bytes) = self
            .cancellable(self.packs.read(&range.pack, range.range.clone()))
            .await
        else {
            return Vec::new();
        };
        let contents = range.contents.iter().filter_map(|at| infos.get(*at));
        let decode = |info: &ContentInfo| {
            let mut packed = slice(&bytes, range.range.start, info)?.to_vec();
            Some((info.id, self.packs.decode(info, &mut packed).ok()?.into_owned()))
        };
        contents.filter_map(decode).collect()
    }

    async fn cancellable<T>(&self, future: impl Future<Output = KopiaResult<T>>) -> KopiaResult<T> {
        self.cancel
            .run_until_cancelled(future)
            .await
            .unwrap_or(Err(KopiaError::Cancelled))
    }
}

/// The bytes of a content in what was read of its pack from `start` on; none if they are not all there.
fn slice<'a>(bytes: &'a [u8], start: u64, info: &ContentInfo) -> Option<&'a [u8]> {
    let range = info.packed_range();
    let begin = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let end = usize::try_from(range.end.checked_sub(start)?).ok()?;
    bytes.get(begin..end)
}

#[async_trait]
impl ContentSource for MetadataSource {
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned();
        if let Some(data) = ready {
            return Ok(data);
        }
        self.cancellable(self.packs.get(id)).await
    }

    async fn length(&self, id: &ContentId) -> KopiaResult<u64> {
        Ok(self.packs.info(id)?.original_length.into())
    }
}
