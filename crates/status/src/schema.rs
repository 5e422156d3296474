//! What the installed definition of a kind keeps of a status, pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::contract::Target;

/// What the installed definition keeps: read from it once ([`SchemaFacts::read`]), or learned from what came back.
///
/// Foreign definitions lag behind: they may lack `conditions` or `observedGeneration`, and the API server then drops
/// ("prunes") these fields without a word. Comparing against them would rewrite the status for ever.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SchemaFacts {
    /// The schema of `status`; `None` if it is not known.
    status: Option<Value>,
    /// Whether the definition has a status subresource; `None` if it is not known.
    subresource: Option<bool>,
    /// Paths that were sent and did not come back.
    pruned: BTreeSet<String>,
    /// Paths that were deleted and came back.
    defaulted: BTreeSet<String>,
}

/// Status fields that were wanted and that the installed definition does not keep.
///
/// Whoever wrote them should say the same by an Event, since nobody will see them in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped(BTreeSet<String>);

impl Dropped {
    /// Whether nothing was dropped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the conditions were dropped as a whole.
    #[must_use]
    pub fn conditions(&self) -> bool {
        self.contains("conditions")
    }

    /// Whether this field was dropped: `progress`, `progress.bytesDone`, `conditions[].observedGeneration`.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// The paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(crate) fn into_paths(self) -> BTreeSet<String> {
        self.0
    }

    pub(crate) fn extend(&mut self, other: impl IntoIterator<Item = String>) {
        self.0.extend(other);
    }
}

/// What an answer taught that was not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lesson {
    /// Sent, and not there.
    pub(crate) pruned: BTreeSet<String>,
    /// Deleted, and there.
    pub(crate) defaulted: BTreeSet<String>,
    /// Sent, and there with another value. Not remembered: the next value may be kept.
    pub(crate) altered: BTreeSet<String>,
}

impl SchemaFacts {
    /// Nothing is known: everything is believed to be kept until an answer shows otherwise.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Reads the facts from a `CustomResourceDefinition` (apiextensions.k8s.io/v1) as JSON. `None` if it does not have
    /// this version.
    #[must_use]
    pub fn from_definition(definition: &Value, version: &str) -> Option<Self> {
        let versions = definition.pointer("/spec/versions")?.as_array()?;
        let version = versions
            .iter()
            .find(|v| v.get("name").and_then(Value::as_str) == Some(version))?;
        let root = version.pointer("/schema/openAPIV3Schema");
        let nothing = || Value::Object(Map::new());
        let status = root.map(|root| match root.pointer("/properties/status") {
            Some(status) => status.clone(),
            // A root that keeps what it does not know keeps a status as well.
            None if keeps_unknown(root) => serde_json::json!({ PRESERVE: true }),
            None => nothing(),
        });
        Some(Self {
            status: Some(status.unwrap_or_else(nothing)),
            subresource: Some(version.pointer("/subresources/status").is_some()),
            ..Self::default()
        })
    }

