//! `Api<K>`: everything that can be done with the objects of one resource. Makes requests and decodes answers, keeps no state.

use std::fmt;
use std::marker::PhantomData;

use ::api::codec::to_json;
use ::api::{
    Ask, DeleteOptions, FieldSelector, GetOptions, ListOptions, Query, Status, WriteOptions, ask::Target, ask::Verb,
};
use bytes::Bytes;
use futures_core::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_core::Serialize;
use serde_core::de::DeserializeOwned;
use serde_json::Value;

use crate::client::{Client, collect, request_of};
use crate::error::{Error, Result};
use crate::resource::{ApiResource, Dynamic, ObjectList, Resource, Typed};
use crate::transport::Unhurried;
use crate::watch::{self, Event, Watch, Watcher};

/// Largest log that [`Api::logs`] reads into memory, in bytes.
pub const LOG_BYTES_MAX: usize = 256 << 20;
/// Longest line of a log, in bytes; what is longer comes as several.
pub const LOG_LINE_BYTES_MAX: usize = 1 << 20;

/// The objects of one resource, in one namespace or in all.
pub struct Api<K> {
    client: Client,
    resource: ApiResource,
    /// `""`: all namespaces, or a resource that has none.
    namespace: String,
    kind: PhantomData<fn() -> K>,
}

