//! `kemudi record`: with the Role that it wrote a program passes, and without any one verb of it the program fails.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::clients::{go_pods, python, skipped};
use testkit::command::{Finished, RUN_LIMIT, kemudi, run};

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
