//! Real pods, as root (when the tests are root) and as an ordinary user: what a program in them sees, can do, and leaves.

use node::sandbox::{
    Capabilities, ContainerSpec, Error, Exit, Isolation, Listen, MemoryVolume, Mount, Network, Pod, PodSpec, Process,
    ProcessNamespace, ProcessSpec, Protocol, Root, Sandbox, Source, Stdio, User,
};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The ordinary user that the spawner becomes when the tests are root.
const ORDINARY: u32 = 12345;
/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sandbox of one kind of user, with a directory of its own.
struct Bed {
    name: &'static str,
    sandbox: Sandbox,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new(name: &'static str, user: Option<u32>) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let staging = dir.path().join("staging");
        std::fs::create_dir(&staging).unwrap();
        for path in [dir.path(), &staging] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(path, user, user).unwrap();
        }
        let sandbox = match user {
            Some(user) => Sandbox::start_as(&crate::program_for_all(dir.path()), Some((user, user))).unwrap(),
            None => Sandbox::start().unwrap(),
        };
        Bed { name, sandbox, dir }
    }

    /// As root and as an ordinary user; only the latter where the tests are not root.
    fn all() -> Vec<Bed> {
        match rustix::process::geteuid().is_root() {
            true => vec![Bed::new("root", None), Bed::new("ordinary user", Some(ORDINARY))],
            false => vec![Bed::new("ordinary user", None)],
        }
    }

    fn is_root(&self) -> bool {
        self.name == "root"
    }

    fn pod_spec(&self) -> PodSpec {
        let addresses = ["10.96.0.1", "10.96.0.10"].map(|address| address.parse().unwrap()).into();
        let listen = |protocol, address: &str| Listen { protocol, address: address.parse().unwrap() };
        PodSpec {
            hostname: "web-0".into(),
            staging: self.dir.path().join("staging"),
            uid: 0,
            gid: 0,
            network: Network::Own {
                addresses,
                address: Some("10.244.0.7".parse().unwrap()),
                listen: vec![listen(Protocol::Tcp, "10.96.0.1:443"), listen(Protocol::Udp, "10.96.0.10:53")],
            },
            memory_volumes: vec![MemoryVolume { name: "cache".into(), bytes_max: Some(1 << 20) }],
            sysctls: vec![],
            processes_max: None,
            keep: None,
        }
    }

    async fn pod(&self) -> Pod {
        self.sandbox.create_pod(self.pod_spec()).await.unwrap()
    }

    /// A file or directory in the bed, the spawner's user's own.
    fn put(&self, path: &str, content: Option<&str>) -> PathBuf {
        let full = self.dir.path().join(path);
        match content {
            Some(content) => std::fs::write(&full, content).unwrap(),
            None => std::fs::create_dir(&full).unwrap(),
        }
        let owner = if self.is_root() { None } else { Some(ORDINARY) };
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&full, owner, owner).unwrap();
        }
        full
    }
}

fn shell(script: &str) -> ContainerSpec {
    ContainerSpec {
        root: Root::Host { read_only: false },
        process: process(&["/bin/sh", "-c", script]),
        mounts: Vec::new(),
        hidden: Vec::new(),
        process_namespace: ProcessNamespace::Own,
        proc_unmasked: false,
        groups: vec![],
    }
}

fn process(argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        argv: argv.iter().map(|&word| word.into()).collect(),
        env: vec![("GREETING".into(), "hello".into()), ("PATH".into(), node::sandbox::DEFAULT_PATH.into())],
        cwd: "/".into(),
        user: None,
        terminal: node::sandbox::Terminal::None,
        no_new_privileges: false,
        isolation: Isolation::default(),
        oom_score: None,
    }
}

fn mount(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount { source: Source::Host(source.into()), sub_path: None, target: target.into(), read_only }
}

/// Stdin from nowhere, and the reading end of stdout and stderr together.
fn stdio() -> (Stdio, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    // The tests may be another user than the pod, which an agent never is.
    rustix::fs::fchmod(&writer, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    let stderr = writer.try_clone().unwrap();
    (Stdio { stdin: File::open("/dev/null").unwrap().into(), stdout: writer.into(), stderr: stderr.into() }, {
        File::from(OwnedFd::from(reader))
    })
}

async fn text(mut reader: File) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    tokio::time::timeout(PATIENCE, read).await.expect("output never ended").unwrap().unwrap()
}

async fn ended(process: &Process) -> Exit {
    tokio::time::timeout(PATIENCE, process.wait()).await.expect("process never ended")
}

/// What a container printed and how it ended, as text; or why it could not be started.
async fn run(pod: &Pod, spec: ContainerSpec) -> String {
    let (stdio, output) = stdio();
    match pod.start(spec, stdio).await {
        Ok(process) => {
            let exit = ended(&process).await;
            let output = text(output).await;
            if exit == Exit::Code(0) { output } else { format!("{output}{exit:?}\n") }
        }
        Err(error) => format!("not started: {error}\n"),
    }
}

