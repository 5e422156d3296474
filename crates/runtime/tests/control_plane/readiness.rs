//! Ready only when each watch has listed once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Result;
use holdfast_runtime::{
    ApiError,
    rbac::{self, Rule},
    runner::{Next, Runner},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::ConfigMap,
    rbac::v1::{Role, RoleBinding, RoleRef, Subject},
};
use kube::{Api, Client, Config, api::PostParams, runtime::watcher};

use crate::support::{Running, create, eventually};

/// Lets `user` do what the rules say, in this namespace.
pub(crate) async fn grant(
    client: &Client,
    namespace: &str,
    user: &str,
    name: &str,
    rules: &[Rule],
) -> Result<()> {
    let params = PostParams::default();
    let role = rbac::role(name, BTreeMap::new(), rules);
    Api::<Role>::namespaced(client.clone(), namespace)
        .create(&params, &role)
        .await?;
    let mut binding = RoleBinding {
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "Role".into(),
            name: name.into(),
        },
        subjects: Some(vec![Subject {
            kind: "User".into(),
            name: user.into(),
            ..Subject::default()
        }]),
        ..RoleBinding::default()
    };
    binding.metadata.name = Some(name.to_owned());
    Api::<RoleBinding>::namespaced(client.clone(), namespace)
        .create(&params, &binding)
        .await?;
    Ok(())
}

/// The configuration of a user without any right.
pub(crate) fn as_user(mut config: Config, user: &str) -> Config {
    config.auth_info.impersonate = Some(user.to_owned());
    config
}

async fn pass(_: Arc<ConfigMap>, passes: Arc<AtomicU32>) -> Result<Next, ApiError> {
    passes.fetch_add(1, Ordering::SeqCst);
    Ok(Next::AwaitChange)
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_flips_only_after_each_watch_has_listed() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("ready").await?);
    create(&client, &namespace, "one").await?;
    let passes = Arc::new(AtomicU32::new(0));
    let counter = passes.clone();
    let line = ["--leader-election", "false", "--namespaces", &namespace];
    // A user without rights: each list fails until it is granted, which holds the moment still.
    let user = format!("reader-of-{namespace}");
    let running = Running::start(as_user(cp.config(), &user), &line, move |term| {
        let ctx = counter.clone();
        async move {
            let runner = Runner::<ConfigMap>::new("example", &term).owns::<Job>(&watcher::Config::default());
            runner.run(pass, ctx).await;
            Ok(())
        }
    })
    .await?;

    let waiting = |kinds: &[&str]| -> String {
        kinds.iter().fold(String::new(), |body, kind| {
            body + &format!(
                "waiting for the first list of {kind} in {namespace}
"
            )
        })
    };
    let until_waiting_for = async |body: String| {
        eventually(&body, || async {
            Ok((running.get("/readyz").await? == (503, body.clone())).then_some(()))
        })
        .await
    };
    until_waiting_for(waiting(&["ConfigMap", "Job"])).await?;
    assert_eq!(
        running.get("/livez").await?.0,
        200,
        "waiting is no reason to be restarted"
    );
    running
        .until_metric("holdfast_watch_errors_total{cause=\"failed\",controller=\"example\"} 0")
        .await?;

    let rule = |group, kind| [Rule::new(group, kind, &["list", "watch"], "the watch")];
    grant(&client, &namespace, &user, "maps", &rule("", &["configmaps"])).await?;
    until_waiting_for(waiting(&["Job"])).await?;
    grant(&client, &namespace, &user, "jobs", &rule("batch", &["jobs"])).await?;
    running.until_ready().await?;
    eventually("a pass", || async {
        Ok((passes.load(Ordering::SeqCst) > 0).then_some(()))
    })
    .await?;
    let (_, metrics) = running.get("/metrics").await?;
    let denied = metrics
        .lines()
        .find(|l| l.starts_with("holdfast_watch_errors_total{cause=\"denied\""));
    assert!(denied.is_some_and(|line| !line.ends_with(" 0")), "{denied:?}");
    running.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_before_the_first_list_does_not_wait_for_it() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let namespace = cp.namespace("unready").await?;
    let line = [
        "--leader-election",
        "false",
        "--namespaces",
        &namespace,
        "--shutdown-grace",
        "50s",
    ];
    let running = Running::start(as_user(cp.config(), "nobody"), &line, |term| async move {
        Runner::<ConfigMap>::new("example", &term)
            .run(
                |_, _| async { Ok::<_, ApiError>(Next::AwaitChange) },
                Arc::new(()),
            )
            .await;
        Ok(())
    })
    .await?;
    eventually("a refused list", || async {
        let (_, text) = running.get("/metrics").await?;
        Ok(
            (!text.contains("holdfast_watch_errors_total{cause=\"denied\",controller=\"example\"} 0"))
                .then_some(()),
        )
    })
    .await?;
    let begun = std::time::Instant::now();
    running.stop().await?;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    Ok(())
}
