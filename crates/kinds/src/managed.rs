//! Who owns which field: what `metadata.managedFields` becomes when an object is written. Server-side apply, which also
//! decides by it, is in `apply`. Pure: the time comes with the request.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use api::codec::write_text;
use serde_json::{Map, Value};

use crate::decode;
use crate::fieldset::{Element, Filter, Set};
use crate::schema::{Schema, Shape, TypeId};
use crate::typed::{self, Comparison, Ref, Without};

/// The most entries of plain updates an object keeps; the oldest of more are merged into one.
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// The most bytes of a manager's name.
pub const MANAGER_NAME_BYTES_MAX: usize = 128;

const ANCIENT_CHANGES: &str = "ancient-changes";
/// Stands for the manager of the request while its changes are found.
const CURRENT_OPERATION: &str = "current-operation";
const STRIPPED: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

static STRIPPED_SET: LazyLock<Set> = LazyLock::new(|| Set::of(STRIPPED));

/// What a request that writes an object says of itself.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// See [`manager_name`].
    pub manager: &'a str,
    /// The version of the request: `apps/v1`.
    pub api_version: &'a str,
    pub kind: &'a str,
    /// `""` for the object itself.
    pub subresource: &'a str,
    /// RFC 3339 with seconds, in UTC.
    pub now: &'a str,
    /// What this resource or subresource lets a request own, see [`resets`].
    pub owned: &'a Filter,
    /// The object in another version of its kind; `None` where there is no such version, see [`one_version`].
    pub convert: &'a Convert<'a>,
}

/// Gives an object of the kind in another version, with the type it has there.
pub type Convert<'a> = dyn Fn(&Value, &str) -> Option<(Arc<Schema>, TypeId, Value)> + Sync + 'a;

/// The [`Convert`] of a kind that is served in one version.
pub fn one_version(_object: &Value, _api_version: &str) -> Option<(Arc<Schema>, TypeId, Value)> {
    None
}

/// The manager of a write that is not an apply: the `fieldManager` parameter, or the user agent up to its first `/`.
/// `""` becomes `unknown` when it is written down.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let mut name = String::new();
    let printable = |c: &char| *c == ' ' || !(c.is_control() || c.is_whitespace() || is_format(*c));
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(printable) {
        if name.len() + c.len_utf8() > MANAGER_NAME_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// Invisible characters that order or join text.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Does the object, as the client gave it, take its managed fields away? `[]` and `[{}]` do.
pub fn asks_reset(object: &Value) -> bool {
    asks_reset_with(managed_fields(object))
}

/// [`asks_reset`] of a body that is no value yet. Reads it only where it speaks of managed fields.
pub fn body_asks_reset(json: &[u8]) -> bool {
    memchr::memmem::find(json, b"\"managedFields\"").is_some()
        && serde_json::from_slice(json).is_ok_and(|object| asks_reset(&object))
}

/// Makes a decoded object ask for it: decoding loses the empty list, so that whoever decodes looks before with
/// [`asks_reset`] and says it again with this.
pub fn mark_reset(object: &mut Value) {
    set_managed_fields(object, Some(Value::Array(vec![Value::Object(Map::new())])));
}

fn asks_reset_with(entries: Option<&Value>) -> bool {
    let unset = |value: &Value| value.is_null() || value.as_str() == Some("");
    match entries.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_none_or(|entry| entry.values().all(unset)),
        _ => false,
    }
}

