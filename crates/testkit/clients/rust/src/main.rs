//! kube-rs' calls, outside of any pod: one line a step, `ok NAME` or `FAIL NAME: why`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{
    DeleteParams, DynamicObject, EvictParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::core::Status;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Error, ResourceExt, discovery};
use serde_json::{Value, from_value, json};
use tokio::sync::mpsc::Sender;

const LIMIT: Duration = Duration::from_secs(20);
const NAMESPACE: &str = "rust";

type Outcome = Result<(), Box<dyn std::error::Error>>;

macro_rules! steps {
    ($calls:expr, $($step:ident)+) => { $(
        match tokio::time::timeout(LIMIT, $calls.$step()).await {
            Ok(Ok(())) => println!("ok {}", stringify!($step)),
            Ok(Err(why)) => println!("FAIL {}: {}", stringify!($step), one_line(&why.to_string())),
            Err(_) => println!("FAIL {}: no end within {LIMIT:?}", stringify!($step)),
        }
    )+ };
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let client = Client::try_default().await?;
    let calls = Calls {
        maps: Api::namespaced(client.clone(), NAMESPACE),
        deployments: Api::namespaced(client.clone(), NAMESPACE),
        pods: Api::namespaced(client.clone(), NAMESPACE),
        client,
    };
    steps!(calls,
        make_namespace create_and_read list_in_chunks list_metadata watch_from_version watch_meets_410 watcher
        streaming_watcher metadata_watcher patch_json patch_merge patch_strategic server_side_apply
        replace_with_old_version scale_and_status evict typed_errors entry discover_and_use
        controller delete_with_propagation delete_collection
    );
    Ok(())
}

struct Calls {
    client: Client,
    maps: Api<ConfigMap>,
    deployments: Api<Deployment>,
    pods: Api<Pod>,
}

impl Calls {
    async fn make_namespace(&self) -> Outcome {
        let all = Api::<Namespace>::all(self.client.clone());
        let made = all.create(&PostParams::default(), &from_value(json!({"metadata": {"name": NAMESPACE}}))?).await?;
        same(made.status.and_then(|status| status.phase).as_deref(), Some("Active"))
    }

    async fn create_and_read(&self) -> Outcome {
        for n in 10..35 {
            self.create(&format!("c{n}"), json!({"half": (n % 2).to_string()}), json!({"n": n.to_string()})).await?;
        }
        let got = self.maps.get("c17").await?;
        same(got.labels().get("half").map(String::as_str), Some("1"))?;
        same(got.data, data("n", "17"))
    }

