//! What somebody would try who wants more than they may: each attempt against a real server, from outside. None may succeed,
//! and no answer may hold what its asker has no right to see.

mod inside;
mod pods;

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use testkit::Server;
use testkit::server::describe;
use testkit::wire::{Answer, Request};

const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const REFUSED: &str = "401 Unauthorized";
const ACCOUNT: &str = "system:serviceaccount:default:robot";
/// What must not be seen.
const SECRET: &str = "the-value-of-the-secret";

/// A server with an account `robot` in namespace `default`, who may do what everybody may, and read ConfigMaps.
fn server(flags: &[&str]) -> Server {
    let server = Server::start(&[&["--node", "none", "--store", "memory://"], flags].concat());
    let account = json!({"metadata": {"name": "robot"}});
    server.json("admin", &format!("POST /api/v1/namespaces/default/serviceaccounts {account}"));
    let rules =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "patch"]}]);
    grant(&server, "configmaps", &rules);
    server
}

fn grant(server: &Server, name: &str, rules: &Value) {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": name}, "rules": rules});
    server.json("admin", &format!("POST {RBAC}/roles {role}"));
    let binding = json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    server.json("admin", &format!("POST {RBAC}/rolebindings {binding}"));
}

/// A token of `robot`, with this spec.
fn token(server: &Server, spec: Value) -> String {
    let ask = format!(
        "POST /api/v1/namespaces/default/serviceaccounts/robot/token {}",
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
    );
    server.json("admin", &ask)["status"]["token"].as_str().unwrap().to_string()
}

#[track_caller]
fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let mut all = vec![("host".to_string(), "localhost".to_string())];
    all.extend(headers.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
        all.push(("content-type".into(), "application/json".into()));
    }
    let body = body.map(|body| body.as_bytes().to_vec());
    let request = Request { method: method.into(), target: target.into(), headers: all, body };
    let mut connection = server.endpoint.connect(ANSWER_LIMIT).unwrap();
    connection.exchange(&request).unwrap_or_else(|why| panic!("{method} {target}: {why}"))
}

/// Who the server says that the sender of these headers is.
#[track_caller]
fn who(server: &Server, headers: &[(&str, &str)]) -> String {
    let answer = ask(server, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", headers, Some("{}"));
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(review) if answer.head.status == 201 => {
            review["status"]["userInfo"]["username"].as_str().unwrap_or_default().to_string()
        }
        _ => describe(&answer),
    }
}

#[track_caller]
fn check_token(server: &Server, token: &str, want: &str) {
    assert_eq!(who(server, &[("authorization", &format!("Bearer {token}"))]), want, "{token}");
    let review = json!({"spec": {"token": token}});
    let review = server.json("admin", &format!("POST /apis/authentication.k8s.io/v1/tokenreviews {review}"));
    let says = review["status"]["authenticated"] == true;
    assert_eq!(says, want != REFUSED, "the review disagrees: {review}");
}

/// The three parts of a token.
fn parts(token: &str) -> [String; 3] {
    token.split('.').map(str::to_string).collect::<Vec<_>>().try_into().unwrap()
}

fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn a_token_that_was_changed_is_worth_nothing() {
    let server = server(&[]);
    let good = token(&server, json!({}));
    check_token(&server, &good, ACCOUNT);
    let [header, payload, signature] = parts(&good);
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(&payload).unwrap()).unwrap();
    let root = claims.replace("default:robot", "kube-system:root").replace("\"robot\"", "\"root\"");
    check_token(&server, &format!("{header}.{}.{signature}", encode(root)), REFUSED);
    let longer = claims.replace("\"exp\":", "\"exp\":9");
    check_token(&server, &format!("{header}.{}.{signature}", encode(longer)), REFUSED);
    let mut bytes = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        bytes[at] ^= 1;
        check_token(&server, &format!("{header}.{payload}.{}", encode(&bytes)), REFUSED);
        bytes[at] ^= 1;
    }
    check_token(&server, &format!("{header}.{payload}.{}", encode(&bytes[1..])), REFUSED);
    check_token(&server, &format!("{header}.{payload}."), REFUSED);
    check_token(&server, &format!("{header}.{payload}"), REFUSED);
    check_token(&server, &good, ACCOUNT);
}

