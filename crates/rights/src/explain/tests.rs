//! Refusals and their causes, as a table: what there is, who asks, what is to be named.

use serde_json::json;

use super::*;
use crate::asked::groups_of;

/// The cluster of a few lines:
/// `role NAMESPACE NAME VERBS GROUP RESOURCES [NAMES]` (a line a rule; `-` for the cluster, `core` for the core group),
/// `paths NAME VERBS PATHS`, `empty NAMESPACE NAME`, `bind NAMESPACE NAME KIND/ROLE SUBJECT`, `unseen PART [NAMESPACE]`.
fn cluster(lines: &str) -> Known {
    let list = |text: &str| text.split(',').map(str::to_string).collect::<Vec<_>>();
    let place = |text: &str| text.trim_matches('-').to_string();
    let mut known = Known {
        accounts: [("a", "robot"), ("a", "default"), ("a", "app"), ("b", "robot"), ("b", "default")]
            .map(|(namespace, name)| (namespace.to_string(), name.to_string()))
            .to_vec(),
        namespaces: ["a", "b", "prod", "default"].map(str::to_string).to_vec(),
        resources: served(),
        ..Known::default()
    };
    let add = |known: &mut Known, namespace: String, name: &str, rule: Option<Rule>| {
        let found = known.roles.iter().position(|role| role.name == name && role.namespace == namespace);
        let at = found.unwrap_or_else(|| {
            known.roles.push(Role { name: name.into(), namespace, ..Role::default() });
            known.roles.len() - 1
        });
        known.roles[at].rules.extend(rule);
    };
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["role", namespace, name, verbs, group, resources, ref names @ ..] => {
                let rule = Rule {
                    verbs: list(verbs),
                    api_groups: vec![if group == "core" { String::new() } else { group.into() }],
                    resources: list(resources),
                    resource_names: names.first().map(|names| list(names)).unwrap_or_default(),
                    ..Rule::default()
                };
                add(&mut known, place(namespace), name, Some(rule));
            }
            ["paths", name, verbs, paths] => {
                let rule = Rule { verbs: list(verbs), non_resource_urls: list(paths), ..Rule::default() };
                add(&mut known, String::new(), name, Some(rule));
            }
            ["empty", namespace, name] => add(&mut known, place(namespace), name, None),
            ["bind", namespace, name, role, subject] => {
                let (kind, role) = role.split_once('/').unwrap();
                let (subject_kind, subject) = subject.split_once('=').unwrap_or_default();
                let (of, subject) = subject.split_once('/').unwrap_or(("", subject));
                known.bindings.push(Binding {
                    name: name.into(),
                    namespace: place(namespace),
                    role: RoleRef { kind: kind.into(), name: role.into() },
                    subjects: (!subject_kind.is_empty())
                        .then(|| Subject { kind: subject_kind.into(), name: subject.into(), namespace: of.into() })
                        .into_iter()
                        .collect(),
                    is_default: false,
                });
            }
            ["unseen", part, ref except @ ..] => {
                let part = match part {
                    "Roles" => Part::Roles,
                    "ClusterRoles" => Part::ClusterRoles,
                    "RoleBindings" => Part::RoleBindings,
                    "ClusterRoleBindings" => Part::ClusterRoleBindings,
                    other => panic!("{other}"),
                };
                let except = except.first().map(ToString::to_string).unwrap_or_default();
                known.unseen.push(Unseen { part, except, why: line.to_string() });
            }
            ["said", ..] => known.said = line["said ".len()..].to_string(),
            ["held", verbs, resources] => known.held.push(Rule {
                verbs: list(verbs),
                api_groups: vec![String::new()],
                resources: list(resources),
                ..Rule::default()
            }),
            _ => panic!("no such line: {line}"),
        }
    }
    known
}

fn served() -> Vec<Served> {
    let of = |group: &str, plural: &str, words: &str, subresources: &str, namespaced| Served {
        group: group.into(),
        plural: plural.into(),
        words: words.split(' ').map(str::to_string).collect(),
        subresources: subresources.split(' ').filter(|sub| !sub.is_empty()).map(str::to_string).collect(),
        namespaced,
    };
    vec![
        of("", "pods", "pod po", "log exec status", true),
        of("", "secrets", "secret", "", true),
        of("", "services", "service svc", "status", true),
        of("", "configmaps", "configmap cm", "", true),
        of("", "nodes", "node no", "status", false),
        of("", "namespaces", "namespace ns", "status", false),
        of("apps", "deployments", "deployment deploy", "scale status", true),
        of("networking.k8s.io", "ingresses", "ingress ing", "status", true),
    ]
}

