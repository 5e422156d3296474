//! The control plane itself, on the real programs.

use std::{path::Path, process::Command, time::Duration};

use holdfast_testkit::{ControlPlane, control_plane, crds, local, process};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::json;

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn tests_share_one_server_and_have_namespaces_of_their_own() {
    let control_plane = control_plane().await.unwrap();
    let (one, other) = (
        control_plane.namespace("share").await.unwrap(),
        control_plane.namespace("share").await.unwrap(),
    );
    assert_ne!(one, other);
    let api: Api<ConfigMap> = Api::namespaced(control_plane.client(), &one);
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    let api: Api<ConfigMap> = Api::namespaced(control_plane.client(), &other);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

/// A second runtime in the same binary: a client of the first test's runtime would hang here.
#[test]
fn a_later_runtime_gets_the_same_server() {
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let control_plane: &ControlPlane = control_plane().await.unwrap();
            let version = control_plane.client().apiserver_version().await.unwrap();
            assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
        });
    }
}

#[tokio::test]
async fn users_have_only_the_rights_they_were_given() {
    let control_plane = control_plane().await.unwrap();
    let namespace = control_plane.namespace("rights").await.unwrap();
    let client = control_plane.impersonate_service_account(&namespace, "nobody");
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let error = api.list(&ListParams::default()).await.unwrap_err();
    let user = format!("system:serviceaccount:{namespace}:nobody");
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 403 && status.message.contains(&user)),
        "{error}"
    );
}

#[tokio::test]
async fn a_service_account_token_authenticates() {
    let control_plane = control_plane().await.unwrap();
    let namespace = control_plane.namespace("token").await.unwrap();
    let token = control_plane
        .service_account_token(&namespace, "somebody")
        .await
        .unwrap();
    let mut config = control_plane.config();
    config.auth_info = kube::config::AuthInfo {
        token: Some(token.into()),
        ..kube::config::AuthInfo::default()
    };
    let client = Client::try_from(config).unwrap();
    let error = Api::<Pod>::namespaced(client, &namespace)
        .list(&ListParams::default())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("system:serviceaccount:{namespace}:somebody")),
        "{error}"
    );
}

#[tokio::test]
async fn a_crd_is_served_when_apply_returns() {
    let control_plane = control_plane().await.unwrap();
    let crd: CustomResourceDefinition = serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "probes.test.holdfast.dev"},
        "spec": {
            "group": "test.holdfast.dev", "scope": "Namespaced",
            "names": {"kind": "Probe", "plural": "probes", "singular": "probe"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }))
    .unwrap();
    let client = control_plane.client();
    crds::apply_crds(&client, [crd.clone()]).await.unwrap();
    crds::apply_crd(&client, &crd).await.unwrap();
    let path = "/apis/test.holdfast.dev/v1/namespaces/default/probes/absent";
    let error = client
        .request_text(http::Request::get(path).body(vec![]).unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.is_not_found() && status.reason == "NotFound"),
        "{error}"
    );
}

#[tokio::test]
async fn kubectl_talks_to_it() {
    let control_plane = control_plane().await.unwrap();
    let kubectl = tokio::task::spawn_blocking(local::kubectl)
        .await
        .unwrap()
        .unwrap();
    let output = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(control_plane.kubeconfig())
        .args(["get", "namespace", "default", "--output=name"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "namespace/default",
        "{output:?}"
    );
}

/// The owner of a control plane is this very binary, run again for one ignored test and killed in the middle of it.
#[tokio::test]
async fn nothing_is_left_of_a_test_binary_that_was_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "owner_that_never_ends", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(owner.stdout.take().unwrap()));
    let line = lines
        .find_map(|line| {
            line.unwrap()
                .split_once("folder=")
                .map(|(_, folder)| folder.to_owned())
        })
        .unwrap();
    let folder = Path::new(&line);
    assert!(folder.join("etcd").is_dir());
    let using = || {
        let commands = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        commands.filter(|command| command.contains(&line)).count()
    };
    assert_eq!(using(), 3, "the guard and its two programs");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let gone = || (using() == 0 && !folder.exists()).then_some(());
    assert!(
        process::poll(Duration::from_secs(20), Duration::from_millis(20), gone).is_some(),
        "{} processes",
        using()
    );
}

#[tokio::test]
#[ignore = "run by nothing_is_left_of_a_test_binary_that_was_killed"]
async fn owner_that_never_ends() {
    let control_plane = control_plane().await.unwrap();
    println!("folder={}", control_plane.folder().display());
    std::future::pending::<()>().await;
}
