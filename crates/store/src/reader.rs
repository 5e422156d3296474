//! Reading an object as a stream that survives broken connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStoreExt};
use tokio::time::error::Elapsed;

use crate::client::Store;
use crate::error::{StoreError, StoreResult};
use crate::retry::{Failed, RetryPolicy};

/// An object, or a range of it, being read from its beginning to its end. After a failure it continues where it
/// stopped, and only with the very object it began with.
///
/// A connection may be waited for as long as an attempt to send as many bytes, and all of them together as long as
/// [`RetryPolicy::total`] and a second more for every 256 KiB: a server that sends a byte now and then holds nobody for
/// ever. What the reader does between the pieces does not count.
pub struct ObjectReader {
    store: Store,
    path: Path,
    location: String,
    size: u64,
    tag: Option<String>,
    offset: u64,
    end: u64,
    connection: Option<Connection>,
    /// How long it was waited for pieces so far.
    waited: Duration,
    /// How long it may be.
    patience: Duration,
}

/// An answer on its way.
struct Connection {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    /// How long it may still be waited for its pieces.
    left: Duration,
}

impl Connection {
    /// For an answer of so many bytes.
    fn new(found: GetResult, bytes: u64, retry: &RetryPolicy) -> Self {
        Self {
            stream: found.into_stream(),
            left: retry.attempt_limit(bytes),
        }
    }

    /// The next piece, or none at the end; an error if its time is over.
    async fn next(&mut self) -> Result<Option<object_store::Result<Bytes>>, Elapsed> {
        let begin = Instant::now();
        let next = tokio::time::timeout(self.left, self.stream.next()).await;
        self.left = self.left.saturating_sub(begin.elapsed());
        next
    }
}

impl ObjectReader {
    pub(crate) async fn open(store: Store, key: &str) -> StoreResult<Self> {
        let (path, location) = (store.path(key)?, store.location(key));
        let found = store
            .inner
            .retry
            .run("get", &location, 0, |_| async {
                let options = GetOptions::default();
                store
                    .objects()
                    .get_opts(&path, options)
                    .await
                    .map_err(|error| store.failed("get", &location, &error))
            })
            .await?;
        let (size, tag) = (found.meta.size, found.meta.e_tag.clone());
        let connection = Some(Connection::new(found, size, &store.inner.retry));
        let patience = store.inner.retry.total_limit(size);
        Ok(Self {
            store,
            path,
            location,
            size,
            tag,
            offset: 0,
            end: size,
            connection,
            waited: Duration::ZERO,
            patience,
        })
    }

    /// Begins at `offset`, ends after `length` bytes; an object that ends before is [`StoreError::Inconsistent`].
    pub(crate) async fn open_range(store: Store, key: &str, offset: u64, length: u64) -> StoreResult<Self> {
        let (path, location) = (store.path(key)?, store.location(key));
        let end = offset
            .checked_add(length)
            .ok_or_else(|| too_short(&location, offset, length, None))?;
        let (store, path, location) = (&store, &path, &location);
        let found = store
            .inner
            .retry
            .run("get", location, length, |_| async move {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(offset..end)),
                    ..GetOptions::default()
                };
                match store.objects().get_opts(path, options).await {
                    Ok(found) if found.range == (offset..end) => Ok(found),
                    Ok(found) if found.meta.size < end => {
                        let size = Some(found.meta.size);
                        Err(Failed::Final(too_short(location, offset, length, size)))
                    }
                    Ok(found) => Err(Failed::Retry(format!(
                        "asked for bytes {offset} to {end}, the server sends {} to {}",
                        found.range.start, found.range.end
                    ))),
                    Err(error) => {
                        // Every backend has its own words for a range beyond the end, so look at the object.
                        let failed = store.failed("get", location, &error);
                        match (is_range(&error), store.objects().head(path).await) {
                            (true, Ok(meta)) if meta.size < end => {
                                let size = Some(meta.size);
                                Err(Failed::Final(too_short(location, offset, length, size)))
                            }
                            _ => Err(failed),
                        }
                    }
                }
            })
            .await?;
        let (size, tag) = (found.meta.size, found.meta.e_tag.clone());
        Ok(Self {
            store: store.clone(),
            path: path.clone(),
            location: location.clone(),
            size,
            tag,
            offset,
            end,
            connection: Some(Connection::new(found, length, &store.inner.retry)),
            waited: Duration::ZERO,
            patience: store.inner.retry.total_limit(length),
        })
    }

    /// Size of the whole object in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; none at the end, which is reached only when every byte came.
    pub async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let (store, path, location) = (&self.store, &self.path, &self.location);
        let (offset, tag, rest) = (self.offset, &self.tag, self.rest());
        let bytes = self.end - offset;
        let slot = std::sync::Mutex::new(self.connection.take());
        let begin = Instant::now();
        let retry = RetryPolicy {
            total: self.patience.saturating_sub(self.waited),
            ..store.inner.retry
        };
        let (chunk, connection) = retry
            .run("get", location, 0, |_| {
                let rest = rest.clone();
                let open = slot
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take();
                async move {
                    let mut connection = if let Some(connection) = open {
                        connection
                    } else {
                        let options = GetOptions {
                            range: Some(rest),
                            if_match: tag.clone(),
                            ..GetOptions::default()
                        };
                        let found = store.objects().get_opts(path, options).await;
                        let found = found.map_err(|error| store.failed("get", location, &error))?;
                        Connection::new(found, bytes, &store.inner.retry)
                    };
                    match connection.next().await {
                        Ok(Some(Ok(chunk))) => Ok((chunk, connection)),
                        Ok(Some(Err(error))) => Err(store.failed("get", location, &error)),
                        Ok(None) => Err(Failed::Retry(format!(
                            "the connection ended after {offset} bytes"
                        ))),
                        Err(_) => Err(Failed::Retry(format!("too slow: {bytes} bytes were left"))),
                    }
                }
            })
            .await
            .map_err(|error| match error {
                StoreError::Rejected { detail, .. } if detail.contains("PreconditionFailed") => {
                    StoreError::Inconsistent {
                        location: location.clone(),
                        problem: "it was replaced while it was read".to_owned(),
                    }
                }
                other => other,
            })?;
        self.connection = Some(connection);
        self.waited += begin.elapsed();
        self.offset += chunk.len() as u64;
        self.store.count_received(chunk.len());
        self.store.may_receive(chunk.len()).await;
        if self.offset > self.end {
            let problem = format!("{} bytes came where {} end it", self.offset, self.end);
            return Err(StoreError::Inconsistent {
                location: self.location.clone(),
                problem,
            });
        }
        Ok(Some(chunk))
    }

    fn rest(&self) -> GetRange {
        if self.end == self.size {
            GetRange::Offset(self.offset)
        } else {
            GetRange::Bounded(self.offset..self.end)
        }
    }
}

fn is_range(error: &object_store::Error) -> bool {
    let text = format!("{error:?}");
    text.contains("Range") || text.contains("range")
}

fn too_short(location: &str, offset: u64, length: u64, size: Option<u64>) -> StoreError {
    let problem = match size {
        Some(size) => format!("{size} bytes long, but {length} bytes from {offset} are needed"),
        None => format!("{length} bytes from {offset} are needed, which nothing can have"),
    };
    StoreError::Inconsistent {
        location: location.to_owned(),
        problem,
    }
}

impl std::fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (location, size, offset) = (&self.location, self.size, self.offset);
        f.debug_struct("ObjectReader")
            .field("location", location)
            .field("size", &size)
            .field("offset", &offset)
            .finish_non_exhaustive()
    }
}
