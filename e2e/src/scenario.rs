//! A scenario: a namespace and a bucket of its own, an account of everything should it fail, and nothing left behind.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_testkit::environment;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::bucket::Bucket;
use crate::cluster::Cluster;
use crate::{diagnostics, wait};

/// Keeps the namespaces of scenarios for a look at them when it is set.
const KEEP: &str = "HOLDFAST_KEEP";

/// Scenarios that break a part of the cluster for all hold it alone.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// What a scenario does to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It minds its own namespace.
    Shared,
    /// It stops something that all use.
    Exclusive,
}

/// Where a scenario plays.
pub struct Scenario {
    /// The cluster.
    pub cluster: Cluster,
    /// Its namespace.
    pub namespace: String,
    /// Its bucket.
    pub bucket: Bucket,
    started: Instant,
}

/// Plays a scenario in a fresh namespace. Should it fail, objects, Events and logs are printed before the namespace is deleted.
pub async fn scenario(
    name: &str,
    access: Access,
    play: impl AsyncFnOnce(&Scenario) -> Result<()>,
) -> Result<()> {
    let (_shared, _exclusive) = match access {
        Access::Shared => (Some(CLUSTER.read().await), None),
        Access::Exclusive => (None, Some(CLUSTER.write().await)),
    };
    let cluster = Cluster::connect().await?;
    let namespace = format!("e2e-{name}-{}", &random_word()[..6]);
    let bucket = Bucket::create(&namespace).await?;
    let scenario = Scenario {
        cluster,
        namespace,
        bucket,
        started: Instant::now(),
    };
    scenario.create_namespace().await?;
    // Boxed, because the futures of scenarios are large.
    let result = Box::pin(play(&scenario)).await;
    let seconds = scenario.started.elapsed().as_secs();
    match &result {
        Ok(()) => println!("{name}: passed after {seconds} s"),
        Err(error) => {
            println!("{name}: failed after {seconds} s: {error:#}");
            diagnostics::print(&scenario).await;
        }
    }
    if environment::variable(KEEP).is_none() {
        scenario
            .clean_up()
            .await
            .or_else(|error| if result.is_ok() { Err(error) } else { Ok(()) })?;
    }
    result
}

impl Scenario {
    /// A client of the cluster.
    pub fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    /// Applies an object to the namespace.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let arguments = [
            "--namespace",
            &self.namespace,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ];
        self.cluster
            .kubectl
            .run_with_input(&arguments, object.to_string().as_bytes())
            .await
            .map(drop)
    }

    /// Deletes an object of the namespace without waiting for its end.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.kubectl(&["delete", kind, name, "--wait=false"])
            .await
            .map(drop)
    }

    /// Runs kubectl in the namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster
            .kubectl
            .run(&[&["--namespace", self.namespace.as_str()], arguments].concat())
            .await
    }

    async fn create_namespace(&self) -> Result<()> {
        // Jobs of the controller must be admitted where the rules are strict.
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        self.cluster
            .kubectl
            .apply(&namespace.to_string())
            .await
            .context("cannot create the namespace")?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), &self.namespace);
        wait::until(accounts, "default", "exists", Duration::from_mins(1), |_| true)
            .await
            .map(drop)
    }

    async fn clean_up(&self) -> Result<()> {
        self.cluster
            .kubectl
            .run(&["delete", "namespace", &self.namespace, "--wait=false"])
            .await?;
        self.bucket.clear().await
    }
}

/// Sixteen random hexadecimal digits.
pub fn random_word() -> String {
    format!("{:016x}", RandomState::new().hash_one(0))
}
