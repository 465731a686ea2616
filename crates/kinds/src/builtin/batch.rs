//! Jobs and cron jobs.

use serde_json::{Value, json};

use super::check::{self, Causes, invalid_unshown};
use super::read::{Read, Write};
use super::{columns, cron, internal, pod_check, pod_defaults, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

pub static JOB: Behaviour = Behaviour {
    not_selectable: |field| format!("field label {} not supported for Job", crate::kind::go_quote(field)),
    warnings: warnings::job,
    default: |job| {
        if let Some(spec) = job.at_mut("spec") {
            default_job_spec(spec);
        }
        label_as_pods(job);
        job.set_if_absent("spec.manualSelector", false);
    },
    prepare_create: |job| {
        job.set("status", json!({}));
        if !job.flag("spec.manualSelector") {
            generate_selector(job);
            // Kubernetes does so as it reads the job back, when all that is too long has been refused.
            if job.text("metadata.name").len() <= 63 {
                label_as_pods(job);
            }
        }
    },
    // Kubernetes labels it as it reads it back.
    prepare_status: |job, _| label_as_pods(job),
    validate_create: validate_job,
    validate_update: validate_job_update,
    validate_status: validate_job_status,
    columns: columns::JOB,
    row: rows::job,
    selectable: &[("status.successful", "/status/succeeded")],
    has_status: true,
    has_generation: true,
    orphan_by_default: true,
    warning_of_orphans: "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
    ..Behaviour::PLAIN
};

pub static CRON_JOB: Behaviour = Behaviour {
    warnings: warnings::cron_job,
    default: |cron_job| {
        cron_job.set_default("spec.concurrencyPolicy", "Allow");
        cron_job.set_if_absent("spec.suspend", false);
        cron_job.set_if_absent("spec.successfulJobsHistoryLimit", 3);
        cron_job.set_if_absent("spec.failedJobsHistoryLimit", 1);
        if let Some(template) = cron_job.at_mut("spec.jobTemplate.spec.template.spec") {
            pod_defaults::pod_spec(template);
        }
    },
    prepare_create: |cron_job| cron_job.set("status", json!({})),
    validate_create: |cron_job| {
        const NAME_MAX: usize = 52;
        let mut out = Vec::new();
        let missing = cron_job_spec(&mut out, cron_job, None);
        let name = cron_job.text("metadata.name");
        if name.len() > NAME_MAX {
            let detail = format!("must be no more than {NAME_MAX} characters");
            out.push(Cause::invalid("metadata.name", &name.into(), &detail));
        }
        out.extend(missing);
        out
    },
    validate_update: |new, old| {
        let mut out = Vec::new();
        let missing = cron_job_spec(&mut out, new, Some(old));
        out.extend(missing);
        out
    },
    columns: columns::CRON_JOB,
    row: rows::cron_job,
    has_status: true,
    has_generation: true,
    ..Behaviour::PLAIN
};

fn default_job_spec(spec: &mut Value) {
    if let Some(template) = spec.at_mut("template.spec") {
        pod_defaults::pod_spec(template);
    }
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.set("completions", 1);
    }
    spec.set_if_absent("parallelism", 1);
    let retries = if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    spec.set_if_absent("backoffLimit", retries);
    spec.set_if_absent("completionMode", "NonIndexed");
    spec.set_if_absent("suspend", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    spec.set_if_absent("podReplacementPolicy", replacement);
    for rule in spec.list_mut("podFailurePolicy.rules") {
        for pattern in rule.list_mut("onPodConditions") {
            pattern.set_default("status", "True");
        }
    }
}

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const OWNER_LABELS: [(&str, &str); 4] = [
    ("controller-uid", "metadata.uid"),
    ("job-name", "metadata.name"),
    (UID_LABEL, "metadata.uid"),
    ("batch.kubernetes.io/job-name", "metadata.name"),
];

/// Pods of a job carry its name and uid, so that its selector finds no others.
fn generate_selector(job: &mut Value) {
    let own: Vec<(String, String)> =
        OWNER_LABELS.iter().map(|(label, path)| ((*label).to_owned(), job.text(path).to_owned())).collect();
    let uid = job.text("metadata.uid").to_owned();
    job.set_if_absent("spec.template.metadata.labels", json!({}));
    if let Some(labels) = job.at_mut("spec.template.metadata.labels").and_then(Value::as_object_mut) {
        for (label, value) in own {
            labels.entry(label).or_insert(value.into());
        }
    }
    job.set_if_absent("spec.selector.matchLabels", json!({}));
    if let Some(labels) = job.at_mut("spec.selector.matchLabels").and_then(Value::as_object_mut) {
        labels.entry(UID_LABEL).or_insert(uid.into());
    }
}

/// A job without labels carries those of its pods.
fn label_as_pods(job: &mut Value) {
    let labels = job.at("spec.template.metadata.labels").clone();
    if job.at("metadata.labels").is_nothing() && !labels.is_nothing() {
        job.set("metadata.labels", labels);
    }
}

fn validate_job(job: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let spec = job.at("spec");
    let (selector, template) = (spec.at("selector"), spec.at("template"));
    if !spec.flag("manualSelector") && !selector.is_null() {
        let mut expected = serde_json::Map::new();
        for (label, path) in OWNER_LABELS {
            let value = Value::from(job.text(path));
            let labels = template.at("metadata.labels");
            let path = format!("spec.template.metadata.labels[{label}]");
            let detail = format!("must be '{}'", value.as_str().unwrap_or_default());
            match labels.key(label) {
                Value::Null => out.push(Cause::required(path, &detail)),
                given if *given != value => out.push(Cause::invalid(path, &check::by_key(labels), &detail)),
                _ => {}
            }
            expected.insert(label.to_owned(), value);
        }
        if !check::selects(selector, &Value::Object(expected)) {
            out.push(Cause::invalid("spec.selector", selector, "`selector` not auto-generated"));
        }
    }
    job_spec(&mut out, spec, "spec");
    if selector.is_null() {
        out.push(Cause::required("spec.selector", ""));
    } else {
        check::label_selector(&mut out, selector, "spec.selector");
    }
    if !check::selects(selector, template.at("metadata.labels")) {
        out.push(Cause::invalid(
            "spec.template.metadata.labels",
            &check::by_key(template.at("metadata.labels")),
            "`selector` does not match template `labels`",
        ));
    }
    if spec.text("completionMode") == "Indexed" && spec.int("completions") > 0 {
        let name = job.text("metadata.name");
        let host = format!("{name}-{}", spec.int("completions") - 1);
        if !validate::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            out.push(Cause::invalid("metadata.name", &name.into(), &detail));
        }
    }
    out
}

