//! Custom resources whose definition is being deleted: no new ones.

use api::Status;
use serde_json::Value;

use super::{Operation, Plugin, Request};

pub struct CustomResourcesOfTerminating;

impl Plugin for CustomResourcesOfTerminating {
    fn admit(&self, request: &Request, _: &mut Value) -> Result<(), Status> {
        let terminating = request.kind.custom.as_ref().is_some_and(|custom| custom.is_terminating);
        match terminating && request.operation == Operation::Create && request.subresource.is_empty() {
            true => Err(request.forbidden("create not allowed while custom resource definition is terminating")),
            false => Ok(()),
        }
    }
}
