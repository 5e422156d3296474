//! What can go wrong with a backup in wal-g's layout.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_fault::{Class, Fault};
use holdfast_store::StoreError;

use crate::replication::{ReplicationError, SegmentError};

/// Short for results of this crate.
pub type WalgResult<T> = Result<T, WalgError>;

/// A failed backup, restore, verification or deletion.
#[derive(Debug, thiserror::Error)]
pub enum WalgError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database server failed.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The WAL that came does not fit together.
    #[error("the stream of {host} is broken: {source}")]
    Segment {
        /// The server.
        host: String,
        /// How it is broken.
        source: SegmentError,
    },
    /// A backup of this name exists; nothing was changed.
    #[error("backup {name} exists already at {location}: {host} made no checkpoint since")]
    BackupExists {
        /// Name of the backup.
        name: String,
        /// Where it is.
        location: String,
        /// The server that would have been backed up.
        host: String,
    },
    /// There is no such backup.
    #[error("there is no backup {name} at {location}")]
    BackupNotFound {
        /// Name of the backup, or LATEST.
        name: String,
        /// Where it was looked for.
        location: String,
    },
    /// The backup is marked permanent.
    #[error("backup {name} is marked permanent; unmark it first (wal-g backup-mark -i)")]
    Permanent {
        /// Name of the backup.
        name: String,
    },
    /// Other backups cannot be restored without this one.
    #[error("backup {name} is needed by the delta backup {by}; delete that one first")]
    InUse {
        /// Name of the backup.
        name: String,
        /// A backup that depends on it.
        by: String,
    },
    /// Something is not supported here.
    #[error("{what}")]
    Unsupported {
        /// What, and where.
        what: String,
    },
    /// The backup in storage is damaged or incomplete.
    #[error("backup {name}: {problem}")]
    Corrupt {
        /// Name of the backup.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// What arrived is not what the server's manifest describes.
    #[error("data of {host} arrived damaged: {problem}")]
    Damaged {
        /// The server.
        host: String,
        /// Which file, and how it differs.
        problem: String,
    },
    /// The server sent an archive that cannot be understood.
    #[error("{host} sent an archive that cannot be read: {problem}")]
    Archive {
        /// The server.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The WAL that the backup needs did not come.
    #[error("WAL of {host} is missing: {problem}")]
    WalMissing {
        /// The server.
        host: String,
        /// What is missing.
        problem: String,
    },
    /// The directory to restore into holds something.
    #[error("{} is not empty", path.display())]
    TargetNotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A local file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Nothing moved for too long.
    #[error("no byte moved for {} s while {phase}", after.as_secs())]
    Stalled {
        /// How long was waited.
        after: Duration,
        /// What was being done.
        phase: &'static str,
    },
    /// Somebody asked to stop.
    #[error("interrupted while {phase}")]
    Cancelled {
        /// What was being done.
        phase: &'static str,
    },
    /// A defect of this program.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Fault for WalgError {
    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Replication(error) => error.class(),
            Self::Segment { source, .. } => source.class(),
            Self::BackupExists { .. } | Self::InUse { .. } => Class::Conflict,
            Self::BackupNotFound { .. }
            | Self::Permanent { .. }
            | Self::Unsupported { .. }
            | Self::Corrupt { .. }
            | Self::TargetNotEmpty { .. } => Class::Invalid,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    Class::Denied
                }
                _ => Class::Transient,
            },
            Self::Damaged { .. }
            | Self::Archive { .. }
            | Self::WalMissing { .. }
            | Self::Stalled { .. }
            | Self::Cancelled { .. }
            | Self::Internal(_) => Class::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Store(error) => error.reason(),
            Self::Replication(error) => error.reason(),
            Self::Segment { source, .. } => source.reason(),
            Self::BackupExists { .. } => "BackupExists",
            Self::BackupNotFound { .. } => "BackupNotFound",
            Self::Permanent { .. } => "BackupPermanent",
            Self::InUse { .. } => "BackupInUse",
            Self::Unsupported { .. } => "Unsupported",
            Self::Corrupt { .. } => "BackupCorrupt",
            Self::Damaged { .. } => "ChecksumMismatch",
            Self::Archive { .. } => "BackupFailed",
            Self::WalMissing { .. } => "WalMissing",
            Self::TargetNotEmpty { .. } => "TargetNotEmpty",
            Self::Io { .. } => "LocalIo",
            Self::Stalled { .. } => "Stalled",
            Self::Cancelled { .. } => "Interrupted",
            Self::Internal(_) => "Internal",
        }
    }
}

impl WalgError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn corrupt(name: &str, problem: impl Into<String>) -> Self {
        Self::Corrupt {
            name: name.to_owned(),
            problem: problem.into(),
        }
    }
}
