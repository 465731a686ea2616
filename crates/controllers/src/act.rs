//! What controllers do to the world, one request each. Outcomes that another's work explains are no failures.

use std::sync::Arc;
use std::time::Duration;

use kemudi_client::{Api, ApiResource, Client, DeleteOptions, Dynamic, Error, Patch, Resource, WriteOptions};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::TokenSigner;
use crate::disruption::Counted;
use crate::endpoint_slices::{self, Wanted};
use crate::event::{self, Happened};
use crate::kinds::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};
use crate::resources::Resources;

/// The name under which fields are owned.
const MANAGER: &str = "kube-controller-manager";

/// One thing to do.
pub enum Action {
    Create {
        resource: ApiResource,
        object: Value,
    },
    /// Writes an object back; one that changed meanwhile is left to the next decision.
    Replace {
        resource: ApiResource,
        object: Value,
    },
    /// Writes an object's status back; one that changed meanwhile is left to the next decision.
    ReplaceStatus {
        resource: ApiResource,
        object: Value,
    },
    /// Tells an Event about an object, once as long as nothing else is told of its key.
    Tell {
        component: &'static str,
        about: Value,
        kind: &'static str,
        reason: &'static str,
        message: String,
    },
    /// Decides again after this time, though nothing happens.
    Again {
        after: Duration,
    },
    /// Counts pods by the scale of what controls them, and writes a budget's status.
    Budget(Box<Counted>),
    /// Deletes this object, and no other of its name.
    Delete {
        resource: ApiResource,
        namespace: String,
        name: String,
        uid: String,
    },
    /// Makes the slices of a Service what they are to be.
    EndpointSlices(Box<Wanted>),
    /// Server-side apply under a manager's name.
    Apply {
        resource: ApiResource,
        manager: &'static str,
        object: Value,
    },
    /// Deletes all that a namespace holds, and then lets it go.
    EmptyNamespace {
        name: String,
        uid: String,
        resources: Resources,
        working: Arc<Semaphore>,
    },
    /// Deletes all that a definition defined, and then lets it go.
    CleanUp {
        name: String,
        uid: String,
    },
    /// Puts a pod on a node, and says so in an Event.
    Bind {
        pod: Value,
        node: String,
    },
    /// Writes a node's taints: those that stay, and new ones with the time.
    Taint {
        node: String,
        resource_version: String,
        keep: Vec<Value>,
        add: Vec<Value>,
    },
    /// Says in a pod's conditions, and in an Event, why no node takes it.
    Unschedulable {
        pod: Value,
        message: String,
    },
    /// Looks at a token Secret and its account as they are now: fills it, or deletes it where the account is not its own.
    TokenSecret {
        namespace: String,
        name: String,
        ca_pem: Arc<str>,
        signer: Arc<dyn TokenSigner>,
    },
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::Create { resource, object } => write!(f, "create {} {object}", resource.plural),
            Action::Replace { resource, object } => write!(f, "replace {} {object}", resource.plural),
            Action::ReplaceStatus { resource, object } => {
                write!(f, "replace {} {} status {}", resource.plural, api::meta::name(object), object["status"])
            }
            Action::Tell { about, kind, reason, message, .. } => {
                write!(f, "tell {} {kind} {reason}: {message}", about["name"].as_str().unwrap_or_default())
            }
            Action::Again { after } => write!(f, "again after {} s", after.as_secs()),
            Action::Budget(counted) => write!(f, "{counted:?}"),
            Action::Delete { resource, name, .. } => write!(f, "delete {} {name}", resource.plural),
            Action::EndpointSlices(wanted) => {
                write!(f, "endpoints of {}:", wanted.name)?;
                for group in &wanted.groups {
                    let ports: Vec<String> = group.ports.iter().map(|port| port["port"].to_string()).collect();
                    write!(f, " {} [{}]", group.address_type, ports.join(" "))?;
                    group.endpoints.iter().try_for_each(|endpoint| write!(f, " {endpoint}"))?;
                }
                Ok(())
            }
            Action::Apply { resource, object, .. } => write!(f, "apply {} {object}", resource.plural),
            Action::EmptyNamespace { name, .. } => write!(f, "empty namespace {name}"),
            Action::CleanUp { name, .. } => write!(f, "clean up after {name}"),
            Action::Bind { pod, node } => write!(f, "bind {} to {node}", api::meta::name(pod)),
            Action::Taint { node, keep, add, .. } => {
                let keys =
                    |taints: &[Value]| taints.iter().map(|taint| format!(" {}", taint["key"])).collect::<String>();
                write!(f, "taint {node}: keep{} add{}", keys(keep), keys(add))
            }
            Action::Unschedulable { pod, message, .. } => write!(f, "leave {}: {message}", api::meta::name(pod)),
            Action::TokenSecret { name, .. } => write!(f, "token secret {name}"),
        }
    }
}

