//! Role based access control: an index of who is bound to which rules, changed object by object as roles and bindings
//! change. Readers see one consistent index and never wait; nothing here reads or writes objects elsewhere.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use api::{go, meta};
use arc_swap::ArcSwap;
use serde_json::Value;

pub use rights::GROUP;
use rights::{Binding, RoleRef, Rule, Subject};

use super::{Attributes, Decision, Reason, aggregate};
use crate::authn::User;

/// The resources this index is made of.
pub const RESOURCES: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

/// The authorizer. Feed it every change of the four [`RESOURCES`].
#[derive(Default)]
pub struct Rbac {
    index: ArcSwap<Index>,
    /// Held while a new index is made of the last one.
    writer: Mutex<()>,
}

/// What roles and bindings say, in persistent maps: the next index shares all that did not change.
#[derive(Clone, Default)]
struct Index {
    cluster: Scope,
    namespaces: imbl::HashMap<Arc<str>, Scope>,
}

/// The roles of one namespace or of the cluster, and its bindings by whom they reach.
#[derive(Clone, Default)]
struct Scope {
    roles: imbl::HashMap<Arc<str>, Arc<[Rule]>>,
    by_user: imbl::HashMap<Arc<str>, Bindings>,
    by_group: imbl::HashMap<Arc<str>, Bindings>,
}

/// Bindings by name.
type Bindings = Arc<[Arc<Binding>]>;

impl Rbac {
    /// An index of all objects, each with its resource.
    pub fn build<'a>(objects: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Rbac {
        let mut index = Index::default();
        for (resource, object) in objects {
            index.apply(resource, None, Some(object));
        }
        Rbac { index: ArcSwap::from_pointee(index), writer: Mutex::new(()) }
    }

    /// An object of one of the [`RESOURCES`] was made, changed or removed. Other resources are nothing to this index.
    pub fn on_change(&self, resource: &str, old: Option<&Value>, new: Option<&Value>) {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = Index::clone(&self.index.load());
        index.apply(resource, old, new);
        self.index.store(Arc::new(index));
    }

    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index.load();
        let wanted = attributes.wanted();
        let (mut errors, mut reason) = (Vec::new(), None);
        index.visit(attributes.user, attributes.namespace, |visit| match visit {
            Err(error) => {
                errors.push(error);
                ControlFlow::Continue(())
            }
            Ok((binding, subject, rules)) if rules.iter().any(|rule| rule.allows(&wanted)) => {
                reason = Some(Reason::Binding { binding: binding.clone(), subject });
                ControlFlow::Break(())
            }
            Ok(_) => ControlFlow::Continue(()),
        });
        match (reason, errors.as_slice()) {
            (Some(reason), _) => Decision::Allow { reason },
            (None, []) => Decision::NONE,
            (None, errors) => Decision::no_opinion(format!("RBAC: {}", aggregate(errors))),
        }
    }

    /// All rules a user holds in a namespace (`""`: by ClusterRoleBindings only), and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.index.load().visit(user, namespace, |visit| {
            match visit {
                Ok((_, _, some)) => rules.extend_from_slice(some),
                Err(error) => errors.push(error),
            }
            ControlFlow::Continue(())
        });
        (rules, errors)
    }

    /// The rules of a role as a binding in `namespace` refers to it; nothing where there is no such role.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Option<Arc<[Rule]>> {
        self.index.load().role(role, namespace).ok()
    }
}

/// A binding that reaches the user, by which of its subjects, and its rules; or why its role cannot be found.
type Visit<'a> = Result<(&'a Arc<Binding>, usize, &'a Arc<[Rule]>), String>;

