//! The tutorial "How to access your Kubernetes cluster's API from inside your Pods", row by row, with the clients it names,
//! against the built binary: one test a row. Never looks inside the server.

use std::process::Command;

use serde_json::{Value, json};
use testkit::clients::{go_pods, javascript_pods, kubectl, python, python_tutorial, skipped};
use testkit::command::{Finished, RUN_LIMIT, kemudi, run};
use testkit::pod::Session;
use testkit::{Pod, Server};

/// Where every container finds its identity.
const HOME: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The tutorial's curl, up to the address.
const CURL: &str = r#"curl --silent --show-error --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt -H "Authorization: Bearer $(cat /var/run/secrets/kubernetes.io/serviceaccount/token)""#;

const FORBIDDEN: &str = r#"pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API group "" in the namespace "default""#;

const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  namespace: default
  name: demo-role
rules:
  - apiGroups: [""]
    resources: ["pods"]
    verbs: ["get", "list"]
"#;

const ROLE_BINDING: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  namespace: default
  name: demo-role-binding
subjects:
  - kind: ServiceAccount
    name: default
    namespace: default
roleRef:
  kind: Role
  name: demo-role
  apiGroup: rbac.authorization.k8s.io
"#;

/// The rule for programs that ask for the pods of every namespace.
const ALL_PODS: &str = r#"{apiGroups: [""], resources: [pods], verbs: [get, list]}"#;

fn server() -> Server {
    Server::start(&["--node", "sandbox", "--store", "memory://"])
}

/// A shell in a pod of the namespace's `default` service account.
#[track_caller]
fn shell(server: &Server) -> Session {
    Pod::on(server).flag("--service-account", "default").session()
}

#[test]
fn t01_kubectl_curl_and_libraries_work_outside_and_inside() {
    if skipped() {
        return;
    }
    let server = server();
    assert!(server.kubectl("get namespace default -o name").ok().contains("namespace/default"));
    assert_eq!(parse(&server.curl("/api").ok())["kind"], "APIVersions");
    let library = "from kubernetes import client, config; config.load_kube_config(); print([n.metadata.name for n in client.CoreV1Api().list_namespace().items])";
    let mut outside = server.client(python());
    assert!(run(outside.args(["-c", library]), "", RUN_LIMIT).ok().contains("'default'"));

    let pod = || Pod::on(&server).allow("get,list pods");
    let kubectl = kubectl();
    let inside = pod().run(&[&kubectl.to_string_lossy(), "get", "pods", "-o", "name"]).ok();
    assert!(inside.contains("pod/"), "{inside}");
    assert_eq!(parse(&pod().shell(&format!("{CURL} https://kubernetes.default.svc/api")).ok())["kind"], "APIVersions");
    assert!(pod().run(&[&go_pods().to_string_lossy()]).ok().contains("Running"));
}

#[test]
fn t02_every_pod_is_given_variables_and_files() {
    if skipped() {
        return;
    }
    let server = server();
    server.apply(&pod("plain", &format!("env; ls {HOME}"), ""));
    let seen = server.logs_when("plain", "Succeeded");
    for want in
        ["KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443"]
    {
        assert!(seen.lines().any(|line| line == want), "{want} is missing:\n{seen}");
    }
    for want in ["ca.crt", "namespace", "token"] {
        assert!(seen.lines().any(|line| line == want), "{want} is missing:\n{seen}");
    }
}

#[test]
fn t03_the_use_cases_run() {
    if skipped() {
        return;
    }
    let server = server();
    let kubectl = kubectl();
    let kubectl = kubectl.to_string_lossy();
    // An app inspects its own environment.
    let own = Pod::on(&server)
        .allow("get pods")
        .shell(&format!("{kubectl} get pod $(hostname) -o jsonpath={{.status.phase}}"));
    assert_eq!(own.ok(), "Running");
    // It applies changes to the cluster.
    let made = Pod::on(&server).allow("create configmaps").run(&[&kubectl, "create", "configmap", "made-in-a-pod"]);
    assert_eq!(made.ok(), "configmap/made-in-a-pod created\n");
    server.check("admin", "GET /api/v1/namespaces/default/configmaps/made-in-a-pod", "200 ConfigMap made-in-a-pod");
    // It gathers the control plane's metrics.
    let metrics = role_file("metrics", r#"{nonResourceURLs: ["/metrics"], verbs: ["get"]}"#);
    let text = Pod::on(&server)
        .flag("--role", metrics.path().to_str().expect("UTF-8"))
        .run(&[&kubectl, "get", "--raw", "/metrics"]);
    assert!(text.ok().contains("# TYPE "));
    // An operator: what it watches decides what it makes.
    let operator = format!(
        "mkfifo /tmp/events
         {kubectl} get configmaps --watch --output-watch-events -o jsonpath='{{.type}} {{.object.metadata.name}}{{\"\\n\"}}' > /tmp/events &
         while read type name; do
           case $type,$name in ADDED,wanted-*) {kubectl} create secret generic for-$name; kill $!; break;; esac
         done < /tmp/events"
    );
    server.kubectl("create configmap wanted-one").ok();
    let out = Pod::on(&server).allow("get,list,watch configmaps").allow("create secrets").shell(&operator);
    assert!(out.stdout.contains("secret/for-wanted-one created"), "{out:?}");
}

