//! The progress writer beside the status writer.

use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast_status::{Outcome, Reported, WriteResult};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::kinds::{Of, Parcel, Progress, State};
use crate::world::{Item, Letter, PROGRESS, Postcard, World, at, wanted};

fn done(done: i64) -> Progress {
    Progress {
        done,
        total: 600,
        rate: Some(10),
    }
}

/// Whose field it is.
fn owner(object: &Value, field: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let owns = |entry: &&Value| entry["fieldsV1"]["f:status"].get(format!("f:{field}")).is_some();
    entries
        .iter()
        .filter(owns)
        .map(|entry| entry["manager"].as_str().unwrap().to_owned())
        .collect()
}

async fn at_most_one_write_each_five_seconds<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let created = world.create::<O>("one").await?;
    let writer = world.writer::<Of<O>>();
    let progress = writer.progress(PROGRESS);
    let Outcome::Written { object: running, .. } =
        writer.write(&created, &wanted(State::Running), at(0)).await?
    else {
        panic!("not written")
    };

    // A minute of reports each tenth of a second, by a clock of our own and with the object from before all of them.
    let start = Instant::now();
    let mut reported = Vec::new();
    for tick in 0..=600 {
        let now = start + Duration::from_millis(100) * tick;
        reported.push(progress.report(&running, &done(i64::from(tick)), now).await?);
    }
    let end = start + Duration::from_mins(1);
    assert_eq!(reported.iter().filter(|r| **r == Reported::Written).count(), 13);
    assert_eq!(reported.iter().filter(|r| **r == Reported::Deferred).count(), 588);
    let versions = world.versions("one", running.as_ref()).await?;
    let values: Vec<_> = versions
        .iter()
        .map(|v| v.data["status"]["progress"]["done"].as_i64().unwrap())
        .collect();
    assert_eq!(
        values,
        [0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 550, 600]
    );

    // The last value is written on demand, however early, and once.
    assert_eq!(
        progress
            .report(&running, &done(601), end + Duration::from_millis(1))
            .await?,
        Reported::Deferred
    );
    assert_eq!(
        progress.flush(&running, end + Duration::from_millis(2)).await?,
        Reported::Written
    );
    assert_eq!(
        progress.flush(&running, end + Duration::from_millis(3)).await?,
        Reported::Unchanged
    );
    assert_eq!(world.versions("one", running.as_ref()).await?.len(), 14);

    // Two managers, each with fields of its own, and neither took the other's.
    let raw = world.raw::<O>("one").await?;
    assert_eq!(
        raw["status"]["progress"],
        json!({ "done": 601, "total": 600, "rate": 10 })
    );
    assert_eq!(owner(&raw, "state"), ["holdfast/parcels/status"]);
    assert_eq!(owner(&raw, "progress"), ["holdfast/parcels/progress"]);
    Ok(())
}

#[tokio::test]
async fn at_most_one_write_each_five_seconds_with_a_subresource() -> Result<()> {
    at_most_one_write_each_five_seconds::<Parcel>().await
}

#[tokio::test]
async fn at_most_one_write_each_five_seconds_without_a_subresource() -> Result<()> {
    at_most_one_write_each_five_seconds::<Letter>().await
}

async fn a_status_write_keeps_progress_and_an_end_stays<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<O>>();
    let progress = writer.progress(PROGRESS);
    let now = Instant::now();
    let created = world.create::<O>("one").await?;
    assert_eq!(progress.report(&created, &done(1), now).await?, Reported::Written);
    // The same again is no write, and takes no turn.
    let live = world.read::<O>("one").await?;
    assert_eq!(
        progress
            .report(&live, &done(1), now + Duration::from_secs(9))
            .await?,
        Reported::Unchanged
    );
    assert_eq!(
        progress
            .report(&live, &done(2), now + Duration::from_secs(9))
            .await?,
        Reported::Written
    );

    assert!(
        writer
            .write(&created, &wanted(State::Running), at(0))
            .await?
            .is_written()
    );
    let running = world.read::<O>("one").await?;
    assert!(
        writer
            .write(&running, &wanted(State::Failed), at(0))
            .await?
            .is_written()
    );
    let failed = world.raw::<O>("one").await?;
    assert_eq!(
        (&failed["status"]["state"], &failed["status"]["progress"]["done"]),
        (&json!("failed"), &json!(2))
    );

    // A mover that has not heard of the end: its object is old and says running.
    let late = now + Duration::from_mins(1);
    assert_eq!(
        progress.report(&running, &done(3), late).await?,
        Reported::Terminal
    );
    let known = world.read::<O>("one").await?;
    assert_eq!(progress.report(&known, &done(3), late).await?, Reported::Terminal);
    assert_eq!(world.raw::<O>("one").await?, failed);
    assert_eq!(world.seen.count(WriteResult::Refused), 2);

    world.api::<O>().delete("one", &DeleteParams::default()).await?;
    assert_eq!(
        progress
            .report(&running, &done(3), late + Duration::from_mins(1))
            .await?,
        Reported::Gone
    );
    Ok(())
}

#[tokio::test]
async fn a_status_write_keeps_progress_and_an_end_stays_with_a_subresource() -> Result<()> {
    a_status_write_keeps_progress_and_an_end_stays::<Parcel>().await
}

#[tokio::test]
async fn a_status_write_keeps_progress_and_an_end_stays_without_a_subresource() -> Result<()> {
    a_status_write_keeps_progress_and_an_end_stays::<Letter>().await
}

#[tokio::test]
async fn progress_and_status_at_once_lose_nothing() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<Parcel>>();
    let progress = writer.progress(PROGRESS);
    let live = world.create::<Parcel>("one").await?;
    let start = Instant::now();
    let reports = async {
        for turn in 0..15_u32 {
            let now = start + Duration::from_secs(5) * turn;
            assert_eq!(
                progress.report(&live, &done(i64::from(turn)), now).await?,
                Reported::Written
            );
        }
        anyhow::Ok(())
    };
    let writes = async {
        for turn in 0..15 {
            let live = world.read::<Parcel>("one").await?;
            let mut want = wanted::<Parcel, 0>(State::Running);
            want.status.message = Some(format!("turn {turn}"));
            assert!(writer.write(&live, &want, at(turn)).await?.is_written());
        }
        anyhow::Ok(())
    };
    tokio::try_join!(reports, writes)?;
    let status = world.raw::<Parcel>("one").await?["status"].clone();
    assert_eq!(
        (&status["message"], &status["progress"]["done"]),
        (&json!("turn 14"), &json!(14))
    );
    assert_eq!(world.versions("one", &live).await?.len(), 30);
    Ok(())
}

#[tokio::test]
async fn progress_that_is_kept_in_part_settles() -> Result<()> {
    let world = World::new().await?;
    let progress = world.writer::<Of<Postcard>>().progress(PROGRESS);
    let live = world.create::<Postcard>("one").await?;
    let now = Instant::now();
    assert_eq!(progress.report(&live, &done(1), now).await?, Reported::Written);
    let raw = world.raw::<Postcard>("one").await?;
    assert_eq!(raw["status"]["progress"], json!({ "done": 1, "total": 600 }));
    // The rate is not kept, which the first answer told: the same progress is no news.
    let live = world.read::<Postcard>("one").await?;
    let again = progress
        .report(&live, &done(1), now + Duration::from_mins(1))
        .await?;
    assert_eq!(again, Reported::Unchanged);
    Ok(())
}