impl Index {
    /// ClusterRoleBindings, then the RoleBindings of the namespace, each by name, until the visitor has enough.
    fn visit(&self, user: &User, namespace: &str, mut visitor: impl FnMut(Visit<'_>) -> ControlFlow<()>) {
        let local = (!namespace.is_empty()).then(|| self.namespaces.get(namespace)).flatten();
        for scope in [Some(&self.cluster), local].into_iter().flatten() {
            let mut reached: Vec<&Arc<Binding>> = Vec::with_capacity(8);
            let by_group = user.groups.iter().filter_map(|group| scope.by_group.get(group.as_str()));
            for bindings in scope.by_user.get(user.name.as_str()).into_iter().chain(by_group) {
                reached.extend(bindings.iter());
            }
            reached.sort_by(|a, b| a.name.cmp(&b.name));
            reached.dedup_by(|a, b| Arc::ptr_eq(a, b));
            for binding in reached {
                let Some(subject) = binding.reaches(&user.name, &user.groups) else {
                    continue;
                };
                let flow = match self.role(&binding.role, &binding.namespace) {
                    Ok(rules) => visitor(Ok((binding, subject, &rules))),
                    Err(error) => visitor(Err(error)),
                };
                if flow.is_break() {
                    return;
                }
            }
        }
    }

    fn role(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[Rule]>, String> {
        let scope = match role.kind.as_str() {
            "ClusterRole" => Some(&self.cluster),
            "Role" => self.namespaces.get(namespace).filter(|_| !namespace.is_empty()),
            kind => return Err(format!("unsupported role reference kind: {}", go::quote(kind))),
        };
        let missing = || format!("{}.{GROUP} {} not found", role.kind.to_ascii_lowercase(), go::quote(&role.name));
        scope.and_then(|scope| scope.roles.get(role.name.as_str())).cloned().ok_or_else(missing)
    }

    fn apply(&mut self, resource: &str, old: Option<&Value>, new: Option<&Value>) {
        let Some(object) = new.or(old) else { return };
        let (is_role, is_cluster) = match resource {
            "clusterroles" => (true, true),
            "roles" => (true, false),
            "clusterrolebindings" => (false, true),
            "rolebindings" => (false, false),
            _ => return,
        };
        let namespace = meta::namespace(object);
        let scope = match is_cluster {
            true => &mut self.cluster,
            false => self.namespaces.entry(namespace.into()).or_default(),
        };
        match (is_role, new) {
            (true, Some(role)) => drop(scope.roles.insert(meta::name(role).into(), Rule::all_of(role).into())),
            (true, None) => drop(scope.roles.remove(meta::name(object))),
            (false, _) => {
                if let Some(old) = old {
                    scope.unbind(&Binding::of(old));
                }
                if let Some(new) = new {
                    scope.bind(&Arc::new(Binding::of(new)));
                }
            }
        }
        if !is_cluster && scope.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

impl Scope {
    fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.by_user.is_empty() && self.by_group.is_empty()
    }

    fn bind(&mut self, binding: &Arc<Binding>) {
        self.change(binding, |bindings| {
            bindings.retain(|other| other.name != binding.name);
            let at = bindings.partition_point(|other| other.name < binding.name);
            bindings.insert(at, binding.clone());
        });
    }

    fn unbind(&mut self, binding: &Binding) {
        self.change(binding, |bindings| bindings.retain(|other| other.name != binding.name));
    }

    /// Changes the lists of everyone the binding reaches.
    fn change(&mut self, binding: &Binding, edit: impl Fn(&mut Vec<Arc<Binding>>)) {
        for subject in &binding.subjects {
            let Some((is_group, key)) = key(subject, &binding.namespace) else { continue };
            let map = if is_group { &mut self.by_group } else { &mut self.by_user };
            let mut bindings = map.get(key.as_str()).map(|list| list.to_vec()).unwrap_or_default();
            edit(&mut bindings);
            match bindings.is_empty() {
                true => drop(map.remove(key.as_str())),
                false => drop(map.insert(key.as_str().into(), bindings.into())),
            }
        }
    }
}

/// Under which name, of a group or a user, a binding is found.
fn key(subject: &Subject, binding_namespace: &str) -> Option<(bool, String)> {
    match subject.kind.as_str() {
        "User" => Some((false, subject.name.clone())),
        "Group" => Some((true, subject.name.clone())),
        "ServiceAccount" => match subject.account_namespace(binding_namespace) {
            "" => None,
            namespace => Some((false, rights::user_of(namespace, &subject.name))),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::Authorizer;

    /// `role` and `binding` make objects of a few words.
    fn role(namespace: &str, name: &str, rules: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": namespace}, "rules": rules})
    }

    fn binding(namespace: &str, name: &str, kind: &str, role: &str, subjects: Value) -> Value {
        json!({
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
            "subjects": subjects,
        })
    }

    fn authorizer() -> Authorizer {
        let rules = json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
            {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*"]},
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]},
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"]},
        ]);
        let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics", "/debug/*"]}]);
        let objects = [
            ("roles", role("ns", "reader", rules)),
            ("clusterroles", role("", "paths", paths)),
            ("rolebindings", binding("ns", "to-alice", "Role", "reader", json!([{"kind": "User", "name": "alice"}]))),
            ("rolebindings", binding("ns", "to-devs", "Role", "reader", json!([{"kind": "Group", "name": "devs"}]))),
            (
                "rolebindings",
                binding("ns", "to-sa", "Role", "reader", json!([{"kind": "ServiceAccount", "name": "robot"}])),
            ),
            ("rolebindings", binding("ns", "broken", "Role", "ghost", json!([{"kind": "User", "name": "m"}]))),
            (
                "clusterrolebindings",
                binding(
                    "",
                    "everyone",
                    "ClusterRole",
                    "paths",
                    json!([{"kind": "ServiceAccount", "name": "lost"}, {"kind": "ServiceAccount", "name": "robot", "namespace": "ns"}]),
                ),
            ),
            (
                "clusterrolebindings",
                binding(
                    "",
                    "lost",
                    "ClusterRole",
                    "gone",
                    json!([{"kind": "User", "name": "m"}, {"kind": "Group", "name": "m"}]),
                ),
            ),
        ];
        Authorizer::of(Rbac::build(objects.iter().map(|(resource, object)| (*resource, object))))
    }

    /// `who verb what`: the user with its groups behind commas; a path, or `namespace:resource.group/subresource/name`.
    #[track_caller]
    fn check(authorizer: &Authorizer, ask: &str, want: &str) {
        let words: Vec<&str> = ask.split(' ').collect();
        let [who, verb, what] = words[..] else { panic!("three words") };
        let mut names = who.split(',');
        let user = User::new(names.next().unwrap(), names);
        let attributes = match what.strip_prefix('/') {
            Some(_) => Attributes::path(&user, verb, what),
            None => {
                let (namespace, what) = what.split_once(':').unwrap();
                let mut parts = what.split('/');
                let (resource, group) = parts.next().map(|r| r.split_once('.').unwrap_or((r, ""))).unwrap();
                Attributes {
                    namespace,
                    subresource: parts.next().unwrap_or_default(),
                    name: parts.next().unwrap_or_default(),
                    ..Attributes::resource(&user, verb, group, resource)
                }
            }
        };
        let got = match authorizer.authorize(&attributes, &super::super::Hearing::default()) {
            Decision::Allow { reason } => format!("yes {reason}"),
            Decision::NoOpinion { reason, .. } | Decision::Deny { reason, .. } => format!("no {reason}"),
        };
        assert_eq!(got.trim_end(), want, "{ask}");
    }

    #[test]
    fn decisions() {
        let a = authorizer();
        let alice = "yes RBAC: allowed by RoleBinding \"to-alice/ns\" of Role \"reader\" to User \"alice\"";
        let robot = "yes RBAC: allowed by RoleBinding \"to-sa/ns\" of Role \"reader\" to ServiceAccount \"robot/ns\"";
        check(&a, "alice get ns:pods", alice);
        check(&a, "alice get ns:pods/log/p", alice);
        check(&a, "alice get ns:pods/exec", "no");
        check(&a, "alice get ns:deployments.apps", alice);
        check(&a, "alice get ns:deployments.apps/status", alice);
        check(&a, "alice get ns:deployments", "no");
        check(&a, "alice update ns:widgets.example.com/scale", alice);
        check(&a, "alice update ns:widgets.example.com", "no");
        check(&a, "alice get ns:configmaps//mine", alice);
        check(&a, "alice get ns:configmaps//yours", "no");
        check(&a, "alice list ns:configmaps", "no");
        check(&a, "alice GET ns:pods", "no");
        check(&a, "alice get default:pods", "no");
        check(&a, "alice get :pods", "no");
        check(
            &a,
            "bob,ops,devs list ns:pods",
            "yes RBAC: allowed by RoleBinding \"to-devs/ns\" of Role \"reader\" to Group \"devs\"",
        );
        check(&a, "system:serviceaccount:ns:robot get ns:pods", robot);
        check(&a, "system:serviceaccount:other:robot get ns:pods", "no");
        check(&a, "root,system:masters delete ns:secrets", "yes");
        let paths = "yes RBAC: allowed by ClusterRoleBinding \"everyone\" of ClusterRole \"paths\" to ServiceAccount \"robot/ns\"";
        check(&a, "system:serviceaccount:ns:robot get /metrics", paths);
        check(&a, "system:serviceaccount:ns:robot get /debug/", paths);
        check(&a, "system:serviceaccount:ns:robot get /debug", "no");
        check(&a, "system:serviceaccount:ns:robot post /metrics", "no");
        check(&a, "system:serviceaccount:ns:lost get /metrics", "no");
        check(&a, "m get /x", "no rbac: RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found");
        check(
            &a,
            "m get ns:pods",
            "no rbac: RBAC: [clusterrole.rbac.authorization.k8s.io \"gone\" not found, role.rbac.authorization.k8s.io \"ghost\" not found]",
        );
    }

    #[test]
    fn changes_count_at_once() {
        let a = authorizer();
        let ghost = role("ns", "ghost", json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
        let lost = binding(
            "",
            "lost",
            "ClusterRole",
            "gone",
            json!([{"kind": "User", "name": "m"}, {"kind": "Group", "name": "m"}]),
        );
        a.rbac.on_change("clusterrolebindings", Some(&lost), None);
        a.rbac.on_change("roles", None, Some(&ghost));
        check(&a, "m get ns:pods", "yes RBAC: allowed by RoleBinding \"broken/ns\" of Role \"ghost\" to User \"m\"");
        let old = binding("ns", "broken", "Role", "ghost", json!([{"kind": "User", "name": "m"}]));
        let new = binding(
            "ns",
            "broken",
            "Role",
            "ghost",
            json!([{"kind": "Group", "name": "g"}, {"kind": "User", "name": "n"}]),
        );
        a.rbac.on_change("rolebindings", Some(&old), Some(&new));
        check(&a, "m get ns:pods", "no");
        check(&a, "n,g get ns:pods", "yes RBAC: allowed by RoleBinding \"broken/ns\" of Role \"ghost\" to Group \"g\"");
        a.rbac.on_change("roles", Some(&ghost), None);
        check(&a, "n get ns:pods", "no rbac: RBAC: role.rbac.authorization.k8s.io \"ghost\" not found");
        a.rbac.on_change("rolebindings", Some(&new), None);
        check(&a, "n get ns:pods", "no");
        assert_eq!(a.rbac.index.load().cluster.by_group.len(), 0, "nothing is left of what was removed");
    }
}