/// Sets `new.metadata.managedFields` after a create (`old` is `None`) or any update that is not an apply. What changed is
/// the manager's from now on, what is gone is nobody's. `new` is as the client wants it, decoded and defaulted, before
/// admission. An object without managed fields stays so, and one that asks for it loses them, see [`asks_reset`].
pub fn update(schema: &Schema, root: TypeId, old: Option<&Value>, new: &mut Value, write: &Write) {
    let given = take_managed_fields(new);
    let kept = old.and_then(managed_fields).cloned();
    let live = || kept.as_ref().and_then(|kept| Managers::decode(kept).ok()).unwrap_or_default();
    let managers = match &given {
        // Whoever writes a subresource cannot write managed fields.
        _ if !write.subresource.is_empty() => live(),
        Some(_) if asks_reset_with(given.as_ref()) => Managers::default(),
        Some(given) => Managers::decode(given).ok().filter(|m| !m.fields.is_empty()).unwrap_or_else(live),
        None => live(),
    };
    let created = old.is_none_or(|old| old.pointer("/metadata/uid").is_none_or(|uid| uid.as_str() == Some("")));
    if managers.fields.is_empty() && !created {
        return;
    }
    let zero = old.is_none().then(|| zero(schema, root, write));
    let Some(live) = old.or(zero.as_ref()) else { return };
    let fits = |object: &Value| typed::validate(schema, Ref::Type(root), object, true).is_ok();
    let managed = match fits(new) && fits(live) {
        true => Some(Engine { schema, root, write }.update(live, new, managers, write.manager).encode()),
        // An object that is not of its type keeps its managers.
        false => kept,
    };
    set_managed_fields(new, managed);
}

