use serde_json::{Value, json};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        serde_saphyr::from_str::<Value>(include_str!(concat!("../../tests/fixtures/", $name, ".yaml")))
            .unwrap()
    };
}

#[track_caller]
fn unchanged(fixture: &Value) {
    let object: StorageProvider = serde_json::from_value(fixture.clone()).unwrap();
    assert_eq!(&serde_json::to_value(object).unwrap(), fixture);
}

#[test]
fn objects_come_out_as_they_went_in() {
    unchanged(&fixture!("storageprovider-full"));
    unchanged(&fixture!("storageprovider-minimal"));
    let mut odd = fixture!("storageprovider-full");
    odd["status"]["phase"] = json!("Probing");
    unchanged(&odd);
}

#[test]
fn the_definition_is_as_upstream_has_it() {
    let crd = &crds()[0];
    assert_eq!(
        crd.metadata.name.as_deref(),
        Some("storageproviders.storage.kubeblocks.io")
    );
    assert_eq!(crd.spec.scope, "Cluster");
    assert!(
        crd.spec.versions[0]
            .subresources
            .as_ref()
            .is_some_and(|s| s.status.is_some())
    );
    let schema = serde_json::to_value(crd).unwrap()["spec"]["versions"][0]["schema"].take();
    let parameters = &schema["openAPIV3Schema"]["properties"]["spec"]["properties"]["parametersSchema"];
    assert_eq!(
        parameters["properties"]["openAPIV3Schema"]["x-kubernetes-preserve-unknown-fields"],
        true
    );
}
