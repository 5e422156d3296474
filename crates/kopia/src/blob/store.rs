//! Blobs in object storage or in a directory.

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_store::{LockMode, ObjectInfo, ObjectLock, Store, StoreError};
use tokio::sync::OnceCell;

use super::sharded::{self, PARAMETERS_FILE, PARAMETERS_LIMIT, Parameters};
use super::{BlobId, BlobMetadata, BlobStorage, Retention, RetentionMode};
use crate::error::{KopiaError, KopiaResult};

/// Name of the blob that every repository has.
const FORMAT_BLOB: &str = "kopia.repository";

/// How the names of blobs become keys of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The key is the name: object storage.
    Flat,
    /// In folders, as kopia's filesystem provider keeps them; see the file `.shards`.
    Sharded,
}

/// The blobs below a [`Store`].
#[derive(Debug)]
pub struct StoreBlobs {
    store: Store,
    layout: Layout,
    /// What `.shards` says, once it is known to be there.
    parameters: OnceCell<Parameters>,
}

impl StoreBlobs {
    /// The blobs directly below the store's prefix. Nothing is read yet.
    pub fn new(store: Store, layout: Layout) -> Self {
        Self {
            store,
            layout,
            parameters: OnceCell::new(),
        }
    }

    /// The store beneath, for its counters.
    pub fn store(&self) -> &Store {
        &self.store
    }

    async fn key(&self, id: &BlobId) -> KopiaResult<String> {
        let name = id.as_str();
        let unusable = |problem: &str| KopiaError::Argument {
            name: "blob",
            problem: format!("\"{name}\" {problem}"),
        };
        if name.is_empty() || name.contains('/') {
            return Err(unusable("is not the name of a blob"));
        }
        match self.layout {
            Layout::Flat => Ok(name.to_owned()),
            Layout::Sharded => self
                .parameters()
                .await?
                .key(name)
                .ok_or_else(|| unusable("cannot be cut into the names of folders")),
        }
    }

