//! `kemudi why` against a real server: seeded mistakes, each with its 403, the cause that must be named, and the request
//! that succeeds once what `--fix` prints is applied. And what it says to who may see little, and of tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use testkit::command::{Finished, RUN_LIMIT, kemudi, run};
use testkit::server::{Server, describe};

/// A mistake, as data.
struct Seed {
    /// What there is beside [`EVERYWHERE`], a line an object: see [`object`].
    setup: &'static str,
    who: &'static str,
    /// The request that is refused, and must succeed in the end.
    ask: &'static str,
    /// The cause, and what its message must hold.
    cause: &'static str,
    says: &'static str,
    /// The answer in the end, its beginning.
    then: &'static str,
    /// What to ask in the end, where the request itself was the mistake.
    instead: &'static str,
}

const WEB: &str = "system:serviceaccount:shop:web";

impl Seed {
    const fn new(setup: &'static str, ask: &'static str, cause: &'static str, says: &'static str) -> Seed {
        Seed { setup, who: WEB, ask, cause, says, then: "200 ", instead: "" }
    }

    const fn by(self, who: &'static str) -> Seed {
        Seed { who, ..self }
    }

    const fn then(self, then: &'static str) -> Seed {
        Seed { then, ..self }
    }

    const fn instead(self, instead: &'static str) -> Seed {
        Seed { instead, ..self }
    }
}

/// What every seed starts with.
const EVERYWHERE: &str = "
    Namespace shop
    Namespace prod
    ServiceAccount shop/web
    ServiceAccount shop/app
    ServiceAccount prod/robot
    {apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: shop}}
    {apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: shop}}
    {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}, spec: {containers: [{name: c, image: i}]}}
    {apiVersion: apps/v1, kind: Deployment, metadata: {name: front, namespace: shop}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}";

const LIST: &str = "GET /api/v1/namespaces/shop/pods";
const MAPS: &str = "GET /api/v1/namespaces/shop/configmaps";
const DEPLOYMENTS: &str = "GET /apis/apps/v1/namespaces/shop/deployments";

