//! Reading an object as a stream that survives broken connections.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange};

use crate::client::Store;
use crate::error::{StoreError, StoreResult};
use crate::retry::Failed;

/// An object being read from its beginning to its end. After a failure it continues where it stopped, and only with
/// the very object it began with.
pub struct ObjectReader {
    store: Store,
    path: Path,
    location: String,
    size: u64,
    tag: Option<String>,
    offset: u64,
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
            stream,
        })
    }

    /// Size of the object in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; none at the end, which is reached only when every byte came.
    pub async fn next(&mut self) -> StoreResult<Option<Bytes>> {
        if self.offset >= self.size {
            return Ok(None);
        }
        let (store, path, location) = (&self.store, &self.path, &self.location);
        let (offset, tag) = (self.offset, &self.tag);
        let slot = std::sync::Mutex::new(self.stream.take());
        let (chunk, stream) = store
            .inner
            .retry
            .run("get", location, 0, |_| {
                let open = slot
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .take();
                async move {
                    let mut stream = if let Some(stream) = open {
                        stream
                    } else {
                        let options = GetOptions {
                            range: Some(GetRange::Offset(offset)),
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
        if self.offset > self.size {
            let problem = format!("{} bytes came of an object of {}", self.offset, self.size);
            return Err(StoreError::Inconsistent {
                location: self.location.clone(),
                problem,
            });
        }
        Ok(Some(chunk))
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
