//! What is told of authorizers: who decided how often, how webhooks answer, and whether the configuration is the newest.

use std::sync::atomic::Ordering;

use super::{counted, family, line, some};
use crate::authz::webhook;
use crate::state::State;

pub(super) fn print(out: &mut String, state: &State) {
    let counts = &state.authorizer.counts;
    let name = "apiserver_authorization_decisions_total";
    family(out, name, "counter", "Decisions that ended the questions, by the authorizer that made them.");
    for (kind, called, decided) in counts.all_decided() {
        let labels = |decision: &str| format!("decision=\"{decision}\",name=\"{called}\",type=\"{kind}\"");
        some(out, name, &labels("allowed"), &decided.allowed);
        some(out, name, &labels("denied"), &decided.denied);
    }
    webhooks(out, state);
    let reloads = &counts.reloads;
    let hash = reloads.hash();
    if hash.is_empty() {
        return;
    }
    let told = [("failure", &reloads.failed), ("success", &reloads.succeeded)];
    let name = "apiserver_authorization_config_controller_automatic_reloads_total";
    family(out, name, "counter", "Changes of the authorization configuration that were taken, and that were not.");
    for (status, told) in told {
        some(out, name, &format!("apiserver_id_hash=\"\",status=\"{status}\""), &told.total);
    }
    let name = "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds";
    family(out, name, "gauge", "The last of them, in seconds since 1970.");
    for (status, told) in told.into_iter().filter(|(_, told)| told.total.load(Ordering::Relaxed) > 0) {
        let labels = format!("apiserver_id_hash=\"\",status=\"{status}\"");
        line(out, name, &labels, told.last.load(Ordering::Relaxed));
    }
    let name = "apiserver_authorization_config_controller_last_config_info";
    family(out, name, "gauge", "The hash of the authorization configuration that counts.");
    line(out, name, &format!("apiserver_id_hash=\"\",hash=\"{hash}\""), 1);
}

fn webhooks(out: &mut String, state: &State) {
    let all = state.authorizer.counts.all_webhooks();
    if all.is_empty() {
        return;
    }
    let head = |what: &str| format!("apiserver_authorization_{what}");
    let result = |called: &str, result: &str| format!("name=\"{called}\",result=\"{result}\"");
    let of = |called: &str| format!("name=\"{called}\",type=\"Webhook\"");
    let name = head("webhook_evaluations_total");
    family(out, &name, "counter", "Calls of authorization webhooks.");
    for (called, counts) in &all {
        for (word, count) in webhook::RESULTS.iter().zip(&counts.calls) {
            some(out, &name, &result(called, word), count);
        }
    }
    let name = head("webhook_duration_seconds");
    family(out, &name, "histogram", "Time of calls of authorization webhooks, in seconds.");
    for (called, counts) in &all {
        for (word, durations) in webhook::RESULTS.iter().zip(&counts.durations) {
            durations.print(out, &name, &result(called, word), &webhook::DURATIONS);
        }
    }
    let name = head("webhook_evaluations_fail_open_total");
    family(
        out,
        &name,
        "counter",
        "Questions that went on to the next authorizer because a webhook could not be asked.",
    );
    for (called, counts) in &all {
        for (word, count) in webhook::RESULTS.iter().zip(&counts.fail_open) {
            some(out, &name, &result(called, word), count);
        }
    }
    let name = head("match_condition_evaluation_seconds");
    family(out, &name, "histogram", "Time of the match conditions of authorization webhooks, in seconds.");
    for (called, counts) in &all {
        counts.condition_durations.print(out, &name, &of(called), &webhook::CONDITION_DURATIONS);
    }
    let name = head("match_condition_evaluation_errors_total");
    family(out, &name, "counter", "Requests of which match conditions made nothing.");
    all.iter().for_each(|(called, counts)| some(out, &name, &of(called), &counts.condition_errors));
    let name = head("match_condition_exclusions_total");
    family(out, &name, "counter", "Requests that a webhook was not asked about because of its match conditions.");
    all.iter().for_each(|(called, counts)| counted(out, &name, &of(called), &counts.condition_exclusions));
}
