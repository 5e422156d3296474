//! Nothing has started yet: whether the backup can, where, and with which storage.

use holdfast_api::alauda_v1::{PostgresBackup, STORAGE_ANNOTATION};
use jiff::Timestamp;
use kube::ResourceExt;

use super::{LOOK_AGAIN, Plan, Step, Verdict};
use crate::build::job::{self, Setting, Source};
use crate::config::Config;
use crate::member;
use crate::observe::{Member, New};
use crate::reason::Reason;

pub(super) fn start(
    backup: &PostgresBackup,
    seen: &New,
    config: &Config,
    image: &str,
    now: Timestamp,
) -> Plan {
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
fn scope_path(cluster: &str, cluster_uid: &str, member: &Member) -> String {
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
