use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        serde_saphyr::from_str::<Value>(include_str!(concat!("../../tests/fixtures/", $name, ".yaml")))
            .unwrap()
    };
}

#[track_caller]
fn unchanged<K: DeserializeOwned + Serialize>(fixture: &Value) {
    let object: K = serde_json::from_value(fixture.clone()).unwrap();
    assert_eq!(&serde_json::to_value(object).unwrap(), fixture);
}

fn schema_of(name: &str) -> Value {
    let crd = crds()
        .into_iter()
        .find(|crd| crd.spec.names.plural == name)
        .unwrap();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap()).unwrap()["openAPIV3Schema"].clone()
}

#[test]
fn the_keys_are_those_that_go_writes() {
    let schema = schema_of("pgclusters");
    let fields: Vec<_> = schema["properties"]["spec"]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    for key in [
        "PrimaryStorage",
        "ArchiveStorage",
        "ReplicaStorage",
        "BackrestStorage",
        "ContainerResources",
        "podPodAntiAffinity",
        "collectSecretName",
        "syncReplication",
        "backrestS3Bucket",
        "backrestS3Region",
        "backrestS3Endpoint",
    ] {
        assert!(fields.iter().any(|field| *field == key), "{key} is missing");
    }
    assert_eq!(fields.len(), 34);
    let storage = &schema["properties"]["spec"]["properties"]["PrimaryStorage"]["properties"];
    assert_eq!(storage.as_object().unwrap().len(), 8);
    assert!(storage.get("matchLabels").is_some());
    let replica = schema_of("pgreplicas");
    assert!(
        replica["properties"]["spec"]["properties"]
            .get("replicastorage")
            .is_some()
    );
}

#[test]
fn lower_case_keys_are_read_as_go_reads_them() {
    let cluster: Pgcluster = serde_json::from_value(json!({
        "apiVersion": "crunchydata.com/v1", "kind": "Pgcluster", "metadata": {"name": "hippo"},
        "spec": {"primarystorage": {"size": "1Gi", "matchlabels": "a=b"}, "podpodantiaffinity": "disabled"},
    }))
    .unwrap();
    let storage = cluster.spec.primary_storage.unwrap();
    assert_eq!(
        (storage.size.as_deref(), storage.match_labels.as_deref()),
        (Some("1Gi"), Some("a=b"))
    );
    assert_eq!(
        cluster.spec.pod_anti_affinity,
        Some(PodAntiAffinityType::Disabled)
    );
}

/// Go writes null for a map that was never made.
#[test]
fn nulls_of_the_go_client_are_read_as_nothing() {
    let cluster: Pgcluster = serde_json::from_value(json!({
        "apiVersion": "crunchydata.com/v1", "kind": "Pgcluster", "metadata": {"name": "hippo"},
        "spec": {"userlabels": null, "syncReplication": null},
    }))
    .unwrap();
    assert_eq!(
        (cluster.spec.userlabels, cluster.spec.sync_replication),
        (None, None)
    );
}

#[test]
fn words_of_other_releases_survive() {
    let mut task = fixture!("pgtask-full");
    task["status"]["state"] = json!("pgtask Paused");
    task["spec"]["tasktype"] = json!("rollingupgrade");
    task["spec"]["status"] = json!("job submitted [backup-hippo-abcd]");
    unchanged::<Pgtask>(&task);
    let mut cluster = fixture!("pgcluster-full");
    cluster["status"]["state"] = json!("pgcluster Bootstrapping");
    cluster["spec"]["podPodAntiAffinity"] = json!("soft");
    unchanged::<Pgcluster>(&cluster);
    let task: Pgtask = serde_json::from_value(task).unwrap();
    assert_eq!(
        task.spec.tasktype,
        Some(TaskType::Unknown("rollingupgrade".into()))
    );
}

#[test]
fn the_definitions_are_as_upstream_has_them() {
    let names: Vec<_> = crds()
        .iter()
        .map(|crd| crd.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(
        names,
        ["pgclusters", "pgreplicas", "pgpolicies", "pgtasks", "pgbackups"]
            .map(|n| format!("{n}.crunchydata.com"))
    );
    for crd in crds() {
        let name = &crd.spec.names.plural;
        assert_eq!(crd.spec.scope, "Namespaced", "{name}");
        let version = &crd.spec.versions[0];
        assert!(
            version.subresources.as_ref().is_none_or(|s| s.status.is_none()),
            "{name} has a status subresource"
        );
        let schema = schema_of(name);
        for part in ["spec", "status"] {
            assert_eq!(
                schema["properties"][part]["x-kubernetes-preserve-unknown-fields"], true,
                "{name}.{part}"
            );
        }
        assert_eq!(schema["required"], json!(["spec"]), "{name}");
        assert!(
            schema["properties"]["status"]["properties"]["state"]
                .get("enum")
                .is_none(),
            "{name}"
        );
    }
}