/// The `managedFields` that [`update`] gives a new object, as JSON, without putting them into the object, which would only
/// be taken apart again for the store. `None` where that is not all there is to say: the client gave managed fields, or
/// the object is unusual. Then [`update`] has to be asked.
pub fn of_new(schema: &Schema, root: TypeId, new: &Value, write: &Write) -> Option<String> {
    let except = match write.owned {
        Filter::All => None,
        Filter::Except(fields) => Some(fields),
        Filter::Only(_) => return None,
    };
    if new.get("metadata")?.get("managedFields").is_some() {
        return None;
    }
    let without = Without { deep: except, shallow: Some(&STRIPPED_SET) };
    // Its version and kind, which that has not, are nobody's anyway.
    let fields = typed::added(schema, Ref::Type(root), schema.zero(root), new, without)?;
    if fields == "{}" {
        return Some("null".to_owned());
    }
    let subresource = write.subresource;
    let mut out = Vec::with_capacity(fields.len() + 256);
    let mut text = |name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        write_text(&mut out, value);
    };
    text(r#"[{"manager":"#, non_empty(write.manager));
    text(r#","operation":"#, "Update");
    text(r#","apiVersion":"#, write.api_version);
    text(r#","time":"#, write.now);
    text(r#","fieldsType":"#, "FieldsV1");
    out.extend_from_slice(br#","fieldsV1":"#);
    out.extend_from_slice(fields.as_bytes());
    if !subresource.is_empty() {
        out.extend_from_slice(br#","subresource":"#);
        write_text(&mut out, subresource);
    }
    out.extend_from_slice(b"}]");
    String::from_utf8(out).ok()
}

/// Puts what [`of_new`] said into the object.
pub fn put_into(object: &mut Value, json: &str) {
    // It was written here, so it is JSON.
    set_managed_fields(object, serde_json::from_str(json).ok());
}

/// When nothing but the times in `managedFields` would change, an update is none: gives the new object the old times.
/// To be called on the object as it would be stored. Both must be in the same version.
pub fn keep_times_of_no_op(old: &Value, new: &mut Value) {
    let entries = |object: &Value| managed_fields(object).and_then(Value::as_array).cloned();
    let (Some(before), Some(after)) = (entries(old), entries(new)) else { return };
    let timeless = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut().map(|entry| entry.shift_remove("time"));
        entry
    };
    if before.len() != after.len() || !before.iter().zip(&after).all(|(a, b)| timeless(a) == timeless(b)) {
        return;
    }
    let same = |a: &Map<String, Value>, b: &Map<String, Value>, except: &str| {
        let others = |map: &Map<String, Value>| map.keys().filter(|key| *key != except).count();
        others(a) == others(b) && a.iter().all(|(key, value)| key == except || b.get(key) == Some(value))
    };
    let meta = |object: &'_ Value| object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else { return };
    if same(a, b, "metadata") && same(&meta(old), &meta(new), "managedFields") {
        set_managed_fields(new, Some(Value::Array(before)));
    }
}

/// Which fields a write of the kind, or of a subresource of it, may own. `has_status`: the kind has a status subresource.
/// The status of a custom resource is all that a write of it may own.
pub fn resets(api_version: &str, kind: &str, subresource: &str, has_status: bool, is_custom: bool) -> Filter {
    if is_custom && subresource == "status" {
        return Filter::except(&["spec", "metadata"]);
    }
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let own = RESETS.iter().find(|(g, k, s, _)| (*g, *k, *s) == (group, kind, subresource));
    match (own, subresource) {
        (Some((_, _, _, paths)), _) => Filter::except(paths),
        (None, "") if has_status => Filter::except(&["status"]),
        (None, "status") => Filter::except(&["spec"]),
        (None, _) => Filter::All,
    }
}

/// Where the replicas of a scalable object are, version by version: `("apps/v1", Some(path))`; `None` in a version that
/// has no scale. Versions that are not listed are unknown, and what they own is dropped.
pub type ReplicasPaths<'a> = &'a [(&'a str, Option<Vec<Element>>)];

const SCALE_VERSION: &str = "autoscaling/v1";

fn scale_replicas() -> [Element; 2] {
    [Element::field("spec"), Element::field("replicas")]
}

/// The `managedFields` of the `Scale` of an object: who owns the replicas. `null` when nobody does.
///
/// # Errors
/// Entries that cannot be decoded.
pub fn to_scale(entries: &Value, paths: ReplicasPaths) -> Result<Value, String> {
    let parent = Managers::decode(entries)?;
    let mut scale = Managers::default();
    for (key, owned) in parent.fields {
        let path =
            paths.iter().find(|(version, _)| *version == owned.api_version).and_then(|(_, path)| path.as_deref());
        if path.is_some_and(|path| owned.set.has(path)) {
            let mut set = Set::default();
            set.insert(&scale_replicas());
            if let Some(time) = parent.times.get(&key) {
                scale.times.insert(key.clone(), time.clone());
            }
            scale.fields.insert(key, Owned { set, api_version: SCALE_VERSION.to_owned(), applied: owned.applied });
        }
    }
    Ok(scale.encode())
}

/// The `managedFields` of an object after its `Scale`, with these entries, was written through `api_version`.
///
/// # Errors
/// Entries that cannot be decoded.
pub fn from_scale(entries: &Value, scale: &Value, api_version: &str, paths: ReplicasPaths) -> Result<Value, String> {
    let (parent, mut scale) = (Managers::decode(entries)?, Managers::decode(scale)?);
    let mut out = Managers { fields: BTreeMap::new(), times: parent.times };
    for (key, mut owned) in parent.fields {
        let Some((_, path)) = paths.iter().find(|(version, _)| *version == owned.api_version) else { continue };
        // Whoever is not among the owners of the scale has lost the replicas.
        if let Some(path) = path.as_deref().filter(|path| owned.set.has(path))
            && scale.fields.remove(&key).is_none()
        {
            let mut replicas = Set::default();
            replicas.insert(path);
            owned.set = std::mem::take(&mut owned.set).difference(&replicas);
        }
        if !owned.set.is_empty() {
            out.fields.insert(key, owned);
        }
    }
    let path = paths.iter().find(|(version, _)| *version == api_version).and_then(|(_, path)| path.as_deref());
    for (key, owned) in scale.fields {
        if owned.set.has(&scale_replicas()) {
            let mut set = Set::default();
            set.insert(path.unwrap_or_default());
            out.fields.insert(key, Owned { set, api_version: api_version.to_owned(), applied: owned.applied });
        }
    }
    Ok(out.encode())
}

/// Where upstream's strategies say something else than `status` for the object and `spec` for its status.
const RESETS: &[(&str, &str, &str, &[&str])] = &[
    ("", "Pod", "status", &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"]),
    ("apps", "Deployment", "status", &["spec", "metadata.labels"]),
    ("certificates.k8s.io", "CertificateSigningRequest", "", &["spec", "status"]),
    ("certificates.k8s.io", "CertificateSigningRequest", "approval", &["spec", "status.certificate"]),
    ("certificates.k8s.io", "CertificateSigningRequest", "status", &["spec", "status.conditions"]),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "status", &["spec", "metadata"]),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", "status", &["spec", "metadata"]),
    ("storage.k8s.io", "VolumeAttachment", "status", &["spec", "metadata"]),
    ("resource.k8s.io", "ResourceClaim", "status", &["spec", "metadata"]),
    ("apiregistration.k8s.io", "APIService", "status", &["spec", "metadata"]),
    ("networking.k8s.io", "ServiceCIDR", "status", &["spec", "metadata"]),
    ("storage.k8s.io", "CSINode", "status", &["spec", "metadata"]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "status", &["spec", "metadata"]),
    ("resource.k8s.io", "DeviceTaintRule", "status", &["spec", "metadata"]),
    ("storagemigration.k8s.io", "StorageVersionMigration", "status", &["spec", "metadata"]),
];

/// The fields of one manager, in the version it wrote them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned {
    pub set: Set,
    pub api_version: String,
    pub applied: bool,
}

/// `managedFields`, decoded. Managers are told apart by name, operation, subresource and, for updates, version; the key
/// holds these as Kubernetes encodes them, because messages and merged entries are sorted by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Managers {
    pub fields: BTreeMap<String, Owned>,
    pub times: BTreeMap<String, String>,
}

/// The key of a manager in [`Managers`].
pub(crate) fn manager_key(manager: &str, applied: bool, api_version: &str, subresource: &str) -> String {
    let mut out = Map::new();
    let fields = [
        ("manager", manager),
        ("operation", if applied { "Apply" } else { "Update" }),
        ("apiVersion", if applied { "" } else { api_version }),
        ("subresource", subresource),
    ];
    for (name, text) in fields {
        if !text.is_empty() {
            out.insert(name.to_owned(), text.into());
        }
    }
    Value::Object(out).to_string()
}

impl Managers {
    pub fn decode(entries: &Value) -> Result<Managers, String> {
        let mut out = Managers::default();
        for (at, entry) in entries.as_array().into_iter().flatten().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
            }
            let set = match entry.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => Set::parse(fields).map_err(|e| format!("error decoding set: {e}"))?,
            };
            let key = manager_key(text("manager"), applied, api_version, text("subresource"));
            if let Some(time) = entry.get("time").and_then(Value::as_str) {
                out.times.insert(key.clone(), time.to_owned());
            }
            out.fields.insert(key, Owned { set, api_version: api_version.to_owned(), applied });
        }
        Ok(out)
    }

    /// The list as it is stored, sorted; `null` when nobody owns anything.
    pub fn encode(&self) -> Value {
        let mut entries: Vec<Map<String, Value>> = Vec::with_capacity(self.fields.len());
        for (key, owned) in &self.fields {
            let who: Value = serde_json::from_str(key).unwrap_or_default();
            let mut entry = Map::new();
            if let Some(manager) = who.get("manager") {
                entry.insert("manager".to_owned(), manager.clone());
            }
            entry.insert("operation".to_owned(), if owned.applied { "Apply" } else { "Update" }.into());
            entry.insert("apiVersion".to_owned(), owned.api_version.clone().into());
            if let Some(time) = self.times.get(key) {
                entry.insert("time".to_owned(), time.clone().into());
            }
            entry.insert("fieldsType".to_owned(), "FieldsV1".into());
            entry.insert("fieldsV1".to_owned(), owned.set.print());
            if let Some(subresource) = who.get("subresource") {
                entry.insert("subresource".to_owned(), subresource.clone());
            }
            entries.push(entry);
        }
        let text = |entry: &Map<String, Value>, name: &str| {
            entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let order = ["operation", "time", "manager", "apiVersion", "subresource"];
        entries.sort_by_cached_key(|entry| order.map(|name| text(entry, name)));
        if entries.is_empty() {
            return Value::Null;
        }
        Value::Array(entries.into_iter().map(Value::Object).collect())
    }

    /// Merges the oldest updates, version by version, until there are few enough.
    fn cap_updates(&mut self) {
        let mut updates: Vec<String> = self.fields.iter().filter(|(_, o)| !o.applied).map(|(k, _)| k.clone()).collect();
        let mut count = updates.len();
        updates.sort_by_cached_key(|key| (self.times.get(key).cloned(), key.clone()));
        let mut first_of_version: BTreeMap<String, String> = BTreeMap::new();
        for key in updates {
            if count <= UPDATE_MANAGERS_MAX {
                return;
            }
            let Some(owned) = self.fields.get(&key).cloned() else { continue };
            let Some(first) = first_of_version.get(&owned.api_version) else {
                first_of_version.insert(owned.api_version, key);
                continue;
            };
            let bucket = manager_key(ANCIENT_CHANGES, false, &owned.api_version, "");
            if !self.fields.contains_key(&bucket)
                && let Some(oldest) = self.fields.remove(first)
            {
                self.fields.insert(bucket.clone(), oldest);
            }
            self.fields.remove(&key);
            if let Some(merged) = self.fields.get_mut(&bucket) {
                merged.set = std::mem::take(&mut merged.set).union(owned.set);
            }
            count -= 1;
            if let Some(time) = self.times.get(&key).cloned() {
                self.times.insert(bucket, time);
            }
        }
    }

    pub fn strip(&mut self, key: &str) {
        let Some(owned) = self.fields.get_mut(key) else { return };
        owned.set = std::mem::take(&mut owned.set).difference(&STRIPPED_SET);
        if owned.set.is_empty() {
            self.fields.remove(key);
        }
    }
}

/// The schema of an object in some version.
#[derive(Clone)]
pub(crate) enum SchemaOf<'a> {
    Own(&'a Schema),
    Other(Arc<Schema>),
}

impl std::ops::Deref for SchemaOf<'_> {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            SchemaOf::Own(schema) => schema,
            SchemaOf::Other(schema) => schema,
        }
    }
}

