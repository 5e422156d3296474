//! The definitions obey the rules of the API server and say what the owners of the groups say.

mod common;

use std::collections::BTreeSet;

use common::outline::outline;
use common::{KINDS, Kind, fixtures};
use serde_json::Value;

/// Keywords that the API server takes in a structural schema.
const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "anyOf",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "nullable",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

const FORMATS: &[&str] = &["byte", "date-time", "double", "int32", "int64"];

#[test]
fn the_table_of_kinds_is_complete() {
    let crds = holdfast_api::all_crds();
    let defined: BTreeSet<_> = crds.iter().map(|crd| crd.spec.names.kind.as_str()).collect();
    let listed: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(defined, listed);
    assert_eq!(crds.len(), defined.len());
    let names: Vec<_> = crds.iter().map(|crd| crd.metadata.name.clone()).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn schemas_are_structural_and_described() {
    let mut faults = Vec::new();
    for kind in KINDS {
        let schema = kind.schema();
        check(kind.name, &schema, &mut faults);
        assert_eq!(schema["type"], "object", "{}", kind.name);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn check(path: &str, schema: &Value, faults: &mut Vec<String>) {
    let mut fault = |what: &str| faults.push(format!("{path}: {what}"));
    let Some(map) = schema.as_object() else {
        return fault("not a schema");
    };
    for keyword in map.keys().filter(|keyword| !KEYWORDS.contains(&keyword.as_str())) {
        fault(&format!("keyword {keyword}"));
    }
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    if schema.get("type").is_none() && !open && !int_or_string {
        fault("no type");
    }
    if schema.get("type").is_some_and(|name| !name.is_string()) {
        fault("more than one type");
    }
    if map.contains_key("anyOf") && !int_or_string {
        fault("anyOf");
    }
    if map.contains_key("properties") && map.contains_key("additionalProperties") {
        fault("properties and additionalProperties");
    }
    if schema["type"] == "array" && !map.contains_key("items") {
        fault("an array without items");
    }
    if schema["type"] == "object"
        && !map.contains_key("properties")
        && !map.contains_key("additionalProperties")
        && !open
    {
        fault("an object whose whole content is pruned");
    }
    if schema["format"]
        .as_str()
        .is_some_and(|format| !FORMATS.contains(&format))
    {
        fault(&format!("format {}", schema["format"]));
    }
    if schema["default"].is_null() && map.contains_key("default") {
        fault("a null default");
    }
    if schema["x-kubernetes-list-type"] == "map"
        && schema["x-kubernetes-list-map-keys"]
            .as_array()
            .is_none_or(Vec::is_empty)
    {
        fault("a list-map without keys");
    }
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if schema["properties"].get(name).is_none() {
            fault(&format!("requires {name}, which it does not have"));
        }
    }
    if let Some(description) = schema["description"].as_str()
        && (description.contains("](")
            || description.contains("[`")
            || description.contains("Auto-generated"))
    {
        fault("the description is written for rustdoc");
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if property["description"].as_str().is_none_or(str::is_empty) {
            faults.push(format!("{path}: no description"));
        }
        check(&path, property, faults);
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(keyword) {
            check(&format!("{path}{mark}"), inner, faults);
        }
    }
}

#[test]
fn definitions_fit_where_they_are_stored() {
    for kind in KINDS {
        let size = serde_json::to_vec(&kind.crd()).unwrap().len();
        // The annotation that client-side `kubectl apply` writes holds 256 KiB at most.
        assert!(size < 256 * 1024, "{}: {size} bytes", kind.name);
    }
}

#[test]
fn names_and_status_resources_are_as_upstream_has_them() {
    for kind in KINDS {
        let crd = kind.crd();
        let (spec, names) = (&crd.spec, &crd.spec.names);
        assert_eq!(
            crd.metadata.name,
            Some(format!("{}.{}", names.plural, spec.group))
        );
        assert_eq!(names.singular.as_deref(), Some(kind.name.to_lowercase().as_str()));
        assert_eq!(spec.versions.len(), 1);
        let written_with_the_object = matches!(spec.group.as_str(), "velero.io" | "crunchydata.com");
        assert_eq!(
            kind.has_status_resource(),
            !written_with_the_object,
            "{}",
            kind.name
        );
        let cluster_scoped = matches!(kind.name, "BackupTool" | "BackupRepo" | "StorageProvider");
        assert_eq!(spec.scope == "Cluster", cluster_scoped, "{}", kind.name);
        let ages = columns(kind)
            .iter()
            .filter(|path| *path == ".metadata.creationTimestamp")
            .count();
        assert!(ages >= 1, "{}: no column for the age", kind.name);
    }
}

fn columns(kind: &Kind) -> Vec<String> {
    kind.version()
        .additional_printer_columns
        .unwrap_or_default()
        .into_iter()
        .map(|c| c.json_path)
        .collect()
}

#[test]
fn short_names_are_unique() {
    let mut seen = BTreeSet::new();
    for kind in KINDS {
        for name in kind.crd().spec.names.short_names.unwrap_or_default() {
            assert!(seen.insert(name.clone()), "{name} of {} is taken", kind.name);
        }
    }
}

/// The fixture was derived from the definitions that Velero 1.18 installs. A difference is either a mistake here, or a new
/// release of Velero to follow.
#[test]
fn velero_kinds_are_those_of_velero() {
    let path = fixtures().join("velero-1.18.outline.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let expected: BTreeSet<_> = text.lines().collect();
    let ours: Vec<_> = KINDS
        .iter()
        .map(Kind::crd)
        .filter(|crd| crd.spec.group == "velero.io")
        .flat_map(|crd| outline(&crd))
        .collect();
    let ours: BTreeSet<_> = ours.iter().map(String::as_str).collect();
    let missing: Vec<_> = expected.difference(&ours).collect();
    let added: Vec<_> = ours.difference(&expected).collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "only in Velero: {missing:#?}\nonly here: {added:#?}"
    );
}
