//! The client: one storage, one prefix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, Certificate, ClientOptions, Extensions, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, StaticCredentialProvider,
};

use crate::classify::{Subject, classify, is_existing, is_unconditional};
use crate::config::{Place, S3Config, StoreConfig};
use crate::credentials::{self, FileCredentials, Profile};
use crate::error::{StoreError, StoreResult};
use crate::integrity::{Echoed, Integrity, ObjectLock, Proof};
use crate::pace::Pace;
use crate::reader::ObjectReader;
use crate::retry::{Failed, RetryPolicy};
use crate::upload::Upload;
use crate::wire::SigningConnector;

/// One storage below one prefix; cheap to clone. Keys are relative to the prefix.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    prefix: String,
}

/// What all clones share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) retry: RetryPolicy,
    bucket: String,
    endpoint: String,
    attributes: Attributes,
    sent: AtomicU64,
    received: AtomicU64,
    integrity: Integrity,
    upload_pace: Option<Pace>,
    download_pace: Option<Pace>,
    /// Multipart uploads that were begun and neither completed nor aborted: upload id to path.
    open: Mutex<BTreeMap<String, Path>>,
}

/// Where the bytes go.
#[derive(Debug)]
pub(crate) enum Backend {
    S3(AmazonS3),
    Directory(LocalFileSystem),
}

/// An object that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key relative to the prefix of the [`Store`].
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was stored, by the clock of the storage.
    pub modified: jiff::Timestamp,
}

/// What came of storing something only where nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Nothing was there; now the object is.
    Created,
    /// An object of this name existed and was left alone.
    Existed,
}

impl Store {
    /// Opens a storage. Nothing is sent yet; see [`Store::check`].
    pub fn open(config: &StoreConfig, retry: RetryPolicy) -> StoreResult<Self> {
        let (backend, endpoint) = match &config.place {
            Place::S3(s3) => open_s3(s3)?,
            Place::Directory(path) => {
                let missing = |_| StoreError::BucketNotFound {
                    bucket: path.display().to_string(),
                    endpoint: "this machine".to_owned(),
                };
                let directory = LocalFileSystem::new_with_prefix(path)
                    .map_err(missing)?
                    .with_fsync(true);
                (Backend::Directory(directory), "this machine".to_owned())
            }
        };
        let mut attributes = Attributes::new();
        if let Place::S3(s3) = &config.place
            && let Some(class) = &s3.storage_class
        {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        let secure = endpoint.starts_with("https://");
        let inner = Inner {
            backend,
            retry,
            bucket: config.bucket(),
            endpoint,
            attributes,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            integrity: Integrity::new(secure),
            upload_pace: Pace::new(config.limits.upload),
            download_pace: Pace::new(config.limits.download),
            open: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            prefix: config.prefix.clone(),
        })
    }

    /// The same storage, further down.
    pub fn within(&self, path: &str) -> StoreResult<Self> {
        let prefix = [self.prefix.as_str(), path.trim_matches('/')];
        let prefix: Vec<&str> = prefix.into_iter().filter(|part| !part.is_empty()).collect();
        let store = Self {
            inner: Arc::clone(&self.inner),
            prefix: prefix.join("/"),
        };
        store.path("x")?;
        Ok(store)
    }

    /// Name of the bucket, or the path of the directory.
    pub fn bucket(&self) -> &str {
        &self.inner.bucket
    }

    /// The path below which the keys lie, without slashes at its ends; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A key as people write it, `s3://bucket/path/key`, for messages.
    pub fn location(&self, key: &str) -> String {
        let scheme = match self.inner.backend {
            Backend::S3(_) => "s3://",
            Backend::Directory(_) => "",
        };
        let path = self.full(key);
        let separator = if path.is_empty() { "" } else { "/" };
        format!("{scheme}{}{separator}{path}", self.inner.bucket)
    }

