//! A kind as one value, and the registry of all of them. Built-in and custom resources are the same thing here;
//! nothing in this file knows the name of any kind. Pure: never does I/O and never reads a clock.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

/// Go's `%q`.
pub use api::go::quote as go_quote;
use jiff::Timestamp;
use serde_json::Value;

use crate::builtin::read::Write;
use crate::custom::Custom;
use crate::decode::{self, DecodeError, Decoded};
use crate::schema::{Schema, Shape, TypeId};
use crate::{defaults, gates};

/// Everything the server knows of one resource in one version.
#[derive(Clone, Debug)]
pub struct Kind {
    /// `""` for the core group.
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub kind: Arc<str>,
    /// `""` where the resource cannot be listed (reviews).
    pub list_kind: Arc<str>,
    pub plural: Arc<str>,
    pub singular: Arc<str>,
    pub short_names: Vec<Arc<str>>,
    pub categories: Vec<Arc<str>>,
    pub namespaced: bool,
    /// In discovery's order.
    pub verbs: Vec<Arc<str>>,
    /// `""` where discovery shows none (reviews).
    pub storage_version_hash: Arc<str>,
    pub schema: Arc<Schema>,
    pub root: TypeId,
    /// In discovery's order.
    pub subresources: Vec<Subresource>,
    pub behaviour: &'static Behaviour,
    /// What a CustomResourceDefinition says of the kind, where one made it.
    pub custom: Option<Arc<Custom>>,
}

/// `status`, `scale`, `log`, `token`, ...
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: Arc<str>,
    /// The group and version discovery prints when they are not the parent's (`autoscaling`/`v1` of `scale`), else `""`.
    pub group: Arc<str>,
    pub version: Arc<str>,
    /// The kind of its body: the parent's own, or `Scale`, `Eviction`, `TokenRequest`, `PodExecOptions`, ...
    pub kind: Arc<str>,
    pub namespaced: bool,
    pub verbs: Vec<Arc<str>>,
    /// The type of its body in the parent's schema.
    pub root: TypeId,
}

/// Picks one of several objects, by its name.
pub type Pick = fn(&[Value]) -> Option<&str>;

/// What of a kind is code upstream. Objects are root objects (`apiVersion`, `kind`, `metadata`, ...); every function may
/// assume that the object came through [`crate::decode`]: known fields only, of the right shapes.
///
/// `Behaviour { validate_create, ..Behaviour::PLAIN }` is how a kind states what is special about it. The general part
/// (declarative defaults, dropping and keeping `status`, counting `generation`) is in the methods of [`Kind`], which
/// call these.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Defaults that are code upstream (`SetDefaults_*`); runs after the declarative ones.
    pub default: fn(&mut Value),
    /// Can what was read become the server's own object? Go's error where it cannot.
    pub convert: fn(&Value) -> Result<(), String>,
    /// Beyond dropping `status` and starting `generation`.
    pub prepare_create: fn(&mut Value),
    /// Beyond keeping the old `status` and counting `generation`.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    /// Beyond keeping everything but `status` and metadata.
    pub prepare_status: fn(new: &mut Value, old: &Value),
    /// Before a write of any other subresource (`approval`, `resize`, ..) is validated: keeps what it must not change.
    pub prepare_part: fn(part: &str, new: &mut Value, old: &Value),
    pub validate_create: fn(&Value) -> Vec<Cause>,
    pub validate_update: fn(new: &Value, old: &Value) -> Vec<Cause>,
    pub validate_status: fn(new: &Value, old: &Value) -> Vec<Cause>,
    pub validate_part: fn(part: &str, new: &Value, old: &Value) -> Vec<Cause>,
    /// Texts of `Warning` headers; `old` is given on update.
    pub warnings: fn(new: &Value, old: Option<&Value>) -> Vec<String>,
    /// What every answer about the kind warns of: `v1 Endpoints is deprecated in v1.33+; use ..`. `""` where it is not.
    pub deprecated: &'static str,
    /// The seconds a deletion waits for, `None` where the object goes at once. `asked` is `gracePeriodSeconds`.
    pub grace_seconds: fn(object: &Value, asked: Option<i64>) -> Option<i64>,
    /// Table columns; empty means `Name` and `Created At`.
    pub columns: &'static [Column],
    /// One cell per column.
    pub row: fn(&Value, now: Timestamp) -> Vec<Value>,
    /// `conditions` of the row: a pod that is through says so.
    pub row_conditions: fn(&Value) -> Vec<Value>,
    /// The one of these objects that stands for all that name none, by its name: Tables mark it.
    pub default_of: Option<Pick>,
    /// Where the kind is served in several groups or versions: the one in which its objects are kept.
    pub kept: Option<Kept>,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: the label and the JSON pointers it reads
    /// ([`pointers`]), in the form in which objects are kept.
    pub selectable: &'static [(&'static str, &'static str)],
    /// The refusal of any other field; upstream every kind has its own words.
    pub not_selectable: fn(&str) -> String,
    /// What a name may look like.
    pub name: NameRule,
    /// The object has a `status` that only the status subresource writes. A `status` subresource implies it.
    pub has_status: bool,
    /// `metadata.generation` counts the changes of everything but metadata and `status`.
    pub has_generation: bool,
    /// PUT to a name that does not exist creates.
    pub create_on_update: bool,
    /// PUT without `metadata.resourceVersion` is taken as it is (most built-in kinds, no custom ones).
    pub unconditional_update: bool,
    /// What a deletion does to an object that stays for now, beyond its `deletionTimestamp` (a namespace's phase).
    pub begin_delete: fn(&mut Value),
    /// The object stays though nothing in its metadata holds it (a namespace's `spec.finalizers`).
    pub holds_back: fn(&Value) -> bool,
    /// A deletion answers the object it deleted instead of a `Status`.
    pub returns_deleted: bool,
    /// Deleting leaves the dependents when the request does not say otherwise.
    pub orphan_by_default: bool,
    /// What a deletion that leaves dependents only by default warns of; `""` where it warns of nothing.
    pub warning_of_orphans: &'static str,
    /// Preconditions of a deletion that fail are told as the store tells of them, with the name of the resource.
    pub stored_preconditions: bool,
    /// Fields that hold a time, the request's where the client gives none: `spec.taint.timeAdded`. `a[].b` is the field of
    /// each item of a list.
    pub stamped: &'static [&'static str],
    /// Nothing is ever owned by one, and its deletion waits for no dependents.
    pub without_dependents: bool,
    /// Subresources of which there are no Tables.
    pub without_tables: &'static [&'static str],
    /// A write of the status leaves labels, annotations, finalizers and owners as they are.
    pub status_keeps_metadata: bool,
    /// A bad name is told of after everything else.
    pub name_last: bool,
    /// An update must have a `generateName` that a new object could have: upstream validates the whole object again.
    pub checks_name_again: bool,
    /// `[]` and `{}` in an update are another generation than nothing, though both are stored alike: upstream compares with
    /// `reflect.DeepEqual` before it encodes.
    pub counts_empty: bool,
    /// One that is made without a name is given a new uid's as its name.
    pub named_by_chance: bool,
    /// There is no way to delete one that cannot be read.
    pub never_unreadable: bool,
    /// Annotations that the conversion into a version makes: metadata that is shown alone, which is never converted, has none.
    pub annotations_of_versions: &'static [&'static str],
    /// Its deletion is its own, not the store's: it begins once and is not changed afterwards, counts no generation, and the old way
    /// to ask for no orphans waits for the dependents.
    pub begins_deletion_once: bool,
    /// A table of nothing has rows that are null, not an empty list.
    pub no_rows_are_null: bool,
    /// Finalizers need no domain: upstream checks them in some kinds only.
    pub any_finalizer: bool,
}

