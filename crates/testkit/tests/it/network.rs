//! The network that pods are in: their addresses, services, names, ports of the host, the way out and policies, as programs in
//! real pods see them; as root and on the node of an ordinary user.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Server;
use testkit::command::{RUN_LIMIT, kemudi, run, target};

/// The ordinary user that runs a node when the tests are root.
const ORDINARY: u32 = 12347;
/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(40);
const CORE: &str = "/api/v1/namespaces/default";
/// Answers each connection, and each datagram, with its name and whom it sees.
const ECHO: &str = r#"
import os, socket, threading
name = os.environ["NAME"]
def tcp():
    listener = socket.create_server(("", 8080))
    while True:
        connection, peer = listener.accept()
        connection.sendall(f"{name} sees {peer[0]}\n".encode())
        connection.close()
def udp():
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", 8080))
    while True:
        _, peer = datagrams.recvfrom(100)
        datagrams.sendto(f"{name} sees {peer[0]}\n".encode(), peer)
threading.Thread(target=udp).start()
tcp()
"#;

struct Bed {
    server: Server,
    of_root: bool,
    _folder: TempDir,
}

impl Bed {
    fn new(user: Option<u32>, flags: &[&str]) -> Bed {
        let folder = tempfile::Builder::new().prefix("kemudi-test-").tempdir_in(target()).expect("a folder");
        let server = Server::start_as(folder.path(), &[&["--store", "memory://"], flags].concat(), user);
        let of_root = user.is_none() && rustix::process::geteuid().is_root();
        Bed { server, of_root, _folder: folder }
    }

    /// As root and as an ordinary user; only the latter where the tests are not root.
    fn each(flags: &[&str], check: impl Fn(&Bed)) {
        check(&Bed::new(None, flags));
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let allowed = Command::new("unshare").args(["--user", "true"]).uid(ORDINARY).gid(ORDINARY).status();
        if !allowed.is_ok_and(|status| status.success()) {
            eprintln!("this machine lets no ordinary user have user namespaces");
            return;
        }
        check(&Bed::new(Some(ORDINARY), flags));
    }

    fn create(&self, path: &str, object: &Value) -> Value {
        self.server.json("admin", &format!("POST {path} {object}"))
    }

    fn get(&self, path: &str) -> Value {
        self.server.json("admin", &format!("GET {path}"))
    }

    /// Looks until something holds.
    #[track_caller]
    fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "never: {what}\n{}", self.server.trouble());
            std::thread::yield_now();
        }
    }

    fn namespaced_pod(&self, namespace: &str, name: &str, labels: Value, more: Value) {
        let mut container = json!({"name": "main", "image": "host", "command": ["python3", "-c", ECHO],
            "env": [{"name": "NAME", "value": name}],
            "ports": [{"name": "echo", "containerPort": 8080}, {"name": "echo-udp", "containerPort": 8080, "protocol": "UDP"}],
            "readinessProbe": {"tcpSocket": {"port": "echo"}, "periodSeconds": 1}});
        let mut spec = json!({"terminationGracePeriodSeconds": 0});
        for (field, value) in more.as_object().into_iter().flatten() {
            let into = if field == "ports" { &mut container } else { &mut spec };
            into[field] = value.clone();
        }
        spec["containers"] = json!([container]);
        let pod = json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
        self.create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod);
    }

    /// A pod that answers, labelled with its `app`; its address, once it is ready.
    #[track_caller]
    fn pod(&self, name: &str, app: &str, more: Value) -> String {
        self.namespaced_pod("default", name, json!({"app": app}), more);
        self.ready("default", name)
    }

    #[track_caller]
    fn ready(&self, namespace: &str, name: &str) -> String {
        self.until(&format!("{name} is ready"), || {
            let pod = self.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"));
            let conditions = pod["status"]["conditions"].as_array()?;
            let ready = conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
            ready.then(|| pod["status"]["podIP"].as_str().map(str::to_owned))?
        })
    }

    /// What a line of bash in a pod prints.
    fn bash(&self, pod: &str, line: &str) -> String {
        let (namespace, pod) = pod.split_once('/').unwrap_or(("default", pod));
        let mut command = self.server.client(kemudi());
        command.args(["exec", "-n", namespace, pod, "--", "bash", "-c", line]);
        let ran = run(&mut command, "", RUN_LIMIT);
        format!("{}{}", ran.stdout, ran.stderr).trim_end().to_owned()
    }

    /// What a pod hears from an address; the last word of bash's complaint where there is no connection.
    fn tcp(&self, pod: &str, host: &str, port: u16) -> String {
        let line = format!("timeout 4 bash -c 'exec 3<>/dev/tcp/{host}/{port} && cat <&3' 2>&1 || echo nothing");
        self.bash(pod, &line)
    }

    fn udp(&self, pod: &str, host: &str, port: u16) -> String {
        let line =
            format!("timeout 4 bash -c 'exec 3<>/dev/udp/{host}/{port}; echo hi >&3; head -n 1 <&3' || echo nothing");
        self.bash(pod, &line)
    }

    #[track_caller]
    fn until_heard(&self, pod: &str, host: &str, port: u16, want: &str) {
        self.until(&format!("{pod} hears {want:?} from {host}:{port}"), || {
            let heard = self.tcp(pod, host, port);
            (heard == want).then_some(())
        });
    }

    fn service(&self, name: &str, spec: Value) -> Value {
        let service = json!({"metadata": {"name": name}, "spec": spec});
        let made = self.create(&format!("{CORE}/services"), &service);
        made["spec"].clone()
    }
}

