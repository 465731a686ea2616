//! `kemudi doctor`: each step from here to the server and back, what is wrong with it, and what to do. Changes nothing, and waits
//! no longer in all than it is told to.

mod clock;

use std::future::Future;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use http_body_util::BodyExt;
use kemudi_client::client::request;
use kemudi_client::config::{SERVICE_ACCOUNT_DIR, SERVICE_ACCOUNT_DIR_VARIABLE, Server};
use kemudi_client::token::Claims;
use kemudi_client::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::{Failure, Global, Outcome, auth, duration, now, output, print, token_of, whoami};

// A command of kemudi's takes these flags too and has the same name, which a group of flags may have once.
#[derive(Args, Debug)]
#[group(skip)]
pub struct Doctor {
    /// Longest wait for all steps together, such as 5s
    #[arg(long, value_name = "TIME", default_value = "800ms", value_parser = duration)]
    timeout: Duration,
}

/// How a step ended.
pub enum Found {
    Good(String),
    /// Works, but may surprise.
    Odd(String, String),
    /// What is wrong, and what to do.
    Bad(String, String),
}

use Found::{Bad, Good, Odd};

struct Report {
    bad: usize,
    /// When all steps must be over, and how long that was when they began.
    until: tokio::time::Instant,
    patience: Duration,
}

/// A step took longer than there was time for all of them.
struct TooLong;

