//! Ephemeral containers: they come to a pod that runs, see what they were meant to, and change nothing of its life.

use super::{Bed, shell, with};
use serde_json::{Value, json};

/// Puts an ephemeral container into a pod that is there.
fn debug(bed: &Bed, pod: &str, container: Value) {
    let mut object = bed.api.get("pods", "shop", pod).unwrap();
    let container = with(container, json!({"image": "host"}));
    let all = object["spec"]["ephemeralContainers"].as_array_mut();
    match all {
        Some(all) => all.push(container),
        None => object["spec"]["ephemeralContainers"] = json!([container]),
    }
    bed.api.put("pods", object);
}

fn state(pod: &Value, index: usize) -> &Value {
    &pod["status"]["ephemeralContainerStatuses"][index]["state"]
}

#[tokio::test]
async fn looks_into_a_pod_that_runs() {
    let bed = Bed::new();
    let main = json!({"name": "main", "command": ["/bin/sleep", "12345"]});
    bed.pod("web", json!({"terminationGracePeriodSeconds": 0, "containers": [main]}));
    let before = bed.phase("web", "Running").await;
    let look = "tr '\\0' ' ' < /proc/1/cmdline; test $$$$ != 1 && echo beside; exit 3";
    debug(&bed, "web", with(shell("look", look), json!({"targetContainerName": "main"})));
    let pod = bed.until("web", "looked", |pod| state(pod, 0)["terminated"]["exitCode"] == 3).await;
    super::limits::logged(&bed, "web/look", "/bin/sleep 12345 beside\n").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["containerStatuses"], before["status"]["containerStatuses"]);
    // Without a target it has processes of its own; a target that does not run is said.
    debug(&bed, "web", shell("alone", "test $$$$ = 1 && echo alone; exec sleep 1000"));
    debug(&bed, "web", with(shell("lost", "true"), json!({"targetContainerName": "none"})));
    let pod = bed.until("web", "alone", |pod| state(pod, 1)["running"].is_object()).await;
    bed.until("web", "lost", |pod| state(pod, 2)["waiting"]["reason"] == "CreateContainerConfigError").await;
    super::limits::logged(&bed, "web/alone", "alone\n").await;
    let path = |name: &str| format!("spec.ephemeralContainers{{{name}}}");
    assert!(bed.api.list("events").iter().any(|it| it["involvedObject"]["fieldPath"] == path("look")));
    // None of them keeps the pod.
    drop(pod);
    bed.api.delete_pod("shop", "web", 0);
    bed.gone("web").await;
}

#[tokio::test]
async fn ends_with_the_pod() {
    let bed = Bed::new();
    let mounts = json!({"volumeMounts": [{"name": "work", "mountPath": "/work"}]});
    let main = with(shell("main", "until test -e /work/go; do sleep 0.01; done"), mounts.clone());
    bed.pod(
        "job",
        json!({"restartPolicy": "Never", "containers": [main], "shareProcessNamespace": true,
            "volumes": [{"name": "work", "emptyDir": {}}]}),
    );
    bed.phase("job", "Running").await;
    let look = with(shell("look", "touch /work/go; exec sleep 1000"), mounts);
    debug(&bed, "job", with(look, json!({"targetContainerName": "main"})));
    let pod = bed.phase("job", "Succeeded").await;
    assert!(state(&pod, 0).is_object());
}
