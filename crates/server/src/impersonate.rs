//! Impersonation: a request may be made in another name by who has the right to it. First the constrained ways (one verb
//! for whom, one for what is done in that name), then the old one, a single verb for everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use api::{Ask, Status, go, selector};
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::audit::Trail;
use crate::authn::service_account::{groups, split_user_name};
use crate::authn::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
use crate::authz::{Attributes, Authorizer, Hearing};
use crate::usage::Recorder;

/// Requesters whose last successful mode is remembered.
pub const REQUESTERS_MAX: usize = 1024;

/// With so many groups or extra values, one check for all of them is tried before one for each.
const CHECKS_MANY: usize = 4;

const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_PREFIX: &str = "system:node:";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The ways to impersonate, in the order they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A service account the node that its own pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Everybody who is neither node nor service account.
    UserInfo,
    /// The verb `impersonate`, without a limit to what is done.
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// The identity of a request's headers, where it has such and its sender may, and which way led there. Void where the
/// hearing is open afterwards.
pub fn impersonate(
    authorizer: &Authorizer,
    usage: &Recorder,
    requester: &User,
    ask: &Ask,
    headers: &HeaderMap,
    hearing: &Hearing,
) -> Result<Option<(User, Mode)>, Status> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    let request = crate::authorize::attributes(requester, ask);
    let asked = Asked { authorizer, hearing, hear: None };
    let outcome = authorizer.impersonator.impersonate(asked, &wanted, &request);
    if usage.records(&requester.name) && !hearing.is_open() {
        let worked = outcome.as_ref().ok().map(|(_, mode)| *mode);
        note(Asked { hear: Some(usage), ..asked }, &wanted, &request, worked);
    }
    outcome.map(Some)
}

/// Under which identity a request goes on: the one that was found, else its sender's own.
pub fn conclude(found: Option<(User, Mode)>, requester: Arc<User>, trail: &Trail) -> Arc<User> {
    let Some((user, mode)) = found else { return requester };
    trail.impersonated(&user, &mode.constraint());
    Arc::new(user)
}

/// Who is asked for rights. Who hears of them hears all of them, as if all were there.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub authorizer: &'a Authorizer,
    pub hearing: &'a Hearing,
    pub hear: Option<&'a Recorder>,
}

impl Asked<'_> {
    fn require(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let judged = self.authorizer.require(attributes, self.hearing);
        match self.hear {
            None => judged,
            Some(hear) => {
                hear.note(attributes, judged.is_ok());
                Ok(())
            }
        }
    }
}

/// Tells the recorder which rights that took: those of the way that worked, else of the first there is.
fn note(asked: Asked<'_>, wanted: &User, request: &Attributes<'_>, worked: Option<Mode>) {
    let way = worked.into_iter().chain(MODES).find(|mode| mode.is_for(wanted, request.user));
    if let Some(mode) = way {
        let _ = mode.check_rights(asked, wanted, request);
    }
}

/// Remembers which way worked for whom: it is tried first, and its refusal is the one that is told.
#[derive(Default)]
pub struct Impersonator {
    last: Mutex<HashMap<String, Mode>>,
}

/// The identity that the headers of a request ask for; nothing where they ask for none.
pub fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            // A key that is no good percent encoding is taken as it is.
            let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_string(), |key| key.into_owned());
            extra.entry(key).or_default().push(text(value));
        }
    }
    let user = User {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: headers.get_all("impersonate-group").iter().map(text).collect(),
        extra,
    };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", as_go(&user))))
}