#[test]
fn a_token_that_is_not_signed_is_worth_nothing() {
    let server = server(&[]);
    let [header, payload, signature] = parts(&token(&server, json!({})));
    let key_id = serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(&header).unwrap()).unwrap()["kid"].clone();
    for algorithm in ["none", "None", "NONE", "nOnE", "", "RS257"] {
        for header in [json!({"alg": algorithm}), json!({"alg": algorithm, "kid": key_id, "typ": "JWT"})] {
            let header = encode(header.to_string());
            for signature in ["", signature.as_str(), "AA"] {
                check_token(&server, &format!("{header}.{payload}.{signature}"), REFUSED);
            }
        }
    }
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    let key = rcgen::KeyPair::generate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sa.key");
    std::fs::write(&path, key.serialize_pem()).unwrap();
    let server = server(&[&format!("--service-account-signing-key-file={}", path.display())]);
    let good = token(&server, json!({}));
    check_token(&server, &good, ACCOUNT);
    let [header, payload, _] = parts(&good);
    let key_id = serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(&header).unwrap()).unwrap()["kid"].clone();
    let published = server.json("admin", "GET /openid/v1/jwks");
    let pem = key.public_key_pem();
    let secrets = [
        pem.clone().into_bytes(),
        pem.trim_end().as_bytes().to_vec(),
        key.public_key_raw().to_vec(),
        published["keys"][0].to_string().into_bytes(),
        published["keys"][0]["x"].as_str().unwrap().as_bytes().to_vec(),
        Vec::new(),
    ];
    let algorithms = [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)];
    for secret in &secrets {
        for (name, algorithm) in algorithms {
            for header in [json!({"alg": name}), json!({"alg": name, "kid": key_id})] {
                let message = format!("{}.{payload}", encode(header.to_string()));
                let signature = hmac::sign(&hmac::Key::new(algorithm, secret), message.as_bytes());
                check_token(&server, &format!("{message}.{}", encode(signature)), REFUSED);
            }
        }
    }
}

#[test]
fn the_token_of_a_pod_ends_with_it() {
    let server = server(&[]);
    let make = || {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]}});
        let pod = server.json("admin", &format!("POST /api/v1/namespaces/default/pods {pod}"));
        let uid = pod["metadata"]["uid"].clone();
        token(&server, json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}))
    };
    let first = make();
    check_token(&server, &first, ACCOUNT);
    let gone = server.ask("admin", "DELETE /api/v1/namespaces/default/pods/p?gracePeriodSeconds=0");
    assert_eq!(gone.head.status, 200, "{}", describe(&gone));
    check_token(&server, &first, REFUSED);
    let second = make();
    check_token(&server, &second, ACCOUNT);
    // Another pod of that name is another pod.
    check_token(&server, &first, REFUSED);
    assert_eq!(server.ask("admin", "DELETE /api/v1/namespaces/default/serviceaccounts/robot").head.status, 200);
    check_token(&server, &second, REFUSED);
}

