//! The review resources: questions about identities and rights, answered and never stored.

use api::selector::{self, FieldTerm, Op, Requirement};
use api::{Cause, FieldSelector, LabelSelector, Status, go, meta};
use serde_json::{Map, Value, json};

use crate::authn::{Authenticator, Judged, User};
use crate::authz::{Attributes, Authorizer, Decision, Hearing, Selecting};
use crate::lookup::Lookup;

/// Answers a request that made a review.
pub async fn answer(cx: &crate::serve::Cx<'_>, kind: &kinds::Kind, object: Value) -> Result<Value, Status> {
    let asked = Cx {
        user: cx.user,
        authenticator: &cx.state.authenticator,
        authorizer: &cx.state.authorizer,
        hearing: cx.hearing,
        lookup: &**cx.state,
        now: cx.now.as_second(),
    };
    let namespace = cx.ask.target.as_ref().map_or("", |target| target.namespace.as_str());
    answer_in(&asked, (&kind.group, &kind.plural), namespace, object).await
}

async fn answer_in(
    cx: &Cx<'_>,
    (group, resource): (&str, &str),
    namespace: &str,
    object: Value,
) -> Result<Value, Status> {
    if (group, resource) == ("authentication.k8s.io", "tokenreviews") {
        return token_review(cx, object).await;
    }
    let Some(review) = find(group, resource) else {
        return Err(Status::not_implemented(format!("the review {resource}")));
    };
    // What is asked stays, for the case that a webhook is to be asked first.
    match cx.authorizer.asks_webhooks() {
        true => cx.hearing.settle(|| review(cx, namespace, object.clone())).await,
        false => {
            let answer = review(cx, namespace, object);
            cx.hearing.check_closed()?;
            answer
        }
    }
}

/// What reviews need to know.
#[derive(Clone, Copy)]
struct Cx<'a> {
    /// Who asks.
    user: &'a User,
    authenticator: &'a Authenticator,
    authorizer: &'a Authorizer,
    hearing: &'a Hearing,
    lookup: &'a dyn Lookup,
    /// Seconds since 1970.
    now: i64,
}

