//! Zalando's `postgresql` object, as far as a backup looks at it.

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::json;

use crate::scenario::Scenario;

/// Creates the object `name`, and its definition where the cluster has none; returns the object's UID.
pub async fn create(scenario: &Scenario, name: &str) -> Result<String> {
    let definition: CustomResourceDefinition = serde_json::from_value(definition())?;
    let definitions: Api<CustomResourceDefinition> = Api::all(scenario.client());
    if definitions.get_opt(&definition.name_any()).await?.is_none() {
        holdfast_testkit::crds::apply_crd(&scenario.client(), &definition).await?;
    }
    scenario
        .apply(&json!({
            "apiVersion": "acid.zalan.do/v1",
            "kind": "postgresql",
            "metadata": {"name": name},
            "spec": {"teamId": "acid", "numberOfInstances": 2},
        }))
        .await?;
    let kind = GroupVersionKind::gvk("acid.zalan.do", "v1", "postgresql");
    let resource = ApiResource::from_gvk_with_plural(&kind, "postgresqls");
    let api: Api<DynamicObject> = Api::namespaced_with(scenario.client(), &scenario.namespace, &resource);
    api.get(name).await?.uid().context("a postgresql without UID")
}

fn definition() -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "postgresqls.acid.zalan.do"},
        "spec": {
            "group": "acid.zalan.do",
            "scope": "Namespaced",
            "names": {"kind": "postgresql", "listKind": "postgresqlList", "plural": "postgresqls", "singular": "postgresql"},
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}
