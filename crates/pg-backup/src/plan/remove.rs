//! The object is being deleted: its job is stopped, its data removed, and then it may go.

use holdfast_api::alauda_v1::{BackupState, PostgresBackup};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::start::storage_secret;
use super::watch::{cause, stuck};
use super::{LOOK_AGAIN, Plan, RETAIN_ANNOTATION, Step, Verdict};
use crate::build::job::{self, Setting};
use crate::config::Config;
use crate::observe::{JobEnd, JobView, stage};
use crate::reason::Reason;

/// Shortest and longest pause between two attempts to remove a backup from the storage.
const DELETE_PAUSE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(15), SignedDuration::from_mins(10));

/// Whether `backup` may have left something in the storage.
pub fn had_data(backup: &PostgresBackup) -> bool {
    stored_at(backup).is_some()
}

/// Stops the job that takes the backup: nothing may write any more when its data is removed.
pub(super) fn stop(job: &JobView) -> Plan {
    let plan = Plan::says(Verdict::Deleting, Some(LOOK_AGAIN));
    if job.deleting {
        plan
    } else {
        plan.step(Step::DeleteJob {
            name: job.name.clone(),
            uid: job.uid.clone(),
        })
    }
}

/// Removes the data by a job, tries again after a failure, and lets the object go when nothing is left.
pub(super) fn remove(
    backup: &PostgresBackup,
    delete: Option<&JobView>,
    namespace_terminating: bool,
    config: &Config,
    image: &str,
    now: Timestamp,
) -> Plan {
    let Some((path, name)) = stored_at(backup) else {
        return release(Reason::Deleted, "nothing was stored".to_owned());
    };
    if backup
        .annotations()
        .get(RETAIN_ANNOTATION)
        .is_some_and(|value| value == "true")
    {
        return release(
            Reason::DataRetained,
            format!("{name} stays in the storage: {RETAIN_ANNOTATION} is true"),
        );
    }
    match delete {
        Some(job) if job.ours => removing(backup, job, config, now),
        _ if namespace_terminating => {
            // No job can be created any more, and whoever deletes a namespace may not mean the backups of its data.
            release(
                Reason::DataRetained,
                format!("{name} stays in the storage: the namespace is being deleted"),
            )
        }
        Some(job) => {
            let message = format!("job {} exists and belongs to another object", job.name);
            Plan::says(
                Verdict::DeleteFailed(Reason::JobNameTaken, message),
                Some(DELETE_PAUSE.1),
            )
        }
        None => match storage_secret(backup, config) {
            Ok(secret) => {
                let setting = Setting {
                    image,
                    storage_secret: &secret,
                    memory_limit: &config.agent_memory_limit,
                    timeout: config.delete_timeout,
                };
                let job = job::delete(backup, &setting, &path, &name);
                let verdict = if stage(backup) == BackupState::DeleteFailed {
                    Verdict::Nothing
                } else {
                    Verdict::Deleting
                };
                Plan::says(verdict, Some(LOOK_AGAIN)).step(Step::CreateJob(Box::new(job)))
            }
            Err(message) => {
                let verdict = Verdict::DeleteFailed(Reason::InvalidStorageReference, message);
                Plan::says(verdict, Some(DELETE_PAUSE.1))
            }
        },
    }
}

fn removing(backup: &PostgresBackup, job: &JobView, config: &Config, now: Timestamp) -> Plan {
    let again = Step::DeleteJob {
        name: job.name.clone(),
        uid: job.uid.clone(),
    };
    match &job.end {
        Some(JobEnd::Complete) => release(
            Reason::Deleted,
            "the data was removed from the storage".to_owned(),
        ),
        Some(end @ JobEnd::Failed { at, .. }) => {
            let (reason, message) = cause(job, end);
            let pause = pause(backup, now);
            let rest = at.map_or(pause, |at| pause - now.duration_since(at));
            let plan = Plan::says(
                Verdict::DeleteFailed(reason, message),
                Some(rest.max(SignedDuration::from_secs(1))),
            );
            if rest.is_positive() {
                plan
            } else {
                plan.step(again)
            }
        }
        None => match stuck(job, config, now) {
            Some(message) => {
                let verdict = Verdict::DeleteFailed(Reason::JobNotStarted, message);
                Plan::says(verdict, Some(LOOK_AGAIN)).step(again)
            }
            None => Plan::says(Verdict::Nothing, Some(LOOK_AGAIN)),
        },
    }
}

/// The longer the deletion has been tried, the longer the next pause; derived from the object's own time stamp, so that
/// a restart of the controller changes nothing.
pub(super) fn pause(backup: &PostgresBackup, now: Timestamp) -> SignedDuration {
    let since = backup
        .metadata
        .deletion_timestamp
        .as_ref()
        .map_or(now, |time| time.0);
    (now.duration_since(since) / 4).clamp(DELETE_PAUSE.0, DELETE_PAUSE.1)
}

fn release(reason: Reason, message: String) -> Plan {
    Plan::says(Verdict::Released(reason, message), None).step(Step::DropFinalizer)
}

/// Path and name of what the backup may have left in the storage.
fn stored_at(backup: &PostgresBackup) -> Option<(String, String)> {
    let status = backup.status.as_ref()?;
    let name = status.backup_name.clone().filter(|name| !name.is_empty())?;
    // A foreign CRD prunes the path; what it keeps is enough to derive it for every cluster with Spilo's defaults.
    let path = status.storage_path.clone().or_else(|| {
        let major = status.pg_version.as_deref()?.split('.').next()?;
        Some(format!(
            "spilo/{}/{}/wal/{major}",
            backup.spec.cluster,
            status.cluster_uid.as_deref()?
        ))
    })?;
    Some((path, name))
}
