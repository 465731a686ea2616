//! Server-side apply: a configuration merged into the live object, with the fields its manager owns and those it no
//! longer wants. Gives the object before it is decoded and defaulted again. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fieldset::{Path, Set, same_values};
use crate::kind::go_quote;
use crate::managed::{self, Engine, Managers, Owned, View, Write, manager_key, non_empty};
use crate::schema::{Schema, TypeId};
use crate::typed::{self, Ref};

/// Where kubectl's client-side apply keeps the last configuration.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The most bytes of all annotations of an object.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose applies carry on where `kubectl apply` on the client's side left off.
const KUBECTL: &str = "kubectl";

/// Why an apply was not done; `Display` is Kubernetes' text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// 409 Conflict.
    #[error("{}", .0.message)]
    Conflict(Conflicts),
    /// 500: Kubernetes answers a configuration that does not fit the schema as an internal error.
    #[error("{0}")]
    Internal(String),
}

/// Fields that others own with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    pub message: String,
    /// For `details.causes`, all with reason `FieldManagerConflict`.
    pub causes: Vec<ConflictCause>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictCause {
    pub message: String,
    pub field: String,
}

/// The object after an apply, `metadata.managedFields` set; `None` when nothing changed, not even who owns what.
/// `live` is the stored object in the version of the request, `None` to create it. `config` is the client's body, not
/// decoded, without anything that the URL adds. The result has still to be decoded and defaulted, and then given to
/// [`managed::keep_times_of_no_op`].
///
/// # Errors
/// A configuration of another kind or with managed fields, one that does not fit the schema, and, unless `force` is
/// set, conflicts with other managers.
pub fn apply(
    schema: &Schema,
    root: TypeId,
    live: Option<&Value>,
    config: &Value,
    force: bool,
    write: &Write,
) -> Result<Option<Value>, ApplyError> {
    let zero = live.is_none().then(|| managed::zero(schema, root, write));
    let Some(object) = live.or(zero.as_ref()) else { return Ok(None) };
    let entries = managed::managed_fields(object).cloned().unwrap_or_default();
    let managers = Managers::decode(&entries)
        .map_err(|e| ApplyError::Internal(format!("failed to decode managed fields: {e}")))?;
    check_kind(config, write)?;
    let apply = Apply { engine: Engine { schema, root, write }, live: object, config };
    let (mut new, managers) = apply.run(managers, force)?;
    managed::set_managed_fields(&mut new, Some(managers.encode()));
    if write.manager == KUBECTL {
        refresh_last_applied(&mut new, config);
    }
    let changed = live.is_none_or(|live| !same_values(live, &new));
    Ok(changed.then_some(new))
}

/// Whether a configuration says that it is of this kind.
pub fn is_of_kind(config: &Value, api_version: &str, kind: &str) -> bool {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    (text("apiVersion"), text("kind")) == (api_version, kind)
}

fn check_kind(config: &Value, write: &Write) -> Result<(), ApplyError> {
    if !is_of_kind(config, write.api_version, write.kind) {
        return Err(ApplyError::BadRequest(format!("invalid object type: {}", kind_text(config))));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|entries| !entries.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    Ok(())
}

/// `apps/v1, Kind=Deployment` or `/v1, Kind=Pod`.
fn kind_text(object: &Value) -> String {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    format!("{group}/{version}, Kind={}", text("kind"))
}

/// `default/web; apps/v1, Kind=Deployment`, as errors name an object.
fn object_text(object: &Value) -> String {
    let meta = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or_default();
    format!("{}/{}; {}", meta("namespace"), meta("name"), kind_text(object))
}

/// The conflicting fields of each manager, by its key.
type ConflictSets = BTreeMap<String, Set>;

enum Failed {
    Conflicts(ConflictSets),
    Other(ApplyError),
}

struct Apply<'a> {
    engine: Engine<'a>,
    live: &'a Value,
    config: &'a Value,
}

