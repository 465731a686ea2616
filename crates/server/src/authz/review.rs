//! The SubjectAccessReview that a webhook is sent: what somebody wants to do, field by field as Kubernetes writes it.

use api::selector::Op;
use serde_json::{Map, Value, json};

use super::Attributes;

const GROUP: &str = "authorization.k8s.io";

/// The API version of a review.
pub fn api_version(version: &str) -> String {
    format!("{GROUP}/{version}")
}

/// The `spec` of a review, of version v1.
pub fn spec(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = Map::new();
    match attributes.is_resource {
        true => spec.insert("resourceAttributes".into(), resource(attributes)),
        false => spec.insert(
            "nonResourceAttributes".into(),
            texts(&[("path", attributes.path), ("verb", attributes.verb)]).into(),
        ),
    };
    spec.extend(texts(&[("user", &user.name)]));
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    spec.extend(texts(&[("uid", &user.uid)]));
    Value::Object(spec)
}

/// The whole review of a version.
pub fn whole(spec: &Value, version: &str) -> Vec<u8> {
    let mut spec = spec.clone();
    // The older version calls the groups otherwise.
    if version == "v1beta1"
        && let Some(map) = spec.as_object_mut()
    {
        *map = std::mem::take(map)
            .into_iter()
            .map(|(key, value)| if key == "groups" { ("group".into(), value) } else { (key, value) })
            .collect();
    }
    let mut whole = api::codec::to_json(&json!({
        "kind": "SubjectAccessReview",
        "apiVersion": api_version(version),
        "metadata": {},
        "spec": spec,
        "status": {"allowed": false},
    }));
    whole.push(b'\n');
    whole
}

