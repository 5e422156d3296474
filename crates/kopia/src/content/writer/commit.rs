//! Getting what is stored into an index.

use std::sync::Arc;

use jiff::Timestamp;

use super::shared::{INDEX_INTERVAL, Pending, REFRESH_INTERVAL, Shared, State, StoredPack};
use crate::content::pack::{Pack, random_bytes};
use crate::content::session::Session;
use crate::content::{ContentId, ContentInfo};
use crate::error::{KopiaError, KopiaResult};
use crate::index::IndexBuilder;

/// An index is written anew so often if the repository moves on to other epochs meanwhile.
const ATTEMPTS: u32 = 5;

impl Shared {
    /// See [`ContentWriter::flush_deleting`](super::ContentWriter::flush_deleting).
    pub(super) async fn flush(self: &Arc<Self>, deleted: &[ContentId]) -> KopiaResult<()> {
        let _only = self.flushing.lock().await;
        self.refuse_if_lost()?;
        self.retry_failed();
        self.wait_for_calls().await?;
        let Finished { packs, sessions, end } = self.finish_all()?;
        self.upload_all(packs);
        self.wait_until(|state| state.uploading.range(..end).next().is_none())
            .await?;
        self.refuse_if_lost()?;
        self.write_index(self.deletions(deleted)?).await?;
        // Everything of these sessions is in an index now.
        for session in sessions {
            session.unmark(self.parts.storage.as_ref()).await?;
            self.lock().old_sessions.retain(|old| !Arc::ptr_eq(old, &session));
        }
        self.refresh_if_due().await
    }

    /// Uploads what could not be uploaded once more; calls work again until that fails, too.
    fn retry_failed(self: &Arc<Self>) {
        let mut state = self.lock();
        if self.cancel.is_cancelled() {
            return;
        }
        state.failure = None;
        let packs = std::mem::take(&mut state.failed);
        state
            .uploading
            .extend(packs.iter().map(|pack| (pack.number, Arc::clone(pack))));
        drop(state);
        self.upload_all(packs);
    }

    /// Waits for the calls that are at work now: they may have told others that a content is taken care of. Calls that
    /// begin later are not waited for, or there might be no end.
    async fn wait_for_calls(&self) -> KopiaResult<()> {
        // A flush that failed may have left some of the generation before. Flushes are one after the other.
        self.wait_until(|state| state.inside[(state.generation + 1) % 2] == 0)
            .await?;
        let before = {
            let mut state = self.lock();
            let before = state.generation % 2;
            state.generation += 1;
            before
        };
        self.wait_until(|state| state.inside[before] == 0).await
    }

    /// Finishes both open packs and begins a session.
    fn finish_all(&self) -> KopiaResult<Finished> {
        let random = random_bytes(&self.random)?;
        let now = (self.parts.clock)();
        let mut state = self.lock();
        let packs: Vec<Arc<Pack>> = [0, 1].into_iter().filter_map(|at| state.finish(at)).collect();
        if state.next_pack > state.session_begin {
            let session = Arc::new(Session::new(random, &self.options.user, &self.options.host, now));
            let old = std::mem::replace(&mut state.session, session);
            state.old_sessions.push(old);
            state.session_begin = state.next_pack;
        }
        let end = state.next_pack;
        Ok(Finished {
            packs,
            sessions: state.old_sessions.clone(),
            end,
        })
    }

    /// Waits for a state; fails as soon as anything has failed.
    async fn wait_until(&self, reached: impl Fn(&State) -> bool + Send) -> KopiaResult<()> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let state = self.lock();
                if let Some(failure) = &state.failure {
                    return Err(KopiaError::Earlier(Arc::clone(failure)));
                }
                if reached(&state) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// The entries that say that contents are deleted, as kopia writes them: what was known, and a newer time.
    fn deletions(&self, contents: &[ContentId]) -> KopiaResult<Vec<ContentInfo>> {
        let now = (self.parts.clock)().as_second();
        let mut deletions = Vec::with_capacity(contents.len());
        for id in contents {
            let info = match self.pending(id) {
                Some(Pending::Stored(info)) => Some(info),
                // Put after this flush began, so it is not to be deleted.
                Some(Pending::Memory(..)) => None,
                None => self.parts.index.lookup(id)?,
            };
            if let Some(info) = info.filter(|info| !info.deleted) {
                deletions.push(ContentInfo {
                    deleted: true,
                    timestamp: now.max(info.timestamp.saturating_add(1)),
                    ..info
                });
            }
        }
        Ok(deletions)
    }

