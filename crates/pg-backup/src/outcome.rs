//! What the status must say; pure.

use holdfast_api::alauda_v1::{
    BackupProgress, BackupState, ConfigBackupStorage, PostgresBackup, PostgresBackupStatus,
};
use holdfast_status::{ConditionStatus, Phase, ProgressOf, StatusOf, Target, Wanted};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::agent::report::{BackupReport, ProgressReport};
use crate::plan::Verdict;
use crate::reason::Reason;

/// What this controller knows about the status of a PostgresBackup.
#[derive(Debug)]
pub enum Contract {}

/// The conditions, as kstatus reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum ConditionType {
    /// The backup exists and was found whole.
    Ready,
    /// Work is under way.
    Reconciling,
    /// Somebody must act.
    Stalled,
}

impl StatusOf for Contract {
    type Object = PostgresBackup;
    type Status = PostgresBackupStatus;
    type Phase = BackupState;
    type Condition = ConditionType;
    type Reason = Reason;

    const PHASE_FIELD: &'static str = "state";
    const TARGET: Target = Target::Subresource;
    const CONDITIONS: &'static [ConditionType] = &[
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ];
    const OBSERVED_GENERATION: bool = true;
    const PROGRESS_FIELD: Option<&'static str> = Some("progress");

    fn status(object: &PostgresBackup) -> Option<&PostgresBackupStatus> {
        object.status.as_ref()
    }

    fn phase(status: Option<&PostgresBackupStatus>) -> BackupState {
        status.and_then(|status| status.state.clone()).unwrap_or_default()
    }
}

impl ProgressOf for Contract {
    type Progress = BackupProgress;
}

impl Phase<Contract> for BackupState {
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::DeleteFailed)
    }

    fn may_become(&self, next: &Self) -> bool {
        matches!(
            (self, next),
            (Self::Accepted, Self::Running | Self::Failed) | (Self::Running, Self::Succeeded | Self::Failed)
        )
    }

    fn may_become_on_deletion(&self, next: &Self) -> bool {
        *next == Self::DeleteFailed
    }
}

/// The status that `verdict` asks for; `None` where it asks for no change.
pub fn outcome(
    backup: &PostgresBackup,
    storage_secret: &str,
    verdict: &Verdict,
    now: Timestamp,
) -> Option<Wanted<Contract>> {
    let mut status = backup.status.clone().unwrap_or_default();
    // Progress has a writer of its own while the job runs; absent here means left as it is.
    status.progress = None;
    let storage = |bucket: &str| ConfigBackupStorage {
        bucket: bucket.to_owned(),
        name: storage_secret.to_owned(),
        namespace: backup.namespace().unwrap_or_default(),
    };
    let conditions = match verdict {
        Verdict::Nothing | Verdict::Released(..) => return None,
        Verdict::Waiting(reason, message) => {
            // `state` stays as it is: the seed has no word for waiting.
            status.state = Some(BackupState::Accepted);
            working(*reason, message)
        }
        Verdict::Started { member, cluster_uid } => {
            status.state = Some(BackupState::Running);
            status.execute_node = Some(member.clone());
            status.cluster_uid = Some(cluster_uid.clone());
            status.start_time = Some(whole_seconds(now));
            working(
                Reason::BackupRunning,
                &format!("the backup is taken from {member}"),
            )
        }
        Verdict::Running(progress) => {
            let member = status.execute_node.clone().unwrap_or_default();
            if let Some(progress) = progress {
                note_place(&mut status, progress, storage);
            }
            working(
                Reason::BackupRunning,
                &format!("the backup is taken from {member}"),
            )
        }
        Verdict::Succeeded(report) => {
            succeed(&mut status, report, storage);
            let message = format!(
                "{} is stored in bucket {}: {} bytes, read back and found whole",
                report.backup_name, report.bucket, report.compressed_size
            );
            ended(true, Reason::BackupSucceeded, &message)
        }
        Verdict::Failed(reason, message) => {
            status.state = Some(BackupState::Failed);
            status.finish_time = Some(whole_seconds(now));
            status.error = Some(format!("{}: {message}", reason.as_str()));
            ended(false, *reason, message)
        }
        Verdict::Deleting => working(Reason::Deleting, "the data is being removed from the storage"),
        Verdict::DeleteFailed(reason, message) => {
            status.state = Some(BackupState::DeleteFailed);
            status.error = Some(format!("{}: {message}", reason.as_str()));
            ended(
                false,
                *reason,
                &format!("the data could not be removed and is tried again: {message}"),
            )
        }
    };
    let wanted = Wanted::new(status);
    Some(
        conditions
            .into_iter()
            .fold(wanted, |wanted, (kind, holds, reason, message)| {
                wanted.condition(kind, ConditionStatus::from(holds), reason, message)
            }),
    )
}

/// How far the agent says it is.
pub fn progress(report: &ProgressReport) -> BackupProgress {
    BackupProgress {
        bytes_done: Some(signed(report.bytes_done)),
        // Zero is the agent's word for not known yet.
        total_bytes: Some(report.total_bytes).filter(|total| *total > 0).map(signed),
        bytes_uploaded: Some(signed(report.bytes_uploaded)),
    }
}

type Conditions = Vec<(ConditionType, bool, Reason, String)>;

fn working(reason: Reason, message: &str) -> Conditions {
    vec![
        (ConditionType::Ready, false, reason, message.to_owned()),
        (ConditionType::Reconciling, true, reason, message.to_owned()),
    ]
}

fn ended(good: bool, reason: Reason, message: &str) -> Conditions {
    let mut conditions = vec![(ConditionType::Ready, good, reason, message.to_owned())];
    if !good {
        conditions.push((ConditionType::Stalled, true, reason, message.to_owned()));
    }
    conditions
}

/// Notes where the data goes as soon as it is known, so that what a killed job leaves behind can be removed.
fn note_place(
    status: &mut PostgresBackupStatus,
    progress: &ProgressReport,
    storage: impl Fn(&str) -> ConfigBackupStorage,
) {
    if let Some(bucket) = &progress.bucket {
        status.config_backup_storage = Some(storage(bucket));
    }
    if progress.path.is_some() {
        status.storage_path.clone_from(&progress.path);
    }
    if progress.backup_name.is_some() {
        status.backup_name.clone_from(&progress.backup_name);
    }
}

fn succeed(
    status: &mut PostgresBackupStatus,
    report: &BackupReport,
    storage: impl Fn(&str) -> ConfigBackupStorage,
) {
    status.state = Some(BackupState::Succeeded);
    status.backup_name = Some(report.backup_name.clone());
    status.config_backup_storage = Some(storage(&report.bucket));
    status.storage_path = Some(report.path.clone());
    status.start_lsn = Some(signed(report.start_lsn));
    status.finish_lsn = Some(signed(report.finish_lsn));
    status.start_time = Some(report.start_time.clone());
    status.finish_time = Some(report.finish_time.clone());
    status.last_modified = Some(report.last_modified.clone());
    status.pg_version = Some(report.pg_version.clone());
    status.error = None;
    // The last word: nobody writes progress to a terminal object.
    status.progress = Some(BackupProgress {
        bytes_done: Some(signed(report.uncompressed_size)),
        total_bytes: Some(signed(report.uncompressed_size)),
        bytes_uploaded: Some(signed(report.compressed_size)),
    });
}

/// Kubernetes' integers are signed; an LSN beyond 2^63 bytes would take a server centuries to reach.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}
