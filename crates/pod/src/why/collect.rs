//! What a caller may see of a cluster's rights: roles, bindings, accounts, namespaces, resources, and the server's own reviews.
//! Only reads; what is out of reach is named, never guessed.

use futures_util::join;
use http::Method;
use kemudi_client::client::request;
use kemudi_client::discovery::Discovery;
use kemudi_client::{Client, Error};
use rights::{Asked, Binding, Known, Part, Role, Rule, Served, Unseen, Verdict, account_of};
use serde_json::{Value, json};

use super::{By, acting};
use crate::{Global, whoami};

const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";
/// Objects that are asked for at once.
const PAGE_OBJECTS: usize = 500;
/// Pages that are read of one list; a cluster with more roles than that is explained by what was read.
const PAGES_MAX: usize = 40;

/// Whose rights are asked about, seen from who asks.
pub enum Whose {
    Own,
    /// Somebody else's, whose groups are known.
    Others(Vec<String>),
    /// Somebody else's, who may be in groups that nobody here knows.
    Strangers,
}

/// Who made the request, with the groups as far as they are known.
///
/// # Errors
/// What asking the server who the caller is gave: a 401 above all.
pub async fn who(client: &Client, global: &Global, asked: Asked, by: By) -> Result<(Asked, Whose), Error> {
    let own = match whoami::review(client).await {
        Ok(review) => Some(review["status"]["userInfo"].clone()),
        Err(error) if error.is_forbidden() || error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let name = own.as_ref().and_then(|own| own["username"].as_str()).unwrap_or_default().to_string();
    let groups = || texts(own.as_ref().map_or(&Value::Null, |own| &own["groups"]));
    Ok(match (by, &global.as_user) {
        (By::Known, _) if asked.user == name => (asked, Whose::Own),
        (By::Known, _) => {
            let groups = asked.groups.clone();
            (asked, Whose::Others(groups))
        }
        (_, Some(user)) => {
            let groups = [rights::asked::groups_of(user), global.as_group.clone()].concat();
            (asked.by(user, groups), Whose::Others(global.as_group.clone()))
        }
        (By::Caller, None) if name.is_empty() => {
            let why = "the server does not say whom it takes you for; say about whom you ask: --as USER";
            return Err(Error::Request(why.to_string()));
        }
        (By::Caller, None) => (asked.by(&name, groups()), Whose::Own),
        (By::Named, None) if asked.user == name => (asked.by(&name, groups()), Whose::Own),
        (By::Named, None) if account_of(&asked.user).is_some() || asked.is_anonymous() => {
            (asked, Whose::Others(Vec::new()))
        }
        (By::Named, None) => {
            let user = asked.user.clone();
            let groups = [rights::asked::groups_of(&user), global.as_group.clone()].concat();
            let is_known = !global.as_group.is_empty();
            (asked.by(&user, groups), if is_known { Whose::Others(global.as_group.clone()) } else { Whose::Strangers })
        }
    })
}

/// Everything that the caller may see and that matters to the request.
pub async fn known(client: &Client, asked: &Asked, whose: Whose) -> Known {
    let here = asked.namespace.as_str();
    let home = account_of(&asked.user).map_or(here, |(namespace, _)| namespace);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let (cluster_roles, cluster_bindings, roles, bindings, accounts, namespaces, discovery, verdict) = join!(
        list(client, rbac, "clusterroles", ""),
        list(client, rbac, "clusterrolebindings", ""),
        list(client, rbac, "roles", here),
        list(client, rbac, "rolebindings", here),
        list(client, "/api/v1", "serviceaccounts", home),
        list(client, "/api/v1", "namespaces", ""),
        Discovery::fetch(client),
        verdict(client, asked, &whose),
    );
    let mut known = Known { verdict, ..Known::default() };
    let mut note = |part: Part, what: &str, found: Found| {
        if let Some(why) = found.why {
            let what = match found.except.as_str() {
                "" => what.to_string(),
                except => format!("{what} of other namespaces than {except:?}"),
            };
            known.unseen.push(Unseen { part, except: found.except, why: format!("{what}: {why}") });
        }
        found.objects
    };
    let cluster_roles = note(Part::ClusterRoles, "ClusterRoles", cluster_roles);
    let cluster_bindings = note(Part::ClusterRoleBindings, "ClusterRoleBindings", cluster_bindings);
    let roles = note(Part::Roles, "Roles", roles);
    let bindings = note(Part::RoleBindings, "RoleBindings", bindings);
    let accounts = note(Part::ServiceAccounts, "ServiceAccounts", accounts);
    let namespaces = note(Part::Namespaces, "Namespaces", namespaces);
    let names = |object: &Value| (api::meta::namespace(object).to_string(), api::meta::name(object).to_string());
    known.roles = cluster_roles.iter().chain(&roles).map(Role::of).collect();
    known.bindings = cluster_bindings.iter().chain(&bindings).map(Binding::of).collect();
    known.accounts = accounts.iter().map(names).collect();
    known.namespaces = namespaces.iter().map(|object| names(object).1).collect();
    match discovery {
        Ok(discovery) => known.resources = discovery.resources.into_iter().map(served).collect(),
        Err(error) => {
            let why = format!("the resources that the server has: {}", said(&error));
            known.unseen.push(Unseen { part: Part::Resources, except: String::new(), why });
        }
    }
    if matches!(whose, Whose::Strangers) {
        let why = format!("the groups of {}: name them with --as-group", asked.user);
        known.unseen.push(Unseen { part: Part::Groups, except: String::new(), why });
    }
    if !known.sees_rights(here) {
        known.held = held(client, asked, &whose).await;
    }
    known
}

/// What a list gave.
struct Found {
    objects: Vec<Value>,
    /// The one namespace that it is of, where it could not be read of all.
    except: String,
    /// Why not all of it is there.
    why: Option<String>,
}

/// All objects of a resource, or those of one namespace where no more may be read.
async fn list(client: &Client, prefix: &str, resource: &str, namespace: &str) -> Found {
    let why = match pages(client, &format!("{prefix}/{resource}")).await {
        Ok(objects) => return Found { objects, except: String::new(), why: None },
        Err(why) => Some(why),
    };
    if !namespace.is_empty()
        && let Ok(objects) = pages(client, &format!("{prefix}/namespaces/{namespace}/{resource}")).await
    {
        return Found { objects, except: namespace.to_string(), why };
    }
    Found { objects: Vec::new(), except: String::new(), why }
}

async fn pages(client: &Client, path: &str) -> Result<Vec<Value>, String> {
    let (mut objects, mut next) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let mut query = api::Query(vec![("limit".into(), PAGE_OBJECTS.to_string())]);
        if !next.is_empty() {
            query.push("continue", next);
        }
        let mut page: Value = client.get(&format!("{path}?{}", query.print())).await.map_err(|error| said(&error))?;
        if let Value::Array(items) = page["items"].take() {
            objects.extend(items);
        }
        next = page["metadata"]["continue"].as_str().unwrap_or_default().to_string();
        if next.is_empty() {
            return Ok(objects);
        }
    }
    Err(format!("there are more than {}", PAGE_OBJECTS * PAGES_MAX))
}

