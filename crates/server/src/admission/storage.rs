//! DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize: what claims and volumes get from the
//! cluster, and when they may grow.

use api::{Status, meta};
use kinds::builtin::default_storage_class;
use kinds::quantity::Quantity;
use serde_json::{Value, json};

use super::{Operation, Plugin, Request};
use crate::lookup::Lookup;

/// Gives claims that name no class the default one.
pub struct DefaultStorageClass;

/// Keeps claims and volumes until nobody uses them.
pub struct StorageObjectInUseProtection;

/// Lets only those claims grow whose class allows it.
pub struct PersistentVolumeClaimResize;

/// The old way of a claim to name its class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

impl Plugin for DefaultStorageClass {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        let named = meta::at(object, &["spec", "storageClassName"]).is_some_and(Value::is_string)
            || meta::entry(object, "annotations", CLASS).is_some();
        if !is_new(request, "", "persistentvolumeclaims") || named {
            return Ok(());
        }
        if let Some(class) = default_storage_class(&request.state.list("storage.k8s.io", "storageclasses")) {
            object["spec"]["storageClassName"] = json!(class);
        }
        Ok(())
    }
}

impl Plugin for StorageObjectInUseProtection {
    fn admit(&self, request: &Request, object: &mut Value) -> Result<(), Status> {
        let finalizer = match () {
            () if is_new(request, "", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
            () if is_new(request, "", "persistentvolumes") => "kubernetes.io/pv-protection",
            () if is_new(request, "storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
            () => return Ok(()),
        };
        if meta::finalizers(object).all(|present| present != finalizer) {
            let mut all: Vec<String> = meta::finalizers(object).map(str::to_string).collect();
            all.push(finalizer.to_string());
            meta::metadata_mut(object).insert("finalizers".into(), json!(all));
        }
        Ok(())
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn validate(&self, request: &Request, object: Option<&Value>) -> Result<(), Status> {
        let of_claims = request.is("", "persistentvolumeclaims") && request.subresource.is_empty();
        let (Some(new), Some(old), true) = (object, request.old, of_claims) else { return Ok(()) };
        let size = |claim: &Value| {
            let text = meta::text_at(claim, &["spec", "resources", "requests", "storage"]);
            Quantity::parse(text).unwrap_or(Quantity::ZERO)
        };
        if size(new) <= size(old) || request.operation != Operation::Update {
            return Ok(());
        }
        if meta::text_at(old, &["status", "phase"]) != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let class = match meta::entry(old, "annotations", CLASS) {
            Some(class) => class,
            None => meta::text_at(old, &["spec", "storageClassName"]),
        };
        let class = request.state.get("storage.k8s.io", "storageclasses", "", class);
        match class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
            true => Ok(()),
            false => Err(request.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            )),
        }
    }
}

fn is_new(request: &Request, group: &str, plural: &str) -> bool {
    request.operation == Operation::Create && request.is(group, plural) && request.subresource.is_empty()
}
