//! What the threads and tasks of a writer share, and the way of a content into a pack.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::limits::{Held, Limits, Step};
use super::{WriterOptions, WriterStats};
use crate::blob::{BlobId, BlobStorage};
use crate::compression::{HeaderId, compress};
use crate::content::claims::Claims;
use crate::content::pack::{
    CONTENT_COST, OpenPack, PACK_COST, Pack, PackKind, PackedContent, SealedContent, random_bytes,
};
use crate::content::session::Session;
use crate::content::{ContentId, ContentInfo, Hash, MAX_PIECE, is_piece};
use crate::crypto::content_iv;
use crate::epoch::Clock;
use crate::error::{KopiaError, KopiaResult};
use crate::format::RepositoryFormat;
use crate::index::CommittedIndex;

/// Of contents that are pieces of no object: lengths in an index have 28 bits; encryption adds some.
const LONGEST: usize = (1 << 28) - 1024;
/// An index is written after this time at the latest, as kopia does.
pub(super) const INDEX_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
/// What others have written is looked at after this time, as kopia does.
pub(super) const REFRESH_INTERVAL: SignedDuration = SignedDuration::from_mins(15);

/// What a writer needs of its repository.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) storage: Arc<dyn BlobStorage>,
    pub(crate) format: Arc<RepositoryFormat>,
    pub(crate) index: Arc<CommittedIndex>,
    pub(crate) clock: Clock,
}

/// A content that is in no index yet.
pub(crate) enum Pending {
    /// Its pack is stored.
    Stored(ContentInfo),
    /// Its pack is in memory; this is the content as it will be stored.
    Memory(ContentInfo, Vec<u8>),
}

/// Everything that clones of a writer share.
pub(crate) struct Shared {
    pub(super) parts: Parts,
    pub(super) options: WriterOptions,
    pub(super) runtime: Handle,
    pub(super) random: SystemRandom,
    pub(super) claims: Claims,
    /// What every pack begins with.
    prefix: Vec<u8>,
    limits: Limits,
    state: Mutex<State>,
    /// Something changed, for threads.
    room: Condvar,
    /// Something changed, for tasks.
    pub(super) changed: Notify,
    pub(super) slots: Semaphore,
    /// Held while flushing; a second flush waits.
    pub(super) flushing: tokio::sync::Mutex<()>,
    /// Held while an index is written. Who holds it waits for nothing but the storage.
    pub(super) indexing: tokio::sync::Mutex<()>,
    pub(super) counters: Counters,
    pub(super) cancel: CancellationToken,
    /// Ends the task that waits for the cancellation.
    _dropped: DropGuard,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    contents: AtomicU64,
    bytes: AtomicU64,
    duplicates: AtomicU64,
    duplicate_bytes: AtomicU64,
    packed_bytes: AtomicU64,
    pub(super) packs: AtomicU64,
    pub(super) uploaded_bytes: AtomicU64,
}

/// What is under the lock. Nothing waits while it is held, and nothing longer than a copy of 64 KiB happens.
pub(super) struct State {
    pub(super) open: [Option<OpenPack>; 2],
    /// Bytes held for each open pack, more than its length by what its recovery data will take.
    open_cost: [u64; 2],
    /// Bytes of packs in memory: open, uploading, failed.
    pub(super) held: u64,
    peak: u64,
    pub(super) uploading: BTreeMap<u64, Arc<Pack>>,
    pub(super) failed: Vec<Arc<Pack>>,
    /// Packs that are stored and in no index.
    pub(super) stored: BTreeMap<u64, StoredPack>,
    /// Contents of these.
    pub(super) unindexed: usize,
    /// Why every call fails until a flush succeeds.
    pub(super) failure: Option<Arc<KopiaError>>,
    /// A content that somebody was told is there, and is not: nothing can be committed any more.
    pub(super) lost: Option<ContentId>,
    pub(super) session: Arc<Session>,
    /// The first pack of the session, if there is one.
    pub(super) session_begin: u64,
    /// Sessions whose packs may not all be in an index.
    pub(super) old_sessions: Vec<Arc<Session>>,
    pub(super) next_pack: u64,
    /// Flushes so far; each waits for the calls that began before it.
    pub(super) generation: usize,
    /// Calls at work that began in an even and in an odd generation.
    pub(super) inside: [usize; 2],
    pub(super) index_due: Timestamp,
    pub(super) refresh_due: Timestamp,
    pub(super) index_scheduled: bool,
}