/// An object in some version.
pub(crate) struct View<'a> {
    pub schema: SchemaOf<'a>,
    pub root: TypeId,
    pub object: Value,
}

/// What update and apply have in common.
pub(crate) struct Engine<'a> {
    pub schema: &'a Schema,
    pub root: TypeId,
    pub write: &'a Write<'a>,
}

impl<'a> Engine<'a> {
    /// The managers after a write that is not an apply.
    pub fn update(&self, old: &Value, new: &Value, mut managers: Managers, manager: &str) -> Managers {
        let write = self.write;
        self.reconcile(&mut managers, old);
        // The fields are first taken from all others, from earlier updates of the same manager too: whether the request
        // then owns anything tells whether it changed anything.
        let changes = self.change_owners(old, new, &mut managers, CURRENT_OPERATION);
        let set = write.owned.apply(changes.modified.union(changes.added));
        managers.fields.insert(
            CURRENT_OPERATION.to_owned(),
            Owned { set, api_version: write.api_version.to_owned(), applied: false },
        );
        managers.strip(CURRENT_OPERATION);
        if let Some(mut current) = managers.fields.remove(CURRENT_OPERATION) {
            let key = manager_key(non_empty(manager), false, write.api_version, write.subresource);
            if let Some(previous) = managers.fields.get(&key) {
                current.set = current.set.union(previous.set.clone());
            }
            managers.fields.insert(key.clone(), current);
            managers.times.insert(key, write.now.to_owned());
        }
        managers.cap_updates();
        managers
    }

