//! The description of a repository: the blobs `kopia.repository` and `kopia.blobcfg`.
//!
//! `kopia.repository` is JSON that anybody may read: an id, and how a key is made from the password. With that key it
//! keeps, encrypted, what all clients of the repository must agree on, and the keys of its contents.

mod config;
mod create;
mod description;
mod epoch;
mod password;
mod recheck;
mod retention;

use bytes::Bytes;

use holdfast_store::Secret;

use crate::blob::{BlobId, BlobStorage};
use crate::crypto::keys::{self, Key};
use crate::crypto::{ContentCipher, ContentHasher};
use crate::error::{KopiaError, KopiaResult};
use config::{Checked, Config};
use description::Description;

pub use create::CreateOptions;
pub use epoch::EpochParameters;
pub use password::change_password;
pub use retention::RetentionConfig;

/// Name of the blob that describes the repository.
pub const REPOSITORY: &str = "kopia.repository";
/// Name of the blob that says how long blobs are kept from being deleted.
pub const BLOB_CONFIG: &str = "kopia.blobcfg";

/// A longer blob of the format is no such blob.
const MAX_BLOB: u64 = 1 << 20;

/// What all clients of a repository agree on, and the keys of its contents.
#[derive(Debug)]
pub struct RepositoryFormat {
    /// What names contents.
    pub hasher: ContentHasher,
    /// What encrypts them.
    pub cipher: ContentCipher,
    /// Version of the format: 1, 2 or 3.
    pub version: u8,
    /// Bytes after which a pack is full.
    pub max_pack_size: u32,
    /// Version of the indexes to write: 1 or 2.
    pub index_version: u8,
    /// How indexes are organised in epochs.
    pub epoch: EpochParameters,
    /// What cuts files into contents, by kopia's name.
    pub splitter: String,
    /// The id of the repository, 32 random bytes as a rule.
    pub unique_id: Vec<u8>,
    /// What keeps new blobs from being deleted, if anything.
    pub retention: Option<RetentionConfig>,
    /// Whether the password can be changed. If not, packs carry copies of the description
    /// ([`recovery_copy`](Self::recovery_copy)), which would give away the old one.
    pub password_change: bool,
    /// The bytes of `kopia.repository`.
    description: Bytes,
    /// What decrypts them.
    key: DescriptionKey,
}

/// The key that the password stands for. It is not shown.
struct DescriptionKey(Key);

impl std::fmt::Debug for DescriptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DescriptionKey")
    }
}

impl RepositoryFormat {
    /// Opens the repository. Computing the key takes some 0.2 s and, for a while, 64 MiB of memory.
    ///
    /// # Errors
    ///
    /// [`NotARepository`](KopiaError::NotARepository), [`WrongPassword`](KopiaError::WrongPassword),
    /// [`Unsupported`](KopiaError::Unsupported) for what this crate does not know (also while the repository is being
    /// upgraded), [`Corrupt`](KopiaError::Corrupt).
    pub async fn load(storage: &dyn BlobStorage, password: &Secret) -> KopiaResult<Self> {
        let blob = read_description(storage).await?;
        let description = Description::parse(&blob)?;
        let key = description.key(password).await?;
        Self::load_with(storage, &description, blob, &key).await
    }

    /// Opens the repository once the key is computed from the password.
    async fn load_with(
        storage: &dyn BlobStorage,
        description: &Description,
        blob: Bytes,
        key: &Key,
    ) -> KopiaResult<Self> {
        let Some(config) = description.config(key)? else {
            return Err(KopiaError::WrongPassword {
                location: storage.location(),
            });
        };
        let config = Config::parse(&config)?.check()?;
        let retention = read_retention(storage, description, key).await?;
        Ok(Self::new(config, description, blob, key, retention))
    }

    fn new(
        config: Checked,
        description: &Description,
        blob: Bytes,
        key: &Key,
        retention: Option<RetentionConfig>,
    ) -> Self {
        Self {
            hasher: config.hasher,
            cipher: config.cipher,
            version: config.version,
            max_pack_size: config.max_pack_size,
            index_version: config.index_version,
            epoch: config.epoch,
            splitter: config.splitter,
            unique_id: description.unique_id.clone(),
            retention,
            password_change: config.password_change,
            description: blob,
            key: DescriptionKey(*key),
        }
    }

    /// The bytes of `kopia.repository`, exactly as they are stored.
    pub fn description(&self) -> &Bytes {
        &self.description
    }

    /// What a pack begins with so that a lost `kopia.repository` can be recovered from it: the description with its
    /// length and a checksum. None if the password can be changed, that is, in all but format version 1.
    pub fn recovery_copy(&self) -> KopiaResult<Option<Vec<u8>>> {
        if self.password_change {
            return Ok(None);
        }
        description::recovery_copy(&self.description).map(Some)
    }
}

/// The blob `kopia.repository`.
async fn read_description(storage: &dyn BlobStorage) -> KopiaResult<Bytes> {
    match storage.get(&BlobId::from(REPOSITORY), MAX_BLOB).await {
        Err(KopiaError::BlobNotFound { .. }) => Err(KopiaError::NotARepository {
            location: storage.location(),
        }),
        other => other,
    }
}

/// The blob `kopia.blobcfg`, which need not exist.
async fn read_blob_config(storage: &dyn BlobStorage) -> KopiaResult<Option<Bytes>> {
    match storage.get(&BlobId::from(BLOB_CONFIG), MAX_BLOB).await {
        Ok(blob) => Ok(Some(blob)),
        Err(KopiaError::BlobNotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_retention(
    storage: &dyn BlobStorage,
    description: &Description,
    key: &Key,
) -> KopiaResult<Option<RetentionConfig>> {
    let Some(blob) = read_blob_config(storage).await? else {
        return Ok(None);
    };
    let json = description.open(key, &blob)?.ok_or_else(|| {
        let problem = "it is encrypted with another password; a change of password may have been interrupted: repeat it";
        KopiaError::corrupt(BLOB_CONFIG, problem)
    })?;
    retention::from_json(&json)
}

#[cfg(test)]
mod tests;
