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

fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(schema, |schema, name| match name {
        "[]" => &schema["items"],
        name => &schema["properties"][name],
    })
}

#[test]
fn words_of_other_releases_survive() {
    let mut backup = fixture!("backup-full");
    backup["status"]["phase"] = json!("Paused");
    backup["spec"]["backupType"] = json!("incremental");
    unchanged::<Backup>(&backup);
    let backup: Backup = serde_json::from_value(backup).unwrap();
    assert_eq!(
        backup.status.unwrap().phase,
        Some(BackupPhase::Unknown("Paused".into()))
    );
    let mut restore = fixture!("restorejob-full");
    restore["status"]["phase"] = json!("Checking");
    unchanged::<RestoreJob>(&restore);
    let mut repo = fixture!("backuprepo-full");
    repo["status"]["phase"] = json!("Draining");
    unchanged::<BackupRepo>(&repo);
    let mut policy = fixture!("backuppolicy-full");
    policy["status"]["phase"] = json!("Unavailable");
    unchanged::<BackupPolicy>(&policy);
}

#[test]
fn what_is_absent_has_the_default_of_the_definition() {
    let backup: Backup = serde_json::from_value(fixture!("backup-minimal")).unwrap();
    assert_eq!(backup.spec.backup_type(), BackupType::Datafile);
    let tool: BackupTool = serde_json::from_value(fixture!("backuptool-minimal")).unwrap();
    assert_eq!(tool.spec.deploy_kind(), DeployKind::Job);
    assert_eq!(LogicalConfig::default().pod_scope(), PodRestoreScope::All);
    assert_eq!(
        PersistentVolumeClaim::default().create_policy(),
        CreatePvcPolicy::IfNotPresent
    );
    assert_eq!(BasePolicy::default().backups_history_limit(), 7);
    let secret = BackupPolicySecret::default();
    assert_eq!(
        (secret.username_key(), secret.password_key()),
        ("username", "password")
    );
}

/// A default that stands anywhere else would change objects when they are stored.
#[test]
fn the_definitions_have_upstream_s_defaults_and_no_other() {
    fn collect(schema: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(default) = schema.get("default") {
            found.push(format!("{path}={default}"));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            collect(property, &format!("{path}.{name}"), found);
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(inner) {
                collect(schema, &format!("{path}[]"), found);
            }
        }
    }
    let mut found = Vec::new();
    for crd in crds() {
        let name = crd.spec.names.plural;
        collect(&schema_of(&name), &name, &mut found);
    }
    let mut expected = vec![
        "backups.spec.backupType=\"datafile\"".to_owned(),
        "backuptools.spec.deployKind=\"job\"".to_owned(),
        "backuptools.spec.type=\"file\"".to_owned(),
        "backuptools.spec.logical.podScope=\"All\"".to_owned(),
        "backuppolicies.spec.datafile.persistentVolumeClaim.createPolicy=\"IfNotPresent\"".to_owned(),
        "backuppolicies.spec.logfile.persistentVolumeClaim.createPolicy=\"IfNotPresent\"".to_owned(),
        "restorejobs.spec.target.secret.usernameKey=\"username\"".to_owned(),
        "restorejobs.spec.target.secret.passwordKey=\"password\"".to_owned(),
    ];
    for part in ["snapshot", "datafile", "logfile"] {
        expected.push(format!("backuppolicies.spec.{part}.backupsHistoryLimit=7"));
        expected.push(format!(
            "backuppolicies.spec.{part}.target.secret.usernameKey=\"username\""
        ));
        expected.push(format!(
            "backuppolicies.spec.{part}.target.secret.passwordKey=\"password\""
        ));
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn bounds_and_patterns_are_in_the_definitions() {
    let policy = schema_of("backuppolicies");
    let minutes = at(&policy, "spec.schedule.startingDeadlineMinutes");
    assert_eq!(
        (&minutes["minimum"], &minutes["maximum"]),
        (&json!(0.0), &json!(1440.0))
    );
    assert_eq!(minutes["format"], "int64");
    assert_eq!(at(&policy, "spec.retention.ttl")["pattern"], r"^\d+[d|D|h|H]$");
    for path in [
        "backupToolName",
        "backupRepoName",
        "target.secret.name",
        "persistentVolumeClaim.storageClassName",
    ] {
        assert_eq!(
            at(&policy, &format!("spec.datafile.{path}"))["pattern"],
            NAME_PATTERN,
            "{path}"
        );
    }
    assert_eq!(at(&policy, "spec.datafile")["required"], json!(["target"]));
    assert_eq!(
        at(&policy, "spec.schedule.datafile")["required"],
        json!(["cronExpression", "enable"])
    );
    assert_eq!(
        at(&policy, "spec.snapshot.backupStatusUpdates.[]")["required"],
        json!(["updateStage"])
    );
    let repo = schema_of("backuprepos");
    assert_eq!(
        at(&repo, "spec")["required"],
        json!(["storageProviderRef", "pvReclaimPolicy"])
    );
    assert_eq!(
        at(&repo, "spec.storageProviderRef")["x-kubernetes-validations"][0]["rule"],
        "self == oldSelf"
    );
    let capacity = at(&repo, "spec.volumeCapacity");
    assert_eq!(
        (&capacity["pattern"], &capacity["x-kubernetes-int-or-string"]),
        (&json!(QUANTITY_PATTERN), &json!(true))
    );
    let restore = schema_of("restorejobs");
    assert_eq!(at(&restore, "spec.targetVolumes")["minItems"], 1);
    assert_eq!(at(&restore, "spec.targetVolumeMounts")["minItems"], 1);
    assert_eq!(at(&restore, "spec.targetVolumes.[]")["required"], json!(["name"]));
    assert_eq!(
        at(&schema_of("backuptools"), "spec")["required"],
        json!(["image", "backupCommands"])
    );
}

#[test]
fn the_definitions_are_as_upstream_has_them() {
    for (crd, (name, scope)) in crds().iter().zip([
        ("backups", "Namespaced"),
        ("backuppolicies", "Namespaced"),
        ("backuprepos", "Cluster"),
        ("backuptools", "Cluster"),
        ("restorejobs", "Namespaced"),
    ]) {
        assert_eq!(
            crd.metadata.name.as_deref(),
            Some(format!("{name}.dataprotection.kubeblocks.io").as_str())
        );
        assert_eq!(crd.spec.scope, scope, "{name}");
        assert_eq!(
            crd.spec.names.categories.as_deref(),
            Some(["kubeblocks".to_owned()].as_slice()),
            "{name}"
        );
        let version = &crd.spec.versions[0];
        assert!(
            version.subresources.as_ref().is_some_and(|s| s.status.is_some()),
            "{name}"
        );
        // kubectl apply keeps a copy of the definition in an annotation.
        let size = serde_json::to_string(crd).unwrap().len();
        assert!(size < 100_000, "{name} has {size} bytes");
    }
}