const SEEDS: &[Seed] = &[
    // Nothing bound.
    Seed::new("", LIST, "NoBinding", "namespace \"shop\""),
    Seed::new("RoleBinding prod/rb ClusterRole/view ServiceAccount:prod/robot", LIST, "NoBinding", WEB),
    Seed::new("Role shop/reader list core pods", LIST, "RoleNotBound", "Role \"reader\" in namespace \"shop\""),
    Seed::new("ClusterRole nodes list core nodes", "GET /api/v1/nodes", "RoleNotBound", "ClusterRole \"nodes\""),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/app",
        LIST,
        "BoundToAnotherAccount",
        "which a pod runs as where its spec names no account",
    )
    .by("system:serviceaccount:shop:default"),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/default",
        LIST,
        "BoundToAnotherAccount",
        "is the account \"default\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader",
        LIST,
        "BindingWithoutSubjects",
        "has no subjects",
    ),
    // Verbs.
    Seed::new(
        "Role shop/reader get,watch core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "VerbMissing",
        "allows get, watch of pods, not list",
    ),
    Seed::new(
        "Role shop/reader get,list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/pods?watch=true&timeoutSeconds=1",
        "VerbMissing",
        "not watch",
    ),
    Seed::new(
        "Role shop/reader get,update core configmaps
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        r#"PATCH /api/v1/namespaces/shop/configmaps/settings {"data":{"a":"b"}}"#,
        "VerbMissing",
        "not patch",
    ),
    Seed::new(
        "Role shop/reader delete core configmaps
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "DELETE /api/v1/namespaces/shop/configmaps",
        "VerbMissing",
        "not deletecollection",
    ),
    Seed::new(
        "RoleBinding shop/rb ClusterRole/view ServiceAccount:shop/web",
        "DELETE /api/v1/namespaces/shop/configmaps/settings",
        "VerbMissing",
        "ClusterRole \"view\" allows",
    ),
    Seed::new(
        "Role shop/reader lists core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "VerbMisspelt",
        "\"lists\"",
    ),
    Seed::new(
        "Role shop/reader Get,List core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "VerbMisspelt",
        "it is called \"list\"",
    ),
    Seed::new(
        "Role shop/writer post core configmaps
         RoleBinding shop/rb Role/writer ServiceAccount:shop/web",
        r#"POST /api/v1/namespaces/shop/configmaps {"metadata":{"name":"new"}}"#,
        "VerbMisspelt",
        "it is called \"create\"",
    )
    .then("201 ConfigMap new"),
    // Resources and subresources.
    Seed::new(
        "Role shop/reader get,list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/pods/p/log",
        "SubresourceMissing",
        "does not include pods/log",
    )
    .then("204"),
    Seed::new(
        "Role shop/scaler get,update apps deployments
         RoleBinding shop/rb Role/scaler ServiceAccount:shop/web",
        "GET /apis/apps/v1/namespaces/shop/deployments/front/scale",
        "SubresourceMissing",
        "deployments/scale",
    )
    .then("200 Scale front"),
    Seed::new(
        "Role shop/reader get core pods/*
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/pods/p/status",
        "SubresourceMissing",
        "stands for nothing",
    )
    .then("200 Pod p"),
    Seed::new(
        "Role shop/issuer get core serviceaccounts
         RoleBinding shop/rb Role/issuer ServiceAccount:shop/web",
        "POST /api/v1/namespaces/shop/serviceaccounts/app/token {}",
        "SubresourceMissing",
        "serviceaccounts/token",
    )
    .then("201 TokenRequest app"),
    Seed::new(
        "Role shop/reader get core pods/log
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/pods/p",
        "OnlySubresource",
        "does not include pods itself",
    )
    .then("200 Pod p"),
    Seed::new(
        "Role shop/reader list core pod
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "ResourceMisspelt",
        "has \"pod\" where the resource is called \"pods\"",
    ),
    Seed::new(
        "Role shop/reader list core ConfigMap
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        MAPS,
        "ResourceMisspelt",
        "\"configmaps\"",
    ),
    Seed::new(
        "Role shop/reader list core cm
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        MAPS,
        "ResourceMisspelt",
        "has \"cm\"",
    ),
    Seed::new(
        "Role shop/reader list apps deployments.apps
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        DEPLOYMENTS,
        "ResourceMisspelt",
        "\"deployments.apps\"",
    ),
    Seed::new(
        "Role shop/reader list core confgimaps
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        MAPS,
        "ResourceMisspelt",
        "\"confgimaps\"",
    ),
    Seed::new(
        "Role shop/reader get core pods/statuses
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/pods/p/status",
        "ResourceMisspelt",
        "\"pods/status\"",
    )
    .then("200 Pod p"),
    Seed::new(
        "Role shop/reader list core services
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/secrets",
        "RuleMissing",
        "says nothing of secrets",
    ),
    Seed::new(
        "RoleBinding shop/rb ClusterRole/view ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/secrets",
        "RuleMissing",
        "ClusterRole \"view\" says nothing of secrets",
    ),
    // API groups.
    Seed::new(
        "Role shop/reader list core deployments
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        DEPLOYMENTS,
        "ApiGroupWrong",
        "the request is for that of \"apps\"",
    ),
    Seed::new(
        "Role shop/reader list apps/v1 deployments
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        DEPLOYMENTS,
        "ApiGroupWrong",
        "versions are no part of a group",
    ),
    Seed::new(
        "Role shop/reader list v1 pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "ApiGroupWrong",
        "the core group",
    ),
    Seed::new(
        "Role shop/reader list extensions ingresses
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /apis/networking.k8s.io/v1/namespaces/shop/ingresses",
        "ApiGroupWrong",
        "networking.k8s.io",
    ),
    Seed::new(
        "Role shop/all * core *
         RoleBinding shop/rb Role/all ServiceAccount:shop/web",
        DEPLOYMENTS,
        "ApiGroupWrong",
        "API group \"\" (the core group)",
    ),
    // Names.
    Seed::new(
        "Role shop/reader get core configmaps settings
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/configmaps/other",
        "NameNotListed",
        "the request is for \"other\"",
    )
    .then("200 ConfigMap other"),
    Seed::new(
        "Role shop/reader get,list core configmaps settings
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        MAPS,
        "NamesCannotCover",
        "a list names none",
    ),
    Seed::new(
        "Role shop/reader get,list,watch core configmaps settings
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        "GET /api/v1/namespaces/shop/configmaps?watch=true&timeoutSeconds=1",
        "NamesCannotCover",
        "a watch names none",
    ),
    Seed::new(
        "Role shop/writer create,get core configmaps new
         RoleBinding shop/rb Role/writer ServiceAccount:shop/web",
        r#"POST /api/v1/namespaces/shop/configmaps {"metadata":{"name":"new"}}"#,
        "NamesCannotCover",
        "a create names none",
    )
    .then("201 ConfigMap new"),
    // Roles that are empty, missing or elsewhere.
    Seed::new(
        "Role shop/empty
         RoleBinding shop/rb Role/empty ServiceAccount:shop/web",
        LIST,
        "RoleWithoutRules",
        "has no rules",
    ),
    Seed::new(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: gathered}, aggregationRule: {clusterRoleSelectors: [{matchLabels: {nobody: has}}]}, rules: []}
         ClusterRoleBinding crb ClusterRole/gathered ServiceAccount:shop/web",
        LIST,
        "RoleWithoutRules",
        "aggregationRule",
    ),
    Seed::new(
        "Role shop/pod-reader list core pods
         RoleBinding shop/rb Role/pod-raeder ServiceAccount:shop/web",
        LIST,
        "RoleRefMisspelt",
        "Role \"pod-reader\" in namespace \"shop\" does",
    ),
    Seed::new(
        "ClusterRoleBinding crb ClusterRole/veiw ServiceAccount:shop/web",
        LIST,
        "RoleRefMisspelt",
        "ClusterRole \"view\" does",
    ),
    Seed::new(
        "ClusterRole reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "RoleRefKindWrong",
        "ClusterRole \"reader\" does",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb ClusterRole/reader ServiceAccount:shop/web",
        LIST,
        "RoleRefKindWrong",
        "Role \"reader\" in namespace \"shop\" does",
    ),
    Seed::new(
        "Role prod/reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "RoleInAnotherNamespace",
        "Role \"reader\" in namespace \"prod\" does",
    ),
    Seed::new("RoleBinding shop/rb Role/gone ServiceAccount:shop/web", LIST, "RoleMissing", "which does not exist"),
    Seed::new(
        "ClusterRoleBinding crb ClusterRole/gone ServiceAccount:shop/web",
        LIST,
        "ClusterRoleMissing",
        "which does not exist",
    ),
    // Namespaces and the whole cluster.
    Seed::new(
        "Role prod/reader list core pods
         RoleBinding prod/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "BindingInAnotherNamespace",
        "the request is in namespace \"shop\"",
    ),
    Seed::new(
        "RoleBinding shop/rb ClusterRole/view ServiceAccount:shop/web",
        "GET /api/v1/pods",
        "BindingNotClusterWide",
        "the request is for the whole cluster",
    ),
    Seed::new(
        "ClusterRole nodes list core nodes
         RoleBinding shop/rb ClusterRole/nodes ServiceAccount:shop/web",
        "GET /api/v1/nodes",
        "BindingNotClusterWide",
        "RoleBinding \"rb\"",
    ),
    Seed::new(
        "ClusterRole metrics get /metrics
         RoleBinding shop/rb ClusterRole/metrics ServiceAccount:shop/web",
        "GET /metrics",
        "BindingNotClusterWide",
        "paths are for the whole cluster",
    ),
    Seed::new(
        "ClusterRole metrics get /metrics/*
         ClusterRoleBinding crb ClusterRole/metrics ServiceAccount:shop/web",
        "GET /metrics",
        "PathNotCovered",
        "does not cover \"/metrics\"",
    ),
    Seed::new("", "GET /api/v1/namespaces/nowhere/pods", "NamespaceMissing", "no namespace \"nowhere\""),
    Seed::new(
        "RoleBinding prod/rb ClusterRole/view ServiceAccount:shop/web",
        "GET /api/v1/namespaces/prdo/secrets",
        "NamespaceMissing",
        "there is one called \"prod\"",
    )
    .instead("GET /api/v1/namespaces/prod/secrets"),
    Seed::new(
        "",
        "GET /apis/extensions/v1beta1/namespaces/shop/ingresses",
        "ResourceUnknown",
        "it has ingresses of API group networking.k8s.io",
    )
    .instead("GET /apis/networking.k8s.io/v1/namespaces/shop/ingresses"),
    // Subjects.
    Seed::new(
        "Role prod/reader list core pods
         RoleBinding prod/rb Role/reader ServiceAccount:web",
        "GET /api/v1/namespaces/prod/pods",
        "SubjectNamespaceMissing",
        "has no namespace",
    ),
    Seed::new(
        "ClusterRole reader list core pods
         ClusterRoleBinding crb ClusterRole/reader ServiceAccount:default/web",
        LIST,
        "SubjectNamespaceWrong",
        "is the account \"web\" of namespace \"default\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader User:web",
        LIST,
        "SubjectKindWrong",
        "is a User called \"web\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader User:shop:web",
        LIST,
        "SubjectKindWrong",
        "is a User called \"shop:web\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader Group:ann",
        LIST,
        "SubjectKindWrong",
        "is a Group called \"ann\"",
    )
    .by("ann"),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/wbe",
        LIST,
        "SubjectMisspelt",
        "is the account \"wbe\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader User:system:serviceaccounts:shop:web",
        LIST,
        "SubjectMisspelt",
        "is the user \"system:serviceaccounts:shop:web\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader Group:system:serviceaccount:shop",
        LIST,
        "SubjectMisspelt",
        "the user is in \"system:serviceaccounts:shop\"",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader User:Ann@Example.com",
        LIST,
        "SubjectMisspelt",
        "the request is by the user \"ann@example.com\"",
    )
    .by("ann@example.com"),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "AccountMissing",
        "there is no service account \"wbe\" in namespace \"shop\"",
    )
    .by("system:serviceaccount:shop:wbe"),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web-account",
        LIST,
        "SubjectMisspelt",
        "is the account \"web-account\", which does not exist",
    ),
    Seed::new(
        "Role shop/reader list core pods
         RoleBinding shop/rb Role/reader Group:system:serviceaccounts:prod",
        LIST,
        "SubjectNamespaceWrong",
        "is all accounts of namespace \"prod\"",
    ),
    Seed::new(
        "Role shop/pod-reader list core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
        LIST,
        "RoleRefMisspelt",
        "Role \"pod-reader\" in namespace \"shop\" does",
    ),
    // Who may write roles may not hand out what they do not hold.
    Seed::new(
        "Role shop/author create rbac.authorization.k8s.io roles
         RoleBinding shop/rb Role/author ServiceAccount:shop/web",
        r#"POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles {"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}]}"#,
        "Escalation",
        "may not hand out what it does not hold itself",
    )
    .then("201 Role r"),
];