#[test]
fn t04_official_and_own_libraries_run_unmodified() {
    if skipped() {
        return;
    }
    let all = role_file("all-pods", ALL_PODS);
    let node = javascript_pods();
    let node = node.to_string_lossy();
    let (go, python, tutorial) = (go_pods(), python(), python_tutorial());
    let own = own_library();
    let programs: [&[&str]; 5] = [
        &[&go.to_string_lossy()],
        &[&python.to_string_lossy(), &tutorial.to_string_lossy()],
        &["node", &node],
        &["node", &node, "default"],
        &[&own],
    ];
    let server = server();
    for program in programs {
        let seen = Pod::on(&server).flag("--role", all.path().to_str().expect("UTF-8")).run(program).ok();
        assert!(
            seen.lines().any(|line| line.starts_with("default\t") && line.ends_with("\tRunning")),
            "{program:?}: {seen}"
        );
    }
}

#[test]
fn t05_the_tutorials_python_lines_run() {
    if skipped() {
        return;
    }
    let lines = "from kubernetes import client, config; config.load_incluster_config(); api = client.CoreV1Api(); print(api.list_pod_for_all_namespaces())";
    let all = role_file("all-pods", ALL_PODS);
    let pod = Pod::new().flag("--role", all.path().to_str().expect("UTF-8"));
    let seen = pod.run(&[&python().to_string_lossy(), "-c", lines]).ok();
    assert!(seen.contains("'phase': 'Running'"), "{seen}");
}

#[test]
fn t06_the_api_has_a_name() {
    let server = server();
    let mut shell = shell(&server);
    for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"] {
        let found = shell.say(&format!("getent hosts {name}"));
        assert!(found.starts_with("10.96.0.1 "), "{name}: {found:?}");
    }
    assert_eq!(shell.say("getent hosts nothing.default.svc; echo $?"), "2");
}

#[test]
fn t07_the_api_has_an_address() {
    let server = server();
    let mut shell = shell(&server);
    assert_eq!(shell.say("echo $KUBERNETES_SERVICE_HOST"), "10.96.0.1");
    let version = shell.say(&format!("{CURL} https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version"));
    assert_eq!(parse(&version)["major"], "1");
}

#[test]
fn t08_https_only_and_the_authority_is_at_hand() {
    let server = server();
    let mut shell = shell(&server);
    let plain = shell.say("curl --silent -w '%{http_code}' http://kubernetes.default.svc:443/api");
    assert_eq!(plain, "Client sent an HTTP request to an HTTPS server.\n400");
    let unknown = shell.say("curl --silent https://kubernetes.default.svc/api; echo $?");
    assert_eq!(unknown, "60", "without the authority the server is not trusted");
    if skipped() {
        return;
    }
    let strict = format!(
        "import socket, ssl
for host in ('kubernetes.default.svc', 'kubernetes', 'kubernetes.default.svc.cluster.local', '10.96.0.1'):
    context = ssl.create_default_context(cafile='{HOME}/ca.crt')
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection((host, 443)) as tcp, context.wrap_socket(tcp, server_hostname=host) as tls:
        print(host, tls.version())"
    );
    let seen = Pod::on(&server).run(&[&python().to_string_lossy(), "-c", &strict]).ok();
    assert_eq!(seen.lines().filter(|line| line.ends_with("TLSv1.3")).count(), 4, "{seen}");
}