/// Runs a script in a fresh pod of each kind of user; the output is the same for all.
async fn check(spec: impl Fn(&Bed) -> ContainerSpec, expected: &str) {
    for bed in Bed::all() {
        let pod = bed.pod().await;
        assert_eq!(run(&pod, spec(&bed)).await, expected, "as {}", bed.name);
    }
}

async fn check_shell(script: &str, expected: &str) {
    check(|_| shell(script), expected).await;
}

#[tokio::test]
async fn sees_only_its_own() {
    check_shell(
        "echo $$; ls -d /proc/[0-9]*; hostname; pwd; echo $GREETING; id -u",
        "1\n/proc/1\nweb-0\n/\nhello\n0\n",
    )
    .await;
    check_shell("ls /sys/class/net; cat /proc/net/dev | wc -l; ls /dev/shm | wc -l", "lo\n3\n0\n").await;
}

#[tokio::test]
async fn host_is_read_only_and_scratch_is_private() {
    let script = "for dir in / /etc /usr /var /home; do touch $dir/kemudi 2>/dev/null && echo wrote $dir; done
        for dir in /tmp /run /var/tmp /dev/shm /var/run /run/lock; do ls -A $dir; touch $dir/kemudi || echo cannot write $dir; done
        mount -o remount,rw /usr 2>/dev/null && echo remounted; umount /proc/sys 2>/dev/null && echo unmounted
        echo x 2>/dev/null > /proc/sys/kernel/core_pattern && echo set; echo done";
    check_shell(script, "lock\nkemudi\nlock\ndone\n").await;
    assert!(!Path::new("/tmp/kemudi").exists());
}

#[tokio::test]
async fn devices_work() {
    let script =
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; test -c /dev/ptmx && echo pty
        echo to stderr > /dev/stderr; readlink /dev/fd";
    check_shell(script, "3\n5\npty\nto stderr\n/proc/self/fd\n").await;
}

#[tokio::test]
async fn exit_codes_and_signals() {
    check_shell("exit 7", "Code(7)\n").await;
    check(|_| ContainerSpec { process_namespace: ProcessNamespace::Pod, ..shell("kill -9 $$") }, "Signal(9)\n").await;
    check(
        |_| ContainerSpec { process: process(&["nope"]), ..shell("") },
        "not started: exec: \"nope\": executable file not found in $PATH\n",
    )
    .await;
    check(
        |_| ContainerSpec { process: process(&["/nope"]), ..shell("") },
        "not started: exec: \"/nope\": no such file or directory\n",
    )
    .await;
    for bed in Bed::all() {
        let pod = bed.pod().await;
        let (stdio, mut output) = stdio();
        let script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
        let container = pod.start(shell(script), stdio).await.unwrap();
        let mut ready = [0; 6];
        let output = tokio::task::spawn_blocking(move || output.read_exact(&mut ready).map(|()| output)).await;
        container.signal(libc::SIGTERM).await.unwrap();
        assert_eq!(ended(&container).await, Exit::Code(3));
        assert_eq!(text(output.unwrap().unwrap()).await, "got TERM\n");
    }
}

#[tokio::test]
async fn mounts() {
    for bed in Bed::all() {
        let source = bed.put("source", None);
        bed.put("source/file", Some("from the host\n"));
        bed.put("source/escape", None);
        std::os::unix::fs::symlink("/etc", source.join("link")).unwrap();
        let resolv = bed.put("resolv.conf", Some("nameserver 10.96.0.10\n"));
        let mut spec = shell(
            "cat /data/file /etc/config/file /usr/share/doc/deep/er/file /etc/resolv.conf
            cat /var/run/secrets/kubernetes.io/serviceaccount/file; ls /etc/passwd /usr/bin/env
            touch /data/new && echo wrote; touch /etc/config/new 2>&1 | grep -o 'Read-only.*'
            touch /etc/x /usr/share/x 2>/dev/null || echo still read-only; ls /usr/share/doc | wc -l | grep -qv '^1$' && echo all there
            touch /cache/x /part/y; ls /cache; ls /data",
        );
        spec.mounts = vec![
            mount(&source, "/data", false),
            mount(&resolv, "/etc/resolv.conf", true),
            mount(&source, "/etc/config", true),
            mount(&source, "/usr/share/doc/deep/er", true),
            mount(&source, "/var/run/secrets/kubernetes.io/serviceaccount", true),
            Mount { source: Source::Memory("cache".into()), sub_path: None, target: "/cache".into(), read_only: false },
            Mount { sub_path: Some("a/b".into()), ..mount(&source, "/part", false) },
        ];
        let from = "from the host\n";
        let expected = format!(
            "{from}{from}{from}nameserver 10.96.0.10\n{from}/etc/passwd\n/usr/bin/env\nwrote\nRead-only file system\n\
             still read-only\nall there\nx\na\nescape\nfile\nlink\nnew\n"
        );
        let pod = bed.pod().await;
        assert_eq!(run(&pod, spec).await, expected, "as {}", bed.name);
        assert!(source.join("new").exists() && source.join("a/b/y").exists());
        let mut spec = shell("ls /x");
        spec.mounts = vec![Mount { sub_path: Some("link".into()), ..mount(&source, "/x", true) }];
        let output = run(&pod, spec).await;
        assert!(output.starts_with("not started: mount"), "a link must not lead out of a volume: {output}");
    }
}

