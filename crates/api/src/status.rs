//! `metav1.Status`: the one answer to everything that went wrong, and to some that went right.
//! HTTP codes are known here and in the server's `respond`, nowhere else.

use std::fmt;

use serde_core::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::fields::Empty;
use crate::{fields, go};

/// A Kubernetes `Status`. Failures are made by the constructors below, in the API server's own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// `Success` or `Failure`.
    pub status: String,
    /// For people.
    pub message: String,
    /// For branching.
    pub reason: Reason,
    /// What it is about, where that is an object.
    pub details: Option<Details>,
    /// The HTTP code, 0 when absent.
    pub code: u16,
    /// The continue token and resource version that a 410 of a list carries; empty otherwise.
    pub metadata: Option<Value>,
}

/// What the status is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The resource's group.
    pub group: String,
    /// The resource (`pods`) in most answers, the kind (`Pod`) in validation errors.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// All that is wrong, where it is more than one thing.
    pub causes: Vec<Cause>,
    /// When it may be asked again; 0 where nothing is said of it.
    pub retry_after_seconds: u32,
}

/// One of several reasons, as validation gives them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// `FieldValueRequired` and the like.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Where in the object: `spec.containers[0].image`.
    pub field: String,
}

fields!(Status, written {
    status: "status",
    omit message: "message",
    omit reason: "reason",
    omit details: "details",
    code: "code",
    never metadata: "metadata",
});

fields!(Details, written {
    omit name: "name",
    omit group: "group",
    omit kind: "kind",
    omit uid: "uid",
    omit causes: "causes",
    omit retry_after_seconds: "retryAfterSeconds",
});

fields!(Cause, written {
    omit reason: "reason",
    omit message: "message",
    omit field: "field",
});

/// `metav1.StatusReason`: what a client branches on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    #[default]
    Unknown,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    ServerTimeout,
    Timeout,
    InternalError,
    ServiceUnavailable,
    NotImplemented,
    Other(String),
}

impl Reason {
    pub fn is_unknown(&self) -> bool {
        *self == Reason::Unknown
    }

