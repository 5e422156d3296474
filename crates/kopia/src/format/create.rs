//! A new repository.

use bytes::Bytes;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

use holdfast_store::Secret;

use super::config::{Config, ConfigBlob, PACK_SIZES, VERSIONS};
use super::description::Description;
use super::{
    BLOB_CONFIG, EpochParameters, Key, REPOSITORY, RepositoryFormat, RetentionConfig, keys, read_blob_config,
    retention,
};
use crate::blob::{BlobId, BlobStorage};
use crate::crypto::{ContentCipher, ContentHasher};
use crate::error::{KopiaError, KopiaResult};

/// What is chosen once for a repository. The default is what Velero's server does, which is kopia's default.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// What names contents, by kopia's name.
    pub hash: String,
    /// What encrypts them, by kopia's name.
    pub encryption: String,
    /// What cuts files into contents, by kopia's name.
    pub splitter: String,
    /// How the key is made from the password, by kopia's name.
    pub key_derivation: String,
    /// Version of the format: 1, 2 or 3.
    pub version: u8,
    /// Bytes after which a pack is full: 10 to 120 MiB.
    pub max_pack_size: u32,
    /// What keeps blobs from being deleted, if anything.
    pub retention: Option<RetentionConfig>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            hash: ContentHasher::DEFAULT.into(),
            encryption: ContentCipher::DEFAULT.into(),
            splitter: "DYNAMIC-4M-BUZHASH".into(),
            key_derivation: keys::SCRYPT.into(),
            version: *VERSIONS.end(),
            max_pack_size: 20 << 20,
            retention: None,
        }
    }
}

impl CreateOptions {
    /// The configuration with new keys.
    fn config(&self) -> KopiaResult<Config> {
        let wrong = |name, problem: String| Err(KopiaError::Argument { name, problem });
        if !VERSIONS.contains(&self.version) {
            return wrong(
                "format version",
                format!("{} is not one of 1, 2 and 3", self.version),
            );
        }
        if !PACK_SIZES.contains(&self.max_pack_size) {
            return wrong(
                "pack size",
                format!("{} bytes are not 10 to 120 MiB", self.max_pack_size),
            );
        }
        if let Some(retention) = &self.retention {
            retention.validate()?;
        }
        let legacy = self.version == 1;
        Ok(Config {
            hash: self.hash.clone(),
            encryption: self.encryption.clone(),
            secret: random_bytes()?,
            master_key: random_bytes()?,
            version: self.version.into(),
            max_pack_size: self.max_pack_size.into(),
            index_version: if legacy { 1 } else { 2 },
            epoch_parameters: if legacy {
                EpochParameters::default()
            } else {
                EpochParameters::STANDARD
            },
            enable_password_change: !legacy,
            splitter: self.splitter.clone(),
            ..Config::default()
        })
    }
}

impl RepositoryFormat {
    /// Creates a repository; `now` is when its retention begins. `kopia.repository` is written last: an interrupted
    /// creation leaves no repository, and can be repeated.
    ///
    /// # Errors
    ///
    /// [`RepositoryExists`](KopiaError::RepositoryExists), [`Argument`](KopiaError::Argument) or
    /// [`Unsupported`](KopiaError::Unsupported) for options that make no sense, [`Corrupt`](KopiaError::Corrupt) if there
    /// is only a part of a repository.
    pub async fn create(
        storage: &dyn BlobStorage,
        password: &Secret,
        options: &CreateOptions,
        now: Timestamp,
    ) -> KopiaResult<Self> {
        // Checked before the key is computed, which takes its time.
        options.config()?;
        refuse_existing(storage).await?;
        let description = Description::new(random_bytes()?, &options.key_derivation);
        let key = description.key(password).await?;
        Self::create_with(storage, description, &key, options, now).await
    }

    /// Creates a repository once the key is computed from the password.
    pub(super) async fn create_with(
        storage: &dyn BlobStorage,
        mut description: Description,
        key: &Key,
        options: &CreateOptions,
        now: Timestamp,
    ) -> KopiaResult<Self> {
        let (format, blob_config) =
            Self::assemble(options.config()?, &mut description, key, options.retention)?;
        let kept = options
            .retention
            .map(|retention| retention.starting(now))
            .transpose()?;
        storage
            .put(&BlobId::from(BLOB_CONFIG), vec![blob_config], kept.as_ref())
            .await?;
        storage
            .put(
                &BlobId::from(REPOSITORY),
                vec![format.description.clone()],
                kept.as_ref(),
            )
            .await?;
        Ok(format)
    }

    /// A new format and the blob `kopia.blobcfg` that belongs to it.
    fn assemble(
        config: Config,
        description: &mut Description,
        key: &Key,
        retention: Option<RetentionConfig>,
    ) -> KopiaResult<(Self, Bytes)> {
        let blob = ConfigBlob { format: config };
        let json = serde_json::to_vec(&blob).map_err(|error| KopiaError::corrupt(REPOSITORY, error))?;
        description.set_config(key, &json)?;
        let blob_config = description.seal(key, &retention::to_json(retention.as_ref())?)?;
        let bytes = description.to_json()?.into();
        let format = Self::new(blob.format.check()?, description, bytes, key, retention);
        Ok((format, blob_config.into()))
    }

    /// A format for tests that need its keys and have no time for the password. Whoever writes needs
    /// [`description`](Self::description) in the storage.
    #[cfg(test)]
    pub(crate) fn in_memory(options: &CreateOptions) -> Self {
        let mut description = Description::new(random_bytes().unwrap(), &options.key_derivation);
        let config = options.config().unwrap();
        Self::assemble(config, &mut description, &[0; 32], options.retention)
            .unwrap()
            .0
    }
}

/// A repository must not be created over another, nor over what another has left.
async fn refuse_existing(storage: &dyn BlobStorage) -> KopiaResult<()> {
    if storage.metadata(&BlobId::from(REPOSITORY)).await?.is_some() {
        return Err(KopiaError::RepositoryExists {
            location: storage.location(),
        });
    }
    if read_blob_config(storage).await?.is_none() {
        return Ok(());
    }
    // Either the creation of a repository was interrupted, or the description of one was lost. The latter has indexes,
    // whose blobs are few.
    for prefix in ["n", "x"] {
        if !storage.list(prefix).await?.is_empty() {
            let problem = "the repository has contents, but its description is gone";
            return Err(KopiaError::corrupt(REPOSITORY, problem));
        }
    }
    Ok(())
}

/// 32 of them, as kopia's ids and keys have.
fn random_bytes() -> KopiaResult<Vec<u8>> {
    let mut bytes = vec![0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|ring::error::Unspecified| {
            let source = std::io::Error::other("the system gave none");
            KopiaError::io("get random numbers from", "the system", source)
        })?;
    Ok(bytes)
}