/// `WHO VERB NAMESPACE RESOURCE[.GROUP][/SUB] [NAME]`, or `WHO VERB - /PATH`; who is a user, `NAMESPACE:ACCOUNT` an account.
fn asked(text: &str) -> Asked {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [who, verb, namespace, what, ref name @ ..] = words[..] else { panic!("{text}") };
    let account = who.split_once(':').filter(|(namespace, _)| *namespace != "system");
    let user = account.map_or(who.to_string(), |(namespace, name)| crate::user_of(namespace, name));
    let groups = groups_of(&user);
    if what.starts_with('/') {
        return Asked { verb: verb.into(), path: what.into(), ..Asked::default() }.by(&user, groups);
    }
    let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    Asked {
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.trim_matches('-').into(),
        name: name.first().map(ToString::to_string).unwrap_or_default(),
        ..Asked::default()
    }
    .by(&user, groups)
}

/// What is explained, and that the fix alone makes the request allowed (where there is one).
#[track_caller]
fn check(lines: &str, ask: &str, want: &str) {
    let (known, asked) = (cluster(lines), asked(ask));
    let explanation = explain(&asked, &known);
    let causes: Vec<String> = explanation.causes.iter().map(|finding| format!("{:?}", finding.cause)).collect();
    assert_eq!(causes.join(" "), want, "{ask}\n{:#?}", explanation.causes);
    let mut fixed = known;
    fixed.namespaces.push(asked.namespace.clone());
    for object in &explanation.fix {
        match object["kind"].as_str().unwrap() {
            "Role" | "ClusterRole" => fixed.roles.push(Role::of(object)),
            "RoleBinding" | "ClusterRoleBinding" => fixed.bindings.push(Binding::of(object)),
            other => assert_eq!(other, "Namespace"),
        }
    }
    let meant = explanation.instead.as_ref().unwrap_or(&asked);
    let stays = matches!(explanation.cause(), Some(Cause::Anonymous | Cause::RefusedElsewhere));
    assert_eq!(explain(meant, &fixed).allowed, !stays, "{ask}: after {:#?}", explanation.fix);
}

const READER: &str = "role a reader get,watch core pods\n";

#[test]
fn verbs_and_resources() {
    let bound = |rules: &str| format!("{rules}\nbind a rb Role/reader ServiceAccount=a/robot");
    let reader = |rules: &str, ask: &str, want: &str| check(&bound(rules), &format!("a:robot {ask}"), want);
    reader(READER, "get a pods p", "Allowed");
    reader(READER, "list a pods", "VerbMissing");
    reader("role a reader lists core pods", "list a pods", "VerbMisspelt");
    reader("role a reader List core pods", "list a pods", "VerbMisspelt");
    reader("role a reader post core pods", "create a pods", "VerbMisspelt");
    reader("role a reader get core pods", "get a pods/log p", "SubresourceMissing");
    reader("role a reader get core pods/*", "get a pods/log p", "SubresourceMissing");
    reader("role a reader get core pods", "create a pods/exec p", "SubresourceMissing VerbMissing");
    reader("role a reader get core pods/log", "get a pods p", "OnlySubresource");
    reader("role a reader get core pods/logs", "get a pods/log p", "ResourceMisspelt");
    reader("role a reader get core pods.log", "get a pods/log p", "ResourceMisspelt");
    reader("role a reader list core pod", "list a pods", "ResourceMisspelt");
    reader("role a reader list core Pods", "list a pods", "ResourceMisspelt");
    reader("role a reader list apps deploy", "list a deployments.apps", "ResourceMisspelt");
    reader("role a reader list apps deployments.apps", "list a deployments.apps", "ResourceMisspelt");
    reader("role a reader list core services", "list a secrets", "RuleMissing");
    reader("role a reader list core deployments", "list a deployments.apps", "ApiGroupWrong");
    reader("role a reader list apps/v1 deployments", "list a deployments.apps", "ApiGroupWrong");
    reader("role a reader get core deployments", "list a deployments.apps", "ApiGroupWrong VerbMissing");
    reader("role a reader * core *", "list a deployments.apps", "ApiGroupWrong");
    reader("role a reader get core secrets one,two", "get a secrets three", "NameNotListed");
    reader("role a reader get,list core secrets one", "list a secrets", "NamesCannotCover");
    reader("role a reader create core secrets one", "create a secrets", "NamesCannotCover");
    reader("empty a reader", "list a pods", "RoleWithoutRules");
}

