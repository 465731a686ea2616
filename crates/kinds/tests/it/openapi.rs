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

/// Nothing is left without words, in either version: not an operation, nor a parameter, nor an answer.
#[test]
fn operations_parameters_and_answers_are_described() {
    let text =
        |of: &str, field: &str| field.is_empty().then_some("a type").or(of.contains("Options").then_some("an option"));
    let registry = kinds::builtin();
    let documents = openapi::v3_paths(&registry).into_iter().filter_map(|path| openapi::v3(&registry, &path));
    let mut silent = BTreeSet::new();
    for mut document in documents.chain([openapi::v2(&registry)]) {
        openapi::describe(&mut document, text);
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let parameters = if method == "parameters" { operation } else { &operation["parameters"] };
                let answers = operation["responses"].as_object().into_iter().flatten();
                let named = parameters.as_array().into_iter().flatten().filter(|one| one["in"] != "body");
                let parts = named
                    .map(|one| (one["name"].to_string(), one))
                    .chain(answers.map(|(code, one)| (code.clone(), one)));
                let itself = (method != "parameters").then_some((String::new(), operation));
                let without =
                    parts.chain(itself).filter(|(_, one)| one["description"].as_str().is_none_or(str::is_empty));
                silent.extend(without.map(|(name, _)| format!("{method} {path} {name}")));
            }
        }
    }
    assert!(silent.is_empty(), "{} say nothing\n{silent:#?}", silent.len());
}

