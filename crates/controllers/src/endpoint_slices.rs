//! From the endpoints that a Service is to have to the slices that hold them: what is there is changed as little as
//! possible, and no slice gets too long. Pure; the requests are [`crate::act`]'s.

use api::meta;
use kemudi_client::{Api, Client, Dynamic, Error, LabelSelector, ListOptions};
use serde_json::{Map, Value, json};

use crate::act::Action;
use crate::kinds::ENDPOINT_SLICES;

/// Endpoints in one slice.
pub const ENDPOINTS_MAX: usize = 100;
/// The label with the name of a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label with who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The slices that a Service is to have.
pub struct Wanted {
    pub namespace: String,
    /// The Service.
    pub name: String,
    /// Who keeps them, as their label says.
    pub manager: &'static str,
    pub labels: Map<String, Value>,
    pub annotations: Map<String, Value>,
    /// The owner reference.
    pub owner: Value,
    pub groups: Vec<Group>,
}

/// Endpoints that share ports and a family.
pub struct Group {
    /// `IPv4` or `IPv6`.
    pub address_type: String,
    pub ports: Vec<Value>,
    pub endpoints: Vec<Value>,
}

/// Puts an endpoint to those with which it shares ports and family.
pub fn add(groups: &mut Vec<Group>, address_type: &str, ports: Vec<Value>, endpoint: Value) {
    match groups.iter_mut().find(|group| group.address_type == address_type && group.ports == ports) {
        Some(group) => group.endpoints.push(endpoint),
        None => groups.push(Group { address_type: address_type.to_string(), ports, endpoints: vec![endpoint] }),
    }
}

/// The writes that make of the slices that are there the ones that are wanted; none where they are.
pub fn reconcile(wanted: &Wanted, present: &[&Value]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut used = vec![false; present.len()];
    for group in &wanted.groups {
        let is_ours = |slice: &Value| {
            slice["addressType"] == *group.address_type && meta::items_at(slice, &["ports"]) == group.ports
        };
        let ours: Vec<usize> = (0..present.len()).filter(|at| !used[*at] && is_ours(present[*at])).collect();
        let mut left: Vec<&Value> = group.endpoints.iter().collect();
        // What stays where it is.
        let mut kept: Vec<Vec<Value>> = Vec::new();
        for at in &ours {
            used[*at] = true;
            let stays = meta::items_at(present[*at], &["endpoints"]).iter().filter_map(|old| {
                let at = left.iter().position(|new| is_same(new, old))?;
                Some(left.swap_remove(at).clone())
            });
            kept.push(stays.take(ENDPOINTS_MAX).collect());
        }
        // The others fill the slices that change anyway, then any with room, then new ones.
        let changes = |at: usize, kept: &[Value]| meta::items_at(present[at], &["endpoints"]) != kept;
        let mut order: Vec<usize> = (0..ours.len()).collect();
        order.sort_by_key(|nth| !changes(ours[*nth], &kept[*nth]));
        let mut left = left.into_iter().cloned();
        for nth in order {
            let room = ENDPOINTS_MAX - kept[nth].len();
            kept[nth].extend(left.by_ref().take(room));
        }
        let only_empty = group.endpoints.is_empty();
        for (nth, (at, endpoints)) in ours.iter().zip(kept).enumerate() {
            // One stays to say that there are none.
            match endpoints.is_empty() && !(only_empty && nth == 0) {
                true => actions.push(delete(wanted, present[*at])),
                false => actions.extend(replace(wanted, present[*at], endpoints)),
            }
        }
        loop {
            let endpoints: Vec<Value> = left.by_ref().take(ENDPOINTS_MAX).collect();
            if endpoints.is_empty() && !(only_empty && ours.is_empty()) {
                break;
            }
            let last = endpoints.is_empty();
            actions.push(Action::Create { resource: ENDPOINT_SLICES, object: new(wanted, group, endpoints) });
            if last {
                break;
            }
        }
    }
    let unused = present.iter().zip(used).filter(|(_, used)| !used);
    actions.extend(unused.map(|(slice, _)| delete(wanted, slice)));
    actions
}

/// Whether two states are of one endpoint.
fn is_same(a: &Value, b: &Value) -> bool {
    ["addresses", "targetRef", "hostname", "nodeName"].iter().all(|field| a.get(field) == b.get(field))
}

fn delete(wanted: &Wanted, slice: &Value) -> Action {
    Action::Delete {
        resource: ENDPOINT_SLICES,
        namespace: wanted.namespace.clone(),
        name: meta::name(slice).to_string(),
        uid: meta::uid(slice).to_string(),
    }
}

fn replace(wanted: &Wanted, slice: &Value, endpoints: Vec<Value>) -> Option<Action> {
    let map = |field: &str| slice["metadata"][field].as_object().cloned().unwrap_or_default();
    let as_wanted = meta::items_at(slice, &["endpoints"]) == endpoints
        && map("labels") == wanted.labels
        && map("annotations") == wanted.annotations;
    if as_wanted {
        return None;
    }
    let mut object = slice.clone();
    object["metadata"]["labels"] = wanted.labels.clone().into();
    object["metadata"]["annotations"] = wanted.annotations.clone().into();
    object["endpoints"] = endpoints.into();
    Some(Action::Replace { resource: ENDPOINT_SLICES, object })
}

fn new(wanted: &Wanted, group: &Group, endpoints: Vec<Value>) -> Value {
    let mut metadata = json!({
        "generateName": format!("{}-", wanted.name),
        "namespace": wanted.namespace,
        "labels": wanted.labels,
        "ownerReferences": [wanted.owner],
    });
    if !wanted.annotations.is_empty() {
        metadata["annotations"] = wanted.annotations.clone().into();
    }
    let list = |items: &[Value]| if items.is_empty() { Value::Null } else { items.into() };
    json!({
        "apiVersion": ENDPOINT_SLICES.api_version(),
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": group.address_type,
        "endpoints": list(&endpoints),
        "ports": list(&group.ports),
    })
}

/// The slices of a Service that this manager keeps, as they are now, made into the wanted ones. What a watch has told may be
/// older than the manager's own last write, and a slice more is told to everybody.
pub async fn write(client: &Client, wanted: &Wanted) -> Result<(), Error> {
    let labels = format!("{SERVICE_NAME}={},{MANAGED_BY}={}", wanted.name, wanted.manager);
    let labels = LabelSelector::parse(&labels).unwrap_or_default();
    let options = ListOptions { labels, ..ListOptions::default() };
    let api = Api::<Dynamic>::namespaced_of(client.clone(), &wanted.namespace, &ENDPOINT_SLICES);
    let list = api.list_with(&options).await?;
    let present: Vec<&Value> = list.items.iter().map(|slice| &slice.0).collect();
    for action in reconcile(wanted, &present) {
        Box::pin(crate::act::act(client, action)).await?;
    }
    Ok(())
}
