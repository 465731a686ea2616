//! Custom resources: any schema compiles or is refused, and objects of what compiles are pruned, defaulted, written, read
//! and applied like all others.

use std::sync::Arc;

use kinds::{Kind, custom, validate};
use serde_json::{Value, json};

use crate::patches::Step;
use crate::values::stays;

/// An OpenAPI schema, an object of it and a configuration to be applied to that, one JSON value after the other.
pub fn definitions(bytes: &[u8]) {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().map_while(Result::ok);
    let Some(schema) = values.next() else { return };
    let Some((kind, is_valid)) = defined(&schema) else { return };
    let (object, config) = (values.next().unwrap_or(json!({})), values.next());
    let Ok(read) = kind.decode(object.to_string().as_bytes()) else { return };
    let mut object = read.object;
    if is_valid {
        stays(&kind, &object);
    }
    kind.default(&mut object);
    let causes = validate::create(&kind, &object);
    if !is_valid || !causes.is_empty() {
        return;
    }
    stays(&kind, &object);
    let mut twice = object.clone();
    kind.default(&mut twice);
    assert_eq!(twice.to_string(), object.to_string(), "defaulted twice: {schema}");
    let Some(mut config) = config.filter(Value::is_object) else { return };
    config["apiVersion"] = kind.api_version().into();
    config["kind"] = (*kind.kind).into();
    let step = |manager, now| Step { kind: &kind, manager, now };
    let first = step("one", "2026-01-01T00:00:00Z").apply(None, &object, false);
    let first = first.unwrap_or(object);
    step("two", "2026-01-01T00:00:01Z").apply(Some(&first), &config, false);
    step("two", "2026-01-01T00:00:01Z").apply(Some(&first), &config, true);
}

/// The kind that a definition with this schema makes, and whether the server would take the definition.
fn defined(schema: &Value) -> Option<(Arc<Kind>, bool)> {
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    let version = json!({
        "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "names": names, "scope": "Cluster", "versions": [version]},
        "status": {"acceptedNames": names, "conditions": [{"type": "NamesAccepted", "status": "True"}]},
    });
    let registry = kinds::builtin();
    let definitions = registry.kind("apiextensions.k8s.io", "v1", "customresourcedefinitions")?;
    let mut definition = definitions.normalize(definition).ok()?.object;
    definitions.default(&mut definition);
    let is_valid = validate::create(definitions, &definition).is_empty();
    let kind = custom::kinds(&definition, 0).into_iter().next()?;
    Some((Arc::new(kind), is_valid))
}
