//! PostgresBackup objects: made, awaited, and what belongs to them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_api::alauda_v1::{BackupState, PostgresBackup, PostgresBackupStatus, STORAGE_ANNOTATION};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::controller::is_owned_by;
use crate::postgres::PostgresCluster;
use crate::scenario::Scenario;
use crate::wait;

/// The Secret that the controller takes where a backup names none.
pub const DEFAULT_STORAGE: &str = "pg-backup-storage";

/// How long a backup of a few 100 MB may take on a busy machine.
pub const LIMIT: Duration = Duration::from_mins(4);

/// What to ask for beside the cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// The Secret of the storage; the controller's default when `None`.
    pub storage: Option<&'a str>,
    /// The member or node to take the backup from.
    pub execute_node: Option<&'a str>,
}

/// Creates a PostgresBackup.
pub async fn create(scenario: &Scenario, name: &str, cluster: &str, request: Request<'_>) -> Result<()> {
    let mut object = json!({
        "apiVersion": "middleware.alauda.io/v1",
        "kind": "PostgresBackup",
        "metadata": {"name": name},
        "spec": {"cluster": cluster},
    });
    if let Some(secret) = request.storage {
        object["metadata"]["annotations"][STORAGE_ANNOTATION] = secret.into();
    }
    if let Some(node) = request.execute_node {
        object["spec"]["executeNode"] = node.into();
    }
    scenario
        .apply(&object)
        .await
        .with_context(|| format!("cannot create PostgresBackup {name}"))
}

/// The API of the scenario's backups.
pub fn api(scenario: &Scenario) -> Api<PostgresBackup> {
    Api::namespaced(scenario.client(), &scenario.namespace)
}

/// The state that a backup's status tells.
pub fn state(backup: &PostgresBackup) -> BackupState {
    backup
        .status
        .as_ref()
        .and_then(|status| status.state.clone())
        .unwrap_or_default()
}

/// Waits for a state.
pub async fn reaches(
    scenario: &Scenario,
    name: &str,
    wanted: BackupState,
    limit: Duration,
) -> Result<PostgresBackup> {
    let what = format!("state {wanted:?}");
    wait::until(api(scenario), name, &what, limit, |backup| {
        state(backup) == wanted
    })
    .await
}

/// Waits for the end of a backup and demands success, with every field of the contract and conditions that agree.
pub async fn succeeds(scenario: &Scenario, name: &str) -> Result<PostgresBackup> {
    let ended =
        |backup: &PostgresBackup| matches!(state(backup), BackupState::Succeeded | BackupState::Failed);
    let backup = wait::until(api(scenario), name, "ended", LIMIT, ended).await?;
    let status = backup.status.clone().unwrap_or_default();
    ensure!(
        state(&backup) == BackupState::Succeeded,
        "{name} failed: {}",
        status.error.unwrap_or_default()
    );
    ensure!(
        status.error.is_none(),
        "a success with an error: {:?}",
        status.error
    );
    ensure!(
        condition(&backup, "Ready") == Some("True".into()),
        "Ready is {:?}",
        condition(&backup, "Ready")
    );
    for kind in ["Reconciling", "Stalled"] {
        ensure!(
            condition(&backup, kind) != Some("True".into()),
            "{kind} is True on a success"
        );
    }
    let (start, finish) = (
        status.start_lsn.context("startLsn")?,
        status.finish_lsn.context("finishLsn")?,
    );
    ensure!(
        0 < start && start < finish,
        "startLsn {start}, finishLsn {finish}"
    );
    for (field, value) in [
        ("startTime", &status.start_time),
        ("finishTime", &status.finish_time),
        ("lastModified", &status.last_modified),
        ("executeNode", &status.execute_node),
        ("clusterUid", &status.cluster_uid),
    ] {
        ensure!(
            value.as_deref().is_some_and(|text| !text.is_empty()),
            "status.{field} is empty"
        );
    }
    ensure!(
        status.observed_generation == backup.metadata.generation,
        "observedGeneration lags"
    );
    happened(scenario, &backup, "BackupSucceeded").await?;
    Ok(backup)
}

/// Demands that a success is in the bucket where Spilo and wal-g look for it, and is the version that ran.
pub async fn is_stored(
    scenario: &Scenario,
    postgres: &PostgresCluster,
    backup: &PostgresBackup,
    uid: &str,
) -> Result<()> {
    let status = backup.status.clone().unwrap_or_default();
    let (path, name) = (
        status.storage_path.unwrap_or_default(),
        status.backup_name.unwrap_or_default(),
    );
    ensure!(
        path == postgres.path(uid),
        "storagePath {path}, expected {}",
        postgres.path(uid)
    );
    ensure!(
        status.cluster_uid.as_deref() == Some(uid),
        "clusterUid {:?}, expected {uid}",
        status.cluster_uid
    );
    let version = status.pg_version.unwrap_or_default();
    ensure!(
        version.starts_with(postgres.version.major()),
        "pgVersion {version}"
    );
    let storage = status
        .config_backup_storage
        .context("configBackupStorage is empty")?;
    ensure!(
        storage.bucket == scenario.bucket.name,
        "bucket {}",
        storage.bucket
    );
    ensure!(
        storage.namespace == scenario.namespace,
        "storage in namespace {}",
        storage.namespace
    );

    let sentinel = scenario
        .bucket
        .json(&format!(
            "{path}/basebackups_005/{name}_backup_stop_sentinel.json"
        ))
        .await?;
    ensure!(
        sentinel["LSN"].as_i64() == status.start_lsn,
        "the sentinel's LSN is {}",
        sentinel["LSN"]
    );
    ensure!(
        sentinel["FinishLSN"].as_i64() == status.finish_lsn,
        "its FinishLSN is {}",
        sentinel["FinishLSN"]
    );
    let objects = scenario.bucket.list(&path).await?;
    ensure!(
        objects
            .iter()
            .any(|key| key.contains("/tar_partitions/part_001.tar.")),
        "no part: {objects:?}"
    );
    ensure!(
        objects
            .iter()
            .any(|key| key.starts_with(&format!("{path}/wal_005/"))),
        "no WAL: {objects:?}"
    );
    Ok(())
}

