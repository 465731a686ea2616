//! ServiceAccount: every pod runs as an account of its namespace, and finds the account's token, the cluster's authority
//! and its own namespace in a volume.

use api::{Status, go, meta};
use rand::RngExt;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;

/// Where clients look for them.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

/// What generated names are made of: no vowels and nothing that looks like another letter.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_LENGTH: usize = 5;

/// How long the token counts, in seconds; a number nobody else asks for, so that the server can tell such tokens apart.
const TOKEN_SECONDS: i64 = 3607;

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        if !is_new_pod(request) {
            return Ok(());
        }
        admit(&**request.state, request.namespace, object).map_err(|why| request.forbidden(why))
    }

    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        match object.filter(|_| is_new_pod(request)) {
            Some(pod) => validate(&**request.state, request.namespace, pod).map_err(|why| request.forbidden(why)),
            None => Ok(()),
        }
    }
}

fn is_new_pod(request: &Request) -> bool {
    request.operation == Operation::Create && request.is("", "pods") && request.subresource.is_empty()
}

/// Gives a new pod its account, or says why it cannot have it.
fn admit(lookup: &dyn Lookup, namespace: &str, pod: &mut Value) -> Result<(), String> {
    if is_mirror(pod) {
        return validate(lookup, namespace, pod);
    }
    let spec = |pod: &Value, field: &str| meta::text_at(pod, &["spec", field]).to_string();
    let asked = [spec(pod, "serviceAccountName"), spec(pod, "serviceAccount"), "default".into()];
    let name = asked.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    if !pod["spec"].is_object() {
        pod["spec"] = json!({});
    }
    pod["spec"]["serviceAccountName"] = json!(name);
    pod["spec"]["serviceAccount"] = json!(name);
    let account = account(lookup, namespace, &name)?;
    let automount =
        |object: Option<&Value>| object.and_then(|o| o.get("automountServiceAccountToken")).and_then(Value::as_bool);
    if automount(pod.get("spec")).or(automount(Some(&account))).unwrap_or(true) {
        mount(pod);
    }
    let secrets = meta::items_at(&account, &["imagePullSecrets"]);
    if meta::items_at(pod, &["spec", "imagePullSecrets"]).is_empty() && !secrets.is_empty() {
        pod["spec"]["imagePullSecrets"] = json!(secrets);
    }
    Ok(())
}

/// Mounts the token into every container that has nothing mounted at its place.
fn mount(pod: &mut Value) {
    let names: Vec<&str> =
        meta::items_at(pod, &["spec", "volumes"]).iter().map(|v| meta::text_at(v, &["name"])).collect();
    let existing = names.iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(ToString::to_string);
    let volume = existing.clone().unwrap_or_else(|| {
        std::iter::repeat_with(generated_name).find(|name| !names.contains(&name.as_str())).unwrap_or_default()
    });
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = meta::items_at(container, &["volumeMounts"]);
            if mounts.iter().any(|mount| meta::text_at(mount, &["mountPath"]) == MOUNT_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        push(&mut pod["spec"], "volumes", token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
            "defaultMode": 0o644,
        },
    })
}

fn generated_name() -> String {
    let mut random = rand::rng();
    let letters = (0..NAME_LENGTH).map(|_| char::from(NAME_LETTERS[random.random_range(0..NAME_LETTERS.len())]));
    format!("{VOLUME_PREFIX}{}", letters.collect::<String>())
}

/// Checks the final pod: its account is there, and lets it use the secrets it names.
fn validate(lookup: &dyn Lookup, namespace: &str, pod: &Value) -> Result<(), String> {
    let name = meta::text_at(pod, &["spec", "serviceAccountName"]);
    if is_mirror(pod) {
        return validate_mirror(pod, name);
    }
    if name.is_empty() {
        return Err(format!("no service account specified for pod {namespace}/{}", meta::name(pod)));
    }
    let account = account(lookup, namespace, name)?;
    let enforced = meta::entry(&account, "annotations", ENFORCE_SECRETS).and_then(go::parse_bool);
    if enforced == Some(true) { check_secrets(&account, name, pod) } else { Ok(()) }
}

/// A pod that a node made of a file can have no identity of the cluster's.
fn validate_mirror(pod: &Value, account: &str) -> Result<(), String> {
    if !account.is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    if !secrets_of(pod).is_empty() || !meta::items_at(pod, &["spec", "imagePullSecrets"]).is_empty() {
        return Err("a mirror pod may not reference secrets".into());
    }
    let sources =
        meta::items_at(pod, &["spec", "volumes"]).iter().flat_map(|v| meta::items_at(v, &["projected", "sources"]));
    for source in sources {
        if source.get("serviceAccountToken").is_some_and(Value::is_object) {
            return Err("a mirror pod may not use ServiceAccountToken volume projections".into());
        }
        if source.get("secret").is_some_and(Value::is_object) {
            return Err("a mirror pod may not reference secrets".into());
        }
    }
    Ok(())
}

