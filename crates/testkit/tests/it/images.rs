//! Pods that run from images: of archives and of registries, as root and as an ordinary user would have them.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::Server;
use testkit::clients;
use testkit::command::{Finished, RUN_LIMIT, kemudi, run, spawn};
use testkit::server::lines_of;

/// What `kemudi image` says with the folder of a server.
fn image(folder: &Path, words: &str) -> Finished {
    let mut command = Command::new(kemudi());
    command.arg("image").args(words.split(' ')).arg("--data").arg(folder.join("data"));
    run(&mut command, "", RUN_LIMIT)
}

/// An archive with an image that greets, whoever runs it.
fn demo(folder: &Path) -> std::path::PathBuf {
    let archive = folder.join("demo.tar");
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:82::/srv:/bin/sh\n";
    let files = [("etc/passwd", passwd), ("etc/greeting", "hello from an image\n")];
    let config = json!({
        "Env": ["PATH=/bin", "GREETING=hi"],
        "Entrypoint": ["sh", "-c"],
        "Cmd": ["cat /etc/greeting; pwd; echo $GREETING $HOME"],
        "WorkingDir": "/etc",
    });
    testkit::image::save(&archive, "demo:1", &["sh", "cat", "id", "touch", "sleep"], &files, &config);
    archive
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"restartPolicy":"Never",
        "containers":[{{"name":"main","image":"{image}"{more}}}]}}}}"#
    )
}

/// Waits until a container waits for this reason, and gives the message.
#[track_caller]
fn waits_for(server: &Server, pod: &str, reason: &str) -> String {
    let path = "{.status.containerStatuses[0].state.waiting";
    let wait = server.kubectl(&format!("wait pod/{pod} --for=jsonpath={path}.reason}}={reason} --timeout=30s"));
    let state = server.kubectl(&format!("get pod {pod} -o yaml")).stdout;
    assert_eq!(wait.code, 0, "{pod} does not wait for {reason}: {state}\n{}", server.trouble());
    server.kubectl(&format!("get pod {pod} -o jsonpath={path}.message}}")).ok()
}