impl Apply<'_> {
    fn run(&self, managers: Managers, force: bool) -> Result<(Value, Managers), ApplyError> {
        let managers = self.with_first_manager(managers);
        let sets = match self.attempt(managers.clone(), force) {
            Err(Failed::Conflicts(sets)) => sets,
            Err(Failed::Other(error)) => return Err(error),
            Ok(done) => return Ok(done),
        };
        // An object of client-side apply is taken over without conflicts where it is as it was applied.
        let allowed = if self.engine.write.manager == KUBECTL { self.last_applied() } else { None };
        let Some(allowed) = allowed else { return Err(conflict(&sets)) };
        let rest: ConflictSets = sets.into_iter().map(|(key, set)| (key, set.difference(&allowed))).collect();
        if rest.values().any(|set| !set.is_empty()) {
            return Err(conflict(&rest));
        }
        match self.attempt(managers, true) {
            Ok(done) => Ok(done),
            Err(Failed::Conflicts(sets)) => Err(conflict(&sets)),
            Err(Failed::Other(error)) => Err(error),
        }
    }

    /// What is in an object that nobody owns is owned by all who wrote it before the first apply.
    fn with_first_manager(&self, managers: Managers) -> Managers {
        if !managers.fields.is_empty() {
            return managers;
        }
        let Engine { schema, root, write } = self.engine;
        self.engine.update(&managed::zero(schema, root, write), self.live, managers, BEFORE_FIRST_APPLY)
    }

    fn attempt(&self, mut managers: Managers, force: bool) -> Result<(Value, Managers), Failed> {
        let Engine { schema, root, write } = self.engine;
        let ty = Ref::Type(root);
        let other = |message: String| Failed::Other(ApplyError::Internal(message));
        typed::validate(schema, ty, self.config, false)
            .map_err(|e| other(format!("failed to create typed patch object ({}): {e}", object_text(self.config))))?;
        typed::validate(schema, ty, self.live, true)
            .map_err(|e| other(format!("failed to create typed live object ({}): {e}", object_text(self.live))))?;
        let key = manager_key(non_empty(write.manager), true, write.api_version, write.subresource);
        self.engine.reconcile(&mut managers, self.live);
        let merged = typed::merge(schema, ty, self.live, self.config)
            .map_err(|e| other(format!("failed to merge config: {e}")))?;
        let last = managers.fields.get(&key).cloned();
        let set = write.owned.apply(typed::set_of(schema, ty, self.config));
        managers.fields.insert(key.clone(), Owned { set, api_version: write.api_version.to_owned(), applied: true });
        let new = match last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &managers, &last).map_err(other)?,
            _ => merged,
        };
        if !force {
            let (_, taken) = self.engine.changes(self.live, &new, &managers, &key);
            let conflicts: ConflictSets =
                taken.into_iter().filter(|(_, t)| !t.changed.is_empty()).map(|(key, t)| (key, t.changed)).collect();
            if !conflicts.is_empty() {
                return Err(Failed::Conflicts(conflicts));
            }
        }
        self.engine.change_owners(self.live, &new, &mut managers, &key);
        managers.strip(&key);
        if same_values(self.live, &new) {
            return Ok((self.live.clone(), managers));
        }
        managers.times.insert(key, write.now.to_owned());
        Ok((new, managers))
    }

    /// Takes away what the manager applied the last time, does not apply now and nobody else owns.
    fn prune(&self, merged: Value, managers: &Managers, last: &Owned) -> Result<Value, String> {
        let Some(merged) = self.engine.convert(&merged, &last.api_version) else { return Ok(merged) };
        let last_set = named(&merged, &last.set);
        let gone = typed::remove(&merged.schema, Ref::Type(merged.root), &merged.object, &last_set);
        let mut pruned = View { schema: merged.schema.clone(), root: merged.root, object: gone };

        // What others own, or this manager still wants, comes back; in the version of the last apply first, so that the
        // object can be converted to the others.
        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for manager in managers.fields.values() {
            let set = owned.entry(&manager.api_version).or_default();
            *set = std::mem::take(set).union(manager.set.clone());
        }
        let first = owned.remove_entry(&*last.api_version);
        let mut at = View { schema: merged.schema.clone(), root: merged.root, object: merged.object.clone() };
        for (version, owned) in first.into_iter().chain(owned) {
            let converted = (self.engine.convert(&at.object, version), self.engine.convert(&pruned.object, version));
            let (Some(whole), Some(less)) = converted else { continue };
            let keep = named(&less, &set_of(&less)).union(named(&whole, &owned));
            let gone = named(&whole, &set_of(&whole)).difference(&keep);
            let object = typed::remove(&whole.schema, Ref::Type(whole.root), &whole.object, &gone);
            pruned = View { schema: whole.schema.clone(), root: whole.root, object };
            at = whole;
        }

        // What this manager never had comes back too.
        let back = match self.engine.convert(&pruned.object, &last.api_version) {
            Some(pruned) => {
                let gone = named(&merged, &set_of(&merged)).difference(&named(&merged, &set_of(&pruned)));
                let gone = gone.intersection(&last_set);
                typed::remove(&merged.schema, Ref::Type(merged.root), &merged.object, &gone)
            }
            None => merged.object,
        };
        let version = self.engine.write.api_version;
        let converted = self.engine.convert(&back, version);
        converted.map(|view| view.object).ok_or_else(|| format!("failed to prune fields: no version {version}"))
    }

    /// What kubectl's annotation says was applied and is still so.
    fn last_applied(&self) -> Option<Set> {
        let Engine { schema, root, write } = self.engine;
        let ty = Ref::Type(root);
        let text = self.live.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
        let last: Value = serde_json::from_str(text).ok()?;
        if last.get("apiVersion").and_then(Value::as_str) != Some(write.api_version) {
            return None;
        }
        typed::validate(schema, ty, &last, false).ok()?;
        typed::validate(schema, ty, self.live, false).ok()?;
        let changes = typed::compare(schema, ty, &last, self.live);
        let set = typed::set_of(schema, ty, &last);
        Some(set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
    }
}

