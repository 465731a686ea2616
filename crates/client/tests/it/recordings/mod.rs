//! Recorded conversations with a real Kubernetes, replayed to the client: it must send what was recorded and make of the answer
//! what that says. Judges the client alone; how our own server answers is the testkit's matter.

mod calls;
mod flows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use kemudi_client::transport::full;
use kemudi_client::{Body, Client, Result, Transport};
use serde_json::{Map, Value, json};

/// Stand for what no two servers share, where a recording has a placeholder.
const STAND_INS: [(&str, &str); 3] =
    [("<rv>", "77"), ("<uid>", "c0ffee00-0000-4000-8000-000000000000"), ("<continue>", "bmV4dA")];

/// One request that was sent to a real server, and what that answered.
pub struct Step {
    /// `FOLDER/FILE.json step N`.
    pub name: String,
    pub method: String,
    /// The path and query, escaped.
    pub target: String,
    /// As whom, where that is not the administrator.
    pub identity: Value,
    /// Those that the recording names; `None` takes the usual one away.
    pub headers: Vec<(String, Option<String>)>,
    pub body: Sent,
    pub code: u16,
    pub answered: Vec<(String, String)>,
    pub said: Said,
}

/// The body of a request.
pub enum Sent {
    Nothing,
    Json(Value),
    Text(String),
}

/// The body of an answer.
pub enum Said {
    Json(Value),
    Text(String),
    Events(Vec<Value>),
    /// Not recorded, as it says nothing new.
    Skipped,
}

impl Step {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref())
    }

    /// The answer as it came.
    fn answer(&self) -> Response<Body> {
        let body = match &self.said {
            Said::Json(value) => value.to_string(),
            Said::Text(text) => text.clone(),
            Said::Events(events) => events.iter().map(|event| format!("{event}\n")).collect(),
            // Somebody wrote it, so the object is much like this.
            Said::Skipped => match &self.body {
                Sent::Json(value) if value.is_object() => value.to_string(),
                _ => "{}".to_string(),
            },
        };
        let mut response = Response::builder().status(self.code);
        for (name, value) in &self.answered {
            response = response.header(name, value);
        }
        response.body(full(body)).expect("recorded headers are headers")
    }
}

/// Gives the same answer to everything it is asked, and writes that down.
pub struct Replay {
    step: Arc<Step>,
    asked: Mutex<Vec<Request<Bytes>>>,
}

impl Replay {
    pub fn client(step: &Arc<Step>) -> (Client, Arc<Replay>) {
        let replay = Arc::new(Replay { step: step.clone(), asked: Mutex::default() });
        (Client::with_transport(replay.clone()), replay)
    }

    pub fn asked(&self) -> Vec<Request<Bytes>> {
        self.asked.lock().unwrap().clone()
    }
}

impl Transport for Replay {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        Box::pin(async {
            self.asked.lock().unwrap().push(request);
            Ok(self.step.answer())
        })
    }
}

/// All recorded steps of the files whose `FOLDER/FILE` contains `only`, in order.
pub fn steps(only: &str) -> Vec<Arc<Step>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/golden/corpus");
    let mut out = Vec::new();
    for folder in sorted(&corpus).into_iter().filter(|path| path.is_dir() && !path.ends_with("kubectl")) {
        for file in sorted(&folder).into_iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
            let name = file.strip_prefix(&corpus).unwrap().display().to_string();
            if name.contains(only) {
                read(&name, &std::fs::read_to_string(&file).unwrap(), &mut out);
            }
        }
    }
    out
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

fn read(file: &str, text: &str, out: &mut Vec<Arc<Step>>) {
    let text = STAND_INS.iter().fold(text.to_string(), |text, (word, stand_in)| text.replace(word, stand_in));
    let scenario: Value = serde_json::from_str(&text).unwrap();
    let mut saved = BTreeMap::from([("ns".to_string(), json!("one")), ("id".to_string(), json!("own"))]);
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let expect = fill(&step["expect"], &saved);
        let said = match (&expect["body"], &expect["text"], &expect["events"]) {
            (Value::Null, Value::Null, Value::Null) => Said::Skipped,
            (Value::Null, Value::String(text), _) => Said::Text(text.clone()),
            (Value::Null, _, Value::Array(events)) => Said::Events(events.clone()),
            (body, _, _) => Said::Json(body.clone()),
        };
        let answer = match &said {
            Said::Json(body) => body.clone(),
            Said::Events(events) => json!(events),
            _ => Value::Null,
        };
        let request = fill(
            &json!({"path": step["path"], "body": step["body"], "headers": step["headers"], "as": step["as"]}),
            &saved,
        );
        for (name, pointer) in step["save"].as_object().into_iter().flatten() {
            let pointer = pointer.as_str().unwrap();
            let known = answer.pointer(pointer).cloned();
            let guess = if pointer.ends_with("resourceVersion") { "77" } else { "saved" };
            saved.insert(name.clone(), known.unwrap_or_else(|| json!(guess)));
        }
        let texts = |headers: &Value| -> Vec<(String, Value)> {
            headers
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.to_lowercase(), value.clone()))
                .collect()
        };
        out.push(Arc::new(Step {
            name: format!("{file} step {number}"),
            method: step["method"].as_str().unwrap().to_string(),
            target: escaped(request["path"].as_str().unwrap()),
            identity: request["as"].clone(),
            headers: texts(&request["headers"])
                .into_iter()
                .map(|(name, value)| (name, value.as_str().map(str::to_string)))
                .collect(),
            body: match request["body"].clone() {
                Value::Null => Sent::Nothing,
                Value::String(text) => Sent::Text(text),
                value => Sent::Json(value),
            },
            code: u16::try_from(expect["status"].as_u64().unwrap()).unwrap(),
            answered: texts(&expect["headers"])
                .into_iter()
                .flat_map(|(name, values)| {
                    values
                        .as_array()
                        .cloned()
                        .unwrap_or_default()
                        .into_iter()
                        .map(move |value| (name.clone(), value.as_str().unwrap().to_string()))
                })
                .collect(),
            said,
        }));
    }
}

/// Puts saved values where `${NAME}` stands; a text that is nothing else becomes the value itself.
fn fill(value: &Value, saved: &BTreeMap<String, Value>) -> Value {
    match value {
        Value::String(text) => {
            let whole =
                text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).and_then(|name| saved.get(name));
            whole.cloned().unwrap_or_else(|| fill_text(text, saved).into())
        }
        Value::Array(items) => items.iter().map(|item| fill(item, saved)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (fill_text(key, saved), fill(value, saved))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

fn fill_text(text: &str, saved: &BTreeMap<String, Value>) -> String {
    saved.iter().filter(|_| text.contains("${")).fold(text.to_string(), |text, (name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        text.replace(&format!("${{{name}}}"), &value)
    })
}

/// As the recording's program sent it.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/?&=%:,;!()~*'@$+-._".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
