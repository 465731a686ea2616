//! `kemudi tour`: the tutorial, live: each step a real request from inside a real pod, with its real output. A step
//! whose output is not what the tutorial says ends the tour with exit code 1.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::StreamExt;
use kemudi_client::{Api, ApiResource, Client, DeleteOptions, Dynamic, Event, FieldSelector, ListOptions, LogOptions};
use node::Attachment;
use node::sandbox::{Mount, Source, Stdio};
use serde_json::{Value, json};

use super::run::Place;
use super::{Failure, Global, Outcome};

/// Where the tour's own program is in its pods.
const SELF: &str = "/usr/local/bin/kemudi";
const HOME: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const POD: &str = "tutorial";
/// Whose use of rights is shown.
const ACCOUNT: &str = "system:serviceaccount:default:default";
/// How long one step may take.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);
/// What the shell in the pod prints behind the output of a command.
const END_OF_OUTPUT: &str = "--- end of output ---";

#[derive(Args, Debug)]
pub struct Tour {}

impl Tour {
    pub async fn run(self, _global: &Global) -> Outcome {
        let began = Instant::now();
        let stage = Stage::set().await?;
        let up = began.elapsed();
        let outcome = stage.play(up).await;
        stage.place.leave().await;
        outcome?;
        println!(
            "\nThe tour took {:.1} s. Next: kemudi run --allow 'get,list pods' -- YOUR PROGRAM",
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// A cluster, and a pod with a shell in it.
struct Stage {
    place: Place,
    client: Client,
    /// The recording of what [`ACCOUNT`] uses.
    recording: String,
    shell: std::sync::Mutex<Shell>,
    colours: bool,
}

impl Stage {
    async fn set() -> Result<Stage, Failure> {
        let place = Place::own().await?;
        let begun = place.cluster().and_then(|cluster| cluster.server().state().usage.begin(ACCOUNT, Instant::now()));
        let recording = begun.unwrap_or_default();
        let client = place.client();
        let shell = start_shell(&place, &client).await?;
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(Stage { place, client, recording, shell: std::sync::Mutex::new(shell), colours })
    }

    async fn play(&self, up: Duration) -> Outcome {
        let curl = format!(r#"curl -sS --cacert {HOME}/ca.crt -H "Authorization: Bearer $(cat {HOME}/token)""#);
        let has_curl = self.quiet("command -v curl").is_ok_and(|found| !found.is_empty());
        // Without curl, the program that is here anyway asks the same.
        let ask = |path: &str| match has_curl {
            true => format!("{curl} https://kubernetes.default.svc{path}"),
            false => format!("kemudi raw {path} 2>&1"),
        };
        println!(
            "A cluster in this process, a pod in namespaces of its own: {} ms. From here on, inside the pod.",
            up.as_millis()
        );

        self.title("The environment tells every pod where the API is");
        self.say("echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT", &["10.96.0.1:443"])?;
        self.say("getent hosts kubernetes.default.svc", &["10.96.0.1"])?;

        self.title("Three files come with every pod: the CA, the token, the namespace");
        self.say(&format!("ls {HOME}"), &["ca.crt", "namespace", "token"])?;
        self.say(&format!("cat {HOME}/namespace; echo"), &["default"])?;

        if has_curl {
            self.title("The API is HTTPS only");
            self.say(
                "curl -s http://kubernetes.default.svc:443/api",
                &["Client sent an HTTP request to an HTTPS server."],
            )?;
        }

        self.title("CA and token are all it takes to reach it");
        self.say(&ask("/api"), &["APIVersions", "v1", "serverAddressByClientCIDRs"])?;
        self.say("kemudi whoami", &["system:serviceaccount:default:default"])?;

        self.title("A new service account may do almost nothing");
        let forbidden = r#"cannot list resource \"pods\""#;
        let said = if has_curl { forbidden.to_string() } else { forbidden.replace('\\', "") };
        self.say(&ask("/api/v1/namespaces/default/pods"), &["forbidden", &said])?;

        self.title("A Role says what may be done; here it allows reading pods");
        self.apply(
            "Role",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": "demo-role", "namespace": "default"},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}],
            }),
        )
        .await?;

        self.title("A RoleBinding gives it to the pod's account");
        self.apply(
            "RoleBinding",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "demo-role-binding", "namespace": "default"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "demo-role"},
                "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
            }),
        )
        .await?;

        self.title("The very next request is allowed, and finds this pod");
        let path = format!("/api/v1/namespaces/$(cat {HOME}/namespace)/pods");
        let head = format!("{} | head -n 12", ask(&path));
        self.say(&head, &["PodList", POD])?;
        self.say("kemudi get pods -o wide", &[POD, "Running", "10.244."])?;