#[tokio::test]
async fn hidden_paths_are_empty() {
    for bed in Bed::all() {
        let secret = bed.put("secret", None);
        bed.put("secret/key", Some("key"));
        let work = bed.put("secret/work", None);
        bed.put("secret/work/file", Some("mine\n"));
        let file = bed.put("password", Some("1234"));
        let script = format!(
            "test -e {1} && echo bed came along; ls -A {0}; cat {1}; touch {0}/work/made; cat {0}/work/file",
            secret.display(),
            file.display(),
        );
        let spec = || ContainerSpec {
            hidden: vec![secret.clone(), file.clone()],
            mounts: vec![mount(&work, work.to_str().unwrap(), false)],
            ..shell(&script)
        };
        assert!(run(&bed.pod().await, spec()).await.ends_with("mine\n"));
        assert!(work.join("made").exists());
        // A mount of what they are in does not bring them back, wherever it is, nor does a link on the way to it.
        let above = bed.put("above", None);
        std::os::unix::fs::symlink(bed.dir.path(), above.join("link")).unwrap();
        let (here, link) = (bed.dir.path(), above.join("link"));
        let script = "ls -A $at/secret $at/staging; cat $at/password; ls -d $at/above";
        for (source, at) in [(here, here), (here, Path::new("/data")), (&*link, Path::new("/mnt"))] {
            let mut spec = ContainerSpec {
                hidden: vec![secret.clone(), file.clone()],
                mounts: vec![mount(source, at.to_str().unwrap(), false)],
                ..shell(script)
            };
            spec.process.env.push(("at".into(), at.display().to_string()));
            let want = format!("{0}/secret:\n\n{0}/staging:\n{0}/above\n", at.display());
            assert_eq!(run(&bed.pod().await, spec).await, want, "as {}", bed.name);
        }
    }
    // What is not below /tmp: the host's own.
    check(
        |_| ContainerSpec {
            hidden: vec!["/etc/passwd".into(), "/usr/share".into()],
            ..shell("cat /etc/passwd; ls /usr/share")
        },
        "",
    )
    .await;
}

#[tokio::test]
async fn users() {
    let as_user = |uid, script: &str| {
        let mut spec = shell(script);
        spec.process.user = Some(User { uid, gid: uid, groups: vec![] });
        spec
    };
    for bed in Bed::all() {
        let pod = bed.pod().await;
        let output = run(&pod, as_user(1000, "id -u; id -g; grep CapEff /proc/self/status")).await;
        if bed.is_root() {
            assert_eq!(output, "1000\n1000\nCapEff:\t0000000000000000\n");
        } else {
            assert!(output.starts_with("not started: run as user 1000, group 1000 (without root,"), "{output}");
        }
        let pod = bed.sandbox.create_pod(PodSpec { uid: 1000, gid: 1000, ..bed.pod_spec() }).await.unwrap();
        assert_eq!(run(&pod, as_user(1000, "id -u; touch /tmp/x && stat -c %u /tmp/x")).await, "1000\n1000\n");
        let output = run(&pod, shell("grep CapBnd /proc/self/status")).await;
        assert_eq!(output, "CapBnd:\t00000000a80425fb\n", "as container runtimes have it");
    }
}

fn isolated(script: &str, isolation: Isolation) -> ContainerSpec {
    let mut spec = shell(script);
    spec.process.isolation = isolation;
    spec
}

fn capabilities(add: &[&str], drop: &[&str]) -> Isolation {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    Isolation { capabilities: Capabilities::changed(&words(add), &words(drop)).unwrap(), filtered: false }
}

