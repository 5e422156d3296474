//! Uploading packs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::shared::{Shared, StoredPack};
use crate::content::pack::Pack;
use crate::error::{KopiaError, KopiaResult};

/// A pack on its way. Whatever becomes of the task, the writer is told.
struct Upload {
    shared: Arc<Shared>,
    pack: Option<Arc<Pack>>,
}

impl Shared {
    /// Starts the upload of packs that were [finished](super::shared::State::finish).
    pub(super) fn upload_all(self: &Arc<Self>, packs: impl IntoIterator<Item = Arc<Pack>>) {
        for pack in packs {
            let upload = Upload {
                shared: Arc::clone(self),
                pack: Some(pack),
            };
            self.runtime.spawn(upload.run());
        }
    }

    async fn store(&self, pack: &Pack) -> KopiaResult<u64> {
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await.map_err(|_| KopiaError::Cancelled)?;
        let now = (self.parts.clock)();
        let format = &self.parts.format;
        let retention = format
            .retention
            .as_ref()
            .map(|retention| retention.starting(now))
            .transpose()?;
        let storage = self.parts.storage.as_ref();
        pack.store(storage, format, &self.random, retention.as_ref(), now)
            .await
    }

    fn uploaded(self: &Arc<Self>, pack: Arc<Pack>, result: KopiaResult<u64>) {
        let mut state = self.lock();
        state.uploading.remove(&pack.number);
        match result {
            Ok(size) => {
                self.counters.packs.fetch_add(1, Ordering::Relaxed);
                self.counters.uploaded_bytes.fetch_add(size, Ordering::Relaxed);
                state.held -= pack.held;
                state.unindexed += pack.contents.len();
                let stored = StoredPack {
                    name: pack.name.clone(),
                    session: Arc::clone(&pack.session),
                    contents: Arc::clone(&pack.contents),
                };
                state.stored.insert(pack.number, stored);
            }
            Err(error) => {
                tracing::debug!(pack = %pack.name, %error, "a pack could not be stored");
                state.failure.get_or_insert_with(|| Arc::new(error));
                state.failed.push(pack);
            }
        }
        let now: Timestamp = (self.parts.clock)();
        let due = !state.stored.is_empty()
            && (state.unindexed >= self.options.index_after || now >= state.index_due)
            && !state.index_scheduled;
        state.index_scheduled |= due;
        self.wake(state);
        if due {
            let shared = Arc::clone(self);
            self.runtime
                .spawn(async move { shared.index_in_background().await });
        }
    }
}

impl Upload {
    async fn run(mut self) {
        let Some(pack) = self.pack.clone() else {
            return;
        };
        let result = tokio::select! {
            biased;
            () = self.shared.cancel.cancelled() => Err(KopiaError::Cancelled),
            result = self.shared.store(&pack) => result,
        };
        self.pack = None;
        self.shared.uploaded(pack, result);
    }
}

impl Drop for Upload {
    /// The task ended before its time: the runtime is being shut down, or the storage panicked.
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take() {
            self.shared.uploaded(pack, Err(KopiaError::Cancelled));
        }
    }
}
