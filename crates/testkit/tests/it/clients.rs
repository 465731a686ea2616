//! Real clients, unmodified, against the built binary: one program a language under `testkit/clients/`, whose steps each
//! print `ok NAME` or `FAIL NAME: why`. Never runs a pod; `tutorial` has the clients inside of pods.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::Server;
use testkit::clients::{
    go_calls, java_class_path, javascript_calls, python, python_calls, python_verify, rust_calls, skipped,
};
use testkit::command::run;

/// How long one program may take for all its steps.
const PROGRAM_LIMIT: Duration = Duration::from_secs(180);

#[test]
fn client_go() {
    check(
        || vec![go_calls()],
        "MakeNamespace Informers DynamicInformer MetadataInformer Watch Pager PatchJSON PatchMerge PatchStrategic Apply \
         TypedErrors Discovery Scale Evict DeleteWithPropagation LeaderElection",
    );
}

#[test]
fn the_python_client() {
    check(
        || vec![python(), python_calls()],
        "make_namespace create_and_read list_in_chunks select watch_from_version watch_ends_in_time watch_meets_410 \
         patch_json patch_merge patch_strategic server_side_apply replace_with_old_version scale_and_status evict \
         errors_are_parsed dynamic_client threads delete_with_propagation delete",
    );
}

#[test]
fn the_javascript_client() {
    check(
        || vec!["node".into(), javascript_calls()],
        "makeNamespace listInChunks select watch informer patchJson patchMerge patchStrategic serverSideApply \
         replaceWithOldVersion objectApi errorsAreParsed deleteWithPropagation",
    );
}

#[test]
fn the_java_client() {
    check(
        || vec!["java".into(), "-cp".into(), java_class_path(), "Calls".into()],
        "makeNamespace createAndRead listInChunks select watchFromVersion watchMeets410 informer patchJson patchMerge \
         patchStrategic serverSideApply replaceWithOldVersion errorsAreParsed genericApi protobuf \
         deleteWithPropagation",
    );
}

#[test]
fn kube_rs() {
    check(
        || vec![rust_calls()],
        "make_namespace create_and_read list_in_chunks list_metadata watch_from_version watch_meets_410 watcher \
         streaming_watcher metadata_watcher patch_json patch_merge patch_strategic server_side_apply \
         replace_with_old_version scale_and_status evict typed_errors entry discover_and_use controller \
         delete_with_propagation delete_collection",
    );
}

#[test]
fn a_program_outside_of_the_cluster_verifies_its_tokens() {
    if skipped() {
        return;
    }
    let server = Server::start(&["--node", "none"]);
    let account = json!({"metadata": {"name": "robot"}});
    server.json("admin", &format!("POST /api/v1/namespaces/default/serviceaccounts {account}"));
    let folder = tempfile::tempdir().unwrap();
    let token = |file: &str, audiences: &[&str]| {
        let request = json!({"spec": {"audiences": audiences}});
        let ask = format!("POST /api/v1/namespaces/default/serviceaccounts/robot/token {request}");
        let path = folder.path().join(file);
        std::fs::write(&path, server.json("admin", &ask)["status"]["token"].as_str().unwrap()).unwrap();
        path
    };
    let mut command = Command::new(python());
    command.arg(python_verify()).arg(&server.url).arg(server.ca());
    // Every account may read the discovery document and the keys.
    command.arg(token("reader", &[])).arg(token("token", &["vault"]));
    let ran = run(&mut command, "", PROGRAM_LIMIT);
    let want = "ok token_is_verified\nok key_is_found_by_its_id\nok other_audience_is_refused\nok other_issuer_is_refused\n\
                ok changed_token_is_refused\n";
    assert_eq!(ran.stdout, want, "{}\n{}\n{}", ran.line, ran.stderr, server.trouble());
}

/// Runs a program against a server of its own; each of these steps, and no other, must be ok.
#[track_caller]
fn check(program: impl Fn() -> Vec<std::path::PathBuf>, steps: &str) {
    if skipped() {
        return;
    }
    let program = program();
    let server = Server::start(&["--node", "none"]);
    let mut command = server.client(Path::new(&program[0]));
    let ran = run(command.args(&program[1..]), "", PROGRAM_LIMIT);
    let want: String = steps.split_whitespace().map(|step| format!("ok {step}\n")).collect();
    assert_eq!(ran.stdout, want, "{}\n{}\n{}", ran.line, ran.stderr, server.trouble());
}