    /// Whether the definition could be read.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.status.is_some()
    }

    /// Where the installed definition wants the status written, if it is known.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        self.subresource
            .map(|has| if has { Target::Subresource } else { Target::Main })
    }

    /// Whether the status field at this path is kept, as far as is known: `conditions`, `progress.bytesDone`.
    #[must_use]
    pub fn keeps(&self, path: &str) -> bool {
        let mut probe = Value::from(0);
        for segment in path.rsplit('.') {
            let (name, is_list) = segment
                .strip_suffix("[]")
                .map_or((segment, false), |name| (name, true));
            let inner = if is_list { Value::Array(vec![probe]) } else { probe };
            probe = Value::Object(Map::from_iter([(name.to_owned(), inner)]));
        }
        self.fit(&mut probe, None).is_empty()
    }

    pub(crate) fn set_target(&mut self, target: Target) {
        self.subresource = Some(target == Target::Subresource);
    }

    /// Takes from `want` what is not kept, and gives it from `live` what cannot be deleted.
    pub(crate) fn fit(&self, want: &mut Value, live: Option<&Value>) -> Dropped {
        let mut dropped = Dropped::default();
        if let Some(schema) = &self.status {
            prune(want, schema, "", &mut dropped.0);
        }
        if !self.pruned.is_empty() || !self.defaulted.is_empty() {
            self.fit_learned(want, live, "", &mut dropped.0);
        }
        dropped
    }

    fn fit_learned(
        &self,
        want: &mut Value,
        live: Option<&Value>,
        path: &str,
        dropped: &mut BTreeSet<String>,
    ) {
        match want {
            Value::Object(members) => {
                members.retain(|key, member| {
                    let path = join(path, key);
                    let kept = !self.pruned.contains(&path);
                    if !kept && says_something(member) {
                        dropped.insert(path);
                    }
                    kept
                });
                for (key, current) in live.and_then(Value::as_object).into_iter().flatten() {
                    if !members.contains_key(key) && self.defaulted.contains(&join(path, key)) {
                        members.insert(key.clone(), current.clone());
                    }
                }
                for (key, member) in members {
                    self.fit_learned(
                        member,
                        live.and_then(|live| live.get(key)),
                        &join(path, key),
                        dropped,
                    );
                }
            }
            Value::Array(items) => {
                let path = format!("{path}[]");
                for (at, item) in items.iter_mut().enumerate() {
                    self.fit_learned(item, live.and_then(|live| live.get(at)), &path, dropped);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Compares what was sent with what came back, and remembers what is not kept. Returns what was not known before.
    ///
    /// `got` is the answer as it came, for a status type may put an empty string or list where there is nothing; `typed`
    /// is what the status type sees of it, for what it does not see is foreign.
    pub(crate) fn learn(&mut self, path: &str, sent: &Value, got: Option<&Value>, typed: &Value) -> Lesson {
        let mut lesson = Lesson::default();
        compare(sent, got, typed, path, &mut lesson);
        lesson.pruned.retain(|path| self.pruned.insert(path.clone()));
        lesson
            .defaulted
            .retain(|path| self.defaulted.insert(path.clone()));
        lesson
    }
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

fn keeps_unknown(schema: &Value) -> bool {
    schema.get(PRESERVE) == Some(&Value::Bool(true))
}

/// Pruning as the API server does it (structural schemas).
fn prune(value: &mut Value, schema: &Value, path: &str, dropped: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
            members.retain(|key, member| {
                let path = join(path, key);
                let property = schema
                    .get("properties")
                    .and_then(|properties| properties.get(key));
                let additional = schema.get("additionalProperties");
                match property.or(additional.filter(|additional| additional.is_object())) {
                    Some(inner) => prune(member, inner, &path, dropped),
                    None if additional == Some(&Value::Bool(true)) || keeps_unknown(schema) => {}
                    None if embedded && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") => {}
                    None => {
                        if says_something(member) {
                            dropped.insert(path);
                        }
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(items) => {
            let path = format!("{path}[]");
            if let Some(inner) = schema.get("items") {
                for item in items {
                    prune(item, inner, &path, dropped);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn compare(sent: &Value, got: Option<&Value>, typed: &Value, path: &str, lesson: &mut Lesson) {
    match (sent, got) {
        (_, None) => {
            lesson.pruned.insert(path.to_owned());
        }
        // A map whose members are all dropped: the next members would be dropped too.
        (sent, Some(got)) if !path.is_empty() && says_something(sent) && !says_something(got) => {
            lesson.pruned.insert(path.to_owned());
        }
        (Value::Object(sent), Some(Value::Object(got))) => {
            for (key, member) in sent {
                compare(
                    member,
                    got.get(key),
                    &typed[key.as_str()],
                    &join(path, key),
                    lesson,
                );
            }
            let is_back = |key: &&String| !sent.contains_key(*key) && typed.get(key.as_str()).is_some();
            lesson
                .defaulted
                .extend(got.keys().filter(is_back).map(|key| join(path, key)));
        }
        (Value::Array(sent), Some(Value::Array(got))) if sent.len() == got.len() => {
            for (at, (sent, got)) in sent.iter().zip(got).enumerate() {
                compare(sent, Some(got), &typed[at], &format!("{path}[]"), lesson);
            }
        }
        (sent, Some(got)) if sent != got => {
            lesson.altered.insert(path.to_owned());
        }
        (_, Some(_)) => {}
    }
}

/// Whether anything is lost with a value: an empty list is what many types make of no list.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
