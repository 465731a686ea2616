//! The roles and bindings every cluster starts with. `bootstrap.json` holds the facts; what all of them share (kinds,
//! labels, annotations, API groups) is added here. Makes values only: writing and reconciling them is the server's.

use serde_json::{Map, Value, json};

use super::rbac::GROUP;

const DATA: &str = include_str!("bootstrap.json");

/// Set to `"false"` by an administrator, a start leaves the object alone.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// An object, and the resource it is of.
pub struct Bootstrap {
    pub resource: &'static str,
    pub object: Value,
}

/// All of them, roles before bindings. Aggregated roles (admin, edit, view) have no rules yet: a controller fills them.
pub fn objects() -> Vec<Bootstrap> {
    let data: Map<String, Value> = serde_json::from_str(DATA).unwrap_or_default();
    let section = |name: &str| data.get(name).and_then(Value::as_array).into_iter().flatten();
    let role = |kind: &str, given: &Value| {
        let mut role = shell(kind, given);
        role["rules"] = given.get("rules").cloned().unwrap_or(Value::Null);
        if let Some(rule) = given.get("aggregationRule") {
            role["aggregationRule"] = rule.clone();
        }
        role
    };
    let binding = |kind: &str, role: &str, given: &Value| {
        let mut binding = shell(kind, given);
        let subjects: Vec<Value> = api::meta::items_at(given, &["subjects"]).iter().map(subject).collect();
        if !subjects.is_empty() {
            binding["subjects"] = json!(subjects);
        }
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": role, "name": given["role"]});
        binding
    };
    let cluster_roles = section("clusterRoles").map(|given| role("ClusterRole", given));
    let of = |resource: &'static str| move |object: Value| Bootstrap { resource, object };
    let roles = section("roles").map(|given| role("Role", given));
    let cluster_bindings =
        section("clusterRoleBindings").map(|given| binding("ClusterRoleBinding", "ClusterRole", given));
    let bindings = section("roleBindings").map(|given| binding("RoleBinding", "Role", given));
    cluster_roles
        .map(of("clusterroles"))
        .chain(roles.map(of("roles")))
        .chain(cluster_bindings.map(of("clusterrolebindings")))
        .chain(bindings.map(of("rolebindings")))
        .collect()
}

/// The facts about one cluster role, its rules among them.
pub fn cluster_role(name: &str) -> Option<Value> {
    let mut data: Map<String, Value> = serde_json::from_str(DATA).unwrap_or_default();
    let roles = data.get_mut("clusterRoles")?.as_array_mut()?;
    roles.iter_mut().find(|role| role["name"] == *name).map(Value::take)
}

fn shell(kind: &str, given: &Value) -> Value {
    let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    if let (Some(labels), Some(more)) = (labels.as_object_mut(), given.get("labels").and_then(Value::as_object)) {
        labels.extend(more.clone());
    }
    let mut metadata = json!({"name": given["name"]});
    if let Some(namespace) = given.get("namespace") {
        metadata["namespace"] = namespace.clone();
    }
    metadata["labels"] = labels;
    metadata["annotations"] = json!({ AUTOUPDATE: "true" });
    json!({"kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata})
}

/// Users and groups are of the RBAC API group, service accounts of the core group.
fn subject(given: &Value) -> Value {
    if given["kind"] == "ServiceAccount" {
        return given.clone();
    }
    json!({"kind": given["kind"], "apiGroup": GROUP, "name": given["name"]})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn recording(name: &str) -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/golden/corpus/identity").join(name);
        let scenario: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        scenario["steps"].as_array().unwrap().iter().map(|step| step["expect"]["body"].clone()).collect()
    }

    /// As recorded, without what the server fills in.
    fn settled(mut object: Value) -> Value {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.shift_remove(field);
        }
        object
    }

    fn by_name(resource: &str) -> BTreeMap<String, Value> {
        let all = objects().into_iter().filter(|b| b.resource == resource);
        all.map(|b| (format!("{}/{}", api::meta::namespace(&b.object), api::meta::name(&b.object)), b.object)).collect()
    }

    #[test]
    fn roles_are_those_of_a_real_cluster() {
        let mut ours = by_name("clusterroles");
        for file in ["components", "controllers-1", "controllers-2", "users"] {
            for mut body in recording(&format!("bootstrap-roles-{file}.json")) {
                if body.get("aggregationRule").is_some() {
                    body["rules"] = Value::Null;
                }
                let ours = ours.remove(&format!("/{}", api::meta::name(&body)));
                assert_eq!(ours.map(|o| o.to_string()), Some(settled(body).to_string()));
            }
        }
        assert!(ours.is_empty(), "{:?}", ours.keys());
    }

    #[test]
    fn bindings_are_those_of_a_real_cluster() {
        let recorded = recording("bootstrap-bindings.json");
        let ours = by_name("clusterrolebindings");
        for body in recorded.iter().filter(|body| body["kind"] == "ClusterRoleBinding") {
            assert_eq!(ours[&format!("/{}", api::meta::name(body))].to_string(), settled(body.clone()).to_string());
        }
        let names = |table: &Value| -> Vec<String> {
            table["rows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| format!("/{}", row["cells"][0].as_str().unwrap()))
                .collect()
        };
        assert_eq!(ours.keys().cloned().collect::<Vec<_>>(), names(&recorded[0]));
        assert_eq!(by_name("clusterroles").keys().cloned().collect::<Vec<_>>(), names(&recorded[1]));
    }

    #[test]
    fn namespaced_roles_and_bindings_are_those_of_a_real_cluster() {
        let mut ours = by_name("roles");
        ours.append(&mut by_name("rolebindings").into_iter().map(|(name, o)| (format!("b/{name}"), o)).collect());
        for list in recording("bootstrap-namespaced.json") {
            for item in list["items"].as_array().into_iter().flatten() {
                let prefix = if list["kind"] == "RoleBindingList" { "b/" } else { "" };
                let name = format!("{prefix}{}/{}", api::meta::namespace(item), api::meta::name(item));
                let mut ours = ours.remove(&name).unwrap();
                // Items of a list carry no kind.
                ours.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
                assert_eq!(ours.to_string(), settled(item.clone()).to_string());
            }
        }
        assert!(ours.is_empty(), "{:?}", ours.keys());
    }
}
