//! Reads a few fields out of encoded JSON without decoding the rest. Never fails: what is absent or broken is null.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The values at JSON pointers (`/metadata/labels`), in the order they are asked for; null where there is none.
/// Pointers lead through objects only, and a `0` step takes the first item of a list.
pub fn pick(json: &[u8], pointers: &[&str]) -> Vec<Value> {
    let mut found = vec![Value::Null; pointers.len()];
    let wanted = pointers.iter().enumerate().map(|(i, p)| (i, p.trim_start_matches('/'))).collect();
    let mut decoder = serde_json::Deserializer::from_slice(json);
    // A broken document leaves nulls: the caller encoded it, so there is nobody to tell.
    let _ = Level { wanted, found: &mut found }.deserialize(&mut decoder);
    found
}

/// One object of the document: which pointers still lead through it.
struct Level<'a> {
    wanted: Vec<(usize, &'a str)>,
    found: &'a mut Vec<Value>,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Level<'a> {
    /// The pointers that go on below a step, and whether one of them ends there.
    fn below(&self, step: &str) -> (Vec<(usize, &'a str)>, Vec<usize>) {
        let mut deeper = Vec::new();
        let mut here = Vec::new();
        for (i, pointer) in &self.wanted {
            match pointer.split_once('/') {
                Some((first, rest)) if first == step => deeper.push((*i, rest)),
                None if *pointer == step => here.push(*i),
                _ => {}
            }
        }
        (deeper, here)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<str>>()? {
            let (deeper, here) = self.below(&key);
            if here.is_empty() && deeper.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else if here.is_empty() {
                map.next_value_seed(Level { wanted: deeper, found: &mut *self.found })?;
            } else {
                let value: Value = map.next_value()?;
                for (i, rest) in deeper {
                    let below = value.pointer(&format!("/{rest}")).cloned().unwrap_or_default();
                    self.found[i] = below;
                }
                for i in here {
                    self.found[i] = value.clone();
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (deeper, here) = self.below("0");
        let Some(first) = seq.next_element::<Value>()? else { return Ok(()) };
        for (i, rest) in deeper {
            self.found[i] = first.pointer(&format!("/{rest}")).cloned().unwrap_or_default();
        }
        for i in here {
            self.found[i] = first.clone();
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_picked() {
        let json = br#"{"kind":"Pod","metadata":{"uid":"u","labels":{"a":"b"}},"spec":{"nodeName":"n","x":[1]},"status":{"podIPs":[{"ip":"1"},{"ip":"2"}]}}"#;
        let got =
            pick(json, &["/metadata/uid", "/metadata/labels", "/spec/nodeName", "/spec/none", "/status/podIPs/0/ip"]);
        assert_eq!(got, [json!("u"), json!({"a": "b"}), json!("n"), json!(null), json!("1")]);
    }

    #[test]
    fn anything_else_is_null() {
        assert_eq!(pick(b"[1", &["/a"]), [json!(null)]);
        assert_eq!(pick(br#"{"a":"text"}"#, &["/a/b"]), [json!(null)]);
    }
}
