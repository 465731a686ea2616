//! Workloads that keep pods running, and what protects them.

use serde_json::{Value, json};

use super::check::{self, Causes};
use super::read::{Read, Write};
use super::{columns, internal, pod_check, pod_defaults, rows, volumes, warnings};
use crate::validate;
use crate::{Behaviour, Cause, NameRule};

pub static POD_TEMPLATE: Behaviour = Behaviour {
    warnings: warnings::pod_template,
    default: |object| template_defaults(object, "template.spec"),
    validate_create: |object| {
        let mut out = Vec::new();
        pod_check::template(&mut out, object.at("template"), "template");
        out
    },
    validate_update: |new, _| (POD_TEMPLATE.validate_create)(new),
    columns: columns::POD_TEMPLATE,
    row: rows::pod_template,
    returns_deleted: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static REPLICATION_CONTROLLER: Behaviour = Behaviour {
    warnings: warnings::named_workload,
    default: |object| {
        template_defaults(object, "spec.template.spec");
        let labels = object.at("spec.template.metadata.labels").clone();
        if !labels.is_nothing() {
            for path in ["spec.selector", "metadata.labels"] {
                if object.at(path).is_nothing() {
                    object.set(path, labels.clone());
                }
            }
        }
        object.set_if_absent("spec.replicas", 1);
    },
    prepare_create: |object| object.set("status", json!({"replicas": 0})),
    validate_create: replication_controller,
    validate_update: |new, _| replication_controller(new),
    validate_status: |new, _| {
        let mut out = Vec::new();
        replicas_status(&mut out, new.at("status"));
        out
    },
    columns: columns::REPLICATION_CONTROLLER,
    row: rows::replication_controller,
    selectable: &[("status.replicas", "/status/replicas")],
    name: NameRule::Own(replication_controller_name),
    name_last: true,
    has_status: true,
    has_generation: true,
    orphan_by_default: true,
    ..Behaviour::PLAIN
};

/// It is counted in bytes, and a `generateName` is looked at only in the name that comes of it.
fn replication_controller_name(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        return Vec::new();
    }
    let in_bytes = |text: String| match text.strip_suffix(" characters") {
        Some(length) => format!("{length} bytes"),
        None => text,
    };
    validate::dns1123_subdomain(name).into_iter().map(in_bytes).collect()
}

