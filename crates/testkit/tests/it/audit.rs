//! The audit log of a running server: what is in it, line for line, and that it is there before the answer.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use testkit::Server;
use testkit::command::{RUN_LIMIT, kemudi, run};
use testkit::server::{ADMIN_TOKEN, request};

const PATIENCE: Duration = Duration::from_secs(20);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server whose requests by the administrator are written down as its rules say.
struct Audited {
    server: Server,
    folder: tempfile::TempDir,
}

impl Audited {
    fn start(rules: &str, args: &[&str]) -> Audited {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let policy = folder.path().join("policy.yaml");
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
        fs::write(&policy, text).expect("a folder of our own");
        let log = folder.path().join("audit.log");
        let (policy, log) = (policy.display().to_string(), log.display().to_string());
        let mut all = vec!["--node", "none", "--store", "memory://", "--audit-policy-file", &policy];
        if !args.contains(&"--audit-log-path") {
            all.extend(["--audit-log-path", &log]);
        }
        all.extend(args);
        let server = Server::start_in(folder.path(), &all);
        Audited { server, folder }
    }

    /// The log's files, those that are full first.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).expect("our own").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("audit"))).collect();
        files.sort();
        files
    }

    fn log(&self) -> String {
        self.files().iter().map(|file| fs::read_to_string(file).expect("it is ours")).collect()
    }

    /// What was written since the last time, without what differs from run to run.
    #[track_caller]
    fn check(&self, seen: &mut usize, want: &str) {
        let log = self.log();
        let got = plain(&log[*seen..]);
        *seen = log.len();
        assert_eq!(got, want.replace("\n  ", ""), "{}", self.server.trouble());
    }
}

/// Ids, times and revisions are words.
fn plain(log: &str) -> String {
    let rules = [
        (r#""\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z""#, "MICROTIME"),
        (r#""\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ""#, "TIME"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r#""resourceVersion":"\d+""#, r#""resourceVersion":"REVISION""#),
        (r#""requestReceivedTimestamp":MICROTIME,"stageTimestamp":MICROTIME"#, "TIMES"),
        (r#"\{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"#, "{"),
        (
            r#""user":\{"username":"admin","uid":"admin","groups":\["system:masters","system:authenticated"\]\}"#,
            "ADMIN",
        ),
    ];
    rules.iter().fold(log.to_string(), |text, (pattern, word)| {
        Regex::new(pattern).expect("a pattern").replace_all(&text, *word).into_owned()
    })
}

#[test]
fn what_is_done_is_written_down() {
    let audited = Audited::start(
        "omitManagedFields: true
rules:
- {level: None, users: ['system:kube-controller-manager', 'system:apiserver']}
- {level: None, userGroups: ['system:serviceaccounts']}
- {level: Metadata, resources: [{resources: [secrets, 'serviceaccounts/token']}]}
- {level: RequestResponse, resources: [{resources: [configmaps]}], omitStages: [RequestReceived]}
- {level: None, nonResourceURLs: ['/livez*']}
- level: Request
",
        &[],
    );
    let (server, mut seen) = (&audited.server, 0);
    server.check("admin", "GET /livez", "200 ok");
    audited.check(&mut seen, "");

    server.check("admin", "GET /version?x=1&y", "200 ?");
    audited.check(
        &mut seen,
        r#"{"Request","auditID":"ID","stage":"RequestReceived","requestURI":"/version?x=1\u0026y","verb":"get",ADMIN,"sourceIPs":["127.0.0.1"],TIMES}
{"Request","auditID":"ID","stage":"ResponseComplete","requestURI":"/version?x=1\u0026y","verb":"get",ADMIN,"sourceIPs":["127.0.0.1"],
  "responseStatus":{"metadata":{},"code":200},TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}
"#,
    );

    let made = format!(r#"POST {MAPS} {{"metadata":{{"name":"a"}},"data":{{"k":"v"}}}}"#);
    server.check("admin", &made, "201 ConfigMap a");
    audited.check(
        &mut seen,
        r#"{"RequestResponse","auditID":"ID","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/configmaps","verb":"create",ADMIN,"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"configmaps","namespace":"default","name":"a","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},
  "requestObject":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}},
  "responseObject":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"default","uid":"ID","resourceVersion":"REVISION","creationTimestamp":TIME},"data":{"k":"v"}},
  TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}
"#,
    );

    server.check("admin", &format!(r#"PATCH {MAPS}/a {{"data":{{"k":null}}}}"#), "200 ConfigMap a");
    server.check("admin", &format!("GET {MAPS}/b"), "404 configmaps \"b\" not found");
    server.check("admin", &format!("GET {MAPS}?labelSelector=no%3Dsuch"), "200 ConfigMapList:");
    let options = r#"{"propagationPolicy":"Background","kind":"DeleteOptions","apiVersion":"v1"}"#;
    server.check("admin", &format!("DELETE {MAPS}/a {options}"), "200 Status");
    audited.check(
        &mut seen,
        r#"{"RequestResponse","auditID":"ID","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/configmaps/a","verb":"patch",ADMIN,"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"configmaps","namespace":"default","name":"a","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},
  "requestObject":{"data":{"k":null}},
  "responseObject":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"default","uid":"ID","resourceVersion":"REVISION","creationTimestamp":TIME}},
  TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}
{"RequestResponse","auditID":"ID","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/configmaps/b","verb":"get",ADMIN,"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"configmaps","namespace":"default","name":"b","apiVersion":"v1"},
  "responseStatus":{"metadata":{},"status":"Failure","message":"configmaps \"b\" not found","reason":"NotFound","details":{"name":"b","kind":"configmaps"},"code":404},
  "responseObject":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"b\" not found","reason":"NotFound","details":{"name":"b","kind":"configmaps"},"code":404},
  TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}
{"RequestResponse","auditID":"ID","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/configmaps?labelSelector=no%3Dsuch","verb":"list",ADMIN,"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"configmaps","namespace":"default","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},
  "responseObject":{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"REVISION"},"items":[]},
  TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}
{"RequestResponse","auditID":"ID","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/configmaps/a","verb":"delete",ADMIN,"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"configmaps","namespace":"default","name":"a","apiVersion":"v1"},
  "responseStatus":{"metadata":{},"status":"Success","details":{"name":"a","kind":"configmaps","uid":"ID"},"code":200},
  "requestObject":{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"},
  "responseObject":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"a","kind":"configmaps","uid":"ID"}},
  TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}}
