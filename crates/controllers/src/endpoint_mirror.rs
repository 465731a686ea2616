//! Endpoints that somebody wrote by hand, for a Service without a selector, are told as EndpointSlices too.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Map, Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::endpoint_slices::{self, MANAGED_BY, SERVICE_NAME, Wanted};
use crate::endpoints::{family, has_selector};
use crate::kinds::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use crate::mirror::{Key, Mirror};

/// Addresses of one subset that are mirrored.
const ADDRESSES_MAX: usize = 1000;
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Says `true` on Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints with this annotation are no Service's: leaders were once elected by them.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints object itself.
const NOT_MIRRORED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

pub struct EndpointMirror;

/// The sources.
const ALL_ENDPOINTS: usize = 0;
const ALL_SERVICES: usize = 1;
const ALL_SLICES: usize = 2;

impl Controller for EndpointMirror {
    fn name(&self) -> &'static str {
        "endpoint mirror"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::all(ENDPOINTS),
            Source::all(SERVICES),
            Source::labels(ENDPOINT_SLICES, &format!("{MANAGED_BY}={CONTROLLER}")),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        let name = match source {
            ALL_SLICES => meta::entry(object, "labels", SERVICE_NAME).unwrap_or_default(),
            _ => meta::name(object),
        };
        vec![(meta::namespace(object).to_string(), name.to_string())]
    }

    fn decide(&self, (namespace, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let of_service = |slice: &&Value| meta::entry(slice, "labels", SERVICE_NAME) == Some(name);
        let present: Vec<&Value> = seen[ALL_SLICES].of_namespace(namespace).filter(of_service).collect();
        let mirrored = |endpoints: &&Value| {
            meta::entry(endpoints, "labels", SKIP) != Some("true")
                && meta::entry(endpoints, "annotations", LEADER).is_none()
        };
        let by_hand = seen[ALL_SERVICES].get(namespace, name).is_some_and(|service| !has_selector(service));
        let endpoints = seen[ALL_ENDPOINTS].get(namespace, name).filter(|_| by_hand).filter(mirrored);
        let wanted = wanted(namespace, name, endpoints);
        match endpoint_slices::reconcile(&wanted, &present).is_empty() {
            true => Vec::new(),
            false => vec![Action::EndpointSlices(Box::new(wanted))],
        }
    }
}

/// The slices that say what an Endpoints object says; none where there is none.
fn wanted(namespace: &str, name: &str, endpoints: Option<&Value>) -> Wanted {
    let map = |field: &str| {
        endpoints.and_then(|endpoints| endpoints["metadata"][field].as_object().cloned()).unwrap_or_default()
    };
    let mut labels: Map<String, Value> = map("labels");
    labels.insert(SERVICE_NAME.into(), name.into());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    let mut annotations = map("annotations");
    annotations.retain(|key, _| !NOT_MIRRORED.contains(&key.as_str()));
    let mut groups = Vec::new();
    for subset in endpoints.map(|endpoints| meta::items_at(endpoints, &["subsets"])).unwrap_or_default() {
        let ports = meta::items_at(subset, &["ports"]).iter().map(|port| {
            let mut port = port.clone();
            port["name"] = port["name"].as_str().unwrap_or_default().into();
            port
        });
        let ports: Vec<Value> = ports.collect();
        let sides = [("addresses", true), ("notReadyAddresses", false)];
        let all = sides
            .iter()
            .flat_map(|(field, ready)| meta::items_at(subset, &[field]).iter().map(move |address| (address, *ready)));
        for (address, ready) in all.take(ADDRESSES_MAX) {
            let ip = meta::text_at(address, &["ip"]);
            let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": ready}});
            for field in ["hostname", "nodeName", "targetRef"] {
                if !address[field].is_null() {
                    endpoint[field] = address[field].clone();
                }
            }
            endpoint_slices::add(&mut groups, family(ip), ports.clone(), endpoint);
        }
    }
    Wanted {
        namespace: namespace.to_string(),
        name: name.to_string(),
        manager: CONTROLLER,
        labels,
        annotations,
        owner: json!({
            "apiVersion": "v1", "kind": "Endpoints", "name": name,
            "uid": endpoints.map_or("", meta::uid), "controller": true, "blockOwnerDeletion": true,
        }),
        groups,
    }
}
