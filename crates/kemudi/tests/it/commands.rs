//! Commands of the built binary against a server: what they print, where, and their exit codes.

use std::path::Path;
use std::process::Stdio;

use kemudi::Cluster;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

struct Shell {
    cluster: Cluster,
    home: tempfile::TempDir,
}

impl Shell {
    async fn start() -> Shell {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut cluster = Cluster::start().await.unwrap();
        cluster.listen(listener);
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), cluster.admin_kubeconfig().unwrap()).unwrap();
        Shell { cluster, home }
    }

    /// Types commands, one a line; `COMMAND <<< INPUT` gives stdin. The answer is what a terminal would show after each,
    /// stderr marked with `!`, and the exit code where it is not 0.
    async fn type_in(&self, lines: &str) -> String {
        let mut shown = String::new();
        for line in lines.trim().lines().map(str::trim) {
            let (command, input) = line.split_once(" <<< ").unwrap_or((line, ""));
            let words: Vec<&str> = command.split_whitespace().collect();
            let (out, err, code) = run(self.home.path(), &words, input).await;
            shown += &format!("$ {line}\n{out}");
            if !out.is_empty() && !out.ends_with('\n') {
                shown.push('\n');
            }
            err.lines().for_each(|line| shown += &format!("! {line}\n"));
            if code != 0 {
                shown += &format!("[{code}]\n");
            }
        }
        shown.replace(&self.home.path().display().to_string(), "HOME")
    }
}

