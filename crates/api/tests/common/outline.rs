//! A definition as lines of text, one for each property: what a client can notice, without the descriptions.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// The lines of a definition.
pub fn outline(crd: &CustomResourceDefinition) -> Vec<String> {
    let crd = serde_json::to_value(crd).expect("a definition is JSON");
    let (names, version) = (&crd["spec"]["names"], &crd["spec"]["versions"][0]);
    let kind = text(&names["kind"]);
    let status = if version.pointer("/subresources/status").is_some() {
        "yes"
    } else {
        "no"
    };
    let mut lines = vec![format!(
        "{kind} {}/{} {} {} status-resource={status}",
        text(&crd["spec"]["group"]),
        text(&version["name"]),
        text(&names["plural"]),
        text(&crd["spec"]["scope"]),
    )];
    for column in version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten()
    {
        lines.push(format!(
            "{kind} column {}: {} {} {} {}",
            text(&column["name"]),
            text(&column["type"]),
            column["format"].as_str().unwrap_or("-"),
            text(&column["jsonPath"]),
            column["priority"].as_i64().unwrap_or(0),
        ));
    }
    walk(
        &kind,
        ".",
        &version["schema"]["openAPIV3Schema"],
        false,
        &mut lines,
    );
    lines
}

fn walk(kind: &str, path: &str, schema: &Value, required: bool, lines: &mut Vec<String>) {
    let mut line = format!("{kind} {path}: {}", schema["type"].as_str().unwrap_or("any"));
    if let Some(format) = schema["format"].as_str() {
        let _ = write!(line, " {format}");
    }
    for (word, set) in [
        ("required", required),
        ("nullable", schema["nullable"] == true),
        ("open", schema["x-kubernetes-preserve-unknown-fields"] == true),
    ] {
        if set {
            let _ = write!(line, " {word}");
        }
    }
    for (word, keyword) in [
        ("map", "x-kubernetes-map-type"),
        ("list", "x-kubernetes-list-type"),
    ] {
        if let Some(value) = schema[keyword].as_str() {
            let _ = write!(line, " {word}={value}");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().map(text).collect();
        let _ = write!(line, " enum={}", words.join("|"));
    }
    for keyword in [
        "default",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
    ] {
        if let Some(value) = schema.get(keyword) {
            let _ = write!(line, " {keyword}={value}");
        }
    }
    lines.push(line);
    let mut properties: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    properties.sort_by_key(|(name, _)| name.as_str());
    for (name, property) in properties {
        let required = schema["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|n| n == name));
        let path = format!("{}.{name}", path.trim_end_matches('.'));
        walk(kind, &path, property, required, lines);
    }
    if schema["items"].is_object() {
        walk(kind, &format!("{path}[]"), &schema["items"], false, lines);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            kind,
            &format!("{path}{{}}"),
            &schema["additionalProperties"],
            false,
            lines,
        );
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
