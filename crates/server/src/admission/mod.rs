//! Admission: what changes or refuses a write after it was decoded. One plugin a file; the lists below are the run order.

mod certificates;
mod custom_resources;
mod default_ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
pub mod node_restriction;
pub mod pod_defaults;
mod pod_security;
pub mod pod_topology_labels;
mod runtime_class;
pub mod service_account;
mod storage;
mod taint_nodes;

use std::sync::{Arc, Mutex, PoisonError};

use api::Status;
use api::status::GroupResource;
use jiff::Timestamp;
use kinds::Kind;
use serde_json::Value;

use crate::audit::Trail;
use crate::authn::User;
use crate::authz::Hearing;
use crate::serve::Cx;
use crate::state::State;
use crate::verbs::At;

/// The write that is looked at.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub state: &'a Arc<State>,
    pub user: &'a User,
    pub kind: &'a Kind,
    pub operation: Operation,
    /// `""` for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// `""` while a create has only a `generateName`.
    pub name: &'a str,
    /// The stored object, on updates and deletions.
    pub old: Option<&'a Value>,
    pub now: Timestamp,
    /// What the client is to be told beside the answer; see [`Request::warn`].
    pub warnings: &'a Mutex<Vec<String>>,
    /// Where a plugin notes what the audit log should tell.
    pub audit: &'a Trail,
    /// What webhooks have said to the request; while a question is open, all that is said of the write is void.
    pub hearing: &'a Hearing,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// The word for it in error texts.
    pub fn word(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }
}

/// One admission plugin. Reads the cluster through `request.state`, never waits.
pub trait Plugin: Sync {
    /// Changes the object, or refuses it.
    fn admit(&self, _: &Request, _: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Looks at the final object (none on deletions) and refuses, or not.
    fn validate(&self, _: &Request, _: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

const ALL: &[&dyn Plugin] = &[
    &custom_resources::CustomResourcesOfTerminating,
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_restriction::NodeRestriction,
    &taint_nodes::TaintNodesByCondition,
    &pod_security::PodSecurity,
    &pod_defaults::Priority,
    &pod_defaults::DefaultTolerationSeconds,
    &storage::DefaultStorageClass,
    &storage::StorageObjectInUseProtection,
    &storage::PersistentVolumeClaimResize,
    &runtime_class::RuntimeClass,
    &certificates::Requester,
    &certificates::Approval,
    &certificates::Signing,
    &certificates::SubjectRestriction,
    &default_ingress_class::DefaultIngressClass,
    &pod_topology_labels::PodTopologyLabels,
];

/// Runs the plugins that change objects, and those that refuse before anything is looked up.
pub fn mutate(request: &Request, object: &mut Value) -> Result<(), Status> {
    ALL.iter().try_for_each(|plugin| plugin.admit(request, object))
}

/// Runs the plugins that only refuse, on the final object.
pub fn validate(request: &Request, object: Option<&Value>) -> Result<(), Status> {
    ALL.iter().try_for_each(|plugin| plugin.validate(request, object))
}

impl<'a> Request<'a> {
    /// A write of the object itself; set `subresource`, `name` and `old` on top of it.
    pub fn new(cx: &Cx<'a>, at: &At<'a>, operation: Operation, warnings: &'a Mutex<Vec<String>>) -> Request<'a> {
        Request {
            state: cx.state,
            user: cx.user,
            kind: at.kind,
            operation,
            subresource: "",
            namespace: at.namespace(),
            name: &at.target.name,
            old: None,
            now: cx.now,
            warnings,
            audit: cx.audit,
            hearing: cx.hearing,
        }
    }

    /// Tells the client something in a `Warning` header.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    pub fn is(&self, group: &str, plural: &str) -> bool {
        &*self.kind.group == group && &*self.kind.plural == plural
    }

    /// The 403 of a plugin.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        let of = GroupResource { group: &self.kind.group, resource: &self.kind.plural };
        Status::forbidden(of, self.name, why)
    }
}
