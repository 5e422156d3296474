//! Backups that succeed, each restored into a fresh instance and compared table by table.

use anyhow::{Result, ensure};
use holdfast_e2e::backup::{self, DEFAULT_STORAGE, Request};
use holdfast_e2e::restore::restored_equals;
use holdfast_e2e::{Access, PostgresCluster, Version, scenario, zalando};

#[tokio::test]
async fn a_leader_alone_is_backed_up_and_restored() -> Result<()> {
    scenario("leader", Access::Shared, async |s| {
        s.apply(&s.bucket.secret(DEFAULT_STORAGE, &[])).await?;
        let postgres = PostgresCluster::start(&s.cluster, &s.namespace, "accounts", Version::V15, 1).await?;
        let before = postgres
            .on_leader(async |leader| {
                leader.load().await?;
                leader.checksums().await
            })
            .await?;

        backup::create(s, "monday", "accounts", Request::default()).await?;
        let monday = backup::succeeds(s, "monday").await?;
        let node = monday.status.clone().unwrap_or_default().execute_node;
        ensure!(node == Some(postgres.leader()), "executeNode {node:?}");
        backup::is_stored(s, &postgres, &monday, &postgres.uid).await?;

        // What people see.
        let table = s.kubectl(&["get", "postgresbackup"]).await?;
        let mut lines = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        ensure!(
            lines.next() == Some(vec!["NAME", "CLUSTER", "STATE", "BACKUP", "NODE", "AGE"]),
            "{table}"
        );
        let name = monday
            .status
            .clone()
            .unwrap_or_default()
            .backup_name
            .unwrap_or_default();
        let row = lines.next().unwrap_or_default();
        ensure!(
            row.starts_with(&["monday", "accounts", "succeeded", &name, "accounts-0"]),
            "{table}"
        );

        restored_equals(s, &postgres, &monday, &before).await
    })
    .await
}

#[tokio::test]
async fn a_streaming_replica_is_preferred_to_the_leader() -> Result<()> {
    scenario("replica", Access::Shared, async |s| {
        s.apply(
            &s.bucket
                .secret("elsewhere", &[("WALG_COMPRESSION_METHOD", "zstd")]),
        )
        .await?;
        let postgres = PostgresCluster::start(&s.cluster, &s.namespace, "accounts", Version::V17, 2).await?;
        let before = postgres
            .on_leader(async |leader| {
                leader.load().await?;
                leader.checksums().await
            })
            .await?;
        postgres.caught_up().await?;

        backup::create(
            s,
            "monday",
            "accounts",
            Request {
                storage: Some("elsewhere"),
                execute_node: None,
            },
        )
        .await?;
        let monday = backup::succeeds(s, "monday").await?;
        let status = monday.status.clone().unwrap_or_default();
        ensure!(
            status.execute_node == Some(postgres.replica()),
            "executeNode {:?}",
            status.execute_node
        );
        ensure!(
            status
                .config_backup_storage
                .is_some_and(|storage| storage.name == "elsewhere"),
            "another Secret"
        );
        backup::is_stored(s, &postgres, &monday, &postgres.uid).await?;
        let objects = s.bucket.list("spilo").await?;
        ensure!(
            objects.iter().any(|key| key.ends_with(".tar.zst")),
            "no zstd: {objects:?}"
        );

        restored_equals(s, &postgres, &monday, &before).await
    })
    .await
}

#[tokio::test]
async fn the_named_leader_is_taken_and_the_postgresql_object_gives_the_uid() -> Result<()> {
    scenario("named", Access::Shared, async |s| {
        s.apply(&s.bucket.secret(DEFAULT_STORAGE, &[])).await?;
        let uid = zalando::create(s, "accounts").await?;
        let postgres = PostgresCluster::start(&s.cluster, &s.namespace, "accounts", Version::V17, 2).await?;
        let before = postgres
            .on_leader(async |leader| {
                leader.load().await?;
                leader.checksums().await
            })
            .await?;

        let leader = postgres.leader();
        backup::create(
            s,
            "monday",
            "accounts",
            Request {
                execute_node: Some(&leader),
                storage: None,
            },
        )
        .await?;
        let monday = backup::succeeds(s, "monday").await?;
        let node = monday.status.clone().unwrap_or_default().execute_node;
        ensure!(node == Some(leader), "executeNode {node:?}");
        backup::is_stored(s, &postgres, &monday, &uid).await?;
        restored_equals(s, &postgres, &monday, &before).await
    })
    .await
}
