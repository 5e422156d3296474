//! Writing an object in pieces.

use std::sync::Arc;

use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutPayload};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::budget::{Buffer, Reservation};
use crate::client::{Absent, Backend, Store};
use crate::error::{StoreError, StoreResult};
use crate::retry::Failed;

/// Size of one part. S3 wants at least 5 MiB and at most 10,000 parts: objects of up to 80 GB.
pub const PART_BYTES: u64 = 8 << 20;

/// Parts of one object sent at the same time.
const CONCURRENT_PARTS: usize = 3;

/// An object being written. What is written becomes visible with [`Upload::finish`] and not before; dropping the
/// upload leaves nothing behind but what [`Store::abort_open_uploads`] removes.
///
/// Small objects are stored by one request, larger ones in parts. Buffers are kept, with their reservations, until
/// the part they belong to is stored, so that a failed part is sent again from memory.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    key: String,
    if_absent: bool,
    pending: Vec<Buffer>,
    pending_bytes: u64,
    written: u64,
    parts: Parts,
}

/// An object that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes written.
    pub size: u64,
    /// Whether this upload created the object; `Existed` only for uploads that leave an existing object alone.
    pub outcome: Absent,
}

#[derive(Debug)]
enum Parts {
    None,
    S3 {
        id: String,
        path: Path,
        next: usize,
        tasks: JoinSet<StoreResult<(usize, PartId)>>,
        done: Vec<(usize, PartId)>,
    },
    Directory(Arc<Mutex<Box<dyn MultipartUpload>>>),
    /// The object exists already; what else is written goes nowhere.
    Skipped,
}

impl Upload {
    pub(crate) fn new(store: Store, key: String, if_absent: bool) -> Self {
        Self {
            store,
            key,
            if_absent,
            pending: Vec::new(),
            pending_bytes: 0,
            written: 0,
            parts: Parts::None,
        }
    }

    /// The key the object will have.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Adds a piece. Waits while too many parts are being sent.
    pub async fn write(&mut self, buffer: Buffer) -> StoreResult<()> {
        self.written += buffer.bytes.len() as u64;
        if matches!(self.parts, Parts::Skipped) {
            return Ok(());
        }
        self.pending_bytes += buffer.bytes.len() as u64;
        self.pending.push(buffer);
        if self.pending_bytes >= PART_BYTES {
            self.send_part().await
        } else {
            Ok(())
        }
    }

    /// Stores what is left and makes the object visible.
    pub async fn finish(mut self) -> StoreResult<Stored> {
        let size = self.written;
        if matches!(self.parts, Parts::None) {
            let (payload, _held) = self.take_pending();
            let outcome = if self.if_absent {
                self.store.create_payload(&self.key, payload).await?
            } else {
                self.store
                    .put_payload(&self.key, payload, PutMode::Overwrite)
                    .await?
            };
            return Ok(Stored { size, outcome });
        }
        if self.pending_bytes > 0 {
            self.send_part().await?;
        }
        let location = self.store.location(&self.key);
        match std::mem::replace(&mut self.parts, Parts::None) {
            Parts::Skipped => {
                return Ok(Stored {
                    size,
                    outcome: Absent::Existed,
                });
            }
            Parts::S3 {
                id,
                path,
                mut tasks,
                mut done,
                ..
            } => {
                while let Some(joined) = tasks.join_next().await {
                    done.push(flatten(joined, &location)?);
                }
                done.sort_unstable_by_key(|(index, _)| *index);
                let parts: Vec<PartId> = done.into_iter().map(|(_, part)| part).collect();
                self.complete(&id, &path, &parts, &location).await?;
            }
            Parts::Directory(upload) => {
                let completed = upload.lock().await.complete().await;
                completed
                    .map_err(|error| final_error(self.store.failed("put", &location, &error), &location))?;
            }
            Parts::None => {}
        }
        Ok(Stored {
            size,
            outcome: Absent::Created,
        })
    }

    fn take_pending(&mut self) -> (PutPayload, Vec<Reservation>) {
        let buffers = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let mut held = Vec::with_capacity(buffers.len());
        let payload = buffers
            .into_iter()
            .map(|buffer| {
                held.extend(buffer.reservation);
                buffer.bytes
            })
            .collect();
        (payload, held)
    }

