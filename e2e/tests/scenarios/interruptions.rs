//! Backups that are interrupted and come to their end nevertheless.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use holdfast_api::alauda_v1::BackupState;
use holdfast_e2e::backup::{self, DEFAULT_STORAGE, Request};
use holdfast_e2e::controller::Controller;
use holdfast_e2e::memory::PeakMemory;
use holdfast_e2e::restore::restored_equals;
use holdfast_e2e::{Access, PostgresCluster, Scenario, Version, scenario};
use holdfast_testkit::local;

/// Enough that a backup lasts several seconds.
const MEGABYTES: u32 = 400;

/// What the agent may need at most, in bytes.
const AGENT_MEMORY: u64 = 96 << 20;

/// How long the S3 server stays away.
const OUTAGE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn thirty_seconds_without_the_storage_are_survived() -> Result<()> {
    scenario("outage", Access::Exclusive, async |s| {
        let postgres = large(s).await?;
        let before = postgres
            .on_leader(async |leader| leader.checksums().await)
            .await?;
        let memory = PeakMemory::of(&["agent\0backup", &postgres.uid]);
        backup::create(s, "monday", "accounts", Request::default()).await?;
        let uploaded = backup::is_uploading(s, "monday").await?;
        ensure!(
            uploaded < u64::from(MEGABYTES) << 20,
            "the backup is over already"
        );

        local::stop_s3()?;
        tokio::time::sleep(OUTAGE).await;
        let during = backup::api(s).get("monday").await;
        // Whatever came of it: the others need the server.
        local::start_s3()?;
        let during = backup::state(&during?);
        ensure!(
            during == BackupState::Running,
            "{during:?} while the storage was away"
        );

        let monday = backup::succeeds(s, "monday").await?;
        if let Some(peak) = memory.finish() {
            println!(
                "peak memory of the agent, {MEGABYTES} MB and an outage: {:.1} MiB",
                mebibytes(peak)
            );
            ensure!(
                peak <= AGENT_MEMORY,
                "the agent needed {:.1} MiB",
                mebibytes(peak)
            );
        }
        ensure!(backup::jobs(s, &monday).await?.len() == 1, "one job");
        restored_equals(s, &postgres, &monday, &before).await
    })
    .await
}

#[tokio::test]
async fn a_lost_controller_leaves_one_job_and_the_right_result() -> Result<()> {
    scenario("restart", Access::Exclusive, async |s| {
        let postgres = large(s).await?;
        let before = postgres
            .on_leader(async |leader| leader.checksums().await)
            .await?;
        backup::create(s, "monday", "accounts", Request::default()).await?;
        backup::is_uploading(s, "monday").await?;
        let uids = async || -> Result<Vec<Option<String>>> {
            let monday = backup::api(s).get("monday").await?;
            Ok(backup::jobs(s, &monday)
                .await?
                .iter()
                .map(kube::ResourceExt::uid)
                .collect())
        };
        let jobs = uids().await?;
        ensure!(jobs.len() == 1, "jobs {jobs:?}");

        Controller::of(&s.cluster).restart().await?;

        let monday = backup::succeeds(s, "monday").await?;
        ensure!(
            uids().await? == jobs,
            "the job was replaced: {jobs:?}, now {:?}",
            uids().await?
        );
        let job = backup::jobs(s, &monday).await?.pop().context("the job")?;
        ensure!(
            job.status.and_then(|status| status.succeeded) == Some(1),
            "the job's pod ran more than once"
        );
        backup::is_stored(s, &postgres, &monday, &postgres.uid).await?;
        restored_equals(s, &postgres, &monday, &before).await
    })
    .await
}

async fn large(s: &Scenario) -> Result<PostgresCluster> {
    s.apply(&s.bucket.secret(DEFAULT_STORAGE, &[])).await?;
    let postgres = PostgresCluster::start(&s.cluster, &s.namespace, "accounts", Version::V17, 1).await?;
    postgres
        .on_leader(async |leader| {
            leader.load().await?;
            leader.load_incompressible(MEGABYTES).await
        })
        .await?;
    Ok(postgres)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