fn check_secrets(account: &Value, name: &str, pod: &Value) -> Result<(), String> {
    let names = |field: &str| -> Vec<String> {
        meta::items_at(account, &[field]).iter().map(|secret| meta::text_at(secret, &["name"]).to_string()).collect()
    };
    let mountable = names("secrets");
    for (who, secret) in secrets_of(pod) {
        if !mountable.contains(&secret) {
            return Err(format!(
                "{who} secret.secretName={} is not allowed because service account {name} does not reference that secret",
                go::quote(&secret)
            ));
        }
    }
    let pullable = names("imagePullSecrets");
    for (at, secret) in meta::items_at(pod, &["spec", "imagePullSecrets"]).iter().enumerate() {
        let secret = meta::text_at(secret, &["name"]);
        if !pullable.iter().any(|name| name == secret) {
            return Err(format!(
                "imagePullSecrets[{at}].name={} is not allowed because service account {name} does not reference that imagePullSecret",
                go::quote(secret)
            ));
        }
    }
    Ok(())
}

/// The secrets that volumes and environments of a pod name, each with who names it.
fn secrets_of(pod: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for volume in meta::items_at(pod, &["spec", "volumes"]) {
        if let Some(secret) = volume.get("secret").filter(|secret| secret.is_object()) {
            out.push(("volume with".to_string(), meta::text_at(secret, &["secretName"]).to_string()));
        }
    }
    for (list, kind) in [("initContainers", "init container"), ("containers", "container")] {
        for container in meta::items_at(pod, &["spec", list]) {
            let who = format!("{kind} {}", meta::text_at(container, &["name"]));
            for env in meta::items_at(container, &["env"]) {
                if let Some(secret) = meta::at(env, &["valueFrom", "secretKeyRef"]).filter(|s| s.is_object()) {
                    let text = format!("{who} with envVar {} referencing", meta::text_at(env, &["name"]));
                    out.push((text, meta::text_at(secret, &["name"]).to_string()));
                }
            }
            for source in meta::items_at(container, &["envFrom"]) {
                if let Some(secret) = source.get("secretRef").filter(|s| s.is_object()) {
                    out.push((format!("{who} with envFrom referencing"), meta::text_at(secret, &["name"]).to_string()));
                }
            }
        }
    }
    out
}

fn account(lookup: &dyn Lookup, namespace: &str, name: &str) -> Result<std::sync::Arc<Value>, String> {
    lookup.get("", "serviceaccounts", namespace, name).ok_or_else(|| {
        format!("error looking up service account {namespace}/{name}: serviceaccount {} not found", go::quote(name))
    })
}

