//! Answers in protobuf: the same objects as in JSON, in whatever pieces they come.

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use api::protobuf::{enclose, message_of, open, put_bytes, put_number, watch_frame};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kemudi_client::kinds::{
    ConfigMap, DaemonSet, Deployment, EndpointSlice, Event, Job, Lease, Namespace, Node, PersistentVolumeClaim, Pod,
    Secret, Service, ServiceAccount, StatefulSet,
};
use kemudi_client::protobuf::{self, Read};
use kemudi_client::{Api, Body, Client, Error, ListOptions, Metadata, Result, Transport, Typed, WatchEvent, message};
use serde_json::{Value, json};

const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// Gives one answer, in pieces of a size, and writes down which forms it was asked for.
struct Answer {
    code: u16,
    media: &'static str,
    body: Vec<u8>,
    piece: usize,
    accepted: Mutex<Vec<String>>,
}

impl Answer {
    fn client(code: u16, media: &'static str, body: &[u8], piece: usize) -> (Client, Arc<Answer>) {
        let answer = Arc::new(Answer { code, media, body: body.to_vec(), piece, accepted: Mutex::default() });
        (Client::with_transport(answer.clone()).with_protobuf(), answer)
    }
}

impl Transport for Answer {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>>> {
        self.accepted.lock().unwrap().push(request.headers()["accept"].to_str().unwrap().to_string());
        let pieces: Vec<_> = self.body.chunks(self.piece.max(1)).map(Bytes::copy_from_slice).collect();
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let answer = Response::builder().status(self.code).header("content-type", self.media).body(body).unwrap();
        Box::pin(std::future::ready(Ok(answer)))
    }
}

/// One of every kind with every field filled, as a Go server writes it: its JSON and its protobuf.
fn fixtures() -> impl Iterator<Item = (String, Value, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kinds/tests/fixtures");
    let messages = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    messages.filter(|path| path.extension().is_some_and(|kind| kind == "pb")).map(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read(path.with_extension("json")).unwrap();
        (name, serde_json::from_slice(&text).unwrap(), std::fs::read(path).unwrap())
    })
}

fn fixture(name: &str) -> (Value, Vec<u8>) {
    let (_, object, message) = fixtures().find(|(found, ..)| found == name).unwrap();
    (object, message)
}

#[test]
fn metadata_is_the_same_in_both_for_every_kind() {
    let mut checked = 0;
    for (name, object, message) in fixtures().filter(|(_, object, _)| object["metadata"]["uid"].is_string()) {
        let wanted: Metadata<Pod> = serde_json::from_value(object).unwrap();
        let found: Metadata<Pod> = protobuf::read(open(&message).unwrap().raw).unwrap();
        assert_eq!(found.metadata, wanted.metadata, "{name}");
        checked += 1;
    }
    assert!(checked > 50, "{checked} fixtures");
}

#[test]
fn kinds_are_the_same_in_both() {
    fn check<K: Typed + Read + Debug>(name: &str) {
        let (object, message) = fixture(name);
        let wanted: K = serde_json::from_value(object.clone()).unwrap();
        let found: K = protobuf::read(open(&message).unwrap().raw).unwrap();
        let shown = format!("{found:?}");
        assert_eq!(shown, format!("{wanted:?}"), "{name}");
        // The fixtures have something in every field: what is empty here was not found.
        for empty in [": \"\"", ": None", ": []", ": {}", ": 0,", ": false"] {
            assert!(!shown.contains(empty), "{name} has {empty}: {shown}");
        }
        let of = K::api_resource();
        assert_eq!(json!([of.api_version(), of.kind]), json!([object["apiVersion"], object["kind"]]));
    }
    check::<Pod>("core.v1.Pod");
    check::<Node>("core.v1.Node");
    check::<Namespace>("core.v1.Namespace");
    check::<ConfigMap>("core.v1.ConfigMap");
    check::<Secret>("core.v1.Secret");
    check::<ServiceAccount>("core.v1.ServiceAccount");
    check::<Service>("core.v1.Service");
    check::<EndpointSlice>("discovery.k8s.io.v1.EndpointSlice");
    check::<Event>("core.v1.Event");
    check::<Deployment>("apps.v1.Deployment");
    check::<StatefulSet>("apps.v1.StatefulSet");
    check::<DaemonSet>("apps.v1.DaemonSet");
    check::<Job>("batch.v1.Job");
    check::<PersistentVolumeClaim>("core.v1.PersistentVolumeClaim");
    check::<Lease>("coordination.k8s.io.v1.Lease");
}