/// A pack that is stored.
#[derive(Clone)]
pub(super) struct StoredPack {
    pub(super) name: BlobId,
    pub(super) session: Arc<Session>,
    pub(super) contents: Arc<[PackedContent]>,
}

impl Shared {
    /// A writer; must be called within a tokio runtime, on which it uploads.
    pub(crate) fn new(parts: Parts, options: WriterOptions) -> KopiaResult<Arc<Self>> {
        let runtime = Handle::try_current().map_err(|error| KopiaError::Argument {
            name: "runtime",
            problem: error.to_string(),
        })?;
        let random = SystemRandom::new();
        let now = (parts.clock)();
        let session = Arc::new(Session::new(
            random_bytes(&random)?,
            &options.user,
            &options.host,
            now,
        ));
        let cancel = options.cancel.child_token();
        let shared = Arc::new(Self {
            limits: Limits::new(options.pack_memory, u64::from(parts.format.max_pack_size)),
            claims: Claims::new(),
            prefix: parts.format.recovery_copy()?.unwrap_or_default(),
            state: Mutex::new(State {
                open: [None, None],
                open_cost: [0, 0],
                held: 0,
                peak: 0,
                uploading: BTreeMap::new(),
                failed: Vec::new(),
                stored: BTreeMap::new(),
                unindexed: 0,
                failure: None,
                lost: None,
                session,
                session_begin: 0,
                old_sessions: Vec::new(),
                next_pack: 0,
                generation: 0,
                inside: [0, 0],
                index_due: now.saturating_add(INDEX_INTERVAL).unwrap_or(Timestamp::MAX),
                refresh_due: now.saturating_add(REFRESH_INTERVAL).unwrap_or(Timestamp::MAX),
                index_scheduled: false,
            }),
            room: Condvar::new(),
            changed: Notify::new(),
            slots: Semaphore::new(options.parallel_uploads.max(1)),
            flushing: tokio::sync::Mutex::default(),
            indexing: tokio::sync::Mutex::default(),
            counters: Counters::default(),
            _dropped: cancel.clone().drop_guard(),
            cancel: cancel.clone(),
            random,
            runtime: runtime.clone(),
            options,
            parts,
        });
        // Threads wait on a condition variable, which knows nothing of tokens.
        let weak = Arc::downgrade(&shared);
        runtime.spawn(async move {
            cancel.cancelled().await;
            if let Some(shared) = weak.upgrade() {
                shared.fail(&Arc::new(KopiaError::Cancelled));
            }
        });
        Ok(shared)
    }

    pub(super) fn hash(&self, data: &[u8]) -> Hash {
        self.parts.format.hasher.hash(data)
    }

    pub(super) fn hash_many(&self, batch: &[Vec<u8>]) -> Vec<Hash> {
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        self.parts.format.hasher.hash_many(&slices)
    }

    pub(super) fn lanes(&self) -> usize {
        self.parts.format.hasher.lanes()
    }

