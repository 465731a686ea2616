//! What a program in a pod may try against the machine, the agent and its neighbours, one attempt a test; each on a server of root
//! and on one of an ordinary user. None may succeed.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Server;
use testkit::command::{ordinary_user, target};

const PATIENCE: Duration = Duration::from_secs(60);
const PODS: &str = "/api/v1/namespaces/default/pods";
/// What the other pod is: a program that is told apart from all others, and holds a file that is nobody else's.
const SECRET: &str = "the-words-of-the-other-pod";

/// A server with a pod that is attacked.
struct Prison {
    server: Server,
    folder: TempDir,
    as_root: bool,
}

/// Makes an attempt on a server of each sort.
#[track_caller]
fn each(attempt: impl Fn(&Prison)) {
    attempt(&Prison::of(None));
    if let Some(user) = ordinary_user() {
        attempt(&Prison::of(Some(user)));
    }
}

impl Prison {
    #[track_caller]
    fn of(user: Option<u32>) -> Prison {
        // Not in a place that every pod has its own of.
        let folder = tempfile::Builder::new().prefix("kemudi-test-").tempdir_in(target()).expect("a folder");
        let server = Server::start_as(folder.path(), &["--store", "memory://"], user);
        let as_root = user.is_none() && rustix::process::geteuid().is_root();
        let prison = Prison { server, folder, as_root };
        let script = format!("echo {SECRET} > /work/file; echo up; exec sleep 100000");
        prison.create(
            "other",
            json!({"containers": [shell("main", &script, &[])], "volumes": [{"name": "work", "emptyDir": {}}]}),
        );
        prison.when("other", "Running");
        prison
    }

    fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["terminationGracePeriodSeconds"] = 0.into();
        self.server.json("admin", &format!("POST {PODS} {}", json!({"metadata": {"name": name}, "spec": spec})));
    }

    #[track_caller]
    fn get(&self, name: &str) -> Value {
        self.server.json("admin", &format!("GET {PODS}/{name}"))
    }

    #[track_caller]
    fn when(&self, name: &str, phase: &str) -> Value {
        self.server.until(&format!("GET {PODS}/{name}"), PATIENCE, |_, pod| pod["status"]["phase"] == phase)
    }

    /// Waits until a pod has come to its end, well or not.
    #[track_caller]
    fn ended(&self, name: &str) {
        self.server.until(&format!("GET {PODS}/{name}"), PATIENCE, |_, pod| {
            matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        });
    }

    fn log(&self, name: &str, container: &str) -> String {
        let answer = self.server.ask("admin", &format!("GET {PODS}/{name}/log?container={container}"));
        String::from_utf8_lossy(&answer.body).into_owned()
    }

    /// What a script prints that is the only container of a pod, which may have more in its spec.
    #[track_caller]
    fn attempt(&self, name: &str, script: &str, env: &[(&str, String)], more: Value) -> String {
        let mut container = shell("main", script, env);
        let mut spec = json!({"restartPolicy": "Never", "volumes": [{"name": "work", "emptyDir": {}}]});
        for (field, value) in more.as_object().into_iter().flatten() {
            let into = if field == "securityContext" || field == "resources" { &mut container } else { &mut spec };
            into[field] = value.clone();
        }
        spec["containers"] = json!([container]);
        self.create(name, spec);
        self.ended(name);
        self.log(name, "main")
    }

    /// The other pod and the server are as they were.
    #[track_caller]
    fn is_unharmed(&self) {
        let other = self.get("other");
        assert_eq!(other["status"]["phase"], "Running", "{other:#}");
        assert_eq!(other["status"]["containerStatuses"][0]["restartCount"], 0);
        self.server.check("admin", "GET /readyz", "200 ok");
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("data/node")
    }
}

fn shell(name: &str, script: &str, env: &[(&str, String)]) -> Value {
    let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({"name": name, "image": "host", "command": ["sh", "-c", script], "env": env,
        "volumeMounts": [{"name": "work", "mountPath": "/work"}]})
}

/// Each line says that an attempt failed: `NAME: CODE`, and no code is 0.
#[track_caller]
fn all_failed(log: &str, count: usize) {
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("try ")).collect();
    assert_eq!(lines.len(), count, "{log}");
    for line in lines {
        assert!(!line.ends_with(": 0"), "{line}\n{log}");
    }
}

/// Tries a line of shell: `try NAME LINE`.
const TRY: &str = r#"try() { name=$1; shift; said=$( (eval "$*") 2>&1 ); code=$?; echo "try $name: $code"; echo "$said" | head -c 300; }
"#;

