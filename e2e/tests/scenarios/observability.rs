//! What an administrator sees: metrics, and the memory of the controller.

use anyhow::{Context as _, Result, ensure};
use holdfast_e2e::backup::{self, DEFAULT_STORAGE, Request};
use holdfast_e2e::controller::{self, Controller};
use holdfast_e2e::{Access, PostgresCluster, Version, scenario};

/// What the controller may need, in bytes.
const CONTROLLER_MEMORY: u64 = 20 << 20;

#[tokio::test]
async fn metrics_tell_of_the_work_and_name_no_object() -> Result<()> {
    scenario("metrics", Access::Shared, async |s| {
        s.apply(&s.bucket.secret(DEFAULT_STORAGE, &[])).await?;
        PostgresCluster::start(&s.cluster, &s.namespace, "peculiar-cluster", Version::V15, 1).await?;
        backup::create(s, "peculiar-backup", "peculiar-cluster", Request::default()).await?;
        backup::succeeds(s, "peculiar-backup").await?;

        let controller = Controller::of(&s.cluster);
        controller.ready(backup::LIMIT).await?;
        let leader = controller::leader(&controller)
            .await?
            .context("no replica says that it leads")?;
        for pod in controller.pods().await? {
            let text = controller.metrics(&pod).await?;
            for word in ["peculiar", s.namespace.as_str()] {
                ensure!(
                    !text.contains(word),
                    "the metrics of {pod} name an object: {word}"
                );
            }
            ensure!(text.contains("\nholdfast_build_info{"), "{text}");
            if pod == leader {
                let passes = text
                    .lines()
                    .filter(|line| line.starts_with("holdfast_reconciliations_total{"));
                let done = passes.filter(|line| !line.ends_with(" 0")).count();
                ensure!(done > 0, "the leader counted no pass:\n{text}");
            }
        }
        for (pod, bytes) in controller.resident_memory().await? {
            println!("memory of {pod}: {} KiB", bytes / 1024);
            ensure!(bytes <= CONTROLLER_MEMORY, "{pod} needs {} KiB", bytes / 1024);
        }
        Ok(())
    })
    .await
}
