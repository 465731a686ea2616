//! Words of Go that clients see: `%q` quoting, `strconv` errors, durations. Pure text.

use std::fmt::Write;

use serde_json::Value;

/// `fmt.Sprintf("%q", text)`.
pub fn quote(text: &str) -> String {
    quote_bytes(text.as_bytes())
}

/// The same of bytes that need not be UTF-8: `\xff` stands for what is not.
pub fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_quoted(&mut out, c));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn push_quoted(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if is_printable(c) => out.push(c),
        c => {
            let _ = match c as u32 {
                code @ (..0x20 | 0x7f) => write!(out, "\\x{code:02x}"),
                code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

/// `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // The standard library escapes by the same Unicode classes, but for a mark that nothing stands before.
    let mut bytes = [0; 5];
    bytes[0] = b'-';
    let length = 1 + c.encode_utf8(&mut bytes[1..]).len();
    std::str::from_utf8(&bytes[..length]).is_ok_and(|pair| pair.escape_debug().count() == 2)
}

/// Why a number could not be read, as `strconv` says it.
pub fn parse_i64(text: &str) -> Result<i64, String> {
    number(text, "ParseInt", text.strip_prefix(['-', '+']).unwrap_or(text))
}

/// As [`parse_i64`], for `strconv.ParseUint`, which takes no sign.
pub fn parse_u64(text: &str) -> Result<u64, String> {
    number(text, "ParseUint", text)
}

fn number<T: std::str::FromStr>(text: &str, function: &str, digits: &str) -> Result<T, String> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("strconv.{function}: parsing {}: invalid syntax", quote(text)));
    }
    text.parse().map_err(|_| format!("strconv.{function}: parsing {}: value out of range", quote(text)))
}

/// `time.ParseDuration`, in seconds.
pub fn parse_duration(text: &str) -> Result<f64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let count: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unit => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
        };
        seconds += count * unit;
        rest = &rest[end..];
    }
    Ok(sign * seconds)
}

/// `strconv.ParseBool` as query parameters use it: anything else that was given counts as true only for `1`-like words.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A list of texts as `%q` prints it: `["a" "b"]`.
pub fn quote_list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" "))
}

/// What `encoding/json` calls the type of a value in its errors.
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_go() {
        assert_eq!(quote("a\"b\0"), r#""a\"b\x00""#);
        assert_eq!(
            quote("é日\u{301}😀 \u{a0}\u{ad}\u{85}\u{200b}\u{feff}\u{e0001}"),
            r#""é日\u{301}😀 \u00a0\u00ad\u0085\u200b\ufeff\U000e0001""#.replace("\\u{301}", "\u{301}")
        );
        assert_eq!(quote_bytes(b"a\xff\xc3b\xc3\xa9"), r#""a\xff\xc3b\u{e9}""#.replace("\\u{e9}", "é"));
        assert_eq!(parse_i64("abc").unwrap_err(), r#"strconv.ParseInt: parsing "abc": invalid syntax"#);
        assert_eq!(parse_u64("-1").unwrap_err(), r#"strconv.ParseUint: parsing "-1": invalid syntax"#);
        assert!(parse_i64("99999999999999999999").unwrap_err().ends_with("value out of range"));
        assert_eq!(parse_duration("1m30s"), Ok(90.0));
        assert_eq!(parse_duration("bogus").unwrap_err(), r#"time: invalid duration "bogus""#);
    }
}
