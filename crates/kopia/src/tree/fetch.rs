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
    /// For bytes in flight: read, being decoded.
    pub(crate) memory: ByteBudget,
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
            parallel,
            workers,
        }
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
    // What is planned and the directories are not counted one by one, nor is what the allocator keeps of buffers that come
    // and go: measured, it is a third of what is in flight.
    let planning = options.memory.reserve(options.memory.total() / 2).await;
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
        let ready = async {
            let get = Arc::clone(&gets).acquire_owned().await.ok();
            (get, options.memory.reserve(cost(&piece, options.workers)).await)
        };
        let Some((get, memory)) = cancel.run_until_cancelled(ready).await else {
            break;
        };
        let (packs, consumer) = (Arc::clone(&packs), Arc::clone(&consumer));
        let (to_workers, cancel) = (to_workers.clone(), cancel.clone());
        under_way.spawn(async move {
            let read = read(&*packs, &*consumer, piece, memory, &to_workers);
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
    drop(planning);
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

/// Bytes that a piece takes: what is read, and what decompressing takes beside it. Decrypting takes none.
fn cost<T>(piece: &Piece<T>, workers: usize) -> u64 {
    let decoding = |item: &Item<T>| match item.info.compression {
        HeaderId::NONE => 0,
        _ => u64::from(item.info.original_length),
    };
    let most = piece.items.iter().map(decoding).max().unwrap_or(0);
    let length = piece.range.end - piece.range.start;
    let batches = length
        .div_ceil(BATCH_BYTES as u64)
        .min(workers as u64)
        .min(piece.items.len() as u64);
    length + most * batches.max(1)
}

/// Reads a piece and hands it to the workers. If that fails, its contents may still be readable one by one: a pack may be
/// cut short, or only a part of it unreadable.
async fn read<C: Consumer>(
    packs: &dyn Packs,
    consumer: &C,
    piece: Piece<C::Target>,
    memory: Reservation,
    to_workers: &std::sync::mpsc::Sender<Batch<C::Target>>,
) {
    let held = Arc::new(Held {
        _memory: memory,
        _planned: piece.planned,
    });
    let start = piece.range.start;
    match packs.read(&piece.pack, piece.range).await {
        Ok(bytes) => {
            let contents = cut(bytes, start, piece.items, consumer);
            for items in split(contents) {
                send(to_workers, items, &held);
            }
        }
        Err(error @ KopiaError::BlobNotFound { .. }) => {
            elsewhere(packs, consumer, piece.items, &Arc::new(error)).await;
        }
        Err(_) => {
            for item in piece.items {
                let range = item.info.packed_range();
                let start = range.start;
                match packs.read(&piece.pack, range).await {
                    Ok(bytes) => send(to_workers, cut(bytes, start, vec![item], consumer), &held),
                    Err(error) => consumer.fail(Some(&item.info), item.targets, &Arc::new(error)),
                }
            }
        }
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
