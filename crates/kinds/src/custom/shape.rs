//! A schema of custom resources as server-side apply sees it: the types of OpenAPI documents, in the same tables as those
//! of built-in kinds.

use std::collections::HashMap;
use std::sync::Arc;

use super::node::{Additional, List, Node, Type as Of};
use crate::schema::{Field, ListType, MapType, Omit, Patch, Schema, Shape, Type, TypeId};

/// The types of a custom resource.
pub struct Shapes {
    pub schema: Arc<Schema>,
    pub root: TypeId,
    /// `autoscaling.v1.Scale`, for those that have one.
    pub scale: Option<TypeId>,
}

/// Makes the types of a kind with this schema; `has_scale` brings the one of its scale along.
pub fn shapes(kind: &str, node: &Node, has_scale: bool) -> Shapes {
    const SCALE: &str = "api.autoscaling.v1.Scale";
    let builtin = crate::tables::schema();
    let mut make = Make { types: Vec::new(), metadata: TypeId(0) };
    make.metadata = import(&mut make.types, builtin, super::prune::object_meta());
    let scale = has_scale.then(|| builtin.find(SCALE)).flatten().map(|id| import(&mut make.types, builtin, id));
    let root = make.structure(kind, node, false, true);
    Shapes { schema: Arc::new(Schema::new(make.types)), root, scale }
}

struct Make {
    types: Vec<Type>,
    metadata: TypeId,
}

impl Make {
    /// `keeps`: unknown fields are kept above, which opens everything below too.
    fn structure(&mut self, name: &str, node: &Node, keeps: bool, has_meta: bool) -> TypeId {
        let keeps = keeps || node.keeps_unknown;
        let mut fields = Vec::new();
        if has_meta {
            let metadata = Shape::Struct(self.metadata);
            for (name, shape) in [("apiVersion", Shape::String), ("kind", Shape::String), ("metadata", metadata)] {
                fields.push(field(name.into(), shape, None));
            }
        }
        for (name, below) in &node.properties {
            if !(has_meta && matches!(&**name, "apiVersion" | "kind" | "metadata")) {
                let shape = self.shape(below, keeps);
                let atomic_map = below.atomic_map && matches!(shape, Shape::Map(_));
                fields.push(Field {
                    map_type: atomic_map.then_some(MapType::Atomic),
                    default: below.default.clone(),
                    ..field(name.clone(), shape, None)
                });
            }
        }
        // An object of which nothing is said is a free one.
        let open = keeps || node.properties.is_empty();
        self.types.push(Type { name: name.into(), fields, atomic: node.atomic_map, preserve_unknown: open });
        TypeId((self.types.len() - 1) as u32)
    }

    fn shape(&mut self, node: &Node, keeps: bool) -> Shape {
        let keeps = keeps || node.keeps_unknown;
        match node.types {
            [Of::Object] => match &node.additional {
                Additional::Node(value) => Shape::Map(Box::new(self.shape(value, keeps))),
                Additional::Any => Shape::Map(Box::new(Shape::Deduced)),
                Additional::No => Shape::Struct(self.structure("", node, keeps, node.embedded)),
            },
            [Of::Array] => {
                let item = node.items.as_ref().map_or(Shape::Any, |item| self.shape(item, keeps));
                let list = match &node.list {
                    List::Atomic => ListType::Atomic,
                    List::Set => ListType::Set,
                    List::Map(keys) => ListType::Map(keys.clone()),
                };
                Shape::List(Box::new(item), list)
            }
            [Of::String] if node.plain_text => Shape::String,
            [Of::String] => Shape::Scalar,
            [Of::Integer] => Shape::Int64,
            [Of::Number] => Shape::Float,
            [Of::Boolean] => Shape::Bool,
            _ if !node.properties.is_empty() => Shape::Struct(self.structure("", node, keeps, node.embedded)),
            _ => Shape::Deduced,
        }
    }
}

fn field(name: Arc<str>, shape: Shape, map_type: Option<MapType>) -> Field {
    Field {
        name,
        shape,
        pointer: true,
        omit: Omit::Empty,
        required: false,
        default: None,
        one_of: Vec::new(),
        patch: Patch::default(),
        named: None,
        map_type,
        number: 0,
        inlined_from: Vec::new(),
        inlined_as: None,
    }
}

/// Copies a type and those it refers to out of another schema.
fn import(types: &mut Vec<Type>, from: &Schema, root: TypeId) -> TypeId {
    let mut known = HashMap::new();
    import_known(types, from, root, &mut known)
}

fn import_known(types: &mut Vec<Type>, from: &Schema, id: TypeId, known: &mut HashMap<TypeId, TypeId>) -> TypeId {
    if let Some(id) = known.get(&id) {
        return *id;
    }
    let own = TypeId(types.len() as u32);
    known.insert(id, own);
    types.push(from.get(id).clone());
    for at in 0..from.get(id).fields.len() {
        let shape = import_shape(types, from, &from.get(id).fields[at].shape, known);
        types[own.0 as usize].fields[at].shape = shape;
    }
    own
}

fn import_shape(types: &mut Vec<Type>, from: &Schema, shape: &Shape, known: &mut HashMap<TypeId, TypeId>) -> Shape {
    match shape {
        Shape::Struct(id) => Shape::Struct(import_known(types, from, *id, known)),
        Shape::StructOr(id, other) => Shape::StructOr(import_known(types, from, *id, known), *other),
        Shape::List(item, list) => Shape::List(Box::new(import_shape(types, from, item, known)), list.clone()),
        Shape::Map(item) => Shape::Map(Box::new(import_shape(types, from, item, known))),
        other => other.clone(),
    }
}
