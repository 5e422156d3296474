//! What the agent answers: the JSON of its termination message and of `GET /progress`.
//!
//! Kubernetes keeps at most 4096 bytes of a termination message and cuts the rest off, which would leave no JSON
//! at all; [`Report::to_json`] therefore shortens the texts until the document fits.

use serde::{Deserialize, Serialize};

/// Most bytes a termination message may have.
pub const MAX_REPORT_BYTES: usize = 4096;

/// Most bytes of [`FailureReport::message`].
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Exit code of the agent when it did what was asked.
pub const EXIT_OK: u8 = 0;

/// Exit code of the agent when trying again may help.
pub const EXIT_TRANSIENT: u8 = 1;

/// Exit code of the agent when trying again is pointless until somebody changes something.
pub const EXIT_PERMANENT: u8 = 2;

/// The result of one run of the agent: `{"result": "Succeeded", ...}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each run; a box would only be in the way"
)]
#[serde(tag = "result")]
pub enum Report {
    /// A backup was taken and verified.
    Succeeded(BackupReport),
    /// The backup is no longer in storage, whether this run removed it or it was gone before.
    Deleted,
    /// The work was not done.
    Failed(FailureReport),
}

/// A backup that exists in storage and was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// wal-g's name of the backup, `base_<24 hex digits>`.
    pub backup_name: String,
    /// Log position at which the backup starts, in bytes.
    pub start_lsn: u64,
    /// Log position a restore must reach to be consistent, in bytes.
    pub finish_lsn: u64,
    /// When the backup started, RFC 3339 in UTC.
    pub start_time: String,
    /// When the data was complete, RFC 3339 in UTC.
    pub finish_time: String,
    /// When the sentinel was stored, by the clock of the storage, RFC 3339 in UTC.
    pub last_modified: String,
    /// Version of the server as people write it, for example `15.20`.
    pub pg_version: String,
    /// Version of the server as a number, for example `150020`.
    pub pg_version_num: u32,
    /// Bucket, or the base directory of a directory store.
    pub bucket: String,
    /// Path within the bucket below which `basebackups_005` lies.
    pub path: String,
    /// Host the data was read from; the alternate host when the first one had nothing new.
    pub host: String,
    /// System identifier of the database cluster; a string because it exceeds 2^53.
    pub system_identifier: String,
    /// Bytes of the backup before compression.
    pub uncompressed_size: u64,
    /// Bytes of the backup as stored, WAL not counted.
    pub compressed_size: u64,
    /// Number of WAL segments the backup needs, all of them in storage.
    pub wal_segments: u64,
    /// Timeline of the backup.
    pub timeline: u32,
    /// Whether the last segment was padded with zeros because no WAL completed it in time.
    pub last_segment_padded: bool,
    /// Seconds the whole run took.
    pub duration_seconds: u64,
}

/// Why the work was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureReport {
    /// The cause as one word.
    pub reason: FailureReason,
    /// The cause as a sentence that names the object (host, user, bucket, file); at most [`MAX_MESSAGE_BYTES`].
    pub message: String,
    /// What kind of failure it is.
    pub class: FailureClass,
    /// Whether running again without any change may help.
    pub retry: bool,
}

/// The classes of failure, as in `holdfast-fault`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureClass {
    /// What was asked for, or what was found, makes no sense.
    Invalid,
    /// Somebody refused: credentials, rights, rules of the server.
    Denied,
    /// Something else stands in the way.
    Conflict,
    /// It may go better next time.
    Transient,
}

/// Every cause the agent can give; a closed list, so that it may serve as a label or a condition's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, Serialize, Deserialize)]
pub enum FailureReason {
    /// No variable says where the storage is.
    StorageNotConfigured,
    /// A variable of the storage has a value, or is one, that is not supported.
    StorageInvalid,
    /// The bucket does not exist.
    BucketNotFound,
    /// The storage refused the credentials or the request.
    StorageDenied,
    /// The storage could not be reached, or failed for longer than retries are made.
    StorageUnavailable,
    /// The storage answered something that cannot be right: a wrong size, a missing object.
    StorageInconsistent,
    /// The database server could not be reached.
    ConnectionFailed,
    /// The database server refused the user or the password.
    AuthenticationFailed,
    /// The user may not do replication.
    PermissionDenied,
    /// The TLS handshake with the database server failed.
    TlsFailed,
    /// The version or the set-up of the server is not supported, tablespaces for instance.
    Unsupported,
    /// The server ended the backup with an error.
    BackupFailed,
    /// A file that arrived is not the file the server's manifest describes.
    ChecksumMismatch,
    /// The WAL that the backup needs could not be obtained.
    WalMissing,
    /// A backup of this name exists already: no checkpoint happened since.
    BackupExists,
    /// No backup of this name exists.
    BackupNotFound,
    /// The backup is marked permanent.
    BackupPermanent,
    /// Other backups depend on this one.
    BackupInUse,
    /// The backup in storage is damaged or incomplete.
    BackupCorrupt,
    /// The target directory is not empty.
    TargetNotEmpty,
    /// Reading or writing local files failed.
    LocalIo,
    /// No byte moved for too long.
    Stalled,
    /// The run took longer than it may.
    DeadlineExceeded,
    /// The run was told to stop.
    Interrupted,
    /// The arguments make no sense.
    InvalidArguments,
    /// A defect of the agent.
    Internal,
}

