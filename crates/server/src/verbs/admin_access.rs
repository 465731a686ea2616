//! Admin access to devices: who asks for it, or is given it, must be in a namespace whose label allows it. Reads that one
//! label; whether the access is used is the business of drivers.

use kinds::builtin::read::Read;
use kinds::{Cause, Kind};
use serde_json::Value;

use super::At;
use super::write::Part;
use crate::lookup::Lookup;
use crate::state::State;

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// What is wrong with the first admin access that a new claim, a new template of claims or the status of a claim gains.
pub fn refused(state: &State, at: &At<'_>, part: Part<'_>, new: &Value, old: Option<&Value>) -> Option<Cause> {
    let path = gained(at.kind, part, new, old)?;
    let namespace = state.get("", "namespaces", "", at.namespace());
    let allowed = namespace.is_some_and(|namespace| namespace.at("metadata.labels").key(LABEL) == "true");
    (!allowed).then(|| {
        let why = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        Cause::forbidden(path, &why)
    })
}

/// Where admin access is that was not there before. A spec never changes, so only a new one is looked at.
fn gained(kind: &Kind, part: Part<'_>, new: &Value, old: Option<&Value>) -> Option<String> {
    if &*kind.group != "resource.k8s.io" {
        return None;
    }
    let requests = match (&*kind.kind, part, old) {
        ("ResourceClaim", Part::Object, None) => "spec.devices.requests",
        ("ResourceClaimTemplate", Part::Object, None) => "spec.spec.devices.requests",
        ("ResourceClaim", Part::Status, Some(old)) => {
            let results = "status.allocation.devices.results";
            let granted = |claim: &Value| claim.list(results).iter().position(|result| result.flag("adminAccess"));
            let at = granted(new).filter(|_| granted(old).is_none())?;
            return Some(format!("{results}[{at}].adminAccess"));
        }
        _ => return None,
    };
    let at = new.list(requests).iter().position(|request| request.flag("exactly.adminAccess"))?;
    Some(format!("spec.devices.requests[{at}].adminAccess"))
}