async fn run(home: &Path, words: &[&str], input: &str) -> (String, String, i32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kemudi"))
        .args(words)
        .env_clear()
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that fails early does not read its input.
    let _ = stdin.write_all(input.replace("\\n", "\n").as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_given_and_asked_about() {
    let shell = Shell::start().await;
    let shown = shell
        .type_in(
            "create serviceaccount demo-sa
             auth can-i list pods --as=system:serviceaccount:default:demo-sa
             get pods --as=system:serviceaccount:default:demo-sa
             apply -f - <<< {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: demo-role}, rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]}
             apply -f - <<< {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: demo-role}, rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]}
             apply -f - <<< {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: demo-role}, rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]}
             get role demo-role -o jsonpath={.rules[*].verbs}
             create rolebinding demo --role=demo-role --serviceaccount=default:demo-sa
             create rolebinding demo --role=demo-role --serviceaccount=default:demo-sa
             auth can-i list pods --as=system:serviceaccount:default:demo-sa
             get pods --as=system:serviceaccount:default:demo-sa
             whoami --as=system:serviceaccount:default:demo-sa
             create clusterrole nodes --verb=get --resource=nodes,deployments.apps/scale -o jsonpath={.rules}
             create rolebinding nothing --user=x
             delete role demo-role
             get role
             delete role demo-role",
        )
        .await;
    expect_test::expect![[r#"
        $ create serviceaccount demo-sa
        serviceaccount/demo-sa created
        $ auth can-i list pods --as=system:serviceaccount:default:demo-sa
        no
        [1]
        $ get pods --as=system:serviceaccount:default:demo-sa
        ! Error from server (Forbidden): pods is forbidden: User "system:serviceaccount:default:demo-sa" cannot list resource "pods" in API group "" in the namespace "default"
        ! hint: whoever may grant it types: kemudi create role NAME --verb=list --resource=pods -n default && kemudi create rolebinding NAME --role=NAME --serviceaccount=default:demo-sa -n default
        [1]
        $ apply -f - <<< {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: demo-role}, rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]}
        role.rbac.authorization.k8s.io/demo-role created
        $ apply -f - <<< {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: demo-role}, rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]}
        role.rbac.authorization.k8s.io/demo-role unchanged
        $ apply -f - <<< {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: demo-role}, rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]}
        role.rbac.authorization.k8s.io/demo-role configured
        $ get role demo-role -o jsonpath={.rules[*].verbs}
        ["list"]
        $ create rolebinding demo --role=demo-role --serviceaccount=default:demo-sa
        rolebinding.rbac.authorization.k8s.io/demo created
        $ create rolebinding demo --role=demo-role --serviceaccount=default:demo-sa
        ! error: failed to create rolebinding: rolebindings.rbac.authorization.k8s.io "demo" already exists
        [1]
        $ auth can-i list pods --as=system:serviceaccount:default:demo-sa
        yes
        $ get pods --as=system:serviceaccount:default:demo-sa
        ! No resources found in default namespace.
        $ whoami --as=system:serviceaccount:default:demo-sa
        ATTRIBUTE   VALUE
        Username    system:serviceaccount:default:demo-sa
        Groups      [system:serviceaccounts system:serviceaccounts:default system:authenticated]
        $ create clusterrole nodes --verb=get --resource=nodes,deployments.apps/scale -o jsonpath={.rules}
        [{"apiGroups":[""],"resources":["nodes"],"verbs":["get"]},{"apiGroups":["apps"],"resources":["deployments/scale"],"verbs":["get"]}]
        $ create rolebinding nothing --user=x
        ! error: exactly one of clusterrole or role must be specified
        [1]
        $ delete role demo-role
        role.rbac.authorization.k8s.io "demo-role" deleted from default namespace
        $ get role
        ! No resources found in default namespace.
        $ delete role demo-role
        ! Error from server (NotFound): roles.rbac.authorization.k8s.io "demo-role" not found
        [1]
    "#]].assert_eq(&shown);
    shell.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_made_shown_and_deleted() {
    let shell = Shell::start().await;
    let shown = shell
        .type_in(
            "create configmap web --from-literal=a=1 --from-literal=b=2
             get cm web -o jsonpath={.data}
             get configmaps web -o name
             get cm/web secret/nothing -o name
             get cm -l app=none
             get frobnitz
             get confgmaps
             apply -f - <<< {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {a: '3'}}
             get cm web -o jsonpath={.data}
             apply -f - <<< {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, dada: {}}
             apply -f nowhere.yaml
             apply -f - <<< {kind: ConfigMap}
             apply -f - <<< {apiVersion: example.com/v1, kind: Frobnitz, metadata: {name: x}}
             create namespace Bad_Name
             create secret generic s --from-literal=k=v
             get secret s -o jsonpath={.type}{.data}
             create namespace team
             delete namespace team
             delete cm web
             delete cm web
             delete cm
             logs nothing
             raw /api/v1/namespaces/default/pods/nothing/log
             raw api
             token
             version --client",
        )
        .await;
    expect_test::expect![[r#"
        $ create configmap web --from-literal=a=1 --from-literal=b=2
        configmap/web created
        $ get cm web -o jsonpath={.data}
        {"a":"1","b":"2"}
        $ get configmaps web -o name
        configmap/web
        $ get cm/web secret/nothing -o name
        configmap/web
        ! Error from server (NotFound): secrets "nothing" not found
        [1]
        $ get cm -l app=none
        ! No resources found in default namespace.
        $ get frobnitz
        ! error: the server doesn't have a resource type "frobnitz"
        ! hint: see all groups: kemudi raw /apis, the core's resources: kemudi raw /api/v1
        [1]
        $ get confgmaps
        ! error: the server doesn't have a resource type "confgmaps"
        ! hint: did you mean configmaps?
        [1]
        $ apply -f - <<< {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {a: '3'}}
        configmap/web configured
        ! Warning: resource configmaps/web is missing the kubectl.kubernetes.io/last-applied-configuration annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.
        $ get cm web -o jsonpath={.data}
        {"a":"3","b":"2"}
        $ apply -f - <<< {apiVersion: v1, kind: ConfigMap, metadata: {name: web}, dada: {}}
        ! The request is invalid: patch: Invalid value: "map[dada:map[] data:<nil> metadata:map[annotations:map[kubectl.kubernetes.io/last-applied-configuration:{\"apiVersion\":\"v1\",\"dada\":{},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"web\",\"namespace\":\"default\"}}\n]]]": strict decoding error: unknown field "dada"
        [1]
        $ apply -f nowhere.yaml
        ! error: the path "nowhere.yaml" does not exist
        [1]
        $ apply -f - <<< {kind: ConfigMap}
        ! error: error validating "STDIN": error validating data: apiVersion not set; if you choose to ignore these errors, turn validation off with --validate=false
        ! hint: write apiVersion: at the top of each object
        [1]
        $ apply -f - <<< {apiVersion: example.com/v1, kind: Frobnitz, metadata: {name: x}}
        ! error: resource mapping not found for name: "x" namespace: "" from "STDIN": no matches for kind "Frobnitz" in version "example.com/v1"
        ! ensure CRDs are installed first
        [1]
        $ create namespace Bad_Name
        ! The Namespace "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        [1]
        $ create secret generic s --from-literal=k=v
        secret/s created
        $ get secret s -o jsonpath={.type}{.data}
        Opaque{"k":"dg=="}
        $ create namespace team
        namespace/team created
        $ delete namespace team
        namespace "team" deleted
        $ delete cm web
        configmap "web" deleted from default namespace
        $ delete cm web
        ! Error from server (NotFound): configmaps "web" not found
        [1]
        $ delete cm
        ! error: resource(s) were provided, but no name was specified
        [1]
        $ logs nothing
        ! error: error from server (NotFound): pods "nothing" not found in namespace "default"
        ! hint: see which there are: kemudi get pods -n default
        [1]
        $ raw /api/v1/namespaces/default/pods/nothing/log
        {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"nothing\" not found","reason":"NotFound","details":{"name":"nothing","kind":"pods"},"code":404}
        [1]
        $ raw api
        ! error: "api" is no path: it must start with /
        ! hint: kemudi raw /api
        [1]
        $ token
        ! error: context "kemudi" of HOME/.kube/config has no token
        ! hint: ask for one of a service account: kemudi token NAME
        [1]
        $ version --client
        Client Version: v0.1.0
    "#]].assert_eq(&shown);
    shell.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let (out, err, code) = run(home.path(), &["get", "pods"], "").await;
    assert_eq!((out.as_str(), code), ("", 1));
    assert!(err.contains("no kubeconfig at") && err.contains("kemudi run -- PROGRAM"), "{err}");
    let (out, err, code) = run(home.path(), &["doctor", "--server", "https://127.0.0.1:1"], "").await;
    assert!(out.contains("FAIL  connection: 127.0.0.1:1: Connection refused"), "{out}");
    assert!(err.contains("1 step failed") && code == 1, "{err}");
    let shell = Shell::start().await;
    let (out, _, code) = run(shell.home.path(), &["doctor"], "").await;
    assert!(out.contains("ok    identity: kubernetes-admin") && !out.contains("FAIL") && code == 0, "{out}");
    shell.cluster.stop().await.unwrap();
}