    pub fn as_str(&self) -> &str {
        match self {
            Reason::Unknown => "",
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::Timeout => "Timeout",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::NotImplemented => "NotImplemented",
            Reason::Other(text) => text,
        }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Reason {
        const ALL: &[Reason] = &[
            Reason::Unknown,
            Reason::BadRequest,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Gone,
            Reason::Expired,
            Reason::RequestEntityTooLarge,
            Reason::UnsupportedMediaType,
            Reason::Invalid,
            Reason::TooManyRequests,
            Reason::ServerTimeout,
            Reason::Timeout,
            Reason::InternalError,
            Reason::ServiceUnavailable,
            Reason::NotImplemented,
        ];
        ALL.iter().find(|reason| reason.as_str() == text).cloned().unwrap_or(Reason::Other(text))
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> String {
        reason.as_str().to_string()
    }
}

impl Empty for Reason {
    fn is_empty(&self) -> bool {
        self.is_unknown()
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Reason, D::Error> {
        String::deserialize(input).map(Reason::from)
    }
}

/// A resource as error texts name it: `pods`, `roles.rbac.authorization.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    /// The plural name, with `/subresource` where the text is about one.
    pub resource: &'a str,
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

impl GroupResource<'_> {
    fn details(&self, name: &str) -> Option<Details> {
        Some(Details {
            name: name.to_string(),
            group: self.group.to_string(),
            kind: self.resource.to_string(),
            ..Details::default()
        })
    }
}

impl Status {
    /// Any failure. Prefer a constructor that knows the words.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Status {
        Status { status: "Failure".into(), message: message.into(), reason, details: None, code, metadata: None }
    }

    /// The answer to a deletion that left nothing to show.
    pub fn deleted(of: GroupResource, name: &str, uid: &str) -> Status {
        let details = Details { uid: uid.to_string(), ..of.details(name).unwrap_or_default() };
        Status {
            status: "Success".into(),
            message: String::new(),
            reason: Reason::Unknown,
            details: Some(details),
            code: 0,
            metadata: None,
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(400, Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Status {
        Status::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// A refusal; `message` is the whole text behind `is forbidden: `.
    pub fn forbidden(of: GroupResource, name: &str, message: impl fmt::Display) -> Status {
        let text = match (of.resource, name) {
            ("", _) => format!("forbidden: {message}"),
            (_, "") => format!("{of} is forbidden: {message}"),
            _ => format!("{of} {} is forbidden: {message}", go::quote(name)),
        };
        Status { details: of.details(name), ..Status::failure(403, Reason::Forbidden, text) }
    }

    pub fn not_found(of: GroupResource, name: &str) -> Status {
        let text = format!("{of} {} not found", go::quote(name));
        Status { details: of.details(name), ..Status::failure(404, Reason::NotFound, text) }
    }

    /// A path under a served group that leads nowhere.
    pub fn no_such_path() -> Status {
        Status {
            details: Some(Details::default()),
            ..Status::failure(404, Reason::NotFound, "the server could not find the requested resource")
        }
    }

    pub fn method_not_allowed() -> Status {
        Status {
            details: Some(Details::default()),
            ..Status::failure(
                405,
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource",
            )
        }
    }

    /// No clause of the Accept header can be served; `supported` names the media types that can.
    pub fn not_acceptable(supported: &str) -> Status {
        Status::failure(406, Reason::NotAcceptable, format!("only the following media types are accepted: {supported}"))
    }

    pub fn already_exists(of: GroupResource, name: &str) -> Status {
        let text = format!("{of} {} already exists", go::quote(name));
        Status { details: of.details(name), ..Status::failure(409, Reason::AlreadyExists, text) }
    }

    pub fn conflict(of: GroupResource, name: &str, why: impl fmt::Display) -> Status {
        let text = format!("Operation cannot be fulfilled on {of} {}: {why}", go::quote(name));
        Status { details: of.details(name), ..Status::failure(409, Reason::Conflict, text) }
    }

    /// A watch or list from a revision that history no longer reaches.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::failure(410, Reason::Expired, message)
    }

    pub fn too_large(message: impl Into<String>) -> Status {
        Status::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// A body in an encoding that is not read here.
    pub fn unsupported_media_type(message: impl Into<String>) -> Status {
        Status::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// Validation said no. `kind` and `group` are the object's, causes as `field.ErrorList` orders them.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Status {
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            // Kubernetes leaves the field out of the text where it is not known: `<nil>: Invalid ..`.
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let what = match texts.len() {
            0 => "[]".to_string(),
            1 => texts.remove(0),
            _ => format!("[{}]", texts.join(", ")),
        };
        let of = GroupResource { group, resource: kind };
        let text = format!("{of} {} is invalid: {what}", go::quote(name));
        let details = Details { causes, ..of.details(name).unwrap_or_default() };
        Status { details: Some(details), ..Status::failure(422, Reason::Invalid, text) }
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        Status {
            details: Some(Details { retry_after_seconds, ..Details::default() }),
            ..Status::failure(429, Reason::TooManyRequests, message)
        }
    }

    pub fn internal(why: impl fmt::Display) -> Status {
        let why = why.to_string();
        Status {
            details: Some(Details {
                causes: vec![Cause { message: why.clone(), ..Cause::default() }],
                ..Details::default()
            }),
            ..Status::failure(500, Reason::InternalError, format!("Internal error occurred: {why}"))
        }
    }

    /// A failure that clients can read and not branch on: 500 without a reason.
    pub fn unexplained(message: impl Into<String>) -> Status {
        Status::failure(500, Reason::Unknown, message)
    }

    /// A change that a budget does not allow now.
    pub fn disrupted(message: impl Into<String>, cause: Cause) -> Status {
        let details = Details { causes: vec![cause], ..Details::default() };
        Status { details: Some(details), ..Status::failure(429, Reason::TooManyRequests, message) }
    }

    /// What this server cannot do yet, said plainly.
    pub fn not_implemented(what: impl fmt::Display) -> Status {
        Status::failure(501, Reason::NotImplemented, format!("{what} is not implemented by this server yet"))
    }

    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::failure(503, Reason::ServiceUnavailable, message)
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        Status {
            details: Some(Details { retry_after_seconds, ..Details::default() }),
            ..Status::failure(504, Reason::Timeout, message)
        }
    }

    /// The document as it goes over the wire, in Go's field order.
    pub fn to_value(&self) -> Value {
        let mut out =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": self.metadata.clone().unwrap_or(json!({}))});
        if let (Some(out), Ok(Value::Object(rest))) = (out.as_object_mut(), serde_json::to_value(self)) {
            out.extend(rest.into_iter().filter(|(key, value)| key != "code" || *value != json!(0)));
        }
        out
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: Status, want: &str) {
        assert_eq!(status.to_value().to_string(), want);
    }

    #[test]
    fn statuses_read_like_the_real_ones() {
        let pods = GroupResource { group: "", resource: "pods" };
        check(
            Status::not_found(pods, "web"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"web\" not found","reason":"NotFound","details":{"name":"web","kind":"pods"},"code":404}"#,
        );
        check(
            Status::deleted(GroupResource { group: "apps", resource: "deployments" }, "d", "u"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"d","group":"apps","kind":"deployments","uid":"u"}}"#,
        );
        check(
            Status::unauthorized(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#,
        );
    }

    #[test]
    fn what_is_printed_is_parsed_back() {
        let status = Status::too_many_requests("slow down", 3);
        let again: Status = serde_json::from_value(status.to_value()).unwrap();
        assert_eq!((again.code, again.reason, again.details), (status.code, status.reason, status.details));
    }
}
