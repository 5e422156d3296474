//! The job exists: whether it works, how it ended, or why it will not start.

use jiff::Timestamp;

use super::{Plan, Step, Verdict};
use crate::agent::report::{ProgressReport, Report};
use crate::config::Config;
use crate::observe::{JobEnd, JobView, PodView};
use crate::reason::Reason;

/// Follows the job that takes the backup.
pub(super) fn watch(
    job: Option<&JobView>,
    progress: Option<&ProgressReport>,
    config: &Config,
    now: Timestamp,
) -> Plan {
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
pub(super) fn cause(job: &JobView, end: &JobEnd) -> (Reason, String) {
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
pub(super) fn stuck(job: &JobView, config: &Config, now: Timestamp) -> Option<String> {
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