#[test]
fn pods_run_from_images_that_were_loaded() {
    if clients::skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_in(folder.path(), &["--store", "memory://"]);
    let archive = demo(folder.path());
    let loaded = image(folder.path(), &format!("load {}", archive.display())).ok();
    assert_eq!(loaded, "Loaded image: docker.io/library/demo:1\n");
    let check = |name: &str, more: &str, want: &str| {
        server.apply(&pod(name, "demo:1", more));
        assert_eq!(server.logs_when(name, "Succeeded"), want, "{name}");
    };
    check("plain", "", "hello from an image\n/etc\nhi /root\n");
    check("args", r#","args":["id -u; test -w /etc && echo writable"]"#, "0\nwritable\n");
    check("command", r#","command":["cat","greeting"]"#, "hello from an image\n");
    check("user", r#","securityContext":{"runAsUser":101},"args":["id -u; id -g; echo $HOME"]"#, "101\n82\n/srv\n");
    let read_only = r#","securityContext":{"readOnlyRootFilesystem":true},"args":["touch /x 2>&1; touch /dev/shm/x && echo but here"]"#;
    check("read-only", read_only, "touch: cannot touch '/x': Read-only file system\nbut here\n");
    let token = r#","args":["cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; cat /etc/hostname"]"#;
    check("token", token, "defaulttoken\n");
    // Nothing of the host is in it, and nothing that another container wrote.
    check("others", r#","args":["touch /mine; test -e /usr/bin/env || echo no host"]"#, "no host\n");
    check("again", r#","args":["test -e /mine || echo clean"]"#, "clean\n");
    let id = server.kubectl("get pod plain -o jsonpath={.status.containerStatuses[0].imageID}").ok();
    assert!(id.starts_with("sha256:"), "{id}");
    let events =
        server.kubectl("get events --field-selector involvedObject.name=plain -o jsonpath={.items[*].message}").ok();
    assert!(events.contains("Container image \"demo:1\" already present on machine"), "{events}");

    server.apply(&pod("absent", "demo:2", r#","imagePullPolicy":"Never""#));
    let message = waits_for(&server, "absent", "ErrImageNeverPull");
    assert_eq!(message, "Container image \"demo:2\" is not present with pull policy of Never");
    server.apply(&pod("misnamed", "Demo:1", ""));
    let message = waits_for(&server, "misnamed", "InvalidImageName");
    assert!(
        message.starts_with("Failed to apply default image tag \"Demo:1\": couldn't parse image name"),
        "{message}"
    );
    // An image that is a volume is waited for as one's own.
    let volumes =
        |reference: &str, policy: &str| json!([{"name": "v", "image": {"reference": reference, "pullPolicy": policy}}]);
    for (name, reference, policy, reason, said) in [
        ("part-never", "demo:2", "Never", "ErrImageNeverPull", "is not present with pull policy of Never"),
        (
            "part-pull",
            "127.0.0.1:1/x:1",
            "Always",
            "ErrImagePull",
            "failed to pull and unpack image \"127.0.0.1:1/x:1\"",
        ),
    ] {
        let container = json!({"name": "main", "image": "demo:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let spec = json!({"containers": [container], "volumes": volumes(reference, policy)});
        let body = json!({"metadata": {"name": name}, "spec": spec});
        server.json("admin", &format!("POST /api/v1/namespaces/default/pods {body}"));
        let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        let path = format!("GET /api/v1/namespaces/default/pods/{name}");
        let pod = server.until(&path, RUN_LIMIT, |_, pod| waiting(pod)["reason"] == reason);
        assert!(waiting(&pod)["message"].as_str().is_some_and(|text| text.contains(said)), "{pod:#}");
    }
    let root = r#","securityContext":{"runAsNonRoot":true}"#;
    server.apply(&pod("root", "demo:1", root));
    let message = waits_for(&server, "root", "CreateContainerConfigError");
    assert!(message.starts_with("container has runAsNonRoot and image will run as root"), "{message}");

    server.apply(&pod("long", "demo:1", r#","args":["sleep 1000"]"#));
    server.wait_for_phase("long", "Running");
    let refused = image(folder.path(), "rm demo:1").exits(1);
    assert!(refused.stderr.contains("image demo:1 is in use by a container"), "{}", refused.stderr);
    server.kubectl("delete pod long --grace-period=1").ok();
    let removed = image(folder.path(), "rm demo:1").ok();
    assert!(removed.starts_with("Untagged: docker.io/library/demo:1\nDeleted: sha256:"), "{removed}");
}

/// A registry with one image in it; it ends with this.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(archive: &Path, name: &str, credentials: &[&str]) -> Registry {
        let mut command = Command::new(clients::registry());
        command.arg(archive).arg(name).args(credentials).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let (lines, _) = lines_of(child.stdout.take().expect("piped"));
        let address = lines.recv_timeout(RUN_LIMIT).expect("its address");
        Registry { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn pods_run_from_images_of_registries() {
    if clients::skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start_in(folder.path(), &["--store", "memory://"]);
    let archive = demo(folder.path());
    let open = Registry::start(&archive, "team/demo:1", &[]);
    let closed = Registry::start(&archive, "team/demo:1", &["robot", "secret"]);
    let name = format!("{}/team/demo:1", open.address);
    server.apply(&pod("pulled", &name, ""));
    assert_eq!(server.logs_when("pulled", "Succeeded"), "hello from an image\n/etc\nhi /root\n");
    let id = server.kubectl("get pod pulled -o jsonpath={.status.containerStatuses[0].imageID}").ok();
    assert!(id.starts_with(&format!("{}/team/demo@sha256:", open.address)), "{id}");
    let events = |pod: &str| {
        let query = "-o jsonpath={range.items[*]}{.reason}:{.message}|{end}";
        server.kubectl(&format!("get events --field-selector involvedObject.name={pod} {query}")).ok()
    };
    let told = events("pulled");
    for want in
        [format!("Pulling:Pulling image \"{name}\"|"), format!("Pulled:Successfully pulled image \"{name}\" in ")]
    {
        assert!(told.contains(&want), "{told}");
    }

    server.apply(&pod("none", &format!("{}/team/demo:2", open.address), ""));
    let message = waits_for(&server, "none", "ErrImagePull");
    let whole = format!("{}/team/demo:2", open.address);
    let why = format!(
        "failed to pull and unpack image \"{whole}\": failed to resolve reference \"{whole}\": {whole}: not found"
    );
    assert_eq!(message, why);
    assert!(
        events("none").contains(&format!("Failed:Failed to pull image \"{whole}\": {why}|Failed:Error: ErrImagePull|"))
    );
    waits_for(&server, "none", "ImagePullBackOff");

    let name = format!("{}/team/demo:1", closed.address);
    server.apply(&pod("stranger", &name, ""));
    let message = waits_for(&server, "stranger", "ErrImagePull");
    assert!(
        message.ends_with("pull access denied, repository does not exist or may require authorization"),
        "{message}"
    );
    let secret =
        format!("create secret docker-registry robot --docker-server={} --docker-username=robot", closed.address);
    server.kubectl(&format!("{secret} --docker-password=secret")).ok();
    let known = pod("known", &name, "")
        .replace("\"restartPolicy\"", "\"imagePullSecrets\":[{\"name\":\"robot\"}],\"restartPolicy\"");
    server.apply(&known);
    assert!(server.logs_when("known", "Succeeded").starts_with("hello from an image\n"));

    // By hand, with a name by content.
    let digest = id.split('@').nth(1).expect("a digest");
    let pulled = image(folder.path(), &format!("pull {}/team/demo@{digest}", open.address)).ok();
    assert_eq!(pulled, format!("{}/team/demo@{digest}\n", open.address));
    let listed = image(folder.path(), "list").ok();
    assert_eq!(listed.lines().filter(|line| line.contains("/team/demo:1 ")).count(), 2, "{listed}");
    let denied = image(folder.path(), &format!("pull {}/team/demo:1", closed.address)).exits(1);
    assert!(denied.stderr.contains("KEMUDI_REGISTRY_USER="), "{}", denied.stderr);
    let unreachable = image(folder.path(), "pull 127.0.0.1:1/x").exits(1);
    assert!(
        unreachable.stderr.contains("Connection refused") && unreachable.stderr.contains("hint: "),
        "{}",
        unreachable.stderr
    );
}

#[test]
fn who_has_no_home_folder_can_run_commands() {
    let mut command = Command::new(kemudi());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    assert_eq!(run(command.args(["run", "--", "echo", "here"]), "", RUN_LIMIT).ok(), "here\n");
}

#[test]
fn a_command_runs_from_an_image() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = demo(folder.path());
    let kemudi = |words: &[&str]| {
        let mut command = Command::new(kemudi());
        command.env("XDG_STATE_HOME", folder.path()).env("TMPDIR", folder.path()).env("OF_THE_HOST", "1").args(words);
        run(&mut command, "", RUN_LIMIT)
    };
    kemudi(&["image", "load", &archive.display().to_string()]).ok();
    assert_eq!(kemudi(&["run", "--image", "demo:1"]).ok(), "hello from an image\n/etc\nhi /root\n");
    let script = "touch /x; echo ${OF_THE_HOST:-nothing}; exit 7";
    let finished = kemudi(&["run", "--image", "demo:1", "--", "sh", "-c", script]).exits(7);
    assert_eq!(finished.stdout, "nothing\n");
    let missing = kemudi(&["run", "--image", "127.0.0.1:1/x"]).exits(1);
    assert!(missing.stderr.contains("docker save NAME | kemudi image load -"), "{}", missing.stderr);
    // What containers wrote went with them.
    let left = std::fs::read_dir(folder.path()).expect("our own").filter_map(|entry| {
        let path = entry.expect("our own").path();
        (path.is_dir() && !path.ends_with("kemudi")).then(|| std::fs::read_dir(&path).map_or(0, Iterator::count))
    });
    assert_eq!(left.sum::<usize>(), 0);
}
