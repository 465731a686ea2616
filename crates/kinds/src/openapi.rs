//! OpenAPI documents of whatever a registry serves, v3 per group version and v2 in one: enough for clients that
//! validate, explain and generate. Made from the tables when somebody asks; nothing here is kept.

pub mod protobuf;
mod words;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::custom::publish;
use crate::schema::{Alternative, Field, ListType, MapType, Omit, Schema, Shape, TypeId};
use crate::{Kind, Registry, Subresource, tables};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The documents there are, as paths below `/openapi/v3/`, in order.
pub fn v3_paths(registry: &Registry) -> Vec<String> {
    let mut paths: Vec<String> = OTHERS.iter().map(|other| other.path.trim_matches('/').to_owned()).collect();
    paths.extend(["api".to_owned(), "apis".to_owned()]);
    for group in registry.groups() {
        if !group.name.is_empty() {
            paths.push(format!("apis/{}", group.name));
        }
        paths.extend(group.versions.iter().map(|v| prefix(&group.name, &v.version).trim_start_matches('/').to_owned()));
    }
    paths.sort();
    paths
}

/// The document at a path below `/openapi/v3/`.
pub fn v3(registry: &Registry, path: &str) -> Option<Value> {
    let operations = operations_of(registry, path)?;
    let mut schemas = Schemas { registry, schema: schema_of(registry, path), v3: true, found: BTreeMap::new() };
    let paths = paths_object(&operations, &mut schemas);
    let own = path.strip_prefix("apis/").or(path.strip_prefix("api/"));
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths,
        "components": {
            "schemas": schemas.into_object(registry, own),
            "securitySchemes": { "BearerToken": security() },
        },
    }))
}

/// The one document of version 2.
pub fn v2(registry: &Registry) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for path in v3_paths(registry) {
        let operations = operations_of(registry, &path).unwrap_or_default();
        let mut schemas = Schemas { registry, schema: schema_of(registry, &path), v3: false, found: BTreeMap::new() };
        paths.extend(paths_object(&operations, &mut schemas));
        definitions.extend(schemas.into_object(registry, None));
    }
    definitions.sort_keys();
    paths.sort_keys();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": VERSION },
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": { "BearerToken": security() },
        "security": [{ "BearerToken": [] }],
    })
}

/// Writes into a document, of either version, what its types and fields are for, where `text` knows it and the document says
/// nothing yet. `text` is given the OpenAPI name of a type, and a field of it or `""`.
pub fn describe<'a>(document: &mut Value, text: impl Fn(&str, &str) -> Option<&'a str>) {
    let types = match document.get("definitions").is_some() {
        true => document.pointer_mut("/definitions"),
        false => document.pointer_mut("/components/schemas"),
    };
    let put = |schema: &mut Value, text: Option<&str>| {
        if let (Some(schema), Some(text)) = (schema.as_object_mut(), text)
            && !schema.contains_key("description")
        {
            schema.shift_insert(0, "description".to_owned(), text.into());
        }
    };
    for (name, schema) in types.and_then(Value::as_object_mut).into_iter().flatten() {
        put(schema, text(name, ""));
        for (field, schema) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
            put(schema, text(name, field));
        }
    }
    for item in
        document.pointer_mut("/paths").and_then(Value::as_object_mut).into_iter().flat_map(|paths| paths.values_mut())
    {
        words::describe_parameters(item, |parameter, (of, name)| put(parameter, text(of, name)));
    }
}

/// The version of Kubernetes that the tables are of.
const VERSION: &str = "v1.37.2";

fn security() -> Value {
    json!({ "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header" })
}

/// One method of one path.
#[derive(Default)]
struct Operation {
    path: String,
    method: &'static str,
    id: String,
    /// What it does.
    description: String,
    tag: String,
    /// `x-kubernetes-action`, `""` for none.
    action: &'static str,
    /// Group, version, kind.
    about: Option<[String; 3]>,
    parameters: Vec<Parameter>,
    consumes: &'static [&'static str],
    /// The OpenAPI name of what is sent.
    body: Option<String>,
    produces: &'static [&'static str],
    codes: &'static [&'static str],
    /// The OpenAPI name of what comes back, a plain string where there is none.
    answer: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    place: &'static str,
    type_: &'static str,
    required: bool,
    /// What it is for, where that is not said of an option.
    description: String,
}

