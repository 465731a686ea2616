//! Who decides what is allowed, from the flags and files of `kemudi up` to what requests are answered: webhooks on loopback that
//! allow, deny, say nothing or never answer, in chains with RBAC.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Server;
use testkit::server::describe;

use crate::https::Https;

const PLAIN: &[&str] = &["--node", "none", "--store", "memory://"];
const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";
const PATIENCE: Duration = Duration::from_secs(20);
const REVIEW: &str = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";
const SELF_REVIEW: &str = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// A kubeconfig, in a folder of the test's, whose current context is a webhook.
fn kubeconfig(folder: &Path, url: &str, ca: &Path) -> PathBuf {
    let file = folder.join("webhook.kubeconfig");
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "w", "cluster": {"server": format!("{url}/authorize"), "certificate-authority": ca}}],
        "users": [{"name": "w", "user": {"token": "a-secret"}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
        "current-context": "w",
    });
    std::fs::write(&file, text.to_string()).expect("a folder of our own");
    file
}

/// A webhook in a configuration, with further fields.
fn webhook(name: &str, kubeconfig: &Path, more: &str) -> String {
    let file = kubeconfig.display();
    let policy = if more.contains("failurePolicy") { "" } else { "failurePolicy: NoOpinion, " };
    let timeout = if more.contains("timeout") { "" } else { "timeout: 10s, " };
    format!(
        "{{type: Webhook, name: {name}, webhook: {{{policy}{timeout}subjectAccessReviewVersion: v1, \
         connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {file}}}, {more}}}}}"
    )
}

const NODE: &str = "{type: Node, name: node}";
const RBAC: &str = "{type: RBAC, name: rbac}";

/// A server with a configuration file, which may be written anew.
struct Configured {
    server: Server,
    folder: tempfile::TempDir,
}

fn write(folder: &Path, authorizers: &[&str]) -> String {
    let file = folder.join("authorization.yaml");
    // As a mounted volume changes: the whole file at once.
    let new = folder.join("authorization.new");
    std::fs::write(&new, format!("{HEAD}authorizers: [{}]\n", authorizers.join(", "))).expect("a folder of our own");
    std::fs::rename(&new, &file).expect("a folder of our own");
    format!("--authorization-config={}", file.display())
}

impl Configured {
    fn start(folder: tempfile::TempDir, authorizers: &[&str], more: &[&str]) -> Configured {
        let config = write(folder.path(), authorizers);
        let server = Server::start(&[PLAIN, &[config.as_str()], more].concat());
        Configured { server, folder }
    }

    /// Writes the file anew and waits until that has been taken, or refused.
    fn rewrite(&self, authorizers: &[&str], status: &str) {
        let name = "apiserver_authorization_config_controller_automatic_reloads_total";
        let told = || {
            let metrics = self.server.ask("admin", "GET /metrics");
            let line = format!("{name}{{apiserver_id_hash=\"\",status=\"{status}\"}} ");
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            text.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let before = told();
        write(self.folder.path(), authorizers);
        let began = Instant::now();
        while told() == before {
            assert!(began.elapsed() < PATIENCE, "the file was not read again\n{}", self.server.trouble());
        }
    }
}

/// A webhook by what it says of a review's spec, and what it was asked.
fn told(say: impl Fn(&Value) -> Value + Send + 'static) -> (Https, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let https = Https::start(move |path, body| {
        assert!(path.starts_with("/authorize?timeout="), "{path}");
        let review: Value = serde_json::from_str(body).expect("JSON");
        heard.lock().expect("no panic").push(body.to_string());
        let answer =
            json!({"kind": "SubjectAccessReview", "apiVersion": review["apiVersion"], "status": say(&review["spec"])});
        (200, answer.to_string())
    });
    (https, asked)
}

/// ann may everything, bob nothing, of all others nothing is known.
fn by_user(spec: &Value) -> Value {
    match spec["user"].as_str().unwrap_or_default() {
        "ann" => json!({"allowed": true, "reason": "it is ann"}),
        "bob" => json!({"allowed": false, "denied": true, "reason": "not <bob>"}),
        "two" => json!({"allowed": true, "denied": true, "reason": "both"}),
        _ => json!({"allowed": false, "reason": "never heard of"}),
    }
}

