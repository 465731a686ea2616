//! `kemudi record`: with the Role that it wrote a program passes, and without any one verb of it the program fails.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::{Value, json};
use testkit::Server;
use testkit::clients::{go_pods, python, skipped};
use testkit::command::{Finished, RUN_LIMIT, kemudi, run, spawn, wait};

/// What shell programs begin with: `ask METHOD PATH [BODY]` ends the program where the server refuses.
const SHELL: &str = r#"set -e
ca=/var/run/secrets/kubernetes.io/serviceaccount
ask() {
    curl --silent --show-error --fail --cacert $ca/ca.crt -H "Authorization: Bearer $(cat $ca/token)" \
        -H "Content-Type: ${form:-application/json}" -X "$1" ${3:+-d "$3"} "https://kubernetes.default.svc$2"
}
here=/api/v1/namespaces/default
"#;

/// What Python programs begin with.
const PYTHON: &str = r#"
import os
from kubernetes import client, config, watch
config.load_incluster_config()
core = client.CoreV1Api()
"#;

/// Runs a program in a pod, with these arguments of `kemudi` in front.
fn kemudi_with(arguments: &[&str], program: &[String]) -> Finished {
    run(Command::new(kemudi()).args(arguments).arg("--").args(program), "", RUN_LIMIT)
}

/// Records a program, then runs it with what was recorded, then without each single verb of it. `verbs` is how many those are.
#[track_caller]
fn check(program: &[String], verbs: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("role.yaml");
    let path = file.to_str().expect("UTF-8");
    kemudi_with(&["record", "-o", path], program).ok();
    let text = std::fs::read_to_string(&file).expect("it was written");
    let documents = api::codec::from_yaml_stream(&text).expect("YAML");
    let roles: Vec<Value> = documents.into_iter().filter(|document| document["rules"].is_array()).collect();
    kemudi_with(&["run", "--role", path], program).ok();
    let mut seen = 0;
    for (role, rule) in places(&roles) {
        for at in 0..roles[role]["rules"][rule]["verbs"].as_array().map_or(0, Vec::len) {
            let mut less = roles.clone();
            let verbs = less[role]["rules"][rule]["verbs"].as_array_mut().expect("verbs");
            let gone = verbs.remove(at);
            if verbs.is_empty() {
                less[role]["rules"].as_array_mut().expect("rules").remove(rule);
            }
            let without = write(folder.path(), &less);
            let refused = kemudi_with(&["run", "--role", &without], program);
            assert_ne!(refused.code, 0, "passes without {gone} of {}\n{text}", roles[role]["rules"][rule]);
            seen += 1;
        }
    }
    assert_eq!(seen, verbs, "verbs in\n{text}");
}

/// Each rule of each role.
fn places(roles: &[Value]) -> Vec<(usize, usize)> {
    let rules = |role: usize| roles[role]["rules"].as_array().map_or(0, Vec::len);
    (0..roles.len()).flat_map(|role| (0..rules(role)).map(move |rule| (role, rule))).collect()
}

fn write(folder: &Path, roles: &[Value]) -> String {
    let path = folder.join("less.yaml");
    let text: Vec<String> = roles.iter().map(Value::to_string).collect();
    std::fs::write(&path, text.join("\n---\n")).expect("a folder of our own");
    path.to_str().expect("UTF-8").to_owned()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

#[track_caller]
fn check_shell(script: &str, verbs: usize) {
    check(&words(&["sh", "-c", &format!("{SHELL}{script}")]), verbs);
}

#[test]
fn what_shell_programs_need() {
    check_shell("ask GET $here/pods", 1);
    check_shell("ask GET $here/configmaps/kube-root-ca.crt; ask GET $here/pods/$(hostname)", 2);
    let map = json!({"metadata": {"name": "made"}});
    check_shell(&format!("ask POST $here/configmaps '{map}'; ask DELETE $here/configmaps/made"), 2);
    let role = json!({"data": {"a": "b"}});
    check_shell(
        &format!(
            "ask POST $here/configmaps '{map}'; form=application/merge-patch+json; ask PATCH $here/configmaps/made '{role}'"
        ),
        2,
    );
    // Who hands out rights must hold them.
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]);
    let role = json!({"metadata": {"name": "made"}, "rules": rules});
    check_shell(&format!("ask POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles '{role}'"), 3);
    // To apply what is not there is to create it, too.
    let apply = "form=application/apply-patch+yaml; ask PATCH \"$here/configmaps/made?fieldManager=me\"";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"}});
    check_shell(&format!("{apply} '{map}'"), 2);
    // Outside of namespaces, and outside of resources.
    check_shell("ask GET /api/v1/namespaces; ask GET /metrics", 2);
    check_shell(
        "ask GET \"$here/pods?watch=1&timeoutSeconds=1\"; ask GET /apis/apps/v1/namespaces/default/deployments",
        2,
    );
}

