//! RFC 6902 as Kubernetes' library applies it, which is more lenient than the standard and than other libraries: `replace`
//! makes what is missing, `copy` of nothing gives null, `test` for null holds of what is missing, indexes count from the
//! end when they are negative, and what stands in front of a path's first slash is not looked at. It takes apart every map on
//! the way and writes it with its keys sorted, which texts of errors show. Pure.

use serde_json::{Map, Value};

/// Most bytes that all `copy` operations of one patch add up to.
pub const COPIED_BYTES_MAX: usize = 3 << 20;

/// Why a patch was not applied. Kubernetes does not tell which operation failed.
#[derive(Debug, PartialEq)]
pub enum Failure {
    Rejected,
    /// The copies are too large together; their bytes.
    TooLarge(usize),
}

/// Applies the operations to a document, all or none.
pub fn apply(document: &Value, operations: &[Value]) -> Result<Value, Failure> {
    let mut new = document.clone();
    let mut copied = 0;
    for operation in operations {
        step(&mut new, operation, &mut copied)?;
    }
    Ok(new)
}

fn step(document: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), Failure> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Failure::Rejected);
    let value = || operation.get("value").cloned().unwrap_or_default();
    let path = text("path");
    match text("op")? {
        "add" => add(document, path?, value()),
        "remove" => remove(document, path?).map(drop),
        "replace" if path.as_ref().is_ok_and(|path| path.is_empty()) => match value() {
            root @ (Value::Object(_) | Value::Array(_)) => {
                *document = root;
                Ok(())
            }
            _ => Err(Failure::Rejected),
        },
        "replace" => replace(document, path?, value()),
        "move" => {
            let moved = remove(document, text("from")?)?;
            add(document, path?, moved)
        }
        "copy" => {
            let from = get(document, text("from")?)?;
            *copied += from.to_string().len();
            if *copied > COPIED_BYTES_MAX {
                return Err(Failure::TooLarge(*copied));
            }
            add(document, path?, from)
        }
        "test" => {
            let path = path?;
            let found = if path.is_empty() { document.clone() } else { get(document, path)? };
            if same(&found, &value()) { Ok(()) } else { Err(Failure::Rejected) }
        }
        _ => Err(Failure::Rejected),
    }
}

/// The container that a path leads to, and the last step into it.
fn place<'a>(document: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Failure> {
    let steps: Vec<String> = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let (last, way) = steps.split_last().ok_or(Failure::Rejected)?;
    let mut at = document;
    for step in way {
        at = match at {
            Value::Object(map) => {
                sort(map);
                map.get_mut(step).ok_or(Failure::Rejected)?
            }
            Value::Array(items) => {
                let at = index(step, items.len(), items.len())?;
                &mut items[at]
            }
            _ => return Err(Failure::Rejected),
        };
    }
    if let Value::Object(map) = at {
        sort(map);
    }
    match at {
        Value::Object(_) | Value::Array(_) => Ok((at, last.clone())),
        _ => Err(Failure::Rejected),
    }
}

/// A place in a list: below `end`, counted from the end of `length` where negative.
fn index(step: &str, length: usize, end: usize) -> Result<usize, Failure> {
    let given: i64 = step.parse().map_err(|_| Failure::Rejected)?;
    let length = i64::try_from(length).map_err(|_| Failure::Rejected)?;
    let at = if given < 0 { given + length } else { given };
    usize::try_from(at).ok().filter(|at| *at < end).ok_or(Failure::Rejected)
}

fn get(document: &mut Value, path: &str) -> Result<Value, Failure> {
    Ok(match place(document, path)? {
        (Value::Object(map), key) => map.get(&key).cloned().unwrap_or_default(),
        (Value::Array(items), key) => items[index(&key, items.len(), items.len())?].clone(),
        _ => return Err(Failure::Rejected),
    })
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    match place(document, path)? {
        (Value::Object(map), key) => put(map, key, value),
        (Value::Array(items), key) if key == "-" => items.push(value),
        (Value::Array(items), key) => {
            let at = index(&key, items.len() + 1, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return Err(Failure::Rejected),
    }
    Ok(())
}

/// Sorts a map by its keys. All operations but the first find it so, which is quicker seen than done again.
fn sort(map: &mut Map<String, Value>) {
    if !map.keys().is_sorted() {
        map.sort_keys();
    }
}

/// Sets a key of a map that is sorted and stays so.
fn put(map: &mut Map<String, Value>, key: String, value: Value) {
    if let Some(there) = map.get_mut(&key) {
        *there = value;
        return;
    }
    let at = map.keys().take_while(|other| **other < key).count();
    map.shift_insert(at, key, value);
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    match place(document, path)? {
        (Value::Object(map), key) => put(map, key, value),
        (Value::Array(items), key) => {
            let at = index(&key, items.len(), items.len())?;
            items[at] = value;
        }
        _ => return Err(Failure::Rejected),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Failure> {
    match place(document, path)? {
        (Value::Object(map), key) => map.shift_remove(&key).ok_or(Failure::Rejected),
        (Value::Array(items), key) => {
            let at = index(&key, items.len(), items.len())?;
            Ok(items.remove(at))
        }
        _ => Err(Failure::Rejected),
    }
}

/// Equal as JSON: the order of keys is free, and 1.0 is 1.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(operation: Value, want: Option<Value>) {
        let document = json!({"data": {"k": "1"}, "list": ["a", "b"]});
        assert_eq!(apply(&document, &[operation]).ok(), want);
    }

    #[test]
    fn patches_are_as_lenient_as_kubernetes() {
        let list = |items: Value| json!({"data": {"k": "1"}, "list": items});
        let data = |data: Value| json!({"data": data, "list": ["a", "b"]});
        check(json!({"op": "add", "path": "/list/-1", "value": "z"}), Some(list(json!(["a", "b", "z"]))));
        check(json!({"op": "add", "path": "/list/-", "value": "z"}), Some(list(json!(["a", "b", "z"]))));
        check(json!({"op": "remove", "path": "/list/-1"}), Some(list(json!(["a"]))));
        check(json!({"op": "remove", "path": "/list/2"}), None);
        check(json!({"op": "replace", "path": "/data/x", "value": "2"}), Some(data(json!({"k": "1", "x": "2"}))));
        check(json!({"op": "replace", "path": "/data/k"}), Some(data(json!({"k": null}))));
        check(json!({"op": "copy", "from": "/data/x", "path": "/data/y"}), Some(data(json!({"k": "1", "y": null}))));
        check(json!({"op": "move", "from": "/data/x", "path": "/data/y"}), None);
        check(json!({"op": "test", "path": "/data/x", "value": null}), Some(data(json!({"k": "1"}))));
        check(json!({"op": "test", "path": "/nothing/x", "value": null}), None);
        check(json!({"op": "replace", "path": "", "value": {}}), Some(json!({})));
        check(json!({"op": "remove", "path": ""}), None);
        check(json!({"op": "jump", "path": "/data"}), None);
        let before = json!({"z": {"b": 1, "a": 2}, "y": {"d": 1, "c": 2}});
        let after = apply(&before, &[json!({"op": "add", "path": "/z/aa", "value": 3})]).unwrap();
        assert_eq!(after.to_string(), r#"{"y":{"d":1,"c":2},"z":{"a":2,"aa":3,"b":1}}"#);
        check(json!(null), None);
    }
}