#[test]
fn t09_the_token_is_bound_and_expires() {
    if skipped() {
        return;
    }
    let server = server();
    let mut shell = shell(&server);
    let name = shell.say("hostname");
    let claims = claims(&shell.say(&format!("cat {HOME}/token")));
    let own = server.json("admin", &format!("GET /api/v1/namespaces/default/pods/{name}"));
    let bound = &claims["kubernetes.io"];
    assert_eq!(bound["namespace"], "default");
    assert_eq!(bound["pod"], json!({"name": name, "uid": own["metadata"]["uid"]}));
    assert_eq!(bound["serviceaccount"]["name"], "default");
    assert_eq!(claims["sub"], "system:serviceaccount:default:default");
    let seconds = |claim: &str| claims[claim].as_i64().expect("a time");
    // As a kubelet asks for it: an hour and seven seconds, which the server then extends to a year and warns after the hour.
    assert!(seconds("exp") - seconds("iat") >= 3607, "{claims}");
    assert_eq!(bound["warnafter"].as_i64().map(|t| t - seconds("iat")), Some(3607), "{claims}");
    // Rotation swaps one link, so that a reader never sees half a token.
    assert_eq!(shell.say(&format!("readlink {HOME}/token")), "..data/token");
    assert!(shell.say(&format!("readlink {HOME}/..data")).starts_with(".."));
    // Bound: when the pod is gone, its token is nothing.
    let token = shell.say(&format!("cat {HOME}/token"));
    let who = format!("token:{token}");
    let review = r#"POST /apis/authentication.k8s.io/v1/selfsubjectreviews {"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    assert_eq!(server.json(&who, review)["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
    drop(shell);
    server.kubectl(&format!("delete pod {name} --ignore-not-found --wait --timeout=30s")).ok();
    server.check(&who, review, "401 Unauthorized");
}

#[test]
fn t10_the_tutorials_curl_prints_the_versions() {
    let server = server();
    let seen = parse(&shell(&server).say(&format!("{CURL} https://kubernetes.default.svc/api")));
    assert_eq!(seen["kind"], "APIVersions");
    assert_eq!(seen["versions"], json!(["v1"]));
    let addresses = seen["serverAddressByClientCIDRs"].as_array().expect("a list");
    assert_eq!(addresses[0]["clientCIDR"], "0.0.0.0/0", "{seen}");
    assert!(addresses[0]["serverAddress"].is_string(), "{seen}");
}

#[test]
fn t11_a_new_account_is_refused() {
    let server = server();
    let seen =
        parse(&shell(&server).say(&format!("{CURL} https://kubernetes.default.svc/api/v1/namespaces/default/pods")));
    let want = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": FORBIDDEN, "reason": "Forbidden", "details": {"kind": "pods"}, "code": 403,
    });
    assert_eq!(seen, want);
}

#[test]
fn t12_a_role_is_applied_with_kubectl_and_with_our_own_command() {
    if skipped() {
        return;
    }
    let server = server();
    let file = yaml_file(ROLE);
    let path = file.path().to_str().expect("UTF-8");
    let made = server.kubectl(&format!("apply -f {path}")).ok();
    assert_eq!(made, "role.rbac.authorization.k8s.io/demo-role created\n");
    assert_eq!(
        own_command(&server, &["apply", "-f", path]).ok(),
        "role.rbac.authorization.k8s.io/demo-role unchanged\n"
    );
    server.kubectl("delete role demo-role").ok();
    assert_eq!(own_command(&server, &["apply", "-f", path]).ok(), "role.rbac.authorization.k8s.io/demo-role created\n");
    let role = server.json("admin", "GET /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/demo-role");
    assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]));
}

#[test]
fn t13_a_binding_allows_the_pods_very_next_request() {
    if skipped() {
        return;
    }
    let server = server();
    let mut shell = shell(&server);
    let list = format!("{CURL} https://kubernetes.default.svc/api/v1/namespaces/default/pods");
    assert_eq!(parse(&shell.say(&list))["message"], FORBIDDEN);
    server.apply(ROLE);
    assert_eq!(parse(&shell.say(&list))["message"], FORBIDDEN, "a role that nobody is bound to allows nothing");
    assert_eq!(server.apply(ROLE_BINDING), "rolebinding.rbac.authorization.k8s.io/demo-role-binding created\n");
    assert_eq!(parse(&shell.say(&list))["kind"], "PodList");
    server.kubectl("delete rolebinding demo-role-binding").ok();
    assert_eq!(parse(&shell.say(&list))["message"], FORBIDDEN);
}

#[test]
fn t14_the_list_has_this_very_pod() {
    if skipped() {
        return;
    }
    let server = server();
    server.apply(ROLE);
    server.apply(ROLE_BINDING);
    let mut shell = shell(&server);
    let name = shell.say("hostname");
    let list = parse(&shell.say(&format!("{CURL} https://kubernetes.default.svc/api/v1/namespaces/default/pods")));
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PodList"), &json!("v1")));
    let own = list["items"].as_array().into_iter().flatten().find(|pod| pod["metadata"]["name"] == name.as_str());
    assert_eq!(own.expect("this pod is listed")["status"]["phase"], "Running");
}

