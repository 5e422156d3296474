//! Just enough of an API server for properties: versions, merge patches and pruning. The real one judges in
//! `tests/control_plane`.

use serde_json::{Value, json};

use super::Parcel;
use crate::document::{apply, strip_nulls};
use crate::schema::SchemaFacts;

pub(super) struct Server {
    pub(super) object: Value,
    version: u64,
    /// What the installed definition keeps.
    pub(super) installed: SchemaFacts,
    /// Defaults of the installed definition.
    pub(super) defaults: Value,
    pub(super) writes: u32,
}

impl Server {
    pub(super) fn new(status: &Value) -> Self {
        let object = json!({
            "apiVersion": "status.holdfast.test/v1",
            "kind": "Parcel",
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 3, "resourceVersion": "1" },
            "spec": { "contents": "books" },
            "status": status,
        });
        Self {
            object,
            version: 1,
            installed: SchemaFacts::unknown(),
            defaults: json!({}),
            writes: 0,
        }
    }

    pub(super) fn read(&self) -> Parcel {
        serde_json::from_value(self.object.clone()).unwrap()
    }

    /// Takes a patch, or refuses it for a conflict.
    pub(super) fn patch(&mut self, body: &Value) -> bool {
        if body["metadata"]["resourceVersion"] != self.object["metadata"]["resourceVersion"] {
            return false;
        }
        self.writes += 1;
        let before = self.object["status"].clone();
        apply(&mut self.object, &json!({ "status": body["status"] }));
        let status = &mut self.object["status"];
        strip_nulls(status);
        self.installed.fit(status, None);
        for (key, default) in self.defaults.as_object().unwrap() {
            if status.get(key).is_none() {
                status[key] = default.clone();
            }
        }
        if *status != before {
            self.version += 1;
            self.object["metadata"]["resourceVersion"] = self.version.to_string().into();
        }
        true
    }
}
