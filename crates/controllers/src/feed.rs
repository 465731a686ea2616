//! One watch of each resource for all controllers: an object is read once, without what none of them reads, and handed to
//! all who follow it. Holds no objects; who is behind makes the others wait, so that what waits is bounded.

use std::sync::Arc;

use api::skim::Fields;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kemudi_client::{Api, ApiResource, Client, Dynamic, Event, ListOptions, Resource};
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::control::Source;
use crate::kinds::PODS;

/// Events that may wait for one controller.
const EVENTS_WAITING_MAX: usize = 256;

/// An event of the source of this number.
pub type News = (usize, Event<Arc<Dynamic>>);

/// The watches of all controllers.
#[derive(Default)]
pub struct Feeds(Vec<Feed>);

struct Feed {
    resource: ApiResource,
    options: ListOptions,
    readers: Vec<(usize, mpsc::Sender<News>)>,
}

impl Feeds {
    /// What happens to the objects of these sources, from the beginning; to be called before [`Feeds::run`].
    pub fn follow(&mut self, sources: &[Source]) -> mpsc::Receiver<News> {
        let (send, receive) = mpsc::channel(EVENTS_WAITING_MAX);
        for (nth, source) in sources.iter().enumerate() {
            let is_same =
                |feed: &&mut Feed| feed.resource == source.resource && feed.options.print() == source.options.print();
            let reader = (nth, send.clone());
            match self.0.iter_mut().find(is_same) {
                Some(feed) => feed.readers.push(reader),
                None => self.0.push(Feed {
                    resource: source.resource.clone(),
                    options: source.options.clone(),
                    readers: vec![reader],
                }),
            }
        }
        receive
    }

    /// Tells what happens, as long as it is polled.
    pub async fn run(self, client: Client) {
        // Only the feed that has something to tell is polled.
        let mut feeds: FuturesUnordered<_> = self.0.into_iter().map(|feed| feed.run(client.clone())).collect();
        while feeds.next().await.is_some() {}
    }
}

impl Feed {
    async fn run(self, client: Client) {
        match self.resource == PODS {
            true => self.run_as::<true>(client).await,
            false => self.run_as::<false>(client).await,
        }
    }

    async fn run_as<const POD: bool>(self, client: Client) {
        let mut watcher = Api::<Read<POD>>::of(client, &self.resource, "").watcher(&self.options);
        loop {
            let event = match watcher.next().await {
                Ok(event) => shared(event),
                // The watcher goes on by itself.
                Err(error) => {
                    tracing::warn!(resource = self.resource.group_resource(), %error, "a watch was interrupted");
                    continue;
                }
            };
            for (nth, reader) in &self.readers {
                // A controller that has ended reads no more.
                let _ = reader.send((*nth, event.clone())).await;
            }
        }
    }
}

fn shared<const POD: bool>(event: Event<Read<POD>>) -> Event<Arc<Dynamic>> {
    match event {
        Event::Init => Event::Init,
        Event::InitApplied(Read(object)) => Event::InitApplied(Arc::new(object)),
        Event::InitDone => Event::InitDone,
        Event::Applied(Read(object)) => Event::Applied(Arc::new(object)),
        Event::Deleted(Read(object)) => Event::Deleted(Arc::new(object)),
    }
}

/// An object as far as some controller reads it, which is little of many. `POD`: it is a pod, of which there are most.
#[derive(Debug)]
struct Read<const POD: bool>(Dynamic);

const OF_OBJECT: Fields = Fields::Without(&[("metadata", Some(&Fields::Without(&[("managedFields", None)])))]);
const OF_POD: Fields = Fields::Only(&[
    ("metadata", Some(&OF_POD_METADATA)),
    ("spec", Some(&OF_POD_SPEC)),
    ("status", Some(&OF_POD_STATUS)),
]);
const OF_POD_METADATA: Fields = Fields::Only(&[
    ("name", None),
    ("namespace", None),
    ("uid", None),
    ("resourceVersion", None),
    ("generation", None),
    ("deletionTimestamp", None),
    ("labels", None),
    ("ownerReferences", None),
    ("finalizers", None),
]);
const OF_POD_SPEC: Fields = Fields::Only(&[
    ("volumes", None),
    ("containers", Some(&OF_CONTAINER)),
    ("initContainers", Some(&OF_CONTAINER)),
    ("nodeSelector", None),
    ("nodeName", None),
    ("hostname", None),
    ("subdomain", None),
    ("affinity", None),
    ("schedulerName", None),
    ("tolerations", None),
    ("topologySpreadConstraints", None),
    ("schedulingGates", None),
]);
const OF_CONTAINER: Fields = Fields::Only(&[("ports", None), ("restartPolicy", None)]);
const OF_POD_STATUS: Fields = Fields::Only(&[("phase", None), ("conditions", None), ("podIP", None), ("podIPs", None)]);

