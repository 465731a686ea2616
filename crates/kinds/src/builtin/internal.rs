//! Values as refusals show them: upstream's own structs, printed with the names of their Go fields and all that is unset.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::schema::{Alternative, Field, Schema, Shape, Type, TypeId};
use crate::{Cause, decode, tables};

const META_TYPES: &str = "apimachinery.";
const OBJECT_META: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Names that are not the JSON name with a capital: Go's initialisms, and fields that upstream calls otherwise.
const NAMES: &[(&str, &str)] = &[
    ("$ref", "Ref"),
    ("$schema", "Schema"),
    ("cephfs", "CephFS"),
    ("chapAuthDiscovery", "DiscoveryCHAPAuth"),
    ("chapAuthSession", "SessionCHAPAuth"),
    ("cidrs", "CIDRs"),
    ("diskURI", "DataDiskURI"),
    ("ips", "IPs"),
    ("pdID", "PdID"),
    ("qosClass", "QOSClass"),
    ("serviceAccount", "DeprecatedServiceAccount"),
    ("storageos", "StorageOS"),
    ("wwids", "WWIDs"),
];
const NAMES_OF_TYPES: &[(&str, &str, &str)] = &[
    ("RBDPersistentVolumeSource", "monitors", "CephMonitors"),
    ("RBDPersistentVolumeSource", "image", "RBDImage"),
    ("RBDPersistentVolumeSource", "pool", "RBDPool"),
    ("RBDPersistentVolumeSource", "user", "RadosUser"),
    ("RBDVolumeSource", "monitors", "CephMonitors"),
    ("RBDVolumeSource", "image", "RBDImage"),
    ("RBDVolumeSource", "pool", "RBDPool"),
    ("RBDVolumeSource", "user", "RadosUser"),
];
/// Words at the start of a JSON name that Go writes in capitals.
const INITIALISMS: &[&str] = &[
    "api", "aws", "ca", "cel", "cidr", "csi", "dns", "fc", "fs", "gce", "gmsa", "grpc", "http", "id", "ip", "iqn",
    "iscsi", "json", "nfs", "os", "pd", "rbd", "se", "ssl", "tcp", "tls", "ttl", "tty", "uid", "url",
];

/// The value of the type `api.core.v1.PodSpec` (or so) as upstream's struct.
pub fn shown(type_name: &str, value: &Value) -> Value {
    let schema = tables::schema();
    match type_id(type_name) {
        Some(id) => object(schema, schema.get(id), value),
        None => value.clone(),
    }
}

/// `field is immutable`, with the new value, when it is not the old one.
pub fn immutable(type_name: &str, new: &Value, old: &Value, path: &str) -> Option<Cause> {
    let value = if new.is_null() { Value::Null } else { shown(type_name, new) };
    (new != old).then(|| Cause::invalid(path, &value, "field is immutable"))
}

/// How the second value of the type differs from the first, as a unified diff of what both look like.
pub fn diff(type_name: &str, old: &Value, new: &Value) -> String {
    super::diff::of_values(&shown(type_name, old), &shown(type_name, new))
}

/// As [`diff`], of a struct that Go inlines into the type.
pub fn diff_of_inlined(type_name: &str, inlined: &str, old: &Value, new: &Value) -> String {
    let schema = tables::schema();
    let Some(id) = type_id(type_name) else { return super::diff::of_values(old, new) };
    let mut type_ = schema.get(id).clone();
    type_.fields.retain(|field| field.inlined_as.as_deref() == Some(inlined));
    type_.name = inlined.into();
    super::diff::of_values(&object(schema, &type_, old), &object(schema, &type_, new))
}

fn type_id(name: &str) -> Option<TypeId> {
    static TYPES: OnceLock<HashMap<&'static str, TypeId>> = OnceLock::new();
    let types = TYPES.get_or_init(|| {
        let types = tables::schema().types.iter().enumerate();
        types.map(|(at, type_)| (&*type_.name, TypeId(at as u32))).collect()
    });
    types.get(name).copied()
}