    async fn list_in_chunks(&self) -> Outcome {
        let (mut seen, mut params) = (Vec::new(), ListParams::default().labels("half").limit(10));
        loop {
            let page = self.maps.list(&params).await?;
            seen.extend(page.iter().map(ResourceExt::name_any));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        same(seen, (10..35).map(|n| format!("c{n}")).collect())?;
        same(self.maps.list(&ListParams::default().labels("half=1")).await?.items.len(), 12)
    }

    async fn list_metadata(&self) -> Outcome {
        let list = self.maps.list_metadata(&ListParams::default().fields("metadata.name=c13")).await?;
        same(list.items.iter().map(ResourceExt::name_any).collect(), vec!["c13".to_owned()])?;
        same(self.maps.get_metadata("c13").await?.types.map(|types| types.kind), Some("PartialObjectMetadata".into()))
    }

    async fn watch_from_version(&self) -> Outcome {
        let begin = self.maps.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        self.create("w", json!({"watched": "1"}), json!({})).await?;
        self.merge("w", json!({"data": {"a": "b"}})).await?;
        self.maps.delete("w", &DeleteParams::default()).await?;
        let mut stream = pin!(self.maps.watch(&WatchParams::default().labels("watched").timeout(20), &begin).await?);
        let mut seen = Vec::new();
        while let Some(event) = stream.try_next().await? {
            match event {
                WatchEvent::Added(object) => seen.push(("added", object.name_any())),
                WatchEvent::Modified(object) => seen.push(("modified", object.name_any())),
                WatchEvent::Deleted(object) => {
                    seen.push(("deleted", object.name_any()));
                    break;
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(status.into()),
            }
        }
        same(seen, ["added", "modified", "deleted"].map(|what| (what, "w".to_owned())).into())
    }

    async fn watch_meets_410(&self) -> Outcome {
        let status = match self.maps.watch(&WatchParams::default().timeout(5), "1").await {
            Err(Error::Api(status)) => status,
            Err(other) => return Err(other.into()),
            Ok(stream) => match pin!(stream).try_next().await? {
                Some(WatchEvent::Error(status)) => status,
                other => return Err(format!("{other:?}").into()),
            },
        };
        same((status.code, status.reason.as_str()), (410, "Expired"))
    }

    async fn watcher(&self) -> Outcome {
        let config = watcher::Config::default().page_size(10);
        self.follows(kube::runtime::watcher(self.maps.clone(), config), "listed").await
    }

    async fn streaming_watcher(&self) -> Outcome {
        let config = watcher::Config::default().streaming_lists();
        self.follows(kube::runtime::watcher(self.maps.clone(), config), "streamed").await
    }

    async fn metadata_watcher(&self) -> Outcome {
        let config = watcher::Config::default().streaming_lists();
        let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(self.client.clone(), NAMESPACE);
        self.follows(kube::runtime::watcher(metadata, config), "metadata").await
    }

    /// A watcher gives what is there, all of it, and then what happens.
    async fn follows<K: ResourceExt>(
        &self,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
        name: &str,
    ) -> Outcome {
        let mut there: Vec<_> =
            self.maps.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        let mut stream = pin!(stream);
        let mut listed = Vec::new();
        loop {
            match stream.try_next().await? {
                Some(Event::Init) => {}
                Some(Event::InitApply(object)) => listed.push(object.name_any()),
                Some(Event::InitDone) => break,
                _ => return Err("something else came before the list ended".into()),
            }
        }
        listed.sort();
        there.sort();
        same(listed, there)?;
        let made = self.create(name, json!({}), json!({})).await?;
        let changed = self.merge(name, json!({"data": {"a": "b"}})).await?;
        self.maps.delete(name, &DeleteParams::default()).await?;
        let events = stream.take(3).map(|event| {
            Ok::<_, watcher::Error>(match event? {
                Event::Apply(object) => ("apply", object.name_any(), object.resource_version()),
                Event::Delete(object) => ("delete", object.name_any(), None),
                _ => ("a new list", String::new(), None),
            })
        });
        let events: Vec<_> = events.try_collect().await?;
        let name = name.to_owned();
        let (made, changed) = (made.resource_version(), changed.resource_version());
        same(events, vec![("apply", name.clone(), made), ("apply", name.clone(), changed), ("delete", name, None)])
    }

    async fn patch_json(&self) -> Outcome {
        let ops = json!([
            {"op": "test", "path": "/data/n", "value": "10"},
            {"op": "replace", "path": "/data/n", "value": "ten"},
        ]);
        let patch = Patch::Json::<ConfigMap>(from_value(ops)?);
        same(self.maps.patch("c10", &PatchParams::default(), &patch).await?.data, data("n", "ten"))?;
        refused(422, "Invalid", self.maps.patch("c10", &PatchParams::default(), &patch).await)?;
        Ok(())
    }

    async fn patch_merge(&self) -> Outcome {
        same(self.merge("c11", json!({"data": {"n": null, "m": "11"}})).await?.data, data("m", "11"))
    }

    async fn patch_strategic(&self) -> Outcome {
        let pod = json!({"containers": [{"name": "main", "image": "example/main:1"}]});
        let template = json!({"metadata": {"labels": {"app": "strategic"}}, "spec": pod});
        let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "strategic"}}, "template": template});
        let made = from_value(json!({"metadata": {"name": "strategic"}, "spec": spec}))?;
        self.deployments.create(&PostParams::default(), &made).await?;
        let env = json!([{"name": "A", "value": "1"}]);
        let containers = json!([{"name": "main", "env": env}, {"name": "side", "image": "example/side:1"}]);
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
        let got = self.deployments.patch("strategic", &PatchParams::default(), &patch).await?;
        let pod = got.spec.template.spec.unwrap_or_default();
        let mut images: Vec<_> = pod.containers.iter().filter_map(|one| one.image.as_deref()).collect();
        images.sort();
        same(images, vec!["example/main:1", "example/side:1"])
    }

    async fn server_side_apply(&self) -> Outcome {
        let apply = async |manager: &str, value: &str, force: bool| {
            let body = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"key": value},
            });
            let params = PatchParams { force, ..PatchParams::apply(manager) };
            self.maps.patch("applied", &params, &Patch::Apply(body)).await
        };
        same(apply("one", "1", false).await?.data, data("key", "1"))?;
        let status = refused(409, "Conflict", apply("two", "2", false).await)?;
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        same(causes.iter().map(|cause| cause.field.as_str()).collect(), vec![".data.key"])?;
        let forced = apply("two", "2", true).await?;
        let owners = forced.managed_fields().iter().map(|entry| (entry.manager.as_deref(), entry.operation.as_deref()));
        same(owners.collect(), vec![(Some("two"), Some("Apply"))])?;
        same(forced.data, data("key", "2"))
    }

    async fn replace_with_old_version(&self) -> Outcome {
        let old = self.maps.get("c14").await?;
        let new = ConfigMap { data: data("n", "new"), ..old.clone() };
        same(self.maps.replace("c14", &PostParams::default(), &new).await?.data, data("n", "new"))?;
        let status = refused(409, "Conflict", self.maps.replace("c14", &PostParams::default(), &old).await)?;
        same(status.is_conflict(), true)
    }

    async fn scale_and_status(&self) -> Outcome {
        let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
        let scale = self.deployments.patch_scale("strategic", &PatchParams::default(), &patch).await?;
        same(scale.spec.and_then(|spec| spec.replicas), Some(3))?;
        same(self.deployments.get_scale("strategic").await?.spec.and_then(|spec| spec.replicas), Some(3))?;
        let patch = Patch::Merge(json!({"status": {"observedGeneration": 1, "replicas": 1}}));
        let got = self.deployments.patch_status("strategic", &PatchParams::default(), &patch).await?;
        same(got.status.and_then(|status| status.replicas), Some(1))
    }

    async fn evict(&self) -> Outcome {
        let containers = json!([{"name": "main", "image": "example/main:1"}]);
        let pod = from_value(json!({"metadata": {"name": "evicted"}, "spec": {"containers": containers}}))?;
        self.pods.create(&PostParams::default(), &pod).await?;
        same(self.pods.evict("evicted", &EvictParams::default()).await?.is_success(), true)?;
        same(self.pods.get_opt("evicted").await?.is_none(), true)
    }

    async fn typed_errors(&self) -> Outcome {
        let missing = refused(404, "NotFound", self.maps.get("none").await)?;
        same((missing.is_not_found(), missing.message.as_str()), (true, r#"configmaps "none" not found"#))?;
        let exists = refused(409, "AlreadyExists", self.create("c10", json!({}), json!({})).await)?;
        same(exists.is_already_exists(), true)?;
        let invalid = refused(422, "Invalid", self.create("Not-A-Name", json!({}), json!({})).await)?;
        let causes = invalid.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
        same((invalid.is_invalid(), causes[0].field.as_str()), (true, "metadata.name"))
    }

    /// Read, change in memory, write back; a second writer in between is a conflict.
    async fn entry(&self) -> Outcome {
        let entry = self.maps.entry("entry").await?.or_insert(|| ConfigMap { data: data("a", "1"), ..named("entry") });
        let mut entry = entry;
        entry.commit(&PostParams::default()).await?;
        let mut entry = self.maps.entry("entry").await?.and_modify(|map| map.data = data("a", "2"));
        self.merge("entry", json!({"data": {"a": "3"}})).await?;
        match &mut entry {
            kube::api::entry::Entry::Occupied(entry) => {
                let refused = entry.commit(&PostParams::default()).await;
                same(format!("{refused:?}").contains("Conflict"), true)
            }
            kube::api::entry::Entry::Vacant(_) => Err("it is not there".into()),
        }
    }

    /// Without a Rust type: what the server tells of itself is enough.
    async fn discover_and_use(&self) -> Outcome {
        let found = kube::Discovery::new(self.client.clone()).run_aggregated().await?;
        same(found.has_group("apps"), true)?;
        let group = discovery::group(&self.client, "apps").await?;
        let (resource, abilities) = group.recommended_kind("Deployment").ok_or("no Deployment")?;
        same((resource.version.as_str(), abilities.supports_operation("watch")), ("v1", true))?;
        let all: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), NAMESPACE, &resource);
        same(all.get("strategic").await?.data["spec"]["replicas"].as_i64(), Some(3))?;
        let list = all.list(&ListParams::default()).await?;
        same(list.iter().map(ResourceExt::name_any).collect(), vec!["strategic".to_owned()])
    }

    /// An operator: a loop that puts a finalizer on what it finds, acts, and cleans up before it lets go.
    async fn controller(&self) -> Outcome {
        let (tell, mut told) = tokio::sync::mpsc::channel(16);
        let context = Arc::new((self.maps.clone(), tell));
        let reconcile = async |object: Arc<ConfigMap>, context: Arc<(Api<ConfigMap>, Sender<String>)>| {
            let act = async |event: finalizer::Event<ConfigMap>| {
                let text = match event {
                    finalizer::Event::Apply(object) => format!("apply {}", object.name_any()),
                    finalizer::Event::Cleanup(object) => format!("clean up {}", object.name_any()),
                };
                let _ = context.1.send(text).await;
                Ok::<_, Infallible>(Action::await_change())
            };
            finalizer::finalizer(&context.0, "example.com/kept", object, act).await
        };
        let config = watcher::Config::default().labels("controlled").streaming_lists();
        let controller = Controller::new(self.maps.clone(), config);
        let run = controller.run(reconcile, |_, _, _| Action::requeue(LIMIT), context);
        let drive = async {
            self.create("kept", json!({"controlled": "1"}), json!({})).await?;
            same(told.recv().await.as_deref(), Some("apply kept"))?;
            same(self.maps.get("kept").await?.finalizers(), &["example.com/kept".to_owned()])?;
            self.maps.delete("kept", &DeleteParams::default()).await?;
            while told.recv().await.ok_or("the loop ended")? != "clean up kept" {}
            self.gone("kept").await
        };
        tokio::select! {
            outcome = drive => outcome,
            _ = run.for_each(|_| std::future::ready(())) => Err("the loop ended".into()),
        }
    }

    async fn delete_with_propagation(&self) -> Outcome {
        let policies =
            [("f", DeleteParams::foreground()), ("b", DeleteParams::background()), ("o", DeleteParams::orphan())];
        for (name, params) in policies {
            let (owner, owned) = (format!("{name}-owner"), format!("{name}-owned"));
            let uid = self.create(&owner, json!({}), json!({})).await?.uid().unwrap_or_default();
            let reference = OwnerReference {
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                name: owner.clone(),
                uid,
                block_owner_deletion: Some(true),
                ..OwnerReference::default()
            };
            let mut dependent = named(&owned);
            dependent.metadata.owner_references = Some(vec![reference]);
            self.maps.create(&PostParams::default(), &dependent).await?;
            self.maps.delete(&owner, &params).await?;
            self.gone(&owner).await?;
            match name {
                "o" => same(self.maps.get(&owned).await?.owner_references().len(), 0)?,
                _ => self.gone(&owned).await?,
            }
        }
        Ok(())
    }

    async fn delete_collection(&self) -> Outcome {
        let half = ListParams::default().labels("half=1");
        self.maps.delete_collection(&DeleteParams::default(), &half).await?;
        same(self.maps.list(&half).await?.items.len(), 0)
    }

    async fn create(&self, name: &str, labels: Value, data: Value) -> Result<ConfigMap, Error> {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": data});
        self.maps.create(&PostParams::default(), &from_value(object).map_err(Error::SerdeError)?).await
    }

    async fn merge(&self, name: &str, body: Value) -> Result<ConfigMap, Error> {
        self.maps.patch(name, &PatchParams::default(), &Patch::Merge(body)).await
    }

    /// Waits until it is no more; the step's own limit ends that.
    async fn gone(&self, name: &str) -> Outcome {
        while self.maps.get_opt(name).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn named(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

fn data(key: &str, value: &str) -> Option<BTreeMap<String, String>> {
    Some(BTreeMap::from([(key.to_owned(), value.to_owned())]))
}

/// The call must be refused like this; gives its Status.
fn refused<T: Debug>(code: u16, reason: &str, result: Result<T, Error>) -> Result<Status, Box<dyn std::error::Error>> {
    match result {
        Err(Error::Api(status)) => {
            same((status.code, status.reason.as_str()), (code, reason))?;
            Ok(*status)
        }
        other => Err(format!("it was not refused: {other:?}").into()),
    }
}

fn same<T: PartialEq + Debug>(got: T, want: T) -> Outcome {
    if got == want { Ok(()) } else { Err(format!("{got:?} is not {want:?}").into()) }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
