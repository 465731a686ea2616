//! GET of one object.

use api::{GetOptions, Status};

use super::At;
use crate::accept::Accept;
use crate::respond::Answer;
use crate::serve::Cx;
use crate::transform;

/// Answers the object as it is now.
pub async fn get(cx: &Cx<'_>, at: &At<'_>) -> Result<Answer, Status> {
    at.check_name()?;
    let options = GetOptions::parse(&cx.ask.query)?;
    let collection = cx.state.collection(at.kind)?;
    if let Some(revision) = options.resource_version {
        super::list::wait_for(cx, revision).await?;
    }
    let entry = collection.get(&at.key()).ok_or_else(|| at.not_found())?;
    match cx.accept {
        Accept { transform: None, .. } => Ok(Answer::Encoded { code: 200, json: entry.json.clone() }),
        accept => Ok(Answer::ok(transform::object(cx, at.kind, entry.value(), accept)?)),
    }
}