/// Lets a user read Secrets.
fn bind(server: &Server, users: &[&str]) {
    let role = json!({"metadata": {"name": "readers"}, "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"]}]});
    server.check(
        "admin",
        &format!("POST /apis/rbac.authorization.k8s.io/v1/clusterroles {role}"),
        "201 ClusterRole readers",
    );
    let subjects: Vec<Value> = users
        .iter()
        .map(|name| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}))
        .collect();
    let binding = json!({
        "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "readers"},
        "subjects": subjects,
    });
    let ask = format!("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings {binding}");
    server.check("admin", &ask, "201 ClusterRoleBinding readers");
}

/// The status of a review of a user's list of Secrets.
#[track_caller]
fn check_review(server: &Server, user: &str, want: &str) {
    let attributes = json!({"namespace": "default", "verb": "list", "resource": "secrets", "version": "v1"});
    let groups = ["system:authenticated"];
    let body = json!({"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}});
    assert_eq!(server.json("admin", &format!("{REVIEW} {body}"))["status"].to_string(), want, "{user}");
    let body = json!({"spec": {"resourceAttributes": attributes}});
    let own = server.ask(user, &format!("{SELF_REVIEW} {body}"));
    // Whom a webhook denies everything may not ask that either.
    if own.head.status == 201 {
        let own: Value = serde_json::from_slice(&own.body).expect("JSON");
        assert_eq!(own["status"].to_string(), want, "{user} of itself");
    }
}

#[test]
fn a_webhook_allows_denies_or_leaves_it_to_the_next() {
    let (https, asked) = told(by_user);
    let folder = tempfile::tempdir().expect("a folder");
    let hook = webhook("hook", &kubeconfig(folder.path(), &https.url, &https.ca), "");
    let Configured { server, folder: _folder } = Configured::start(folder, &[NODE, &hook, RBAC], &[]);
    bind(&server, &["bob", "cleo"]);
    let list = format!("GET {SECRETS}");
    server.check("ann", &list, "200 SecretList:");
    server.check("bob", &list, "403 secrets is forbidden: User \"bob\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\": not <bob>");
    server.check("cleo", &list, "200 SecretList:");
    server.check("dave", &list, "403 secrets is forbidden: User \"dave\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\": hook: never heard of");
    server.check(
        "two",
        &list,
        &format!(
            "500 Internal Server Error: \"{SECRETS}\": webhook subject access review returned both allow and deny response"
        ),
    );
    check_review(&server, "ann", r#"{"allowed":true,"reason":"it is ann"}"#);
    check_review(&server, "bob", r#"{"allowed":false,"denied":true,"reason":"not <bob>"}"#);
    check_review(
        &server,
        "cleo",
        r#"{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"readers\" of ClusterRole \"readers\" to User \"cleo\""}"#,
    );
    check_review(&server, "dave", r#"{"allowed":false,"reason":"hook: never heard of"}"#);
    check_review(
        &server,
        "two",
        r#"{"allowed":false,"denied":true,"reason":"both","evaluationError":"webhook subject access review returned both allow and deny response"}"#,
    );
    for (user, want) in [("ann", "allowed, says the server: it is ann"), ("bob", "yet the server refuses: not <bob>")] {
        let ask = format!("GET /explain?verb=list&resource=secrets&namespace=default&user={user}");
        let explained = server.json("admin", &ask);
        let message = explained["causes"][0]["message"].as_str().unwrap_or_default();
        assert!(message.ends_with(want), "{explained}");
    }
    let rules = server
        .json("cleo", r#"POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews {"spec":{"namespace":"default"}}"#);
    assert_eq!(
        (&rules["status"]["incomplete"], &rules["status"]["evaluationError"]),
        (&json!(true), &json!("webhook authorizer does not support user rule resolution"))
    );
    let asked = asked.lock().expect("no panic");
    assert!(!asked.iter().any(|body| body.contains("\"user\":\"admin\"")), "system:masters is asked nobody about");
    assert_eq!(
        asked[0],
        "{\"kind\":\"SubjectAccessReview\",\"apiVersion\":\"authorization.k8s.io/v1\",\"metadata\":{},\"spec\":{\"resourceAttributes\":{\"namespace\":\"default\",\"verb\":\"list\",\"version\":\"v1\",\"resource\":\"secrets\"},\"user\":\"ann\",\"groups\":[\"system:authenticated\"]},\"status\":{\"allowed\":false}}\n"
    );
}

#[test]
fn what_a_webhook_gives_counts_for_escalation_impersonation_and_creation_too() {
    let say = |spec: &Value| {
        let (user, of) = (spec["user"].as_str().unwrap_or_default(), &spec["resourceAttributes"]);
        let verb = of["verb"].as_str().unwrap_or_default();
        let may = match user {
            "maker" => ["create", "escalate", "bind", "patch", "get"].contains(&verb),
            "plain" => ["create", "patch", "get"].contains(&verb),
            "patcher" => verb == "patch",
            // May act as anybody, in any group but one.
            "system:serviceaccount:default:agent" => verb.starts_with("impersonate") && of["name"] != "others",
            "somebody" => true,
            _ => false,
        };
        json!({"allowed": may})
    };
    let (https, _) = told(say);
    let folder = tempfile::tempdir().expect("a folder");
    let hook = webhook("hook", &kubeconfig(folder.path(), &https.url, &https.ca), "");
    let Configured { server, folder: _folder } = Configured::start(folder, &[&hook, RBAC], &[]);
    let role = |name: &str| json!({"metadata": {"name": name}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]});
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    server.check("maker", &format!("POST {roles} {}", role("strong")), "201 Role strong");
    let refused = server.ask("plain", &format!("POST {roles} {}", role("other")));
    assert!(
        describe(&refused).contains("is attempting to grant RBAC permissions not currently held"),
        "{}",
        describe(&refused)
    );
    let changed = json!({"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"]}]});
    server.check("maker", &format!("PATCH {roles}/strong {changed}"), "200 Role strong");
    let refused = server.ask(
        "plain",
        &format!(
            "PATCH {roles}/strong {}",
            json!({"rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]})
        ),
    );
    assert!(
        describe(&refused).contains("is attempting to grant RBAC permissions not currently held"),
        "{}",
        describe(&refused)
    );
    let binding = json!({
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "strong"},
        "subjects": [],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    server.check("maker", &format!("POST {bindings} {binding}"), "201 RoleBinding b");

    // To apply what is not there is to create it.
    let apply = |user: &str, name: &str| {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let mut request = testkit::server::request(
            user,
            &format!("PATCH /api/v1/namespaces/default/configmaps/{name}?fieldManager=t {body}"),
        );
        for (header, value) in &mut request.headers {
            if header == "content-type" {
                *value = "application/apply-patch+yaml".into();
            }
        }
        describe(&server.endpoint.connect(PATIENCE).expect("it listens").exchange(&request).expect("an answer"))
    };
    assert_eq!(apply("maker", "made"), "201 ConfigMap made");
    assert!(apply("patcher", "not-made").contains("cannot create resource"), "{}", apply("patcher", "not-made"));

    // Each part of an identity is a question of its own.
    server.check(
        "admin",
        "POST /api/v1/namespaces/default/serviceaccounts {\"metadata\":{\"name\":\"agent\"}}",
        "201 ServiceAccount agent",
    );
    let token = server.json("admin", "POST /api/v1/namespaces/default/serviceaccounts/agent/token {\"spec\":{}}");
    let token = token["status"]["token"].as_str().expect("a token").to_string();
    let as_agent = |groups: &[&str]| {
        let ask = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews {}";
        let mut request = testkit::server::request(&format!("token:{token}"), ask);
        request.headers.push(("impersonate-user".into(), "somebody".into()));
        request.headers.extend(groups.iter().map(|group| ("impersonate-group".to_string(), group.to_string())));
        let answer = server.endpoint.connect(PATIENCE).expect("it listens").exchange(&request).expect("an answer");
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.head.status {
            201 => value["status"]["userInfo"]["groups"].to_string(),
            _ => describe(&answer),
        }
    };
    assert_eq!(as_agent(&["a", "b"]), r#"["a","b","system:authenticated"]"#);
    assert_eq!(
        as_agent(&["a", "others"]),
        "403 groups.authentication.k8s.io \"others\" is forbidden: User \"system:serviceaccount:default:agent\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope"
    );
}

/// An address that takes connections and never says a word.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

#[test]
fn a_webhook_that_never_answers_is_no_opinion_or_a_denial() {
    let (https, _) = told(by_user);
    let (_listener, url) = silent();
    for (policy, cleo) in [("NoOpinion", "200 SecretList:"), ("Deny", "500")] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = kubeconfig(folder.path(), &url, &https.ca);
        let hook = webhook("hook", &file, &format!("failurePolicy: {policy}, timeout: 200ms"));
        let Configured { server, folder: _folder } = Configured::start(folder, &[&hook, RBAC], &[]);
        bind(&server, &["cleo"]);
        let list = format!("GET {SECRETS}?limit=1");
        let why = format!(
            "Post \"{url}/authorize?timeout=200ms\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        );
        let failed = format!("500 Internal Server Error: \"{SECRETS}?limit=1\": {why}");
        server.check("cleo", &list, if cleo == "500" { &failed } else { cleo });
        server.check("dave", &list, &failed);
        server.check("admin", &list, "200 SecretList:");
        let denied = if policy == "Deny" { r#""denied":true,"# } else { "" };
        let why = serde_json::to_string(&why).expect("a text");
        check_review(&server, "dave", &format!(r#"{{"allowed":false,{denied}"evaluationError":{why}}}"#));
        let metrics = server.ask("admin", "GET /metrics");
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let open = "apiserver_authorization_webhook_evaluations_fail_open_total{name=\"hook\",result=\"timeout\"}";
        assert_eq!(metrics.contains(open), policy == "NoOpinion", "{metrics}");
        assert!(
            metrics.contains("apiserver_authorization_webhook_evaluations_total{name=\"hook\",result=\"timeout\"}")
        );
        assert!(metrics.contains("authorization_attempts_total{result=\"error\"}"));
    }
}

#[test]
fn match_conditions_say_what_a_webhook_is_asked_about() {
    let (https, _) = told(|_| json!({"denied": true, "allowed": false, "reason": "asked"}));
    let folder = tempfile::tempdir().expect("a folder");
    let conditions = r#"matchConditionSubjectAccessReviewVersion: v1, matchConditions: [
        {expression: "!('system:masters' in request.groups)"},
        {expression: "has(request.resourceAttributes)"},
        {expression: "request.resourceAttributes.namespace == 'default'"},
        {expression: "request.user != 'broken' || request.extra['nope'][0] == ''"}]"#;
    let file = kubeconfig(folder.path(), &https.url, &https.ca);
    let hook = webhook("hook", &file, &format!("failurePolicy: Deny, {conditions}"));
    let Configured { server, folder: _folder } = Configured::start(folder, &[&hook, RBAC], &[]);
    bind(&server, &["cleo", "broken"]);
    let elsewhere = SECRETS.replace("default", "other");
    server.check("cleo", &format!("GET {elsewhere}"), "200 SecretList:");
    let version = server.ask("cleo", "GET /version");
    assert_eq!(version.head.status, 200);
    assert_eq!(https.asked(), 0);
    let here = format!("GET {SECRETS}");
    let denied = "403 secrets is forbidden: User \"cleo\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\": asked";
    server.check("cleo", &here, denied);
    assert_eq!(https.asked(), 1);
    // A condition that fails is a webhook that fails, but where another one says no.
    let why = "cel evaluation error: expression 'request.user != 'broken' || request.extra['nope'][0] == ''' resulted in error: no such key: nope";
    server.check("broken", &here, &format!("500 Internal Server Error: \"{SECRETS}\": {why}"));
    server.check("broken", &format!("GET {elsewhere}"), "200 SecretList:");
    assert_eq!(https.asked(), 1);
    let metrics = server.ask("admin", "GET /metrics");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        metrics.contains(
            "apiserver_authorization_match_condition_evaluation_errors_total{name=\"hook\",type=\"Webhook\"} 1"
        ),
        "{metrics}"
    );
    assert!(
        metrics
            .contains("apiserver_authorization_decisions_total{decision=\"denied\",name=\"hook\",type=\"Webhook\"} 2"),
        "{metrics}"
    );
}

#[test]
fn answers_are_remembered_as_the_configuration_says() {
    let (https, _) = told(by_user);
    let folder = tempfile::tempdir().expect("a folder");
    let file = kubeconfig(folder.path(), &https.url, &https.ca);
    let hook = webhook("hook", &file, "cacheUnauthorizedRequests: false, authorizedTTL: 10m");
    let Configured { server, folder: _folder } = Configured::start(folder, &[&hook], &[]);
    let list = format!("GET {SECRETS}");
    for _ in 0..3 {
        server.check("ann", &list, "200 SecretList:");
    }
    assert_eq!(https.asked(), 1, "a permission is remembered");
    for _ in 0..3 {
        assert_eq!(server.ask("dave", &list).head.status, 403);
    }
    assert_eq!(https.asked(), 4, "other answers are not");
    server.check("ann", "GET /api/v1/namespaces/other/secrets", "200 SecretList:");
    assert_eq!(https.asked(), 5, "another question");
}

#[test]
fn the_file_may_change_while_the_server_runs() {
    let (https, _) = told(by_user);
    let folder = tempfile::tempdir().expect("a folder");
    let hook = webhook("hook", &kubeconfig(folder.path(), &https.url, &https.ca), "");
    let configured = Configured::start(folder, &[RBAC], &[]);
    let list = format!("GET {SECRETS}");
    let check = |user: &str, want: u16| assert_eq!(configured.server.ask(user, &list).head.status, want, "{user}");
    check("ann", 403);
    configured.rewrite(&[RBAC, &hook], "success");
    check("ann", 200);
    for wrong in [&[RBAC, "{type: AlwaysAllow, name: alwaysallow}"][..], &[RBAC, NODE], &[&hook], &["{type: RBAC"]] {
        configured.rewrite(wrong, "failure");
        check("ann", 200);
        check("cleo", 403);
    }
    configured.rewrite(&[RBAC, "{type: AlwaysDeny, name: alwaysdeny}"], "success");
    configured.server.check("ann", &list, "403 secrets is forbidden: User \"ann\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\": alwaysdeny: Everything is forbidden.");
    let trouble = configured.server.trouble();
    for why in [
        "AlwaysAllow",
        "authorizer type Node is not allowed if it was not enabled at initial server startup",
        "missing required types: [RBAC]",
    ] {
        assert!(trouble.contains(why), "{why}: {trouble}");
    }
}

#[test]
fn the_older_flags_mean_the_same() {
    let (https, asked) = told(by_user);
    let folder = tempfile::tempdir().expect("a folder");
    let file = kubeconfig(folder.path(), &https.url, &https.ca);
    let server = Server::start(
        &[
            PLAIN,
            &[
                "--authorization-mode=RBAC,Webhook",
                &format!("--authorization-webhook-config-file={}", file.display()),
                "--authorization-webhook-cache-authorized-ttl=0s",
            ],
        ]
        .concat(),
    );
    let list = format!("GET {SECRETS}");
    server.check("ann", &list, "200 SecretList:");
    server.check("ann", &list, "200 SecretList:");
    assert_eq!(https.asked(), 2, "permissions are not remembered");
    assert!(asked.lock().expect("no panic")[0].contains("\"apiVersion\":\"authorization.k8s.io/v1beta1\""));
    assert!(asked.lock().expect("no panic")[0].contains("\"group\":[\"system:authenticated\"]"));
    assert_eq!(server.ask("dave", &list).head.status, 403);
    assert_eq!(server.ask("dave", &list).head.status, 403);
    assert_eq!(https.asked(), 3, "other answers are");
}

/// What `kemudi up` says of flags it does not start with.
#[track_caller]
fn check_refused(flags: &[&str], want: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut up = std::process::Command::new(testkit::command::kemudi());
    up.arg("up").args(PLAIN).args(["--listen", "127.0.0.1:0", "--data"]).arg(folder.path()).args(flags);
    let finished = testkit::command::run(&mut up, "", testkit::command::RUN_LIMIT);
    assert_ne!(finished.code, 0);
    assert!(finished.stderr.contains(want), "{}", finished.stderr);
}

#[test]
fn no_flag_turns_authorization_off() {
    check_refused(&["--authorization-mode=AlwaysAllow"], "it would turn authorization off, which nothing here does");
    check_refused(&["--authorization-mode=ABAC"], "write its policies as roles and bindings, and name RBAC instead");
    check_refused(&["--authorization-mode="], "authorization-mode \"\" is not a valid mode");
    check_refused(
        &["--authorization-mode=Webhook"],
        "authorization-mode Webhook's authorization config file not passed",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let config = write(folder.path(), &["{type: AlwaysAllow, name: alwaysallow}"]);
    check_refused(&[&config], "authorizers[0].type: Invalid value: \"AlwaysAllow\": it would turn authorization off");
    check_refused(
        &[&config, "--authorization-mode=RBAC"],
        "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined",
    );
    check_refused(&["--authorization-config=/nowhere"], "open /nowhere: No such file or directory");
}

#[test]
fn the_audit_log_tells_who_decided() {
    let (https, _) = told(by_user);
    let folder = tempfile::tempdir().expect("a folder");
    let hook = webhook("hook", &kubeconfig(folder.path(), &https.url, &https.ca), "");
    let policy = folder.path().join("policy.yaml");
    let rules = "rules:\n- level: Metadata\n  omitStages: [RequestReceived]\n  resources: [{resources: [secrets]}]\n";
    std::fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).expect("our own");
    let log = folder.path().join("audit.log");
    let flags = [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let configured = Configured::start(folder, &[NODE, &hook, RBAC], &flags);
    for user in ["ann", "bob", "dave", "two"] {
        configured.server.ask(user, &format!("GET {SECRETS}"));
    }
    let log = std::fs::read_to_string(&log).expect("our own");
    let ours = |line: &&str| line.contains("\"impersonatedUser\"");
    let annotations: Vec<String> = log
        .lines()
        .filter(ours)
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["annotations"].to_string())
        .collect();
    assert_eq!(
        annotations,
        [
            r#"{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"it is ann"}"#,
            r#"{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":"not <bob>"}"#,
            r#"{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":"hook: never heard of"}"#,
            r#"{"authorization.k8s.io/reason":"internal error"}"#,
        ]
    );
    assert!(!log.contains("a-secret"));
}

/// What the first webhook of a mixed chain says, as text: it is for its own users only.
fn first(user: &str, verb: &str) -> &'static str {
    match (user, verb) {
        ("u1", _) => "allow",
        ("u2", "list" | "delete") => "deny",
        _ => "nothing",
    }
}

/// The same of the last one.
fn last(user: &str, verb: &str) -> &'static str {
    match (user, verb) {
        ("u3" | "u4", "get" | "delete") => "allow",
        ("u5", _) => "deny",
        _ => "nothing",
    }
}

#[test]
fn a_request_and_the_reviews_about_it_agree_under_a_mixed_chain() {
    let say = |of: fn(&str, &str) -> &'static str| {
        move |spec: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            let word = of(&text(&spec["user"]), &text(&spec["resourceAttributes"]["verb"]));
            json!({"allowed": word == "allow", "denied": word == "deny"})
        }
    };
    let ((one, _), (other, _)) = (told(say(first)), told(say(last)));
    let folder = tempfile::tempdir().expect("a folder");
    let place = tempfile::tempdir().expect("a folder");
    let hooks = [
        webhook("one", &kubeconfig(folder.path(), &one.url, &one.ca), ""),
        webhook("other", &kubeconfig(place.path(), &other.url, &other.ca), ""),
    ];
    let Configured { server, folder: _folder } = Configured::start(folder, &[NODE, &hooks[0], RBAC, &hooks[1]], &[]);
    bind(&server, &["u2", "u4", "u5"]);
    for user in ["u1", "u2", "u3", "u4", "u5", "u6"] {
        for (verb, ask) in [
            ("get", format!("GET {SECRETS}/x")),
            ("list", format!("GET {SECRETS}")),
            ("delete", format!("DELETE {SECRETS}/x")),
            ("create", format!("POST {SECRETS} no-object")),
        ] {
            let by_role = ["u2", "u4", "u5"].contains(&user) && ["get", "list"].contains(&verb);
            let want = matches!(
                (first(user, verb), by_role, last(user, verb)),
                ("allow", ..) | ("nothing", true, _) | ("nothing", _, "allow")
            );
            let name = if ["get", "delete"].contains(&verb) { "x" } else { "" };
            let attributes = json!({"namespace": "default", "verb": verb, "resource": "secrets", "name": name});
            let spec = json!({"user": user, "groups": ["system:authenticated"], "resourceAttributes": attributes});
            let reviewed = server.json("admin", &format!("{REVIEW} {}", json!({"spec": spec})));
            let own = json!({"spec": {"resourceAttributes": attributes}});
            let own = server.ask(user, &format!("{SELF_REVIEW} {own}"));
            let own = match own.head.status {
                403 => want,
                _ => serde_json::from_slice::<Value>(&own.body).expect("JSON")["status"]["allowed"] == true,
            };
            let served = server.ask(user, &ask).head.status != 403;
            assert_eq!(
                [served, reviewed["status"]["allowed"] == true, own],
                [want; 3],
                "request, SubjectAccessReview, SelfSubjectAccessReview: {user} {ask}"
            );
        }
    }
}
