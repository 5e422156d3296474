//! JSON documents and merge patches (RFC 7386), pure.

use serde_json::{Map, Value};

/// Removes members that are null, everywhere: in a merge patch a null deletes, so it cannot be stored anyway.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The merge patch that turns `live` into `want`, or `None` if they are equal. Neither may have null members.
pub(crate) fn diff(live: &Value, want: &Value) -> Option<Value> {
    if live == want {
        return None;
    }
    let (Value::Object(live), Value::Object(want)) = (live, want) else {
        return Some(want.clone());
    };
    let mut patch = Map::new();
    for (key, wanted) in want {
        let change = match live.get(key) {
            Some(current) => diff(current, wanted),
            None => Some(wanted.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    for key in live.keys().filter(|key| !want.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// Applies a merge patch, as the API server does.
pub(crate) fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(members) = target {
        for (key, change) in changes {
            if change.is_null() {
                members.remove(key);
            } else {
                apply(members.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
    }
}
