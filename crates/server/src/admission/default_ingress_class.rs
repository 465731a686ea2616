//! DefaultIngressClass: ingresses that name no class get the default one.

use api::{Status, meta};
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The old way of an ingress to name its class.
const CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        let new = request.operation == Operation::Create
            && request.is("networking.k8s.io", "ingresses")
            && request.subresource.is_empty();
        let named = meta::at(object, &["spec", "ingressClassName"]).is_some_and(Value::is_string)
            || meta::entry(object, "annotations", CLASS).is_some();
        if !new || named {
            return Ok(());
        }
        let mut classes = request.state.list("networking.k8s.io", "ingressclasses");
        classes.retain(|class| meta::entry(class, "annotations", DEFAULT) == Some("true"));
        // The newest counts, and of those the first by name.
        let newest = |class: &Value| meta::text(class, "creationTimestamp").to_string();
        let best = classes.iter().max_by(|a, b| newest(a).cmp(&newest(b)).then(meta::name(b).cmp(meta::name(a))));
        if let Some(class) = best {
            object["spec"]["ingressClassName"] = json!(meta::name(class));
        }
        Ok(())
    }
}