#[test]
fn pods_reach_each_other_by_address() {
    Bed::each(&[], |bed| {
        let (a, b) = (bed.pod("a", "a", json!({})), bed.pod("b", "b", json!({})));
        assert_ne!(a, b);
        assert!(a.starts_with("10.244.") && b.starts_with("10.244."), "{a} {b}");
        assert_eq!(bed.tcp("a", &b, 8080), format!("b sees {a}"));
        assert_eq!(bed.udp("b", &a, 8080), format!("a sees {b}"));
        // Itself too, and who does not listen refuses.
        assert_eq!(bed.tcp("a", &a, 8080), format!("a sees {a}"));
        assert!(bed.tcp("a", &b, 81).contains("Connection refused"));
        // Inside, everything says the same.
        let pod = bed.get(&format!("{CORE}/pods/a"));
        assert_eq!(pod["status"]["podIPs"], json!([{"ip": a}]));
        assert_eq!(pod["status"]["hostIPs"][0]["ip"], pod["status"]["hostIP"]);
        assert_eq!(bed.bash("a", "getent hosts $(hostname) | cut -d' ' -f1"), a);
        let own = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('10.244.255.255', 9)); print(s.getsockname()[0])";
        assert_eq!(bed.bash("a", &format!("python3 -c \"{own}\"")), a);
        let node = pod["spec"]["nodeName"].as_str().expect("it runs").to_owned();
        assert_eq!(bed.get(&format!("/api/v1/nodes/{node}"))["spec"]["podCIDR"], "10.244.0.0/16");
    });
}

#[test]
fn services_lead_to_pods_that_are_ready() {
    Bed::each(&[], |bed| {
        let client = bed.pod("client", "client", json!({}));
        let web = bed.service(
            "web",
            json!({"selector": {"app": "web"}, "ports": [
                {"name": "http", "port": 80, "targetPort": "echo"},
                {"name": "udp", "port": 80, "targetPort": "echo-udp", "protocol": "UDP"},
                {"name": "other", "port": 8081, "targetPort": 8080}]}),
        );
        let ip = web["clusterIP"].as_str().expect("an address").to_owned();
        // Nobody is behind it.
        bed.until("it refuses", || bed.tcp("client", &ip, 80).contains("Connection refused").then_some(()));
        let one = bed.pod("one", "web", json!({}));
        bed.until_heard("client", "web", 80, &format!("one sees {client}"));
        assert_eq!(bed.tcp("client", &ip, 8081), format!("one sees {client}"));
        assert_eq!(bed.udp("client", &ip, 80), format!("one sees {client}"));
        assert!(bed.tcp("client", &ip, 82).contains("Connection refused"));
        // A pod reaches itself through its service.
        assert!(bed.tcp("one", &ip, 80).starts_with("one sees "));
        // Several share what comes.
        bed.pod("two", "web", json!({}));
        bed.until("both answer", || {
            let heard =
                bed.bash("client", &format!("for i in $(seq 20); do exec 3<>/dev/tcp/{ip}/80; head -n1 <&3; done"));
            (heard.contains("one sees") && heard.contains("two sees")).then_some(())
        });
        // Who is led to one is always led to it, where the service says so.
        let sticky = bed.service(
            "sticky",
            json!({"selector": {"app": "web"}, "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": 8080}]}),
        );
        let ip_of_sticky = sticky["clusterIP"].as_str().expect("an address").to_owned();
        bed.until("it answers", || bed.tcp("client", &ip_of_sticky, 80).contains("sees").then_some(()));
        let line =
            format!("for i in $(seq 10); do exec 3<>/dev/tcp/{ip_of_sticky}/80; head -n1 <&3; done | sort -u | wc -l");
        assert_eq!(bed.bash("client", &line), "1");
        // However many come to be there beside it.
        let first = bed.tcp("client", &ip_of_sticky, 80);
        bed.pod("three", "web", json!({}));
        bed.until("three answers", || {
            let heard =
                bed.bash("client", &format!("for i in $(seq 20); do exec 3<>/dev/tcp/{ip}/80; head -n1 <&3; done"));
            heard.contains("three sees").then_some(())
        });
        assert_eq!((bed.bash("client", &line), bed.tcp("client", &ip_of_sticky, 80)), ("1".into(), first));
        // But no longer than it says after the last time.
        let forgetful = bed.service(
            "forgetful",
            json!({"selector": {"app": "web"}, "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}, "ports": [{"port": 80, "targetPort": 8080}]}),
        );
        let ip_of_forgetful = forgetful["clusterIP"].as_str().expect("an address").to_owned();
        bed.until("it answers", || bed.tcp("client", &ip_of_forgetful, 80).contains("sees").then_some(()));
        let line = format!(
            "for i in $(seq 5); do exec 3<>/dev/tcp/{ip_of_forgetful}/80; head -n1 <&3; done | sort -u; sleep 1.5"
        );
        let first = bed.bash("client", &line);
        assert_eq!(first.lines().count(), 1, "{first}");
        bed.until("it is led to another", || (bed.bash("client", &line) != first).then_some(()));
        // Those that are gone are not led to.
        bed.server.json("admin", &format!("DELETE {CORE}/pods/three"));
        bed.server.json("admin", &format!("DELETE {CORE}/pods/one"));
        bed.until("one is gone", || {
            let heard =
                bed.bash("client", &format!("for i in $(seq 20); do exec 3<>/dev/tcp/{ip}/80; head -n1 <&3; done"));
            (!heard.contains("one sees") && heard.lines().count() == 20).then_some(())
        });
        let _ = one;
        // The API is where it was.
        let line = "exec 3<>/dev/tcp/kubernetes.default/443 && echo there";
        assert_eq!(bed.bash("client", line), "there");
    });
}

