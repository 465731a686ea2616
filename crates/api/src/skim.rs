//! Walks through the text of JSON without decoding it, for those who want a few fields of many: what is passed over costs
//! a fraction of what decoding it costs. Never fails loudly: text that is no JSON, or is nested deeper than
//! [`DEPTH_MAX`], ends the walk, and what is passed over is not checked.

use serde_json::Value;

use crate::Object;

/// How deep the walk itself goes; passing over a value needs no depth.
pub const DEPTH_MAX: usize = 128;

/// A place in a text.
#[derive(Clone, Debug)]
pub struct Skim<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Skim<'a> {
    /// The beginning of a text.
    pub fn new(text: &'a [u8]) -> Skim<'a> {
        Skim { text, at: 0 }
    }

    /// Steps into the object that begins here; `None` where none does.
    pub fn object(&mut self) -> Option<()> {
        self.take(b'{')
    }

    /// Steps into the list that begins here; `None` where none does.
    pub fn list(&mut self) -> Option<()> {
        self.take(b'[')
    }

    /// The next key of the object that the walk is in, as it is written, whose value comes next; `Some(None)` at the end of
    /// the object, which the walk leaves; `None` where there is neither.
    pub fn key(&mut self) -> Option<Option<&'a [u8]>> {
        if !self.goes_on(b'}')? {
            return Some(None);
        }
        self.take(b'"')?;
        let from = self.at;
        self.at = end_of_text(self.text, from)?;
        let key = &self.text[from..self.at - 1];
        self.take(b':')?;
        Some(Some(key))
    }

    /// Whether the list that the walk is in has another item, which comes next; at its end the walk leaves it. `None` where
    /// the text ends.
    pub fn item(&mut self) -> Option<bool> {
        self.goes_on(b']')
    }

    /// The text of the value that comes next, and passes over it.
    pub fn value(&mut self) -> Option<&'a [u8]> {
        let first = self.peek()?;
        let from = self.at;
        self.at = match first {
            b'"' => end_of_text(self.text, from + 1)?,
            b'{' | b'[' => end_of_nested(self.text, from)?,
            b',' | b':' | b'}' | b']' => return None,
            _ => {
                let rest = &self.text[from..];
                let is_over = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                from + rest.iter().position(is_over).unwrap_or(rest.len())
            }
        };
        Some(&self.text[from..self.at])
    }

    /// The value that comes next, decoded.
    pub fn decoded(&mut self) -> Option<Value> {
        serde_json::from_slice(self.value()?).ok()
    }

    /// Whether nothing follows.
    pub fn is_over(&mut self) -> bool {
        self.peek().is_none()
    }

    /// The next byte that is no white space; it stays there.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Passes over a comma, or over this end: whether something comes before it.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let next = self.peek()?;
        self.at += usize::from(next == b',' || next == end);
        Some(next != end)
    }
}

/// Behind the quote that ends a text; `from` is behind the one that begins it.
fn end_of_text(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += quote_or_escape(text.get(at..)?)?;
        match text[at] {
            b'"' => return Some(at + 1),
            // What follows is no end, whatever it is.
            _ => at += 2,
        }
    }
}

/// Where the first `"` or `\` is. Most texts are a few letters, for which a search that looks at many bytes at once takes longer to
/// begin than it saves: the first words are looked at one by one.
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    const WORDS_BEFORE_SEARCH: usize = 4;
    let words = text.as_chunks::<WORD>().0.iter().take(WORDS_BEFORE_SEARCH);
    let mut looked_at = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let found = bytes_that_are(word, b'"') | bytes_that_are(word, b'\\');
        if found != 0 {
            return Some(looked_at + found.trailing_zeros() as usize / 8);
        }
        looked_at += WORD;
    }
    Some(looked_at + memchr::memchr2(b'"', b'\\', &text[looked_at..])?)
}

/// The highest bit of each byte of the word that is this one. Bytes above the lowest that is one may be wrongly among them.
const fn bytes_that_are(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let differs = word ^ (ONES * byte as u64);
    differs.wrapping_sub(ONES) & !differs & (ONES << 7)
}