pub async fn act(client: &Client, action: Action) -> Result<(), Error> {
    let outcome = match action {
        Action::Create { resource, object } => create(client, &resource, object).await,
        Action::Replace { resource, object } => {
            let api = of(client, &resource, &object);
            api.replace(&Dynamic(object)).await.map(drop)
        }
        Action::ReplaceStatus { resource, object } => replace_status(client, &resource, object).await,
        Action::Tell { component, about, kind, reason, message } => {
            event::tell(client, component, about, Happened { kind, reason, message: &message }).await;
            Ok(())
        }
        Action::Again { .. } => Ok(()),
        Action::Budget(counted) => crate::disruption::count(client, *counted).await,
        Action::Delete { resource, namespace, name, uid } => {
            let preconditions = api::Preconditions { uid: Some(uid), resource_version: None };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            let api = Api::<Dynamic>::namespaced_of(client.clone(), &namespace, &resource);
            api.delete_with(&name, &options).await.map(drop)
        }
        Action::EndpointSlices(wanted) => endpoint_slices::write(client, &wanted).await,
        Action::Apply { resource, manager, object } => apply(client, &resource, manager, &object).await,
        Action::EmptyNamespace { name, uid, resources, working } => {
            crate::empty_namespace::run(client, &name, &uid, &resources, &working).await
        }
        Action::CleanUp { name, uid } => crate::definitions::clean_up(client, &name, &uid).await,
        Action::Bind { pod, node } => bind(client, &pod, &node).await,
        Action::Taint { node, resource_version, keep, add } => taint(client, &node, &resource_version, keep, add).await,
        Action::Unschedulable { pod, message } => unschedulable(client, &pod, &message).await,
        Action::TokenSecret { namespace, name, ca_pem, signer } => {
            token_secret(client, &namespace, &name, &ca_pem, &*signer).await
        }
    };
    match outcome {
        // Another was quicker, or it went meanwhile: the watch tells, and the next decision sees it.
        Err(error) if error.is_already_exists() || error.is_not_found() || is_terminating(&error) => Ok(()),
        other => other,
    }
}

/// Nothing is made in a namespace that is being deleted.
fn is_terminating(error: &Error) -> bool {
    let causes = error.status().and_then(|status| status.details.as_ref()).map(|details| details.causes.as_slice());
    causes.unwrap_or_default().iter().any(|cause| cause.reason == "NamespaceTerminating")
}

async fn create(client: &Client, resource: &ApiResource, object: Value) -> Result<(), Error> {
    of(client, resource, &object).create(&Dynamic(object)).await.map(drop)
}

pub async fn replace_status(client: &Client, resource: &ApiResource, object: Value) -> Result<(), Error> {
    let name = api::meta::name(&object).to_string();
    let api = of(client, resource, &object);
    api.replace_subresource::<Value>(&name, "status", &object).await.map(drop)
}

/// Server-side apply; the whole object where the server has none.
async fn apply(client: &Client, resource: &ApiResource, manager: &str, object: &Value) -> Result<(), Error> {
    let api = of(client, resource, object);
    let name = api::meta::name(object);
    match api.patch(name, &Patch::Apply { manager, force: true, object }).await {
        Err(error) if matches!(error.code(), Some(415 | 501)) => {}
        other => return other.map(drop),
    }
    let mut live = api.get(name).await?;
    let wanted = object.as_object().into_iter().flatten();
    for (field, value) in wanted.filter(|(field, _)| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata")) {
        live[field.as_str()] = value.clone();
    }
    if object.get("rules").is_none() && live.get("rules").is_some() {
        live["rules"] = Value::Null;
    }
    let options = WriteOptions { field_manager: manager.to_string(), ..WriteOptions::default() };
    api.replace_with(&live, &options).await.map(drop)
}