#[tokio::test]
async fn capabilities_are_added_and_dropped() {
    let sets = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -c 4-7,15-";
    let all = |set: &str| format!("Inh:0000000000\nPrm:{set}\nEff:{set}\nBnd:{set}\nAmb:0000000000\n");
    check(|_| isolated(sets, capabilities(&[], &["ALL"])), &all("0000000000")).await;
    check(|_| isolated(sets, capabilities(&["NET_ADMIN"], &["KILL"])), &all("00a80435db")).await;
    // They count in the pod's own namespaces, and only if they were given.
    let link = "ip link set lo mtu 1400 2>/dev/null && cat /sys/class/net/lo/mtu || echo refused";
    if Path::new("/usr/sbin/ip").exists() || Path::new("/sbin/ip").exists() {
        check(|_| isolated(link, capabilities(&[], &[])), "refused\n").await;
        check(|_| isolated(link, capabilities(&["NET_ADMIN"], &[])), "1400\n").await;
    }
    let own = "chown 1 /tmp 2>/dev/null && echo changed || echo refused";
    check(|_| isolated(own, capabilities(&[], &["ALL"])), "refused\n").await;
    // What is executed beside has the same.
    for bed in Bed::all() {
        let pod = bed.pod().await;
        let (main, _output) = stdio();
        let container = pod.start(isolated("exec sleep 60", capabilities(&[], &["ALL"])), main).await.unwrap();
        let mut beside = process(&["/bin/sh", "-c", sets]);
        beside.isolation = capabilities(&[], &["ALL"]);
        let (stdio, output) = stdio();
        ended(&pod.exec(&container, beside, stdio).await.unwrap()).await;
        assert_eq!(text(output).await, all("0000000000"));
    }
}

/// With the power to trace, and in sight of the init, which has all powers, a container does not get at it.
#[tokio::test]
async fn the_init_cannot_be_traced() {
    let script = "test -d /proc/1 && for what in mem maps environ cwd root ns/mnt; do
        (cat /proc/1/$what || ls /proc/1/$what/ || readlink /proc/1/$what) >/dev/null 2>&1 && echo got $what; done; echo done";
    check(
        |_| ContainerSpec {
            process_namespace: ProcessNamespace::Pod,
            ..isolated(script, capabilities(&["SYS_PTRACE"], &[]))
        },
        "done\n",
    )
    .await;
}

#[tokio::test]
async fn system_calls_are_filtered() {
    let filtered = Isolation { filtered: true, ..Isolation::default() };
    let script = "grep -E '^Seccomp:|^NoNewPrivs' /proc/self/status | tr -d '\\t'
        unshare -U true 2>&1 | grep -o 'Operation not permitted'
        (echo a | cat; sleep 0; sh -c 'exit 0' & wait) && echo works; mkdir /tmp/a && chroot / true && echo changed root";
    check(|_| isolated(script, filtered), "NoNewPrivs:0\nSeccomp:2\nOperation not permitted\na\nworks\nchanged root\n")
        .await;
    let free = "grep '^Seccomp:' /proc/self/status | tr -d '\\t'; unshare -U true && echo own";
    check(|_| isolated(free, Isolation::default()), "Seccomp:0\nown\n").await;
    // A user of its own, without the right to gain more.
    for bed in Bed::all() {
        let pod = bed.sandbox.create_pod(PodSpec { uid: 1000, gid: 1000, ..bed.pod_spec() }).await.unwrap();
        let mut spec = isolated("id -u; grep -E '^Seccomp:|^NoNewPrivs' /proc/self/status | tr -d '\\t'", filtered);
        spec.process.user = Some(User { uid: 1000, gid: 1000, groups: vec![] });
        spec.process.no_new_privileges = true;
        assert_eq!(run(&pod, spec).await, "1000\nNoNewPrivs:1\nSeccomp:2\n", "as {}", bed.name);
    }
}

#[tokio::test]
async fn a_read_only_root_has_no_scratch() {
    let script =
        "for dir in / /tmp /run /var/tmp /var/run /run/lock /data; do touch $dir/x 2>/dev/null && echo wrote $dir; done
        touch /dev/shm/x && echo wrote shm";
    check(
        |bed| {
            let source = bed.put("source", None);
            ContainerSpec {
                root: Root::Host { read_only: true },
                mounts: vec![mount(&source, "/data", false), mount(&source, "/tmp/work", false)],
                ..shell(&format!("{script}; touch /tmp/work/x && echo wrote work"))
            }
        },
        "wrote /data\nwrote shm\nwrote work\n",
    )
    .await;
}

