//! The command line's JSONPath, which lives in a program and not in a library.

#[path = "../../crates/kemudi/src/cli/jsonpath.rs"]
pub mod jsonpath;

/// What JSONPath uses of its neighbours.
pub mod output {
    use serde_json::Value;

    /// Compact JSON with sorted keys.
    pub fn compact(value: &Value) -> String {
        let mut value = value.clone();
        value.sort_all_objects();
        value.to_string()
    }
}
