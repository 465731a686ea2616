//! `cargo xtask schema`: writes the tables of the built-in kinds from the facts of one Kubernetes version. The tables are
//! committed; this never runs in a build and never touches the network.
//!
//! It reads a type table (Go types in order, omit rules, protobuf numbers), the OpenAPI v3 documents of a server
//! (required, defaults, enums, list types, paths) and recorded discovery documents (order, short names, categories,
//! storage version hashes), and merges the hand-kept `named.txt` of the output folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use serde_json::Value;
use sha2::Digest as _;

const USAGE: &str = "\
usage: cargo xtask schema [--types FILE] [--openapi DIR] [--golden DIR] [--out DIR] [--check]
  --types    the type table           (../shared/data/types.json)
  --openapi  OpenAPI v3 documents     (../shared/data/openapi)
  --golden   recorded discovery       (../shared/golden/protocol)
  --out      where the tables go      (crates/kinds/schema)
  --check    write nothing; fail when the tables are not what would be written";

pub fn run(args: &[String]) -> ExitCode {
    match Options::parse(args).and_then(|options| write_tables(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask schema: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    types: PathBuf,
    openapi: PathBuf,
    golden: PathBuf,
    out: PathBuf,
    check: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let root = crate::workspace();
        let shared = root.join("../shared");
        let mut options = Options {
            types: shared.join("data/types.json"),
            openapi: shared.join("data/openapi"),
            golden: shared.join("golden/protocol"),
            out: root.join("crates/kinds/schema"),
            check: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut path = || args.next().map(PathBuf::from).ok_or(format!("{arg} needs a path\n{USAGE}"));
            match arg.as_str() {
                "--types" => options.types = path()?,
                "--openapi" => options.openapi = path()?,
                "--golden" => options.golden = path()?,
                "--out" => options.out = path()?,
                "--check" => options.check = true,
                _ => return Err(format!("unknown argument {arg}\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

fn write_tables(options: &Options) -> Result<(), String> {
    let facts = Facts::read(options)?;
    for (name, text) in [("types.txt", types_table(&facts)?), ("kinds.txt", kinds_table(&facts)?)] {
        let path = options.out.join(name);
        if options.check {
            if fs::read_to_string(&path).unwrap_or_default() != text {
                return Err(format!("{} is not up to date: run `cargo xtask schema`", path.display()));
            }
        } else {
            fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
            fs::write(&path, &text).map_err(|e| format!("{}: {e}", path.display()))?;
            println!("{}: {} lines, {} bytes", path.display(), text.lines().count(), text.len());
        }
    }
    Ok(())
}

/// Everything read, before it is put together.
struct Facts {
    /// Type name to fields: JSON name, Go type, flags, protobuf number, wire type.
    types: BTreeMap<String, Vec<[String; 5]>>,
    /// "group/version Kind" to type name.
    kinds: BTreeMap<String, String>,
    /// OpenAPI schemas by type name (without `io.k8s.`).
    schemas: HashMap<String, Value>,
    /// "group/version" (core: "v1") to its `APIResourceList`.
    resources: HashMap<String, Value>,
    /// The items of the aggregated discovery documents, core first.
    groups: Vec<Value>,
    /// "type.field" to the Go name of a named type.
    named: HashMap<String, String>,
}

impl Facts {
    fn read(options: &Options) -> Result<Facts, String> {
        let table = read_json(&options.types)?;
        let types = serde_json::from_value(table["types"].clone()).map_err(|e| format!("types: {e}"))?;
        let kinds = serde_json::from_value(table["kinds"].clone()).map_err(|e| format!("kinds: {e}"))?;

        let mut schemas = HashMap::new();
        for path in json_files(&options.openapi)? {
            let document = read_json(&path)?;
            let found = document["schemas"].as_object().or(document["components"]["schemas"].as_object());
            for (name, schema) in found.into_iter().flatten() {
                schemas.insert(name.trim_start_matches("io.k8s.").to_owned(), schema.clone());
            }
        }

        let (mut core, mut others, mut resources) = (Vec::new(), Vec::new(), HashMap::new());
        for path in json_files(&options.golden)? {
            if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("discovery-")) {
                continue;
            }
            let recording = read_json(&path)?;
            for step in recording["steps"].as_array().into_iter().flatten() {
                let body = &step["expect"]["body"];
                match body["kind"].as_str() {
                    Some("APIResourceList") => {
                        resources.insert(text(&body["groupVersion"]), body.clone());
                    }
                    Some("APIGroupDiscoveryList") => core = array(&body["items"]),
                    // Recorded inside an object, so that groups of custom resources do not matter.
                    Some("ControllerRevision") if body["data"]["items"].is_array() => {
                        others = array(&body["data"]["items"]);
                    }
                    _ => {}
                }
            }
        }
        if core.is_empty() || others.is_empty() {
            return Err(format!("no aggregated discovery documents in {}", options.golden.display()));
        }
        core.extend(others);

        let mut named = HashMap::new();
        let path = options.out.join("named.txt");
        let overlay = fs::read_to_string(&path).unwrap_or_default();
        for line in overlay.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default();
            for field in words {
                named.insert(field.to_owned(), name.to_owned());
            }
        }
        Ok(Facts { types, kinds, schemas, resources, groups: core, named })
    }

    /// The fields of a struct with the inlined ones in their place. JSON does not see an inlined struct, protobuf does:
    /// its number stands in front of those of its fields, `2.1`; so do error texts: its name does.
    fn fields(&self, name: &str) -> Vec<Flat> {
        let mut out = Vec::new();
        for field in self.types.get(name).into_iter().flatten() {
            if !field[0].is_empty() {
                out.push(Flat { facts: field.clone(), inlined_as: Vec::new() });
                continue;
            }
            for mut inner in self.fields(&field[1]) {
                inner.facts[3] = match field[3].as_str() {
                    // Kind and version are the envelope's.
                    "" => String::new(),
                    number => format!("{number}.{}", inner.facts[3]),
                };
                inner.inlined_as.insert(0, field[1].rsplit('.').next().unwrap_or_default().to_owned());
                out.push(inner);
            }
        }
        out
    }
}

/// A field as JSON sees it.
struct Flat {
    /// As the type table has it.
    facts: [String; 5],
    /// The names of the structs that it is inlined from, the outermost first.
    inlined_as: Vec<String>,
}

/// Types that the engine knows as one value.
fn scalar(go: &str) -> Option<&'static str> {
    Some(match go {
        "string" => "string",
        "bool" => "bool",
        "int32" => "int32",
        "int64" => "int64",
        "float64" => "float",
        "bytes" => "bytes",
        "apimachinery.pkg.apis.meta.v1.Time" => "time",
        "apimachinery.pkg.apis.meta.v1.MicroTime" => "microtime",
        "apimachinery.pkg.apis.meta.v1.Duration" => "duration",
        "apimachinery.pkg.api.resource.Quantity" => "quantity",
        "apimachinery.pkg.util.intstr.IntOrString" => "intorstring",
        "apimachinery.pkg.runtime.RawExtension"
        | "apimachinery.pkg.apis.meta.v1.FieldsV1"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => "any",
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => {
            "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps|bool"
        }
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => {
            "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps|list"
        }
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => {
            "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps|strings"
        }
        _ => return None,
    })
}

/// The Go name of a type that takes any JSON, with the lists around it: OpenAPI and error texts tell them apart.
fn go_name_of_any(go: &str) -> Option<String> {
    let go = go.trim_start_matches('*');
    let (prefix, name) = go.split_at(go.rfind(']').map_or(0, |at| at + 1));
    (scalar(name) == Some("any")).then(|| {
        let mut words = name.rsplit('.');
        let (name, package) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        format!("{prefix}{package}.{name}")
    })
}

/// `*[]map[string]x` as the table writes it: `*[]{}x`; and the type it is about.
fn shape(facts: &Facts, go: &str) -> Result<(String, Option<String>), String> {
    for (prefix, sign) in [("*", "*"), ("[]", "[]"), ("map[string]", "{}")] {
        if let Some(rest) = go.strip_prefix(prefix) {
            let (inner, about) = shape(facts, rest)?;
            return Ok((format!("{sign}{inner}"), about));
        }
    }
    if let Some(word) = scalar(go) {
        let about = word.split_once('|').map(|(name, _)| name.to_owned());
        return Ok((word.to_owned(), about));
    }
    match facts.types.contains_key(go) {
        true => Ok((go.to_owned(), Some(go.to_owned()))),
        false => Err(format!("the type table does not have {go}")),
    }
}

fn types_table(facts: &Facts) -> Result<String, String> {
    // The types that something served, or one of their fields, is made of.
    let mut needed: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = facts.kinds.values().cloned().collect();
    while let Some(name) = open.pop() {
        if !needed.insert(name.clone()) {
            continue;
        }
        for field in facts.fields(&name) {
            open.extend(shape(facts, &field.facts[1])?.1);
        }
    }

    let mut out = String::from(
        "# The types of the built-in kinds, written by `cargo xtask schema`. A type, then its fields in Go's order:\n\
         # name, type (* pointer, [] list, {} map), protobuf number (behind that of the struct it is inlined from), facts.\n\
         # `enum=` takes the rest of its line.\n",
    );
    let mut used = BTreeSet::new();
    for name in &needed {
        let schema = &facts.schemas.get(name.as_str()).unwrap_or(&Value::Null);
        let _ = write!(out, "\n{name}");
        if schema["x-kubernetes-map-type"] == "atomic" {
            out.push_str(" atomic");
        }
        if let Some(unions) = schema["x-kubernetes-unions"].as_array() {
            let _ = write!(out, " unions={}", Value::from(unions.clone()));
        }
        out.push('\n');
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for Flat { facts: [field, go, flags, number, _], inlined_as } in facts.fields(name) {
            let property = &schema["properties"][&field];
            let (kind, _) = shape(facts, &go)?;
            let number = if number.is_empty() { "0" } else { &number };
            let _ = write!(out, "  {field} {kind} {number}");
            let flags: Vec<&str> = flags.split_whitespace().collect();
            // omitzero includes what omitempty says of everything but structs.
            match (flags.contains(&"omitempty"), flags.contains(&"omitzero")) {
                (_, true) => out.push_str(" omitzero"),
                (true, false) => out.push_str(" omitempty"),
                _ => {}
            }
            if required.contains(field.as_str()) {
                out.push_str(" required");
            }
            for flag in &flags {
                if let Some(strategies) = flag.strip_prefix("patchStrategy=") {
                    let _ = write!(out, " patch={strategies}");
                } else if let Some(key) = flag.strip_prefix("patchMergeKey=") {
                    let _ = write!(out, " key={key}");
                }
            }
            match property["x-kubernetes-list-type"].as_str() {
                Some("map") => {
                    let keys: Vec<String> = array(&property["x-kubernetes-list-map-keys"]).iter().map(text).collect();
                    let _ = write!(out, " list=map:{}", keys.join(","));
                }
                Some(other) => {
                    let _ = write!(out, " list={other}");
                }
                None => {}
            }
            if let Some(map_type) = property["x-kubernetes-map-type"].as_str() {
                let _ = write!(out, " map={map_type}");
            }
            if !property["default"].is_null() && !is_zero_default(&kind, &flags, &property["default"]) {
                let _ = write!(out, " default={}", property["default"]);
            }
            if let Some(go_name) = facts.named.get(&format!("{name}.{field}")) {
                used.insert(format!("{name}.{field}"));
                let _ = write!(out, " go={go_name}");
            } else if let Some(go_name) = go_name_of_any(&go) {
                let _ = write!(out, " go={go_name}");
            }
            if !inlined_as.is_empty() {
                let _ = write!(out, " via={}", inlined_as.join("."));
            }
            let values = [&property["enum"], &property["items"]["enum"], &property["additionalProperties"]["enum"]];
            if let Some(values) = values.iter().find_map(|v| v.as_array()) {
                let _ = write!(out, " enum={}", values.iter().map(text).collect::<Vec<_>>().join("|"));
            }
            out.push('\n');
        }
    }
    match facts.named.keys().find(|field| !used.contains(*field)) {
        Some(stale) => Err(format!("named.txt names {stale}, which the type table does not have")),
        None => Ok(out),
    }
}

/// OpenAPI gives every field that Go always writes its zero value as default: nothing to state.
fn is_zero_default(kind: &str, flags: &[&str], default: &Value) -> bool {
    let omitted = flags.contains(&"omitempty");
    match kind {
        "string" => !omitted && default == "",
        "bool" => !omitted && default == &Value::Bool(false),
        "int32" | "int64" => !omitted && default == &Value::from(0),
        _ if !kind.starts_with(['*', '[', '{']) => default.as_object().is_some_and(|d| d.is_empty()),
        _ => false,
    }
}

/// The verbs of a resource that can do everything.
const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

fn kinds_table(facts: &Facts) -> Result<String, String> {
    let mut out = String::from(
        "# The built-in resources, written by `cargo xtask schema`, in discovery's order: `group NAME VERSION`, then\n\
         # plural, singular, kind, namespaced or cluster, type, verbs (* is all eight), facts; subresources are indented:\n\
         # name, kind, type, verbs, facts.\n",
    );
    let mut bodies = BTreeSet::new();
    for group in &facts.groups {
        let group_name = text(&group["metadata"]["name"]);
        for version in array(&group["versions"]) {
            let version_name = text(&version["version"]);
            let group_version = match group_name.as_str() {
                "" => version_name.clone(),
                _ => format!("{group_name}/{version_name}"),
            };
            let shown = if group_name.is_empty() { "core" } else { &group_name };
            let _ = writeln!(out, "\ngroup {shown} {version_name}");
            for resource in array(&version["resources"]) {
                let plural = text(&resource["resource"]);
                let kind = text(&resource["responseKind"]["kind"]);
                let type_name = facts.kinds.get(&format!("{group_version} {kind}"));
                let type_name = type_name.ok_or(format!("the type table does not have {group_version} {kind}"))?;
                bodies.insert(type_name);
                let scope = if resource["scope"] == "Namespaced" { "namespaced" } else { "cluster" };
                let _ = write!(
                    out,
                    "{plural} {} {kind} {scope} {type_name} {}",
                    text(&resource["singularResource"]),
                    verbs(&resource)
                );
                let list_kind = format!("{kind}List");
                if facts.kinds.contains_key(&format!("{group_version} {list_kind}")) {
                    let _ = write!(out, " list={list_kind}");
                }
                for (fact, values) in [("short", "shortNames"), ("in", "categories")] {
                    let values: Vec<String> = array(&resource[values]).iter().map(text).collect();
                    if !values.is_empty() {
                        let _ = write!(out, " {fact}={}", values.join(","));
                    }
                }
                if let Some(hash) = storage_version_hash(facts, &group_name, &version_name, &resource) {
                    let _ = write!(out, " hash={hash}");
                }
                out.push('\n');
                for sub in array(&resource["subresources"]) {
                    let name = text(&sub["subresource"]);
                    let body = text(&sub["responseKind"]["kind"]);
                    let place = (text(&sub["responseKind"]["group"]), text(&sub["responseKind"]["version"]));
                    let body_version = match (place.0.as_str(), place.1.as_str()) {
                        ("", "") => group_version.clone(),
                        ("", version) => version.to_owned(),
                        (group, version) => format!("{group}/{version}"),
                    };
                    let type_name = facts.kinds.get(&format!("{body_version} {body}"));
                    let type_name = type_name.ok_or(format!("the type table does not have {body_version} {body}"))?;
                    let _ = write!(out, "  {name} {body} {type_name} {}", verbs(&sub));
                    if !place.1.is_empty() {
                        let _ = write!(out, " version={body_version}");
                    }
                    out.push('\n');
                }
            }
        }
    }
    out.push_str(
        "\n# Every group, version and kind by its type, for bodies that are no resource's own and for OpenAPI.\n",
    );
    let mut by_type: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kind, type_name) in &facts.kinds {
        by_type.entry(type_name).or_default().push(kind);
    }
    for (type_name, kinds) in by_type {
        // What every group has is said once.
        let word = kinds[0].split(' ').nth(1).unwrap_or_default();
        let versions: Vec<&str> = kinds.iter().filter_map(|kind| kind.split(' ').next()).collect();
        let _ = writeln!(out, "kind {type_name} {word} {}", versions.join(","));
    }
    Ok(out)
}

fn verbs(resource: &Value) -> String {
    let joined = array(&resource["verbs"]).iter().map(text).collect::<Vec<_>>().join(",");
    if joined == ALL_VERBS { "*".to_owned() } else { joined }
}

/// As recorded, else what a server computes for a kind stored in its own version; reviews are not stored and have none.
fn storage_version_hash(facts: &Facts, group: &str, version: &str, resource: &Value) -> Option<String> {
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if let Some(list) = facts.resources.get(&group_version) {
        let entry = array(&list["resources"]).into_iter().find(|r| r["name"] == resource["resource"])?;
        return entry["storageVersionHash"].as_str().map(str::to_owned);
    }
    let stored = array(&resource["verbs"]).iter().any(|verb| verb == "watch");
    let kind = text(&resource["responseKind"]["kind"]);
    let digest = sha2::Sha256::digest(format!("{group}/{version}/{kind}"));
    stored.then(|| base64::engine::general_purpose::STANDARD.encode(&digest[..8]))
}

fn json_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    Ok(paths)
}

fn read_json(path: &Path) -> Result<Value, String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))
}

fn array(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
