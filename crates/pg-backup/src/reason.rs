//! Why an object is in the state it is in: the reasons of conditions and Events.

use crate::agent::report::FailureReason;

/// One CamelCase word; docs/pg-backup.md says for each what it means and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Another backup of the same cluster is running; this one waits for it.
    Queued,
    /// The cluster has members, but none is ready.
    WaitingForMember,
    /// The job exists and works.
    BackupRunning,
    /// The backup was read back and found whole.
    BackupSucceeded,
    /// The data in the storage is being removed.
    Deleting,
    /// The data was removed from the storage.
    Deleted,
    /// The object goes away and its data stays in the storage.
    DataRetained,
    /// No pod carries the cluster's labels.
    ClusterNotFound,
    /// The cluster's UID, which is part of the path in the bucket, could not be found.
    ClusterUidUnknown,
    /// No member of the cluster became ready in time.
    NoReadyMember,
    /// `spec.executeNode` names neither a member nor the node of one.
    MemberNotFound,
    /// `spec.cluster` is no label value.
    InvalidCluster,
    /// The storage annotation is not the name of a Secret in this namespace.
    InvalidStorageReference,
    /// The job's pod could not start in time.
    JobNotStarted,
    /// Somebody deleted the job.
    JobDeleted,
    /// A job of the same name belongs to somebody else.
    JobNameTaken,
    /// The job's pod was killed for memory.
    OutOfMemory,
    /// The job ran longer than it may.
    DeadlineExceeded,
    /// The job ended without an answer.
    AgentLost,
    /// The API server refused what the job needs.
    JobRefused,
    /// The agent said why; its own word follows.
    Agent(FailureReason),
}

impl Reason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::WaitingForMember => "WaitingForMember",
            Self::BackupRunning => "BackupRunning",
            Self::BackupSucceeded => "BackupSucceeded",
            Self::Deleting => "Deleting",
            Self::Deleted => "Deleted",
            Self::DataRetained => "DataRetained",
            Self::ClusterNotFound => "ClusterNotFound",
            Self::ClusterUidUnknown => "ClusterUidUnknown",
            Self::NoReadyMember => "NoReadyMember",
            Self::MemberNotFound => "MemberNotFound",
            Self::InvalidCluster => "InvalidCluster",
            Self::InvalidStorageReference => "InvalidStorageReference",
            Self::JobNotStarted => "JobNotStarted",
            Self::JobDeleted => "JobDeleted",
            Self::JobNameTaken => "JobNameTaken",
            Self::OutOfMemory => "OutOfMemory",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::AgentLost => "AgentLost",
            Self::JobRefused => "JobRefused",
            Self::Agent(reason) => reason.as_str(),
        }
    }
}

impl From<Reason> for &'static str {
    fn from(reason: Reason) -> Self {
        reason.as_str()
    }
}
