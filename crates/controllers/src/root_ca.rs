//! Every active namespace has a ConfigMap with the authority that signed the server's certificate. It is made when missing
//! and put right when changed; other people's labels and annotations on it stay.

use std::collections::BTreeMap;

use kemudi_client::kinds::{ConfigMap, Namespace};
use kemudi_client::{Api, Client, Dynamic, Result, Typed};
use serde_json::{Value, json};

use crate::run::{Informers, Key, Next, Queue, Runner};
use crate::service_account::{is_active, make};

pub(crate) const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const ABOUT: &str = "kubernetes.io/description";
const ABOUT_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
    such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
    Kubernetes clusters.";

pub(crate) fn start(runner: &mut Runner, informers: &mut Informers) {
    let queue = Queue::<String>::new();
    let (namespaces, maps) = (informers.namespaces.cache.clone(), informers.root_cas.cache.clone());
    let feed = queue.clone();
    informers.namespaces.hear(move |change| {
        if let Some(namespace) = change.new {
            feed.add(namespace.metadata.name.clone());
        }
    });
    let feed = queue.clone();
    informers.root_cas.hear(move |change| {
        if let Some(map) = change.last() {
            feed.add(map.metadata.namespace.clone());
        }
    });
    let (client, options) = (runner.client.clone(), runner.options.clone());
    let caches = vec![namespaces.synced(), maps.synced()];
    runner.work(&queue, caches, move |name| {
        let namespace = namespaces.get(&Key::new("", &*name));
        let map = maps.get(&Key::new(&*name, NAME));
        let action = decide(namespace.as_deref(), map.as_deref(), &options.root_ca);
        let client = client.clone();
        async move {
            act(&client, &name, action).await?;
            Ok(Next::Done)
        }
    });
}

#[derive(Debug, PartialEq)]
enum Action {
    Nothing,
    Create(Value),
    /// A merge of this into what is there.
    Repair(Value),
}

fn decide(namespace: Option<&Namespace>, map: Option<&ConfigMap>, root_ca: &str) -> Action {
    if !namespace.is_some_and(is_active) {
        return Action::Nothing;
    }
    let Some(map) = map else {
        let metadata = json!({"name": NAME, "annotations": {ABOUT: ABOUT_TEXT}});
        return Action::Create(json!({"metadata": metadata, "data": {FILE: root_ca}}));
    };
    let wanted = BTreeMap::from([(FILE.to_string(), root_ca.to_string())]);
    let about = map.metadata.annotations.get(ABOUT).is_some_and(|text| !text.is_empty());
    if map.data == wanted && about {
        return Action::Nothing;
    }
    let mut data: serde_json::Map<String, Value> = map.data.keys().map(|key| (key.clone(), Value::Null)).collect();
    data.insert(FILE.to_string(), root_ca.into());
    Action::Repair(json!({"metadata": {"annotations": {ABOUT: ABOUT_TEXT}}, "data": data}))
}

async fn act(client: &Client, namespace: &str, action: Action) -> Result<()> {
    match action {
        Action::Nothing => Ok(()),
        Action::Create(map) => make(client, namespace, &ConfigMap::api_resource(), map).await,
        Action::Repair(merge) => {
            let maps = Api::<Dynamic>::namespaced_of(client.clone(), namespace, &ConfigMap::api_resource());
            match maps.patch(NAME, &kemudi_client::Patch::Merge(&merge)).await {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => outcome.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(map: Value, want: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        let map: Option<ConfigMap> = serde_json::from_value(map).unwrap();
        let got = format!("{:?}", decide(Some(&namespace), map.as_ref(), "CA")).replace(ABOUT_TEXT, "TEXT");
        assert_eq!(got.replace('"', ""), want);
    }

    #[test]
    fn the_map_is_made_and_put_right() {
        let about = json!({ABOUT: "x"});
        check(json!({"metadata": {"annotations": about}, "data": {"ca.crt": "CA"}}), "Nothing");
        let create = "Create(Object {metadata: Object {name: String(kube-root-ca.crt), annotations: Object \
            {kubernetes.io/description: String(TEXT)}}, data: Object {ca.crt: String(CA)}})";
        check(Value::Null, create);
        let repair = |data: &str| {
            let metadata = "metadata: Object {annotations: Object {kubernetes.io/description: String(TEXT)}}";
            format!("Repair(Object {{{metadata}, data: Object {{{data}}}}})")
        };
        check(
            json!({"metadata": {"annotations": about}, "data": {"ca.crt": "no", "more": "x"}}),
            &repair("ca.crt: String(CA), more: Null"),
        );
        check(json!({"metadata": {}, "data": {"ca.crt": "CA"}}), &repair("ca.crt: String(CA)"));
    }
}
