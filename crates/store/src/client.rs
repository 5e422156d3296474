//! The client: one storage, one prefix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt};

use crate::classify::{Subject, classify};
use crate::config::{Place, StoreConfig};
use crate::error::{StoreError, StoreResult};
use crate::integrity::Integrity;
use crate::pace::Pace;
use crate::reader::ObjectReader;
use crate::retry::{Failed, RetryPolicy};
use crate::s3;
use crate::upload::Upload;

/// One storage below one prefix; cheap to clone. Keys are relative to the prefix.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    pub(crate) prefix: String,
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
    pub(crate) integrity: Integrity,
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
            Place::S3(s3) => {
                let (client, endpoint) = s3::open(s3)?;
                (Backend::S3(client), endpoint)
            }
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

    pub(crate) fn full(&self, key: &str) -> String {
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

pub(crate) fn info(key: String, meta: &object_store::ObjectMeta) -> StoreResult<ObjectInfo> {
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
