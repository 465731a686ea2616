//! Custom resources: a CustomResourceDefinition becomes [`Kind`]s, one for each version it serves. Beside what every
//! kind has, such a kind knows its schema, by which its objects are pruned, defaulted and checked, as Kubernetes does
//! it. Pure; who tells the server of definitions is the server's business.

mod check;
mod columns;
mod formats;
mod node;
mod prune;
pub(crate) mod publish;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use serde_json::Value;
use sha2::Digest;

pub use self::columns::Column;
use self::node::Node;
use self::prune::Metadata;
use crate::builtin::read::Read;
use crate::decode::{self, DecodeError, Decoded};
use crate::schema::TypeId;
use crate::{Behaviour, Cause, Kind, NameRule, Subresource};

/// What is a definition's of a kind.
#[derive(Debug)]
pub struct Custom {
    /// The schemas of all versions by name, also of those that are not served: objects may be kept in them.
    versions: Arc<BTreeMap<Arc<str>, Node>>,
    /// The version of this kind, and the one in which objects are kept.
    version: Arc<str>,
    storage: Arc<str>,
    /// What was stored up to this revision may not be as today's schema wants it.
    since: u64,
    /// Where the numbers of `scale` are, where there is one.
    pub scale: Option<Scale>,
    /// Beside the name.
    pub columns: Vec<Column>,
    /// The field selectors of this version: their label, and the JSON pointer it reads.
    pub selectable: Vec<(Arc<str>, Arc<str>)>,
    /// The pointers of all versions.
    pub selectable_anywhere: Vec<Arc<str>>,
    /// What every answer about the kind warns of; `""` where it is not deprecated.
    pub deprecated: String,
    /// Its definition is being deleted: there will be no new objects.
    pub is_terminating: bool,
    /// `openAPIV3Schema` of this version, as the definition has it.
    pub open_api: Value,
}

/// The paths of `subresources.scale`, as JSON pointers, and as the definition has them.
#[derive(Clone, Debug)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
    spec_path: String,
    status_path: String,
    selector_path: String,
}

/// What all custom resources have of code.
static BEHAVIOUR: Behaviour = Behaviour {
    warnings: |new, old| finalizer_warnings(new, old),
    name: NameRule::Subdomain,
    has_generation: true,
    unconditional_update: false,
    ..Behaviour::PLAIN
};

/// The verbs in which discovery shows custom resources.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// The metadata of a custom resource as Go writes it out of a struct: its fields in their order, not by name. What is no
/// metadata stays as it is.
pub fn struct_metadata(metadata: Value) -> Value {
    match decode::normalize(crate::tables::schema(), prune::object_meta(), metadata.clone()) {
        Ok(decoded) => decoded.object,
        Err(_) => metadata,
    }
}

/// The kinds that a definition makes the server serve: none before its names were accepted. `since` is the revision at
/// which its spec became what it is. A definition that is being deleted and serves no version has the one in which its
/// objects are kept, else nobody could reach them to delete them.
pub fn kinds(definition: &Value, since: u64) -> Vec<Kind> {
    let is_true = |type_: &str| {
        let conditions = definition.list("status.conditions");
        conditions.iter().any(|condition| condition.text("type") == type_ && condition.text("status") == "True")
    };
    if !is_true("NamesAccepted") && !is_true("Established") {
        return Vec::new();
    }
    let spec = definition.at("spec");
    let list = spec.list("versions");
    let nodes =
        list.iter().map(|version| (version.text("name").into(), Node::read(version.at("schema.openAPIV3Schema"))));
    let shared = Shared {
        definition,
        versions: Arc::new(nodes.collect()),
        storage: list.iter().find(|version| version.flag("storage")).map_or("", |version| version.text("name")).into(),
        selectable_anywhere: list.iter().flat_map(selectable).map(|(_, pointer)| pointer).collect(),
        is_terminating: is_true("Terminating"),
        since,
    };
    let serves = |version: &&Value| version.flag("served");
    let reached = match shared.is_terminating && !list.iter().any(|version| serves(&version)) {
        true => "storage",
        false => "served",
    };
    list.iter().filter(|version| version.flag(reached)).map(|version| shared.kind(version)).collect()
}

struct Shared<'a> {
    definition: &'a Value,
    versions: Arc<BTreeMap<Arc<str>, Node>>,
    storage: Arc<str>,
    selectable_anywhere: Vec<Arc<str>>,
    is_terminating: bool,
    since: u64,
}