    fn refuse_if_lost(&self) -> KopiaResult<()> {
        match self.lock().lost {
            None => Ok(()),
            Some(id) => Err(KopiaError::ContentNotFound { id: id.to_string() }),
        }
    }

    /// Writes an index for the packs that are stored by now.
    pub(super) async fn index_in_background(self: Arc<Self>) {
        let mut task = IndexTask {
            shared: self,
            done: false,
        };
        let result = loop {
            let result = tokio::select! {
                biased;
                () = task.shared.cancel.cancelled() => Err(KopiaError::Cancelled),
                result = task.shared.index_and_refresh() => result,
            };
            let mut state = task.shared.lock();
            // More may have been stored meanwhile, and threads may wait for room for more contents: nobody else would
            // write an index for them.
            if result.is_err() || state.unindexed < task.shared.options.index_after {
                state.index_scheduled = false;
                break result;
            }
        };
        task.done = true;
        if let Err(error) = result {
            tracing::debug!(%error, "an index could not be written");
            task.shared.fail(&Arc::new(error));
        }
    }

    async fn index_and_refresh(&self) -> KopiaResult<()> {
        self.write_index(Vec::new()).await?;
        self.refresh_if_due().await
    }

    /// Looks at what others have written or deleted, in long sessions, as kopia does: what maintenance removed long ago
    /// must not be taken for a content that is there.
    async fn refresh_if_due(&self) -> KopiaResult<()> {
        let now = (self.parts.clock)();
        if now < self.lock().refresh_due {
            return Ok(());
        }
        self.parts.index.refresh().await?;
        self.lock().refresh_due = now.saturating_add(REFRESH_INTERVAL).unwrap_or(Timestamp::MAX);
        Ok(())
    }

    /// Writes one index of everything that is stored and in none, and of these deletions.
    async fn write_index(&self, deletions: Vec<ContentInfo>) -> KopiaResult<()> {
        let _only = self.indexing.lock().await;
        let packs: Vec<(u64, StoredPack)> = self
            .lock()
            .stored
            .iter()
            .map(|(number, pack)| (*number, pack.clone()))
            .collect();
        if !packs.is_empty() || !deletions.is_empty() {
            let session = match packs.first() {
                Some((_, first)) => Arc::clone(&first.session),
                None => Arc::clone(&self.lock().session),
            };
            let mut attempt = 1;
            loop {
                let mut entries = self.entries(&packs);
                entries.extend(deletions.iter().cloned());
                self.parts
                    .format
                    .check_unchanged(self.parts.storage.as_ref())
                    .await?;
                match self.parts.index.write(entries, session.id().as_str()).await {
                    Ok(_) => break,
                    Err(KopiaError::EpochMoved) if attempt < ATTEMPTS => attempt += 1,
                    Err(error) => return Err(error),
                }
            }
        }
        // Looking a content up finds it in the index from here on.
        for (_, pack) in &packs {
            pack.contents
                .iter()
                .for_each(|content| self.claims.indexed(&content.id));
        }
        let now = (self.parts.clock)();
        let mut state = self.lock();
        for (number, pack) in &packs {
            state.stored.remove(number);
            state.unindexed -= pack.contents.len();
        }
        state.index_due = now.saturating_add(INDEX_INTERVAL).unwrap_or(Timestamp::MAX);
        self.wake(state);
        Ok(())
    }

    fn entries(&self, packs: &[(u64, StoredPack)]) -> IndexBuilder {
        let mut entries = IndexBuilder::new();
        for (_, pack) in packs {
            entries.extend(
                pack.contents
                    .iter()
                    .map(|content| content.info(&pack.name, &self.parts.format)),
            );
        }
        entries
    }
}

/// What a flush commits.
struct Finished {
    /// The packs that were open.
    packs: Vec<Arc<Pack>>,
    /// Whose packs they are, and those before that are not stored yet.
    sessions: Vec<Arc<Session>>,
    /// The numbers of all these packs are below this.
    end: u64,
}

/// The task that writes an index in the background. Whatever becomes of it, nobody waits for it in vain.
struct IndexTask {
    shared: Arc<Shared>,
    done: bool,
}

impl Drop for IndexTask {
    fn drop(&mut self) {
        if !self.done {
            self.shared.fail(&Arc::new(KopiaError::Cancelled));
        }
    }
}