#[test]
fn every_seeded_mistake_is_named_and_repaired() {
    /// Servers at a time.
    const AT_ONCE: usize = 3;
    assert!(SEEDS.len() >= 40);
    std::thread::scope(|scope| {
        for part in SEEDS.chunks(SEEDS.len().div_ceil(AT_ONCE)) {
            scope.spawn(move || part.iter().for_each(is_named_and_repaired));
        }
    });
}

/// Each seed has a server of its own, so that nothing of another is near.
fn is_named_and_repaired(seed: &Seed) {
    let server = cluster(seed.setup);
    let about = format!("{} by {}\n{}", seed.ask, seed.who, seed.setup);
    let refused = server.ask(seed.who, seed.ask);
    assert_eq!(refused.head.status, 403, "{about}: {}", describe(&refused));
    let status = String::from_utf8(refused.body.to_vec()).unwrap();
    let told = describe(&refused);
    let line = told.replacen("403 ", "Error from server (Forbidden): ", 1);
    let shown = explained(&why(&server, &["why", "-o", "json", "-n", "shop"], &status), seed, &about);
    explained(&why(&server, &["why", "-o", "json", "-n", "shop", &line], ""), seed, &about);
    if seed.cause != "Escalation" {
        // The authorizer has no objection to the request line of that one.
        let request = seed.ask.split(" {").next().unwrap();
        explained(&why(&server, &["why", "-o", "json", request, "--as", seed.who], ""), seed, &about);
        let same = server.json("admin", &explain_path(&shown["request"]));
        assert_eq!(same["causes"], shown["causes"], "{about}: the server explains it alike");
    }
    let fix = why(&server, &["why", "--fix", "-n", "shop", &line], "");
    let fix = fix.ok();
    kemudi_with(&server, &["apply", "-f", "-"], &fix).ok();
    let ask = if seed.instead.is_empty() { seed.ask } else { seed.instead };
    let got = describe(&server.ask(seed.who, ask));
    assert!(got.starts_with(seed.then), "{about}: {got} after\n{fix}");
}

