//! One object of every kind with every field filled, as a Go server writes it: reading and writing gives the same text.

use std::path::Path;

use kinds::schema::TypeId;
use kinds::{managed, protobuf, tables};
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

/// The short way and the long way say the same of a new object, whole and with parts of it taken out.
#[test]
fn the_fields_of_every_new_fixture_are_said_in_two_ways() {
    let registry = kinds::builtin();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (mut checked, mut long) = (0, Vec::new());
    for kind in registry.kinds() {
        let group = if kind.group.is_empty() { "core" } else { &*kind.group };
        let name = format!("{group}.{}.{}", kind.version, kind.kind);
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{name}.json"))) else { continue };
        let mut object: Value = serde_json::from_str(&text).unwrap();
        object["metadata"].as_object_mut().map(|metadata| metadata.shift_remove("managedFields"));
        let api_version = text_of(&object, "apiVersion").to_owned();
        let owned = managed::resets(&api_version, &kind.kind, "", kind.has_status(), false);
        let write = managed::Write {
            manager: "a<b",
            api_version: &api_version,
            kind: &kind.kind,
            subresource: "",
            now: "2026-01-01T00:00:01Z",
            owned: &owned,
            convert: &managed::one_version,
        };
        for part in std::iter::once(None).chain(parts(&object).into_iter().map(Some)) {
            let mut object = object.clone();
            if let Some(part) = &part {
                let (parent, last) = part.rsplit_once('/').unwrap();
                object.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().shift_remove(last);
            }
            let short = managed::of_new(&kind.schema, kind.root, &object, &write);
            managed::update(&kind.schema, kind.root, None, &mut object, &write);
            match short {
                None => long.push(format!("{name} {}", part.unwrap_or_default())),
                Some(short) => {
                    let wanted = object["metadata"].get("managedFields").cloned().unwrap_or_default();
                    assert_eq!(
                        short,
                        String::from_utf8(api::codec::value_to_json(&wanted)).unwrap(),
                        "{name} {part:?}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert!(checked >= 2000, "{checked} objects");
    assert!(long.len() < checked / 20, "{} went the long way: {}", long.len(), long.join(", "));
}

/// An object that is brought into order on the way into its JSON is as one that was tidied and then encoded, whatever part
/// of it was put in last.
#[test]
fn every_new_fixture_is_tidied_on_its_way() {
    let registry = kinds::builtin();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut checked = 0;
    for kind in registry.kinds() {
        let group = if kind.group.is_empty() { "core" } else { &*kind.group };
        let name = format!("{group}.{}.{}", kind.version, kind.kind);
        let Ok(text) = std::fs::read_to_string(folder.join(format!("{name}.json"))) else { continue };
        let whole: Value = serde_json::from_str(&text).unwrap();
        for part in parts(&whole) {
            let (parent, last) = part.rsplit_once('/').unwrap();
            let mut object = whole.clone();
            let map = object.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
            if let Some(value) = map.shift_remove(last) {
                map.insert(last.into(), value);
            }
            let json = kind.new_to_json(&object, "[{}]").map(|json| String::from_utf8(json).unwrap());
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.insert("resourceVersion".into(), "0".into());
            metadata.insert("managedFields".into(), serde_json::json!([{}]));
            let tidied = kind.tidy(object).unwrap();
            // What reads an entry of managed fields would fill it in.
            let wanted = String::from_utf8(api::codec::value_to_json(&tidied)).unwrap();
            assert_eq!(json.as_deref(), Some(&*wanted), "{name} {part}");
            checked += 1;
        }
    }
    assert!(checked >= 2000, "{checked} objects");
}

/// JSON pointers to all that is in objects of an object, outside of lists.
fn parts(object: &Value) -> Vec<String> {
    let fields = object.as_object().into_iter().flatten();
    let below = fields.filter(|(key, _)| *key != "metadata" && !key.contains(['/', '~']));
    below
        .flat_map(|(key, value)| {
            let deeper = parts(value).into_iter().map(move |part| format!("/{key}{part}"));
            std::iter::once(format!("/{key}")).chain(deeper)
        })
        .collect()
}

#[test]
fn every_fixture_is_the_same_in_protobuf() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (mut wrong, mut checked) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "pb") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(&path).unwrap();
        let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let envelope = api::protobuf::open(&bytes).unwrap();
        // A watch event does not say its kind, and is written with the event and the object apart.
        let Some(root) = root(&value) else {
            let frame = api::protobuf::watch_frame(text_of(&value, "type"), value["object"].to_string().as_bytes());
            assert_eq!(&frame[4..], envelope.raw, "{name}");
            checked.push(name);
            continue;
        };
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
        checked.push(name);
    }
    assert!(checked.len() >= 90, "{} fixtures", checked.len());
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}

/// Upstream keeps no fixture of the kinds that are not of its main API: these are held by generated objects alone.
#[test]
fn every_served_kind_has_its_fixture() {
    const NONE: [&str; 2] = ["CustomResourceDefinition", "APIService"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let missing: Vec<String> = kinds::builtin()
        .kinds()
        .filter(|kind| !NONE.contains(&&*kind.kind))
        .map(|kind| {
            let group = if kind.group.is_empty() { "core" } else { &*kind.group };
            format!("{group}.{}.{}", kind.version, kind.kind)
        })
        .filter(|name| ["json", "pb"].iter().any(|format| !folder.join(format!("{name}.{format}")).exists()))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// Where the originals lie beside the project, the copies are compared with them.
#[test]
fn the_fixtures_are_the_originals() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(originals) = std::fs::read_dir(here.join("../../../shared/data/fixtures")) else { return };
    for original in originals {
        let original = original.unwrap().path();
        let copy = here.join("tests/fixtures").join(original.file_name().unwrap());
        let name = copy.display().to_string();
        let (original, copy) = (std::fs::read(original).unwrap(), std::fs::read(copy).unwrap());
        // The copies are compact.
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map(|value| value.to_string()).ok();
        let same = match json(&original) {
            Some(text) => json(&copy) == Some(text),
            None => copy == original,
        };
        assert!(same, "{name}");
    }
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
