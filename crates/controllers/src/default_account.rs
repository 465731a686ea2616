//! Every active namespace has a ServiceAccount `default`.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::{Value, json};

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::kinds::{NAMESPACES, SERVICE_ACCOUNTS};
use crate::mirror::{Key, Mirror};

const NAME: &str = "default";

pub struct DefaultAccount;

impl Controller for DefaultAccount {
    fn name(&self) -> &'static str {
        "default service account"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(NAMESPACES), Source::fields(SERVICE_ACCOUNTS, "metadata.name=default")]
    }

    fn keys(&self, source: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        let of = if source == 0 { meta::name(object) } else { meta::namespace(object) };
        vec![(String::new(), of.to_string())]
    }

    fn decide(&self, (_, namespace): &Key, seen: &[Mirror]) -> Vec<Action> {
        if !is_active(seen[0].get("", namespace)) || seen[1].get(namespace, NAME).is_some() {
            return Vec::new();
        }
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": namespace},
        });
        vec![Action::Create { resource: SERVICE_ACCOUNTS, object }]
    }
}

/// A namespace that is there and stays.
pub fn is_active(namespace: Option<&Value>) -> bool {
    namespace.is_some_and(|namespace| {
        !meta::is_deleting(namespace) && meta::text_at(namespace, &["status", "phase"]) != "Terminating"
    })
}
