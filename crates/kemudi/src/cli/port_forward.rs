//! `kemudi port-forward`: ports of a pod on this machine, until it is interrupted or the pod goes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use kemudi_client::{Error, PortForwarder};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use super::{Failure, Global, Outcome, pods, print};

/// Connections that are carried at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 400;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kemudi port-forward web 8080:80           the pod's port 80 at 127.0.0.1:8080
  kemudi port-forward web 5432 :9090        5432 at 5432, 9090 wherever there is room
  kemudi port-forward deployment/web 8080:80")]
pub struct PortForward {
    /// POD, pod/POD, or TYPE/NAME of what selects pods
    #[arg(value_name = "POD")]
    pod: String,
    /// What to reach where: LOCAL:REMOTE, PORT for both, :REMOTE for any local port
    #[arg(value_name = "PORTS", required = true)]
    ports: Vec<String>,
    /// Addresses of this machine to listen on
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
}

impl PortForward {
    pub async fn run(self, global: &Global) -> Outcome {
        let pairs: Vec<(u16, u16)> = self.ports.iter().map(|word| pair(word)).collect::<Outcome<_>>()?;
        let client = global.client()?;
        let namespace = client.default_namespace().to_string();
        let api = pods::api(client, &namespace);
        let pod = pods::find(&api, &self.pod, &namespace).await?;
        let name = api::meta::name(&pod).to_string();
        let phase = api::meta::text_at(&pod, &["status", "phase"]);
        if phase != "Running" {
            let text = format!("unable to forward port because pod is not running. Current status={phase}");
            return Err(Failure::new(text).hint(format!("see why: kemudi get pod {name} -n {namespace} -o yaml")));
        }
        let way = api.port_forward(&name).await?;
        let mut listening = JoinSet::new();
        let way = Arc::new(Mutex::new(way));
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        for (local, remote) in pairs {
            for listener in self.listen(local).await? {
                let at = listener.local_addr()?;
                print(format!("Forwarding from {at} -> {remote}\n"))?;
                listening.spawn(serve(listener, remote, way.clone(), seats.clone()));
            }
        }
        // Each of them ends only with the way to the pod.
        match listening.join_next().await {
            Some(Ok(Err(failure))) => Err(failure),
            _ => Err(Failure::new("lost connection to pod")),
        }
    }

    /// Listens on every address that there is; `localhost` is both of its kinds, and one of them is enough.
    async fn listen(&self, port: u16) -> Outcome<Vec<TcpListener>> {
        let mut all: Vec<TcpListener> = Vec::new();
        for address in &self.address {
            let wanted: Vec<IpAddr> = match address.as_str() {
                "localhost" => vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
                address => match address.parse() {
                    Ok(address) => vec![address],
                    Err(_) => return Err(Failure::new(format!("{address:?} is not an address, nor localhost"))),
                },
            };
            let before = all.len();
            let mut refused = None;
            for ip in wanted {
                // Any port is one for both kinds.
                let port = match all.last().and_then(|last| last.local_addr().ok()) {
                    Some(last) if port == 0 => last.port(),
                    _ => port,
                };
                match TcpListener::bind(SocketAddr::new(ip, port)).await {
                    Ok(listener) => all.push(listener),
                    Err(why) => refused = Some(format!("unable to listen on {ip}, port {port}: {why}")),
                }
            }
            if let (true, Some(why)) = (all.len() == before, refused) {
                return Err(Failure::new(why).hint("choose another local port: LOCAL:REMOTE, or :REMOTE for any"));
            }
        }
        Ok(all)
    }
}

/// `LOCAL:REMOTE`, `PORT`, `:REMOTE`.
fn pair(word: &str) -> Outcome<(u16, u16)> {
    let wrong = || Failure::new(format!("invalid port {word:?}: write LOCAL:REMOTE, PORT or :REMOTE"));
    let (local, remote) = word.split_once(':').unwrap_or((word, word));
    let remote = remote.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let local = if local.is_empty() { 0 } else { local.parse().map_err(|_| wrong())? };
    Ok((local, remote))
}

/// Carries connections to a port until the way to the pod ends.
async fn serve(listener: TcpListener, remote: u16, way: Arc<Mutex<PortForwarder>>, seats: Arc<Semaphore>) -> Outcome {
    let local = listener.local_addr()?.port();
    let ended = way.lock().await.ended();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(seat) = seats.clone().acquire_owned().await else { return Ok(()) };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ended.cancelled() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else { continue };
        print(format!("Handling connection for {local}\n"))?;
        let way = way.clone();
        connections.spawn(async move {
            if let Err(why) = carry(stream, remote, &way).await {
                eprintln!("error: an error occurred forwarding {local} -> {remote}: {why}");
            }
            drop(seat);
        });
    }
}

async fn carry(mut stream: TcpStream, remote: u16, way: &Mutex<PortForwarder>) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let opened = way.lock().await.connect(remote).await;
    let mut forwarded = opened.map_err(|why: Error| why.to_string())?;
    // What goes wrong here shows there too; why is told by the pod's node.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut forwarded).await;
    let _ = stream.shutdown().await;
    match forwarded.error().await {
        Some(why) => Err(why),
        None => Ok(()),
    }
}
