//! What there is below a prefix.

use futures::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;

use crate::client::{Backend, ObjectInfo, Store, info};
use crate::error::{StoreError, StoreResult};
use crate::retry::Failed;

impl Store {
    /// All objects below a prefix, a path ending at a slash or nothing.
    pub async fn list(&self, prefix: &str) -> StoreResult<Vec<ObjectInfo>> {
        let (location, path) = self.folder(prefix)?;
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
        let (location, path) = self.folder(prefix)?;
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

    /// What a prefix is called in errors, and its path; none for everything there is.
    fn folder(&self, prefix: &str) -> StoreResult<(String, Option<Path>)> {
        let folder = prefix.trim_end_matches('/');
        let path = (!self.full(folder).is_empty())
            .then(|| self.path(folder))
            .transpose()?;
        Ok((self.location(folder), path))
    }

    fn relative(&self, path: &Path) -> String {
        let text = path.as_ref();
        let below = text.strip_prefix(self.prefix.as_str()).unwrap_or(text);
        below.trim_start_matches('/').to_owned()
    }
}
