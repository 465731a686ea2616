//! A container's environment and arguments, and the fields of a pod that they, and downward files, can name. Pure.

use crate::pod::{Container, EnvSource, Pod, ResourceFieldRef};
use crate::services::Service;
use kemudi_client::StringMap;
use kinds::quantity::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Secrets and ConfigMaps by kind and name, as far as they are known. A missing entry is an object that does not exist.
pub type Objects = BTreeMap<(ObjectKind, String), Arc<Data>>;
/// What an object holds, decoded.
pub type Data = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    ConfigMap,
    Secret,
}

impl ObjectKind {
    /// As messages name the kind.
    pub fn word(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Secret => "secret",
        }
    }
}

/// What a pod's containers may ask about, beside the pod itself.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub pod_ip: String,
    pub host_ip: String,
    /// What the node has, in Kubernetes' quantities: stands in for limits that are not set.
    pub allocatable: BTreeMap<String, String>,
    /// Host and port of the API server for the pod.
    pub api: Option<(IpAddr, u16)>,
}

/// The objects that the environment of a container names.
pub fn references(container: &Container) -> Vec<(ObjectKind, String)> {
    let mut found = Vec::new();
    for from in &container.env_from {
        found.extend(from.config_map_ref.iter().map(|name| (ObjectKind::ConfigMap, name.name.clone())));
        found.extend(from.secret_ref.iter().map(|name| (ObjectKind::Secret, name.name.clone())));
    }
    for source in container.env.iter().filter_map(|var| var.value_from.as_ref()) {
        found.extend(source.config_map_key_ref.iter().map(|key| (ObjectKind::ConfigMap, key.name.clone())));
        found.extend(source.secret_key_ref.iter().map(|key| (ObjectKind::Secret, key.name.clone())));
    }
    found
}

/// The whole environment. Later variables of a name win; each name comes once.
///
/// # Errors
/// The words of the status' `CreateContainerConfigError`.
pub fn environment(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    services: &[Service],
    around: &Surroundings,
) -> Result<Vec<(String, String)>, String> {
    let mut env = Env::default();
    for (name, value) in service_variables(pod, services, around) {
        env.set(name, value);
    }
    // What services set, a container's variables may use only by what it overrides: all of them.
    for from in &container.env_from {
        let sources = [(ObjectKind::ConfigMap, &from.config_map_ref), (ObjectKind::Secret, &from.secret_ref)];
        for (kind, reference) in sources.into_iter().filter_map(|(kind, reference)| Some((kind, reference.as_ref()?))) {
            match objects.get(&(kind, reference.name.clone())) {
                None if reference.optional => {}
                None => return Err(format!("{} {:?} not found", kind.word(), reference.name)),
                Some(data) => {
                    for (key, value) in data.iter() {
                        env.set(format!("{}{key}", from.prefix), String::from_utf8_lossy(value).into_owned());
                    }
                }
            }
        }
    }
    for var in &container.env {
        match &var.value_from {
            None => env.set(var.name.clone(), expand(&var.value, |name| env.get(name))),
            Some(source) => {
                if let Some(value) = from_source(source, pod, container, objects, around)? {
                    env.set(var.name.clone(), value);
                }
            }
        }
    }
    Ok(env.0)
}

#[derive(Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

/// `$(NAME)` becomes the variable's value; of a name that is not known it stays as it is; `$$` is one `$`.
pub fn expand<'a>(text: &str, get: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

fn from_source(
    source: &EnvSource,
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    around: &Surroundings,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, around, &field.field_path).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return resource_value(pod, Some(container), field, &around.allocatable).map(Some);
    }
    let keys = [
        (ObjectKind::ConfigMap, "ConfigMap", &source.config_map_key_ref),
        (ObjectKind::Secret, "Secret", &source.secret_key_ref),
    ];
    for (kind, word, key) in keys {
        let Some(key) = key else { continue };
        let Some(data) = objects.get(&(kind, key.name.clone())) else {
            return if key.optional { Ok(None) } else { Err(format!("{} {:?} not found", kind.word(), key.name)) };
        };
        return match data.get(&key.key) {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if key.optional => Ok(None),
            None => Err(format!("couldn't find key {} in {word} {}/{}", key.key, pod.metadata.namespace, key.name)),
        };
    }
    Ok(Some(String::new()))
}

