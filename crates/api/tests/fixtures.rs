//! Objects of every kind survive decoding and encoding, and the fixtures are what their names say.

mod common;

use std::collections::BTreeSet;

use common::KINDS;
use common::json::{differences, set};
use serde_json::{Value, json};

#[test]
fn full_and_minimal_objects_survive_the_rust_types() {
    let mut faults = Vec::new();
    for kind in KINDS {
        for (which, object) in [("full", kind.full()), ("minimal", kind.minimal())] {
            let defaulted = if which == "minimal" {
                kind.minimal_stored()
            } else {
                object.clone()
            };
            match (kind.recode)(object.clone()) {
                // What the API server would add as a default, the Rust type may add as well.
                Ok(recoded) if recoded == object || recoded == defaulted => {}
                Ok(recoded) => faults.push(format!(
                    "{} {which}: {:#?}",
                    kind.name,
                    differences(&object, &recoded)
                )),
                Err(e) => faults.push(format!("{} {which}: {e}", kind.name)),
            }
            match (kind.recode)(defaulted.clone()) {
                Ok(recoded) if recoded == defaulted => {}
                other => faults.push(format!("{} {which} as stored: {other:?}", kind.name)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn full_objects_have_every_field() {
    let mut missing = Vec::new();
    for kind in KINDS {
        let full = kind.full();
        assert_eq!(
            (&full["kind"], &full["metadata"]["name"]),
            (&json!(kind.name), &json!("full"))
        );
        walk_full(kind.name, &kind.schema(), &full, &mut missing);
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// What an open object holds besides belongs to the core API, except in Crunchy's kinds, which are open throughout.
fn walk_full(path: &str, schema: &Value, value: &Value, missing: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true && !path.starts_with("Pg") {
        return;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match value.get(name) {
            Some(value) => walk_full(&path, property, value, missing),
            None => missing.push(path),
        }
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if !schema[keyword].is_object() {
            continue;
        }
        let first = match value {
            Value::Array(items) => items.first(),
            Value::Object(map) => map.values().next(),
            _ => None,
        };
        match first {
            Some(value) => walk_full(&format!("{path}{mark}"), &schema[keyword], value, missing),
            None => missing.push(format!("{path}{mark}")),
        }
    }
}

#[test]
fn minimal_objects_have_only_required_fields() {
    let mut extra = Vec::new();
    for kind in KINDS {
        let minimal = kind.minimal();
        assert_eq!(
            (&minimal["kind"], &minimal["metadata"]["name"]),
            (&json!(kind.name), &json!("minimal"))
        );
        walk_minimal(
            kind.name,
            &kind.schema()["properties"]["spec"],
            &minimal["spec"],
            &mut extra,
        );
        extra.extend(minimal.get("status").map(|_| format!("{}.status", kind.name)));
    }
    assert!(extra.is_empty(), "{}", extra.join("\n"));
}

fn walk_minimal(path: &str, schema: &Value, value: &Value, extra: &mut Vec<String>) {
    let required: BTreeSet<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    match value {
        Value::Object(map) if schema["properties"].is_object() => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                if !required.contains(name.as_str()) {
                    extra.push(path.clone());
                }
                walk_minimal(&path, &schema["properties"][name], value, extra);
            }
        }
        Value::Array(items) => {
            for item in items {
                walk_minimal(&format!("{path}[]"), &schema["items"], item, extra);
            }
        }
        _ => {}
    }
}

#[test]
fn unknown_states_survive() {
    for kind in KINDS {
        let Some(pointer) = kind.state else { continue };
        let mut object = kind.full();
        set(&mut object, pointer, json!("SomethingNewer"));
        assert_eq!((kind.recode)(object.clone()).unwrap(), object, "{}", kind.name);
    }
}

/// A newer owner's fields must not stop the controller from reading an object.
#[test]
fn unknown_fields_do_not_prevent_decoding() {
    for kind in KINDS {
        let full = kind.full();
        let mut object = full.clone();
        set(&mut object, "/spec/addedNextYear", json!({ "a": 1 }));
        set(&mut object, "/status/addedNextYear", json!([1]));
        let recoded = (kind.recode)(object).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
        let lost: Vec<_> = differences(&full, &recoded)
            .into_iter()
            .filter(|difference| !difference.contains("/addedNextYear"))
            .collect();
        assert!(lost.is_empty(), "{}: {lost:?}", kind.name);
    }
}

#[test]
fn wrong_types_do_not_decode() {
    for kind in KINDS {
        let mut object = kind.full();
        object["spec"] = json!("not an object");
        assert!((kind.recode)(object).is_err(), "{}", kind.name);
    }
}

/// The tables for the API server are about what their names say; it itself judges them in tier 2.
#[test]
fn every_kind_has_bad_values_that_name_a_field() {
    for kind in KINDS {
        let bad = kind.bad();
        assert!(bad.len() >= 2, "{}: {} bad values", kind.name, bad.len());
        for case in bad {
            assert_ne!(case.apply(kind), kind.full(), "{}: {}", kind.name, case.what);
            assert!(
                case.refused.contains("spec.") || case.refused.contains("status."),
                "{}: {} names no field",
                kind.name,
                case.what
            );
        }
    }
}