#[test]
fn what_rust_programs_need() {
    let kemudi = kemudi().to_string_lossy().into_owned();
    check(&words(&[&kemudi, "get", "secrets", "-o", "name"]), 1);
    check(&words(&[&kemudi, "create", "configmap", "made", "--from-literal=a=b"]), 1);
}

#[test]
fn what_python_and_go_programs_need() {
    if skipped() {
        return;
    }
    let python = python().to_string_lossy().into_owned();
    let check_python =
        |script: &str, verbs: usize| check(&words(&[&python, "-c", &format!("{PYTHON}{script}")]), verbs);
    check_python("core.list_namespaced_pod('default'); core.read_namespaced_pod(os.uname().nodename, 'default')", 2);
    check_python(
        "made = core.create_namespaced_config_map('default', {'metadata': {'generateName': 'made-'}})\n\
         core.patch_namespaced_config_map(made.metadata.name, 'default', {'data': {'a': 'b'}})\n\
         core.delete_namespaced_config_map(made.metadata.name, 'default')",
        3,
    );
    check_python("list(watch.Watch().stream(core.list_namespaced_secret, 'default', timeout_seconds=1))", 1);
    check(&words(&[&go_pods().to_string_lossy()]), 1);
}

/// The rules of a file of Roles, a line each: NAMESPACE VERBS RESOURCES [NAMES].
fn rules(text: &str) -> Vec<String> {
    let documents = api::codec::from_yaml_stream(text).expect("YAML");
    let list =
        |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let mut lines = Vec::new();
    for role in documents {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let namespace = role["metadata"]["namespace"].as_str().unwrap_or("-");
            let words = [&rule["verbs"], &rule["resources"], &rule["resourceNames"]].map(list);
            lines.push(format!("{namespace} {}", words.join(" ")).trim_end().to_string());
        }
    }
    lines
}

/// What uses less than it is given, and asks for what it is not given.
const PROGRAM: &str = "ask GET $here/pods; ask GET $here/pods/$(hostname); ask GET $here/configmaps/kube-root-ca.crt
    ! ask GET $here/secrets; ! ask DELETE /api/v1/nodes/n";
const GIVEN: [&str; 4] = ["--allow", "* pods,services", "--allow", "get configmaps"];
/// The rules that are enough for it, and those that would be for what it was refused.
const USED: [&str; 2] = ["default get configmaps kube-root-ca.crt", "default get,list pods"];
const WANTED: [&str; 4] =
    ["- delete nodes n", "default get configmaps kube-root-ca.crt", "default get,list pods", "default list secrets"];

#[track_caller]
fn check_run(place: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("role.yaml").display().to_string();
    let program = words(&["sh", "-c", &format!("{SHELL}{PROGRAM}")]);
    let with = |more: &[&str]| {
        let arguments = [&["run"], place, &GIVEN, &["--record", &path], more].concat();
        let finished = kemudi_with(&arguments, &program).exits(0);
        (finished.stderr, std::fs::read_to_string(&path).expect("it was written"))
    };
    let (told, role) = with(&[]);
    assert_eq!(rules(&role), USED, "{role}");
    let (used, refused) = told.split_once("refused, not in the Role").expect("it was refused something");
    assert!(used.contains("pods") && !used.contains("nodes"), "{told}");
    assert!(refused.contains("secrets") && refused.contains("nodes") && !refused.contains("configmaps"), "{told}");
    kemudi_with(&[&["run"], place, &["--role", &path]].concat(), &program).ok();
    let (told, role) = with(&["--with-refused"]);
    assert_eq!(rules(&role), WANTED, "{role}");
    assert!(!told.contains("not in the Role"), "{told}");
}

