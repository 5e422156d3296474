//! The controller under test, as its administrator sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};

use crate::cluster::Cluster;
use crate::wait;

/// Where `deploy/` puts the controllers.
pub const NAMESPACE: &str = "holdfast-system";

const NAME: &str = "pg-backup";

/// The deployed pg-backup.
pub struct Controller<'a> {
    cluster: &'a Cluster,
}

impl<'a> Controller<'a> {
    /// Looks for it in the namespace of deploy/pg-backup.
    pub fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }

    /// Names of its pods.
    pub async fn pods(&self) -> Result<Vec<String>> {
        let selector = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
        let pods = self
            .api()
            .list(&selector)
            .await
            .context("cannot list the controller's pods")?;
        ensure!(
            !pods.items.is_empty(),
            "no pod of {NAME} in {NAMESPACE}: run `cargo xtask deploy {NAME}`"
        );
        Ok(pods.items.iter().map(kube::ResourceExt::name_any).collect())
    }

    /// Deletes all pods at once, as a lost node would, and returns when the Deployment has replaced them.
    pub async fn restart(&self) -> Result<()> {
        let old = self.pods().await?;
        for pod in &old {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            self.api()
                .delete(pod, &now)
                .await
                .with_context(|| format!("cannot delete {pod}"))?;
        }
        for pod in &old {
            wait::until_gone(self.api(), pod, Duration::from_mins(1)).await?;
        }
        self.ready(Duration::from_mins(2)).await
    }

    /// Waits until all replicas are ready.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        wait::until(
            deployments,
            NAME,
            "all replicas ready",
            limit,
            |deployment: &Deployment| {
                let wanted = deployment
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.replicas)
                    .unwrap_or(1);
                let status = deployment.status.clone().unwrap_or_default();
                status.observed_generation == deployment.metadata.generation
                    && status.ready_replicas == Some(wanted)
                    && status.updated_replicas == Some(wanted)
                    && status.replicas == Some(wanted)
            },
        )
        .await
        .map(drop)
    }

    /// Scrapes a pod through the API server.
    pub async fn metrics(&self, pod: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new())?;
        self.cluster
            .client
            .request_text(request)
            .await
            .with_context(|| format!("cannot scrape {pod}"))
    }

    /// Resident memory of each pod now, in bytes, from its own metrics.
    pub async fn resident_memory(&self) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for pod in self.pods().await? {
            let text = self.metrics(&pod).await?;
            let bytes = sample(&text, "process_resident_memory_bytes")
                .with_context(|| format!("{pod} exports no process_resident_memory_bytes"))?;
            all.insert(pod, bytes);
        }
        Ok(all)
    }

    /// The last lines of each pod's log.
    pub async fn log(&self, lines: u32) -> Result<String> {
        let mut logs = Vec::new();
        for pod in self.pods().await? {
            let tail = format!("--tail={lines}");
            let log = self
                .cluster
                .kubectl
                .run(&["--namespace", NAMESPACE, "logs", &pod, &tail])
                .await?;
            logs.push(format!("--- {pod}\n{log}"));
        }
        Ok(logs.concat())
    }
}

/// The value of a metric without labels.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of bytes"
)]
pub fn sample(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse::<f64>().ok().map(|value| value as u64)
}

/// Name of the pod that leads, by its own word.
pub async fn leader(controller: &Controller<'_>) -> Result<Option<String>> {
    for pod in controller.pods().await? {
        if sample(&controller.metrics(&pod).await?, "holdfast_leader") == Some(1) {
            return Ok(Some(pod));
        }
    }
    Ok(None)
}

/// Whether `object` is owned by something with this UID.
pub fn is_owned_by<K: kube::Resource>(object: &K, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn a_metric_is_read_in_either_notation() {
        let text = "# TYPE a gauge\na_total 3\na 1.5e+07\nb{x=\"y\"} 2\n";
        assert_eq!(sample(text, "a"), Some(15_000_000));
        assert_eq!(sample(text, "b"), None);
        assert_eq!(sample(text, "c"), None);
    }
}