#[tokio::test]
async fn settings_of_the_pod() {
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout").unwrap();
    let script = "cat /proc/sys/net/ipv4/tcp_fin_timeout /proc/sys/net/ipv4/ip_unprivileged_port_start";
    for bed in Bed::all() {
        let with = |value: &str| {
            let sysctls = vec![("net.ipv4.tcp_fin_timeout".into(), value.into())];
            bed.sandbox.create_pod(PodSpec { sysctls, ..bed.pod_spec() })
        };
        assert_eq!(run(&with("7").await.unwrap(), shell(script)).await, "7\n0\n", "as {}", bed.name);
        let error = with("x").await.err().unwrap().to_string();
        assert!(error.contains("set sysctl net.ipv4.tcp_fin_timeout=x: invalid argument"), "{error}");
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout").unwrap(), before);
}

/// Only where the kernel's settings are not the pod's user's anyway.
#[tokio::test]
async fn proc_can_be_unmasked_without_root() {
    for bed in Bed::all().into_iter().filter(|bed| !bed.is_root()) {
        let pod = bed.pod().await;
        let script =
            "mount | grep -c ' /proc/' ; echo x 2>/dev/null > /proc/sys/kernel/core_pattern && echo set; echo done";
        assert_eq!(run(&pod, ContainerSpec { proc_unmasked: true, ..shell(script) }).await, "0\ndone\n");
    }
}

#[tokio::test]
async fn addresses_answer() {
    for bed in Bed::all() {
        let pod = bed.pod().await;
        let mut listeners = pod.take_listeners().into_iter();
        let tcp = tokio::net::TcpListener::from_std(listeners.next().unwrap().into()).unwrap();
        let udp = tokio::net::UdpSocket::from_std(listeners.next().unwrap().into()).unwrap();
        let serve = async move {
            let (stream, _) = tcp.accept().await.unwrap();
            let mut stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"from the API\n").unwrap();
            drop(stream);
            let mut query = [0; 64];
            let (count, from) = udp.recv_from(&mut query).await.unwrap();
            udp.send_to(&query[..count], from).await.unwrap();
        };
        let script =
            "exec 3<>/dev/tcp/10.96.0.1/443; cat <&3; exec 4<>/dev/udp/10.96.0.10/53; echo echoed >&4; head -n 1 <&4
            (exec 5<>/dev/tcp/10.244.0.7/9) 2>&1 | grep -o 'Connection refused' | head -1
            (exec 5<>/dev/tcp/192.0.2.1/9) 2>&1 | grep -o 'Network is unreachable' | head -1";
        let bash = ContainerSpec { process: process(&["/bin/bash", "-c", script]), ..shell("") };
        let (output, ()) = tokio::join!(run(&pod, bash), serve);
        assert_eq!(output, "from the API\nechoed\nConnection refused\nNetwork is unreachable\n", "as {}", bed.name);
    }
}

#[tokio::test]
async fn host_network() {
    for bed in Bed::all() {
        let pod = bed.sandbox.create_pod(PodSpec { network: Network::Host, ..bed.pod_spec() }).await.unwrap();
        let host = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_eq!(run(&pod, shell("readlink /proc/self/ns/net")).await.trim(), host.to_str().unwrap());
    }
}

#[tokio::test]
async fn exec_joins_the_container() {
    for bed in Bed::all() {
        let pod = bed.pod().await;
        let (streams, _output) = stdio();
        let container = pod.start(shell("echo 42 > /tmp/answer; while :; do sleep 1; done"), streams).await.unwrap();
        let (streams, output) = stdio();
        let script = "until test -s /tmp/answer; do :; done; cat /tmp/answer; cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-10; exit 5";
        let probe = pod.exec(&container, process(&["sh", "-c", script]), streams).await.unwrap();
        assert_eq!(ended(&probe).await, Exit::Code(5));
        assert_eq!(text(output).await, "42\n/bin/sh -c\n");
        let (streams, _output) = stdio();
        let missing = pod.exec(&container, process(&["nope"]), streams).await.err().map(|error| error.to_string());
        assert_eq!(missing.as_deref(), Some("exec: \"nope\": executable file not found in $PATH"));
        container.signal(libc::SIGKILL).await.unwrap();
        assert_eq!(ended(&container).await, Exit::Signal(9));
        let (streams, _output) = stdio();
        let late = pod.exec(&container, process(&["sh"]), streams).await.err().map(|error| error.to_string());
        assert_eq!(late.as_deref(), Some("the container is not running"));
    }
}

#[tokio::test]
async fn one_process_namespace_for_the_pod() {
    for bed in Bed::all() {
        let pod = bed.pod().await;
        let (streams, _output) = stdio();
        let shared = |script: &str| ContainerSpec { process_namespace: ProcessNamespace::Pod, ..shell(script) };
        let first = pod.start(shared("while :; do sleep 1; done"), streams).await.unwrap();
        let output =
            run(&pod, shared("cat /proc/1/comm; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'while :'")).await;
        assert_eq!(output, "kemudi-init\n1\n");
        first.signal(libc::SIGKILL).await.unwrap();
        assert_eq!(ended(&first).await, Exit::Signal(9));
    }
}

fn until(otherwise: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{otherwise}");
        std::thread::yield_now();
    }
}

/// Every process whose environment or arguments carry the mark, and every mount of ours the host can see.
fn leftovers(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|cmdline| String::from_utf8_lossy(&cmdline).contains(mark))
    });
    processes.count()
}

