//! Small operations on JSON.

use serde_json::Value;

/// Sets the value at a JSON pointer; the parent must exist.
pub fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = parent(object, pointer);
    match parent {
        Value::Object(map) => drop(map.insert(key, value)),
        Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value,
        other => panic!("{pointer}: the parent is {other}"),
    }
}

/// Removes the property at a JSON pointer; it must exist.
pub fn remove(object: &mut Value, pointer: &str) {
    let (parent, key) = parent(object, pointer);
    let removed = parent.as_object_mut().and_then(|map| map.remove(&key));
    assert!(removed.is_some(), "{pointer}: nothing to remove");
}

fn parent<'a>(object: &'a mut Value, pointer: &str) -> (&'a mut Value, String) {
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
    let key = key.replace("~1", "/").replace("~0", "~");
    (
        object
            .pointer_mut(parent)
            .unwrap_or_else(|| panic!("{pointer}: no parent")),
        key,
    )
}

/// The places where two values differ, each with both values.
pub fn differences(expected: &Value, got: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", expected, got, &mut found);
    found
}

fn compare(path: &str, expected: &Value, got: &Value, found: &mut Vec<String>) {
    match (expected, got) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<_> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = format!("{path}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(&path, a, b, found),
                    (Some(a), None) => found.push(format!("{path}: {a} is missing")),
                    (None, b) => found.push(format!("{path}: {} was added", b.unwrap_or(&Value::Null))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}/{index}"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path}: {a} became {b}")),
    }
}
