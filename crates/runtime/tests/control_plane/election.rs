//! Leader election: one leader, a ready standby, and no write after the lease is over.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_runtime::rbac::LEASE_RULES;
use holdfast_testkit::{FaultProxy, Mode};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{Api, Client, ResourceExt, api::ListParams};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use crate::{
    readiness::{as_user, grant},
    support::{Process, Running, eventually},
};

/// Short durations, so that the tests are.
const SHORT: [(&str, &str); 3] = [
    ("HOLDFAST_LEASE_DURATION", "3s"),
    ("HOLDFAST_LEASE_RENEW_DEADLINE", "2s"),
    ("HOLDFAST_LEASE_RETRY_PERIOD", "500ms"),
];

fn line(namespace: &str) -> [&str; 10] {
    [
        "--lease-namespace",
        namespace,
        "--namespaces",
        namespace,
        "--lease-duration",
        "3s",
        "--lease-renew-deadline",
        "2s",
        "--lease-retry-period",
        "500ms",
    ]
}

async fn holder(client: &Client, namespace: &str) -> Result<Option<String>> {
    let lease = Api::<Lease>::namespaced(client.clone(), namespace)
        .get("holdfast-example")
        .await?;
    Ok(lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .filter(|holder| !holder.is_empty()))
}

/// First and last resourceVersion of each writer's objects. Those of one resource are ordered as integers.
async fn spans(client: &Client, namespace: &str) -> Result<BTreeMap<String, (u64, u64, usize)>> {
    let mut spans = BTreeMap::new();
    let objects = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    for object in objects.list(&ListParams::default().labels("writer")).await? {
        let version: u64 = object.resource_version().context("no version")?.parse()?;
        let writer = object.labels()["writer"].clone();
        let span = spans.entry(writer).or_insert((version, version, 0));
        *span = (span.0.min(version), span.1.max(version), span.2 + 1);
    }
    Ok(spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_stopped_past_its_lease_writes_nothing_after_another_has_started() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("stopped").await?);
    let mut first = Process::start(cp, &namespace, "writer", &SHORT)?;
    first.says("wrote").await?;
    let old = holder(&client, &namespace).await?.context("no holder")?;
    let mut second = Process::start(cp, &namespace, "writer", &SHORT)?;

    // In the middle of its writes, of which one is in flight nearly always.
    first.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    second.says("leading").await?;
    let taken = stopped.elapsed();
    second.says("wrote").await?;
    let new = holder(&client, &namespace).await?.context("no holder")?;
    assert_ne!(old, new);
    assert!(
        taken >= Duration::from_secs(2),
        "taken after {taken:?}, before the lease could be over"
    );

    // It wakes in the middle of its loop, where nothing told it that time has passed.
    first.signal(Signal::SIGCONT)?;
    first.says("refused").await?;
    let before = spans(&client, &namespace).await?;
    // The second goes on; had the first found a way to write, its versions would now lie among the second's.
    eventually("more writes", || async {
        let now = spans(&client, &namespace).await?;
        let grown = now
            .iter()
            .any(|(writer, span)| span.2 > before.get(writer).map_or(0, |b| b.2) + 20);
        Ok(grown.then_some(()))
    })
    .await?;
    let mut spans: Vec<_> = spans(&client, &namespace).await?.into_values().collect();
    spans.sort_unstable();
    assert_eq!(spans.len(), 2, "two writers");
    assert!(spans[0].1 < spans[1].0, "writes overlap: {spans:?}");
    assert_eq!(
        holder(&client, &namespace).await?,
        Some(new),
        "the first did not take it back"
    );
    println!("taken {taken:?} after the stop; writes by version: {spans:?}");

    // The one that lost stands by, and leads again when the other one ends.
    second.signal(Signal::SIGTERM)?;
    assert!(second.ends().await?);
    first.says("leading").await?;
    first.signal(Signal::SIGTERM)?;
    assert!(first.ends().await?);
    assert_eq!(holder(&client, &namespace).await?, None, "released");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_and_takes_a_released_lease_at_once() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("standby").await?);
    let work = |term: holdfast_runtime::Term| async move {
        term.started();
        term.shutdown.cancelled().await;
        Ok(())
    };
    // Durations of the design: what is released must not wait for them.
    let line = ["--lease-namespace", &namespace];
    // No more rights than the runtime's own table grants.
    let user = format!("elector-of-{namespace}");
    grant(&client, &namespace, &user, "lease", LEASE_RULES).await?;
    let leader = Running::start(as_user(cp.config(), &user), &line, work).await?;
    leader.until_metric("holdfast_leader 1").await?;
    leader.until_ready().await?;
    let standby = Running::start(as_user(cp.config(), &user), &line, work).await?;
    standby.until_ready().await?;
    standby.until_metric("holdfast_leader 0").await?;
    let old = holder(&client, &namespace).await?.context("no holder")?;

    let released = Instant::now();
    leader.stop().await?;
    standby.until_metric("holdfast_leader 1").await?;
    assert!(
        released.elapsed() < Duration::from_secs(10),
        "{:?}",
        released.elapsed()
    );
    assert_ne!(holder(&client, &namespace).await?.context("no holder")?, old);
    standby.stop().await
}

/// Says when it is dropped.
struct Bell(mpsc::UnboundedSender<Instant>);

impl Drop for Bell {
    fn drop(&mut self) {
        // Nobody listens any more: the test has ended.
        self.0.send(Instant::now()).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_dropped_when_the_api_server_hangs_and_begins_anew_when_it_is_back() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let namespace = cp.namespace("hung-lease").await?;
    let upstream = cp
        .url()
        .trim_start_matches("https://")
        .trim_end_matches('/')
        .parse()?;
    let proxy = FaultProxy::start(upstream).await?;
    let mut config = cp.config();
    config.cluster_url = format!("https://{}", proxy.address()).parse()?;
    let (began, mut begins) = mpsc::unbounded_channel();
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let bell = Arc::new(Mutex::new(dropped));
    let running = Running::start(config, &line(&namespace), move |term| {
        let (began, bell) = (began.clone(), Bell(bell.lock().unwrap().clone()));
        async move {
            term.started();
            began.send(Instant::now())?;
            let _bell = bell;
            std::future::pending::<()>().await;
            Ok(())
        }
    })
    .await?;
    begins.recv().await.context("no term")?;
    proxy.set(Mode::Hang);
    let hung = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(30), drops.recv())
        .await?
        .context("not dropped")?;
    let after = end.duration_since(hung);
    assert!(
        after < Duration::from_secs(3),
        "dropped after {after:?}: another could have taken the lease by then"
    );
    running.until_metric("holdfast_leader 0").await?;
    proxy.set(Mode::Pass);
    tokio::time::timeout(Duration::from_secs(30), begins.recv())
        .await?
        .context("no second term")?;
    running.until_metric("holdfast_leader 1").await?;
    Ok(())
}
