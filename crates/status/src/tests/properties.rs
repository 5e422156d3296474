//! What holds for every status, wish and definition.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::Parcel;
use super::kinds::{KINDS, Kind, Of, ParcelStatus, Progress, Reason, State};
use super::server::Server;
use crate::decide::document;
use crate::schema::SchemaFacts;
use crate::{ConditionStatus, Decision, Phase, StatusOf, Wanted, Wish, decide, decide_within};

type Controller = Of<Parcel>;

fn state() -> impl Strategy<Value = State> {
    let known = [
        State::Empty,
        State::Running,
        State::Succeeded,
        State::Failed,
        State::DeleteFailed,
    ];
    prop_oneof![5 => select(known.to_vec()), 1 => Just(State::Unknown("paused".into()))]
}

fn progress() -> impl Strategy<Value = Progress> {
    (0..3_i64, 0..3_i64, proptest::option::of(0..3_i64)).prop_map(|(done, total, rate)| Progress {
        done,
        total,
        rate,
    })
}

prop_compose! {
    fn status()(
        state in state(),
        message in proptest::option::of(select(vec!["", "one", "two"])),
        progress in proptest::option::of(progress()),
        labels in proptest::collection::btree_map(select(vec!["a", "b"]), select(vec!["1", "2"]), 0..3),
    ) -> ParcelStatus {
        ParcelStatus {
            state,
            message: message.map(str::to_owned),
            progress,
            labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>(),
            ..ParcelStatus::default()
        }
    }
}

fn condition_status() -> impl Strategy<Value = ConditionStatus> {
    select(vec![
        ConditionStatus::True,
        ConditionStatus::False,
        ConditionStatus::Unknown,
    ])
}

prop_compose! {
    fn wish()(
        kind in select(KINDS[..3].to_vec()),
        status in condition_status(),
        reason in select(vec![Reason::Working, Reason::Done, Reason::Broken]),
        message in select(vec!["", "x", "y"]),
    ) -> Wish<Kind, Reason> {
        Wish { kind, status, reason, message: message.to_owned() }
    }
}

prop_compose! {
    fn wanted()(status in status(), conditions in proptest::collection::vec(wish(), 0..4)) -> Wanted<Controller> {
        Wanted { status, conditions }
    }
}

prop_compose! {
    /// A condition as it lies on a server, of ours or foreign.
    fn stored()(
        name in select(vec!["Ready", "Stalled", "Writer1", "example.com/Foreign"]),
        status in condition_status(),
        second in 0..100_i64,
        generation in proptest::option::of(1..4_i64),
    ) -> Value {
        let status: &'static str = status.into();
        let time = Timestamp::from_second(second).unwrap().to_string();
        let mut item = json!({
            "type": name, "status": status, "reason": "Working", "message": "x", "lastTransitionTime": time,
        });
        if let Some(generation) = generation {
            item["observedGeneration"] = generation.into();
        }
        item
    }
}

prop_compose! {
    /// A status as it lies on a server, with a field that nobody here knows.
    fn lying()(
        status in status(),
        conditions in proptest::option::of(proptest::collection::vec(stored(), 0..4)),
        foreign in any::<bool>(),
        observed in proptest::option::of(1..4_i64),
    ) -> Value {
        let mut document = document(&status).unwrap();
        document.remove("conditions");
        if let Some(conditions) = conditions {
            document.insert("conditions".into(), conditions.into());
        }
        if foreign {
            document.insert("foreign".into(), json!({ "kept": [1, null, { "deep": true }] }));
        }
        if let Some(observed) = observed {
            document.insert("observedGeneration".into(), observed.into());
        }
        Value::Object(document)
    }
}

/// Definitions that keep the state, and some of the rest.
fn installed() -> impl Strategy<Value = Value> {
    let optional = vec![
        "message",
        "observedGeneration",
        "progress",
        "labels",
        "conditions",
    ];
    let items = vec!["observedGeneration", "message", "reason"];
    let count = optional.len();
    (
        subsequence(optional, 0..=count),
        subsequence(items, 0..=3),
        any::<bool>(),
    )
        .prop_map(|(fields, items, rate)| {
            let text = json!({ "type": "string" });
            let number = json!({ "type": "integer" });
            let mut item = Map::from_iter(
                ["type", "status", "lastTransitionTime"].map(|key| (key.into(), text.clone())),
            );
            item.extend(items.into_iter().map(|key| (key.to_owned(), json!({}))));
            let mut progress = json!({ "done": number, "total": number });
            if rate {
                progress["rate"] = number.clone();
            }
            let mut properties = Map::from_iter([("state".to_owned(), text.clone())]);
            for field in fields {
                let schema = match field {
                    "progress" => json!({ "type": "object", "properties": progress }),
                    "labels" => json!({ "type": "object", "additionalProperties": text }),
                    "conditions" => {
                        json!({ "type": "array", "items": { "type": "object", "properties": item } })
                    }
                    _ => json!({}),
                };
                properties.insert(field.to_owned(), schema);
            }
            json!({ "type": "object", "properties": properties })
        })
}

