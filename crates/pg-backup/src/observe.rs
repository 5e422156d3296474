//! What a pass looks at: reads from the API server and from the agent, turned into plain data. Nothing is decided here.

use std::time::Duration;

use holdfast_api::alauda_v1::{BackupState, PostgresBackup};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt};

use crate::agent::report::{ProgressReport, Report};
use crate::build::job::{self, ADMIN_PORT, CONTAINER, Operation};
use crate::config::Config;
use crate::error::{Error, call};
use crate::progress;

/// How long the agent may take to say how far it is; its answer is welcome, not needed.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(2);

/// What was seen, for the stage the object is in.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one value lives for the time of a pass")]
pub enum Observed {
    /// A terminal object: nothing was read.
    Settled,
    /// Nothing started yet.
    New(New),
    /// The backup job should exist.
    Running {
        /// The job, if it is there.
        job: Option<JobView>,
        /// How far its agent says it is.
        progress: Option<ProgressReport>,
    },
    /// The object is being deleted.
    Deleting {
        /// The job that takes the backup, if it is still there.
        backup: Option<JobView>,
        /// The job that removes it from the storage, if it is there.
        delete: Option<JobView>,
        /// Whether the namespace goes away, so that no job can be created in it.
        namespace_terminating: bool,
    },
}

/// What decides whether and where a backup starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct New {
    /// The pods of the cluster.
    pub members: Vec<Member>,
    /// UID of the cluster's own object, or of the StatefulSet of its pods.
    pub cluster_uid: Option<String>,
    /// Another backup of the same cluster that is running, or came first.
    pub predecessor: Option<String>,
    /// The job, if a pass created it and ended before it could say so.
    pub job: Option<JobView>,
}

/// One pod of a PostgreSQL cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// Name of the pod.
    pub pod: String,
    /// Node it runs on.
    pub node: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Whether it is the leader of the cluster.
    pub leader: bool,
    /// Whether it serves.
    pub ready: bool,
    /// Spilo's WAL_BUCKET_SCOPE_PREFIX, where the pod has it.
    pub scope_prefix: Option<String>,
    /// Spilo's WAL_BUCKET_SCOPE_SUFFIX, where the pod has it.
    pub scope_suffix: Option<String>,
}

/// A job and the newest of its pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobView {
    /// Name of the job.
    pub name: String,
    /// UID of the job.
    pub uid: String,
    /// Whether this PostgresBackup owns it.
    pub ours: bool,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// How it ended, once it has.
    pub end: Option<JobEnd>,
    /// The newest pod.
    pub pod: Option<PodView>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEnd {
    /// Its pod succeeded.
    Complete,
    /// It failed for good.
    Failed {
        /// The job controller's reason, e.g. `BackoffLimitExceeded`.
        reason: String,
        /// Its explanation.
        message: String,
        /// When.
        at: Option<Timestamp>,
    },
}

/// The pod of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// Name of the pod.
    pub name: String,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// When it was created.
    pub created: Timestamp,
    /// Whether the agent runs.
    pub running: bool,
    /// Why it does not start: reason and message of the scheduler or of the kubelet.
    pub blocked: Option<(String, String)>,
    /// What the agent answered.
    pub report: Option<Report>,
    /// Reason and exit code with which the container ended, e.g. `OOMKilled` and 137.
    pub terminated: Option<(String, i32)>,
}

/// Reads what the stage of `backup` needs.
pub async fn observe(client: &Client, config: &Config, backup: &PostgresBackup) -> Result<Observed, Error> {
    if backup.metadata.deletion_timestamp.is_some() {
        return deleting(client, backup).await;
    }
    match stage(backup) {
        BackupState::Accepted => Ok(Observed::New(new(client, config, backup).await?)),
        BackupState::Running => {
            let job = job_view(client, backup, Operation::Backup).await?;
            let progress = match running_address(job.as_ref()) {
                Some(address) => progress::read(&address, ADMIN_PORT, PROGRESS_DEADLINE).await,
                None => None,
            };
            Ok(Observed::Running { job, progress })
        }
        _ => Ok(Observed::Settled),
    }
}

/// The state that the status tells, the first one where it tells none.
pub fn stage(backup: &PostgresBackup) -> BackupState {
    backup
        .status
        .as_ref()
        .and_then(|status| status.state.clone())
        .unwrap_or_default()
}

async fn deleting(client: &Client, backup: &PostgresBackup) -> Result<Observed, Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let name = backup.namespace().unwrap_or_default();
    let namespace = call("get", "Namespace", "", &name, namespaces.get_opt(&name)).await?;
    Ok(Observed::Deleting {
        backup: job_view(client, backup, Operation::Backup).await?,
        delete: job_view(client, backup, Operation::Delete).await?,
        namespace_terminating: namespace.is_none_or(|n| n.metadata.deletion_timestamp.is_some()),
    })
}

async fn new(client: &Client, config: &Config, backup: &PostgresBackup) -> Result<New, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let cluster = &backup.spec.cluster;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let selector = ListParams::default().labels(&config.selector(cluster));
    let pods = call(
        "list",
        "Pods of cluster",
        &namespace,
        cluster,
        pods.list(&selector),
    )
    .await?
    .items;
    let cluster_uid = match postgresql_uid(client, &namespace, cluster).await? {
        Some(uid) => Some(uid),
        None => pods.iter().find_map(stateful_set_uid),
    };
    let backups: Api<PostgresBackup> = Api::namespaced(client.clone(), &namespace);
    let backups = call(
        "list",
        "PostgresBackups of cluster",
        &namespace,
        cluster,
        backups.list(&ListParams::default()),
    )
    .await?
    .items;
    Ok(New {
        members: pods.iter().map(|pod| member(pod, &config.role_label)).collect(),
        cluster_uid,
        predecessor: predecessor(backup, &backups),
        job: job_view(client, backup, Operation::Backup).await?,
    })
}