#[tokio::test]
async fn nothing_is_left() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for bed in Bed::all() {
        let mark = format!("mark-{}-{}", std::process::id(), bed.is_root());
        let script = format!("(setsid sh -c 'sleep 1000; : {mark}' &) ; : {mark}; echo up; while :; do sleep 1; done");
        let dying = bed.pod().await;
        let staying = bed.pod().await;
        let mut containers = Vec::new();
        for pod in [&dying, &staying] {
            let (streams, mut output) = stdio();
            containers.push(pod.start(shell(&script), streams).await.unwrap());
            tokio::task::spawn_blocking(move || output.read_exact(&mut [0; 3])).await.unwrap().unwrap();
        }
        until("the pods never ran", || leftovers(&mark) >= 4);
        dying.kill();
        tokio::time::timeout(PATIENCE, dying.ended()).await.unwrap();
        assert_eq!(ended(&containers[0]).await, Exit::Signal(9));
        let (streams, _output) = stdio();
        assert!(matches!(dying.start(shell("true"), streams).await, Err(Error::Ended | Error::Io(_))));
        // The spawner goes, and with it every pod.
        drop(bed.sandbox);
        tokio::time::timeout(PATIENCE, staying.ended()).await.unwrap();
        assert_eq!(ended(&containers[1]).await, Exit::Signal(9));
        assert_eq!(leftovers(&mark), 0);
    }
    assert_eq!(mounts(), before, "the host sees none of the pods' mounts");
}

/// A pod in the bed's network that was made ahead and then became this one.
async fn made_ahead(bed: &Bed, spec: PodSpec) -> Result<Pod, Error> {
    bed.sandbox.open_network("10.244.0.1".parse().unwrap()).await.unwrap();
    let spare = bed.sandbox.make_spare(&bed.pod_spec()).await.unwrap().expect("there is a network");
    assert!(spare.serves(&spec));
    bed.sandbox.use_spare(spare, spec).await
}

#[tokio::test]
async fn a_pod_made_ahead_is_as_any_other() {
    let script = "hostname; id; ls /sys/class/net; grep -c . /proc/net/dev; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
        cat /proc/sys/net/ipv4/ping_group_range; ulimit -u; ls -A /dev/shm /tmp; touch /cache/x && df -k --output=size /cache | tail -n1
        grep -E '^(Cap|NoNew|Seccomp|Groups)' /proc/self/status; grep -o '10[.]244[.]0[.][0-9]*' /proc/net/fib_trie | sort -u | tail -n1
        cut -d' ' -f4-6 /proc/self/mountinfo | sort";
    for bed in Bed::all() {
        let spec = |address: &str, hostname: &str| {
            let mut spec = PodSpec { hostname: hostname.into(), processes_max: Some(500), ..bed.pod_spec() };
            spec.sysctls = vec![("net.ipv4.ping_group_range".into(), "0 0".into())];
            if let Network::Own { address: own, .. } = &mut spec.network {
                *own = Some(address.parse().unwrap());
            }
            spec
        };
        let mut container = shell(script);
        let (source, target) = (Source::Memory("cache".into()), "/cache".into());
        container.mounts = vec![Mount { source, sub_path: None, target, read_only: false }];
        let ahead = made_ahead(&bed, spec("10.244.0.8", "db-0")).await.unwrap();
        let ordinary = bed.sandbox.create_pod(spec("10.244.0.9", "db-1")).await.unwrap();
        let wanted = run(&ordinary, container.clone()).await;
        assert!(wanted.starts_with("db-1\n") && wanted.contains("\n10.244.0.9\n"), "as {}: {wanted}", bed.name);
        let found = run(&ahead, container).await;
        assert_eq!(found, wanted.replace("db-1", "db-0").replace("0.9\n", "0.8\n"), "as {}", bed.name);
        assert_eq!((ahead.take_listeners().len(), ordinary.take_listeners().len()), (2, 2));
        // What is refused is said in the same words.
        let wrong = |address| PodSpec { sysctls: vec![("net.none".into(), "1".into())], ..spec(address, "x") };
        let ahead = made_ahead(&bed, wrong("10.244.0.10")).await.err().expect("there is no such setting").to_string();
        let ordinary = bed.sandbox.create_pod(wrong("10.244.0.11")).await.err().expect("nor now").to_string();
        assert_eq!(ahead, ordinary, "as {}", bed.name);
    }
}