impl Behaviour {
    /// A kind about which nothing is special.
    pub const PLAIN: Behaviour = Behaviour {
        default: |_| {},
        convert: |_| Ok(()),
        prepare_create: |_| {},
        prepare_update: |_, _| {},
        prepare_status: |_, _| {},
        prepare_part: |_, _, _| {},
        validate_create: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        validate_part: |_, _, _| Vec::new(),
        warnings: |_, _| Vec::new(),
        deprecated: "",
        grace_seconds: |_, _| None,
        columns: &[],
        row: |_, _| Vec::new(),
        row_conditions: |_| Vec::new(),
        default_of: None,
        kept: None,
        selectable: &[],
        not_selectable: |field| format!("field label not supported: {field}"),
        name: NameRule::Subdomain,
        has_status: false,
        has_generation: false,
        create_on_update: false,
        unconditional_update: true,
        begin_delete: |_| {},
        holds_back: |_| false,
        returns_deleted: false,
        orphan_by_default: false,
        warning_of_orphans: "",
        stored_preconditions: false,
        stamped: &[],
        name_last: false,
        begins_deletion_once: false,
        annotations_of_versions: &[],
        never_unreadable: false,
        named_by_chance: false,
        counts_empty: false,
        checks_name_again: false,
        any_finalizer: false,
        status_keeps_metadata: false,
        without_tables: &[],
        without_dependents: false,
        no_rows_are_null: false,
    };
}

/// The JSON pointers that a selectable field reads, of which the first counts that leads to something: `/a|/b`. A field
/// that is taken and selects by nothing has none.
pub fn pointers(selectable: &str) -> impl Iterator<Item = &str> {
    selectable.split('|').filter(|pointer| !pointer.is_empty())
}

/// The group and version in which objects are kept, and the way there and back. Neither function sees to `apiVersion`, to
/// the order of fields or to what Go leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    pub group: &'static str,
    pub version: &'static str,
    pub into: fn(&mut Value),
    pub from: fn(&mut Value),
}

/// What `metadata.name` may look like.
#[derive(Clone, Copy, Debug)]
pub enum NameRule {
    /// RFC 1123 subdomain, 253 characters: most kinds.
    Subdomain,
    /// RFC 1123 label, 63 characters: namespaces.
    Label,
    /// RFC 1035 label, 63 characters: services.
    Label1035,
    /// Anything that can be one segment of a path: RBAC.
    PathSegment,
    /// The kind's own: the texts of what is wrong with a name; `prefix` is set for `generateName`.
    Own(fn(name: &str, prefix: bool) -> Vec<String>),
}

