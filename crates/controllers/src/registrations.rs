//! Every version that a definition serves has an APIService, which says that this server answers for it. Those that were
//! made so are marked, and only they are changed and deleted here.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::definitions::without_schemas;
use crate::kinds::{API_SERVICES, DEFINITIONS};
use crate::mirror::{Key, Mirror};

/// The label of what is kept in step; the value of those that come and go with what they stand for.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ALWAYS: &str = "true";

/// Custom groups stand behind the built-in ones, their versions in the order of their names.
const GROUP_PRIORITY: u32 = 1000;
const VERSION_PRIORITY: u32 = 100;

pub struct Registrations;

impl Controller for Registrations {
    fn name(&self) -> &'static str {
        "API services of definitions"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(DEFINITIONS).lean(without_schemas), Source::all(API_SERVICES)]
    }

    /// The names of the API services of a group: of the versions it has, and of those it had.
    fn keys(&self, source: usize, object: &Dynamic, seen: &[Mirror]) -> Vec<Key> {
        let key = |name: &str| (String::new(), name.to_owned());
        if source == 1 {
            return vec![key(meta::name(object))];
        }
        let group = object["spec"]["group"].as_str().unwrap_or_default();
        let versions = meta::items_at(object, &["spec", "versions"]).iter();
        let versions = versions.filter_map(|version| Some(key(&format!("{}.{group}", version["name"].as_str()?))));
        let there = seen[1].iter().filter(|service| service["spec"]["group"] == group);
        versions.chain(there.map(|service| key(meta::name(service)))).collect()
    }

    fn decide(&self, (_, name): &Key, seen: &[Mirror]) -> Vec<Action> {
        let Some((version, group)) = name.split_once('.') else { return Vec::new() };
        let serves = |definition: &Value| {
            let versions = meta::items_at(definition, &["spec", "versions"]);
            definition["spec"]["group"] == group
                && versions.iter().any(|one| one["name"] == version && one["served"] == true)
        };
        let spec = json!({
            "group": group, "version": version,
            "groupPriorityMinimum": GROUP_PRIORITY, "versionPriority": VERSION_PRIORITY,
        });
        let wanted = seen[0].iter().any(serves);
        match seen[1].get("", name) {
            None if wanted => {
                let object = json!({
                    "apiVersion": API_SERVICES.api_version(), "kind": "APIService",
                    "metadata": {"name": name, "labels": {MANAGED: ALWAYS}}, "spec": spec,
                });
                vec![Action::Create { resource: API_SERVICES, object }]
            }
            None => Vec::new(),
            Some(service) if meta::entry(service, "labels", MANAGED) != Some(ALWAYS) => Vec::new(),
            Some(service) if !wanted => {
                let (name, uid) = (name.clone(), meta::uid(service).to_owned());
                vec![Action::Delete { resource: API_SERVICES, namespace: String::new(), name, uid }]
            }
            Some(service) if service["spec"] != spec => {
                let mut object = service.clone();
                object["spec"] = spec;
                vec![Action::Replace { resource: API_SERVICES, object }]
            }
            Some(_) => Vec::new(),
        }
    }
}