    /// What `.shards` says, or what holds without it. Reading never writes the file.
    async fn parameters(&self) -> KopiaResult<Parameters> {
        if let Some(known) = self.parameters.get() {
            return Ok(known.clone());
        }
        match self.store.get(PARAMETERS_FILE, PARAMETERS_LIMIT).await {
            Ok(data) => {
                let parameters = Parameters::parse(&data)?;
                // Another task may have been faster, with the same file.
                Ok(self.parameters.get_or_init(|| async { parameters }).await.clone())
            }
            Err(StoreError::NotFound { .. }) => {
                // The name is short, so the blob lies in the folder itself whatever the levels are.
                let key = format!("{FORMAT_BLOB}.f");
                Ok(match self.store.head(&key).await? {
                    Some(_) => Parameters::for_old(),
                    None => Parameters::for_new(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that `.shards` is there before a blob is stored by it.
    async fn keep_parameters(&self) -> KopiaResult<()> {
        if self.layout == Layout::Flat || self.parameters.initialized() {
            return Ok(());
        }
        let parameters = self.parameters().await?;
        if self.parameters.initialized() {
            return Ok(());
        }
        self.store
            .put_if_absent(PARAMETERS_FILE, parameters.to_json()?.into())
            .await?;
        // Somebody else may have written other ones in between: the file decides.
        self.parameters().await.map(|_| ())
    }

    fn missing(id: &BlobId) -> impl FnOnce(StoreError) -> KopiaError {
        let blob = id.as_str().to_owned();
        move |error| match error {
            StoreError::NotFound { .. } => KopiaError::BlobNotFound { blob },
            other => other.into(),
        }
    }

    fn blob(&self, object: &ObjectInfo) -> Option<BlobMetadata> {
        let id = match self.layout {
            Layout::Flat if object.key.contains('/') || object.key.is_empty() => return None,
            Layout::Flat => object.key.as_str().into(),
            Layout::Sharded => sharded::blob_name(&object.key)?.into(),
        };
        Some(BlobMetadata {
            id,
            size: object.size,
            modified: object.modified,
        })
    }

    async fn list_folders(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let (files, below) = self.store.list_level(&folder).await?;
            let blobs = files.iter().filter_map(|file| self.blob(file));
            found.extend(blobs.filter(|blob| blob.id.as_str().starts_with(prefix)));
            folders.extend(
                below
                    .into_iter()
                    .filter(|folder| sharded::may_hold(folder, prefix)),
            );
        }
        Ok(found)
    }
}

#[async_trait]
impl BlobStorage for StoreBlobs {
    async fn get(&self, id: &BlobId, limit: u64) -> KopiaResult<Bytes> {
        let key = self.key(id).await?;
        self.store.get(&key, limit).await.map_err(Self::missing(id))
    }

    async fn get_range(&self, id: &BlobId, offset: u64, length: u64) -> KopiaResult<Bytes> {
        let key = self.key(id).await?;
        self.store
            .get_range(&key, offset, length)
            .await
            .map_err(Self::missing(id))
    }

    async fn put(&self, id: &BlobId, pieces: Vec<Bytes>, retention: Option<&Retention>) -> KopiaResult<()> {
        self.keep_parameters().await?;
        let key = self.key(id).await?;
        let lock = retention.map(|retention| ObjectLock {
            mode: match retention.mode {
                RetentionMode::Compliance => LockMode::Compliance,
                RetentionMode::Governance => LockMode::Governance,
            },
            until: retention.until,
        });
        Ok(self.store.put_pieces(&key, pieces, lock.as_ref()).await?)
    }

    async fn metadata(&self, id: &BlobId) -> KopiaResult<Option<BlobMetadata>> {
        let key = self.key(id).await?;
        let found = self.store.head(&key).await?;
        Ok(found.map(|object| BlobMetadata {
            id: id.clone(),
            size: object.size,
            modified: object.modified,
        }))
    }

    async fn list(&self, prefix: &str) -> KopiaResult<Vec<BlobMetadata>> {
        let mut found = match self.layout {
            Layout::Sharded => self.list_folders(prefix).await?,
            Layout::Flat => {
                let mut found = Vec::new();
                self.store
                    .list_prefix(prefix, |object| found.extend(self.blob(&object)))
                    .await?;
                found
            }
        };
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    async fn delete(&self, id: &BlobId) -> KopiaResult<()> {
        let key = self.key(id).await?;
        Ok(self.store.delete(&[key]).await?)
    }

    fn location(&self) -> String {
        self.store.location("")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use holdfast_store::{Place, RetryPolicy, StoreConfig};

    use super::*;

    fn blobs(folder: &Path, layout: Layout) -> StoreBlobs {
        let config = StoreConfig::new(Place::Directory(folder.to_owned()), "");
        StoreBlobs::new(Store::open(&config, RetryPolicy::default()).unwrap(), layout)
    }

    async fn names(blobs: &StoreBlobs, prefix: &str) -> Vec<String> {
        let found = blobs.list(prefix).await.unwrap();
        found.iter().map(|blob| blob.id.to_string()).collect()
    }

    const LONG: &str = "p0123456789abcdef0123456789abcdef-s1";
    const OTHER: &str = "q0123456789abcdef0123456789abcdef-s1";

    #[tokio::test]
    async fn both_layouts_keep_blobs() {
        for layout in [Layout::Flat, Layout::Sharded] {
            let folder = tempfile::tempdir().unwrap();
            let blobs = blobs(folder.path(), layout);
            for name in [LONG, OTHER, "kopia.repository"] {
                blobs
                    .put(&name.into(), vec!["ab".into(), Bytes::new(), "cde".into()], None)
                    .await
                    .unwrap();
            }
            let id = BlobId::from(LONG);
            assert_eq!(blobs.get(&id, 5).await.unwrap(), "abcde");
            assert!(blobs.get(&id, 4).await.is_err());
            assert_eq!(blobs.get_range(&id, 1, 3).await.unwrap(), "bcd");
            for (offset, length) in [(4, 2), (5, 1), (9, 1), (u64::MAX, 2)] {
                let error = blobs.get_range(&id, offset, length).await.unwrap_err();
                assert!(error.to_string().contains("are needed"), "{error}");
            }
            assert_eq!(blobs.metadata(&id).await.unwrap().unwrap().size, 5);
            assert_eq!(names(&blobs, "").await, ["kopia.repository", LONG, OTHER]);
            assert_eq!(names(&blobs, "p01234").await, [LONG]);
            assert_eq!(names(&blobs, "x").await, [""; 0]);
            blobs.delete(&id).await.unwrap();
            blobs.delete(&id).await.unwrap();
            assert_eq!(blobs.metadata(&id).await.unwrap(), None);
            let gone = blobs.get_range(&id, 0, 1).await.unwrap_err();
            assert!(
                matches!(&gone, KopiaError::BlobNotFound { blob } if blob == LONG),
                "{gone}"
            );
            for name in ["", "a/b", ".."] {
                assert!(blobs.get(&name.into(), 1).await.is_err(), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_new_folder_is_laid_out_as_kopia_does() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = blobs(folder.path(), Layout::Sharded);
        assert!(blobs.get(&LONG.into(), 9).await.is_err());
        assert!(!folder.path().join(".shards").exists(), "reading wrote");
        blobs.put(&LONG.into(), vec!["x".into()], None).await.unwrap();
        assert!(
            folder
                .path()
                .join("p/012")
                .join(format!("{}.f", &LONG[4..]))
                .exists()
        );
        let file = std::fs::read(folder.path().join(".shards")).unwrap();
        assert_eq!(file, b"{\"default\":[1,3],\"maxNonShardedLength\":20}\n");
    }

    #[tokio::test]
    async fn what_is_there_decides_and_foreign_files_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kopia.repository.f"), "{}").unwrap();
        std::fs::write(folder.path().join("foreign"), "x").unwrap();
        std::fs::write(folder.path().join("p01.f.tmp.0011"), "x").unwrap();
        let old = blobs(folder.path(), Layout::Sharded);
        old.put(&LONG.into(), vec!["x".into()], None).await.unwrap();
        assert!(
            folder
                .path()
                .join("p01/234")
                .join(format!("{}.f", &LONG[6..]))
                .exists()
        );
        assert_eq!(names(&old, "").await, ["kopia.repository", LONG]);

        let folder = tempfile::tempdir().unwrap();
        let parameters = "{\"default\":[2],\"maxNonShardedLength\":0}";
        std::fs::write(folder.path().join(".shards"), parameters).unwrap();
        let told = blobs(folder.path(), Layout::Sharded);
        told.put(&LONG.into(), vec!["x".into()], None).await.unwrap();
        assert!(
            folder
                .path()
                .join("p0")
                .join(format!("{}.f", &LONG[2..]))
                .exists()
        );

        std::fs::write(folder.path().join(".shards"), "\u{1}").unwrap();
        let damaged = blobs(folder.path(), Layout::Sharded);
        let error = damaged
            .put(&LONG.into(), vec!["x".into()], None)
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with(".shards is damaged"), "{error}");
    }
}
