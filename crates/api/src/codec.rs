//! The encodings of a body: JSON as Go writes it, and YAML. Never guesses: the caller says which.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

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
pub fn to_yaml(value: &Value) -> String {
    yaml::write(value)
}

/// One YAML document (or JSON, which is YAML).
pub fn from_yaml(text: &str) -> Result<Value, String> {
    yaml::read(text.as_bytes()).map(|document| document.value)
}

/// All documents of a YAML stream, empty ones left out.
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
    fn yaml_goes_both_ways() {
        let value = json!({"b": [1, "x"], "a": {"c": "line\nline\n", "d": true}});
        let text = to_yaml(&value);
        assert!(text.starts_with("a:"), "{text}");
        assert_eq!(from_yaml(&text), Ok(value));
        assert_eq!(from_yaml_stream("---\na: 1\n---\n---\nb: 2\n").map(|all| all.len()), Ok(2));
    }
}
