//! NamespaceLifecycle: nothing is made in a namespace that is not there or is going, and some namespaces never go.

use api::status::GroupResource;
use api::{Cause, Details, Reason, Status, go, meta};
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn admit(&self, request: &Request, _: &mut Value) -> Result<(), Status> {
        if request.operation != Operation::Create || request.namespace.is_empty() || request.is("", "namespaces") {
            return Ok(());
        }
        // Asking what one may do is allowed everywhere.
        if request.is("authorization.k8s.io", "localsubjectaccessreviews") {
            return Ok(());
        }
        let Some(namespace) = request.state.get("", "namespaces", "", request.namespace) else {
            return Err(Status::not_found(GroupResource { group: "", resource: "namespaces" }, request.namespace));
        };
        if !meta::is_deleting(&namespace) {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {} because it is being terminated", request.namespace);
        let refused = request.forbidden(why);
        let cause = Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {} is being terminated", request.namespace),
            field: "metadata.namespace".into(),
        };
        let details = Details { causes: vec![cause], ..refused.details.clone().unwrap_or_default() };
        Err(Status { details: Some(details), ..refused })
    }

    fn validate(&self, request: &Request, _: Option<&Value>) -> Result<(), Status> {
        let protected = request.operation == Operation::Delete && request.is("", "namespaces");
        if protected && IMMORTAL.contains(&request.name) {
            let why = format!("namespaces {} is forbidden: this namespace may not be deleted", go::quote(request.name));
            let details = Details { name: request.name.into(), kind: "namespaces".into(), ..Details::default() };
            return Err(Status { details: Some(details), ..Status::failure(403, Reason::Forbidden, why) });
        }
        Ok(())
    }
}