#[test]
fn a_run_writes_the_role_of_its_command() {
    check_run(&[]);
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    let kubeconfig = server.kubeconfig.display().to_string();
    check_run(&["--server", &kubeconfig]);
    // The account that is named is the one that is recorded, and bound.
    let account = json!({"metadata": {"name": "robot"}});
    server.json("admin", &format!("POST /api/v1/namespaces/default/serviceaccounts {account}"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("role.yaml").display().to_string();
    let arguments =
        ["run", "--server", &kubeconfig, "--service-account", "robot", "--allow", "list pods", "--record", &path];
    kemudi_with(&arguments, &words(&["sh", "-c", &format!("{SHELL}ask GET $here/pods")])).ok();
    let role = std::fs::read_to_string(&path).expect("it was written");
    assert_eq!(rules(&role), ["default list pods"]);
    assert!(role.contains("name: robot\n"), "{role}");
    // What a run makes, it takes away.
    server.check("admin", "GET /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", "200 RoleList:");
}

/// A `kemudi record` that runs, from when the server records.
struct Recorder {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Recorder {
    #[track_caller]
    fn start(server: &Server, arguments: &[&str]) -> Recorder {
        let mut command = Command::new(kemudi());
        command.arg("record").arg("--server").arg(&server.kubeconfig).args(arguments);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("text");
        assert!(line.starts_with("recording what"), "{line}");
        Recorder { child, stderr }
    }

    /// Ends it with a signal: its exit code, stdout and the rest of stderr.
    fn end(mut self, signal: rustix::process::Signal) -> (i32, String, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
        let (mut out, mut told) = (String::new(), String::new());
        self.child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        self.stderr.read_to_string(&mut told).expect("text");
        let status = wait(&mut self.child, RUN_LIMIT).expect("it ends");
        (testkit::command::code(status), out, told)
    }
}

#[test]
fn an_account_of_a_running_server_is_recorded() {
    use rustix::process::Signal;
    const CORE: &str = "/api/v1/namespaces/default";
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    for name in ["robot", "other"] {
        server.json("admin", &format!("POST {CORE}/serviceaccounts {}", json!({"metadata": {"name": name}})));
    }
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let token = |name: &str| {
        let issued = server.json("admin", &format!("POST {CORE}/serviceaccounts/{name}/token {asked}"));
        format!("token:{}", issued["status"]["token"].as_str().expect("a token"))
    };
    let (robot, other) = (token("robot"), token("other"));
    let edit = json!({
        "metadata": {"name": "too-much"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    });
    server.json("admin", &format!("POST {RBAC}/rolebindings {edit}"));
    let work = |lists: &str| {
        let map = json!({"metadata": {"name": "made"}});
        server.check(&robot, &format!("GET {CORE}/pods"), lists);
        server.check(&robot, &format!("POST {CORE}/configmaps {map}"), "201 ConfigMap made");
        server.check(&robot, &format!("DELETE {CORE}/configmaps/made"), "200 Status");
        assert_eq!(server.ask(&robot, "GET /api/v1/nodes").head.status, 403);
    };

    // What comes before, and what others do, is not in it.
    server.json(&robot, &format!("GET {CORE}/services"));
    let recorder = Recorder::start(&server, &["--account", "default:robot"]);
    work("200 PodList:");
    assert_eq!(server.ask(&other, &format!("GET {CORE}/endpoints")).head.status, 403);
    let (code, role, told) = recorder.end(Signal::TERM);
    assert_eq!(code, 0, "{told}");
    assert_eq!(rules(&role), ["default create,delete configmaps", "default list pods"], "{role}");
    let (_, refused) = told.split_once("refused, not in the Role").expect("it was refused something");
    assert!(refused.contains("nodes") && !refused.contains("endpoints"), "{told}");

    // With this alone, the work is done as before.
    server.json("admin", &format!("DELETE {RBAC}/rolebindings/too-much"));
    assert_eq!(server.ask(&robot, &format!("GET {CORE}/pods")).head.status, 403);
    for object in api::codec::from_yaml_stream(&role).expect("YAML") {
        let resource = if object["kind"] == "Role" { "roles" } else { "rolebindings" };
        server.json("admin", &format!("POST {RBAC}/{resource} {object}"));
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, &role).expect("our own file");
    let path = file.path().display().to_string();
    let recorder = Recorder::start(&server, &["--account", "system:serviceaccount:default:robot", "--check", &path]);
    work("200 PodList:");
    let (code, out, told) = recorder.end(Signal::INT);
    assert_eq!((code, out.as_str()), (0, ""), "{told}");
    // Less was used than is granted: a check says so.
    let recorder = Recorder::start(&server, &["-n", "default", "--account", "robot", "--check", &path]);
    server.json(&robot, &format!("GET {CORE}/pods"));
    let (code, out, _) = recorder.end(Signal::TERM);
    let want = "granted and not used:\n  create,delete configmaps in namespace default\n";
    assert_eq!((code, out.as_str()), (1, want));

    // Who acts as somebody uses the rights to do so, and nothing of what is done in that name.
    let actor = json!([{"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]}]);
    let role = json!({"metadata": {"name": "actor"}, "rules": actor});
    let mut binding = edit.clone();
    binding["roleRef"]["name"] = json!("actor");
    server.json("admin", &format!("POST /apis/rbac.authorization.k8s.io/v1/clusterroles {role}"));
    server.json("admin", &format!("POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings {binding}"));
    let recorder = Recorder::start(&server, &["--account", "default:robot"]);
    let mut acting = testkit::server::request(&robot, "GET /api/v1/nodes");
    let whom = [("impersonate-user", "bob"), ("impersonate-group", "system:masters")];
    acting.headers.extend(whom.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let answer = server.endpoint.connect(RUN_LIMIT).expect("it listens").exchange(&acting).expect("an answer");
    assert_eq!(answer.head.status, 200);
    let (_, role, told) = recorder.end(Signal::TERM);
    assert_eq!(rules(&role), ["- impersonate groups system:masters", "- impersonate users bob"], "{role}\n{told}");

    let recording = |arguments: &[&str]| {
        let mut command = Command::new(kemudi());
        command.arg("record").arg("--server").arg(&server.kubeconfig).args(arguments);
        run(&mut command, "", RUN_LIMIT)
    };
    // Its time is over before anything is asked.
    assert_eq!(recording(&["--account", "default:robot", "--for", "10ms"]).ok(), "");
    // Who may not read all roles may not record; nor is the path there for them.
    let refused = recording(&["--account", "default:robot", "--as", "ann"]).exits(1);
    assert!(refused.stderr.contains("cannot post path \"/explain/usage\""), "{}", refused.stderr);
    assert!(refused.stderr.contains("audit log"), "{}", refused.stderr);
    let no = "403 forbidden: User \"system:serviceaccount:default:robot\" cannot get path \"/explain/usage\"";
    server.check(&robot, "GET /explain/usage?recording=x", no);
    server.check(
        "admin",
        "GET /explain/usage?recording=x",
        "404 there is no such recording, or nobody asked for it in time",
    );
    server.check(
        "admin",
        "PUT /explain/usage?user=x {}",
        "405 the server does not allow this method on the requested resource",
    );
    for _ in 0..16 {
        server.json("admin", "POST /explain/usage?user=x");
    }
    assert_eq!(server.ask("admin", "POST /explain/usage?user=x").head.status, 429);
}
