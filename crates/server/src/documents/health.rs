//! `/healthz`, `/livez` and `/readyz`: the checks by Kubernetes' own names, each tied to what it depends on here.

use std::collections::BTreeSet;
use std::fmt::Write;

use http::{HeaderValue, header};

use super::Ask;
use crate::respond::{self, Answer};

/// How the server is.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs {
    /// Why the store cannot take writes, where it cannot.
    pub store: Option<String>,
    /// The server has begun to stop: it still answers, but nobody should start to rely on it.
    pub stopping: bool,
}

/// One of the three questions, or one of its checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint<'a> {
    name: &'static str,
    check: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq)]
enum On {
    All,
    /// `livez` and `healthz`.
    Live,
    Ready,
}

/// What a check looks at.
#[derive(Clone, Copy)]
enum Sign {
    /// Holds as soon as a request can be answered at all: a server does not listen before it is through its start.
    Start,
    Store,
    NotStopping,
}

/// All checks, in the order in which they are shown. Names are the API server's, because probes and dashboards use them.
const CHECKS: &[(&str, On, Sign)] = &[
    ("ping", On::All, Sign::Start),
    ("log", On::All, Sign::Start),
    ("loopback-serving-certificate", On::Live, Sign::Start),
    ("etcd", On::All, Sign::Store),
    ("etcd-readiness", On::Ready, Sign::Store),
    ("informer-sync", On::Ready, Sign::Start),
    ("poststarthook/start-apiserver-admission-initializer", On::All, Sign::Start),
    ("poststarthook/generic-apiserver-start-informers", On::All, Sign::Start),
    ("poststarthook/priority-and-fairness-config-consumer", On::All, Sign::Start),
    ("poststarthook/priority-and-fairness-filter", On::All, Sign::Start),
    ("poststarthook/storage-object-count-tracker-hook", On::All, Sign::Start),
    ("poststarthook/start-apiextensions-informers", On::All, Sign::Start),
    ("poststarthook/start-apiextensions-controllers", On::All, Sign::Start),
    ("poststarthook/crd-informer-synced", On::All, Sign::Start),
    ("poststarthook/start-system-namespaces-controller", On::All, Sign::Start),
    ("poststarthook/peer-endpoint-reconciler-controller", On::All, Sign::Start),
    ("poststarthook/start-cluster-authentication-info-controller", On::All, Sign::Start),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", On::All, Sign::Start),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", On::All, Sign::Start),
    ("poststarthook/storage-readiness", On::All, Sign::Start),
    ("poststarthook/start-legacy-token-tracking-controller", On::All, Sign::Start),
    ("poststarthook/start-service-ip-repair-controllers", On::All, Sign::Start),
    ("poststarthook/rbac/bootstrap-roles", On::All, Sign::Start),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", On::All, Sign::Start),
    ("poststarthook/priority-and-fairness-config-producer", On::All, Sign::Start),
    ("poststarthook/bootstrap-controller", On::All, Sign::Start),
    ("poststarthook/start-kubernetes-service-cidr-controller", On::All, Sign::Start),
    ("poststarthook/start-kube-aggregator-informers", On::All, Sign::Start),
    ("poststarthook/apiservice-status-local-available-controller", On::All, Sign::Start),
    ("poststarthook/apiservice-status-remote-available-controller", On::All, Sign::Start),
    ("poststarthook/apiservice-registration-controller", On::All, Sign::Start),
    ("poststarthook/apiservice-discovery-controller", On::All, Sign::Start),
    ("poststarthook/kube-apiserver-autoregistration", On::All, Sign::Start),
    ("autoregister-completion", On::All, Sign::Start),
    ("poststarthook/apiservice-openapi-controller", On::All, Sign::Start),
    ("poststarthook/apiservice-openapiv3-controller", On::All, Sign::Start),
    ("shutdown", On::Ready, Sign::NotStopping),
];

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

impl<'a> Endpoint<'a> {
    /// The question that a path asks, if it is one of these; whether there is such a check shows in the answer.
    pub fn at(path: &'a str) -> Option<Endpoint<'a>> {
        ENDPOINTS.into_iter().find_map(|name| match path.strip_prefix('/')?.strip_prefix(name)? {
            "" => Some(Endpoint { name, check: None }),
            rest => Some(Endpoint { name, check: Some(rest.strip_prefix('/')?) }),
        })
    }

    /// Every path of the three questions.
    pub fn paths() -> impl Iterator<Item = String> {
        ENDPOINTS.into_iter().flat_map(|name| {
            let each = checks(name).map(move |(check, _)| format!("/{name}/{check}"));
            each.chain([format!("/{name}")])
        })
    }

    /// Any method, any Accept header. `None` where there is no such check.
    pub fn answer(self, ask: &Ask, signs: &Signs) -> Option<Answer> {
        let Some(name) = self.check else { return Some(self.all(ask, signs)) };
        let (_, sign) = checks(self.name).find(|(check, _)| *check == name)?;
        Some(match sign.failure(signs) {
            None => Answer::text(200, "ok"),
            Some(why) => error(format!("internal server error: {why}\n")),
        })
    }

    fn all(self, ask: &Ask, signs: &Signs) -> Answer {
        let mut unused: BTreeSet<&str> = ask.query.all("exclude").collect();
        let mut report = String::new();
        let mut failed = false;
        for (check, sign) in checks(self.name) {
            // Writing to a string cannot fail.
            let _ = match sign.failure(signs) {
                _ if unused.remove(check) => writeln!(report, "[+]{check} excluded: ok"),
                None => writeln!(report, "[+]{check} ok"),
                Some(why) => {
                    tracing::warn!(check, why, endpoint = self.name, "a health check fails");
                    failed = true;
                    writeln!(report, "[-]{check} failed: reason withheld")
                }
            };
        }
        if !unused.is_empty() {
            let names: Vec<String> = unused.iter().map(|name| api::go::quote(name)).collect();
            let _ = writeln!(report, "warn: some health checks cannot be excluded: no matches for {}", names.join(","));
        }
        if failed {
            return error(format!("{report}{} check failed\n", self.name));
        }
        let text = match ask.query.get("verbose") {
            Some(_) => format!("{report}{} check passed\n", self.name),
            None => "ok".to_owned(),
        };
        let mut response = respond::raw(200, TEXT, text);
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Answer::Raw(response)
    }
}

impl Sign {
    fn failure(self, signs: &Signs) -> Option<&str> {
        match self {
            Sign::Start => None,
            Sign::Store => signs.store.as_deref(),
            Sign::NotStopping => signs.stopping.then_some("process is shutting down"),
        }
    }
}

fn checks(endpoint: &str) -> impl Iterator<Item = (&'static str, Sign)> + use<> {
    let ready = endpoint == "readyz";
    let on = move |on: On| on == On::All || (on == On::Ready) == ready;
    CHECKS.iter().filter(move |(_, on_which, _)| on(*on_which)).map(|(check, _, sign)| (*check, *sign))
}

fn error(text: String) -> Answer {
    let mut response = respond::raw(500, TEXT, text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Answer::Raw(response)
}

const TEXT: &str = "text/plain; charset=utf-8";
