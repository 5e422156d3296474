//! Objects that are deleted before, between and after.

use anyhow::Result;
use holdfast_status::{Outcome, Refusal, WriteResult};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::kinds::{Of, Parcel, State};
use crate::world::{Item, Letter, World, at, wanted};

async fn a_deleted_object_is_gone<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<O>>();
    let live = world.create::<O>("one").await?;
    world.api::<O>().delete("one", &DeleteParams::default()).await?;
    let gone = writer.write(&live, &wanted(State::Running), at(0)).await?;
    assert!(matches!(gone, Outcome::Gone), "{gone:?}");

    // Another object with the same name is not ours.
    let other = world.create::<O>("one").await?;
    let gone = writer.write(&live, &wanted(State::Running), at(0)).await?;
    assert!(matches!(gone, Outcome::Gone), "{gone:?}");
    let untouched = world.read::<O>("one").await?;
    assert_eq!(untouched.meta().resource_version, other.meta().resource_version);
    assert_eq!(world.raw::<O>("one").await?["status"], Value::Null);
    assert_eq!(world.seen.count(WriteResult::Gone), 2);
    Ok(())
}

#[tokio::test]
async fn a_deleted_object_is_gone_with_a_subresource() -> Result<()> {
    a_deleted_object_is_gone::<Parcel>().await
}

#[tokio::test]
async fn a_deleted_object_is_gone_without_a_subresource() -> Result<()> {
    a_deleted_object_is_gone::<Letter>().await
}

async fn a_failed_clean_up_can_be_told<O: Item>() -> Result<()> {
    let world = World::new().await?;
    let writer = world.writer::<Of<O>>();
    let live = world
        .create_with::<O>("one", json!({ "finalizers": ["a.test/clean-up"] }))
        .await?;
    assert!(
        writer
            .write(&live, &wanted(State::Succeeded), at(0))
            .await?
            .is_written()
    );

    let done = world.read::<O>("one").await?;
    let early = writer.write(&done, &wanted(State::DeleteFailed), at(0)).await?;
    assert!(
        matches!(early, Outcome::Refused(Refusal::Edge { .. })),
        "not being deleted: {early:?}"
    );

    world.api::<O>().delete("one", &DeleteParams::default()).await?;
    let deleting = world.read::<O>("one").await?;
    assert!(
        writer
            .write(&deleting, &wanted(State::DeleteFailed), at(0))
            .await?
            .is_written()
    );
    assert_eq!(world.raw::<O>("one").await?["status"]["state"], "deleteFailed");
    let back = world.read::<O>("one").await?;
    let back = writer.write(&back, &wanted(State::Running), at(0)).await?;
    assert!(matches!(back, Outcome::Refused(Refusal::Edge { .. })), "{back:?}");

    let finalized = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    world
        .api::<O>()
        .patch("one", &PatchParams::default(), &finalized)
        .await?;
    let gone = writer
        .write(&deleting, &wanted(State::DeleteFailed), at(0))
        .await?;
    assert!(matches!(gone, Outcome::Gone), "{gone:?}");
    Ok(())
}

#[tokio::test]
async fn a_failed_clean_up_can_be_told_with_a_subresource() -> Result<()> {
    a_failed_clean_up_can_be_told::<Parcel>().await
}

#[tokio::test]
async fn a_failed_clean_up_can_be_told_without_a_subresource() -> Result<()> {
    a_failed_clean_up_can_be_told::<Letter>().await
}
