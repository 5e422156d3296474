//! What to do, decided from what was seen; pure. The clock is an argument.

mod remove;
mod start;
mod watch;

pub use remove::had_data;
pub use start::storage_secret;

use holdfast_api::alauda_v1::{BackupState, PostgresBackup};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use crate::agent::report::{BackupReport, ProgressReport};
use crate::config::Config;
use crate::observe::{Observed, stage};
use crate::reason::Reason;

/// Finalizer that keeps the object until its data has been removed from the storage.
pub const FINALIZER: &str = "pg-backup.holdfast.dev/storage";

/// Annotation that lets an object go while its data stays in the storage: `true`.
pub const RETAIN_ANNOTATION: &str = "pg-backup.holdfast.dev/retain-data";

/// How soon a pass looks again while it waits for something no watch reports.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// The decisions of one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What to write besides the status, in this order.
    pub steps: Vec<Step>,
    /// What the status must say.
    pub verdict: Verdict,
    /// When to look again, if nothing changes before; `None` waits for a change.
    pub again: Option<SignedDuration>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the object until its data is gone.
    AddFinalizer,
    /// Create a job; one of the same name that this object owns will do.
    CreateJob(Box<Job>),
    /// Delete the job of this name and UID, its pods first.
    DeleteJob {
        /// Name of the job.
        name: String,
        /// Its UID, so that a newer one of the same name is spared.
        uid: String,
    },
    /// Let the object go.
    DropFinalizer,
}

/// What a pass found out about the object.
#[derive(Clone, Debug, PartialEq, strum::IntoStaticStr)]
pub enum Verdict {
    /// Nothing that the status does not say already.
    Nothing,
    /// Something must happen before the backup can start.
    Waiting(Reason, String),
    /// The job exists, or is created in this pass.
    Started {
        /// Member that the backup is taken from.
        member: String,
        /// UID of the cluster.
        cluster_uid: String,
    },
    /// The job works.
    Running(Option<ProgressReport>),
    /// The agent read the backup back and found it whole.
    Succeeded(Box<BackupReport>),
    /// There is no backup.
    Failed(Reason, String),
    /// The data is being removed.
    Deleting,
    /// The data could not be removed; it is tried again.
    DeleteFailed(Reason, String),
    /// The object may go.
    Released(Reason, String),
}

impl Verdict {
    /// The same, unless the API server refused for good what the plan needed.
    #[must_use]
    pub fn or_refused(self, refused: Option<(Reason, String)>, backup: &PostgresBackup) -> Self {
        match refused {
            None => self,
            Some((reason, message)) if backup.metadata.deletion_timestamp.is_some() => {
                Self::DeleteFailed(reason, message)
            }
            Some((reason, message)) => Self::Failed(reason, message),
        }
    }
}

/// Whether a pass over `backup` may start a job that takes a backup.
pub fn may_start(backup: &PostgresBackup) -> bool {
    backup.metadata.deletion_timestamp.is_none() && stage(backup) == BackupState::Accepted
}

/// Decides.
pub fn plan(backup: &PostgresBackup, seen: &Observed, config: &Config, image: &str, now: Timestamp) -> Plan {
    match seen {
        Observed::Settled => Plan::settled(),
        Observed::New(new) => start::start(backup, new, config, image, now),
        Observed::Running { job, progress } => watch::watch(job.as_ref(), progress.as_ref(), config, now),
        Observed::Deleting {
            backup: backup_job,
            delete,
            namespace_terminating,
        } => {
            if backup.finalizers().iter().all(|f| f != FINALIZER) {
                Plan::settled()
            } else if let Some(job) = backup_job.as_ref().filter(|job| job.ours && job.end.is_none()) {
                remove::stop(job)
            } else {
                remove::remove(
                    backup,
                    delete.as_ref(),
                    *namespace_terminating,
                    config,
                    image,
                    now,
                )
            }
        }
    }
}

impl Plan {
    fn settled() -> Self {
        Self {
            steps: Vec::new(),
            verdict: Verdict::Nothing,
            again: None,
        }
    }

    fn says(verdict: Verdict, again: Option<SignedDuration>) -> Self {
        Self {
            steps: Vec::new(),
            verdict,
            again,
        }
    }

    fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::says(Verdict::Failed(reason, message.into()), None)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

#[cfg(test)]
mod tests;
