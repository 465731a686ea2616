//! From a path to the kind it is about, or to the exact way in which it leads nowhere. Looks at no object.

use std::sync::Arc;

use api::status::GroupResource;
use api::{Ask, Details, Reason, Status, Target, Verb};
use kinds::{Kind, Registry};

/// Where a path leads.
pub enum Found {
    Kind(Arc<Kind>),
    /// No group of that name is served: `404 page not found` as text.
    NoSuchGroup,
    NoSuchPath,
    NoSuchMethod,
    /// A custom resource has its own words for what it has not.
    Refused(Box<Status>),
}

/// Finds the kind of a resource path and checks that path and method exist for it.
pub fn find(registry: &Registry, ask: &Ask, target: &Target) -> Found {
    let found = find_in(registry, ask, target);
    if registry.group(&target.group).is_none_or(|group| !group.custom) {
        return found;
    }
    let of = GroupResource { group: &target.group, resource: &target.resource };
    let custom = registry.kind(&target.group, &target.version, &target.resource);
    match found {
        Found::NoSuchPath if !target.subresource.is_empty() && custom.is_some() => {
            Found::Refused(Box::new(Status::not_found(of, &target.name)))
        }
        Found::NoSuchPath => Found::NoSuchGroup,
        // Across all namespaces there is only reading.
        Found::NoSuchMethod if target.namespace.is_empty() && custom.is_some_and(|kind| kind.namespaced) => {
            Found::NoSuchGroup
        }
        Found::NoSuchMethod => {
            let text =
                format!("{} is not supported on resources of kind {}", ask.verb, api::go::quote(&of.to_string()));
            let details = Details { group: target.group.clone(), kind: target.resource.clone(), ..Details::default() };
            let status = Status::failure(405, Reason::MethodNotAllowed, text);
            Found::Refused(Box::new(Status { details: Some(details), ..status }))
        }
        other => other,
    }
}

fn find_in(registry: &Registry, ask: &Ask, target: &Target) -> Found {
    if ask.path.starts_with("//") || ask.path.starts_with("/./") {
        return Found::NoSuchGroup;
    }
    // Trailing slashes are ignored; empty or dotted steps inside are steps that nothing has.
    let trimmed = ask.path.trim_end_matches('/');
    if trimmed.split('/').skip(1).any(str::is_empty) {
        return match trimmed.starts_with("/apis//") {
            true => Found::NoSuchGroup,
            false => Found::NoSuchPath,
        };
    }
    if registry.group(&target.group).is_none() {
        return Found::NoSuchGroup;
    }
    let Some(kind) = registry.kind(&target.group, &target.version, &target.resource) else {
        return Found::NoSuchPath;
    };
    let of_namespace = &*kind.plural == "namespaces" && kind.group.is_empty();
    // A namespace's own path names it; everything else in front of a resource is its namespace.
    let own_path = of_namespace && !ask.path.contains(&format!("/namespaces/{}/namespaces", target.namespace));
    let namespaced_path = !target.namespace.is_empty() && !own_path;
    // The old paths of watches know nothing but kinds that can be watched.
    if is_old_watch(ask, target) {
        return match ask.method.as_ref() {
            _ if !kind.has_verb("watch") || !target.subresource.is_empty() => Found::NoSuchPath,
            "GET" => Found::Kind(kind.clone()),
            _ if namespaced_path && !kind.namespaced => Found::NoSuchPath,
            _ => Found::NoSuchMethod,
        };
    }
    let named = !target.name.is_empty()
        && !matches!(ask.verb, Verb::List | Verb::DeleteCollection)
        && (ask.verb != Verb::Watch || ask.path.contains("/watch/"));
    if namespaced_path && !kind.namespaced {
        return Found::NoSuchPath;
    }
    if kind.namespaced && !namespaced_path {
        // Across all namespaces there are only lists and watches.
        if named || !kind.has_verb("list") {
            return Found::NoSuchPath;
        }
        return match ask.method.as_ref() {
            "GET" => Found::Kind(kind.clone()),
            _ => Found::NoSuchMethod,
        };
    }
    if !target.subresource.is_empty() {
        return subresource(kind, ask, target);
    }
    let has_names = kind.has_verb("get") || kind.has_verb("delete") || kind.has_verb("update");
    if named && !has_names {
        return Found::NoSuchPath;
    }
    let method = ask.method.as_ref();
    let allowed = match (method, named) {
        ("GET", true) => kind.has_verb("get"),
        ("GET", false) => kind.has_verb("list") || kind.has_verb("watch"),
        ("POST", false) => kind.has_verb("create"),
        ("PUT", true) => kind.has_verb("update"),
        ("PATCH", true) => kind.has_verb("patch"),
        ("DELETE", true) => kind.has_verb("delete"),
        ("DELETE", false) => kind.has_verb("deletecollection"),
        _ => false,
    };
    if allowed { Found::Kind(kind.clone()) } else { Found::NoSuchMethod }
}

/// `/api/v1/watch/..`, `/apis/GROUP/VERSION/watch/..`.
fn is_old_watch(ask: &Ask, target: &Target) -> bool {
    let start = match target.group.as_str() {
        "" => format!("/api/{}/watch/", target.version),
        group => format!("/apis/{group}/{}/watch/", target.version),
    };
    ask.path.starts_with(&start)
}

fn subresource(kind: &Arc<Kind>, ask: &Ask, target: &Target) -> Found {
    let Some(sub) = kind.subresource(&target.subresource) else { return Found::NoSuchPath };
    if !target.rest.is_empty() && &*sub.name != "proxy" {
        return Found::NoSuchPath;
    }
    let has = |verb: &str| sub.verbs.iter().any(|v| &**v == verb);
    let allowed = match ask.method.as_ref() {
        "GET" => has("get"),
        "POST" => has("create"),
        "PUT" => has("update"),
        "PATCH" => has("patch"),
        "DELETE" => has("delete"),
        // What is passed on is passed on whatever it asks for.
        "HEAD" | "OPTIONS" => &*sub.name == "proxy",
        _ => false,
    };
    if allowed { Found::Kind(kind.clone()) } else { Found::NoSuchMethod }
}