/// A change to an object, in one of the four languages for it.
#[derive(Clone, Debug)]
pub enum Patch<'a> {
    /// RFC 6902: a list of operations.
    Json(&'a Value),
    /// RFC 7386: the fields that change, `null` for those that go.
    Merge(&'a Value),
    /// Kubernetes' own: as merge, and lists are merged by key. Built-in kinds only.
    Strategic(&'a Value),
    /// Server-side apply: the whole wish of one manager.
    Apply {
        /// Who states the wish: the fields that it names are this manager's from then on.
        manager: &'a str,
        /// Take fields from other managers.
        force: bool,
        /// All that is wished, with `apiVersion` and `kind`.
        object: &'a Value,
    },
}

/// What a deletion answered.
#[derive(Clone, Debug)]
pub enum Deleted<K> {
    /// The object as it was last, or as it is while finalizers or a grace period keep it.
    Object(Box<K>),
    /// It is gone.
    Done(Box<Status>),
}

/// Which part of a container's log.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Needed where the pod has several.
    pub container: Option<String>,
    /// Go on as the log grows.
    pub follow: bool,
    /// The container before its last restart.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The last so many lines.
    pub tail_lines: Option<i64>,
    /// What is no older than so many seconds.
    pub since_seconds: Option<i64>,
    /// What is not older than this time (RFC 3339).
    pub since_time: Option<String>,
    /// No more than so many bytes.
    pub limit_bytes: Option<i64>,
}

impl<K: Typed> Api<K> {
    /// The objects of all namespaces, or of a kind that has none.
    pub fn all(client: Client) -> Api<K> {
        Api::of(client, &K::api_resource(), "")
    }

    /// The objects of one namespace.
    pub fn namespaced(client: Client, namespace: &str) -> Api<K> {
        Api::of(client, &K::api_resource(), namespace)
    }

    /// The objects of the configuration's namespace: in a pod, its own.
    pub fn default_namespaced(client: Client) -> Api<K> {
        let namespace = client.default_namespace().to_string();
        Api::of(client, &K::api_resource(), &namespace)
    }
}

impl Api<Dynamic> {
    /// The objects of a resource known at run time, of all namespaces.
    pub fn all_of(client: Client, resource: &ApiResource) -> Api<Dynamic> {
        Api::of(client, resource, "")
    }

    /// As [`Api::all_of`], of one namespace.
    pub fn namespaced_of(client: Client, namespace: &str, resource: &ApiResource) -> Api<Dynamic> {
        Api::of(client, resource, namespace)
    }
}

impl<K: Resource> Api<K> {
    /// Objects of a resource, decoded as `K` (a narrow struct may read any kind). A namespace is left out where the
    /// resource has none.
    pub fn of(client: Client, resource: &ApiResource, namespace: &str) -> Api<K> {
        let namespace = if resource.namespaced { namespace.to_string() } else { String::new() };
        Api { client, resource: resource.clone(), namespace, kind: PhantomData }
    }

    /// The namespace of its objects; `""` for all, or where the resource has none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The same resource in this namespace. Where none is named, or the resource has none, all stays as it is.
    pub fn within(&self, namespace: &str) -> Api<K> {
        match namespace {
            "" => self.clone(),
            namespace => Api::of(self.client.clone(), &self.resource, namespace),
        }
    }

    /// The client that its requests are sent with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Which resource it is about.
    pub fn resource(&self) -> &ApiResource {
        &self.resource
    }

    /// The object of this name.
    ///
    /// # Errors
    /// [`Error::is_not_found`] where there is none; [`Api::get_opt`] gives `None` instead.
    pub async fn get(&self, name: &str) -> Result<K> {
        self.get_with(name, &GetOptions::default()).await
    }

    /// As [`Api::get`], with options.
    pub async fn get_with(&self, name: &str, options: &GetOptions) -> Result<K> {
        let mut query = Query::default();
        if let Some(version) = options.resource_version {
            query.push("resourceVersion", version.to_string());
        }
        self.client.object(request_of(&Ask::of(Verb::Get, self.one(name)?, query), None)?).await
    }

    /// `None` where there is no such object.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects in one answer.
    pub async fn list(&self) -> Result<ObjectList<K>> {
        self.list_with(&ListOptions::default()).await
    }

    /// The objects that the options select, or a page of them.
    pub async fn list_with(&self, options: &ListOptions) -> Result<ObjectList<K>> {
        let ask = Ask::of(Verb::List, self.target(), options.print());
        self.client.list(request_of(&ask, None)?).await
    }

    /// Makes a new object.
    ///
    /// # Errors
    /// [`Error::is_already_exists`] where there is one of that name.
    pub async fn create(&self, object: &K) -> Result<K>
    where
        K: Serialize,
    {
        self.create_with(object, &WriteOptions::default()).await
    }

    /// As [`Api::create`], with options.
    pub async fn create_with(&self, object: &K, options: &WriteOptions) -> Result<K>
    where
        K: Serialize,
    {
        self.json(Verb::Create, self.target_for(object)?, options.print(), Some(self.body(object)?)).await
    }

    /// Writes the whole object. With a resource version it must be the newest, else the answer is a conflict.
    pub async fn replace(&self, object: &K) -> Result<K>
    where
        K: Serialize,
    {
        self.replace_with(object, &WriteOptions::default()).await
    }

    /// As [`Api::replace`], with options.
    pub async fn replace_with(&self, object: &K, options: &WriteOptions) -> Result<K>
    where
        K: Serialize,
    {
        let mut target = self.target_for(object)?;
        target.name = segment(object.name())?;
        self.json(Verb::Update, target, options.print(), Some(self.body(object)?)).await
    }

    /// Changes an object.
    ///
    /// # Errors
    /// [`Error::is_conflict`] where an apply without force would take fields from others, or the patch names a resource version that is
    /// no longer the newest.
    pub async fn patch(&self, name: &str, patch: &Patch<'_>) -> Result<K> {
        self.patch_with(name, patch, &WriteOptions::default()).await
    }

    /// As [`Api::patch`], with options.
    pub async fn patch_with(&self, name: &str, patch: &Patch<'_>, options: &WriteOptions) -> Result<K> {
        self.send_patch(self.one(name)?, patch, options).await
    }

    /// Deletes an object.
    pub async fn delete(&self, name: &str) -> Result<Deleted<K>> {
        self.delete_with(name, &DeleteOptions::default()).await
    }

    /// As [`Api::delete`], with options: the grace period, what becomes of what it owns, which object it must be.
    ///
    /// ```no_run
    /// # async fn run(pods: kemudi_client::Api<kemudi_client::kinds::Pod>) -> kemudi_client::Result<()> {
    /// use kemudi_client::{DeleteOptions, Propagation};
    ///
    /// let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    /// pods.delete_with("web", &foreground).await?;
    /// # Ok(()) }
    /// ```
    pub async fn delete_with(&self, name: &str, options: &DeleteOptions) -> Result<Deleted<K>> {
        let body = to_json(&options.to_body());
        let bytes = self.bytes(Verb::Delete, self.one(name)?, Query::default(), Some(body.into())).await?;
        let answer: Value = decode(&bytes, "a deletion")?;
        match answer["kind"].as_str() {
            Some("Status") => decode(&bytes, "a deletion").map(|status| Deleted::Done(Box::new(status))),
            _ => decode(&bytes, "a deletion").map(|object| Deleted::Object(Box::new(object))),
        }
    }

    /// Deletes all objects that the list options select.
    pub async fn delete_collection(&self, options: &DeleteOptions, of: &ListOptions) -> Result<()> {
        let body = to_json(&options.to_body());
        self.bytes(Verb::DeleteCollection, self.target(), of.print(), Some(body.into())).await.map(drop)
    }

    /// Changes from now on, or from the options' resource version; see [`Watch`].
    pub async fn watch(&self, options: &ListOptions) -> Result<Watch<K>> {
        Watch::start(self.client.clone(), self.target(), options.clone()).await
    }

    /// All objects and then all changes, for ever, through every interruption; see [`Watcher`].
    pub fn watcher(&self, options: &ListOptions) -> Watcher<K> {
        Watcher::new(self.client.clone(), self.target(), options.clone())
    }

    /// Waits until the object (or its absence, `None`) is as wanted, and gives it. Whoever cannot wait for ever puts a
    /// timeout around it.
    ///
    /// # Errors
    /// What another attempt does not mend: a refusal, a resource that is not there.
    pub async fn wait_until(&self, name: &str, wanted: impl Fn(Option<&K>) -> bool) -> Result<Option<K>> {
        let fields = FieldSelector::parse(&format!("metadata.name={}", segment(name)?)).map_err(Error::Request)?;
        let mut watcher = self.watcher(&ListOptions { fields, ..ListOptions::default() });
        let mut listed = None;
        loop {
            let now = match watcher.next().await {
                Ok(Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(Event::InitApplied(object)) => {
                    listed = Some(object);
                    continue;
                }
                Ok(Event::InitDone) => listed.take(),
                Ok(Event::Applied(object)) => Some(object),
                Ok(Event::Deleted(_)) => None,
                Err(error) if error.is_forbidden() || error.is_unauthorized() || error.is_not_found() => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(%error, name, "waiting goes on");
                    continue;
                }
            };
            if wanted(now.as_ref()) {
                return Ok(now);
            }
        }
    }

    /// The object by way of its subresource `status`.
    pub async fn get_status(&self, name: &str) -> Result<K> {
        self.get_subresource(name, "status").await
    }

    /// Writes the object's `status`, and nothing else of it.
    pub async fn replace_status(&self, object: &K) -> Result<K>
    where
        K: Serialize,
    {
        self.replace_subresource(object.name(), "status", object).await
    }

    /// Changes the object's `status`, and nothing else of it.
    pub async fn patch_status(&self, name: &str, patch: &Patch<'_>) -> Result<K> {
        self.patch_subresource(name, "status", patch, &WriteOptions::default()).await
    }

    /// Reads a subresource: `scale`, for one. What it decodes need not be like `K`.
    pub async fn get_subresource<T: DeserializeOwned>(&self, name: &str, subresource: &str) -> Result<T> {
        self.json(Verb::Get, self.sub(name, subresource)?, Query::default(), None).await
    }

    /// `POST`s to a subresource: `token`, `binding`, `eviction`. What goes in and what comes out need not be alike.
    ///
    /// ```no_run
    /// # async fn run(client: kemudi_client::Client) -> kemudi_client::Result<()> {
    /// use kemudi_client::{Api, Dynamic, kinds::{Pod, ServiceAccount}};
    /// use serde_json::json;
    ///
    /// // A token for somebody else, who need not be this server.
    /// let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
    /// let wish = json!({"spec": {"audiences": ["vault"], "expirationSeconds": 600}});
    /// let answer: Dynamic = accounts.create_subresource("web", "token", &wish).await?;
    /// println!("{}", answer["status"]["token"]);
    ///
    /// // A pod is to go, unless a disruption budget says no: that is a 429.
    /// let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-0"}});
    /// let _: Dynamic = Api::<Pod>::default_namespaced(client).create_subresource("web-0", "eviction", &eviction).await?;
    /// # Ok(()) }
    /// ```
    pub async fn create_subresource<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        object: &impl Serialize,
    ) -> Result<T> {
        self.create_subresource_with(name, subresource, object, &WriteOptions::default()).await
    }

    /// As [`Api::create_subresource`], with options.
    pub async fn create_subresource_with<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        object: &impl Serialize,
        options: &WriteOptions,
    ) -> Result<T> {
        let body = to_json(object);
        self.json(Verb::Create, self.sub(name, subresource)?, options.print(), Some(body.into())).await
    }

    /// Writes a subresource.
    pub async fn replace_subresource<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        object: &impl Serialize,
    ) -> Result<T> {
        self.replace_subresource_with(name, subresource, object, &WriteOptions::default()).await
    }

    /// As [`Api::replace_subresource`], with options.
    pub async fn replace_subresource_with<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        object: &impl Serialize,
        options: &WriteOptions,
    ) -> Result<T> {
        let body = to_json(object);
        self.json(Verb::Update, self.sub(name, subresource)?, options.print(), Some(body.into())).await
    }

    /// Changes a subresource.
    pub async fn patch_subresource<T: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        patch: &Patch<'_>,
        options: &WriteOptions,
    ) -> Result<T> {
        self.send_patch(self.sub(name, subresource)?, patch, options).await
    }

    /// A pod's log as text. Bytes that are no UTF-8 are replaced.
    pub async fn logs(&self, name: &str, options: &LogOptions) -> Result<String> {
        let body = self.open_log(name, options).await?;
        let bytes = collect(body, "the log", LOG_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A pod's log as bytes as they come.
    pub async fn log_stream(&self, name: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        Ok(watch::chunks(self.open_log(name, options).await?))
    }

    /// A pod's log, line by line, without the line ends.
    pub async fn log_lines(&self, name: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<String>>> {
        Ok(watch::text_lines(self.open_log(name, options).await?, LOG_LINE_BYTES_MAX))
    }

    async fn open_log(&self, name: &str, options: &LogOptions) -> Result<crate::transport::Body> {
        let ask = Ask::of(Verb::Get, self.sub(name, "log")?, options.print());
        let mut request = request_of(&ask, None)?;
        request.headers_mut().insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
        if options.follow {
            request.extensions_mut().insert(Unhurried);
        }
        Ok(self.client.call(request).await?.into_body())
    }

    async fn send_patch<T: DeserializeOwned>(
        &self,
        target: Target,
        patch: &Patch<'_>,
        options: &WriteOptions,
    ) -> Result<T> {
        let mut options = options.clone();
        let (media, body) = match patch {
            Patch::Json(body) => ("application/json-patch+json", body),
            Patch::Merge(body) => ("application/merge-patch+json", body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
            Patch::Apply { manager, force, object } => {
                options.field_manager = manager.to_string();
                options.force = *force;
                ("application/apply-patch+yaml", object)
            }
        };
        let ask = Ask::of(Verb::Patch, target, options.print());
        let mut request = request_of(&ask, Some(to_json(body).into()))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        self.client.json(request).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        verb: Verb,
        target: Target,
        query: Query,
        body: Option<Bytes>,
    ) -> Result<T> {
        self.client.json(request_of(&Ask::of(verb, target, query), body)?).await
    }

    async fn bytes(&self, verb: Verb, target: Target, query: Query, body: Option<Bytes>) -> Result<Bytes> {
        self.client.bytes(request_of(&Ask::of(verb, target, query), body)?).await
    }

    fn target(&self) -> Target {
        Target {
            group: self.resource.group.to_string(),
            version: self.resource.version.to_string(),
            resource: self.resource.plural.to_string(),
            namespace: self.namespace.clone(),
            ..Target::default()
        }
    }

    fn one(&self, name: &str) -> Result<Target> {
        let mut target = self.target();
        if self.resource.namespaced && self.namespace.is_empty() {
            let text = format!("an object of {} has a namespace, and none was named", self.resource.group_resource());
            return Err(Error::Request(format!("{text}; use Api::namespaced or Api::default_namespaced")));
        }
        target.name = segment(name)?;
        Ok(target)
    }

    pub(crate) fn sub(&self, name: &str, subresource: &str) -> Result<Target> {
        Ok(Target { subresource: segment(subresource)?, ..self.one(name)? })
    }

    /// An `Api` of all namespaces writes an object where the object says.
    fn target_for(&self, object: &K) -> Result<Target> {
        let mut target = self.target();
        if self.resource.namespaced && target.namespace.is_empty() {
            target.namespace = segment(object.namespace()).map_err(|_| {
                let name = object.name();
                Error::Request(format!("{:?} names no namespace to be written to; set metadata.namespace", name))
            })?;
        }
        Ok(target)
    }

    /// The object with its kind and version, which generated and narrow types leave out.
    fn body(&self, object: &K) -> Result<Bytes>
    where
        K: Serialize,
    {
        let mut value = serde_json::to_value(object)
            .map_err(|error| Error::Request(format!("{:?} cannot be written as JSON: {error}", object.name())))?;
        if let Some(map) = value.as_object_mut() {
            if !map.contains_key("apiVersion") {
                map.insert("apiVersion".into(), self.resource.api_version().into());
            }
            if !map.contains_key("kind") {
                map.insert("kind".into(), self.resource.kind.to_string().into());
            }
        }
        Ok(to_json(&value).into())
    }
}

impl LogOptions {
    /// The parameters that say the same.
    pub fn print(&self) -> Query {
        let mut query = Query::default();
        if let Some(container) = &self.container {
            query.push("container", container);
        }
        for (name, flag) in [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)] {
            if flag {
                query.push(name, "true");
            }
        }
        if let Some(time) = &self.since_time {
            query.push("sinceTime", time.to_string());
        }
        for (name, number) in
            [("tailLines", self.tail_lines), ("sinceSeconds", self.since_seconds), ("limitBytes", self.limit_bytes)]
        {
            if let Some(number) = number {
                query.push(name, number.to_string());
            }
        }
        query
    }
}

/// A name as one part of a path; anything else would be a request for something else.
fn segment(name: &str) -> Result<String> {
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it is a relative path",
        name if name.contains('/') => "it contains '/'",
        name if name.contains('%') => "it contains '%'",
        name => return Ok(name.to_string()),
    };
    Err(Error::Request(format!("invalid resource name {name:?}: {why}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], request: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::Decode {
        request: request.to_string(),
        wanted: std::any::type_name::<T>(),
        why: error.to_string(),
    })
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Api<K> {
        Api {
            client: self.client.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> fmt::Debug for Api<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({} in {:?})", self.resource.group_resource(), self.namespace)
    }
}
