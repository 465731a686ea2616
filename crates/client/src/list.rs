//! Reads a list while it comes: each object is decoded as soon as all of its text is there, so that a long list is never held as
//! text. Never sends anything. Lists in protobuf are [`protobuf`](crate::protobuf)'s.

use std::any::type_name;

use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use http_body_util::BodyExt;
use serde_core::de::{DeserializeOwned, IgnoredAny};
use serde_json::Deserializer;

use crate::client::ANSWER_BYTES_MAX;
use crate::error::{Error, Result};
use crate::resource::{ObjectList, Resource};
use crate::transport::Body;

/// Text that is waited for before the next objects are tried, in bytes: an object that is not all there is read again from its
/// beginning. Waiting for as much as there is keeps that small for large ones.
const TRY_BYTES_MIN: usize = 64 << 10;

/// The list that is this answer. `request` is for messages.
pub async fn read<K: Resource>(answer: Response<Body>, request: &str) -> Result<ObjectList<K>> {
    #[cfg(feature = "protobuf")]
    if let Some(read) = K::from_message()
        && crate::protobuf::is_protobuf(answer.headers())
    {
        let mut reader = crate::protobuf::ListReader::new(request, read);
        pieces(answer, |data| reader.take(data)).await?;
        return reader.finish();
    }
    let mut reader = Reader::new(request);
    pieces(answer, |data| reader.take(data)).await?;
    reader.finish()
}

/// Hands the answer on as it comes.
async fn pieces(answer: Response<Body>, mut take: impl FnMut(&Bytes) -> Result<()>) -> Result<()> {
    let mut body = answer.into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        total += data.len();
        if total > ANSWER_BYTES_MAX {
            return Err(Error::TooLarge { what: "the answer", limit: ANSWER_BYTES_MAX });
        }
        take(&data)?;
    }
    Ok(())
}

struct Reader<'a, K> {
    request: &'a str,
    /// What has come and is not read yet.
    text: BytesMut,
    /// How much of it there must be for the next try.
    wanted: usize,
    /// No more will come.
    ended: bool,
    place: Place,
    list: ObjectList<K>,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Beginning,
    /// A field of the list, or its end.
    Field,
    /// An object, or the end of them.
    Item,
    End,
}

impl<'a, K: DeserializeOwned> Reader<'a, K> {
    fn new(request: &'a str) -> Reader<'a, K> {
        let (text, list) = (BytesMut::new(), ObjectList::default());
        Reader { request, text, wanted: 0, ended: false, place: Place::Beginning, list }
    }

    fn take(&mut self, data: &Bytes) -> Result<()> {
        self.text.extend_from_slice(data);
        if self.text.len() < self.wanted {
            return Ok(());
        }
        while self.step()? {}
        self.wanted = self.text.len() + self.text.len().max(TRY_BYTES_MIN);
        Ok(())
    }

    fn finish(mut self) -> Result<ObjectList<K>> {
        self.ended = true;
        while self.step()? {}
        if self.place != Place::End {
            return Err(self.wrong("the text ends within the list"));
        }
        self.list.items.shrink_to_fit();
        Ok(self.list)
    }

    /// Reads one thing; whether there may be another in what has come.
    fn step(&mut self) -> Result<bool> {
        let between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
        let blank = self.text.iter().take_while(|byte| between(byte)).count();
        self.text.advance(blank);
        let Some(first) = self.text.first().copied() else { return Ok(false) };
        match (self.place, first) {
            (Place::Beginning, b'{') => self.pass(1, Place::Field),
            (Place::Field, b'}') => self.pass(1, Place::End),
            (Place::Item, b']') => self.pass(1, Place::Field),
            (Place::Field, b'"') => return self.field(),
            (Place::Item, _) => {
                let Some((item, end)) = self.value::<K>(0)? else { return Ok(false) };
                self.list.items.push(item);
                self.pass(end, Place::Item);
            }
            (Place::End, _) => return Err(self.wrong("there is more than a list")),
            (Place::Beginning | Place::Field, _) => return Err(self.wrong("it is no list")),
        }
        Ok(true)
    }

    fn field(&mut self) -> Result<bool> {
        let Some((name, end)) = self.value::<String>(0)? else { return Ok(false) };
        let blank = |at: usize| at + self.text[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let colon = blank(end);
        let start = blank((colon + 1).min(self.text.len()));
        let Some(first) = self.text.get(start).copied() else { return Ok(false) };
        if self.text[colon] != b':' {
            return Err(self.wrong("a field has no value"));
        }
        match (name.as_str(), first) {
            ("items", b'[') => self.pass(start + 1, Place::Item),
            ("metadata", _) => {
                let Some((metadata, end)) = self.value(start)? else { return Ok(false) };
                self.list.metadata = Option::unwrap_or_default(metadata);
                self.pass(end, Place::Field);
            }
            // Go servers write `null` for an empty list.
            ("items", b'n') => {
                let Some(((), end)) = self.value(start)? else { return Ok(false) };
                self.pass(end, Place::Field);
            }
            ("items", _) => return Err(self.wrong("its items are no list")),
            _ => {
                let Some((IgnoredAny, end)) = self.value(start)? else { return Ok(false) };
                self.pass(end, Place::Field);
            }
        }
        Ok(true)
    }

    fn pass(&mut self, bytes: usize, next: Place) {
        self.text.advance(bytes);
        self.place = next;
    }

    /// The value that begins here and where it ends, if it is all there.
    fn value<T: DeserializeOwned>(&self, from: usize) -> Result<Option<(T, usize)>> {
        let mut values = Deserializer::from_slice(&self.text[from..]).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                let end = from + values.byte_offset();
                // A number may go on.
                Ok(Some((value, end)).filter(|_| self.ended || end < self.text.len()))
            }
            Some(Err(error)) if !error.is_eof() || self.ended => Err(self.wrong(&error.to_string())),
            _ => Ok(None),
        }
    }

