//! Selectors as objects carry them (`matchLabels`, `matchExpressions`), read into the one that queries use.

use api::selector::{Op, Requirement};
use kemudi_client::LabelSelector;
use serde_json::Value;

/// Reads a `metav1.LabelSelector`; `None` where an operator is not known. An empty selector matches everything.
pub(crate) fn of(selector: &Value) -> Option<LabelSelector> {
    let mut terms = Vec::new();
    if let Some(labels) = selector["matchLabels"].as_object() {
        for (key, value) in labels {
            let values = vec![value.as_str()?.to_string()];
            terms.push(Requirement { key: key.clone(), op: Op::Equals, values });
        }
    }
    for term in api::meta::items_at(selector, &["matchExpressions"]) {
        terms.push(requirement(term)?);
    }
    Some(LabelSelector(terms))
}

/// One term with `key`, `operator` and `values`, as label selectors and node selectors have it.
pub(crate) fn requirement(term: &Value) -> Option<Requirement> {
    let op = match term["operator"].as_str()? {
        "In" => Op::In,
        "NotIn" => Op::NotIn,
        "Exists" => Op::Exists,
        "DoesNotExist" => Op::DoesNotExist,
        "Gt" => Op::GreaterThan,
        "Lt" => Op::LessThan,
        _ => return None,
    };
    let values = api::meta::items_at(term, &["values"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    Some(Requirement { key: term["key"].as_str()?.to_string(), op, values })
}
