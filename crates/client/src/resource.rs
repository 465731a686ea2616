//! What an object must tell the client about itself, and the three ways to say it: a narrow struct of your own, an object
//! known only at run time, and (feature `k8s-openapi`) the generated types.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use ::api::fields;
use ::api::fields::Empty;
use serde_core::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_core::ser::{Serialize, Serializer};
use serde_json::Value;

use crate::string_map::StringMap;

/// An object that can be read: decoding, and the metadata that lists and watches need. `""` stands for what is not set.
pub trait Resource: DeserializeOwned + Send + Sync + 'static {
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `metadata.namespace`.
    fn namespace(&self) -> &str;
    /// `metadata.uid`.
    fn uid(&self) -> &str;
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str;

    /// The metadata that controllers need: owners, finalizers, whether it is being deleted. A type that does not keep them
    /// has none.
    fn object_meta(&self) -> Cow<'_, ObjectMeta> {
        Cow::Owned(ObjectMeta {
            name: self.name().to_string(),
            namespace: self.namespace().to_string(),
            uid: self.uid().to_string(),
            resource_version: self.resource_version().to_string(),
            ..ObjectMeta::default()
        })
    }

    /// The form in which a server is asked for one object, or for a list.
    fn accept(_list: bool) -> &'static str {
        "application/json"
    }

    /// How it is read from the text that a watch tells of it: for a type that wants few fields of many, and has a quicker way to
    /// them ([`api::skim`]) than decoding.
    ///
    /// # Errors
    /// The text is no such object. It is then decoded, for the error that this gives.
    fn from_json(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// How it is read from a message of protobuf, where it can be. A [`Client::with_protobuf`](crate::Client::with_protobuf) asks for such
    /// objects so.
    #[cfg(feature = "protobuf")]
    fn from_message() -> Option<crate::protobuf::FromMessage<Self>> {
        None
    }
}

/// A [`Resource`] whose type says which resource of the API it is. [`typed!`](crate::typed) writes both for a struct with
/// a field `metadata: ObjectMeta`.
pub trait Typed: Resource {
    /// `""` for the core group.
    const GROUP: &'static str;
    /// Such as `v1`.
    const VERSION: &'static str;
    /// Such as `Pod`.
    const KIND: &'static str;
    /// The name in paths: `pods`.
    const PLURAL: &'static str;
    /// Its objects are in namespaces.
    const NAMESPACED: bool;

    /// The same as a value.
    fn api_resource() -> ApiResource {
        ApiResource {
            group: Cow::Borrowed(Self::GROUP),
            version: Cow::Borrowed(Self::VERSION),
            kind: Cow::Borrowed(Self::KIND),
            plural: Cow::Borrowed(Self::PLURAL),
            namespaced: Self::NAMESPACED,
        }
    }
}

/// Makes a struct with a field `metadata: ObjectMeta` a [`Typed`] resource.
///
/// ```
/// use kemudi_client::{ObjectMeta, typed};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct CronTab { metadata: ObjectMeta, spec: serde_json::Value }
/// typed!(CronTab, group "stable.example.com", version "v1", plural "crontabs", namespaced);
/// ```
///
/// With `protobuf` behind it (feature of that name), it can be read from protobuf too, as `message!` says.
#[macro_export]
macro_rules! typed {
    ($type:ident, group $group:literal, version $version:literal, plural $plural:literal, namespaced $(, $protobuf:ident)?) => {
        $crate::typed!(@ $type, $group, $version, $plural, true $(, $protobuf)?);
    };
    ($type:ident, group $group:literal, version $version:literal, plural $plural:literal, cluster $(, $protobuf:ident)?) => {
        $crate::typed!(@ $type, $group, $version, $plural, false $(, $protobuf)?);
    };
    (@ $type:ident, $group:literal, $version:literal, $plural:literal, $namespaced:literal $(, $protobuf:ident)?) => {
        impl $crate::Resource for $type {
            fn name(&self) -> &str { &self.metadata.name }
            fn namespace(&self) -> &str { &self.metadata.namespace }
            fn uid(&self) -> &str { &self.metadata.uid }
            fn resource_version(&self) -> &str { &self.metadata.resource_version }
            fn object_meta(&self) -> ::std::borrow::Cow<'_, $crate::ObjectMeta> {
                ::std::borrow::Cow::Borrowed(&self.metadata)
            }
            $($crate::__from_message!($protobuf);)?
        }
        impl $crate::Typed for $type {
            const GROUP: &'static str = $group;
            const VERSION: &'static str = $version;
            const KIND: &'static str = stringify!($type);
            const PLURAL: &'static str = $plural;
            const NAMESPACED: bool = $namespaced;
        }
    };
}