impl Doctor {
    /// `here` finds out whether pods can be started on this machine, where that is of interest.
    pub async fn run(self, global: &Global, here: Option<impl Future<Output = Found>>) -> Outcome {
        let until = tokio::time::Instant::now() + self.timeout;
        let mut report = Report { bad: 0, until, patience: self.timeout };
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
        // Whether pods can be started here has nothing to do with the server: the time for both is the same.
        let here = async {
            match here.filter(|_| !in_pod) {
                None => None,
                Some(here) => Some(timeout_at(until, here).await),
            }
        };
        let (there, here) = tokio::join!(way(&mut report, global), here);
        there?;
        match here {
            None => {}
            Some(Ok(found)) => report.tell("pods here", found)?,
            Some(Err(_)) => {
                let (what, _) = report.too_long("no pod was ready");
                report.tell("pods here", Odd(what, "only `kemudi run` and `kemudi up` need it".into()))?;
            }
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
    /// Waits for a step as long as there is time.
    async fn within<T>(&self, step: impl Future<Output = T>) -> Result<T, TooLong> {
        timeout_at(self.until, step).await.map_err(|_| TooLong)
    }

    /// What hit the limit, and how to wait longer.
    fn too_long(&self, what: &str) -> (String, String) {
        let longer =
            format!("; to wait longer: {} doctor --timeout {}s", crate::program(), (self.patience.as_secs() + 1) * 5);
        (format!("{what} in the {:?} that all steps may take", self.patience), longer)
    }

    /// The same as a step that failed, with what is likely.
    fn silent(&self, what: &str, fix: &str) -> Found {
        let (what, longer) = self.too_long(what);
        Bad(what, format!("{fix}{longer}"))
    }

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
async fn way(report: &mut Report, global: &Global) -> Outcome {
    let config = match global.config() {
        Ok(config) => config,
        Err(error) => {
            let text = error.to_string();
            let (what, fix) = text.split_once("\n  ").unwrap_or((&text, "see the steps above"));
            return report.tell("configuration", Bad(what.to_string(), fix.to_string()));
        }
    };
    let what = format!("{} from {}, namespace {}", config.server, config.source, config.namespace);
    report.tell("configuration", Good(what))?;
    let claims = token_of(&config).ok().flatten().and_then(|token| Claims::decode(&token));
    report.tell("credentials", credentials(&config))?;
    let (host, port) = (config.server.host.clone(), config.server.port);
    let Some(addresses) = names(report, &config).await? else { return Ok(()) };
    let begun = Instant::now();
    match report.within(TcpStream::connect(addresses.as_slice())).await {
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
        Err(TooLong) => {
            let fix = "packets get lost: look at NetworkPolicies and firewalls";
            return report.tell("connection", report.silent(&format!("{host}:{port}: no answer"), fix));
        }
    }
    let client = match global.client() {
        Ok(client) => client,
        Err(error) => return report.tell("TLS", of_error(error)),
    };
    match speaks(report, &client, &config).await? {
        true => rights(report, &client, claims.as_ref(), &config.namespace).await,
        false => Ok(()),
    }
}

/// TLS, and a first answer, with the time that it tells.
async fn speaks(report: &mut Report, client: &Client, config: &Config) -> Outcome<bool> {
    let begun = Instant::now();
    match report.within(client.connect()).await {
        Err(TooLong) => {
            let fix = "it takes connections and says nothing: is this an HTTPS port, is the server overloaded, or a proxy in between?";
            report.tell("server", report.silent("the TLS handshake was not over", fix))?;
            return Ok(false);
        }
        Ok(Err(error)) => {
            let untrusted = matches!(error, kemudi_client::Error::Tls { .. });
            report.tell("server", of_error(error))?;
            if untrusted && let Ok(Some(found)) = report.within(clock::of_untrusted(config)).await {
                report.tell("clock", found)?;
            }
            return Ok(false);
        }
        Ok(Ok(())) => {}
    }
    let asked = now();
    let answer = match request(Method::GET, "/version", None) {
        Ok(request) => report.within(client.send(request)).await,
        Err(error) => Ok(Err(error)),
    };
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            report.tell("server", of_error(error))?;
            return Ok(false);
        }
        Err(TooLong) => {
            let fix =
                "its certificate is trusted, so it is the one: look whether it is overloaded or starting (its log)";
            report.tell("server", report.silent("no answer to /version", fix))?;
            return Ok(false);
        }
    };
    let clock = clock::told(&answer, asked, now());
    let code = answer.status();
    let body = report.within(answer.into_body().collect()).await;
    let version: Option<Value> =
        body.ok().and_then(Result::ok).and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    let version = version.unwrap_or_default();
    let found = match code.is_success() {
        true => {
            let text = version["gitVersion"].as_str().unwrap_or("an unnamed version").to_string();
            Good(format!("{text}, its certificate is trusted, answered in {:.1} ms", ms(begun)))
        }
        // An answer, whatever it says, came over a connection that is trusted.
        false => {
            let why = version["message"].as_str().unwrap_or_default();
            Odd(format!("/version answered: {code} {why}"), "who may see it decides the server".into())
        }
    };
    report.tell("server", found)?;
    if let Some(found) = clock {
        report.tell("clock", found)?;
    }
    Ok(true)
}

/// Who the server takes us for, and a first question about what we may do.
async fn rights(report: &mut Report, client: &Client, claims: Option<&Claims>, namespace: &str) -> Outcome {
    let spec = json!({"resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "pods"}});
    let asked =
        async { tokio::join!(report.within(whoami::review(client)), report.within(auth::allowed(client, spec))) };
    let (identified, allowed) = asked.await;
    const BUSY: &str = "it answers other questions: look whether it is overloaded (its log)";
    match identified {
        Err(TooLong) => return report.tell("identity", report.silent("no answer to who we are", BUSY)),
        Ok(Err(error)) if error.is_unauthorized() => {
            let (what, fix) = refused(claims);
            return report.tell("identity", Bad(what, fix));
        }
        Ok(Err(error)) => return report.tell("identity", of_error(error)),
        Ok(Ok(review)) => report.tell("identity", identity(&review["status"]["userInfo"]))?,
    }
    let found = match allowed {
        Err(TooLong) => report.silent("no answer to what we may do", BUSY),
        Ok(Ok((true, _))) => Good(format!("may list pods in namespace {namespace}")),
        Ok(Ok((false, _))) => Odd(
            format!("may not list pods in namespace {namespace}"),
            format!(
                "a new account may do almost nothing; see what it may: {} auth can-i --list; give it a Role and a RoleBinding: \
                 kubectl create role, kubectl create rolebinding",
                crate::program()
            ),
        ),
        Ok(Err(error)) => of_error(error),
    };
    report.tell("rights", found)
}

async fn names(report: &mut Report, config: &Config) -> Outcome<Option<Vec<std::net::SocketAddr>>> {
    let Server { host, port, .. } = &config.server;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Some(vec![(address, *port).into()]));
    }
    const FIX: &str =
        "check the spelling; in a pod look at /etc/resolv.conf, the pod's dnsPolicy and the cluster's DNS pods";
    let begun = Instant::now();
    let found = match report.within(config.addresses(host, *port)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            report.tell("name", Bad(format!("{host}: {error}"), FIX.to_string()))?;
            return Ok(None);
        }
        Err(TooLong) => {
            report.tell("name", report.silent(&format!("{host}: no answer of the resolver"), FIX))?;
            return Ok(None);
        }
    };
    if found.is_empty() {
        report.tell("name", Bad(format!("{host}: no address"), FIX.to_string()))?;
        return Ok(None);
    }
    let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
    report.tell("name", Good(format!("{host} is {} ({:.1} ms)", shown.join(", "), ms(begun))))?;
    Ok(Some(found))
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
        Some(claims) => said(&claims, now()),
    }
}

/// What a token says of itself at a time, in seconds since 1970.
fn said(claims: &Claims, now: i64) -> Found {
    let pod = claims.kubernetes.pod.as_ref().map(|pod| format!(", bound to pod {}", pod.name)).unwrap_or_default();
    let who = format!("token of {}{pod}, for {}", claims.subject, claims.audiences.join(" and "));
    let span = |from: i64, to: i64| output::human_duration(to - from);
    match (claims.expires, claims.kubernetes.warnafter) {
        (Some(expires), _) if expires <= now => Bad(
            format!("{who}, expired {} ago", span(expires, now)),
            "read the file again (a kubelet renews it), or ask for another: kemudi create token NAME".to_string(),
        ),
        _ if claims.issued.is_some_and(|issued| issued > now + 10) => Bad(
            format!("{who}, issued {} in the future", span(now, claims.issued.unwrap_or(now))),
            "this machine's clock is behind the server's: see the step clock below".to_string(),
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