/// Why something could not be read, in a few words.
fn said(error: &Error) -> String {
    if error.is_forbidden() { "you may not list them".to_string() } else { error.to_string() }
}

fn served(found: kemudi_client::discovery::Discovered) -> Served {
    let words = [found.singular, found.resource.kind.to_string()].into_iter().chain(found.short_names);
    Served {
        group: found.resource.group.to_string(),
        plural: found.resource.plural.to_string(),
        words: words.map(|word| word.to_lowercase()).collect(),
        subresources: found.subresources,
        namespaced: found.resource.namespaced,
    }
}

/// What the server itself says of the request; nothing where it may not be asked.
async fn verdict(client: &Client, asked: &Asked, whose: &Whose) -> Option<Verdict> {
    let mut spec = match asked.is_path() {
        true => json!({"nonResourceAttributes": {"verb": asked.verb, "path": asked.path}}),
        false => json!({"resourceAttributes": {
            "verb": asked.verb, "group": asked.group, "resource": asked.resource, "subresource": asked.subresource,
            "namespace": asked.namespace, "name": asked.name,
        }}),
    };
    let review = match whose {
        Whose::Own => post(client, "authorization", "SelfSubjectAccessReview", &spec).await,
        // It may be in groups that we do not know: a no would not be the truth.
        Whose::Strangers => return None,
        Whose::Others(groups) => {
            let own = spec.clone();
            spec["user"] = json!(asked.user);
            spec["groups"] = json!(asked.groups);
            let kind = "SubjectAccessReview";
            let mut review = post(client, "authorization", kind, &spec).await;
            if review.is_err() && !asked.namespace.is_empty() {
                let path = format!("{AUTHORIZATION}/namespaces/{}/localsubjectaccessreviews", asked.namespace);
                review = post_to(client, &path, "authorization", "LocalSubjectAccessReview", &spec).await;
            }
            if review.is_err() {
                let client = acting(client, asked, groups).ok()?;
                review = post(&client, "authorization", "SelfSubjectAccessReview", &own).await;
            }
            review
        }
    };
    let status = &review.ok()?["status"];
    let texts = ["reason", "evaluationError"].iter().filter_map(|field| status[*field].as_str());
    let reason = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" - ");
    Some(Verdict { allowed: status["allowed"] == true, reason })
}

/// The rules that the user holds in the request's namespace, as far as the server tells them.
async fn held(client: &Client, asked: &Asked, whose: &Whose) -> Vec<Rule> {
    if asked.namespace.is_empty() {
        return Vec::new();
    }
    let client = match whose {
        Whose::Own => client.clone(),
        Whose::Strangers => return Vec::new(),
        Whose::Others(groups) => match acting(client, asked, groups) {
            Ok(client) => client,
            Err(_) => return Vec::new(),
        },
    };
    let spec = json!({"namespace": asked.namespace});
    let Ok(mut review) = post(&client, "authorization", "SelfSubjectRulesReview", &spec).await else {
        return Vec::new();
    };
    let rules = review["status"]["resourceRules"].take();
    Rule::all_of(&json!({"rules": rules}))
}

/// The server's answer to a review, one of `GROUP.k8s.io/v1`.
pub async fn post(client: &Client, group: &str, kind: &str, spec: &Value) -> Result<Value, Error> {
    post_to(client, &format!("/apis/{group}.k8s.io/v1/{}s", kind.to_lowercase()), group, kind, spec).await
}

async fn post_to(client: &Client, path: &str, group: &str, kind: &str, spec: &Value) -> Result<Value, Error> {
    let mut body = json!({"apiVersion": format!("{group}.k8s.io/v1"), "kind": kind, "spec": spec});
    if kind.starts_with("Local") {
        body["metadata"] = json!({"namespace": spec["resourceAttributes"]["namespace"]});
    }
    client.json(request(Method::POST, path, Some(api::codec::to_json(&body).into()))?).await
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_string)).collect()
}
