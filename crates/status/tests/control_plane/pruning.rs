//! Installed definitions that keep less, or put back more, than the program knows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use holdfast_status::{
    Class, Fault, LookupError, Outcome, SchemaFacts, Settings, Target, WriteError, Writer,
};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::kinds::{Kind, Of, Parcel, Progress, Reason, State};
use crate::world::{Form, Item, Leaflet, Letter, Postcard, STATUS, World, at, wanted};

const DEADLINE: Duration = Duration::from_secs(10);

async fn facts<O: Item>(world: &World) -> Result<SchemaFacts> {
    Ok(SchemaFacts::read_for::<Of<O>>(&world.client, DEADLINE).await?)
}

#[tokio::test]
async fn the_installed_definition_is_read() -> Result<()> {
    let world = World::new().await?;
    let parcel = facts::<Parcel>(&world).await?;
    assert!(parcel.is_known() && parcel.keeps("conditions") && parcel.keeps("progress.rate"));
    assert_eq!(parcel.target(), Some(Target::Subresource));
    let letter = facts::<Letter>(&world).await?;
    assert_eq!(letter.target(), Some(Target::Main));
    let postcard = facts::<Postcard>(&world).await?;
    assert!(postcard.keeps("state") && postcard.keeps("progress.done") && postcard.keeps("labels.any"));
    for path in ["conditions", "observedGeneration", "progress.rate"] {
        assert!(!postcard.keeps(path), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_is_told_apart() -> Result<()> {
    let world = World::new().await?;
    let read = |name, version| SchemaFacts::read(&world.client, name, version, DEADLINE);
    let missing = read("nothings.status.holdfast.test", "v1").await.unwrap_err();
    assert!(matches!(missing, LookupError::NotInstalled { .. }), "{missing}");
    assert_eq!(missing.class(), Class::Invalid);
    let version = read("parcels.status.holdfast.test", "v9").await.unwrap_err();
    assert!(matches!(version, LookupError::NoVersion { .. }), "{version}");
    // Many a controller may not read definitions.
    let nobody = world.control_plane.impersonate("nobody", &[]);
    let unknown = SchemaFacts::read_for::<Of<Parcel>>(&nobody, DEADLINE).await?;
    assert_eq!(unknown, SchemaFacts::unknown());
    Ok(())
}

async fn falls_back_without_rewriting(facts: SchemaFacts) -> Result<()> {
    let world = World::new().await?;
    let settings = Settings {
        facts,
        ..world.settings()
    };
    let writer = Writer::<Of<Postcard>>::with(world.client.clone(), STATUS, settings);
    let created = world.create::<Postcard>("one").await?;
    let mut want =
        wanted::<Postcard, 0>(State::Running).condition(Kind::Ready, false, Reason::Working, "at work");
    want.status.message = Some("at work".into());

    let Outcome::Written { object, dropped } = writer.write(&created, &want, at(0)).await? else {
        panic!("not written")
    };
    assert_eq!(
        dropped.paths().collect::<Vec<_>>(),
        ["conditions", "observedGeneration"]
    );
    assert!(dropped.conditions());
    assert_eq!(object.status.as_ref().unwrap().state, State::Running);
    let mut live = *object;
    for round in 1..5 {
        let again = writer.write(&live, &want, at(round * 100)).await?;
        let Outcome::Unchanged { dropped } = &again else {
            panic!("round {round}: {again:?}")
        };
        assert!(dropped.conditions());
        live = world.read::<Postcard>("one").await?;
    }
    assert_eq!(world.versions("one", &created).await?.len(), 1);
    // What is kept is still written.
    want.status.message = Some("nearly".into());
    assert!(writer.write(&live, &want, at(900)).await?.is_written());
    assert_eq!(world.raw::<Postcard>("one").await?["status"]["message"], "nearly");
    Ok(())
}

#[tokio::test]
async fn conditions_that_the_definition_lacks_are_not_sent() -> Result<()> {
    let world = World::new().await?;
    falls_back_without_rewriting(facts::<Postcard>(&world).await?).await
}

#[tokio::test]
async fn conditions_that_do_not_come_back_are_not_sent_again() -> Result<()> {
    falls_back_without_rewriting(SchemaFacts::unknown()).await
}

#[tokio::test]
async fn a_definition_without_the_phase_is_an_error() -> Result<()> {
    let world = World::new().await?;
    for facts in [facts::<Leaflet>(&world).await?, SchemaFacts::unknown()] {
        let settings = Settings {
            facts,
            ..world.settings()
        };
        let writer = Writer::<Of<Leaflet>>::with(world.client.clone(), STATUS, settings);
        let name = if writer.facts().is_known() {
            "known"
        } else {
            "unknown"
        };
        let live = world.create::<Leaflet>(name).await?;
        let error = writer
            .write(&live, &wanted(State::Running), at(0))
            .await
            .unwrap_err();
        assert!(
            matches!(error, WriteError::PhaseNotKept { field: "state", .. }),
            "{error}"
        );
        assert_eq!(error.class(), Class::Invalid);
    }
    Ok(())
}

#[tokio::test]
async fn a_default_that_comes_back_is_left() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<Form>>();
    let created = world.create::<Form>("one").await?;
    let Outcome::Written { object, .. } = writer.write(&created, &wanted(State::Running), at(0)).await?
    else {
        panic!("not written")
    };
    assert_eq!(
        object.status.as_ref().unwrap().message.as_deref(),
        Some("none yet")
    );
    let again = writer.write(&object, &wanted(State::Running), at(0)).await?;
    assert!(matches!(again, Outcome::Unchanged { .. }), "{again:?}");
    Ok(())
}

/// The library's pruning is the API server's: a full status is sent as it is, and what comes back is what was foretold.
async fn pruning_is_foretold<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let facts = facts::<O>(&world).await?;
    let created = world.create::<O>("one").await?;
    let mut want = wanted::<O, 0>(State::Running).condition(Kind::Ready, true, Reason::Done, "all of it");
    want.status.message = Some("full".into());
    want.status.labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    want.status.progress = Some(Progress {
        done: 1,
        total: 2,
        rate: Some(3),
    });
    let naive = holdfast_status::decide(&created, &want, Some(1), at(0));
    let foretold = holdfast_status::decide_within(&facts, &created, &want, Some(1), at(0)).decision;
    let (holdfast_status::Decision::Patch(naive), holdfast_status::Decision::Patch(foretold)) =
        (naive, foretold)
    else {
        panic!("nothing to patch")
    };
    let params = PatchParams::default();
    let body = Patch::Merge(json!({ "status": naive.status() }));
    let api = world.api::<O>();
    if let Some(Target::Main) = facts.target() {
        api.patch("one", &params, &body).await?
    } else {
        #[expect(clippy::disallowed_methods, reason = "plays a naive controller")]
        let answer = api.patch_status("one", &params, &body);
        answer.await?
    };
    let status = world.raw::<O>("one").await?["status"].clone();
    let mut expected = foretold.status().clone();
    expected
        .as_object_mut()
        .unwrap()
        .retain(|_, member| !member.is_null());
    assert_eq!(status, expected);
    Ok(())
}

#[tokio::test]
async fn pruning_is_foretold_for_each_definition() -> Result<()> {
    pruning_is_foretold::<Parcel>().await?;
    pruning_is_foretold::<Letter>().await?;
    pruning_is_foretold::<Postcard>().await?;
    pruning_is_foretold::<Leaflet>().await?;
    pruning_is_foretold::<Form>().await
}
