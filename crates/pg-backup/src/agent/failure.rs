//! From any error to the agent's answer.

use std::time::Duration;

use holdfast_fault::{Class, Fault};
use holdfast_runtime::api_error::chain;
use holdfast_store::StoreError;
use holdfast_walg::WalgError;
use holdfast_walg::replication::ReplicationError;

use super::report::{FailureClass, FailureReason, FailureReport};

/// Why the agent failed.
#[derive(Debug)]
pub(super) struct Failure {
    reason: FailureReason,
    class: Class,
    message: String,
}

impl Failure {
    /// A failure that no error of a library describes.
    pub(super) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let class = match reason {
            FailureReason::InvalidArguments => Class::Invalid,
            _ => Class::Transient,
        };
        Self {
            reason,
            class,
            message: message.into(),
        }
    }

    /// The run took too long.
    pub(super) fn deadline(after: Duration, phase: &str) -> Self {
        let message = format!("not done after {} s, while {phase}", after.as_secs());
        Self::new(FailureReason::DeadlineExceeded, message)
    }

    /// Whether the backup exists already, so that another host may have a newer one to give.
    pub(super) fn is_backup_exists(&self) -> bool {
        self.reason == FailureReason::BackupExists
    }

    pub(super) fn into_report(self) -> FailureReport {
        let class = match self.class {
            Class::Invalid => FailureClass::Invalid,
            Class::Denied => FailureClass::Denied,
            Class::Conflict => FailureClass::Conflict,
            Class::Transient => FailureClass::Transient,
        };
        // The same time will not suffice the next time either.
        let retry = self.class == Class::Transient && self.reason != FailureReason::DeadlineExceeded;
        FailureReport {
            reason: self.reason,
            message: self.message,
            class,
            retry,
        }
    }

    fn of(error: &(impl Fault + 'static), reason: FailureReason) -> Self {
        Self {
            reason,
            class: error.class(),
            message: chain(error),
        }
    }
}

impl From<WalgError> for Failure {
    fn from(error: WalgError) -> Self {
        let reason = match &error {
            WalgError::Store(error) => storage(error),
            WalgError::Replication(error) => replication(error),
            WalgError::Segment { .. } | WalgError::WalMissing { .. } => FailureReason::WalMissing,
            WalgError::BackupExists { .. } => FailureReason::BackupExists,
            WalgError::BackupNotFound { .. } => FailureReason::BackupNotFound,
            WalgError::Permanent { .. } => FailureReason::BackupPermanent,
            WalgError::InUse { .. } => FailureReason::BackupInUse,
            WalgError::Unsupported { .. } => FailureReason::Unsupported,
            WalgError::Corrupt { .. } => FailureReason::BackupCorrupt,
            WalgError::Damaged { .. } => FailureReason::ChecksumMismatch,
            WalgError::Archive { .. } => FailureReason::BackupFailed,
            WalgError::TargetNotEmpty { .. } => FailureReason::TargetNotEmpty,
            WalgError::Io { .. } => FailureReason::LocalIo,
            WalgError::Stalled { .. } => FailureReason::Stalled,
            WalgError::Cancelled { .. } => FailureReason::Interrupted,
            WalgError::Internal(_) => FailureReason::Internal,
        };
        Self::of(&error, reason)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(&error, storage(&error))
    }
}

impl From<ReplicationError> for Failure {
    fn from(error: ReplicationError) -> Self {
        Self::of(&error, replication(&error))
    }
}

fn storage(error: &StoreError) -> FailureReason {
    match error {
        StoreError::NotConfigured => FailureReason::StorageNotConfigured,
        StoreError::Setting { .. } | StoreError::Unsupported { .. } | StoreError::Rejected { .. } => {
            FailureReason::StorageInvalid
        }
        StoreError::BucketNotFound { .. } => FailureReason::BucketNotFound,
        StoreError::NotFound { .. } | StoreError::Inconsistent { .. } => FailureReason::StorageInconsistent,
        StoreError::Denied { .. } => FailureReason::StorageDenied,
        StoreError::Unavailable { .. } => FailureReason::StorageUnavailable,
    }
}

fn replication(error: &ReplicationError) -> FailureReason {
    match error.reason() {
        "AuthenticationFailed"
        | "PasswordMissing"
        | "CleartextPasswordRefused"
        | "AuthenticationUnsupported" => FailureReason::AuthenticationFailed,
        "InsufficientPrivilege" => FailureReason::PermissionDenied,
        "TlsFailed" | "TlsUnavailable" => FailureReason::TlsFailed,
        "UnsupportedVersion" => FailureReason::Unsupported,
        "HostUnknown" | "ConnectFailed" | "ConnectTimedOut" | "TooManyConnections" | "ServerStarting"
        | "ServerShutDown" | "ServerSilent" | "ConnectionLost" => FailureReason::ConnectionFailed,
        "ServerFileMissing" => FailureReason::WalMissing,
        "InvalidOptions" => FailureReason::InvalidArguments,
        _ => FailureReason::BackupFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_bucket_is_named_and_not_tried_again() {
        let error = StoreError::BucketNotFound {
            bucket: "pg".into(),
            endpoint: "http://s3".into(),
        };
        let report = Failure::from(WalgError::from(error)).into_report();
        assert_eq!(report.reason, FailureReason::BucketNotFound);
        assert_eq!(report.message, "bucket \"pg\" does not exist at http://s3");
        assert!(!report.retry);
    }

    #[test]
    fn an_interruption_may_be_tried_again_and_a_deadline_not() {
        let report = Failure::from(WalgError::Cancelled {
            phase: "copying data",
        })
        .into_report();
        assert_eq!((report.reason, report.retry), (FailureReason::Interrupted, true));
        let report = Failure::deadline(Duration::from_mins(1), "copying data").into_report();
        assert_eq!(
            (report.reason, report.retry),
            (FailureReason::DeadlineExceeded, false)
        );
        assert_eq!(report.message, "not done after 60 s, while copying data");
    }
}