#[test]
fn the_machines_files_are_not_changed() {
    const SCRIPT: &str = r#"
try change 'echo evil >> /etc/hosts.allow'
try make 'touch /usr/bin/evil'
try make-in-root 'touch /evil && touch $FOLDER/evil'
try own 'chown 0 $(dirname $(readlink -f /bin/sh))'
try mode 'chmod 4755 /usr/bin/env'
try link 'ln /usr/bin/env /usr/bin/evil'
try writable 'mount -o remount,rw /usr && touch /usr/bin/evil'
try bind 'mount --bind /usr /mnt && mount -o remount,rw /mnt && touch /mnt/bin/evil'
try root 'mkdir -p /tmp/x && cd /tmp/x && chroot . ../../../../../../bin/sh -c "touch /usr/bin/evil"'
try device 'mknod /tmp/disk b $(stat -c "%Hd %Ld" /usr) && head -c 1 /tmp/disk'
try memory 'head -c 1 /dev/mem || head -c 1 /dev/kmem || head -c 1 /dev/port'
try kernel-memory 'head -c 1 /proc/kcore | grep .'
try passwords 'grep . /etc/shadow'
try host-keys 'cat /etc/ssh/ssh_host_*_key | grep PRIVATE'
"#;
    each(|prison| {
        let env = [("FOLDER", prison.folder.path().display().to_string())];
        let log = prison.attempt("attacker", &format!("{TRY}{SCRIPT}"), &env, json!({}));
        all_failed(&log, 14);
        for path in ["/usr/bin/evil", "/evil"] {
            assert!(!Path::new(path).exists(), "{path}\n{log}");
        }
        prison.is_unharmed();
    });
}

/// The files in `/proc` that are the kernel's, those that lead to other processes' files, and the program that a container was
/// before it became its own, which is the agent's.
#[test]
fn proc_leads_nowhere() {
    const SCRIPT: &str = r#"
try core-pattern 'echo "|/tmp/evil" > /proc/sys/kernel/core_pattern'
try modprobe 'echo /tmp/evil > /proc/sys/kernel/modprobe'
try panic 'echo 1 > /proc/sys/kernel/panic'
try drop-caches 'echo 3 > /proc/sys/vm/drop_caches'
try sysrq 'echo h > /proc/sysrq-trigger'
try binfmt 'mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && echo ":e:M::x::/tmp/evil:" > /proc/sys/fs/binfmt_misc/register'
try hotplug 'echo /tmp/evil > /sys/kernel/uevent_helper'
try debug 'mount -t debugfs none /mnt && ls /mnt | grep .'
try timers 'grep . /proc/timer_list'
try keys 'grep . /proc/keys'
try sched 'grep . /proc/sched_debug'
try first-memory 'head -c 1 /proc/1/mem'
try first-program 'cat /proc/1/exe | head -c 4 | grep ELF'
try first-files 'for file in /proc/1/fd/*; do readlink $file; done | grep .'
try first-environment 'cat /proc/1/environ | grep -a .'
try first-map 'cat /proc/1/maps | grep .'
try first-fresh 'unshare --user --map-root-user cat /proc/1/environ | grep -a .'
"#;
    each(|prison| {
        let log = prison.attempt("attacker", &format!("{TRY}{SCRIPT}"), &[], json!({"shareProcessNamespace": true}));
        all_failed(&log, 17);
        prison.is_unharmed();
    });
}