/// The part of [`typed!`](crate::typed) that there is with a feature only.
#[cfg(feature = "protobuf")]
#[doc(hidden)]
#[macro_export]
macro_rules! __from_message {
    (protobuf) => {
        fn from_message() -> ::std::option::Option<$crate::protobuf::FromMessage<Self>> {
            ::std::option::Option::Some($crate::protobuf::read)
        }
    };
}

/// The part of [`typed!`](crate::typed) that there is with a feature only.
#[cfg(not(feature = "protobuf"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __from_message {
    (protobuf) => {};
}

/// Which resource of the API: all that is needed to make its paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiResource {
    /// `""` for the core group.
    pub group: Cow<'static, str>,
    /// Its version: `v1`.
    pub version: Cow<'static, str>,
    /// The kind of its objects: `Pod`.
    pub kind: Cow<'static, str>,
    /// The name in paths: `pods`.
    pub plural: Cow<'static, str>,
    /// Its objects are in namespaces.
    pub namespaced: bool,
}

impl ApiResource {
    /// A resource in parts; for constants.
    pub const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> ApiResource {
        ApiResource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api::meta::api_version(&self.group, &self.version)
    }

    /// `pods`, `deployments.apps`: how messages name it.
    pub fn group_resource(&self) -> String {
        match &*self.group {
            "" => self.plural.to_string(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// An object of any kind, as JSON. It is a `serde_json::Value` in all but name; `api::meta` has its readers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dynamic(pub Value);

impl Serialize for Dynamic {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(out)
    }
}

impl<'de> Deserialize<'de> for Dynamic {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Dynamic, D::Error> {
        Value::deserialize(input).map(Dynamic)
    }
}

impl Deref for Dynamic {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0
    }
}

impl DerefMut for Dynamic {
    fn deref_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl From<Value> for Dynamic {
    fn from(value: Value) -> Dynamic {
        Dynamic(value)
    }
}

impl Resource for Dynamic {
    fn name(&self) -> &str {
        api::meta::name(self)
    }
    fn namespace(&self) -> &str {
        api::meta::namespace(self)
    }
    fn uid(&self) -> &str {
        api::meta::uid(self)
    }
    fn resource_version(&self) -> &str {
        api::meta::resource_version(self)
    }
    fn object_meta(&self) -> Cow<'_, ObjectMeta> {
        Cow::Owned(self.get("metadata").and_then(|meta| ObjectMeta::deserialize(meta).ok()).unwrap_or_default())
    }
}

/// The metadata of objects of the type `K`, and nothing else: servers send no more of them. For caches that only ask what is
/// there, with which labels and owners.
///
/// ```no_run
/// # async fn run(client: kemudi_client::Client) -> kemudi_client::Result<()> {
/// use kemudi_client::{Api, Metadata, kinds::Pod};
///
/// for pod in Api::<Metadata<Pod>>::all(client).list().await? {
///     println!("{} {:?}", pod.metadata.name, pod.metadata.labels);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Metadata<K> {
    /// What there is of the object.
    pub metadata: ObjectMeta,
    of: PhantomData<fn() -> K>,
}

impl<K> Default for Metadata<K> {
    fn default() -> Metadata<K> {
        Metadata { metadata: ObjectMeta::default(), of: PhantomData }
    }
}

fields!(Metadata<K>, read { metadata: "metadata" });

impl<K: Typed> Resource for Metadata<K> {
    fn name(&self) -> &str {
        &self.metadata.name
    }
    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }
    fn uid(&self) -> &str {
        &self.metadata.uid
    }
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
    fn object_meta(&self) -> Cow<'_, ObjectMeta> {
        Cow::Borrowed(&self.metadata)
    }
    fn accept(list: bool) -> &'static str {
        match list {
            true => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            false => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
        }
    }
    crate::__from_message!(protobuf);
}