impl Shared<'_> {
    fn kind(&self, version: &Value) -> Kind {
        let (spec, names) = (self.definition.at("spec"), self.definition.at("status.acceptedNames"));
        let (group, name) = (spec.text("group"), version.text("name"));
        let scale = Some(version.at("subresources.scale")).filter(|scale| scale.is_object()).map(Scale::read);
        let texts = |field: &str| names.list(field).iter().filter_map(Value::as_str).map(Arc::from).collect();
        let none = Node::default();
        let node = self.versions.get(name).unwrap_or(&none);
        let shapes = shape::shapes(names.text("kind"), node, scale.is_some());
        let namespaced = spec.text("scope") == "Namespaced";
        let part = |name: &str, group: &str, version: &str, kind: &str, root: TypeId| Subresource {
            name: name.into(),
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            namespaced,
            verbs: PART_VERBS.map(Arc::from).to_vec(),
            root,
        };
        let mut subresources = Vec::new();
        if version.has("subresources.status") {
            subresources.push(part("status", "", "", names.text("kind"), shapes.root));
        }
        subresources.extend(shapes.scale.map(|root| part("scale", "autoscaling", "v1", "Scale", root)));
        let custom = Custom {
            versions: self.versions.clone(),
            version: name.into(),
            storage: self.storage.clone(),
            since: self.since,
            scale,
            columns: columns::columns(version),
            selectable: selectable(version).collect(),
            selectable_anywhere: self.selectable_anywhere.clone(),
            deprecated: deprecation(spec, version),
            is_terminating: self.is_terminating,
            open_api: version.at("schema.openAPIV3Schema").clone(),
        };
        Kind {
            group: group.into(),
            version: name.into(),
            kind: names.text("kind").into(),
            list_kind: names.text("listKind").into(),
            plural: names.text("plural").into(),
            singular: names.text("singular").into(),
            short_names: texts("shortNames"),
            categories: texts("categories"),
            namespaced,
            verbs: VERBS.map(Arc::from).to_vec(),
            storage_version_hash: storage_version_hash(group, &self.storage, names.text("kind")).into(),
            schema: shapes.schema,
            root: shapes.root,
            subresources,
            behaviour: &BEHAVIOUR,
            custom: Some(Arc::new(custom)),
        }
    }
}

/// The label and the pointer of each selectable field of a version.
fn selectable(version: &Value) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    version.list("selectableFields").iter().map(|field| {
        let path = field.text("jsonPath").trim_start_matches('.');
        (path.into(), format!("/{}", path.replace('.', "/")).into())
    })
}

/// What discovery shows of the version in which objects are kept.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    const BYTES: usize = 8;
    let digest = sha2::Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..BYTES])
}

/// `GROUP/VERSION KIND is deprecated; use ..`: the definition's own words, or the newest version that is not.
fn deprecation(spec: &Value, version: &Value) -> String {
    if !version.flag("deprecated") {
        return String::new();
    }
    if let Some(own) = version.at("deprecationWarning").as_str() {
        return own.to_owned();
    }
    let (group, kind, name) = (spec.text("group"), spec.text("names.kind"), version.text("name"));
    let order = |name| crate::kind::version_order(name);
    let better = spec.list("versions").iter().filter(|other| other.flag("served") && !other.flag("deprecated"));
    let best =
        better.map(|other| other.text("name")).filter(|other| order(other) > order(name)).max_by_key(|n| order(n));
    let text = format!("{group}/{name} {kind} is deprecated");
    best.map_or(text.clone(), |best| format!("{text}; use {group}/{best} {kind}"))
}

/// Finalizers without a domain, where they are new.
fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let before = old.map(|old| old.list("metadata.finalizers")).unwrap_or_default();
    let added = new.list("metadata.finalizers").iter().filter(|finalizer| !before.contains(finalizer));
    let mut names: Vec<&str> = added.filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let plain = names.into_iter().filter(|name| !name.contains('/') && !STANDARD.contains(name));
    let warn = |name: &str| {
        format!(
            "metadata.finalizers: {}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other \
             finalizer writers",
            crate::kind::go_quote(name)
        )
    };
    plain.map(warn).collect()
}

/// What is wrong with the defaults that a schema gives: they must be right themselves. `path` is where the schema is.
pub fn check_defaults(schema: &Value, path: &str) -> Vec<Cause> {
    let mut root = Node::read(schema);
    root.embedded = true;
    let mut out = Vec::new();
    check::defaults(&root, path, &mut out);
    out
}

/// Texts of warnings about a schema: formats that are not known, sets that nothing can tell apart.
pub fn schema_warnings(schema: &Value) -> Vec<String> {
    let mut out = Vec::new();
    if !schema.is_object() {
        return out;
    }
    let format = schema.text("format");
    if schema.text("type") == "string" && !format.is_empty() && !formats::is_of_string(format) {
        out.push(format!("unrecognized format {}", crate::kind::go_quote(format)));
    }
    let items = schema.at("items").text("type");
    if schema.key("x-kubernetes-list-type") == "set" && matches!(items, "object" | "array") {
        out.push(format!(
            "x-kubernetes-list-type: set for items of type {} is not supported by server-side apply or CEL validation \
             rules",
            crate::kind::go_quote(items)
        ));
    }
    for field in ["items", "additionalProperties"] {
        out.extend(schema_warnings(schema.at(field)));
    }
    out.extend(schema.at("properties").entries().into_iter().flat_map(|(_, below)| schema_warnings(below)));
    out
}