/// One column of a Table, as `columnDefinitions` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`, ...
    pub type_: &'static str,
    /// `name`, `""`, ...
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; 1: `-o wide`.
    pub priority: i32,
}

/// What is wrong with one field: Kubernetes' `field.Error`. `Display` is its exact text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: CauseReason,
    /// `spec.containers[0].image`, `metadata.labels`, `data[key]`.
    pub field: String,
    /// Without the field: `Required value`, `Invalid value: "x": must be ..`.
    pub message: String,
}

/// The reasons of a [`Cause`]; `as_str` is what `details.causes[].reason` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseReason {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    TypeInvalid,
    Internal,
}

impl CauseReason {
    pub fn as_str(self) -> &'static str {
        match self {
            CauseReason::Required => "FieldValueRequired",
            CauseReason::Invalid => "FieldValueInvalid",
            CauseReason::NotSupported => "FieldValueNotSupported",
            CauseReason::Duplicate => "FieldValueDuplicate",
            CauseReason::Forbidden => "FieldValueForbidden",
            CauseReason::TooLong => "FieldValueTooLong",
            CauseReason::TooMany => "FieldValueTooMany",
            CauseReason::NotFound => "FieldValueNotFound",
            CauseReason::TypeInvalid => "FieldValueTypeInvalid",
            CauseReason::Internal => "InternalError",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Cause {
    /// `field: Required value`, with `: detail` when there is one.
    pub fn required(field: impl Display, detail: &str) -> Cause {
        Cause::new(CauseReason::Required, field.to_string(), "Required value", None, detail)
    }

    /// `field: Invalid value: VALUE: detail`.
    pub fn invalid(field: impl Display, value: &Value, detail: &str) -> Cause {
        Cause::new(CauseReason::Invalid, field.to_string(), "Invalid value", Some(value), detail)
    }

    /// `field: Unsupported value: VALUE: supported values: "A", "B"`.
    pub fn not_supported(field: impl Display, value: &Value, supported: &[&str]) -> Cause {
        let listed: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if listed.is_empty() { String::new() } else { format!("supported values: {}", listed.join(", ")) };
        Cause::new(CauseReason::NotSupported, field.to_string(), "Unsupported value", Some(value), &detail)
    }

    /// `field: Duplicate value: VALUE`.
    pub fn duplicate(field: impl Display, value: &Value) -> Cause {
        Cause::new(CauseReason::Duplicate, field.to_string(), "Duplicate value", Some(value), "")
    }

    /// `field: Forbidden: detail`.
    pub fn forbidden(field: impl Display, detail: &str) -> Cause {
        Cause::new(CauseReason::Forbidden, field.to_string(), "Forbidden", None, detail)
    }

    /// `field: Not found: VALUE`.
    pub fn not_found(field: impl Display, value: &Value) -> Cause {
        Cause::new(CauseReason::NotFound, field.to_string(), "Not found", Some(value), "")
    }

    /// `field: Too long: may not be more than N bytes`.
    pub fn too_long(field: impl Display, max_bytes: usize) -> Cause {
        let detail = format!("may not be more than {max_bytes} bytes");
        Cause::new(CauseReason::TooLong, field.to_string(), "Too long", None, &detail)
    }

    /// As [`Cause::too_long`], where characters are counted.
    pub fn too_many_characters(field: impl Display, max: usize) -> Cause {
        let detail = format!("may not be more than {max} characters");
        Cause::new(CauseReason::TooLong, field.to_string(), "Too long", None, &detail)
    }

    /// `field: Too many: ACTUAL: must have at most N items`.
    pub fn too_many(field: impl Display, actual: usize, max: usize) -> Cause {
        let noun = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {noun}");
        Cause::new(CauseReason::TooMany, field.to_string(), "Too many", Some(&Value::from(actual)), &detail)
    }

    fn new(reason: CauseReason, field: String, label: &str, value: Option<&Value>, detail: &str) -> Cause {
        let mut message = label.to_owned();
        if let Some(value) = value {
            // Strings are quoted as Go's %q, everything else as JSON.
            message.push_str(": ");
            message.push_str(&match value {
                Value::String(text) => go_quote(text),
                other => other.to_string(),
            });
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        Cause { reason, field, message }
    }
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`: as messages name it.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether objects are of no Go type: their lists repeat kind and version in every item, and they take no strategic
    /// merge patch.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// Whether what was stored at a revision is, byte for byte, what this kind shows.
    pub fn shows_stored(&self, revision: u64) -> bool {
        self.custom.as_ref().map_or(self.kept().is_none(), |custom| custom.shows_stored(revision))
    }

    /// What every answer about the kind warns of: `v1 Endpoints is deprecated in v1.33+; use ..`. `""` where it is not.
    pub fn deprecated(&self) -> &str {
        self.custom.as_ref().map_or(self.behaviour.deprecated, |custom| &custom.deprecated)
    }

    /// How objects of a built-in kind are kept, where that is not as this kind has them.
    pub fn kept(&self) -> Option<&'static Kept> {
        let behaviour: &'static Behaviour = self.behaviour;
        behaviour.kept.as_ref().filter(|kept| (kept.group, kept.version) != (&*self.group, &*self.version))
    }

    /// An object in the form in which it is kept.
    #[must_use]
    pub fn to_kept(&self, mut object: Value) -> Value {
        if let Some(custom) = &self.custom {
            return custom.to_kept(self, object);
        }
        let Some(kept) = self.kept() else { return object };
        (kept.into)(&mut object);
        let version = match kept.group {
            "" => kept.version.to_string(),
            group => format!("{group}/{}", kept.version),
        };
        object["apiVersion"] = version.clone().into();
        match crate::tables::type_of(&version, &self.kind) {
            Some(root) => {
                decode::normalize(&self.schema, root, object.clone()).map_or(object, |decoded| decoded.object)
            }
            None => object,
        }
    }

    /// An object out of the form in which it is kept.
    #[must_use]
    pub fn from_kept(&self, mut object: Value) -> Value {
        if let Some(custom) = &self.custom {
            return custom.shown(self, object);
        }
        let Some(kept) = self.kept() else { return object };
        (kept.from)(&mut object);
        object["apiVersion"] = self.api_version().into();
        self.tidy(object.clone()).unwrap_or(object)
    }

    /// An object of this kind as another version has it, with its type there.
    pub fn in_version(
        &self,
        registry: &Registry,
        object: &Value,
        api_version: &str,
    ) -> Option<(Arc<Schema>, TypeId, Value)> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let other = registry.by_kind(group, version, &self.kind)?;
        if let Some(custom) = other.custom.as_ref().filter(|_| self.is_custom()) {
            return Some((other.schema.clone(), other.root, custom.as_version(other, object.clone())));
        }
        // Managers of fields do not reach over to another group, though objects do.
        let same = other.group == self.group && (self.kept().is_some() || other.kept().is_some());
        // The object itself may be in neither of the two.
        let own = object.get("apiVersion").and_then(Value::as_str).filter(|own| **own != self.api_version());
        let own = own.and_then(|own| {
            let (group, version) = own.split_once('/').unwrap_or(("", own));
            registry.by_kind(group, version, &self.kind).map(|own| &**own)
        });
        let kept = || own.unwrap_or(self).to_kept(object.clone());
        same.then(|| (other.schema.clone(), other.root, other.from_kept(kept())))
    }

    /// An object with nothing in it, as Go would write it.
    pub fn zero(&self) -> Value {
        crate::decode::zero(&self.schema, &crate::schema::Shape::Struct(self.root))
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| &**v == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| &*s.name == name)
    }

    /// The object has a `status` that only the status subresource writes.
    pub fn has_status(&self) -> bool {
        self.behaviour.has_status || self.subresource("status").is_some()
    }

    /// What a field (a JSON pointer) counts as to who selects by it where an object does not have it.
    pub fn zero_text(&self, pointer: &str) -> &'static str {
        let mut shape = &Shape::Struct(self.root);
        let mut pointed = false;
        for step in pointer.split('/').skip(1) {
            match shape {
                Shape::Struct(id) => {
                    let Some(field) = self.schema.get(*id).fields.iter().find(|field| *field.name == *step) else {
                        return "";
                    };
                    (shape, pointed) = (&field.shape, field.pointer);
                }
                Shape::List(item, _) | Shape::Map(item) => (shape, pointed) = (&**item, false),
                _ => return "",
            }
        }
        match shape {
            _ if pointed => "",
            Shape::Bool => "false",
            Shape::Int32 | Shape::Int64 => "0",
            _ => "",
        }
    }

    /// A body as the server works with it: read, with its `apiVersion` and `kind`.
    pub fn decode(&self, json: &[u8]) -> Result<Decoded, DecodeError> {
        self.decode_as(self.root, json).map(|decoded| self.typed(decoded))
    }

    /// The same for a value that is there already: after a patch, from YAML.
    pub fn normalize(&self, value: Value) -> Result<Decoded, DecodeError> {
        self.normalize_as(self.root, value).map(|decoded| self.typed(decoded))
    }

    /// A body of this kind, or of one of its subresources.
    pub fn decode_as(&self, root: TypeId, json: &[u8]) -> Result<Decoded, DecodeError> {
        match self.custom.as_ref().filter(|_| root == self.root) {
            Some(custom) => custom.decode(self, json),
            None => self.converted(root, decode::decode(&self.schema, root, json)?),
        }
    }

    fn converted(&self, root: TypeId, decoded: Decoded) -> Result<Decoded, DecodeError> {
        if root == self.root {
            (self.behaviour.convert)(&decoded.object).map_err(DecodeError::Type)?;
        }
        Ok(decoded)
    }

    /// The same for a value that is there already.
    pub fn normalize_as(&self, root: TypeId, value: Value) -> Result<Decoded, DecodeError> {
        match self.custom.as_ref().filter(|_| root == self.root) {
            Some(custom) => custom.normalize(self, value),
            None => self.converted(root, decode::normalize(&self.schema, root, value)?),
        }
    }

    /// Brings an object that code has changed into the form in which it is written: fields in order, nothing that Go
    /// leaves out. The last step before it is encoded.
    pub fn tidy(&self, mut object: Value) -> Result<Value, DecodeError> {
        if let Some(custom) = &self.custom {
            return custom.tidy(object);
        }
        if crate::tidy::tidy(&self.schema, self.root, &mut object).is_ok() {
            return Ok(object);
        }
        let mut read = decode::normalize(&self.schema, self.root, object)?.object;
        // What was just read is of its types.
        let _ = crate::tidy::tidy(&self.schema, self.root, &mut read);
        Ok(read)
    }

    /// The JSON of a new object of a built-in kind as it is to be stored: tidied, with some resource version, and with managed
    /// fields that are JSON already, `null` for none. Nothing where it has to be tidied first.
    pub fn new_to_json(&self, object: &Value, managed_fields: &str) -> Option<Vec<u8>> {
        if self.is_custom() {
            return None;
        }
        crate::tidy::to_json(&self.schema, self.root, object, managed_fields).ok()
    }

    /// As [`Kind::decode_as`], with the empty lists and maps that are in the body; see [`Kind::drop_empty`].
    pub fn decode_as_sent(&self, root: TypeId, json: &[u8]) -> Result<Decoded, DecodeError> {
        match self.is_custom() || root != self.root {
            true => self.decode_as(root, json),
            false => self.converted(root, decode::decode_as_sent(&self.schema, root, json, self.kept_empty())?),
        }
    }

    /// The same for a value that is there already.
    pub fn normalize_as_sent(&self, root: TypeId, value: Value) -> Result<Decoded, DecodeError> {
        match self.is_custom() || root != self.root {
            true => self.normalize_as(root, value),
            false => self.converted(root, decode::normalize_as_sent(&self.schema, root, value, self.kept_empty())?),
        }
    }

    fn kept_empty(&self) -> decode::Empty {
        if self.behaviour.counts_empty { decode::Empty::Counted } else { decode::Empty::Shown }
    }

    /// Takes out of an object as it was sent the empty lists and maps that are never stored. Answers how it was before where
    /// there were any.
    pub fn drop_empty(&self, object: &mut Value) -> Option<Value> {
        if self.is_custom() || !decode::has_empty(&self.schema, self.root, object) {
            return None;
        }
        let bare = decode::normalize(&self.schema, self.root, object.clone()).ok()?.object;
        Some(std::mem::replace(object, bare))
    }

    /// Fills in what nobody set: the defaults that OpenAPI states, then those that are code upstream.
    pub fn default(&self, object: &mut Value) {
        if let Some(custom) = &self.custom {
            return custom.default(object);
        }
        defaults::apply(&self.schema, self.root, object);
        (self.behaviour.default)(object);
    }

    fn typed(&self, mut decoded: Decoded) -> Decoded {
        if let Some(root) = decoded.object.as_object_mut() {
            if !root.contains_key("kind") {
                root.shift_insert(0, "kind".to_owned(), (*self.kind).into());
            }
            if !root.contains_key("apiVersion") {
                root.shift_insert(1, "apiVersion".to_owned(), self.api_version().into());
            }
        }
        decoded
    }

    /// Fills in the times that a client left out; `now` is the request's.
    pub fn stamp(&self, object: &mut Value, now: &str) {
        for path in self.behaviour.stamped {
            stamp_at(object, path, now);
        }
    }

    /// Before a create is validated: no `status`, first `generation`, then what the kind does of its own.
    pub fn prepare_create(&self, object: &mut Value) {
        let Some(root) = object.as_object_mut() else { return };
        if self.has_status() {
            root.shift_remove("status");
        }
        // Where nothing counts it, a generation that was given stays.
        if self.behaviour.has_generation {
            set_generation(root, Some(1));
        }
        gates::drop_disabled(self, object, None);
        (self.behaviour.prepare_create)(object);
    }

    /// Before an update is validated: the old `status`, `generation` one higher when anything but metadata and status
    /// differs.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() {
            keep(new, old, "status");
        }
        gates::drop_disabled(self, new, Some(old));
        (self.behaviour.prepare_update)(new, old);
        let before = old.pointer("/metadata/generation").and_then(Value::as_i64);
        let after = match self.behaviour.has_generation {
            true if content_differs(new, old, self) => Some(before.unwrap_or(0) + 1),
            _ => before,
        };
        // A kind whose generation also counts other things (an annotation) has already set it higher than the old one.
        let own = new.pointer("/metadata/generation").and_then(Value::as_i64);
        let own = own.filter(|own| self.behaviour.has_generation && Some(*own) == Some(before.unwrap_or(0) + 1));
        if let Some(root) = new.as_object_mut() {
            set_generation(root, own.or(after));
        }
    }

    /// Counts a change that only the client's body shows; after [`Kind::prepare_update`].
    pub fn count_change(&self, new: &mut Value, old: &Value) {
        let before = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        if let Some(root) = new.as_object_mut() {
            set_generation(root, Some(before + 1));
        }
    }

    /// Before a write of the status subresource is validated: everything but `status` and metadata is the old object's.
    pub fn prepare_status(&self, new: &mut Value, old: &Value) {
        if self.is_custom() {
            return keep_all_but_status(new, old);
        }
        let before = old.pointer("/metadata/generation").and_then(Value::as_i64);
        let (Some(target), Some(source)) = (new.as_object_mut(), old.as_object()) else { return };
        target.retain(|key, _| matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
        for (key, value) in source {
            if !target.contains_key(key) && key != "status" {
                target.insert(key.clone(), value.clone());
            }
        }
        set_generation(target, before);
        if self.behaviour.status_keeps_metadata
            && let (Some(to), Some(from)) = (target.get_mut("metadata"), source.get("metadata"))
        {
            ["labels", "annotations", "finalizers", "ownerReferences"].iter().for_each(|field| keep(to, from, field));
        }
        gates::drop_disabled(self, new, Some(old));
        (self.behaviour.prepare_status)(new, old);
    }
}

fn set_generation(root: &mut serde_json::Map<String, Value>, generation: Option<i64>) {
    let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match generation {
        Some(generation) => {
            metadata.insert("generation".to_owned(), generation.into());
        }
        None => {
            metadata.shift_remove("generation");
        }
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(root) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => {
            root.insert(field.to_owned(), value.clone());
        }
        None => {
            root.shift_remove(field);
        }
    }
}

/// See [`Behaviour::stamped`].
fn stamp_at(value: &mut Value, path: &str, now: &str) {
    if !value.is_object() {
        return;
    }
    match path.split_once("[].") {
        Some((list, below)) => value.list_mut(list).iter_mut().for_each(|item| stamp_at(item, below, now)),
        None => match path.rsplit_once('.') {
            None => value.set_if_absent(path, now),
            Some((parent, field)) => {
                if let Some(parent) = value.at_mut(parent).filter(|parent| parent.is_object()) {
                    parent.set_if_absent(field, now);
                }
            }
        },
    }
}

/// A status that anybody may write is content like the rest.
fn content_differs(new: &Value, old: &Value, kind: &Kind) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new != old };
    let content = |key: &str| match key {
        "apiVersion" | "kind" | "metadata" => false,
        "status" => !kind.has_status(),
        _ => true,
    };
    let of = |object: &serde_json::Map<String, Value>, key: &str| object.get(key).cloned().unwrap_or_default();
    let differs = |key: &str| match (new.get(key), old.get(key)) {
        (new, old) if new == old => false,
        // What is in a custom resource is taken word for word.
        _ => kind.is_custom() || !same(&of(new, key), &of(old, key)),
    };
    new.keys().chain(old.keys()).any(|key| content(key) && differs(key))
}

/// Equal but for empty lists, which a client may send and the store does not keep.
fn same(new: &Value, old: &Value) -> bool {
    let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            let below = |key: &str| same(new.get(key).unwrap_or(&Value::Null), old.get(key).unwrap_or(&Value::Null));
            new == old || new.keys().chain(old.keys()).all(|key| below(key))
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
        }
        _ => new == old || (nothing(new) && nothing(old)),
    }
}

/// The status of a custom resource is all that a write of it changes, and who owns it.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let (Some(from), Some(to)) = (new.as_object_mut(), kept.as_object_mut()) else { return };
    match from.shift_remove("status") {
        Some(status) => to.insert("status".to_owned(), status),
        None => to.shift_remove("status"),
    };
    let own = from.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = to.get_mut("metadata").and_then(Value::as_object_mut);
    if let (Some(own), Some(metadata)) = (own, metadata) {
        match own.shift_remove("managedFields") {
            Some(entries) => metadata.insert("managedFields".to_owned(), entries),
            None => metadata.shift_remove("managedFields"),
        };
    }
    *new = kept;
}

/// All kinds served, in discovery's order. A value: adding or removing a kind gives another registry, which shares
/// everything that did not change. Cloning costs one reference count.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    groups: Vec<Arc<Group>>,
    by_name: HashMap<Arc<str>, usize>,
}

/// An API group and its versions, the preferred one first.
#[derive(Clone, Debug)]
pub struct Group {
    /// `""` for the core group.
    pub name: Arc<str>,
    pub versions: Vec<Arc<GroupVersion>>,
    /// Custom groups come after the built-in ones.
    pub custom: bool,
}

/// One version of a group and its resources in discovery's order.
#[derive(Clone, Debug)]
pub struct GroupVersion {
    pub version: Arc<str>,
    pub kinds: Vec<Arc<Kind>>,
    by_plural: HashMap<Arc<str>, usize>,
}

impl Group {
    pub fn version(&self, version: &str) -> Option<&Arc<GroupVersion>> {
        self.versions.iter().find(|v| &*v.version == version)
    }

    /// The version `kubectl` uses when none is given.
    pub fn preferred(&self) -> Option<&Arc<GroupVersion>> {
        self.versions.first()
    }
}

impl GroupVersion {
    pub fn kind(&self, plural: &str) -> Option<&Arc<Kind>> {
        self.by_plural.get(plural).map(|at| &self.kinds[*at])
    }

    fn new(version: Arc<str>, kinds: Vec<Arc<Kind>>) -> GroupVersion {
        let by_plural = kinds.iter().enumerate().map(|(at, kind)| (kind.plural.clone(), at)).collect();
        GroupVersion { version, kinds, by_plural }
    }
}

impl Registry {
    /// The kinds in the order they are given; a group's first version is its preferred one.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Registry {
        type Versions = Vec<(Arc<str>, Vec<Arc<Kind>>)>;
        let mut groups: Vec<(Arc<str>, Versions)> = Vec::new();
        for kind in kinds {
            let group = match groups.iter().position(|(name, _)| *name == kind.group) {
                Some(at) => &mut groups[at].1,
                None => &mut groups.push_mut((kind.group.clone(), Vec::new())).1,
            };
            let version = match group.iter().position(|(name, _)| *name == kind.version) {
                Some(at) => &mut group[at].1,
                None => &mut group.push_mut((kind.version.clone(), Vec::new())).1,
            };
            version.push(Arc::new(kind));
        }
        let groups = groups.into_iter().map(|(name, versions)| {
            let versions = versions.into_iter().map(|(version, kinds)| Arc::new(GroupVersion::new(version, kinds)));
            Arc::new(Group { name, versions: versions.collect(), custom: false })
        });
        Registry::of(groups.collect())
    }

    /// The resource at `/apis/GROUP/VERSION/../PLURAL` (`group` is `""` for core).
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.group(group)?.version(version)?.kind(plural)
    }

    /// The resource whose objects say `apiVersion: GROUP/VERSION` and `kind: KIND`.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.group(group)?.version(version)?.kinds.iter().find(|k| &*k.kind == kind)
    }

    /// The resource in the group's preferred version that has it.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.group(group)?.versions.iter().find_map(|version| version.kind(plural))
    }

    /// What a user means by `po`, `pods`, `Deployment`, `deployments.apps` or `deployments.v1.apps`: the first match in
    /// discovery's order.
    pub fn find(&self, word: &str) -> Option<&Arc<Kind>> {
        let lower = word.to_lowercase();
        let (name, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let named = |k: &&Arc<Kind>| {
            *k.plural == *name
                || *k.singular == *name
                || k.short_names.iter().any(|s| **s == *name)
                || k.kind.to_lowercase() == name
        };
        let placed = |k: &&Arc<Kind>| {
            rest.is_empty()
                || *k.group == *rest
                || rest.split_once('.').is_some_and(|(version, group)| *k.version == *version && *k.group == *group)
                || (k.group.is_empty() && *k.version == *rest)
        };
        self.kinds().filter(placed).find(named)
    }

    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.inner.by_name.get(name).map(|at| &self.inner.groups[*at])
    }

    /// In discovery's order; the core group, named `""`, is the first.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.inner.groups
    }

    /// Every resource in every version, in discovery's order.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.groups().iter().flat_map(|group| &group.versions).flat_map(|version| &version.kinds)
    }

    /// The registry with this kind added, or put in the place of the one with the same group, version and plural.
    /// New groups come after the built-in ones by name, versions in Kubernetes' order (v2, v1, v1beta2, v1alpha1, other).
    #[must_use]
    pub fn with_kind(&self, kind: Kind) -> Registry {
        let mut groups = self.inner.groups.clone();
        let at = groups.iter().position(|group| group.name == kind.group).unwrap_or_else(|| {
            let new = Group { name: kind.group.clone(), versions: Vec::new(), custom: true };
            let at = groups.iter().position(|g| g.custom && g.name > new.name).unwrap_or(groups.len());
            groups.insert(at, Arc::new(new));
            at
        });
        let group = Arc::make_mut(&mut groups[at]);
        let version = kind.version.clone();
        let mut kinds = group.version(&version).map(|v| v.kinds.clone()).unwrap_or_default();
        match kinds.iter_mut().find(|k| k.plural == kind.plural) {
            Some(old) => *old = Arc::new(kind),
            None => {
                let at = kinds.iter().position(|k| k.plural > kind.plural).unwrap_or(kinds.len());
                kinds.insert(at, Arc::new(kind));
            }
        }
        let changed = Arc::new(GroupVersion::new(version.clone(), kinds));
        match group.versions.iter_mut().find(|v| v.version == version) {
            Some(old) => *old = changed,
            None => {
                group.versions.push(changed);
                if group.custom {
                    group.versions.sort_by(|a, b| version_order(&b.version).cmp(&version_order(&a.version)));
                }
            }
        }
        Registry::of(groups)
    }

    /// The registry without the resource, in all its versions.
    #[must_use]
    pub fn without(&self, group: &str, plural: &str) -> Registry {
        let mut groups = self.inner.groups.clone();
        if let Some(group) = groups.iter_mut().find(|g| &*g.name == group) {
            let group = Arc::make_mut(group);
            for version in &mut group.versions {
                if version.kind(plural).is_some() {
                    let kinds = version.kinds.iter().filter(|k| &*k.plural != plural).cloned().collect();
                    *version = Arc::new(GroupVersion::new(version.version.clone(), kinds));
                }
            }
            group.versions.retain(|version| !version.kinds.is_empty());
        }
        groups.retain(|group| !group.versions.is_empty());
        Registry::of(groups)
    }

    fn of(groups: Vec<Arc<Group>>) -> Registry {
        let by_name = groups.iter().enumerate().map(|(at, group)| (group.name.clone(), at)).collect();
        Registry { inner: Arc::new(Inner { groups, by_name }) }
    }
}

/// Kubernetes' order of versions, greatest first: GA over beta over alpha, higher numbers first, anything else by name.
pub(crate) fn version_order(version: &str) -> (u8, u64, u64, std::cmp::Reverse<&str>) {
    let other = (0, 0, 0, std::cmp::Reverse(version));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<u64>() else { return other };
    let minor = |text: &str| text.parse::<u64>().ok();
    match &rest[digits..] {
        "" => (3, major, 0, std::cmp::Reverse("")),
        stage => match (stage.strip_prefix("beta").and_then(minor), stage.strip_prefix("alpha").and_then(minor)) {
            (Some(n), _) => (2, major, n, std::cmp::Reverse("")),
            (_, Some(n)) => (1, major, n, std::cmp::Reverse("")),
            _ => other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(group: &str, version: &str, plural: &str) -> Kind {
        Kind {
            group: group.into(),
            version: version.into(),
            kind: plural.into(),
            list_kind: "".into(),
            plural: plural.into(),
            singular: plural.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Vec::new(),
            storage_version_hash: "".into(),
            schema: Arc::default(),
            root: TypeId(0),
            subresources: Vec::new(),
            behaviour: &Behaviour::PLAIN,
            custom: None,
        }
    }

    fn print(registry: &Registry) -> String {
        let kinds: Vec<String> = registry.kinds().map(|k| format!("{}/{}/{}", k.group, k.version, k.plural)).collect();
        kinds.join(" ")
    }

    #[test]
    fn kinds_come_and_go_without_touching_the_old_registry() {
        let first = Registry::new([plain("", "v1", "pods"), plain("apps", "v1", "deployments")]);
        let added = first
            .with_kind(plain("z.io", "v1beta1", "b"))
            .with_kind(plain("a.io", "v1", "x"))
            .with_kind(plain("z.io", "v1", "b"))
            .with_kind(plain("z.io", "v1", "a"));
        assert_eq!(print(&added), "/v1/pods apps/v1/deployments a.io/v1/x z.io/v1/a z.io/v1/b z.io/v1beta1/b");
        assert_eq!(print(&added.without("z.io", "b").without("a.io", "x")), "/v1/pods apps/v1/deployments z.io/v1/a");
        assert_eq!(print(&first), "/v1/pods apps/v1/deployments");
        assert!(added.kind("z.io", "v1", "b").is_some() && added.kind("z.io", "v2", "b").is_none());
    }

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["foo1", "v1alpha1", "v3beta1", "v10", "v2", "v11alpha2", "foo10", "v12alpha1", "v1"];
        versions.sort_by(|a, b| version_order(b).cmp(&version_order(a)));
        assert_eq!(versions.join(" "), "v10 v2 v1 v3beta1 v12alpha1 v11alpha2 v1alpha1 foo1 foo10");
    }

    #[test]
    fn causes_print_as_field_errors() {
        let check = |cause: Cause, text: &str| assert_eq!(cause.to_string(), text);
        check(Cause::required("spec.containers[0].image", ""), "spec.containers[0].image: Required value");
        check(
            Cause::invalid("spec.replicas", &Value::from(-1), "must be greater than or equal to 0"),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            Cause::not_supported("spec.type", &Value::from("x"), &["A", "B"]),
            r#"spec.type: Unsupported value: "x": supported values: "A", "B""#,
        );
        check(Cause::forbidden("spec", "is immutable"), "spec: Forbidden: is immutable");
    }

    #[test]
    fn what_is_absent_is_zero() {
        let check = |group: &str, plural: &str, pointer: &str, expected: &str| {
            let registry = crate::tables::builtin();
            let kind = registry.kind(group, "v1", plural).cloned();
            assert_eq!(kind.map(|kind| kind.zero_text(pointer)), Some(expected), "{plural} {pointer}");
        };
        check("", "pods", "/spec/hostNetwork", "false");
        check("", "pods", "/spec/nodeName", "");
        check("", "pods", "/status/podIPs/0/ip", "");
        check("", "nodes", "/spec/unschedulable", "false");
        check("batch", "jobs", "/status/succeeded", "0");
        check("apps", "deployments", "/spec/replicas", "");
    }
}