#[test]
fn secrets_are_decoded_and_not_shown() {
    let (object, message) = fixture("core.v1.Secret");
    let told: Secret = serde_json::from_value(object).unwrap();
    let read: Secret = protobuf::read(open(&message).unwrap().raw).unwrap();
    assert_eq!((&told.data, told.data["dataKey"].to_vec()), (&read.data, b"\x02".to_vec()));
    assert!(format!("{told:?}").contains(r#"{"dataKey": (1 bytes)}"#), "{told:?}");
    assert!(serde_json::from_str::<Secret>(r#"{"data":{"a":"no base64"}}"#).is_err());
}

#[test]
fn every_form_is_told_as_json_tells_it() {
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Lease {
        acquire_time: Option<String>,
        lease_duration_seconds: Option<i32>,
    }
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Revision {
        data: Value,
        revision: i64,
    }
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Port {
        port: u32,
        node_port: u16,
    }
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Ports {
        ports: Vec<Port>,
    }
    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Quota {
        hard: std::collections::BTreeMap<String, String>,
    }
    message!(Lease { lease_duration_seconds = 2, acquire_time = 3 as MicroTime });
    message!(Revision { data = 2 as Json, revision = 3 });
    message!(Port { port = 3, node_port = 5 });
    message!(Ports { ports = 1 });
    message!(Quota { hard = 1 as Quantity });
    #[derive(Default)]
    struct Spec<T> {
        spec: T,
    }
    impl<T: Read> Read for Spec<T> {
        fn read(&mut self, wire: protobuf::Wire<'_>, left: u32) -> std::result::Result<(), String> {
            protobuf::fields(wire, left, |number, wire, left| match number {
                2 => self.spec.read(wire, left),
                _ => Ok(()),
            })
        }
    }
    fn check<T: Read + serde::de::DeserializeOwned + Debug>(name: &str) {
        let (object, message) = fixture(name);
        let wanted: T = serde_json::from_value(object["spec"].clone()).unwrap();
        let found: Spec<T> = protobuf::read(open(&message).unwrap().raw).unwrap();
        assert_eq!(format!("{:?}", found.spec), format!("{wanted:?}"), "{name}");
    }
    check::<Lease>("coordination.k8s.io.v1.Lease");
    check::<Ports>("core.v1.Service");
    check::<Quota>("core.v1.ResourceQuota");
    let (object, message) = fixture("apps.v1.ControllerRevision");
    let wanted: Revision = serde_json::from_value(object).unwrap();
    let found: Revision = protobuf::read(open(&message).unwrap().raw).unwrap();
    assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
}

/// A list of pods of these names, at revision 7.
fn list(names: &[&str]) -> Vec<u8> {
    let raw = message_of(|out| {
        put_bytes(out, 1, &message_of(|out| put_bytes(out, 2, b"7")));
        names.iter().for_each(|name| put_bytes(out, 2, &pod(name, "5")));
    });
    enclose("v1", "PodList", &raw)
}

fn pod(name: &str, version: &str) -> Vec<u8> {
    let metadata = message_of(|out| {
        put_bytes(out, 1, name.as_bytes());
        put_bytes(out, 6, version.as_bytes());
        // Of this nobody asked for anything.
        put_bytes(out, 17, &[0xff; 300]);
    });
    let spec = message_of(|out| {
        put_number(out, 4, 30);
        put_bytes(out, 10, b"node-1");
    });
    message_of(|out| {
        put_bytes(out, 1, &metadata);
        put_bytes(out, 2, &spec);
    })
}

#[tokio::test]
async fn lists_do_not_care_how_they_come() {
    let body = list(&["a", "b"]);
    for piece in [1, 2, 7, 100, body.len()] {
        let (client, answer) = Answer::client(200, MEDIA, &body, piece);
        let pods = Api::<Pod>::all(client.clone()).list().await.unwrap();
        let found: Vec<_> = pods.iter().map(|pod| format!("{} on {}", pod.metadata.name, pod.spec.node_name)).collect();
        assert_eq!(
            (pods.metadata.resource_version.as_str(), found.join(", ")),
            ("7", "a on node-1, b on node-1".into())
        );
        Api::<Metadata<Pod>>::all(client).list().await.unwrap();
        let accepted = answer.accepted.lock().unwrap().join("\n");
        assert_eq!(
            accepted,
            "application/vnd.kubernetes.protobuf,application/json\n\
             application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
             application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
        );
    }
}

#[tokio::test]
async fn what_is_no_list_is_an_error() {
    async fn check(body: &[u8], want: &str) {
        for piece in [1, body.len()] {
            let (client, _) = Answer::client(200, MEDIA, body, piece);
            match Api::<Pod>::all(client).list().await {
                Err(Error::Decode { why, .. }) => assert_eq!(why, want),
                other => panic!("{other:?}"),
            }
        }
    }
    let whole = list(&["a", "b"]);
    check(&whole[..whole.len() - 40], "the message ends within the list").await;
    check(b"{}", "it is no message").await;
    check(b"", "the message ends within the list").await;
    check(b"k8s\0\x0f", "proto: illegal wireType 7").await;
    check(b"k8s\0\x12\x03\x12\x02\x08\x01", "a field is longer than its list").await;
    check(b"k8s\0\x12\x04\x12\x02\x08\x01", "object 0 of the list: metadata: proto: wrong wireType = 0").await;
    check(b"k8s\0\x12\x02\x08\x01", "proto: wrong wireType = 0").await;
}

#[tokio::test]
async fn objects_and_refusals_are_read_so_too() {
    let body = enclose("v1", "Pod", &pod("web", "5"));
    let (client, _) = Answer::client(200, MEDIA, &body, body.len());
    assert_eq!(Api::<Pod>::namespaced(client, "a").get("web").await.unwrap().spec.node_name, "node-1");

    let status = json!({"status": "Failure", "message": "pods \"web\" not found", "reason": "NotFound", "code": 404});
    let raw = message_of(|out| {
        put_bytes(out, 2, b"Failure");
        put_bytes(out, 3, status["message"].as_str().unwrap().as_bytes());
        put_bytes(out, 4, b"NotFound");
        put_bytes(
            out,
            5,
            &message_of(|out| {
                put_bytes(out, 1, b"web");
                put_bytes(out, 3, b"pods");
                put_number(out, 5, 3);
            }),
        );
        put_number(out, 6, 404);
    });
    let (client, _) = Answer::client(404, MEDIA, &enclose("v1", "Status", &raw), 1);
    let error = Api::<Pod>::namespaced(client, "a").get("web").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "pods \"web\" not found");
    let details = error.status().unwrap().details.as_ref().unwrap();
    assert_eq!((details.kind.as_str(), details.retry_after_seconds), ("pods", 3));

    // A server that has none of it answers in JSON.
    let (client, _) = Answer::client(200, "application/json", br#"{"metadata":{"name":"web"}}"#, 100);
    assert_eq!(Api::<Pod>::namespaced(client.clone(), "a").get("web").await.unwrap().metadata.name, "web");
    let (client, _) = Answer::client(200, "application/json", br#"{"items":[{"metadata":{"name":"web"}}]}"#, 100);
    assert_eq!(Api::<Pod>::all(client).list().await.unwrap()[0].metadata.name, "web");
}

#[tokio::test]
async fn a_watch_is_told_in_frames() {
    let object = |name: &str, version: &str| enclose("v1", "Pod", &pod(name, version));
    let mark = message_of(|out| {
        let end = message_of(|out| {
            put_bytes(out, 1, b"k8s.io/initial-events-end");
            put_bytes(out, 2, b"true");
        });
        let metadata = message_of(|out| {
            put_bytes(out, 6, b"12");
            put_bytes(out, 12, &end);
        });
        put_bytes(out, 1, &metadata);
    });
    let gone = message_of(|out| {
        put_bytes(out, 2, b"Failure");
        put_bytes(out, 3, b"too old resource version");
        put_bytes(out, 4, b"Expired");
        put_number(out, 6, 410);
    });
    let body = [
        watch_frame("ADDED", &object("a", "10")),
        watch_frame("MODIFIED", &object("a", "11")),
        watch_frame("BOOKMARK", &enclose("v1", "Pod", &mark)),
        watch_frame("DELETED", &object("a", "13")),
        watch_frame("ERROR", &enclose("v1", "Status", &gone)),
    ]
    .concat();
    for piece in [1, 3, 100, body.len()] {
        let (client, _) = Answer::client(200, "application/vnd.kubernetes.protobuf;stream=watch", &body, piece);
        let mut watch = Api::<Pod>::all(client).watch(&ListOptions::default()).await.unwrap();
        let mut told = Vec::new();
        while let Some(event) = watch.next().await {
            told.push(match event {
                Ok(WatchEvent::Added(pod)) => format!("added {}", pod.metadata.resource_version),
                Ok(WatchEvent::Modified(pod)) => format!("modified {}", pod.metadata.resource_version),
                Ok(WatchEvent::Deleted(pod)) => format!("deleted {}", pod.metadata.resource_version),
                Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
                    format!("bookmark {resource_version} {initial_events_end}")
                }
                Err(error) => format!("{error} {}", error.is_expired()),
            });
        }
        assert_eq!(
            told,
            ["added 10", "modified 11", "bookmark 12 true", "deleted 13", "too old resource version true"],
            "in pieces of {piece} bytes"
        );
    }
}