"#,
    );
}

#[test]
fn who_asked_in_whose_name_and_why_they_may() {
    let rules = "rules:\n- {level: Metadata, users: [admin], omitStages: [RequestReceived]}\n- {level: None, userGroups: ['system:authenticated']}\n- level: RequestResponse\n";
    let audited = Audited::start(rules, &[]);
    let (server, mut seen) = (&audited.server, 0);
    server.check(
        "ann",
        "GET /api/v1/namespaces/default/pods",
        r#"403 pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the namespace "default""#,
    );
    server.check("ann", "GET /api", "200 APIVersions");
    audited.check(
        &mut seen,
        r#"{"Metadata","auditID":"ID","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/pods","verb":"list",ADMIN,
  "impersonatedUser":{"username":"ann","groups":["system:authenticated"]},
  "authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"},"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"pods","namespace":"default","apiVersion":"v1"},
  "responseStatus":{"metadata":{},"status":"Failure","message":"pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"","reason":"Forbidden","details":{"kind":"pods"},"code":403},
  TIMES,"annotations":{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":""}}
{"Metadata","auditID":"ID","stage":"ResponseComplete","requestURI":"/api","verb":"get",ADMIN,
  "impersonatedUser":{"username":"ann","groups":["system:authenticated"]},
  "authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"},"sourceIPs":["127.0.0.1"],"responseStatus":{"metadata":{},"code":200},
  TIMES,"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\""}}
"#,
    );

    // Who cannot be authenticated leaves one event, without a name; so does a request that is refused before that.
    server.check("token:nobody's", "GET /api/v1/pods", "401 Unauthorized");
    let why = r#"invalid timeout specified in the request URL - time: invalid duration "x""#;
    server.check("admin", "GET /readyz?timeout=x", &format!("400 {why}"));
    audited.check(
        &mut seen,
        r#"{"RequestResponse","auditID":"ID","stage":"ResponseStarted","requestURI":"/api/v1/pods","verb":"list","user":{},"sourceIPs":["127.0.0.1"],
  "objectRef":{"resource":"pods","apiVersion":"v1"},
  "responseStatus":{"metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401},
  "responseObject":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401},TIMES}
{"RequestResponse","auditID":"ID","stage":"ResponseStarted","requestURI":"/readyz?timeout=x","verb":"get","user":{},"sourceIPs":["127.0.0.1"],
  "responseStatus":{"metadata":{},"status":"Failure","message":"invalid timeout specified in the request URL - time: invalid duration \"x\"","reason":"BadRequest","code":400},
  "responseObject":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"invalid timeout specified in the request URL - time: invalid duration \"x\"","reason":"BadRequest","code":400},TIMES}
