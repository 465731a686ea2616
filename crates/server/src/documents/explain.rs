//! `/explain`: why a request is refused, `/explain/denials`: the last that were, and `/explain/usage`: what somebody uses from now
//! on. Paths of this server's own, for those who may list all roles and bindings; they tell nothing of objects but names.

use std::time::Instant;

use api::{Query, Reason, Status, codec};
use rights::{Asked, Binding, Known, Role, Served, Verdict};
use serde_json::{Value, json};

use crate::authn::User;
use crate::authz::{Attributes, Decision, Hearing, rbac};
use crate::respond::{self, Answer};
use crate::serve::Cx;
use crate::state::State;
use crate::usage::{LEASE, RECORDINGS_MAX};

const PATH: &str = "/explain";
const DENIALS: &str = "/explain/denials";
const USAGE: &str = "/explain/usage";
/// Denials that one answer tells, where it is not asked for fewer.
const DENIALS_SHOWN: usize = 20;

/// A path that is answered here.
pub(crate) fn is_at(path: &str) -> bool {
    matches!(path, PATH | DENIALS | USAGE)
}

/// Refuses everybody who may not list roles and bindings in all namespaces, as any path is refused.
pub(crate) fn authorize(state: &State, attributes: &Attributes<'_>, hearing: &Hearing) -> Decision {
    let refusal = Decision::NONE;
    rbac::RESOURCES
        .iter()
        .try_fold(refusal, |_, resource| {
            let list =
                Attributes { version: "v1", ..Attributes::resource(attributes.user, "list", rbac::GROUP, resource) };
            let decision = state.authorizer.authorize(&list, hearing);
            match decision.is_allowed() {
                true => Ok(decision),
                false => Err(Decision::NONE),
            }
        })
        .unwrap_or_else(|refusal| refusal)
}

/// Answers who was let through.
pub(super) fn answer(cx: &Cx<'_>) -> Result<Answer, Status> {
    if cx.ask.path == USAGE {
        let (code, answer) = usage(cx)?;
        return Ok(Answer::Raw(respond::raw(code, "application/json", codec::to_json(&answer))));
    }
    if !matches!(&*cx.ask.method, "GET" | "HEAD") {
        return Err(Status::method_not_allowed());
    }
    let answer = match cx.ask.path.as_str() {
        DENIALS => denials(cx.state, &cx.ask.query)?,
        _ => {
            let asked = asked(cx.user, &cx.ask.query)?;
            json!(rights::explain(&asked, &Known { verdict: verdict(cx, &asked), ..known(cx.state) }))
        }
    };
    Ok(Answer::Raw(respond::raw(200, "application/json", codec::to_json(&answer))))
}

fn denials(state: &State, query: &Query) -> Result<Value, Status> {
    let limit = match query.get("limit") {
        None => DENIALS_SHOWN,
        Some(text) => api::go::parse_u64(text).map_err(Status::bad_request)? as usize,
    };
    Ok(json!({"items": state.denials.last(query.get("user"), limit)}))
}

/// `POST ?user=NAME` begins a recording and gives its id; `GET ?recording=ID` reads it, and keeps it for as long as
/// `leaseSeconds` said; `DELETE ?recording=ID` reads and ends it.
fn usage(cx: &Cx<'_>) -> Result<(u16, Value), Status> {
    let recorder = &cx.state.usage;
    let needed = |name: &str| {
        let given = cx.ask.query.get(name).filter(|text| !text.is_empty());
        given.ok_or_else(|| Status::bad_request(format!("say which: ?{name}=..; POST ?user=NAME begins a recording")))
    };
    let now = Instant::now();
    let recorded = match &*cx.ask.method {
        "POST" => {
            let user = needed("user")?;
            let id = recorder.begin(user, now).ok_or_else(|| {
                let most = format!("there are {RECORDINGS_MAX} recordings already; one ends when nobody asks for it");
                Status::too_many_requests(most, LEASE.as_secs() as u32)
            })?;
            let begun = json!({"recording": id, "user": user, "leaseSeconds": LEASE.as_secs()});
            return Ok((respond::CREATED, begun));
        }
        "GET" | "HEAD" => recorder.so_far(needed("recording")?, now),
        "DELETE" => recorder.end(needed("recording")?, now),
        _ => return Err(Status::method_not_allowed()),
    };
    let gone = || Status::failure(404, Reason::NotFound, "there is no such recording, or nobody asked for it in time");
    Ok((200, json!(recorded.ok_or_else(gone)?)))
}

