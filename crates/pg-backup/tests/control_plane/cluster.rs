//! A namespace with a PostgreSQL cluster made of objects, and the hands of kubelet and job controller.

use std::time::Duration;

use futures::TryStreamExt;
use holdfast_api::alauda_v1::{PostgresBackup, PostgresBackupSpec};
use holdfast_testkit::crds::apply_crds;
use holdfast_testkit::{ControlPlane, Part, control_plane};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use pg_backup::agent::report::Report;
use pg_backup::build::job::OPERATION_LABEL;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::controller::{Controller, NAMESPACE};

/// UID of the StatefulSet that the members belong to.
pub(crate) const STATEFUL_SET_UID: &str = "5f0e0000-0000-0000-0000-000000000000";

/// How long anything may take.
const LIMIT: Duration = Duration::from_mins(1);

/// What a test has.
pub(crate) struct World {
    control_plane: &'static ControlPlane,
    /// An administrator.
    pub(crate) client: Client,
    namespace: String,
    controller: Option<Controller>,
}

/// What all tests of this binary share is installed once.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

impl World {
    /// A fresh namespace and a controller for it.
    pub(crate) async fn start(prefix: &str) -> Self {
        let control_plane = control_plane().await.expect("a control plane");
        INSTALLED.get_or_init(|| install(control_plane)).await;
        let namespace = control_plane.namespace(prefix).await.expect("a namespace");
        let controller = Some(Controller::start(control_plane, &namespace).await);
        Self {
            control_plane,
            client: control_plane.client(),
            namespace,
            controller,
        }
    }

    /// Stops the controller and starts another one.
    pub(crate) async fn restart(&mut self) {
        self.controller.take().expect("a controller").stop().await;
        self.controller = Some(Controller::start(self.control_plane, &self.namespace).await);
    }

    /// Stops the controller.
    pub(crate) async fn stop(self) {
        self.controller.expect("a controller").stop().await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Adds a ready pod of the cluster `accounts`.
    pub(crate) async fn member(&self, name: &str, role: &str) {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "accounts", "uid": STATEFUL_SET_UID, "controller": true,
        });
        let labels = json!({ "application": "spilo", "cluster-name": "accounts", "spilo-role": role });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": labels, "ownerReferences": [owner] },
            "spec": { "nodeName": "n1", "containers": [{ "name": "postgres", "image": "postgres" }] },
        });
        let status = json!({ "status": {
            "phase": "Running", "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        self.pod(pod, status).await;
    }

    async fn pod(&self, pod: serde_json::Value, status: serde_json::Value) {
        let pods: Api<Pod> = self.api();
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let name = pod.name_any();
        pods.create(&PostParams::default(), &pod)
            .await
            .expect("pod created");
        pods.patch_subresource("status", &name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .expect("status");
    }

    /// Creates a PostgresBackup.
    pub(crate) async fn create(&self, name: &str, cluster: &str) {
        let spec = PostgresBackupSpec {
            cluster: cluster.into(),
            execute_node: None,
        };
        let backup = PostgresBackup::new(name, spec);
        self.api()
            .create(&PostParams::default(), &backup)
            .await
            .expect("backup created");
    }

    /// Asks for its deletion.
    pub(crate) async fn delete(&self, name: &str) {
        self.api::<PostgresBackup>()
            .delete(name, &DeleteParams::default())
            .await
            .expect("deletion accepted");
    }

    /// Sets an annotation on it.
    pub(crate) async fn annotate(&self, name: &str, value: &str) {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { "test": value } } }));
        self.api::<PostgresBackup>()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .expect("annotated");
    }

    /// Waits until the backup is as wished.
    pub(crate) async fn until(&self, name: &str, wish: impl Fn(&PostgresBackup) -> bool) -> PostgresBackup {
        self.first(name, |backup: &PostgresBackup| wish(backup)).await
    }

    /// Waits until the backup is not there.
    pub(crate) async fn gone(&self, name: &str) {
        let backups: Api<PostgresBackup> = self.api();
        let gone =
            kube::runtime::wait::await_condition(backups, name, |b: Option<&PostgresBackup>| b.is_none());
        tokio::time::timeout(LIMIT, gone)
            .await
            .expect("gone in time")
            .expect("a watch");
    }

    /// Waits for an Event of this reason on the backup.
    pub(crate) async fn event(&self, name: &str, reason: &str) {
        let events: Api<Event> = self.api();
        let stream = watcher(events, watcher::Config::default())
            .applied_objects()
            .try_filter(|event| {
                let on = event.regarding.as_ref().and_then(|object| object.name.as_deref());
                std::future::ready(on == Some(name) && event.reason.as_deref() == Some(reason))
            });
        let found = tokio::time::timeout(LIMIT, std::pin::pin!(stream).try_next()).await;
        found
            .unwrap_or_else(|_| panic!("no Event {reason} on {name}"))
            .expect("a watch");
    }

    /// The jobs that exist.
    pub(crate) async fn jobs(&self) -> Vec<Job> {
        self.api().list(&ListParams::default()).await.expect("jobs").items
    }

    /// Waits for a job of `operation` that has not ended, and ends it with this answer of its agent.
    pub(crate) async fn end_job(&self, operation: &str, report: &Report) {
        let job = self.open_job(operation).await;
        let good = !matches!(report, Report::Failed(_));
        let name = job.name_any();
        let labels = json!({ "batch.kubernetes.io/job-name": name });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("{name}-{}", &job.uid().expect("a uid")[..5]), "labels": labels },
            "spec": { "containers": [{ "name": "agent", "image": "agent" }], "restartPolicy": "Never" },
        });
        let terminated = json!({
            "exitCode": i32::from(!good), "reason": if good { "Completed" } else { "Error" },
            "message": serde_json::to_string(report).expect("a report"),
        });
        let container = json!({
            "name": "agent", "image": "agent", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": terminated },
        });
        let phase = if good { "Succeeded" } else { "Failed" };
        self.pod(
            pod,
            json!({ "status": { "phase": phase, "containerStatuses": [container] } }),
        )
        .await;
        self.api::<Job>()
            .patch_subresource(
                "status",
                &name,
                &PatchParams::default(),
                &Patch::Merge(job_status(good)),
            )
            .await
            .expect("job ended");
    }

    /// Waits until the failed job of `operation` has been deleted, so that another one can take its place.
    pub(crate) async fn retry_of(&self, operation: &str) {
        // There is no garbage collector here to end a foreground deletion.
        let ended = self
            .first_where(|job: &Job| is(job, operation) && job.metadata.deletion_timestamp.is_some())
            .await;
        let patch = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        self.api::<Job>()
            .patch(&ended.name_any(), &PatchParams::default(), &patch)
            .await
            .expect("finalizer removed");
        let pods: Api<Pod> = self.api();
        let of_job =
            ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", ended.name_any()));
        pods.delete_collection(&DeleteParams::default().grace_period(0), &of_job)
            .await
            .expect("pods deleted");
    }

    async fn open_job(&self, operation: &str) -> Job {
        self.first_where(|job: &Job| {
            is(job, operation)
                && job.metadata.deletion_timestamp.is_none()
                && job.status.as_ref().and_then(|s| s.conditions.as_ref()).is_none()
        })
        .await
    }

    async fn first<K>(&self, name: &str, wish: impl Fn(&K) -> bool) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        self.first_where(|object: &K| object.name_any() == name && wish(object))
            .await
    }

    async fn first_where<K>(&self, wish: impl Fn(&K) -> bool) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let mut last = None;
        let stream = watcher(self.api::<K>(), watcher::Config::default()).applied_objects();
        let mut stream = std::pin::pin!(stream);
        let found = tokio::time::timeout(LIMIT, async {
            while let Some(object) = stream.try_next().await.expect("a watch") {
                if wish(&object) {
                    return object;
                }
                last = Some(object);
            }
            panic!("the watch ended")
        });
        let found = found.await.ok();
        found.unwrap_or_else(|| panic!("not seen in time; last: {last:#?}"))
    }
}