fn object(schema: &Schema, type_: &Type, value: &Value) -> Value {
    let mut out = Map::new();
    let is_object =
        type_.fields.iter().any(|field| matches!(field.shape, Shape::Struct(id) if is_object_meta(schema, id)));
    for field in fields(type_) {
        // Upstream's own objects do not say what they are.
        if is_object && matches!(&*field.name, "kind" | "apiVersion") {
            continue;
        }
        let given = value.get(&*field.name).unwrap_or(&Value::Null);
        if matches!(field.shape, Shape::Struct(id) if is_object_meta(schema, id)) {
            // Embedded, and written as JSON has it.
            out.extend(given.as_object().cloned().unwrap_or_default());
            continue;
        }
        out.insert(go_name(type_, &field.name), of_field(schema, field, given));
    }
    Value::Object(out)
}

fn is_object_meta(schema: &Schema, id: TypeId) -> bool {
    &*schema.get(id).name == OBJECT_META
}

/// In the order of upstream's struct, which is that of the served type nearly everywhere.
fn fields(type_: &Type) -> Vec<&Field> {
    let mut fields: Vec<&Field> = type_.fields.iter().collect();
    if type_.name.ends_with(".JSONSchemaProps")
        && let Some(nullable) = fields.iter().position(|field| &*field.name == "nullable")
        && let Some(format) = fields.iter().position(|field| &*field.name == "format")
    {
        let field = fields.remove(nullable);
        fields.insert(format, field);
    }
    fields
}

fn of_field(schema: &Schema, field: &Field, value: &Value) -> Value {
    if !value.is_null() {
        return of_shape(schema, &field.shape, value);
    }
    match &field.shape {
        _ if field.pointer => Value::Null,
        Shape::Struct(id) if !is_meta(schema.get(*id)) => object(schema, schema.get(*id), &Value::Null),
        shape => decode::zero(schema, shape),
    }
}

fn of_shape(schema: &Schema, shape: &Shape, value: &Value) -> Value {
    match (shape, value) {
        (Shape::Struct(id), Value::Object(_)) if !is_meta(schema.get(*id)) => object(schema, schema.get(*id), value),
        (Shape::StructOr(id, other), _) => either(schema, schema.get(*id), *other, value),
        (Shape::List(..) | Shape::Map(_), _) if value.as_array().is_some_and(Vec::is_empty) => value.clone(),
        (Shape::List(item, _), Value::Array(items)) => items.iter().map(|v| of_shape(schema, item, v)).collect(),
        (Shape::Map(item), Value::Object(entries)) => {
            Value::Object(entries.iter().map(|(key, v)| (key.clone(), of_shape(schema, item, v))).collect())
        }
        _ => value.clone(),
    }
}

fn either(schema: &Schema, type_: &Type, other: Alternative, value: &Value) -> Value {
    let own = if value.is_object() { object(schema, type_, value) } else { Value::Null };
    match other {
        Alternative::Bool => {
            let allows = value.as_bool().unwrap_or(!value.is_null());
            serde_json::json!({"Allows": allows, "Schema": own})
        }
        Alternative::List => {
            let items = value.as_array().map(|items| items.iter().map(|v| object(schema, type_, v)).collect::<Value>());
            serde_json::json!({"Schema": own, "JSONSchemas": items})
        }
        Alternative::Strings => {
            let names = value.as_array().map(|_| value.clone());
            serde_json::json!({"Schema": own, "Property": names})
        }
    }
}

/// Types of the machinery have no internal form.
fn is_meta(type_: &Type) -> bool {
    type_.name.starts_with(META_TYPES)
}

