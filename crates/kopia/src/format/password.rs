//! Another password for a repository.

use jiff::Timestamp;

use holdfast_store::Secret;

use super::config::Config;
use super::description::Description;
use super::{BLOB_CONFIG, REPOSITORY, read_blob_config, read_description, retention};
use crate::blob::{BlobId, BlobStorage};
use crate::crypto::keys::Key;
use crate::error::{KopiaError, KopiaResult};

/// Gives the repository another password; `now` is when the retention of the new blobs begins. Contents stay as they are.
///
/// Two blobs are encrypted with the password, and they cannot be replaced at once. `kopia.repository` decides which
/// password is the right one. kopia writes `kopia.blobcfg` first; interrupted then, the repository opens with neither
/// password. So, where no retention is configured (then the blob says nothing), it is deleted first and written last:
/// the repository always opens. With retention the order is kopia's, since deleting the blob would end the retention;
/// repeating an interrupted change, with the same passwords, completes it either way.
///
/// # Errors
///
/// [`WrongPassword`](KopiaError::WrongPassword) if `old` does not open the repository,
/// [`Unsupported`](KopiaError::Unsupported) if its format (version 1) has the password in every pack.
pub async fn change_password(
    storage: &dyn BlobStorage,
    old: &Secret,
    new: &Secret,
    now: Timestamp,
) -> KopiaResult<()> {
    let description = Description::parse(&read_description(storage).await?)?;
    let (old, new) = (description.key(old).await?, description.key(new).await?);
    change_key(storage, description, &old, &new, now).await
}

/// The change once the keys are computed from the passwords.
pub(super) async fn change_key(
    storage: &dyn BlobStorage,
    mut description: Description,
    old: &Key,
    new: &Key,
    now: Timestamp,
) -> KopiaResult<()> {
    let Some(json) = description.config(old)? else {
        return Err(KopiaError::WrongPassword {
            location: storage.location(),
        });
    };
    if !Config::parse(&json)?.check()?.password_change {
        return Err(KopiaError::Unsupported {
            feature: "to keep its password".into(),
            detail: "format version 1 has copies of its description in every pack".into(),
        });
    }

    let blob_config = read_blob_config(storage).await?;
    let config_json = match &blob_config {
        None => retention::to_json(None)?,
        Some(blob) => match description.open(old, blob)? {
            Some(json) => json,
            // The change was interrupted before.
            None => description
                .open(new, blob)?
                .ok_or_else(|| KopiaError::corrupt(BLOB_CONFIG, "it is encrypted with neither password"))?,
        },
    };
    let retention = retention::from_json(&config_json)?;
    let kept = retention.map(|retention| retention.starting(now)).transpose()?;
    description.set_config(new, &json)?;
    let new_config = description.seal(new, &config_json)?;
    let new_description = description.to_json()?;

    let (repository, config) = (BlobId::from(REPOSITORY), BlobId::from(BLOB_CONFIG));
    if retention.is_some() {
        storage
            .put(&config, vec![new_config.into()], kept.as_ref())
            .await?;
        storage
            .put(&repository, vec![new_description.into()], kept.as_ref())
            .await
    } else {
        storage.delete(&config).await?;
        storage
            .put(&repository, vec![new_description.into()], None)
            .await?;
        storage.put(&config, vec![new_config.into()], None).await
    }
}
