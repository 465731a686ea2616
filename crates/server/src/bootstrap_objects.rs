//! What every cluster holds from its first second: namespaces, the `kubernetes` Service, roles and bindings, priority
//! classes. Made as the API server itself, through the same code as any write. What is there already is kept, except
//! addresses that changed and bootstrap roles that lack something.

use std::borrow::Cow;
use std::sync::Arc;

use api::{Ask, Query, Reason, Status, Target, Verb, WriteOptions, meta};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use kinds::Kind;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::accept::Accept;
use crate::authn::{AUTHENTICATED, MASTERS, User};
use crate::authz::{Hearing, bootstrap, rbac};
use crate::lookup::Lookup;
use crate::serve::Cx;
use crate::state::State;
use crate::verbs::{At, write};

/// Who makes these objects.
const API_SERVER: &str = "system:apiserver";
pub const USER_AGENT: &str = "kube-apiserver/v1.37.2";

/// The server itself, as it writes objects.
pub fn api_server() -> Arc<User> {
    Arc::new(User::new(API_SERVER, [MASTERS, AUTHENTICATED]))
}

/// Puts in place what is missing. Quick where nothing is.
pub async fn ensure(state: &Arc<State>) -> Result<(), Status> {
    let data: Map<String, Value> =
        serde_json::from_str(include_str!("bootstrap_objects.json")).map_err(Status::internal)?;
    let mut rest = Vec::new();
    for (resource, objects) in data {
        let (group, plural) = resource.split_once('/').unwrap_or(("", &resource));
        let Value::Array(objects) = objects else { continue };
        let of = |object| Wanted { group: group.to_owned().into(), plural: plural.to_owned().into(), object };
        let wanted: Vec<Wanted> = objects.into_iter().map(of).collect();
        match plural {
            // Everything else may live in one of them.
            "namespaces" => ensure_all(state, wanted).await?,
            _ => rest.extend(wanted),
        }
    }
    for made in bootstrap::objects() {
        rest.push(Wanted { group: rbac::GROUP.into(), plural: made.resource.into(), object: made.object });
    }
    rest.extend(own_service(state)?);
    rest.extend(own_versions(state));
    ensure_all(state, rest).await
}

/// Lets a user have what an API server needs of nodes, and nothing else. Upstream whoever sets a cluster up makes such a binding, so
/// that a server without nodes elsewhere has none.
pub async fn ensure_rights_on_nodes(state: &Arc<State>, user: &str) -> Result<(), Status> {
    const NAME: &str = "kemudi:kubelet-api-admin";
    let role = json!({"apiGroup": rbac::GROUP, "kind": "ClusterRole", "name": "system:kubelet-api-admin"});
    let subject = json!({"apiGroup": rbac::GROUP, "kind": "User", "name": user});
    let object = json!({"metadata": {"name": NAME}, "roleRef": role, "subjects": [subject]});
    ensure_one(state, Wanted { group: rbac::GROUP.into(), plural: "clusterrolebindings".into(), object }).await
}

struct Wanted {
    group: Cow<'static, str>,
    plural: Cow<'static, str>,
    object: Value,
}

/// Tasks among which the objects are shared out. Most of their work is a processor's, and a server that starts has little else to do.
const TASKS: usize = 2;