/// The value of a field path of the pod.
pub fn field_value(pod: &Pod, around: &Surroundings, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let one = |map: &StringMap, key: &str| map.get(key).unwrap_or_default().to_string();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|inner| inner.split_once("['")) {
        return match map {
            "metadata.labels" => Ok(one(&meta.labels, key)),
            "metadata.annotations" => Ok(one(&meta.annotations, key)),
            _ => Err(format!("{path:?} does not support subscript")),
        };
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.podIP" | "status.podIPs" => around.pod_ip.clone(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` in each line, as downward files have labels.
fn lines(map: &StringMap) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a container's resource, divided and rounded up.
pub fn resource_value(
    pod: &Pod,
    container: Option<&Container>,
    field: &ResourceFieldRef,
    allocatable: &BTreeMap<String, String>,
) -> Result<String, String> {
    let all = || pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let container = match field.container_name.as_str() {
        "" => container,
        name => all().find(|container| container.name == name).map(|container| &**container),
    };
    let container = container.ok_or_else(|| format!("container {:?} not found", field.container_name))?;
    let (kind, resource) = field.resource.split_once('.').unwrap_or(("", &field.resource));
    let map = match kind {
        "limits" => &container.resources.limits,
        "requests" => &container.resources.requests,
        _ => return Err(format!("unsupported container resource : {}", field.resource)),
    };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let standing_in = || allocatable.get(resource).cloned().filter(|_| kind == "limits");
    let amount = map.get(resource).map(text).or_else(standing_in).unwrap_or_else(|| "0".into());
    let milli = |text: &str| {
        Quantity::parse(text).map(|quantity| quantity.milli_value()).map_err(|_| format!("{text:?} is not a quantity"))
    };
    let amount = milli(&amount)?;
    let divisor = match field.divisor.as_str() {
        "" | "0" => 1000,
        text => milli(text)?.max(1),
    };
    Ok(amount.div_euclid(divisor).saturating_add(i64::from(amount.rem_euclid(divisor) != 0)).to_string())
}

/// The variables of the namespace's services (if the pod wants them) and, always, those of the API server.
fn service_variables(pod: &Pod, services: &[Service], around: &Surroundings) -> Vec<(String, String)> {
    let mut out = Vec::new();
    if pod.spec.enable_service_links.unwrap_or(true) {
        for service in services.iter().filter(|service| service.namespace == pod.metadata.namespace) {
            let Some(address) = service.addresses.first() else { continue };
            let ports: Vec<_> = service.ports.iter().map(|p| (p.name.as_str(), p.protocol.as_str(), p.port)).collect();
            out.extend(variables_of(&service.name, &address.to_string(), &ports));
        }
    }
    if let Some((address, port)) = around.api {
        out.extend(variables_of("kubernetes", &address.to_string(), &[("https", "TCP", port)]));
    }
    out
}

fn variables_of(service: &str, address: &str, ports: &[(&str, &str, u16)]) -> Vec<(String, String)> {
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let name = upper(service);
    let Some((_, _, first)) = ports.first() else { return Vec::new() };
    let bracketed = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = |protocol: &str, port: u16| format!("{}://{bracketed}:{port}", protocol.to_lowercase());
    let mut out =
        vec![(format!("{name}_SERVICE_HOST"), address.to_owned()), (format!("{name}_SERVICE_PORT"), first.to_string())];
    for (port_name, _, port) in ports.iter().filter(|(port_name, ..)| !port_name.is_empty()) {
        out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.to_string()));
    }
    for (index, (_, protocol, port)) in ports.iter().enumerate() {
        if index == 0 {
            out.push((format!("{name}_PORT"), url(protocol, *port)));
        }
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        out.push((prefix.clone(), url(protocol, *port)));
        out.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{prefix}_PORT"), port.to_string()));
        out.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u-1", "labels": {"app": "web", "tier": "a\"b"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": []}
        }))
        .unwrap()
    }

    fn check(container: serde_json::Value, expected: &str) {
        let container: Container = serde_json::from_value(container).unwrap();
        let data = |pairs: &[(&str, &str)]| -> Arc<Data> {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
            Arc::new(pairs.collect())
        };
        let objects = Objects::from([
            ((ObjectKind::ConfigMap, "settings".into()), data(&[("color", "blue"), ("size", "XL")])),
            ((ObjectKind::Secret, "keys".into()), data(&[("password", "1234")])),
        ]);
        let around = Surroundings {
            pod_ip: "10.244.0.9".into(),
            host_ip: "192.0.2.1".into(),
            allocatable: [("memory".into(), "1Gi".into())].into(),
            api: None,
        };
        let text = match environment(&pod(), &container, &objects, &[], &around) {
            Ok(env) => env.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
            Err(error) => error,
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn values_and_sources() {
        let from = |name: &str, source: serde_json::Value| json!({"name": name, "valueFrom": source});
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        check(
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(NO)$$(A) $"}, {"name": "A", "value": "2"}]}),
            "A=2 B=1$(NO)$(A) $",
        );
        check(
            json!({"env": [from("N", field("metadata.name")), from("I", field("status.podIP")),
                from("L", field("metadata.labels['app']")), from("S", field("spec.serviceAccountName"))]}),
            "N=web I=10.244.0.9 L=web S=sa",
        );
        check(json!({"env": [from("X", field("spec.containers"))]}), "unsupported fieldPath: spec.containers");
        check(
            json!({"envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "no", "optional": true}}],
                "env": [from("P", json!({"secretKeyRef": {"name": "keys", "key": "password"}}))]}),
            "S_color=blue S_size=XL P=1234",
        );
        check(json!({"envFrom": [{"secretRef": {"name": "no"}}]}), "secret \"no\" not found");
        check(
            json!({"env": [from("P", json!({"secretKeyRef": {"name": "keys", "key": "user"}}))]}),
            "couldn't find key user in Secret shop/keys",
        );
        check(
            json!({"env": [from("P", json!({"configMapKeyRef": {"name": "settings", "key": "x", "optional": true}}))]}),
            "",
        );
    }

    #[test]
    fn resources() {
        let from = |resource: &str, divisor: &str| json!({"name": "R", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}});
        let check = |resource: &str, divisor: &str, expected: &str| {
            let resources = json!({"limits": {"cpu": "1500m"}, "requests": {"cpu": 1, "memory": "64Mi"}});
            check(json!({"resources": resources, "env": [from(resource, divisor)]}), expected);
        };
        check("limits.cpu", "0", "R=2");
        check("limits.cpu", "1m", "R=1500");
        check("requests.cpu", "", "R=1");
        check("requests.memory", "1Mi", "R=64");
        check("limits.memory", "1", "R=1073741824");
        check("requests.storage", "1", "R=0");
    }

    #[test]
    fn service_links() {
        let variables = variables_of("my-db", "10.96.3.4", &[("sql", "TCP", 5432), ("", "UDP", 53)]);
        let text: Vec<String> = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text.join("\n"),
            "MY_DB_SERVICE_HOST=10.96.3.4\nMY_DB_SERVICE_PORT=5432\nMY_DB_SERVICE_PORT_SQL=5432\n\
             MY_DB_PORT=tcp://10.96.3.4:5432\nMY_DB_PORT_5432_TCP=tcp://10.96.3.4:5432\nMY_DB_PORT_5432_TCP_PROTO=tcp\n\
             MY_DB_PORT_5432_TCP_PORT=5432\nMY_DB_PORT_5432_TCP_ADDR=10.96.3.4\nMY_DB_PORT_53_UDP=udp://10.96.3.4:53\n\
             MY_DB_PORT_53_UDP_PROTO=udp\nMY_DB_PORT_53_UDP_PORT=53\nMY_DB_PORT_53_UDP_ADDR=10.96.3.4"
        );
    }

    #[test]
    fn labels_as_a_file() {
        let text = field_value(&pod(), &Surroundings::default(), "metadata.labels").unwrap();
        assert_eq!(text, "app=\"web\"\ntier=\"a\\\"b\"");
    }
}
