//! Events on the real API server, with no more rights than the table grants.

use anyhow::Result;
use holdfast_runtime::{
    client::{Endpoint, Limits},
    events::{Events, NOTE_LIMIT, Note},
    gate::Gate,
    metrics::{EventResult, Metrics, Standard},
    rbac::EVENT_RULES,
};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Resource, api::ListParams};

use crate::{
    readiness::{as_user, grant},
    support::{PATIENCE, create},
};

#[tokio::test(flavor = "multi_thread")]
async fn events_are_cut_folded_and_counted_and_never_fail_a_pass() -> Result<()> {
    let cp = holdfast_testkit::control_plane().await?;
    let (client, namespace) = (cp.client(), cp.namespace("events").await?);
    let user = format!("reporter-of-{namespace}");
    grant(&client, &namespace, &user, "events", EVENT_RULES).await?;
    // The longest name there may be, of which an Event's name must make one of its own.
    let name = format!("{}.{}", "a".repeat(240), "b".repeat(12));
    let object = create(&client, &namespace, &name).await?.object_ref(&());

    let standard = Standard::register(&Metrics::new(), "1.0.0")?;
    let limits = Limits {
        deadline: std::time::Duration::from_secs(10),
        concurrency: 4,
    };
    let limited = Endpoint::new(as_user(cp.config(), &user), limits).client(&Gate::open())?;
    let (events, task) = Events::start(limited, "example", "pod-1", standard.events.clone());
    events.publish(
        &object,
        Note::warning("Unreachable", "Upload", "ü".repeat(NOTE_LIMIT)),
    );
    for _ in 0..3 {
        events.publish(&object, Note::normal("Started", "Backup", "backup of db-0"));
    }
    // The same reason with another cause must show the other cause.
    events.publish(&object, Note::normal("Started", "Backup", "backup of db-1"));
    let mut elsewhere = object.clone();
    elsewhere.namespace = Some("no-such-namespace".to_owned());
    events.publish(&elsewhere, Note::normal("Started", "Backup", "backup"));
    drop(events);
    tokio::time::timeout(PATIENCE, task).await??;

    let counted = |result| standard.events.get((result,));
    assert_eq!(
        (counted(EventResult::Published), counted(EventResult::Failed)),
        (5, 1)
    );
    let stored = Api::<Event>::namespaced(client.clone(), &namespace)
        .list(&ListParams::default())
        .await?
        .items;
    let find = |note: &str| {
        stored
            .iter()
            .find(|e| e.note.as_deref().is_some_and(|n| n.starts_with(note)))
    };
    let cut = find("üü").and_then(|e| e.note.clone()).unwrap_or_default();
    assert!(cut.len() <= NOTE_LIMIT && cut.ends_with("..."), "{}", cut.len());
    let folded = find("backup of db-0")
        .and_then(|e| e.series.as_ref())
        .map(|s| s.count);
    assert_eq!(folded, Some(3));
    assert!(find("backup of db-1").is_some_and(|e| e.series.is_none()));
    assert_eq!(stored.len(), 3);
    let event = find("backup of db-1").cloned().unwrap_or_default();
    assert_eq!(event.reporting_controller.as_deref(), Some("holdfast/example"));
    assert_eq!(
        event.regarding.and_then(|r| r.name).as_deref(),
        Some(name.as_str())
    );
    Ok(())
}
