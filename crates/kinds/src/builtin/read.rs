//! Reading and writing plain JSON objects as Go reads and writes its structs: what is absent is zero. Knows no kind.

use api::meta;
use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Reading by dotted paths of field names; absent and `null` are the zero value.
pub trait Read {
    /// The value at the path, `null` where there is none. An empty path is the value itself.
    fn at(&self, path: &str) -> &Value;

    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }

    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }

    fn int(&self, path: &str) -> i64 {
        self.opt_int(path).unwrap_or_default()
    }

    fn opt_int(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }

    fn flag(&self, path: &str) -> bool {
        self.at(path).as_bool().unwrap_or_default()
    }

    fn list(&self, path: &str) -> &[Value] {
        self.at(path).items()
    }

    /// The items of a list; none where the value is no list.
    fn items(&self) -> &[Value];

    /// The entries of an object, in the order of their keys as Go's encoder has it; none where the value is no object.
    fn entries(&self) -> Vec<(&String, &Value)>;

    /// The value of one key, which may hold dots.
    fn key(&self, key: &str) -> &Value;

    /// No entries, no items, no value.
    fn is_nothing(&self) -> bool;
}

/// The names of a path. They are a few letters each: to look at one after the other is quicker than a search.
fn fields(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let path = rest?;
        let Some(dot) = path.bytes().position(|byte| byte == b'.') else { return rest.take() };
        rest = Some(&path[dot + 1..]);
        Some(&path[..dot])
    })
}

impl Read for Value {
    fn at(&self, path: &str) -> &Value {
        if path.is_empty() {
            return self;
        }
        fields(path).try_fold(self, |value, field| meta::get(value, field)).unwrap_or(&NULL)
    }

    fn items(&self) -> &[Value] {
        self.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn entries(&self) -> Vec<(&String, &Value)> {
        let mut entries: Vec<_> = self.as_object().into_iter().flatten().collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }

    fn key(&self, key: &str) -> &Value {
        meta::get(self, key).unwrap_or(&NULL)
    }

    fn is_nothing(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        }
    }
}

/// Writing by dotted paths of field names.
pub trait Write {
    /// The value at the path, where it is there.
    fn at_mut(&mut self, path: &str) -> Option<&mut Value>;

    /// The items of a list; none where there is none.
    fn list_mut(&mut self, path: &str) -> &mut [Value];

    /// Sets a field; objects on the way are made. Does nothing where something on the way is no object.
    fn set(&mut self, path: &str, value: impl Into<Value>);

    /// As [`Write::set`], where the field is absent, `null`, `""`, `0` or `false`.
    fn set_default(&mut self, path: &str, value: impl Into<Value>);

    /// As [`Write::set`], where the field is absent or `null`: for Go's pointers.
    fn set_if_absent(&mut self, path: &str, value: impl Into<Value>);

    fn remove(&mut self, path: &str);
}

impl Write for Value {
    fn at_mut(&mut self, path: &str) -> Option<&mut Value> {
        fn below<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
            meta::field_mut(value.as_object_mut()?, field)
        }
        fields(path).try_fold(self, below).filter(|value| !value.is_null())
    }

    fn list_mut(&mut self, path: &str) -> &mut [Value] {
        self.at_mut(path).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
    }

    fn set(&mut self, path: &str, value: impl Into<Value>) {
        let (parents, field) = path.rsplit_once('.').map_or((None, path), |(parents, field)| (Some(parents), field));
        let mut target = self;
        for parent in parents.into_iter().flat_map(fields) {
            let Some(object) = target.as_object_mut() else { return };
            let next = object.entry(parent).or_insert(Value::Null);
            if next.is_null() {
                *next = Value::Object(Map::new());
            }
            target = next;
        }
        if let Some(object) = target.as_object_mut() {
            object.insert(field.to_owned(), value.into());
        }
    }

    fn set_default(&mut self, path: &str, value: impl Into<Value>) {
        let zero = match self.at(path) {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(flag) => !flag,
            _ => false,
        };
        if zero {
            self.set(path, value);
        }
    }

    fn set_if_absent(&mut self, path: &str, value: impl Into<Value>) {
        if !self.has(path) {
            self.set(path, value);
        }
    }

    fn remove(&mut self, path: &str) {
        let (parent, field) = match path.rsplit_once('.') {
            Some((parents, field)) => (self.at_mut(parents), field),
            None => (Some(self), path),
        };
        if let Some(object) = parent.and_then(Value::as_object_mut) {
            object.shift_remove(field);
        }
    }
}
