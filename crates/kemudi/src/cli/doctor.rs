//! `kemudi doctor`: each step from here to the server and back, what is wrong with it, and what to do. Changes nothing.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use kemudi_client::config::{SERVICE_ACCOUNT_DIR, SERVICE_ACCOUNT_DIR_VARIABLE};
use kemudi_client::token::Claims;
use kemudi_client::{Client, Config};
use serde_json::{Value, json};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::token::token_of;
use super::{Failure, Global, Outcome, auth, output, print, whoami};

/// Longest wait for each step that asks the network.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub struct Doctor {}

/// How a step ended.
enum Found {
    Good(String),
    /// Works, but may surprise.
    Odd(String, String),
    /// What is wrong, and what to do.
    Bad(String, String),
}

use Found::{Bad, Good, Odd};

struct Report {
    bad: usize,
}

impl Doctor {
    pub async fn run(self, global: &Global) -> Outcome {
        let mut report = Report { bad: 0 };
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let in_pod = env("KUBERNETES_SERVICE_HOST").is_some();
        report.tell("environment", environment(&env))?;
        report.tell("proxy", proxy(&env))?;
        let dir = PathBuf::from(env(SERVICE_ACCOUNT_DIR_VARIABLE).unwrap_or(SERVICE_ACCOUNT_DIR.into()));
        if in_pod || dir.exists() {
            for file in ["token", "ca.crt", "namespace"] {
                report.tell(file, projected(&dir, file))?;
            }
        }
        match global.config() {
            Err(error) => {
                let text = error.to_string();
                let (what, fix) = text.split_once("\n  ").unwrap_or((&text, "see the steps above"));
                report.tell("configuration", Bad(what.to_string(), fix.to_string()))?;
            }
            Ok(config) => {
                let what = format!("{} from {}, namespace {}", config.server, config.source, config.namespace);
                report.tell("configuration", Good(what))?;
                server(&mut report, config, global).await?;
            }
        }
        if !in_pod {
            report.tell("pods here", sandbox().await)?;
        }
        match report.bad {
            0 => Ok(()),
            1 => Err(Failure::new("1 step failed; begin with it").hint("the line after it says what to do")),
            bad => Err(Failure::new(format!("{bad} steps failed; begin with the first"))
                .hint("the line after each says what to do")),
        }
    }
}

impl Report {
    fn tell(&mut self, step: &str, found: Found) -> Outcome {
        let line = match found {
            Good(what) => format!("ok    {step}: {what}\n"),
            Odd(what, fix) => format!("note  {step}: {what}\n      {fix}\n"),
            Bad(what, fix) => {
                self.bad += 1;
                format!("FAIL  {step}: {what}\n      {fix}\n")
            }
        };
        print(line)
    }
}