/// What jobs and the templates of cron jobs have in common.
fn job_spec(out: &mut Causes, spec: &Value, path: &str) {
    const PARALLELISM_MAX: i64 = 100_000;
    const FAILED_INDEXES_MAX: i64 = 100_000;
    const MANY_COMPLETIONS: i64 = 100_000;
    const MAX_OF_MANY: i64 = 10_000;
    const COUNTS: &[&str] = &[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    const MODES: &[&str] = &["NonIndexed", "Indexed"];
    check::non_negative(out, spec, path, COUNTS);
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        out.push(Cause::required(format!("{path}.backoffLimitPerIndex"), detail));
    }
    if let Some(manager) = spec.at("managedBy").as_str() {
        check::domain_prefixed_path(out, manager, &format!("{path}.managedBy"));
        if manager.len() > 63 {
            out.push(Cause::too_long(format!("{path}.managedBy"), 63));
        }
    }
    let indexed = spec.text("completionMode") == "Indexed";
    check::optional_one_of(out, spec.at("completionMode"), format_args!("{path}.completionMode"), MODES);
    if indexed {
        if !spec.has("completions") {
            out.push(Cause::required(format!("{path}.completions"), "when completion mode is Indexed"));
        }
        if spec.int("parallelism") > PARALLELISM_MAX {
            let detail = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
            out.push(Cause::invalid(format!("{path}.parallelism"), spec.at("parallelism"), &detail));
        }
        if spec.has("completions") && spec.int("maxFailedIndexes") > spec.int("completions") {
            let detail = "must be less than or equal to completions";
            out.push(Cause::invalid(format!("{path}.maxFailedIndexes"), spec.at("maxFailedIndexes"), detail));
        }
        if spec.int("maxFailedIndexes") > FAILED_INDEXES_MAX {
            let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
            out.push(Cause::invalid(format!("{path}.maxFailedIndexes"), spec.at("maxFailedIndexes"), &detail));
        }
        if spec.int("completions") > MANY_COMPLETIONS && spec.has("backoffLimitPerIndex") {
            if !spec.has("maxFailedIndexes") {
                let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
                out.push(Cause::required(format!("{path}.maxFailedIndexes"), &detail));
            }
            for field in ["parallelism", "maxFailedIndexes"] {
                if spec.int(field) > MAX_OF_MANY {
                    let detail = format!(
                        "must be less than or equal to {MAX_OF_MANY} when completions are above {MANY_COMPLETIONS} \
                         and used with backoff limit per index"
                    );
                    out.push(Cause::invalid(format!("{path}.{field}"), spec.at(field), &detail));
                }
            }
        }
    } else if matches!(spec.text("completionMode"), "" | "NonIndexed") {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.has(field) {
                let detail = "requires indexed completion mode";
                out.push(Cause::invalid(format!("{path}.{field}"), spec.at(field), detail));
            }
        }
    }
    if spec.has("podFailurePolicy") {
        failure_policy(out, spec, &format!("{path}.podFailurePolicy"));
    }
    if spec.has("successPolicy") {
        success_policy(out, spec, indexed, &format!("{path}.successPolicy"));
    }
    let replacement: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    check::optional_one_of(
        out,
        spec.at("podReplacementPolicy"),
        format_args!("{path}.podReplacementPolicy"),
        replacement,
    );
    let template = format!("{path}.template");
    pod_check::template(out, spec.at("template"), &template);
    let policy = spec.at("template.spec.restartPolicy");
    let path = format!("{template}.spec.restartPolicy");
    match policy.as_str().unwrap_or_default() {
        "" | "Always" => out.push(Cause::required(path, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            out.push(Cause::invalid(path, policy, detail));
        }
        "OnFailure" | "Never" => {}
        _ => out.push(Cause::not_supported(path, policy, &["OnFailure", "Never"])),
    }
}

