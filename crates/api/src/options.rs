//! What the query (and the body of a deletion) may say: options of reads and writes, with the API server's own errors.

use serde_json::{Value, json};

use crate::ask::Query;
use crate::go;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{Cause, Status};

/// Longest field manager name, in bytes.
pub const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// How a list or a watch is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListOptions {
    /// Only what has such labels.
    pub labels: LabelSelector,
    /// Only what has such fields, of the few that a kind can be selected by.
    pub fields: FieldSelector,
    /// `None`: unset. `Some(0)`: any. Otherwise a revision.
    pub resource_version: Option<u64>,
    /// What the revision of a list means.
    pub version_match: Option<VersionMatch>,
    /// Most items of one answer; 0 or less means all.
    pub limit: i64,
    /// The page after the one whose metadata has this token; `""` for the first.
    pub continue_token: String,
    /// How long the server may take, and how long a watch lasts.
    pub timeout_seconds: Option<i64>,
    /// A watch also tells up to where nothing of interest has happened.
    pub allow_watch_bookmarks: bool,
    /// A watch first tells all objects that there are.
    pub send_initial_events: Option<bool>,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// As it was at that revision.
    Exact,
    /// As it was then or later.
    NotOlderThan,
}

/// How one object is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GetOptions {
    /// `None`: the newest. Otherwise one that is not older, which may be told from a cache.
    pub resource_version: Option<u64>,
}

/// How a create, update or patch is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteOptions {
    /// Only say what would come of it.
    pub dry_run: bool,
    /// Who owns the fields that are written; `""` where the client gave none.
    pub field_manager: String,
    /// What becomes of fields that are unknown or there twice.
    pub field_validation: FieldValidation,
    /// Apply only: take fields from other managers.
    pub force: bool,
}

/// The same options, said by an apply patch.
pub type ApplyOptions = WriteOptions;

/// What happens about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and a warning says so.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// How a deletion is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    /// Only say what would come of it.
    pub dry_run: bool,
    /// How long it may take to go; 0 for at once.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of what it owns; `None` for what its kind does.
    pub propagation: Option<Propagation>,
    /// The deprecated way to say orphan or background.
    pub orphan_dependents: Option<bool>,
    /// Which object it must be, and in which state.
    pub preconditions: Preconditions,
    /// Only what cannot be read is to be deleted, whatever breaks: `ignoreStoreReadErrorWithClusterBreakingPotential`.
    pub only_unreadable: bool,
}

/// `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// It stays, without an owner.
    Orphan,
    /// It goes after its owner.
    Background,
    /// It goes before its owner.
    Foreground,
}

/// What must hold of the object that is deleted or updated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preconditions {
    /// It is this object, and no later one of the same name.
    pub uid: Option<String>,
    /// Nobody has changed it since.
    pub resource_version: Option<String>,
}

impl ListOptions {
    pub fn parse(query: &Query) -> Result<ListOptions, Status> {
        let limit = integer(query, "limit")?.unwrap_or(0);
        let timeout_seconds = integer(query, "timeoutSeconds")?;
        let labels =
            LabelSelector::parse(query.get("labelSelector").unwrap_or_default()).map_err(Status::bad_request)?;
        let fields =
            FieldSelector::parse(query.get("fieldSelector").unwrap_or_default()).map_err(Status::bad_request)?;
        let watch = query.flag("watch") == Some(true);
        let send_initial_events = query.flag("sendInitialEvents");
        let text = query.get("resourceVersion").unwrap_or_default();
        let matching = query.get("resourceVersionMatch").unwrap_or_default();
        let causes = match watch {
            true => {
                // A watch from a revision does not look at it.
                let from_state = matches!(text, "" | "0");
                let token = query.get("continue").filter(|_| from_state).unwrap_or_default();
                watch_causes(matching, token, send_initial_events)
            }
            false => list_causes(text, matching, query.get("continue").unwrap_or_default(), send_initial_events),
        };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
        }
        let continue_token = query.get("continue").unwrap_or_default().to_string();
        // What goes on where it was knows its revision; a watch goes on nowhere.
        let resource_version = match continue_token.is_empty() || watch {
            true => revision(text, watch)?,
            false => revision(text, watch).ok().flatten(),
        };
        Ok(ListOptions {
            labels,
            fields,
            resource_version,
            version_match: match matching {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            limit,
            continue_token,
            timeout_seconds,
            allow_watch_bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events,
        })
    }

