//! What the claims of a token mean, for those who issue, use and explain it. Reads values only, and verifies nothing.

use serde_json::Value;

/// Whom a token is for, by its `aud`: one or many; `None` where that cannot be read.
pub fn audiences(aud: &Value) -> Option<Vec<String>> {
    match aud {
        Value::Null => Some(Vec::new()),
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many.iter().map(|one| one.as_str().map(str::to_string)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_or_many() {
        let check = |aud: Value, want: Option<&[&str]>| {
            assert_eq!(
                audiences(&aud).as_deref(),
                want.map(|want| want.iter().map(ToString::to_string).collect::<Vec<_>>()).as_deref()
            )
        };
        check(json!("a"), Some(&["a"]));
        check(json!(["a", "b"]), Some(&["a", "b"]));
        check(json!(null), Some(&[]));
        check(json!(["a", 1]), None);
        check(json!(1), None);
    }
}
