//! The documents made from the tables against those of a real server (`tests/openapi.json`: the facts of its documents,
//! without descriptions, one line per schema and path).

use std::collections::BTreeSet;

use kinds::openapi;
use serde_json::{Map, Value, json};

/// A document brought into the form of the facts.
fn facts_of(document: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    let paths = document["paths"].as_object().into_iter().flatten().map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten().map(|(method, operation)| {
            let facts = match method.as_str() {
                "parameters" => names(operation),
                _ => operation_facts(operation),
            };
            (method.clone(), facts)
        });
        (path.clone(), Value::Object(methods.collect()))
    });
    (schemas, paths.collect())
}

fn operation_facts(operation: &Value) -> Value {
    let mut facts = json!({});
    let mut keep = |name: &str, value: Value| {
        if !value.is_null() {
            facts[name] = value;
        }
    };
    keep("action", operation["x-kubernetes-action"].clone());
    keep("gvk", operation["x-kubernetes-group-version-kind"].clone());
    keep("parameters", operation.get("parameters").map_or(Value::Null, names));
    keep("codes", keys(&operation["responses"]));
    keep("produces", keys(&operation["responses"]["200"]["content"]));
    keep("consumes", keys(&operation["requestBody"]["content"]));
    facts
}

fn keys(value: &Value) -> Value {
    value.as_object().map_or(Value::Null, |map| map.keys().collect::<BTreeSet<_>>().into_iter().cloned().collect())
}

fn names(parameters: &Value) -> Value {
    let mut names: Vec<Value> = parameters.as_array().into_iter().flatten().map(|p| p["name"].clone()).collect();
    names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    names.into()
}

/// What means the same is made the same: a reference that nothing stands beside, the list type of what is no list or of
/// a list that says none.
fn plain(schema: &Value) -> Value {
    let mut schema = schema.clone();
    for property in schema["properties"].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if property.get("$ref").is_some() {
            *property = json!({ "allOf": [property.take()] });
        }
        if property["x-kubernetes-list-type"] == "atomic" {
            property.as_object_mut().unwrap().shift_remove("x-kubernetes-list-type");
        }
    }
    if schema.get("properties").is_none_or(Value::is_null) {
        schema.as_object_mut().unwrap().shift_remove("properties");
    }
    schema
}

fn compare(what: &str, ours: Option<&Value>, theirs: Option<&Value>, differences: &mut Vec<String>) {
    if ours != theirs {
        let print = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
        differences.push(format!("{what}\n   ours: {}\n  facts: {}", print(ours), print(theirs)));
    }
}

#[test]
fn documents_have_the_schemas_and_paths_of_a_real_server() {
    let facts: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    let registry = kinds::builtin();
    let mut differences = Vec::new();
    let mut compared = 0;
    for (path, document) in facts["documents"].as_object().unwrap() {
        let Some(ours) = openapi::v3(&registry, path) else {
            differences.push(format!("no document {path}"));
            continue;
        };
        let (schemas, paths) = facts_of(&ours);
        let names: BTreeSet<&str> = document["schemas"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for name in schemas.keys().map(String::as_str).chain(names.iter().copied()).collect::<BTreeSet<_>>() {
            let theirs = names.contains(name).then(|| {
                let mut schema = plain(&facts["schemas"][name]);
                // Of what every group has, a document names its own group's.
                if let Some(kinds) = document["kinds"].get(name) {
                    schema["x-kubernetes-group-version-kind"] = kinds.clone();
                }
                schema
            });
            let ours = schemas.get(name).map(plain);
            compare(&format!("{path} {name}"), ours.as_ref(), theirs.as_ref(), &mut differences);
            compared += 1;
        }
        let theirs = document["paths"].as_object().unwrap();
        for name in paths.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            compare(name, paths.get(name), theirs.get(name), &mut differences);
            compared += 1;
        }
    }
    assert!(compared > 1_500, "{compared} compared");
    differences.dedup();
    assert!(differences.is_empty(), "{} of {compared} differ\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn version_2_names_what_the_recordings_name() {
    let document = openapi::v2(&kinds::builtin());
    let check = |pointer: &str, expected: &str| {
        let found = document.pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(expected), "{pointer}");
    };
    check("/swagger", "2.0");
    check("/info/title", "Kubernetes");
    check("/definitions/io.k8s.api.core.v1.Pod/x-kubernetes-group-version-kind/0/kind", "Pod");
    check("/definitions/io.k8s.api.core.v1.PodSpec/properties/containers/x-kubernetes-patch-merge-key", "name");
    check("/definitions/io.k8s.api.core.v1.PodSpec/properties/containers/x-kubernetes-patch-strategy", "merge");
    check("/definitions/io.k8s.api.core.v1.PodSpec/required/0", "containers");
    check("/paths/~1api~1v1~1namespaces~1{namespace}~1pods/post/x-kubernetes-action", "post");
    check("/paths/~1api~1v1~1namespaces~1{namespace}~1pods/get/operationId", "listCoreV1NamespacedPod");
    check("/definitions/io.k8s.api.core.v1.Pod/properties/spec/$ref", "#/definitions/io.k8s.api.core.v1.PodSpec");
    check("/definitions/io.k8s.apimachinery.pkg.util.intstr.IntOrString/format", "int-or-string");
    check("/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity/type", "string");
}
