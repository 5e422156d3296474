//! What to do, decided from what was seen; pure. The clock is an argument.

use holdfast_api::alauda_v1::{BackupState, PostgresBackup, STORAGE_ANNOTATION};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use crate::agent::report::{BackupReport, ProgressReport, Report};
use crate::build::job::{self, Setting, Source};
use crate::config::Config;
use crate::member;
use crate::observe::{JobEnd, JobView, New, Observed, PodView, stage};
use crate::reason::Reason;

/// Finalizer that keeps the object until its data has been removed from the storage.
pub const FINALIZER: &str = "pg-backup.holdfast.dev/storage";

/// Annotation that lets an object go while its data stays in the storage: `true`.
pub const RETAIN_ANNOTATION: &str = "pg-backup.holdfast.dev/retain-data";

/// How soon a pass looks again while it waits for something no watch reports.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// Shortest and longest pause between two attempts to remove a backup from the storage.
const DELETE_PAUSE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(15), SignedDuration::from_mins(10));

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

/// Whether `backup` may have left something in the storage.
pub fn had_data(backup: &PostgresBackup) -> bool {
    stored_at(backup).is_some()
}

/// Decides.
pub fn plan(backup: &PostgresBackup, seen: &Observed, config: &Config, image: &str, now: Timestamp) -> Plan {
    match seen {
        Observed::Settled => Plan::settled(),
        Observed::New(new) => start(backup, new, config, image, now),
        Observed::Running { job, progress } => watch(job.as_ref(), progress.as_ref(), config, now),
        Observed::Deleting {
            backup: backup_job,
            delete,
            namespace_terminating,
        } => {
            if backup.finalizers().iter().all(|f| f != FINALIZER) {
                Plan::settled()
            } else if let Some(job) = backup_job.as_ref().filter(|job| job.ours && job.end.is_none()) {
                stop(job)
            } else {
                remove(
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

// === nothing started yet ===

fn start(backup: &PostgresBackup, seen: &New, config: &Config, image: &str, now: Timestamp) -> Plan {
    let cluster = &backup.spec.cluster;
    if !is_label_value(cluster) {
        return Plan::failed(
            Reason::InvalidCluster,
            format!("spec.cluster {cluster:?} is not the name of a cluster"),
        );
    }
    let storage_secret = match storage_secret(backup, config) {
        Ok(name) => name,
        Err(message) => return Plan::failed(Reason::InvalidStorageReference, message),
    };
    if let Some(other) = &seen.predecessor {
        let message = format!("backup {other} of cluster {cluster} comes first");
        return Plan::says(Verdict::Waiting(Reason::Queued, message), Some(LOOK_AGAIN));
    }
    let choice = match member::choose(&seen.members, backup.spec.execute_node.as_deref()) {
        Ok(choice) => choice,
        Err(member::NoChoice::NoMembers) => {
            let namespace = backup.namespace().unwrap_or_default();
            let selector = config.selector(cluster);
            let message = format!("no pod with labels {selector} in namespace {namespace}");
            return Plan::failed(Reason::ClusterNotFound, message);
        }
        Err(member::NoChoice::NoMatch(message)) => return Plan::failed(Reason::MemberNotFound, message),
        Err(member::NoChoice::NotReady(message)) => {
            let since = backup
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(now, |time| time.0);
            return if now.duration_since(since) > config.member_timeout {
                Plan::failed(
                    Reason::NoReadyMember,
                    format!("{message} within {:#}", config.member_timeout),
                )
            } else {
                Plan::says(
                    Verdict::Waiting(Reason::WaitingForMember, message),
                    Some(LOOK_AGAIN),
                )
            };
        }
    };
    let Some(cluster_uid) = seen.cluster_uid.clone() else {
        let message = format!("there is no postgresql {cluster}, and its pods belong to no StatefulSet");
        return Plan::failed(Reason::ClusterUidUnknown, message);
    };
    if let Some(job) = seen.job.as_ref().filter(|job| !job.ours) {
        let message = format!("job {} exists and belongs to another object", job.name);
        return Plan::failed(Reason::JobNameTaken, message);
    }
    let setting = Setting {
        image,
        storage_secret: &storage_secret,
        memory_limit: &config.agent_memory_limit,
        timeout: config.backup_timeout,
    };
    let scope_path = scope_path(cluster, &cluster_uid, choice.member);
    let source = Source {
        host: choice.address,
        alternate_host: choice.leader_address,
        node: choice.member.node.as_deref(),
        user: &config.replication_user,
        credentials_secret: &config.credentials_secret(cluster),
        ssl_mode: &config.ssl_mode,
        scope_path: &scope_path,
    };
    let job = job::backup(backup, &setting, &source);
    let verdict = Verdict::Started {
        member: choice.member.pod.clone(),
        cluster_uid,
    };
    Plan::says(verdict, Some(config.progress_interval))
        .step(Step::AddFinalizer)
        .step(Step::CreateJob(Box::new(job)))
}

/// The Secret that `backup` names, or the default; the message says what is wrong with the reference.
pub fn storage_secret(backup: &PostgresBackup, config: &Config) -> Result<String, String> {
    let Some(reference) = backup.annotations().get(STORAGE_ANNOTATION) else {
        return Ok(config.default_storage_secret.clone());
    };
    let own = backup.namespace().unwrap_or_default();
    let name = match reference.split_once('/') {
        Some((namespace, name)) if namespace == own => name,
        Some((namespace, _)) => {
            return Err(format!(
                "annotation {STORAGE_ANNOTATION} names a Secret in namespace {namespace:?}; it must be in {own}"
            ));
        }
        None => reference,
    };
    if is_object_name(name) {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "annotation {STORAGE_ANNOTATION}: {name:?} is not the name of a Secret"
        ))
    }
}

/// Spilo's path below the bucket, `spilo/<scope>/<cluster uid>/wal`, as the member's own WAL archiving uses it.
fn scope_path(cluster: &str, cluster_uid: &str, member: &crate::observe::Member) -> String {
    let prefix = member.scope_prefix.as_deref().unwrap_or_default();
    let own_suffix = format!("/{cluster_uid}");
    let suffix = member
        .scope_suffix
        .as_deref()
        .filter(|s| !s.is_empty())
        .unwrap_or(&own_suffix);
    format!("spilo/{prefix}{cluster}{suffix}/wal")
}

/// Whether `text` may be the name of a cluster: it becomes a label value, a name and a path.
fn is_label_value(text: &str) -> bool {
    text.len() <= 63 && is_object_name(text)
}

/// Whether `text` is a DNS subdomain, as names of Secrets are.
fn is_object_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || c == '-' || c == '.')
        && !text.contains("..")
}

// === the job exists ===

fn watch(job: Option<&JobView>, progress: Option<&ProgressReport>, config: &Config, now: Timestamp) -> Plan {
    let Some(job) = job else {
        return Plan::failed(Reason::JobDeleted, "the backup job was deleted before it ended");
    };
    if let Some(Report::Succeeded(report)) = job.pod.as_ref().and_then(|pod| pod.report.clone())
        && job.end == Some(JobEnd::Complete)
    {
        return Plan::says(Verdict::Succeeded(Box::new(report)), None);
    }
    if let Some(end) = &job.end {
        let (reason, message) = cause(job, end);
        return Plan::failed(reason, message);
    }
    if job.deleting {
        return Plan::failed(Reason::JobDeleted, format!("somebody deleted job {}", job.name));
    }
    match stuck(job, config, now) {
        Some(message) => Plan::failed(Reason::JobNotStarted, message).step(Step::DeleteJob {
            name: job.name.clone(),
            uid: job.uid.clone(),
        }),
        None => Plan::says(
            Verdict::Running(progress.cloned()),
            Some(config.progress_interval),
        ),
    }
}

/// Why an ended job has no good result.
fn cause(job: &JobView, end: &JobEnd) -> (Reason, String) {
    let answer = job.pod.as_ref().and_then(|pod| pod.report.as_ref());
    if let Some(Report::Failed(failure)) = answer {
        return (Reason::Agent(failure.reason), failure.message.clone());
    }
    let terminated = job.pod.as_ref().and_then(|pod| pod.terminated.as_ref());
    match (terminated, end) {
        (Some((reason, _)), _) if reason == "OOMKilled" => (
            Reason::OutOfMemory,
            format!(
                "the pod of job {} was killed for memory; raise its limit",
                job.name
            ),
        ),
        (_, JobEnd::Failed { reason, .. }) if reason == "DeadlineExceeded" => (
            Reason::DeadlineExceeded,
            format!("job {} ran longer than it may", job.name),
        ),
        (Some((reason, code)), _) => {
            let message = format!(
                "the pod of job {} ended without an answer: {reason}, exit code {code}",
                job.name
            );
            (Reason::AgentLost, message)
        }
        (None, JobEnd::Failed { reason, message, .. }) => (
            Reason::AgentLost,
            format!("job {} failed and left no pod: {reason}: {message}", job.name),
        ),
        (None, JobEnd::Complete) => (
            Reason::AgentLost,
            format!(
                "job {} ended and its pod, which held the result, is gone",
                job.name
            ),
        ),
    }
}

/// Why the job's pod does not start, once that lasted too long.
fn stuck(job: &JobView, config: &Config, now: Timestamp) -> Option<String> {
    let Some(pod) = &job.pod else {
        return (now.duration_since(job.created) > config.start_timeout)
            .then(|| format!("job {} has had no pod for {:#}", job.name, config.start_timeout));
    };
    if pod.running || pod.terminated.is_some() {
        return None;
    }
    let age = now.duration_since(pod.created);
    match &pod.blocked {
        Some((reason, message)) if comes_not_by_itself(reason) && age > config.config_timeout => {
            Some(format!("pod {} cannot start: {reason}: {message}", pod.name))
        }
        _ if age > config.start_timeout => Some(overdue(pod, config)),
        _ => None,
    }
}

fn overdue(pod: &PodView, config: &Config) -> String {
    let limit = config.start_timeout;
    match &pod.blocked {
        Some((reason, message)) => format!(
            "pod {} did not start within {limit:#}: {reason}: {message}",
            pod.name
        ),
        None => format!("pod {} did not start within {limit:#}", pod.name),
    }
}

/// Whether waiting for this reason is in vain until somebody creates or corrects something.
fn comes_not_by_itself(reason: &str) -> bool {
    matches!(
        reason,
        "CreateContainerConfigError" | "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerError"
    )
}

// === the object is being deleted ===

fn stop(job: &JobView) -> Plan {
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

fn remove(
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
fn pause(backup: &PostgresBackup, now: Timestamp) -> SignedDuration {
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

#[cfg(test)]
mod tests;