    /// Sets of older schemas become as today's schema has them.
    pub fn reconcile(&self, managers: &mut Managers, live: &Value) {
        for owned in managers.fields.values_mut() {
            let set = std::mem::take(&mut owned.set);
            owned.set = if owned.api_version == self.write.api_version {
                typed::reconcile(self.schema, Ref::Type(self.root), set)
            } else {
                match self.convert(live, &owned.api_version) {
                    Some(view) => typed::reconcile(&view.schema, Ref::Type(view.root), set),
                    None => set,
                }
            };
        }
        // What belongs to a version that is no more goes.
        managers.fields.retain(|_, owned| {
            owned.api_version == self.write.api_version || self.convert(live, &owned.api_version).is_some()
        });
    }

    /// Takes what changed and what is gone from all managers but `current`. Gives what changed.
    pub fn change_owners(&self, old: &Value, new: &Value, managers: &mut Managers, current: &str) -> Comparison {
        let (changes, taken) = self.changes(old, new, managers, current);
        for (key, Taken { changed, removed }) in taken {
            if let Some(owned) = managers.fields.get_mut(&key) {
                owned.set = std::mem::take(&mut owned.set).difference(&changed).difference(&removed);
            }
        }
        managers.fields.retain(|_, owned| !owned.set.is_empty());
        changes
    }