"#,
    );
}

#[test]
fn the_audit_id_is_the_answers_and_secrets_stay_out() {
    let rules = "rules:\n- {level: Metadata, users: [admin], omitStages: [RequestReceived]}\n";
    let audited = Audited::start(rules, &[]);
    let mut asked = request(
        "admin",
        r#"POST /api/v1/namespaces/default/secrets {"metadata":{"name":"s"},"stringData":{"k":"hidden"}}"#,
    );
    for (name, value) in [("audit-id", "my-own-id"), ("user-agent", "tester/1"), ("x-forwarded-for", "203.0.113.9")] {
        asked.headers.push((name.into(), value.into()));
    }
    let mut connection = audited.server.endpoint.connect(PATIENCE).expect("it listens");
    let answer = connection.exchange(&asked).expect("an answer");
    assert_eq!((answer.head.status, answer.head.header("audit-id")), (201, Some("my-own-id")));
    let token = "POST /api/v1/namespaces/default/serviceaccounts/default/token {}";
    let issued = audited.server.json("admin", token);
    let log = audited.log();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 2, "{log}");
    let text = |event: usize, pointer: &str| events[event].pointer(pointer).map(Value::to_string).unwrap_or_default();
    assert_eq!(text(0, "/auditID"), "\"my-own-id\"");
    assert_eq!(text(0, "/userAgent"), "\"tester/1\"");
    assert_eq!(text(0, "/sourceIPs"), r#"["203.0.113.9","127.0.0.1"]"#);
    assert_eq!(text(0, "/objectRef/name"), "\"s\"");
    assert_eq!(text(1, "/objectRef/subresource"), "\"token\"");
    let credential = &events[1]["annotations"]["authentication.kubernetes.io/issued-credential-id"];
    assert!(credential.as_str().is_some_and(|id| id.starts_with("JTI=")), "{log}");
    let token = issued["status"]["token"].as_str().expect("a token");
    for secret in [ADMIN_TOKEN, "hidden", "aGlkZGVu", token] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_watch_starts_and_ends() {
    let audited = Audited::start("rules:\n- {level: RequestResponse, verbs: [watch], users: [admin]}\n", &[]);
    let watch = format!("{MAPS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dnone");
    let mut connection = audited.server.endpoint.connect(PATIENCE).expect("it listens");
    connection.write(&request("admin", &format!("GET {watch}")).encode()).expect("it reads");
    let head = connection.head().expect("an answer");
    let mut seen = 0;
    let of = |stage: &str, more: &str| {
        format!(
            "{{\"RequestResponse\",\"auditID\":\"ID\",\"stage\":\"{stage}\",\"requestURI\":\"{}\",\"verb\":\"watch\",ADMIN,\"sourceIPs\":[\"127.0.0.1\"],\"objectRef\":{{\"resource\":\"configmaps\",\"namespace\":\"default\",\"name\":\"none\",\"apiVersion\":\"v1\"}}{more}}}\n",
            watch.replace('&', "\\u0026")
        )
    };
    let annotations = r#","annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}"#;
    let answered = format!(r#","responseStatus":{{"metadata":{{}},"code":200}},TIMES{annotations}"#);
    audited.check(&mut seen, &format!("{}{}", of("RequestReceived", ",TIMES"), of("ResponseStarted", &answered)));
    connection.body(&head, false).read_to_end(&mut Vec::new()).expect("an end");
    audited.check(&mut seen, &of("ResponseComplete", &answered));
}

#[test]
fn a_full_log_is_turned_over_and_nothing_acknowledged_is_lost() {
    const EVENTS: usize = 8;
    let rules = "rules:\n- {level: Request, users: [admin], omitStages: [RequestReceived]}\n";
    let audited = Audited::start(rules, &["--audit-log-maxsize", "1"]);
    let data = "x".repeat(300 * 1024);
    for i in 0..EVENTS {
        let made = format!(r#"POST {MAPS} {{"metadata":{{"name":"m-{i}"}},"data":{{"k":"{data}"}}}}"#);
        audited.server.check("admin", &made, &format!("201 ConfigMap m-{i}"));
    }
    let Audited { server, folder } = audited;
    server.kill();
    let audited = Audited { server: Server::start(&["--node", "none", "--store", "memory://"]), folder };
    // Three events of 300 kilobytes fit into a megabyte.
    assert_eq!(audited.files().len(), 3, "{:?}", audited.files());
    for file in audited.files() {
        let there = fs::metadata(&file).expect("it is there");
        assert_eq!(there.permissions().mode() & 0o777, 0o600);
        assert!(there.len() <= 1024 * 1024, "{} bytes", there.len());
    }
    let names: Vec<String> = audited
        .log()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("whole lines")["objectRef"]["name"].to_string())
        .collect();
    assert_eq!(names, (0..EVENTS).map(|i| format!("\"m-{i}\"")).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_written_down_is_refused_where_that_is_asked_for() {
    let rules = "rules:\n- {level: Metadata, users: [admin], resources: [{resources: [configmaps]}]}\n";
    let full = ["--audit-log-path", "/dev/full"];
    let lenient = Audited::start(rules, &full);
    lenient.server.check("admin", &format!("GET {MAPS}?limit=1"), "200 ConfigMapList: kube-root-ca.crt");
    let strict = Audited::start(rules, &[&full[..], &["--audit-log-mode", "blocking-strict"]].concat());
    let refused = format!(r#"500 Internal Server Error: "{MAPS}": failed to store audit event"#);
    strict.server.check("admin", &format!("GET {MAPS}?limit=1"), &refused);
    let numbers = |server: &Server| {
        let answer = server.ask("admin", "GET /metrics");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let lines = text.lines().filter(|line| line.starts_with("apiserver_audit_") && !line.contains("None"));
        lines.map(|line| line.trim_start_matches("apiserver_audit_").to_string()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(
        numbers(&lenient.server),
        "event_total 2, error_total{plugin=\"log\"} 2, level_total{level=\"Metadata\"} 1, requests_rejected_total 0"
    );
    assert_eq!(
        numbers(&strict.server),
        "event_total 1, error_total{plugin=\"log\"} 1, level_total{level=\"Metadata\"} 1, requests_rejected_total 1"
    );
}

#[test]
fn a_policy_that_is_no_good_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let policy = folder.path().join("policy.yaml");
    let refused = |text: Option<&str>| {
        let _ = fs::remove_file(&policy);
        text.inspect(|text| fs::write(&policy, text).expect("a folder of our own"));
        let mut up = Command::new(kemudi());
        up.args(["up", "--node", "none", "--store", "memory://", "--listen", "127.0.0.1:0", "--audit-log-path", "-"]);
        up.arg("--data").arg(folder.path().join("data")).arg("--audit-policy-file").arg(&policy);
        let finished = run(&mut up, "", RUN_LIMIT).exits(1);
        finished.stderr.replace(&policy.display().to_string(), "FILE").trim_end().to_string()
    };
    assert_eq!(
        refused(Some("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Everything\n")),
        "error: loading audit policy file: rules[0].level: Unsupported value: \"Everything\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\": from file FILE"
    );
    assert_eq!(
        refused(None),
        "error: loading audit policy file: failed to read file path \"FILE\": open FILE: no such file or directory"
    );
}