/// Behind the end of the object or list that begins at `from`.
fn end_of_nested(text: &[u8], from: usize) -> Option<usize> {
    let (mut at, mut depth) = (from, 0_usize);
    loop {
        let byte = *text.get(at)?;
        at += 1;
        match byte {
            b'"' => at = end_of_text(text, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
}

/// Some fields of an object. A list's items are as the list.
#[derive(Debug)]
pub enum Fields {
    /// All but these; where there is something behind the name, only what that leaves out below it.
    Without(&'static [(&'static str, Option<&'static Fields>)]),
    /// Only these; where there is something behind the name, only that of it.
    Only(&'static [(&'static str, Option<&'static Fields>)]),
}

impl Fields {
    /// Reads them out of a whole text; `None` where that is no JSON as far as it is looked at.
    pub fn read(&self, text: &[u8]) -> Option<Value> {
        let mut skim = Skim::new(text);
        let read = self.of(&mut skim, DEPTH_MAX)?;
        skim.is_over().then_some(read)
    }

    fn of(&self, skim: &mut Skim<'_>, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        match skim.peek()? {
            b'{' => {
                skim.object()?;
                let mut out = Object::new();
                while let Some(key) = skim.key()? {
                    let key = std::str::from_utf8(key).ok()?;
                    match self.find(key) {
                        (false, _) => drop(skim.value()?),
                        (true, Some(below)) => drop(out.insert(unescaped(key)?, below.of(skim, depth)?)),
                        (true, None) => drop(out.insert(unescaped(key)?, skim.decoded()?)),
                    }
                }
                Some(Value::Object(out))
            }
            b'[' => {
                skim.list()?;
                let mut out = Vec::new();
                while skim.item()? {
                    out.push(self.of(skim, depth)?);
                }
                Some(Value::Array(out))
            }
            _ => skim.decoded(),
        }
    }

    /// Whether the field is read, and what of it where that is not all.
    fn find(&self, name: &str) -> (bool, Option<&'static Fields>) {
        let (fields, only) = match self {
            Fields::Without(fields) => (fields, false),
            Fields::Only(fields) => (fields, true),
        };
        match fields.iter().find(|(field, _)| *field == name) {
            Some((_, Some(below))) => (true, Some(below)),
            Some((_, None)) => (only, None),
            None => (!only, None),
        }
    }
}

/// A key as it is meant.
fn unescaped(key: &str) -> Option<String> {
    match key.contains('\\') {
        true => serde_json::from_str(&format!("\"{key}\"")).ok(),
        false => Some(key.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Fields = Fields::Without(&[]);
    const SOME: Fields = Fields::Only(&[("a", None), ("b", Some(&Fields::Only(&[("c", None)])))]);

    #[track_caller]
    fn check(fields: &Fields, text: &str, want: Option<&str>) {
        let read = fields.read(text.as_bytes()).map(|value| value.to_string());
        assert_eq!(read.as_deref(), want, "{text}");
    }

    #[test]
    fn what_is_asked_for_is_read_and_no_more() {
        check(&SOME, r#"{"x":[{"a":"}]"}],"a":1,"b":{"c":"\"\\","d":{"a":2}}}"#, Some(r#"{"a":1,"b":{"c":"\"\\"}}"#));
        check(
            &SOME,
            r#" { "b" : [ { "c" : null , "d":0 } , 7 ] , "a" : -1e3 } "#,
            Some(r#"{"b":[{"c":null},7],"a":-1000.0}"#),
        );
        check(&SOME, r#"{"b":null,"x":"\\"}"#, Some(r#"{"b":null}"#));
        check(&ALL, r#"{"\u0061":{},"é\n":[[],"",true]}"#, Some(r#"{"a":{},"é\n":[[],"",true]}"#));
        check(&Fields::Without(&[("a", None)]), r#"{"a":{"b":1},"c":2}"#, Some(r#"{"c":2}"#));
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in [
            "",
            "{",
            "[",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1]",
            "[1}",
            "{\"a\":}",
            "{1:2}",
            "{\"a\":1}x",
            "\"\\",
            "{\"x\":\"",
            "[{}",
            "{\"x\":[}",
            "{\"b\":{}",
            "[[]",
        ] {
            check(&SOME, text, None);
        }
        check(&ALL, &("[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1)), None);
    }

    #[test]
    fn ends_of_texts_are_found_wherever_they_are() {
        // Bytes that differ from what is looked for in one bit, or come behind it.
        for fill in [b'a', b'!', b'#', b'[', b']', 0xa2, 0xdc, 0, 0xff] {
            for length in 0..80 {
                assert_eq!(quote_or_escape(&vec![fill; length]), None);
                for at in 0..length {
                    for wanted in [b'"', b'\\'] {
                        let mut text = vec![fill; length];
                        text[at] = wanted;
                        assert_eq!(quote_or_escape(&text), Some(at));
                        text[length - 1] = b'"';
                        assert_eq!(quote_or_escape(&text), Some(at));
                    }
                }
            }
        }
    }

    /// Whatever is cut off or changed is read or not, but the walk ends and stays in the text.
    #[test]
    fn no_text_breaks_the_walk() {
        let text = br#"{"b":{"c":["\u00e9\"",{"d":-1.5e7}]},"a":[true,null,"\\"],"x":{"y":[[]]}}"#;
        for cut in 0..=text.len() {
            for byte in [b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b' ', 0xff] {
                let mut broken = text.to_vec();
                broken.truncate(cut);
                let _ = SOME.read(&broken);
                if let Some(last) = broken.last_mut() {
                    *last = byte;
                }
                broken.extend_from_slice(&text[cut..]);
                let (_, _) = (SOME.read(&broken), ALL.read(&broken));
            }
        }
    }
}