    /// The parameters that say the same; what a client sends.
    pub fn print(&self) -> Query {
        let mut query = Query::default();
        if !self.labels.is_everything() {
            query.push("labelSelector", self.labels.to_string());
        }
        if !self.fields.is_everything() {
            query.push("fieldSelector", self.fields.to_string());
        }
        if let Some(revision) = self.resource_version {
            query.push("resourceVersion", revision.to_string());
        }
        if let Some(matching) = self.version_match {
            query.push(
                "resourceVersionMatch",
                match matching {
                    VersionMatch::Exact => "Exact",
                    VersionMatch::NotOlderThan => "NotOlderThan",
                },
            );
        }
        if self.limit > 0 {
            query.push("limit", self.limit.to_string());
        }
        if !self.continue_token.is_empty() {
            query.push("continue", &self.continue_token);
        }
        if let Some(seconds) = self.timeout_seconds {
            query.push("timeoutSeconds", seconds.to_string());
        }
        if self.allow_watch_bookmarks {
            query.push("allowWatchBookmarks", "true");
        }
        if let Some(send) = self.send_initial_events {
            query.push("sendInitialEvents", send.to_string());
        }
        query
    }
}

impl GetOptions {
    pub fn parse(query: &Query) -> Result<GetOptions, Status> {
        // Kubernetes takes this for its own mistake, as with watches.
        Ok(GetOptions { resource_version: revision(query.get("resourceVersion").unwrap_or_default(), true)? })
    }
}

impl WriteOptions {
    pub fn create(query: &Query) -> Result<WriteOptions, Status> {
        WriteOptions::parse(query, "CreateOptions", None)
    }

    pub fn update(query: &Query) -> Result<WriteOptions, Status> {
        WriteOptions::parse(query, "UpdateOptions", None)
    }

    /// `apply`: the patch is a server-side apply.
    pub fn patch(query: &Query, apply: bool) -> Result<WriteOptions, Status> {
        WriteOptions::parse(query, "PatchOptions", Some(apply))
    }

    fn parse(query: &Query, kind: &str, apply: Option<bool>) -> Result<WriteOptions, Status> {
        let mut causes = Vec::new();
        let field_manager = query.get("fieldManager").unwrap_or_default();
        let force = query.flag("force");
        match apply {
            Some(true) if field_manager.is_empty() => {
                causes.push(cause("FieldValueRequired", "fieldManager", "Required value: is required for apply patch"));
            }
            Some(false) if force.is_some() => {
                causes.push(cause(
                    "FieldValueForbidden",
                    "force",
                    "Forbidden: may not be specified for non-apply patch",
                ));
            }
            _ => {}
        }
        causes.extend(manager_cause(field_manager));
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        causes.extend(dry_run_cause(&dry_run));
        let validation = query.get("fieldValidation").unwrap_or_default();
        let field_validation = match validation {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let text = format!(
                    r#"Unsupported value: {}: supported values: "", "Ignore", "Strict", "Warn""#,
                    go::quote(other)
                );
                causes.push(cause("FieldValueNotSupported", "fieldValidation", &text));
                FieldValidation::Warn
            }
        };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", causes));
        }
        Ok(WriteOptions {
            dry_run: !dry_run.is_empty(),
            field_manager: field_manager.to_string(),
            field_validation,
            force: force.unwrap_or(false),
        })
    }

    /// The parameters that say the same; what a client sends.
    pub fn print(&self) -> Query {
        let mut query = Query::default();
        if self.dry_run {
            query.push("dryRun", "All");
        }
        if !self.field_manager.is_empty() {
            query.push("fieldManager", &self.field_manager);
        }
        match self.field_validation {
            FieldValidation::Warn => {}
            FieldValidation::Ignore => query.push("fieldValidation", "Ignore"),
            FieldValidation::Strict => query.push("fieldValidation", "Strict"),
        }
        if self.force {
            query.push("force", "true");
        }
        query
    }
}

const IGNORE_READ_ERROR: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

