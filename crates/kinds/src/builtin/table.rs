//! Cells of Tables: ages, durations, selectors, lists that are cut short. Texts as `kubectl get` shows them. Reads no
//! clock: the time is given.

use jiff::Timestamp;
use serde_json::Value;

use super::read::Read;

/// `metadata.name`.
pub fn name(object: &Value) -> Value {
    object.text("metadata.name").into()
}

/// How long ago the object was created.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(object.text("metadata.creationTimestamp"), now).into()
}

/// The time from `timestamp` (RFC 3339) to `now`, `<unknown>` where there is none.
pub fn since(timestamp: &str, now: Timestamp) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human_duration(seconds_between(then, now)),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Whole seconds, rounded towards zero.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

/// `duration.HumanDuration`: two or three significant figures, `5m30s`, `47h`, `2y10d`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        () => format!("{}y", hours / 24 / 365),
    }
}

/// `instead` for an empty text.
pub fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

/// A map of labels: `a=b,c=d`, `<none>` when empty.
pub fn labels(labels: &Value) -> String {
    let pairs: Vec<String> =
        labels.entries().iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A label selector: `a=b,k in (x,y),!z`; `""` when it selects all or nothing.
pub fn selector(selector: &Value) -> String {
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.at("matchLabels").entries() {
        parts.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        let mut values: Vec<&str> = expression.list("values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// As [`selector`], `<none>` when empty.
pub fn selector_or_none(of: &Value) -> String {
    or(&selector(of), "<none>").to_owned()
}

/// The names and the images of a pod spec's containers, each joined by commas.
pub fn containers(spec: &Value) -> [Value; 2] {
    let join = |field: &str| {
        let texts: Vec<&str> = spec.list("containers").iter().map(|c| c.text(field)).collect();
        Value::from(texts.join(","))
    };
    [join("name"), join("image")]
}

/// At most `max` of the texts, joined, with ` + N more...` behind when there are others.
pub fn some_of(texts: &[String], max: usize, separator: &str) -> String {
    if texts.len() <= max {
        return texts.join(separator);
    }
    format!("{} + {} more...", texts[..max].join(separator), texts.len() - max)
}

/// A yes or no that may be absent, as Go's `%v` of a bool with its first letter high.
pub fn flag(value: &Value) -> &'static str {
    match value.as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

/// An `IntOrString`, `instead` where there is none.
pub fn int_or_string(value: &Value, instead: &str) -> String {
    match value {
        Value::Null => instead.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_for_people() {
        let check = |seconds: i64, want: &str| assert_eq!(human_duration(seconds), want, "{seconds}");
        const HOUR: i64 = 3600;
        check(-2, "<invalid>");
        check(-1, "0s");
        check(119, "119s");
        check(120, "2m");
        check(330, "5m30s");
        check(600, "10m");
        check(3 * HOUR, "3h");
        check(4 * HOUR + 60, "4h1m");
        check(47 * HOUR, "47h");
        check(48 * HOUR, "2d");
        check(50 * HOUR, "2d2h");
        check(400 * 24 * HOUR, "400d");
        check((2 * 365 + 10) * 24 * HOUR, "2y10d");
        check(9 * 365 * 24 * HOUR, "9y");
    }

    #[test]
    fn selectors_read_like_kubectl() {
        let of = serde_json::json!({
            "matchLabels": {"b": "c"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "z", "operator": "DoesNotExist"}],
        });
        assert_eq!(selector(&of), "a in (x,y),b=c,!z");
        assert_eq!(selector_or_none(&Value::Null), "<none>");
    }
}