/// The explanation, which names the seed's cause.
#[track_caller]
fn explained(why: &Finished, seed: &Seed, about: &str) -> Value {
    let shown: Value = serde_json::from_str(&why.stdout).unwrap_or_else(|_| panic!("{about}: {}", why.stderr));
    let first = &shown["causes"][0];
    let message = first["message"].as_str().unwrap_or_default();
    assert!(first["cause"] == seed.cause && message.contains(seed.says), "{about}: {}", why.stdout);
    assert!(
        shown["unseen"]
            .as_array()
            .is_some_and(|unseen| unseen.iter().all(|u| u.as_str().unwrap().contains("--as-group"))),
        "{about}: {shown:#}"
    );
    shown
}

#[test]
fn who_may_see_nothing_is_told_so_and_given_the_right_roles() {
    let server = cluster(
        "Role shop/reader get core pods
         RoleBinding shop/rb Role/reader ServiceAccount:shop/web",
    );
    let token = token(&server, "web", "shop");
    let own = |args: &[&str]| kemudi_with(&server, &[&["--token", &token], args].concat(), "");
    let text = own(&["why", "list", "pods", "-n", "shop"]).ok();
    for said in [
        "system:serviceaccount:shop:web may not list pods in namespace \"shop\"",
        "cause: VerbMissing",
        "a rule that system:serviceaccount:shop:web holds (its role could not be seen) allows get of pods, not list",
        "ClusterRoles: you may not list them",
        "RoleBindings: you may not list them",
    ] {
        assert!(text.contains(said), "{said} is missing:\n{text}");
    }
    let text = own(&["why", "list", "secrets", "-n", "prod"]).ok();
    assert!(text.contains("cause: NotSeen") && text.contains("Roles: you may not list them"), "{text}");
    let fix = own(&["why", "list", "secrets", "-n", "prod", "--fix"]).ok();
    kemudi_with(&server, &["apply", "-f", "-"], &fix).ok();
    server.check(WEB, "GET /api/v1/namespaces/prod/secrets", "200 SecretList:");
    // Who may read one namespace sees what is there, and is told of the rest.
    apply(&server, "RoleBinding shop/admin ClusterRole/admin ServiceAccount:shop/app");
    let app = self::token(&server, "app", "shop");
    let text = kemudi_with(&server, &["--token", &app, "why", "list", "pods", "-n", "shop", "--as", WEB], "").ok();
    for said in [
        "cause: VerbMissing\n  Role \"reader\" in namespace \"shop\" allows get of pods, not list",
        "Roles of other namespaces than \"shop\": you may not list them",
        "ClusterRoleBindings: you may not list them",
    ] {
        assert!(text.contains(said), "{said} is missing:\n{text}");
    }
    // What the server itself says of a role that is missing is enough.
    apply(&server, "RoleBinding prod/gone Role/gone ServiceAccount:shop/web");
    let text = own(&["why", "list", "pods", "-n", "prod"]).ok();
    assert!(text.contains("cause: RoleMissing") && text.contains("\"gone\""), "{text}");
}