/// Documents of what is no resource.
struct Other {
    path: &'static str,
    id: &'static str,
    description: &'static str,
    tag: &'static str,
    produces: &'static [&'static str],
}

const OTHERS: [Other; 3] = [
    Other {
        path: "/version/",
        id: "getCodeVersion",
        description: "get the version information for this server",
        tag: "version",
        produces: &["application/json"],
    },
    Other {
        path: "/.well-known/openid-configuration/",
        id: "getServiceAccountIssuerOpenIDConfiguration",
        description: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        tag: "WellKnown",
        produces: &["application/json"],
    },
    Other {
        path: "/openid/v1/jwks/",
        id: "getServiceAccountIssuerOpenIDKeyset",
        description: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        tag: "openid",
        produces: &["application/jwk-set+json"],
    },
];

const ENCODINGS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMED: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const TEXT_TOO: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM_ENCODINGS: &[&str] = &["application/json", "application/yaml"];
const CUSTOM_STREAMED: &[&str] = &["application/json", "application/json;stream=watch", "application/yaml"];
const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const FORCE: &[(&str, &str)] = &[("force", "boolean")];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// `/api/v1` or `/apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn schema_of<'a>(registry: &'a Registry, path: &str) -> &'a Schema {
    let steps: Vec<&str> = path.split('/').collect();
    let kinds = match steps.as_slice() {
        ["api", version] => registry.group("").and_then(|g| g.version(version)),
        ["apis", group, version] => registry.group(group).and_then(|g| g.version(version)),
        _ => None,
    };
    kinds.and_then(|version| version.kinds.first()).map_or(tables::schema(), |kind| &kind.schema)
}

fn operations_of(registry: &Registry, path: &str) -> Option<Vec<Operation>> {
    let root = |id: String, tag: String, answer: &str| Operation {
        path: format!("/{path}/"),
        method: "get",
        id,
        description: words::of_root(answer).to_owned(),
        tag,
        produces: ENCODINGS,
        codes: &["200", "401"],
        answer: Some(format!("{META}{answer}")),
        ..Operation::default()
    };
    let steps: Vec<&str> = path.split('/').collect();
    Some(match steps.as_slice() {
        ["api"] => vec![root("getCoreAPIVersions".to_owned(), "core".to_owned(), "APIVersions")],
        ["apis"] => vec![root("getAPIVersions".to_owned(), "apis".to_owned(), "APIGroupList")],
        ["apis", group] => {
            registry.group(group)?;
            let (name, tag) = group_words(group);
            vec![root(format!("get{name}APIGroup"), tag, "APIGroup")]
        }
        ["api", version] => version_operations(registry, "", version, root)?,
        ["apis", group, version] => version_operations(registry, group, version, root)?,
        _ => {
            let other = OTHERS.iter().find(|other| other.path.trim_matches('/') == path.trim_end_matches('/'))?;
            vec![Operation {
                path: other.path.to_owned(),
                method: "get",
                id: other.id.to_owned(),
                description: other.description.to_owned(),
                tag: other.tag.to_owned(),
                produces: other.produces,
                codes: &["200", "401"],
                ..Operation::default()
            }]
        }
    })
}

/// `RbacAuthorization` for operation ids and `rbacAuthorization` for tags.
fn group_words(group: &str) -> (String, String) {
    let short = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    let name: String = short.split(['.', '-']).map(capital).collect();
    let tag = name.chars().take(1).flat_map(char::to_lowercase).chain(name.chars().skip(1)).collect();
    (name, tag)
}

fn capital(word: &str) -> String {
    word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect()
}

fn version_operations(
    registry: &Registry,
    group: &str,
    version: &str,
    root: impl Fn(String, String, &str) -> Operation,
) -> Option<Vec<Operation>> {
    let (name, tag) = group_words(group);
    let (name, tag) = (format!("{name}{}", capital(version)), format!("{tag}_{version}"));
    let mut operations = vec![root(format!("get{name}APIResources"), tag.clone(), "APIResourceList")];
    for kind in &registry.group(group)?.version(version)?.kinds {
        Words { kind, name: &name, tag: &tag, base: prefix(group, version) }.resource(&mut operations);
    }
    Some(operations)
}