#[test]
fn a_token_for_others_is_not_for_this_server() {
    let server = server(&[]);
    let for_vault = token(&server, json!({"audiences": ["vault"]}));
    check_token(&server, &for_vault, REFUSED);
    let review = |token: &str, audiences: Value| {
        let review = json!({"spec": {"token": token, "audiences": audiences}});
        let review = server.json("admin", &format!("POST /apis/authentication.k8s.io/v1/tokenreviews {review}"));
        json!([review["status"]["authenticated"], review["status"]["audiences"]]).to_string()
    };
    assert_eq!(review(&for_vault, json!(["vault"])), r#"[true,["vault"]]"#);
    assert_eq!(review(&for_vault, json!(["vault2", "vau", "Vault", ""])), "[null,null]");
    let for_all = token(&server, json!({}));
    assert_eq!(review(&for_all, json!(["vault"])), "[null,null]");
    // Nobody can ask for a token of an audience that only looks like another's.
    check_token(
        &server,
        &token(&server, json!({"audiences": ["https://kubernetes.default.svc.cluster.local/"]})),
        REFUSED,
    );
}

#[test]
fn headers_make_nobody_another() {
    let server = server(&[]);
    let bearer = format!("Bearer {}", token(&server, json!({})));
    let own = ("authorization", bearer.as_str());
    let refused = |name: &str| who(&server, &[own, (name, "admin")]);
    for name in ["Impersonate-User", "impersonate-user", "IMPERSONATE-USER"] {
        assert!(refused(name).starts_with("403 "), "{name}: {}", refused(name));
    }
    for group in ["system:masters", "", "system:masters,dev"] {
        let got = who(&server, &[own, ("Impersonate-User", ACCOUNT), ("Impersonate-Group", group)]);
        assert!(got.starts_with("403 "), "{got}");
    }
    // Without a user there is nobody to give groups to.
    for name in ["Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-scopes"] {
        let got = who(&server, &[own, (name, "system:masters")]);
        assert!(
            !got.starts_with("system:masters")
                && (got.starts_with("500 ") || got.starts_with("400 ") || got.starts_with("403 ")),
            "{name}: {got}"
        );
    }
    // What only looks like such a header is none, and so are those of a front proxy where there is none.
    for name in [
        "Impersonate_User",
        "Impersonate-User-",
        "X-Impersonate-User",
        "X-Forwarded-Impersonate-User",
        "X-Remote-User",
        "X-Remote-Group",
        "X_Remote_User",
        "X-Forwarded-User",
        "Remote-User",
    ] {
        assert_eq!(refused(name), ACCOUNT, "{name}");
    }
    let named_twice = [own, ("Impersonate-User", ACCOUNT), ("Impersonate-User", "admin")];
    assert!(who(&server, &named_twice).starts_with("403 "));
    // To take a header away on the way is the business of proxies; here it still asks.
    let hop_by_hop = [own, ("Connection", "impersonate-user, close"), ("Impersonate-User", "admin")];
    assert!(who(&server, &hop_by_hop).starts_with("403 "));
    // Of two credentials the first counts, and a bad first one is not made good by another.
    let two = [("authorization", "Bearer nobody"), own];
    assert_eq!(who(&server, &two), REFUSED);
}

#[test]
fn no_spelling_of_a_path_leads_around_rights() {
    let server = server(&[]);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": SECRET}});
    server.json("admin", &format!("POST /api/v1/namespaces/default/secrets {secret}"));
    let bearer = format!("Bearer {}", token(&server, json!({})));
    for target in [
        "/api/v1/namespaces/default/secrets/s",
        "/api/v1/namespaces/default/secrets/s/",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/namespaces/default/secrets/",
        "/api/v1/secrets",
        "/api/v1/watch/secrets",
        "/api/v1/watch/namespaces/default/secrets/s",
        "/api/v1/namespaces/default/secrets?watch=1&timeoutSeconds=1",
        "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name=s",
        "//api/v1/namespaces/default/secrets/s",
        "/api//v1/namespaces/default/secrets/s",
        "/api/v1/namespaces//default/secrets/s",
        "/api/v1/namespaces/default//secrets/s",
        "/api/v1/namespaces/default/secrets//s",
        "/api/v1/namespaces/default/configmaps/../secrets/s",
        "/api/v1/namespaces/default/configmaps/%2e%2e/secrets/s",
        "/api/v1/namespaces/default/configmaps/..%2fsecrets%2fs",
        "/api/v1/namespaces/default/configmaps/..%2Fsecrets/s",
        "/api/v1/namespaces/default/./secrets/s",
        "/api/v1/namespaces/other/../default/secrets/s",
        "/api/v1/namespaces/default%2fsecrets/s",
        "/api/v1/namespaces/default/secrets%2fs",
        "/api/v1/namespaces%2fdefault%2fsecrets%2fs",
        "/api%2fv1%2fnamespaces%2fdefault%2fsecrets%2fs",
        "/%61pi/v1/namespaces/default/%73ecrets/s",
        "/api/v1/namespaces/default/secrets/%73",
        "/api/v1/namespaces/default/secrets/s%00",
        "/api/v1/namespaces/default/secrets/s%20",
        "/api/v1/namespaces/default/secrets/s;x",
        "/api/v1/namespaces/default/secrets/s?/../configmaps/s",
        "/API/v1/namespaces/default/secrets/s",
        "/api/V1/namespaces/default/secrets/s",
        "/api/v1/Namespaces/default/secrets/s",
        "/api/v1/namespaces/default/Secrets/s",
        "/api/v1/namespaces/default/SECRETS/s",
        "/api/v1/namespaces/default/secrets/S",
        "/livez/../api/v1/namespaces/default/secrets/s",
        "/livez/..%2fapi/v1/namespaces/default/secrets/s",
        "/healthz/%2e%2e/api/v1/namespaces/default/secrets/s",
        "/apis//v1/namespaces/default/secrets/s",
        "/apis/v1/namespaces/default/secrets/s",
        "/api/v1/proxy/namespaces/default/secrets/s",
        "https://localhost/api/v1/namespaces/default/secrets/s",
    ] {
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "get"] {
            let body = matches!(method, "PUT" | "PATCH").then_some("{}");
            let patch = ("content-type", "application/merge-patch+json");
            let headers = [("authorization", bearer.as_str()), if method == "PATCH" { patch } else { ("x", "y") }];
            let answer = ask(&server, method, target, &headers, body);
            let status = answer.head.status;
            assert!(!(200..300).contains(&status), "{method} {target}: {}", describe(&answer));
            check_no_secret(&answer, target);
        }
    }
    let kept = server.json("admin", "GET /api/v1/namespaces/default/secrets/s");
    assert_eq!(kept["data"]["k"], STANDARD.encode(SECRET), "it is still there, as it was");
}