/// The way to the server, step by step; what comes after a failed step would only fail for the same reason.
async fn server(report: &mut Report, config: Config, global: &Global) -> Outcome {
    let claims = token_of(&config).ok().flatten().and_then(|token| Claims::decode(&token));
    report.tell("credentials", credentials(&config))?;
    let (host, port) = (config.server.host.clone(), config.server.port);
    let namespace = config.namespace.clone();
    let Some(addresses) = names(report, &host, port).await? else { return Ok(()) };
    let begun = Instant::now();
    match timeout(STEP_TIMEOUT, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_)) => report.tell("connection", Good(format!("{host}:{port} in {:.1} ms", ms(begun))))?,
        Ok(Err(error)) => {
            let fix = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "nothing listens there: is the server running, and is this its address?"
                }
                _ => "no way there: look at routes, NetworkPolicies and firewalls",
            };
            return report.tell("connection", Bad(format!("{host}:{port}: {error}"), fix.to_string()));
        }
        Err(_) => {
            let fix = "packets get lost: look at NetworkPolicies and firewalls";
            return report.tell("connection", Bad(format!("{host}:{port}: no answer in 5s"), fix.to_string()));
        }
    }
    let client = match global.client() {
        Ok(client) => client,
        Err(error) => return report.tell("TLS", of_error(error)),
    };
    if !speaks(report, &client).await? {
        return Ok(());
    }
    match whoami::review(&client).await {
        Err(error) if error.is_unauthorized() => {
            let (what, fix) = refused(claims.as_ref());
            return report.tell("identity", Bad(what, fix));
        }
        Err(error) => return report.tell("identity", of_error(error)),
        Ok(review) => report.tell("identity", identity(&review["status"]["userInfo"]))?,
    }
    let spec = json!({"resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "pods"}});
    match auth::allowed(&client, spec).await {
        Ok((true, _)) => report.tell("rights", Good(format!("may list pods in namespace {namespace}"))),
        Ok((false, _)) => report.tell(
            "rights",
            Odd(
                format!("may not list pods in namespace {namespace}"),
                "a new account may do almost nothing; see what it may: kemudi auth can-i --list; give it a Role and a RoleBinding: \
                 kemudi create role, kemudi create rolebinding"
                    .to_string(),
            ),
        ),
        Err(error) => report.tell("rights", of_error(error)),
    }
}

async fn speaks(report: &mut Report, client: &Client) -> Outcome<bool> {
    let begun = Instant::now();
    match client.get::<Value>("/version").await {
        Ok(version) => {
            let text = version["gitVersion"].as_str().unwrap_or("an unnamed version").to_string();
            report
                .tell("server", Good(format!("{text}, its certificate is trusted, answered in {:.1} ms", ms(begun))))?;
            Ok(true)
        }
        // An answer, whatever it says, came over a connection that is trusted.
        Err(error) if error.status().is_some() => {
            report.tell(
                "server",
                Odd(format!("/version answered: {error}"), "who may see it decides the server".into()),
            )?;
            Ok(true)
        }
        Err(error) => {
            report.tell("server", of_error(error))?;
            Ok(false)
        }
    }
}

async fn names(report: &mut Report, host: &str, port: u16) -> Outcome<Option<Vec<std::net::SocketAddr>>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Some(vec![(address, port).into()]));
    }
    let begun = Instant::now();
    let found = match timeout(STEP_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect::<Vec<_>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in 5s".to_string()),
    };
    match found {
        Ok(found) if !found.is_empty() => {
            let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            report.tell("name", Good(format!("{host} is {} ({:.1} ms)", shown.join(", "), ms(begun))))?;
            Ok(Some(found))
        }
        other => {
            let why = other.err().unwrap_or("no address".to_string());
            let fix =
                "check the spelling; in a pod look at /etc/resolv.conf, the pod's dnsPolicy and the cluster's DNS pods";
            report.tell("name", Bad(format!("{host}: {why}"), fix.to_string()))?;
            Ok(None)
        }
    }
}

fn environment(env: &dyn Fn(&str) -> Option<String>) -> Found {
    let (host, port) = (env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT"));
    match (host, port, env("KUBECONFIG")) {
        (Some(host), Some(port), None) => {
            let what = format!("in a pod: KUBERNETES_SERVICE_HOST={host} KUBERNETES_SERVICE_PORT={port}");
            match host_and_port(&host, &port) {
                None => Good(what),
                Some(fix) => Odd(what, fix),
            }
        }
        (Some(host), Some(_), Some(file)) if !std::path::Path::new(&file).exists() => Odd(
            format!("in a pod (KUBERNETES_SERVICE_HOST={host}), and KUBECONFIG={file} is set, which is no file"),
            "the pod's own account is used; unset KUBECONFIG, or set it to a file that is there".to_string(),
        ),
        (Some(host), Some(_), Some(file)) => Odd(
            format!("in a pod (KUBERNETES_SERVICE_HOST={host}), yet KUBECONFIG={file} is set"),
            "the kubeconfig wins; unset KUBECONFIG to use the pod's own account".to_string(),
        ),
        (None, None, Some(file)) => Good(format!("not in a pod, KUBECONFIG={file}")),
        (None, None, None) => Good("not in a pod, no KUBECONFIG: ~/.kube/config is used".to_string()),
        (host, _, _) => {
            let missing = if host.is_none() { "KUBERNETES_SERVICE_HOST" } else { "KUBERNETES_SERVICE_PORT" };
            let fix = "something on the way to this process removes variables (sudo, env -i, a service manager); pass both on";
            Bad(format!("{missing} is not set, its partner is"), fix.to_string())
        }
    }
}

/// What clients make of an address that this one understands.
fn host_and_port(host: &str, port: &str) -> Option<String> {
    /// The JavaScript client speaks plain HTTP to these.
    const PLAIN_PORTS: [&str; 3] = ["80", "8080", "8001"];
    if host.starts_with('[') {
        return Some("an IPv6 address stands there without brackets: clients put them around it once more".to_string());
    }
    let plain = PLAIN_PORTS.contains(&port);
    plain.then(|| format!("the JavaScript client speaks plain HTTP to port {port}: serve the API on another port"))
}

fn proxy(env: &dyn Fn(&str) -> Option<String>) -> Found {
    let set = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].into_iter().find(|name| env(name).is_some());
    let Some(name) = set else { return Good("none set".to_string()) };
    let except = env("NO_PROXY").or(env("no_proxy")).unwrap_or_default();
    let host = env("KUBERNETES_SERVICE_HOST").unwrap_or_default();
    if host.is_empty() || except.split(',').any(|entry| entry.trim() == host) {
        return Good(format!("{name} is set; this client goes straight to the server"));
    }
    Odd(
        format!("{name} is set and NO_PROXY does not have {host}"),
        format!(
            "this client goes straight to the server; others (Go, Python) would ask the proxy: add {host} to NO_PROXY"
        ),
    )
}

