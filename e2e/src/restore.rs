//! A fresh instance on a restored backup.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_api::alauda_v1::PostgresBackup;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

use crate::data::{Checksums, Server, differences};
use crate::postgres::{
    DATA_DIRECTORY, PostgresCluster, VOLUME, is_ready, pg_backup_image, pod_spec, restricted,
};
use crate::scenario::Scenario;
use crate::wait;

/// How long a restore of a few 100 MB and the recovery after it may take on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);

/// Restores `backup` into an empty directory with the agent, starts PostgreSQL on it, and compares all tables with `expected`.
///
/// Fails when the instance does not start, is still in recovery, or a table differs.
pub async fn restored_equals(
    scenario: &Scenario,
    postgres: &PostgresCluster,
    backup: &PostgresBackup,
    expected: &Checksums,
) -> Result<()> {
    let status = backup.status.clone().unwrap_or_default();
    let path = status.storage_path.context("status.storagePath is empty")?;
    let name = status.backup_name.context("status.backupName is empty")?;
    let secret = status
        .config_backup_storage
        .context("status.configBackupStorage is empty")?
        .name;
    let pod_name = format!("restored-{}", backup.metadata.name.as_deref().unwrap_or_default());

    let document = restored_pod(postgres, &pod_name, &secret, &path, &name);
    let pods: Api<Pod> = Api::namespaced(scenario.client(), &scenario.namespace);
    scenario
        .apply(&document)
        .await
        .context("cannot create the restored instance")?;
    let pod = wait::until(
        pods,
        &pod_name,
        "the restored instance is ready",
        LIMIT,
        |pod: &Pod| is_ready(pod) || restore_failed(pod).is_some(),
    )
    .await?;
    ensure!(
        is_ready(&pod),
        "the restore failed: {}",
        restore_failed(&pod).unwrap_or_default()
    );

    let server = Server {
        kubectl: &scenario.cluster.kubectl,
        namespace: &scenario.namespace,
        pod: &pod_name,
    };
    // pg_isready answers as soon as a consistent state is reached; the end of recovery follows at once on a whole backup.
    wait::poll(
        "the restored instance leaves recovery",
        Duration::from_mins(1),
        async || Ok((server.sql("postgres", "select pg_is_in_recovery()").await? == "f").then_some(())),
    )
    .await?;
    let found = server.checksums().await?;
    let differences = differences(expected, &found);
    ensure!(
        differences.is_empty(),
        "the restored tables differ:\n{}",
        differences.join("\n")
    );
    scenario.delete("pod", &pod_name).await
}

/// The words of the agent, once the restore has failed.
fn restore_failed(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_deref()?;
    let state = statuses
        .iter()
        .find(|status| status.name == "restore")?
        .state
        .as_ref()?;
    let terminated = state
        .terminated
        .as_ref()
        .filter(|terminated| terminated.exit_code != 0)?;
    Some(
        terminated
            .message
            .clone()
            .unwrap_or_else(|| format!("exit code {}", terminated.exit_code)),
    )
}

fn restored_pod(postgres: &PostgresCluster, pod: &str, secret: &str, path: &str, backup: &str) -> Value {
    let mut spec = pod_spec(&postgres.name, postgres.version);
    spec["restartPolicy"] = "Never".into();
    spec["initContainers"] = json!([{
        "name": "restore",
        "image": pg_backup_image(),
        "imagePullPolicy": "IfNotPresent",
        "args": ["agent", "restore", "--path", path, "--name", backup, "--target", DATA_DIRECTORY],
        "envFrom": [{"secretRef": {"name": secret}}],
        "resources": {"limits": {"memory": "192Mi"}},
        "securityContext": restricted(),
        "volumeMounts": [{"name": "data", "mountPath": VOLUME}, {"name": "tmp", "mountPath": "/tmp"}],
    }]);
    // Without the labels of the cluster: it is no member.
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": {"restored-from": backup}}, "spec": spec})
}