/// The operations of one resource.
struct Words<'a> {
    kind: &'a Kind,
    name: &'a str,
    tag: &'a str,
    base: String,
}

impl Words<'_> {
    fn resource(&self, out: &mut Vec<Operation>) {
        let kind = self.kind;
        let has = |verb: &str| kind.has_verb(verb);
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        let all = format!("{}/{}", self.base, kind.plural);
        let collection = match kind.namespaced {
            true => format!("{}/namespaces/{{namespace}}/{}", self.base, kind.plural),
            false => all.clone(),
        };
        let item = format!("{collection}/{{name}}");
        let title = format!("{scope}{}", kind.kind);
        let (encodings, streamed, patches) = match kind.is_custom() {
            true => (CUSTOM_ENCODINGS, CUSTOM_STREAMED, CUSTOM_PATCHES),
            false => (ENCODINGS, STREAMED, PATCHES),
        };
        let own = Some(type_name(kind, kind.root));
        let list = Some(list_name(kind));
        let gvk = [kind.group.to_string(), kind.version.to_string(), kind.kind.to_string()];
        let base = |path: &str, method: &'static str, id: String, action| Operation {
            path: path.to_owned(),
            method,
            id,
            description: words::of_operation(kind, "", action, method),
            tag: self.tag.to_owned(),
            action,
            about: Some(gvk.clone()),
            produces: encodings,
            codes: &["200", "401"],
            answer: own.clone(),
            ..Operation::default()
        };
        let name = self.name;
        if has("list") {
            let listing = |path: &str, id: String| Operation {
                parameters: self.parameters(&kind.kind, path, LIST),
                produces: streamed,
                answer: list.clone(),
                ..base(path, "get", id, "list")
            };
            out.push(listing(&collection, format!("list{name}{title}")));
            if kind.namespaced {
                out.push(listing(&all, format!("list{name}{}ForAllNamespaces", kind.kind)));
            }
        }
        if has("create") {
            out.push(Operation {
                parameters: self.parameters(&kind.kind, &collection, WRITE),
                consumes: ANY,
                body: own.clone(),
                codes: &["200", "201", "202", "401"],
                ..base(&collection, "post", format!("create{name}{title}"), "post")
            });
        }
        if has("deletecollection") {
            let both: Vec<(&str, &str)> =
                LIST.iter().filter(|(p, _)| !p.to_lowercase().contains("watch")).chain(DELETE).copied().collect();
            out.push(Operation {
                parameters: self.parameters(&kind.kind, &collection, &both),
                consumes: ANY,
                body: Some(format!("{META}DeleteOptions")),
                answer: Some(format!("{META}Status")),
                ..base(&collection, "delete", format!("delete{name}Collection{title}"), "deletecollection")
            });
        }
        if has("get") {
            out.push(Operation {
                parameters: self.parameters(&kind.kind, &item, &[]),
                ..base(&item, "get", format!("read{name}{title}"), "get")
            });
        }
        if has("update") {
            out.push(Operation {
                parameters: self.parameters(&kind.kind, &item, WRITE),
                consumes: ANY,
                body: own.clone(),
                codes: &["200", "201", "401"],
                ..base(&item, "put", format!("replace{name}{title}"), "put")
            });
        }
        if has("patch") {
            let parameters: Vec<(&str, &str)> = WRITE.iter().chain(FORCE).copied().collect();
            out.push(Operation {
                parameters: self.parameters(&kind.kind, &item, &parameters),
                consumes: patches,
                body: Some(format!("{META}Patch")),
                codes: &["200", "201", "401"],
                ..base(&item, "patch", format!("patch{name}{title}"), "patch")
            });
        }
        if has("delete") {
            let returned = kind.behaviour.returns_deleted;
            out.push(Operation {
                parameters: self.parameters(&kind.kind, &item, DELETE),
                consumes: ANY,
                body: Some(format!("{META}DeleteOptions")),
                codes: &["200", "202", "401"],
                answer: if returned { own.clone() } else { Some(format!("{META}Status")) },
                ..base(&item, "delete", format!("delete{name}{title}"), "delete")
            });
        }
        if has("watch") && !kind.is_custom() {
            let watched = |path: &str| path.replacen(&self.base, &format!("{}/watch", self.base), 1);
            let watch = |path: String, id: String, action| Operation {
                parameters: self.parameters(&kind.kind, &path, LIST),
                produces: streamed,
                answer: Some(format!("{META}WatchEvent")),
                ..base(&path, "get", id, action)
            };
            out.push(watch(watched(&collection), format!("watch{name}{title}List"), "watchlist"));
            out.push(watch(watched(&item), format!("watch{name}{title}"), "watch"));
            if kind.namespaced {
                let id = format!("watch{name}{}ListForAllNamespaces", kind.kind);
                out.push(watch(watched(&all), id, "watchlist"));
            }
        }
        for sub in &kind.subresources {
            self.subresource(sub, &format!("{item}/{}", sub.name), &title, out);
        }
    }

    fn subresource(&self, sub: &Subresource, path: &str, title: &str, out: &mut Vec<Operation>) {
        let kind = self.kind;
        let has = |verb: &str| sub.verbs.iter().any(|v| &**v == verb);
        let (encodings, patches) = match kind.is_custom() {
            true => (CUSTOM_ENCODINGS, CUSTOM_PATCHES),
            false => (ENCODINGS, PATCHES),
        };
        let (group, version) = match sub.version.is_empty() {
            true => (&kind.group, &kind.version),
            false => (&sub.group, &sub.version),
        };
        let own = Some(type_name(kind, sub.root));
        let suffix: String = match &*sub.name {
            "ephemeralcontainers" => "Ephemeralcontainers".to_owned(),
            name => capital(name),
        };
        let base = |path: &str, method: &'static str, id: String, action| Operation {
            path: path.to_owned(),
            method,
            id,
            description: words::of_operation(kind, &sub.name, action, method),
            tag: self.tag.to_owned(),
            action,
            about: Some([group.to_string(), version.to_string(), sub.kind.to_string()]),
            produces: encodings,
            codes: &["200", "401"],
            answer: own.clone(),
            ..Operation::default()
        };
        let name = self.name;
        // What connects speaks no object: its options are parameters.
        let options: Vec<(&str, &str)> = kind.schema.get(sub.root).fields.iter().filter_map(option_parameter).collect();
        if sub.kind.ends_with("Options") {
            let mut paths = vec![(path.to_owned(), suffix.clone())];
            if &*sub.name == "proxy" {
                paths.push((format!("{path}/{{path}}"), format!("{suffix}WithPath")));
            }
            for (path, suffix) in paths {
                for (method, verb) in [
                    ("delete", "delete"),
                    ("get", "get"),
                    ("head", "delete"),
                    ("options", "delete"),
                    ("patch", "patch"),
                    ("post", "create"),
                    ("put", "update"),
                ] {
                    if has(verb) {
                        let mut parameters = self.parameters(&sub.kind, &path, &options);
                        parameters.retain(|parameter| parameter.name != "pretty");
                        out.push(Operation {
                            parameters,
                            produces: ANY,
                            answer: None,
                            ..base(&path, method, format!("connect{name}{}{title}{suffix}", capital(method)), "connect")
                        });
                    }
                }
            }
            return;
        }
        if has("get") {
            let log = &*sub.name == "log";
            let options = if log { log_parameters() } else { Vec::new() };
            out.push(Operation {
                parameters: self.parameters(&sub.kind, path, &options),
                produces: if log { TEXT_TOO } else { encodings },
                answer: own.clone().filter(|_| !log),
                ..base(path, "get", format!("read{name}{title}{suffix}"), "get")
            });
        }
        if has("create") {
            out.push(Operation {
                parameters: self.parameters(&sub.kind, path, WRITE),
                consumes: ANY,
                body: own.clone(),
                codes: &["200", "201", "202", "401"],
                ..base(path, "post", format!("create{name}{title}{suffix}"), "post")
            });
        }
        if has("update") {
            out.push(Operation {
                parameters: self.parameters(&sub.kind, path, WRITE),
                consumes: ANY,
                body: own.clone(),
                codes: &["200", "201", "401"],
                ..base(path, "put", format!("replace{name}{title}{suffix}"), "put")
            });
        }
        if has("patch") {
            let parameters: Vec<(&str, &str)> = WRITE.iter().chain(FORCE).copied().collect();
            out.push(Operation {
                parameters: self.parameters(&sub.kind, path, &parameters),
                consumes: patches,
                body: Some(format!("{META}Patch")),
                codes: &["200", "201", "401"],
                ..base(path, "patch", format!("patch{name}{title}{suffix}"), "patch")
            });
        }
    }

    /// Those of the operation, of the path, and `pretty`.
    fn parameters(&self, about: &str, path: &str, query: &[(&str, &'static str)]) -> Vec<Parameter> {
        let parameter = |name: &str, place, type_, description| Parameter {
            name: name.to_owned(),
            place,
            type_,
            required: place == "path",
            description,
        };
        let in_query = |name: &str, type_| parameter(name, "query", type_, String::new());
        let in_path = |name: &str| parameter(name, "path", "string", words::of_place(name, about));
        let mut parameters: Vec<Parameter> = query.iter().map(|(name, type_)| in_query(name, type_)).collect();
        for name in ["name", "namespace", "path"] {
            if path.contains(&format!("{{{name}}}")) {
                parameters.push(in_path(name));
            }
        }
        parameters.push(parameter("pretty", "query", "string", words::PRETTY.to_owned()));
        parameters
    }
}

fn option_parameter(field: &Field) -> Option<(&str, &'static str)> {
    let shape = match &field.shape {
        Shape::List(item, _) => item,
        shape => shape,
    };
    let type_ = match shape {
        Shape::String => "string",
        Shape::Bool => "boolean",
        Shape::Int32 | Shape::Int64 => "integer",
        _ => return None,
    };
    (!matches!(&*field.name, "kind" | "apiVersion")).then_some((&*field.name, type_))
}

fn log_parameters() -> Vec<(&'static str, &'static str)> {
    let schema = tables::schema();
    let options = schema.find("api.core.v1.PodLogOptions").map(|id| &schema.get(id).fields);
    options.into_iter().flatten().filter_map(option_parameter).collect()
}

fn paths_object(operations: &[Operation], schemas: &mut Schemas) -> Map<String, Value> {
    let mut by_path: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_path.entry(&operation.path).or_default().push(operation);
    }
    let mut paths = Map::new();
    for (path, mut operations) in by_path {
        operations.sort_by_key(|operation| operation.method);
        // What all have in common stands once.
        let common = |parameter: &Parameter| operations.iter().all(|o| o.parameters.contains(parameter));
        let mut item = Map::new();
        for operation in &operations {
            let own = operation.parameters.iter().filter(|parameter| !common(parameter));
            item.insert(operation.method.to_owned(), operation_object(operation, own, schemas));
        }
        let shared = parameters_array(operations[0].parameters.iter().filter(|p| common(p)), schemas.v3);
        if !shared.is_empty() {
            item.insert("parameters".to_owned(), shared.into());
        }
        paths.insert(path.to_owned(), item.into());
    }
    paths
}

