//! What operations and parameters are for, in Kubernetes' words. Texts of options come from whoever has them; here is only
//! which options a parameter is one of.

use serde_json::Value;

use crate::Kind;

pub const PRETTY: &str = "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const CORE: &str = "io.k8s.api.core.v1.";

/// Of a document's own path, by what it answers.
pub fn of_root(answer: &str) -> &'static str {
    match answer {
        "APIResourceList" => "get available resources",
        "APIGroup" => "get information of a group",
        _ => "get available API versions",
    }
}

/// Of a parameter in the path.
pub fn of_place(name: &str, about: &str) -> String {
    match name {
        "name" => format!("name of the {about}"),
        "namespace" => "object name and auth scope, such as for teams and projects".to_owned(),
        _ => "path to the resource".to_owned(),
    }
}

/// Of an operation on a kind, or on a subresource of it. `action` is its `x-kubernetes-action`.
pub fn of_operation(kind: &Kind, subresource: &str, action: &str, method: &str) -> String {
    const INSTEAD: &str = "deprecated: use the 'watch' parameter with a list operation instead";
    let name = &kind.kind;
    let part = match subresource {
        "" => String::new(),
        subresource => format!(" {subresource} of"),
    };
    match action {
        "get" => format!("read{part} the specified {name}"),
        "list" if kind.has_verb("watch") && !kind.is_custom() => format!("list or watch objects of kind {name}"),
        "list" => format!("list objects of kind {name}"),
        "put" => format!("replace{part} the specified {name}"),
        "patch" => format!("partially update{part} the specified {name}"),
        "post" => format!("create{part}{}{name}", article(name)),
        "delete" => format!("delete{part}{}{name}", article(name)),
        "deletecollection" => format!("delete collection of {name}"),
        "watch" => format!(
            "watch changes to an object of kind {name}. {INSTEAD}, filtered to a single item with the 'fieldSelector' parameter."
        ),
        "watchlist" => format!("watch individual changes to a list of {name}. {INSTEAD}."),
        "connect" => format!("connect {} requests to{part} {name}", method.to_ascii_uppercase()),
        _ => String::new(),
    }
}

/// What stands before a noun, with the spaces around it; plurals have no article.
fn article(noun: &str) -> &'static str {
    let is_plural = noun.ends_with('s') && !noun.ends_with("ss");
    match noun.chars().next().map(|first| first.to_ascii_lowercase()) {
        _ if is_plural => " ",
        Some('a' | 'e' | 'i' | 'o' | 'u') => " an ",
        _ => " a ",
    }
}

/// Gives each parameter of a path, and with it the type of the options that it may be one of, and its name there.
pub fn describe_parameters(item: &mut Value, mut put: impl FnMut(&mut Value, (&str, &str))) {
    let Some(item) = item.as_object_mut() else { return };
    let mut all = Vec::new();
    for operation in item.values_mut().filter(|value| value.is_object()) {
        let action = operation["x-kubernetes-action"].as_str().unwrap_or_default().to_owned();
        let kind = operation["x-kubernetes-group-version-kind"]["kind"].as_str().unwrap_or_default().to_owned();
        let types = option_types(&action, &kind);
        for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
            describe(parameter, &types, &mut put);
        }
        all.extend(types);
    }
    for parameter in item.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        describe(parameter, &all, &mut put);
    }
}

fn describe(parameter: &mut Value, types: &[String], put: &mut impl FnMut(&mut Value, (&str, &str))) {
    if parameter["in"] != "query" {
        return;
    }
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    types.iter().for_each(|of| put(parameter, (of, &name)));
}

/// The types whose fields are the parameters of an action on a kind.
fn option_types(action: &str, kind: &str) -> Vec<String> {
    let meta = |names: &[&str]| names.iter().map(|name| format!("{META}{name}")).collect();
    match action {
        "list" | "watch" | "watchlist" => meta(&["ListOptions"]),
        "deletecollection" => meta(&["ListOptions", "DeleteOptions"]),
        "delete" => meta(&["DeleteOptions"]),
        "post" => meta(&["CreateOptions"]),
        "put" => meta(&["UpdateOptions"]),
        "patch" => meta(&["PatchOptions"]),
        "connect" => vec![format!("{CORE}{kind}")],
        // Of what is read, only logs have options.
        "get" => vec![format!("{CORE}PodLogOptions")],
        _ => Vec::new(),
    }
}