#[test]
fn acting_as_somebody_takes_two_rights() {
    let on = "ann impersonate-on:user-info:list a pods";
    check("", on, "NoBinding ImpersonationTakesTwo");
    let told = |lines: &str, ask: &str| explain(&asked(ask), &cluster(lines)).causes.pop().expect("a cause");
    let finding = told("", on);
    let both = ["impersonate-on:user-info:list pods", "impersonate:user-info users.authentication.k8s.io"];
    assert!(both.iter().all(|right| finding.message.contains(right)), "{}", finding.message);
    assert!(finding.repair.contains("--verb=impersonate:user-info --resource=users.authentication.k8s.io"));
    let finding = told("", "ann impersonate:user-info - users.authentication.k8s.io bob");
    let both = ["impersonate:user-info users", "impersonate-on:user-info:VERB"];
    assert!(both.iter().all(|right| finding.message.contains(right)), "{}", finding.message);
    let finding = told("", "ann impersonate-on:serviceaccount:get - /healthz");
    assert!(finding.repair.contains("--resource=serviceaccounts.authentication.k8s.io"), "{}", finding.repair);
    // Who has the other one for everybody needs the one that was refused alone.
    let lines = "role - whom impersonate:user-info authentication.k8s.io users
        bind - whom ClusterRole/whom User=ann";
    check(lines, on, "RuleMissing");
    check("", "ann impersonate - users bob", "NoBinding");
}

#[test]
fn the_nearest_rule_counts() {
    let lines = "role a reader get core pods\nrole a reader list core services\nrole a reader list apps pods
        bind a rb Role/reader ServiceAccount=a/robot";
    check(lines, "a:robot list a pods", "ApiGroupWrong");
    let lines = "role a reader get core pods\nrole - all get,list core pods
        bind b rb ClusterRole/all ServiceAccount=a/robot\nbind a rb Role/reader ServiceAccount=a/robot";
    check(lines, "a:robot list a pods", "VerbMissing");
    let explanation = explain(
        &asked("a:robot delete a pods"),
        &cluster(
            "role a reader get core pods\nrole a reader watch core pods\nbind a rb Role/reader ServiceAccount=a/robot",
        ),
    );
    assert_eq!(
        explanation.causes[0].message,
        r#"Role "reader" in namespace "a" allows get, watch of pods, not delete"#
    );
}

#[test]
fn bindings() {
    check(READER, "a:robot get a pods", "RoleNotBound");
    check("", "a:robot get a pods", "NoBinding");
    let reader = |binding: &str, ask: &str, want: &str| check(&format!("{READER}{binding}"), ask, want);
    reader("bind b rb Role/reader ServiceAccount=a/robot", "a:robot get b pods", "RoleInAnotherNamespace");
    reader("bind a rb Role/raeder ServiceAccount=a/robot", "a:robot get a pods", "RoleRefMisspelt");
    reader("bind a rb Role/raeder ServiceAccount=a/robot", "a:robot list a pods", "RoleRefMisspelt VerbMissing");
    reader("bind a rb Role/pod-reader ServiceAccount=a/robot", "a:robot get a pods", "RoleRefMisspelt");
    reader("bind a rb Role/pod-reader ServiceAccount=a/robot", "a:robot list a pods", "RoleMissing");
    reader("bind a rb ClusterRole/reader ServiceAccount=a/robot", "a:robot get a pods", "RoleRefKindWrong");
    reader("bind a rb Role/other ServiceAccount=a/robot", "a:robot list a secrets", "RoleMissing");
    reader("bind a rb ClusterRole/other ServiceAccount=a/robot", "a:robot list a secrets", "ClusterRoleMissing");
    let cluster = "role - reader get,list core pods,nodes\n";
    let wide = |binding: &str, ask: &str, want: &str| check(&format!("{cluster}{binding}"), ask, want);
    wide("bind a rb Role/reader ServiceAccount=a/robot", "a:robot get a pods", "RoleRefKindWrong");
    wide("bind a rb ClusterRole/reader ServiceAccount=a/robot", "a:robot get b pods", "BindingInAnotherNamespace");
    wide("bind a rb ClusterRole/reader ServiceAccount=a/robot", "a:robot list - pods", "BindingNotClusterWide");
    wide("bind a rb ClusterRole/reader ServiceAccount=a/robot", "a:robot list - nodes", "BindingNotClusterWide");
    wide("bind - crb ClusterRole/reader ServiceAccount=a/robot", "a:robot list b pods", "Allowed");
}

