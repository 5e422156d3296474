//! What can go wrong with a kopia repository.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_fault::{Class, Fault};
use holdfast_store::StoreError;

/// Short for results of this crate.
pub type KopiaResult<T> = Result<T, KopiaError>;

/// A failed operation on a repository. Every text names the blob, content or path that is meant, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum KopiaError {
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob does not exist.
    #[error("blob {blob} does not exist")]
    BlobNotFound {
        /// Name of the blob.
        blob: String,
    },
    /// There is no repository where one was expected.
    #[error("there is no kopia repository at {location}")]
    NotARepository {
        /// Where it was looked for.
        location: String,
    },
    /// A repository is there already.
    #[error("there is a kopia repository at {location} already")]
    RepositoryExists {
        /// Where it is.
        location: String,
    },
    /// The password does not open the repository.
    #[error("the password does not open the repository at {location}")]
    WrongPassword {
        /// Where the repository is.
        location: String,
    },
    /// The repository uses something that this implementation does not know, so it must keep its hands off.
    #[error("the repository needs {feature}, which is not supported: {detail}")]
    Unsupported {
        /// What it needs.
        feature: String,
        /// Why that matters, or what to do.
        detail: String,
    },
    /// Something in the repository is not as it must be.
    #[error("{what} is damaged: {problem}")]
    Corrupt {
        /// The blob, content or object.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A content is in no index.
    #[error("content {id} is in no index of the repository")]
    ContentNotFound {
        /// The content.
        id: String,
    },
    /// A manifest does not exist.
    #[error("manifest {id} does not exist")]
    ManifestNotFound {
        /// The manifest.
        id: String,
    },
    /// A local file or directory could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// Something that exists already is in the way of a restore.
    #[error("cannot restore to {}: {problem}", path.display())]
    TargetExists {
        /// What is in the way.
        path: PathBuf,
        /// Why it cannot stay or go.
        problem: &'static str,
    },
    /// An entry of a snapshot failed; the class is that of its error.
    #[error("{}: {source}", path.display())]
    Entry {
        /// Its path below the root of the snapshot.
        path: PathBuf,
        /// What is wrong with it.
        source: Arc<KopiaError>,
    },
    /// A value given by the caller makes no sense.
    #[error("{name}: {problem}")]
    Argument {
        /// Name of the option.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The repository is not any more what it was when it was opened, so nothing must be added to its index.
    #[error("the repository was changed since it was opened: {what}; nothing more was committed to it")]
    FormatChanged {
        /// What has changed.
        what: String,
    },
    /// The epoch of the repository went on twice while an index was written; the write must be repeated.
    #[error("the repository moved on by two epochs while an index was written")]
    EpochMoved,
    /// Something took longer than what it was based upon holds, each time it was tried.
    #[error("{what} took more than {limit:?} again and again")]
    TooSlow {
        /// What was done.
        what: &'static str,
        /// How long it may take.
        limit: std::time::Duration,
    },
    /// Something that went on in the background had failed before, such as the upload of a pack.
    #[error(transparent)]
    Earlier(Arc<KopiaError>),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl KopiaError {
    /// A damaged part of the repository.
    pub(crate) fn corrupt(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt {
            what: what.to_string(),
            problem: problem.to_string(),
        }
    }

    /// A failed system call on a local file.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<std::io::Error>,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    }
}

impl Fault for KopiaError {
    fn class(&self) -> Class {
        match self {
            Self::Store(error) => error.class(),
            Self::Earlier(error) => error.class(),
            Self::Entry { source, .. } => source.class(),
            Self::WrongPassword { .. } => Class::Denied,
            Self::EpochMoved | Self::FormatChanged { .. } => Class::Conflict,
            Self::Cancelled | Self::TooSlow { .. } => Class::Transient,
            Self::BlobNotFound { .. }
            | Self::NotARepository { .. }
            | Self::RepositoryExists { .. }
            | Self::Unsupported { .. }
            | Self::Corrupt { .. }
            | Self::ContentNotFound { .. }
            | Self::ManifestNotFound { .. }
            | Self::Io { .. }
            | Self::TargetExists { .. }
            | Self::Argument { .. } => Class::Invalid,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Store(error) => error.reason(),
            Self::Earlier(error) => error.reason(),
            Self::Entry { source, .. } => source.reason(),
            Self::BlobNotFound { .. } => "BlobNotFound",
            Self::NotARepository { .. } => "RepositoryNotFound",
            Self::RepositoryExists { .. } => "RepositoryExists",
            Self::WrongPassword { .. } => "RepositoryPasswordWrong",
            Self::Unsupported { .. } => "RepositoryUnsupported",
            Self::Corrupt { .. } => "RepositoryDamaged",
            Self::ContentNotFound { .. } => "ContentNotFound",
            Self::ManifestNotFound { .. } => "ManifestNotFound",
            Self::Io { .. } => "FileFailed",
            Self::TargetExists { .. } => "RestoreTargetExists",
            Self::Argument { .. } => "ArgumentInvalid",
            Self::EpochMoved => "EpochMoved",
            Self::FormatChanged { .. } => "RepositoryChanged",
            Self::TooSlow { .. } => "StorageSlow",
            Self::Cancelled => "Cancelled",
        }
    }
}
