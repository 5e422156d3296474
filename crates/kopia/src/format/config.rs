//! The configuration of a repository: what is encrypted within `kopia.repository`.

use serde::{Deserialize, Serialize};

use super::description::base64;
use super::epoch::EpochParameters;
use crate::crypto::{ContentCipher, ContentHasher};
use crate::error::{KopiaError, KopiaResult};

/// What kopia 0.21 demands of its readers, and this crate fulfils.
const FEATURES: [&str; 2] = ["index-v1", "index-v2"];

/// Format versions that kopia 0.21 knows.
pub(super) const VERSIONS: std::ops::RangeInclusive<u8> = 1..=3;
/// The default of repositories that do not say.
const LEGACY_PACK_SIZE: u32 = 20 << 20;
/// kopia's bounds for packs, in bytes.
pub(super) const PACK_SIZES: std::ops::RangeInclusive<u32> = 10 << 20..=120 << 20;

#[derive(Deserialize, Serialize)]
pub(super) struct ConfigBlob {
    pub(super) format: Config,
}

/// The JSON of the configuration. Only made for a new repository; an existing one is never written from it, so nothing
/// that a later kopia may have put there is lost.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    pub(super) hash: String,
    pub(super) encryption: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) ecc: String,
    #[serde(skip_serializing)]
    pub(super) ecc_overhead_percent: i64,
    #[serde(with = "base64", skip_serializing_if = "Vec::is_empty")]
    pub(super) secret: Vec<u8>,
    #[serde(with = "base64", skip_serializing_if = "Vec::is_empty")]
    pub(super) master_key: Vec<u8>,
    pub(super) version: u64,
    pub(super) max_pack_size: u64,
    pub(super) index_version: u64,
    pub(super) epoch_parameters: EpochParameters,
    pub(super) enable_password_change: bool,
    pub(super) splitter: String,
    #[serde(skip_serializing)]
    pub(super) upgrade_lock: Option<UpgradeLock>,
    #[serde(skip_serializing)]
    pub(super) required_features: Option<Vec<RequiredFeature>>,
}

/// Somebody upgrades the repository, or is going to.
#[derive(Deserialize)]
pub(super) struct UpgradeLock {
    #[serde(default, rename = "ownerID")]
    pub(super) owner: String,
    #[serde(default)]
    pub(super) message: String,
}

/// Something that clients must know to use the repository.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequiredFeature {
    feature: String,
    #[serde(default)]
    if_not_understood: IfNotUnderstood,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IfNotUnderstood {
    /// Whether not to know it is only worth a warning.
    warn: bool,
    message: String,
    #[serde(rename = "url")]
    address: String,
    upgrade_to_version: String,
}

/// The configuration once it is known to be one that this crate can handle.
pub(super) struct Checked {
    pub(super) hasher: ContentHasher,
    pub(super) cipher: ContentCipher,
    pub(super) version: u8,
    pub(super) max_pack_size: u32,
    pub(super) index_version: u8,
    pub(super) epoch: EpochParameters,
    pub(super) splitter: String,
    pub(super) password_change: bool,
}

impl Config {
    pub(super) fn parse(json: &[u8]) -> KopiaResult<Self> {
        let blob: ConfigBlob = serde_json::from_slice(json).map_err(|error| {
            // The text of the error could quote what is secret here, so only its place is told.
            let place = format_args!("line {}, column {}", error.line(), error.column());
            KopiaError::corrupt(
                super::REPOSITORY,
                format_args!("its configuration is not as expected at {place}"),
            )
        })?;
        Ok(blob.format)
    }

    /// Refuses what this crate does not know.
    pub(super) fn check(self) -> KopiaResult<Checked> {
        self.check_features()?;
        self.check_upgrade()?;
        if !self.ecc.is_empty() && self.ecc_overhead_percent > 0 {
            return Err(KopiaError::Unsupported {
                feature: format!("error correction ({})", self.ecc),
                detail: "its contents are stored in another shape".into(),
            });
        }
        let version = u8::try_from(self.version)
            .ok()
            .filter(|version| VERSIONS.contains(version));
        let version = version.ok_or_else(|| KopiaError::Unsupported {
            feature: format!("format version {}", self.version),
            detail: "known are 1, 2 and 3".into(),
        })?;
        let index_version = match self.index_version {
            0 | 1 => 1,
            2 => 2,
            other => {
                return Err(KopiaError::Unsupported {
                    feature: format!("index version {other}"),
                    detail: "known are 1 and 2".into(),
                });
            }
        };
        let max_pack_size = match self.max_pack_size {
            0 => LEGACY_PACK_SIZE,
            size => u32::try_from(size)
                .ok()
                .filter(|size| PACK_SIZES.contains(size))
                .ok_or_else(|| {
                    KopiaError::corrupt(
                        super::REPOSITORY,
                        format_args!("packs of {size} bytes are not possible"),
                    )
                })?,
        };
        self.epoch_parameters.validate()?;
        Ok(Checked {
            hasher: ContentHasher::new(&self.hash, &self.secret)?,
            cipher: ContentCipher::new(&self.encryption, &self.master_key)?,
            version,
            max_pack_size,
            index_version,
            epoch: self.epoch_parameters,
            splitter: self.splitter,
            password_change: self.enable_password_change,
        })
    }

    fn check_features(&self) -> KopiaResult<()> {
        let unknown = self.required_features.iter().flatten();
        for required in unknown.filter(|required| !FEATURES.contains(&required.feature.as_str())) {
            let advice = &required.if_not_understood;
            let mut detail = vec![if advice.message.is_empty() {
                "it was added by a later kopia"
            } else {
                &advice.message
            }];
            if !advice.address.is_empty() {
                detail.extend(["see", &advice.address]);
            }
            if !advice.upgrade_to_version.is_empty() {
                detail.extend(["kopia knows it from version", &advice.upgrade_to_version]);
            }
            let (feature, detail) = (format!("the feature {:?}", required.feature), detail.join(" "));
            if !advice.warn {
                return Err(KopiaError::Unsupported { feature, detail });
            }
            tracing::warn!(%feature, %detail, "the repository has a feature that is not supported");
        }
        Ok(())
    }

    /// While a repository is upgraded its version says what it will be, and its indexes are what they were. Nobody but
    /// who upgrades may use it then; kopia waits for the notice time to pass, but to stop writing in the midst of a
    /// backup is no better than not to begin.
    fn check_upgrade(&self) -> KopiaResult<()> {
        self.upgrade_lock.as_ref().map_or(Ok(()), |lock| {
            Err(KopiaError::Unsupported {
                feature: format!("to be upgraded first (by {:?})", lock.owner),
                detail: format!("the upgrade must be committed or rolled back: {}", lock.message),
            })
        })
    }
}
