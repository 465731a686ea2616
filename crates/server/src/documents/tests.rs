//! Documents against the recordings of a real server.

use std::path::Path;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::accept;

/// Asks for a document and gives status, content type and the rest of the headers, and body.
fn ask(documents: &Documents, registry: &Arc<Registry>, line: &str, given: &[(&str, &str)]) -> Response<Bytes> {
    let (method, target) = line.split_once(' ').unwrap();
    let parsed = api::Ask::parse(method, target).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in given {
        headers.insert(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let asked = Ask { method, path: &parsed.path, headers: &headers, query: &parsed.query };
    let advertise = SocketAddr::from(([127, 0, 0, 1], 6443));
    let answer = route(&asked, &documents.of(registry), advertise, &health::Signs::default());
    let lenient = accept::lenient(&headers, &parsed.query);
    let response = match answer {
        Ok(answer) => respond::respond(answer, lenient),
        Err(status) => respond::failure(&status, lenient),
    };
    let (head, body) = response.into_parts();
    let body = match method {
        "HEAD" => Bytes::new(),
        _ => body.collect().now_or_never().unwrap().unwrap().to_bytes(),
    };
    Response::from_parts(head, body)
}

fn builtin() -> Arc<Registry> {
    Arc::new(kinds::builtin())
}

fn text<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn recording(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/golden/corpus").join(name);
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

/// Whether a step asks for a document, and one that needs no more than the kinds.
fn is_ours(step: &Value) -> bool {
    let path = step["path"].as_str().unwrap();
    let accept = step["headers"]["accept"].as_str().unwrap_or_default();
    let method = step["method"].as_str().unwrap();
    // OpenAPI and errors are not made in protobuf.
    let made = !accept.contains("proto-openapi") && (path != "/version" || !accept.contains("protobuf"));
    let as_admin = step.get("as").is_none();
    let named = !path.contains("${") && !path.starts_with("/metrics") && !path.starts_with("/open");
    let not_found = path.starts_with("/metrics/");
    made && as_admin && (named || not_found) && api::Ask::parse(method, path).unwrap().target.is_none()
}

fn differences(want: &Value, got: &Response<Bytes>) -> Vec<String> {
    let mut out = Vec::new();
    if want["status"] != got.status().as_u16() {
        out.push(format!("status {} instead of {}", got.status(), want["status"]));
    }
    if want["headers"]["content-type"].get(0).and_then(Value::as_str).unwrap_or_default() != text(got, "content-type") {
        out.push(format!("{} instead of {}", text(got, "content-type"), want["headers"]["content-type"]));
    }
    let body = String::from_utf8_lossy(got.body()).replace("127.0.0.1:6443", "<ip>");
    if let Some(text) = want.get("text").filter(|text| **text != body) {
        out.push(format!("{body} instead of {text}"));
    }
    if let Some(want) = want.get("body") {
        // Order of keys included: the recordings keep it.
        let (want, got) = (want.to_string(), serde_json::from_str::<Value>(&body).unwrap_or_default().to_string());
        if want != got {
            out.push(format!("{body} instead of {want}"));
        }
    }
    out
}

#[track_caller]
fn check(names: &[&str], least: usize) {
    let (documents, registry) = (Documents::default(), builtin());
    let (mut steps, mut wrong) = (0, Vec::new());
    for name in names {
        let scenario = recording(name);
        for (at, step) in scenario["steps"].as_array().unwrap().iter().enumerate().filter(|(_, step)| is_ours(step)) {
            let line = format!("{} {}", step["method"].as_str().unwrap(), step["path"].as_str().unwrap());
            let headers = step["headers"].as_object().into_iter().flatten();
            let headers: Vec<(&str, &str)> = headers.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect();
            let differences = differences(&step["expect"], &ask(&documents, &registry, &line, &headers));
            steps += 1;
            wrong.extend(differences.into_iter().map(|text| format!("{name} step {at}: {line} {headers:?}: {text}")));
        }
    }
    assert!(wrong.is_empty(), "{} of {steps} steps differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(steps >= least, "only {steps} steps were found in {names:?}");
}

#[test]
fn discovery_is_as_recorded() {
    check(
        &[
            "protocol/discovery-accept.json",
            "protocol/discovery-aggregated-core.json",
            "protocol/discovery-apis.json",
            "protocol/discovery-core.json",
            "protocol/discovery-encodings.json",
            "protocol/discovery-groups.json",
            "protocol/discovery-versions-auth.json",
            "protocol/discovery-versions-other.json",
            "protocol/discovery-versions-workloads.json",
        ],
        60,
    );
}

#[test]
fn lists_of_groups_are_as_recorded() {
    let (documents, registry) = (Documents::default(), builtin());
    for (name, accept, list) in [
        ("protocol/discovery-apis.json", "application/json", "groups"),
        (
            "protocol/discovery-aggregated-apis.json",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            "items",
        ),
    ] {
        let want = recording(name)["steps"][1]["expect"]["body"]["data"][list].to_string();
        let got = ask(&documents, &registry, "GET /apis", &[("accept", accept)]);
        let got: Value = serde_json::from_slice(got.body()).unwrap();
        assert_eq!(got[list].to_string(), want, "{name}");
    }
}

#[test]
fn health_version_and_other_paths_are_as_recorded() {
    check(
        &[
            "protocol/accept-refused.json",
            "protocol/health-verbose.json",
            "protocol/health.json",
            "protocol/http-details.json",
            "protocol/methods-head-options.json",
            "protocol/methods-not-allowed.json",
            "protocol/metrics-and-root.json",
            "protocol/paths-encoding.json",
            "protocol/paths-slashes.json",
            "protocol/paths-unknown.json",
            "protocol/query-unknown.json",
            "protocol/table-other-answers.json",
            "protocol/version.json",
        ],
        80,
    );
}

#[test]
fn openapi_answers_as_recorded() {
    let (documents, registry) = (Documents::default(), builtin());
    for name in ["protocol/openapi-v2.json", "protocol/openapi-v3.json"] {
        for step in recording(name)["steps"].as_array().unwrap() {
            let path = step["path"].as_str().unwrap();
            let accept = step["headers"]["accept"].as_str().unwrap_or("application/json");
            if !path.starts_with("/openapi") || step.get("as").is_some() {
                continue;
            }
            let got = ask(&documents, &registry, &format!("GET {path}"), &[("accept", accept)]);
            assert_eq!(differences(&step["expect"], &got), Vec::<String>::new(), "{path} {accept}");
        }
    }
}

/// The recordings send facts of the documents back through an object: what they saved, and what came of it.
#[test]
fn openapi_says_what_was_recorded() {
    let (documents, registry) = (Documents::default(), builtin());
    for name in ["protocol/openapi-v2.json", "protocol/openapi-v3.json"] {
        let mut saved: HashMap<String, String> = HashMap::new();
        let fill = |text: &str, saved: &HashMap<String, String>| {
            saved.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
        };
        for step in recording(name)["steps"].as_array().unwrap() {
            if let Some(data) = step["body"]["data"].as_object() {
                for (key, template) in data {
                    let got = fill(template.as_str().unwrap(), &saved);
                    assert_eq!(step["expect"]["body"]["data"][key], got, "{name} {key}");
                }
            }
            let Some(pointers) = step["save"].as_object() else { continue };
            let path = fill(step["path"].as_str().unwrap(), &saved);
            let got = ask(&documents, &registry, &format!("GET {path}"), &[]);
            let document: Value = serde_json::from_slice(got.body()).unwrap();
            for (name, pointer) in pointers {
                let value = document.pointer(pointer.as_str().unwrap()).and_then(Value::as_str);
                saved
                    .insert(name.clone(), value.unwrap_or_else(|| panic!("nothing at {pointer} of {path}")).to_owned());
            }
        }
    }
}

/// All but lists, and the few types and fields that Kubernetes describes nowhere.
#[test]
fn openapi_says_what_everything_is_for() {
    let (documents, registry) = (Documents::default(), builtin());
    let got = ask(&documents, &registry, "GET /openapi/v2", &[]);
    let document: Value = serde_json::from_slice(got.body()).unwrap();
    let mut silent = Vec::new();
    for (name, schema) in document["definitions"].as_object().unwrap() {
        if schema["properties"].get("items").is_some_and(|items| items["type"] == "array") && name.ends_with("List") {
            continue;
        }
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields = fields.filter(|(_, schema)| schema["description"].is_null()).map(|(field, _)| field.as_str());
        let own = schema["description"].is_null().then_some("");
        silent.extend(own.into_iter().chain(fields).map(|field| format!("{name} {field}")));
    }
    expect_test::expect![[r#"
        io.k8s.api.certificates.v1.CertificateSigningRequest metadata
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ExternalDocumentation description
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ExternalDocumentation url
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps $ref
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps $schema
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps additionalItems
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps additionalProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps allOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps anyOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps definitions
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps dependencies
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps description
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps enum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps example
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps exclusiveMaximum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps exclusiveMinimum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps externalDocs
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps id
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps items
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps maxItems
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps maxLength
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps maxProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps maximum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps minItems
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps minLength
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps minProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps minimum
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps multipleOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps not
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps nullable
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps oneOf
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps pattern
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps patternProperties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps properties
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps required
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps title
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps type
        io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps uniqueItems
        io.k8s.apimachinery.pkg.apis.meta.v1.GroupResource group
        io.k8s.apimachinery.pkg.apis.meta.v1.GroupResource resource
        io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent object
        io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent type"#]]
    .assert_eq(&silent.join("\n"));
}

#[test]
fn the_index_of_openapi_leads_to_its_documents() {
    let (documents, registry) = (Documents::default(), builtin());
    let get = |path: &str| ask(&documents, &registry, &format!("GET {path}"), &[]);
    let index: Value = serde_json::from_slice(get("/openapi/v3").body()).unwrap();
    let paths = index["paths"].as_object().unwrap();
    for name in ["api", "api/v1", "apis", "apis/policy", "apis/policy/v1", "version"] {
        let url = paths[name]["serverRelativeURL"].as_str().unwrap();
        let found = get(url);
        assert_eq!((found.status().as_u16(), text(&found, "cache-control")), (200, "public, immutable"), "{url}");
        let document: Value = serde_json::from_slice(found.body()).unwrap();
        assert_eq!(document["openapi"], "3.0.0", "{url}");
        assert_eq!(text(&found, "etag").trim_matches('"'), sha512(found.body()));
        assert!(url.ends_with(&sha512(found.body())), "{url}");
    }
    let wrong = get("/openapi/v3/version?hash=00");
    assert_eq!((wrong.status().as_u16(), wrong.body().len()), (301, 0));
    assert_eq!(text(&wrong, "location"), paths["version"]["serverRelativeURL"]);
    assert_eq!(text(&get("/openapi/v3/version"), "cache-control"), "");
}

#[test]
fn a_new_kind_shows_at_once() {
    let (documents, first) = (Documents::default(), builtin());
    let pods = first.kind("", "v1", "pods").unwrap();
    let names = |group: &str| (group.into(), "v1".into(), "Widget".into(), "widgets".into(), "widget".into());
    let (group, version, kind, plural, singular) = names("x.example.com");
    let widgets = kinds::Kind { group, version, kind, plural, singular, subresources: Vec::new(), ..(**pods).clone() };
    let second = Arc::new(first.with_kind(widgets));
    let status = |registry: &Arc<Registry>, line: &str| ask(&documents, registry, line, &[]).status().as_u16();
    for path in ["/apis/x.example.com", "/apis/x.example.com/v1"] {
        let line = format!("GET {path}");
        assert_eq!([status(&first, &line), status(&second, &line), status(&first, &line)], [404, 200, 404], "{path}");
    }
    // No such version: JSON for built-in groups, text for custom ones.
    let missing = ask(&documents, &second, "GET /apis/x.example.com/v2", &[]);
    assert_eq!(text(&missing, "content-type"), "text/plain; charset=utf-8");
    let form = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let tag = |registry| text(&ask(&documents, registry, "GET /apis", &[("accept", form)]), "etag").to_owned();
    assert_ne!(tag(&first), tag(&second));
    let list = ask(&documents, &second, "GET /apis", &[("accept", form)]);
    let list: Value = serde_json::from_slice(list.body()).unwrap();
    let kind = json!({"group": "x.example.com", "version": "v1", "kind": "Widget"});
    assert_eq!(list["items"].as_array().unwrap().last().unwrap()["versions"][0]["resources"][0]["responseKind"], kind);
}

#[test]
fn layout_is_as_http_facts_say() {
    let (documents, registry) = (Documents::default(), builtin());
    let body = |line: &str, headers: &[(&str, &str)]| {
        String::from_utf8(ask(&documents, &registry, line, headers).body().to_vec()).unwrap()
    };
    let compact = body("GET /apis/apps", &[]);
    assert!(compact.ends_with("}\n") && !compact.contains("  "));
    for pretty in [body("GET /apis/apps?pretty=1", &[]), body("GET /apis/apps", &[("user-agent", "curl/8")])] {
        assert!(pretty.starts_with("{\n  \"kind\": \"APIGroup\",\n") && pretty.ends_with('}'), "{pretty}");
    }
    assert!(body("GET /version", &[]).starts_with("{\n  \"major\": \"1\",\n"));
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let api = ask(&documents, &registry, "GET /api", &[("accept", aggregated)]);
    assert_eq!((text(&api, "vary"), text(&api, "cache-control")), ("Accept", "public"));
}

#[test]
fn health_tells_what_fails() {
    let signs = health::Signs { store: Some("disk full".into()), stopping: true };
    let query = Query::default();
    let headers = HeaderMap::new();
    let made = Documents::default().of(&builtin());
    let get = |path: &str| {
        let asked = Ask { method: "GET", path, headers: &headers, query: &query };
        let answer = route(&asked, &made, SocketAddr::from(([127, 0, 0, 1], 1)), &signs).unwrap();
        let (head, body) = respond::respond(answer, accept::Accept::default()).into_parts();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let (code, text) = get("/readyz");
    let failed: Vec<&str> = text.lines().filter(|line| !line.starts_with("[+]")).collect();
    let want = [
        "[-]etcd failed: reason withheld",
        "[-]etcd-readiness failed: reason withheld",
        "[-]shutdown failed: reason withheld",
        "readyz check failed",
    ];
    assert_eq!((code, failed.as_slice()), (500, want.as_slice()));
    assert_eq!(get("/readyz/etcd"), (500, "internal server error: disk full\n".to_owned()));
    assert_eq!(get("/livez/ping"), (200, "ok".to_owned()));
}