#[test]
fn ports_of_the_host_lead_to_services_and_pods() {
    Bed::each(&[], |bed| {
        let free =
            |n: u16| (20_000 + n..30_000).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).expect("one");
        let host_port = free((std::process::id() % 9000) as u16);
        let ports = json!([{"name": "echo", "containerPort": 8080, "hostPort": host_port},
            {"name": "echo-udp", "containerPort": 8080, "protocol": "UDP", "hostPort": host_port}]);
        bed.pod("web", "web", json!({"ports": ports}));
        let hear = |port: u16| {
            let mut text = String::new();
            let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE);
            let _ = stream.and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                stream.read_to_string(&mut text)
            });
            text
        };
        let hear_datagram = |port: u16| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
            socket.send_to(b"hi", ("127.0.0.1", port)).expect("it goes out");
            let mut text = [0; 100];
            let count = socket.recv(&mut text).unwrap_or(0);
            String::from_utf8_lossy(&text[..count]).into_owned()
        };
        bed.until("the host port answers", || (hear(host_port) == "web sees 10.244.0.1\n").then_some(()));
        bed.until("it does for datagrams", || (hear_datagram(host_port) == "web sees 10.244.0.1\n").then_some(()));
        let service = bed.service(
            "web",
            json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [
                {"name": "tcp", "port": 80, "targetPort": 8080},
                {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}]}),
        );
        let port = |at: usize| service["ports"][at]["nodePort"].as_u64().expect("a port") as u16;
        bed.until("the node port answers", || (hear(port(0)) == "web sees 10.244.0.1\n").then_some(()));
        bed.until("it does for datagrams", || (hear_datagram(port(1)) == "web sees 10.244.0.1\n").then_some(()));
        // A connection goes on when nothing is behind the port any more, but there are no new ones.
        let held = TcpStream::connect(("127.0.0.1", port(0))).expect("it is open");
        let unselect = json!({"metadata": {"labels": {"app": "none"}}});
        bed.server.json("admin", &format!("PATCH {CORE}/pods/web {unselect}"));
        bed.until("the node port refuses", || {
            let refused = TcpStream::connect(("127.0.0.1", port(0))).is_err();
            refused.then_some(())
        });
        let mut text = String::new();
        held.set_read_timeout(Some(PATIENCE)).expect("a time");
        (&held).read_to_string(&mut text).expect("it is answered");
        assert_eq!(text, "web sees 10.244.0.1\n");
        bed.server.json("admin", &format!("DELETE {CORE}/services/web"));
        bed.until("the node port is closed", || hear(port(0)).is_empty().then_some(()));
        bed.server.json("admin", &format!("DELETE {CORE}/pods/web"));
        bed.until("the host port is closed", || TcpListener::bind(("0.0.0.0", host_port)).ok());
    });
}