#[tokio::test]
async fn pods_made_ahead_serve_those_like_them_and_go_unused() {
    for bed in Bed::all() {
        let spec = bed.pod_spec();
        assert!(
            bed.sandbox.make_spare(&spec).await.unwrap().is_none(),
            "a wire is laid when it is used, or not at all"
        );
        bed.sandbox.open_network("10.244.0.1".parse().unwrap()).await.unwrap();
        let spare = bed.sandbox.make_spare(&spec).await.unwrap().unwrap();
        assert!(!spare.serves(&PodSpec { uid: 7, ..spec.clone() }));
        assert!(!spare.serves(&PodSpec { network: Network::Host, ..spec.clone() }));
        let Network::Own { listen, address, .. } = spec.network.clone() else { unreachable!("it has its own") };
        let network = Network::Own { addresses: Vec::new(), address, listen };
        assert!(!spare.serves(&PodSpec { network, ..spec.clone() }));
        let pid = spare.pid();
        drop(spare);
        until("it stays though nobody uses it", || !Path::new(&format!("/proc/{pid}/ns/net")).exists());
        let spare = bed.sandbox.make_spare(&spec).await.unwrap().unwrap();
        let pid = spare.pid();
        // The spawner goes, and with it those that wait.
        drop(bed.sandbox);
        until("it outlives the spawner", || !Path::new(&format!("/proc/{pid}")).exists());
        assert!(!spare.is_good());
    }
}

/// Runs where nobody else mounts anything.
#[tokio::test]
#[ignore = "is the process that another test starts"]
async fn mounts_something_later() {
    let bed = Bed::new("as the tests are", None);
    bed.sandbox.open_network("10.244.0.1".parse().unwrap()).await.unwrap();
    let first = bed.sandbox.make_spare(&bed.pod_spec()).await.unwrap().unwrap();
    let second = bed.sandbox.make_spare(&bed.pod_spec()).await.unwrap().unwrap();
    assert!(first.is_good() && second.is_good());
    let place = bed.put("later", None);
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "later"]).arg(&place).status().unwrap();
    assert!(mounted.success());
    assert!(!first.is_good() && !second.is_good(), "a mount is missing in them");
    let third = bed.sandbox.make_spare(&bed.pod_spec()).await.unwrap().unwrap();
    assert!(third.is_good());
    println!("as it should be");
}

/// A pod made ahead has the machine's mounts as they were then.
#[test]
fn a_pod_made_ahead_is_not_used_when_mounts_have_changed() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut alone = std::process::Command::new("unshare");
    alone.arg("--mount").arg(std::env::current_exe().unwrap());
    alone.args(["sandbox::mounts_something_later", "--exact", "--ignored", "--nocapture"]);
    let output = alone.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("as it should be"), "{said}");
}

/// What an agent is that is killed: holds a pod with the mark in its container's arguments.
#[tokio::test]
#[ignore = "is the process that another test kills"]
async fn holds_a_pod() {
    let mark = std::env::var("MARK").unwrap();
    let bed = Bed::new("as the tests are", None);
    let pod = bed.pod().await;
    let (streams, output) = stdio();
    let script = format!("(setsid sh -c 'sleep 1000; : {mark}' &) ; : {mark}; echo up; while :; do sleep 1; done");
    let _container = pod.start(shell(&script), streams).await.unwrap();
    tokio::task::spawn_blocking(move || (&output).read_exact(&mut [0; 3])).await.unwrap().unwrap();
    println!("holding");
    std::future::pending::<()>().await;
}

#[test]
fn nothing_outlives_a_killed_agent() {
    let mark = format!("killed-{}", std::process::id());
    let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["sandbox::holds_a_pod", "--exact", "--ignored", "--nocapture"])
        .env("MARK", &mark)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(agent.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with("holding")));
    until("the pod never ran", || leftovers(&mark) >= 2);
    agent.kill().unwrap();
    agent.wait().unwrap();
    until("the pod outlives its agent", || leftovers(&mark) == 0);
}

/// What `run` is on a terminal: one container that has it.
#[tokio::test]
#[ignore = "is the process that another test gives a terminal"]
async fn has_the_terminal() {
    let bed = Bed::new("as the tests are", None);
    let pod = bed.pod().await;
    let mut spec = shell(
        "trap 'echo interrupted; exit 4' INT; test -t 0 && test -t 1 && echo on a terminal; read word; echo got $word; while :; do sleep 0.01; done",
    );
    spec.process.terminal = node::sandbox::Terminal::Agents;
    spec.process_namespace = ProcessNamespace::Pod;
    let copy = |stream: &dyn std::os::fd::AsFd| stream.as_fd().try_clone_to_owned().unwrap();
    let stdio =
        Stdio { stdin: copy(&std::io::stdin()), stdout: copy(&std::io::stdout()), stderr: copy(&std::io::stderr()) };
    let container = pod.start(spec, stdio).await.unwrap();
    let exit = container.wait().await;
    println!("ended with {}", exit.code());
}

#[test]
fn a_terminal_is_the_programs_own() {
    let program = std::env::current_exe().unwrap();
    let line = format!("{} sandbox::has_the_terminal --exact --ignored --nocapture", program.display());
    // `script` makes a terminal and passes its stdin on as what is typed there.
    let mut script = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut typed = script.stdin.take();
    let mut seen = Vec::new();
    for line in std::io::BufRead::lines(std::io::BufReader::new(script.stdout.take().unwrap())) {
        let line = line.unwrap().trim().to_owned();
        if line.ends_with("on a terminal") {
            typed.as_mut().unwrap().write_all(b"hello\n").unwrap();
        } else if line == "got hello" {
            // Ctrl-C: the program is told, and nobody else.
            typed.take().unwrap().write_all(b"\x03").unwrap();
        }
        seen.push(line);
    }
    script.wait().unwrap();
    let text = seen.join("\n");
    assert!(text.contains("interrupted\nended with 4"), "{text}");
}

