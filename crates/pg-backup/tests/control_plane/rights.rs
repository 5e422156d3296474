//! The table of rights against what the controller really asked for, by the API server's audit log.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_runtime::rbac::{LEASE_RULES, rights};
use holdfast_testkit::control_plane;
use pg_backup::agent::report::Report;
use serde_json::Value;

use crate::cluster::World;
use crate::controller::NAMESPACE;
use crate::{report, state, storage_down};
use holdfast_api::alauda_v1::BackupState;

/// Takes the controller through all that it does, and then holds each granted right against the log: none is unused, and
/// none was missing.
#[tokio::test(flavor = "multi_thread")]
async fn each_granted_right_is_used_and_no_other_is_wanted() {
    let world = World::start("rights").await;
    world.member("accounts-0", "master").await;
    world.create("all", "accounts").await;
    world.until("all", |b| state(b) == BackupState::Running).await;
    world.end_job("backup", &report()).await;
    world.until("all", |b| state(b) == BackupState::Succeeded).await;
    world.delete("all").await;
    // The second failure repeats the first one's Event, which is counted by a patch.
    for _ in 0..2 {
        world.end_job("delete", &storage_down()).await;
        world.retry_of("delete").await;
    }
    world.end_job("delete", &Report::Deleted).await;
    world.gone("all").await;

    let granted: BTreeSet<String> = [rights(pg_backup::rbac::RULES), rights(LEASE_RULES)]
        .concat()
        .into_iter()
        .collect();
    // A conflict, after which the object is read again, cannot be ordered; annotating while the controller writes makes one.
    for round in 0..200 {
        let name = format!("conflict-{round}");
        world.create(&name, "nowhere").await;
        for step in 0..5 {
            world.annotate(&name, &step.to_string()).await;
        }
        world.until(&name, |b| state(b) == BackupState::Failed).await;
        if used().await.0 == granted {
            break;
        }
    }
    let (used, refused) = used().await;
    assert_eq!(refused, BTreeSet::new(), "refused for want of a right");
    assert_eq!(used, granted, "used (left) and granted (right)");
    world.stop().await;
}

/// What the ServiceAccount asked for so far, as `verb group/resource`, and what of it was forbidden.
async fn used() -> (BTreeSet<String>, BTreeSet<String>) {
    let user = format!("system:serviceaccount:{NAMESPACE}:pg-backup");
    let log = control_plane().await.expect("a control plane").audit_log();
    // The log is written in batches, a moment after the answers.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = std::fs::read_to_string(log).expect("an audit log");
    let mut sets = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        // The last line may be half written.
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(object) = entry
            .get("objectRef")
            .filter(|_| entry["user"]["username"] == user.as_str())
        else {
            continue;
        };
        let part = |name: &str| object[name].as_str().unwrap_or_default();
        let resource = match part("subresource") {
            "" => part("resource").to_owned(),
            subresource => format!("{}/{subresource}", part("resource")),
        };
        let right = format!(
            "{} {}/{resource}",
            entry["verb"].as_str().unwrap_or_default(),
            part("apiGroup")
        );
        if entry["responseStatus"]["code"] == 403 {
            sets.1.insert(right.clone());
        }
        sets.0.insert(right);
    }
    sets
}
