//! How objects are printed: the formats of `-o`. Takes values, gives text; asks nobody.

use api::jsonpath::JsonPath;
use kemudi_client::time;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Value, json};

use crate::{Failure, Outcome};

/// What `-o` asked for.
#[derive(Debug)]
pub enum Format {
    /// The server's own columns; `wide` shows those of lesser interest too.
    Table {
        wide: bool,
    },
    Json,
    Yaml,
    Name,
    JsonPath(JsonPath),
}

impl Format {
    pub fn parse(text: Option<&str>) -> Outcome<Format> {
        Ok(match text {
            None | Some("") => Format::Table { wide: false },
            Some("wide") => Format::Table { wide: true },
            Some("json") => Format::Json,
            Some("yaml") => Format::Yaml,
            Some("name") => Format::Name,
            Some(other) => match other.strip_prefix("jsonpath=") {
                Some(path) => Format::JsonPath(JsonPath::parse(path).map_err(|why| {
                    Failure::new(format!("error parsing jsonpath {path}, {why}"))
                        .hint("write it like -o jsonpath='{.items[*].metadata.name}'")
                })?),
                None => {
                    let text = format!(
                        "unable to match a printer suitable for the output format {}, \
                         allowed formats are: json,jsonpath,name,wide,yaml",
                        api::go::quote(other)
                    );
                    return Err(Failure::new(text));
                }
            },
        })
    }
}

/// One object (or a list of several) in a format that needs no columns.
pub fn object(format: &Format, object: &Value) -> Outcome<String> {
    Ok(match format {
        Format::Json => json_text(object) + "\n",
        Format::Yaml => api::codec::to_yaml(object),
        Format::JsonPath(path) => {
            path.print(object).map_err(|why| Failure::new(format!("error executing jsonpath: {why}")))?
        }
        Format::Name | Format::Table { .. } => String::new(),
    })
}

/// As [`object`], for answers that kubectl prints in the order of their fields.
pub fn answer(format: &Format, object: &Value) -> Outcome<String> {
    let mut object = object.clone();
    without_managed_fields(&mut object);
    match format {
        Format::Json => Ok(indented(&object) + "\n"),
        format => self::object(format, &object),
    }
}

/// Several objects as one `List`, as kubectl makes it.
pub fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// Managed fields are for machines; they are shown when asked for.
pub fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        without_managed_fields(item);
    }
}

/// Time since `then` as kubectl shows it: `5s`, `3m20s`, `2d4h`. `now` is in seconds since 1970.
pub fn age(then: &str, now: i64) -> String {
    match time::parse(then) {
        Some(then) => human_duration(now - then),
        None => "<unknown>".to_string(),
    }
}

/// Go's `duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_string(),
        -1..0 => "0s".to_string(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10800 => format!("{minutes}m"),
        10800..28800 => two(hours, "h", minutes % 60, "m"),
        28800..172800 => format!("{hours}h"),
        172800..691200 => two(days, "d", hours % 24, "h"),
        691200..63072000 => format!("{days}d"),
        63072000..252288000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// JSON as kubectl prints it: keys sorted, four spaces.
fn json_text(value: &Value) -> String {
    indented(&sorted(value))
}

fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    // Writing a `Value` to memory cannot fail.
    let _ = value.serialize(&mut serializer);
    let text = String::from_utf8(out).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Compact JSON with sorted keys, as Go prints a map.
pub fn compact(value: &Value) -> String {
    let bytes = api::codec::to_json(&sorted(value));
    String::from_utf8(bytes).unwrap_or_default()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            Value::Object(pairs.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        let check = |seconds: i64, want: &str| assert_eq!(human_duration(seconds), want);
        check(-5, "<invalid>");
        check(119, "119s");
        check(200, "3m20s");
        check(600, "10m");
        check(4 * 3600 + 60, "4h1m");
        check(86400 + 3600, "25h");
        check(3 * 86400 + 7200, "3d2h");
        check(10 * 86400, "10d");
        check(3 * 365 * 86400, "3y");
    }

    #[test]
    fn json_is_kubectls() {
        assert_eq!(
            json_text(&json!({"b": [], "a": {"c": "<x>"}})),
            "{\n    \"a\": {\n        \"c\": \"\\u003cx\\u003e\"\n    },\n    \"b\": []\n}"
        );
    }
}