impl DeleteOptions {
    /// Options of the query, which Kubernetes reads only where the request has no body.
    pub fn parse(query: &Query) -> Result<DeleteOptions, Status> {
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        // Not `preconditions.uid`, as the field would be called.
        let text = |name: &str| query.get(name).filter(|text| !text.is_empty()).map(str::to_string);
        DeleteOptions {
            grace_period_seconds: integer(query, "gracePeriodSeconds")?,
            orphan_dependents: query.flag("orphanDependents"),
            preconditions: Preconditions { uid: text("uid"), resource_version: text("resourceVersion") },
            only_unreadable: query.flag(IGNORE_READ_ERROR) == Some(true),
            ..DeleteOptions::default()
        }
        .checked(&dry_run, query.get("propagationPolicy"))
    }

    /// Options of a body that was already decoded as `DeleteOptions`.
    pub fn from_body(body: &Value) -> Result<DeleteOptions, Status> {
        let dry_run: Vec<&str> =
            body["dryRun"].as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).map(str::to_string);
        DeleteOptions {
            grace_period_seconds: body["gracePeriodSeconds"].as_i64(),
            orphan_dependents: body["orphanDependents"].as_bool(),
            preconditions: Preconditions {
                uid: text("/preconditions/uid"),
                resource_version: text("/preconditions/resourceVersion"),
            },
            only_unreadable: body[IGNORE_READ_ERROR] == true,
            ..DeleteOptions::default()
        }
        .checked(&dry_run, body["propagationPolicy"].as_str())
    }

    /// The body that says the same; what a client sends.
    pub fn to_body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if self.preconditions != Preconditions::default() {
            let (uid, version) = (&self.preconditions.uid, &self.preconditions.resource_version);
            let mut conditions = json!({});
            if let Some(uid) = uid {
                conditions["uid"] = json!(uid);
            }
            if let Some(version) = version {
                conditions["resourceVersion"] = json!(version);
            }
            body["preconditions"] = conditions;
        }
        if let Some(orphan) = self.orphan_dependents {
            body["orphanDependents"] = json!(orphan);
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = json!(format!("{propagation:?}"));
        }
        if self.dry_run {
            body["dryRun"] = json!(["All"]);
        }
        if self.only_unreadable {
            body[IGNORE_READ_ERROR] = json!(true);
        }
        body
    }

    fn checked(mut self, dry_run: &[&str], propagation: Option<&str>) -> Result<DeleteOptions, Status> {
        let mut causes = Vec::new();
        self.dry_run = !dry_run.is_empty();
        self.propagation = match propagation {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let text = format!(
                    r#"Unsupported value: {}: supported values: "Foreground", "Background", "Orphan", "nil""#,
                    go::quote(other)
                );
                causes.push(cause("FieldValueNotSupported", "propagationPolicy", &text));
                None
            }
        };
        if let (Some(policy), Some(_)) = (propagation, self.orphan_dependents) {
            let text = format!(
                "Invalid value: {}: orphanDependents and deletionPropagation cannot be both set",
                go::quote(policy)
            );
            causes.insert(0, cause("FieldValueInvalid", "propagationPolicy", &text));
        }
        causes.extend(dry_run_cause(dry_run));
        match causes.is_empty() {
            true => Ok(self),
            false => Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", causes)),
        }
    }
}

fn cause(reason: &str, field: &str, message: &str) -> Cause {
    Cause { reason: reason.into(), field: field.into(), message: message.into() }
}

fn dry_run_cause(values: &[&str]) -> Option<Cause> {
    if values.iter().all(|value| *value == "All") {
        return None;
    }
    let shown: Vec<String> = values.iter().map(|value| go::quote(value)).collect();
    let text = format!(r#"Unsupported value: [{}]: supported values: "All""#, shown.join(","));
    Some(cause("FieldValueNotSupported", "dryRun", &text))
}

fn manager_cause(manager: &str) -> Option<Cause> {
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        return Some(cause("FieldValueTooLong", "fieldManager", "Too long: may not be more than 128 bytes"));
    }
    let (at, bad) = manager.char_indices().find(|(_, c)| c.is_control())?;
    let text =
        format!("Invalid value: {}: invalid character U+{:04X} (at position {at})", go::quote(manager), bad as u32);
    Some(cause("FieldValueInvalid", "fieldManager", &text))
}