/// The backup of the same cluster that must end before `backup` may start, if there is one.
///
/// Two backups at once from one replica would get the same name, which is that of a WAL segment, and mix their parts.
fn predecessor(backup: &PostgresBackup, all: &[PostgresBackup]) -> Option<String> {
    let order = |b: &PostgresBackup| (b.metadata.creation_timestamp.clone(), b.name_any());
    all.iter()
        .filter(|other| other.uid() != backup.uid() && other.spec.cluster == backup.spec.cluster)
        .filter(|other| match stage(other) {
            BackupState::Running => true,
            BackupState::Accepted => {
                order(other) < order(backup) && other.metadata.deletion_timestamp.is_none()
            }
            _ => false,
        })
        .map(ResourceExt::name_any)
        .min()
}

/// UID of Zalando's `postgresql` object; `None` where there is none, or no such API.
async fn postgresql_uid(client: &Client, namespace: &str, cluster: &str) -> Result<Option<String>, Error> {
    let kind = GroupVersionKind::gvk("acid.zalan.do", "v1", "postgresql");
    let resource = ApiResource::from_gvk_with_plural(&kind, "postgresqls");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    match call("get", "postgresql", namespace, cluster, api.get(cluster)).await {
        Ok(object) => Ok(object.uid()),
        // Not get_opt: where the group is not installed, the answer is a 404 that says nothing of an object.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn stateful_set_uid(pod: &Pod) -> Option<String> {
    pod.owner_references()
        .iter()
        .find(|owner| owner.kind == "StatefulSet")
        .map(|owner| owner.uid.clone())
}

fn member(pod: &Pod, role_label: &str) -> Member {
    let status = pod.status.as_ref();
    let condition = |name: &str| {
        let conditions = status.and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == name && c.status == "True")
    };
    let env = |name: &str| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers
            .flat_map(|c| c.env.iter().flatten())
            .find(|e| e.name == name)
            .and_then(|e| e.value.clone())
    };
    let role = pod.labels().get(role_label).map(String::as_str);
    Member {
        pod: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        address: status.and_then(|s| s.pod_ip.clone()),
        // Patroni called the leader `master` until 4.0, and `primary` since; of a standby cluster it is `standby_leader`.
        leader: matches!(role, Some("master" | "primary" | "standby_leader")),
        ready: condition("Ready") && pod.metadata.deletion_timestamp.is_none(),
        scope_prefix: env("WAL_BUCKET_SCOPE_PREFIX"),
        scope_suffix: env("WAL_BUCKET_SCOPE_SUFFIX"),
    }
}

async fn job_view(
    client: &Client,
    backup: &PostgresBackup,
    operation: Operation,
) -> Result<Option<JobView>, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let name = job::name(backup, operation);
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let Some(job) = call("get", "Job", &namespace, &name, jobs.get_opt(&name)).await? else {
        return Ok(None);
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    let pods = call("list", "Pods of job", &namespace, &name, pods.list(&selector))
        .await?
        .items;
    Ok(Some(view(backup, &job, &pods)))
}

fn view(backup: &PostgresBackup, job: &Job, pods: &[Pod]) -> JobView {
    let uid = backup.uid();
    let newest = pods
        .iter()
        .max_by_key(|pod| pod.metadata.creation_timestamp.clone());
    JobView {
        name: job.name_any(),
        uid: job.uid().unwrap_or_default(),
        ours: job
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == uid.as_ref()),
        created: created(job.metadata.creation_timestamp.as_ref()),
        deleting: job.metadata.deletion_timestamp.is_some(),
        end: job_end(job),
        pod: newest.map(pod_view),
    }
}

fn created(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Timestamp {
    time.map_or(Timestamp::MIN, |time| time.0)
}

fn job_end(job: &Job) -> Option<JobEnd> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .filter(|c| c.status == "True")
        .find_map(|condition| match condition.type_.as_str() {
            "Complete" => Some(JobEnd::Complete),
            "Failed" => Some(JobEnd::Failed {
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
                at: condition.last_transition_time.as_ref().map(|time| time.0),
            }),
            _ => None,
        })
}

fn pod_view(pod: &Pod) -> PodView {
    let status = pod.status.clone().unwrap_or_default();
    let container = status
        .container_statuses
        .iter()
        .flatten()
        .find(|c| c.name == CONTAINER);
    let state = container.and_then(|c| c.state.as_ref());
    let waiting = state.and_then(|s| s.waiting.as_ref());
    let terminated = state.and_then(|s| s.terminated.as_ref());
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .map(|c| {
            (
                c.reason.clone().unwrap_or_default(),
                c.message.clone().unwrap_or_default(),
            )
        });
    PodView {
        name: pod.name_any(),
        address: status.pod_ip.clone(),
        created: created(pod.metadata.creation_timestamp.as_ref()),
        running: state.is_some_and(|s| s.running.is_some()),
        blocked: waiting
            .filter(|w| {
                w.reason
                    .as_deref()
                    .is_some_and(|r| r != "ContainerCreating" && r != "PodInitializing")
            })
            .map(|w| {
                (
                    w.reason.clone().unwrap_or_default(),
                    w.message.clone().unwrap_or_default(),
                )
            })
            .or(unscheduled),
        report: terminated
            .and_then(|t| t.message.as_deref())
            .and_then(|text| serde_json::from_str(text).ok()),
        terminated: terminated.map(|t| (t.reason.clone().unwrap_or_default(), t.exit_code)),
    }
}

fn running_address(job: Option<&JobView>) -> Option<String> {
    let pod = job?.pod.as_ref()?;
    pod.address.clone().filter(|_| pod.running)
}