        self.title("A pod can have another account, which must exist");
        self.create("ServiceAccount", json!({"metadata": {"name": "demo-sa"}})).await?;
        let out = self.pod("with-demo-sa", "kemudi whoami", json!({"serviceAccountName": "demo-sa"})).await?;
        self.show(
            "the log of a pod with serviceAccountName: demo-sa",
            &out,
            &["system:serviceaccount:default:demo-sa"],
        )?;
        let refused = self.pod("orphan", "true", json!({"serviceAccountName": "nobody"})).await;
        let text = refused.err().map(|why| why.message).unwrap_or_default();
        self.show("a pod with serviceAccountName: nobody", &text, &[r#"serviceaccount "nobody" not found"#])?;

        self.title("A pod that needs no API opts out, and finds nothing");
        let look = format!("ls {HOME} 2>&1 || true");
        let out = self.pod("opted-out", &look, json!({"automountServiceAccountToken": false})).await?;
        self.show("the log of a pod with automountServiceAccountToken: false", &out, &["No such file or directory"])?;

        self.title("Least privilege: what this account really used, as a Role");
        let roles = self.recorded().least_roles("recorded", false);
        let text: String = roles.iter().map(api::codec::to_yaml).collect();
        self.show("as `kemudi record` writes it", &text, &["kind: Role", "pods", "list"])?;

        self.title("When something does not work, kemudi doctor checks each step of the way");
        self.say("kemudi doctor", &["kubernetes.default.svc", "10.96.0.1"])
    }

    /// What was used so far; asking keeps the recording alive.
    fn recorded(&self) -> rights::Recorded {
        let recorder = self.place.cluster().map(|cluster| &cluster.server().state().usage);
        recorder.and_then(|recorder| recorder.so_far(&self.recording, Instant::now())).unwrap_or_default()
    }

    fn title(&self, text: &str) {
        self.recorded();
        match self.colours {
            true => println!("\n\x1b[1m{text}\x1b[0m"),
            false => println!("\n# {text}"),
        }
    }

    /// Runs a line in the pod's shell, shows it and its output, and looks whether it says what it should.
    fn say(&self, line: &str, wanted: &[&str]) -> Outcome {
        println!("$ {line}");
        let output = self.quiet(line)?;
        print!("{}", indented(&output));
        check(&output, wanted)
    }

    fn show(&self, what: &str, output: &str, wanted: &[&str]) -> Outcome {
        println!("> {what}");
        print!("{}", indented(output));
        check(output, wanted)
    }

    fn quiet(&self, line: &str) -> Result<String, Failure> {
        let mut shell = self.shell.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shell.run(line).map_err(|why| Failure::new(format!("the shell in the pod: {why}")))
    }

    /// Makes an object from outside of the pod, as its administrator.
    async fn apply(&self, kind: &str, object: Value) -> Outcome {
        println!("> from outside, as the administrator");
        print!("{}", indented(&api::codec::to_yaml(&object)));
        self.create(kind, object).await
    }

    async fn create(&self, kind: &str, object: Value) -> Result<(), Failure> {
        let group = if kind.starts_with("Role") { "rbac.authorization.k8s.io" } else { "" };
        let plural = format!("{}s", kind.to_ascii_lowercase());
        let of = ApiResource {
            group: group.into(),
            version: "v1".into(),
            kind: kind.to_string().into(),
            plural: plural.into(),
            namespaced: true,
        };
        let api = Api::<Dynamic>::namespaced_of(self.client.clone(), "default", &of);
        api.create(&Dynamic(object)).await.map(|_| ()).map_err(|why| Failure::while_doing("", why))
    }

    /// Runs a pod to its end and answers its log.
    async fn pod(&self, name: &str, script: &str, spec: Value) -> Result<String, Failure> {
        let mut pod = pod_object(name, self.place.node_name(), script);
        for (key, value) in spec.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let told = |why| Failure::while_doing("", why);
        let pods = pods(&self.client);
        pods.create(&Dynamic(pod)).await.map_err(told)?;
        let ended = |object: &Value| matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        until(&pods, name, ended).await?;
        let log = pods.logs(name, &LogOptions::default()).await.map_err(told)?;
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        let _ = pods.delete_with(name, &now).await;
        Ok(log)
    }
}

/// A shell in a pod: lines in, output out.
struct Shell {
    input: std::fs::File,
    output: BufReader<std::fs::File>,
}

impl Shell {
    /// Output of a line, both streams.
    fn run(&mut self, line: &str) -> std::io::Result<String> {
        writeln!(self.input, "{{ {line}\n}} 2>&1; echo; echo '{END_OF_OUTPUT}'")?;
        let mut output = String::new();
        loop {
            let mut next = String::new();
            if self.output.read_line(&mut next)? == 0 {
                return Err(std::io::Error::other(format!("it ended: {output}")));
            }
            if next.trim_end() == END_OF_OUTPUT {
                return Ok(output.trim_end().to_string());
            }
            output.push_str(&next);
        }
    }
}

async fn start_shell(place: &Place, client: &Client) -> Result<Shell, Failure> {
    let failed = |why: std::io::Error| Failure::new(format!("no pipe to the pod: {why}"));
    let (pod_input, input) = std::io::pipe().map_err(failed)?;
    let (output, pod_output) = std::io::pipe().map_err(failed)?;
    let errors = pod_output.try_clone().map_err(failed)?;
    let attachment = Attachment {
        stdio: Stdio { stdin: pod_input.into(), stdout: pod_output.into(), stderr: errors.into() },
        terminal: false,
        env: vec![("PATH".into(), std::env::var("PATH").unwrap_or_default()), ("LANG".into(), "C.UTF-8".into())],
        mounts: own_program().into_iter().collect(),
    };
    let ended = place.agent().attach("default", POD, attachment);
    let pods = pods(client);
    let mut pod = pod_object(POD, place.node_name(), "");
    pod["spec"]["containers"][0]["command"] = json!(["/bin/sh"]);
    pods.create(&Dynamic(pod)).await.map_err(|why| Failure::while_doing("", why))?;
    let running = |object: &Value| object["status"]["phase"] == "Running";
    tokio::select! {
        ready = until(&pods, POD, running) => ready?,
        ended = ended => {
            let why = ended.ok().and_then(Result::err).unwrap_or_else(|| "its shell ended".into());
            return Err(Failure::new(why));
        }
    }
    let (input, output): (OwnedFd, OwnedFd) = (input.into(), output.into());
    Ok(Shell { input: input.into(), output: BufReader::new(output.into()) })
}

/// This very program, where pods find it.
fn own_program() -> Option<Mount> {
    let program: PathBuf = std::env::current_exe().ok()?;
    Some(Mount { source: Source::Host(program), sub_path: None, target: Path::new(SELF).into(), read_only: true })
}

fn pod_object(name: &str, node: &str, script: &str) -> Value {
    // A pod without an attachment sees this program as a file of the host.
    let program = std::env::current_exe().unwrap_or_default();
    let mount = json!({"name": "program", "mountPath": SELF, "readOnly": true});
    json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": "host",
                "command": ["/bin/sh", "-c", script],
                "env": [{"name": "PATH", "value": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}],
                "volumeMounts": [mount],
            }],
            "volumes": [{"name": "program", "hostPath": {"path": program.to_string_lossy(), "type": "File"}}],
        },
    })
}