fn integer(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    match query.get(name) {
        None => Ok(None),
        Some(text) => go::parse_i64(text).map(Some).map_err(Status::bad_request),
    }
}

fn revision(text: &str, watch: bool) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    go::parse_u64(text).map(Some).map_err(|why| {
        let why = format!("resourceVersion: Invalid value: {}: {why}", go::quote(text));
        match watch {
            true => Status { details: None, ..Status::failure(500, crate::Reason::Unknown, why) },
            false => Status::bad_request(format!("invalid resource version: {why}")),
        }
    })
}

fn list_causes(version: &str, matching: &str, continue_token: &str, initial: Option<bool>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !matching.is_empty() {
        if version.is_empty() {
            let text = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
            causes.push(cause("FieldValueForbidden", "resourceVersionMatch", text));
        }
        if !continue_token.is_empty() {
            let text = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
            causes.push(cause("FieldValueForbidden", "resourceVersionMatch", text));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            let text =
                format!(r#"Unsupported value: {}: supported values: "Exact", "NotOlderThan", """#, go::quote(matching));
            causes.push(cause("FieldValueNotSupported", "resourceVersionMatch", &text));
        }
        if matching == "Exact" && version == "0" {
            let text = r#"Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
            causes.push(cause("FieldValueForbidden", "resourceVersionMatch", text));
        }
    }
    if initial.is_some() {
        let text = "Forbidden: sendInitialEvents is forbidden for list";
        causes.push(cause("FieldValueForbidden", "sendInitialEvents", text));
    }
    causes
}

fn watch_causes(matching: &str, continue_token: &str, initial: Option<bool>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if initial.is_some() && matching != "NotOlderThan" {
        let text = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        causes.push(cause("FieldValueForbidden", "resourceVersionMatch", text));
    }
    if !matching.is_empty() {
        if initial.is_none() {
            let text = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            causes.push(cause("FieldValueForbidden", "resourceVersionMatch", text));
        }
        if matching != "NotOlderThan" {
            let text = format!(r#"Unsupported value: {}: supported values: "NotOlderThan""#, go::quote(matching));
            causes.push(cause("FieldValueNotSupported", "resourceVersionMatch", &text));
        }
    }
    if !continue_token.is_empty() {
        let text = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
        causes.push(cause("FieldValueForbidden", "resourceVersionMatch", text));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: std::fmt::Debug>(result: Result<T, Status>, want: &str) {
        assert_eq!(result.map_err(|status| status.message).expect_err("must be refused"), want);
    }

    #[test]
    fn refusals_read_like_the_real_ones() {
        let list = |query: &str| ListOptions::parse(&Query::parse(query));
        check(list("limit=abc"), r#"strconv.ParseInt: parsing "abc": invalid syntax"#);
        check(
            list("watch=1&continue=abc&resourceVersion=x"),
            r#"resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax"#,
        );
        check(
            list("resourceVersionMatch=Bogus"),
            r#"ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported value: "Bogus": supported values: "Exact", "NotOlderThan", ""]"#,
        );
        let create = |query: &str| WriteOptions::create(&Query::parse(query));
        check(
            create("dryRun=Some&fieldValidation=Bogus"),
            r#"CreateOptions.meta.k8s.io "" is invalid: [dryRun: Unsupported value: ["Some"]: supported values: "All", fieldValidation: Unsupported value: "Bogus": supported values: "", "Ignore", "Strict", "Warn"]"#,
        );
        check(
            DeleteOptions::parse(&Query::parse("orphanDependents=true&propagationPolicy=Orphan")),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#,
        );
    }

    #[test]
    fn what_is_printed_is_parsed_back() {
        let options = ListOptions {
            labels: LabelSelector::parse("a=b,c in (d,e)").unwrap(),
            fields: FieldSelector::parse("metadata.name=x").unwrap(),
            resource_version: Some(7),
            version_match: Some(VersionMatch::NotOlderThan),
            limit: 5,
            ..ListOptions::default()
        };
        assert_eq!(ListOptions::parse(&options.print()), Ok(options));
        let options = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
        assert_eq!(DeleteOptions::from_body(&options.to_body()), Ok(options));
    }
}
