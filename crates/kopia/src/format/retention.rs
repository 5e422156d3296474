//! How long blobs are kept from being deleted: the blob `kopia.blobcfg`.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::blob::{Retention, RetentionMode};
use crate::error::{KopiaError, KopiaResult};

/// Shorter retention than a day is refused, as kopia does.
const MIN_PERIOD: Duration = Duration::from_hours(24);

/// What keeps new blobs from being deleted (S3 object lock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// How strict it is.
    pub mode: RetentionMode,
    /// For how long, from when the blob is written.
    pub period: Duration,
}

impl RetentionConfig {
    /// The retention of a blob that is written now.
    ///
    /// # Errors
    ///
    /// [`Argument`](KopiaError::Argument) if the period ends later than time does.
    pub fn starting(&self, now: Timestamp) -> KopiaResult<Retention> {
        let until = now
            .checked_add(self.period)
            .map_err(|error| KopiaError::Argument {
                name: "retention period",
                problem: error.to_string(),
            })?;
        Ok(Retention {
            mode: self.mode,
            until,
        })
    }

    pub(super) fn validate(&self) -> KopiaResult<()> {
        if self.period < MIN_PERIOD {
            return Err(KopiaError::Argument {
                name: "retention period",
                problem: "it is shorter than a day".into(),
            });
        }
        Ok(())
    }
}

/// The content of `kopia.blobcfg`.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct BlobConfigJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    retention_mode: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    retention_period: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The JSON of a configuration.
pub(super) fn to_json(retention: Option<&RetentionConfig>) -> KopiaResult<Vec<u8>> {
    let json = retention.map_or_else(BlobConfigJson::default, |retention| BlobConfigJson {
        retention_mode: match retention.mode {
            RetentionMode::Compliance => "COMPLIANCE".into(),
            RetentionMode::Governance => "GOVERNANCE".into(),
        },
        retention_period: i64::try_from(retention.period.as_nanos()).unwrap_or(i64::MAX),
    });
    serde_json::to_vec(&json).map_err(|error| KopiaError::corrupt(super::BLOB_CONFIG, error))
}

/// Reads the JSON of a configuration; it counts only if both mode and period are given, as kopia has it.
pub(super) fn from_json(json: &[u8]) -> KopiaResult<Option<RetentionConfig>> {
    let json: BlobConfigJson =
        serde_json::from_slice(json).map_err(|error| KopiaError::corrupt(super::BLOB_CONFIG, error))?;
    if json.retention_mode.is_empty() || json.retention_period == 0 {
        return Ok(None);
    }
    let mode = match json.retention_mode.as_str() {
        "COMPLIANCE" => RetentionMode::Compliance,
        "GOVERNANCE" => RetentionMode::Governance,
        other => {
            return Err(KopiaError::Unsupported {
                feature: format!("the retention mode {other:?}"),
                detail: "known are COMPLIANCE and GOVERNANCE".into(),
            });
        }
    };
    let period = u64::try_from(json.retention_period)
        .map(Duration::from_nanos)
        .map_err(|_| KopiaError::corrupt(super::BLOB_CONFIG, "the retention period is negative"))?;
    Ok(Some(RetentionConfig { mode, period }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_read_as_they_are_written() {
        let month = RetentionConfig {
            mode: RetentionMode::Governance,
            period: Duration::from_hours(24 * 30),
        };
        let json = to_json(Some(&month)).unwrap();
        assert_eq!(
            json,
            br#"{"retentionMode":"GOVERNANCE","retentionPeriod":2592000000000000}"#
        );
        assert_eq!(from_json(&json).unwrap(), Some(month));
        assert_eq!(to_json(None).unwrap(), b"{}");
        for none in [
            "{}",
            r#"{"retentionMode":"GOVERNANCE"}"#,
            r#"{"retentionPeriod":5,"other":1}"#,
        ] {
            assert_eq!(from_json(none.as_bytes()).unwrap(), None);
        }
        for wrong in [
            "",
            "5",
            r#"{"retentionMode":"Locked","retentionPeriod":5}"#,
            r#"{"retentionMode":"COMPLIANCE","retentionPeriod":-5}"#,
        ] {
            assert!(from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn retention_counts_from_now() {
        let day = RetentionConfig {
            mode: RetentionMode::Compliance,
            period: MIN_PERIOD,
        };
        day.validate().unwrap();
        let kept = day.starting(Timestamp::from_second(1000).unwrap()).unwrap();
        assert_eq!(kept.until, Timestamp::from_second(1000 + 86_400).unwrap());
        assert!(day.starting(Timestamp::MAX).is_err());
        let short = RetentionConfig {
            period: Duration::from_secs(1),
            ..day
        };
        assert!(short.validate().is_err());
    }
}
