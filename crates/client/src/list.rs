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
    /// The length of the last object: objects of a list are much alike, so the next one is not tried with less.
    item_bytes: usize,
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
        Reader { request, text, wanted: 0, item_bytes: 0, ended: false, place: Place::Beginning, list }
    }

    fn take(&mut self, data: &Bytes) -> Result<()> {
        self.text.extend_from_slice(data);
        if self.text.len() < self.wanted {
            return Ok(());
        }
        self.read()
    }

    fn finish(mut self) -> Result<ObjectList<K>> {
        self.ended = true;
        self.read()?;
        if self.place != Place::End {
            return Err(self.wrong("the text ends within the list"));
        }
        self.list.items.shrink_to_fit();
        Ok(self.list)
    }

    /// Reads what is all there.
    fn read(&mut self) -> Result<()> {
        let mut text = std::mem::take(&mut self.text);
        // Once for all of it: each string alone would take longer.
        let whole = self.characters(&text)?;
        let mut rest = whole;
        while let Some(after) = self.step(rest)? {
            rest = after;
        }
        let read = whole.len() - rest.len();
        text.advance(read);
        self.wanted = text.len() + text.len().max(TRY_BYTES_MIN);
        self.text = text;
        Ok(())
    }

    /// The text without the beginning of a character at its end.
    fn characters<'t>(&self, bytes: &'t [u8]) -> Result<&'t str> {
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(cut) if cut.error_len().is_none() => {
                Ok(str::from_utf8(&bytes[..cut.valid_up_to()]).unwrap_or_default())
            }
            Err(_) => Err(self.wrong("it is not UTF-8")),
        }
    }

    /// Reads one thing; what is left after it, if it was there.
    fn step<'t>(&mut self, text: &'t str) -> Result<Option<&'t str>> {
        let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        let Some(first) = text.as_bytes().first() else { return Ok(None) };
        let (after, next) = match (self.place, first) {
            (Place::Beginning, b'{') => (&text[1..], Place::Field),
            (Place::Field, b'}') => (&text[1..], Place::End),
            (Place::Item, b']') => (&text[1..], Place::Field),
            (Place::Field, b'"') => match self.field(text)? {
                Some(read) => read,
                None => return Ok(None),
            },
            (Place::Item, _) if text.len() < self.item_bytes && !self.ended => return Ok(None),
            (Place::Item, _) => {
                let Some((item, after)) = self.value::<K>(text)? else { return Ok(None) };
                self.list.items.push(item);
                self.item_bytes = text.len() - after.len();
                (after, Place::Item)
            }
            (Place::End, _) => return Err(self.wrong("there is more than a list")),
            (Place::Beginning | Place::Field, _) => return Err(self.wrong("it is no list")),
        };
        self.place = next;
        Ok(Some(after))
    }

    /// Reads a field of the list, or of the objects' the beginning: what is left after it, and what comes then.
    fn field<'t>(&mut self, text: &'t str) -> Result<Option<(&'t str, Place)>> {
        let Some((name, after)) = self.value::<String>(text)? else { return Ok(None) };
        let after = after.trim_ascii_start();
        let value = match after.strip_prefix(':') {
            Some(value) => value.trim_ascii_start(),
            None if after.is_empty() => return Ok(None),
            None => return Err(self.wrong("a field has no value")),
        };
        let Some(first) = value.as_bytes().first() else { return Ok(None) };
        let after = match (name.as_str(), first) {
            ("items", b'[') => return Ok(Some((&value[1..], Place::Item))),
            ("metadata", _) => {
                let Some((metadata, after)) = self.value(value)? else { return Ok(None) };
                self.list.metadata = Option::unwrap_or_default(metadata);
                after
            }
            // Go servers write `null` for an empty list.
            ("items", b'n') => match self.value(value)? {
                Some(((), after)) => after,
                None => return Ok(None),
            },
            ("items", _) => return Err(self.wrong("its items are no list")),
            _ => match self.value(value)? {
                Some((IgnoredAny, after)) => after,
                None => return Ok(None),
            },
        };
        Ok(Some((after, Place::Field)))
    }

    /// The value that begins here and what is left after it, if it is all there.
    fn value<'t, T: DeserializeOwned>(&self, text: &'t str) -> Result<Option<(T, &'t str)>> {
        let mut values = Deserializer::from_str(text).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                let after = &text[values.byte_offset()..];
                // A number may go on.
                Ok(Some((value, after)).filter(|_| self.ended || !after.is_empty()))
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
    fn check(text: impl AsRef<[u8]>, want: &str) {
        let text = text.as_ref();
        for size in [1, 2, 7, text.len().max(1)] {
            let mut reader = Reader::<Value>::new("GET /");
            let fed = text.chunks(size).try_for_each(|piece| {
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
            assert_eq!(got, want, "in pieces of {size} bytes: {}", String::from_utf8_lossy(text));
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
        check(b"{\"a\":\"\xff\"}", "it is not UTF-8");
        check(b"{\"a\":\"\xc3", "EOF while parsing a string at line 1 column 1");
    }
}
