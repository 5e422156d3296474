//! A repository as what a backup writes to.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::run::BackupTarget;
use crate::content::{ContentId, ContentInfo, ContentReader};
use crate::error::{KopiaError, KopiaResult};
use crate::object::{ContentSink, ContentSource};
use crate::repository::RepositoryWriter;
use crate::splitter::Splitter;

#[async_trait]
impl BackupTarget for RepositoryWriter {
    fn sink(&self) -> Arc<dyn ContentSink> {
        Arc::new(self.contents().clone())
    }

    fn source(&self) -> Arc<dyn ContentSource> {
        Arc::new(Kept(self.repository().contents().clone()))
    }

    fn splitter(&self) -> KopiaResult<Splitter> {
        Splitter::by_name(&self.repository().format().splitter)
    }

    async fn flush(&self) -> KopiaResult<()> {
        Self::flush(self).await
    }

    fn now(&self) -> Timestamp {
        self.repository().now()
    }
}

/// The contents that a new snapshot may refer to: not those that are marked as deleted, which can be read until
/// maintenance removes them.
struct Kept(ContentReader);

impl Kept {
    fn info(&self, id: &ContentId) -> KopiaResult<ContentInfo> {
        let info = self.0.info(id)?;
        if info.deleted {
            return Err(KopiaError::ContentNotFound { id: id.to_string() });
        }
        Ok(info)
    }
}

#[async_trait]
impl ContentSource for Kept {
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        self.info(id)?;
        self.0.get(id).await
    }

    async fn length(&self, id: &ContentId) -> KopiaResult<u64> {
        self.info(id).map(|info| info.original_length.into())
    }
}