    /// Says that a call is at work, until what is given back is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Inside<'_> {
        let mut state = self.lock();
        let generation = state.generation % 2;
        state.inside[generation] += 1;
        Inside {
            shared: self,
            generation,
        }
    }

    /// Brings a content of this name into a pack, unless it is somewhere already.
    pub(super) fn put(
        self: &Arc<Self>,
        id: ContentId,
        data: Vec<u8>,
        compression: HeaderId,
    ) -> KopiaResult<()> {
        let length = data.len() as u64;
        self.counters.contents.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(length, Ordering::Relaxed);
        let duplicate = || {
            self.counters.duplicates.fetch_add(1, Ordering::Relaxed);
            self.counters.duplicate_bytes.fetch_add(length, Ordering::Relaxed);
            Ok(())
        };
        if !self.claims.take(&id) {
            return duplicate();
        }
        let mut claim = Taken {
            shared: self,
            id,
            resolved: false,
        };
        let previous = match self.parts.index.lookup(&id)? {
            Some(info) if !info.deleted => {
                claim.resolved = true;
                self.claims.give_back(&id);
                return duplicate();
            }
            // The newer entry of a content is the valid one, so it must be newer than that of the deletion.
            previous => previous.map(|info| info.timestamp),
        };
        let sealed = self.seal(id, data, compression)?;
        let packed = sealed.length();
        self.append(sealed, previous)?;
        claim.resolved = true;
        self.counters.packed_bytes.fetch_add(packed, Ordering::Relaxed);
        Ok(())
    }

    /// Compresses and encrypts. No lock is held.
    fn seal(&self, id: ContentId, mut data: Vec<u8>, compression: HeaderId) -> KopiaResult<SealedContent> {
        let format = &self.parts.format;
        let longest = if is_piece(id.prefix()) {
            MAX_PIECE as usize
        } else {
            LONGEST
        };
        if data.len() > longest {
            return Err(KopiaError::Argument {
                name: "content",
                problem: format!("{id} is too long: {} bytes", data.len()),
            });
        }
        let original_length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut kept = HeaderId::NONE;
        // The first version of the index cannot say how a content is compressed.
        if compression != HeaderId::NONE
            && format.index_version >= 2
            && let Some(smaller) = compress(compression, &data)?
        {
            data = smaller;
            kept = compression;
        }
        let nonce = format.cipher.seal_detached(content_iv(id.hash()), &mut data)?;
        // What is held is counted by length, so it must not be much more.
        if data.capacity() - data.len() > data.len() / 8 {
            data.shrink_to_fit();
        }
        Ok(SealedContent {
            id,
            nonce,
            body: data,
            original_length,
            compression: kept,
        })
    }

    /// Appends a content to the open pack of its kind; waits for room.
    fn append(self: &Arc<Self>, content: SealedContent, previous: Option<i64>) -> KopiaResult<()> {
        let kind = PackKind::of(&content.id);
        let at = kind as usize;
        let now = (self.parts.clock)().as_second();
        let timestamp = previous.map_or(now, |previous| now.max(previous.saturating_add(1)));
        let mut state = self.lock();
        let full = loop {
            if let Some(failure) = &state.failure {
                return Err(KopiaError::Earlier(Arc::clone(failure)));
            }
            let pack_cost = if state.open[at].is_none() {
                self.pack_cost()
            } else {
                0
            };
            let cost = content.length() + CONTENT_COST + pack_cost;
            let step = if state.unindexed > self.options.index_after.saturating_mul(2) {
                // An index is being written: it was scheduled when half as many were there.
                Step::Wait
            } else {
                self.limits.before(state.held(), at, cost)
            };
            match step {
                Step::Wait => state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner),
                Step::Finish(which) => {
                    let pack = state.finish(which);
                    drop(state);
                    self.upload_all(pack);
                    state = self.lock();
                }
                Step::Append => {
                    if state.open[at].is_none() {
                        let number = state.next_pack;
                        let pack = OpenPack::begin(kind, number, &state.session, &self.prefix, &self.random)?;
                        state.next_pack += 1;
                        state.open[at] = Some(pack);
                    }
                    break self.append_now(&mut state, content, timestamp, cost)?;
                }
            }
        };
        drop(state);
        self.upload_all(full);
        Ok(())
    }

    /// Appends a content for which there is room; gives the pack if it is to be uploaded now.
    fn append_now(
        &self,
        state: &mut State,
        content: SealedContent,
        timestamp: i64,
        cost: u64,
    ) -> KopiaResult<Option<Arc<Pack>>> {
        let id = content.id;
        let at = PackKind::of(&id) as usize;
        let Some(pack) = &mut state.open[at] else {
            return Ok(None);
        };
        pack.append(content, timestamp)?;
        let has_many = pack.count() >= self.options.index_after;
        self.claims.packed(&id, pack.number());
        state.open_cost[at] += cost;
        state.held += cost;
        state.peak = state.peak.max(state.held);
        let full = has_many || self.limits.after(state.held(), at);
        Ok(if full { state.finish(at) } else { None })
    }

    /// What a pack takes besides its contents.
    fn pack_cost(&self) -> u64 {
        PACK_COST + self.prefix.len() as u64
    }

    /// From now on every call fails.
    pub(super) fn fail(&self, failure: &Arc<KopiaError>) {
        let mut state = self.lock();
        state.failure.get_or_insert_with(|| Arc::clone(failure));
        self.wake(state);
    }

    /// Tells everybody who waits that something has changed.
    pub(super) fn wake(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.room.notify_all();
        self.changed.notify_waiters();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code between lock and unlock panics, so nothing is left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A content of this writer that is in no index yet.
    pub(crate) fn pending(&self, id: &ContentId) -> Option<Pending> {
        let number = self.claims.pack_of(id)?;
        let format = &self.parts.format;
        let state = self.lock();
        if let Some(pack) = state.stored.get(&number) {
            let content = pack.contents.iter().find(|content| content.id == *id)?;
            return Some(Pending::Stored(content.info(&pack.name, format)));
        }
        if let Some(pack) = state.open.iter().flatten().find(|pack| pack.number() == number) {
            let (content, bytes) = pack.find(id)?;
            return Some(Pending::Memory(content.info(pack.name(), format), bytes));
        }
        let failed = || state.failed.iter().find(|pack| pack.number == number);
        let pack = state.uploading.get(&number).or_else(failed).map(Arc::clone)?;
        drop(state);
        let (content, bytes) = pack.find(id)?;
        Some(Pending::Memory(content.info(&pack.name, format), bytes))
    }

    pub(super) fn stats(&self) -> WriterStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterStats {
            contents: read(&self.counters.contents),
            bytes: read(&self.counters.bytes),
            duplicates: read(&self.counters.duplicates),
            duplicate_bytes: read(&self.counters.duplicate_bytes),
            packed_bytes: read(&self.counters.packed_bytes),
            packs: read(&self.counters.packs),
            uploaded_bytes: read(&self.counters.uploaded_bytes),
            peak_bytes: self.lock().peak,
        }
    }
}

