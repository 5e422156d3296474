//! What can go wrong with object storage.

use std::time::Duration;

use holdfast_fault::{Class, Fault};

/// Short for results of this crate.
pub type StoreResult<T> = Result<T, StoreError>;

/// A failed operation on object storage. Every text names the object or the variable that is meant, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No variable says where the storage is.
    #[error("no storage is configured: set one of WALG_S3_PREFIX, WAL_S3_BUCKET or WALG_FILE_PREFIX")]
    NotConfigured,
    /// A variable has a value that makes no sense.
    #[error("{name}: {problem}")]
    Setting {
        /// Name of the variable.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A variable asks for something this implementation does not do, and ignoring it would be wrong.
    #[error("{name} is set, but not supported: {problem}")]
    Unsupported {
        /// Name of the variable.
        name: String,
        /// What it would have to do.
        problem: &'static str,
    },
    /// The bucket does not exist.
    #[error("bucket \"{bucket}\" does not exist at {endpoint}")]
    BucketNotFound {
        /// Name of the bucket.
        bucket: String,
        /// Where it was looked for.
        endpoint: String,
    },
    /// The object does not exist.
    #[error("{location} does not exist")]
    NotFound {
        /// The object.
        location: String,
    },
    /// The storage refused the credentials or the request.
    #[error("{action} {location}: refused: {detail}")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// The object.
        location: String,
        /// The answer.
        detail: String,
    },
    /// The storage says the request is wrong.
    #[error("{action} {location}: rejected: {detail}")]
    Rejected {
        /// What was tried.
        action: &'static str,
        /// The object.
        location: String,
        /// The answer.
        detail: String,
    },
    /// The storage did not answer, or with failures only, for as long as retries are made.
    #[error("{action} {location}: failed {attempts} times in {} s: {detail}", elapsed.as_secs())]
    Unavailable {
        /// What was tried.
        action: &'static str,
        /// The object.
        location: String,
        /// How often.
        attempts: u32,
        /// For how long.
        elapsed: Duration,
        /// The last failure.
        detail: String,
    },
    /// The object is there, but not as it must be.
    #[error("{location}: {problem}")]
    Inconsistent {
        /// The object.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Fault for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::NotConfigured
            | Self::Setting { .. }
            | Self::Unsupported { .. }
            | Self::BucketNotFound { .. }
            | Self::NotFound { .. }
            | Self::Rejected { .. }
            | Self::Inconsistent { .. } => Class::Invalid,
            Self::Denied { .. } => Class::Denied,
            Self::Unavailable { .. } => Class::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotConfigured => "StorageNotConfigured",
            Self::Setting { .. } | Self::Unsupported { .. } => "StorageInvalid",
            Self::BucketNotFound { .. } => "BucketNotFound",
            Self::NotFound { .. } => "ObjectNotFound",
            Self::Denied { .. } => "StorageDenied",
            Self::Rejected { .. } => "StorageRejected",
            Self::Unavailable { .. } => "StorageUnavailable",
            Self::Inconsistent { .. } => "StorageInconsistent",
        }
    }
}
