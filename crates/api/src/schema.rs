//! From Rust types to the installed definition (CRD).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceSubresources, CustomResourceValidation, JSONSchemaProps,
};
use kube::CustomResourceExt;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub use crate::conditions::conditions;

/// What the derive of a kind cannot say about its definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether `/status` is a resource of its own. Where it is not, the status is written with the object.
    pub status_subresource: bool,
    /// Whether the API server refuses an object without `spec`.
    pub spec_required: bool,
}

impl Shape {
    /// `/status` is its own resource, `spec` may be missing: what controller-gen makes of most kinds.
    pub const SPEC_AND_STATUS: Self = Self {
        status_subresource: true,
        spec_required: false,
    };
    /// No `/status`, `spec` may be missing: Velero's kinds.
    pub const NO_STATUS_RESOURCE: Self = Self {
        status_subresource: false,
        spec_required: false,
    };
}

/// The definition of a kind: names, columns and scope from its derive, the schema by the rules of this module.
///
/// An `Option` is an optional property and not nullable unless the field says `nullable`; a default stands only where
/// a field has one; annotations that mean nothing to the API server are left out.
///
/// # Panics
/// When a schema written by hand is not one; the tests of this crate call this for every kind.
#[expect(
    clippy::expect_used,
    reason = "a schema that cannot be read is a defect that the crate's tests find"
)]
pub fn crd<K>(shape: Shape) -> CustomResourceDefinition
where
    K: CustomResourceExt + JsonSchema,
{
    let mut root = structural_schema::<K>();
    if !shape.spec_required
        && let Some(root) = root.as_object_mut()
    {
        root.remove("required");
    }
    let schema: JSONSchemaProps =
        serde_json::from_value(root).expect("the generated schema is a JSONSchemaProps");
    let mut crd = K::crd();
    for version in &mut crd.spec.versions {
        version.schema = Some(CustomResourceValidation {
            open_api_v3_schema: Some(schema.clone()),
        });
        if !shape.status_subresource {
            version.subresources = Some(CustomResourceSubresources::default());
        }
    }
    crd
}

/// The schema of a type as the API server takes it: one tree, structural, `Option` not nullable.
pub fn structural_schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    structural(settings.into_generator().into_root_schema_for::<T>().to_value())
}

/// Keywords that a schema may carry for other readers and the API server does not take.
const FOREIGN_KEYWORDS: &[&str] = &[
    "$schema",
    "$id",
    "title",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "uniqueItems",
];

fn structural(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else {
        // `true` stands for anything.
        return json!({ "x-kubernetes-preserve-unknown-fields": true });
    };
    unwrap_option(&mut schema);
    for keyword in FOREIGN_KEYWORDS {
        schema.remove(*keyword);
    }
    if let Some(value) = schema.remove("const") {
        schema.insert("enum".into(), json!([value]));
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = reflow(description);
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            *property = structural(property.take());
        }
    }
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            *inner = structural(inner.take());
        }
    }
    Value::Object(schema)
}

/// Removes the null that an `Option` adds: `type: [string, null]`, `anyOf: [.., null]`, `enum: [.., null]`.
fn unwrap_option(schema: &mut Map<String, Value>) {
    let is_null = |value: &Value| value.get("type").and_then(Value::as_str) == Some("null");
    let inner = match schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([inner, null]) if is_null(null) => Some(inner.clone()),
        _ => None,
    };
    if let Some(inner) = inner {
        schema.remove("anyOf");
        if let Value::Object(inner) = inner {
            for (keyword, value) in inner {
                // What the field says wins over what its type says.
                schema.entry(keyword).or_insert(value);
            }
        } else {
            schema.insert("x-kubernetes-preserve-unknown-fields".into(), Value::Bool(true));
        }
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
}

/// Joins the lines of a paragraph: `kubectl explain` breaks lines itself.
fn reflow(description: &str) -> String {
    description
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the macro makes more than these tests use"
)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{AnyObject, AnyValue, GoDuration, IntOrString, ObjectReference, SecretKeySelector};

    crate::open_enum! {
        /// A word.
        pub enum Word: enum {
            /// One.
            One = "one",
        }
    }

    /// Everything that a group may use.
    #[derive(Deserialize, Serialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    struct Sample {
        /// First line,
        /// second line.
        ///
        /// Second paragraph.
        text: String,
        /// Optional.
        #[schemars(length(max = 5), regex(pattern = "^a"))]
        note: Option<String>,
        /// Kept null.
        #[schemars(extend("nullable" = true))]
        map: Option<BTreeMap<String, String>>,
        /// With default.
        #[schemars(extend("default" = 3), range(min = 0, max = 9))]
        small: Option<i32>,
        /// Large.
        large: Option<i64>,
        /// Field's own words.
        word: Option<Word>,
        /// Reference.
        reference: Option<ObjectReference>,
        /// Secret.
        secret: Option<SecretKeySelector>,
        /// Object.
        object: Option<AnyObject>,
        /// Objects.
        objects: Option<Vec<AnyObject>>,
        /// Value.
        value: Option<AnyValue>,
        /// Number or text.
        port: Option<IntOrString>,
        /// Timeout.
        timeout: Option<GoDuration>,
    }

    #[test]
    fn the_schema_is_what_the_api_server_takes() {
        let schema = structural_schema::<Sample>();
        let at = |name: &str| schema["properties"][name].clone();
        assert_eq!(schema["required"], json!(["text"]));
        assert!(schema.get("title").is_none() && schema.get("$schema").is_none());
        assert_eq!(
            at("text")["description"],
            "First line, second line.\nSecond paragraph."
        );
        assert_eq!(
            at("note"),
            json!({"type": "string", "description": "Optional.", "maxLength": 5, "pattern": "^a"})
        );
        assert_eq!(
            at("map"),
            json!({"type": "object", "description": "Kept null.", "nullable": true,
                   "additionalProperties": {"type": "string"}})
        );
        assert_eq!(
            at("small"),
            json!({"type": "integer", "format": "int32", "description": "With default.", "default": 3,
                   "minimum": 0, "maximum": 9})
        );
        assert_eq!(at("large")["format"], "int64");
        assert_eq!(
            at("word"),
            json!({"type": "string", "enum": ["one"], "description": "Field's own words."})
        );
        assert_eq!(at("reference")["x-kubernetes-map-type"], "atomic");
        assert_eq!(at("reference")["description"], "Reference.");
        assert_eq!(at("secret")["required"], json!(["key"]));
        assert_eq!(at("secret")["properties"]["name"]["default"], "");
        assert_eq!(at("object")["type"], "object");
        assert_eq!(
            at("objects")["items"]["x-kubernetes-preserve-unknown-fields"],
            true
        );
        assert_eq!(at("value")["x-kubernetes-preserve-unknown-fields"], true);
        assert_eq!(at("port")["x-kubernetes-int-or-string"], true);
        assert_eq!(
            at("port")["anyOf"],
            json!([{"type": "integer"}, {"type": "string"}])
        );
        assert_eq!(
            at("timeout"),
            json!({"type": "string", "description": "Timeout."})
        );
    }
}