async fn bind(client: &Client, pod: &Value, node: &str) -> Result<(), Error> {
    let (namespace, name) = (api::meta::namespace(pod), api::meta::name(pod));
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": api::meta::uid(pod)},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let pods = Api::namespaced_of(client.clone(), namespace, &PODS);
    match pods.create_subresource::<Value>(name, "binding", &binding).await {
        // It has a node by now.
        Err(error) if error.is_conflict() => return Ok(()),
        answer => drop(answer?),
    }
    let message = format!("Successfully assigned {namespace}/{name} to {node}");
    let about = event::reference("v1", "Pod", namespace, name, api::meta::uid(pod));
    let happened = Happened { kind: "Normal", reason: "Scheduled", message: &message };
    event::tell(client, crate::scheduler::NAME, about, happened).await;
    Ok(())
}

async fn taint(
    client: &Client,
    node: &str,
    resource_version: &str,
    keep: Vec<Value>,
    mut add: Vec<Value>,
) -> Result<(), Error> {
    let now = event::time(jiff::Timestamp::now());
    for taint in &mut add {
        taint["timeAdded"] = now.as_str().into();
    }
    let taints: Vec<Value> = keep.into_iter().chain(add).collect();
    let taints = if taints.is_empty() { Value::Null } else { Value::Array(taints) };
    let merge = json!({"metadata": {"resourceVersion": resource_version}, "spec": {"taints": taints}});
    Api::<Dynamic>::all_of(client.clone(), &NODES).patch_with(node, &Patch::Merge(&merge), &manager()).await.map(drop)
}

async fn unschedulable(client: &Client, pod: &Value, message: &str) -> Result<(), Error> {
    let (namespace, name, uid) = (api::meta::namespace(pod), api::meta::name(pod), api::meta::uid(pod));
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": event::time(jiff::Timestamp::now()), "observedGeneration": pod["metadata"]["generation"],
    });
    let merge = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
    let pods = Api::<Dynamic>::namespaced_of(client.clone(), namespace, &PODS);
    pods.patch_status(name, &Patch::Strategic(&merge)).await?;
    let about = event::reference("v1", "Pod", namespace, name, uid);
    let happened = Happened { kind: "Warning", reason: "FailedScheduling", message };
    event::tell(client, crate::scheduler::NAME, about, happened).await;
    Ok(())
}

async fn token_secret(
    client: &Client,
    namespace: &str,
    name: &str,
    ca_pem: &str,
    signer: &dyn TokenSigner,
) -> Result<(), Error> {
    let secrets = Api::namespaced_of(client.clone(), namespace, &SECRETS);
    let Some(secret) = secrets.get_opt(name).await? else { return Ok(()) };
    let account_name = crate::token_secret::account_of(&secret).to_string();
    let account = match account_name.is_empty() {
        true => None,
        false => Api::namespaced_of(client.clone(), namespace, &SERVICE_ACCOUNTS).get_opt(&account_name).await?,
    };
    match account.filter(|account| crate::token_secret::belongs(&secret, account)) {
        None => {
            let preconditions = api::Preconditions {
                uid: Some(secret.uid().to_string()),
                resource_version: Some(secret.resource_version().to_string()),
            };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            secrets.delete_with(name, &options).await.map(drop)
        }
        Some(account) => match crate::token_secret::filled(&secret, &account, ca_pem, signer) {
            Ok(None) => Ok(()),
            Ok(Some(filled)) => secrets.replace_with(&Dynamic(filled), &manager()).await.map(drop),
            Err(why) => Err(Error::Request(format!("no token could be signed: {why}"))),
        },
    }
}

fn of(client: &Client, resource: &ApiResource, object: &Value) -> Api<Dynamic> {
    Api::namespaced_of(client.clone(), api::meta::namespace(object), resource)
}

pub fn manager() -> WriteOptions {
    WriteOptions { field_manager: MANAGER.to_string(), ..WriteOptions::default() }
}
