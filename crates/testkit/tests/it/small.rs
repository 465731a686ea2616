//! `kemudi-pod`, the program that is carried into pods: no larger than it may be, and in an image that has nothing else.

use std::process::Command;

use serde_json::json;
use testkit::Server;
use testkit::clients;
use testkit::command::{RUN_LIMIT, kemudi, run};

/// What it may weigh, in bytes: what docs/benchmarks.md tells, and a little for compilers to come ..
const SIZE_MAX: usize = 2_050_000;
/// .. where the source of Rust's library was not there to be built with it ..
const SIZE_MAX_WITH_STD: usize = 2_600_000;
/// .. and where that was for glibc, as the one for musl was not there either.
const SIZE_MAX_GLIBC: usize = 3_300_000;

#[test]
fn it_is_small_and_needs_nothing() {
    if clients::skipped() {
        return;
    }
    let program = std::fs::read(clients::kemudi_pod()).expect("cargo xtask small builds it");
    let says = |text: &[u8]| program.windows(text.len()).any(|found| found == text);
    let most = match (says(b"RUST_BACKTRACE"), says(b"glibc.")) {
        (false, _) => SIZE_MAX,
        (true, false) => SIZE_MAX_WITH_STD,
        // The beginning of the names of glibc's settings.
        (true, true) => SIZE_MAX_GLIBC,
    };
    assert!(program.len() <= most, "{} bytes", program.len());
    let linked = Command::new("ldd").arg(clients::kemudi_pod()).output().expect("ldd is there");
    let said = [linked.stdout, linked.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
}

#[test]
fn it_works_in_an_image_with_nothing_else() {
    if clients::skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_in(folder.path(), &["--store", "memory://"]);
    let archive = folder.path().join("small.tar");
    let program = clients::kemudi_pod();
    testkit::image::save(
        &archive,
        "small:1",
        &[&program.to_string_lossy()],
        &[],
        &json!({"Entrypoint": ["/bin/kemudi-pod"]}),
    );
    let mut load = Command::new(kemudi());
    load.args(["image", "load"]).arg(&archive).arg("--data").arg(folder.path().join("data"));
    run(&mut load, "", RUN_LIMIT).ok();
    server.kubectl("create rolebinding view --clusterrole=view --serviceaccount=default:default").ok();
    let said = |name: &str, words: &str, phase: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        server.apply(&format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"restartPolicy":"Never",
            "containers":[{{"name":"main","image":"small:1","args":{}}}]}}}}"#,
            json!(words)
        ));
        server.logs_when(name, phase)
    };
    let whoami = said("whoami", "whoami", "Succeeded");
    assert!(whoami.contains("system:serviceaccount:default:default"), "{whoami}");
    assert_eq!(said("may", "can-i list pods", "Succeeded"), "yes\n");
    assert!(said("may-not", "auth can-i delete pods", "Failed").starts_with("no"));
    let listed = said("get", "get pods", "Succeeded");
    assert!(listed.starts_with("NAME ") && listed.contains("may-not "), "{listed}");
    let hint = said("hint", "get", "Failed");
    assert!(hint.contains("hint: kemudi-pod get pods"), "{hint}");
    // The cluster's DNS is asked for the name, in the order of the search list.
    let named = said("named", "--server https://kubernetes.default raw /version", "Succeeded");
    assert!(named.contains("gitVersion"), "{named}");
    let why = said("why", "why delete pods", "Succeeded");
    assert!(why.contains("kind: RoleBinding"), "{why}");
    let doctor = said("doctor", "doctor --timeout 10s", "Succeeded");
    assert!(doctor.contains("ok    server: ") && !doctor.contains("FAIL"), "{doctor}");
    let record = said("record", "record --account default:default --for 1s", "Failed");
    assert!(record.contains("forbidden"), "{record}");
}
