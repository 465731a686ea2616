//! A pod that wants another pod's token, on the same node: by its files, its processes, the agent, and the API. It is told all
//! that it could guess (where the agent keeps what, under which number the other runs), and every way is closed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::Server;
use testkit::command::{kemudi, ordinary_user, run, spawn, target, wait};
use testkit::server::request;

const PATIENCE: Duration = Duration::from_secs(60);
const CORE: &str = "/api/v1/namespaces/default";
/// What the other pod runs, told apart from everything else on this machine.
const OTHER: [&str; 2] = ["sleep", "86117"];

/// Each attempt is a line: NAME: EXIT CODE WHAT IT SAID.
const SCRIPT: &str = r#"
home=/var/run/secrets/kubernetes.io/serviceaccount
own=$(cat $home/token)
try() { name=$1; shift; said=$("$@" 2>&1); printf '%s: %s %s\n' "$name" $? "$(printf %s "$said" | tr '\n' ' ')"; }
ask() {
    method=$1 path=$2 body=$3; shift 3
    # What is refused before its body is read resets an HTTP/2 stream, which curl may tell instead of the answer.
    curl --http1.1 --silent --show-error --fail-with-body --max-time 20 --cacert $home/ca.crt -H "Authorization: Bearer $own" \
        -H 'Content-Type: application/json' "$@" -X $method ${body:+-d "$body"} "https://kubernetes.default.svc$path"
}
here=/api/v1/namespaces/default

# The token works, so that what follows is refused for another reason.
try itself ask POST /apis/authentication.k8s.io/v1/selfsubjectreviews '{}'

