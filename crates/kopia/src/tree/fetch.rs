//! Ranges of packs, read side by side and decoded by worker threads.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use holdfast_store::{ByteBudget, Reservation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Item, Packs, Piece};
use crate::compression::HeaderId;
use crate::content::ContentInfo;
use crate::error::KopiaError;

/// What one worker decodes before others may take more of the same range: little enough that the work spreads and a
/// cancellation gets through.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_ITEMS: usize = 64;

/// What is done with contents.
pub(crate) trait Consumer: Send + Sync + 'static {
    /// Something that wants the data of a content.
    type Target: Send + 'static;

    /// Takes the data of a content. Called by several threads at the same time.
    fn take(&self, info: &ContentInfo, targets: Vec<Self::Target>, data: &[u8]);

    /// A content could not be had; without `info` it is in no index.
    fn fail(&self, info: Option<&ContentInfo>, targets: Vec<Self::Target>, error: &Arc<KopiaError>);
}

/// How contents are fetched.
#[derive(Clone, Debug)]
pub(crate) struct FetchOptions {
    /// For bytes in flight: read, being decoded. All of it is taken, so that fetches which share it take turns.
    pub(crate) memory: ByteBudget,
    /// Bytes of it that the caller uses.
    pub(crate) beside: u64,
    /// Ranges that are read at the same time.
    pub(crate) parallel: usize,
    /// Threads that decode.
    pub(crate) workers: usize,
}

impl FetchOptions {
    /// `workers` is 0 for two for each processor (one waits for the file system while the other computes), at most 8.
    pub(crate) fn new(memory: ByteBudget, parallel: usize, workers: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = if workers == 0 {
            (processors * 2).min(8)
        } else {
            workers
        };
        Self {
            memory,
            beside: 0,
            parallel,
            workers,
        }
    }

    /// Leaves a part of the memory to the caller.
    pub(crate) fn beside(mut self, bytes: u64) -> Self {
        self.beside = bytes;
        self
    }
}

/// Part of a range that was read, for one worker.
struct Batch<T> {
    /// Contents, each with its bytes in the pack.
    items: Vec<(Item<T>, BytesMut)>,
    /// Given back when all batches of the range are done.
    _held: Arc<Held>,
}

/// What a range takes while it is in flight.
struct Held {
    _memory: Reservation,
    _planned: Option<OwnedSemaphorePermit>,
}

/// Reads pieces until there are no more, and has their contents consumed. Returns when all is done, or soon after a
/// cancellation.
pub(crate) async fn fetch<C: Consumer>(
    packs: Arc<dyn Packs>,
    consumer: Arc<C>,
    mut pieces: mpsc::Receiver<Piece<C::Target>>,
    options: FetchOptions,
    cancel: CancellationToken,
) {
    // Two that took a part each and then waited for more would wait for each other.
    let total = options.memory.total();
    let Some(all) = cancel.run_until_cancelled(options.memory.reserve(total)).await else {
        return;
    };
    // What is planned and the directories are not counted one by one, nor is what the allocator keeps of buffers that come
    // and go: measured, it is a third of what is in flight.
    let memory = ByteBudget::new((total / 2).saturating_sub(options.beside));
    let gets = Arc::new(Semaphore::new(options.parallel.max(1)));
    // Unbounded, because everything in it is covered by the budget.
    let (to_workers, batches) = std::sync::mpsc::channel::<Batch<C::Target>>();
    let batches = Arc::new(Mutex::new(batches));
    let mut workers = JoinSet::new();
    for _ in 0..options.workers.max(1) {
        let (packs, consumer) = (Arc::clone(&packs), Arc::clone(&consumer));
        let (batches, cancel) = (Arc::clone(&batches), cancel.clone());
        workers.spawn_blocking(move || work(&*packs, &*consumer, &batches, &cancel));
    }
    let mut under_way = JoinSet::new();
    while let Some(Some(piece)) = cancel.run_until_cancelled(pieces.recv()).await {
        let cost = Cost::of(&piece, options.workers, memory.total());
        let ready = async {
            let get = Arc::clone(&gets).acquire_owned().await.ok();
            (get, memory.reserve(cost.bytes).await)
        };
        let Some((get, held)) = cancel.run_until_cancelled(ready).await else {
            break;
        };
        let (packs, consumer) = (Arc::clone(&packs), Arc::clone(&consumer));
        let (to_workers, cancel) = (to_workers.clone(), cancel.clone());
        under_way.spawn(async move {
            let read = read(&*packs, &*consumer, piece, held, cost.batches, &to_workers);
            // If cancelled, the caller says so; nothing is lost by dropping what was on its way.
            let _ = cancel.run_until_cancelled(read).await;
            drop(get);
        });
        while let Some(done) = under_way.try_join_next() {
            resume(done);
        }
    }
    drop(pieces);
    while let Some(done) = under_way.join_next().await {
        resume(done);
    }
    drop(to_workers);
    while let Some(done) = workers.join_next().await {
        resume(done);
    }
    drop(all);
}