/// Many at once, so that the nodes are slow to tell what they have started.
#[test]
fn t14_a_pod_finds_itself_running_however_soon_it_asks() {
    let all = role_file("all-pods", ALL_PODS);
    let (role, own) = (all.path().to_str().expect("UTF-8"), own_library());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let seen = Pod::new().flag("--role", role).run(&[&own]).ok();
                assert!(seen.trim_end().ends_with("\tRunning"), "{seen}");
            });
        }
    });
}

#[test]
fn t15_the_namespace_file_goes_into_the_address() {
    if skipped() {
        return;
    }
    let server = server();
    server.apply(ROLE);
    server.apply(ROLE_BINDING);
    let mut shell = shell(&server);
    assert_eq!(shell.say(&format!("wc -c < {HOME}/namespace")), "7", "`default` and no end of line");
    let list =
        shell.say(&format!("{CURL} https://kubernetes.default.svc/api/v1/namespaces/$(cat {HOME}/namespace)/pods"));
    assert_eq!(parse(&list)["kind"], "PodList");
}

#[test]
fn t16_a_pod_picks_its_account() {
    if skipped() {
        return;
    }
    let server = server();
    assert_eq!(server.kubectl("create serviceaccount demo-sa").ok(), "serviceaccount/demo-sa created\n");
    server.apply(&pod("picky", &format!("cat {HOME}/token"), "serviceAccountName: demo-sa"));
    let token = server.logs_when("picky", "Succeeded");
    assert_eq!(claims(&token)["sub"], "system:serviceaccount:default:demo-sa");
}

#[test]
fn t17_the_account_must_exist() {
    if skipped() {
        return;
    }
    let server = server();
    let refused = server.kubectl_with("create -f -", &pod("orphan", "true", "serviceAccountName: demo-sa"));
    let want = r#"pods "orphan" is forbidden: error looking up service account default/demo-sa: serviceaccount "demo-sa" not found"#;
    assert!(refused.clone().exits(1).stderr.contains(want), "{}", refused.stderr);
    server.check("admin", "GET /api/v1/namespaces/default/pods", "200 PodList:");
}

#[test]
fn t18_a_pod_opts_out() {
    if skipped() {
        return;
    }
    let server = server();
    let ask = "curl --silent --insecure https://kubernetes.default.svc/api/v1/namespaces/default/pods";
    let script = format!("ls {HOME} 2>&1; {ask}");
    server.apply(&pod("without", &script, "automountServiceAccountToken: false"));
    let seen = server.logs_when("without", "Succeeded");
    assert!(seen.contains("No such file or directory"), "{seen}");
    let refused =
        r#"User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""#;
    assert!(seen.contains(refused), "{seen}");

    // Given another way: a projected token where the pod wants it.
    let more = r#"automountServiceAccountToken: false
  volumes:
    - name: mine
      projected:
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 600, audience: "https://kubernetes.default.svc.cluster.local"}"#;
    let mount = "volumeMounts: [{name: mine, mountPath: /var/run/mine}]";
    server.apply(&pod_with_container("projected", "cat /var/run/mine/token", more, mount));
    let token = server.logs_when("projected", "Succeeded");
    assert_eq!(claims(&token)["sub"], "system:serviceaccount:default:default");

    // Or a token made by hand.
    let token = server.kubectl("create token default").ok();
    let script = format!(
        "curl --silent --insecure -H 'Authorization: Bearer {}' https://kubernetes.default.svc/api/v1/namespaces/default/pods",
        token.trim()
    );
    server.apply(&pod("by-hand", &script, "automountServiceAccountToken: false"));
    assert_eq!(parse(&server.logs_when("by-hand", "Succeeded"))["message"], FORBIDDEN);
}