/// A container that is started as `/proc/self/exe` is the agent's own program, as is every container for a moment. That must not be
/// written, neither while it runs nor when it has ended.
#[test]
fn the_agents_program_is_not_overwritten() {
    const SCRIPT: &str = r#"
import os, signal, time
end, held = time.time() + 30, {}
while time.time() < end and not held:
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if "kemudi" in os.path.basename(os.readlink(f"/proc/{process}/exe")):
                held[int(process)] = os.open(f"/proc/{process}/exe", os.O_PATH)
        except OSError:
            pass
print("held", len(held), flush=True)
for process, file in held.items():
    for state in ["while it runs", "after its end"]:
        for attempt in range(500):
            try:
                os.pwrite(os.open(f"/proc/self/fd/{file}", os.O_WRONLY), b"", 0)
                print("WRITTEN", state, flush=True)
                break
            except OSError as error:
                refused = error
                time.sleep(0.001)
        print("tried", state, refused, flush=True)
        os.kill(process, signal.SIGKILL)
        while os.path.exists(f"/proc/{process}/cmdline") and open(f"/proc/{process}/cmdline").read():
            time.sleep(0.01)
"#;
    each(|prison| {
        let volumes = json!([{"name": "work", "emptyDir": {}}]);
        let program = |name: &str, command: Value| {
            let mut it = shell(name, "", &[]);
            it["command"] = command;
            it
        };
        let up = [
            "/proc/self/exe",
            "up",
            "--store",
            "memory://",
            "--node",
            "none",
            "--data",
            "/work/x",
            "--kubeconfig",
            "/work/k",
        ];
        let containers = json!([program("main", json!(["python3", "-c", SCRIPT])), program("own", json!(up))]);
        prison.create("attacker", json!({"restartPolicy": "Never", "shareProcessNamespace": true, "containers": containers, "volumes": volumes}));
        prison.ended("attacker");
        let log = prison.log("attacker", "main");
        assert!(log.contains("held 1") && log.contains("tried after its end"), "{log}");
        assert!(!log.contains("WRITTEN"), "{log}");
        prison.is_unharmed();
    });
}

#[test]
fn links_in_volumes_lead_nowhere() {
    each(|prison| {
        let state = prison.state();
        let victim = prison.get("other")["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let places = [
            ("/".to_owned(), "etc"),
            (state.display().to_string(), "pods"),
            (state.join("pods").join(&victim).display().to_string(), "volumes"),
            ("../../..".to_owned(), "pods"),
            (format!("../../../{victim}"), "volumes"),
            ("/proc/1/root".to_owned(), "etc"),
            ("/proc/self/fd".to_owned(), "3"),
        ];
        let mut lay = String::new();
        for (number, (place, _)) in places.iter().enumerate() {
            lay += &format!("ln -s {place} /work/link-{number}; ");
        }
        let first = shell("lay", &lay, &[]);
        let reads = |number: usize, inner: &str| {
            let script =
                format!("cd /stolen && find . -maxdepth 6 -type f | head -n 20; grep -rs {SECRET} . | head -n 3; true");
            let mut it = shell(&format!("reads-{number}"), &script, &[]);
            let mounts = it["volumeMounts"].as_array_mut().expect("a list");
            mounts.push(json!({"name": "work", "mountPath": "/stolen", "subPath": format!("link-{number}/{inner}")}));
            it
        };
        let readers: Vec<Value> = places.iter().enumerate().map(|(number, (_, inner))| reads(number, inner)).collect();
        prison.create(
            "attacker",
            json!({"restartPolicy": "Never", "initContainers": [first], "containers": readers,
            "volumes": [{"name": "work", "emptyDir": {}}]}),
        );
        let pod = tried(prison, "attacker", places.len());
        for (number, place) in places.iter().enumerate() {
            let log = prison.log("attacker", &format!("reads-{number}"));
            let found = log.lines().any(|line| line.starts_with("./"));
            assert!(!found && !log.contains(SECRET), "{place:?}: {log}\n{pod:#}");
        }
        prison.is_unharmed();
    });
}

/// What a volume's path leads to is changed while containers are started that have a part of it.
#[test]
fn links_that_come_and_go_in_volumes_lead_nowhere() {
    const READERS: usize = 24;
    each(|prison| {
        let pods = prison.state().join("pods");
        let script = format!(
            "mkdir -p /work/real/inner/pods; ln -s {0} /work/evil; ln -s {0} /work/real/inner/evil; touch /work/ready
            while :; do mv -T /work/real /work/x; mv -T /work/evil /work/real; mv -T /work/real /work/evil; mv -T /work/x /work/real; done",
            pods.parent().expect("a folder").display(),
        );
        let mut swapper = shell("swaps", &script, &[]);
        swapper["restartPolicy"] = "Always".into();
        swapper["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/work/ready"]}, "periodSeconds": 1});
        let reads = |number: usize| {
            let script =
                format!("cd /stolen && find . -maxdepth 6 -type f | head -n 20; grep -rs {SECRET} . | head -n 3; true");
            let mut it = shell(&format!("reads-{number}"), &script, &[]);
            let mounts = it["volumeMounts"].as_array_mut().expect("a list");
            let part = ["real/pods", "real/inner/pods", "real/../real/pods"][number % 2];
            mounts.push(json!({"name": "work", "mountPath": "/stolen", "subPath": part}));
            it
        };
        let readers: Vec<Value> = (0..READERS).map(reads).collect();
        prison.create(
            "attacker",
            json!({"restartPolicy": "Never", "initContainers": [swapper], "containers": readers,
            "volumes": [{"name": "work", "emptyDir": {}}]}),
        );
        let pod = tried(prison, "attacker", READERS);
        for number in 0..READERS {
            let log = prison.log("attacker", &format!("reads-{number}"));
            let found = log.lines().any(|line| line.starts_with("./"));
            assert!(!found && !log.contains(SECRET), "{number}: {log}\n{pod:#}");
        }
        prison.server.json("admin", &format!(r#"DELETE {PODS}/attacker {{"gracePeriodSeconds":0}}"#));
        prison.is_unharmed();
    });
}

