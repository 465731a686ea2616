//! Certificate requests: who asks is written down by the server, and approving or signing needs a right on the signer.

use api::{Status, go, meta};
use serde_json::{Map, Value, json};

use super::{Operation, Plugin, Request};
use crate::authz::Attributes;
use crate::certificates;
use crate::verbs::write::timestamp;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";

/// The signer of client certificates for this server, which gives nobody all rights.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Not a plugin upstream but part of the kind: who asks, and when conditions were written.
pub struct Requester;

/// CertificateApproval: the verb `approve` on the signer.
pub struct Approval;

/// CertificateSigning: the verb `sign` on the signer.
pub struct Signing;

/// CertificateSubjectRestriction: no certificate makes its bearer a member of system:masters.
pub struct SubjectRestriction;

impl Plugin for Requester {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        if !request.is(GROUP, RESOURCE) {
            return Ok(());
        }
        match (request.operation, request.old) {
            (Operation::Create, _) => name_requester(request, object),
            (Operation::Update, Some(old)) if !request.subresource.is_empty() => {
                date_conditions(object, old, &timestamp(request.now));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a client says of itself is not heard.
fn name_requester(request: &Request, object: &mut Value) {
    let user = request.user;
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let Some(spec) = object["spec"].as_object_mut() else { return };
    let mut set = |field: &str, value: Value, is_empty: bool| match is_empty {
        true => drop(spec.shift_remove(field)),
        false => drop(spec.insert(field.into(), value)),
    };
    set("username", json!(user.name), user.name.is_empty());
    set("uid", json!(user.uid), user.uid.is_empty());
    set("groups", json!(user.groups), user.groups.is_empty());
    let extra: Map<String, Value> = user.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
    let is_empty = extra.is_empty();
    set("extra", Value::Object(extra), is_empty);
}

/// Conditions without times are of now; one that only says again what it said keeps the time of its transition.
fn date_conditions(object: &mut Value, old: &Value, now: &str) {
    let before = meta::items_at(old, &["status", "conditions"]);
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |old: &&Value| old["type"] == condition["type"] && old["status"] == condition["status"];
            let kept = before.iter().find(same).map(|old| old["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = kept.filter(Value::is_string).unwrap_or_else(|| json!(now));
        }
    }
}

impl Plugin for Approval {
    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        match object.filter(|_| is_update(request, "approval")) {
            Some(object) => require(request, "approve", object),
            None => Ok(()),
        }
    }
}

impl Plugin for Signing {
    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let (Some(object), Some(old), true) = (object, request.old, is_update(request, "status")) else {
            return Ok(());
        };
        let same = |path: &[&str]| meta::at(object, path) == meta::at(old, path);
        if same(&["status", "certificate"]) && same(&["status", "conditions"]) {
            return Ok(());
        }
        require(request, "sign", object)
    }
}

impl Plugin for SubjectRestriction {
    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let new = request.operation == Operation::Create && request.is(GROUP, RESOURCE);
        let Some(spec) = object.filter(|_| new).map(|object| &object["spec"]) else { return Ok(()) };
        if spec["signerName"] != CLIENT_SIGNER {
            return Ok(());
        }
        let subject = certificates::Asked::parse(meta::text_at(spec, &["request"]));
        let subject = subject.map_err(|why| request.forbidden(why))?;
        if subject.groups.iter().any(|group| group == crate::authn::MASTERS) {
            let masters = crate::authn::MASTERS;
            return Err(request.forbidden(format!("use of {CLIENT_SIGNER} signer with {masters} group is not allowed")));
        }
        Ok(())
    }
}

fn is_update(request: &Request, subresource: &str) -> bool {
    request.operation == Operation::Update && request.is(GROUP, RESOURCE) && request.subresource == subresource
}

/// The right is on the signer, or on all signers of its domain.
fn require(request: &Request, verb: &str, object: &Value) -> Result<(), Status> {
    let signer = meta::text_at(object, &["spec", "signerName"]);
    let all = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let on = Attributes { version: "*", ..Attributes::resource(request.user, verb, GROUP, "signers") };
    let may =
        |name: &&str| request.state.authorizer.authorize(&Attributes { name, ..on }, request.hearing).is_allowed();
    let allowed = [signer, &all].into_iter().find(may);
    if !request.hearing.is_open() {
        request.state.usage.note(&Attributes { name: allowed.unwrap_or(signer), ..on }, allowed.is_some());
    }
    match allowed {
        Some(_) => Ok(()),
        None => {
            let signer = go::quote(signer);
            Err(request.forbidden(format!("user not permitted to {verb} requests with signerName {signer}")))
        }
    }
}
