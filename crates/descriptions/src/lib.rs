//! What the built-in types and fields are for, in Kubernetes' own words: what `kubectl explain` prints. The texts are packed,
//! and unpacked when somebody first asks. It knows no schema and no kind: only names and texts.

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

use flate2::read::ZlibDecoder;

/// Written by `build.rs`: type, field (empty for the type itself) and text, separated, each record ended.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));

const UNIT: char = '\u{1f}';
const RECORD: char = '\u{1e}';

static TEXTS: LazyLock<HashMap<(&str, &str), &str>> = LazyLock::new(|| {
    let mut text = String::new();
    // What was packed by the build unpacks; else there are none.
    let _ = ZlibDecoder::new(PACKED).read_to_string(&mut text);
    let records = String::leak(text).split_terminator(RECORD);
    records
        .filter_map(|record| {
            let mut parts = record.splitn(3, UNIT);
            Some(((parts.next()?, parts.next()?), parts.next()?))
        })
        .collect()
});

/// What a type is for, by its OpenAPI name: `io.k8s.api.core.v1.Pod`.
pub fn of_type(name: &str) -> Option<&'static str> {
    TEXTS.get(&(name, "")).copied()
}

/// What a field of a type is for, by its name in JSON.
pub fn of_field(type_name: &str, field: &str) -> Option<&'static str> {
    TEXTS.get(&(type_name, field)).copied()
}

#[cfg(test)]
mod tests {
    #[test]
    fn types_and_fields_are_described() {
        let pod = "io.k8s.api.core.v1.Pod";
        let says =
            |text: Option<&str>, words: &str| assert!(text.is_some_and(|text| text.starts_with(words)), "{text:?}");
        says(super::of_type(pod), "Pod is a collection of containers that can run on a host.");
        says(super::of_field(pod, "spec"), "Specification of the desired behavior of the pod.");
        let options = "io.k8s.apimachinery.pkg.apis.meta.v1.ListOptions";
        says(super::of_field(options, "limit"), "limit is a maximum number of responses to return for a list call.");
        assert_eq!((super::of_type("io.k8s.api.core.v1.Nothing"), super::of_field(pod, "nothing")), (None, None));
    }
}
