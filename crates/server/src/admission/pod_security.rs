//! PodSecurity: the three levels of the pod security standards, by the labels of the namespace. Pods are refused, what makes
//! pods is only warned of.

mod checks;

use std::collections::BTreeMap;

use api::{Status, go, meta};
use kinds::Cause;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;
use crate::verbs::write::invalid;

/// Labels are `PREFIX` and one of the modes, with `-version` for the version.
const PREFIX: &str = "pod-security.kubernetes.io/";
const MODES: [&str; 3] = ["enforce", "audit", "warn"];

/// Parts of pods whose writes change nothing that is looked at.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// What makes pods, and where the template is.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("", "podtemplates", &["template"]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];

/// Most pods that a namespace's new level is held against, and most warnings about them.
const EXISTING_PODS_MAX: usize = 3000;
const EXISTING_WARNINGS_MAX: usize = 10;

pub struct PodSecurity;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a minor version of Kubernetes; `u32::MAX` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    minor: u32,
}

impl Plugin for PodSecurity {
    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        if request.is("", "namespaces") && request.subresource.is_empty() {
            return check_namespace(request, object);
        }
        if request.is("", "pods") && !IGNORED.contains(&request.subresource) {
            return match request.old.is_some_and(|old| !is_significant(object, old)) {
                true => Ok(()),
                false => check_pod(request, object, true),
            };
        }
        let (group, plural) = (&*request.kind.group, &*request.kind.plural);
        match TEMPLATES.iter().find(|(g, p, _)| (*g, *p) == (group, plural)) {
            Some((.., path)) if request.subresource.is_empty() => match meta::at(object, path) {
                Some(template) => check_pod(request, template, false),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// `is_pod`: the level that is enforced counts.
fn check_pod(request: &Request, pod: &Value, is_pod: bool) -> Result<(), Status> {
    let Some(namespace) = request.state.get("", "namespaces", "", request.namespace) else { return Ok(()) };
    let wrong = |mode: &str| {
        let policy = Policy::of(&namespace, mode);
        let found = checks::run(policy.level, policy.minor, pod);
        (policy, found)
    };
    let text = |found: &[checks::Violation]| {
        let all: Vec<String> = found.iter().map(|found| format!("{} ({})", found.reason, found.detail)).collect();
        all.join(", ")
    };
    if request.audit.is_on() {
        let (policy, found) = wrong("audit");
        if !found.is_empty() {
            let text = format!("would violate PodSecurity {}: {}", go::quote(&policy.to_string()), text(&found));
            request.audit.annotate(format!("{PREFIX}audit-violations"), text);
        }
    }
    if is_pod {
        let (policy, found) = wrong("enforce");
        if request.audit.is_on() {
            request.audit.annotate(format!("{PREFIX}enforce-policy"), policy.to_string());
        }
        if !found.is_empty() {
            let policy = go::quote(&policy.to_string());
            return Err(request.forbidden(format!("violates PodSecurity {policy}: {}", text(&found))));
        }
    }
    let (policy, found) = wrong("warn");
    if !found.is_empty() {
        request.warn(format!("would violate PodSecurity {}: {}", go::quote(&policy.to_string()), text(&found)));
    }
    Ok(())
}

/// Images and numbers of containers, and annotations about seccomp, are what of a pod can change and matter.
fn is_significant(new: &Value, old: &Value) -> bool {
    const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/";
    let annotated = |pod: &Value, key: &str| meta::entry(pod, "annotations", key).map(str::to_string);
    let noted = |key: &str| annotated(new, key) != annotated(old, key);
    let differs = |one: &Value, other: &Value| {
        one["image"] != other["image"] || noted(&format!("container.{SECCOMP}{}", meta::text_at(one, &["name"])))
    };
    let of = |pod: &'_ Value, list: &str| -> Vec<Value> { meta::items_at(pod, &["spec", list]).to_vec() };
    let lists = ["containers", "initContainers"].iter().any(|list| {
        let (new, old) = (of(new, list), of(old, list));
        new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| differs(new, old))
    });
    let before = of(old, "ephemeralContainers");
    let ephemeral = of(new, "ephemeralContainers").iter().any(|container| {
        let found = before.iter().find(|other| other["name"] == container["name"]);
        found.is_none_or(|other| differs(container, other))
    });
    noted(&format!("{SECCOMP}pod")) || lists || ephemeral
}

/// Labels must make sense; a stricter level warns of the pods that are there.
fn check_namespace(request: &Request, namespace: &Value) -> Result<(), Status> {
    let mut causes = Vec::new();
    for mode in MODES {
        let label = |suffix: &str| {
            let key = format!("{PREFIX}{mode}{suffix}");
            let value = meta::entry(namespace, "labels", &key).map(str::to_string);
            (format!("metadata.labels[{key}]"), value)
        };
        if let (field, Some(value)) = label("")
            && Level::parse(&value).is_none()
        {
            causes.push(Cause::invalid(field, &json!(value), "must be one of privileged, baseline, restricted"));
        }
        if let (field, Some(value)) = label("-version")
            && parse_version(&value).is_none()
        {
            causes.push(Cause::invalid(field, &json!(value), "must be \"latest\" or \"v1.x\""));
        }
    }
    if !causes.is_empty() {
        return Err(invalid("", "Namespace", meta::name(namespace), causes));
    }
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else { return Ok(()) };
    let (before, after) = (Policy::of(old, "enforce"), Policy::of(namespace, "enforce"));
    if before == after || (before.minor == after.minor && after.level <= before.level) {
        return Ok(());
    }
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in request.state.list_in("", "pods", meta::name(namespace)).iter().take(EXISTING_PODS_MAX) {
        let reasons: Vec<String> =
            checks::run(after.level, after.minor, pod).into_iter().map(|found| found.reason).collect();
        if !reasons.is_empty() {
            found.entry(reasons.join(", ")).or_default().push(meta::name(pod).to_string());
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let (name, policy) = (go::quote(meta::name(namespace)), go::quote(&after.to_string()));
    request.warn(format!("existing pods in namespace {name} violate the new PodSecurity enforce level {policy}"));
    let mut groups: Vec<(String, String)> = found
        .into_iter()
        .map(|(reasons, pods)| {
            let others = match pods.len() {
                1 => String::new(),
                2 => " (and 1 other pod)".to_string(),
                count => format!(" (and {} other pods)", count - 1),
            };
            (format!("{}{others}", pods[0]), reasons)
        })
        .collect();
    groups.sort();
    groups.iter().take(EXISTING_WARNINGS_MAX).for_each(|(pods, reasons)| request.warn(format!("{pods}: {reasons}")));
    Ok(())
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

impl Policy {
    /// What a namespace says; nothing said is privileged.
    fn of(namespace: &Value, mode: &str) -> Policy {
        // Who says only what is enforced wants to be warned of the same.
        let said = |mode: &str| meta::entry(namespace, "labels", &format!("{PREFIX}{mode}")).is_some();
        let mode = if mode == "warn" && !said("warn") { "enforce" } else { mode };
        let label = |suffix: &str| meta::entry(namespace, "labels", &format!("{PREFIX}{mode}{suffix}"));
        Policy {
            level: label("").and_then(Level::parse).unwrap_or(Level::Privileged),
            minor: label("-version").and_then(parse_version).unwrap_or(u32::MAX),
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            u32::MAX => write!(f, "{level}:latest"),
            minor => write!(f, "{level}:v1.{minor}"),
        }
    }
}

fn parse_version(text: &str) -> Option<u32> {
    if text == "latest" {
        return Some(u32::MAX);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || (!minor.starts_with('0') && minor.bytes().all(|byte| byte.is_ascii_digit()));
    minor.parse().ok().filter(|_| plain)
}
