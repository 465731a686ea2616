//! Custom resources, as far as the server alone serves them: no controller runs here, so that names are accepted by hand.

use serde_json::{Value, json};
use server::Options;

use crate::Asked;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.com";
const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

/// A server with a definition whose names are accepted, and one object of it.
async fn with_a_thing() -> Asked {
    let asked = Asked::start(Options::default()).await;
    let names = json!({"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    });
    let (code, mut made) = asked.ask(&format!("POST {DEFINITIONS}"), Some(&definition)).await;
    assert_eq!(code, 201, "{made}");
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "R", "message": "m"});
    made["status"]["acceptedNames"] = names;
    made["status"]["conditions"] = json!([condition("NamesAccepted"), condition("Established")]);
    let (code, made) = asked.ask(&format!("PUT {DEFINITION}/status"), Some(&made)).await;
    assert_eq!(code, 200, "{made}");
    let owner = json!({"uid": "u", "name": "o", "kind": "K", "apiVersion": "v1"});
    let metadata = json!({"name": "a", "labels": {"b": "c"}, "ownerReferences": [owner], "annotations": {"d": "e"}});
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": metadata});
    let (code, made) = asked.ask(&format!("POST {THINGS}"), Some(&thing)).await;
    assert_eq!(code, 201, "{made}");
    asked
}

#[tokio::test]
async fn partial_metadata_is_in_gos_order() {
    let asked = with_a_thing().await;
    let keys = |value: &Value| {
        let keys = value.as_object().into_iter().flat_map(|map| map.keys());
        keys.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let check = async |path: &str, form: &str, pointer: &str| {
        let accept = format!("application/json;as={form};g=meta.k8s.io;v=v1");
        let (_, shown) = asked.accepting(&accept, &format!("GET {path}")).await;
        let metadata = shown.pointer(pointer).unwrap_or(&Value::Null);
        let want = "name namespace uid resourceVersion generation creationTimestamp labels annotations ownerReferences managedFields";
        assert_eq!(keys(metadata), want, "{shown}");
        assert_eq!(keys(&metadata["ownerReferences"][0]), "apiVersion kind name uid", "{shown}");
        assert_eq!(
            keys(&metadata["managedFields"][0]),
            "manager operation apiVersion time fieldsType fieldsV1",
            "{shown}"
        );
    };
    check(&format!("{THINGS}/a"), "PartialObjectMetadata", "/metadata").await;
    check(THINGS, "PartialObjectMetadataList", "/items/0/metadata").await;
    check(THINGS, "Table", "/rows/0/object/metadata").await;
}

#[tokio::test]
async fn a_definition_that_serves_nothing_keeps_its_objects() {
    let asked = with_a_thing().await;
    let serve = async |served: bool| {
        let patch = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": served}]);
        let (code, patched) =
            asked.patching("application/json-patch+json", &format!("PATCH {DEFINITION}"), &patch).await;
        assert_eq!(code, 200, "{patched}");
    };
    let groups = async || {
        let (_, groups) = asked.ask("GET /apis", None).await;
        groups["groups"].as_array().into_iter().flatten().any(|group| group["name"] == "example.com")
    };
    assert!(groups().await);
    serve(false).await;
    assert!(!groups().await);
    assert_eq!(asked.ask(&format!("GET {THINGS}/a"), None).await.0, 404);
    assert_eq!(asked.ask("GET /apis/example.com", None).await.0, 404);
    serve(true).await;
    assert!(groups().await);
    assert_eq!(asked.ask(&format!("GET {THINGS}/a"), None).await.0, 200);
    // Who deletes what the definition defined reaches it while the definition goes.
    serve(false).await;
    let (code, deleted) = asked.ask(&format!("DELETE {DEFINITION}"), None).await;
    assert_eq!(code, 200, "{deleted}");
    assert_eq!(asked.ask(&format!("GET {THINGS}/a"), None).await.0, 200);
}