fn operation_object<'a>(
    operation: &Operation,
    own: impl Iterator<Item = &'a Parameter>,
    schemas: &mut Schemas,
) -> Value {
    let mut parameters = parameters_array(own, schemas.v3);
    let answer = match &operation.answer {
        Some(name) => schemas.reference(name),
        None => json!({ "type": "string" }),
    };
    let mut out = Map::new();
    if !operation.description.is_empty() {
        out.insert("description".to_owned(), operation.description.clone().into());
    }
    out.insert("tags".to_owned(), json!([operation.tag]));
    out.insert("operationId".to_owned(), operation.id.clone().into());
    let mut responses = Map::new();
    for code in operation.codes {
        let description = match *code {
            "200" => "OK",
            "201" => "Created",
            "202" => "Accepted",
            _ => "Unauthorized",
        };
        let mut response = json!({ "description": description });
        if *code != "401" {
            match schemas.v3 {
                true => {
                    let content =
                        operation.produces.iter().map(|media| ((*media).to_owned(), json!({ "schema": answer })));
                    response["content"] = Value::Object(content.collect());
                }
                false => response["schema"] = answer.clone(),
            }
        }
        responses.insert((*code).to_owned(), response);
    }
    if let Some(body) = &operation.body {
        let body = schemas.reference(body);
        match schemas.v3 {
            true => {
                let content = operation.consumes.iter().map(|media| ((*media).to_owned(), json!({ "schema": body })));
                let mut request = json!({ "content": Value::Object(content.collect()) });
                if operation.method != "delete" {
                    request["required"] = true.into();
                }
                out.insert("requestBody".to_owned(), request);
            }
            false => parameters.push(json!({
                "name": "body", "in": "body", "required": operation.method != "delete", "schema": body,
            })),
        }
    }
    if !schemas.v3 {
        out.insert("schemes".to_owned(), json!(["https"]));
        out.insert("produces".to_owned(), json!(operation.produces));
        if !operation.consumes.is_empty() {
            out.insert("consumes".to_owned(), json!(operation.consumes));
        }
    }
    if !parameters.is_empty() {
        out.insert("parameters".to_owned(), parameters.into());
    }
    out.insert("responses".to_owned(), responses.into());
    if !operation.action.is_empty() {
        out.insert("x-kubernetes-action".to_owned(), operation.action.into());
    }
    if let Some([group, version, kind]) = &operation.about {
        let about = json!({ "group": group, "kind": kind, "version": version });
        out.insert("x-kubernetes-group-version-kind".to_owned(), about);
    }
    Value::Object(out)
}