impl State {
    fn held(&self) -> Held {
        Held {
            bytes: self.held,
            open: self
                .open
                .each_ref()
                .map(|pack| pack.as_ref().map_or(0, OpenPack::length)),
            uploading: self.uploading.len(),
        }
    }

    /// Finishes an open pack, if there is one; it counts as being uploaded from now on.
    pub(super) fn finish(&mut self, at: usize) -> Option<Arc<Pack>> {
        let pack = self.open[at].take()?;
        let pack = Arc::new(pack.finish(std::mem::take(&mut self.open_cost[at])));
        self.uploading.insert(pack.number, Arc::clone(&pack));
        Some(pack)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentWriter")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A call at work.
pub(super) struct Inside<'a> {
    shared: &'a Arc<Shared>,
    generation: usize,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.inside[self.generation] -= 1;
        if state.inside[self.generation] == 0 && state.generation % 2 != self.generation {
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }
}

/// A content that a call has taken on.
struct Taken<'a> {
    shared: &'a Arc<Shared>,
    id: ContentId,
    resolved: bool,
}

impl Drop for Taken<'_> {
    /// The call failed. If another was told that the content is taken care of, nothing may be committed.
    fn drop(&mut self) {
        if !self.resolved && self.shared.claims.give_back(&self.id) {
            self.shared.lock().lost = Some(self.id);
        }
    }
}