/// All at once: the store writes them as one group.
async fn ensure_all(state: &Arc<State>, mut wanted: Vec<Wanted>) -> Result<(), Status> {
    let share = wanted.len().div_ceil(TASKS).max(1);
    let mut tasks = JoinSet::new();
    while !wanted.is_empty() {
        let (state, part) = (state.clone(), wanted.split_off(wanted.len().saturating_sub(share)));
        tasks.spawn(async move {
            let mut running: FuturesUnordered<_> = part.into_iter().map(|wanted| ensure_one(&state, wanted)).collect();
            while let Some(done) = running.next().await {
                done?;
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(Status::internal)??;
    }
    Ok(())
}

async fn ensure_one(state: &Arc<State>, wanted: Wanted) -> Result<(), Status> {
    let Some(kind) = state.registry.load().preferred(&wanted.group, &wanted.plural).cloned() else { return Ok(()) };
    let Wanted { object, .. } = wanted;
    let present = state.get(&kind.group, &kind.plural, meta::namespace(&object), meta::name(&object));
    match present {
        None => match create(state, &kind, object).await {
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            done => done,
        },
        Some(present) => match reconciled(&kind, &present, &object) {
            Some(new) => replace(state, &kind, new).await,
            None => Ok(()),
        },
    }
}

/// What a present object must become; none where it may stay as it is.
fn reconciled(kind: &Kind, present: &Value, wanted: &Value) -> Option<Value> {
    let mut new = present.clone();
    match (&*kind.group, &*kind.plural) {
        ("", "endpoints") => new["subsets"] = wanted["subsets"].clone(),
        ("discovery.k8s.io", "endpointslices") => {
            new["endpoints"] = wanted["endpoints"].clone();
            new["ports"] = wanted["ports"].clone();
        }
        (rbac::GROUP, _) if meta::entry(present, "annotations", bootstrap::AUTOUPDATE) == Some("true") => {
            for field in ["rules", "subjects"] {
                let missing: Vec<Value> = meta::items_at(wanted, &[field])
                    .iter()
                    .filter(|item| !meta::items_at(present, &[field]).contains(item))
                    .cloned()
                    .collect();
                // An aggregated role's rules are its controller's to keep.
                if !missing.is_empty() && present["aggregationRule"].is_null() {
                    let mut all = meta::items_at(present, &[field]).to_vec();
                    all.extend(missing);
                    new[field] = json!(all);
                }
            }
        }
        _ => {}
    }
    (new != *present).then_some(new)
}

/// An APIService for each group and version that this server has itself.
fn own_versions(state: &State) -> Vec<Wanted> {
    let registry = state.registry.load();
    let served = registry
        .groups()
        .iter()
        .filter(|group| !group.custom)
        .flat_map(|group| group.versions.iter().map(|version| (group.name.clone(), version.version.clone())));
    // The group of these objects is not one that is served by way of them.
    let served = served.filter(|(group, _)| &**group != API_SERVICES);
    let object = |(group, version): (Arc<str>, Arc<str>)| {
        let (group_priority, version_priority) = priority(&group, &version);
        let mut spec = json!({
            "group": &*group, "version": &*version,
            "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        });
        if group.is_empty() {
            spec.as_object_mut().map(|spec| spec.shift_remove("group"));
        }
        let labels = json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"});
        json!({"metadata": {"name": format!("{version}.{group}"), "labels": labels}, "spec": spec})
    };
    served.map(|one| Wanted { group: API_SERVICES.into(), plural: "apiservices".into(), object: object(one) }).collect()
}

const API_SERVICES: &str = "apiregistration.k8s.io";

/// `groupPriorityMinimum` of the groups, as upstream has them written down: the order of discovery.
const GROUP_PRIORITIES: [(&str, u32); 21] = [
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("storagemigration.k8s.io", 15800),
];

/// `versionPriority` where it is not that of most versions.
const VERSION_PRIORITIES: [(&str, &str, u32); 4] = [
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1", 20),
];
const VERSION_PRIORITY: u32 = 15;
/// Of a group that is in no list.
const GROUP_PRIORITY: u32 = 15000;

fn priority(group: &str, version: &str) -> (u32, u32) {
    let of_group = GROUP_PRIORITIES.iter().find(|(name, _)| *name == group).map_or(GROUP_PRIORITY, |(_, p)| *p);
    let of_version = VERSION_PRIORITIES.iter().find(|(g, v, _)| (*g, *v) == (group, version));
    (of_group, of_version.map_or(VERSION_PRIORITY, |(_, _, p)| *p))
}

/// `kubernetes` in namespace `default`: the Service that every pod knows, and where it leads.
fn own_service(state: &State) -> Result<Vec<Wanted>, Status> {
    let options = &state.options;
    let service_address = options.pki.service_address.to_string();
    let (address, port) = (options.advertise.ip().to_string(), options.advertise.port());
    let metadata = |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let address_type = if options.advertise.is_ipv4() { "IPv4" } else { "IPv6" };
    let family = if options.pki.service_address.is_ipv4() { "IPv4" } else { "IPv6" };
    Ok(vec![
        Wanted {
            group: "".into(),
            plural: "services".into(),
            object: json!({
                "metadata": metadata(json!({"component": "apiserver", "provider": "kubernetes"})),
                "spec": {
                    "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
                    "clusterIP": service_address,
                    "clusterIPs": [service_address],
                    "type": "ClusterIP",
                    "sessionAffinity": "None",
                    "ipFamilies": [family],
                    "ipFamilyPolicy": "SingleStack",
                    "internalTrafficPolicy": "Cluster",
                },
            }),
        },
        Wanted {
            group: "".into(),
            plural: "endpoints".into(),
            object: json!({
                "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
                "subsets": [{
                    "addresses": [{"ip": address}],
                    "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                }],
            }),
        },
        Wanted {
            group: "discovery.k8s.io".into(),
            plural: "endpointslices".into(),
            object: json!({
                "metadata": metadata(json!({"kubernetes.io/service-name": "kubernetes"})),
                "addressType": address_type,
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
                "ports": [{"name": "https", "protocol": "TCP", "port": port}],
            }),
        },
        Wanted {
            group: "networking.k8s.io".into(),
            plural: "servicecidrs".into(),
            object: json!({
                "metadata": {
                    "name": "kubernetes",
                    "finalizers": ["networking.k8s.io/service-cidr-finalizer"],
                },
                "spec": {"cidrs": [options.service_range]},
            }),
        },
    ])
}

async fn create(state: &Arc<State>, kind: &Arc<Kind>, object: Value) -> Result<(), Status> {
    let context = Context::new(kind, &object, Verb::Create);
    let cx = context.cx(state);
    let at = At { kind, target: context.target() };
    let object = context.decoded(state, kind, object)?;
    write::create_object(&cx, &at, object, &WriteOptions::default(), &mut Vec::new()).await.map(|_| ())
}

async fn replace(state: &Arc<State>, kind: &Arc<Kind>, object: Value) -> Result<(), Status> {
    let context = Context::new(kind, &object, Verb::Update);
    let cx = context.cx(state);
    let at = At { kind, target: context.target() };
    let object = context.decoded(state, kind, object)?;
    let change = |_: &Value| Ok(object.clone());
    let options = WriteOptions::default();
    write::change_object(&cx, &at, write::Part::Object, &options, &mut Vec::new(), false, change).await.map(|_| ())
}

/// The request that a write of this module would have come with.
struct Context {
    user: Arc<User>,
    ask: Ask,
    headers: HeaderMap,
    now: Timestamp,
    hearing: Hearing,
}

impl Context {
    fn new(kind: &Kind, object: &Value, verb: Verb) -> Context {
        let target = Target {
            group: kind.group.to_string(),
            version: kind.version.to_string(),
            resource: kind.plural.to_string(),
            namespace: meta::namespace(object).to_string(),
            name: if verb == Verb::Create { String::new() } else { meta::name(object).to_string() },
            ..Target::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        Context {
            user: api_server(),
            ask: Ask::of(verb, target, Query::default()),
            headers,
            now: Timestamp::now(),
            hearing: Hearing::default(),
        }
    }

    fn cx<'a>(&'a self, state: &'a Arc<State>) -> Cx<'a> {
        Cx {
            state,
            user: &self.user,
            ask: &self.ask,
            headers: &self.headers,
            upgrade: None,
            accept: Accept::default(),
            now: self.now,
            audit: &crate::audit::OFF,
            hearing: &self.hearing,
        }
    }

    fn target(&self) -> &Target {
        static NOWHERE: std::sync::LazyLock<Target> = std::sync::LazyLock::new(Target::default);
        self.ask.target.as_ref().unwrap_or(&NOWHERE)
    }

    fn decoded(&self, state: &State, kind: &Kind, object: Value) -> Result<Value, Status> {
        let registry = state.registry.load();
        let wanted = crate::verbs::body::Wanted::object_of(&registry, kind);
        crate::verbs::body::patched(wanted, object).map(|(object, _)| object).map_err(Status::internal)
    }
}