/// A machine beside this one, as programs of its network see it. Gone when it is dropped; only root has one.
struct Neighbour {
    holder: std::process::Child,
    /// The address that it finds this machine at.
    machine: String,
    /// Its own addresses.
    own: Vec<String>,
}

impl Neighbour {
    fn new() -> Option<Neighbour> {
        /// Networks of 32 addresses in the range for measurements between networks (198.18.0.0/15).
        const NETWORKS: u32 = 4096;
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let holder = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().expect("unshare is here");
        let number = (std::process::id() * 8 + NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) % NETWORKS;
        let network = u32::from_be_bytes([198, 18, 0, 0]) + number * 32;
        let address = |last: u32| std::net::Ipv4Addr::from(network + last).to_string();
        let neighbour = Neighbour { holder, machine: address(1), own: (2..30).map(address).collect() };
        let id = neighbour.holder.id();
        let began = Instant::now();
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).expect("it runs");
        while namespace(&id.to_string()) == namespace("self") {
            assert!(began.elapsed() < PATIENCE, "no network of its own");
            std::thread::yield_now();
        }
        let ip = |words: &str| {
            let ran = run(Command::new("ip").args(words.split(' ')), "", RUN_LIMIT);
            assert_eq!(ran.code, 0, "ip {words}: {}", ran.stderr);
        };
        let device = format!("kmd{id}");
        ip(&format!("link add {device} type veth peer name eth0 netns {id}"));
        ip(&format!("address add {}/27 dev {device}", neighbour.machine));
        ip(&format!("link set {device} up"));
        for own in &neighbour.own {
            neighbour.runs(&format!("ip address add {own}/27 dev eth0"));
        }
        neighbour.runs("ip link set lo up && ip link set eth0 up");
        Some(neighbour)
    }

    fn runs(&self, line: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/proc/{}/ns/net", self.holder.id()), "bash", "-c", line]);
        let ran = run(&mut command, "", RUN_LIMIT);
        format!("{}{}", ran.stdout, ran.stderr).trim_end().to_owned()
    }

    /// What it hears from a port of this machine, from each of these addresses of its own.
    fn hears_at(&self, own: &[String], port: u16) -> Vec<String> {
        const ASK: &str = "import socket, sys
host, port, *all = sys.argv[1:]
for own in all:
    try:
        with socket.create_connection((host, int(port)), 2, (own, 0)) as connection:
            print(connection.recv(100).decode().strip())
    except Exception as error:
        print(error)";
        let heard = self.runs(&format!("python3 -c '{ASK}' {} {port} {}", self.machine, own.join(" ")));
        heard.lines().map(str::to_owned).collect()
    }

    fn hears(&self, port: u16) -> String {
        self.hears_at(&self.own[..1], port).concat()
    }

    fn hears_datagram(&self, port: u16) -> String {
        let (machine, ask) = (&self.machine, "echo hi >&3; head -n 1 <&3");
        self.runs(&format!("timeout 2 bash -c 'exec 3<>/dev/udp/{machine}/{port}; {ask}' || echo nothing"))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn who_comes_from_elsewhere_comes_from_its_own_address() {
    Bed::each(&[], |bed| {
        let Some(neighbour) = Neighbour::new() else {
            eprintln!("only root has a machine beside this one");
            return;
        };
        let free = |n: u16| (20_000 + n..30_000).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
        let host_port = free((std::process::id() % 9000 + 500) as u16).expect("one");
        let ports = json!([{"name": "echo", "containerPort": 8080, "hostPort": host_port},
            {"name": "echo-udp", "containerPort": 8080, "protocol": "UDP", "hostPort": host_port}]);
        bed.pod("web", "web", json!({"ports": ports}));
        bed.pod("other", "other", json!({}));
        let service = |name: &str, more: Value| {
            let mut spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [
                {"name": "tcp", "port": 80, "targetPort": 8080},
                {"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"}]});
            for (field, value) in more.as_object().into_iter().flatten() {
                spec[field] = value.clone();
            }
            let made = bed.service(name, spec);
            [0, 1].map(|at: usize| made["ports"][at]["nodePort"].as_u64().unwrap_or_default() as u16)
        };
        let everywhere = service("everywhere", json!({}));
        let local = service("local", json!({"externalTrafficPolicy": "Local"}));
        let (itself, node) = (format!("web sees {}", neighbour.own[0]), "web sees 10.244.0.1".to_owned());
        for (ports, seen) in [([host_port; 2], &itself), (local, &itself), (everywhere, &node)] {
            bed.until(&format!("it is heard at {ports:?} that {seen}"), || {
                (neighbour.hears(ports[0]) == *seen).then_some(())
            });
            bed.until("datagrams too", || (neighbour.hears_datagram(ports[1]) == *seen).then_some(()));
        }
        // A pod that asks the node is led to the same, and is not taken for the node.
        let host = bed.get(&format!("{CORE}/pods/other"))["status"]["hostIP"].as_str().expect("an address").to_owned();
        let from_pod = |port: u16| bed.tcp("other", &host, port);
        if host != "127.0.0.1" {
            bed.until("it is led there", || (from_pod(everywhere[0]) == node).then_some(()));
            let other = bed.get(&format!("{CORE}/pods/other"))["status"]["podIP"].as_str().expect("one").to_owned();
            for port in [local[0], host_port] {
                assert_eq!(from_pod(port), format!("web sees {other}"));
            }
        }

        let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
        let policy = |name: &str, from: &str| {
            let spec = json!({"podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"ipBlock": {"cidr": from}}]}]});
            bed.create(policies, &json!({"metadata": {"name": name}, "spec": spec}));
        };
        policy("others", "192.0.2.0/24");
        let heard = |port: u16| neighbour.hears(port).contains("sees");
        bed.until("it is cut off", || (!heard(host_port)).then_some(()));
        for ports in [[host_port; 2], local, everywhere] {
            assert!(!heard(ports[0]), "{ports:?}");
            assert_eq!(neighbour.hears_datagram(ports[1]), "nothing");
        }
        if host != "127.0.0.1" {
            assert!([local[0], everywhere[0], host_port].iter().all(|port| !from_pod(*port).contains("sees")));
        }
        policy("it", &format!("{}/32", neighbour.own[0]));
        bed.until("it is let in", || heard(host_port).then_some(()));
        for ports in [[host_port; 2], local, everywhere] {
            bed.until("it is let in there too", || heard(ports[0]).then_some(()));
            bed.until("so are datagrams", || neighbour.hears_datagram(ports[1]).contains("sees").then_some(()));
            let other = neighbour.hears_at(&neighbour.own[1..2], ports[0]).concat();
            assert!(!other.contains("sees"), "{ports:?}: {other}");
        }
        for name in ["others", "it"] {
            bed.server.json("admin", &format!("DELETE {policies}/{name}"));
        }

        // Each client is led to one pod, not all to the same.
        for name in ["two", "three"] {
            bed.pod(name, "web", json!({}));
        }
        for policy in ["Cluster", "Local"] {
            let more = json!({"externalTrafficPolicy": policy, "sessionAffinity": "ClientIP"});
            let [sticky, _] = service(&format!("sticky-{}", policy.to_lowercase()), more);
            let round = || -> Vec<String> {
                let all = neighbour.hears_at(&neighbour.own, sticky).into_iter();
                all.map(|heard| heard.split(' ').next().unwrap_or_default().to_owned()).collect()
            };
            bed.until("all pods are behind it", || {
                let first: std::collections::BTreeSet<String> = round().into_iter().collect();
                (first == ["three", "two", "web"].map(str::to_owned).into()).then_some(())
            });
            assert_eq!(round(), round(), "{policy}");
        }
    });
}

#[test]
fn only_pods_of_the_node_are_led_to_where_a_service_says_so() {
    Bed::each(&[], |bed| {
        bed.pod("client", "client", json!({}));
        let node = bed.get(&format!("{CORE}/pods/client"))["spec"]["nodeName"].clone();
        let service = |name: &str, more: Value| {
            let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": 8080}]});
            for (field, value) in more.as_object().into_iter().flatten() {
                spec[field] = value.clone();
            }
            bed.service(name, spec)
        };
        let slice = |name: &str, service: &str, address: &str, node: &Value| {
            let slice = json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": [{"addresses": [address], "nodeName": node}]});
            bed.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice);
        };
        let web = bed.pod("web", "web", json!({}));
        let local = service("local", json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}));
        let port = |service: &Value| service["ports"][0]["nodePort"].as_u64().expect("a port") as u16;
        let (ip, health) = (local["clusterIP"].as_str().expect("an address"), local["healthCheckNodePort"].as_u64());
        let health = health.expect("a port") as u16;
        let ask = || {
            let mut curl = testkit::clients::curl();
            let ran = run(curl.args(["--include", &format!("http://127.0.0.1:{health}/healthz")]), "", RUN_LIMIT);
            ran.stdout.replace('\r', "")
        };
        let reached = |port: u16| {
            let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(2));
            stream.map_err(|error| error.kind())
        };
        // Nothing is behind it.
        bed.until("its health is told", || ask().starts_with("HTTP/1.1 503 ").then_some(()));
        assert_eq!(reached(port(&local)).unwrap_err(), std::io::ErrorKind::ConnectionRefused);
        assert!(bed.tcp("client", ip, 80).contains("Connection refused"));
        // Something is, elsewhere: it is not answered.
        slice("elsewhere", "local", "192.0.2.9", &json!("elsewhere"));
        bed.until("it hears nothing", || (bed.tcp("client", ip, 80) == "nothing").then_some(()));
        bed.until("nothing from outside", || {
            let heard = reached(port(&local)).err()?;
            // Not every kernel filters for an ordinary user.
            let refused = !bed.of_root && heard == std::io::ErrorKind::ConnectionRefused;
            (heard == std::io::ErrorKind::TimedOut || refused).then_some(())
        });
        // Something is here.
        slice("here", "local", &web, &node);
        bed.until("its health is told", || ask().starts_with("HTTP/1.1 200 ").then_some(()));
        let told = ask();
        let (head, body) = told.split_once("\n\n").expect("a body");
        assert!(head.to_lowercase().contains("\nx-load-balancing-endpoint-weight: 1"), "{head}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let service = json!({"namespace": "default", "name": "local"});
        assert_eq!(body, json!({"service": service, "localEndpoints": 1, "serviceProxyHealthy": true}));
        bed.until("only it is led to", || {
            let line = format!("for i in $(seq 20); do exec 3<>/dev/tcp/{ip}/80; head -n1 <&3; done | grep -c '^web'");
            (bed.bash("client", &line) == "20").then_some(())
        });
        bed.until("from outside too", || reached(port(&local)).is_ok().then_some(()));
    });
}