/// The status of the condition of this type.
pub(crate) fn condition(backup: &PostgresBackup, kind: &str) -> Option<String> {
    let conditions = backup.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.clone())
}

fn is(job: &Job, operation: &str) -> bool {
    job.labels().get(OPERATION_LABEL).map(String::as_str) == Some(operation)
}

fn job_status(good: bool) -> serde_json::Value {
    let now = holdfast_runtime::clock::now();
    let condition =
        |kind: &str| json!({ "type": kind, "status": "True", "reason": "Test", "lastTransitionTime": now });
    if good {
        json!({ "status": {
            "startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        }})
    } else {
        json!({ "status": {
            "startTime": now, "failed": 1, "conditions": [condition("FailureTarget"), condition("Failed")],
        }})
    }
}

/// Definition, rights and namespace of the controller, as `kubectl apply` of deploy/pg-backup brings them, and its own pod.
async fn install(control_plane: &ControlPlane) {
    apply_crds(&control_plane.client(), holdfast_api::alauda_v1::crds())
        .await
        .expect("definitions");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/pg-backup");
    let kubectl = Part::Kubectl.ensure().expect("kubectl");
    for file in ["namespace.yaml", "rbac.yaml"] {
        let applied = tokio::process::Command::new(&kubectl)
            .arg("--kubeconfig")
            .arg(control_plane.kubeconfig())
            .args(["apply", "--namespace", NAMESPACE, "--filename"])
            .arg(folder.join(file))
            .output()
            .await
            .expect("kubectl runs");
        assert!(
            applied.status.success(),
            "{}",
            String::from_utf8_lossy(&applied.stderr)
        );
    }
    let pods: Api<Pod> = Api::namespaced(control_plane.client(), NAMESPACE);
    let container = json!({
        "name": "controller", "image": "holdfast/pg-backup:dev",
        "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "pg-backup-0" }, "spec": { "containers": [container] },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod)
        .await
        .expect("the controller's pod");
}