#[test]
fn operations_say_what_kubernetes_says() {
    let document = openapi::v2(&kinds::builtin());
    let check = |method: &str, path: &str, want: &str| {
        assert_eq!(document["paths"][path][method]["description"], want, "{method} {path}");
    };
    check("get", "/apis/", "get available API versions");
    check("get", "/apis/apps/", "get information of a group");
    check("get", "/apis/apps/v1/", "get available resources");
    let pods = "/api/v1/namespaces/{namespace}/pods";
    check("get", pods, "list or watch objects of kind Pod");
    check("post", pods, "create a Pod");
    check("delete", pods, "delete collection of Pod");
    let pod = format!("{pods}/{{name}}");
    check("get", &pod, "read the specified Pod");
    check("put", &pod, "replace the specified Pod");
    check("patch", &format!("{pod}/status"), "partially update status of the specified Pod");
    check("post", &format!("{pod}/eviction"), "create eviction of a Pod");
    check("get", &format!("{pod}/exec"), "connect GET requests to exec of Pod");
    check(
        "get",
        "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
        "read scale of the specified Deployment",
    );
    check("post", "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses", "create an Ingress");
    check("post", "/api/v1/namespaces/{namespace}/endpoints", "create Endpoints");
    check(
        "get",
        "/api/v1/watch/nodes",
        "watch individual changes to a list of Node. deprecated: use the 'watch' parameter with a list operation instead.",
    );
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

/// One of each thing that documents hold, with the bytes that gnostic makes of it.
#[test]
fn documents_are_written_in_protobuf_as_gnostic_writes_them() {
    let check = |written: Vec<u8>, want: &str| {
        let hex: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, want);
    };
    let v2 = json!({"swagger":"2.0","info":{"title":"t","version":"v"},"paths":{"/a/{n}":{"parameters":[{"name":"n","in":"path","required":true,"type":"string","uniqueItems":true}],"get":{"produces":["application/json"],"operationId":"g","parameters":[{"name":"q","in":"query","type":"integer","default":0},{"$ref":"#/parameters/p"},{"name":"body","in":"body","required":true,"schema":{"$ref":"#/definitions/D"}}],"responses":{"200":{"description":"OK","schema":{"type":"string"}},"401":{"description":"no"}},"x-kubernetes-action":"get","x-kubernetes-group-version-kind":{"group":"","kind":"D","version":"v1"}}}},"definitions":{"D":{"type":"object","required":["r"],"properties":{"r":{"type":"array","items":{"type":"string"},"x-kubernetes-list-map-keys":["a","b"],"x-kubernetes-patch-strategy":"merge"},"s":{"type":"object","additionalProperties":{"type":"integer","format":"int32","minimum":1.5,"maximum":0}},"e":{"type":"string","enum":["A","true"],"default":{}}}}},"parameters":{"p":{"name":"h","in":"header","type":"string","uniqueItems":true}},"securityDefinitions":{"B":{"description":"b","type":"apiKey","name":"authorization","in":"header"}},"security":[{"B":[]}]});
    check(
        openapi::protobuf::v2(&v2),
        concat!(
            "0a03322e3012060a017412017642b30212b0020a062f612f7b6e7d12a5021284022a016732106170706c69636174696f6e2f",
            "6a736f6e421f0a1d121b1a19120571756572792201713207696e746567657252041202300a421212100a0e232f706172616d",
            "65746572732f7042250a230a211204626f64791a04626f647920012a110a0f232f646566696e6974696f6e732f444a2d0a1c",
            "0a0332303012150a130a024f4b120d0a0bb201080a06737472696e670a0d0a0334303112060a040a026e6f6a1d0a13782d6b",
            "756265726e657465732d616374696f6e120612046765740a6a430a1f782d6b756265726e657465732d67726f75702d766572",
            "73696f6e2d6b696e641220121e67726f75703a2022220a6b696e643a20440a76657273696f6e3a2076310a4a1c0a1a121822",
            "16080112047061746822016e2a06737472696e679801014af1010aee010a014412e8019a010172b201080a066f626a656374",
            "ca01d5010a740a0172126fb201070a056172726179ba010d0a0bb201080a06737472696e67fa01280a1a782d6b756265726e",
            "657465732d6c6973742d6d61702d6b657973120a12082d20610a2d20620afa01270a1b782d6b756265726e657465732d7061",
            "7463682d7374726174656779120812066d657267650a0a310a0173122caa011e0a1c1205696e74333249000000000000f83f",
            "b201090a07696e7465676572b201080a066f626a6563740a2a0a016512252a0512037b7d0aa201041202410aa20109120722",
            "74727565220ab201080a06737472696e6752210a1f0a0170121a12180a1612066865616465722201682a06737472696e6798",
            "010162070a050a014212006a2b0a290a0142122412220a066170694b6579120d617574686f72697a6174696f6e1a06686561",
            "646572220162"
        ),
    );
    let v3 = json!({"openapi":"3.0.0","info":{"title":"t","version":"v"},"paths":{"/a":{"post":{"tags":["x"],"operationId":"p","parameters":[{"name":"q","in":"query","schema":{"type":"boolean","uniqueItems":true}}],"requestBody":{"content":{"*/*":{"schema":{"$ref":"#/components/schemas/D"}}},"required":true},"responses":{"default":{"description":"d"},"201":{"description":"OK","content":{"application/json":{"schema":{"type":"string"}}}}},"x-kubernetes-action":"post"}}},"components":{"schemas":{"D":{"type":"object","properties":{"a":{"allOf":[{"$ref":"#/components/schemas/E"}],"default":{}},"b":{"type":"array","items":{"type":"string","default":""}},"c":{"oneOf":[{"type":"integer"},{"type":"string"}],"default":5},"m":{"type":"object","additionalProperties":{"type":"boolean","default":false}},"n":{"type":"object","additionalProperties":true}},"x-kubernetes-group-version-kind":[{"group":"g","kind":"D","version":"v1"}]},"E":{"type":"string"}},"securitySchemes":{"B":{"type":"apiKey","in":"header","name":"authorization"}}},"security":[{"B":[]}]});
    check(
        openapi::protobuf::v3(&v3),
        concat!(
            "0a05332e302e3012060a017432017622bc010ab9010a022f6112b20132af010a01782a0170321d0a1b0a0171120571756572",
            "79520f0a0da00101ca0107626f6f6c65616e3a2b0a2912250a230a032a2f2a121c0a1a12180a16232f636f6d706f6e656e74",
            "732f736368656d61732f441801423b0a050a030a016412320a03323031122b0a290a024f4b1a230a210a106170706c696361",
            "74696f6e2f6a736f6e120d0a0b0a09ca0106737472696e676a1e0a13782d6b756265726e657465732d616374696f6e120712",
            "05706f73740a2ae3020ab6020aa1020a0144129b020a9802ca01066f626a656374fa01c0010a270a016112220a20d2011a12",
            "180a16232f636f6d706f6e656e74732f736368656d61732f458a02000a240a0162121f0a1dca01056172726179f201120a10",
            "0a0eca0106737472696e678a02021a000a300a0163122b0a29da010c0a0aca0107696e7465676572da010b0a09ca01067374",
            "72696e678a02090900000000000014400a260a016d12210a1fca01066f626a6563748202130a110a0fca0107626f6f6c6561",
            "6e8a020210000a150a016e12100a0eca01066f626a6563748202021001a202480a1f782d6b756265726e657465732d67726f",
            "75702d76657273696f6e2d6b696e64122512232d2067726f75703a20670a20206b696e643a20440a202076657273696f6e3a",
            "2076310a0a100a0145120b0a09ca0106737472696e673a280a260a014212210a1f0a066170694b65791a0d617574686f7269",
            "7a6174696f6e220668656164657232070a050a01421200"
        ),
    );
}
