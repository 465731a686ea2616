//! Events about pods. They are told when there is time; nothing waits for them.

use crate::decide::time;
use crate::pod::Pod;
use jiff::Timestamp;
use kemudi_client::{Api, ApiResource, Client, Dynamic};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Events that wait to be told; more of them are dropped.
const EVENTS_MAX: usize = 512;
/// The longest message that the API takes, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

const EVENTS: ApiResource = ApiResource::new("", "v1", "Event", "events", true);

/// Takes events.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Value>,
    node: String,
}

/// A recorder, and the task that tells the server what it takes.
pub fn recorder(client: Client, node: &str) -> (Recorder, impl Future<Output = ()> + Send + 'static) {
    let (sender, mut receiver) = mpsc::channel::<Value>(EVENTS_MAX);
    let tell = async move {
        while let Some(event) = receiver.recv().await {
            let namespace = api::meta::namespace(&event).to_owned();
            let events = Api::<Dynamic>::namespaced_of(client.clone(), &namespace, &EVENTS);
            if let Err(error) = events.create(&Dynamic(event)).await {
                tracing::debug!(%error, "an event could not be told");
            }
        }
    };
    (Recorder { sender, node: node.to_owned() }, tell)
}

impl Recorder {
    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.record(pod, container, "Normal", reason, message);
    }

    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: &str) {
        self.record(pod, container, "Warning", reason, message);
    }

    /// Something about the node itself that its users should know.
    pub fn node_warning(&self, reason: &str, message: &str) {
        let about = json!({"kind": "Node", "name": self.node, "uid": self.node, "apiVersion": "v1"});
        self.tell("default", &self.node, about, "Warning", reason, message);
    }

    fn record(&self, pod: &Pod, container: Option<&str>, kind: &str, reason: &str, message: &str) {
        let meta = &pod.metadata;
        let mut about = json!({
            "kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid, "apiVersion": "v1",
            "resourceVersion": meta.resource_version,
        });
        if let Some(container) = container {
            let among =
                |list: &[std::sync::Arc<crate::pod::Container>]| list.iter().any(|known| known.name == container);
            let list = match (among(&pod.spec.init_containers), among(&pod.spec.ephemeral_containers)) {
                (true, _) => "initContainers",
                (_, true) => "ephemeralContainers",
                _ => "containers",
            };
            about["fieldPath"] = format!("spec.{list}{{{container}}}").into();
        }
        self.tell(&meta.namespace, &meta.name, about, kind, reason, message);
    }

    fn tell(&self, namespace: &str, name: &str, about: Value, kind: &str, reason: &str, message: &str) {
        let now = Timestamp::now();
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": format!("{name}.{:x}", now.as_nanosecond()),
                "namespace": namespace,
            },
            "involvedObject": about,
            "reason": reason,
            "message": &message[..end],
            "source": {"component": "kubelet", "host": self.node},
            "firstTimestamp": time(now),
            "lastTimestamp": time(now),
            "count": 1,
            "type": kind,
            "reportingComponent": "kubelet",
            "reportingInstance": self.node,
        });
        // Better one event less than a pod that waits.
        let _ = self.sender.try_send(event);
    }
}
