//! Reads a few fields out of encoded JSON without decoding the rest. Never fails: what is absent or broken is null.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Pointers that can be asked for at once; what comes after them is null.
pub const POINTERS_MAX: usize = u64::BITS as usize;

/// The values at JSON pointers (`/metadata/labels`), in the order they are asked for; null where there is none.
/// Pointers lead through objects only, and a `0` step takes the first item of a list.
pub fn pick(json: &[u8], pointers: &[&str]) -> Vec<Value> {
    let mut picked = Picked {
        rests: pointers.iter().map(|pointer| pointer.trim_start_matches('/')).collect(),
        found: vec![Value::Null; pointers.len()],
    };
    let asked = pointers.len().min(POINTERS_MAX);
    let wanted = if asked == POINTERS_MAX { u64::MAX } else { (1 << asked) - 1 };
    let mut decoder = serde_json::Deserializer::from_slice(json);
    // A broken document leaves nulls: the caller encoded it, so there is nobody to tell.
    let _ = Level { wanted, picked: &mut picked }.deserialize(&mut decoder);
    picked.found
}

struct Picked<'a> {
    /// What is left of each pointer at the place that is read.
    rests: Vec<&'a str>,
    found: Vec<Value>,
}

/// One object of the document: which pointers still lead through it, a bit for each.
struct Level<'p, 'a> {
    wanted: u64,
    picked: &'p mut Picked<'a>,
}

/// The pointers of a set.
fn each(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let first = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (first < POINTERS_MAX).then_some(first)
    })
}

/// The pointers that go on below a step, and those that end there.
#[derive(Clone, Copy, Default)]
struct Below {
    deeper: u64,
    here: u64,
}

impl Level<'_, '_> {
    fn below(&self, step: &str) -> Below {
        let mut below = Below::default();
        for i in each(self.wanted) {
            match self.picked.rests[i].strip_prefix(step).map(str::as_bytes) {
                Some([]) => below.here |= 1 << i,
                Some([b'/', ..]) => below.deeper |= 1 << i,
                _ => {}
            }
        }
        below
    }

    /// Hands a value to the pointers that end at it and to those that lead through it.
    fn take(&mut self, step_bytes: usize, below: Below, value: &Value) {
        for i in each(below.deeper) {
            let rest = &self.picked.rests[i][step_bytes..];
            self.picked.found[i] = value.pointer(rest).cloned().unwrap_or_default();
        }
        for i in each(below.here) {
            self.picked.found[i] = value.clone();
        }
    }
}

/// A key: what is wanted below it, and how long it is.
struct KeyOf<'l, 'p, 'a>(&'l Level<'p, 'a>);

impl<'de> DeserializeSeed<'de> for KeyOf<'_, '_, '_> {
    type Value = (Below, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_, '_, '_> {
    type Value = (Below, usize);

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok((self.0.below(key), key.len()))
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((below, length)) = map.next_key_seed(KeyOf(&self))? {
            if below.here == 0 && below.deeper == 0 {
                map.next_value::<IgnoredAny>()?;
            } else if below.here == 0 {
                each(below.deeper).for_each(|i| self.picked.rests[i] = &self.picked.rests[i][length + 1..]);
                map.next_value_seed(Level { wanted: below.deeper, picked: self.picked })?;
                // They have been where they lead; a key that comes twice is none of ours.
                self.wanted &= !below.deeper;
            } else {
                let value: Value = map.next_value()?;
                self.take(length, below, &value);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let below = self.below("0");
        let Some(first) = seq.next_element::<Value>()? else { return Ok(()) };
        self.take(1, below, &first);
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
