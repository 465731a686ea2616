//! Jobs and cron jobs.

use serde_json::{Value, json};

use super::check::{self, Causes, invalid_unshown};
use super::read::{Read, Write};
use super::{columns, cron, pod_check, pod_defaults, rows, warnings};
use crate::validate;
use crate::{Behaviour, Cause};

pub static JOB: Behaviour = Behaviour {
    not_selectable: |field| format!("field label {} not supported for Job", crate::kind::go_quote(field)),
    warnings: warnings::workload,
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
    ("job-name", "metadata.name"),
    ("batch.kubernetes.io/job-name", "metadata.name"),
    ("controller-uid", "metadata.uid"),
    (UID_LABEL, "metadata.uid"),
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
            if template.at("metadata.labels").key(label) != &value {
                let path = "spec.template.metadata.labels";
                let detail = format!("must be '{}'", value.as_str().unwrap_or_default());
                out.push(Cause::invalid(path, &check::by_key(template.at("metadata.labels")), &detail));
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
    if let Some(manager) = spec.at("managedBy").as_str() {
        check::domain_prefixed_path(out, manager, &format!("{path}.managedBy"));
        if manager.len() > 63 {
            out.push(Cause::too_long(format!("{path}.managedBy"), 63));
        }
    }
    let indexed = spec.text("completionMode") == "Indexed";
    check::optional_one_of(out, spec.at("completionMode"), &format!("{path}.completionMode"), MODES);
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
    check::optional_one_of(out, spec.at("podReplacementPolicy"), &format!("{path}.podReplacementPolicy"), replacement);
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
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") && indexed {
        let path = template.trim_end_matches(".template");
        let detail = "when maxFailedIndexes is specified";
        out.push(Cause::required(format!("{path}.backoffLimitPerIndex"), detail));
    }
}