#[track_caller]
fn check_no_secret(answer: &Answer, what: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains(SECRET) && !text.contains(&STANDARD.encode(SECRET)), "{what}: {text}");
}

#[test]
fn secrets_are_in_no_answer_to_who_may_not_read_them() {
    let server = server(&[]);
    let secret = json!({"metadata": {"name": "s", "annotations": {"note": SECRET}}, "stringData": {"k": SECRET}});
    server.json("admin", &format!("POST /api/v1/namespaces/default/secrets {secret}"));
    // Who may make secrets, and change none, may read none.
    grant(&server, "makers", &json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]));
    let bearer = format!("Bearer {}", token(&server, json!({})));
    const SECRETS: &str = "/api/v1/namespaces/default/secrets";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let list = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let protobuf = "application/vnd.kubernetes.protobuf";
    for accept in ["application/json", table, metadata, list, protobuf, "application/yaml", "*/*"] {
        for target in ["", "?watch=true&timeoutSeconds=1", "?limit=1", "/s", "?labelSelector=a", "?resourceVersion=0"] {
            let headers = [("authorization", bearer.as_str()), ("accept", accept)];
            let answer = ask(&server, "GET", &format!("{SECRETS}{target}"), &headers, None);
            assert_eq!(answer.head.status, 403, "{accept} {target}: {}", describe(&answer));
            check_no_secret(&answer, target);
        }
    }
    let own = ("authorization", bearer.as_str());
    let writes = [
        ("POST", SECRETS.to_string(), "application/json", r#"{"metadata":{"name":"s"}}"#, 409),
        ("POST", format!("{SECRETS}?dryRun=All"), "application/json", r#"{"metadata":{"name":"s"}}"#, 409),
        ("POST", SECRETS.to_string(), "application/json", r#"{"metadata":{"name":"s"},"data":{"k":1}}"#, 400),
        ("POST", SECRETS.to_string(), "application/json", r#"{"metadata":{"name":"s/s"}}"#, 422),
        ("PUT", format!("{SECRETS}/s"), "application/json", r#"{"metadata":{"name":"s"}}"#, 403),
        ("PATCH", format!("{SECRETS}/s"), "application/merge-patch+json", "{}", 403),
        (
            "PATCH",
            format!("{SECRETS}/s"),
            "application/json-patch+json",
            r#"[{"op":"test","path":"/data/k","value":"x"}]"#,
            403,
        ),
        (
            "PATCH",
            format!("{SECRETS}/s?fieldManager=a&force=true"),
            "application/apply-patch+yaml",
            r#"{"apiVersion":"v1","kind":"Secret"}"#,
            403,
        ),
        ("DELETE", format!("{SECRETS}/s"), "application/json", "{}", 403),
        ("DELETE", SECRETS.to_string(), "application/json", "{}", 403),
    ];
    for (method, target, content_type, body, code) in writes {
        let answer = ask(&server, method, &target, &[own, ("content-type", content_type)], Some(body));
        assert_eq!(answer.head.status, code, "{method} {target}: {}", describe(&answer));
        check_no_secret(&answer, &target);
    }
    // Nor in what everybody may read.
    for target in ["/api", "/apis", "/api/v1", "/openapi/v2", "/version", "/livez?verbose", "/readyz?verbose"] {
        check_no_secret(&ask(&server, "GET", target, &[own], None), target);
    }
}

/// Whoever may write roles and bindings hands out no more than they have, whichever way they write.
#[test]
fn no_road_of_writing_leads_to_more_rights() {
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let server = server(&[]);
    let verbs = ["get", "create", "update", "patch", "delete"];
    grant(
        &server,
        "editor",
        &json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": verbs}]),
    );
    let bearer = format!("Bearer {}", token(&server, json!({})));
    let own = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let more = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let role = |rules: &Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "mine", "namespace": "default"},
            "rules": rules,
        })
    };
    let binding = |role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "mine", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
        })
    };
    let check = |method: &str, path: &str, form: &str, body: &Value, code: u16| {
        let headers = [("authorization", bearer.as_str()), ("content-type", form)];
        let answer = ask(&server, method, &format!("{RBAC}/{path}"), &headers, Some(&body.to_string()));
        let told = describe(&answer);
        assert_eq!(answer.head.status, code, "{method} {path} as {form}: {told}");
        assert_eq!(told.contains("attempting to grant RBAC permissions not currently held"), code == 403, "{told}");
    };
    let (json_form, merge) = ("application/json", "application/merge-patch+json");
    let (apply, replace) =
        ("application/apply-patch+yaml", json!([{"op": "replace", "path": "/rules", "value": more}]));
    // What is not there yet.
    check("POST", "roles", json_form, &role(&more), 403);
    check("POST", "roles?dryRun=All", json_form, &role(&more), 403);
    check("PUT", "roles/mine", json_form, &role(&more), 403);
    check("PATCH", "roles/mine?fieldManager=m", apply, &role(&more), 403);
    check("POST", "rolebindings", json_form, &binding("cluster-admin"), 403);
    check("PUT", "rolebindings/mine", json_form, &binding("cluster-admin"), 403);
    check("PATCH", "rolebindings/mine?fieldManager=m", apply, &binding("cluster-admin"), 403);
    // What is there, and was harmless.
    check("POST", "roles", json_form, &role(&own), 201);
    check("PUT", "roles/mine", json_form, &role(&more), 403);
    check("PATCH", "roles/mine", merge, &json!({"rules": more}), 403);
    check("PATCH", "roles/mine", "application/strategic-merge-patch+json", &json!({"rules": more}), 403);
    check("PATCH", "roles/mine", "application/json-patch+json", &replace, 403);
    check("PATCH", "roles/mine?fieldManager=m&force=true", apply, &role(&more), 403);
    let secrets =
        server.ask(&format!("token:{}", &bearer["Bearer ".len()..]), "GET /api/v1/namespaces/default/secrets/x");
    assert_eq!(secrets.head.status, 403, "{}", describe(&secrets));
    // A binding that gives others what one has oneself is no escalation, and one to somebody else's rights is.
    let mut others = binding("view");
    others["subjects"] = json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "friend"}]);
    check("POST", "rolebindings", json_form, &others, 403);
    others["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "mine"});
    check("POST", "rolebindings", json_form, &others, 201);
}

