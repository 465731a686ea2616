//! The client library's examples in pods of our own server: an app that inspects itself, one that changes the cluster, one that
//! gathers metrics, and an operator.

use testkit::command::{kemudi, profile, workspace};
use testkit::{Pod, Server};

/// An example of the client library, which cargo builds with these tests (`client_NAME` in `Cargo.toml`).
fn example(name: &str) -> String {
    let path = profile().join("examples").join(format!("client_{name}"));
    assert!(path.exists(), "{} is not there: run the whole package's tests", path.display());
    path.to_string_lossy().into_owned()
}

#[test]
fn an_app_inspects_itself() {
    let out = Pod::new().allow("get pods").run(&[&example("inspect")]).ok();
    for line in ["server     https://10.96.0.1:443", "namespace  default", "account    system:serviceaccount:default:"]
    {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(out.contains("(Running)") && out.contains("container  "), "{out}");
    let refused = Pod::new().run(&[&example("inspect")]).exits(1);
    assert!(refused.stderr.contains("cannot get resource"), "{}", refused.stderr);
}

#[test]
fn an_app_changes_the_cluster_and_loses_no_change() {
    let server = Server::start(&[]);
    let run = || Pod::on(&server).allow("get,create,update configmaps").run(&[&example("change")]).ok();
    assert!(run().starts_with("run 1 of all"));
    // Two at once: each counts.
    std::thread::scope(|scope| {
        let both = [scope.spawn(run), scope.spawn(run)];
        both.into_iter().for_each(|one| drop(one.join().expect("it counts")));
    });
    assert!(run().starts_with("run 4 of all"));
}

#[test]
fn an_app_gathers_metrics() {
    let role = workspace().join("examples/metrics-role.yaml");
    let out = Pod::new().flag("--role", &role.to_string_lossy()).run(&[&example("metrics")]).ok();
    assert!(out.lines().any(|line| line.starts_with("LIST") || line.starts_with("GET")), "{out}");
}

#[test]
fn an_operator_keeps_its_promise() {
    let server = Server::start(&[]);
    let mut pod = Pod::on(&server).allow("get,list,watch,create,patch,delete configmaps").session();
    let kemudi = kemudi().to_string_lossy().into_owned();
    assert_eq!(pod.say(&format!("{} >/tmp/operator.log 2>&1 & echo started", example("operator"))), "started");
    let map = |name: &str, whom: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"example.com/greet":"yes"}}}},"data":{{"name":"{whom}"}}}}"#
        )
    };
    // The shell waits until something is so; the session's own limit ends it.
    let until = |what: &str| format!("until {what}; do sleep 0.05; done");
    let greeting = format!("{kemudi} get configmap ada-greeting -o jsonpath={{.data.text}}");
    for whom in ["Ada", "Grace"] {
        pod.say(&format!("echo '{}' | {kemudi} apply -f -", map("ada", whom)));
        let said = pod.say(&until(&format!("[ \"$({greeting} 2>/dev/null)\" = 'Hello, {whom}!' ]")));
        assert_eq!(said, "", "{}", pod.say("cat /tmp/operator.log"));
    }
    // What was taken away is put back, and what is no longer wanted goes.
    pod.say(&format!("{kemudi} delete configmap ada-greeting"));
    pod.say(&until(&format!("{greeting} >/dev/null 2>&1")));
    pod.say(&format!("{kemudi} delete configmap ada"));
    pod.say(&until(&format!("! {greeting} >/dev/null 2>&1")));
    let log = pod.say("kill -TERM $!; wait $!; echo $?; cat /tmp/operator.log");
    assert!(log.starts_with("0\n") && log.contains("ada-greeting greets Grace"), "{log}");
}