fn pods(client: &Client) -> Api<Dynamic> {
    let of = ApiResource {
        group: "".into(),
        version: "v1".into(),
        kind: "Pod".into(),
        plural: "pods".into(),
        namespaced: true,
    };
    Api::namespaced_of(client.clone(), "default", &of)
}

/// Waits until a pod is as wanted.
async fn until(pods: &Api<Dynamic>, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<(), Failure> {
    let fields = FieldSelector::parse(&format!("metadata.name={name}")).map_err(Failure::new)?;
    let mut watcher = Box::pin(pods.watcher(&ListOptions { fields, ..ListOptions::default() }).into_stream());
    let found = async {
        while let Some(event) = watcher.next().await {
            if let Ok(Event::InitApplied(Dynamic(object)) | Event::Applied(Dynamic(object))) = event
                && wanted(&object)
            {
                return;
            }
        }
    };
    if tokio::time::timeout(STEP_TIME_MAX, found).await.is_ok() {
        return Ok(());
    }
    let status = pods.get(name).await.map(|Dynamic(pod)| pod["status"].to_string()).unwrap_or_default();
    Err(Failure::new(format!("the pod {name} did not get ready within {} s: {status}", STEP_TIME_MAX.as_secs())))
}

fn check(output: &str, wanted: &[&str]) -> Outcome {
    match wanted.iter().find(|wanted| !output.contains(**wanted)) {
        None => Ok(()),
        Some(missing) => Err(Failure::new(format!("this step should have said {missing:?}"))),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
