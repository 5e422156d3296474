//! What is scraped never tells of a single object.

use std::sync::Arc;

use anyhow::Result;
use holdfast_runtime::{
    ApiError, ApiObject, Class, Fault,
    runner::{Next, Runner},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};

use crate::support::{Running, create, eventually};

#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("{0} is wrong")]
    Wrong(String),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Fault for PassError {
    fn class(&self) -> Class {
        match self {
            Self::Wrong(_) => Class::Invalid,
            Self::Api(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Wrong(_) => "Wrong",
            Self::Api(error) => error.reason(),
        }
    }
}

/// Ends differently for each object, with errors that carry its name.
async fn pass(object: Arc<ConfigMap>, client: Arc<kube::Client>) -> Result<Next, PassError> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    match name.as_str() {
        "zebra-wrong" => Err(PassError::Wrong(name)),
        "zebra-missing" => {
            let api = Api::<ConfigMap>::namespaced((*client).clone(), &namespace);
            let found = api.get("zebra-nowhere").await;
            found.map_err(|e| {
                ApiError::new(
                    "get",
                    ApiObject::named("ConfigMap", &namespace, "zebra-nowhere"),
                    e,
                )
            })?;
            Ok(Next::AwaitChange)
        }
        "zebra-panics" => unreachable!("{name}"),
        _ => Ok(Next::AwaitChange),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_never_carry_an_objects_name() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("labels").await?);
    let mut words = vec![namespace.clone(), "zebra".to_owned(), "nowhere".to_owned()];
    for name in ["zebra-good", "zebra-wrong", "zebra-missing", "zebra-panics"] {
        words.extend(create(&client, &namespace, name).await?.uid());
    }
    let line = ["--namespaces", &namespace, "--lease-namespace", &namespace];
    let running = Running::start(cp.config(), &line, |term| async move {
        Runner::<ConfigMap>::new("example", &term)
            .run(pass, Arc::new(term.client.clone()))
            .await;
        Ok(())
    })
    .await?;
    let metrics = eventually("all four passes", || async {
        let (_, text) = running.get("/metrics").await?;
        let ended = |outcome: &str, least: u32| {
            let series =
                format!("holdfast_reconciliations_total{{controller=\"example\",outcome=\"{outcome}\"}} ");
            text.lines().any(|l| {
                l.strip_prefix(&series)
                    .is_some_and(|n| n.parse().is_ok_and(|n: u32| n >= least))
            })
        };
        // kube-root-ca.crt is not made here, for no controller manager runs; a 404 on something needed is Invalid.
        let all = ended("completed", 1) && ended("invalid", 2) && ended("panicked", 1);
        Ok(all.then_some(text))
    })
    .await?;
    for word in words {
        assert!(!metrics.contains(&word), "{word} in {metrics}");
    }
    for family in [
        "holdfast_leader 1",
        "holdfast_build_info{version=\"9.9.9\"} 1",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(family), "{family} not in {metrics}");
    }
    running.stop().await
}
