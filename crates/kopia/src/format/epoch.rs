//! The parameters of the epochs of indexes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{KopiaError, KopiaResult};

/// How indexes are organised in epochs. Every client of a repository must go by the same values, so they are kept in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "EpochJson", into = "EpochJson")]
pub struct EpochParameters {
    /// Whether there are epochs at all; format version 1 has none.
    pub enabled: bool,
    /// How long a listing of the index blobs may be believed.
    pub refresh_frequency: Duration,
    /// Epochs between two full checkpoints.
    pub full_checkpoint_frequency: u32,
    /// How much older than its replacement an index blob must be before it is deleted.
    pub cleanup_safety_margin: Duration,
    /// How long an epoch lasts at least.
    pub min_epoch_duration: Duration,
    /// Index blobs of an epoch that call for the next.
    pub advance_on_count: u32,
    /// Bytes of index blobs of an epoch that call for the next.
    pub advance_on_total_bytes: u64,
    /// Deletions at once.
    pub delete_parallelism: u32,
}

impl EpochParameters {
    /// What kopia gives new repositories of format versions 2 and 3.
    pub const STANDARD: Self = Self {
        enabled: true,
        refresh_frequency: Duration::from_mins(20),
        full_checkpoint_frequency: 7,
        cleanup_safety_margin: Duration::from_hours(4),
        min_epoch_duration: Duration::from_hours(24),
        advance_on_count: 20,
        advance_on_total_bytes: 10 << 20,
        delete_parallelism: 4,
    };

    /// Refuses values with which epochs are not safe; the rules are kopia's.
    pub(super) fn validate(&self) -> KopiaResult<()> {
        let wrong = |problem| {
            Err(KopiaError::corrupt(
                "the epoch parameters of the repository",
                problem,
            ))
        };
        let three_refreshes = self.refresh_frequency.saturating_mul(3);
        match self {
            parameters if !parameters.enabled => Ok(()),
            parameters if parameters.min_epoch_duration < Duration::from_mins(10) => {
                wrong("epochs are too short")
            }
            parameters if three_refreshes > parameters.min_epoch_duration => {
                wrong("listings are believed too long")
            }
            parameters if parameters.full_checkpoint_frequency == 0 => wrong("there are no checkpoints"),
            parameters if parameters.cleanup_safety_margin < three_refreshes => {
                wrong("cleaning up is not safe")
            }
            parameters if parameters.advance_on_count < 10 => wrong("epochs have too few blobs"),
            parameters if parameters.advance_on_total_bytes < 1 << 20 => wrong("epochs have too few bytes"),
            _ => Ok(()),
        }
    }
}

/// As kopia writes it: unlike all else in the format, the names begin with capitals. Times are nanoseconds.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct EpochJson {
    enabled: bool,
    epoch_refresh_frequency: i64,
    full_checkpoint_frequency: i64,
    cleanup_safety_margin: i64,
    min_epoch_duration: i64,
    epoch_advance_on_count_threshold: i64,
    epoch_advance_on_total_size_bytes_threshold: i64,
    delete_parallelism: i64,
}

impl TryFrom<EpochJson> for EpochParameters {
    type Error = String;

    fn try_from(json: EpochJson) -> Result<Self, String> {
        let time = |name, nanoseconds: i64| {
            u64::try_from(nanoseconds)
                .map(Duration::from_nanos)
                .map_err(|_| negative(name))
        };
        let number = |name, number: i64| u32::try_from(number).map_err(|_| negative(name));
        Ok(Self {
            enabled: json.enabled,
            refresh_frequency: time("EpochRefreshFrequency", json.epoch_refresh_frequency)?,
            full_checkpoint_frequency: number("FullCheckpointFrequency", json.full_checkpoint_frequency)?,
            cleanup_safety_margin: time("CleanupSafetyMargin", json.cleanup_safety_margin)?,
            min_epoch_duration: time("MinEpochDuration", json.min_epoch_duration)?,
            advance_on_count: number(
                "EpochAdvanceOnCountThreshold",
                json.epoch_advance_on_count_threshold,
            )?,
            advance_on_total_bytes: u64::try_from(json.epoch_advance_on_total_size_bytes_threshold)
                .map_err(|_| negative("EpochAdvanceOnTotalSizeBytesThreshold"))?,
            delete_parallelism: number("DeleteParallelism", json.delete_parallelism)?,
        })
    }
}

fn negative(name: &str) -> String {
    format!("{name} is negative or too large")
}

impl From<EpochParameters> for EpochJson {
    fn from(parameters: EpochParameters) -> Self {
        let time = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        Self {
            enabled: parameters.enabled,
            epoch_refresh_frequency: time(parameters.refresh_frequency),
            full_checkpoint_frequency: parameters.full_checkpoint_frequency.into(),
            cleanup_safety_margin: time(parameters.cleanup_safety_margin),
            min_epoch_duration: time(parameters.min_epoch_duration),
            epoch_advance_on_count_threshold: parameters.advance_on_count.into(),
            epoch_advance_on_total_size_bytes_threshold: i64::try_from(parameters.advance_on_total_bytes)
                .unwrap_or(i64::MAX),
            delete_parallelism: parameters.delete_parallelism.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_kopias() {
        let json = serde_json::to_value(EpochParameters::STANDARD).unwrap();
        let expected = serde_json::json!({
            "Enabled": true,
            "EpochRefreshFrequency": 1_200_000_000_000_i64,
            "FullCheckpointFrequency": 7,
            "CleanupSafetyMargin": 14_400_000_000_000_i64,
            "MinEpochDuration": 86_400_000_000_000_i64,
            "EpochAdvanceOnCountThreshold": 20,
            "EpochAdvanceOnTotalSizeBytesThreshold": 10_485_760,
            "DeleteParallelism": 4,
        });
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::from_value::<EpochParameters>(json).unwrap(),
            EpochParameters::STANDARD
        );
    }

    #[test]
    fn unsafe_values_are_refused() {
        EpochParameters::STANDARD.validate().unwrap();
        EpochParameters::default().validate().unwrap();
        let wrong: [fn(&mut EpochParameters); 6] = [
            |parameters| parameters.min_epoch_duration = Duration::from_mins(9),
            |parameters| parameters.refresh_frequency = Duration::from_hours(9),
            |parameters| parameters.full_checkpoint_frequency = 0,
            |parameters| parameters.cleanup_safety_margin = Duration::from_mins(59),
            |parameters| parameters.advance_on_count = 9,
            |parameters| parameters.advance_on_total_bytes = 1,
        ];
        for change in wrong {
            let mut parameters = EpochParameters::STANDARD;
            change(&mut parameters);
            assert!(parameters.validate().is_err(), "{parameters:?}");
        }
        assert!(serde_json::from_str::<EpochParameters>(r#"{"MinEpochDuration":-1}"#).is_err());
    }
}
