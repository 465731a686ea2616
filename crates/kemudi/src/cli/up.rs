//! `kemudi up`: a server with its controllers and a node, until it is told to stop.
//! The shared flag `--kubeconfig` says where the administrator's kubeconfig is written as well.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use kemudi::local_node::{self, CriOptions, NodeOptions, WayOut};
use kemudi::{Cluster, Options};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::authn_flags::AuthnFlags;
use super::authz_flags::AuthzFlags;
use super::{Failure, Global, Outcome};

#[derive(Args, Debug)]
pub struct Up {
    /// Where state is kept: pki/, admin.kubeconfig, the store [default: the user's state folder]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where objects are kept: memory://, disk://DIR [default: disk:// under --data]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Address to serve on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// What runs pods: sandbox, cri (containerd or another container runtime, as root) or none
    #[arg(long, value_name = "KIND", default_value = "sandbox", value_parser = ["sandbox", "cri", "none"])]
    pub node: String,
    #[command(flatten)]
    pub cri: Box<Cri>,
    #[command(flatten)]
    pub outside: Outside,
    /// File of static tokens: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// File of the CA whose client certificates are users
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Serving certificate, PEM, instead of one of the cluster's own CA
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of --tls-cert-file, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// More names and addresses for the serving certificate, may be repeated
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// Addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    /// Issuer of service account tokens
    #[arg(long, value_name = "URL", default_value = server::state::ISSUER)]
    pub service_account_issuer: String,
    /// Key that signs service account tokens, PEM; made at the first start without it
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Keys that verify service account tokens besides, PEM, may be repeated
    #[arg(long, value_name = "FILE")]
    pub service_account_key_file: Vec<PathBuf>,
    /// Longest life of a service account token, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub service_account_max_token_expiration: Option<i64>,
    /// Audiences of the API server, comma separated [default: the issuer]
    #[arg(long, value_name = "AUDIENCES", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    #[command(flatten)]
    pub audit: Box<Audit>,
    /// How long to go on after SIGTERM while /readyz says that the end is near, as 10s or 1m
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub shutdown_delay_duration: Duration,
    #[command(flatten)]
    pub authn: Box<AuthnFlags>,
    #[command(flatten)]
    pub authz: Box<AuthzFlags>,
}

/// What is written down of requests.
#[derive(Args, Debug)]
pub struct Audit {
    /// Policy of the audit log (audit.k8s.io/v1 Policy, YAML or JSON)
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are written, - for standard output; nothing without --audit-policy-file
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept, 0 for ever
    #[arg(long, value_name = "DAYS", default_value_t = 366)]
    pub audit_log_maxage: u32,
    /// Old audit logs that are kept, 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub audit_log_maxbackup: u32,
    /// Megabytes of an audit log before the next one is begun, 0 for no limit
    #[arg(long, value_name = "MEGABYTES", default_value_t = 100)]
    pub audit_log_maxsize: u32,
    /// Format of audit events
    #[arg(long, value_name = "FORMAT", default_value = "json", value_parser = ["json"])]
    pub audit_log_format: String,
    /// blocking: answers wait for their events; blocking-strict: what cannot be written down is refused
    #[arg(long, value_name = "MODE", default_value = "blocking", value_parser = ["blocking", "blocking-strict"])]
    pub audit_log_mode: String,
}

/// Which container runtime.
#[derive(Args, Debug)]
pub struct Cri {
    /// Socket of the container runtime of --node cri
    #[arg(long, value_name = "URL", default_value = "unix:///run/containerd/containerd.sock")]
    container_runtime_endpoint: String,
    /// Where that runtime looks for network plugins [default: asked of it]
    #[arg(long, value_name = "DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Where it looks for the configuration of its network [default: asked of it]
    #[arg(long, value_name = "DIR")]
    cni_conf_dir: Option<PathBuf>,
}

impl Cri {
    /// Of a node of this kind.
    pub fn options(&self, kind: &str) -> Option<CriOptions> {
        (kind == "cri").then(|| CriOptions {
            endpoint: self.container_runtime_endpoint.clone(),
            cni_bin_dir: self.cni_bin_dir.clone(),
            cni_conf_dir: self.cni_conf_dir.clone(),
        })
    }
}