fn parameters_array<'a>(parameters: impl Iterator<Item = &'a Parameter>, v3: bool) -> Vec<Value> {
    let mut parameters: Vec<&Parameter> = parameters.collect();
    parameters.sort_by(|a, b| (&a.name, a.place).cmp(&(&b.name, b.place)));
    let array = parameters.into_iter().map(|parameter| {
        let mut out = json!({ "name": parameter.name, "in": parameter.place });
        if !parameter.description.is_empty() {
            out["description"] = parameter.description.clone().into();
        }
        if parameter.required {
            out["required"] = true.into();
        }
        match v3 {
            true => out["schema"] = json!({ "type": parameter.type_, "uniqueItems": true }),
            false => {
                out["type"] = parameter.type_.into();
                out["uniqueItems"] = true.into();
            }
        }
        out
    });
    array.collect()
}

/// The OpenAPI name of a type of a kind.
fn type_name(kind: &Kind, id: TypeId) -> String {
    match kind.is_custom() && id == kind.root {
        true => custom_name(kind, &kind.kind),
        false => format!("io.k8s.{}", kind.schema.get(id).name),
    }
}

fn list_name(kind: &Kind) -> String {
    if kind.is_custom() {
        return custom_name(kind, &kind.list_kind);
    }
    let own = &kind.schema.get(kind.root).name;
    let package = own.rsplit_once('.').map_or("", |(package, _)| package);
    format!("io.k8s.{package}.{}", kind.list_kind)
}

