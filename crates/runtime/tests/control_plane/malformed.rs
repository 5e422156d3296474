//! One object that does not have the form of its kind, and the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use holdfast_runtime::{
    ApiError,
    runner::{Next, Runner},
};
use k8s_openapi::{
    api::events::v1::Event, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::support::{Running, eventually};

#[derive(CustomResource, Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[kube(group = "test.holdfast.dev", version = "v1", kind = "Lax", namespaced)]
struct LaxSpec {
    size: u32,
}

/// A definition whose schema lets anything in, as an older release of a peer may have left it behind.
fn definition() -> Result<CustomResourceDefinition> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "laxes.test.holdfast.dev"},
        "spec": {
            "group": "test.holdfast.dev",
            "scope": "Namespaced",
            "names": {"kind": "Lax", "plural": "laxes", "singular": "lax"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    }))?)
}

fn object(name: &str, size: &serde_json::Value) -> Result<DynamicObject> {
    let value = json!({"apiVersion": "test.holdfast.dev/v1", "kind": "Lax", "metadata": {"name": name}, "spec": {"size": size}});
    Ok(serde_json::from_value(value)?)
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn add(&self, text: String) {
        self.all().push(text);
    }

    fn all(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(object: Arc<Lax>, seen: Arc<Seen>) -> Result<Next, ApiError> {
    seen.add(format!("{}={}", object.name_any(), object.spec.size));
    Ok(Next::AwaitChange)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_malformed_object_does_not_stop_the_others() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("malformed").await?);
    holdfast_testkit::crds::apply_crd(&client, &definition()?).await?;
    let api =
        Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &ApiResource::erase::<Lax>(&()));
    let create = async |name: &str, size: serde_json::Value| -> Result<()> {
        api.create(&PostParams::default(), &object(name, &size)?).await?;
        Ok(())
    };
    create("bad", json!("large")).await?;
    create("good", json!(1)).await?;

    let (seen, told) = (Seen::default(), Seen::default());
    let (passes, reports) = (seen.clone(), told.clone());
    let line = ["--leader-election", "false", "--namespaces", &namespace];
    let running = Running::start(cp.config(), &line, move |term| {
        let (passes, reports) = (passes.clone(), reports.clone());
        async move {
            let runner = Runner::<Lax>::new("example", &term);
            let runner = runner.on_malformed(move |object| {
                let name = object.reference.name.clone().unwrap_or_default();
                reports.add(name);
            });
            runner.run(pass, Arc::new(passes)).await;
            Ok(())
        }
    })
    .await?;
    let until = async |pass: &str| {
        eventually(pass, || async {
            Ok(seen.all().iter().any(|s| s == pass).then_some(()))
        })
        .await
    };

    // In the first list, and again while the watch goes on.
    until("good=1").await?;
    running.until_ready().await?;
    create("later", json!(2)).await?;
    until("later=2").await?;
    running
        .until_metric("holdfast_malformed_objects_total{controller=\"example\"} 1")
        .await?;
    assert_eq!(*told.all(), ["bad"]);

    // One that was good and becomes bad is reported and reconciled no more, until it is repaired.
    let set = async |name: &str, size: serde_json::Value| -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"size": size}}));
        api.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    };
    set("good", json!(-1)).await?;
    running
        .until_metric("holdfast_malformed_objects_total{controller=\"example\"} 2")
        .await?;
    set("later", json!(3)).await?;
    until("later=3").await?;
    set("good", json!(4)).await?;
    set("bad", json!(5)).await?;
    until("good=4").await?;
    until("bad=5").await?;
    assert_eq!(*told.all(), ["bad", "good"]);
    assert!(seen.all().iter().all(|s| s != "good=-1"));

    let events = Api::<Event>::namespaced(client.clone(), &namespace);
    let event = eventually("an Event about bad", || async {
        let events = events.list(&ListParams::default()).await?;
        Ok(events.into_iter().find(|e| {
            e.regarding
                .as_ref()
                .is_some_and(|r| r.name.as_deref() == Some("bad"))
        }))
    })
    .await?;
    assert_eq!(
        (event.reason.as_deref(), event.type_.as_deref()),
        (Some("Malformed"), Some("Warning"))
    );
    let note = event.note.unwrap_or_default();
    assert!(
        note.contains("large") && note.contains("u32"),
        "says what is wrong: {note}"
    );
    running.stop().await
}
