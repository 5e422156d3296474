//! Whether a repository is still what it was when it was opened.

use super::config::Config;
use super::description::Description;
use super::{RepositoryFormat, read_description};
use crate::blob::BlobStorage;
use crate::error::{KopiaError, KopiaResult};

impl RepositoryFormat {
    /// Reads `kopia.repository` once more and refuses to go on if the repository has become another one, or one whose
    /// indexes are kept in another way. To be called before an index is written: in a repository that was upgraded
    /// meanwhile nobody would ever read it. `kopia repository upgrade` gives the others some 35 minutes to notice; kopia
    /// looks every 15.
    ///
    /// After a change of password the blob cannot be read any more, and nobody can tell what else has changed. kopia's
    /// sessions end then. Here they go on if the repository has epochs, since those are never given up again and the
    /// contents are encrypted as before. A repository without epochs could have been upgraded as well.
    ///
    /// # Errors
    ///
    /// [`FormatChanged`](KopiaError::FormatChanged) says what has changed. [`NotARepository`](KopiaError::NotARepository),
    /// [`Corrupt`](KopiaError::Corrupt), and those of the storage.
    pub async fn check_unchanged(&self, storage: &dyn BlobStorage) -> KopiaResult<()> {
        let blob = read_description(storage).await?;
        if blob == self.description {
            return Ok(());
        }
        let description = Description::parse(&blob)?;
        if description.unique_id != self.unique_id {
            return changed("there is another repository in its place");
        }
        let Some(json) = description.config(&self.key.0)? else {
            if !self.password_change || !self.epoch.enabled {
                return changed(
                    "its description is encrypted with another password, so its format is not known",
                );
            }
            tracing::warn!("the password of the repository was changed; this session goes on");
            return Ok(());
        };
        let config = Config::parse(&json)?;
        if let Some(lock) = &config.upgrade_lock {
            let (owner, message) = (&lock.owner, &lock.message);
            return changed(format!("an upgrade was begun by {owner:?}: {message}"));
        }
        let now = match config.check() {
            Err(KopiaError::Unsupported { feature, detail }) => {
                return changed(format!(
                    "it now needs {feature}, which is not supported: {detail}"
                ));
            }
            checked => checked?,
        };
        if now.version != self.version {
            let (before, after) = (self.version, now.version);
            return changed(format!("its format version is {after}, and was {before}"));
        }
        if now.epoch != self.epoch {
            return changed("its epochs have other parameters");
        }
        Ok(())
    }
}

fn changed(what: impl Into<String>) -> KopiaResult<()> {
    Err(KopiaError::FormatChanged { what: what.into() })
}
