//! `/version`: which Kubernetes this server is like, and which program it is.

use api::Status;
use api::codec;
use serde_json::{Value, json};

use super::{Ask, negotiate};
use crate::respond::{self, Answer};

/// The version of Kubernetes whose API is served.
pub(crate) const GIT_VERSION: &str = "v1.37.2";
const MAJOR: &str = "1";
const MINOR: &str = "37";
/// The oldest minor version that a control plane around this server may have.
const MIN_COMPATIBILITY_MINOR: &str = "36";

/// Always indented, always JSON.
pub(super) fn answer(ask: &Ask) -> Result<Answer, Status> {
    negotiate::restful(ask, "application/json")?;
    Ok(Answer::Raw(respond::raw(200, "application/json", codec::to_pretty_json(&info()))))
}

/// The keys are Kubernetes' own. `gitVersion` takes no build metadata, because clients use it as a label value; the
/// program shows in `gitCommit` and in the names of compiler and language.
pub(crate) fn info() -> Value {
    let platform = format!(
        "{}/{}",
        std::env::consts::OS,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    );
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": MIN_COMPATIBILITY_MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": concat!("kemudi-", env!("CARGO_PKG_VERSION")),
        "gitTreeState": "clean",
        // What Kubernetes says of a build whose date nobody recorded.
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
        "compiler": "rustc",
        "platform": platform,
    })
}