    /// What changed, and per manager what of its fields that concerns.
    pub fn changes(
        &self,
        old: &Value,
        new: &Value,
        managers: &Managers,
        current: &str,
    ) -> (Comparison, BTreeMap<String, Taken>) {
        let own = self.filter(typed::compare(self.schema, Ref::Type(self.root), old, new));
        if managers.fields.keys().all(|key| key == current) {
            return (own, BTreeMap::new());
        }
        let mut versions: BTreeMap<&str, Comparison> = BTreeMap::from([(self.write.api_version, own.clone())]);
        let mut taken = BTreeMap::new();
        for (key, owned) in managers.fields.iter().filter(|(key, _)| *key != current) {
            if !versions.contains_key(&*owned.api_version) {
                let both = (self.convert(old, &owned.api_version), self.convert(new, &owned.api_version));
                let (Some(old), Some(new)) = both else { continue };
                let changes = typed::compare(&new.schema, Ref::Type(new.root), &old.object, &new.object);
                versions.insert(&owned.api_version, self.filter(changes));
            }
            let Some(changes) = versions.get(&*owned.api_version) else { continue };
            let changed = owned.set.intersection(&changes.modified).union(owned.set.intersection(&changes.added));
            taken.insert(key.clone(), Taken { changed, removed: changes.removed.clone() });
        }
        (own, taken)
    }

    /// The object in that version, as it is when it is in it already.
    pub fn convert(&self, object: &Value, api_version: &str) -> Option<View<'a>> {
        let has = object.get("apiVersion").and_then(Value::as_str);
        if api_version == self.write.api_version && has.is_none_or(|has| has == api_version) {
            return Some(View { schema: SchemaOf::Own(self.schema), root: self.root, object: object.clone() });
        }
        let (schema, root, object) = (self.write.convert)(object, api_version)?;
        Some(match api_version == self.write.api_version {
            true => View { schema: SchemaOf::Own(self.schema), root: self.root, object },
            false => View { schema: SchemaOf::Other(schema), root, object },
        })
    }

    fn filter(&self, changes: Comparison) -> Comparison {
        let Comparison { removed, modified, added } = changes;
        let owned = self.write.owned;
        Comparison { removed: owned.apply(removed), modified: owned.apply(modified), added: owned.apply(added) }
    }
}

/// What a change takes from a manager.
pub(crate) struct Taken {
    /// Its fields that got another value.
    pub changed: Set,
    /// All that is gone from the object.
    pub removed: Set,
}

/// Kubernetes' word for a manager without a name.
pub(crate) fn non_empty(manager: &str) -> &str {
    if manager.is_empty() { "unknown" } else { manager }
}

/// The empty object that a create is compared with.
pub(crate) fn zero(schema: &Schema, root: TypeId, write: &Write) -> Value {
    let mut zero = decode::zero(schema, &Shape::Struct(root));
    if let Some(zero) = zero.as_object_mut() {
        zero.insert("apiVersion".to_owned(), write.api_version.into());
        zero.insert("kind".to_owned(), write.kind.into());
    }
    zero
}

pub(crate) fn managed_fields(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/managedFields").filter(|entries| !entries.is_null())
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.shift_remove("managedFields").filter(|entries| !entries.is_null())
}

