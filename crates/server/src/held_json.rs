//! An object's JSON as it is held: whole, or around a text that it has in common with others. Objects made from one template
//! own the same fields, and what says so is half of their bytes. Any cut gives the same bytes back, so that nothing here
//! has to understand what it cuts.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use bytes::Bytes;

/// Texts that one collection knows at a time. With one more those that nobody has any more are forgotten, or else all:
/// what is held stays held, and what comes later is shared anew.
const TEXTS_MAX: usize = 4096;
/// A shorter text is not worth its keeping.
const TEXT_BYTES_MIN: usize = 256;

/// The JSON of one object at one revision.
#[derive(Clone, Debug)]
pub enum HeldJson {
    Whole(Bytes),
    Around(Arc<Around>),
}

/// What is an object's own, and where the common text goes in.
#[derive(Debug)]
pub struct Around {
    own: Box<[u8]>,
    at: usize,
    common: Arc<[u8]>,
}

impl HeldJson {
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, in three parts of which some may be empty.
    pub fn parts(&self) -> [&[u8]; 3] {
        match self {
            HeldJson::Whole(json) => [json, b"", b""],
            HeldJson::Around(around) => {
                let (head, tail) = around.own.split_at(around.at);
                [head, &around.common, tail]
            }
        }
    }

    /// The bytes as one.
    pub fn bytes(&self) -> Bytes {
        match self {
            HeldJson::Whole(json) => json.clone(),
            HeldJson::Around(_) => self.parts().concat().into(),
        }
    }
}

/// The common texts of a collection.
#[derive(Default)]
pub struct Texts(HashMap<u64, Weak<[u8]>>);

impl Texts {
    /// Holds an object's JSON, sharing what is found to be common.
    pub fn hold(&mut self, json: Bytes) -> HeldJson {
        let Some((from, to)) = fields(&json).filter(|(from, to)| to - from >= TEXT_BYTES_MIN) else {
            return HeldJson::Whole(json);
        };
        let own = [&json[..from], &json[to..]].concat().into_boxed_slice();
        HeldJson::Around(Arc::new(Around { own, at: from, common: self.common(&json[from..to]) }))
    }

    fn common(&mut self, text: &[u8]) -> Arc<[u8]> {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(known) = self.0.get(&hash).and_then(Weak::upgrade).filter(|known| **known == *text) {
            return known;
        }
        if self.0.len() >= TEXTS_MAX {
            self.0.retain(|_, text| text.strong_count() > 0);
            if self.0.len() >= TEXTS_MAX {
                self.0.clear();
            }
        }
        let new: Arc<[u8]> = text.into();
        self.0.insert(hash, Arc::downgrade(&new));
        new
    }
}

/// Where the fields of an object's first manager are, roughly.
fn fields(json: &[u8]) -> Option<(usize, usize)> {
    const BEGIN: &[u8] = br#""fieldsV1":"#;
    const NEXT: &[u8] = br#"},{"manager":"#;
    const END: &[u8] = b"}]}";
    let from = memchr::memmem::find(json, BEGIN)? + BEGIN.len();
    let rest = &json[from..];
    let end = memchr::memmem::find(rest, END)?;
    Some((from, from + memchr::memmem::find(&rest[..end], NEXT).unwrap_or(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, manager: &str, fields: &str, more: &str) -> Bytes {
        format!(
            r#"{{"metadata":{{"name":"{name}","managedFields":[{{"manager":"{manager}","fieldsV1":{{{fields}}}}}{more}]}},"spec":{{"a":[{{}}]}}}}"#
        )
        .into()
    }

    #[test]
    fn the_fields_of_one_making_are_held_once() {
        let mut texts = Texts::default();
        let fields = r#""f:spec":{"k:{\"name\":\"a\"}":{}},"#.repeat(20);
        let mut common = Vec::new();
        for (name, manager, more) in [("a", "m", ""), ("b", "n", r#",{"manager":"k","fieldsV1":{}}"#), ("a", "m", "")] {
            let json = object(name, manager, fields.trim_end_matches(','), more);
            let held = texts.hold(json.clone());
            assert_eq!((held.bytes(), held.len()), (json.clone(), json.len()));
            let HeldJson::Around(around) = held else { panic!("{name} is held whole") };
            common.push(around.common.clone());
        }
        assert!(Arc::ptr_eq(&common[0], &common[1]) && Arc::ptr_eq(&common[0], &common[2]));
    }

    #[test]
    fn whatever_is_held_is_given_back() {
        let mut texts = Texts::default();
        let long = "x".repeat(TEXT_BYTES_MIN);
        let odd = [
            "".to_string(),
            "{}".to_string(),
            r#""fieldsV1":"#.to_string(),
            format!(r#"{{"a":"\"fieldsV1\":{long}"}}"#),
            format!(r#"{{"fieldsV1":{long}}}"#),
            format!(r#"{{"fieldsV1":{long}}}],"fieldsV1":{long}}}]}}"#),
        ];
        for json in odd {
            assert_eq!(texts.hold(json.clone().into()).bytes(), json);
        }
    }

    #[test]
    fn no_more_texts_are_known_than_allowed() {
        let mut texts = Texts::default();
        let held: Vec<HeldJson> = (0..TEXTS_MAX + 2)
            .map(|i| texts.hold(object("a", "m", &format!(r#""f:{i}":"{}""#, "x".repeat(TEXT_BYTES_MIN)), "")))
            .collect();
        assert!(texts.0.len() <= TEXTS_MAX && held.iter().all(|held| matches!(held, HeldJson::Around(_))));
    }
}