/// What pods may reach.
#[derive(Args, Debug)]
pub struct Outside {
    /// How pods reach what is outside of the cluster: relay (TCP and UDP, from this machine) or none
    #[arg(long, value_name = "WAY", default_value = "relay", value_parser = ["relay", "none"])]
    pods_outside: String,
}

impl Outside {
    pub fn way(&self) -> WayOut {
        if self.pods_outside == "none" { WayOut::None } else { WayOut::Relay }
    }
}

impl Up {
    pub async fn run(self, global: &Global) -> Outcome {
        let began = Instant::now();
        // Told before anything is started, so that none is lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(|why| Failure::new(format!("signals: {why}")))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|why| Failure::new(format!("signals: {why}")))?;
        let data = data_folder(self.data.as_deref())?;
        private_folder(&data)?;
        let data = data.canonicalize().map_err(|why| Failure::new(format!("{}: {why}", data.display())))?;
        let listener = TcpListener::bind(self.listen).await.map_err(|why| {
            Failure::new(format!("cannot listen on {}: {why}; choose another with --listen ADDRESS:PORT", self.listen))
        })?;
        let address = listener.local_addr().map_err(|why| Failure::new(format!("cannot listen: {why}")))?;
        tracing::debug!(us = began.elapsed().as_micros(), "listener");
        let options = self.options(&data, address)?;
        // What is in memory is gone with the server, and so are pods of it.
        let keep = !self.store.as_deref().is_some_and(|store| store.starts_with("memory:"));
        let node_folder = data.join("node");
        let no_node = |why| Failure::new(why).hint("to serve without running pods: kemudi up --node none");
        // The lock of a store on a disk tells whether the folder is somebody else's, before anything of a node's is touched.
        let ground = match self.node == "sandbox" && !keep {
            true => Some(local_node::prepare(&node_folder).map_err(no_node)?),
            false => None,
        };
        let cluster = match &ground {
            Some(ground) => Cluster::beside(ground, options).await,
            None => Cluster::with(options).await,
        };
        let mut cluster = cluster.map_err(Failure::new)?;
        tracing::debug!(us = began.elapsed().as_micros(), "cluster");
        cluster.listen(listener);
        let kubeconfig = global.kubeconfig.clone().unwrap_or_else(|| data.join("admin.kubeconfig"));
        let mut certificates = cluster.server().state().pki.subscribe();
        let text = cluster.admin_kubeconfig().map_err(Failure::new)?;
        // Before the node is there: a file that comes later could not be hidden from pods.
        write_private(&kubeconfig, &text)?;
        if self.node != "none" {
            let node = NodeOptions {
                name: super::run::host_name(),
                state_dir: node_folder,
                images: super::image::store_in(&data),
                hidden: super::run::hidden(self.keys(&data, &kubeconfig)),
                node_ports: true,
                outside: self.outside.way(),
                cri: self.cri.options(&self.node),
                keep,
                serving: None,
            };
            cluster.start_node_on(ground, node).await.map_err(no_node)?;
        }
        let line = format!(
            "kemudi is up at {} (kubeconfig {}) after {} ms\n",
            cluster.url(),
            kubeconfig.display(),
            began.elapsed().as_millis()
        );
        // Nobody reading it is no reason to stop.
        let _ = std::io::stdout().write_all(line.as_bytes());
        let _ = std::io::stdout().flush();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                Ok(()) = certificates.changed() => renew_kubeconfig(&cluster, &kubeconfig),
            }
        }
        cluster.drain();
        // Load balancers look at /readyz in their own time. Who asks twice means it.
        tokio::select! {
            () = tokio::time::sleep(self.shutdown_delay_duration) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cluster.stop().await.map_err(Failure::new)
    }

    /// Where this server's keys and values are. Pods are this machine's programs, and must not find them.
    fn keys(&self, data: &Path, kubeconfig: &Path) -> Vec<PathBuf> {
        let store = self.store.as_ref().and_then(|store| store.strip_prefix("disk://")).map(PathBuf::from);
        let files = [
            Some(data.to_path_buf()),
            Some(kubeconfig.to_path_buf()),
            store,
            self.token_auth_file.clone(),
            self.tls_private_key_file.clone(),
            self.service_account_signing_key_file.clone(),
            self.authn.authentication_token_webhook_config_file.clone(),
        ];
        files.into_iter().flatten().collect()
    }

    fn options(&self, data: &Path, address: SocketAddr) -> Result<Options, Failure> {
        let mut names = self.tls_san.clone();
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        let service_address = server::pki::first_address(&self.service_cluster_ip_range).map_err(Failure::new)?;
        Ok(Options {
            store: self.store.clone().unwrap_or_else(|| format!("disk://{}", data.join("store").display())),
            pki_folder: Some(data.join("pki")),
            pki: server::pki::Options {
                names,
                service_address,
                serving_files: self.tls_cert_file.clone().zip(self.tls_private_key_file.clone()),
                client_ca_file: self.client_ca_file.clone(),
                signing_key_file: self.service_account_signing_key_file.clone(),
                verifying_key_files: self.service_account_key_file.clone(),
                ..server::pki::Options::default()
            },
            service_range: self.service_cluster_ip_range.clone(),
            advertise: SocketAddr::new(advertised(address.ip(), service_address), address.port()),
            issuer: self.service_account_issuer.clone(),
            api_audiences: self.api_audiences.clone(),
            token_seconds_max: self.service_account_max_token_expiration,
            token_auth_file: self.token_auth_file.clone(),
            authn: self.authn.options(),
            authz: self.authz.options(),
            audit: self.audit.options(),
            ..Options::default()
        })
    }
}

