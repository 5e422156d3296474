//! Schemas of parts that the core API owns: environment, resources, volumes.
//!
//! The API server checks them as it checks a pod, but keeps what it does not know, and Rust keeps them whole: a volume
//! whose source got lost on the way would become an empty directory. Descriptions are left out, for they would be most
//! of the definition.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use crate::schema::structural_schema;

/// Environment variables of a container.
pub(super) fn env(_: &mut SchemaGenerator) -> Schema {
    list_of::<EnvVar>(0)
}

/// Sources of environment variables of a container.
pub(super) fn env_from(_: &mut SchemaGenerator) -> Schema {
    list_of::<EnvFromSource>(0)
}

/// Requests and limits of a container.
pub(super) fn resources(_: &mut SchemaGenerator) -> Schema {
    Schema::from(bare::<ResourceRequirements>())
}

/// Volumes of a pod, at least one.
pub(super) fn volumes(_: &mut SchemaGenerator) -> Schema {
    list_of::<Volume>(1)
}

/// Volume mounts of a container, at least one.
pub(super) fn volume_mounts(_: &mut SchemaGenerator) -> Schema {
    list_of::<VolumeMount>(1)
}

/// A selector over labels.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    Schema::from(bare::<LabelSelector>())
}

fn list_of<T: JsonSchema>(min_items: u32) -> Schema {
    let mut list = json_schema!({ "type": "array", "items": Value::Object(bare::<T>()) });
    if min_items > 0 {
        list.insert("minItems".into(), min_items.into());
    }
    list
}

fn bare<T: JsonSchema>() -> Map<String, Value> {
    match without_descriptions(structural_schema::<T>()) {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

/// The schema without descriptions, with unknown fields kept at every level.
fn without_descriptions(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else {
        return schema;
    };
    schema.remove("description");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            *property = without_descriptions(property.take());
        }
        schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            *inner = without_descriptions(inner.take());
        }
    }
    Value::Object(schema)
}
