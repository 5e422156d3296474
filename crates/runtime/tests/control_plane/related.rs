//! Passes that follow changes of other objects, and gauges read from the cache.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use holdfast_runtime::{
    ApiError,
    runner::{Next, Runner},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{reflector::ObjectRef, watcher},
};

use crate::support::{Running, create, eventually};

async fn pass(object: Arc<ConfigMap>, passes: Arc<AtomicU32>) -> Result<Next, ApiError> {
    if object.name_any() == "parent" {
        passes.fetch_add(1, Ordering::SeqCst);
    }
    Ok(Next::AwaitChange)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owned_or_named_object_wakes_the_pass_and_gauges_follow_the_cache() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    // Two namespaces: one cache over two watches.
    let (client, namespace, other) = (
        cp.client(),
        cp.namespace("related").await?,
        cp.namespace("other").await?,
    );
    let parent = create(&client, &namespace, "parent").await?;
    create(&client, &other, "neighbor").await?;
    let passes = Arc::new(AtomicU32::new(0));
    let counter = passes.clone();
    let namespaces = format!("{namespace},{other}");
    let mapped = namespace.clone();
    let running = Running::start(
        cp.config(),
        &["--leader-election", "false", "--namespaces", &namespaces],
        move |term| {
            let (counter, mapped) = (counter.clone(), mapped.clone());
            async move {
                let runner = Runner::<ConfigMap>::new("example", &term)
                    .owns::<Secret>(&watcher::Config::default())
                    .watches::<Secret>(&watcher::Config::default().labels("wakes=parent"), move |_| {
                        vec![ObjectRef::new("parent").within(&mapped)]
                    });
                let store = runner.store();
                let gauge = term
                    .metrics
                    .scraped::<()>("holdfast_example_maps", "ConfigMaps in the cache.")?;
                let _fed =
                    gauge.feed(move || vec![((), f64::from(u32::try_from(store.len()).unwrap_or(u32::MAX)))]);
                runner.run(pass, counter).await;
                Ok(())
            }
        },
    )
    .await?;
    let until = async |n: u32| {
        eventually("a pass", || async {
            Ok((passes.load(Ordering::SeqCst) >= n).then_some(()))
        })
        .await
    };
    until(1).await?;
    running.until_metric("holdfast_example_maps 2").await?;

    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let mut owned = Secret::default();
    owned.metadata.name = Some("owned".to_owned());
    owned.metadata.owner_references = parent.controller_owner_ref(&()).map(|owner| vec![owner]);
    secrets.create(&PostParams::default(), &owned).await?;
    until(2).await?;
    secrets.delete("owned", &DeleteParams::default()).await?;
    until(3).await?;
    let mut named = Secret::default();
    named.metadata.name = Some("named".to_owned());
    named.labels_mut().insert("wakes".to_owned(), "parent".to_owned());
    Api::<Secret>::namespaced(client.clone(), &other)
        .create(&PostParams::default(), &named)
        .await?;
    until(4).await?;

    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let patch = Patch::Merge(serde_json::json!({"metadata": {"annotations": {"a": "b"}}}));
    maps.patch("parent", &PatchParams::default(), &patch).await?;
    until(5).await?;
    maps.delete("parent", &DeleteParams::default()).await?;
    running.until_metric("holdfast_example_maps 1").await?;
    running.stop().await
}
