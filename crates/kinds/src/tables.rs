//! The committed tables of the built-in kinds, read into a [`Schema`] and a [`Registry`]. Reads no file: the tables are
//! part of the program.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::schema::{Alternative, Field, ListType, MapType, Omit, Patch, Schema, Shape, Type, TypeId};
use crate::{Kind, Registry, Subresource};

const TYPES: &str = include_str!("../schema/types.txt");
const KINDS: &str = include_str!("../schema/kinds.txt");

/// What `*` means in the verbs column.
const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Every built-in resource. The tables are read once; later calls share the result.
pub fn builtin() -> Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry::new(read_kinds(KINDS, schema()))).clone()
}

/// The types of the built-in resources, of the options and of every other body a server reads or writes.
pub fn schema() -> &'static Arc<Schema> {
    static SCHEMA: OnceLock<Arc<Schema>> = OnceLock::new();
    SCHEMA.get_or_init(|| Arc::new(read_types(TYPES)))
}

/// The type of the objects that say this `apiVersion` and `kind`: resources, lists, options, reviews. Reads the table:
/// keep the answer where it is asked often.
pub fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let (name, _, _) = served_types().find(|(_, k, versions)| *k == kind && versions.contains(&api_version))?;
    schema().find(name)
}

/// The types of another table in the form of `types.txt`: what is read from files and is no resource. The table is a
/// constant of the caller, and tested there: one that does not parse panics.
pub fn types_of(table: &'static str) -> Schema {
    read_types(table)
}

/// Type name, kind and the groups' versions it is served in: what OpenAPI prints as `x-kubernetes-group-version-kind`.
pub(crate) fn served_types() -> impl Iterator<Item = (&'static str, &'static str, Vec<&'static str>)> {
    KINDS.lines().filter_map(|line| {
        let mut words = line.strip_prefix("kind ")?.split(' ');
        Some((words.next()?, words.next()?, words.next()?.split(',').collect()))
    })
}

/// Type name and its `x-kubernetes-unions`, for OpenAPI.
pub(crate) fn unions() -> impl Iterator<Item = (&'static str, Value)> {
    TYPES.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| {
        let (name, unions) = line.split_once(" unions=")?;
        Some((name.split(' ').next()?, serde_json::from_str(unions).ok()?))
    })
}

// The tables are ours and tested: a line that does not parse is a bug of the command that wrote it, so that reading
// them may panic.

fn read_types(table: &'static str) -> Schema {
    let lines = || table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let heads = lines().filter(|line| !line.starts_with(' ')).map(|line| line.split(' ').next().unwrap_or(line));
    let ids: HashMap<&str, TypeId> = heads.enumerate().map(|(at, name)| (name, TypeId(at as u32))).collect();
    let mut interned: HashMap<&str, Arc<str>> = HashMap::with_capacity(1024);
    let mut types: Vec<Type> = Vec::with_capacity(ids.len());
    for line in lines() {
        match line.strip_prefix("  ") {
            None => {
                let mut words = line.split(' ');
                let name = Arc::from(words.next().unwrap_or_default());
                let atomic = words.next() == Some("atomic");
                types.push(Type { name, fields: Vec::new(), atomic, preserve_unknown: false });
            }
            Some(field) => {
                let field = read_field(field, &ids, &mut |name| {
                    interned.entry(name).or_insert_with(|| Arc::from(name)).clone()
                });
                types.last_mut().expect("a field follows its type").fields.push(field);
            }
        }
    }
    Schema::new(types)
}

fn read_field(
    line: &'static str,
    ids: &HashMap<&str, TypeId>,
    intern: &mut dyn FnMut(&'static str) -> Arc<str>,
) -> Field {
    let (line, one_of) = match line.split_once(" enum=") {
        Some((line, values)) => (line, values.split('|').map(&mut *intern).collect()),
        None => (line, Vec::new()),
    };
    let mut words = line.split(' ');
    let mut next = || words.next().expect("a field has a name, a type and a number");
    let (name, shape, number) = (next(), next(), next());
    let (pointer, shape) = shape.strip_prefix('*').map_or((false, shape), |shape| (true, shape));
    let mut path: Vec<u32> = number.split('.').map(|n| n.parse().expect("a protobuf number")).collect();
    let number = path.pop().expect("a protobuf number");
    let mut field = Field {
        name: intern(name),
        shape: Shape::Any,
        pointer,
        omit: Omit::Never,
        required: false,
        default: None,
        one_of,
        patch: Patch::default(),
        map_type: None,
        named: None,
        number,
        inlined_from: path,
        inlined_as: None,
    };
    let mut list_type = ListType::Atomic;
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("omitempty", _) => field.omit = Omit::Empty,
            ("omitzero", _) => field.omit = Omit::Zero,
            ("required", _) => field.required = true,
            ("default", json) => field.default = Some(serde_json::from_str(json).expect("a default is JSON")),
            ("go", name) => field.named = Some(intern(name)),
            ("via", names) => field.inlined_as = Some(intern(names)),
            ("key", key) => field.patch.merge_key = Some(intern(key)),
            ("patch", strategies) => {
                for strategy in strategies.split(',') {
                    match strategy {
                        "merge" => field.patch.merge = true,
                        "replace" => field.patch.replace = true,
                        "retainKeys" => field.patch.retain_keys = true,
                        _ => panic!("unknown patch strategy {strategy}"),
                    }
                }
            }
            ("map", "atomic") => field.map_type = Some(MapType::Atomic),
            ("map", _) => field.map_type = Some(MapType::Granular),
            ("list", "set") => list_type = ListType::Set,
            ("list", kind) => {
                if let Some(keys) = kind.strip_prefix("map:") {
                    list_type = ListType::Map(keys.split(',').map(&mut *intern).collect());
                }
            }
            _ => panic!("unknown fact {word} of field {name}"),
        }
    }
    field.shape = read_shape(shape, ids, list_type);
    field
}

