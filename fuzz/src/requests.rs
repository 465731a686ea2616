//! The server in this process, asked anything: it answers in Kubernetes' words and keeps what it promised. Nothing is
//! written: every change is a dry run.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use api::{Ask, Reason, Status, Verb};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};
use server::authn::{AUTHENTICATED, MASTERS, User};
use server::{Options, Server};

use crate::changes;
use crate::tape::Tape;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What is there to be listed, in the order of a list.
const NAMES: [&str; 5] = ["a", "b", "c", "kube", "x"];
/// The largest answer that is looked into.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long the end of an answer is waited for. Some have none.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A `continue` parameter: one of the server's own goes on where it was, any other is refused with a `Status`.
pub fn tokens(bytes: &[u8]) {
    ASKED.with_borrow_mut(|asked| {
        let Some((mode, rest)) = bytes.split_first() else { return };
        let limit = usize::from(mode / 4) % 4 + 1;
        match mode % 4 {
            0 => asked.pages(limit),
            1 => asked.foreign(limit, rest),
            // Anything inside of what a token is made of.
            2 => asked.foreign(limit, URL_SAFE_NO_PAD.encode(rest).as_bytes()),
            _ => {
                let tape = &mut Tape::new(rest);
                let revision = tape.one_of(&[json!(-1), json!(0), json!(1), json!(20), json!("1"), json!(i64::MAX)]);
                let version = tape.one_of(&["meta.k8s.io/v1", "meta.k8s.io/v2", ""]);
                let start = tape.text(&['a', 'b', 'x', 'd', '/', '\0', '.', '\u{fffd}'], 6);
                let token = json!({"v": version, "rv": revision, "start": start}).to_string();
                asked.foreign(limit, URL_SAFE_NO_PAD.encode(token).as_bytes());
            }
        }
    });
}

/// Changes of an object that the client library sends in every language for them.
pub fn changes(bytes: &[u8]) {
    ASKED.with_borrow_mut(|asked| {
        let state = asked.server.state().clone();
        asked.runtime.block_on(changes::check(&state, admin(), NAMES[0], &mut Tape::new(bytes)));
    });
}

/// A request: `METHOD TARGET`, the content type, what is accepted, an empty line, the body.
pub fn requests(bytes: &[u8]) {
    let mut lines = bytes.splitn(5, |byte| *byte == b'\n');
    let mut line = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(ask), Some(content), Some(accept)) = (line(), line(), line()) else { return };
    let _ = line();
    let body = lines.next().unwrap_or_default();
    let Some((method, target)) = ask.split_once(' ') else { return };
    let Ok(meaning) = Ask::parse(method, target) else { return };
    let changes = !matches!(&*meaning.method, "GET" | "HEAD" | "OPTIONS");
    let target = match changes {
        false => target.to_owned(),
        true => format!("{target}{}dryRun=All", if target.contains('?') { "&" } else { "?" }),
    };
    // The options of a deletion that has a body are in the body.
    let body = if method == "DELETE" { b"" } else { body };
    let request = Request::builder().method(method).uri(&target);
    let request = request.header(header::CONTENT_TYPE, content).header(header::ACCEPT, accept);
    // What HTTP itself does not carry never gets here.
    let Ok(request) = request.body(Bytes::copy_from_slice(body)) else { return };
    ASKED.with_borrow_mut(|asked| {
        let endless = meaning.verb == Verb::Watch || meaning.query.flag("follow") == Some(true);
        let answer = asked.send(request, endless);
        asked.judge(&meaning, &answer, &format!("{method} {target}"));
    });
}

thread_local! {
    static ASKED: RefCell<Asked> = RefCell::new(Asked::start());
}

/// A server and the runtime that it lives in.
struct Asked {
    runtime: tokio::runtime::Runtime,
    server: Server,
}

struct Answer {
    code: u16,
    media: String,
    /// `None` where it is too large, or does not end.
    body: Option<Bytes>,
}

impl Answer {
    fn json(&self) -> Value {
        self.body.as_ref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }
}