/// A panic in a task is a defect of the program, which must not pass for a success.
pub(crate) fn resume<T>(done: Result<T, JoinError>) -> Option<T> {
    match done {
        Ok(value) => Some(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => None,
        },
    }
}

/// What a piece takes while it is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// What is read, and what decompressing takes beside it. Decrypting takes none.
    bytes: u64,
    /// The most batches that are made of it: a worker takes one at a time.
    batches: usize,
}

impl Cost {
    /// Fewer workers rather than more than `room` bytes; but what cannot be done with less takes all of it.
    fn of<T>(piece: &Piece<T>, workers: usize, room: u64) -> Self {
        let decoding = |item: &Item<T>| match item.info.compression {
            HeaderId::NONE => 0,
            _ => u64::from(item.info.original_length),
        };
        let most = piece.items.iter().map(decoding).max().unwrap_or(0);
        let length = piece.range.end - piece.range.start;
        let full = usize::try_from(length.div_ceil(BATCH_BYTES as u64)).unwrap_or(usize::MAX);
        let batches = full.saturating_add(piece.items.len().div_ceil(BATCH_ITEMS));
        let wanted = batches.min(workers).min(piece.items.len()).max(1);
        let fit = room.saturating_sub(length).checked_div(most);
        let fit = fit.map_or(usize::MAX, |fit| usize::try_from(fit).unwrap_or(usize::MAX));
        let at_once = wanted.min(fit).max(1);
        Self {
            bytes: length
                .saturating_add(most.saturating_mul(at_once as u64))
                .min(room),
            batches: if fit < wanted { at_once } else { usize::MAX },
        }
    }
}

/// Reads a piece and hands it to the workers. If that fails, its contents may still be readable one by one: a pack may be
/// cut short, or only a part of it unreadable.
async fn read<C: Consumer>(
    packs: &dyn Packs,
    consumer: &C,
    piece: Piece<C::Target>,
    memory: Reservation,
    batches: usize,
    to_workers: &std::sync::mpsc::Sender<Batch<C::Target>>,
) {
    let held = Arc::new(Held {
        _memory: memory,
        _planned: piece.planned,
    });
    let start = piece.range.start;
    let contents = match packs.read(&piece.pack, piece.range).await {
        Ok(bytes) => cut(bytes, start, piece.items, consumer),
        Err(error @ KopiaError::BlobNotFound { .. }) => {
            return elsewhere(packs, consumer, piece.items, &Arc::new(error)).await;
        }
        Err(_) => {
            let mut contents = Vec::with_capacity(piece.items.len());
            for item in piece.items {
                let range = item.info.packed_range();
                let start = range.start;
                match packs.read(&piece.pack, range).await {
                    Ok(bytes) => contents.extend(cut(bytes, start, vec![item], consumer)),
                    Err(error) => consumer.fail(Some(&item.info), item.targets, &Arc::new(error)),
                }
            }
            contents
        }
    };
    for items in deal(split(contents), batches) {
        send(to_workers, items, &held);
    }
}

/// Cuts what was read into contents, which are in the order of the pack. They are decrypted where they are; so nothing is
/// copied, unless somebody else holds what was read, or contents overlap, which those of kopia never do.
fn cut<C: Consumer>(
    bytes: Bytes,
    start: u64,
    items: Vec<Item<C::Target>>,
    consumer: &C,
) -> Vec<(Item<C::Target>, BytesMut)> {
    let overlap = items.windows(2).any(|pair| match pair {
        [first, second] => first.info.packed_range().end > second.info.packed_range().start,
        _ => false,
    });
    let (shared, mut rest) = match bytes.try_into_mut() {
        Ok(owned) if !overlap => (Bytes::new(), owned),
        Ok(owned) => (owned.freeze(), BytesMut::new()),
        Err(shared) => (shared, BytesMut::new()),
    };
    let mut at = start;
    let mut contents = Vec::with_capacity(items.len());
    for item in items {
        let range = item.info.packed_range();
        let part = if shared.is_empty() {
            take(&mut rest, range.start.saturating_sub(at), item.info.packed_length)
        } else {
            copy(
                &shared,
                range.start.saturating_sub(start),
                item.info.packed_length,
            )
        };
        at = range.end;
        if let Some(part) = part {
            contents.push((item, part));
        } else {
            let problem = format_args!("it ends before content {}", item.info.id);
            let error = KopiaError::corrupt(format_args!("pack {}", item.info.pack), problem);
            consumer.fail(Some(&item.info), item.targets, &Arc::new(error));
        }
    }
    contents
}

/// Takes bytes out of the front of `rest`, after those to be skipped.
fn take(rest: &mut BytesMut, skip: u64, length: u32) -> Option<BytesMut> {
    let (skip, length) = (usize::try_from(skip).ok()?, usize::try_from(length).ok()?);
    if skip.checked_add(length)? > rest.len() {
        return None;
    }
    rest.advance(skip);
    Some(rest.split_to(length))
}

fn copy(whole: &[u8], begin: u64, length: u32) -> Option<BytesMut> {
    let (begin, length) = (usize::try_from(begin).ok()?, usize::try_from(length).ok()?);
    whole.get(begin..begin.checked_add(length)?).map(BytesMut::from)
}