/// Waits for the end of a backup and demands a failure for `reason` whose error contains each of `words`.
pub async fn fails(scenario: &Scenario, name: &str, reason: &str, words: &[&str]) -> Result<PostgresBackup> {
    let ended =
        |backup: &PostgresBackup| matches!(state(backup), BackupState::Succeeded | BackupState::Failed);
    let backup = wait::until(api(scenario), name, "ended", LIMIT, ended).await?;
    ensure!(
        state(&backup) == BackupState::Failed,
        "{name} is {:?}",
        state(&backup)
    );
    let PostgresBackupStatus {
        error, finish_time, ..
    } = backup.status.clone().unwrap_or_default();
    let error = error.unwrap_or_default();
    ensure!(
        error.starts_with(reason),
        "the reason should be {reason}: {error}"
    );
    for word in words {
        ensure!(error.contains(word), "the error should name {word}: {error}");
    }
    ensure!(finish_time.is_some(), "a failure has an end, too");
    ensure!(
        condition(&backup, "Stalled") == Some("True".into()),
        "Stalled is {:?}",
        condition(&backup, "Stalled")
    );
    ensure!(
        condition(&backup, "Ready") == Some("False".into()),
        "Ready is {:?}",
        condition(&backup, "Ready")
    );
    ensure!(
        condition(&backup, "Reconciling") != Some("True".into()),
        "Reconciling is True on a failure"
    );
    let event = happened(scenario, &backup, reason).await?;
    ensure!(
        event.type_.as_deref() == Some("Warning"),
        "the Event is {:?}",
        event.type_
    );
    Ok(backup)
}

/// Status of a condition.
pub fn condition(backup: &PostgresBackup, kind: &str) -> Option<String> {
    let conditions = backup.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.clone())
}

/// Waits for an Event on the backup with this reason.
pub async fn happened(scenario: &Scenario, backup: &PostgresBackup, reason: &str) -> Result<Event> {
    let events: Api<Event> = Api::namespaced(scenario.client(), &scenario.namespace);
    let uid = backup.uid();
    wait::poll(
        &format!("an Event {reason}"),
        Duration::from_secs(20),
        async || {
            let all = events.list(&ListParams::default()).await?;
            let ours = |event: &Event| {
                event.reason.as_deref() == Some(reason)
                    && event.regarding.as_ref().is_some_and(|object| object.uid == uid)
            };
            Ok(all.items.into_iter().find(ours))
        },
    )
    .await
}

/// The jobs that work for a backup.
pub async fn jobs(scenario: &Scenario, backup: &PostgresBackup) -> Result<Vec<Job>> {
    let api: Api<Job> = Api::namespaced(scenario.client(), &scenario.namespace);
    let uid = backup.uid().unwrap_or_default();
    let all = api.list(&ListParams::default()).await?;
    Ok(all
        .items
        .into_iter()
        .filter(|job| is_owned_by(job, &uid))
        .collect())
}

/// Waits until the agent of a running backup has stored some of it, and returns how many bytes.
///
/// Asked from the agent itself, because the status is told every few seconds only.
pub async fn is_uploading(scenario: &Scenario, name: &str) -> Result<u64> {
    let backup = reaches(scenario, name, BackupState::Running, LIMIT).await?;
    let pods: Api<Pod> = Api::namespaced(scenario.client(), &scenario.namespace);
    let selector = format!(
        "pg-backup.holdfast.dev/backup-uid={}",
        backup.uid().unwrap_or_default()
    );
    wait::poll("the agent has stored something", LIMIT, async || {
        let agents = pods.list(&ListParams::default().labels(&selector)).await?;
        for pod in agents.items {
            let path = format!(
                "/api/v1/namespaces/{}/pods/{}:8080/proxy/progress",
                scenario.namespace,
                pod.name_any()
            );
            // Not there yet, or not any more.
            let Ok(text) = scenario
                .client()
                .request_text(http::Request::get(path).body(Vec::new())?)
                .await
            else {
                continue;
            };
            let progress: serde_json::Value = serde_json::from_str(&text).context("the agent's progress")?;
            let uploaded = progress["bytesUploaded"].as_u64().unwrap_or(0);
            if uploaded > 0 && progress["phase"] == "Copying" {
                return Ok(Some(uploaded));
            }
        }
        let now = api(scenario).get(name).await?;
        ensure!(
            state(&now) == BackupState::Running,
            "{name} ended before it could be interrupted: {:?}",
            state(&now)
        );
        Ok(None)
    })
    .await
}