fn failure_policy(out: &mut Causes, spec: &Value, path: &str) {
    const RULES_MAX: usize = 20;
    const PATTERNS_MAX: usize = 20;
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = spec.list("podFailurePolicy.rules");
    if rules.len() > RULES_MAX {
        out.push(Cause::too_many(format!("{path}.rules"), rules.len(), RULES_MAX));
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}.rules[{at}]");
        let field = format!("{path}.action");
        match rule.text("action") {
            "" => out.push(one_required(field, ACTIONS)),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                out.push(Cause::invalid(field, rule.at("action"), "requires the backoffLimitPerIndex to be set"));
            }
            action if !ACTIONS.contains(&action) => out.push(Cause::not_supported(field, rule.at("action"), ACTIONS)),
            _ => {}
        }
        if rule.has("onExitCodes") {
            exit_codes(out, spec, rule.at("onExitCodes"), &format!("{path}.onExitCodes"));
        }
        let patterns = rule.list("onPodConditions");
        if patterns.len() > PATTERNS_MAX {
            out.push(Cause::too_many(format!("{path}.onPodConditions"), patterns.len(), PATTERNS_MAX));
        }
        for (at, pattern) in patterns.iter().enumerate() {
            let path = format!("{path}.onPodConditions[{at}]");
            check::text(out, pattern.text("type"), format_args!("{path}.type"), validate::qualified_name);
            one_named(out, pattern.at("status"), format!("{path}.status"), &["False", "True", "Unknown"]);
        }
        match (rule.has("onExitCodes"), rule.list("onPodConditions").is_empty()) {
            (true, false) => {
                out.push(invalid_unshown(&path, "specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, true) => {
                out.push(invalid_unshown(&path, "specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
    }
}

fn one_named(out: &mut Causes, value: &Value, path: String, supported: &[&str]) {
    match value.as_str().unwrap_or_default() {
        "" => out.push(one_required(path, supported)),
        given if !supported.contains(&given) => out.push(Cause::not_supported(path, value, supported)),
        _ => {}
    }
}

/// Told with what there is to choose from.
fn one_required(path: String, supported: &[&str]) -> Cause {
    let listed: Vec<String> = supported.iter().map(|each| crate::kind::go_quote(each)).collect();
    Cause::required(path, &format!("valid values: [{}]", listed.join(" ")))
}

fn exit_codes(out: &mut Causes, spec: &Value, codes: &Value, path: &str) {
    const VALUES_MAX: usize = 255;
    one_named(out, codes.at("operator"), format!("{path}.operator"), &["In", "NotIn"]);
    if let Some(name) = codes.at("containerName").as_str() {
        let mut all = spec.list("template.spec.containers").iter().chain(spec.list("template.spec.initContainers"));
        if !all.any(|container| container.text("name") == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            out.push(Cause::invalid(format!("{path}.containerName"), &name.into(), detail));
        }
    }
    let path = format!("{path}.values");
    let values: Vec<i64> = codes.list("values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        out.push(Cause::invalid(&path, codes.at("values"), "at least one value is required"));
    } else if values.len() > VALUES_MAX {
        out.push(Cause::too_many(&path, values.len(), VALUES_MAX));
    }
    for (at, value) in values.iter().enumerate() {
        if *value == 0 && codes.text("operator") == "In" {
            out.push(Cause::invalid(format!("{path}[{at}]"), &0.into(), "must not be 0 for the In operator"));
        }
        if values[..at].contains(value) {
            out.push(Cause::duplicate(format!("{path}[{at}]"), &(*value).into()));
        }
    }
    if !values.is_sorted() {
        out.push(Cause::invalid(&path, codes.at("values"), "must be ordered"));
    }
}

fn success_policy(out: &mut Causes, spec: &Value, indexed: bool, path: &str) {
    const RULES_MAX: usize = 20;
    const INDEXES_MAX: usize = 64 * 1024;
    let rules = spec.list("successPolicy.rules");
    if !indexed {
        let shown = internal::shown("api.batch.v1.SuccessPolicy", spec.at("successPolicy"));
        return out.push(Cause::invalid(path, &shown, "requires indexed completion mode"));
    }
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        out.push(Cause::required(format!("{path}.rules"), detail));
    }
    if rules.len() > RULES_MAX {
        out.push(Cause::too_many(format!("{path}.rules"), rules.len(), RULES_MAX));
    }
    let completions = spec.int("completions");
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}.rules[{at}]");
        let (count, indexes) = (rule.opt_int("succeededCount"), rule.at("succeededIndexes").as_str());
        if count.is_none() && indexes.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            out.push(Cause::required(&path, detail));
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            if indexes.len() > INDEXES_MAX {
                out.push(Cause::too_long(format!("{path}.succeededIndexes"), INDEXES_MAX));
            }
            match count_indexes(indexes, completions) {
                Ok(all) => total = all,
                Err(wrong) => {
                    let detail = format!("error parsing succeededIndexes: {wrong}");
                    out.push(Cause::invalid(format!("{path}.succeededIndexes"), &indexes.into(), &detail));
                }
            }
        }
        let Some(count) = count else { continue };
        let path = format!("{path}.succeededCount");
        out.extend(validate::non_negative(count, &path));
        if count > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            out.push(Cause::invalid(&path, &count.into(), &detail));
        }
        if indexes.is_some() && count > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            out.push(Cause::invalid(&path, &count.into(), &detail));
        }
    }
}