#[test]
fn t19_the_account_opts_out_and_the_pods_own_word_wins() {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    // The account's word, the pod's word, whether the token is there.
    let truth = [
        (None, None, true),
        (None, Some(true), true),
        (None, Some(false), false),
        (Some(true), None, true),
        (Some(true), Some(true), true),
        (Some(true), Some(false), false),
        (Some(false), None, false),
        (Some(false), Some(true), true),
        (Some(false), Some(false), false),
    ];
    for (i, (account, pod, there)) in truth.into_iter().enumerate() {
        let name = format!("row-{i}");
        let mut body = json!({"metadata": {"name": name}});
        if let Some(word) = account {
            body["automountServiceAccountToken"] = word.into();
        }
        server.json("admin", &format!("POST /api/v1/namespaces/default/serviceaccounts {body}"));
        let mut body = json!({"metadata": {"name": name}, "spec": {"serviceAccountName": name, "containers": [{"name": "c", "image": "host"}]}});
        if let Some(word) = pod {
            body["spec"]["automountServiceAccountToken"] = word.into();
        }
        let made = server.json("admin", &format!("POST /api/v1/namespaces/default/pods {body}"));
        let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array().map_or(0, Vec::len);
        assert_eq!(mounts == 1, there, "account {account:?}, pod {pod:?}: {made}");
        let volumes = made["spec"]["volumes"].as_array().map_or(0, Vec::len);
        assert_eq!(volumes == 1, there, "account {account:?}, pod {pod:?}: {made}");
    }
}

#[test]
fn t20_the_permissions_that_were_used_become_a_role() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("UTF-8");
    let script = format!(
        "{CURL} https://kubernetes.default.svc/api/v1/namespaces/default/pods; {CURL} https://kubernetes.default.svc/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
    );
    let mut record = Command::new(kemudi());
    let recorded = run(record.args(["record", "-o", path, "--", "sh", "-c", &script]), "", RUN_LIMIT);
    recorded.ok();
    let role = std::fs::read_to_string(path).expect("the role was written");
    for want in ["kind: Role", "pods", "list", "configmaps", "get"] {
        assert!(role.contains(want), "{want} is missing:\n{role}");
    }
    assert!(!role.contains("delete") && !role.contains('*'), "more than was used:\n{role}");
    // What was recorded is enough, and the command is refused nothing with it.
    let again = Pod::new().flag("--role", path).shell(&script).ok();
    assert!(again.contains("PodList") && again.contains("BEGIN CERTIFICATE"), "{again}");
    assert!(!again.contains("Forbidden"), "{again}");
    // It is just what was used; with less and with more than that a check fails, and says which.
    let check = |role: &str, code: i32, want: &str| {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), role).expect("our own file");
        let path = file.path().to_str().expect("UTF-8");
        let mut record = Command::new(kemudi());
        record.args(["record", "--check", path, "--", "sh", "-c", &script]);
        let seen = run(&mut record, "", RUN_LIMIT).exits(code);
        assert!(seen.stdout.ends_with(want), "{want:?}: {}", seen.stdout);
    };
    check(&role, 0, "}");
    check(
        &role.replace("- list\n", "- watch\n"),
        1,
        "used and not granted:\n  list pods in namespace default\ngranted and not used:\n  watch pods in namespace default\n",
    );
}

#[test]
fn t21_the_manual_path_is_shown() {
    let server = server();
    let kemudi = kemudi().to_string_lossy();
    let seen = shell(&server).say(&format!("{kemudi} doctor; echo exit $?"));
    for want in [
        "10.96.0.1",
        "kubernetes.default.svc",
        "/ca.crt",
        "/token",
        "/namespace",
        "system:serviceaccount:default:default",
        "exit 0",
    ] {
        assert!(seen.contains(want), "{want} is missing:\n{seen}");
    }
}

/// A pod on the host's file system that runs a line of shell once.
fn pod(name: &str, script: &str, spec: &str) -> String {
    pod_with_container(name, script, spec, "")
}

fn pod_with_container(name: &str, script: &str, spec: &str, container: &str) -> String {
    let command = json!(["sh", "-c", script]);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  restartPolicy: Never\n  {spec}\n  containers:\n    - name: app\n      image: host\n      command: {command}\n      {container}\n"
    )
}

/// A program on our own library, which cargo builds with these tests (`examples/own_library.rs`).
fn own_library() -> String {
    let path = testkit::command::profile().join("examples/own_library");
    assert!(path.exists(), "{} is not there: run the whole package's tests", path.display());
    path.to_string_lossy().into_owned()
}

fn yaml_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a file of our own");
    file
}

/// A ClusterRole with one rule, for `--role`.
fn role_file(name: &str, rule: &str) -> tempfile::NamedTempFile {
    yaml_file(&format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\nrules: [{rule}]\n"
    ))
}

/// Our own command line, outside of pods.
fn own_command(server: &Server, words: &[&str]) -> Finished {
    run(server.client(kemudi()).args(words), "", RUN_LIMIT)
}

/// The claims of a token, unverified.
#[track_caller]
fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap_or_else(|| panic!("not a token: {token:?}"));
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part);
    serde_json::from_slice(&bytes.unwrap_or_else(|e| panic!("{token:?}: {e}")))
        .unwrap_or_else(|e| panic!("{token:?}: {e}"))
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
