//! A request's meaning and its way over the wire, both directions: `Ask::parse` for the server, `Ask::print` for the client.
//! Knows the shape of Kubernetes paths, not which resources exist.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::selector::one_name;

/// What is asked: the verb, and either a resource or a plain path.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The HTTP method, upper case.
    pub method: Cow<'static, str>,
    pub verb: Verb,
    /// The decoded path, as authorization sees it.
    pub path: String,
    pub query: Query,
    /// What the path names, `None` where it is no resource's.
    pub target: Option<Target>,
}

/// The resource that a path names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// `""` for the core group.
    pub group: String,
    pub version: String,
    pub resource: String,
    /// `""` where the path has none.
    pub namespace: String,
    /// `""` where the path has none; a list or watch takes it from `fieldSelector=metadata.name=X`.
    pub name: String,
    pub subresource: String,
    /// What follows the subresource, as in `proxy/some/path`.
    pub rest: String,
    /// The name as it was sent, where that is not UTF-8; else empty.
    pub odd_name: Vec<u8>,
}

/// The verb that authorization asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// The old `/proxy/` and `/watch/` paths keep the word that stands there; other methods are lower case.
    Other(String),
}

impl Verb {
    pub fn as_str(&self) -> &str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Other(word) => word,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The parameters behind the `?`, in order, decoded as Go decodes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        // Go drops every pair that holds a semicolon or a broken escape.
        let sound = |pair: &&str| !pair.is_empty() && !pair.contains(';') && escapes_are_sound(pair);
        Query(
            text.split('&')
                .filter(sound)
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (form_decoded(name), form_decoded(value)))
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All of them as they stand behind a `?`.
    pub fn print(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{}={}", form_encoded(name), form_encoded(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    /// A boolean as list options read it: present and neither `false` nor `0` means true.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_string(), value.into()));
    }
}

/// Why a request line has no meaning at all, as text.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaningless {
    /// A broken escape: HTTP's own 400.
    Escape,
    /// It is to be watched or proxied, and does not say what: a 500 of the server, which looks into the path before all else.
    NoResource,
}

impl std::fmt::Display for Meaningless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Meaningless::Escape => "400 Bad Request",
            Meaningless::NoResource => "failed to create RequestInfo: unable to determine kind and namespace from url",
        })
    }
}

impl std::error::Error for Meaningless {}

/// Words in front of a resource that say what is to be done with it.
const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];

/// What stands in a query as it is; a space is a plus there.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b' ');

fn form_encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string().replace(' ', "+")
}

fn form_decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

impl Ask {
    /// What a request line asks. `target` is the path with its query, as sent.
    pub fn parse(method: &str, target: &str) -> Result<Ask, Meaningless> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !escapes_are_sound(path) {
            return Err(Meaningless::Escape);
        }
        let sent: Cow<[u8]> = percent_decode_str(path).into();
        let path = String::from_utf8_lossy(&sent).into_owned();
        let query = Query::parse(query);
        let method = known_method(method);
        let (verb, mut target) = match resource(&method, &path, &query)? {
            Some((verb, target)) => (verb, Some(target)),
            None => (Verb::Other(method.to_ascii_lowercase()), None),
        };
        if let Some(target) = target.as_mut().filter(|_| path.len() != sent.len()) {
            target.odd_name = odd_part(&sent, &target.name);
        }
        Ok(Ask { method, verb, path, query, target })
    }

    /// A request for a resource, as clients make it.
    pub fn of(verb: Verb, target: Target, query: Query) -> Ask {
        let method = match verb {
            Verb::Get | Verb::List | Verb::Watch => "GET",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete | Verb::DeleteCollection => "DELETE",
            Verb::Other(_) => "GET",
        };
        let mut query = query;
        if verb == Verb::Watch && query.get("watch").is_none() {
            query.push("watch", "true");
        }
        let path = target.path();
        Ask { method: method.into(), verb, path, query, target: Some(target) }
    }

    /// The request line's method and target (path and query, escaped).
    pub fn print(&self) -> (&str, String) {
        let mut out: String = utf8_percent_encode(&self.path, PATH).collect();
        if !self.query.0.is_empty() {
            out.push('?');
            out.push_str(&self.query.print());
        }
        (&self.method, out)
    }
}

impl Target {
    /// The path that names this target.
    pub fn path(&self) -> String {
        let mut out = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let of_namespace_itself = self.resource == "namespaces";
        if !self.namespace.is_empty() && !of_namespace_itself {
            out += &format!("/namespaces/{}", self.namespace);
        }
        for part in [&self.resource, &self.name, &self.subresource, &self.rest] {
            if !part.is_empty() {
                out.push('/');
                out += part;
            }
        }
        out
    }

    /// `pods` or `pods/log`.
    pub fn resource_and_subresource(&self) -> Cow<'_, str> {
        match self.subresource.as_str() {
            "" => Cow::Borrowed(&self.resource),
            sub => Cow::Owned(format!("{}/{sub}", self.resource)),
        }
    }
}

/// Everything but what may stand in a path segment as it is.
const PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

fn known_method(method: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    match KNOWN.iter().find(|known| **known == method) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(method.to_string()),
    }
}

fn escapes_are_sound(text: &str) -> bool {
    let bytes = text.as_bytes();
    (0..bytes.len()).filter(|i| bytes[*i] == b'%').all(|i| {
        bytes.get(i + 1).is_some_and(u8::is_ascii_hexdigit) && bytes.get(i + 2).is_some_and(u8::is_ascii_hexdigit)
    })
}