fn set_of(view: &View) -> Set {
    typed::set_of(&view.schema, Ref::Type(view.root), &view.object)
}

fn named(view: &View, set: &Set) -> Set {
    typed::with_named_fields(&view.schema, Some(Ref::Type(view.root)), set)
}

fn conflict(sets: &ConflictSets) -> ApplyError {
    let all: Vec<(String, Path)> =
        sets.iter().flat_map(|(key, set)| set.paths().into_iter().map(|path| (manager_text(key), path))).collect();
    let causes = all
        .iter()
        .map(|(manager, path)| ConflictCause { message: format!("conflict with {manager}"), field: path.to_string() })
        .collect();
    let message = match all.as_slice() {
        [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
        many => {
            let mut lines: Vec<String> = Vec::new();
            let mut last = "";
            for (manager, path) in many {
                if manager != last {
                    lines.push(format!("conflicts with {manager}:"));
                    last = manager;
                }
                lines.push(format!("- {path}"));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    ApplyError::Conflict(Conflicts { message, causes })
}

/// `"web" with subresource "scale" using apps/v1`.
fn manager_text(key: &str) -> String {
    let who: Value = serde_json::from_str(key).unwrap_or_default();
    let text = |name: &str| who.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut out = go_quote(text("manager"));
    if !text("subresource").is_empty() {
        out.push_str(&format!(" with subresource {}", go_quote(text("subresource"))));
    }
    if text("operation") == "Update" {
        out.push_str(&format!(" using {}", text("apiVersion")));
    }
    out
}

/// An object that has kubectl's annotation gets the configuration that was applied now.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let has = |annotations: &&mut Map<String, Value>| {
        annotations.get(LAST_APPLIED).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
    };
    let Some(annotations) = annotations.filter(has) else { return };
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.shift_remove(LAST_APPLIED);
    }
    config.sort_all_objects();
    let text = config.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    annotations.insert(LAST_APPLIED.to_owned(), format!("{text}\n").into());
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.shift_remove(LAST_APPLIED);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::managed::{one_version, resets};

    /// A ConfigMap, step by step: `manager[!]: config` as data, and what becomes of it or why it is refused.
    struct Steps {
        live: Option<Value>,
        second: u32,
    }

    impl Steps {
        #[track_caller]
        fn check(&mut self, manager: &str, data: Value, want: &str) {
            self.second += 1;
            let (manager, force) = manager.strip_suffix('!').map_or((manager, false), |manager| (manager, true));
            let now = format!("2026-01-01T00:00:{:02}Z", self.second);
            let owned = resets("v1", "ConfigMap", "", false, false);
            let (schema, kind) = (crate::tables::schema(), "ConfigMap");
            let convert = &one_version;
            let write = Write { manager, api_version: "v1", kind, subresource: "", now: &now, owned: &owned, convert };
            let root = schema.find("api.core.v1.ConfigMap").expect("a type");
            let mut config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
            if !data.is_null() {
                config["data"] = data;
            }
            let got = match apply(schema, root, self.live.as_ref(), &config, force, &write) {
                Err(error) => error.to_string(),
                Ok(None) => "nothing".to_owned(),
                Ok(Some(new)) => {
                    let entries = new["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                    let owners = entries.iter().map(|e| {
                        let time = e["time"].as_str().and_then(|time| time.get(17..19)).unwrap_or("-");
                        let fields: Vec<String> =
                            Set::parse(&e["fieldsV1"]).expect("a set").paths().iter().map(Path::to_string).collect();
                        format!(
                            "{}@{time}{}",
                            e["manager"].as_str().unwrap_or_default(),
                            fields.join("").replace(".data", "")
                        )
                    });
                    let line = format!("{} {}", new["data"], owners.collect::<Vec<_>>().join(" ")).replace('"', "");
                    self.live = Some(new);
                    line
                }
            };
            assert_eq!(got, want);
        }
    }

    #[test]
    fn appliers_share_fight_and_give_up() {
        let mut steps = Steps { live: None, second: 0 };
        steps.check("one", json!({ "a": "1", "b": "1" }), "{a:1,b:1} one@01.a.b");
        steps.check("one", json!({ "a": "1", "b": "1" }), "nothing");
        steps.check("two", json!({ "a": "1" }), "{a:1,b:1} two@-.a one@01.a.b");
        steps.check("two", json!({ "a": "2" }), r#"Apply failed with 1 conflict: conflict with "one": .data.a"#);
        steps.check(
            "three",
            json!({ "a": "2", "b": "2" }),
            "Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\":\n- .data.a",
        );
        steps.check("two!", json!({ "a": "2" }), "{a:2,b:1} one@01.b two@06.a");
        steps.check("one", Value::Null, "{a:2} two@06.a");
        steps.check("two", Value::Null, "null ");
    }

    #[test]
    fn what_was_there_before_is_in_the_way() {
        let live = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "uid": "u" }, "data": { "k": "1" } });
        let mut steps = Steps { live: Some(live), second: 0 };
        steps.check(
            "one",
            json!({ "k": "2" }),
            r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.k"#,
        );
        steps.check("one!", json!({ "k": "2" }), "{k:2} one@02.k before-first-apply@02");
    }

    #[test]
    fn a_configuration_must_fit() {
        let mut steps = Steps { live: None, second: 0 };
        let failed = "failed to create typed patch object (/a; /v1, Kind=ConfigMap): ";
        steps.check(
            "one",
            json!({ "k": 5 }),
            &format!("{failed}.data.k: expected string, got &value.valueUnstructured{{Value:5}}"),
        );
        steps.check("one", json!("x"), &format!("{failed}.data: expected map, got &{{x}}"));
    }
}