/// One of the three files of a service account.
fn projected(dir: &Path, name: &str) -> Found {
    let path = dir.join(name);
    let meta = match std::fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if name == "namespace" => {
            return Odd(
                format!("{}: {error}", path.display()),
                "the namespace is taken from the token instead".to_string(),
            );
        }
        Err(error) => {
            let fix = "set automountServiceAccountToken to true on the pod or its ServiceAccount, or mount a projected token volume there";
            return Bad(format!("{}: {error}", path.display()), fix.to_string());
        }
    };
    let place = format!(
        "{} ({} bytes, mode {:04o}, owner {}:{})",
        path.display(),
        meta.len(),
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid()
    );
    match std::fs::read(&path) {
        Err(error) => Bad(
            format!("{place}: {error}"),
            "set securityContext.fsGroup to a group of this process, or run as the file's owner".into(),
        ),
        Ok(bytes) if bytes.trim_ascii().is_empty() => {
            Bad(format!("{place} is empty"), "describe the pod: the volume's events say why".to_string())
        }
        Ok(bytes) if name != "ca.crt" && bytes.ends_with(b"\n") => Odd(
            format!("{place} ends in a line break"),
            "this client trims it; others (Python, JavaScript, kube-rs) do not: write the file without".to_string(),
        ),
        Ok(_) if !dir.join("..data").exists() => Odd(
            format!("{place}, no ..data link"),
            "it was not projected by a kubelet, so nobody renews it".to_string(),
        ),
        Ok(_) => Good(place),
    }
}

/// What is likely where the server refuses a token that says this of itself.
fn refused(claims: Option<&Claims>) -> (String, String) {
    let Some(claims) = claims else {
        let fix =
            "the server does not know this token or certificate: it may be mistyped, of another cluster, or expired";
        return ("401 Unauthorized".to_string(), fix.to_string());
    };
    // An API server's own audience is its issuer, where nobody said otherwise.
    if !claims.audiences.is_empty() && !claims.audiences.contains(&claims.issuer) {
        return (
            format!("401 Unauthorized: the token is for {}", claims.audiences.join(" and ")),
            "a token for another audience is good for that one only: use the one at the usual place, or ask for one \
             without an audience: kemudi create token NAME"
                .to_string(),
        );
    }
    let bound = claims.kubernetes.pod.as_ref().map(|pod| format!("its pod {} or ", pod.name)).unwrap_or_default();
    (
        "401 Unauthorized".to_string(),
        format!(
            "the token looks sound, so that it is revoked or foreign: {bound}its account {} was deleted (or made anew), or \
             another cluster signed it; take a fresh token of this cluster",
            claims.subject
        ),
    )
}

fn credentials(config: &Config) -> Found {
    let token = match token_of(config) {
        Ok(Some(token)) => token,
        Ok(None) if config.client_certificate.is_some() => return Good("a client certificate".to_string()),
        Ok(None) => {
            return Odd(
                "none: requests are anonymous".into(),
                "give a token (--token), a kubeconfig with a user, or run in a pod".into(),
            );
        }
        Err(why) => return Bad(why.message.replacen("error: ", "", 1), "see the steps above".to_string()),
    };
    match Claims::decode(&token) {
        None => Good("a token that is no JWT".to_string()),
        Some(claims) => said(&claims, jiff::Timestamp::now().as_second()),
    }
}