pub(crate) fn set_managed_fields(object: &mut Value, entries: Option<Value>) {
    take_managed_fields(object);
    let entries = entries.filter(|entries| !entries.is_null());
    if let (Some(metadata), Some(entries)) = (object.get_mut("metadata").and_then(Value::as_object_mut), entries) {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Writes `new` over `old` and gives the managed fields then, one entry a line, times as `@seconds`.
    #[track_caller]
    fn check(old: Option<&Value>, mut new: Value, who: &str, now: u32, want: &str) -> Value {
        let (manager, subresource) = who.split_once('/').unwrap_or((who, ""));
        new["apiVersion"] = "v1".into();
        new["kind"] = "Pod".into();
        new["metadata"]["uid"] = "u".into();
        let owned = resets("v1", "Pod", subresource, true, false);
        let now = format!("2026-01-01T00:00:{now:02}Z");
        let write = Write {
            manager,
            api_version: "v1",
            kind: "Pod",
            subresource,
            now: &now,
            owned: &owned,
            convert: &one_version,
        };
        let schema = crate::tables::schema();
        let root = schema.find("api.core.v1.Pod").expect("a type");
        let at_once = old.is_none().then(|| of_new(schema, root, &new, &write)).flatten();
        update(schema, root, old, &mut new, &write);
        assert_eq!(print(&new), want);
        if let Some(text) = at_once {
            assert_eq!(text, String::from_utf8_lossy(&api::codec::value_to_json(&new["metadata"]["managedFields"])));
        }
        new
    }

    fn print(object: &Value) -> String {
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let line = |entry: &Value| {
            let subresource = text(entry, "subresource");
            let slash = if subresource.is_empty() { "" } else { "/" };
            let second = text(entry, "time").get(17..19).map(|s| s.parse::<u32>().unwrap_or_default());
            let time = second.map(|s| format!("@{s}")).unwrap_or_default();
            format!(
                "{}{slash}{subresource} {}{time} {}",
                text(entry, "manager"),
                text(entry, "operation"),
                entry["fieldsV1"]
            )
        };
        let entries = object["metadata"]["managedFields"].as_array();
        entries.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n").replace('"', "'").replace("\\'", "`")
    }

    fn pod(labels: Value, image: &str) -> Value {
        json!({
            "metadata": { "name": "p", "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": image, "resources": {} }] },
            "status": {}
        })
    }

    const CONTAINER: &str =
        "'f:spec':{'f:containers':{'k:{`name`:`c`}':{'.':{},'f:image':{},'f:name':{},'f:resources':{}}}}";

    #[test]
    fn a_create_owns_what_it_gives() {
        let want = format!("a Update@1 {{'f:metadata':{{'f:labels':{{'.':{{}},'f:x':{{}}}}}},{CONTAINER}}}");
        check(None, pod(json!({ "x": "1" }), "i"), "a", 1, &want);
        check(None, json!({ "metadata": { "name": "p" }, "spec": { "containers": null }, "status": {} }), "a", 1, "");
    }

    #[test]
    fn updates_take_what_they_change_and_drop_what_they_remove() {
        let first = check(
            None,
            pod(json!({}), "i"),
            "a",
            1,
            &format!("a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{CONTAINER}}}"),
        );
        let same = format!("a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{CONTAINER}}}");
        check(Some(&first), pod(json!({}), "i"), "b", 5, &same);
        let rest = "'f:spec':{'f:containers':{'k:{`name`:`c`}':{'.':{},'f:name':{},'f:resources':{}}}}";
        let second = check(
            Some(&first),
            pod(json!({ "x": "1" }), "j"),
            "b",
            2,
            &format!(
                "a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{rest}}}\n\
                 b Update@2 {{'f:metadata':{{'f:labels':{{'f:x':{{}}}}}},'f:spec':{{'f:containers':{{'k:{{`name`:`c`}}':{{'f:image':{{}}}}}}}}}}"
            ),
        );
        let mut gone = pod(json!({}), "j");
        gone["metadata"].as_object_mut().map(|m| m.shift_remove("labels"));
        check(
            Some(&second),
            gone,
            "a",
            3,
            &format!(
                "a Update@1 {{{rest}}}\nb Update@2 {{'f:spec':{{'f:containers':{{'k:{{`name`:`c`}}':{{'f:image':{{}}}}}}}}}}"
            ),
        );
    }

    #[test]
    fn status_belongs_to_its_subresource() {
        let first = check(
            None,
            pod(json!({}), "i"),
            "a",
            1,
            &format!("a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{CONTAINER}}}"),
        );
        let mut new = pod(json!({}), "other");
        new["status"] = json!({ "phase": "Running" });
        let own = format!("a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{CONTAINER}}}");
        check(
            Some(&first),
            new.clone(),
            "k/status",
            2,
            &format!("{own}\nk/status Update@2 {{'f:status':{{'f:phase':{{}}}}}}"),
        );
    }

    #[test]
    fn a_client_can_take_managed_fields_away() {
        let first = check(
            None,
            pod(json!({}), "i"),
            "a",
            1,
            &format!("a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{CONTAINER}}}"),
        );
        for reset in [json!([]), json!([{}])] {
            let mut new = pod(json!({}), "j");
            new["metadata"]["managedFields"] = reset;
            let bare = check(Some(&first), new, "a", 2, "");
            check(Some(&bare), pod(json!({}), "k"), "a", 3, "");
        }
    }

    #[test]
    fn a_change_of_times_alone_is_no_change() {
        let first = check(
            None,
            pod(json!({}), "i"),
            "a",
            1,
            &format!("a Update@1 {{'f:metadata':{{'f:labels':{{}}}},{CONTAINER}}}"),
        );
        let mut new = first.clone();
        new["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:09Z".into();
        keep_times_of_no_op(&first, &mut new);
        assert_eq!(new, first);
        new["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:09Z".into();
        new["spec"]["nodeName"] = "n".into();
        keep_times_of_no_op(&first, &mut new);
        assert_eq!(new["metadata"]["managedFields"][0]["time"], "2026-01-01T00:00:09Z");
    }

    #[test]
    fn managers_are_named_by_parameter_or_user_agent() {
        let check = |given: &str, agent: &str, want: &str| assert_eq!(manager_name(given, agent), want);
        check("given", "kubectl/v1", "given");
        check("", "kubectl/v1.37 (linux)", "kubectl");
        check("", "no slash at all", "no slash at all");
        check("", "a\u{7}b/1", "ab");
        check("", &"y".repeat(200), &"y".repeat(128));
    }

    #[test]
    fn the_scale_shows_and_moves_who_owns_the_replicas() {
        let replicas = vec![Element::field("spec"), Element::field("replicas")];
        let paths = [("apps/v1", Some(replicas))];
        let entry = |manager: &str, fields: Value| {
            json!({ "manager": manager, "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:01Z",
                "fieldsType": "FieldsV1", "fieldsV1": fields })
        };
        let parent = json!([entry("one", json!({ "f:spec": { "f:paused": {}, "f:replicas": {} } }))]);
        let object = |entries: Value| json!({ "metadata": { "managedFields": entries } });
        let scale = to_scale(&parent, &paths).expect("entries");
        assert_eq!(print(&object(scale)), "one Apply@1 {'f:spec':{'f:replicas':{}}}");
        let written = json!([{ "manager": "hpa", "operation": "Update", "apiVersion": "autoscaling/v1",
            "fieldsType": "FieldsV1", "fieldsV1": { "f:spec": { "f:replicas": {} } }, "subresource": "scale" }]);
        let after = from_scale(&parent, &written, "apps/v1", &paths).expect("entries");
        assert_eq!(after[1]["apiVersion"], "apps/v1");
        assert_eq!(
            print(&object(after)),
            "one Apply@1 {'f:spec':{'f:paused':{}}}\nhpa/scale Update {'f:spec':{'f:replicas':{}}}"
        );
    }
}