#[test]
fn names_lead_to_services_and_pods() {
    Bed::each(&[], |bed| {
        let client = bed.pod("client", "client", json!({}));
        bed.service(
            "db",
            json!({"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "sql", "port": 8080}]}),
        );
        bed.service("elsewhere", json!({"type": "ExternalName", "externalName": "db.default.svc.cluster.local"}));
        let first = bed.pod("db-0", "db", json!({"hostname": "db-0", "subdomain": "db"}));
        let look = |name: &str| bed.bash("client", &format!("getent ahostsv4 {name} | cut -d' ' -f1 | sort -u"));
        bed.until("a headless service leads to its pod", || (look("db") == first).then_some(()));
        assert_eq!(look("db-0.db"), first);
        assert_eq!(look("db-0.db.default.svc.cluster.local"), first);
        assert_eq!(look("elsewhere"), first);
        assert_eq!(look("nowhere.db"), "");
        let dashed = client.replace('.', "-");
        assert_eq!(look(&format!("{dashed}.default.pod.cluster.local")), client);
        assert_eq!(
            bed.bash("client", &format!("getent hosts {first} | tr -s ' ' | cut -d' ' -f2")),
            "db-0.db.default.svc.cluster.local"
        );
        assert_eq!(bed.bash("db-0", "hostname -f"), "db-0.db.default.svc.cluster.local");
    });
}

#[test]
fn pods_go_out_over_the_host() {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let answer = std::thread::spawn(move || {
        for stream in listener.incoming().take(2).map_while(Result::ok) {
            use std::io::Write;
            let _ = (&stream).write_all(b"from the host\n");
        }
    });
    let expected = std::sync::atomic::AtomicUsize::new(0);
    Bed::each(&[], |bed| {
        bed.pod("client", "client", json!({}));
        let host = bed.get(&format!("{CORE}/pods/client"))["status"]["hostIP"].as_str().expect("an address").to_owned();
        if host == "127.0.0.1" {
            eprintln!("this machine has no address but its own");
            return;
        }
        assert_eq!(bed.tcp("client", &host, port), "from the host");
        let datagrams = UdpSocket::bind((host.as_str(), 0)).expect("a port");
        let udp_port = datagrams.local_addr().expect("bound").port();
        datagrams.set_read_timeout(Some(PATIENCE)).expect("a time");
        let echo = std::thread::spawn(move || {
            let mut datagram = [0; 100];
            let (count, from) = datagrams.recv_from(&mut datagram).expect("it came");
            datagrams.send_to(&datagram[..count], from).expect("it goes back");
        });
        assert_eq!(bed.udp("client", &host, udp_port), "hi");
        echo.join().expect("it ended");
        expected.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // Where nobody listens there is no connection.
        let closed = TcpListener::bind("0.0.0.0:0").and_then(|it| it.local_addr()).expect("a port").port();
        assert!(!bed.tcp("client", &host, closed).contains("from"));
        // With the host's own network a pod is at home there.
        bed.namespaced_pod("default", "at-home", json!({}), json!({"hostNetwork": true}));
        let at_home = bed.until("it has an address", || {
            let pod = bed.get(&format!("{CORE}/pods/at-home"));
            pod["status"]["podIP"].as_str().map(str::to_owned)
        });
        assert_eq!(at_home, host);
        bed.server.json("admin", &format!("DELETE {CORE}/pods/at-home?gracePeriodSeconds=0"));
    });
    while expected.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
        let _ = TcpStream::connect(("127.0.0.1", port));
    }
    answer.join().expect("it ended");
}

#[test]
fn there_is_no_way_out_where_none_is_wanted() {
    let bed = Bed::new(None, &["--pods-outside", "none"]);
    let (_, b) = (bed.pod("a", "a", json!({})), bed.pod("b", "b", json!({})));
    assert!(bed.tcp("a", &b, 8080).starts_with("b sees"));
    let heard = bed.tcp("a", "192.0.2.1", 80);
    assert!(heard.contains("unreachable"), "{heard}");
}

#[test]
fn policies_say_who_reaches_whom() {
    Bed::each(&[], |bed| {
        bed.create("/api/v1/namespaces", &json!({"metadata": {"name": "other", "labels": {"team": "other"}}}));
        bed.until("it has its account", || {
            let accounts = bed.get("/api/v1/namespaces/other/serviceaccounts");
            accounts["items"].as_array().filter(|all| !all.is_empty()).map(|_| ())
        });
        let web = bed.pod("web", "web", json!({}));
        bed.pod("friend", "friend", json!({}));
        bed.pod("stranger", "stranger", json!({}));
        bed.namespaced_pod("other", "guest", json!({"app": "guest"}), json!({}));
        bed.ready("other", "guest");
        let hears = |pod: &str| bed.tcp(pod, &web, 8080).starts_with("web sees");
        for pod in ["friend", "stranger", "other/guest"] {
            bed.until("everybody reaches it", || hears(pod).then_some(()));
        }
        let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
        let policy = |name: &str, spec: Value| bed.create(policies, &json!({"metadata": {"name": name}, "spec": spec}));
        policy("deny", json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}));
        bed.until("nobody reaches it", || (!hears("friend")).then_some(()));
        assert!(!hears("stranger"));
        policy(
            "friends",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "echo"}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "other"}}}],
                    "ports": [{"port": 8000, "endPort": 9000}]}]}),
        );
        bed.until("a friend reaches it", || hears("friend").then_some(()));
        bed.until("a guest does", || hears("other/guest").then_some(()));
        assert!(!hears("stranger"));
        assert_eq!(bed.udp("friend", &web, 8080), "nothing");
        // Its probes still come through.
        bed.ready("default", "web");
        // What a pod may reach: others, but neither names nor the API.
        policy(
            "out",
            json!({"podSelector": {"matchLabels": {"app": "stranger"}}, "policyTypes": ["Egress"], "egress": [
                {"to": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": [format!("{web}/32")]}}]}]}),
        );
        let friend = bed.ready("default", "friend");
        bed.until("the stranger is cut off from the API", || {
            let line = "timeout 2 bash -c 'exec 3<>/dev/tcp/10.96.0.1/443; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3' | head -c 5";
            bed.bash("stranger", line).is_empty().then_some(())
        });
        assert!(bed.tcp("stranger", &friend, 8080).starts_with("friend sees"));
        assert_eq!(bed.bash("stranger", "timeout 3 getent hosts kubernetes.default; true"), "");
        // A pod that comes later is cut off from its beginning.
        let script = "exec 3<>/dev/tcp/kubernetes.default/443 && echo reached; true";
        let container = json!([{"name": "main", "image": "host", "command": ["bash", "-c", format!("timeout 3 bash -c '{script}' || echo cut off")]}]);
        let late = json!({"metadata": {"name": "late", "labels": {"app": "stranger"}},
            "spec": {"restartPolicy": "Never", "containers": container}});
        bed.create(&format!("{CORE}/pods"), &late);
        bed.until("it has ended", || {
            (bed.get(&format!("{CORE}/pods/late"))["status"]["phase"] == "Succeeded").then_some(())
        });
        let log = bed.server.ask("admin", &format!("GET {CORE}/pods/late/log"));
        assert!(String::from_utf8_lossy(&log.body).contains("cut off"));
        // When the policies are gone, so is what they did.
        for name in ["deny", "friends", "out"] {
            bed.server.json("admin", &format!("DELETE {policies}/{name}"));
        }
        bed.until("everybody reaches it again", || hears("stranger").then_some(()));
    });
}

/// How many network namespaces a process and what comes of it are in.
fn namespaces_below(first: u32) -> usize {
    let parent = |process: u32| -> Option<u32> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    let below = |process: u32| {
        let mut line = std::iter::successors(Some(process), |process| parent(*process));
        line.any(|process| process == first)
    };
    let all = std::fs::read_dir("/proc").expect("Linux").map_while(Result::ok);
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|process| below(*process));
    let of = all.filter_map(|process: u32| std::fs::read_link(format!("/proc/{process}/ns/net")).ok());
    of.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn nothing_of_a_pods_network_stays() {
    const PODS: usize = 20;
    /// Pods that an agent has ahead, from the second one on.
    const AHEAD: usize = 2;
    Bed::each(&[], |bed| {
        let namespaces = || namespaces_below(bed.server.pid());
        bed.pod("first", "first", json!({}));
        let alone = namespaces();
        bed.pod("second", "second", json!({}));
        let before = alone + 1 + AHEAD;
        bed.until("some are made ahead", || (namespaces() == before).then_some(()));
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..PODS {
            let address = bed.pod(&format!("pod-{number}"), "many", json!({}));
            assert!(seen.insert(address.clone()), "{address} was had twice");
        }
        bed.until("each has its network", || (namespaces() == before + PODS).then_some(()));
        for number in 0..PODS {
            bed.server.json("admin", &format!("DELETE {CORE}/pods/pod-{number}"));
        }
        bed.until("all are gone", || {
            let pods = bed.get(&format!("{CORE}/pods"));
            (pods["items"].as_array().map(Vec::len) == Some(2)).then_some(())
        });
        bed.until("so are their networks", || (namespaces() == before).then_some(()));
    });
}

/// What a pod measures on its way to another.
const MEASURE: &str = r#"
import socket, sys, time
pod, service = sys.argv[1:]
def told(what, times):
    times.sort()
    count = len(times)
    print(f"{what}: p50 {times[count // 2] * 1e6:.1f} us, p99 {times[count * 99 // 100] * 1e6:.1f} us")
def connect(host):
    times = []
    for _ in range(3000):
        began = time.perf_counter()
        connection = socket.create_connection((host, 8080))
        times.append(time.perf_counter() - began)
        connection.close()
    return times
told("a connection to a pod", connect(pod))
told("a connection to a service", connect(service))
connection = socket.create_connection((pod, 8081))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
times = []
for _ in range(20000):
    began = time.perf_counter()
    connection.send(b"x")
    connection.recv(1)
    times.append(time.perf_counter() - began)
told("there and back", times)
connection = socket.create_connection((pod, 8082))
much = bytes(1 << 18)
sent, began = 0, time.perf_counter()
while time.perf_counter() - began < 3:
    connection.sendall(much)
    sent += len(much)
print(f"through one connection: {sent / (time.perf_counter() - began) / 1e9:.2f} GB/s")
"#;
/// The other end of it.
const MEASURED: &str = r#"
import socket, threading
def serve(port, each):
    listener = socket.create_server(("", port))
    while True:
        connection, _ = listener.accept()
        each(connection)
        connection.close()
def back(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while byte := connection.recv(1):
        connection.send(byte)
def swallow(connection):
    buffer = bytearray(1 << 18)
    while connection.recv_into(buffer):
        pass
for port, each in [(8080, lambda connection: None), (8081, back), (8082, swallow)]:
    threading.Thread(target=serve, args=(port, each)).start()
"#;

#[test]
#[ignore = "a measurement, not a check"]
fn how_long_it_takes_from_pod_to_pod() {
    Bed::each(&[], |bed| {
        let container = json!([{"name": "main", "image": "host", "command": ["python3", "-c", MEASURED],
            "readinessProbe": {"tcpSocket": {"port": 8082}, "periodSeconds": 1}}]);
        let pod =
            json!({"metadata": {"name": "measured", "labels": {"app": "measured"}}, "spec": {"containers": container}});
        bed.create(&format!("{CORE}/pods"), &pod);
        let address = bed.ready("default", "measured");
        let service = bed.service("measured", json!({"selector": {"app": "measured"}, "ports": [{"port": 8080}]}));
        let service = service["clusterIP"].as_str().expect("an address").to_owned();
        bed.pod("client", "client", json!({}));
        bed.until("the service answers", || bed.tcp("client", &service, 8080).is_empty().then_some(()));
        let mut command = bed.server.client(kemudi());
        command.args(["exec", "client", "--", "python3", "-c", MEASURE, &address, &service]);
        println!("{}", run(&mut command, "", RUN_LIMIT).stdout);
    });
}
