//! An API server that hangs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use holdfast_runtime::{
    api_error::is_deadline,
    client::{Endpoint, Limits},
    gate::Gate,
};
use holdfast_testkit::{FaultProxy, Mode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};

use crate::support::{Running, create};

const DEADLINE: Duration = Duration::from_secs(1);

fn endpoint(config: Config) -> Endpoint {
    Endpoint::new(
        config,
        Limits {
            deadline: DEADLINE,
            concurrency: 4,
        },
    )
}

/// Every kind of call ends at its deadline, also those that wait for a place behind others.
async fn all_calls_end(client: kube::Client, namespace: &str) {
    let api = Api::<ConfigMap>::namespaced(client, namespace);
    let mut object = ConfigMap::default();
    object.metadata.name = Some("one".to_owned());
    let patch = Patch::Merge(serde_json::json!({"data": {"a": "b"}}));
    let begun = Instant::now();
    let (delete, post, params, list) = (
        DeleteParams::default(),
        PostParams::default(),
        PatchParams::default(),
        ListParams::default(),
    );
    let errors = tokio::join!(
        async { api.get("one").await.map(drop) },
        async { api.list(&list).await.map(drop) },
        async { api.create(&post, &object).await.map(drop) },
        async { api.patch("one", &params, &patch).await.map(drop) },
        async { api.delete("one", &delete).await.map(drop) },
        async { api.get("two").await.map(drop) },
        async { api.get("three").await.map(drop) },
        async { api.get("four").await.map(drop) },
    );
    let took = begun.elapsed();
    for result in [
        errors.0, errors.1, errors.2, errors.3, errors.4, errors.5, errors.6, errors.7,
    ] {
        assert!(result.as_ref().is_err_and(is_deadline), "{result:?}");
    }
    assert!(took >= DEADLINE && took < DEADLINE * 3, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_at_their_deadline_when_nobody_ever_answers() -> Result<()> {
    holdfast_runtime::install_crypto_provider();
    // Accepts by its backlog alone: the kernel answers, nobody reads.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let config = Config::new(format!("http://{}", listener.local_addr()?).parse()?);
    all_calls_end(endpoint(config).client(&Gate::open())?, "default").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_whose_api_server_hangs_still_stops_at_once() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let config = Config::new(format!("http://{}", listener.local_addr()?).parse()?);
    let running = Running::start(config, &["--api-deadline", "40s"], |_| async { Ok(()) }).await?;
    // Its first attempt hangs on this connection.
    let _open = listener.accept().await?;
    assert_eq!(
        running.get("/readyz").await?,
        (503, "waiting for the leader election\n".to_owned())
    );
    let begun = Instant::now();
    running.stop().await?;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_at_their_deadline_when_open_connections_hang_and_work_again_afterwards() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let namespace = cp.namespace("hung").await?;
    create(&cp.client(), &namespace, "one").await?;
    let upstream = cp
        .url()
        .trim_start_matches("https://")
        .trim_end_matches('/')
        .parse()?;
    let proxy = FaultProxy::start(upstream).await?;
    let mut config = cp.config();
    config.cluster_url = format!("https://{}", proxy.address()).parse()?;
    let client = endpoint(config).client(&Gate::open())?;
    let api = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    api.get("one").await.context("before")?;
    proxy.set(Mode::Hang);
    all_calls_end(client, &namespace).await;
    proxy.set(Mode::Pass);
    api.get("one").await.context("afterwards")?;
    Ok(())
}
