//! Several writers at once.

use anyhow::Result;
use futures::future::try_join_all;
use holdfast_status::{Class, Fault, Outcome, Refusal, Settings, WriteError, WriteResult, Writer};
use serde_json::json;

use crate::kinds::{KINDS, Of, Parcel, Reason, State};
use crate::world::{Item, Letter, STATUS, World, at, wanted};

async fn a_stale_version_is_read_again<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let stale = world.create::<O>("one").await?;
    let first = wanted::<O, 1>(State::Running).condition(KINDS[3], true, Reason::Working, "first");
    let second = wanted::<O, 2>(State::Running).condition(KINDS[4], true, Reason::Working, "second");
    assert!(world.writer().write(&stale, &first, at(0)).await?.is_written());
    assert_eq!(world.seen.count(WriteResult::Conflict), 0);
    assert!(world.writer().write(&stale, &second, at(0)).await?.is_written());
    assert_eq!(world.seen.count(WriteResult::Conflict), 1);
    let raw = world.raw::<O>("one").await?;
    let messages: Vec<_> = raw["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["message"].clone())
        .collect();
    assert_eq!(messages, ["first", "second"]);
    // Stale, and nothing left to say: found out by reading, and nothing is written.
    assert!(matches!(
        world.writer().write(&stale, &second, at(0)).await?,
        Outcome::Unchanged { .. }
    ));
    assert_eq!(world.versions("one", &stale).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_stale_version_is_read_again_with_a_subresource() -> Result<()> {
    a_stale_version_is_read_again::<Parcel>().await
}

#[tokio::test]
async fn a_stale_version_is_read_again_without_a_subresource() -> Result<()> {
    a_stale_version_is_read_again::<Letter>().await
}

async fn an_object_that_ended_meanwhile_stays_so<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<O>>();
    let created = world.create::<O>("one").await?;
    let Outcome::Written { object: running, .. } =
        writer.write(&created, &wanted(State::Running), at(0)).await?
    else {
        panic!("not written")
    };
    assert!(
        writer
            .write(&running, &wanted(State::Failed), at(0))
            .await?
            .is_written()
    );
    // A second pass that has not heard of it yet; its object says running, so only the version can tell.
    let late = writer.write(&running, &wanted(State::Succeeded), at(0)).await?;
    let Outcome::Refused(Refusal::Edge { from, to }) = late else {
        panic!("{late:?}")
    };
    assert_eq!((from, to), (State::Failed, State::Succeeded));
    assert_eq!(world.raw::<O>("one").await?["status"]["state"], "failed");
    assert_eq!(world.seen.count(WriteResult::Refused), 1);
    Ok(())
}

#[tokio::test]
async fn an_object_that_ended_meanwhile_stays_so_with_a_subresource() -> Result<()> {
    an_object_that_ended_meanwhile_stays_so::<Parcel>().await
}

#[tokio::test]
async fn an_object_that_ended_meanwhile_stays_so_without_a_subresource() -> Result<()> {
    an_object_that_ended_meanwhile_stays_so::<Letter>().await
}

#[tokio::test]
async fn an_older_pass_gives_way_to_a_newer_one() -> Result<()> {
    let world = World::new().await?;
    let old = world.create::<Parcel>("one").await?;
    let edit = kube::api::Patch::Merge(json!({ "spec": { "contents": "papers" } }));
    world
        .api::<Parcel>()
        .patch("one", &kube::api::PatchParams::default(), &edit)
        .await?;
    let new = world.read::<Parcel>("one").await?;
    let mut want = wanted::<Parcel, 0>(State::Running);
    want.status.message = Some("papers".into());
    assert!(world.writer().write(&new, &want, at(0)).await?.is_written());
    want.status.message = Some("books".into());
    let refused = world.writer().write(&old, &want, at(0)).await?;
    let is_stale = matches!(refused, Outcome::Refused(Refusal::Stale { observed: 2, seen: 1 }));
    assert!(is_stale, "{refused:?}");
    Ok(())
}

const ROUNDS: i64 = 10;

/// One of many writers on one object: says something new each round, as a controller does that is called again whenever
/// its write did not get through.
async fn storms<O: Item, const N: usize>(world: &World) -> Result<usize> {
    let writer = world.writer::<Of<O, N>>();
    let mut given_up = 0;
    for round in 0..ROUNDS {
        let want = wanted::<O, N>(State::Running).condition(
            KINDS[N + 2],
            round % 2 == 0,
            Reason::Working,
            format!("round {round}"),
        );
        loop {
            let live = world.read::<O>("one").await?;
            match writer.write(&live, &want, at(round)).await {
                Ok(outcome) => {
                    assert!(outcome.is_written(), "{outcome:?}");
                    break;
                }
                Err(error) => {
                    assert_eq!(error.class(), Class::Conflict, "{error}");
                    given_up += 1;
                }
            }
        }
    }
    Ok(given_up)
}

async fn a_storm_converges<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let live = world.create::<O>("one").await?;
    let (a, b, c, d, e, f, g, h) = tokio::try_join!(
        storms::<O, 1>(&world),
        storms::<O, 2>(&world),
        storms::<O, 3>(&world),
        storms::<O, 4>(&world),
        storms::<O, 5>(&world),
        storms::<O, 6>(&world),
        storms::<O, 7>(&world),
        storms::<O, 8>(&world),
    )?;
    let given_up = a + b + c + d + e + f + g + h;
    let written = world.seen.count(WriteResult::Written);
    let conflicts = world.seen.count(WriteResult::Conflict);
    println!(
        "8 writers x {ROUNDS}: {written} written, {conflicts} conflicts, {given_up} given up and called again"
    );
    assert!(conflicts > 0, "no storm");
    assert_eq!(written, 80);

    // No write was lost: each moved the version once, and each writer's last word and time of flipping stand.
    let versions = world.versions("one", &live).await?;
    assert_eq!(versions.len(), 80);
    let raw = world.raw::<O>("one").await?;
    let conditions = raw["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 8);
    for condition in conditions {
        assert_eq!(condition["message"], format!("round {}", ROUNDS - 1));
        assert_eq!(condition["lastTransitionTime"], "2023-11-14T22:13:29Z");
    }
    // And every version holds what the one before it held, but for one condition.
    for pair in versions.windows(2) {
        let [before, after] = pair else { unreachable!() };
        let conditions = |object: &kube::api::DynamicObject| {
            object.data["status"]["conditions"].as_array().unwrap().clone()
        };
        let (before, after) = (conditions(before), conditions(after));
        let changed = after
            .iter()
            .filter(|condition| !before.contains(condition))
            .count();
        assert_eq!(changed, 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_converges_with_a_subresource() -> Result<()> {
    a_storm_converges::<Parcel>().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_converges_without_a_subresource() -> Result<()> {
    a_storm_converges::<Letter>().await
}

#[tokio::test]
async fn a_writer_that_never_wins_gives_up_as_a_conflict() -> Result<()> {
    let world = World::new().await?;
    let stale = world.create::<Parcel>("one").await?;
    assert!(
        world
            .writer::<Of<Parcel>>()
            .write(&stale, &wanted(State::Running), at(0))
            .await?
            .is_written()
    );
    let settings = Settings {
        attempts: 1,
        ..world.settings()
    };
    let writer = Writer::<Of<Parcel>>::with(world.client.clone(), STATUS, settings);
    let error = writer
        .write(&stale, &wanted(State::Failed), at(0))
        .await
        .unwrap_err();
    assert!(
        matches!(error, WriteError::Conflict { attempts: 1, .. }),
        "{error}"
    );
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Conflict, "StatusConflict")
    );
    Ok(())
}

#[tokio::test]
async fn writers_that_say_the_same_write_once() -> Result<()> {
    let world = World::new().await?;
    let live = world.create::<Parcel>("one").await?;
    let writer = world.writer::<Of<Parcel>>();
    let want = wanted(State::Running);
    let outcomes = try_join_all((0..10).map(|_| writer.write(&live, &want, at(0)))).await?;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_written()).count(), 1);
    assert_eq!(world.versions("one", &live).await?.len(), 1);
    Ok(())
}
