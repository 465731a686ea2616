//! Ranges of cluster addresses: each says that it is ready, and stays as long as an address is out of it and no other range.

use std::net::IpAddr;

use api::meta;
use jiff::Timestamp;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::event;
use crate::kinds::{IP_ADDRESSES, SERVICE_CIDRS};
use crate::lean::Lent;
use crate::mirror::{Key, Mirror};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

pub struct ServiceCidrs;

/// The sources.
const ALL_RANGES: usize = 0;
const ALL_ADDRESSES: usize = 1;

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service cidrs"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::all(SERVICE_CIDRS),
            Source::all(IP_ADDRESSES)
                .lean(|address| Some(Lent::object([("metadata", Lent::metadata(address, &["name"]))]))),
        ]
    }

    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let key = |range: &Value| (String::new(), meta::name(range).to_string());
        // A range that goes may make another the last of its addresses, and an address what a range waited for.
        let going = seen[ALL_RANGES].iter().filter(|range| meta::is_deleting(range)).map(key);
        match source {
            ALL_RANGES => going.chain([key(object)]).collect(),
            _ => going.collect(),
        }
    }

    fn decide_at(&self, (_, name): &Key, seen: &[Mirror], now: Timestamp) -> Vec<Action> {
        let Some(range) = seen[ALL_RANGES].get("", name) else { return Vec::new() };
        let held = meta::finalizers(range).any(|finalizer| finalizer == FINALIZER);
        let mut new = range.clone();
        if meta::is_deleting(range) {
            if is_needed(range, seen) {
                const WHY: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
                return ready(range, "False", "Terminating", WHY, now).into_iter().collect();
            }
            let others: Vec<&str> = meta::finalizers(range).filter(|finalizer| *finalizer != FINALIZER).collect();
            new["metadata"]["finalizers"] = json!(others);
            return held.then_some(Action::Replace { resource: SERVICE_CIDRS, object: new }).into_iter().collect();
        }
        if !held {
            let all: Vec<&str> = meta::finalizers(range).chain([FINALIZER]).collect();
            new["metadata"]["finalizers"] = json!(all);
            return vec![Action::Replace { resource: SERVICE_CIDRS, object: new }];
        }
        ready(range, "True", "", "Kubernetes Service CIDR is ready", now).into_iter().collect()
    }
}

/// An address is in this range, and in no other that stays.
fn is_needed(range: &Value, seen: &[Mirror]) -> bool {
    let stays = |other: &&Value| meta::name(other) != meta::name(range) && !meta::is_deleting(other);
    let only_here = |address: &Value| {
        let address = meta::name(address).parse::<IpAddr>().ok();
        address.is_some_and(|address| {
            contains(range, address) && !seen[ALL_RANGES].iter().filter(stays).any(|other| contains(other, address))
        })
    };
    seen[ALL_ADDRESSES].iter().any(only_here)
}

fn contains(range: &Value, address: IpAddr) -> bool {
    meta::items_at(range, &["spec", "cidrs"]).iter().filter_map(Value::as_str).any(|cidr| {
        let (first, bits) = cidr.split_once('/').unwrap_or((cidr, ""));
        let Ok(bits) = bits.parse::<u32>() else { return false };
        match (first.parse(), address) {
            (Ok(IpAddr::V4(first)), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0);
                u32::from(first) & mask == u32::from(address) & mask
            }
            (Ok(IpAddr::V6(first)), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0);
                u128::from(first) & mask == u128::from(address) & mask
            }
            _ => false,
        }
    })
}

fn ready(range: &Value, status: &str, reason: &str, message: &str, now: Timestamp) -> Option<Action> {
    let conditions = meta::items_at(range, &["status", "conditions"]);
    let old = conditions.iter().find(|condition| condition["type"] == "Ready");
    if old.is_some_and(|old| old["status"] == status && old["message"] == message) {
        return None;
    }
    let mut new = range.clone();
    let others = conditions.iter().filter(|condition| condition["type"] != "Ready").cloned();
    let ready = json!({
        "type": "Ready", "status": status, "lastTransitionTime": event::time(now), "reason": reason, "message": message,
    });
    new["status"]["conditions"] = others.chain([ready]).collect();
    Some(Action::ReplaceStatus { resource: SERVICE_CIDRS, object: new })
}
