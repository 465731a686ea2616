//! Who may do what, three times over: the answer to the request itself, the access reviews about it, and an evaluator
//! that was written apart from the server, knows no index and reads every role and binding anew. All three must agree on
//! generated roles, bindings, users and requests. That a token and its review agree is checked likewise.

use http_body_util::BodyExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use server::Options;
use server::authn::{AUTHENTICATED, MASTERS};

use crate::Asked;

const GROUP: &str = "/apis/rbac.authorization.k8s.io/v1";
/// Sets of roles and bindings, and the requests about each: 10,080 cases.
const WORLDS: u32 = 42;
const REQUESTS: usize = 240;
/// Tokens that are shown and reviewed.
const TOKENS: u32 = 200;
const ROLES_MAX: usize = 6;
const BINDINGS_MAX: usize = 16;

const NAMESPACES: [&str; 2] = ["a", "b"];
const ROLE_NAMES: [&str; 4] = ["r0", "r1", "r2", "missing"];
const VERBS: [&str; 9] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*"];
const RESOURCES: [&str; 9] =
    ["pods", "pods/log", "pods/status", "*/status", "*/scale", "configmaps", "deployments", "nodes", "*"];
const API_GROUPS: [&str; 4] = ["", "apps", "*", "batch"];
const OBJECT_NAMES: [&str; 2] = ["x", "y"];
const PATHS: [&str; 6] = ["/metrics", "/healthz/*", "/healthz", "/openapi/*", "/nothing", "*"];
const ASKED_PATHS: [&str; 6] = ["/metrics", "/healthz", "/healthz/ping", "/openapi/v2", "/nothing", "/nothing/below"];
const USERS: [&str; 3] = ["jane", "system:serviceaccount:a:robot", "system:serviceaccount:b:robot"];
const GROUPS: [&str; 4] = ["developers", "system:serviceaccounts:a", AUTHENTICATED, "system:serviceaccounts"];

/// What a request does, as authorizers see it, and how it is sent.
#[derive(Clone, Debug)]
struct Deed {
    user: &'static str,
    groups: Vec<&'static str>,
    verb: &'static str,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Resource {
        group: &'static str,
        resource: &'static str,
        subresource: &'static str,
        namespace: &'static str,
        name: &'static str,
    },
    Path(&'static str),
}

#[derive(Clone, Debug)]
struct World {
    /// Where it is, `""` for the cluster; its name; its rules.
    roles: Vec<(&'static str, &'static str, Vec<Value>)>,
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug)]
struct Binding {
    namespace: &'static str,
    to_cluster_role: bool,
    role: &'static str,
    subjects: Vec<Value>,
}

fn some(of: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(of, 1..=most)
}

fn rule(in_cluster: bool) -> impl Strategy<Value = Value> {
    let names = prop_oneof![3 => Just(Vec::new()), 1 => some(&OBJECT_NAMES, 2)];
    let of_resources = (some(&VERBS, 4), some(&API_GROUPS, 2), some(&RESOURCES, 3), names).prop_map(
        |(verbs, groups, resources, names)| match names.is_empty() {
            true => json!({"verbs": verbs, "apiGroups": groups, "resources": resources}),
            false => json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}),
        },
    );
    let of_paths = (subsequence(&["get", "post", "*"][..], 1..=2), some(&PATHS, 2))
        .prop_map(|(verbs, paths)| json!({"verbs": verbs, "nonResourceURLs": paths}));
    prop_oneof![4 => of_resources, u32::from(in_cluster) => of_paths]
}

fn subject(in_cluster: bool) -> impl Strategy<Value = Value> {
    let named =
        |kind: &'static str| move |name| json!({"kind": kind, "apiGroup": "rbac.authorization.k8s.io", "name": name});
    // In a namespace an account may leave its own out.
    let homes: &[&str] = if in_cluster { &["a", "b"] } else { &["a", "b", ""] };
    let account = select(homes).prop_map(|namespace| match namespace {
        "" => json!({"kind": "ServiceAccount", "name": "robot"}),
        _ => json!({"kind": "ServiceAccount", "name": "robot", "namespace": namespace}),
    });
    prop_oneof![
        2 => Just("jane").prop_map(named("User")),
        1 => select(&USERS[1..]).prop_map(named("User")),
        1 => select(&GROUPS[..]).prop_map(named("Group")),
        3 => account,
    ]
}