fn read_shape(text: &str, ids: &HashMap<&str, TypeId>, list_type: ListType) -> Shape {
    if let Some(item) = text.strip_prefix("[]") {
        return Shape::List(Box::new(read_shape(item, ids, ListType::Atomic)), list_type);
    }
    if let Some(item) = text.strip_prefix("{}") {
        return Shape::Map(Box::new(read_shape(item, ids, ListType::Atomic)));
    }
    match text {
        "string" => Shape::String,
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "float" => Shape::Float,
        "bytes" => Shape::Bytes,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "duration" => Shape::Duration,
        "quantity" => Shape::Quantity,
        "intorstring" => Shape::IntOrString,
        "any" => Shape::Any,
        _ => match text.split_once('|') {
            None => Shape::Struct(ids[text]),
            Some((name, "bool")) => Shape::StructOr(ids[name], Alternative::Bool),
            Some((name, "list")) => Shape::StructOr(ids[name], Alternative::List),
            Some((name, _)) => Shape::StructOr(ids[name], Alternative::Strings),
        },
    }
}

fn read_kinds(table: &'static str, schema: &Arc<Schema>) -> Vec<Kind> {
    let ids: HashMap<&str, TypeId> =
        schema.types.iter().enumerate().map(|(at, t)| (&*t.name, TypeId(at as u32))).collect();
    let mut kinds: Vec<Kind> = Vec::with_capacity(80);
    let (mut group, mut version): (Arc<str>, Arc<str>) = ("".into(), "".into());
    let lines = table.lines().filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("kind "));
    for line in lines {
        let indented = line.strip_prefix("  ");
        let mut words = indented.unwrap_or(line).split(' ');
        let mut next = || words.next().expect("a line of the table has all its columns");
        if indented.is_some() {
            let parent = kinds.last_mut().expect("a subresource follows its resource");
            let (name, kind, root, verbs) = (next(), next(), ids[next()], read_verbs(next()));
            let place = words.find_map(|fact| fact.strip_prefix("version=")).unwrap_or_default();
            let (group, version) = place.split_once('/').unwrap_or(("", place));
            let namespaced = parent.namespaced;
            parent.subresources.push(Subresource {
                name: name.into(),
                group: group.into(),
                version: version.into(),
                kind: kind.into(),
                namespaced,
                verbs,
                root,
            });
            continue;
        }
        let plural = next();
        if plural == "group" {
            let name = next();
            group = if name == "core" { "".into() } else { name.into() };
            version = next().into();
            continue;
        }
        let (singular, kind, scope, root, verbs) = (next(), next(), next(), ids[next()], read_verbs(next()));
        let mut new = Kind {
            group: group.clone(),
            version: version.clone(),
            kind: kind.into(),
            list_kind: "".into(),
            plural: plural.into(),
            singular: singular.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: scope == "namespaced",
            verbs,
            storage_version_hash: "".into(),
            schema: schema.clone(),
            root,
            subresources: Vec::new(),
            behaviour: crate::builtin::behaviour(&group, kind),
            custom: None,
        };
        for fact in words {
            match fact.split_once('=').unwrap_or((fact, "")) {
                ("list", kind) => new.list_kind = kind.into(),
                ("short", names) => new.short_names = names.split(',').map(Arc::from).collect(),
                ("in", categories) => new.categories = categories.split(',').map(Arc::from).collect(),
                ("hash", hash) => new.storage_version_hash = hash.into(),
                _ => panic!("unknown fact {fact} of {plural}"),
            }
        }
        kinds.push(new);
    }
    kinds
}

fn read_verbs(text: &str) -> Vec<Arc<str>> {
    match text {
        "*" => ALL_VERBS.map(Arc::from).to_vec(),
        verbs => verbs.split(',').map(Arc::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_what_the_table_says() {
        let registry = builtin();
        let pods = registry.kind("", "v1", "pods").expect("pods are built in");
        assert_eq!((&*pods.kind, &*pods.list_kind, &*pods.short_names[0]), ("Pod", "PodList", "po"));
        let eviction = pods.subresource("eviction").expect("pods can be evicted");
        assert_eq!((&*eviction.group, &*eviction.version, &*eviction.kind), ("policy", "v1", "Eviction"));
        let spec = &pods.schema.get(pods.root).fields[3];
        assert_eq!(&*spec.name, "spec");
        let Shape::Struct(spec) = spec.shape else { panic!("spec is a struct") };
        let containers = pods.schema.get(spec).fields.iter().find(|f| &*f.name == "containers").unwrap();
        assert!(matches!(&containers.shape, Shape::List(_, ListType::Map(keys)) if &*keys[0] == "name"));
        assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
    }

    #[test]
    fn every_type_a_kind_names_is_in_the_schema() {
        assert!(builtin().kinds().count() > 60);
        for (name, _, _) in served_types() {
            assert!(schema().find(name).is_some(), "{name}");
        }
        assert_eq!(unions().count(), 8);
    }
}
