//! SIGTERM: work in flight ends or is handed back within the grace period, then the lease goes.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::Api;
use nix::sys::signal::Signal;

use crate::support::{Process, create};

async fn released(client: &kube::Client, namespace: &str) -> Result<bool> {
    let lease = Api::<Lease>::namespaced(client.clone(), namespace)
        .get("holdfast-example")
        .await?;
    Ok(lease
        .spec
        .is_none_or(|spec| spec.holder_identity.is_none_or(|holder| holder.is_empty())))
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_pass_finish_and_starts_no_other() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("drain").await?);
    create(&client, &namespace, "work-1").await?;
    let environment = [("HOLDFAST_CONCURRENCY", "1"), ("HOLDFAST_SHUTDOWN_GRACE", "30s")];
    let mut process = Process::start(cp, &namespace, "slow", &environment)?;
    process.says("pass work-1").await?;
    // Waits for its turn behind the first, and must not get it any more.
    create(&client, &namespace, "work-2").await?;
    process.signal(Signal::SIGTERM)?;
    let begun = Instant::now();
    process.says("finished work-1").await?;
    process.says("drained").await?;
    assert!(process.ends().await?, "it ends well");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let objects = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    objects.get("done-work-1").await?;
    assert!(objects.get_opt("done-work-2").await?.is_none());
    assert!(released(&client, &namespace).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_does_not_end_is_dropped_after_the_grace_period_and_the_lease_released() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("grace").await?);
    create(&client, &namespace, "work-1").await?;
    let mut process = Process::start(cp, &namespace, "stuck", &[("HOLDFAST_SHUTDOWN_GRACE", "1s")])?;
    process.says("pass work-1").await?;
    process.signal(Signal::SIGTERM)?;
    let begun = Instant::now();
    assert!(!process.ends().await?, "cut work is no success");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(15),
        "{took:?}"
    );
    assert!(released(&client, &namespace).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("forced").await?);
    create(&client, &namespace, "work-1").await?;
    let mut process = Process::start(cp, &namespace, "stuck", &[("HOLDFAST_SHUTDOWN_GRACE", "50s")])?;
    process.says("pass work-1").await?;
    let begun = Instant::now();
    process.signal(Signal::SIGTERM)?;
    // Two signals that are pending at once are one, so the second kind is the other one.
    process.signal(Signal::SIGINT)?;
    assert!(!process.ends().await?);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(released(&client, &namespace).await?);
    Ok(())
}