fn role() -> impl Strategy<Value = (&'static str, &'static str, Vec<Value>)> {
    select(&["", "a", "b"][..])
        .prop_flat_map(|namespace| (Just(namespace), select(&ROLE_NAMES[..3]), vec(rule(namespace.is_empty()), 1..3)))
}

fn binding() -> impl Strategy<Value = Binding> {
    select(&["", "a", "b"][..]).prop_flat_map(|namespace| {
        let in_cluster = namespace.is_empty();
        let role = (any::<bool>(), select(&ROLE_NAMES[..]));
        (role, vec(subject(in_cluster), 1..3)).prop_map(move |((to_cluster_role, role), subjects)| Binding {
            namespace,
            to_cluster_role: to_cluster_role || in_cluster,
            role,
            subjects,
        })
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    const ASKED: [(&str, &str, &str); 8] = [
        ("", "pods", ""),
        ("", "pods", "log"),
        ("", "pods", "status"),
        ("", "configmaps", ""),
        ("apps", "deployments", ""),
        ("apps", "deployments", "scale"),
        ("apps", "deployments", "status"),
        ("", "nodes", ""),
    ];
    let resource = (select(&ASKED[..]), select(&["a", "b", ""][..]), select(&OBJECT_NAMES[..]), any::<bool>());
    let of_resource = (resource, select(&VERBS[..8])).prop_map(
        |(((group, resource, subresource), namespace, name, by_name), verb)| {
            // A part is there under its object's name only, and what is of the cluster in no namespace.
            let verb = match (subresource, verb) {
                ("", verb) => verb,
                (_, "update" | "patch") if subresource != "log" => verb,
                _ => "get",
            };
            let namespace = match resource {
                "nodes" => "",
                // An object is in a namespace.
                _ if namespace.is_empty() && !matches!(verb, "list" | "watch") => "a",
                _ => namespace,
            };
            // Lists and watches have a name where they ask for one object; a deletion of many has none.
            let named = match verb {
                "create" | "deletecollection" => false,
                "list" | "watch" => by_name,
                _ => true,
            };
            (verb, What::Resource { group, resource, subresource, namespace, name: if named { name } else { "" } })
        },
    );
    let of_path = select(&ASKED_PATHS[..]).prop_map(|path| ("get", What::Path(path)));
    let who = (select(&USERS[..]), prop_oneof![20 => subsequence(&GROUPS[..], 0..=2), 1 => Just(vec![MASTERS])]);
    (who, prop_oneof![6 => of_resource, 1 => of_path]).prop_map(|((user, groups), (verb, what))| Deed {
        user,
        groups,
        verb,
        what,
    })
}

#[test]
fn request_review_and_evaluator_agree() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = runtime.block_on(Asked::start(Options::default()));
    for namespace in NAMESPACES {
        let made =
            runtime.block_on(asked.ask("POST /api/v1/namespaces", Some(&json!({"metadata": {"name": namespace}}))));
        assert_eq!(made.0, 201, "{}", made.1);
    }
    let config = Config { cases: WORLDS, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let world = (vec(role(), 1..ROLES_MAX), vec(binding(), 1..BINDINGS_MAX))
        .prop_map(|(roles, bindings)| World { roles, bindings });
    let (allowed, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let outcome = runner.run(&(world, vec(deed(), REQUESTS)), |(world, deeds)| {
        let (yes, no) = runtime.block_on(check(&asked, &world, &deeds));
        allowed.set(allowed.get() + yes);
        refused.set(refused.get() + no);
        Ok(())
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
    // Where nearly all were the same there would be little to disagree about.
    assert!(allowed.get() > 1000 && refused.get() > 1000, "{allowed:?} allowed, {refused:?} refused");
}

/// Makes a world, asks, and takes it away. How many requests were allowed, and how many were not.
async fn check(asked: &Asked, world: &World, deeds: &[Deed]) -> (usize, usize) {
    let mut made = Vec::new();
    let mut make = async |path: String, object: Value| {
        let (code, answer) = asked.ask(&format!("POST {path}"), Some(&object)).await;
        // Generated names may come twice.
        assert!(code == 201 || code == 409, "{answer}");
        if code == 201 {
            made.push(format!("{path}/{}", answer["metadata"]["name"].as_str().unwrap_or_default()));
        }
    };
    for (namespace, name, rules) in &world.roles {
        make(collection(namespace, "role"), json!({"metadata": {"name": name}, "rules": rules})).await;
    }
    for (at, binding) in world.bindings.iter().enumerate() {
        let kind = if binding.to_cluster_role { "ClusterRole" } else { "Role" };
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": binding.role});
        let object = json!({"metadata": {"name": format!("b{at}")}, "roleRef": role, "subjects": binding.subjects});
        make(collection(binding.namespace, "rolebinding"), object).await;
    }
    let known = Known::read(asked).await;
    let (mut allowed, mut refused) = (0, 0);
    for deed in deeds {
        let want = known.allow(deed);
        let got = [is_served(asked, deed).await, reviewed(asked, deed).await, reviewed_by_self(asked, deed).await];
        assert_eq!(got, [want; 3], "request, SubjectAccessReview, SelfSubjectAccessReview of {deed:?} in {world:?}");
        match want {
            true => allowed += 1,
            false => refused += 1,
        }
    }
    for path in made {
        let (code, answer) = asked.ask(&format!("DELETE {path}"), None).await;
        assert_eq!(code, 200, "{answer}");
    }
    (allowed, refused)
}

fn collection(namespace: &str, what: &str) -> String {
    match namespace {
        "" => format!("{GROUP}/cluster{what}s"),
        _ => format!("{GROUP}/namespaces/{namespace}/{what}s"),
    }
}

/// Whether a request is let through, whatever comes of it. Bodies are no JSON, so that nothing is ever written.
async fn is_served(asked: &Asked, deed: &Deed) -> bool {
    let ask = match &deed.what {
        What::Path(path) => format!("GET {path}"),
        What::Resource { group, resource, subresource, namespace, name } => {
            let mut path = if group.is_empty() { "/api/v1".to_string() } else { format!("/apis/{group}/v1") };
            if !namespace.is_empty() {
                path += &format!("/namespaces/{namespace}");
            }
            path += &format!("/{resource}");
            let one = match subresource.is_empty() {
                true => format!("{path}/{name}"),
                false => format!("{path}/{name}/{subresource}"),
            };
            let selected =
                if name.is_empty() { String::new() } else { format!("fieldSelector=metadata.name%3D{name}") };
            match deed.verb {
                "list" => format!("GET {path}?{selected}"),
                "watch" => format!("GET {path}?watch=1&{selected}"),
                "create" => format!("POST {path}"),
                "deletecollection" => format!("DELETE {path}?dryRun=All"),
                "get" => format!("GET {one}"),
                "update" => format!("PUT {one}"),
                "patch" => format!("PATCH {one}"),
                _ => format!("DELETE {one}?dryRun=All"),
            }
        }
    };
    let writes = matches!(deed.verb, "create" | "update" | "patch");
    let answer = asked.send(deed.user, &deed.groups, &ask, writes.then(|| json!("no object")).as_ref()).await;
    if answer.status() != 403 {
        return true;
    }
    let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("cannot"), "{ask}: {text}");
    false
}

fn attributes(deed: &Deed) -> (&'static str, Value) {
    match &deed.what {
        What::Path(path) => ("nonResourceAttributes", json!({"verb": deed.verb, "path": path})),
        What::Resource { group, resource, subresource, namespace, name } => (
            "resourceAttributes",
            json!({"verb": deed.verb, "group": group, "resource": resource, "subresource": subresource,
                "namespace": namespace, "name": name}),
        ),
    }
}

async fn reviewed(asked: &Asked, deed: &Deed) -> bool {
    let (field, attributes) = attributes(deed);
    let review = json!({"spec": {"user": deed.user, "groups": deed.groups, field: attributes}});
    let (code, answer) = asked.ask("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", Some(&review)).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"]["allowed"].as_bool().expect("an answer")
}

/// What the user is told of itself; where it may not ask that, what it is told as one who may.
async fn reviewed_by_self(asked: &Asked, deed: &Deed) -> bool {
    let (field, attributes) = attributes(deed);
    let review = json!({"spec": {field: attributes}});
    let ask = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = asked.send(deed.user, &deed.groups, ask, Some(&review)).await;
    if answer.status() == 403 {
        return reviewed(asked, deed).await;
    }
    let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    answer["status"]["allowed"].as_bool().unwrap_or_else(|| panic!("{answer}"))
}

/// All roles and bindings, as the API tells them.
struct Known {
    roles: Vec<Value>,
    cluster_roles: Vec<Value>,
    bindings: Vec<Value>,
    cluster_bindings: Vec<Value>,
}

impl Known {
    async fn read(asked: &Asked) -> Known {
        let list = async |plural: &str| {
            let (code, list) = asked.ask(&format!("GET {GROUP}/{plural}"), None).await;
            assert_eq!(code, 200, "{list}");
            list["items"].as_array().expect("items").clone()
        };
        Known {
            roles: list("roles").await,
            cluster_roles: list("clusterroles").await,
            bindings: list("rolebindings").await,
            cluster_bindings: list("clusterrolebindings").await,
        }
    }

    fn allow(&self, deed: &Deed) -> bool {
        if deed.groups.contains(&MASTERS) {
            return true;
        }
        let in_cluster = self.cluster_bindings.iter();
        let in_namespace = self.bindings.iter().filter(|binding| match deed.what {
            What::Resource { namespace, .. } => !namespace.is_empty() && binding["metadata"]["namespace"] == namespace,
            What::Path(_) => false,
        });
        let mut bound = in_cluster.chain(in_namespace).filter(|binding| is_bound(binding, deed));
        bound.any(|binding| self.rules(binding).iter().any(|rule| covers(rule, deed)))
    }

    /// The rules that a binding gives; none where its role is not there.
    fn rules(&self, binding: &Value) -> &[Value] {
        let name = &binding["roleRef"]["name"];
        let found = match binding["roleRef"]["kind"].as_str() {
            Some("ClusterRole") => self.cluster_roles.iter().find(|role| role["metadata"]["name"] == *name),
            _ => self.roles.iter().find(|role| {
                role["metadata"]["name"] == *name && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
            }),
        };
        found.and_then(|role| role["rules"].as_array()).map_or(&[], Vec::as_slice)
    }
}

fn is_bound(binding: &Value, deed: &Deed) -> bool {
    binding["subjects"].as_array().into_iter().flatten().any(|subject| {
        let name = subject["name"].as_str().expect("a name");
        match subject["kind"].as_str() {
            Some("User") => name == deed.user,
            Some("Group") => deed.groups.contains(&name),
            _ => {
                let own = subject["namespace"].as_str().or(binding["metadata"]["namespace"].as_str());
                own.is_some_and(|own| deed.user == format!("system:serviceaccount:{own}:{name}"))
            }
        }
    })
}

fn covers(rule: &Value, deed: &Deed) -> bool {
    let texts = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let has = |field: &str, wanted: &str| texts(field).any(|text| text == "*" || text == wanted);
    if !has("verbs", deed.verb) {
        return false;
    }
    match deed.what {
        What::Path(path) => texts("nonResourceURLs")
            .any(|url| url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start))),
        What::Resource { group, resource, subresource, name, .. } => {
            let whole = if subresource.is_empty() { resource.to_string() } else { format!("{resource}/{subresource}") };
            let of_any = !subresource.is_empty() && has("resources", &format!("*/{subresource}"));
            let of_all = texts("resourceNames").next().is_none();
            has("apiGroups", group)
                && (of_any || has("resources", &whole))
                && (of_all || texts("resourceNames").any(|one| one == name))
        }
    }
}

/// What may become of a token's account and pod before it is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Stays,
    AccountGoes,
    AccountIsAnother,
    PodGoes,
    PodIsAnother,
}

#[derive(Clone, Debug)]
struct Shown {
    bound: bool,
    audience: &'static str,
    fate: Fate,
    /// Which of its characters is another; none where it is whole.
    tampered: Option<prop::sample::Index>,
}

fn shown() -> impl Strategy<Value = Shown> {
    let fate = select(
        &[Fate::Stays, Fate::Stays, Fate::AccountGoes, Fate::AccountIsAnother, Fate::PodGoes, Fate::PodIsAnother][..],
    );
    let tampered = prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (any::<bool>(), select(&["", "", "vault"][..]), fate, tampered)
        .prop_map(|(bound, audience, fate, tampered)| Shown { bound, audience, fate, tampered })
}

#[test]
fn token_and_review_agree() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = runtime.block_on(Asked::start(Options::default()));
    let config = Config { cases: TOKENS, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let case = std::cell::Cell::new(0);
    let outcome = runner.run(&shown(), |shown| {
        case.set(case.get() + 1);
        runtime.block_on(check_token(&asked, &format!("t{}", case.get()), &shown));
        Ok(())
    });
    outcome.unwrap_or_else(|why| panic!("{why}"));
}

async fn check_token(asked: &Asked, namespace: &str, shown: &Shown) {
    let make = async |path: String, object: Value| {
        let (code, answer) = asked.ask(&format!("POST {path}"), Some(&object)).await;
        assert_eq!(code, 201, "{answer}");
        answer
    };
    let home = format!("/api/v1/namespaces/{namespace}");
    let account = || make(format!("{home}/serviceaccounts"), json!({"metadata": {"name": "robot"}}));
    let pod = || {
        let spec = json!({"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]});
        make(format!("{home}/pods"), json!({"metadata": {"name": "p"}, "spec": spec}))
    };
    let remove = async |what: &str| {
        let (code, answer) = asked.ask(&format!("DELETE {home}/{what}?gracePeriodSeconds=0"), None).await;
        assert_eq!(code, 200, "{answer}");
    };
    make("/api/v1/namespaces".into(), json!({"metadata": {"name": namespace}})).await;
    account().await;
    let there = pod().await;
    let mut spec = json!({});
    if shown.bound {
        let metadata = &there["metadata"];
        spec["boundObjectRef"] =
            json!({"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]});
    }
    if !shown.audience.is_empty() {
        spec["audiences"] = json!([shown.audience]);
    }
    let issued = make(format!("{home}/serviceaccounts/robot/token"), json!({ "spec": spec })).await;
    let mut token = issued["status"]["token"].as_str().expect("a token").to_string();
    if let Some(at) = &shown.tampered {
        // The last character holds bits that mean nothing.
        let at = at.index(token.len() - 1);
        let other = if &token[at..=at] == "A" { "B" } else { "A" };
        token.replace_range(at..=at, other);
    }
    match shown.fate {
        Fate::Stays => {}
        Fate::AccountGoes | Fate::AccountIsAnother => remove("serviceaccounts/robot").await,
        Fate::PodGoes | Fate::PodIsAnother => remove("pods/p").await,
    }
    match shown.fate {
        Fate::AccountIsAnother => drop(account().await),
        Fate::PodIsAnother => drop(pod().await),
        _ => {}
    }
    let good = shown.tampered.is_none()
        && match shown.fate {
            Fate::Stays => true,
            Fate::AccountGoes | Fate::AccountIsAnother => false,
            Fate::PodGoes | Fate::PodIsAnother => !shown.bound,
        };
    for audience in ["", "vault"] {
        let wanted = if audience.is_empty() { json!([]) } else { json!([audience]) };
        let review = json!({"spec": {"token": token, "audiences": wanted}});
        let answer = make("/apis/authentication.k8s.io/v1/tokenreviews".into(), review).await;
        let got = answer["status"]["authenticated"] == json!(true);
        assert_eq!(got, good && shown.audience == audience, "for {audience:?}: {shown:?}: {answer}");
        if audience.is_empty() {
            let (code, me) = asked.as_bearer(&token, "POST /apis/authentication.k8s.io/v1/selfsubjectreviews").await;
            assert_eq!(code, if got { 201 } else { 401 }, "{shown:?}: {me}");
            if got {
                assert_eq!(me["status"]["userInfo"], answer["status"]["user"], "{shown:?}");
            }
        }
    }
}