/// Kubernetes' `RequestInfo`: which parts of a path are group, version, namespace, resource, name, subresource.
fn resource(method: &str, path: &str, query: &Query) -> Result<Option<(Verb, Target)>, Meaningless> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, mut parts) = match parts.as_slice() {
        ["api", _, _, ..] => ("", &parts[1..]),
        ["apis", group, _, _, ..] => (*group, &parts[2..]),
        _ => return Ok(None),
    };
    let version = parts[0];
    parts = &parts[1..];
    let mut verb = match method {
        "POST" => Verb::Create,
        "GET" | "HEAD" => Verb::Get,
        "PUT" => Verb::Update,
        "PATCH" => Verb::Patch,
        "DELETE" => Verb::Delete,
        _ => Verb::Other(String::new()),
    };
    if SPECIAL_VERBS.contains(&parts[0]) {
        if parts.len() == 1 {
            return Err(Meaningless::NoResource);
        }
        verb = if parts[0] == "watch" { Verb::Watch } else { Verb::Other(parts[0].to_string()) };
        parts = &parts[1..];
    }
    let mut namespace = "";
    if parts[0] == "namespaces" && parts.len() > 1 {
        namespace = parts[1];
        if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
            parts = &parts[2..];
        }
    }
    let at = |i: usize| parts.get(i).copied().unwrap_or_default();
    let proxied = verb == Verb::Other("proxy".into());
    let mut name = at(1).to_string();
    let subresource = if proxied { "" } else { at(2) };
    let rest = if parts.len() > 3 && !proxied { parts[3..].join("/") } else { String::new() };
    if name.is_empty() && verb == Verb::Get {
        verb = if query.flag("watch") == Some(true) { Verb::Watch } else { Verb::List };
    }
    if name.is_empty() && verb == Verb::Delete {
        verb = Verb::DeleteCollection;
    }
    if name.is_empty() && matches!(verb, Verb::List | Verb::Watch) {
        name = query.get("fieldSelector").and_then(one_name).unwrap_or_default();
    }
    let target = Target {
        group: group.to_string(),
        version: version.to_string(),
        resource: at(0).to_string(),
        namespace: namespace.to_string(),
        name,
        subresource: subresource.to_string(),
        rest,
        odd_name: Vec::new(),
    };
    Ok(Some((verb, target)))
}

/// The part of a path that was read as `name` and is not UTF-8; empty where there is none.
fn odd_part(path: &[u8], name: &str) -> Vec<u8> {
    let odd = |part: &&[u8]| String::from_utf8_lossy(part) == name && std::str::from_utf8(part).is_err();
    path.split(|byte| *byte == b'/').find(odd).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &str, want: &str) {
        let (method, path) = request.split_once(' ').unwrap();
        let ask = Ask::parse(method, path).unwrap();
        let got = match &ask.target {
            None => format!("{} path {}", ask.verb, ask.path),
            Some(t) => {
                format!(
                    "{} {}/{} {} ns={} name={}",
                    ask.verb,
                    t.group,
                    t.version,
                    t.resource_and_subresource(),
                    t.namespace,
                    t.name
                )
            }
        };
        assert_eq!(got, want, "{request}");
    }

    #[test]
    fn requests_mean_what_kubernetes_says() {
        check("GET /api/v1/pods", "list /v1 pods ns= name=");
        check("GET /api/v1/namespaces/a/pods/p/log", "get /v1 pods/log ns=a name=p");
        check("GET /api/v1/namespaces/a", "get /v1 namespaces ns=a name=a");
        check("PUT /api/v1/namespaces/a/finalize", "update /v1 namespaces/finalize ns=a name=a");
        check("GET /apis/apps/v1/deployments?watch=1", "watch apps/v1 deployments ns= name=");
        check("GET /api/v1/pods?fieldSelector=metadata.name%3Dx", "list /v1 pods ns= name=x");
        check("DELETE /api/v1/namespaces/a/pods", "deletecollection /v1 pods ns=a name=");
        // The right to delete one object by name is none to delete a collection, however it is narrowed.
        check("DELETE /api/v1/pods?fieldSelector=metadata.name%3Dx", "deletecollection /v1 pods ns= name=");
        check("GET /apis/apps/v1", "get path /apis/apps/v1");
        check("GET /version", "get path /version");
        check("GET /api/v1/watch/namespaces/a/pods", "watch /v1 pods ns=a name=");
        check("GET /api/v1/namespaces/a/pods/%ff", "get /v1 pods ns=a name=\u{fffd}");
    }

    #[test]
    fn a_name_that_is_no_text_is_kept_as_sent() {
        let odd = |path: &str| Ask::parse("GET", path).unwrap().target.unwrap().odd_name;
        assert_eq!(odd("/api/v1/namespaces/a/pods/x%ff"), b"x\xff");
        assert_eq!(odd("/api/v1/namespaces/%ff/pods/x"), b"");
        assert_eq!(odd("/api/v1/namespaces/a/pods/%c3%a9"), b"");
    }

    #[test]
    fn what_a_client_prints_a_server_parses() {
        let target = Target {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            namespace: "a b".into(),
            name: "x%y".into(),
            subresource: "status".into(),
            ..Target::default()
        };
        for verb in [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete] {
            let ask = Ask::of(verb, target.clone(), Query(vec![("dryRun".into(), "All & more".into())]));
            let (method, line) = ask.print();
            assert_eq!(Ask::parse(method, &line).unwrap(), ask);
        }
    }
}
