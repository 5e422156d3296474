//! The controller on a real API server, with the rights of its own ServiceAccount and no others. There is no kubelet here:
//! the test writes what kubelet and job controller would write. The real ones are in the scenarios of e2e.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, and what helps it, fails by panicking"
)]

mod cluster;
mod controller;
mod rights;

use holdfast_api::alauda_v1::BackupState;
use pg_backup::agent::report::{BackupReport, FailureClass, FailureReason, FailureReport, Report};
use pg_backup::reason::Reason;

use cluster::World;

fn report() -> Report {
    Report::Succeeded(BackupReport {
        backup_name: "base_000000010000000000000004".into(),
        start_lsn: 67_108_904,
        finish_lsn: 67_109_192,
        start_time: "2026-11-21T10:00:00Z".into(),
        finish_time: "2026-11-21T10:01:00Z".into(),
        last_modified: "2026-11-21T10:01:02Z".into(),
        pg_version: "15.14".into(),
        bucket: "backups".into(),
        path: "spilo/accounts/uid/wal/15".into(),
        ..BackupReport::default()
    })
}

fn storage_down() -> Report {
    Report::Failed(FailureReport {
        reason: FailureReason::StorageUnavailable,
        message: "bucket \"backups\" at http://s3 cannot be reached".into(),
        class: FailureClass::Transient,
        retry: true,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_told_and_removed() {
    let world = World::start("taken").await;
    world.member("accounts-0", "master").await;
    world.create("monday", "accounts").await;

    let running = world.until("monday", |b| state(b) == BackupState::Running).await;
    assert_eq!(status(&running).execute_node.as_deref(), Some("accounts-0"));
    assert_eq!(
        status(&running).cluster_uid.as_deref(),
        Some(cluster::STATEFUL_SET_UID)
    );
    world.end_job("backup", &report()).await;

    let done = world
        .until("monday", |b| state(b) == BackupState::Succeeded)
        .await;
    let got = status(&done);
    assert_eq!(got.backup_name.as_deref(), Some("base_000000010000000000000004"));
    assert_eq!(
        (got.start_lsn, got.finish_lsn),
        (Some(67_108_904), Some(67_109_192))
    );
    assert_eq!(got.pg_version.as_deref(), Some("15.14"));
    let storage = got.config_backup_storage.as_ref().expect("storage");
    assert_eq!(
        (storage.bucket.as_str(), storage.name.as_str()),
        ("backups", "pg-backup-storage")
    );
    assert_eq!(cluster::condition(&done, "Ready"), Some("True".to_owned()));
    assert_eq!(cluster::condition(&done, "Reconciling"), None);
    world.event("monday", Reason::BackupSucceeded.as_str()).await;

    // With the storage down the object stays, says so, and the attempts are counted.
    world.delete("monday").await;
    world.end_job("delete", &storage_down()).await;
    let stays = world
        .until("monday", |b| state(b) == BackupState::DeleteFailed)
        .await;
    assert!(
        status(&stays)
            .error
            .as_deref()
            .is_some_and(|e| e.contains("bucket \"backups\""))
    );
    world.retry_of("delete").await;
    world.end_job("delete", &Report::Deleted).await;
    world.gone("monday").await;
    world.event("monday", Reason::Deleted.as_str()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_backed_up_fails_with_state_condition_and_event() {
    let world = World::start("failing").await;
    world.create("nobody", "nowhere").await;
    let failed = world.until("nobody", |b| state(b) == BackupState::Failed).await;
    assert!(
        status(&failed)
            .error
            .as_deref()
            .is_some_and(|e| e.contains("cluster-name=nowhere"))
    );
    assert_eq!(cluster::condition(&failed, "Stalled"), Some("True".to_owned()));
    world.event("nobody", Reason::ClusterNotFound.as_str()).await;

    world.member("accounts-0", "master").await;
    world.create("unlucky", "accounts").await;
    world.until("unlucky", |b| state(b) == BackupState::Running).await;
    world.end_job("backup", &storage_down()).await;
    let failed = world.until("unlucky", |b| state(b) == BackupState::Failed).await;
    assert!(
        status(&failed)
            .error
            .as_deref()
            .is_some_and(|e| e.starts_with("StorageUnavailable: "))
    );
    world.event("unlucky", "StorageUnavailable").await;

    // Nothing was stored, so it goes at once.
    world.delete("unlucky").await;
    world.gone("unlucky").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_waits_and_a_controller_that_comes_back_takes_up_the_first() {
    let mut world = World::start("queue").await;
    world.member("accounts-0", "master").await;
    world.create("first", "accounts").await;
    world.until("first", |b| state(b) == BackupState::Running).await;
    world.create("second", "accounts").await;
    let waiting = world
        .until("second", |b| cluster::condition(b, "Reconciling").is_some())
        .await;
    assert_eq!(state(&waiting), BackupState::Accepted);
    assert_eq!(world.jobs().await.len(), 1);

    world.restart().await;
    world.end_job("backup", &report()).await;
    world.until("first", |b| state(b) == BackupState::Succeeded).await;
    world.until("second", |b| state(b) == BackupState::Running).await;
    assert_eq!(world.jobs().await.len(), 2, "one job for each backup");
    world.stop().await;
}

fn status(backup: &holdfast_api::alauda_v1::PostgresBackup) -> holdfast_api::alauda_v1::PostgresBackupStatus {
    backup.status.clone().unwrap_or_default()
}

fn state(backup: &holdfast_api::alauda_v1::PostgresBackup) -> BackupState {
    pg_backup::observe::stage(backup)
}
