//! An object goes only when its data have gone.

use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_api::alauda_v1::BackupState;
use holdfast_e2e::backup::{self, DEFAULT_STORAGE, Request};
use holdfast_e2e::{Access, PostgresCluster, Version, scenario, wait};
use holdfast_testkit::local;

#[tokio::test]
async fn a_deletion_waits_for_the_storage() -> Result<()> {
    scenario("delete", Access::Exclusive, async |s| {
        s.apply(&s.bucket.secret(DEFAULT_STORAGE, &[])).await?;
        let postgres = PostgresCluster::start(&s.cluster, &s.namespace, "accounts", Version::V15, 1).await?;
        postgres.on_leader(async |leader| leader.load().await).await?;
        backup::create(s, "monday", "accounts", Request::default()).await?;
        let monday = backup::succeeds(s, "monday").await?;
        let folder = format!("{}/basebackups_005", postgres.path(&postgres.uid));
        ensure!(
            !s.bucket.list(&folder).await?.is_empty(),
            "nothing below {folder}"
        );

        local::stop_s3()?;
        let refused = async {
            s.delete("postgresbackup", "monday").await?;
            let refused =
                backup::reaches(s, "monday", BackupState::DeleteFailed, Duration::from_mins(4)).await?;
            let error = refused
                .status
                .clone()
                .unwrap_or_default()
                .error
                .unwrap_or_default();
            ensure!(error.starts_with("StorageUnavailable"), "error {error}");
            ensure!(
                backup::condition(&refused, "Stalled") == Some("True".into()),
                "not Stalled"
            );
            backup::happened(s, &monday, "StorageUnavailable").await.map(drop)
        };
        let refused = refused.await;
        // Whatever came of it: the others need the server.
        local::start_s3()?;
        refused?;

        wait::until_gone(backup::api(s), "monday", Duration::from_mins(4)).await?;
        let left = s.bucket.list(&folder).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })
    .await
}