#[test]
fn the_last_refusal_is_remembered_for_who_may_read_roles() {
    let server = cluster("Role shop/reader get core pods\nRoleBinding shop/rb Role/reader ServiceAccount:shop/web");
    server.ask(WEB, "GET /api/v1/namespaces/shop/pods/p/log?follow=true");
    let text = why(&server, &["why", "--last"], "").ok();
    assert!(text.contains("get pods/log \"p\"") && text.contains("cause: SubresourceMissing"), "{text}");
    server.ask("ann", "GET /api/v1/nodes");
    let text = why(&server, &["why", "--last"], "").ok();
    assert!(text.starts_with("ann may not list nodes in the whole cluster\n\ncause: NoBinding"), "{text}");
    let text = why(&server, &["why", "--last", "--as", WEB], "").ok();
    assert!(text.contains("cause: SubresourceMissing"), "{text}");
    server.ask("token:nonsense", "GET /api/v1/nodes");
    let text = why(&server, &["why", "--last"], "").ok();
    assert!(text.starts_with("cause: TokenUnknown") && !text.contains("nonsense"), "{text}");
    let told = server.json("admin", "GET /explain/denials?user=ann");
    assert_eq!(told["items"].as_array().unwrap().len(), 1);
    assert_eq!(told["items"][0]["request"]["user"], "ann");
    // To act as somebody takes two rights; the server knows as whom, so that both are given.
    let actor = token(&server, "web", "shop");
    let as_bob = || {
        let mut asked = testkit::server::request(&format!("token:{actor}"), LIST);
        asked.headers.push(("impersonate-user".to_owned(), "bob".to_owned()));
        describe(&server.endpoint.connect(RUN_LIMIT).expect("it listens").exchange(&asked).expect("an answer"))
    };
    assert!(as_bob().contains("cannot impersonate-on:user-info:list"), "{}", as_bob());
    let text = why(&server, &["why", "--last"], "").ok();
    assert!(text.contains("and: ImpersonationTakesTwo\n"), "{text}");
    let fix = why(&server, &["why", "--last", "--fix"], "").ok();
    kemudi_with(&server, &["apply", "-f", "-"], &fix).ok();
    let bobs =
        r#"403 pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "shop""#;
    assert_eq!(as_bob(), bobs);
    // A question, a quota or a policy is no matter of rights.
    let quota = "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    let text = why(&server, &["why", quota], "").ok();
    assert!(text.contains("cause: NotRights"), "{text}");
    let refused = why(&server, &["why", "--fix", quota], "").exits(1);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("nothing to apply"), "{}", refused.stderr);
}