fn definition(status: &Value) -> Value {
    json!({ "spec": { "versions": [{
        "name": "v1",
        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "status": status } } },
        "subresources": { "status": {} },
    }] } })
}

fn at(second: i64) -> Timestamp {
    // Not whole, as no clock is.
    Timestamp::new(second, 987_654_321).unwrap()
}

fn conditions(status: &Value) -> Vec<Value> {
    status["conditions"].as_array().cloned().unwrap_or_default()
}

fn of_type<'a>(list: &'a [Value], name: &str) -> Option<&'a Value> {
    list.iter().find(|item| item["type"] == name)
}

/// One pass of a writer that has no definition to read: decide, write, learn. Returns whether it wrote.
fn pass(facts: &mut SchemaFacts, server: &mut Server, wanted: &Wanted<Controller>, second: i64) -> bool {
    let live = server.read();
    let verdict = decide_within(facts, &live, wanted, live.metadata.generation, at(second));
    match verdict.decision {
        Decision::Patch(patch) => {
            assert!(server.patch(&patch.body(live.metadata.resource_version.as_deref().unwrap())));
            let typed = Value::Object(document(server.read().status.as_ref().unwrap()).unwrap());
            facts.learn("", &verdict.target, server.object.get("status"), &typed);
            true
        }
        Decision::Unchanged => false,
        Decision::Refused(refusal) => panic!("{refusal}"),
    }
}