/// How many indexes `0,2-4` names.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    Ok(indexes(text, completions)?.iter().map(|(first, last)| last - first + 1).sum())
}

/// The runs of indexes `0,2-4` names, first and last.
fn indexes(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    if text.is_empty() {
        return Ok(runs);
    }
    for part in text.split(',') {
        let (first, last) = index_run(part, completions)?;
        if let Some((_, before)) = runs.last().filter(|(_, before)| *before >= first) {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        runs.push((first, last));
    }
    Ok(runs)
}

fn index_run(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let quote = |text: &str| crate::kind::go_quote(text);
    let number = |text: &str| -> Result<i64, String> {
        let value: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {}", quote(text)))?;
        if value >= completions { Err(format!("too large index: {}", quote(text))) } else { Ok(value) }
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    if to.contains('-') {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            quote(text)
        ));
    }
    let (first, last) = (number(from)?, number(to)?);
    if text.contains('-') && first >= last {
        return Err(format!("non-increasing order, previous: {first}, current: {last}"));
    }
    Ok((first, last))
}

fn validate_job_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = validate_job(new);
    let (after, before) = (new.at("spec"), old.at("spec"));
    if after.at("completions") != before.at("completions") {
        let indexed = after.text("completionMode") == "Indexed";
        let shown = after.at("completions");
        if !indexed {
            out.push(Cause::invalid("spec.completions", shown, "field is immutable"));
        } else if !shown.is_null() && shown != after.at("parallelism") {
            let detail = "can only be modified in tandem with spec.parallelism";
            out.push(Cause::invalid("spec.completions", shown, detail));
        }
    }
    let fixed = |out: &mut Causes, field: &str, type_: &str| {
        let shown = match after.at(field) {
            Value::Object(_) => internal::shown(type_, after.at(field)),
            plain => plain.clone(),
        };
        if after.at(field) != before.at(field) {
            out.push(Cause::invalid(format!("spec.{field}"), &shown, "field is immutable"));
        }
    };
    fixed(&mut out, "selector", "");
    template_stays(&mut out, new, old);
    fixed(&mut out, "completionMode", "");
    fixed(&mut out, "podFailurePolicy", "api.batch.v1.PodFailurePolicy");
    fixed(&mut out, "backoffLimitPerIndex", "");
    fixed(&mut out, "managedBy", "");
    fixed(&mut out, "successPolicy", "api.batch.v1.SuccessPolicy");
    out
}