impl Asked {
    fn start() -> Asked {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(Server::start(Options::default())).expect("a server in memory starts");
        let mut asked = Asked { runtime, server };
        for name in NAMES {
            asked.create(MAPS, &json!({"metadata": {"name": name}, "data": {"k": "1"}}));
        }
        asked.create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}));
        asked.create("/api/v1/namespaces/default/pods", &pod());
        asked.create("/apis/apps/v1/namespaces/default/deployments", &deployment());
        asked.create(
            "/api/v1/namespaces/default/services",
            &json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}),
        );
        // From now on nothing waits for anything but time, and that need not be waited for.
        asked.runtime.block_on(async { tokio::time::pause() });
        asked
    }

    fn create(&mut self, path: &str, body: &Value) {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(body.to_string().into()).expect("a request"), false);
        assert_eq!(answer.code, 201, "{path}: {:?}", answer.body);
    }

    fn get(&mut self, target: &str) -> Answer {
        let request = Request::get(target).body(Bytes::new()).expect("a request");
        self.send(request, false)
    }

    fn send(&mut self, request: Request<Bytes>, endless: bool) -> Answer {
        let request = request.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
        let state = self.server.state();
        self.runtime.block_on(async {
            let answer = Server::call(state, admin(), request).await;
            let code = answer.status().as_u16();
            let media = answer.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
            let media = media.unwrap_or_default().to_owned();
            let body = match endless && code == 200 {
                true => None,
                false => {
                    let whole = http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
                    let whole = tokio::time::timeout(ANSWER_TIME, whole).await;
                    whole.ok().and_then(Result::ok).map(|whole| whole.to_bytes())
                }
            };
            Answer { code, media, body }
        })
    }

    /// All pages of a list, by the server's own tokens: everything once, in order.
    fn pages(&mut self, limit: usize) {
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let answer = self.get(&format!("{MAPS}?limit={limit}&continue={token}"));
            assert_eq!(answer.code, 200, "{:?}", answer.body);
            let list = answer.json();
            found.extend(names(&list));
            token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            assert!(token.is_empty() || names(&list).len() == limit, "{list}");
            if token.is_empty() {
                break;
            }
        }
        found.retain(|name| NAMES.contains(&name.as_str()));
        assert_eq!(found, NAMES);
    }

    fn foreign(&mut self, limit: usize, token: &[u8]) {
        let escaped = percent_encode(token, NON_ALPHANUMERIC);
        let answer = self.get(&format!("{MAPS}?limit={limit}&continue={escaped}"));
        if answer.code == 200 {
            // It says what one of the server's own would: then it is one, and leads to a part of the list.
            let names = names(&answer.json());
            assert!(names.len() <= limit || token.is_empty(), "{names:?}");
            assert!(names.is_sorted(), "{names:?}");
            return;
        }
        let status: Status = serde_json::from_value(answer.json()).expect("a refusal is a Status");
        assert_eq!((status.status.as_str(), status.code), ("Failure", answer.code), "{status}");
        let known = match answer.code {
            400 => status.reason == Reason::BadRequest && status.message.contains("continue"),
            410 => status.reason == Reason::Expired,
            // A revision that was never made.
            504 => status.reason == Reason::Timeout,
            _ => false,
        };
        assert!(known, "{} {:?} {}", answer.code, status.reason, status.message);
    }

    fn judge(&self, meaning: &Ask, answer: &Answer, line: &str) {
        let text = answer.body.as_ref().map(|body| String::from_utf8_lossy(body)).unwrap_or_default();
        assert!(!text.contains("caused apiserver to panic"), "{line}");
        if answer.media != "application/json" || answer.body.is_none() {
            return;
        }
        let json: Value = match meaning.method == "HEAD" {
            true => return,
            false => serde_json::from_str(&text).unwrap_or_else(|why| panic!("{line}: {why}: {text}")),
        };
        if json["kind"] == "Status" && json["apiVersion"] == "v1" && answer.code >= 400 {
            let status: Status = serde_json::from_value(json).expect("a Status");
            assert_eq!(status.code, answer.code, "{line}: {status}");
            return;
        }
        // Probes and the like say their failure in their own way.
        if !matches!(answer.code, 200 | 201) || meaning.target.is_none() {
            return;
        }
        let says = |name: &str| json[name].as_str().unwrap_or_default();
        let registry = kinds::builtin();
        let Some(kind) = crate::values::kind_of(&registry, says("apiVersion"), says("kind")) else { return };
        let read = kind.decode(text.as_bytes()).unwrap_or_else(|why| panic!("{line}: {why}: {text}"));
        assert_eq!(read.strict, Vec::<String>::new(), "{line}: {text}");
        let tidied = kind.tidy(read.object).expect("what is read is of its types");
        assert_eq!(tidied.to_string(), text.trim_end(), "{line}");
    }
}

fn admin() -> Arc<User> {
    Arc::new(User::new("admin", [MASTERS, AUTHENTICATED]))
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

fn pod() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}})
}

fn deployment() -> Value {
    let labels = json!({"app": "x"});
    let template = json!({"metadata": {"labels": labels}, "spec": pod()["spec"]});
    json!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": labels}, "template": template}})
}