impl<const POD: bool> Resource for Read<POD> {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn namespace(&self) -> &str {
        self.0.namespace()
    }
    fn uid(&self) -> &str {
        self.0.uid()
    }
    fn resource_version(&self) -> &str {
        self.0.resource_version()
    }
    fn from_json(text: &[u8]) -> serde_json::Result<Read<POD>> {
        let fields = if POD { &OF_POD } else { &OF_OBJECT };
        let read = fields.read(text).ok_or_else(|| serde_json::Error::custom("an object was expected"))?;
        Ok(Read(Dynamic(read)))
    }
}

impl<'de, const POD: bool> Deserialize<'de> for Read<POD> {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Read<POD>, D::Error> {
        let text = Box::<RawValue>::deserialize(decoder)?;
        Read::from_json(text.get().as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::kinds::Metadata;
    use crate::lean::Lean;

    #[track_caller]
    fn check<const POD: bool>(text: &str, want: &str) {
        let read: Read<POD> = serde_json::from_str(text).unwrap();
        assert_eq!(read.0.to_string(), want);
    }

    #[test]
    fn what_no_controller_reads_is_passed_over() {
        let object = r#"{"metadata":{"name":"a","managedFields":[{"x":1}],"labels":{"env":"b"}},"spec":{"env":1,"containers":[{"name":"c","env":[],"ports":[1]}]}}"#;
        check::<false>(
            object,
            r#"{"metadata":{"name":"a","labels":{"env":"b"}},"spec":{"env":1,"containers":[{"name":"c","env":[],"ports":[1]}]}}"#,
        );
        check::<true>(
            object,
            r#"{"metadata":{"name":"a","labels":{"env":"b"}},"spec":{"containers":[{"ports":[1]}]}}"#,
        );
        check::<true>(
            r#"{"metadata":null,"spec":{"containers":null}}"#,
            r#"{"metadata":null,"spec":{"containers":null}}"#,
        );
    }

    /// What a controller holds of a pod is the same whether the pod was read whole or as far as controllers read it.
    #[test]
    fn all_that_controllers_hold_of_a_pod_is_read() {
        let node = |node: &str, phase: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","generation":2,"resourceVersion":"7",
                "annotations":{{"a":"b"}},"labels":{{"l":"m"}},"ownerReferences":[{{"uid":"o"}}],"finalizers":["f"],"managedFields":[{{}}]}},
                "spec":{{"nodeName":"{node}","schedulerName":"default-scheduler","hostname":"h","subdomain":"s",
                "affinity":{{"podAffinity":{{}}}},"nodeSelector":{{"k":"v"}},"tolerations":[{{"key":"t"}}],
                "topologySpreadConstraints":[{{"maxSkew":1}}],"serviceAccountName":"x",
                "volumes":[{{"name":"v","persistentVolumeClaim":{{"claimName":"c"}}}},{{"name":"e","ephemeral":{{}}}}],
                "containers":[{{"name":"c","image":"i","ports":[{{"containerPort":1}}],"restartPolicy":"Always"}}],
                "initContainers":[{{"name":"d","ports":[{{"name":"q"}}]}}]}},
                "status":{{"phase":"{phase}","podIP":"10.0.0.1","podIPs":[{{"ip":"10.0.0.1"}}],"hostIP":"h",
                "conditions":[{{"type":"Ready","status":"True"}},{{"type":"PodScheduled","status":"False"}}]}}}}"#
            );
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let controllers: Vec<Box<dyn crate::control::Controller>> = vec![
            Box::new(crate::endpoints::Endpoints),
            Box::new(crate::scheduler::Scheduler::default()),
            Box::new(crate::storage_protection::ClaimProtection),
            Box::new(crate::volume_binder::VolumeBinder),
        ];
        let mut held = 0;
        for (at, phase) in [("", "Pending"), ("x", "Running"), ("x", "Failed")] {
            let whole = node(at, phase);
            let read: Read<true> = serde_json::from_str(&whole.to_string()).unwrap();
            let of_pods = controllers.iter().flat_map(|controller| controller.sources());
            let of_pods = of_pods.filter(|source| source.resource == PODS).filter_map(|source| source.lean);
            let of_garbage = |pod: &Value| {
                let meta = Metadata::of(&Dynamic(pod.clone())).metadata;
                (meta.uid, meta.name, meta.namespace, meta.owner_references, meta.finalizers)
            };
            assert_eq!(of_garbage(&whole), of_garbage(&read.0.0));
            for lean in of_pods.chain([crate::disruption::lean_pod as Lean]) {
                let text = |pod: &Value| lean(pod).map(|lent| lent.text());
                assert_eq!(text(&whole), text(&read.0));
                held += usize::from(lean(&whole).is_some());
            }
        }
        assert_eq!(held, 11);
    }

    #[test]
    fn what_two_follow_is_watched_once() {
        let mut feeds = Feeds::default();
        let pods = || Source::all(crate::kinds::PODS);
        let _first = feeds.follow(&[pods(), Source::all(crate::kinds::NODES)]);
        let _second = feeds.follow(&[Source::fields(crate::kinds::PODS, "spec.nodeName=x"), pods()]);
        let readers: Vec<usize> = feeds.0.iter().map(|feed| feed.readers.len()).collect();
        assert_eq!(readers, [2, 1, 1]);
    }
}