/// The template changes only while the job is suspended, and then only where its pods may run and what they ask for.
fn template_stays(out: &mut Causes, new: &Value, old: &Value) {
    let (template, mut before) = (new.at("spec.template"), old.at("spec.template").clone());
    let mut set = |path: &str| match template.at(path) {
        Value::Null => before.remove(path),
        value => before.set(path, value.clone()),
    };
    let suspended = old.flag("spec.suspend");
    let stopped = has_condition(old, "Suspended");
    let idle = suspended && (!old.has("status.startTime") || stopped) && old.int("status.active") == 0;
    if idle {
        let directives = [
            "metadata.labels",
            "metadata.annotations",
            "spec.nodeSelector",
            "spec.tolerations",
            "spec.schedulingGates",
        ];
        directives.iter().for_each(|path| set(path));
        let node_affinity = "spec.affinity.nodeAffinity";
        if template.has("spec.affinity") || old.has("spec.template.spec.affinity.nodeAffinity") {
            set(node_affinity);
        }
        if !template.has("spec.affinity") && before.at("spec.affinity").is_nothing() {
            before.remove("spec.affinity");
        }
        for list in ["spec.containers", "spec.initContainers"] {
            let after = template.list(list);
            if after.len() != before.list(list).len() {
                continue;
            }
            for (container, new) in before.list_mut(list).iter_mut().zip(after) {
                match new.at("resources") {
                    _ if container.text("name") != new.text("name") => {}
                    Value::Null => container.remove("resources"),
                    value => container.set("resources", value.clone()),
                }
            }
        }
    }
    if idle && template.at("spec") != before.at("spec") {
        let shown = internal::shown("api.core.v1.PodSpec", template.at("spec"));
        out.push(Cause::invalid("spec.template.spec", &shown, "field is immutable"));
    } else if !idle && *template != before {
        let shown = internal::shown("api.core.v1.PodTemplateSpec", template);
        out.push(Cause::invalid("spec.template", &shown, "field is immutable"));
    }
}

fn has_condition(job: &Value, type_: &str) -> bool {
    job.list("status.conditions").iter().any(|c| c.text("type") == type_ && c.text("status") == "True")
}

fn uncounted(out: &mut Causes, pods: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for list in ["succeeded", "failed"] {
        for (at, uid) in pods.list(list).iter().enumerate() {
            let path = format!("status.uncountedTerminatedPods.{list}[{at}]");
            match uid.as_str().unwrap_or_default() {
                "" => out.push(Cause::invalid(path, uid, "must not be empty")),
                text if seen.contains(&text) => out.push(Cause::duplicate(path, uid)),
                text => seen.push(text),
            }
        }
    }
}