/// What Go says of a regular expression that is none; `None` where it is one.
pub fn pattern_error(pattern: &str) -> Option<String> {
    use regex_syntax::ast::ErrorKind;
    let pattern = &*node::unquoted(pattern);
    let error = regex_syntax::ast::parse::Parser::new().parse(pattern).err()?;
    let at = error.span().start.offset..error.span().end.offset;
    let part = pattern.get(at.clone()).unwrap_or_default();
    let rest = pattern.get(at.start..).unwrap_or_default();
    Some(match error.kind() {
        ErrorKind::GroupUnclosed => format!("missing closing ): `{pattern}`"),
        ErrorKind::GroupUnopened => format!("unexpected ): `{pattern}`"),
        ErrorKind::ClassUnclosed => format!("missing closing ]: `{rest}`"),
        ErrorKind::RepetitionMissing => format!("missing argument to repetition operator: `{part}`"),
        ErrorKind::EscapeUnexpectedEof => "trailing backslash at end of expression: ``".to_owned(),
        ErrorKind::EscapeUnrecognized | ErrorKind::UnsupportedBackreference => {
            format!("invalid escape sequence: `{part}`")
        }
        ErrorKind::UnsupportedLookAround | ErrorKind::FlagUnrecognized => {
            let shown: String = rest.chars().take(3).collect();
            format!("invalid or unsupported Perl syntax: `{shown}`")
        }
        ErrorKind::ClassRangeInvalid => format!("invalid character class range: `{part}`"),
        ErrorKind::RepetitionCountInvalid => format!("invalid repeat count: `{part}`"),
        other => format!("{other}: `{part}`"),
    })
}

impl Scale {
    fn read(scale: &Value) -> Scale {
        let pointer = |path: &str| path.replace('.', "/");
        let path = |field: &str| scale.text(field).to_owned();
        Scale {
            spec_replicas: pointer(scale.text("specReplicasPath")),
            status_replicas: pointer(scale.text("statusReplicasPath")),
            selector: Some(scale.text("labelSelectorPath")).filter(|path| !path.is_empty()).map(pointer),
            spec_path: path("specReplicasPath"),
            status_path: path("statusReplicasPath"),
            selector_path: path("labelSelectorPath"),
        }
    }

    /// The numbers must be ones that a scale can hold. `spec`: also the wanted one.
    fn check(&self, object: &Value, spec: bool, out: &mut Vec<Cause>) {
        let replicas = [(&self.spec_path, &self.spec_replicas), (&self.status_path, &self.status_replicas)];
        for (path, pointer) in replicas.into_iter().skip(usize::from(!spec)) {
            let detail = match object.pointer(pointer) {
                None => continue,
                Some(value) => match value.as_i64() {
                    Some(0..=0x7fff_ffff) => continue,
                    Some(number) => {
                        let what = match number {
                            ..0 => "should be a non-negative integer".to_owned(),
                            _ => format!("should be less than or equal to {}", i32::MAX),
                        };
                        (number, what)
                    }
                    None => (0, accessor_error(path, value, "int64")),
                },
            };
            out.push(Cause::invalid(path.as_str(), &detail.0.into(), &detail.1));
        }
        if let Some(value) =
            self.selector.as_ref().and_then(|pointer| object.pointer(pointer)).filter(|v| !v.is_string())
        {
            let detail = accessor_error(&self.selector_path, value, "string");
            out.push(Cause::invalid(self.selector_path.as_str(), &"".into(), &detail));
        }
    }
}

fn accessor_error(path: &str, value: &Value, wanted: &str) -> String {
    let (shown, type_) = (crate::strategic::go_print(value), crate::strategic::go_type(value));
    format!("{path} accessor error: {shown} is of the type {type_}, expected {wanted}")
}

impl Custom {
    /// Whether the stored bytes of a revision are what this kind shows.
    pub fn shows_stored(&self, revision: u64) -> bool {
        self.version == self.storage && revision > self.since
    }

    /// The revision since which the definition says what it says.
    pub fn since(&self) -> u64 {
        self.since
    }

    fn node(&self) -> Option<&Node> {
        self.versions.get(&self.version)
    }

    /// The schema of the version that an object says it is of.
    fn node_of(&self, object: &Value) -> Option<&Node> {
        let version = object.text("apiVersion").rsplit('/').next().unwrap_or_default();
        self.versions.get(version)
    }