impl Audit {
    fn options(&self) -> server::audit::Options {
        let (backups, days) = (self.audit_log_maxbackup as usize, self.audit_log_maxage);
        server::audit::Options {
            policy_file: self.audit_policy_file.clone(),
            log_path: self.audit_log_path.clone(),
            limits: server::audit::Limits::of_megabytes(self.audit_log_maxsize, backups, days),
            strict: self.audit_log_mode == "blocking-strict",
        }
    }
}

/// The address that Endpoints may name: the one listened on, or, as that may be no loopback address, this machine's own.
fn advertised(listened: IpAddr, service_address: IpAddr) -> IpAddr {
    if !listened.is_loopback() && !listened.is_unspecified() {
        return listened;
    }
    // Connecting a datagram socket sends nothing; it only asks the kernel for the way out.
    let way_out = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok::<_, std::io::Error>(socket.local_addr()?.ip())
    };
    match way_out() {
        Ok(address) if !address.is_loopback() && !address.is_unspecified() => address,
        // A machine without a network: pods reach the server under this one all the same.
        _ => service_address,
    }
}

/// A duration as Go writes it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = api::go::parse_duration(text)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text} is no time that can be waited"))
}

/// The folder that `--data` names, else the user's state folder.
pub(super) fn data_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    given.map_or_else(state_folder, |given| Ok(given.to_path_buf()))
}

/// `$XDG_STATE_HOME/kemudi`, else `~/.local/state/kemudi`.
pub(super) fn state_folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    state
        .map(|state| state.join("kemudi"))
        .ok_or_else(|| Failure::new("there is no home folder: say where to keep state with --data DIR"))
}

/// Makes a folder that only this user can enter.
pub(super) fn private_folder(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|why| Failure::new(format!("cannot make {}: {why}; choose another with --data DIR", path.display())))
}

/// The administrator's, after keys or authorities have changed.
fn renew_kubeconfig(cluster: &Cluster, path: &Path) {
    let written = cluster.admin_kubeconfig().map_err(Failure::new).and_then(|text| rewrite_private(path, &text));
    if let Err(failure) = written {
        eprint!("warning: {} is as it was: {failure}", path.display());
    }
}

/// Writes a file anew that pods may be running beside: in its place, as another file there would no longer be hidden from them.
fn rewrite_private(path: &Path, text: &str) -> Result<(), Failure> {
    let Ok(mut file) = fs::OpenOptions::new().write(true).open(path) else { return write_private(path, text) };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
    written.map_err(|why| Failure::new(format!("cannot write {}: {why}", path.display())))
}

/// Writes a file that only this user can read, in one step.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |why: std::io::Error| Failure::new(format!("cannot write {}: {why}", path.display()));
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}