#[test]
fn answers_stay_exact_and_explanations_are_for_who_may_read_roles() {
    let server = cluster("");
    let body = |who: &str, ask: &str| String::from_utf8(server.ask(who, ask).body.to_vec()).unwrap();
    let exact = concat!(
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods is forbidden: "#,
        r#"User \"system:serviceaccount:shop:web\" cannot list resource \"pods\" in API group \"\" in the namespace \"shop\"","#,
        r#""reason":"Forbidden","details":{"kind":"pods"},"code":403}"#,
    );
    assert_eq!(body(WEB, LIST).trim_end(), exact);
    let path = "GET /explain?verb=list&resource=pods&namespace=shop&user=system:serviceaccount:shop:web";
    let no = |path: &str| format!(r#"403 forbidden: User "ann" cannot get path "{path}""#);
    server.check("ann", path, &no("/explain"));
    server.check("ann", "GET /explain/denials", &no("/explain/denials"));
    server.check("anonymous", path, r#"403 forbidden: User "system:anonymous" cannot get path "/explain""#);
    // The right to the path alone is not enough, and neither are three of the four.
    apply(
        &server,
        "ClusterRole path get /explain
         ClusterRoleBinding path ClusterRole/path User:ann
         ClusterRole three list rbac.authorization.k8s.io roles,rolebindings,clusterroles
         ClusterRoleBinding three ClusterRole/three User:ann",
    );
    server.check("ann", path, &no("/explain"));
    apply(
        &server,
        "ClusterRole fourth list rbac.authorization.k8s.io clusterrolebindings
         ClusterRoleBinding fourth ClusterRole/fourth User:ann",
    );
    let told = server.json("ann", path);
    assert_eq!((&told["causes"][0]["cause"], &told["allowed"]), (&"NoBinding".into(), &false.into()));
    assert_eq!(told["fix"][0]["kind"], "Role");
    let asked = server.json("ann", "GET /explain?verb=get&path=/metrics");
    assert_eq!(asked["request"]["user"], "ann");
    server.check("ann", "GET /explain", "400 name what is asked for: verb and either resource (with group, subresource, namespace, name) or path; and by whom: user, groups");
    server.check("ann", "POST /explain {}", "405 the server does not allow this method on the requested resource");
    server.check("admin", "GET /explained", "404 404 page not found");
    assert_eq!(body(WEB, LIST).trim_end(), exact);
}

#[test]
fn tokens_that_are_refused_are_explained() {
    let server = cluster("ServiceAccount shop/gone");
    let explained = |token: &str, cause: &str, says: &str| {
        assert_eq!(server.ask(&format!("token:{token}"), "GET /api/v1/nodes").head.status, 401, "{cause}");
        let text = why(&server, &["why", "Unauthorized", "--token", token], "").ok();
        assert!(text.contains(&format!("cause: {cause}\n")) && text.contains(says), "{cause}: {text}");
        assert!(!text.contains(token), "{text}");
    };
    let sound = token(&server, "web", "shop");
    let mut parts: Vec<String> = sound.split('.').map(str::to_string).collect();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&parts[1]).unwrap()).unwrap();
    claims["exp"] = 1_700_000_000.into();
    parts[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
    explained(&parts.join("."), "TokenExpired", "kubectl create token web -n shop");
    let revoked = token(&server, "gone", "shop");
    server.check("admin", "DELETE /api/v1/namespaces/shop/serviceaccounts/gone", "200 ServiceAccount gone");
    explained(&revoked, "TokenRevoked", "which is gone");
    let ask = r#"POST /api/v1/namespaces/shop/serviceaccounts/web/token {"spec":{"audiences":["vault"]}}"#;
    let other = server.json("admin", ask)["status"]["token"].as_str().unwrap().to_string();
    explained(&other, "TokenWrongAudience", "vault");
    explained("no-such-token", "TokenUnknown", "the server does not know the token");
    let good = why(&server, &["why", "Unauthorized", "--token", &sound], "").ok();
    assert!(good.contains("cause: CredentialsAccepted") && good.contains(WEB), "{good}");
    // Whoever asks with such a token is told of it, and not of roles.
    let asked = why(&server, &["why", "list", "pods", "--token", &revoked], "").ok();
    assert!(asked.contains("cause: TokenRevoked"), "{asked}");
}

/// A server with the objects of some lines.
fn cluster(lines: &str) -> Server {
    let server = Server::start(&["--node", "none", "--store", "memory://"]);
    apply(&server, &format!("{EVERYWHERE}\n{lines}"));
    server
}

#[track_caller]
fn apply(server: &Server, lines: &str) {
    let objects: Vec<String> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(object).collect();
    kemudi_with(server, &["apply", "-f", "-"], &objects.join("\n---\n")).ok();
}

/// An object of a few words: `Namespace NAME`, `ServiceAccount PLACE`, `Role PLACE [VERBS GROUP RESOURCES [NAMES]]`,
/// `ClusterRole NAME VERBS PATHS`, `RoleBinding PLACE KIND/ROLE [KIND:SUBJECT]`; a place is `NAMESPACE/NAME` or a name. Or YAML.
fn object(line: &str) -> String {
    if line.starts_with('{') {
        return line.to_string();
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let (kind, place) = (words[0], words[1]);
    let metadata = match place.split_once('/') {
        Some((namespace, name)) => format!("{{name: {name}, namespace: {namespace}}}"),
        None => format!("{{name: {place}}}"),
    };
    let list = |text: &str| text.split(',').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(", ");
    let rbac = "rbac.authorization.k8s.io";
    match (kind, &words[2..]) {
        ("Role" | "ClusterRole", rule) => {
            let rules = match *rule {
                [] => String::new(),
                [verbs, paths] => format!("{{verbs: [{}], nonResourceURLs: [{}]}}", list(verbs), list(paths)),
                [verbs, group, resources, ref names @ ..] => {
                    let group = if group == "core" { "" } else { group };
                    let names = names.first().map(|names| format!(", resourceNames: [{}]", list(names)));
                    let (verbs, resources) = (list(verbs), list(resources));
                    let names = names.unwrap_or_default();
                    format!("{{verbs: [{verbs}], apiGroups: ['{group}'], resources: [{resources}]{names}}}")
                }
                _ => panic!("{line}"),
            };
            format!("{{apiVersion: {rbac}/v1, kind: {kind}, metadata: {metadata}, rules: [{rules}]}}")
        }
        ("RoleBinding" | "ClusterRoleBinding", [role, subjects @ ..]) => {
            let (role_kind, role) = role.split_once('/').unwrap();
            let (subject_kind, name) = subjects.first().map_or(("", ""), |subject| subject.split_once(':').unwrap());
            let subject = match (subject_kind, name.split_once('/')) {
                ("ServiceAccount", Some((namespace, name))) => {
                    format!("kind: ServiceAccount, name: '{name}', namespace: {namespace}")
                }
                ("ServiceAccount", None) => format!("kind: ServiceAccount, name: '{name}'"),
                ("", _) => String::new(),
                (kind, _) => format!("kind: {kind}, apiGroup: {rbac}, name: '{name}'"),
            };
            let subject = if subject.is_empty() { subject } else { format!("{{{subject}}}") };
            let role = format!("{{apiGroup: {rbac}, kind: {role_kind}, name: {role}}}");
            format!(
                "{{apiVersion: {rbac}/v1, kind: {kind}, metadata: {metadata}, roleRef: {role}, subjects: [{subject}]}}"
            )
        }
        (kind, []) => format!("{{apiVersion: v1, kind: {kind}, metadata: {metadata}}}"),
        _ => panic!("{line}"),
    }
}

/// The server's own path for the same question.
fn explain_path(request: &Value) -> String {
    let mut query = Vec::new();
    for (field, value) in request.as_object().unwrap() {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        query.extend(values.iter().map(|value| format!("{field}={}", value.as_str().unwrap())));
    }
    format!("GET /explain?{}", query.join("&"))
}

fn token(server: &Server, account: &str, namespace: &str) -> String {
    let ask = format!("POST /api/v1/namespaces/{namespace}/serviceaccounts/{account}/token {{}}");
    server.json("admin", &ask)["status"]["token"].as_str().unwrap().to_string()
}

#[track_caller]
fn why(server: &Server, args: &[&str], stdin: &str) -> Finished {
    kemudi_with(server, args, stdin)
}

#[track_caller]
fn kemudi_with(server: &Server, args: &[&str], stdin: &str) -> Finished {
    run(server.client(kemudi()).args(args), stdin, RUN_LIMIT)
}