/// `com.example.v1.Widget`: the group backwards.
fn custom_name(kind: &Kind, name: &str) -> String {
    let backwards: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{name}", backwards.join("."), kind.version)
}

/// The schemas that a document refers to, with those they refer to.
struct Schemas<'a> {
    registry: &'a Registry,
    schema: &'a Schema,
    v3: bool,
    found: BTreeMap<String, Value>,
}

impl Schemas<'_> {
    fn reference(&mut self, name: &str) -> Value {
        if !self.found.contains_key(name) {
            // Before its fields, which may refer to it.
            self.found.insert(name.to_owned(), Value::Null);
            let schema = self.make(name);
            self.found.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("{}{name}", if self.v3 { "#/components/schemas/" } else { "#/definitions/" }) })
    }

    /// `own` is the group and version of the document: of what every group has, only its own and the core's are named.
    fn into_object(mut self, registry: &Registry, own: Option<&str>) -> Map<String, Value> {
        for (name, kind, mut versions) in tables::served_types() {
            if let Some(schema) = self.found.get_mut(&format!("io.k8s.{name}")) {
                if let Some(own) = own.filter(|_| versions.len() > 1) {
                    versions.retain(|version| *version == "v1" || *version == own);
                }
                versions.sort_by_key(|version| version.contains('/'));
                let kinds = versions.iter().map(|group_version| {
                    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
                    json!({ "group": group, "kind": kind, "version": version })
                });
                schema["x-kubernetes-group-version-kind"] = kinds.collect();
            }
        }
        for (name, unions) in tables::unions() {
            if let Some(schema) = self.found.get_mut(&format!("io.k8s.{name}")) {
                schema["x-kubernetes-unions"] = unions;
            }
        }
        for kind in registry.kinds().filter(|kind| kind.is_custom()) {
            for name in [&kind.kind, &kind.list_kind] {
                if let Some(schema) = self.found.get_mut(&custom_name(kind, name)) {
                    schema["x-kubernetes-group-version-kind"] =
                        json!([{ "group": *kind.group, "kind": **name, "version": *kind.version }]);
                }
            }
        }
        self.found.into_iter().collect()
    }

    fn make(&mut self, name: &str) -> Value {
        if let Some(special) = self.special(name) {
            return special;
        }
        if let Some(custom) = self.custom(name) {
            return custom;
        }
        let short = name.strip_prefix("io.k8s.").unwrap_or(name);
        // What is common to all groups is in the tables.
        let (schema, id) = match (self.schema.find(short), tables::schema().find(short)) {
            (Some(id), _) => (self.schema, id),
            (None, Some(id)) => (&**tables::schema(), id),
            (None, None) => return json!({ "type": "object" }),
        };
        let outer = std::mem::replace(&mut self.schema, schema);
        let one = schema.get(id);
        let mut properties: Vec<(String, Value)> =
            one.fields.iter().map(|field| (field.name.to_string(), self.property(field))).collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        self.schema = outer;
        let required: Vec<&str> = one.fields.iter().filter(|f| f.required).map(|f| &*f.name).collect();
        let mut out = json!({ "type": "object" });
        if !required.is_empty() {
            out["required"] = json!(required);
        }
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties.into_iter().collect());
        }
        if one.atomic {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        if one.preserve_unknown {
            out["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        out
    }

    /// Objects and lists of custom resources.
    fn custom(&mut self, name: &str) -> Option<Value> {
        let is = |own: &Kind, what: &str| custom_name(own, what) == name;
        let mut kinds = self.registry.kinds().filter(|kind| kind.is_custom());
        let kind = kinds.find(|kind| is(kind, &kind.kind) || is(kind, &kind.list_kind))?.clone();
        if is(&kind, &kind.list_kind) {
            let item = self.reference(&custom_name(&kind, &kind.kind));
            let metadata = self.reference(&format!("{META}ListMeta"));
            return Some(publish::list(item, metadata));
        }
        let mut metadata = self.reference(&format!("{META}ObjectMeta"));
        if self.v3 {
            metadata = json!({ "allOf": [metadata] });
        }
        Some(publish::object(&kind.custom.as_ref()?.open_api, metadata, self.v3))
    }

    /// Types that are one value in JSON.
    fn special(&self, name: &str) -> Option<Value> {
        let short = name.strip_prefix("io.k8s.")?;
        Some(match short {
            "apimachinery.pkg.apis.meta.v1.Time" | "apimachinery.pkg.apis.meta.v1.MicroTime" => {
                json!({ "type": "string", "format": "date-time" })
            }
            "apimachinery.pkg.apis.meta.v1.Duration" => json!({ "type": "string" }),
            "apimachinery.pkg.api.resource.Quantity" if self.v3 => {
                json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] })
            }
            "apimachinery.pkg.api.resource.Quantity" => json!({ "type": "string" }),
            "apimachinery.pkg.util.intstr.IntOrString" if self.v3 => {
                json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
            }
            "apimachinery.pkg.util.intstr.IntOrString" => json!({ "type": "string", "format": "int-or-string" }),
            "apimachinery.pkg.runtime.RawExtension"
            | "apimachinery.pkg.apis.meta.v1.FieldsV1"
            | "apimachinery.pkg.apis.meta.v1.Patch" => json!({ "type": "object" }),
            _ if short.starts_with("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON")
                && !short.ends_with(".JSONSchemaProps") =>
            {
                json!({})
            }
            _ => return None,
        })
    }

    fn property(&mut self, field: &Field) -> Value {
        let mut out = self.shape(&field.shape, field);
        let reference = out.get("$ref").is_some();
        let default = match (&field.default, &field.shape) {
            (Some(default), _) => Some(default.clone()),
            (None, Shape::Struct(_)) if !field.pointer => Some(json!({})),
            (None, _) if field.pointer || field.omit != Omit::Never => None,
            (None, Shape::String) => Some("".into()),
            (None, Shape::Bool) => Some(false.into()),
            (None, Shape::Int32 | Shape::Int64) => Some(0.into()),
            _ => None,
        };
        if reference && self.v3 {
            out = json!({ "allOf": [out] });
        }
        // Version 2 has no defaults: its clients took them for their own.
        if let Some(default) = default.filter(|_| self.v3) {
            out["default"] = default;
        }
        if !field.one_of.is_empty() {
            let values: Vec<&str> = field.one_of.iter().map(|value| &**value).collect();
            match &field.shape {
                Shape::List(..) => out["items"]["enum"] = json!(values),
                Shape::Map(_) => out["additionalProperties"]["enum"] = json!(values),
                _ => out["enum"] = json!(values),
            }
        }
        if let Shape::List(item, list_type) = &field.shape {
            match list_type {
                // The lists of the list kinds say nothing.
                ListType::Atomic if matches!(**item, Shape::Struct(_)) && &*field.name == "items" => {}
                ListType::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
                ListType::Set => out["x-kubernetes-list-type"] = "set".into(),
                ListType::Map(keys) => {
                    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
                    out["x-kubernetes-list-map-keys"] = json!(keys);
                    out["x-kubernetes-list-type"] = "map".into();
                }
            }
        }
        match field.map_type {
            Some(MapType::Atomic) => out["x-kubernetes-map-type"] = "atomic".into(),
            Some(MapType::Granular) => out["x-kubernetes-map-type"] = "granular".into(),
            None => {}
        }
        if let Some(key) = &field.patch.merge_key {
            out["x-kubernetes-patch-merge-key"] = (**key).into();
        }
        let strategies =
            [(field.patch.merge, "merge"), (field.patch.replace, "replace"), (field.patch.retain_keys, "retainKeys")];
        let strategies: Vec<&str> = strategies.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        if !strategies.is_empty() {
            out["x-kubernetes-patch-strategy"] = strategies.join(",").into();
        }
        out
    }

    fn shape(&mut self, shape: &Shape, field: &Field) -> Value {
        match shape {
            Shape::String => json!({ "type": "string" }),
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
            Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
            Shape::Float => json!({ "type": "number", "format": "double" }),
            Shape::Bytes => json!({ "type": "string", "format": "byte" }),
            Shape::Time => self.reference(&format!("{META}Time")),
            Shape::MicroTime => self.reference(&format!("{META}MicroTime")),
            Shape::Duration => self.reference(&format!("{META}Duration")),
            Shape::Quantity => self.reference("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Shape::IntOrString => self.reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Shape::Any => match field.named.as_deref().map(|name| name.trim_start_matches("[]")) {
                Some("runtime.RawExtension") => self.reference("io.k8s.apimachinery.pkg.runtime.RawExtension"),
                Some("v1.FieldsV1") => self.reference(&format!("{META}FieldsV1")),
                Some("v1.JSON") => self.reference("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"),
                _ => json!({ "x-kubernetes-preserve-unknown-fields": true }),
            },
            // Custom resources are published as their definitions have them.
            Shape::Deduced | Shape::Scalar => json!({ "x-kubernetes-preserve-unknown-fields": true }),
            Shape::Struct(id) => {
                let name = format!("io.k8s.{}", self.schema.get(*id).name);
                self.reference(&name)
            }
            Shape::StructOr(id, other) => {
                let suffix = match other {
                    Alternative::Bool => "OrBool",
                    Alternative::List => "OrArray",
                    Alternative::Strings => "OrStringArray",
                };
                let name = format!("io.k8s.{}{suffix}", self.schema.get(*id).name);
                self.reference(&name)
            }
            Shape::List(item, _) => json!({ "type": "array", "items": self.shape(item, field) }),
            Shape::Map(item) => json!({ "type": "object", "additionalProperties": self.shape(item, field) }),
        }
    }
}
