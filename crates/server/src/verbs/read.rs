//! GET of one object.

use api::status::GroupResource;
use api::{GetOptions, Status, meta};
use kinds::Kind;
use serde_json::{Value, json};

use super::At;
use crate::accept::Accept;
use crate::respond::Answer;
use crate::serve::Cx;
use crate::transform;

/// Answers the object as it is now.
pub async fn get(cx: &Cx<'_>, at: &At<'_>) -> Result<Answer, Status> {
    if is_computed(at.kind) {
        let object = computed(cx).into_iter().find(|object| meta::name(object) == at.target.name);
        let of = GroupResource { group: &at.kind.group, resource: &at.kind.singular };
        let object = object.ok_or_else(|| Status::not_found(of, &at.target.name))?;
        return Ok(Answer::ok(transform::object(cx, at.kind, object, cx.accept)?));
    }
    at.check_name()?;
    if cx.ask.query.get("export").is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false")) {
        let message = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(Status::bad_request(message));
    }
    let options = GetOptions::parse(&cx.ask.query)?;
    let collection = cx.state.collection(at.kind)?;
    if let Some(revision) = options.resource_version {
        super::list::wait_for(cx.state, revision).await?;
    }
    let entry = collection.get(&at.key()).ok_or_else(|| at.not_found())?;
    match cx.accept {
        Accept { transform: None, .. } if at.kind.shows_stored(entry.revision) => {
            Ok(Answer::Encoded { code: 200, json: entry.json.bytes() })
        }
        accept => Ok(Answer::ok(transform::object(cx, at.kind, at.shown(&entry, accept), accept)?)),
    }
}

/// A kind that can be read and was never written: its objects say how the server itself is.
pub fn is_computed(kind: &Kind) -> bool {
    kind.has_verb("get") && !kind.has_verb("create")
}

/// The parts of the server. Control loops and scheduler are in its process, and end with it.
pub fn computed(cx: &Cx<'_>) -> Vec<Value> {
    let healthy = || json!({"type": "Healthy", "status": "True", "message": "ok"});
    let store = match cx.state.objects.failure() {
        None => healthy(),
        Some(why) => json!({"type": "Healthy", "status": "False", "message": "", "error": why}),
    };
    let parts = [("controller-manager", healthy()), ("etcd-0", store), ("scheduler", healthy())];
    let object = |(name, condition)| {
        json!({
            "kind": "ComponentStatus",
            "apiVersion": "v1",
            "metadata": {"name": name},
            "conditions": [condition],
        })
    };
    parts.map(object).into()
}
