//! Configuration files of `apiserver.config.k8s.io`: read within a limit, decoded strictly by a table of types, and followed
//! as they change. Knows nothing of what is in them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use api::{go, yaml};
use kinds::decode;
use kinds::schema::Schema;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub const GROUP: &str = "apiserver.config.k8s.io";
/// The versions that files are taken in. They are the same.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What is in a file.
pub struct Format {
    pub kind: &'static str,
    pub schema: &'static LazyLock<Schema>,
    /// The name of its type in the schema.
    pub root: &'static str,
    pub shown: Shown,
}

/// How a text that says not of which kind it is, is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    AsWritten,
    AsJson,
}

/// The text of a file.
///
/// # Errors
/// Why it cannot be read.
pub fn read(path: &Path) -> Result<String, String> {
    let failed = |why: std::io::Error| format!("open {}: {why}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{} has {size} bytes, more than {FILE_BYTES_MAX}", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// The object in a text, YAML or JSON, without what is null.
///
/// # Errors
/// What is wrong with the text, in Kubernetes' words.
pub fn object(text: &str, format: &Format) -> Result<Value, String> {
    let Format { kind, schema, root, shown } = format;
    let (json, duplicates) = match text.trim_start().starts_with('{') {
        true => (text.as_bytes().to_vec(), Vec::new()),
        false => {
            let document = yaml::read(text.as_bytes())?;
            (api::codec::to_json(&sorted(document.value)), document.duplicates)
        }
    };
    let (api_version, found) =
        decode::type_meta(&json).map_err(|why| format!("couldn't get version/kind; json parse error: {why}"))?;
    for (name, value) in [("Kind", &found), ("apiVersion", &api_version)] {
        if value.is_empty() {
            let json = String::from_utf8_lossy(&json);
            let shown = if *shown == Shown::AsWritten { text } else { &json };
            return Err(format!("Object '{name}' is missing in '{shown}'"));
        }
    }
    check_type(&api_version, &found, kind)?;
    let root = schema.find(root).ok_or_else(|| format!("{kind} has no type"))?;
    let decoded = decode::decode(schema, root, &json).map_err(|why| why.to_string())?;
    let duplicates =
        (!duplicates.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  ")));
    let strict: Vec<String> = duplicates.into_iter().chain(decoded.strict).collect();
    match strict.is_empty() {
        true => Ok(api::codec::without_nulls(decoded.object)),
        false => Err(format!("strict decoding error: {}", strict.join(", "))),
    }
}

/// The version of a file is one that there is, and its kind the one that is wanted.
///
/// # Errors
/// What it is instead.
fn check_type(api_version: &str, found: &str, kind: &str) -> Result<(), String> {
    let known = api_version.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/'));
    match found == kind && known.is_some_and(|version| VERSIONS.contains(&version)) {
        true => Ok(()),
        false => Err(format!(
            "no kind {} is registered for version {}; write kind: {kind}, apiVersion: {GROUP}/v1",
            go::quote(found),
            go::quote(api_version)
        )),
    }
}

/// As YAML becomes JSON in Go: keys in order, so that errors come in theirs.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Follows a file until it is told to stop: `take` gets each text that differs from the last one, or why there is none.
/// `configured` is the text that counts already.
pub async fn follow(
    path: &Path,
    configured: &str,
    stopping: &CancellationToken,
    mut take: impl FnMut(Result<&str, String>),
) {
    let mut seen = configured.to_string();
    // The first time too: it may have changed since the server was configured.
    let look = || {
        match read(path) {
            Ok(text) if text == seen => {}
            Ok(text) => {
                take(Ok(&text));
                seen = text;
            }
            Err(why) => take(Err(why)),
        }
        std::future::ready(())
    };
    at_each_change(&path.display().to_string(), [folder_of(path)], stopping, look).await;
}

/// Looks now, and again after each change in these folders, until it is told to stop. `what` is in them, for the log.
pub async fn at_each_change<'a, F: Future<Output = ()>>(
    what: &str,
    folders: impl IntoIterator<Item = &'a Path>,
    stopping: &CancellationToken,
    mut look: impl FnMut() -> F,
) {
    let changed = Arc::new(Notify::new());
    let _watcher = match watch(folders, changed.clone()) {
        Ok(watcher) => watcher,
        Err(why) => return tracing::warn!(%why, "changes of {what} are not seen: the folder cannot be watched"),
    };
    loop {
        look().await;
        tokio::select! {
            () = stopping.cancelled() => return,
            () = changed.notified() => {}
        }
    }
}

/// Tells of everything that happens in folders: a file that is replaced, as in a mounted volume, is another one.
///
/// # Errors
/// Why they cannot be watched.
fn watch<'a>(folders: impl IntoIterator<Item = &'a Path>, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // To read a file is an event too: it must not be a reason to read it.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            changed.notify_one();
        }
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