impl Impersonator {
    /// The identity under which the request goes on, and which way led there. `request` is what the requester asks for,
    /// as itself.
    pub fn impersonate(
        &self,
        asked: Asked<'_>,
        wanted: &User,
        request: &Attributes<'_>,
    ) -> Result<(User, Mode), Status> {
        let last = self.lock().get(&request.user.name).copied();
        let mut first_refusal = None;
        for mode in last.into_iter().chain(MODES.into_iter().filter(|mode| Some(*mode) != last)) {
            match mode.check(asked, wanted, request) {
                None => {}
                Some(Ok(user)) => {
                    if last != Some(mode) && !asked.hearing.is_open() {
                        self.remember(&request.user.name, mode);
                    }
                    return Ok((user, mode));
                }
                Some(Err(refusal)) => drop(first_refusal.get_or_insert(refusal)),
            }
        }
        Err(first_refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
    }

    fn remember(&self, requester: &str, mode: Mode) {
        let mut last = self.lock();
        if last.len() >= REQUESTERS_MAX {
            // It only saves a few checks: starting over is as good as knowing which entry is the oldest.
            last.clear();
        }
        last.insert(requester.to_string(), mode);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Mode>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    /// The verb for whom this way is to; `""` where that does not limit what is done.
    fn constraint(self) -> String {
        match self {
            Mode::Legacy => String::new(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    /// This way is one to the wanted user at all.
    fn is_for(self, wanted: &User, requester: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_of(&wanted.name);
        match self {
            Mode::AssociatedNode => {
                let own = requester.extra.get(NODE_NAME).filter(|values| values.len() == 1).and_then(|v| v.first());
                only_name
                    && node.is_some()
                    && split_user_name(&requester.name).is_some()
                    && own.map(String::as_str) == node
            }
            Mode::ArbitraryNode => only_name && node.is_some(),
            Mode::ServiceAccount => only_name && split_user_name(&wanted.name).is_some(),
            Mode::UserInfo => node.is_none() && split_user_name(&wanted.name).is_none(),
            Mode::Legacy => true,
        }
    }

    fn check(self, asked: Asked<'_>, wanted: &User, request: &Attributes<'_>) -> Option<Result<User, Status>> {
        if !self.is_for(wanted, request.user) {
            return None;
        }
        // The right must hold for any node of the account's pods: what tells them apart is kept from the authorizer.
        let masked = (self == Mode::AssociatedNode).then(|| {
            let keys = request.user.extra.keys().cloned().collect();
            let extra = [("authentication.kubernetes.io/associated-node-keys".to_string(), keys)].into();
            User { extra, ..request.user.clone() }
        });
        let request = Attributes { user: masked.as_ref().unwrap_or(request.user), ..*request };
        Some(self.check_rights(asked, wanted, &request))
    }

    fn check_rights(self, asked: Asked<'_>, wanted: &User, request: &Attributes<'_>) -> Result<User, Status> {
        let constrained = self != Mode::Legacy;
        if constrained {
            let verb = format!("impersonate-on:{}:{}", self.name(), request.verb);
            asked.require(&Attributes { verb: &verb, ..*request })?;
        }
        let verb = if constrained { self.constraint() } else { "impersonate".to_string() };
        let rights = Rights { asked, requester: request.user, verb: &verb, constrained };
        let mut user = wanted.clone();
        rights.name(self, &mut user)?;
        rights.uid(wanted)?;
        rights.groups(wanted)?;
        rights.extra(wanted)?;
        let everybody = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !user.is_in(everybody) && !user.is_in(UNAUTHENTICATED) {
            user.groups.push(everybody.to_string());
        }
        Ok(user)
    }
}

/// The checks for each part of an identity.
struct Rights<'a> {
    asked: Asked<'a>,
    requester: &'a User,
    verb: &'a str,
    constrained: bool,
}

impl<'a> Rights<'a> {
    fn on(&self, group: &'a str, resource: &'a str) -> Attributes<'a> {
        Attributes { version: "v1", ..Attributes::resource(self.requester, self.verb, group, resource) }
    }

    /// The API group of users, groups and service accounts.
    fn group(&self) -> &'a str {
        if self.constrained { AUTHENTICATION } else { "" }
    }

    fn require(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        self.asked.require(attributes)
    }

    /// One check for all of so many is tried first. Who hears of the rights wants them one by one: they are the least.
    fn takes_all(&self, count: usize) -> bool {
        count >= CHECKS_MANY && self.asked.hear.is_none()
    }

    fn name(&self, mode: Mode, user: &mut User) -> Result<(), Status> {
        let name = user.name.clone();
        if let Some(node) = node_of(&name).filter(|_| self.constrained) {
            user.groups = vec!["system:nodes".to_string()];
            let node = if mode == Mode::AssociatedNode { "*" } else { node };
            return self.require(&Attributes { name: node, ..self.on(self.group(), "nodes") });
        }
        if let Some((namespace, account)) = split_user_name(&name) {
            if user.groups.is_empty() {
                user.groups = groups(namespace);
            }
            let attributes = Attributes { namespace, name: account, ..self.on(self.group(), "serviceaccounts") };
            return self.require(&attributes);
        }
        self.require(&Attributes { name: &name, ..self.on(self.group(), "users") })
    }

    fn uid(&self, wanted: &User) -> Result<(), Status> {
        if wanted.uid.is_empty() {
            return Ok(());
        }
        self.require(&Attributes { name: &wanted.uid, ..self.on(AUTHENTICATION, "uids") })
    }

    fn groups(&self, wanted: &User) -> Result<(), Status> {
        let on = self.on(self.group(), "groups");
        if self.constrained {
            if wanted.is_in("") {
                return Err(on.forbidden("impersonating the empty string group is not allowed"));
            }
            if wanted.is_in(MASTERS) {
                let on = Attributes { name: MASTERS, ..on };
                return Err(on.forbidden("impersonating the system:masters group is not allowed"));
            }
            if self.takes_all(wanted.groups.len()) && self.require(&Attributes { name: "*", ..on }).is_ok() {
                return Ok(());
            }
        }
        wanted.groups.iter().try_for_each(|group| self.require(&Attributes { name: group, ..on }))
    }

    fn extra(&self, wanted: &User) -> Result<(), Status> {
        let on = self.on(AUTHENTICATION, "userextras");
        let values = || wanted.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        if self.constrained {
            if let Some(why) = wanted.extra.iter().find_map(|(key, values)| wrong_extra(key, values)) {
                return Err(on.forbidden(&why));
            }
            let all = Attributes { subresource: "*", name: "*", ..on };
            if self.takes_all(values().count()) && self.require(&all).is_ok() {
                return Ok(());
            }
        }
        for (subresource, name) in values() {
            self.require(&Attributes { subresource, name, ..on })?;
        }
        Ok(())
    }
}

/// The node behind the user name of a node.
fn node_of(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| selector::is_dns_subdomain(name))
}

/// Why an extra is not impersonated by the constrained ways.
fn wrong_extra(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    let domain = key.split_once('/').filter(|(domain, path)| selector::is_dns_subdomain(domain) && !path.is_empty());
    if domain.is_none() {
        return Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {}: must be a domain-prefixed path (such as \"acme.io/foo\")",
            go::quote(key)
        ));
    }
    if key.to_lowercase() != key {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {}", go::quote(key)));
    }
    let empty = values.iter().any(String::is_empty);
    empty.then(|| "impersonating the empty string value in extra is not allowed".into())
}