/// Keys, tokens and values are for the owner of the data folder alone.
#[test]
fn the_data_folder_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_in(folder.path(), &["--node", "none"]);
    server.json("admin", r#"POST /api/v1/namespaces/default/secrets {"metadata":{"name":"s"},"stringData":{"k":"v"}}"#);
    server.stop();
    let data = folder.path().join("data");
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(&data) {
        let entry = entry.expect("our own folder");
        let mode = entry.metadata().expect("it is there").permissions().mode() & 0o777;
        let (path, is_folder) = (entry.path(), entry.file_type().is_dir());
        let is_public = path.extension().is_some_and(|of| of == "crt" || of == "pub");
        let allowed = match () {
            // Nobody else enters the folder that these are in, which is checked as well.
            () if path.parent().is_some_and(|parent| parent.starts_with(data.join("store/db"))) => 0o755,
            () if is_folder => 0o700,
            () if is_public => 0o644,
            () => 0o600,
        };
        assert_eq!(mode & !allowed, 0, "{} has mode {mode:04o}", path.display());
        seen += 1;
    }
    assert!(seen > 5, "{seen} files");
    let kubeconfig = std::fs::metadata(folder.path().join("kubeconfig")).expect("it was written");
    assert_eq!(kubeconfig.permissions().mode() & 0o777, 0o600);
}
