//! What the client library sends to change an object, in each language that there is for it: the server makes of the object
//! what the client meant, or refuses it in all of them. Nothing is written.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use kemudi_client::{self as client, Api, ApiResource, Client, Dynamic, Error, Patch, Transport, WriteOptions};
use kinds::{Kind, strategic};
use serde_json::{Map, Value, json};
use server::authn::User;
use server::{Server, State};

use crate::generate;
use crate::tape::Tape;

const MAPS: ApiResource = ApiResource::new("", "v1", "ConfigMap", "configmaps", true);
/// The fields that are the client's to say, by their place.
const FIELDS: [&str; 5] = ["/metadata/labels", "/metadata/annotations", "/data", "/binaryData", "/immutable"];

/// Changes the ConfigMap of this name to another made from the tape.
pub async fn check(state: &Arc<State>, user: Arc<User>, name: &str, tape: &mut Tape<'_>) {
    let client = Client::with_transport(Arc::new(InProcess { state: state.clone(), user }));
    let maps = Api::<Dynamic>::namespaced_of(client, "default", &MAPS);
    let live = maps.get(name).await.expect("it is there").0;
    let registry = kinds::builtin();
    let kind = registry.kind("", "v1", "configmaps").expect("they are served");
    let wanted = wanted(tape, kind, &live);
    let dry_run = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let put = said(maps.replace_with(&Dynamic(wanted.clone()), &dry_run).await);
    if let Some(put) = &put {
        assert_eq!(client_part(put), client_part(&wanted));
    }
    let (merge, operations) = (merge_patch(&live, &wanted), operations(&live, &wanted));
    let strategic = strategic::difference(&kind.schema, kind.root, &live, &wanted);
    for patch in [Patch::Merge(&merge), Patch::Json(&operations), Patch::Strategic(&strategic)] {
        let patched = said(maps.patch_with(name, &patch, &dry_run).await);
        assert_eq!(patched.as_ref().map(client_part), put.as_ref().map(client_part), "{patch:?} of {live}");
    }
    // An apply only adds: what it says is there afterwards, beside what was there.
    let mut config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    put_fields(&mut config, &wanted);
    let apply = Patch::Apply { manager: "fuzz", force: true, object: &config };
    if let Some(applied) = said(maps.patch_with(name, &apply, &dry_run).await) {
        for (pointer, value) in FIELDS.iter().filter_map(|pointer| Some((pointer, config.pointer(pointer)?))) {
            let now = applied.pointer(pointer).unwrap_or(&Value::Null);
            let all = value
                .as_object()
                .map_or(now == value, |map| map.iter().all(|(key, value)| now.get(key) == Some(value)));
            assert!(all, "{pointer} of {applied}\n{config}");
        }
    }
}

/// The object as the client wants it; what is the server's stays.
fn wanted(tape: &mut Tape, kind: &Kind, live: &Value) -> Value {
    let varied = generate::varied(tape, kind, live);
    let mut wanted = live.clone();
    put_fields(&mut wanted, &varied);
    generate::tidy(kind, wanted)
}

fn put_fields(object: &mut Value, from: &Value) {
    for pointer in FIELDS {
        let (holder, field) = pointer.rsplit_once('/').expect("a constant");
        let Some(holder) = object.pointer_mut(holder).and_then(Value::as_object_mut) else { continue };
        match from.pointer(pointer) {
            Some(value) => drop(holder.insert(field.to_owned(), value.clone())),
            None => drop(holder.shift_remove(field)),
        }
    }
}

fn client_part(object: &Value) -> Vec<Option<Value>> {
    FIELDS.iter().map(|pointer| object.pointer(pointer).cloned()).collect()
}

/// What the server made of it; `None` where it says that this is no valid object.
fn said(answer: Result<Dynamic, Error>) -> Option<Value> {
    match answer {
        Ok(object) => Some(object.0),
        Err(error) if error.is_invalid() => None,
        Err(error) => panic!("{error:?}"),
    }
}

fn merge_patch(old: &Value, new: &Value) -> Value {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let mut patch: Map<String, Value> =
        before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
        patch.insert(key.clone(), before.get(key).map_or_else(|| value.clone(), |old| merge_patch(old, value)));
    }
    patch.into()
}

fn operations(old: &Value, new: &Value) -> Value {
    let operation = |pointer: &&str| match (old.pointer(pointer), new.pointer(pointer)) {
        (old, new) if old == new => None,
        (Some(_), None) => Some(json!({"op": "remove", "path": pointer})),
        (_, new) => Some(json!({"op": "add", "path": pointer, "value": new})),
    };
    FIELDS.iter().filter_map(operation).collect()
}

/// Hands requests straight to the server.
struct InProcess {
    state: Arc<State>,
    user: Arc<User>,
}

impl Transport for InProcess {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, client::Result<http::Response<client::Body>>> {
        Box::pin(async move {
            let request = request.map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
            let response = Server::call(&self.state, self.user.clone(), request).await;
            Ok(response.map(|body| body.map_err(|why| Error::Lost(why.to_string())).boxed_unsync()))
        })
    }
}
