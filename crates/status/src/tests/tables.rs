//! Single decisions, each with its reason.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::Parcel;
use super::kinds::{Kind, Of, ParcelStatus, Reason, State};
use super::server::Server;
use crate::schema::SchemaFacts;
use crate::{Decision, MESSAGE_LIMIT, Refusal, Wanted, WriteResult, decide, decide_within};

type Controller = Of<Parcel>;
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn wanted(state: State) -> Wanted<Controller> {
    Wanted::new(ParcelStatus {
        state,
        ..ParcelStatus::default()
    })
}

fn deciding(live: &Value, wanted: &Wanted<Controller>) -> Decision<State> {
    decide(&Server::new(live).read(), wanted, Some(3), NOW)
}

fn patch(decision: Decision<State>) -> Value {
    match decision {
        Decision::Patch(patch) => patch.status().clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn edges() {
    let cases = [
        ("", State::Running, true),
        ("", State::Failed, true),
        ("running", State::Succeeded, true),
        ("running", State::Empty, false),
        ("running", State::Unknown("odd".into()), false),
        ("succeeded", State::Running, false),
        ("succeeded", State::Failed, false),
        ("succeeded", State::DeleteFailed, false),
        ("failed", State::Succeeded, false),
        ("odd", State::Running, true),
    ];
    for (from, to, legal) in cases {
        let decision = deciding(&json!({ "state": from }), &wanted(to.clone()));
        assert_eq!(
            matches!(decision, Decision::Patch(_)),
            legal,
            "{from} -> {to:?}: {decision:?}"
        );
        assert_eq!(
            matches!(decision, Decision::Refused(Refusal::Edge { .. })),
            !legal,
            "{from} -> {to:?}"
        );
    }
}

#[test]
fn a_missing_status_is_the_initial_phase() {
    let mut parcel = Server::new(&json!({})).read();
    parcel.status = None;
    assert!(matches!(
        decide(&parcel, &wanted(State::Running), Some(3), NOW),
        Decision::Patch(_)
    ));
    assert!(matches!(
        decide(&parcel, &wanted(State::DeleteFailed), Some(3), NOW),
        Decision::Refused(_)
    ));
}

#[test]
fn deletion_opens_its_own_edges_only() {
    let mut parcel = Server::new(&json!({ "state": "succeeded" })).read();
    parcel.metadata.deletion_timestamp = Some(Time(NOW));
    assert!(matches!(
        decide(&parcel, &wanted(State::DeleteFailed), Some(3), NOW),
        Decision::Patch(_)
    ));
    assert!(matches!(
        decide(&parcel, &wanted(State::Running), Some(3), NOW),
        Decision::Refused(_)
    ));
    assert!(matches!(
        decide(&parcel, &wanted(State::Failed), Some(3), NOW),
        Decision::Refused(_)
    ));
}

#[test]
fn a_phase_nobody_knows_survives() {
    let live = json!({ "state": "paused", "observedGeneration": 3, "labels": {} });
    assert_eq!(
        deciding(&live, &wanted(State::Unknown("paused".into()))),
        Decision::Unchanged
    );
}

#[test]
fn an_older_pass_does_not_overwrite_a_newer_one() {
    let newer = json!({ "state": "running", "observedGeneration": 3 });
    let parcel = Server::new(&newer).read();
    let decision = decide(&parcel, &wanted(State::Running), Some(2), NOW);
    assert_eq!(
        decision,
        Decision::Refused(Refusal::Stale { observed: 3, seen: 2 })
    );
    // The object is at generation 3, so 7 was never observed here: it came with a restore.
    let restored = Server::new(&json!({ "state": "running", "observedGeneration": 7 })).read();
    let decision = decide(&restored, &wanted(State::Running), Some(3), NOW);
    assert_eq!(patch(decision), json!({ "observedGeneration": 3 }));
}

#[test]
fn no_generation_is_recorded_where_there_is_none() {
    let parcel = Server::new(&json!({})).read();
    let wanted = wanted(State::Running).condition(Kind::Ready, false, Reason::Working, "");
    let status = patch(decide(&parcel, &wanted, None, NOW));
    assert_eq!(status.get("observedGeneration"), None);
    assert_eq!(status["conditions"][0].get("observedGeneration"), None);
}

#[test]
fn what_is_absent_is_removed_and_what_is_owned_and_not_wanted_too() {
    let time = "1970-01-01T00:00:00Z";
    let condition = |name: &str| json!({ "type": name, "status": "True", "reason": "R", "message": "", "lastTransitionTime": time });
    let live = json!({
        "state": "running", "message": "old", "labels": { "a": "1", "b": "2" }, "observedGeneration": 3,
        "conditions": [condition("Reconciling"), condition("Foreign")],
    });
    let mut wanted = wanted(State::Running);
    wanted.status.labels = [("a".to_owned(), "1".to_owned())].into();
    assert_eq!(
        patch(deciding(&live, &wanted)),
        json!({ "message": null, "labels": { "b": null }, "conditions": [condition("Foreign")] })
    );
}

#[test]
fn the_last_wish_for_a_type_counts_and_doubles_go() {
    let double = json!({ "type": "Ready", "status": "True", "reason": "Done", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z" });
    let live = json!({ "conditions": [double, double] });
    let wanted = wanted(State::Running)
        .condition(Kind::Ready, true, Reason::Done, "a")
        .condition(Kind::Ready, false, Reason::Broken, "b");
    for live in [live, json!({})] {
        let conditions = patch(deciding(&live, &wanted))["conditions"].clone();
        assert_eq!(conditions.as_array().unwrap().len(), 1);
        assert_eq!(
            (&conditions[0]["status"], &conditions[0]["message"]),
            (&json!("False"), &json!("b"))
        );
    }
}

#[test]
fn a_message_is_cut_at_what_the_api_server_takes() {
    let wanted =
        wanted(State::Running).condition(Kind::Ready, true, Reason::Done, "é".repeat(MESSAGE_LIMIT + 1));
    let status = patch(deciding(&json!({}), &wanted));
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), MESSAGE_LIMIT);
    assert!(message.ends_with("é…"));
}

#[test]
fn a_body_names_the_version_and_the_status_and_nothing_else() {
    let Decision::Patch(patch) = deciding(&json!({}), &wanted(State::Running)) else {
        panic!()
    };
    let body = patch.body("17");
    assert_eq!(body["metadata"], json!({ "resourceVersion": "17" }));
    assert_eq!(
        body.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["metadata", "status"]
    );
}

fn definition(root: &Value, subresource: bool) -> Value {
    let mut version = json!({ "name": "v1", "schema": { "openAPIV3Schema": root } });
    if subresource {
        version["subresources"] = json!({ "status": {} });
    }
    json!({ "spec": { "versions": [{ "name": "v0" }, version] } })
}

#[test]
fn facts_of_a_definition() {
    use crate::Target;
    let status = json!({ "type": "object", "properties": {
        "state": { "type": "string" },
        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        "anything": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "type": "string" } } } },
    } });
    let root = json!({ "type": "object", "properties": { "status": status } });
    let facts = SchemaFacts::from_definition(&definition(&root, true), "v1").unwrap();
    assert!(facts.is_known());
    assert_eq!(facts.target(), Some(Target::Subresource));
    for path in ["state", "labels.any", "anything.at.all", "list[].a"] {
        assert!(facts.keeps(path), "{path}");
    }
    for path in ["conditions", "state2", "list[].b"] {
        assert!(!facts.keeps(path), "{path}");
    }
    assert_eq!(SchemaFacts::from_definition(&definition(&root, true), "v2"), None);
    let main = SchemaFacts::from_definition(&definition(&root, false), "v1").unwrap();
    assert_eq!(main.target(), Some(Target::Main));
    // The old way of definitions without a schema of their own.
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    assert!(
        SchemaFacts::from_definition(&definition(&open, false), "v1")
            .unwrap()
            .keeps("conditions")
    );
    let bare = json!({ "type": "object" });
    assert!(
        !SchemaFacts::from_definition(&definition(&bare, false), "v1")
            .unwrap()
            .keeps("state")
    );
    assert!(SchemaFacts::unknown().keeps("conditions"));
}