proptest! {
    // A failure is repaired and gets a row in the tables; a file of seeds beside the sources would say nothing to a reader.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deciding_after_applying_is_unchanged(
        lying in lying(), wanted in wanted(), generation in proptest::option::of(3..9_i64), later in 0..9_i64,
    ) {
        let server = Server::new(&lying);
        let live = server.read();
        if let Decision::Patch(patch) = decide(&live, &wanted, generation, at(200)) {
            let applied = patch.applied::<Controller>(&live).unwrap();
            prop_assert_eq!(decide(&applied, &wanted, generation, at(200 + later)), Decision::Unchanged);
            // And what the API server makes of it is what we made of it.
            let mut server = server;
            prop_assert!(server.patch(&patch.body("1")));
            prop_assert_eq!(server.read().status, applied.status);
        }
    }

    #[test]
    fn a_terminal_phase_is_absorbing(lying in lying(), wishes in proptest::collection::vec(wanted(), 1..20)) {
        let mut server = Server::new(&lying);
        let mut end: Option<State> = None;
        for wanted in wishes {
            let live = server.read();
            let before = <Controller as StatusOf>::phase(live.status.as_ref());
            match decide(&live, &wanted, Some(3), at(200)) {
                Decision::Patch(patch) => {
                    let version = live.metadata.resource_version.clone().unwrap();
                    prop_assert!(server.patch(&patch.body(&version)));
                }
                Decision::Unchanged => {}
                Decision::Refused(_) => prop_assert_ne!(&before, &wanted.status.state),
            }
            let after = <Controller as StatusOf>::phase(server.read().status.as_ref());
            if let Some(end) = &end {
                prop_assert_eq!(end, &after);
            }
            if Phase::<Controller>::is_terminal(&after) {
                end = Some(after);
            }
        }
    }

    #[test]
    fn a_transition_time_moves_only_when_a_status_flips(lying in lying(), wanted in wanted(), second in 200..300_i64) {
        let live = Server::new(&lying).read();
        if let Decision::Patch(patch) = decide(&live, &wanted, Some(3), at(second)) {
            let mut server = Server::new(&lying);
            prop_assert!(server.patch(&patch.body("1")));
            let now = json!(Timestamp::from_second(second).unwrap().to_string());
            let before = conditions(&lying);
            let ours = |item: &Value| KINDS[..3].iter().any(|kind| item["type"] == <&str>::from(*kind));
            for item in conditions(&server.object["status"]).into_iter().filter(ours) {
                let (old, time) = (of_type(&before, item["type"].as_str().unwrap()), &item["lastTransitionTime"]);
                let kept = old.filter(|old| old["status"] == item["status"]).map(|old| &old["lastTransitionTime"]);
                prop_assert_eq!(time, kept.unwrap_or(&now));
            }
        }
    }

    #[test]
    fn what_others_wrote_is_kept(lying in lying(), wanted in wanted()) {
        let mut server = Server::new(&lying);
        if let Decision::Patch(patch) = decide(&server.read(), &wanted, Some(3), at(200)) {
            prop_assert!(server.patch(&patch.body("1")));
        }
        prop_assert_eq!(&server.object["status"]["foreign"], &lying["foreign"]);
        prop_assert_eq!(&server.object["spec"], &json!({ "contents": "books" }));
        let (before, after) = (conditions(&lying), conditions(&server.object["status"]));
        let foreign = |list: &[Value]| -> Vec<Value> {
            let is_foreign = |item: &&Value| item["type"] == "Writer1" || item["type"] == "example.com/Foreign";
            list.iter().filter(is_foreign).cloned().collect()
        };
        prop_assert_eq!(foreign(&before), foreign(&after));
        if wanted.status.progress.is_none() {
            prop_assert_eq!(&server.object["status"]["progress"], &lying["progress"]);
        }
    }

    #[test]
    fn fields_that_are_not_kept_are_known_beforehand(lying in lying(), wanted in wanted(), schema in installed()) {
        let facts = SchemaFacts::from_definition(&definition(&schema), "v1").unwrap();
        let mut lying = lying;
        facts.fit(&mut lying, None);
        let mut server = Server::new(&lying);
        server.installed = facts.clone();
        let live = server.read();
        let verdict = decide_within(&facts, &live, &wanted, Some(3), at(200));
        if let Decision::Patch(patch) = verdict.decision {
            prop_assert!(server.patch(&patch.body("1")));
            let again = decide_within(&facts, &server.read(), &wanted, Some(3), at(300));
            prop_assert_eq!(again.decision, Decision::Unchanged);
            prop_assert_eq!(again.dropped, verdict.dropped);
        }
    }

    #[test]
    fn fields_that_are_not_kept_are_learned(wanted in wanted(), schema in installed(), defaults in any::<bool>()) {
        let mut server = Server::new(&json!({}));
        server.installed = SchemaFacts::from_definition(&definition(&schema), "v1").unwrap();
        if defaults && server.installed.keeps("message") {
            server.defaults = json!({ "message": "by default" });
        }
        // From the phase that can become any other, so that nothing is refused.
        let mut wanted = wanted;
        if wanted.status.state == State::DeleteFailed {
            wanted.status.state = State::Running;
        }
        let mut facts = SchemaFacts::unknown();
        // The first answer teaches all but what a default puts back, which may need a second.
        let writes = (0..8).filter(|round| pass(&mut facts, &mut server, &wanted, 200 + round)).count();
        prop_assert!(writes <= 2, "{} writes for one wish", writes);
        let verdict = decide_within(&facts, &server.read(), &wanted, Some(3), at(300));
        let known = decide_within(&server.installed, &server.read(), &wanted, Some(3), at(300));
        // Learned and read agree on what is dropped, but for what looks the same whether it is dropped or not.
        prop_assert!(verdict.dropped.paths().all(|path| known.dropped.contains(path)));
        for path in ["conditions", "progress", "labels"] {
            prop_assert_eq!(verdict.dropped.contains(path), known.dropped.contains(path), "{}", path);
        }
    }

    /// Three writers with a condition each, in any interleaving of reads and writes: all are heard, and then it is quiet.
    #[test]
    fn conflicting_writers_converge(turns in proptest::collection::vec((0..3_usize, any::<bool>()), 0..60)) {
        let mut server = Server::new(&json!({}));
        let mut held: [Option<Parcel>; 3] = [None, None, None];
        let finish = (0..3).flat_map(|writer| [(writer, false), (writer, true)]);
        for (writer, writes) in turns.into_iter().chain(finish) {
            if !writes {
                held[writer] = Some(server.read());
                continue;
            }
            // A conflict reads again and decides again.
            for _ in 0..2 {
                let live = held[writer].take().unwrap_or_else(|| server.read());
                let Decision::Patch(patch) = decide_as(writer, &live) else { break };
                if server.patch(&patch.body(live.metadata.resource_version.as_deref().unwrap())) {
                    break;
                }
            }
        }
        let end = server.read();
        for writer in 0..3 {
            prop_assert_eq!(decide_as(writer, &end), Decision::Unchanged);
        }
        let names: Vec<_> = conditions(&server.object["status"]).iter().map(|c| c["type"].to_string()).collect();
        prop_assert_eq!(names.len(), 3, "{:?}", names);
        prop_assert_eq!(server.writes, 3);
    }
}

fn decide_as(writer: usize, live: &Parcel) -> Decision<State> {
    fn wish<const N: usize>(live: &Parcel) -> Decision<State> {
        let status = ParcelStatus {
            state: State::Running,
            ..ParcelStatus::default()
        };
        let wanted =
            Wanted::<Of<Parcel, N>>::new(status).condition(KINDS[N + 2], true, Reason::Working, "here");
        decide(live, &wanted, Some(3), at(200))
    }
    [wish::<1>, wish::<2>, wish::<3>][writer](live)
}
