//! The jobs that do the work: one takes a backup, one removes it from the storage.

use std::collections::BTreeMap;

use holdfast_api::alauda_v1::PostgresBackup;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodSecurityContext, PodSpec, PodTemplateSpec,
    PreferredSchedulingTerm, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use crate::agent::report::EXIT_PERMANENT;

/// Label of jobs and pods: UID of the PostgresBackup they work for.
pub const UID_LABEL: &str = "pg-backup.holdfast.dev/backup-uid";

/// Label of jobs and pods: `backup` or `delete`.
pub const OPERATION_LABEL: &str = "pg-backup.holdfast.dev/operation";

/// Name of the container in a job's pod.
pub const CONTAINER: &str = "agent";

/// Port on which the agent answers `/progress` and `/metrics`.
pub const ADMIN_PORT: u16 = 8080;

/// How often a pod is started again after a failure that may pass.
const RETRIES: i32 = 3;

/// How long a finished job is kept: long enough to read its log on the next working day.
const KEEP_FINISHED_SECONDS: i32 = 3 * 24 * 3600;

/// How long an agent may take to clean up after SIGTERM.
const GRACE_SECONDS: i64 = 60;

/// Keys of a storage Secret that reach the agent; wal-g's names. Other keys stay where they are: a Secret must not be
/// able to set arbitrary variables.
const STORAGE_KEYS: [&str; 17] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT",
    "AWS_REGION",
    "AWS_S3_FORCE_PATH_STYLE",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "WALE_S3_PREFIX",
    "WALG_COMPRESSION_METHOD",
    "WALG_NETWORK_RATE_LIMIT",
    "WALG_S3_PREFIX",
    "WALG_S3_SSE",
    "WALG_S3_SSE_KMS_ID",
    "WALG_S3_STORAGE_CLASS",
    "WALG_TAR_SIZE_THRESHOLD",
    "WALG_ZSTD_LEVEL",
    "WAL_S3_BUCKET",
];

/// Keys that reach the agent so that it refuses them: who asks for encryption, or for another storage, must not get a backup
/// without.
const REFUSED_KEYS: [&str; 11] = [
    "WALE_GPG_KEY_ID",
    "WALG_AZ_PREFIX",
    "WALG_CSE_KMS_ID",
    "WALG_ENVELOPE_PGP_KEY",
    "WALG_GPG_KEY_ID",
    "WALG_GS_PREFIX",
    "WALG_LIBSODIUM_KEY",
    "WALG_LIBSODIUM_KEY_PATH",
    "WALG_PGP_KEY",
    "WALG_PGP_KEY_PATH",
    "WALG_SSH_PREFIX",
];

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum Operation {
    /// Take the backup.
    Backup,
    /// Remove it from the storage.
    Delete,
}

/// What both jobs need to know.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// Image of the agent.
    pub image: &'a str,
    /// Secret with the access data of the storage.
    pub storage_secret: &'a str,
    /// Memory limit of the pod.
    pub memory_limit: &'a str,
    /// How long the job may take.
    pub timeout: SignedDuration,
}

/// What the backup job needs besides.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// Address of the member to read from.
    pub host: &'a str,
    /// Address of the leader, where the member may have nothing new.
    pub alternate_host: Option<&'a str>,
    /// Node of the member: the job prefers it.
    pub node: Option<&'a str>,
    /// PostgreSQL user.
    pub user: &'a str,
    /// Secret with that user's password.
    pub credentials_secret: &'a str,
    /// disable, prefer or require.
    pub ssl_mode: &'a str,
    /// Path in the bucket, without the major version, which the agent learns from the server.
    pub scope_path: &'a str,
}

/// Name of the job of `backup`: the same in every pass, so that a crash cannot lead to a second one.
pub fn name(backup: &PostgresBackup, operation: Operation) -> String {
    let uid: String = backup.uid().unwrap_or_default().chars().take(8).collect();
    let suffix = format!("-{}-{uid}", <&str>::from(operation));
    let mut stem = backup.name_any();
    // A Job's name is also a label value of its pods: 63 characters.
    stem.truncate(63 - suffix.len());
    format!("{}{suffix}", stem.trim_end_matches(['.', '-']))
}

/// The job that takes the backup.
pub fn backup(backup: &PostgresBackup, setting: &Setting<'_>, source: &Source<'_>) -> Job {
    let mut args = vec![
        "agent".to_owned(),
        "backup".to_owned(),
        format!("--host={}", source.host),
        format!("--user={}", source.user),
        format!("--ssl-mode={}", source.ssl_mode),
        format!("--scope-path={}", source.scope_path),
        format!("--owner={}", backup.uid().unwrap_or_default()),
        format!("--admin-address=0.0.0.0:{ADMIN_PORT}"),
        format!("--max-duration={}s", setting.timeout.as_secs()),
    ];
    args.extend(
        source
            .alternate_host
            .map(|host| format!("--alternate-host={host}")),
    );
    let password = secret_env("PGPASSWORD", source.credentials_secret, "password", false);
    let mut job = job(backup, Operation::Backup, setting, args, vec![password]);
    if let (Some(node), Some(spec)) = (
        source.node,
        job.spec.as_mut().and_then(|s| s.template.spec.as_mut()),
    ) {
        spec.affinity = Some(prefer_node(node));
    }
    job
}

