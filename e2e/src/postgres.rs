//! A PostgreSQL cluster as Zalando's operator leaves it: labels, Secrets, roles, streaming replication.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::data::Server;
use crate::scenario::random_word;
use crate::wait;

/// User and group of the PostgreSQL images, as in Spilo's.
const USER: (i64, i64) = (101, 103);

/// Where the images keep their data: the volume, and the directory in it.
pub(crate) const VOLUME: &str = "/home/postgres/pgdata";
pub(crate) const DATA_DIRECTORY: &str = "/home/postgres/pgdata/pgroot/data";

/// Pod number 0 is the leader, the others follow it. Patroni would find out.
const START: &str = r#"
case $HOSTNAME in *-0) ;; *) export PRIMARY_HOST="$CLUSTER-0.$CLUSTER" ;; esac
exec entrypoint.sh "$@""#;

/// How long a cluster may take to serve on a busy machine of two cores.
const START_LIMIT: Duration = Duration::from_mins(3);

/// The versions that there are images of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 17.
    V17,
}

impl Version {
    /// The major version as it stands in paths.
    pub fn major(self) -> &'static str {
        match self {
            Self::V15 => "15",
            Self::V17 => "17",
        }
    }

    /// The image.
    pub fn image(self) -> String {
        image("postgres", self.major())
    }
}

/// The name of an image of this workspace, in the registry of a given cluster or as the local node knows it.
pub fn image(name: &str, tag: &str) -> String {
    use holdfast_testkit::environment::{KUBECONFIG, REGISTRY, variable};
    match variable(KUBECONFIG).and(variable(REGISTRY)) {
        Some(registry) => format!("{}/{name}:{tag}", registry.trim_end_matches('/')),
        None => format!("holdfast/{name}:{tag}"),
    }
}

/// The image of the controller and its agent.
pub fn pg_backup_image() -> String {
    image("pg-backup", "dev")
}

/// A running PostgreSQL cluster.
pub struct PostgresCluster {
    cluster: Cluster,
    namespace: String,
    /// Its name, the value of the label `cluster-name`.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// UID of the StatefulSet.
    pub uid: String,
    members: usize,
}

impl PostgresCluster {
    /// Starts a cluster of one or two members and waits until it serves: the leader, and a replica that streams from it.
    pub async fn start(
        cluster: &Cluster,
        namespace: &str,
        name: &str,
        version: Version,
        members: usize,
    ) -> Result<Self> {
        let documents = [
            secret(name, "postgres", &random_word()),
            secret(name, "standby", &random_word()),
            service(name),
            stateful_set(name, version, members),
        ];
        let documents = documents.map(|document| document.to_string()).join("\n---\n");
        let arguments = ["--namespace", namespace, "apply", "--server-side", "-f", "-"];
        cluster
            .kubectl
            .run_with_input(&arguments, documents.as_bytes())
            .await
            .context("cannot create PostgreSQL")?;

        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        for number in 0..members {
            let pod = format!("{name}-{number}");
            wait::until(pods.clone(), &pod, "ready", START_LIMIT, is_ready).await?;
            // Patroni's work.
            let role = if number == 0 { "master" } else { "replica" };
            let labels = json!({"metadata": {"labels": {"spilo-role": role}}});
            pods.patch(&pod, &PatchParams::default(), &Patch::Merge(labels))
                .await?;
        }
        let sets: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), namespace);
        let uid = sets.get(name).await?.uid().context("a StatefulSet without UID")?;
        let this = Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version,
            uid,
            members,
        };
        Ok(this)
    }

    /// Name of the leader's pod.
    pub fn leader(&self) -> String {
        format!("{}-0", self.name)
    }

    /// Name of the replica's pod, should there be one.
    pub fn replica(&self) -> String {
        format!("{}-1", self.name)
    }

    /// Runs `work` with the leader's server.
    pub async fn on_leader<T>(&self, work: impl AsyncFnOnce(Server<'_>) -> Result<T>) -> Result<T> {
        let pod = self.leader();
        work(Server {
            kubectl: &self.cluster.kubectl,
            namespace: &self.namespace,
            pod: &pod,
        })
        .await
    }

    /// Waits until the replica has replayed all that the leader has written.
    pub async fn caught_up(&self) -> Result<()> {
        if self.members < 2 {
            return Ok(());
        }
        let position = self
            .on_leader(async |leader| leader.sql("postgres", "select pg_current_wal_lsn()").await)
            .await?;
        let pod = self.replica();
        let replica = Server {
            kubectl: &self.cluster.kubectl,
            namespace: &self.namespace,
            pod: &pod,
        };
        let query = format!("select pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        wait::poll(
            "the replica has replayed everything",
            Duration::from_mins(1),
            async || Ok((replica.sql("postgres", &query).await? == "t").then_some(())),
        )
        .await
    }

    /// Path of this cluster's backups in the bucket, as Spilo makes it.
    pub fn path(&self, uid: &str) -> String {
        format!("spilo/{}/{uid}/wal/{}", self.name, self.version.major())
    }
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The name that Zalando's operator gives the Secret of a user.
pub fn credentials(cluster: &str, user: &str) -> String {
    format!("{user}.{cluster}.credentials.postgresql.acid.zalan.do")
}

/// The Secret of a user.
pub fn secret(cluster: &str, user: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": credentials(cluster, user), "labels": labels(cluster)},
        "stringData": {"username": user, "password": password},
    })
}

fn labels(cluster: &str) -> Value {
    json!({"application": "spilo", "cluster-name": cluster})
}

fn service(cluster: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": cluster},
        "spec": {
            "clusterIP": "None",
            // A replica looks for the leader before either is ready.
            "publishNotReadyAddresses": true,
            "selector": labels(cluster),
            "ports": [{"name": "postgresql", "port": 5432}],
        },
    })
}

fn stateful_set(cluster: &str, version: Version, members: usize) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": cluster, "labels": labels(cluster)},
        "spec": {
            "replicas": members,
            "serviceName": cluster,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels(cluster)},
            "template": {"metadata": {"labels": labels(cluster)}, "spec": pod_spec(cluster, version)},
        },
    })
}

/// The pod of a member. A restored instance is the same with an init container that fills the volume `data`.
pub(crate) fn pod_spec(cluster: &str, version: Version) -> Value {
    let password =
        |user: &str| json!({"secretKeyRef": {"name": credentials(cluster, user), "key": "password"}});
    json!({
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER.0,
            "runAsGroup": USER.1,
            "fsGroup": USER.1,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "postgres",
            "image": version.image(),
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", START, "start"],
            // The data are not worth a disk's flush.
            "args": ["-c", "shared_buffers=32MB", "-c", "max_wal_size=2GB", "-c", "fsync=off"],
            "env": [
                {"name": "CLUSTER", "value": cluster},
                {"name": "POSTGRES_PASSWORD", "valueFrom": password("postgres")},
                {"name": "STANDBY_PASSWORD", "valueFrom": password("standby")},
            ],
            "ports": [{"containerPort": 5432}],
            "readinessProbe": {
                "exec": {"command": ["pg_isready", "--quiet", "--host=127.0.0.1"]},
                "periodSeconds": 1,
                "timeoutSeconds": 5,
            },
            "securityContext": restricted(),
            "volumeMounts": [
                {"name": "data", "mountPath": VOLUME},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    })
}

/// What the Pod Security Standard `restricted` asks of a container.
pub(crate) fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}