/// Answers a review: the decoded object in, the same with its status out. `namespace` is the request's.
type Review = fn(&Cx<'_>, namespace: &str, object: Value) -> Result<Value, Status>;

/// The review of a group and resource, where that is one that need not wait.
fn find(group: &str, resource: &str) -> Option<Review> {
    match (group, resource) {
        ("authentication.k8s.io", "selfsubjectreviews") => Some(self_subject_review),
        ("authorization.k8s.io", "subjectaccessreviews") => Some(subject_access_review),
        ("authorization.k8s.io", "localsubjectaccessreviews") => Some(local_subject_access_review),
        ("authorization.k8s.io", "selfsubjectaccessreviews") => Some(self_subject_access_review),
        ("authorization.k8s.io", "selfsubjectrulesreviews") => Some(self_subject_rules_review),
        _ => None,
    }
}

/// Who a token stands for.
async fn token_review(cx: &Cx<'_>, mut object: Value) -> Result<Value, Status> {
    without_namespace(&mut object);
    let token = meta::text_at(&object, &["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = texts(&object, &["spec", "audiences"]);
    let outcome = match cx.authenticator.begin_review(token, &audiences, cx.lookup, cx.now) {
        Judged::Known(outcome) => outcome,
        Judged::Open(open) => cx.authenticator.finish(open, cx.now).await,
    };
    // A failed review leaves what the asker wrote into the status where it has nothing to say itself.
    let asked = object.get("status").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut status = Map::new();
    match outcome {
        Ok(found) => {
            status.insert("authenticated".into(), json!(true));
            status.insert("user".into(), json!(*found.user));
            if !found.audiences.is_empty() {
                status.insert("audiences".into(), json!(found.audiences));
            }
        }
        Err(error) => {
            status.insert("user".into(), asked.get("user").cloned().unwrap_or_else(|| json!({})));
            if let Some(audiences) = asked.get("audiences") {
                status.insert("audiences".into(), audiences.clone());
            }
            status.insert("error".into(), json!(error.reason));
        }
    }
    object["status"] = Value::Object(status);
    Ok(object)
}

/// Who am I.
fn self_subject_review(cx: &Cx<'_>, _: &str, object: Value) -> Result<Value, Status> {
    let now = jiff::Timestamp::from_second(cx.now).map_err(Status::internal)?;
    Ok(json!({
        "kind": object["kind"],
        "apiVersion": object["apiVersion"],
        "metadata": {"creationTimestamp": now.to_string()},
        "status": {"userInfo": cx.user},
    }))
}

/// May they.
fn subject_access_review(cx: &Cx<'_>, _: &str, mut object: Value) -> Result<Value, Status> {
    without_namespace(&mut object);
    let mut causes = spec_causes(&object, true);
    causes.extend(metadata_cause(&object, false));
    review(cx, object, causes)
}

/// May they, in one namespace.
fn local_subject_access_review(cx: &Cx<'_>, namespace: &str, mut object: Value) -> Result<Value, Status> {
    match meta::namespace(&object) {
        "" => {
            // Where Go has it: errors show the metadata.
            let metadata = meta::metadata_mut(&mut object);
            let before = metadata.keys().take_while(|key| ["name", "generateName"].contains(&key.as_str())).count();
            metadata.shift_insert(before, "namespace".into(), json!(namespace));
        }
        given if given == namespace => {}
        _ => {
            let text = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(text));
        }
    }
    let mut causes = spec_causes(&object, true);
    causes.extend(metadata_cause(&object, true));
    let wanted = meta::text_at(&object, &["spec", "resourceAttributes", "namespace"]);
    if present(&object, "resourceAttributes").is_some() && wanted != namespace {
        causes.push(invalid("spec.resourceAttributes.namespace", go::quote(wanted), "must match metadata.namespace"));
    }
    if let Some(path) = present(&object, "nonResourceAttributes") {
        causes.push(invalid("spec.nonResourceAttributes", as_go(Some(path)), "disallowed on this kind of request"));
    }
    review(cx, object, causes)
}

/// May I.
fn self_subject_access_review(cx: &Cx<'_>, _: &str, mut object: Value) -> Result<Value, Status> {
    without_namespace(&mut object);
    let mut causes = spec_causes(&object, false);
    causes.extend(metadata_cause(&object, false));
    refuse(causes)?;
    decide(cx, object, cx.user)
}

/// What may I, in one namespace.
fn self_subject_rules_review(cx: &Cx<'_>, _: &str, object: Value) -> Result<Value, Status> {
    let namespace = meta::text_at(&object, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, incomplete, errors) = cx.authorizer.rules_for(cx.user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for mut rule in rules {
        let urls = std::mem::take(&mut rule.non_resource_urls);
        if !urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": urls}));
        }
        if !rule.resources.is_empty() {
            resources.push(rule.to_value());
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if !errors.is_empty() {
        status["evaluationError"] = json!(crate::authz::aggregate(&errors));
    }
    Ok(json!({
        "kind": object["kind"],
        "apiVersion": object["apiVersion"],
        "metadata": {},
        "spec": {},
        "status": status,
    }))
}

/// A review about the user of its spec.
fn review(cx: &Cx<'_>, object: Value, causes: Vec<Cause>) -> Result<Value, Status> {
    refuse(causes)?;
    let text = |field: &str| meta::text_at(&object, &["spec", field]).to_string();
    let extra = meta::at(&object, &["spec", "extra"]).and_then(Value::as_object).into_iter().flatten();
    let user = User {
        name: text("user"),
        uid: text("uid"),
        groups: texts(&object, &["spec", "groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values, &[]))).collect(),
    };
    decide(cx, object, &user)
}

fn refuse(causes: Vec<Cause>) -> Result<(), Status> {
    // The kind is not known any more where the real server makes this text.
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("authorization.k8s.io", "", "", causes)) }
}

fn decide(cx: &Cx<'_>, mut object: Value, user: &User) -> Result<Value, Status> {
    let mut unread = Vec::new();
    let decision = match (present(&object, "resourceAttributes"), present(&object, "nonResourceAttributes")) {
        (Some(resource), _) => {
            let (fields, wrong_fields) = fields(resource);
            let (labels, wrong_labels) = labels(resource);
            for (field, terms, wrong) in [
                ("fieldSelector", fields.as_ref().map_or(0, |selector| selector.0.len()), wrong_fields),
                ("labelSelector", labels.as_ref().map_or(0, |selector| selector.0.len()), wrong_labels),
            ] {
                let partially = if terms > 0 { "partially " } else { "" };
                if wrong {
                    unread.push(format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"));
                }
            }
            let text = |field: &str| meta::text_at(resource, &[field]);
            let attributes = Attributes {
                version: if text("version").is_empty() { "*" } else { text("version") },
                subresource: text("subresource"),
                name: text("name"),
                namespace: text("namespace"),
                field_selector: fields.as_ref().map_or(Selecting::None, Selecting::Read),
                label_selector: labels.as_ref().map_or(Selecting::None, Selecting::Read),
                ..Attributes::resource(user, text("verb"), text("group"), text("resource"))
            };
            cx.authorizer.authorize(&attributes, cx.hearing)
        }
        (None, path) => {
            let text = |field: &str| path.map_or("", |path| meta::text_at(path, &[field]));
            cx.authorizer.authorize(&Attributes::path(user, text("verb"), text("path")), cx.hearing)
        }
    };
    let mut status = json!({"allowed": decision.is_allowed()});
    if let Decision::Deny { .. } = decision {
        status["denied"] = json!(true);
    }
    let (reason, error) = match &decision {
        Decision::Allow { reason } => (reason.to_string(), ""),
        other => (other.refusal().0.to_string(), other.refusal().1),
    };
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    let error = (!error.is_empty()).then(|| error.to_string());
    let evaluation: Vec<String> = error.into_iter().chain(unread).collect();
    if !evaluation.is_empty() {
        status["evaluationError"] = json!(evaluation.join("; "));
    }
    object["status"] = status;
    Ok(object)
}

fn spec_causes(object: &Value, names_user: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (resource, path) = (present(object, "resourceAttributes"), present(object, "nonResourceAttributes"));
    if resource.is_some() == path.is_some() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(invalid("spec", as_go(path), why));
    }
    let nobody =
        meta::text_at(object, &["spec", "user"]).is_empty() && meta::items_at(object, &["spec", "groups"]).is_empty();
    if names_user && nobody {
        causes.push(invalid("spec.user", "\"\"".into(), "at least one of user or group must be specified"));
    }
    if let Some(resource) = resource {
        for (field, labels) in [("fieldSelector", false), ("labelSelector", true)] {
            if let Some(selector) = resource.get(field).filter(|selector| selector.is_object()) {
                causes.extend(selector_causes(&format!("spec.resourceAttributes.{field}"), selector, labels));
            }
        }
    }
    causes
}

fn selector_causes(path: &str, selector: &Value, labels: bool) -> Vec<Cause> {
    let (raw, terms) = (meta::text_at(selector, &["rawSelector"]), meta::items_at(selector, &["requirements"]));
    let mut causes = Vec::new();
    if !raw.is_empty() && !terms.is_empty() {
        causes.push(invalid(
            &format!("{path}.rawSelector"),
            go::quote(raw),
            "may not specified at the same time as requirements",
        ));
    }
    if raw.is_empty() && terms.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        causes.push(cause("FieldValueRequired", format!("{path}.requirements"), format!("Required value: {why}")));
    }
    for (at, term) in terms.iter().enumerate() {
        let path = format!("{path}.requirements[{at}]");
        let (key, values) = (meta::text_at(term, &["key"]), meta::items_at(term, &["values"]));
        if !labels && key.is_empty() {
            causes.push(cause("FieldValueRequired", format!("{path}.key"), "Required value: must be specified".into()));
        }
        match meta::text_at(term, &["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                let text = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(cause("FieldValueRequired", format!("{path}.values"), text.into()));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(cause("FieldValueForbidden", format!("{path}.values"), text.into()));
            }
            _ => {}
        }
        if labels {
            let wrong = selector::qualified_name_errors(key);
            causes.extend(wrong.iter().map(|why| invalid(&format!("{path}.key"), go::quote(key), why)));
            for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
                let wrong = selector::label_value_errors(value);
                causes.extend(wrong.iter().map(|why| invalid(&format!("{path}.values[{at}]"), go::quote(value), why)));
            }
        }
    }
    causes
}

/// The field selector, as far as it can be used, and whether some of it cannot.
fn fields(resource: &Value) -> (Option<FieldSelector>, bool) {
    let raw = meta::text_at(resource, &["fieldSelector", "rawSelector"]);
    if !raw.is_empty() {
        let parsed = FieldSelector::parse(raw).ok();
        let wrong = parsed.is_none();
        return (parsed, wrong);
    }
    let terms = meta::items_at(resource, &["fieldSelector", "requirements"]);
    let read = |term: &Value| {
        let equal = match meta::text_at(term, &["operator"]) {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let [value] = meta::items_at(term, &["values"]) else { return None };
        let (field, value) = (meta::text_at(term, &["key"]).to_string(), value.as_str()?.to_string());
        Some(FieldTerm { field, equal, value })
    };
    let known: Vec<FieldTerm> = terms.iter().filter_map(read).collect();
    let wrong = known.len() < terms.len();
    ((!known.is_empty()).then_some(FieldSelector(known)), wrong)
}

/// As [`fields`], for the label selector.
fn labels(resource: &Value) -> (Option<LabelSelector>, bool) {
    let raw = meta::text_at(resource, &["labelSelector", "rawSelector"]);
    if !raw.is_empty() {
        let parsed = LabelSelector::parse(raw).ok();
        let wrong = parsed.is_none();
        return (parsed, wrong);
    }
    let terms = meta::items_at(resource, &["labelSelector", "requirements"]);
    let read = |term: &Value| {
        let op = match meta::text_at(term, &["operator"]) {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            _ => return None,
        };
        Some(Requirement { key: meta::text_at(term, &["key"]).to_string(), op, values: texts(term, &["values"]) })
    };
    let known: Vec<Requirement> = terms.iter().filter_map(read).collect();
    let wrong = known.len() < terms.len();
    ((!known.is_empty()).then_some(LabelSelector(known)), wrong)
}

/// Reviews of access carry no metadata of their own.
fn metadata_cause(object: &Value, namespaced: bool) -> Option<Cause> {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let metadata = object.get("metadata")?.as_object()?;
    let ours = |key: &str| key == "managedFields" || (namespaced && key == "namespace");
    let given = || metadata.iter().filter(|(_, value)| !empty(value));
    if given().all(|(key, _)| ours(key)) {
        return None;
    }
    let shown: Map<String, Value> = given().map(|(key, value)| (key.clone(), value.clone())).collect();
    let why = if namespaced { "must be empty except for namespace" } else { "must be empty" };
    Some(invalid("metadata", Value::Object(shown).to_string(), why))
}

/// Clients may name a namespace where there is none; it is dropped.
fn without_namespace(object: &mut Value) {
    meta::metadata_mut(object).shift_remove("namespace");
}

/// An object in the spec that is really there.
fn present<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    meta::at(object, &["spec", field]).filter(|value| value.is_object())
}

/// The path attributes as Go prints its own struct.
fn as_go(path: Option<&Value>) -> String {
    let Some(path) = path else { return "null".into() };
    let text = |field: &str| meta::text_at(path, &[field]);
    json!({"Path": text("path"), "Verb": text("verb")}).to_string()
}

fn texts(value: &Value, path: &[&str]) -> Vec<String> {
    meta::items_at(value, path).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn invalid(field: &str, value: String, why: impl std::fmt::Display) -> Cause {
    cause("FieldValueInvalid", field.to_string(), format!("Invalid value: {value}: {why}"))
}

fn cause(reason: &str, field: String, message: String) -> Cause {
    Cause { reason: reason.to_string(), message, field }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authn::jwt::{Algorithm, Keys, LazyKey, SigningKey};
    use crate::authn::key_ring::KeyRing;
    use crate::authn::service_account::ServiceAccounts;
    use crate::authn::token_file::TokenFile;
    use crate::authz::bootstrap;
    use crate::authz::rbac::Rbac;
    use crate::lookup::Objects;
    use futures_util::FutureExt;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// Asks as user `a`, in namespace `ns`, in a new cluster with a role `reader` for pods that `alice` is bound to.
    fn ask(resource: &str, object: Value) -> Result<Value, Status> {
        let signing = LazyKey::ready(SigningKey::generate(Algorithm::Es256).unwrap());
        let keys = Arc::new(KeyRing::new(Keys { signing, others: Vec::new() }));
        let audiences = vec![ISSUER.to_string()];
        let authenticator = Authenticator::new(
            TokenFile::parse("tok,alice,7,devs").unwrap(),
            ServiceAccounts::new(audiences.clone(), audiences.clone(), keys),
            audiences,
        );
        let mut objects: Vec<(&str, Value)> =
            bootstrap::objects().into_iter().map(|b| (b.resource, b.object)).collect();
        objects.push((
            "roles",
            json!({"metadata": {"name": "reader", "namespace": "ns"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ));
        for (name, role, user) in [("b", "reader", "alice"), ("broken", "nosuch", "a")] {
            objects.push((
                "rolebindings",
                json!({"metadata": {"name": name, "namespace": "ns"}, "roleRef": {"kind": "Role", "name": role}, "subjects": [{"kind": "User", "name": user}]}),
            ));
        }
        let authorizer = Authorizer::of(Rbac::build(objects.iter().map(|(resource, object)| (*resource, object))));
        let user = User::new("a", ["system:authenticated"]);
        let cx = Cx {
            user: &user,
            authenticator: &authenticator,
            authorizer: &authorizer,
            hearing: &Hearing::default(),
            lookup: &Objects::default(),
            now: 1_800_000_000,
        };
        let group = if resource.contains("access") || resource.contains("rules") {
            "authorization.k8s.io"
        } else {
            "authentication.k8s.io"
        };
        answer_in(&cx, (group, resource), "ns", object).now_or_never().unwrap()
    }

    #[track_caller]
    fn check(resource: &str, object: Value, want: &str) {
        let got = match ask(resource, object) {
            Ok(object) => object["status"].to_string(),
            Err(status) => status.message.clone(),
        };
        assert_eq!(got, want);
    }

    fn resource(more: Value) -> Value {
        let mut attributes = json!({"namespace": "ns", "verb": "get", "resource": "pods"});
        attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"user": "alice", "resourceAttributes": attributes}})
    }

    #[test]
    fn reviews_of_tokens() {
        check(
            "tokenreviews",
            json!({"spec": {"token": "tok"}}),
            r#"{"authenticated":true,"user":{"username":"alice","uid":"7","groups":["devs","system:authenticated"]},"audiences":["https://kubernetes.default.svc.cluster.local"]}"#,
        );
        check("tokenreviews", json!({"spec": {"token": ""}}), "token is required for TokenReview in authentication");
        check("tokenreviews", json!({}), "token is required for TokenReview in authentication");
        check("tokenreviews", json!({"spec": {"token": "x"}}), r#"{"user":{},"error":"invalid bearer token"}"#);
        check(
            "tokenreviews",
            json!({"spec": {"token": "x"}, "status": {"authenticated": true, "user": {"username": "forged"}}}),
            r#"{"user":{"username":"forged"},"error":"invalid bearer token"}"#,
        );
        check(
            "tokenreviews",
            json!({"spec": {"token": " tok"}}),
            r#"{"authenticated":true,"user":{"username":"system:anonymous","groups":["system:unauthenticated"]},"audiences":["https://kubernetes.default.svc.cluster.local"]}"#,
        );
        let object = ask(
            "selfsubjectreviews",
            json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {"name": "x"}}),
        )
        .unwrap();
        assert_eq!(
            object.to_string(),
            r#"{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1","metadata":{"creationTimestamp":"2027-01-15T08:00:00Z"},"status":{"userInfo":{"username":"a","groups":["system:authenticated"]}}}"#
        );
    }

    #[test]
    fn reviews_of_access() {
        let allowed =
            r#"{"allowed":true,"reason":"RBAC: allowed by RoleBinding \"b/ns\" of Role \"reader\" to User \"alice\""}"#;
        check("subjectaccessreviews", resource(json!({})), allowed);
        check("localsubjectaccessreviews", resource(json!({})), allowed);
        check("subjectaccessreviews", resource(json!({"verb": "delete"})), r#"{"allowed":false}"#);
        check(
            "selfsubjectaccessreviews",
            resource(json!({})),
            r#"{"allowed":false,"reason":"rbac: RBAC: role.rbac.authorization.k8s.io \"nosuch\" not found"}"#,
        );
        let groups = |group: &str, path: &str| json!({"spec": {"user": "x", "groups": [group], "nonResourceAttributes": {"path": path, "verb": "get"}}});
        check("subjectaccessreviews", groups("system:masters", "/any"), r#"{"allowed":true}"#);
        check(
            "subjectaccessreviews",
            groups("system:unauthenticated", "/version"),
            r#"{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"system:public-info-viewer\" of ClusterRole \"system:public-info-viewer\" to Group \"system:unauthenticated\""}"#,
        );
        check("subjectaccessreviews", groups("system:unauthenticated", "/api"), r#"{"allowed":false}"#);
    }

    #[test]
    fn reviews_that_make_no_sense() {
        let head = ".authorization.k8s.io \"\" is invalid: ";
        let one = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let nobody = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
        check(
            "subjectaccessreviews",
            json!({"spec": {"user": "a"}}),
            &format!("{head}spec: Invalid value: null: {one}"),
        );
        check("subjectaccessreviews", json!({}), &format!("{head}[spec: Invalid value: null: {one}, {nobody}]"));
        let mut both = resource(json!({}));
        both["spec"]["nonResourceAttributes"] = json!({"path": "/x", "verb": "get"});
        check(
            "selfsubjectaccessreviews",
            both,
            &format!("{head}spec: Invalid value: {{\"Path\":\"/x\",\"Verb\":\"get\"}}: {one}"),
        );
        check(
            "localsubjectaccessreviews",
            resource(json!({"namespace": "default"})),
            &format!(
                "{head}spec.resourceAttributes.namespace: Invalid value: \"default\": must match metadata.namespace"
            ),
        );
        check(
            "localsubjectaccessreviews",
            json!({"spec": {"user": "a", "nonResourceAttributes": {"path": "/x", "verb": "get"}}}),
            &format!(
                "{head}spec.nonResourceAttributes: Invalid value: {{\"Path\":\"/x\",\"Verb\":\"get\"}}: disallowed on this kind of request"
            ),
        );
        let mut named = resource(json!({}));
        named["metadata"] = json!({"name": "x", "managedFields": [{}], "creationTimestamp": null});
        check(
            "subjectaccessreviews",
            named,
            &format!("{head}metadata: Invalid value: {{\"name\":\"x\",\"managedFields\":[{{}}]}}: must be empty"),
        );
        let mut local = resource(json!({}));
        local["metadata"] = json!({"name": "x", "labels": {"a": "b"}});
        local["spec"]["resourceAttributes"]["namespace"] = json!("ns");
        check(
            "localsubjectaccessreviews",
            local,
            &format!(
                "{head}metadata: Invalid value: {{\"name\":\"x\",\"namespace\":\"ns\",\"labels\":{{\"a\":\"b\"}}}}: must be empty except for namespace"
            ),
        );
        let mut elsewhere = resource(json!({}));
        elsewhere["metadata"] = json!({"namespace": "default"});
        check(
            "localsubjectaccessreviews",
            elsewhere,
            "the namespace of the provided object does not match the namespace sent on the request",
        );
    }

    #[test]
    fn selectors_in_reviews() {
        let head = ".authorization.k8s.io \"\" is invalid: spec.resourceAttributes.";
        let term = |field: &str, key: &str, operator: &str, values: Value| {
            resource(
                json!({"verb": "list", field: {"requirements": [{"key": key, "operator": operator, "values": values}]}}),
            )
        };
        let no = r#"{"allowed":false}"#;
        check("subjectaccessreviews", term("fieldSelector", "spec.nodeName", "In", json!(["n1"])), no);
        check("subjectaccessreviews", term("labelSelector", "app", "Exists", json!([])), no);
        check(
            "subjectaccessreviews",
            term("fieldSelector", "a", "In", json!([])),
            &format!(
                "{head}fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ),
        );
        check(
            "subjectaccessreviews",
            term("fieldSelector", "a", "Exists", json!(["b"])),
            &format!(
                "{head}fieldSelector.requirements[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            ),
        );
        check(
            "subjectaccessreviews",
            term("fieldSelector", "a", "Equals", json!(["b"])),
            r#"{"allowed":false,"evaluationError":"spec.resourceAttributes.fieldSelector ignored due to parse error"}"#,
        );
        check(
            "subjectaccessreviews",
            term("labelSelector", "bad key!", "Exists", json!([])),
            &format!(
                "{head}labelSelector.requirements[0].key: Invalid value: \"bad key!\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ),
        );
        check(
            "subjectaccessreviews",
            resource(json!({"labelSelector": {}})),
            &format!(
                "{head}labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required"
            ),
        );
        check(
            "subjectaccessreviews",
            resource(json!({"verb": "list", "fieldSelector": {"rawSelector": "not a selector ="}})),
            no,
        );
    }

    #[test]
    fn a_selector_counts_however_it_is_written() {
        let of_node = |selector: Value| {
            let attributes = json!({"verb": "list", "resource": "pods", "fieldSelector": selector});
            json!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": attributes}})
        };
        let term = |operator: &str| json!({"key": "spec.nodeName", "operator": operator, "values": ["n1"]});
        let allowed = r#"{"allowed":true}"#;
        check("subjectaccessreviews", of_node(json!({"rawSelector": "spec.nodeName=n1"})), allowed);
        check("subjectaccessreviews", of_node(json!({"requirements": [term("In")]})), allowed);
        let no = r#"{"allowed":false,"reason":"node: can only list/watch pods with spec.nodeName field selector"}"#;
        check("subjectaccessreviews", of_node(json!({"requirements": [term("NotIn")]})), no);
        check(
            "subjectaccessreviews",
            of_node(json!({"requirements": [term("In"), term("Equals")]})),
            r#"{"allowed":true,"evaluationError":"spec.resourceAttributes.fieldSelector partially ignored due to parse error"}"#,
        );
    }

    #[test]
    fn all_rules_of_the_asker() {
        check(
            "selfsubjectrulesreviews",
            json!({"spec": {"namespace": "ns"}}),
            r#"{"resourceRules":[{"verbs":["create"],"apiGroups":["authorization.k8s.io"],"resources":["selfsubjectaccessreviews","selfsubjectrulesreviews"]},{"verbs":["create"],"apiGroups":["authentication.k8s.io"],"resources":["selfsubjectreviews"]}],"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/api","/api/*","/apis","/apis/*","/healthz","/livez","/openapi","/openapi/*","/readyz","/version","/version/"]},{"verbs":["get"],"nonResourceURLs":["/healthz","/livez","/readyz","/version","/version/"]}],"incomplete":false,"evaluationError":"role.rbac.authorization.k8s.io \"nosuch\" not found"}"#,
        );
        check("selfsubjectrulesreviews", json!({}), "no namespace on request");
    }
}