/// Waits until each container of a pod has begun, or could not.
#[track_caller]
fn tried(prison: &Prison, name: &str, count: usize) -> Value {
    prison.server.until(&format!("GET {PODS}/{name}"), PATIENCE, |_, pod| {
        let all = pod["status"]["containerStatuses"].as_array();
        let tried = |it: &&Value| {
            let waiting = it["state"]["waiting"]["reason"].as_str();
            it["state"]["terminated"].is_object()
                || waiting.is_some_and(|reason| !matches!(reason, "ContainerCreating" | "PodInitializing"))
        };
        all.is_some_and(|all| all.iter().filter(tried).count() == count)
    })
}

#[test]
fn signals_stay_in_the_pod() {
    const SCRIPT: &str = r#"
import os, signal
for pid in [1, -1, 0]:
    for number in [signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL]:
        # To all but oneself: who is stopped or killed says nothing more.
        if pid == 0 and number != signal.SIGCONT:
            continue
        try:
            os.kill(pid, number)
            print("sent", pid, number, flush=True)
        except OSError as error:
            print("refused", pid, number, error, flush=True)
# Numbers that are anything elsewhere.
reached = 0
for pid in range(2, 33000):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
            reached += 1
        except OSError:
            pass
print("reached", reached, flush=True)
"#;
    each(|prison| {
        for share in [false, true] {
            let mut container = shell("main", "", &[]);
            container["command"] = json!(["python3", "-c", SCRIPT]);
            let name = format!("attacker-{share}");
            prison.create(
                &name,
                json!({"restartPolicy": "Never", "shareProcessNamespace": share, "containers": [container],
                "volumes": [{"name": "work", "emptyDir": {}}]}),
            );
            prison.ended(&name);
            let log = prison.log(&name, "main");
            assert!(log.contains("reached 0") || log.contains("sent -1"), "{log}");
            prison.is_unharmed();
        }
    });
}

#[test]
fn nothing_outside_of_the_pod_is_traced() {
    const SCRIPT: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
ATTACH, SEIZE = 16, 0x4206
def vm(pid):
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(8)
    local = Iovec(ctypes.cast(buffer, ctypes.c_void_p), 8)
    remote = Iovec(0x400000, 8)
    return libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
targets = [1] + [int(number) for number in os.environ["OTHERS"].split()]
for pid in targets:
    if pid == os.getpid():
        continue
    for name, request in [("attach", ATTACH), ("seize", SEIZE)]:
        done = libc.ptrace(request, pid, None, None)
        print("TRACED" if done == 0 else "refused", name, pid, os.strerror(ctypes.get_errno()), flush=True)
    print("READ" if vm(pid) > 0 else "refused", "memory of", pid, os.strerror(ctypes.get_errno()), flush=True)
    try:
        fd = os.pidfd_open(pid)
        got = libc.syscall(438, fd, 0, 0)
        print("TAKEN" if got >= 0 else "refused", "descriptor of", pid, os.strerror(ctypes.get_errno()), flush=True)
    except OSError as error:
        print("refused", "pidfd of", pid, error, flush=True)
print("over")
"#;
    each(|prison| {
        // The server itself, and whatever runs under the numbers that the pod has been told.
        let others = format!("{} {}", prison.server.pid(), std::process::id());
        for (name, more) in [("plain", json!([])), ("capable", json!(["SYS_PTRACE"]))] {
            let mut container = shell("main", "", &[("OTHERS", others.clone())]);
            container["command"] = json!(["python3", "-c", SCRIPT]);
            container["securityContext"] = json!({"capabilities": {"add": more}});
            prison.create(
                name,
                json!({"restartPolicy": "Never", "shareProcessNamespace": true, "containers": [container],
                "volumes": [{"name": "work", "emptyDir": {}}]}),
            );
            prison.ended(name);
            let log = prison.log(name, "main");
            assert!(log.contains("over"), "{log}");
            for word in ["TRACED", "READ", "TAKEN"] {
                assert!(!log.contains(word), "{name}: {log}");
            }
            prison.is_unharmed();
        }
    });
}

