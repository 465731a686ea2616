//! What is left of an object for a controller that does not read all of it: parts lent from it, put together anew and written
//! down at once, since a copy of them as values would only be printed and dropped. Holds nothing.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

/// What a reader needs of an object; nothing where the object is none of its business.
pub type Lean = fn(&Value) -> Option<Lent<'_>>;

/// A value that is made of parts of another.
#[derive(Debug)]
pub enum Lent<'a> {
    Part(&'a Value),
    Text(&'a str),
    Object(Vec<(&'static str, Lent<'a>)>),
    List(Vec<Lent<'a>>),
    /// One that had to be made.
    Made(Value),
}

impl<'a> Lent<'a> {
    /// An object of these fields.
    pub fn object<const FIELDS: usize>(fields: [(&'static str, Lent<'a>); FIELDS]) -> Lent<'a> {
        Lent::Object(fields.into())
    }

    /// Of an object's metadata these fields, as far as they are there.
    pub fn metadata(object: &'a Value, fields: &[&'static str]) -> Lent<'a> {
        Lent::fields(&object["metadata"], fields)
    }

    /// Of a value these fields, as far as they are there.
    pub fn fields(value: &'a Value, fields: &[&'static str]) -> Lent<'a> {
        Lent::Object(fields.iter().filter_map(|field| Some((*field, Lent::Part(value.get(field)?)))).collect())
    }

    /// An object with another field, if there is one.
    pub fn with(mut self, field: Option<(&'static str, Lent<'a>)>) -> Lent<'a> {
        if let Lent::Object(fields) = &mut self {
            fields.extend(field);
        }
        self
    }

    /// The JSON.
    pub fn text(&self) -> Box<str> {
        // Printing values to memory cannot fail.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

impl Serialize for Lent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Lent::Part(value) => value.serialize(serializer),
            Lent::Text(text) => serializer.serialize_str(text),
            Lent::Made(value) => value.serialize(serializer),
            Lent::List(items) => serializer.collect_seq(items),
            Lent::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_lent_is_written() {
        let object = json!({"metadata": {"name": "a\"", "labels": {"x": "y"}}, "spec": [1, 2]});
        let lent = Lent::object([
            ("metadata", Lent::metadata(&object, &["labels", "uid", "name"])),
            ("spec", Lent::List(vec![Lent::Part(&object["spec"][1]), Lent::Text("t"), Lent::Made(json!({"z": null}))])),
        ]);
        let want = r#"{"metadata":{"labels":{"x":"y"},"name":"a\""},"spec":[2,"t",{"z":null}]}"#;
        assert_eq!(&*lent.text(), want);
    }
}