fn failure_policy(out: &mut Causes, spec: &Value, path: &str) {
    const RULES_MAX: usize = 20;
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = spec.list("podFailurePolicy.rules");
    if rules.len() > RULES_MAX {
        out.push(Cause::too_many(format!("{path}.rules"), rules.len(), RULES_MAX));
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}.rules[{at}]");
        let field = format!("{path}.action");
        match rule.text("action") {
            "" => {
                let listed: Vec<String> = ACTIONS.iter().map(|action| format!("{action:?}")).collect();
                out.push(Cause::required(field, &format!("valid values: [{}]", listed.join(" "))));
            }
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                out.push(Cause::invalid(field, rule.at("action"), "requires the backoffLimitPerIndex to be set"));
            }
            action if !ACTIONS.contains(&action) => out.push(Cause::not_supported(field, rule.at("action"), ACTIONS)),
            _ => {}
        }
        if rule.has("onExitCodes") {
            exit_codes(out, spec, rule.at("onExitCodes"), &format!("{path}.onExitCodes"));
        }
        for (at, pattern) in rule.list("onPodConditions").iter().enumerate() {
            let path = format!("{path}.onPodConditions[{at}]");
            check::text(out, pattern.text("type"), &format!("{path}.type"), validate::qualified_name);
            check::one_of(out, pattern.at("status"), &format!("{path}.status"), &["False", "True", "Unknown"]);
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

fn exit_codes(out: &mut Causes, spec: &Value, codes: &Value, path: &str) {
    const VALUES_MAX: usize = 255;
    check::one_of(out, codes.at("operator"), &format!("{path}.operator"), &["In", "NotIn"]);
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
    let rules = spec.list("successPolicy.rules");
    if !indexed {
        let shown: Vec<Value> = rules
            .iter()
            .map(|r| json!({"SucceededIndexes": r.at("succeededIndexes"), "SucceededCount": r.at("succeededCount")}))
            .collect();
        return out.push(Cause::invalid(path, &json!({"Rules": shown}), "requires indexed completion mode"));
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
    let quote = |text: &str| crate::kind::go_quote(text);
    let number = |text: &str| -> Result<i64, String> {
        let value: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {}", quote(text)))?;
        if value >= completions { Err(format!("too large index: {}", quote(text))) } else { Ok(value) }
    };
    let (mut total, mut last) = (0, None);
    if text.is_empty() {
        return Ok(0);
    }
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if to.contains('-') {
            return Err(format!(
                "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
                quote(part)
            ));
        }
        let first = number(from)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        let end = number(to)?;
        if part.contains('-') && first >= end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn validate_job_update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let (after, before) = (new.at("spec"), old.at("spec"));
    let mut checked = Vec::new();
    job_spec(&mut checked, after, "spec");
    out.extend(checked);
    if after.at("completions") != before.at("completions") {
        let indexed = after.text("completionMode") == "Indexed";
        let shown = after.at("completions");
        if !indexed || shown.is_null() {
            out.push(Cause::invalid("spec.completions", shown, "field is immutable"));
        } else if after.at("completions") != after.at("parallelism") {
            let detail = "can only be modified in tandem with spec.parallelism";
            out.push(Cause::invalid("spec.completions", shown, detail));
        }
    }
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        let path = format!("spec.{field}");
        out.extend(validate::immutable(after.at(field), before.at(field), &path));
    }
    template_stays(&mut out, new, old);
    out
}

/// The template changes only while the job is suspended, and then only where its pods may run and what they ask for.
fn template_stays(out: &mut Causes, new: &Value, old: &Value) {
    let (mut template, before) = (new.at("spec.template").clone(), old.at("spec.template"));
    let suspended = old.flag("spec.suspend");
    let stopped =
        old.list("status.conditions").iter().any(|c| c.text("type") == "Suspended" && c.text("status") == "True");
    if suspended && (!old.has("status.startTime") || stopped) && old.int("status.active") == 0 {
        let directives = [
            "metadata.labels",
            "metadata.annotations",
            "spec.nodeSelector",
            "spec.affinity.nodeAffinity",
            "spec.tolerations",
            "spec.schedulingGates",
        ];
        for path in directives {
            match before.at(path) {
                Value::Null => template.remove(path),
                value => template.set(path, value.clone()),
            }
        }
        for list in ["spec.containers", "spec.initContainers"] {
            for (container, old) in template.list_mut(list).iter_mut().zip(before.list(list)) {
                match old.at("resources") {
                    Value::Null => container.remove("resources"),
                    value => container.set("resources", value.clone()),
                }
            }
        }
    }
    out.extend(validate::immutable(&template, before, "spec.template"));
}

fn validate_job_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let status = new.at("status");
    let has = |object: &Value, type_: &str| {
        let mut conditions = object.list("status.conditions").iter();
        conditions.any(|c| c.text("type") == type_ && c.text("status") == "True")
    };
    check::non_negative(&mut out, status, "status", &["active", "succeeded", "failed", "ready", "terminating"]);
    let (complete, failed) = (has(new, "Complete"), has(new, "Failed"));
    let (met, target) = (has(new, "SuccessCriteriaMet"), has(new, "FailureTarget"));
    let conditions = |out: &mut Causes, wrong: bool, detail: &str| {
        if wrong {
            out.push(invalid_unshown("status.conditions", detail));
        }
    };
    conditions(&mut out, complete && failed, "cannot set Complete=True and Failed=true conditions");
    conditions(&mut out, complete && target, "cannot set Complete=True and FailureTarget=true conditions");
    if status.has("completionTime") && !complete {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        out.push(Cause::invalid("status.completionTime", status.at("completionTime"), detail));
    }
    if !status.has("completionTime") && complete {
        out.push(Cause::required("status.completionTime", "completionTime is required for Complete jobs"));
    }
    let without = "cannot set Failed=True condition without the FailureTarget=true condition";
    conditions(&mut out, failed && !target, without);
    let without = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
    conditions(&mut out, complete && !met, without);
    let finished = complete || failed;
    if finished && status.int("active") > 0 {
        out.push(Cause::invalid("status.active", status.at("active"), "active>0 is invalid for finished job"));
    }
    if finished && !status.has("startTime") {
        out.push(Cause::required("status.startTime", "startTime is required for finished job"));
    }
    if finished && status.int("terminating") > 0 {
        let detail = "terminating>0 is invalid for finished job";
        out.push(Cause::invalid("status.terminating", status.at("terminating"), detail));
    }
    // A job that tells of no ready pods has none.
    if status.int("ready") > status.int("active") {
        out.push(Cause::invalid("status.ready", &status.int("ready").into(), "cannot set more ready pods than active"));
    }
    conditions(&mut out, met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    conditions(&mut out, met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    for field in ["failed", "succeeded"] {
        if status.int(field) < old.at("status").int(field) {
            let detail = format!("cannot decrease the {field} counter");
            out.push(Cause::invalid(format!("status.{field}"), &status.int(field).into(), &detail));
        }
    }
    out
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
