//! One object of every kind with every field filled, as a Go server writes it: reading and writing gives the same text.

use std::path::Path;

use kinds::schema::TypeId;
use kinds::{protobuf, tables};
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
        if path.extension().is_none_or(|kind| kind != "json") {
            continue;
        }
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

#[test]
fn every_fixture_is_the_same_in_protobuf() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "pb") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let envelope = protobuf::open(&bytes).unwrap();
        // A watch event does not say its kind.
        let Some(root) = root(&value) else { continue };
        assert_eq!((&*envelope.api_version, &*envelope.kind), (text_of(&value, "apiVersion"), text_of(&value, "kind")));
        let read = protobuf::decode(tables::schema(), root, envelope.raw).unwrap_or_else(|why| panic!("{name}: {why}"));
        let mut object = serde_json::Map::new();
        object.insert("kind".into(), value["kind"].clone());
        object.insert("apiVersion".into(), value["apiVersion"].clone());
        object.extend(read.as_object().cloned().unwrap());
        let normalized = kinds::decode::normalize(tables::schema(), root, object.into()).unwrap();
        let written = normalized.object.to_string();
        if written != text.trim_end() {
            wrong.push(format!("{name} read\n  {}\n  {}", normalized.object, text.trim_end()));
        }
        if protobuf::encode(&value).as_deref() != Some(&*bytes) {
            wrong.push(format!("{name} written\n  {:?}\n  {:?}", protobuf::encode(&value), bytes));
        }
    }
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