/// The sockets at which inits wait for the next agent, and what the agent listens at, from the host's network too.
#[test]
fn the_agents_sockets_are_out_of_reach() {
    const SCRIPT: &str = r#"
import glob, os, socket
folder = os.environ["STATE"]
paths = {line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if len(line.split()) > 7}
paths |= {os.path.join(folder, "pods", os.environ["UID_OF_OTHER"], "control")}
for path in sorted(paths):
    if "kemudi" not in path and folder not in path and "control" not in path:
        continue
    for kind in [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM]:
        try:
            to = socket.socket(socket.AF_UNIX, kind)
            to.connect("\0" + path[1:] if path.startswith("@") else path)
            print("CONNECTED", path, flush=True)
        except OSError as error:
            print("refused", path, error, flush=True)
for entry in glob.glob("/proc/[0-9]*/fd/*"):
    if entry.startswith(f"/proc/{os.getpid()}/"):
        continue
    try:
        link = os.readlink(entry)
    except OSError:
        continue
    number = int(entry.split("/")[-1])
    if link.startswith("socket:") and number > 2:
        print("FOUND", entry, link, flush=True)
print("over")
"#;
    each(|prison| {
        let uid = prison.get("other")["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let env = [("STATE", prison.state().display().to_string()), ("UID_OF_OTHER", uid)];
        for host in [false, true] {
            let name = format!("attacker-{host}");
            let mut container = shell("main", "", &env);
            container["command"] = json!(["python3", "-c", SCRIPT]);
            prison.create(
                &name,
                json!({"restartPolicy": "Never", "hostNetwork": host, "containers": [container],
                "volumes": [{"name": "work", "emptyDir": {}}]}),
            );
            prison.ended(&name);
            let log = prison.log(&name, "main");
            assert!(log.contains("over") && log.contains("refused"), "{log}");
            assert!(!log.contains("CONNECTED") && !log.contains("FOUND"), "{log}");
        }
        prison.is_unharmed();
    });
}

/// A pod that gives itself another's address gets neither what that is sent nor what that alone may reach.
#[test]
fn another_pods_address_is_of_no_use() {
    const ECHO: &str = r#"
import socket
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", 8080))
print("up", flush=True)
while True:
    data, peer = datagrams.recvfrom(100)
    print("heard", data.decode(), "from", peer[0], flush=True)
    datagrams.sendto(b"echo " + data, peer)
"#;
    const SPOOF: &str = r#"
import os, socket, struct, subprocess
mine, friend, guarded = os.environ["MINE"], os.environ["FRIEND"], os.environ["GUARDED"]
def send(source, words):
    payload = words.encode()
    udp = struct.pack("!HHHH", 4000, 8080, 8 + len(payload), 0) + payload
    total = 20 + len(udp)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(guarded))
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.sendto(head + udp, (guarded, 0))
        print("sent", words, flush=True)
    except OSError as error:
        print("refused", words, error, flush=True)
for _ in range(3):
    send(friend, "spoofed")
subprocess.run(f"ip address add {friend}/32 dev eth0", shell=True)
try:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind((friend, 4001))
    taken.sendto(b"taken", (guarded, 8080))
    taken.settimeout(1)
    print("GOT", taken.recvfrom(100), flush=True)
except OSError as error:
    print("refused", error, flush=True)
# The API server's address is each pod's own, and leads to no other pod's.
for host in [friend, guarded]:
    for port in [443, 53]:
        try:
            socket.create_connection((host, port), 2)
            print("CONNECTED", host, port, flush=True)
        except OSError as error:
            print("refused", host, port, error, flush=True)
print("over")
"#;
    each(|prison| {
        let python = |name: &str, program: &str, env: &[(&str, String)]| {
            let mut it = shell(name, "", env);
            it["command"] = json!(["python3", "-c", program]);
            it
        };
        let volumes = json!([{"name": "work", "emptyDir": {}}]);
        let policy = json!({"metadata": {"name": "guard"}, "spec": {"podSelector": {"matchLabels": {"app": "guarded"}},
            "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]}});
        prison
            .server
            .json("admin", &format!("POST /apis/networking.k8s.io/v1/namespaces/default/networkpolicies {policy}"));
        let labelled = |name: &str, containers: Value| {
            let pod = json!({"metadata": {"name": name, "labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": containers, "volumes": volumes}});
            prison.server.json("admin", &format!("POST {PODS} {pod}"));
            prison.when(name, "Running")["status"]["podIP"].as_str().expect("an address").to_owned()
        };
        let guarded = labelled("guarded", json!([python("main", ECHO, &[])]));
        let friend = labelled("friend", json!([shell("main", "exec sleep 100000", &[])]));
        prison
            .server
            .until(&format!("GET {PODS}/guarded"), PATIENCE, |_, _| prison.log("guarded", "main").contains("up"));
        // Whom the policy lets in is heard.
        let hello = "timeout 5 bash -c 'exec 3<>/dev/udp/$GUARDED/8080; echo hello >&3; head -n 1 <&3'";
        let spec = json!({"restartPolicy": "Never", "volumes": volumes, "containers": [shell("main", hello, &[("GUARDED", guarded.clone())])]});
        let pod = json!({"metadata": {"name": "greets", "labels": {"app": "friend"}}, "spec": spec});
        prison.server.json("admin", &format!("POST {PODS} {pod}"));
        prison.when("greets", "Succeeded");
        assert!(prison.log("guarded", "main").contains("heard hello"), "{}", prison.log("guarded", "main"));

        let env = [("GUARDED", guarded), ("FRIEND", friend), ("MINE", String::new())];
        let mut container = python("main", SPOOF, &env);
        container["securityContext"] = json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}});
        prison.create("attacker", json!({"restartPolicy": "Never", "containers": [container], "volumes": volumes}));
        prison.ended("attacker");
        let (log, heard) = (prison.log("attacker", "main"), prison.log("guarded", "main"));
        assert!(log.contains("over"), "{log}");
        assert!(!log.contains("GOT") && !log.contains("CONNECTED"), "{log}");
        assert!(!heard.contains("spoofed") && !heard.contains("taken"), "{heard}\n{log}");
        prison.is_unharmed();
    });
}

