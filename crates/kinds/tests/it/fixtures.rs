//! One object of every kind with every field filled, as a Go server writes it: reading and writing gives the same text.

use std::path::Path;

use kinds::schema::TypeId;
use kinds::tables;
use serde_json::Value;

fn root(object: &Value) -> Option<TypeId> {
    let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    tables::type_of(api_version, kind)
}

#[test]
fn every_fixture_survives_reading_and_writing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        // A watch event does not say its kind.
        let root = root(&value).or_else(|| tables::schema().find("apimachinery.pkg.apis.meta.v1.WatchEvent")).unwrap();
        let decoded = kinds::decode::decode(tables::schema(), root, text.as_bytes());
        let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded.strict, Vec::<String>::new(), "{name}");
        assert_eq!(decoded.object.to_string(), text.trim_end(), "{name}");
        // Taken apart and put together again, in any order of keys.
        let mut shuffled = value.clone();
        shuffled.sort_all_objects();
        let normalized = kinds::decode::normalize(tables::schema(), root, shuffled).unwrap();
        assert_eq!(normalized.object.to_string(), text.trim_end(), "{name} normalized");
        checked += 1;
    }
    assert!(checked >= 90, "{checked} fixtures");
}