fn is_mirror(pod: &Value) -> bool {
    meta::entry(pod, "annotations", MIRROR).is_some()
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::Objects;

    fn ask(mut pod: Value) -> Result<Value, String> {
        let mut objects = Objects::default();
        let meta = |name: &str| json!({"name": name, "namespace": "ns"});
        objects.put("", "serviceaccounts", json!({"metadata": meta("default")}));
        objects.put("", "serviceaccounts", json!({"metadata": meta("no"), "automountServiceAccountToken": false}));
        let strict = json!({
            "metadata": {"name": "strict", "namespace": "ns", "annotations": {ENFORCE_SECRETS: "true"}},
            "secrets": [{"name": "ok"}],
            "imagePullSecrets": [{"name": "pull"}],
            "automountServiceAccountToken": false,
        });
        objects.put("", "serviceaccounts", strict);
        admit(&objects, "ns", &mut pod)?;
        validate(&objects, "ns", &pod)?;
        Ok(pod)
    }

    /// The pod's spec after admission; the generated part of names is `<rand>`.
    #[track_caller]
    fn check(spec: Value, want: &str) {
        let got = match ask(json!({"metadata": {"name": "p"}, "spec": spec})) {
            Err(why) => why,
            Ok(pod) => {
                let text = pod["spec"].to_string();
                let volumes = meta::items_at(&pod, &["spec", "volumes"]).iter().map(|v| meta::text_at(v, &["name"]));
                let made = volumes.filter_map(|v| v.strip_prefix(VOLUME_PREFIX)).find(|rest| rest.len() == NAME_LENGTH);
                match made {
                    Some(made) => text.replace(made, "<rand>"),
                    None => text,
                }
            }
        };
        assert_eq!(got, want);
    }

    const VOLUME: &str = r#"{"name":"kube-api-access-<rand>","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}"#;
    const MOUNTS: &str = r#""volumeMounts":[{"name":"kube-api-access-<rand>","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]"#;

    #[test]
    fn a_pod_gets_an_account_and_a_token() {
        let names = r#""serviceAccountName":"default","serviceAccount":"default""#;
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}),
            &format!(
                r#"{{"containers":[{{"name":"a",{MOUNTS}}},{{"name":"b",{MOUNTS}}}],"initContainers":[{{"name":"i",{MOUNTS}}}],{names},"volumes":[{VOLUME}]}}"#
            ),
        );
        check(
            json!({"containers": [], "serviceAccount": "no", "automountServiceAccountToken": true}),
            r#"{"containers":[],"serviceAccount":"no","automountServiceAccountToken":true,"serviceAccountName":"no"}"#,
        );
    }

    #[test]
    fn who_decides_about_mounting() {
        let mounted = |account: &str, pod: Option<bool>| {
            let mut spec = json!({"containers": [{"name": "c"}], "serviceAccountName": account});
            if let Some(pod) = pod {
                spec["automountServiceAccountToken"] = json!(pod);
            }
            ask(json!({"spec": spec})).unwrap()["spec"].get("volumes").is_some()
        };
        assert!(mounted("default", None) && mounted("default", Some(true)) && !mounted("default", Some(false)));
        assert!(!mounted("no", None) && mounted("no", Some(true)) && !mounted("no", Some(false)));
    }

    #[test]
    fn own_mounts_and_volumes_stay() {
        let mount = |path: &str| json!([{"name": "v", "mountPath": path}]);
        let own = json!({"containers": [{"name": "c", "volumeMounts": mount(MOUNT_PATH)}], "volumes": [{"name": "v"}]});
        let volumes = |spec: Value| meta::items_at(&ask(json!({"spec": spec})).unwrap(), &["spec", "volumes"]).len();
        assert_eq!(volumes(own.clone()), 1);
        let slash = json!({"containers": [{"name": "c", "volumeMounts": mount("/var/run/secrets/kubernetes.io/serviceaccount/")}], "volumes": [{"name": "v"}]});
        assert_eq!(volumes(slash), 2);
        let named =
            json!({"containers": [{"name": "c"}], "volumes": [{"name": "kube-api-access-mine", "emptyDir": {}}]});
        let pod = ask(json!({"spec": named})).unwrap();
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-mine");
        assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn refusals() {
        check(
            json!({"serviceAccountName": "nosuch"}),
            "error looking up service account ns/nosuch: serviceaccount \"nosuch\" not found",
        );
        let strict = |more: Value| {
            let mut spec = json!({"serviceAccountName": "strict"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let why = "is not allowed because service account strict does not reference that secret";
        check(
            strict(json!({"volumes": [{"name": "v", "secret": {"secretName": "no"}}]})),
            &format!("volume with secret.secretName=\"no\" {why}"),
        );
        check(
            strict(
                json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]}]}),
            ),
            &format!("container c with envVar E referencing secret.secretName=\"no\" {why}"),
        );
        check(
            strict(json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "no"}}]}]})),
            &format!("container c with envFrom referencing secret.secretName=\"no\" {why}"),
        );
        check(
            strict(json!({"initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "no"}}]}]})),
            &format!("init container i with envFrom referencing secret.secretName=\"no\" {why}"),
        );
        check(
            strict(json!({"imagePullSecrets": [{"name": "no"}]})),
            "imagePullSecrets[0].name=\"no\" is not allowed because service account strict does not reference that imagePullSecret",
        );
        let ok =
            ask(json!({"spec": strict(json!({"volumes": [{"name": "v", "secret": {"secretName": "ok"}}]}))})).unwrap();
        assert_eq!(ok["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    }

    #[test]
    fn mirror_pods_have_no_identity() {
        let mirror = |spec: Value| ask(json!({"metadata": {"name": "m", "annotations": {MIRROR: "x"}}, "spec": spec}));
        assert!(mirror(json!({"nodeName": "n"})).unwrap()["spec"].get("serviceAccountName").is_none());
        let refused = |spec: Value, want: &str| assert_eq!(mirror(spec), Err(want.to_string()));
        refused(json!({"serviceAccountName": "default"}), "a mirror pod may not reference service accounts");
        refused(
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
            "a mirror pod may not reference secrets",
        );
        refused(
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            "a mirror pod may not use ServiceAccountToken volume projections",
        );
    }
}
