//! Typed conditions, and how they are merged into the list that an object has.

use std::fmt::Debug;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A word from a closed set: a condition's type or reason.
///
/// Implemented for every enum that derives `Clone`, `Copy`, `Debug` and `strum::IntoStaticStr`.
pub trait Token: Copy + Debug + Into<&'static str> + Send + Sync + 'static {
    /// The word, CamelCase as Kubernetes has it.
    fn token(self) -> &'static str {
        self.into()
    }
}

impl<T: Copy + Debug + Into<&'static str> + Send + Sync + 'static> Token for T {}

/// For kinds without conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum NoCondition {}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Nobody can tell yet.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition that a controller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish<C, R> {
    /// The type.
    pub kind: C,
    /// The status.
    pub status: ConditionStatus,
    /// The reason, one CamelCase word.
    pub reason: R,
    /// A sentence for people. Cut at [`MESSAGE_LIMIT`] characters, since the API server would refuse the whole status.
    pub message: String,
}

/// How many characters the message of a condition may have.
pub const MESSAGE_LIMIT: usize = 32_768;

/// Merges wishes into the live list: wished conditions are set, owned ones that nobody wishes are removed, others kept.
///
/// The transition time moves only when a status flips. Order is kept, new conditions come last.
pub(crate) fn merge<C: Token, R: Token>(
    live: &[Value],
    wishes: &[Wish<C, R>],
    owned: &[C],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Value> {
    let type_of = |item: &Value| item.get("type").and_then(Value::as_str).map(str::to_owned);
    let mut merged: Vec<Value> = Vec::with_capacity(live.len() + wishes.len());
    let mut seen: Vec<&'static str> = Vec::new();
    for item in live {
        let name = type_of(item);
        let is = |token: &'static str| name.as_deref() == Some(token);
        // The last wish for a type counts, as if they had been set one after the other.
        if let Some(wish) = wishes.iter().rev().find(|wish| is(wish.kind.token())) {
            // A list that nobody merged by type may hold a type twice.
            if !seen.contains(&wish.kind.token()) {
                seen.push(wish.kind.token());
                merged.push(set(Some(item), wish, generation, now));
            }
        } else if !owned.iter().any(|kind| is(kind.token())) {
            merged.push(item.clone());
        }
    }
    for wish in wishes {
        if !seen.contains(&wish.kind.token()) {
            seen.push(wish.kind.token());
            let last = wishes
                .iter()
                .rev()
                .find(|other| other.kind.token() == wish.kind.token());
            merged.push(set(None, last.unwrap_or(wish), generation, now));
        }
    }
    merged
}

fn set<C: Token, R: Token>(
    live: Option<&Value>,
    wish: &Wish<C, R>,
    generation: Option<i64>,
    now: Timestamp,
) -> Value {
    let mut item = live.and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    let status: &'static str = wish.status.into();
    let flipped = item.get("status").and_then(Value::as_str) != Some(status);
    if flipped || !item.contains_key("lastTransitionTime") {
        item.insert("lastTransitionTime".into(), whole_seconds(now).to_string().into());
    }
    item.insert("type".into(), wish.kind.token().into());
    item.insert("status".into(), status.into());
    item.insert("reason".into(), wish.reason.token().into());
    item.insert("message".into(), cut(&wish.message).into());
    if let Some(generation) = generation {
        item.insert("observedGeneration".into(), generation.into());
    }
    Value::Object(item)
}

/// The API server keeps whole seconds only; anything finer would differ from what it returns.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn cut(message: &str) -> String {
    if message.chars().count() <= MESSAGE_LIMIT {
        return message.to_owned();
    }
    message.chars().take(MESSAGE_LIMIT - 1).chain(['…']).collect()
}