/// Processes without end come to an end, and the neighbours do not notice.
#[test]
fn fork_bombs_stay_in_the_pod() {
    /// More than a pod may have, and not so many that they would be missed on a machine that let it have them.
    const BOMB: &str = r#"
import os, time
for made in range(6000):
    try:
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)
    except OSError as error:
        print("refused:", made, error, flush=True)
        break
else:
    print("ALL MADE", flush=True)
time.sleep(1000)
"#;
    each(|prison| {
        let mut bomb = shell("main", "", &[]);
        bomb["command"] = json!(["python3", "-c", BOMB]);
        prison.create("bomb", json!({"containers": [bomb], "volumes": [{"name": "work", "emptyDir": {}}]}));
        prison.when("bomb", "Running");
        prison.server.until("GET /version", PATIENCE, |_, _| {
            let log = prison.log("bomb", "main");
            log.contains("refused") || log.contains("ALL MADE")
        });
        // It has all that it can get, and others get what they need.
        assert_eq!(prison.attempt("beside", "echo here", &[], json!({})), "here\n");
        let log = prison.log("bomb", "main");
        assert!(log.starts_with("refused: 40"), "{log}");
        prison.is_unharmed();
        prison.server.json("admin", &format!(r#"DELETE {PODS}/bomb {{"gracePeriodSeconds":0}}"#));
        prison.server.until(&format!("GET {PODS}/bomb"), PATIENCE, |status, _| status == 404);
        prison.is_unharmed();
    });
}

/// Memory beyond its limit ends a container, whatever it is taken as, and nothing else.
#[test]
fn memory_without_end_ends_its_container() {
    const LIMIT: &str = "64Mi";
    let attempts = [
        ("heap", "exec python3 -c 'x = bytearray(400 << 20)'"),
        ("files", "head -c 400M /dev/zero > /dev/shm/fill || exit 9; sleep 1"),
        (
            "many",
            "for i in 1 2 3 4 5 6 7 8; do python3 -c 'x = bytearray(60 << 20); import time; time.sleep(3)' & done; wait; exit 9",
        ),
    ];
    each(|prison| {
        if !prison.as_root {
            // Cgroups are root's here, and this node says that it holds nobody to limits.
            return;
        }
        for (name, script) in attempts {
            prison.attempt(name, script, &[], json!({"resources": {"limits": {"memory": LIMIT}}}));
            let pod = prison.get(name);
            assert_eq!(pod["status"]["phase"], "Failed", "{name}: {pod:#}");
            prison.is_unharmed();
        }
    });
}