    async fn send_part(&mut self) -> StoreResult<()> {
        if matches!(self.parts, Parts::None) {
            self.parts = self.begin().await?;
        }
        let (payload, held) = self.take_pending();
        let location = self.store.location(&self.key);
        let store = self.store.clone();
        match &mut self.parts {
            Parts::None | Parts::Skipped => {}
            Parts::Directory(upload) => {
                let size = payload.content_length();
                store.may_send(size).await;
                let written = upload.lock().await.put_part(payload).await;
                written.map_err(|error| final_error(store.failed("put", &location, &error), &location))?;
                store.count_sent(size);
            }
            Parts::S3 {
                id,
                path,
                next,
                tasks,
                done,
            } => {
                while tasks.len() >= CONCURRENT_PARTS {
                    if let Some(joined) = tasks.join_next().await {
                        done.push(flatten(joined, &location)?);
                    }
                }
                let (id, path, index) = (id.clone(), path.clone(), *next);
                *next += 1;
                tasks.spawn(async move {
                    let part = put_part(&store, &id, &path, index, payload, &location).await?;
                    drop(held);
                    Ok((index, part))
                });
            }
        }
        Ok(())
    }

    async fn begin(&self) -> StoreResult<Parts> {
        // Completing an upload under a condition is not offered by the library, so the look comes first.
        if self.if_absent && self.store.head(&self.key).await?.is_some() {
            return Ok(Parts::Skipped);
        }
        let (path, location) = (self.store.path(&self.key)?, self.store.location(&self.key));
        let options = || PutMultipartOptions {
            attributes: self.store.attributes(),
            ..PutMultipartOptions::default()
        };
        self.store
            .inner
            .retry
            .run("begin upload of", &location, 0, |_| async {
                let failed = |error| self.store.failed("begin upload of", &location, &error);
                match &self.store.inner.backend {
                    Backend::S3(s3) => {
                        let id = s3.create_multipart_opts(&path, options()).await.map_err(failed)?;
                        self.store.upload_began(&id, &path);
                        let (path, tasks) = (path.clone(), JoinSet::new());
                        Ok(Parts::S3 {
                            id,
                            path,
                            next: 0,
                            tasks,
                            done: Vec::new(),
                        })
                    }
                    Backend::Directory(directory) => {
                        let upload = directory
                            .put_multipart_opts(&path, options())
                            .await
                            .map_err(failed)?;
                        Ok(Parts::Directory(Arc::new(Mutex::new(upload))))
                    }
                }
            })
            .await
    }

    async fn complete(&self, id: &str, path: &Path, parts: &[PartId], location: &str) -> StoreResult<()> {
        let store = &self.store;
        let Backend::S3(s3) = &store.inner.backend else {
            return Ok(());
        };
        let completed = store
            .inner
            .retry
            .run("complete upload of", location, 0, |attempt| async move {
                match s3.complete_multipart(path, &id.to_owned(), parts.to_vec()).await {
                    Ok(_) => Ok(()),
                    Err(error) => {
                        // The first attempt may have succeeded and only its answer was lost.
                        if attempt > 1
                            && let Ok(found) = s3.head(path).await
                            && found.size == self.written
                        {
                            return Ok(());
                        }
                        Err(store.failed("complete upload of", location, &error))
                    }
                }
            })
            .await;
        if completed.is_ok() {
            store.upload_ended(id);
        }
        completed
    }
}

async fn put_part(
    store: &Store,
    id: &str,
    path: &Path,
    index: usize,
    payload: PutPayload,
    location: &str,
) -> StoreResult<PartId> {
    let size = payload.content_length();
    store.may_send(size).await;
    let part = store
        .inner
        .retry
        .run("put part of", location, size as u64, |_| {
            let payload = payload.clone();
            async move {
                let Backend::S3(s3) = &store.inner.backend else {
                    return Err(Failed::Retry("not an S3 storage".to_owned()));
                };
                let stored = s3.put_part(path, &id.to_owned(), index, payload).await;
                stored.map_err(|error| store.failed("put part of", location, &error))
            }
        })
        .await?;
    store.count_sent(size);
    Ok(part)
}

fn flatten<T>(joined: Result<StoreResult<T>, tokio::task::JoinError>, location: &str) -> StoreResult<T> {
    joined.unwrap_or_else(|error| {
        let (location, problem) = (location.to_owned(), format!("sending a part failed: {error}"));
        Err(StoreError::Inconsistent { location, problem })
    })
}

fn final_error(failed: Failed, location: &str) -> StoreError {
    match failed {
        Failed::Final(error) => error,
        Failed::Retry(detail) => StoreError::Unavailable {
            action: "put",
            location: location.to_owned(),
            attempts: 1,
            elapsed: std::time::Duration::ZERO,
            detail,
        },
    }
}
