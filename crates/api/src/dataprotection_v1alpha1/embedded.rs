//! Schemas of parts that the core API owns: environment, resources, volumes.
//!
//! The API server checks what every release agrees on and keeps the rest, and Rust keeps these parts whole: a volume
//! whose source got lost on the way would become an empty directory. What is wrong further inside is refused when the
//! pod is made.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Environment variables of a container.
pub(super) fn env(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["name"],
        "properties": {
            "name": text("Name of the variable."),
            "value": text("Value of the variable; $(NAME) stands for the value of an earlier one."),
            "valueFrom": object("Where the value comes from, instead of value: a key of a Secret or ConfigMap, or a field of the pod."),
        },
    }})
}

/// Sources of environment variables of a container.
pub(super) fn env_from(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "prefix": text("Put before the name of each variable."),
            "configMapRef": object("Name of a ConfigMap whose keys become variables, and whether it may be missing."),
            "secretRef": object("Name of a Secret whose keys become variables, and whether it may be missing."),
        },
    }})
}

/// Requests and limits of a container.
pub(super) fn resources(_: &mut SchemaGenerator) -> Schema {
    let amounts = |description: &str| {
        json!({ "type": "object", "description": description, "additionalProperties": {
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": super::QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": true,
        }})
    };
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "limits": amounts("What the container may use at most, by resource, such as cpu or memory."),
            "requests": amounts("What is reserved for the container, by resource; the limits when absent."),
        },
    })
}

/// Volumes of a pod, at least one.
pub(super) fn volumes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["name"],
        "properties": { "name": text("Name of the volume within the pod.") },
    }})
}

/// Volume mounts of a container, at least one.
pub(super) fn volume_mounts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "minItems": 1, "items": {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["mountPath", "name"],
        "properties": {
            "mountPath": text("Directory of the container that the volume appears at."),
            "name": text("Name of the volume within the pod."),
            "readOnly": { "type": "boolean", "description": "Whether the container may only read the volume." },
            "subPath": text("Directory of the volume to mount; its root when absent."),
        },
    }})
}

/// A selector over labels.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels, with their values, that an object must have.",
                "additionalProperties": { "type": "string" },
            },
            "matchExpressions": {
                "type": "array",
                "description": "Further conditions, all of which an object must meet.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": text("Name of the label."),
                        "operator": text("How the label is compared: In, NotIn, Exists or DoesNotExist."),
                        "values": {
                            "type": "array",
                            "description": "Values to compare with; none for Exists and DoesNotExist.",
                            "items": { "type": "string" },
                        },
                    },
                },
            },
        },
    })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn object(description: &str) -> Value {
    json!({ "type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true })
}
