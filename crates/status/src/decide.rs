//! The decision: pure, no client, no clock.

use std::fmt;

use jiff::Timestamp;
use kube::Resource;
use serde_json::{Map, Value};

use crate::condition::{ConditionStatus, Wish, merge};
use crate::contract::{StatusOf, is_legal};
use crate::document::{apply, diff, strip_nulls};
use crate::schema::{Dropped, SchemaFacts};

/// The whole status that a controller wants for the fields that are its own.
///
/// A field that the status type has and that is absent here is removed from the object, with these exceptions:
/// [`StatusOf::PROGRESS_FIELD`] stays as it is, and `conditions` is taken from the wishes, never from the status.
pub struct Wanted<K: StatusOf> {
    /// The status, without conditions.
    pub status: K::Status,
    /// The conditions, in the order in which new ones are to appear. The last wish for a type counts.
    pub conditions: Vec<Wish<K::Condition, K::Reason>>,
}

impl<K: StatusOf> Wanted<K> {
    /// Wants this status and none of the controller's own conditions.
    pub fn new(status: K::Status) -> Self {
        Self {
            status,
            conditions: Vec::new(),
        }
    }

    /// Wants this condition too.
    #[must_use]
    pub fn condition(
        mut self,
        kind: K::Condition,
        status: impl Into<ConditionStatus>,
        reason: K::Reason,
        message: impl Into<String>,
    ) -> Self {
        self.conditions.push(Wish {
            kind,
            status: status.into(),
            reason,
            message: message.into(),
        });
        self
    }
}

impl<K: StatusOf> Clone for Wanted<K> {
    fn clone(&self) -> Self {
        Self {
            status: self.status.clone(),
            conditions: self.conditions.clone(),
        }
    }
}

impl<K: StatusOf> fmt::Debug for Wanted<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("status", &self.status)
            .field("conditions", &self.conditions)
            .finish()
    }
}

/// What is to be done about a status.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Decision<P> {
    /// The object already says so.
    Unchanged,
    /// The object has to be patched.
    Patch(StatusPatch),
    /// The object must not be changed in this way.
    Refused(Refusal<P>),
}

/// Why a status was not written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal<P> {
    /// The phase may not change so. Usually another pass has finished the object meanwhile.
    #[error("the phase may not change from {from:?} to {to:?}")]
    Edge {
        /// The phase of the object.
        from: P,
        /// The phase that was wanted.
        to: P,
    },
    /// The status already describes a newer specification than the pass has seen.
    #[error("the status describes generation {observed}, this pass has seen {seen}")]
    Stale {
        /// The generation that the status describes.
        observed: i64,
        /// The generation that the pass has read.
        seen: i64,
    },
    /// The status type cannot be written as a JSON object, or cannot hold what it should: a mistake in the program.
    #[error("the status cannot be expressed: {0}")]
    Inexpressible(String),
}

/// A merge patch for a status.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusPatch(Value);

impl StatusPatch {
    pub(crate) fn new(status: Value) -> Self {
        Self(status)
    }

    /// The patch of the status alone: a member that is null is to be removed.
    #[must_use]
    pub fn status(&self) -> &Value {
        &self.0
    }

    /// The body of the request. It names the resourceVersion that was read, so that the API server refuses it if
    /// anybody else has written since, and nothing but that and the status.
    #[must_use]
    pub fn body(&self, resource_version: &str) -> Value {
        serde_json::json!({ "metadata": { "resourceVersion": resource_version }, "status": self.0 })
    }

    /// The object as it would be with the patch applied, for simulations in tests of a controller.
    pub fn applied<K: StatusOf>(&self, live: &K::Object) -> Result<K::Object, serde_json::Error> {
        let mut object = serde_json::to_value(live)?;
        apply(&mut object, &serde_json::json!({ "status": self.0 }));
        serde_json::from_value(object)
    }
}

/// A decision, and what it had to leave out.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Verdict<P> {
    /// What is to be done.
    pub decision: Decision<P>,
    /// Wanted fields that the installed definition does not keep.
    pub dropped: Dropped,
    /// The status as it has to be in the end, for a comparison with what comes back.
    pub(crate) target: Value,
}

