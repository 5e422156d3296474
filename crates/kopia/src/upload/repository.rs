//! A repository as what a backup writes to.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::run::BackupTarget;
use crate::error::KopiaResult;
use crate::object::{ContentSink, ContentSource};
use crate::repository::RepositoryWriter;
use crate::splitter::Splitter;

#[async_trait]
impl BackupTarget for RepositoryWriter {
    fn sink(&self) -> Arc<dyn ContentSink> {
        Arc::new(self.contents().clone())
    }

    fn source(&self) -> Arc<dyn ContentSource> {
        Arc::new(self.repository().contents().clone())
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