fn go_name(type_: &Type, name: &str) -> String {
    let of_type = NAMES_OF_TYPES.iter().find(|(t, json, _)| *json == name && type_.name.ends_with(&format!(".{t}")));
    if let Some((.., go)) = of_type {
        return (*go).to_owned();
    }
    if let Some((_, go)) = NAMES.iter().find(|(json, _)| *json == name) {
        return (*go).to_owned();
    }
    if let Some(extension) = name.strip_prefix("x-kubernetes-") {
        let words = extension.split('-').map(capital);
        return format!("X{}", words.collect::<String>());
    }
    let ends = |at: usize| name.as_bytes().get(at).is_none_or(|next| next.is_ascii_uppercase());
    match INITIALISMS.iter().find(|word| name.starts_with(**word) && ends(word.len())) {
        Some(word) => format!("{}{}", word.to_uppercase(), &name[word.len()..]),
        None => capital(name),
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(type_name: &str, value: Value, expected: &str) {
        assert_eq!(shown(type_name, &value).to_string(), expected);
    }

    #[test]
    fn values_have_go_names() {
        check(
            "api.core.v1.HTTPGetAction",
            json!({"port": 80}),
            r#"{"Path":"","Port":80,"Host":"","Scheme":"","HTTPHeaders":null,"Protocol":null}"#,
        );
        check(
            "api.core.v1.NodeSelectorRequirement",
            json!({"key": "a", "operator": "In", "values": ["b"]}),
            r#"{"Key":"a","Operator":"In","Values":["b"]}"#,
        );
        check(
            "api.core.v1.ObjectFieldSelector",
            json!({"apiVersion": "v1", "fieldPath": "spec.nodeName"}),
            r#"{"APIVersion":"v1","FieldPath":"spec.nodeName"}"#,
        );
        check(
            "api.core.v1.FCVolumeSource",
            json!({"wwids": ["w"], "lun": 0, "fsType": "xfs"}),
            r#"{"TargetWWNs":null,"Lun":0,"FSType":"xfs","ReadOnly":false,"WWIDs":["w"]}"#,
        );
        check(
            "api.core.v1.RBDVolumeSource",
            json!({"monitors": ["m"], "image": "i"}),
            r#"{"CephMonitors":["m"],"RBDImage":"i","FSType":"","RBDPool":"","RadosUser":"","Keyring":"","SecretRef":null,"ReadOnly":false}"#,
        );
    }

    #[test]
    fn metadata_is_embedded_as_it_is() {
        check(
            "api.resource.v1.ResourceClaimTemplateSpec",
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {}}),
            r#"{"labels":{"a":"b"},"Spec":{"Devices":{"Requests":null,"Constraints":null,"Config":null}}}"#,
        );
    }

    #[test]
    fn objects_do_not_say_what_they_are() {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}});
        let shown = shown("api.core.v1.PersistentVolumeClaim", &claim).to_string();
        assert!(shown.starts_with(r#"{"name":"c","Spec":{"AccessModes":null,"Selector":null,"#), "{shown}");
    }

    #[test]
    fn schemas_are_objects_or_something_simpler() {
        let schema = json!({"additionalProperties": false, "x-kubernetes-list-type": "map"});
        let shown = shown("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps", &schema);
        assert_eq!(shown["AdditionalProperties"], json!({"Allows": false, "Schema": null}));
        assert_eq!(shown["XListType"], "map");
        let names: Vec<&String> = shown.as_object().into_iter().flatten().map(|(name, _)| name).collect();
        assert_eq!(names[..7], ["ID", "Schema", "Ref", "Description", "Type", "Nullable", "Format"]);
    }

    #[test]
    fn pods_differ_as_recorded() {
        let spec = |rest: Value| {
            let mut spec = json!({
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "containers": [{"name": "main", "image": "nginx:1", "imagePullPolicy": "IfNotPresent"}],
            });
            spec.as_object_mut()
                .into_iter()
                .for_each(|spec| spec.extend(rest.as_object().cloned().unwrap_or_default()));
            spec
        };
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]);
        let mut old = spec(json!({
            "serviceAccountName": "default", "serviceAccount": "default",
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": sources, "defaultMode": 420}}],
        }));
        old["containers"][0]["volumeMounts"] =
            json!([{"name": "kube-api-access-x", "readOnly": true, "mountPath": "/v"}]);
        let diff = diff("api.core.v1.PodSpec", &old, &spec(json!({})));
        let lines: Vec<&str> = diff.lines().collect();
        let hunks: Vec<&&str> = lines.iter().filter(|line| line.starts_with("@@")).collect();
        assert_eq!(hunks, [&"@@ -1,97 +1,5 @@", &"@@ -111,18 +19,7 @@", &"@@ -143,8 +40,8 @@"]);
        assert_eq!(lines.last(), Some(&"  \"HostNetwork\": false,"));
    }
}