/// The identity as `%#v` prints it.
fn as_go(user: &User) -> String {
    let list = |list: &[String]| list.iter().map(|item| go::quote(item)).collect::<Vec<_>>().join(", ");
    let groups = match user.groups.as_slice() {
        [] => "[]string(nil)".to_string(),
        groups => format!("[]string{{{}}}", list(groups)),
    };
    let extra = user.extra.iter().map(|(key, values)| format!("{}:[]string{{{}}}", go::quote(key), list(values)));
    let extra = match extra.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "map[string][]string(nil)".to_string(),
        extra => format!("map[string][]string{{{extra}}}"),
    };
    let (name, uid) = (go::quote(&user.name), go::quote(&user.uid));
    format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{groups}, Extra:{extra}}}")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;
    use crate::authz::rbac::Rbac;

    fn rule(verb: &str, group: &str, resource: &str, names: &[&str]) -> Value {
        json!({"verbs": [verb], "apiGroups": [group], "resources": [resource], "resourceNames": names})
    }

    /// `system:serviceaccount:ns:proxy` holds these rules in the whole cluster.
    fn authorizer(rules: Value) -> Authorizer {
        let role = json!({"metadata": {"name": "r"}, "rules": rules});
        let binding = json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "proxy", "namespace": "ns"}],
        });
        Authorizer::of(Rbac::build([("clusterroles", &role), ("clusterrolebindings", &binding)]))
    }

    /// `headers` are `name: value` with `, ` between them; the request is `create selfsubjectreviews` or the path `/healthz`.
    fn ask(
        impersonator: &Impersonator,
        authorizer: &Authorizer,
        requester: &User,
        headers: &str,
        path: bool,
    ) -> String {
        let mut map = HeaderMap::new();
        for header in headers.split(", ") {
            let (name, value) = header.split_once(": ").unwrap();
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let request = match path {
            true => Attributes::path(requester, "get", "/healthz"),
            false => Attributes::resource(requester, "create", AUTHENTICATION, "selfsubjectreviews"),
        };
        match wanted(&map) {
            Err(status) => status.message.clone(),
            Ok(None) => "nobody".into(),
            Ok(Some(wanted)) => {
                match impersonator.impersonate(
                    Asked { authorizer, hearing: &Hearing::default(), hear: None },
                    &wanted,
                    &request,
                ) {
                    Ok((user, _)) => serde_json::to_string(&user).unwrap(),
                    Err(status) => status.message.clone(),
                }
            }
        }
    }

    fn proxy() -> User {
        User::new("system:serviceaccount:ns:proxy", groups("ns"))
    }

    #[track_caller]
    fn check(rules: Value, first: Option<&str>, headers: &str, want: &str) {
        let (impersonator, authorizer) = (Impersonator::default(), authorizer(rules));
        if let Some(first) = first {
            let answer = ask(&impersonator, &authorizer, &proxy(), first, false);
            assert!(answer.starts_with('{'), "{answer}");
        }
        assert_eq!(ask(&impersonator, &authorizer, &proxy(), headers, false), want);
    }

    #[test]
    fn the_old_verb_granted_piece_by_piece() {
        let rules = || {
            json!([
                rule("impersonate", "", "users", &["alice"]),
                rule("impersonate", "", "groups", &["devs"]),
                rule("impersonate", AUTHENTICATION, "userextras/scopes", &["read"]),
                rule("impersonate", AUTHENTICATION, "uids", &["7"]),
            ])
        };
        let granted = |headers: &str, want: &str| check(rules(), Some("impersonate-user: alice"), headers, want);
        let refused = |headers: &str, what: &str, resource: &str, group: &str| {
            let want = format!(
                "{what} is forbidden: User \"system:serviceaccount:ns:proxy\" cannot impersonate resource \"{resource}\" in API group \"{group}\" at the cluster scope"
            );
            granted(headers, &want);
        };
        granted("impersonate-user: alice", r#"{"username":"alice","groups":["system:authenticated"]}"#);
        granted(
            "impersonate-user: alice, impersonate-group: devs, impersonate-uid: 7, impersonate-extra-scopes: read",
            r#"{"username":"alice","uid":"7","groups":["devs","system:authenticated"],"extra":{"scopes":["read"]}}"#,
        );
        refused("impersonate-user: bob", "users \"bob\"", "users", "");
        refused("impersonate-user: alice, impersonate-group: ops", "groups \"ops\"", "groups", "");
        refused(
            "impersonate-user: alice, impersonate-uid: 8",
            "uids.authentication.k8s.io \"8\"",
            "uids",
            AUTHENTICATION,
        );
        refused(
            "impersonate-user: alice, impersonate-extra-team: read",
            "userextras.authentication.k8s.io \"read\"",
            "userextras/team",
            AUTHENTICATION,
        );
        granted(
            "impersonate-user: system:serviceaccount:ns:default",
            "serviceaccounts \"default\" is forbidden: User \"system:serviceaccount:ns:proxy\" cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"ns\"",
        );
    }

    #[test]
    fn without_any_right_the_first_way_refuses() {
        let refused = |headers: &str, mode: &str| {
            let want = format!(
                "selfsubjectreviews.authentication.k8s.io is forbidden: User \"system:serviceaccount:ns:proxy\" cannot impersonate-on:{mode}:create resource \"selfsubjectreviews\" in API group \"authentication.k8s.io\" at the cluster scope"
            );
            check(json!([]), None, headers, &want);
        };
        refused("impersonate-user: alice", "user-info");
        refused("impersonate-user: alice, impersonate-group: system:masters", "user-info");
        refused("impersonate-user: system:anonymous", "user-info");
        refused("impersonate-user: system:serviceaccount:kube-system:default", "serviceaccount");
        refused("impersonate-user: system:node:n1", "arbitrary-node");
        let (impersonator, authorizer) = (Impersonator::default(), authorizer(json!([])));
        assert_eq!(
            ask(&impersonator, &authorizer, &User::anonymous(), "impersonate-user: alice", true),
            "forbidden: User \"system:anonymous\" cannot impersonate-on:user-info:get path \"/healthz\""
        );
    }

    #[test]
    fn constrained_verbs() {
        let rules = || {
            json!([
                rule("impersonate:user-info", AUTHENTICATION, "users", &["alice"]),
                rule("impersonate-on:user-info:create", AUTHENTICATION, "selfsubjectreviews", &[]),
                rule("impersonate-on:associated-node:create", AUTHENTICATION, "selfsubjectreviews", &[]),
                rule("impersonate:associated-node", AUTHENTICATION, "nodes", &[]),
            ])
        };
        let alice = r#"{"username":"alice","groups":["system:authenticated"]}"#;
        check(rules(), None, "impersonate-user: alice", alice);
        check(
            rules(),
            None,
            "impersonate-user: bob",
            "users.authentication.k8s.io \"bob\" is forbidden: User \"system:serviceaccount:ns:proxy\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope",
        );
        check(
            rules(),
            None,
            "impersonate-user: alice, impersonate-group: g",
            "groups.authentication.k8s.io \"g\" is forbidden: User \"system:serviceaccount:ns:proxy\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope",
        );
        let mut agent = proxy();
        agent.extra.insert(NODE_NAME.into(), vec!["n1".into()]);
        let (impersonator, authorizer) = (Impersonator::default(), authorizer(rules()));
        assert_eq!(
            ask(&impersonator, &authorizer, &agent, "impersonate-user: system:node:n1", false),
            r#"{"username":"system:node:n1","groups":["system:nodes","system:authenticated"]}"#
        );
        let other = ask(&impersonator, &authorizer, &agent, "impersonate-user: system:node:n2", false);
        assert!(other.contains("cannot impersonate-on:arbitrary-node:create"), "{other}");
    }

    #[test]
    fn headers_and_groups() {
        let admin = User::new("admin", [MASTERS]);
        let (impersonator, authorizer) = (Impersonator::default(), Authorizer::default());
        let check = |headers: &str, want: &str| {
            assert_eq!(ask(&impersonator, &authorizer, &admin, headers, false), want);
        };
        check("impersonate-user: ", "nobody");
        check("accept: x", "nobody");
        check(
            "impersonate-user: system:serviceaccount:ns:default",
            r#"{"username":"system:serviceaccount:ns:default","groups":["system:serviceaccounts","system:serviceaccounts:ns","system:authenticated"]}"#,
        );
        check(
            "impersonate-user: system:anonymous",
            r#"{"username":"system:anonymous","groups":["system:unauthenticated"]}"#,
        );
        check(
            "impersonate-user: human, impersonate-group: system:unauthenticated",
            r#"{"username":"human","groups":["system:unauthenticated"]}"#,
        );
        check(
            "impersonate-user: root, impersonate-group: system:masters",
            r#"{"username":"root","groups":["system:masters","system:authenticated"]}"#,
        );
        check(
            "impersonate-user: alice, impersonate-extra-example.com%2fteam: Blue, impersonate-extra-example.com%2fteam: red",
            r#"{"username":"alice","groups":["system:authenticated"],"extra":{"example.com/team":["Blue","red"]}}"#,
        );
        let nameless = |headers: &str, rest: &str| {
            check(
                headers,
                &format!("requested &user.DefaultInfo{{Name:\"\", {rest}}} without impersonating a user name"),
            );
        };
        nameless("impersonate-group: devs", "UID:\"\", Groups:[]string{\"devs\"}, Extra:map[string][]string(nil)");
        nameless("impersonate-uid: 7", "UID:\"7\", Groups:[]string(nil), Extra:map[string][]string(nil)");
        nameless(
            "impersonate-extra-scopes: x",
            "UID:\"\", Groups:[]string(nil), Extra:map[string][]string{\"scopes\":[]string{\"x\"}}",
        );
    }
}
