//! Contents of the next files, ordered by where they are.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Consumer, Packs};
use crate::blob::BlobId;
use crate::content::{ContentId, ContentInfo, MergeRules, PackRange, plan_ranges};
use crate::error::{KopiaError, KopiaResult};

/// How many contents are planned together. The more, the more neighbours are found in packs; each takes some hundred
/// bytes.
const CONTENTS: usize = 16 << 10;

/// How much data is planned together: the more, the more a file's parts are written out of order.
const BYTES: u64 = 128 << 20;

/// The first window is so much smaller, and each is twice the one before it: the first data must not wait until half of a
/// tree is planned.
const FIRST: usize = 16;

/// How many contents may be planned and not done.
const PLANNED: usize = 2 * CONTENTS;

/// Half a megabyte for nothing costs less than another request; pieces of 4 MiB keep several in flight within the budget.
const RULES: MergeRules = MergeRules {
    gap: 256 << 10,
    longest: 4 << 20,
};

/// A content and everything that wants it.
#[derive(Debug)]
pub(crate) struct Item<T> {
    pub(crate) info: ContentInfo,
    pub(crate) targets: Vec<T>,
}

/// A range of a pack to be read, and what is in it.
#[derive(Debug)]
pub(crate) struct Piece<T> {
    pub(crate) pack: BlobId,
    pub(crate) range: Range<u64>,
    pub(crate) items: Vec<Item<T>>,
    /// Counts the contents as planned until they are done.
    pub(crate) planned: Option<OwnedSemaphorePermit>,
}

/// Collects contents until there are enough to be planned.
pub(crate) struct Window<C: Consumer> {
    packs: Arc<dyn Packs>,
    consumer: Arc<C>,
    pieces: mpsc::Sender<Piece<C::Target>>,
    planned: Arc<Semaphore>,
    wanted: Vec<(ContentId, C::Target)>,
    bytes: u64,
    /// What the limits are divided by.
    smaller: usize,
}

impl<C: Consumer> Window<C> {
    pub(crate) fn new(
        packs: Arc<dyn Packs>,
        consumer: Arc<C>,
        pieces: mpsc::Sender<Piece<C::Target>>,
    ) -> Self {
        Self {
            packs,
            consumer,
            pieces,
            planned: Arc::new(Semaphore::new(PLANNED)),
            wanted: Vec::new(),
            bytes: 0,
            smaller: FIRST,
        }
    }

    /// Wants a content of about `bytes` bytes.
    pub(crate) async fn add(&mut self, content: ContentId, bytes: u64, target: C::Target) -> KopiaResult<()> {
        self.wanted.push((content, target));
        self.bytes = self.bytes.saturating_add(bytes);
        if self.wanted.len() >= CONTENTS / self.smaller || self.bytes >= BYTES / self.smaller as u64 {
            self.smaller = (self.smaller / 2).max(1);
            self.submit().await?;
        }
        Ok(())
    }

    /// Plans what was collected and hands it on.
    pub(crate) async fn submit(&mut self) -> KopiaResult<()> {
        self.bytes = 0;
        let wanted = std::mem::take(&mut self.wanted);
        let items = self.look_up(wanted);
        for mut piece in plan(items) {
            let count = piece.items.iter().map(|item| item.targets.len()).sum::<usize>();
            let count = u32::try_from(count.min(CONTENTS)).unwrap_or(u32::MAX);
            let planned = Arc::clone(&self.planned).acquire_many_owned(count).await;
            piece.planned = Some(planned.map_err(|_| KopiaError::Cancelled)?);
            // The other side is gone only when everything stops.
            self.pieces.send(piece).await.map_err(|_| KopiaError::Cancelled)?;
        }
        Ok(())
    }

    /// Where the contents are, each once, in the order in which they were wanted. Those that are nowhere have failed.
    fn look_up(&self, wanted: Vec<(ContentId, C::Target)>) -> Vec<Item<C::Target>> {
        let mut wanted: Vec<_> = wanted.into_iter().enumerate().collect();
        // Neighbours in the index are looked up one after the other.
        wanted.sort_by_key(|(_, (content, _))| *content);
        let mut wanted = wanted.into_iter().peekable();
        let mut items = Vec::with_capacity(wanted.len());
        while let Some((first, (content, target))) = wanted.next() {
            let mut targets = vec![target];
            while let Some((_, (_, target))) = wanted.next_if(|(_, (next, _))| *next == content) {
                targets.push(target);
            }
            match self.packs.info(&content) {
                Ok(info) => items.push((first, Item { info, targets })),
                Err(error) => self.consumer.fail(None, targets, &Arc::new(error)),
            }
        }
        items.sort_by_key(|(first, _)| *first);
        items.into_iter().map(|(_, item)| item).collect()
    }
}

/// Which ranges to read, in the order in which their first contents were wanted: so files are written about in the
/// order of the tree, and long ones from their beginning to their end.
fn plan<T>(items: Vec<Item<T>>) -> Vec<Piece<T>> {
    let infos: Vec<ContentInfo> = items.iter().map(|item| item.info.clone()).collect();
    let mut ranges = plan_ranges(&infos, RULES);
    ranges.sort_by_key(|range| range.contents.iter().min().copied());
    let mut items: Vec<Option<Item<T>>> = items.into_iter().map(Some).collect();
    let mut take = |range: PackRange| Piece {
        pack: range.pack,
        range: range.range,
        items: range
            .contents
            .iter()
            .filter_map(|at| items.get_mut(*at)?.take())
            .collect(),
        planned: None,
    };
    ranges.into_iter().map(&mut take).collect()
}
