//! Whole documents: what decodes is written, and what was written decodes to the same.

use std::sync::Arc;

use kinds::fieldset::Set;
use kinds::schema::{Schema, Shape, TypeId};
use kinds::{Kind, Registry, decode, protobuf};
use serde_json::{Map, Value};

use crate::generate;
use crate::tape::Tape;

/// A JSON body of the kind that it names, or a Pod.
pub fn json(bytes: &[u8]) {
    let registry = kinds::builtin();
    let kind = decode::type_meta(bytes).ok().and_then(|(version, kind)| kind_of(&registry, &version, &kind));
    let kind = kind.unwrap_or_else(|| registry.kind("", "v1", "pods").expect("pods are served").clone());
    let Ok(read) = kind.decode(bytes) else { return };
    // What is told of duplicates stands in the text.
    let _ = decode::duplicate_fields(bytes);
    stays(&kind, &read.object);
}

/// A message in its envelope, of the kind that the envelope names.
pub fn protobuf(bytes: &[u8]) {
    let Ok(envelope) = api::protobuf::open(bytes) else { return };
    let registry = kinds::builtin();
    let Some(kind) = kind_of(&registry, &envelope.api_version, &envelope.kind) else { return };
    let Ok(read) = protobuf::decode(&kind.schema, kind.root, envelope.raw) else { return };
    // Not everything that is a message is an object: some numbers and texts fit into no field.
    let Ok(read) = kind.normalize(read) else { return };
    stays(&kind, &read.object);
}

/// An object of any kind, made from the tables.
pub fn objects(bytes: &[u8]) {
    let tape = &mut Tape::new(bytes);
    let kind = generate::kind(tape, &kinds::builtin());
    let object = generate::object(tape, &kind);
    stays(&kind, &object);
    stays(&kind, &generate::varied(tape, &kind, &object));
}

/// An object is the same after every way through JSON and protobuf, and once it is tidied it stays so.
pub fn stays(kind: &Kind, object: &Value) {
    let text = object.to_string();
    let tidied = kind.tidy(object.clone()).expect("what is read is of its types");
    // Custom resources are put in their order only when they are tidied.
    let written = |read: Value| if kind.is_custom() { kind.tidy(read).expect("it is of its types") } else { read };
    let want = if kind.is_custom() { tidied.to_string() } else { text.clone() };
    let again = kind.decode(text.as_bytes()).expect("what is written is read");
    assert_eq!(again.strict, Vec::<String>::new(), "{text}");
    assert_eq!(written(again.object).to_string(), want);
    let again = kind.normalize(object.clone()).expect("what is read is normal");
    assert_eq!(written(again.object).to_string(), want);
    let tidied_text = tidied.to_string();
    assert_eq!(kind.tidy(tidied.clone()).map(|twice| twice.to_string()), Ok(tidied_text.clone()));
    // An object may say that it is of another kind than it is: that is for the server to refuse.
    let says = |name: &str| tidied[name].as_str().unwrap_or_default();
    if (says("apiVersion"), says("kind")) != (&*kind.api_version(), &*kind.kind) {
        return;
    }
    let Some(message) = protobuf::encode(&tidied) else { return };
    let kept = numbered(&kind.schema, kind.root, &tidied);
    let envelope = api::protobuf::open(&message).expect("what is written has an envelope");
    assert_eq!((says("apiVersion"), says("kind")), (&*envelope.api_version, &*envelope.kind));
    let read = protobuf::decode(&kind.schema, kind.root, envelope.raw).expect("what is written is a message");
    let mut whole = type_of(&tidied);
    whole.extend(read.as_object().cloned().expect("a message is an object"));
    let read = kind.normalize(whole.into()).expect("a message of an object is an object");
    let read = kind.tidy(read.object).expect("what is read is of its types");
    assert_eq!(read.to_string(), kind.tidy(kept).expect("it is of its types").to_string());
    assert_eq!(protobuf::encode(&read).as_deref(), Some(&*message));
}

/// What protobuf keeps of an object: the envelope says of which kind it is, and objects inside of it do not.
fn numbered(schema: &Schema, root: TypeId, object: &Value) -> Value {
    let mut whole = type_of(object);
    let kept = numbered_of(schema, &Shape::Struct(root), object);
    whole.extend(kept.as_object().cloned().into_iter().flatten());
    whole.into()
}

fn numbered_of(schema: &Schema, shape: &Shape, value: &Value) -> Value {
    match (shape, value) {
        (Shape::Struct(of) | Shape::StructOr(of, _), Value::Object(map)) => {
            let fields = schema.get(*of).fields.iter().filter(|field| field.number > 0);
            let kept = fields.filter_map(|field| Some((field, map.get(&*field.name)?)));
            kept.map(|(field, value)| (field.name.to_string(), numbered_of(schema, &field.shape, value))).collect()
        }
        (Shape::StructOr(..), Value::Array(items)) => {
            items.iter().map(|item| numbered_of(schema, shape, item)).collect()
        }
        (Shape::List(item, _), Value::Array(items)) => {
            items.iter().map(|value| numbered_of(schema, item, value)).collect()
        }
        (Shape::Map(item), Value::Object(map)) => {
            map.iter().map(|(key, value)| (key.clone(), numbered_of(schema, item, value))).collect()
        }
        (_, value) => value.clone(),
    }
}

fn type_of(object: &Value) -> Map<String, Value> {
    ["kind", "apiVersion"].into_iter().map(|name| (name.to_owned(), object[name].clone())).collect()
}

/// One YAML document: what is written of it is read as the same value and written as the same text.
pub fn yaml(bytes: &[u8]) {
    let Ok(document) = api::yaml::read(bytes) else { return };
    let written = api::yaml::write(&document.value);
    let again = api::yaml::read(written.as_bytes()).expect("what is written is YAML");
    assert_eq!(again.value, document.value, "{written}");
    assert_eq!(again.duplicates, Vec::<String>::new());
    assert_eq!(api::yaml::write(&again.value), written);
}

/// Two sets of owned fields, one JSON value after the other: both directions of the format, and the algebra of sets.
pub fn fieldsets(bytes: &[u8]) {
    let mut sets = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().map_while(Result::ok);
    let mut next = || sets.next().and_then(|value| Set::parse(&value).ok());
    let Some(a) = next() else { return };
    let b = next().unwrap_or_default();
    for set in [&a, &b] {
        let printed = set.print();
        let again = Set::parse(&printed).expect("what is printed is a set");
        assert_eq!(&again, set, "{printed}");
        assert_eq!(again.print(), printed);
        assert!(set.paths().iter().all(|path| set.has(&path.0)), "{printed}");
        let mut built = Set::default();
        set.paths().iter().for_each(|path| built.insert(&path.0));
        assert_eq!(built.paths(), set.paths());
    }
    let count = |set: &Set| set.paths().len();
    assert_eq!(count(&a.clone().union(b.clone())), count(&a) + count(&b.clone().difference(&a)));
    assert_eq!(count(&a), count(&a.clone().difference(&b)) + count(&a.clone().intersection(&b)));
    assert_eq!(a.clone().intersection(&b).paths(), b.clone().intersection(&a).paths());
    assert!(a.clone().difference_deep(&b).paths().iter().all(|path| a.has(&path.0) && !b.has(&path.0)));
}

/// The kind whose objects say this.
pub fn kind_of(registry: &Registry, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    registry.by_kind(group, version, kind).cloned()
}
