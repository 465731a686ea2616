//! Objects of `-f`: files, folders, stdin; YAML or JSON, one or many in each.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::{Failure, Outcome};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// An object with where it came from.
#[derive(Debug)]
pub struct Source {
    /// As the user named it; `STDIN` for `-`.
    pub file: String,
    pub object: Value,
}

impl Source {
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
}

/// All objects of all files, in order, `List`s opened.
pub fn read(paths: &[String]) -> Outcome<Vec<Source>> {
    let mut out = Vec::new();
    for path in paths {
        if path == "-" {
            let mut text = String::new();
            let read = std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| Failure::new(format!("error reading STDIN: {error}")))?;
            parse("STDIN", &text, &mut out)?;
            continue;
        }
        match std::fs::metadata(path) {
            Err(_) => return Err(Failure::new(format!("the path {path:?} does not exist"))),
            Ok(meta) if meta.is_dir() => {
                for file in manifests(Path::new(path))? {
                    parse_file(&file, &mut out)?;
                }
            }
            Ok(_) => parse_file(path, &mut out)?,
        }
    }
    Ok(out)
}

/// The manifests of a folder, by name.
fn manifests(dir: &Path) -> Outcome<Vec<String>> {
    let entries =
        std::fs::read_dir(dir).map_err(|error| Failure::new(format!("cannot read {}: {error}", dir.display())))?;
    let mut files: Vec<String> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json"))
        .map(|path| path.display().to_string())
        .collect();
    files.sort();
    Ok(files)
}

fn parse_file(path: &str, out: &mut Vec<Source>) -> Outcome {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| Failure::new(format!("error reading {path}: {error}")))?;
    parse(path, &text, out)
}

fn parse(file: &str, text: &str, out: &mut Vec<Source>) -> Outcome {
    let documents = api::codec::from_yaml_stream(text)
        .map_err(|why| Failure::new(format!("error parsing {file}: error converting YAML to JSON: {why}")))?;
    for document in documents {
        add(file, document, out)?;
    }
    Ok(())
}

fn add(file: &str, mut object: Value, out: &mut Vec<Source>) -> Outcome {
    for field in ["apiVersion", "kind"] {
        if object[field].as_str().is_none_or(str::is_empty) {
            let text = format!(
                "error validating {file:?}: error validating data: {field} not set; if you choose to ignore \
                 these errors, turn validation off with --validate=false"
            );
            return Err(Failure::new(text).hint(format!("write {field}: at the top of each object")));
        }
    }
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array();
    if !is_list {
        out.push(Source { file: file.to_string(), object });
        return Ok(());
    }
    if let Value::Array(items) = object["items"].take() {
        for item in items {
            add(file, item, out)?;
        }
    }
    Ok(())
}
