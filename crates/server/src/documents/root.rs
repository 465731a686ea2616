//! `/`: the paths that are served and are no resource's.

use std::collections::BTreeSet;

use api::codec;
use kinds::Registry;
use serde_json::json;

use super::health::Endpoint;
use crate::respond::{self, Answer};

const FIXED: &[&str] = &[
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/apis/",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/version",
];

/// Always indented JSON, in alphabetical order.
pub(super) fn paths(registry: &Registry) -> Answer {
    let mut paths: BTreeSet<String> = FIXED.iter().map(|path| (*path).to_owned()).collect();
    paths.extend(Endpoint::paths());
    for group in registry.groups() {
        let prefix = match &*group.name {
            "" => "/api".to_owned(),
            name => format!("/apis/{name}"),
        };
        paths.extend(group.versions.iter().map(|served| format!("{prefix}/{}", served.version)));
        paths.insert(prefix);
    }
    Answer::Raw(respond::raw(200, "application/json", codec::to_pretty_json(&json!({ "paths": paths }))))
}