impl FailureReason {
    /// The word, for conditions, Events and metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How far a running backup is: the body of `GET /progress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressReport {
    /// What is being done.
    pub phase: Phase,
    /// Bytes read from the server, before compression.
    pub bytes_done: u64,
    /// Bytes the server expects to send; an estimate, 0 while unknown.
    pub total_bytes: u64,
    /// Bytes stored, after compression, WAL included.
    pub bytes_uploaded: u64,
    /// WAL segments stored.
    pub wal_segments: u64,
    /// wal-g's name of the backup, once the server said where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_name: Option<String>,
    /// Bucket, or the base directory of a directory store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Path within the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Host the data is read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// The steps of a run, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Reading the configuration, reaching storage and server.
    #[default]
    Preparing,
    /// Waiting for the server's checkpoint.
    Checkpoint,
    /// Copying the data files.
    Copying,
    /// Storing the rest of the WAL.
    ArchivingWal,
    /// Reading back what was stored.
    Verifying,
    /// Done.
    Finished,
}

impl Report {
    /// The report as JSON of at most [`MAX_REPORT_BYTES`] bytes.
    pub fn to_json(&self) -> String {
        let mut report = self.clone();
        if let Self::Failed(failure) = &mut report {
            truncate(&mut failure.message, MAX_MESSAGE_BYTES);
        }
        loop {
            let json = serde_json::to_string(&report).unwrap_or_default();
            if json.len() <= MAX_REPORT_BYTES {
                return json;
            }
            match &mut report {
                // Control characters are escaped to six bytes each; half the text until it fits.
                Self::Failed(failure) => {
                    let half = failure.message.len() / 2;
                    truncate(&mut failure.message, half);
                }
                Self::Succeeded(backup) => {
                    let longest = backup.path.len().max(backup.bucket.len()).max(backup.host.len());
                    if longest == 0 {
                        return json;
                    }
                    for text in [&mut backup.path, &mut backup.bucket, &mut backup.host] {
                        truncate(text, longest / 2);
                    }
                }
                Self::Deleted => return json,
            }
        }
    }

    /// Reads a termination message.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The exit code that belongs to this result.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Succeeded(_) | Self::Deleted => EXIT_OK,
            Self::Failed(failure) if failure.retry => EXIT_TRANSIENT,
            Self::Failed(_) => EXIT_PERMANENT,
        }
    }
}

fn truncate(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    if end > 0 {
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(message: String) -> Report {
        Report::Failed(FailureReport {
            reason: FailureReason::BucketNotFound,
            message,
            class: FailureClass::Invalid,
            retry: false,
        })
    }

    #[test]
    fn a_failure_reads_as_documented() {
        assert_eq!(
            failed("bucket \"x\" does not exist".into()).to_json(),
            r#"{"result":"Failed","reason":"BucketNotFound","message":"bucket \"x\" does not exist","class":"Invalid","retry":false}"#
        );
        assert_eq!(Report::Deleted.to_json(), r#"{"result":"Deleted"}"#);
    }

    #[test]
    fn a_success_keeps_every_bit_of_an_lsn() {
        let report = Report::Succeeded(BackupReport {
            backup_name: "base_000000010000000000000002".into(),
            start_lsn: (1 << 62) + 1,
            system_identifier: u64::MAX.to_string(),
            ..BackupReport::default()
        });
        let json = report.to_json();
        assert!(json.contains("\"startLsn\":4611686018427387905"), "{json}");
        assert_eq!(Report::from_json(&json).unwrap(), report);
    }

    #[test]
    fn no_message_exceeds_the_limit_of_kubernetes() {
        for text in ["é".repeat(5000), "\u{1}".repeat(5000), "\"".repeat(5000)] {
            let json = failed(text).to_json();
            assert!(json.len() <= MAX_REPORT_BYTES, "{}", json.len());
            let Report::Failed(back) = Report::from_json(&json).unwrap() else {
                panic!("{json}")
            };
            assert!(back.message.len() <= MAX_MESSAGE_BYTES && back.message.ends_with('…'));
        }
        let long = Report::Succeeded(BackupReport {
            path: "x".repeat(9000),
            ..BackupReport::default()
        });
        assert!(long.to_json().len() <= MAX_REPORT_BYTES);
    }

    #[test]
    fn exit_codes_tell_whether_to_retry() {
        let mut report = failed("x".into());
        assert_eq!(report.exit_code(), EXIT_PERMANENT);
        if let Report::Failed(failure) = &mut report {
            failure.retry = true;
        }
        assert_eq!(report.exit_code(), EXIT_TRANSIENT);
        assert_eq!(Report::Deleted.exit_code(), EXIT_OK);
    }
}