#[tokio::test]
async fn many_pods_at_once() {
    for bed in Bed::all() {
        let pods = (0..20).map(|_| async {
            let pod = bed.pod().await;
            run(&pod, shell("echo $$")).await
        });
        for output in futures_util::future::join_all(pods).await {
            assert_eq!(output, "1\n");
        }
    }
}

#[tokio::test]
async fn the_check_agrees() {
    let dir = tempfile::tempdir().unwrap();
    node::sandbox::check(dir.path()).await.unwrap();
}

/// From the request for a pod to its program running, printed for the record; the limit only catches a blunder.
#[tokio::test]
async fn pod_start_time() {
    for bed in Bed::all() {
        let mut times = Vec::new();
        for _ in 0..50 {
            let (streams, output) = stdio();
            let spec = ContainerSpec { process: process(&["/bin/true"]), ..shell("") };
            let began = Instant::now();
            let pod = bed.pod().await;
            let container = pod.start(spec, streams).await.unwrap();
            times.push(began.elapsed());
            ended(&container).await;
            drop(output);
        }
        times.sort();
        println!("pod start as {}: p50 {:?}, p90 {:?}", bed.name, times[25], times[45]);
        assert!(times[25] < Duration::from_millis(100));
    }
}

#[tokio::test]
async fn connects_into_the_pod() {
    for bed in Bed::all() {
        let pod = bed.pod().await;
        // The pod's own listener stands for a server in it: what is bound there is reached from nowhere else.
        let listeners = pod.take_listeners();
        let stream = pod.connect("10.96.0.1:443".parse().unwrap()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), "10.96.0.1:443".parse().unwrap());
        let refused = pod.connect("10.244.0.7:81".parse().unwrap()).await.err().map(|error| error.to_string());
        assert!(refused.as_deref().is_some_and(|text| text.contains("Connection refused")), "{refused:?}");
        drop(listeners);
    }
}

/// A pod of the node's network, with this address.
async fn wired(bed: &Bed, address: &str) -> Pod {
    bed.sandbox.open_network("10.244.0.1".parse().unwrap()).await.unwrap();
    let mut spec = bed.pod_spec();
    if let Network::Own { address: own, .. } = &mut spec.network {
        *own = Some(address.parse().unwrap());
    }
    bed.sandbox.create_pod(spec).await.unwrap()
}

#[tokio::test]
async fn wires_lead_to_other_pods() {
    for bed in Bed::all() {
        let (one, two) = (wired(&bed, "10.244.0.2").await, wired(&bed, "10.244.0.3").await);
        let serve = "import socket; s = socket.create_server(('', 80)); print('up', flush=True); c, a = s.accept(); c.sendall(b'hello ' + a[0].encode()); c.close()";
        let server = ContainerSpec { process: process(&["/usr/bin/python3", "-c", serve]), ..shell("") };
        let (stdio, mut output) = stdio();
        let server = two.start(server, stdio).await.unwrap();
        let up = tokio::task::spawn_blocking(move || output.read_exact(&mut [0; 3]));
        up.await.unwrap().unwrap();
        let script = "exec 3<>/dev/tcp/10.244.0.3/80; cat <&3; echo
            (exec 5<>/dev/tcp/10.244.0.3/9) 2>&1 | grep -o 'Connection refused' | head -1
            (exec 5<>/dev/tcp/10.244.0.9/9) 2>&1 | grep -o 'No route to host' | head -1
            grep -c : /proc/net/dev";
        let bash = ContainerSpec { process: process(&["/bin/bash", "-c", script]), ..shell("") };
        let said = run(&one, bash).await;
        assert_eq!(said, "hello 10.244.0.2\nConnection refused\nNo route to host\n2\n", "as {}", bed.name);
        ended(&server).await;
    }
}

/// Prints how long pods take to be made with a wire and without.
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn how_long_wires_take() {
    for bed in Bed::all() {
        for wires in [false, true] {
            let mut times = Vec::new();
            for number in 0..60u8 {
                let began = Instant::now();
                let pod = match wires {
                    true => wired(&bed, &format!("10.244.0.{}", number + 2)).await,
                    false => bed.pod().await,
                };
                times.push(began.elapsed());
                drop(pod);
            }
            times.sort();
            println!("{} wires {wires}: p50 {:?}, p90 {:?}", bed.name, times[30], times[54]);
        }
    }
}