/// What match conditions see as `request`: as the spec, with all texts, empty ones too.
pub fn subject(attributes: &Attributes<'_>, spec: &Value) -> Value {
    let user = attributes.user;
    let mut subject = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    match attributes.is_resource {
        true => {
            let mut of = json!({
                "namespace": attributes.namespace,
                "verb": attributes.verb,
                "group": attributes.group,
                "version": attributes.version,
                "resource": attributes.resource,
                "subresource": attributes.subresource,
                "name": attributes.name,
            });
            for field in ["fieldSelector", "labelSelector"] {
                if let Some(selector) = spec["resourceAttributes"].get(field) {
                    of[field] = with_values(selector.clone());
                }
            }
            subject["resourceAttributes"] = of;
        }
        false => subject["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb}),
    }
    subject
}

/// Terms without values have an empty list of them.
fn with_values(mut selector: Value) -> Value {
    for term in selector["requirements"].as_array_mut().into_iter().flatten() {
        if let Some(term) = term.as_object_mut() {
            term.entry("values").or_insert_with(|| json!([]));
        }
    }
    selector
}

fn resource(attributes: &Attributes<'_>) -> Value {
    let mut of = texts(&[
        ("namespace", attributes.namespace),
        ("verb", attributes.verb),
        ("group", attributes.group),
        ("version", attributes.version),
        ("resource", attributes.resource),
        ("subresource", attributes.subresource),
        ("name", attributes.name),
    ]);
    let fields = attributes.fields().into_iter().flat_map(|selector| selector.into_owned().0);
    let fields = fields.map(|term| {
        let operator = if term.equal { "In" } else { "NotIn" };
        json!({"key": term.field, "operator": operator, "values": [term.value]})
    });
    // Terms that have no name here only narrow: without them more is asked for, not less.
    let labels = attributes.labels().into_iter().flat_map(|selector| selector.into_owned().0);
    let labels = labels.filter_map(|term| {
        let operator = match term.op {
            Op::Equals | Op::In => "In",
            Op::NotEquals | Op::NotIn => "NotIn",
            Op::Exists => "Exists",
            Op::DoesNotExist => "DoesNotExist",
            Op::GreaterThan | Op::LessThan => return None,
        };
        Some(match term.values.is_empty() {
            true => json!({"key": term.key, "operator": operator}),
            false => json!({"key": term.key, "operator": operator, "values": term.values}),
        })
    });
    for (name, terms) in [("fieldSelector", fields.collect::<Vec<_>>()), ("labelSelector", labels.collect())] {
        if !terms.is_empty() {
            of.insert(name.into(), json!({"requirements": terms}));
        }
    }
    Value::Object(of)
}

/// Fields with texts, without the empty ones.
fn texts(fields: &[(&str, &str)]) -> Map<String, Value> {
    let given = fields.iter().filter(|(_, text)| !text.is_empty());
    given.map(|(name, text)| (name.to_string(), json!(text))).collect()
}

#[cfg(test)]
mod tests {
    use api::Ask;

    use super::*;
    use crate::authn::User;

    fn jane() -> User {
        let extra =
            [("z".to_string(), vec!["1".to_string()]), ("x".to_string(), vec!["2".to_string(), "3".to_string()])];
        User { uid: "7".into(), extra: extra.into(), ..User::new("jane", ["a", "b"]) }
    }

    /// The spec that `METHOD PATH` of somebody makes, as a webhook of this version sees it.
    #[track_caller]
    fn check(user: &User, version: &str, ask: &str, want: &str) {
        let (method, path) = ask.split_once(' ').unwrap();
        let ask = Ask::parse(method, path).unwrap();
        let whole = whole(&spec(&crate::authorize::attributes(user, &ask)), version);
        let want = format!(
            r#"{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/{version}","metadata":{{}},"spec":{{{want}}},"status":{{"allowed":false}}}}"#
        );
        assert_eq!(String::from_utf8(whole).unwrap().trim_end(), want);
    }

    #[test]
    fn what_a_webhook_is_sent() {
        let plain = User::new("jane", Vec::<String>::new());
        check(
            &plain,
            "v1",
            "GET /api/v1/pods",
            r#""resourceAttributes":{"verb":"list","version":"v1","resource":"pods"},"user":"jane""#,
        );
        let who = r#""user":"jane","groups":["a","b"],"extra":{"x":["2","3"],"z":["1"]},"uid":"7""#;
        let path = r#""nonResourceAttributes":{"path":"/healthz","verb":"get"}"#;
        check(&jane(), "v1", "GET /healthz", &format!("{path},{who}"));
        check(&jane(), "v1beta1", "GET /healthz", &format!("{path},{}", who.replace("groups", "group")));
        check(
            &jane(),
            "v1",
            "GET /apis/apps/v1/namespaces/ns/deployments/n/scale",
            &format!(
                r#""resourceAttributes":{{"namespace":"ns","verb":"get","group":"apps","version":"v1","resource":"deployments","subresource":"scale","name":"n"}},{who}"#
            ),
        );
        check(
            &jane(),
            "v1",
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1,metadata.namespace!%3Dx,a%3D%3Db&labelSelector=b+in+(y,x),a%3D1,!c,d,e!%3D2,f+notin+(r,q),g%3E5",
            &format!(
                r#""resourceAttributes":{{"verb":"list","version":"v1","resource":"pods","fieldSelector":{{"requirements":[{{"key":"a","operator":"In","values":["b"]}},{{"key":"metadata.namespace","operator":"NotIn","values":["x"]}},{{"key":"spec.nodeName","operator":"In","values":["n1"]}}]}},"labelSelector":{{"requirements":[{{"key":"a","operator":"In","values":["1"]}},{{"key":"b","operator":"In","values":["x","y"]}},{{"key":"c","operator":"DoesNotExist"}},{{"key":"d","operator":"Exists"}},{{"key":"e","operator":"NotIn","values":["2"]}},{{"key":"f","operator":"NotIn","values":["q","r"]}}]}}}},{who}"#
            ),
        );
        check(
            &plain,
            "v1",
            "GET /api/v1/pods?fieldSelector=nonsense&labelSelector=a+b",
            r#""resourceAttributes":{"verb":"list","version":"v1","resource":"pods"},"user":"jane""#,
        );
        // Reading one object selects nothing.
        check(
            &plain,
            "v1",
            "GET /api/v1/nodes/n?labelSelector=a",
            r#""resourceAttributes":{"verb":"get","version":"v1","resource":"nodes","name":"n"},"user":"jane""#,
        );
        check(
            &User::new("a<b>&\u{2028}é\u{1}", Vec::<String>::new()),
            "v1",
            "GET /healthz",
            "\"nonResourceAttributes\":{\"path\":\"/healthz\",\"verb\":\"get\"},\"user\":\"a\\u003cb\\u003e\\u0026\\u2028é\\u0001\"",
        );
    }
}