    /// A body as it is worked with: pruned, its metadata read, defaults filled in.
    pub(crate) fn decode(&self, kind: &Kind, json: &[u8]) -> Result<Decoded, DecodeError> {
        let value = decode::any(json)?;
        let twice = decode::duplicate_fields(json);
        let mut decoded = self.normalize(kind, value)?;
        decoded.strict.splice(0..0, twice);
        Ok(decoded)
    }

    pub(crate) fn normalize(&self, kind: &Kind, mut object: Value) -> Result<Decoded, DecodeError> {
        let mut strict = Vec::new();
        prune::numbers(&mut object);
        let metadata = Metadata::of(&object)?;
        strict.extend(metadata.iter().flat_map(|metadata| metadata.noticed("metadata")));
        let given = object.text("kind");
        if let Some(node) = self.node().filter(|_| given.is_empty() || given == &*kind.kind) {
            let unknown = prune::prune(&mut object, node);
            strict.extend(unknown.iter().map(|path| format!("unknown field {}", crate::kind::go_quote(path))));
            prune::drop_nulls(&mut object, Some(node));
            prune::embedded(&mut object, node, "", &mut strict)?;
            prune::default(&mut object, node);
        }
        if let Some(metadata) = metadata {
            object["metadata"] = metadata.value;
        }
        Ok(Decoded { object, strict })
    }

    pub(crate) fn default(&self, object: &mut Value) {
        if let Some(node) = self.node() {
            prune::default(object, node);
        }
    }

    /// An object in the version in which it is kept.
    pub(crate) fn to_kept(&self, kind: &Kind, mut object: Value) -> Value {
        if self.version != self.storage {
            self.convert(kind, &mut object, &self.storage);
        }
        prune::sort(&mut object);
        object
    }

    /// An object that was kept, in whatever version and by whatever schema of that time, as this version has it.
    pub(crate) fn shown(&self, kind: &Kind, mut object: Value) -> Value {
        if let Some(node) = self.node_of(&object) {
            prune::prune(&mut object, node);
            prune::drop_nulls(&mut object, Some(node));
            prune::default(&mut object, node);
        }
        self.convert(kind, &mut object, &self.version);
        prune::sort(&mut object);
        object
    }

    /// An object of another version as this one has it.
    pub(crate) fn as_version(&self, kind: &Kind, mut object: Value) -> Value {
        self.convert(kind, &mut object, &self.version);
        object
    }

    /// Only `apiVersion` changes, and what the other version does not know is gone.
    fn convert(&self, kind: &Kind, object: &mut Value, version: &str) {
        let api_version = format!("{}/{version}", kind.group);
        if object.text("apiVersion") == api_version {
            return;
        }
        object["apiVersion"] = api_version.into();
        if let Some(node) = self.versions.get(version) {
            prune::prune(object, node);
            prune::drop_nulls(object, Some(node));
        }
    }

    /// An object that code has changed, in the form in which it is written.
    pub(crate) fn tidy(&self, mut object: Value) -> Result<Value, DecodeError> {
        if let Some(metadata) = Metadata::of(&object)? {
            object["metadata"] = metadata.value;
        }
        prune::sort(&mut object);
        Ok(object)
    }

    /// What is wrong with the type that an object says it is of: nothing else is looked at then.
    pub(crate) fn check_type(&self, kind: &Kind, object: &Value) -> Vec<Cause> {
        let mut out = Vec::new();
        for (field, wanted) in [("kind", kind.kind.to_string()), ("apiVersion", kind.api_version())] {
            if object.text(field) != wanted {
                out.push(Cause::invalid(field, object.at(field), &format!("must be {wanted}")));
            }
        }
        out
    }

    /// What is wrong with an object beyond its metadata.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let Some(node) = self.node() else { return Vec::new() };
        let mut out = check::check(node, object, old, "");
        if let Some(scale) = &self.scale {
            scale.check(object, true, &mut out);
        }
        check::embedded(node, object, "", &mut out);
        self.check_lists(node, object, old, &mut out);
        out
    }

    /// What is wrong with the status of an object: nothing else is looked at.
    pub(crate) fn check_status(&self, object: &Value, old: &Value) -> Vec<Cause> {
        let mut out = Vec::new();
        let Some(node) = self.node() else { return out };
        if let (Some(status), Some(value)) = (node.properties.get("status"), object.get("status")) {
            out.extend(check::check(status, value, old.get("status"), "status"));
        }
        if let Some(scale) = &self.scale {
            scale.check(object, false, &mut out);
        }
        check::embedded(node, object, "", &mut out);
        self.check_lists(node, object, Some(old), &mut out);
        out
    }

    /// Lists that were wrong before may stay so.
    fn check_lists(&self, node: &Node, object: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
        let mut before = Vec::new();
        if let Some(old) = old {
            check::duplicates(node, old, "", &mut before);
        }
        if before.is_empty() {
            check::duplicates(node, object, "", out);
        }
    }
}