#[cfg(feature = "protobuf")]
impl<K> crate::protobuf::Read for Metadata<K> {
    fn read(&mut self, wire: crate::protobuf::Wire<'_>, left: u32) -> Result<(), String> {
        crate::protobuf::fields(wire, left, |number, wire, left| match number {
            1 => self.metadata.read(wire, left),
            _ => Ok(()),
        })
    }
}

impl<K: Typed> Typed for Metadata<K> {
    const GROUP: &'static str = K::GROUP;
    const VERSION: &'static str = K::VERSION;
    const KIND: &'static str = K::KIND;
    const PLURAL: &'static str = K::PLURAL;
    const NAMESPACED: bool = K::NAMESPACED;
}

/// What most programs read of an object's metadata. Managed fields, the largest part of many objects, are skipped while
/// decoding; a server keeps them when an object comes back without.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectMeta {
    /// Unique among the objects of its kind in its namespace.
    pub name: String,
    /// The beginning of a name that the server is to finish.
    pub generate_name: String,
    /// Where it is; empty for kinds without namespaces.
    pub namespace: String,
    /// Unique for ever.
    pub uid: String,
    /// Which state of the object this is; to be compared for being equal only.
    pub resource_version: String,
    /// Counts the changes of what is wanted.
    pub generation: i64,
    /// RFC 3339, in seconds.
    pub creation_timestamp: Option<String>,
    /// RFC 3339; set while the object is being deleted.
    pub deletion_timestamp: Option<String>,
    /// How long it may take to go, in seconds.
    pub deletion_grace_period_seconds: Option<i64>,
    /// What selectors look at.
    pub labels: StringMap,
    /// Notes that nobody selects by.
    pub annotations: StringMap,
    /// Whose it is: it goes with the last of them.
    pub owner_references: Vec<OwnerReference>,
    /// Who has still to clear away before it goes.
    pub finalizers: Vec<String>,
}

fields!(ObjectMeta, written {
    omit name: "name",
    omit generate_name: "generateName",
    omit namespace: "namespace",
    omit uid: "uid",
    omit resource_version: "resourceVersion",
    omit generation: "generation",
    omit creation_timestamp: "creationTimestamp",
    omit deletion_timestamp: "deletionTimestamp",
    omit deletion_grace_period_seconds: "deletionGracePeriodSeconds",
    omit labels: "labels",
    omit annotations: "annotations",
    omit owner_references: "ownerReferences",
    omit finalizers: "finalizers",
});

impl Empty for StringMap {
    fn is_empty(&self) -> bool {
        StringMap::is_empty(self)
    }
}

impl ObjectMeta {
    /// The metadata of a new object.
    pub fn named(name: impl Into<String>) -> ObjectMeta {
        ObjectMeta { name: name.into(), ..ObjectMeta::default() }
    }
}

/// Whose object this is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnerReference {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name, in the same namespace.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// The one owner that looks after it.
    pub controller: Option<bool>,
    /// The owner stays until this is gone, if it is deleted in the foreground.
    pub block_owner_deletion: Option<bool>,
}

fields!(OwnerReference, written {
    api_version: "apiVersion",
    kind: "kind",
    name: "name",
    uid: "uid",
    omit controller: "controller",
    omit block_owner_deletion: "blockOwnerDeletion",
});

/// One answer of a list: all objects, or a page of them.
#[derive(Clone, Debug)]
pub struct ObjectList<K> {
    /// Where the list stands.
    pub metadata: ListMeta,
    /// The objects.
    pub items: Vec<K>,
}

impl<K> Default for ObjectList<K> {
    fn default() -> ObjectList<K> {
        ObjectList { metadata: ListMeta::default(), items: Vec::new() }
    }
}

fields!(ObjectList<K: DeserializeOwned>, read { metadata: "metadata", items: "items" });

