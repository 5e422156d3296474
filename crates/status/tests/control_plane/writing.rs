//! One writer, nobody else: what is written, where, and when nothing is.

use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast_status::{Class, Fault, Outcome, Refusal, Settings, StatusOf, WriteError, WriteResult, Writer};
use holdfast_testkit::{FaultProxy, Mode};
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::kinds::{Kind, Of, Parcel, Reason, State};
use crate::world::{Depot, Flyer, Item, Letter, Memo, STATUS, World, at, wanted};

/// The names under which fields of the status are owned.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of_status = entries
        .iter()
        .filter(|entry| entry["fieldsV1"].get("f:status").is_some());
    of_status
        .map(|entry| entry["manager"].as_str().unwrap().to_owned())
        .collect()
}

async fn writes_once_and_touches_nothing_else<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<O>>();
    let live = world
        .create_with::<O>(
            "one",
            json!({ "labels": { "a": "b" }, "finalizers": ["a.test/keep"] }),
        )
        .await?;
    let before = world.raw::<O>("one").await?;
    let mut want = wanted::<O, 0>(State::Running).condition(Kind::Ready, false, Reason::Working, "at work");
    want.status.labels.insert("k".into(), "v".into());

    let Outcome::Written { object, dropped } = writer.write(&live, &want, at(0)).await? else {
        panic!("not written")
    };
    assert!(dropped.is_empty(), "{dropped:?}");
    let after = world.raw::<O>("one").await?;
    assert_eq!(after["spec"], before["spec"]);
    for field in ["labels", "finalizers", "uid", "name", "creationTimestamp"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "{field}");
    }
    assert_eq!(after["status"]["state"], "running");
    assert_eq!(
        after["status"]["conditions"][0]["lastTransitionTime"],
        "2023-11-14T22:13:20Z"
    );
    assert_eq!(managers(&after), ["holdfast/parcels/status"]);

    // Saying it again, with the object from before or after, is no request or at least no change.
    assert!(matches!(
        writer.write(&object, &want, at(60)).await?,
        Outcome::Unchanged { .. }
    ));
    assert!(matches!(
        writer
            .write(&world.read::<O>("one").await?, &want, at(60))
            .await?,
        Outcome::Unchanged { .. }
    ));
    assert_eq!(world.seen.count(WriteResult::Unchanged), 2);
    assert_eq!(world.seen.count(WriteResult::Written), 1);
    assert_eq!(world.versions("one", &live).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn writes_once_to_a_subresource() -> Result<()> {
    writes_once_and_touches_nothing_else::<Parcel>().await
}

#[tokio::test]
async fn writes_once_to_the_object() -> Result<()> {
    writes_once_and_touches_nothing_else::<Letter>().await
}

#[tokio::test]
async fn writes_once_outside_a_namespace() -> Result<()> {
    writes_once_and_touches_nothing_else::<Depot>().await
}

#[tokio::test]
async fn the_generation_is_recorded_where_it_settles() -> Result<()> {
    let world = World::new().await?;
    let want = wanted::<Parcel, 0>(State::Running).condition(Kind::Ready, false, Reason::Working, "");
    let parcel = world.create::<Parcel>("one").await?;
    assert!(world.writer().write(&parcel, &want, at(0)).await?.is_written());
    let raw = world.raw::<Parcel>("one").await?;
    assert_eq!(
        (
            &raw["status"]["observedGeneration"],
            &raw["metadata"]["generation"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(raw["status"]["conditions"][0]["observedGeneration"], 1);

    // Without a subresource the write itself moves the generation: recording it would change it again, for ever.
    let want = wanted::<Letter, 0>(State::Running).condition(Kind::Ready, false, Reason::Working, "");
    let letter = world.create::<Letter>("one").await?;
    assert!(world.writer().write(&letter, &want, at(0)).await?.is_written());
    let raw = world.raw::<Letter>("one").await?;
    assert_eq!(
        (
            &raw["status"]["observedGeneration"],
            &raw["metadata"]["generation"]
        ),
        (&Value::Null, &json!(2))
    );
    let again = world
        .writer()
        .write(&world.read::<Letter>("one").await?, &want, at(0))
        .await?;
    assert!(matches!(again, Outcome::Unchanged { .. }), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn removed_fields_go_and_fields_of_others_stay() -> Result<()> {
    let world = World::new().await?;
    let live = world.create::<Parcel>("one").await?;
    let theirs = json!({ "status": { "foreign": "theirs", "conditions": [{
        "type": "Theirs", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z",
    }] } });
    let api = world.api::<Parcel>();
    #[expect(clippy::disallowed_methods, reason = "plays another controller")]
    api.patch_status("one", &PatchParams::default(), &Patch::Merge(&theirs))
        .await?;

    let mut want = wanted::<Parcel, 0>(State::Running)
        .condition(Kind::Ready, false, Reason::Working, "")
        .condition(Kind::Reconciling, true, Reason::Working, "");
    want.status.message = Some("hello".into());
    // With the object from before the others wrote, hence by way of a conflict.
    assert!(world.writer().write(&live, &want, at(0)).await?.is_written());
    let done = wanted::<Parcel, 0>(State::Succeeded).condition(Kind::Ready, true, Reason::Done, "");
    let live = world.read::<Parcel>("one").await?;
    assert!(world.writer().write(&live, &done, at(5)).await?.is_written());

    let status = world.raw::<Parcel>("one").await?["status"].clone();
    assert_eq!(
        (&status["foreign"], &status["message"]),
        (&json!("theirs"), &Value::Null)
    );
    let types: Vec<_> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["Theirs", "Ready"]);
    assert_eq!(
        status["conditions"][0]["lastTransitionTime"],
        "2020-01-01T00:00:00Z"
    );
    assert_eq!(
        status["conditions"][1]["lastTransitionTime"],
        "2023-11-14T22:13:25Z"
    );
    Ok(())
}

async fn finds_the_right_place<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<O>>();
    assert_eq!(writer.facts().target(), None);
    let live = world.create::<O>("one").await?;
    assert!(
        writer
            .write(&live, &wanted(State::Running), at(0))
            .await?
            .is_written()
    );
    assert_eq!(world.raw::<O>("one").await?["status"]["state"], "running");
    assert!(
        writer
            .facts()
            .target()
            .is_some_and(|target| target != <Of<O> as StatusOf>::TARGET)
    );
    let live = world.read::<O>("one").await?;
    assert!(matches!(
        writer.write(&live, &wanted(State::Running), at(0)).await?,
        Outcome::Unchanged { .. }
    ));
    Ok(())
}

#[tokio::test]
async fn a_missing_subresource_is_not_taken_for_a_missing_object() -> Result<()> {
    finds_the_right_place::<Flyer>().await
}

#[tokio::test]
async fn a_status_that_the_object_ignores_goes_to_the_subresource() -> Result<()> {
    finds_the_right_place::<Memo>().await
}

#[tokio::test]
async fn a_phase_from_the_future_survives() -> Result<()> {
    let world = World::new().await?;
    let live = world.create::<Parcel>("one").await?;
    let paused = State::Unknown("paused".into());
    assert!(
        world
            .writer::<Of<Parcel>>()
            .write(&live, &wanted(paused.clone()), at(0))
            .await?
            .is_written()
    );
    let live = world.read::<Parcel>("one").await?;
    assert_eq!(live.status.as_ref().unwrap().state, paused);
    let finished = world
        .writer::<Of<Parcel>>()
        .write(&live, &wanted(State::Succeeded), at(0))
        .await?;
    assert!(finished.is_written());
    let live = world.read::<Parcel>("one").await?;
    let back = world
        .writer::<Of<Parcel>>()
        .write(&live, &wanted(paused), at(0))
        .await?;
    assert!(matches!(back, Outcome::Refused(Refusal::Edge { .. })), "{back:?}");
    Ok(())
}

#[tokio::test]
async fn refusals_of_the_api_server_have_a_class() -> Result<()> {
    let world = World::new().await?;
    let live = world.create::<Parcel>("one").await?;
    let odd = world
        .writer::<Of<Parcel>>()
        .write(&live, &wanted(State::Unknown("odd".into())), at(0))
        .await
        .unwrap_err();
    assert_eq!(
        (odd.class(), odd.reason()),
        (Class::Invalid, "StatusRejected"),
        "{odd}"
    );

    let nobody = world.control_plane.impersonate("nobody", &[]);
    let denied = Writer::<Of<Parcel>>::new(nobody, STATUS)
        .write(&live, &wanted(State::Running), at(0))
        .await
        .unwrap_err();
    assert_eq!(
        (denied.class(), denied.reason()),
        (Class::Denied, "StatusForbidden"),
        "{denied}"
    );

    let mut unread = live.clone();
    unread.metadata.resource_version = None;
    let unread = world
        .writer::<Of<Parcel>>()
        .write(&unread, &wanted(State::Running), at(0))
        .await
        .unwrap_err();
    assert!(
        matches!(
            unread,
            WriteError::Unread {
                field: "resourceVersion",
                ..
            }
        ),
        "{unread}"
    );
    assert!(
        unread
            .to_string()
            .contains(&format!("Parcel {}/one", world.namespace)),
        "{unread}"
    );
    assert_eq!(
        world.read::<Parcel>("one").await?.metadata.resource_version,
        live.metadata.resource_version
    );
    Ok(())
}

#[tokio::test]
async fn a_hung_api_server_ends_at_the_deadline() -> Result<()> {
    let world = World::new().await?;
    let live = world.create::<Parcel>("one").await?;
    let mut config = world.control_plane.config();
    let upstream = config.cluster_url.authority().unwrap().as_str().parse()?;
    let proxy = FaultProxy::start(upstream).await?;
    config.cluster_url = format!("https://{}", proxy.address()).parse()?;
    let settings = Settings {
        deadline: Duration::from_millis(300),
        ..world.settings()
    };
    let writer = Writer::<Of<Parcel>>::with(Client::try_from(config)?, STATUS, settings);

    proxy.set(Mode::Hang);
    let start = Instant::now();
    let error = writer
        .write(&live, &wanted(State::Running), at(0))
        .await
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(
        (error.class(), error.reason()),
        (Class::Transient, "StatusTimeout"),
        "{error}"
    );
    assert_eq!(world.seen.count(WriteResult::Timeout), 1);
    Ok(())
}