    /// Bytes stored so far by this store and its clones.
    pub fn bytes_sent(&self) -> u64 {
        self.inner.sent.load(Ordering::Relaxed)
    }

    /// Bytes read so far by this store and its clones.
    pub fn bytes_received(&self) -> u64 {
        self.inner.received.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes may be sent.
    pub(crate) async fn may_send(&self, bytes: usize) {
        if let Some(pace) = &self.inner.upload_pace {
            pace.pass(bytes).await;
        }
    }

    /// Waits until so many bytes, which came, may be taken; meanwhile nobody reads on.
    pub(crate) async fn may_receive(&self, bytes: usize) {
        if let Some(pace) = &self.inner.download_pace {
            pace.pass(bytes).await;
        }
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.inner.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.inner.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn full(&self, key: &str) -> String {
        match (self.prefix.as_str(), key) {
            ("", key) => key.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, key) => format!("{prefix}/{key}"),
        }
    }

    pub(crate) fn path(&self, key: &str) -> StoreResult<Path> {
        let full = self.full(key);
        Path::parse(&full).map_err(|error| StoreError::Rejected {
            action: "name",
            location: full,
            detail: error.to_string(),
        })
    }

    pub(crate) fn objects(&self) -> &dyn ObjectStore {
        match &self.inner.backend {
            Backend::S3(s3) => s3,
            Backend::Directory(directory) => directory,
        }
    }

    pub(crate) fn failed(&self, action: &'static str, location: &str, error: &object_store::Error) -> Failed {
        let (bucket, endpoint) = (self.inner.bucket.as_str(), self.inner.endpoint.as_str());
        classify(
            error,
            Subject {
                action,
                location,
                bucket,
                endpoint,
            },
        )
    }

    pub(crate) fn attributes(&self) -> Attributes {
        self.inner.attributes.clone()
    }

    /// Looks whether the storage answers, the credentials are good and the bucket exists.
    pub async fn check(&self) -> StoreResult<()> {
        let location = self.location("");
        let prefix = self.path("holdfast-probe-that-nothing-is-called")?;
        self.inner
            .retry
            .run("list", &location, 0, |_| async {
                let mut found = self.objects().list(Some(&prefix));
                match found.next().await {
                    None | Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => Err(self.failed("list", &location, &error)),
                }
            })
            .await
    }

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

    /// Looks for an object.
    pub async fn head(&self, key: &str) -> StoreResult<Option<ObjectInfo>> {
        let (path, location) = (self.path(key)?, self.location(key));
        let found = self
            .inner
            .retry
            .run("head", &location, 0, |_| async {
                self.objects()
                    .head(&path)
                    .await
                    .map_err(|error| self.failed("head", &location, &error))
            })
            .await;
        match found {
            Ok(meta) => Ok(Some(info(key.to_owned(), &meta)?)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a small object; one larger than `limit` bytes is an error.
    pub async fn get(&self, key: &str, limit: u64) -> StoreResult<Bytes> {
        let mut reader = self.read(key).await?;
        if reader.size() > limit {
            let problem = format!(
                "{} bytes, more than the {limit} that make sense here",
                reader.size()
            );
            return Err(StoreError::Inconsistent {
                location: self.location(key),
                problem,
            });
        }
        let mut data = Vec::with_capacity(usize::try_from(reader.size()).unwrap_or(0));
        while let Some(chunk) = reader.next().await? {
            data.extend_from_slice(&chunk);
        }
        Ok(data.into())
    }

    /// Reads exactly `length` bytes from `offset`; continues where a broken connection stopped. An object that ends
    /// before is [`StoreError::Inconsistent`]. Nothing is asked of the server for no bytes.
    pub async fn get_range(&self, key: &str, offset: u64, length: u64) -> StoreResult<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut reader = ObjectReader::open_range(self.clone(), key, offset, length).await?;
        let first = reader.next().await?.unwrap_or_default();
        if first.len() as u64 == length {
            return Ok(first);
        }
        // The object is as long as `length` says, or the reader had not opened.
        let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        data.extend_from_slice(&first);
        drop(first);
        while let Some(chunk) = reader.next().await? {
            data.extend_from_slice(&chunk);
        }
        Ok(data.into())
    }

    /// Reads an object as a stream that survives broken connections.
    pub async fn read(&self, key: &str) -> StoreResult<ObjectReader> {
        ObjectReader::open(self.clone(), key).await
    }

    /// Begins an object that is written in pieces.
    pub fn upload(&self, key: &str) -> Upload {
        Upload::new(self.clone(), key.to_owned(), false)
    }

    /// Begins an object that is written in pieces, and left alone if it exists by then.
    pub fn upload_if_absent(&self, key: &str) -> Upload {
        Upload::new(self.clone(), key.to_owned(), true)
    }

    /// All objects below a prefix, a path ending at a slash or nothing.
    pub async fn list(&self, prefix: &str) -> StoreResult<Vec<ObjectInfo>> {
        let folder = prefix.trim_end_matches('/');
        let location = self.location(folder);
        let full = self.full(folder);
        let path = if full.is_empty() {
            None
        } else {
            Some(self.path(folder)?)
        };
        // What the library tells of an object is three times what is kept of it, so nothing gathers that.
        self.inner
            .retry
            .run("list", &location, 0, |_| async {
                let mut stream = self.objects().list(path.as_ref());
                let mut found = Vec::new();
                let listed = loop {
                    match stream.try_next().await {
                        Ok(Some(meta)) => {
                            found.push(info(self.relative(&meta.location), &meta).map_err(Failed::Final)?);
                        }
                        Ok(None) => break Ok(found),
                        Err(error) => break Err(error),
                    }
                };
                match listed.map_err(|error| self.failed("list", &location, &error)) {
                    // A directory that is not there is a prefix with nothing below it.
                    Err(Failed::Final(StoreError::NotFound { .. })) => Ok(Vec::new()),
                    other => other,
                }
            })
            .await
    }

    /// All objects whose key begins so, given to `each` as they come, in the order of the storage (S3: by key). The
    /// prefix is text, not a path: `a/b` finds `a/bc`. What is held at a time is a page of at most 1,000 keys; a page
    /// that fails is asked for again.
    pub async fn list_prefix(
        &self,
        prefix: &str,
        mut each: impl FnMut(ObjectInfo) + Send,
    ) -> StoreResult<()> {
        let Backend::S3(s3) = &self.inner.backend else {
            let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
            let found = self.list(folder).await?;
            found
                .into_iter()
                .filter(|object| object.key.starts_with(prefix))
                .for_each(each);
            return Ok(());
        };
        let location = self.location(prefix);
        let full = match (self.prefix.as_str(), prefix) {
            ("", prefix) => prefix.to_owned(),
            (root, prefix) => format!("{root}/{prefix}"),
        };
        let mut token = None;
        loop {
            let (location, full, from) = (&location, full.as_str(), &token);
            let page = self
                .inner
                .retry
                .run("list", location, 0, |_| async move {
                    let options = PaginatedListOptions {
                        page_token: from.clone(),
                        ..PaginatedListOptions::default()
                    };
                    s3.list_paginated(Some(full).filter(|full| !full.is_empty()), options)
                        .await
                        .map_err(|error| self.failed("list", location, &error))
                })
                .await?;
            for meta in &page.result.objects {
                each(info(self.relative(&meta.location), meta)?);
            }
            if page.page_token.is_none() {
                return Ok(());
            }
            if page.page_token == token {
                return Err(StoreError::Inconsistent {
                    location: location.clone(),
                    problem: "the listing does not go on".to_owned(),
                });
            }
            token = page.page_token;
        }
    }

    /// The names directly below a prefix: the objects, and the folders without what is in them.
    pub async fn list_level(&self, prefix: &str) -> StoreResult<(Vec<ObjectInfo>, Vec<String>)> {
        let folder = prefix.trim_end_matches('/');
        let location = self.location(folder);
        let full = self.full(folder);
        let path = if full.is_empty() {
            None
        } else {
            Some(self.path(folder)?)
        };
        let found = self
            .inner
            .retry
            .run("list", &location, 0, |_| async {
                let listed = self.objects().list_with_delimiter(path.as_ref()).await;
                match listed.map_err(|error| self.failed("list", &location, &error)) {
                    Err(Failed::Final(StoreError::NotFound { .. })) => Ok(None),
                    other => other.map(Some),
                }
            })
            .await?;
        let Some(found) = found else {
            return Ok((Vec::new(), Vec::new()));
        };
        let objects = found
            .objects
            .iter()
            .map(|meta| info(self.relative(&meta.location), meta));
        let folders = found
            .common_prefixes
            .iter()
            .map(|path| self.relative(path))
            .collect();
        Ok((objects.collect::<StoreResult<_>>()?, folders))
    }

    fn relative(&self, path: &Path) -> String {
        let text = path.as_ref();
        let below = text.strip_prefix(self.prefix.as_str()).unwrap_or(text);
        below.trim_start_matches('/').to_owned()
    }

    /// Removes objects; those that do not exist count as removed.
    pub async fn delete(&self, keys: &[String]) -> StoreResult<()> {
        // Owned keys: the compiler cannot see that a future made of borrowed ones is Send.
        let removals = keys.iter().cloned().map(|key| async move {
            let (path, location) = (self.path(&key)?, self.location(&key));
            let removed = self
                .inner
                .retry
                .run("delete", &location, 0, |_| async {
                    self.objects()
                        .delete(&path)
                        .await
                        .map_err(|error| self.failed("delete", &location, &error))
                })
                .await;
            match removed {
                Err(StoreError::NotFound { .. }) => Ok(()),
                other => other,
            }
        });
        futures::stream::iter(removals)
            .buffer_unordered(8)
            .try_collect()
            .await
    }

    pub(crate) fn upload_began(&self, id: &str, path: &Path) {
        self.open_uploads().insert(id.to_owned(), path.clone());
    }

    pub(crate) fn upload_ended(&self, id: &str) {
        self.open_uploads().remove(id);
    }

    fn open_uploads(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Path>> {
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Aborts the multipart uploads that this store and its clones left open, so that nobody pays for parts that no
    /// object will ever hold. Best effort, within `limit`; answers how many remain.
    pub async fn abort_open_uploads(&self, limit: Duration) -> usize {
        use object_store::multipart::MultipartStore;
        let left: Vec<(String, Path)> = self.open_uploads().clone().into_iter().collect();
        if let Backend::S3(s3) = &self.inner.backend {
            let aborts = left.into_iter().map(|(id, path)| async move {
                match s3.abort_multipart(&path, &id).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => self.upload_ended(&id),
                    Err(error) => tracing::warn!(%path, %error, "cannot abort an upload"),
                }
            });
            let all = futures::stream::iter(aborts).buffer_unordered(8).collect::<()>();
            if tokio::time::timeout(limit, all).await.is_err() {
                tracing::warn!("no time left to abort uploads");
            }
        }
        self.open_uploads().len()
    }
}

fn info(key: String, meta: &object_store::ObjectMeta) -> StoreResult<ObjectInfo> {
    let nanos = i128::from(meta.last_modified.timestamp()) * 1_000_000_000
        + i128::from(meta.last_modified.timestamp_subsec_nanos());
    let modified = jiff::Timestamp::from_nanosecond(nanos).map_err(|error| StoreError::Inconsistent {
        location: key.clone(),
        problem: format!("impossible time of modification: {error}"),
    })?;
    Ok(ObjectInfo {
        key,
        size: meta.size,
        modified,
    })
}

fn open_s3(config: &S3Config) -> StoreResult<(Backend, String)> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may install one in between; either is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let invalid = |name: &str, error: &dyn std::fmt::Display| StoreError::Setting {
        name: name.to_owned(),
        problem: error.to_string(),
    };
    // The timeouts are those of crate::retry, which knows how much data an attempt carries.
    let mut client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_pool_idle_timeout(Duration::from_secs(30));
    let mut bundles = Vec::new();
    if let Some(file) = &config.ca_file {
        let name = "WALG_S3_CA_CERT_FILE";
        let pem =
            std::fs::read(file).map_err(|error| invalid(name, &format!("{}: {error}", file.display())))?;
        bundles.push((name, pem));
    }
    if let Some(pem) = &config.ca_bundle {
        bundles.push(("CA bundle", pem.clone().into_bytes()));
    }
    for (name, pem) in bundles {
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|error| invalid(name, &error))? {
            client = client.with_root_certificate(certificate);
        }
    }
    if config.insecure {
        client = client.with_allow_invalid_certificates(true);
    }
    // One attempt each: a retry must sign again, or it fails once the signature is 15 minutes old.
    let once = RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        backoff: BackoffConfig::default(),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_retry(once.clone());
    let mut endpoint = format!("https://s3.{}.amazonaws.com", config.region);
    if let Some(url) = &config.endpoint {
        endpoint.clone_from(url);
        client = client.with_allow_http(url.starts_with("http://"));
        builder = match (config.path_style, url.split_once("://")) {
            (false, Some((scheme, host))) => {
                builder.with_endpoint(format!("{scheme}://{}.{host}", config.bucket))
            }
            _ => builder.with_endpoint(url),
        };
    }
    match (config.encryption.as_deref(), &config.kms_key) {
        (Some("aws:kms"), Some(key)) => builder = builder.with_sse_kms_encryption(key),
        (Some(method), _) => {
            let key = "aws_server_side_encryption"
                .parse()
                .map_err(|error| invalid("WALG_S3_SSE", &error))?;
            builder = builder.with_config(key, method);
        }
        (None, _) => {}
    }
    // The library would hash every body on the thread that sends it; so crate::wire signs instead.
    let connector = SigningConnector {
        credentials: credentials(config, once, &client)?,
        region: config.region.clone(),
    };
    let s3 = builder
        .with_skip_signature(true)
        // Store::delete asks for one object at a time; the request for many has a body, and not every server knows it.
        .with_disable_bulk_delete(true)
        .with_http_connector(connector)
        .with_client_options(client)
        .build()
        .map_err(|error| invalid("AWS_ENDPOINT", &error))?;
    Ok((Backend::S3(s3), endpoint))
}

/// Who signs: the keys of a file or of the configuration, else whatever the library finds for the pod or the machine.
fn credentials(
    config: &S3Config,
    retry: RetryConfig,
    client: &ClientOptions,
) -> StoreResult<AwsCredentialProvider> {
    let mut web_identity = config.web_identity.clone();
    if let Some(file) = &config.credentials_file {
        match credentials::read(file)? {
            (version, Profile::Keys(keys)) => {
                return Ok(Arc::new(FileCredentials::new(file.clone(), version, keys)));
            }
            (_, Profile::WebIdentity(role, token)) => web_identity = Some((role, token)),
        }
    } else if let Some((key, secret)) = &config.credentials {
        return Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
            key_id: key.clone(),
            secret_key: secret.expose().to_owned(),
            token: config
                .session_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
        })));
    }
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_retry(retry)
        .with_client_options(client.clone());
    if let Some((role, file)) = web_identity {
        builder = builder
            .with_config(AmazonS3ConfigKey::RoleArn, role)
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file);
    }
    let built = builder.build().map_err(|error| StoreError::Setting {
        name: "credentials".to_owned(),
        problem: error.to_string(),
    })?;
    Ok(Arc::clone(built.credentials()))
}
