//! Storing whole objects.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Extensions, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::classify::{is_existing, is_unconditional};
use crate::client::{Absent, Backend, Store};
use crate::error::{StoreError, StoreResult};
use crate::integrity::{Echoed, ObjectLock, Proof};

impl Store {
    /// Stores an object, replacing what was there.
    pub async fn put(&self, key: &str, data: Bytes) -> StoreResult<()> {
        self.put_payload(key, data.into(), PutMode::Overwrite)
            .await
            .map(|_| ())
    }

    /// Stores an object made of `pieces`, which are not joined, replacing what was there; with a `lock` nobody can
    /// delete this version before its time. Directories have no locks: [`StoreError::Rejected`].
    pub async fn put_pieces(
        &self,
        key: &str,
        pieces: Vec<Bytes>,
        lock: Option<&ObjectLock>,
    ) -> StoreResult<()> {
        if lock.is_some() && matches!(self.inner.backend, Backend::Directory(_)) {
            return Err(StoreError::Rejected {
                action: "lock",
                location: self.location(key),
                detail: "a directory cannot keep objects from being deleted".to_owned(),
            });
        }
        let payload = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        self.put_locked(key, payload, PutMode::Overwrite, lock)
            .await
            .map(|_| ())
    }

    /// Stores an object unless one of this name exists. Where the server knows conditional writes, two writers
    /// cannot both succeed; elsewhere the object is looked for first.
    pub async fn put_if_absent(&self, key: &str, data: Bytes) -> StoreResult<Absent> {
        self.create_payload(key, data.into()).await
    }

    pub(crate) async fn create_payload(&self, key: &str, payload: PutPayload) -> StoreResult<Absent> {
        // A server that ignores the condition would overwrite; so look first, everywhere.
        if self.head(key).await?.is_some() {
            return Ok(Absent::Existed);
        }
        self.put_payload(key, payload, PutMode::Create).await
    }

    pub(crate) async fn put_payload(
        &self,
        key: &str,
        payload: PutPayload,
        mode: PutMode,
    ) -> StoreResult<Absent> {
        self.put_locked(key, payload, mode, None).await
    }

    /// Stores an object so that the server checks what comes; see [`crate::integrity`].
    async fn put_locked(
        &self,
        key: &str,
        payload: PutPayload,
        mut mode: PutMode,
        lock: Option<&ObjectLock>,
    ) -> StoreResult<Absent> {
        let integrity = &self.inner.integrity;
        let size = payload.content_length();
        loop {
            let cover = integrity.cover(lock.is_some());
            let extensions = match &self.inner.backend {
                Backend::Directory(_) => Extensions::new(),
                Backend::S3(_) => {
                    let mut extensions = Extensions::new();
                    extensions.insert(Proof::of(&payload, cover, lock, &self.location(key)).await?);
                    extensions
                }
            };
            self.may_send(size).await;
            match self.put_once(key, &payload, &mode, &extensions).await {
                Ok((outcome, echoed)) => {
                    // Whether an object that existed was left alone has nothing to do with its checksum.
                    let checked = echoed.is_none_or(|Echoed(echoed)| integrity.learn(cover, echoed));
                    if checked {
                        self.count_sent(size);
                        return Ok(outcome);
                    }
                    tracing::warn!(
                        key,
                        "the server no longer checks what it stores; from now on it is signed"
                    );
                    // It is there now, by us.
                    mode = PutMode::Overwrite;
                }
                Err(StoreError::Rejected { .. }) if integrity.refused(cover) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn put_once(
        &self,
        key: &str,
        payload: &PutPayload,
        mode: &PutMode,
        extensions: &Extensions,
    ) -> StoreResult<(Absent, Option<Echoed>)> {
        let (path, location) = (self.path(key)?, self.location(key));
        let size = payload.content_length();
        let options = |mode| PutOptions {
            mode,
            attributes: self.attributes(),
            extensions: extensions.clone(),
            ..PutOptions::default()
        };
        let options = &options;
        let echo = |result: &object_store::PutResult| result.extensions.get::<Echoed>().copied();
        self.inner
            .retry
            .run("put", &location, size as u64, |attempt| {
                let (path, payload, mode, location) = (&path, payload.clone(), mode.clone(), &location);
                async move {
                    let create = mode == PutMode::Create;
                    let stored = self
                        .objects()
                        .put_opts(path, payload.clone(), options(mode))
                        .await;
                    let stored = match stored {
                        Err(error) if create && is_existing(&error) => {
                            // The first attempt may have stored it and only its answer was lost.
                            let ours = attempt > 1 && self.holds(path, &payload).await;
                            let outcome = if ours { Absent::Created } else { Absent::Existed };
                            return Ok((outcome, None));
                        }
                        Err(error) if create && is_unconditional(&error) => {
                            self.objects()
                                .put_opts(path, payload, options(PutMode::Overwrite))
                                .await
                        }
                        other => other,
                    };
                    let stored = stored.map_err(|error| self.failed("put", location, &error))?;
                    Ok((Absent::Created, echo(&stored)))
                }
            })
            .await
    }

    async fn holds(&self, path: &Path, payload: &PutPayload) -> bool {
        let Ok(found) = self.objects().get(path).await else {
            return false;
        };
        if found.meta.size != payload.content_length() as u64 {
            return false;
        }
        let Ok(bytes) = found.bytes().await else {
            return false;
        };
        bytes.iter().eq(payload.iter().flatten())
    }
}
