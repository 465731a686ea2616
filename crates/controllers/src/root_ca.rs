//! Every active namespace has a ConfigMap `kube-root-ca.crt` with the certificates that clients trust, and nothing else in it.

use api::meta;
use kemudi_client::Dynamic;
use serde_json::json;
use tokio::sync::watch;

use crate::act::Action;
use crate::control::{Controller, Source};
use crate::default_account::is_active;
use crate::kinds::{CONFIG_MAPS, NAMESPACES};
use crate::mirror::{Key, Mirror};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as \
                    the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
                    Kubernetes clusters.";

pub struct RootCa {
    ca_pem: watch::Receiver<String>,
}

impl RootCa {
    pub fn new(ca_pem: watch::Receiver<String>) -> RootCa {
        RootCa { ca_pem }
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root CA"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::all(NAMESPACES), Source::fields(CONFIG_MAPS, "metadata.name=kube-root-ca.crt")]
    }

    fn stirred_by(&self) -> Option<watch::Receiver<String>> {
        Some(self.ca_pem.clone())
    }

    fn keys(&self, source: usize, object: &Dynamic, _: &[Mirror]) -> Vec<Key> {
        let of = if source == 0 { meta::name(object) } else { meta::namespace(object) };
        vec![(String::new(), of.to_string())]
    }

    fn decide(&self, (_, namespace): &Key, seen: &[Mirror]) -> Vec<Action> {
        if !is_active(seen[0].get("", namespace)) {
            return Vec::new();
        }
        let data = json!({"ca.crt": *self.ca_pem.borrow()});
        let Some(there) = seen[1].get(namespace, NAME) else {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": namespace, "annotations": {DESCRIPTION: TEXT}},
                "data": data,
            });
            return vec![Action::Create { resource: CONFIG_MAPS, object }];
        };
        let described = meta::entry(there, "annotations", DESCRIPTION).is_some_and(|text| !text.is_empty());
        if there["data"] == data && described {
            return Vec::new();
        }
        let mut object = there.clone();
        object["data"] = data;
        object["metadata"]["annotations"][DESCRIPTION] = TEXT.into();
        vec![Action::Replace { resource: CONFIG_MAPS, object }]
    }
}
