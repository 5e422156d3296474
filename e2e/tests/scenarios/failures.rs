//! What cannot work ends in `failed`, with a cause that names the object to look at.

use anyhow::{Result, ensure};
use holdfast_e2e::backup::{self, DEFAULT_STORAGE, Request};
use holdfast_e2e::{Access, PostgresCluster, Version, postgres, scenario};

#[tokio::test]
async fn an_unknown_cluster_is_named() -> Result<()> {
    scenario("unknown", Access::Shared, async |s| {
        backup::create(s, "monday", "acounts", Request::default()).await?;
        let monday = backup::fails(
            s,
            "monday",
            "ClusterNotFound",
            &["cluster-name=acounts", &s.namespace],
        )
        .await?;
        ensure!(
            backup::jobs(s, &monday).await?.is_empty(),
            "a job for a cluster that does not exist"
        );
        // A failure has stored nothing and holds nothing up.
        s.delete("postgresbackup", "monday").await?;
        holdfast_e2e::wait::until_gone(backup::api(s), "monday", backup::LIMIT).await
    })
    .await
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_bucket_are_named() -> Result<()> {
    scenario("refused", Access::Shared, async |s| {
        let missing = format!("{}-missing", s.bucket.name);
        s.apply(&s.bucket.secret(DEFAULT_STORAGE, &[])).await?;
        s.apply(&s.bucket.secret("nowhere", &[("WAL_S3_BUCKET", &missing)]))
            .await?;
        let postgres = PostgresCluster::start(&s.cluster, &s.namespace, "accounts", Version::V15, 1).await?;

        backup::create(
            s,
            "bucket",
            "accounts",
            Request {
                storage: Some("nowhere"),
                execute_node: None,
            },
        )
        .await?;
        backup::fails(s, "bucket", "BucketNotFound", &[&missing]).await?;

        s.apply(&postgres::secret("accounts", "standby", "not the password"))
            .await?;
        backup::create(s, "password", "accounts", Request::default()).await?;
        let password = backup::fails(s, "password", "AuthenticationFailed", &["standby"]).await?;
        let node = password.status.unwrap_or_default().execute_node;
        ensure!(node == Some(postgres.leader()), "executeNode {node:?}");
        ensure!(
            s.bucket.list("").await?.is_empty(),
            "a failure left something behind: {:?}",
            s.bucket.list("").await?
        );
        Ok(())
    })
    .await
}
