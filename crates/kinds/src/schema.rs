//! What a type is, as data: fields in Go's order, their shapes, when Go leaves them out, how lists merge.
//! Built-in kinds come from the committed tables, custom resources compile to the same values. Pure: never does I/O.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// The number of a type in its [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// A closed set of types that refer to each other by number.
#[derive(Debug, Default)]
pub struct Schema {
    pub types: Vec<Type>,
    pub(crate) default_reach: crate::defaults::Reach,
    zeros: OnceLock<Box<[OnceLock<Value>]>>,
}

impl Schema {
    pub fn new(types: Vec<Type>) -> Schema {
        Schema { types, default_reach: Default::default(), zeros: OnceLock::new() }
    }

    /// What Go writes for a struct of which nothing is set.
    pub fn zero(&self, id: TypeId) -> &Value {
        let zeros = self.zeros.get_or_init(|| self.types.iter().map(|_| OnceLock::new()).collect());
        zeros[id.0 as usize].get_or_init(|| crate::decode::zero(self, &Shape::Struct(id)))
    }

    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The type with this full name, e.g. `apimachinery.pkg.apis.meta.v1.DeleteOptions`. Looks at every type: keep the
    /// answer where it is asked often.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.types.iter().position(|t| &*t.name == name).map(|at| TypeId(at as u32))
    }
}

/// A struct: its name as Go has it (`v1.PodSpec` in error texts) and its fields in order of declaration.
#[derive(Clone, Debug)]
pub struct Type {
    /// The full name of the type table, e.g. `api.core.v1.PodSpec`.
    pub name: Arc<str>,
    /// Fields in Go's order; inlined structs are already spread out.
    pub fields: Vec<Field>,
    /// `x-kubernetes-map-type: atomic`: apply replaces it as a whole.
    pub atomic: bool,
    /// Unknown fields are kept, and owned key by key (custom resources only).
    pub preserve_unknown: bool,
}

/// One field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON name.
    pub name: Arc<str>,
    pub shape: Shape,
    /// A Go pointer: a zero value that was given is kept.
    pub pointer: bool,
    pub omit: Omit,
    pub required: bool,
    /// The declarative default of the OpenAPI document (never the zero value).
    pub default: Option<Value>,
    /// The values an enum allows, empty where any is.
    pub one_of: Vec<Arc<str>>,
    /// What a strategic merge patch does with it.
    pub patch: Patch,
    /// The Go name of a named scalar, list or map type (`v1.RestartPolicy`), for error texts only.
    pub named: Option<Arc<str>>,
    /// `x-kubernetes-map-type` where the field itself says it: an atomic map, or a struct that this field sees
    /// otherwise than its type does. `None` leaves it to the type (a map is granular).
    pub map_type: Option<MapType>,
    /// The protobuf field number, 0 where the type has none.
    pub number: u32,
    /// The numbers of the structs that Go inlines and protobuf does not, the outermost first; mostly none.
    pub inlined_from: Vec<u32>,
    /// The names of the structs that Go inlines here, the outermost first, joined by dots: what is of another type than it
    /// should be is named with them.
    pub inlined_as: Option<Arc<str>>,
}

/// The value a field, a list item or a map value holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    /// `[]byte`: base64 in JSON.
    Bytes,
    /// `metav1.Time`: RFC 3339 with seconds, `null` when zero.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with microseconds.
    MicroTime,
    /// `metav1.Duration`: a Go duration string.
    Duration,
    /// `resource.Quantity`: printed in canonical form.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `metav1.FieldsV1`, `RawExtension`, `JSON`: any JSON, kept as it is.
    Any,
    /// Any JSON whose objects are owned key by key: what a custom resource says nothing of.
    Deduced,
    /// Text, number or truth: a string of a custom resource with a format.
    Scalar,
    Struct(TypeId),
    /// An object of this type or something simpler (`JSONSchemaPropsOrBool`, `..OrArray`, `..OrStringArray`).
    StructOr(TypeId, Alternative),
    List(Box<Shape>, ListType),
    Map(Box<Shape>),
}

/// What else than an object a [`Shape::StructOr`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternative {
    Bool,
    /// A list of such objects.
    List,
    /// A list of strings.
    Strings,
}

/// How server-side apply (and managed fields) see a list: `x-kubernetes-list-type`.
#[derive(Clone, Debug, PartialEq)]
pub enum ListType {
    Atomic,
    Set,
    /// Items are told apart by these fields.
    Map(Vec<Arc<str>>),
}

/// How server-side apply (and managed fields) see a map or a struct: `x-kubernetes-map-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapType {
    /// Replaced as a whole.
    Atomic,
    /// Every key is owned for itself.
    Granular,
}

/// When Go's encoder leaves the field out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    /// Always written, zero value included.
    Never,
    /// `omitempty`: nil, 0, false, "" and empty lists and maps are left out; structs never are.
    Empty,
    /// `omitzero`: also a struct (or time) that is all zero.
    Zero,
}

/// `patchStrategy` and `patchMergeKey`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Patch {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
    pub merge_key: Option<Arc<str>>,
}