#[test]
fn conditions_that_are_not_kept_are_dropped_and_said() {
    let status = json!({ "type": "object", "properties": { "state": { "type": "string" } } });
    let root = json!({ "type": "object", "properties": { "status": status } });
    let facts = SchemaFacts::from_definition(&definition(&root, true), "v1").unwrap();
    let parcel = Server::new(&json!({})).read();
    let wanted = wanted(State::Running).condition(Kind::Ready, false, Reason::Working, "at work");
    let verdict = decide_within(&facts, &parcel, &wanted, Some(3), NOW);
    assert!(verdict.dropped.conditions());
    assert_eq!(
        verdict.dropped.paths().collect::<Vec<_>>(),
        ["conditions", "observedGeneration"]
    );
    assert_eq!(patch(verdict.decision), json!({ "state": "running" }));
}

#[test]
fn an_altered_value_is_told_but_not_remembered() {
    let mut facts = SchemaFacts::unknown();
    let (sent, got) = (json!({ "a": 1, "l": [1] }), json!({ "a": 2, "l": [1, 2] }));
    let lesson = facts.learn("", &sent, Some(&got), &got);
    assert_eq!(lesson.altered.iter().collect::<Vec<_>>(), ["a", "l"]);
    assert_eq!(facts, SchemaFacts::unknown());
}

#[test]
fn a_default_that_comes_back_is_remembered_and_a_foreign_field_is_none() {
    let mut facts = SchemaFacts::unknown();
    let (got, typed) = (
        json!({ "a": 1, "mine": 2, "foreign": 3 }),
        json!({ "a": 1, "mine": 2 }),
    );
    let lesson = facts.learn("", &json!({ "a": 1 }), Some(&got), &typed);
    assert_eq!(lesson.defaulted.iter().collect::<Vec<_>>(), ["mine"]);
    assert!(lesson.pruned.is_empty() && lesson.altered.is_empty());
}

#[test]
fn results_are_metric_labels() {
    assert_eq!(WriteResult::Written.as_str(), "written");
    assert_eq!(WriteResult::Timeout.as_str(), "timeout");
}