pub static REPLICA_SET: Behaviour = Behaviour {
    warnings: warnings::named_workload,
    default: |object| {
        template_defaults(object, "spec.template.spec");
        object.set_if_absent("spec.replicas", 1);
    },
    prepare_create: |object| object.set("status", json!({"replicas": 0})),
    validate_create: replica_set,
    validate_update: |new, old| {
        let mut out = replica_set(new);
        out.extend(validate::immutable(new.at("spec.selector"), old.at("spec.selector"), "spec.selector"));
        out
    },
    validate_status: |new, _| {
        let mut out = Vec::new();
        replicas_status(&mut out, new.at("status"));
        out
    },
    columns: columns::REPLICA_SET,
    row: rows::replica_set,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static DEPLOYMENT: Behaviour = Behaviour {
    warnings: warnings::named_workload,
    default: default_deployment,
    prepare_create: |object| object.set("status", json!({})),
    prepare_update: count_annotations,
    validate_create: deployment,
    validate_update: |new, old| {
        let mut out = deployment(new);
        out.extend(validate::immutable(new.at("spec.selector"), old.at("spec.selector"), "spec.selector"));
        out
    },
    validate_status: deployment_status,
    columns: columns::DEPLOYMENT,
    row: rows::deployment,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static STATEFUL_SET: Behaviour = Behaviour {
    warnings: warnings::stateful_set,
    default: default_stateful_set,
    prepare_create: |object| object.set("status", json!({"replicas": 0})),
    validate_create: |object| stateful_set(object, None),
    validate_update: |new, old| {
        let mut out = stateful_set(new, Some(old));
        for field in ["selector", "volumeClaimTemplates", "serviceName", "podManagementPolicy"] {
            let path = format!("spec.{field}");
            let (after, before) = (new.at(&path), old.at(&path));
            if after != before {
                const CLAIM: &str = "api.core.v1.PersistentVolumeClaim";
                let shown = match field {
                    "volumeClaimTemplates" if !after.is_null() => {
                        after.items().iter().map(|claim| internal::shown(CLAIM, claim)).collect()
                    }
                    _ => after.clone(),
                };
                out.push(Cause::invalid(path, &shown, "field is immutable"));
            }
        }
        out
    },
    validate_status: stateful_set_status,
    columns: columns::STATEFUL_SET,
    row: rows::stateful_set,
    name: NameRule::Label,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static DAEMON_SET: Behaviour = Behaviour {
    annotations_of_versions: &[TEMPLATE_GENERATION],
    warnings: warnings::daemon_set,
    convert: |object| match object.at("metadata.annotations").key(TEMPLATE_GENERATION).as_str() {
        Some(text) => api::go::parse_i64(text).map(drop),
        None => Ok(()),
    },
    default: default_daemon_set,
    prepare_create: |object| {
        object.set("status", json!({}));
        template_generation(object, 1);
    },
    prepare_update: |new, old| {
        let before = old_template_generation(old);
        let changed = new.at("spec.template") != old.at("spec.template");
        template_generation(new, if changed { before + 1 } else { before });
    },
    prepare_status: |new, old| template_generation(new, old_template_generation(old)),
    validate_create: daemon_set,
    validate_update: |new, old| {
        let mut out: Causes = validate::immutable(new.at("spec.selector"), old.at("spec.selector"), "spec.selector")
            .into_iter()
            .collect();
        out.extend(daemon_set(new));
        out
    },
    validate_status: |new, old| {
        let mut out = Vec::new();
        const COUNTS: &[&str] = &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        check::non_negative(&mut out, new.at("status"), "status", COUNTS);
        collisions(&mut out, new, old);
        out
    },
    columns: columns::DAEMON_SET,
    row: rows::daemon_set,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

pub static CONTROLLER_REVISION: Behaviour = Behaviour {
    checks_name_again: true,
    validate_create: |object| {
        let mut out = Vec::new();
        check::non_negative(&mut out, object, "", &["revision"]);
        out.iter_mut().for_each(|cause| cause.field = cause.field.trim_start_matches('.').to_owned());
        match object.at("data") {
            Value::Null => out.push(Cause::required("data", "data is mandatory")),
            Value::Object(_) => {}
            _ => out.push(Cause::required("data", "data must be a valid JSON object")),
        }
        out
    },
    validate_update: |new, old| {
        let mut out = Vec::new();
        out.extend(validate::non_negative(new.int("revision"), "revision"));
        out.extend(validate::immutable(new.at("data"), old.at("data"), "data"));
        out
    },
    columns: columns::CONTROLLER_REVISION,
    row: rows::controller_revision,
    ..Behaviour::PLAIN
};

/// The body of every `scale` subresource.
pub static SCALE: Behaviour = Behaviour {
    validate_update: |new, _| validate::non_negative(new.int("spec.replicas"), "spec.replicas").into_iter().collect(),
    columns: columns::SCALE,
    row: rows::scale,
    ..Behaviour::PLAIN
};

pub static POD_DISRUPTION_BUDGET: Behaviour = Behaviour {
    prepare_create: |object| {
        let zero = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        object.set("status", zero);
    },
    validate_create: budget,
    validate_update: |new, _| budget(new),
    validate_status: |new, _| {
        let mut out = Vec::new();
        const COUNTS: &[&str] = &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        check::conditions(&mut out, new.list("status.conditions"), "status.conditions");
        check::non_negative(&mut out, new.at("status"), "status", COUNTS);
        out
    },
    columns: columns::POD_DISRUPTION_BUDGET,
    row: rows::pod_disruption_budget,
    // Upstream does not look at the name.
    name: NameRule::PathSegment,
    has_status: true,
    has_generation: true,
    unconditional_update: false,
    any_finalizer: true,
    ..Behaviour::PLAIN
};

fn template_defaults(object: &mut Value, path: &str) {
    if let Some(spec) = object.at_mut(path) {
        pod_defaults::pod_spec(spec);
    }
}

fn default_deployment(object: &mut Value) {
    template_defaults(object, "spec.template.spec");
    object.set_if_absent("spec.replicas", 1);
    object.set_default("spec.strategy.type", "RollingUpdate");
    if object.text("spec.strategy.type") == "RollingUpdate" {
        object.set_if_absent("spec.strategy.rollingUpdate.maxUnavailable", "25%");
        object.set_if_absent("spec.strategy.rollingUpdate.maxSurge", "25%");
    }
    object.set_if_absent("spec.revisionHistoryLimit", 10);
    object.set_if_absent("spec.progressDeadlineSeconds", 600);
}

/// The generation of a deployment counts changes of its annotations, too.
fn count_annotations(new: &mut Value, old: &Value) {
    if new.at("metadata.annotations") != old.at("metadata.annotations") {
        let next = old.int("metadata.generation") + 1;
        new.set("metadata.generation", next);
    }
}

fn default_stateful_set(object: &mut Value) {
    template_defaults(object, "spec.template.spec");
    for claim in object.list_mut("spec.volumeClaimTemplates") {
        claim.set_default("apiVersion", "v1");
        claim.set_default("kind", "PersistentVolumeClaim");
        claim.set_if_absent("spec.volumeMode", "Filesystem");
        claim.set_default("status.phase", "Pending");
    }
    object.set_default("spec.podManagementPolicy", "OrderedReady");
    if object.text("spec.updateStrategy.type").is_empty() {
        object.set("spec.updateStrategy.type", "RollingUpdate");
        object.set_if_absent("spec.updateStrategy.rollingUpdate", json!({}));
    }
    if object.text("spec.updateStrategy.type") == "RollingUpdate" && object.has("spec.updateStrategy.rollingUpdate") {
        object.set_if_absent("spec.updateStrategy.rollingUpdate.partition", 0);
        object.set_if_absent("spec.updateStrategy.rollingUpdate.maxUnavailable", 1);
    }
    object.set_default("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain");
    object.set_default("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain");
    object.set_if_absent("spec.replicas", 1);
    object.set_if_absent("spec.revisionHistoryLimit", 10);
}

fn default_daemon_set(object: &mut Value) {
    template_defaults(object, "spec.template.spec");
    object.set_default("spec.updateStrategy.type", "RollingUpdate");
    if object.text("spec.updateStrategy.type") == "RollingUpdate" {
        object.set_if_absent("spec.updateStrategy.rollingUpdate.maxUnavailable", 1);
        object.set_if_absent("spec.updateStrategy.rollingUpdate.maxSurge", 0);
    }
    object.set_if_absent("spec.revisionHistoryLimit", 10);
    // The generation is a field to the server and an annotation to clients: whoever writes a set writes it.
    if object.is_object() && !object.at("metadata.annotations").key(TEMPLATE_GENERATION).is_string() {
        template_generation(object, 0);
    }
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &mut Value, generation: i64) {
    object.set_if_absent("metadata.annotations", json!({}));
    if let Some(annotations) = object.at_mut("metadata.annotations").and_then(Value::as_object_mut) {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

fn old_template_generation(object: &Value) -> i64 {
    let text = object.at("metadata.annotations").key(TEMPLATE_GENERATION).as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The labels of the template as error texts show them.
fn selector_matches(out: &mut Causes, selector: &Value, template: &Value, path: &str) {
    let labels = template.at("metadata.labels");
    if !check::selects(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        out.push(Cause::invalid(format!("{path}.metadata.labels"), &check::by_key(labels), detail));
    }
}

/// Pods of these are started again for ever.
fn restarts_always(out: &mut Causes, template: &Value, path: &str, kind: &str) {
    let policy = template.at("spec.restartPolicy");
    if policy != "Always" {
        out.push(Cause::not_supported(format!("{path}.spec.restartPolicy"), policy, &["Always"]));
    }
    if template.has("spec.activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        out.push(Cause::forbidden(format!("{path}.spec.activeDeadlineSeconds"), &detail));
    }
}

fn replication_controller(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let (spec, template) = (object.at("spec"), object.at("spec.template"));
    let selector = spec.at("selector");
    if selector.is_nothing() {
        out.push(Cause::required("spec.selector", ""));
    }
    if template.is_null() {
        out.push(Cause::required("spec.template", ""));
    } else {
        if !selector.is_nothing() {
            selector_matches(&mut out, &json!({"matchLabels": selector}), template, "spec.template");
        }
        pod_check::template(&mut out, template, "spec.template");
        restarts_always(&mut out, template, "spec.template", "ReplicationController");
    }
    check::non_negative(&mut out, spec, "spec", &["replicas", "minReadySeconds"]);
    out
}

fn replica_set(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    check::non_negative(&mut out, spec, "spec", &["replicas", "minReadySeconds"]);
    replicated(&mut out, spec);
    out
}

/// Selector and template of replica sets and deployments.
fn replicated(out: &mut Causes, spec: &Value) {
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    let mut right = true;
    if selector.is_null() {
        out.push(Cause::required("spec.selector", ""));
    } else {
        let before = out.len();
        // Upstream says so of both.
        right = check::workload_selector(out, selector, "spec.selector", "deployment");
        if !right && out.len() > before {
            out.push(Cause::invalid("spec.selector", selector, "invalid label selector"));
        }
    }
    if !right {
        return;
    }
    if selector.is_null() || !selector.is_nothing() {
        selector_matches(out, selector, template, "spec.template");
    }
    pod_check::template(out, template, "spec.template");
    restarts_always(out, template, "spec.template", "ReplicaSet");
}

fn replicas_status(out: &mut Causes, status: &Value) {
    const COUNTS: &[&str] = &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    const ABOVE: &str = "cannot be greater than status.replicas";
    check::non_negative(out, status, "status", COUNTS);
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        check::not_above(out, status, field, "replicas", ABOVE);
    }
    check::not_above(out, status, "availableReplicas", "readyReplicas", "cannot be greater than readyReplicas");
}

fn deployment(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    check::non_negative(&mut out, spec, "spec", &["replicas"]);
    replicated(&mut out, spec);
    strategy(&mut out, spec.at("strategy"));
    check::non_negative(
        &mut out,
        spec,
        "spec",
        &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
    );
    if let Some(deadline) = spec.opt_int("progressDeadlineSeconds").filter(|d| *d <= spec.int("minReadySeconds")) {
        let detail = "must be greater than minReadySeconds";
        out.push(Cause::invalid("spec.progressDeadlineSeconds", &deadline.into(), detail));
    }
    out
}

fn strategy(out: &mut Causes, strategy: &Value) {
    let rolling = strategy.at("rollingUpdate");
    let path = "spec.strategy.rollingUpdate";
    match strategy.text("type") {
        "Recreate" if !rolling.is_null() => {
            out.push(Cause::forbidden(path, "may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            check::count_or_percent(out, unavailable, format_args!("{path}.maxUnavailable"));
            check::count_or_percent(out, surge, format_args!("{path}.maxSurge"));
            if check::count_of(unavailable) == 0 && check::count_of(surge) == 0 {
                let detail = "may not be 0 when `maxSurge` is 0";
                out.push(Cause::invalid(format!("{path}.maxUnavailable"), unavailable, detail));
            }
            check::at_most_100_percent(out, unavailable, &format!("{path}.maxUnavailable"));
        }
        _ => {
            let shown = internal::shown("api.apps.v1.DeploymentStrategy", strategy);
            out.push(Cause::not_supported("spec.strategy", &shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn deployment_status(new: &Value, old: &Value) -> Vec<Cause> {
    const COUNTS: &[&str] = &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    const ABOVE: &str = "cannot be greater than status.replicas";
    let mut out = Vec::new();
    let status = new.at("status");
    check::non_negative(&mut out, status, "status", COUNTS);
    for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        check::not_above(&mut out, status, field, "replicas", ABOVE);
    }
    check::not_above(&mut out, status, "availableReplicas", "readyReplicas", "cannot be greater than readyReplicas");
    collisions(&mut out, new, old);
    out
}

fn collisions(out: &mut Causes, new: &Value, old: &Value) {
    let (after, before) = (new.int("status.collisionCount"), old.opt_int("status.collisionCount"));
    if before.is_some_and(|before| after < before) {
        out.push(Cause::invalid("status.collisionCount", &after.into(), "cannot be decremented"));
    }
}

fn stateful_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    let policy = spec.text("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        out.push(Cause::invalid("spec.podManagementPolicy", &policy.into(), detail));
    }
    stateful_strategy(&mut out, spec.at("updateStrategy"));
    for field in ["whenDeleted", "whenScaled"] {
        let value = spec.at("persistentVolumeClaimRetentionPolicy").at(field);
        let path = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        check::optional_one_of(&mut out, value, &path, &["Retain", "Delete"]);
    }
    // What claims are made of may not change, and so is looked at once.
    let claims = spec.list("volumeClaimTemplates").iter().enumerate().filter(|_| old.is_none());
    for (at, claim) in claims {
        volumes::claim_spec(&mut out, claim.at("spec"), &format!("spec.volumeClaimTemplates[{at}].spec"));
    }
    check::non_negative(&mut out, spec, "spec", &["replicas", "minReadySeconds"]);
    check::non_negative(&mut out, spec, "spec", &["ordinals.start"]);
    if !spec.text("serviceName").is_empty() {
        check::text(&mut out, spec.text("serviceName"), "spec.serviceName", validate::dns1123_label);
    }
    let selector = spec.at("selector");
    if selector.is_null() {
        out.push(Cause::required("spec.selector", ""));
    }
    let right = check::workload_selector(&mut out, selector, "spec.selector", "statefulset");
    if right {
        if selector.is_null() || !selector.is_nothing() {
            selector_matches(&mut out, selector, spec.at("template"), "spec.template");
        }
        let template = with_claims(spec);
        pod_check::template(&mut out, &template, "spec.template");
    } else {
        out.push(Cause::invalid("spec.selector", selector, ""));
    }
    restarts_always(&mut out, spec.at("template"), "spec.template", "StatefulSet");
    out
}

/// The template with a volume for every claim, as its pods will have it.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    for field in ["subdomain", "hostname"] {
        template.remove(&format!("spec.{field}"));
    }
    let claims = spec.list("volumeClaimTemplates");
    if !claims.is_empty() {
        let name = |claim: &Value| claim.text("metadata.name").to_owned();
        let last = |(at, claim): &(usize, &Value)| !claims[at + 1..].iter().any(|other| name(other) == name(claim));
        let mut all: Vec<Value> = claims
            .iter()
            .enumerate()
            .filter(last)
            .map(|(_, claim)| claim)
            .map(|claim| json!({"name": name(claim), "persistentVolumeClaim": {"claimName": name(claim)}}))
            .collect();
        let own = template.list("spec.volumes").iter();
        let others: Vec<Value> =
            own.filter(|volume| !claims.iter().any(|claim| name(claim) == volume.text("name"))).cloned().collect();
        all.extend(others);
        template.set("spec.volumes", all);
    }
    template
}

fn stateful_strategy(out: &mut Causes, strategy: &Value) {
    let rolling = strategy.at("rollingUpdate");
    let path = "spec.updateStrategy.rollingUpdate";
    match strategy.text("type") {
        "" => out.push(Cause::required("spec.updateStrategy", "")),
        "OnDelete" => {
            if !rolling.is_null() {
                let shown = internal::shown("api.apps.v1.RollingUpdateStatefulSetStrategy", rolling);
                out.push(Cause::invalid(path, &shown, "only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        "RollingUpdate" => {
            check::non_negative(out, rolling, path, &["partition"]);
            let unavailable = rolling.at("maxUnavailable");
            if !unavailable.is_null() {
                let path = format!("{path}.maxUnavailable");
                check::count_or_percent(out, unavailable, &path);
                if check::count_of(unavailable) == 0 {
                    out.push(Cause::invalid(&path, unavailable, "cannot be 0"));
                }
                check::at_most_100_percent(out, unavailable, &path);
            }
        }
        _ => {
            let shown = internal::shown("api.apps.v1.StatefulSetUpdateStrategy", strategy);
            out.push(Cause::invalid("spec.updateStrategy", &shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
}

fn stateful_set_status(new: &Value, old: &Value) -> Vec<Cause> {
    const COUNTS: &[&str] = &[
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    const ABOVE: &str = "cannot be greater than status.replicas";
    let mut out = Vec::new();
    let status = new.at("status");
    check::non_negative(&mut out, status, "status", COUNTS);
    for field in ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
        check::not_above(&mut out, status, field, "replicas", ABOVE);
    }
    let detail = "cannot be greater than status.readyReplicas";
    check::not_above(&mut out, status, "availableReplicas", "readyReplicas", detail);
    collisions(&mut out, new, old);
    out
}

fn daemon_set(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    let mut empty = Vec::new();
    let right = check::workload_selector(&mut empty, selector, "spec.selector", "daemonset");
    if right {
        selector_matches(&mut out, selector, template, "spec.template");
    }
    out.extend(empty);
    pod_check::template(&mut out, template, "spec.template");
    restarts_always(&mut out, template, "spec.template", "DaemonSet");
    check::non_negative(&mut out, spec, "spec", &["minReadySeconds"]);
    daemon_strategy(&mut out, spec.at("updateStrategy"));
    check::non_negative(&mut out, spec, "spec", &["revisionHistoryLimit"]);
    out
}

fn daemon_strategy(out: &mut Causes, strategy: &Value) {
    let rolling = strategy.at("rollingUpdate");
    let path = "spec.updateStrategy.rollingUpdate";
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            let (unavailable_path, surge_path) = (format!("{path}.maxUnavailable"), format!("{path}.maxSurge"));
            check::count_or_percent(out, unavailable, &unavailable_path);
            check::count_or_percent(out, surge, &surge_path);
            check::at_most_100_percent(out, unavailable, &unavailable_path);
            check::at_most_100_percent(out, surge, &surge_path);
            match (check::count_of(unavailable) != 0, check::count_of(surge) != 0) {
                (true, true) => {
                    out.push(Cause::invalid(surge_path, surge, "may not be set when maxUnavailable is non-zero"));
                }
                (false, false) => out.push(Cause::required(unavailable_path, "cannot be 0 when maxSurge is 0")),
                _ => {}
            }
        }
        _ => {
            let shown = internal::shown("api.apps.v1.DaemonSetUpdateStrategy", strategy);
            out.push(Cause::not_supported("spec.updateStrategy", &shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}

fn budget(object: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = object.at("spec");
    let (least, most) = (spec.at("minAvailable"), spec.at("maxUnavailable"));
    if !least.is_null() && !most.is_null() {
        let shown = internal::shown("api.policy.v1.PodDisruptionBudgetSpec", spec);
        out.push(Cause::invalid("spec", &shown, "minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let value = spec.at(field);
        if !value.is_null() {
            let path = format!("spec.{field}");
            check::count_or_percent(&mut out, value, &path);
            check::at_most_100_percent(&mut out, value, &path);
        }
    }
    check::label_selector(&mut out, spec.at("selector"), "spec.selector");
    let policy = spec.at("unhealthyPodEvictionPolicy");
    check::optional_one_of(&mut out, policy, "spec.unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
    out
}