/// What a token says of itself at a time, in seconds since 1970.
fn said(claims: &Claims, now: i64) -> Found {
    let pod = claims.kubernetes.pod.as_ref().map(|pod| format!(", bound to pod {}", pod.name)).unwrap_or_default();
    let who = format!("token of {}{pod}, for {}", claims.subject, claims.audiences.join(" and "));
    let span = |from: i64, to: i64| {
        let at = |second| jiff::Timestamp::from_second(second).unwrap_or_default();
        output::age(&at(from).to_string(), at(to))
    };
    match (claims.expires, claims.kubernetes.warnafter) {
        (Some(expires), _) if expires <= now => Bad(
            format!("{who}, expired {} ago", span(expires, now)),
            "read the file again (a kubelet renews it), or ask for another: kemudi create token NAME".to_string(),
        ),
        _ if claims.issued.is_some_and(|issued| issued > now + 10) => Bad(
            format!("{who}, issued {} in the future", span(now, claims.issued.unwrap_or(now))),
            "this machine's clock is behind the server's".to_string(),
        ),
        (Some(_), Some(warn)) if warn <= now => Odd(
            format!("{who}, should have been renewed {} ago", span(warn, now)),
            "the program keeps an old token: read the file for each request, or use a client that does".to_string(),
        ),
        (Some(expires), _) => {
            Good(format!("{who}, expires in {}", span(now, claims.kubernetes.warnafter.unwrap_or(expires))))
        }
        (None, _) => {
            Odd(format!("{who}, never expires"), "prefer tokens that do: kemudi create token NAME".to_string())
        }
    }
}

fn identity(user: &Value) -> Found {
    let name = user["username"].as_str().unwrap_or_default();
    match name {
        "system:anonymous" => Odd(
            "the server takes us for system:anonymous".to_string(),
            "no credentials reached it: see the step credentials above".to_string(),
        ),
        name => Good(name.to_string()),
    }
}

fn of_error(error: kemudi_client::Error) -> Found {
    let text = error.to_string();
    match text.split_once("\n  ") {
        Some((what, fix)) => Bad(what.to_string(), fix.to_string()),
        None => Bad(text, "look at the server's log for this request".to_string()),
    }
}

/// Whether this host lets us make pods: makes an empty one and takes it away.
async fn sandbox() -> Found {
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            return Bad(format!("no temporary folder: {error}"), "set TMPDIR to a folder that you may write to".into());
        }
    };
    match timeout(STEP_TIMEOUT, node::sandbox::check(dir.path())).await {
        Ok(Ok(())) => Good("this host lets this user start pods".to_string()),
        Ok(Err(node::sandbox::Error::Forbidden(no))) => Odd(
            format!("this host does not let this user start pods: {}", no.why),
            match no.command {
                Some(command) => format!("an administrator types: {command}"),
                None => "only `kemudi run` and `kemudi up` need it; use another machine or user for them".to_string(),
            },
        ),
        Ok(Err(error)) => {
            Odd(format!("a pod could not be started: {error}"), "only `kemudi run` and `kemudi up` need it".into())
        }
        Err(_) => Odd("no pod was ready in 5s".to_string(), "only `kemudi run` and `kemudi up` need it".into()),
    }
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use kemudi_client::token::{Bound, Named};

    use super::*;

    #[track_caller]
    fn check(expires: Option<i64>, warnafter: Option<i64>, want: &str) {
        let kubernetes =
            Bound { pod: Some(Named { name: "p".into(), uid: "u".into() }), warnafter, ..Bound::default() };
        let claims =
            Claims { subject: "s".into(), audiences: vec!["a".into()], expires, kubernetes, ..Claims::default() };
        let got = match said(&claims, 1_800_000_000) {
            Good(what) => format!("ok {what}"),
            Odd(what, _) => format!("odd {what}"),
            Bad(what, _) => format!("bad {what}"),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn tokens_are_explained() {
        let now = 1_800_000_000;
        check(Some(now + 100), None, "ok token of s, bound to pod p, for a, expires in 100s");
        check(Some(now - 100), None, "bad token of s, bound to pod p, for a, expired 100s ago");
        check(
            Some(now + 9000),
            Some(now - 60),
            "odd token of s, bound to pod p, for a, should have been renewed 60s ago",
        );
        check(None, None, "odd token of s, bound to pod p, for a, never expires");
    }
}