/// Decides what is to be done so that `live` says what is `wanted`, believing that the definition keeps every field.
///
/// `generation` is the one that the pass *read* (`metadata.generation` of the object it started with), or `None` where it
/// must not be recorded because the kind has no status subresource. `now` is the pass's reading of the clock.
///
/// Deciding again after the patch is applied gives [`Decision::Unchanged`].
pub fn decide<K: StatusOf>(
    live: &K::Object,
    wanted: &Wanted<K>,
    generation: Option<i64>,
    now: Timestamp,
) -> Decision<K::Phase> {
    decide_within(&SchemaFacts::unknown(), live, wanted, generation, now).decision
}

/// Decides as [`decide`] does, with regard to what the installed definition keeps.
pub fn decide_within<K: StatusOf>(
    facts: &SchemaFacts,
    live: &K::Object,
    wanted: &Wanted<K>,
    generation: Option<i64>,
    now: Timestamp,
) -> Verdict<K::Phase> {
    let refuse = |refusal| Verdict {
        decision: Decision::Refused(refusal),
        dropped: Dropped::default(),
        target: Value::Null,
    };
    let from = K::phase(K::status(live));
    let to = K::phase(Some(&wanted.status));
    if !is_legal::<K>(&from, &to, live.meta().deletion_timestamp.is_some()) {
        return refuse(Refusal::Edge { from, to });
    }
    let (current, mut target) = match documents::<K>(live, wanted) {
        Ok(documents) => documents,
        Err(error) => return refuse(Refusal::Inexpressible(error)),
    };

    if let (true, Some(seen)) = (K::OBSERVED_GENERATION, generation) {
        let observed = current.get(OBSERVED).and_then(Value::as_i64);
        // A status restored from elsewhere may claim a generation that this object never had; that is no news.
        if let Some(observed) = observed.filter(|o| *o > seen && Some(*o) <= live.meta().generation) {
            return refuse(Refusal::Stale { observed, seen });
        }
        target.insert(OBSERVED.into(), seen.into());
    } else if K::OBSERVED_GENERATION {
        keep(&mut target, &current, OBSERVED);
    }

    let list = current
        .get(CONDITIONS)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let conditions = merge(list, &wanted.conditions, K::CONDITIONS, generation, now);
    if current.contains_key(CONDITIONS) || !conditions.is_empty() {
        target.insert(CONDITIONS.into(), conditions.into());
    }

    let mut current = Value::Object(current);
    let mut target = Value::Object(target);
    if let Err(error) = is_expressible::<K>(&target) {
        return refuse(Refusal::Inexpressible(error));
    }
    let dropped = facts.fit(&mut target, Some(&current));
    // A field that is not kept may still be seen in the object: as the empty list that the status type makes of it.
    facts.fit(&mut current, None);
    let decision = match diff(&current, &target) {
        Some(patch) => Decision::Patch(StatusPatch::new(patch)),
        None => Decision::Unchanged,
    };
    Verdict {
        decision,
        dropped,
        target,
    }
}

const CONDITIONS: &str = "conditions";
const OBSERVED: &str = "observedGeneration";

type Document = Map<String, Value>;

/// The live status and the wanted one without conditions, as JSON objects.
fn documents<K: StatusOf>(live: &K::Object, wanted: &Wanted<K>) -> Result<(Document, Document), String> {
    let current = K::status(live).map_or_else(|| Ok(Map::new()), document)?;
    let mut target = document(&wanted.status)?;
    target.remove(CONDITIONS);
    if let Some(progress) = K::PROGRESS_FIELD.filter(|field| !target.contains_key(*field)) {
        keep(&mut target, &current, progress);
    }
    Ok((current, target))
}

/// A status as a JSON object without null members.
pub(crate) fn document<S: serde::Serialize>(status: &S) -> Result<Map<String, Value>, String> {
    let mut value = serde_json::to_value(status).map_err(|error| error.to_string())?;
    strip_nulls(&mut value);
    match value {
        Value::Object(map) => Ok(map),
        _ => Err("it is not a JSON object".to_owned()),
    }
}

fn keep(target: &mut Map<String, Value>, current: &Map<String, Value>, field: &str) {
    match current.get(field) {
        Some(value) => target.insert(field.to_owned(), value.clone()),
        None => target.remove(field),
    };
}

/// Whether the status type can hold the document: a field it lacks would look missing for ever, and be sent for ever.
fn is_expressible<K: StatusOf>(target: &Value) -> Result<(), String> {
    let typed: K::Status = serde_json::from_value(target.clone()).map_err(|error| error.to_string())?;
    let held = document(&typed)?;
    match target
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, value)| held.get(*key) != Some(*value))
    {
        Some((key, _)) => Err(format!("the status type cannot hold {key}")),
        None => Ok(()),
    }
}