/// The request that is asked about: the fields of a SubjectAccessReview as parameters. Nobody named means the caller.
fn asked(caller: &User, query: &Query) -> Result<Asked, Status> {
    let text = |name: &str| query.get(name).unwrap_or_default().to_string();
    let asked = Asked {
        verb: text("verb"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
        ..Asked::default()
    };
    if asked.verb.is_empty() || asked.resource.is_empty() == asked.path.is_empty() {
        let how = "name what is asked for: verb and either resource (with group, subresource, namespace, name) or path; \
                   and by whom: user, groups";
        return Err(Status::bad_request(how));
    }
    let groups: Vec<String> = query.all("groups").map(str::to_string).collect();
    Ok(match query.get("user") {
        None => asked.by(&caller.name, caller.groups.clone()),
        Some(user) if groups.is_empty() => asked.by(user, rights::asked::groups_of(user)),
        Some(user) => asked.by(user, groups),
    })
}

/// What all authorizers say, where others are asked than those whose reasons are known here.
fn verdict(cx: &Cx<'_>, asked: &Asked) -> Option<Verdict> {
    if !cx.state.authorizer.asks_webhooks() {
        return None;
    }
    let user = User::new(&asked.user, asked.groups.iter().cloned());
    let attributes = match asked.path.as_str() {
        "" => Attributes {
            version: "*",
            subresource: &asked.subresource,
            name: &asked.name,
            namespace: &asked.namespace,
            ..Attributes::resource(&user, &asked.verb, &asked.group, &asked.resource)
        },
        path => Attributes::path(&user, &asked.verb, path),
    };
    let decision = cx.state.authorizer.authorize(&attributes, cx.hearing);
    let reason = match &decision {
        Decision::Allow { reason } => reason.to_string(),
        other => [other.refusal().1, other.refusal().0].into_iter().find(|text| !text.is_empty()).unwrap_or("").into(),
    };
    Some(Verdict { allowed: decision.is_allowed(), reason })
}

/// All there is to know. It is made for each question: who asks why does not ask often.
fn known(state: &State) -> Known {
    let objects = |resource: &str| state.list(rbac::GROUP, resource);
    let roles = [objects("clusterroles"), objects("roles")].concat();
    let bindings = [objects("clusterrolebindings"), objects("rolebindings")].concat();
    let names = |object: &Value| (api::meta::namespace(object).to_string(), api::meta::name(object).to_string());
    let mut resources: Vec<Served> = Vec::new();
    for kind in state.registry.load().kinds() {
        let lower = |text: &str| text.to_lowercase();
        let words = [&kind.singular, &kind.kind].into_iter().chain(&kind.short_names).map(|word| lower(word));
        resources.push(Served {
            group: kind.group.to_string(),
            plural: kind.plural.to_string(),
            words: words.collect(),
            subresources: kind.subresources.iter().map(|sub| sub.name.to_string()).collect(),
            namespaced: kind.namespaced,
        });
    }
    Known {
        roles: roles.iter().map(Role::of).collect(),
        bindings: bindings.iter().map(Binding::of).collect(),
        accounts: state.list("", "serviceaccounts").iter().map(names).collect(),
        namespaces: state.list("", "namespaces").iter().map(|object| names(object).1).collect(),
        resources,
        ..Known::default()
    }
}