/// The metadata of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListMeta {
    /// Which state of the collection this is: where a watch goes on.
    pub resource_version: String,
    /// Where the next page starts; empty on the last.
    pub continue_token: String,
    /// How many objects the following pages have, where the server says so.
    pub remaining_item_count: Option<i64>,
}

fields!(
    ListMeta,
    read {
        resource_version: "resourceVersion",
        continue_token: "continue",
        remaining_item_count: "remainingItemCount",
    }
);

impl<K> IntoIterator for ObjectList<K> {
    type Item = K;
    type IntoIter = std::vec::IntoIter<K>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a, K> IntoIterator for &'a ObjectList<K> {
    type Item = &'a K;
    type IntoIter = std::slice::Iter<'a, K>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<K> Deref for ObjectList<K> {
    type Target = [K];
    fn deref(&self) -> &[K] {
        &self.items
    }
}

/// The generated types of the `k8s-openapi` crate are resources as they are.
#[cfg(feature = "k8s-openapi")]
mod generated {
    use std::borrow::Cow;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope};
    use serde_core::de::DeserializeOwned;

    use super::{Resource, Typed};

    /// Whether a scope of the generated types is a namespace's.
    pub trait Scope {
        const NAMESPACED: bool;
    }
    impl Scope for NamespaceResourceScope {
        const NAMESPACED: bool = true;
    }
    impl Scope for ClusterResourceScope {
        const NAMESPACED: bool = false;
    }

    impl<K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static> Resource for K {
        fn name(&self) -> &str {
            self.metadata().name.as_deref().unwrap_or_default()
        }
        fn namespace(&self) -> &str {
            self.metadata().namespace.as_deref().unwrap_or_default()
        }
        fn uid(&self) -> &str {
            self.metadata().uid.as_deref().unwrap_or_default()
        }
        fn resource_version(&self) -> &str {
            self.metadata().resource_version.as_deref().unwrap_or_default()
        }
        fn object_meta(&self) -> Cow<'_, super::ObjectMeta> {
            let of = self.metadata();
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let owners = of.owner_references.iter().flatten().map(|owner| super::OwnerReference {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
                controller: owner.controller,
                block_owner_deletion: owner.block_owner_deletion,
            });
            Cow::Owned(super::ObjectMeta {
                name: text(&of.name),
                generate_name: text(&of.generate_name),
                namespace: text(&of.namespace),
                uid: text(&of.uid),
                resource_version: text(&of.resource_version),
                generation: of.generation.unwrap_or_default(),
                creation_timestamp: of.creation_timestamp.as_ref().map(|time| time.0.to_string()),
                deletion_timestamp: of.deletion_timestamp.as_ref().map(|time| time.0.to_string()),
                deletion_grace_period_seconds: of.deletion_grace_period_seconds,
                labels: of.labels.iter().flatten().collect(),
                annotations: of.annotations.iter().flatten().collect(),
                owner_references: owners.collect(),
                finalizers: of.finalizers.clone().unwrap_or_default(),
            })
        }
    }

    impl<K> Typed for K
    where
        K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
        K::Scope: Scope,
    {
        const GROUP: &'static str = <K as k8s_openapi::Resource>::GROUP;
        const VERSION: &'static str = <K as k8s_openapi::Resource>::VERSION;
        const KIND: &'static str = <K as k8s_openapi::Resource>::KIND;
        const PLURAL: &'static str = <K as k8s_openapi::Resource>::URL_PATH_SEGMENT;
        const NAMESPACED: bool = <K::Scope as Scope>::NAMESPACED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_skips_what_it_does_not_know() {
        let text = r#"{"name":"web","uid":"u","managedFields":[{"manager":"x"}],"labels":null,"finalizers":["a"]}"#;
        let meta: ObjectMeta = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&meta).unwrap(), r#"{"name":"web","uid":"u","finalizers":["a"]}"#);
        let list: ObjectList<Dynamic> = serde_json::from_str(r#"{"metadata":{"continue":"x"},"items":null}"#).unwrap();
        assert_eq!((list.metadata.continue_token.as_str(), list.items.len()), ("x", 0));
    }
}
