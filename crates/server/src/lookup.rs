//! How the identity modules read the cluster: a synchronous view of objects in memory. Never waits, never writes.

use std::sync::Arc;

use serde_json::Value;

/// Objects as they are now. `group` and `resource` are those of the API (`""`, `pods`), `namespace` is `""` for what has none.
pub trait Lookup: Send + Sync {
    /// One object, or nothing. It may be kept decoded for the next who asks, as long as it is what it is: this is for the few
    /// that many requests are judged by.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// The same for an object that is looked at once, as pods are: nothing of it is kept.
    fn get_once(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.get(group, resource, namespace, name)
    }

    /// What tells one incarnation of an object from the next. Called for every request of a service account: an
    /// implementation that keeps identities apart from objects should answer from there.
    fn identity(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Identity> {
        self.get(group, resource, namespace, name).map(|object| Identity::of(&object))
    }
}

/// The identity of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: String,
    /// `metadata.deletionTimestamp` in seconds since 1970.
    pub deleted_at: Option<i64>,
}

impl Identity {
    pub fn of(object: &Value) -> Identity {
        let deleted = api::meta::text(object, "deletionTimestamp");
        Identity {
            uid: api::meta::uid(object).to_string(),
            deleted_at: deleted.parse::<jiff::Timestamp>().ok().map(|at| at.as_second()),
        }
    }
}

/// A fixed set of objects, for tests and for starting up.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Objects(pub std::collections::HashMap<[String; 4], Arc<Value>>);

#[cfg(test)]
impl Objects {
    pub fn put(&mut self, group: &str, resource: &str, object: Value) {
        let key = [group, resource, api::meta::namespace(&object), api::meta::name(&object)]
            .map(std::string::ToString::to_string);
        self.0.insert(key, Arc::new(object));
    }
}

#[cfg(test)]
impl Lookup for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get(&[group, resource, namespace, name].map(std::string::ToString::to_string)).cloned()
    }
}
