//! Reading an object as a stream that survives broken connections.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStoreExt};

use crate::client::Store;
use crate::error::{StoreError, StoreResult};
use crate::retry::Failed;

/// An object, or a range of it, being read from its beginning to its end. After a failure it continues where it
/// stopped, and only with the very object it began with.
pub struct ObjectReader {
    store: Store,
    path: Path,
    location: String,
    size: u64,
    tag: Option<String>,
    offset: u64,
    end: u64,
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
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
        let stream = Some(found.into_stream());
        Ok(Self {
            store,
            path,
            location,
            size,
            tag,
            offset: 0,
            end: size,
            stream,
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
            stream: Some(found.into_stream()),
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
        let slot = std::sync::Mutex::new(self.stream.take());
        let (chunk, stream) = store
            .inner
            .retry
            .run("get", location, 0, |_| {
                let rest = rest.clone();
                let open = slot
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take();
                async move {
                    let mut stream = if let Some(stream) = open {
                        stream
                    } else {
                        let options = GetOptions {
                            range: Some(rest),
                            if_match: tag.clone(),
                            ..GetOptions::default()
                        };
                        let found = store.objects().get_opts(path, options).await;
                        found
                            .map_err(|error| store.failed("get", location, &error))?
                            .into_stream()
                    };
                    match stream.next().await {
                        Some(Ok(chunk)) => Ok((chunk, stream)),
                        Some(Err(error)) => Err(store.failed("get", location, &error)),
                        None => Err(Failed::Retry(format!(
                            "the connection ended after {offset} bytes"
                        ))),
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
        self.stream = Some(stream);
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