/// The job that removes the backup `name` below `path` from the storage.
pub fn delete(backup: &PostgresBackup, setting: &Setting<'_>, path: &str, name: &str) -> Job {
    let args = vec![
        "agent".to_owned(),
        "delete".to_owned(),
        format!("--path={path}"),
        format!("--name={name}"),
        format!("--owner={}", backup.uid().unwrap_or_default()),
        // The controller tries again and says so meanwhile; the agent need not wait long.
        "--storage-patience=30s".to_owned(),
    ];
    job(backup, Operation::Delete, setting, args, Vec::new())
}

fn job(
    backup: &PostgresBackup,
    operation: Operation,
    setting: &Setting<'_>,
    args: Vec<String>,
    env: Vec<EnvVar>,
) -> Job {
    let labels = labels(backup, operation);
    Job {
        metadata: ObjectMeta {
            name: Some(name(backup, operation)),
            namespace: backup.namespace(),
            labels: Some(labels.clone()),
            owner_references: Some(owner(backup).into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some(setting.timeout.as_secs()),
            backoff_limit: Some(if operation == Operation::Backup {
                RETRIES
            } else {
                0
            }),
            pod_failure_policy: Some(failure_policy()),
            ttl_seconds_after_finished: Some(KEEP_FINISHED_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(setting, args, env)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn pod(setting: &Setting<'_>, args: Vec<String>, mut env: Vec<EnvVar>) -> PodSpec {
    let keys = STORAGE_KEYS.into_iter().chain(REFUSED_KEYS);
    env.extend(keys.map(|key| secret_env(key, setting.storage_secret, key, true)));
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(65532),
            run_as_group: Some(65532),
            fs_group: Some(65532),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(setting.image.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            args: Some(args),
            env: Some(env),
            ports: Some(vec![ContainerPort {
                name: Some("metrics".to_owned()),
                container_port: i32::from(ADMIN_PORT),
                ..ContainerPort::default()
            }]),
            resources: Some(resources(setting.memory_limit)),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities {
                    drop: Some(vec!["ALL".to_owned()]),
                    add: None,
                }),
                ..SecurityContext::default()
            }),
            termination_message_policy: Some("File".to_owned()),
            volume_mounts: Some(vec![VolumeMount {
                name: "tmp".to_owned(),
                mount_path: "/tmp".to_owned(),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        }],
        volumes: Some(vec![Volume {
            name: "tmp".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("16Mi".to_owned())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

/// What cannot pass ends the job at once; a pod that was evicted does not count as a failure.
fn failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: vec![i32::from(EXIT_PERMANENT)],
                }),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: Some("True".to_owned()),
                }]),
            },
        ],
    }
}

fn resources(memory_limit: &str) -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Quantity((*value).to_owned())))
            .collect()
    };
    ResourceRequirements {
        requests: Some(quantities(&[("cpu", "100m"), ("memory", "96Mi")])),
        limits: Some(quantities(&[("memory", memory_limit)])),
        ..ResourceRequirements::default()
    }
}

fn prefer_node(node: &str) -> Affinity {
    Affinity {
        node_affinity: Some(NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![PreferredSchedulingTerm {
                weight: 100,
                preference: NodeSelectorTerm {
                    match_fields: Some(vec![NodeSelectorRequirement {
                        key: "metadata.name".to_owned(),
                        operator: "In".to_owned(),
                        values: Some(vec![node.to_owned()]),
                    }]),
                    match_expressions: None,
                },
            }]),
            required_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}

fn labels(backup: &PostgresBackup, operation: Operation) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "pg-backup-agent".to_owned()),
        (
            "app.kubernetes.io/managed-by".to_owned(),
            "holdfast-pg-backup".to_owned(),
        ),
        (UID_LABEL.to_owned(), backup.uid().unwrap_or_default()),
        (OPERATION_LABEL.to_owned(), <&str>::from(operation).to_owned()),
    ])
}

fn owner(backup: &PostgresBackup) -> Option<OwnerReference> {
    // Blocking the owner's deletion would need a right on its finalizers and brings nothing: our finalizer waits anyway.
    backup.controller_owner_ref(&()).map(|owner| OwnerReference {
        block_owner_deletion: None,
        ..owner
    })
}

fn secret_env(variable: &str, secret: &str, key: &str, optional: bool) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: key.to_owned(),
                optional: Some(optional),
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    }
}