/// Most is only looked at where it changes: a job may be in a state that its controller has yet to mend.
fn validate_job_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let (spec, status, before) = (new.at("spec"), new.at("status"), old.at("status"));
    let conditions = |out: &mut Causes, wrong: bool, detail: &str| {
        if wrong {
            out.push(invalid_unshown("status.conditions", detail));
        }
    };
    let wrong = |out: &mut Causes, wrong: bool, field: &str, detail: &str| {
        if wrong {
            out.push(Cause::invalid(format!("status.{field}"), status.at(field), detail));
        }
    };
    let moved = |field: &str| status.at(field) != before.at(field);
    let turned = |type_: &str| has_condition(new, type_) != has_condition(old, type_);
    let number_moved = |field: &str| status.int(field) != before.int(field);
    let (complete, failed) = (has_condition(new, "Complete"), has_condition(new, "Failed"));
    let (met, target) = (has_condition(new, "SuccessCriteriaMet"), has_condition(new, "FailureTarget"));
    let finished = complete || failed;
    let finish_turned = finished != (has_condition(old, "Complete") || has_condition(old, "Failed"));
    check::non_negative(&mut out, status, "status", &["active", "succeeded", "failed", "ready", "terminating"]);
    uncounted(&mut out, status.at("uncountedTerminatedPods"));
    let both = complete && failed && (turned("Complete") || turned("Failed"));
    conditions(&mut out, both, "cannot set Complete=True and Failed=true conditions");
    let both = complete && target && (turned("Complete") || turned("FailureTarget"));
    conditions(&mut out, both, "cannot set Complete=True and FailureTarget=true conditions");
    if turned("Complete") || moved("completionTime") {
        let done = status.has("completionTime");
        let without = "cannot set completionTime when there is no Complete=True condition";
        wrong(&mut out, done && !complete, "completionTime", without);
        if !done && complete {
            out.push(Cause::required("status.completionTime", "completionTime is required for Complete jobs"));
        }
    }
    // Times are all of one form, so that their texts are in their order.
    let early = status.has("startTime")
        && status.has("completionTime")
        && status.text("completionTime") < status.text("startTime")
        && (moved("startTime") || moved("completionTime"));
    wrong(&mut out, early, "completionTime", "must be equal to or after `startTime`");
    let without = "cannot set Failed=True condition without the FailureTarget=true condition";
    conditions(&mut out, failed && !target && (turned("Failed") || moved("failedIndexes")), without);
    let without = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
    conditions(&mut out, complete && !met && (turned("Complete") || turned("SuccessCriteriaMet")), without);
    let active = finished && status.int("active") > 0 && (finish_turned || number_moved("active"));
    wrong(&mut out, active, "active", "active>0 is invalid for finished job");
    if finished && !status.has("startTime") && (finish_turned || moved("startTime")) {
        out.push(Cause::required("status.startTime", "startTime is required for finished job"));
    }
    let pods = status.at("uncountedTerminatedPods");
    let some = !pods.list("succeeded").is_empty() || !pods.list("failed").is_empty();
    if finished && some && (finish_turned || moved("uncountedTerminatedPods")) {
        let shown = internal::shown("api.batch.v1.UncountedTerminatedPods", pods);
        out.push(Cause::invalid("status.uncountedTerminatedPods", &shown, "must be empty for finished job"));
    }
    status_indexes(&mut out, spec, status, before);
    let terminating = finished && status.int("terminating") > 0 && (finish_turned || moved("terminating"));
    wrong(&mut out, terminating, "terminating", "terminating>0 is invalid for finished job");
    // A job that tells of no ready pods has none: where jobs are run, that is written into its status before anybody else writes there.
    if status.int("ready") > status.int("active") && (moved("ready") || number_moved("active")) {
        out.push(Cause::invalid("status.ready", &status.int("ready").into(), "cannot set more ready pods than active"));
    }
    conditions(&mut out, met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    conditions(&mut out, met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    let without = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
    conditions(&mut out, spec.has("successPolicy") && !met && complete, without);
    status_steps(&mut out, new, old);
    out
}

fn status_indexes(out: &mut Causes, spec: &Value, status: &Value, before: &Value) {
    let moved = |field: &str| status.text(field) != before.text(field) || status.has(field) != before.has(field);
    let mut wrong = |field: &str, detail: &str| {
        out.push(Cause::invalid(format!("status.{field}"), &status.text(field).into(), detail));
    };
    let (completed, failed) = (status.text("completedIndexes"), status.text("failedIndexes"));
    let (completed_moved, failed_moved) = (moved("completedIndexes"), moved("failedIndexes"));
    let completions = spec.opt_int("completions");
    let parse = |text: &str| completions.and_then(|all| indexes(text, all).err());
    if let Some(error) = parse(completed).filter(|_| completed_moved) {
        wrong("completedIndexes", &format!("error parsing completedIndexes: {error}"));
    }
    if let Some(error) = parse(failed).filter(|_| failed_moved && spec.has("backoffLimitPerIndex")) {
        wrong("failedIndexes", &format!("error parsing failedIndexes: {error}"));
    }
    if completed_moved && !completed.is_empty() && spec.text("completionMode") != "Indexed" {
        wrong("completedIndexes", "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if failed_moved && status.has("failedIndexes") && !spec.has("backoffLimitPerIndex") {
        wrong("failedIndexes", "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if let Some(all) = completions.filter(|_| completed_moved || failed_moved) {
        let runs =
            |text: &str| -> Vec<(i64, i64)> { text.split(',').filter_map(|part| index_run(part, all).ok()).collect() };
        let both = runs(completed).into_iter().flat_map(|a| runs(failed).into_iter().map(move |b| (a, b)));
        let overlap = both.filter(|(a, b)| a.0 <= b.1 && b.0 <= a.1).map(|(a, b)| a.0.max(b.0)).min();
        if let Some(index) = overlap {
            wrong("failedIndexes", &format!("failedIndexes and completedIndexes overlap at index: {index}"));
        }
    }
}

/// What does not follow upon the status before.
fn status_steps(out: &mut Causes, new: &Value, old: &Value) {
    let (spec, status, before) = (new.at("spec"), new.at("status"), old.at("status"));
    for type_ in ["Failed", "Complete", "FailureTarget"] {
        if has_condition(old, type_) && !has_condition(new, type_) {
            let detail = format!("cannot disable the terminal {type_}=True condition");
            out.push(invalid_unshown("status.conditions", &detail));
        }
    }
    let scales = spec.text("completionMode") == "Indexed" && spec.at("completions") == spec.at("parallelism");
    for field in ["failed", "succeeded"] {
        if status.int(field) < before.int(field) && !(scales && field == "succeeded") {
            let detail = format!("cannot decrease the {field} counter");
            out.push(Cause::invalid(format!("status.{field}"), &status.int(field).into(), &detail));
        }
    }
    let (after, was) = (status.at("completionTime"), before.at("completionTime"));
    if !after.is_null() && !was.is_null() {
        out.extend(validate::immutable(after, was, "status.completionTime"));
    }
    let started_again = before.has("startTime") && before.at("startTime") != status.at("startTime");
    if started_again && !spec.flag("suspend") {
        out.push(Cause::required("status.startTime", "startTime cannot be removed for unsuspended job"));
    }
    let (met, was_met) = (has_condition(new, "SuccessCriteriaMet"), has_condition(old, "SuccessCriteriaMet"));
    if was_met && !met {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        out.push(invalid_unshown("status.conditions", detail));
    }
    if has_condition(old, "Complete") && !was_met && met {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        out.push(invalid_unshown("status.conditions", detail));
    }
}

/// What is missing is told of last, by the caller.
fn cron_job_spec(out: &mut Causes, cron_job: &Value, old: Option<&Value>) -> Causes {
    let spec = cron_job.at("spec");
    let mut missing = Vec::new();
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        missing.push(Cause::required("spec.schedule", ""));
    } else {
        if let Err(wrong) = cron::parse(schedule) {
            out.push(Cause::invalid("spec.schedule", &schedule.into(), &wrong));
        }
        let had_zone = old.is_some_and(|old| old.text("spec.schedule").contains("TZ"));
        if schedule.contains("TZ") && (!had_zone || spec.has("timeZone")) {
            let detail = match had_zone {
                true => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
                false => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            };
            out.push(Cause::invalid("spec.schedule", &schedule.into(), detail));
        }
    }
    check::non_negative(out, spec, "spec", &["startingDeadlineSeconds"]);
    let zone = spec.at("timeZone");
    if old.is_none_or(|old| old.at("spec.timeZone") != zone)
        && let Some(wrong) = zone.as_str().and_then(cron::zone_error)
    {
        out.push(Cause::invalid("spec.timeZone", zone, &wrong));
    }
    check::one_of(out, spec.at("concurrencyPolicy"), "spec.concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
    let job = spec.at("jobTemplate.spec");
    job_spec(out, job, "spec.jobTemplate.spec");
    if job.has("selector") {
        let path = "spec.jobTemplate.spec.selector";
        out.push(Cause::invalid(path, job.at("selector"), "`selector` will be auto-generated"));
    }
    if job.flag("manualSelector") {
        let path = "spec.jobTemplate.spec.manualSelector";
        out.push(Cause::not_supported(path, &true.into(), &["nil", "false"]));
    }
    check::non_negative(out, spec, "spec", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: Vec<Cause>) -> Vec<String> {
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn check_status(spec: Value, old: Value, new: Value, expected: &[&str]) {
        let job = |status: Value| json!({"spec": spec, "status": status});
        assert_eq!(told(validate_job_status(&job(new), &job(old))), expected);
    }

    fn check_spec(spec: Value, expected: &[&str]) {
        let mut out = Vec::new();
        job_spec(&mut out, &spec, "spec");
        let about = |line: &String| !line.starts_with("spec.template");
        assert_eq!(told(out).into_iter().filter(about).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn many_completions_want_fewer_at_a_time() {
        check_spec(
            json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001, "backoffLimitPerIndex": 1}),
            &[
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
                "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above \
                 100000 and used with backoff limit per index",
            ],
        );
        check_spec(
            json!({"completionMode": "Indexed", "completions": 3, "maxFailedIndexes": 4}),
            &[
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
            ],
        );
    }

    #[test]
    fn rules_name_what_they_look_for() {
        check_spec(
            json!({"podFailurePolicy": {"rules": [
                {"action": "FailJob", "onExitCodes": {"values": [1]}},
                {"action": "FailJob", "onPodConditions": [{"type": "A", "status": ""}]},
            ]}}),
            &[
                "spec.podFailurePolicy.rules[0].onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]",
                "spec.podFailurePolicy.rules[1].onPodConditions[0].status: Required value: valid values: [\"False\" \
                 \"True\" \"Unknown\"]",
            ],
        );
    }

    #[test]
    fn indexes_are_told_once() {
        let spec = json!({"completionMode": "Indexed", "completions": 5, "backoffLimitPerIndex": 1});
        check_status(
            spec.clone(),
            json!({}),
            json!({"completedIndexes": "0-2", "failedIndexes": "2,4"}),
            &["status.failedIndexes: Invalid value: \"2,4\": failedIndexes and completedIndexes overlap at index: 2"],
        );
        check_status(
            spec,
            json!({}),
            json!({"completedIndexes": "1,a", "uncountedTerminatedPods": {"succeeded": ["", "u"], "failed": ["u"]}}),
            &[
                "status.uncountedTerminatedPods.succeeded[0]: Invalid value: \"\": must not be empty",
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"u\"",
                "status.completedIndexes: Invalid value: \"1,a\": error parsing completedIndexes: cannot convert string \
                 to integer for index: \"a\"",
            ],
        );
    }

    #[test]
    fn what_is_over_stays_over() {
        let done = json!({
            "startTime": "2024-01-01T00:00:00Z", "completionTime": "2024-01-01T00:01:00Z",
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}],
        });
        check_status(
            json!({}),
            done,
            json!({"startTime": "2024-01-01T00:02:00Z"}),
            &[
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.startTime: Required value: startTime cannot be removed for unsuspended job",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        );
    }
}