/// The pack is gone. Maintenance may have moved its contents to another one; if the first was not, none was.
async fn elsewhere<C: Consumer>(
    packs: &dyn Packs,
    consumer: &C,
    items: Vec<Item<C::Target>>,
    error: &Arc<KopiaError>,
) {
    let mut gone = false;
    for item in items {
        let moved = if gone {
            None
        } else {
            packs.get(&item.info.id).await.ok()
        };
        gone = moved.is_none();
        match moved {
            Some(data) => consumer.take(&item.info, item.targets, &data),
            None => consumer.fail(Some(&item.info), item.targets, error),
        }
    }
}

fn send<T>(
    to_workers: &std::sync::mpsc::Sender<Batch<T>>,
    items: Vec<(Item<T>, BytesMut)>,
    held: &Arc<Held>,
) {
    let batch = Batch {
        items,
        _held: Arc::clone(held),
    };
    // The workers end before only when everything is cancelled.
    let _ = to_workers.send(batch);
}

/// Divides the contents of a piece among batches.
fn split<T>(contents: Vec<(Item<T>, BytesMut)>) -> Vec<Vec<(Item<T>, BytesMut)>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for content in contents {
        bytes += content.1.len();
        batch.push(content);
        if bytes >= BATCH_BYTES || batch.len() >= BATCH_ITEMS {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Makes at most so many batches of these.
fn deal<T>(batches: Vec<Vec<T>>, most: usize) -> Vec<Vec<T>> {
    let mut dealt: Vec<Vec<T>> = Vec::with_capacity(batches.len().min(most));
    for (number, batch) in batches.into_iter().enumerate() {
        match dealt.get_mut(number % most.max(1)) {
            Some(other) => other.extend(batch),
            None => dealt.push(batch),
        }
    }
    dealt
}

/// A worker: decodes until there is nothing more.
fn work<C: Consumer>(
    packs: &dyn Packs,
    consumer: &C,
    batches: &Mutex<std::sync::mpsc::Receiver<Batch<C::Target>>>,
    cancel: &CancellationToken,
) {
    loop {
        // Whoever has the lock waits for the next batch, the others for the lock.
        let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = next else { return };
        for (item, mut packed) in batch.items {
            if cancel.is_cancelled() {
                return;
            }
            match packs.decode(&item.info, &mut packed) {
                Ok(data) => consumer.take(&item.info, item.targets, &data),
                Err(error) => consumer.fail(Some(&item.info), item.targets, &Arc::new(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{ContentId, Hash};

    const MIB: u64 = 1 << 20;

    fn piece(length: u64, items: usize, original_length: u64, compression: HeaderId) -> Piece<()> {
        let packed_length = u32::try_from(length / items as u64).unwrap();
        let item = |number: usize| Item {
            info: ContentInfo {
                id: ContentId::new(None, Hash::new(&number.to_le_bytes()).unwrap()),
                pack: "p".into(),
                offset: u32::try_from(number).unwrap() * packed_length,
                packed_length,
                original_length: u32::try_from(original_length).unwrap(),
                compression,
                format_version: 3,
                encryption_key: 0,
                timestamp: 0,
                deleted: false,
            },
            targets: vec![()],
        };
        Piece {
            pack: "p".into(),
            range: 0..length,
            items: (0..items).map(item).collect(),
            planned: None,
        }
    }

    #[test]
    fn what_is_decompressed_at_the_same_time_fits_into_the_memory() {
        let cost = |length, items, original, room| {
            let cost = Cost::of(&piece(length, items, original, HeaderId::ZSTD), 4, room);
            (cost.bytes / MIB, cost.batches)
        };
        assert_eq!(cost(4 * MIB, 10, 2 * MIB, 30 * MIB), (12, usize::MAX));
        // Text of which a tenth is left: four workers at once would not fit.
        assert_eq!(cost(4 * MIB, 10, 8 * MIB, 30 * MIB), (28, 3));
        assert_eq!(cost(4 * MIB, 10, 16 * MIB, 30 * MIB), (20, 1));
        // Many in few bytes are many batches, too.
        assert_eq!(cost(MIB / 4, 1000, 16 * MIB, 30 * MIB), (16, 1));
        assert_eq!(cost(16 * MIB, 1, 16 * MIB, 30 * MIB), (30, 1));
        assert_eq!(cost(4 * MIB, 10, 8 * MIB, 0), (0, 1));
        let plain = Cost::of(&piece(4 * MIB, 10, 8 * MIB, HeaderId::NONE), 4, 30 * MIB);
        assert_eq!((plain.bytes, plain.batches), (4 * MIB, usize::MAX));
    }

    #[test]
    fn batches_are_dealt() {
        let batches = || (0..7).map(|number| vec![number]).collect::<Vec<_>>();
        assert_eq!(deal(batches(), usize::MAX), batches());
        assert_eq!(deal(batches(), 3), [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
        assert_eq!(deal(batches(), 1), [(0..7).collect::<Vec<_>>()]);
    }
}
