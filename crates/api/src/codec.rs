//! The encodings of a body: JSON as Go writes it, and YAML. Never guesses: the caller says which.

use std::io::{self, Write as _};

use serde_core::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

#[cfg(feature = "yaml")]
use crate::yaml;

/// Compact JSON, without a newline at the end, with `<`, `>`, `&` and the two line separators escaped as Go does.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut serializer = Serializer::with_formatter(&mut out, GoJson(CompactFormatter));
    // Writing to memory fails only for maps with keys that are no text, which no object has.
    if let Err(error) = value.serialize(&mut serializer) {
        unreachable!("objects always have JSON: {error}");
    }
    out
}

/// The same of a value, for which nothing has to be asked: objects are written for every one that is stored.
pub fn value_to_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_value(&mut out, value);
    out
}

/// A value as JSON.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            // Writing to memory cannot fail.
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            let mut before = b'[';
            for item in items {
                out.push(std::mem::replace(&mut before, b','));
                write_value(out, item);
            }
            out.extend_from_slice(if items.is_empty() { b"[]" } else { b"]" });
        }
        Value::Object(map) => {
            let mut before = b'{';
            for (key, value) in map {
                out.push(std::mem::replace(&mut before, b','));
                write_text(out, key);
                out.push(b':');
                write_value(out, value);
            }
            out.extend_from_slice(if map.is_empty() { b"{}" } else { b"}" });
        }
    }
}

/// A text as JSON, with its quotes.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// A text as JSON has it between quotes.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    /// Bytes that may have to be escaped.
    const SPECIAL: [bool; 256] = {
        let mut special = [false; 256];
        let mut byte = 0;
        while byte < 0x20 {
            special[byte] = true;
            byte += 1;
        }
        // The first byte of U+2028 and U+2029 among them.
        let others = [b'"', b'\\', b'<', b'>', b'&', 0xe2];
        let mut at = 0;
        while at < others.len() {
            special[others[at] as usize] = true;
            at += 1;
        }
        special
    };
    match text.bytes().any(|byte| SPECIAL[usize::from(byte)]) {
        false => out.extend_from_slice(text.as_bytes()),
        true => {
            for c in text.chars() {
                let short = match c {
                    '"' => b'"',
                    '\\' => b'\\',
                    '\u{8}' => b'b',
                    '\u{c}' => b'f',
                    '\n' => b'n',
                    '\r' => b'r',
                    '\t' => b't',
                    '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                        // Writing to memory cannot fail.
                        let _ = write!(out, "\\u{:04x}", u32::from(c));
                        continue;
                    }
                    c => {
                        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                };
                out.extend_from_slice(&[b'\\', short]);
            }
        }
    }
}

/// JSON with two spaces a level, as `?pretty` shows it.
pub fn to_pretty_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut serializer = Serializer::with_formatter(&mut out, GoJson(PrettyFormatter::new()));
    if let Err(error) = value.serialize(&mut serializer) {
        unreachable!("objects always have JSON: {error}");
    }
    out
}

/// YAML as Kubernetes prints it: keys in alphabetical order.
#[cfg(feature = "yaml")]
pub fn to_yaml(value: &Value) -> String {
    yaml::write(value)
}

/// One YAML document (or JSON, which is YAML).
#[cfg(feature = "yaml")]
pub fn from_yaml(text: &str) -> Result<Value, String> {
    yaml::read(text.as_bytes()).map(|document| document.value)
}

/// All documents of a YAML stream, empty ones left out.
#[cfg(feature = "yaml")]
pub fn from_yaml_stream(text: &str) -> Result<Vec<Value>, String> {
    yaml::read_all(text.as_bytes())
}

/// Go's `encoding/json` escapes what a browser might take for markup.
struct GoJson<F>(F);

impl<F: Formatter> Formatter for GoJson<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let bytes = fragment.as_bytes();
        let mut start = 0;
        let mut i = 0;
        while i < bytes.len() {
            let (escape, width): (&[u8], usize) = match bytes[i] {
                b'<' => (b"\\u003c", 1),
                b'>' => (b"\\u003e", 1),
                b'&' => (b"\\u0026", 1),
                // U+2028 and U+2029 are e2 80 a8 and e2 80 a9.
                0xe2 if bytes[i..].starts_with(b"\xe2\x80\xa8") => (b"\\u2028", 3),
                0xe2 if bytes[i..].starts_with(b"\xe2\x80\xa9") => (b"\\u2029", 3),
                _ => {
                    i += 1;
                    continue;
                }
            };
            writer.write_all(&bytes[start..i])?;
            writer.write_all(escape)?;
            i += width;
            start = i;
        }
        writer.write_all(&bytes[start..])
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        self.0.write_char_escape(writer, escape)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// A value without fields that are null, for who takes null for absence.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_gos() {
        assert_eq!(
            to_json(&json!({"a": "<b>&\u{2028}é"})),
            br#"{"a":"\u003cb\u003e\u0026\u2028"#.iter().chain("é\"}".as_bytes()).copied().collect::<Vec<_>>()
        );
        assert_eq!(to_pretty_json(&json!({"a": []})), b"{\n  \"a\": []\n}");
    }

    #[test]
    fn values_are_written_as_anything_else() {
        let all: String = (0..0x300).chain(0x2020..0x2030).filter_map(char::from_u32).collect();
        for value in [
            json!({"a": [], "b": {}, "c": [1, -2, 2.5, 1e300, u64::MAX, null, true], &*all: [all, false, ""]}),
            json!(""),
        ] {
            assert_eq!(String::from_utf8(value_to_json(&value)), String::from_utf8(to_json(&value)));
        }
    }

    #[cfg(feature = "yaml")]
    #[test]
    fn yaml_goes_both_ways() {
        let value = json!({"b": [1, "x"], "a": {"c": "line\nline\n", "d": true}});
        let text = to_yaml(&value);
        assert!(text.starts_with("a:"), "{text}");
        assert_eq!(from_yaml(&text), Ok(value));
        assert_eq!(from_yaml_stream("---\na: 1\n---\n---\nb: 2\n").map(|all| all.len()), Ok(2));
    }
}