#[test]
fn subjects() {
    let reader = |subject: &str, ask: &str, want: &str| {
        check(&format!("role - reader get core pods\nbind a rb ClusterRole/reader {subject}"), ask, want);
    };
    reader("ServiceAccount=robot", "b:robot get a pods", "SubjectNamespaceMissing");
    reader("ServiceAccount=default/robot", "a:robot get a pods", "SubjectNamespaceWrong");
    reader("ServiceAccount=b/robot", "a:robot get a pods", "SubjectNamespaceWrong");
    reader("User=robot", "a:robot get a pods", "SubjectKindWrong");
    reader("User=a:robot", "a:robot get a pods", "SubjectKindWrong");
    reader("Group=robot", "a:robot get a pods", "SubjectKindWrong");
    reader("User=system:serviceaccounts:a:robot", "a:robot get a pods", "SubjectMisspelt");
    reader("Group=system:serviceaccount:a", "a:robot get a pods", "SubjectMisspelt");
    reader("ServiceAccount=a/robto", "a:robot get a pods", "SubjectMisspelt");
    reader("ServiceAccount=a/robot-sa", "a:robot get a pods", "SubjectMisspelt");
    reader("ServiceAccount=a/machine", "a:robot get a pods", "SubjectMisspelt");
    reader("ServiceAccount=a/robot-sa", "a:robot list a pods", "SubjectMisspelt VerbMissing");
    reader("Group=system:serviceaccounts:b", "a:robot get a pods", "SubjectNamespaceWrong");
    reader("ServiceAccount=a/robot", "a:robto get a pods", "AccountMissing");
    reader("ServiceAccount=a/app", "a:default get a pods", "BoundToAnotherAccount");
    reader("ServiceAccount=a/app", "a:robot get a pods", "NoBinding");
    reader("ServiceAccount=a/default", "a:robot get a pods", "BoundToAnotherAccount");
    reader("User=system:serviceaccount:b:robot", "a:robot get a pods", "SubjectNamespaceWrong");
    reader("User=system:serviceaccount:robot", "a:robot get a pods", "SubjectMisspelt");
    reader("nobody", "a:robot get a pods", "BindingWithoutSubjects");
    reader("User=Alice", "alice get a pods", "SubjectMisspelt");
    reader("Group=alice", "alice get a pods", "SubjectKindWrong");
    reader("ServiceAccount=a/alice", "alice get a pods", "SubjectKindWrong");
    reader("Group=system:unauthenticated", "alice get a pods", "NoBinding");
    reader("User=bob", "alice get a pods", "NoBinding");
    reader("User=bob", "system:anonymous get a pods", "Anonymous");
    let lines = "role - reader get core pods\nbind a rb ClusterRole/reader Group=devs";
    let misses = explain(&asked("alice get a pods"), &cluster(lines)).near_misses;
    assert_eq!(misses[0].findings[0].message, r#"RoleBinding "rb" in namespace "a" allows it to Group "devs""#);
    // A slip of the subject and one of the verb are both told.
    reader("User=robot", "a:robot list a pods", "SubjectKindWrong VerbMissing");
}

#[test]
fn paths() {
    let bound = "\nbind - crb ClusterRole/p ServiceAccount=a/robot";
    check(&format!("paths p get /metrics{bound}"), "a:robot get - /metrics/cadvisor", "PathNotCovered");
    check(&format!("paths p get /metrics{bound}"), "a:robot post - /metrics", "VerbMissing");
    check(&format!("paths p get /logs/*{bound}"), "a:robot get - /metrics", "RuleMissing");
    check(
        "paths p get /metrics\nbind a rb ClusterRole/p ServiceAccount=a/robot",
        "a:robot get - /metrics",
        "BindingNotClusterWide",
    );
}

#[test]
fn requests_that_cannot_succeed() {
    let lines = "role - reader get,list core,networking.k8s.io pods
        role - reader list networking.k8s.io ingresses
        bind prod rb ClusterRole/reader ServiceAccount=a/robot";
    check(lines, "a:robot list prdo pods", "NamespaceMissing ApiGroupWrong");
    check(
        "role - reader list core pods\nbind prod rb ClusterRole/reader ServiceAccount=a/robot",
        "a:robot list prdo pods",
        "NamespaceMissing Allowed",
    );
    check("", "a:robot list nowhere pods", "NamespaceMissing");
    check(lines, "a:robot list prod ingresses.extensions", "ResourceUnknown Allowed");
    check("", "a:robot list prod pod", "ResourceUnknown NoBinding");
    check("", "a:robot get prod pods/logs p", "ResourceUnknown NoBinding");
}

#[test]
fn what_is_not_seen_is_not_concluded_from() {
    let blind = "unseen Roles\nunseen RoleBindings\nunseen ClusterRoles\nunseen ClusterRoleBindings\n";
    check(blind, "a:robot list a pods", "NotSeen");
    let said = "said RBAC: [role.rbac.authorization.k8s.io \"reader\" not found, x]";
    check(&format!("{blind}{said}"), "a:robot list a pods", "RoleMissing");
    check(&format!("{blind}held get pods"), "a:robot list a pods", "VerbMissing");
    check(&format!("{blind}held get pods"), "a:robot get a pods/log", "SubresourceMissing");
    check("unseen Roles b\nbind a rb Role/reader ServiceAccount=a/robot", "a:robot list a pods", "NotSeen");
    check("unseen Roles a\nbind a rb Role/reader ServiceAccount=a/robot", "a:robot list a pods", "RoleMissing");
    let known = cluster(&format!("{blind}held get pods"));
    assert_eq!(explain(&asked("a:robot list a pods"), &known).unseen.len(), 4);
}

#[test]
fn the_servers_word_counts() {
    let verdict = |allowed| Some(Verdict { allowed, reason: "x".into() });
    let lines = format!("{READER}bind a rb Role/reader ServiceAccount=a/robot");
    let refused = Known { verdict: verdict(false), ..cluster(&lines) };
    assert_eq!(explain(&asked("a:robot get a pods"), &refused).cause(), Some(Cause::RefusedElsewhere));
    let allowed = Known { verdict: verdict(true), ..cluster("") };
    assert!(explain(&asked("a:robot get a pods"), &allowed).allowed);
}

#[test]
fn the_fix_is_the_least() {
    #[track_caller]
    fn check(ask: &str, want: &str) {
        let fix = fix(&asked(ask));
        let texts: Vec<String> = fix.iter().map(|o| format!("{} {}", o["kind"], o["rules"])).collect();
        assert_eq!(texts.join("; ").replace('"', "").replace(" null", ""), want);
        let name = fix[0]["metadata"]["name"].as_str().unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
    }
    check("a:robot list a pods", "Role [{apiGroups:[],resources:[pods],verbs:[list]}]; RoleBinding");
    check(
        "a:robot get a pods/log p",
        "Role [{apiGroups:[],resources:[pods/log],resourceNames:[p],verbs:[get]}]; RoleBinding",
    );
    check(
        "a:robot create a pods/exec p",
        "Role [{apiGroups:[],resources:[pods/exec],resourceNames:[p],verbs:[create]}]; RoleBinding",
    );
    check("a:robot create a pods", "Role [{apiGroups:[],resources:[pods],verbs:[create]}]; RoleBinding");
    check(
        "alice@example.com list - pods",
        "ClusterRole [{apiGroups:[],resources:[pods],verbs:[list]}]; ClusterRoleBinding",
    );
    check("a:robot get - /metrics", "ClusterRole [{nonResourceURLs:[/metrics],verbs:[get]}]; ClusterRoleBinding");
    check("a:robot get - /api", "ClusterRole [{nonResourceURLs:[/api],verbs:[get]}]; ClusterRoleBinding");
    let name = |ask: &str| fix(&asked(ask))[0]["metadata"]["name"].clone();
    assert_eq!(name("a:robot list a pods"), name("a:robot list a pods"));
    assert_ne!(name("a:robot list a pods"), name("b:robot list a pods"));
    let rules = [Rule::parse(r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#).unwrap()];
    assert_eq!(
        fix_for_rules("u", "a", &rules)[0]["rules"],
        json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
    );
}