    fn wrong(&self, why: &str) -> Error {
        let nth = self.list.items.len();
        let place = if self.place == Place::Item { format!("object {nth} of the list: ") } else { String::new() };
        Error::Decode {
            request: self.request.to_string(),
            wanted: type_name::<ObjectList<K>>(),
            why: format!("{place}{why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What comes of a text, in whatever pieces it comes.
    #[track_caller]
    fn check(text: &str, want: &str) {
        for size in [1, 2, 7, text.len().max(1)] {
            let mut reader = Reader::<Value>::new("GET /");
            let fed = text.as_bytes().chunks(size).try_for_each(|piece| {
                reader.wanted = 0;
                reader.take(&Bytes::copy_from_slice(piece))
            });
            let got = match fed.and_then(|()| reader.finish()) {
                Ok(list) => {
                    let items: Vec<String> = list.items.iter().map(Value::to_string).collect();
                    format!(
                        "{} {:?} {}",
                        list.metadata.resource_version,
                        list.metadata.remaining_item_count,
                        items.join(" ")
                    )
                }
                Err(Error::Decode { why, .. }) => why,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(got, want, "in pieces of {size} bytes: {text}");
        }
    }

    #[test]
    fn lists_do_not_care_how_they_come() {
        let list = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12","remainingItemCount":3},"items":[{"a":"]}\"é"},7]}"#;
        check(list, r#"12 Some(3) {"a":"]}\"é"} 7"#);
        check("\n{ \"items\" : [ ] ,\n \"metadata\" : null, \"n\": 12 }\n", " None ");
        check(r#"{"items":null,"metadata":{"resourceVersion":"5"}}"#, "5 None ");
        check("{}", " None ");
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        check("", "the text ends within the list");
        check("<html>", "it is no list");
        check("[]", "it is no list");
        check(r#"{"items":5}"#, "its items are no list");
        check(r#"{"items":[{"a":1},{"a"#, "object 1 of the list: EOF while parsing a string at line 1 column 3");
        check(r#"{"items":[{"a":1},x"#, "object 1 of the list: expected value at line 1 column 1");
        check(r#"{"items":[]} x"#, "there is more than a list");
        check(r#"{"items":[1,2]"#, "the text ends within the list");
    }
}