# Processes and their files.
try other-root cat /proc/$OTHER_PID/root$home/token
try other-environment cat /proc/$OTHER_PID/environ
try other-memory cat /proc/$OTHER_PID/mem
try other-descriptors ls /proc/$OTHER_PID/fd/
all_roots() { for process in /proc/[0-9]*; do seen=$(cat $process/root$home/token 2>&1); [ "$seen" = "$own" ] || echo "$seen"; done; false; }
try all-roots all_roots
try first-root cat /proc/1/root$TOKEN_FILE
try first-working-folder cat /proc/1/cwd$TOKEN_FILE
sockets() { for open in /proc/[0-9]*/fd/*; do readlink $open; done | grep socket; }
try sockets-of-processes sockets
try sockets-with-names awk 'NR > 1 && NF > 7 { print; found = 1 } END { exit !found }' /proc/net/unix
try other-signal sh -c "kill -KILL $OTHER_PID"
try other-stop sh -c "kill -STOP $OTHER_PID"
try enter-other nsenter --target $OTHER_PID --mount cat $home/token
try enter-first nsenter --target 1 --mount cat $TOKEN_FILE
try enter-first-as-root unshare --user --map-root-user nsenter --target 1 --mount cat $TOKEN_FILE

# The agent's files, and the places that everybody shares on a machine.
try agent-token cat $TOKEN_FILE
agent_files() { find $(dirname $STATE) -mindepth 1 | grep .; }
try agent-files agent_files
shared() { find /tmp /var/tmp /dev/shm /run -path '*/secrets/*' -prune -o -type f -print | grep .; }
try shared-places shared
try administrators-kubeconfig grep . $FOLDER/kubeconfig
try administrators-token grep . $FOLDER/tokens.csv
export hidden=$(dirname $STATE)
try uncover umount $hidden
uncover='umount $hidden; umount -l $hidden; mount --bind $FOLDER /mnt && cat /mnt${TOKEN_FILE#$FOLDER}; mount --rbind / /mnt; umount -l /mnt$hidden; cat $TOKEN_FILE || cat /mnt$TOKEN_FILE'
try uncover-as-root unshare --user --map-root-user --mount sh -c "$uncover"
try other-proc unshare --user --map-root-user --mount --pid --fork sh -c "mount -t proc proc /proc; cat /proc/$OTHER_PID/root$home/token"
disk() { mknod /tmp/disk b $(stat -c '%Hd %Ld' /usr) && head -c 1 /tmp/disk; }
try the-disk disk

# The API: the kubelet's port, and everything that leads to a token or into a pod.
for host in $HOST_IP 10.96.0.1 127.0.0.1 $OTHER_IP; do
    try kubelet-$host curl --silent --show-error --insecure --max-time 5 -H "Authorization: Bearer $own" https://$host:10250/pods
done
try read-secrets ask GET $here/secrets ''
try read-pod ask GET $here/pods/other ''
try read-log ask GET $here/pods/other/log ''
try exec ask POST "$here/pods/other/exec?command=cat&command=$home/token&stdout=1" '{}'
try exec-get ask GET "$here/pods/other/exec?command=cat&command=$home/token&stdout=1" ''
try attach ask POST "$here/pods/other/attach?stdout=1" '{}'
try forward ask POST "$here/pods/other/portforward?ports=80" '{}'
try proxy ask GET $here/pods/other/proxy/ ''
try node-proxy ask GET /api/v1/nodes/$NODE/proxy/pods ''
try node-log ask GET /api/v1/nodes/$NODE/proxy/containerLogs/default/other/c ''
try ephemeral ask PATCH $here/pods/other/ephemeralcontainers '{}' -H 'Content-Type: application/merge-patch+json'
spec='"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"'
bound='"boundObjectRef":{"kind":"Pod","apiVersion":"v1","name":"other","uid":"'$OTHER_UID'"}'
try token-of-other ask POST $here/serviceaccounts/other/token "{$spec,\"spec\":{}}"
try token-of-other-bound ask POST $here/serviceaccounts/other/token "{$spec,\"spec\":{$bound}}"
try own-token-bound-to-other ask POST $here/serviceaccounts/thief/token "{$spec,\"spec\":{$bound}}"
try impersonate ask GET $here/secrets '' -H 'Impersonate-User: system:serviceaccount:default:other'
try pod-of-other ask POST $here/pods '{"metadata":{"name":"x"},"spec":{"serviceAccountName":"other","containers":[{"name":"c","image":"host"}]}}'
try record-other ask POST '/explain/usage?user=system:serviceaccount:default:other' '{}'
echo "over: 1 "
"#;

/// The attempts, and a part of what each must have said. `|` is between what the kernel may say.
const REFUSED: [(&str, &str); 45] = [
    ("other-root", "No such file"),
    ("other-environment", "No such file"),
    ("other-memory", "No such file"),
    ("other-descriptors", "No such file"),
    ("all-roots", ""),
    ("first-root", "No such file|Permission denied"),
    ("first-working-folder", "No such file|Permission denied"),
    ("sockets-of-processes", ""),
    ("sockets-with-names", ""),
    ("other-signal", "No such process"),
    ("other-stop", "No such process"),
    ("enter-other", "No such file"),
    ("enter-first", "not permitted|Permission denied"),
    ("enter-first-as-root", "not permitted|Permission denied|No space"),
    ("agent-token", "No such file"),
    ("agent-files", ""),
    ("shared-places", ""),
    ("administrators-kubeconfig", ""),
    ("administrators-token", ""),
    ("uncover", "not permitted|superuser|denied|not mounted"),
    ("uncover-as-root", "No such file|not permitted|No space"),
    ("other-proc", "No such file|not permitted|No space"),
    ("the-disk", "not permitted"),
    ("kubelet-10.96.0.1", "connect"),
    ("kubelet-127.0.0.1", "connect"),
    ("read-secrets", r#"cannot list resource \"secrets\""#),
    ("read-pod", r#"cannot get resource \"pods\""#),
    ("read-log", r#"cannot get resource \"pods/log\""#),
    ("exec", r#"cannot create resource \"pods/exec\""#),
    ("exec-get", r#"cannot get resource \"pods/exec\""#),
    ("attach", r#"cannot create resource \"pods/attach\""#),
    ("forward", r#"cannot create resource \"pods/portforward\""#),
    ("proxy", r#"cannot get resource \"pods/proxy\""#),
    ("node-proxy", "cannot get resource"),
    ("node-log", "cannot get resource"),
    ("ephemeral", r#"cannot patch resource \"pods/ephemeralcontainers\""#),
    ("token-of-other", r#"cannot create resource \"serviceaccounts/token\""#),
    ("token-of-other-bound", r#"cannot create resource \"serviceaccounts/token\""#),
    ("own-token-bound-to-other", "cannot bind token"),
    ("impersonate", "cannot impersonate"),
    ("pod-of-other", r#"cannot create resource \"pods\""#),
    ("record-other", r#"cannot post path \"/explain/usage\""#),
    // Of the machine and of the other pod: their addresses differ.
    ("kubelet-", "connect|reset"),
    ("kubelet-10.244.", "connect"),
    ("over", ""),
];

/// Waits until a pod has one of these phases, and gives it.
#[track_caller]
fn when(server: &Server, name: &str, phases: &[&str]) -> Value {
    let watch = format!("GET {CORE}/pods?watch=1&fieldSelector=metadata.name%3D{name}&timeoutSeconds=55");
    let mut connection = server.endpoint.connect(PATIENCE).expect("it listens");
    connection.write(&request("admin", &watch).encode()).expect("it reads");
    let head = connection.head().expect("an answer");
    for line in BufReader::new(connection.body(&head, false)).lines() {
        let mut event: Value = serde_json::from_str(&line.expect("an event")).expect("JSON");
        let phase = event["object"]["status"]["phase"].as_str().unwrap_or_default();
        if phases.contains(&phase) {
            return event["object"].take();
        }
    }
    panic!("{name} is never one of {phases:?}\n{}", server.trouble());
}

fn create(server: &Server, resource: &str, object: &Value) {
    let group =
        if resource.starts_with("role") { "/apis/rbac.authorization.k8s.io/v1/namespaces/default" } else { CORE };
    server.json("admin", &format!("POST {group}/{resource} {object}"));
}

/// The number of the process with this command line, as the machine sees it.
fn process(words: &[&str]) -> String {
    let line = words.iter().map(|word| format!("{word}\0")).collect::<String>();
    let all = std::fs::read_dir("/proc").expect("Linux").map_while(Result::ok);
    let mut found =
        all.filter(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|own| own == line));
    found.next().expect("it runs").file_name().into_string().expect("a number")
}

/// The file of the token that the agent wrote for a pod.
fn token_file(state: &Path, uid: &str) -> String {
    let files = walkdir::WalkDir::new(state.join("pods").join(uid)).into_iter().map_while(Result::ok);
    let mut tokens = files.filter(|entry| entry.file_name() == "token" && entry.depth() == 3);
    tokens.next().expect("every pod has one").path().display().to_string()
}

#[track_caller]
fn check(user: Option<u32>) {
    // Not in a place that every pod has its own of: what hides it there is looked at too.
    let folder = tempfile::Builder::new().prefix("kemudi-test-").tempdir_in(target()).expect("a folder");
    let server = Server::start_as(folder.path(), &["--store", "memory://"], user);
    for name in ["other", "thief"] {
        create(&server, "serviceaccounts", &json!({"metadata": {"name": name}}));
    }
    // The thief may have tokens of its own account, bound to whatever it says.
    let rules = json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["thief"], "verbs": ["create"]}]);
    create(&server, "roles", &json!({"metadata": {"name": "thief"}, "rules": rules}));
    let binding = json!({
        "metadata": {"name": "thief"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "thief"},
        "subjects": [{"kind": "ServiceAccount", "name": "thief", "namespace": "default"}],
    });
    create(&server, "rolebindings", &binding);
    let container = json!([{"name": "c", "image": "host", "command": OTHER}]);
    let other =
        json!({"metadata": {"name": "other"}, "spec": {"serviceAccountName": "other", "containers": container}});
    create(&server, "pods", &other);
    let other = when(&server, "other", &["Running"]);
    let text = |pointer: &str| other.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
    let state = folder.path().join("data/node");
    let (uid, node, pid) = (text("/metadata/uid"), text("/spec/nodeName"), process(&OTHER));
    let token_file = token_file(&state, &uid);
    let token = std::fs::read_to_string(&token_file).expect("we are as good as the agent");
    let (host_ip, other_ip) = (text("/status/hostIP"), text("/status/podIP"));
    let told = [
        ("OTHER_PID", pid.as_str()),
        ("OTHER_UID", &uid),
        ("OTHER_IP", &other_ip),
        ("HOST_IP", &host_ip),
        ("NODE", &node),
        ("FOLDER", &folder.path().display().to_string()),
        ("STATE", &state.display().to_string()),
        ("TOKEN_FILE", &token_file),
    ]
    .map(|(name, value)| json!({"name": name, "value": value}));
    // Alone with its own processes, and with the pod's first process in sight.
    for (name, share) in [("thief", false), ("thief-beside-init", true)] {
        let container = json!([{"name": "c", "image": "host", "command": ["sh", "-c", SCRIPT], "env": told}]);
        let spec = json!({
            "serviceAccountName": "thief", "restartPolicy": "Never", "shareProcessNamespace": share, "containers": container,
        });
        create(&server, "pods", &json!({"metadata": {"name": name}, "spec": spec}));
        when(&server, name, &["Succeeded", "Failed"]);
        let log = server.ask("admin", &format!("GET {CORE}/pods/{name}/log"));
        let log = String::from_utf8_lossy(&log.body).into_owned();
        judge(&log, &token);
    }
    let still = server.json("admin", &format!("GET {CORE}/pods/other"));
    assert_eq!(still["status"]["phase"], "Running");
    assert_eq!(still["status"]["containerStatuses"][0]["restartCount"], 0);
}

/// Every attempt was made, failed, and said why; nothing of the token is anywhere.
#[track_caller]
fn judge(log: &str, token: &str) {
    let signature = token.rsplit('.').next().expect("a JWT");
    assert!(!log.contains(signature), "the token was had:\n{log}");
    let said = |name: &str| {
        let line = log.lines().find(|line| {
            line.split(": ")
                .next()
                .is_some_and(|own| own == name || (name.ends_with(['-', '.']) && own.starts_with(name)))
        });
        let (code, words) = line
            .and_then(|line| line.split_once(": ")?.1.split_once(' ').or(Some((line, ""))))
            .unwrap_or_else(|| panic!("{name} was not tried:\n{log}"));
        (code.to_string(), words.to_string())
    };
    let (code, words) = said("itself");
    assert!(code == "0" && words.contains("system:serviceaccount:default:thief"), "{words}\n{log}");
    for (name, want) in REFUSED {
        let (code, words) = said(name);
        assert!(code != "0", "{name} succeeded: {words}\n{log}");
        assert!(want.split('|').any(|want| words.contains(want)), "{name}: {code} {words}, not {want}\n{log}");
        assert!(!want.is_empty() || words.trim().is_empty() || name == "all-roots", "{name} found {words}\n{log}");
    }
}

#[test]
fn a_pod_does_not_reach_another_pods_token() {
    check(None);
}

#[test]
fn nor_on_the_node_of_an_ordinary_user() {
    if let Some(user) = ordinary_user() {
        check(Some(user));
    }
}

/// What is hidden from a pod stays so while the server writes it anew.
#[test]
fn a_running_pod_does_not_see_the_kubeconfig_that_a_rotation_writes() {
    let folder = tempfile::Builder::new().prefix("kemudi-test-").tempdir_in(target()).expect("a folder");
    let server = Server::start_in(folder.path(), &["--store", "memory://"]);
    let script = "until [ -e $FOLDER/go ]; do sleep 0.1; done; cat $FOLDER/kubeconfig && echo over";
    let env = json!([{"name": "FOLDER", "value": folder.path()}]);
    let container = json!([{"name": "c", "image": "host", "command": ["sh", "-c", script], "env": env}]);
    let spec = json!({"restartPolicy": "Never", "containers": container});
    create(&server, "pods", &json!({"metadata": {"name": "waiting"}, "spec": spec}));
    when(&server, "waiting", &["Running"]);
    let before = std::fs::read(&server.kubeconfig).expect("it was written");
    let mut rotate = Command::new(kemudi());
    rotate.args(["ca", "rotate", "--data"]).arg(folder.path().join("data")).arg("--kubeconfig").arg(&server.kubeconfig);
    run(&mut rotate, "", PATIENCE).ok();
    assert_ne!(std::fs::read(&server.kubeconfig).expect("it is there"), before, "it was written anew");
    std::fs::write(folder.path().join("go"), "").expect("a folder of our own");
    when(&server, "waiting", &["Succeeded"]);
    let log = server.ask("admin", &format!("GET {CORE}/pods/waiting/log"));
    assert_eq!(String::from_utf8_lossy(&log.body), "over\n");
}

/// The working directory goes into the pod that is run; what of kemudi's is in it, or of the keys to clusters, does not.
#[test]
fn a_run_finds_no_other_runs_token_in_its_working_directory() {
    let folder = tempfile::Builder::new().prefix("kemudi-test-").tempdir_in(target()).expect("a folder");
    let kube = folder.path().join(".kube");
    std::fs::create_dir(&kube).expect("a folder of our own");
    for file in [kube.join("config"), folder.path().join("other")] {
        std::fs::write(file, "a key").expect("a folder of our own");
    }
    let in_pod = |script: &str| {
        let mut command = Command::new(kemudi());
        command.args(["run", "--", "sh", "-c", script]).current_dir(folder.path());
        command.env("TMPDIR", folder.path()).env("HOME", folder.path()).env("KUBECONFIG", folder.path().join("other"));
        command
    };
    let mut first = spawn(in_pod("echo up; read line").stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().expect("piped")).read_line(&mut line).expect("text");
    assert_eq!(line, "up\n");
    let files = || walkdir::WalkDir::new(folder.path()).into_iter().map_while(Result::ok);
    assert!(files().any(|entry| entry.file_name() == "token"), "it is there on this machine");
    let seen = run(&mut in_pod("find . -name token -o -name config; grep -r key . ; ls -A"), "", PATIENCE).ok();
    let seen: Vec<&str> = seen.lines().collect();
    let state = format!("kemudi-of-{}", rustix::process::geteuid().as_raw());
    assert_eq!(seen, [".kube", state.as_str(), "other"]);
    drop(first.stdin.take());
    assert!(wait(&mut first, PATIENCE).is_some(), "it ends with its input");
}
