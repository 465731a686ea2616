//! What updates say of what they may not change: the cause's field and message, as kube-apiserver 1.37 words them.

use serde_json::{Value, json};
use server::Options;

use crate::Asked;

/// The causes of the update that this merge patch would be, one a line; the code where there are none.
async fn update(asked: &Asked, collection: &str, object: &Value, change: &Value) -> String {
    let (code, made) = asked.ask(&format!("POST {collection}"), Some(object)).await;
    assert_eq!(code, 201, "{made}");
    let path = format!("{collection}/{}", made["metadata"]["name"].as_str().expect("a name"));
    let mut new = made;
    merge(&mut new, change);
    let (code, answer) = asked.ask(&format!("PUT {path}"), Some(&new)).await;
    asked.ask(&format!("DELETE {path}"), None).await;
    let causes = answer["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
    match causes {
        [] => format!("{code}"),
        causes => causes.iter().map(cause).collect::<Vec<_>>().join("\n"),
    }
}

fn cause(cause: &Value) -> String {
    let text = |field: &str| cause[field].as_str().unwrap_or_default();
    format!("{}: {}", text("field"), text("message").split(": a ").next().unwrap_or_default())
}

fn merge(into: &mut Value, change: &Value) {
    let (Some(target), Some(fields)) = (into.as_object_mut(), change.as_object()) else {
        *into = change.clone();
        return;
    };
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.shift_remove(name)),
            value => merge(target.entry(name).or_insert(Value::Null), value),
        }
    }
}

fn named(api_version: &str, kind: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
    merge(&mut object, &rest);
    object
}

/// A collection, an object of it, and what is told of changes to it.
type Case<'a> = (&'a str, Value, &'a [(Value, &'a str)]);

#[tokio::test]
async fn what_is_wrong_is_told_beside_what_may_not_change() {
    let asked = Asked::start(Options::default()).await;
    let cases: [Case; 9] = [
        (
            "/apis/node.k8s.io/v1/runtimeclasses",
            named("node.k8s.io/v1", "RuntimeClass", json!({"handler": "h"})),
            &[
                (json!({"handler": null}), "handler: Invalid value: null: field is immutable\nhandler: Required value"),
                (
                    json!({"handler": "B"}),
                    "handler: Invalid value: \"B\"\nhandler: Invalid value: null: field is immutable",
                ),
                (
                    json!({"scheduling": {"tolerations": [{"key": "a", "operator": "No"}]}}),
                    "scheduling.tolerations[0].operator: Unsupported value: \"No\": supported values: \"Equal\", \"Exists\"",
                ),
            ],
        ),
        (
            "/apis/networking.k8s.io/v1/ingressclasses",
            named("networking.k8s.io/v1", "IngressClass", json!({"spec": {"controller": "a.io/b"}})),
            &[(
                json!({"spec": {"controller": null}}),
                "spec.controller: Invalid value: \"\": field is immutable\nspec.controller: Required value",
            )],
        ),
        (
            "/apis/networking.k8s.io/v1/ipaddresses",
            named(
                "networking.k8s.io/v1",
                "IPAddress",
                json!({"metadata": {"name": "192.0.2.7"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}}),
            ),
            &[(
                json!({"spec": {"parentRef": {"resource": null}}}),
                "spec.parentRef.resource: Required value\nspec.parentRef: Invalid value: null: field is immutable",
            )],
        ),
        (
            "/apis/storage.k8s.io/v1/storageclasses",
            named("storage.k8s.io/v1", "StorageClass", json!({"provisioner": "a.io/b"})),
            &[
                (
                    json!({"provisioner": null}),
                    "provisioner: Required value\nprovisioner: Invalid value: null: field is immutable",
                ),
                (
                    json!({"allowedTopologies": [{}, {}]}),
                    "allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\"\n\
                     allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
                ),
            ],
        ),
        (
            "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            named("storage.k8s.io/v1", "CSIStorageCapacity", json!({"storageClassName": "s"})),
            &[(
                json!({"storageClassName": "S"}),
                "storageClassName: Invalid value: \"S\"\nstorageClassName: Invalid value: \"S\": field is immutable",
            )],
        ),
        (
            "/api/v1/namespaces/default/secrets",
            named("v1", "Secret", json!({"immutable": true, "type": "t"})),
            &[(
                json!({"type": "u", "immutable": null}),
                "type: Invalid value: \"u\": field is immutable\n\
                 immutable: Forbidden: field is immutable when `immutable` is set",
            )],
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            named(
                "flowcontrol.apiserver.k8s.io/v1",
                "PriorityLevelConfiguration",
                json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}),
            ),
            &[
                (json!({"spec": {"type": null}}), "spec.limited: Forbidden\nspec.type: Required value"),
                (
                    json!({"spec": {"limited": {"limitResponse": {"type": null}}}}),
                    "spec.limited.limitResponse.queuing: Forbidden\nspec.limited.limitResponse.type: Required value",
                ),
            ],
        ),
        (
            "/apis/resource.k8s.io/v1/devicetaintrules",
            named("resource.k8s.io/v1", "DeviceTaintRule", json!({"spec": {"taint": {"key": "a", "effect": "None"}}})),
            &[(
                json!({"metadata": {"resourceVersion": null}}),
                "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
            )],
        ),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            named(
                "apps/v1",
                "StatefulSet",
                json!({"spec": {
                    "serviceName": "s",
                    "selector": {"matchLabels": {"a": "b"}},
                    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
                    "volumeClaimTemplates": [{
                        "metadata": {"name": "d"},
                        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                    }],
                }}),
            ),
            &[(
                json!({"spec": {"volumeClaimTemplates": []}}),
                "spec.volumeClaimTemplates: Invalid value: []: field is immutable",
            )],
        ),
    ];
    for (collection, object, changes) in cases {
        for (change, expected) in changes {
            assert_eq!(update(&asked, collection, &object, change).await, *expected, "{collection} {change}");
        }
    }
}

#[tokio::test]
async fn the_metadata_is_looked_at_again_on_updates() {
    let asked = Asked::start(Options::default()).await;
    let maps = ("/api/v1/namespaces/default/configmaps", named("v1", "ConfigMap", json!({})));
    let leases =
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", named("coordination.k8s.io/v1", "Lease", json!({})));
    let check = async |(collection, object): &(&str, Value), metadata: Value, expected: &str| {
        let change = json!({"metadata": metadata});
        assert_eq!(update(&asked, collection, object, &change).await, expected, "{collection} {change}");
    };
    let both = json!({"finalizers": ["orphan", "foregroundDeletion"]});
    let told = "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and \
                foregroundDeletion cannot be both set";
    check(&maps, both.clone(), told).await;
    check(&leases, both, told).await;
    // Only some kinds are looked at as new ones are.
    check(&leases, json!({"generateName": "a/"}), "metadata.generateName: Invalid value: \"a/\": may not contain '/'")
        .await;
    check(&leases, json!({"generateName": "A"}), "200").await;
    check(&maps, json!({"generateName": "A"}), "metadata.generateName: Invalid value: \"A\"").await;
    // Some kinds take finalizers without a domain.
    let standard = "metadata.finalizers[0]: Invalid value: \"own\": name is neither a standard finalizer name nor is it \
                    fully qualified";
    check(&maps, json!({"finalizers": ["own"]}), standard).await;
    check(&leases, json!({"finalizers": ["own"]}), "200").await;
    let together = json!({"labels": {"-": "b"}, "finalizers": ["-/a"], "deletionGracePeriodSeconds": 3});
    let (code, made) = asked.ask(&format!("POST {}", maps.0), Some(&maps.1)).await;
    assert_eq!(code, 201, "{made}");
    let mut new = made;
    merge(&mut new, &json!({"metadata": together}));
    let (_, answer) = asked.ask(&format!("PUT {}/a", maps.0), Some(&new)).await;
    let causes = answer["details"]["causes"].as_array().expect("causes");
    let mut fields: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
    fields.dedup();
    assert_eq!(fields, ["metadata.labels", "metadata.finalizers", "metadata.deletionGracePeriodSeconds"]);
}

#[tokio::test]
async fn an_update_that_would_create_is_of_no_object_that_was() {
    let asked = Asked::start(Options::default()).await;
    let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "a", "uid": "u"}, "spec": {"limits": []}});
    let (code, answer) = asked.ask("PUT /api/v1/namespaces/default/limitranges/a", Some(&limits)).await;
    assert_eq!(code, 409);
    let told = answer["message"].as_str().unwrap_or_default();
    assert!(told.ends_with("Precondition failed: UID in precondition: u, UID in object meta: "), "{told}");
}

#[tokio::test]
async fn a_generation_counts_no_empty_lists() {
    let asked = Asked::start(Options::default()).await;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = named("discovery.k8s.io/v1", "EndpointSlice", json!({"addressType": "IPv4", "endpoints": []}));
    let generation = |answer: (u16, Value)| answer.1["metadata"]["generation"].as_i64();
    assert_eq!(generation(asked.ask(&format!("POST {slices}"), Some(&slice)).await), Some(1));
    assert_eq!(generation(asked.ask(&format!("PUT {slices}/a"), Some(&slice)).await), Some(1));
    // Of some kinds upstream compares what was sent, not what is stored.
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = |spec: Value| named("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": spec}));
    let (bare, empty) = (policy(json!({"podSelector": {}})), policy(json!({"podSelector": {"matchLabels": {}}})));
    assert_eq!(generation(asked.ask(&format!("POST {policies}"), Some(&empty)).await), Some(1));
    assert_eq!(generation(asked.ask(&format!("PUT {policies}/a"), Some(&bare)).await), Some(1));
    assert_eq!(generation(asked.ask(&format!("PUT {policies}/a"), Some(&empty)).await), Some(2));
    let (_, stored) = asked.ask(&format!("GET {policies}/a"), None).await;
    assert_eq!(stored["spec"]["podSelector"], json!({}));
}

#[tokio::test]
async fn a_refusal_shows_the_empty_maps_that_were_sent() {
    let asked = Asked::start(Options::default()).await;
    for (labels, shown) in [(json!({}), "{}"), (Value::Null, "null")] {
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let spec = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
        let set = named("apps/v1", "DaemonSet", spec);
        let (code, told) = asked.ask("POST /apis/apps/v1/namespaces/default/daemonsets", Some(&set)).await;
        let expected = format!(
            "spec.template.metadata.labels: Invalid value: {shown}: `selector` does not match template `labels`"
        );
        assert_eq!((code, cause(&told["details"]["causes"][0])), (422, expected));
    }
}

#[tokio::test]
async fn a_value_of_a_wrong_type_is_told_of_with_its_field() {
    let asked = Asked::start(Options::default()).await;
    let probe =
        |port: Value| json!({"spec": {"containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": port}}}]}});
    for (api_version, kind, plural, rest, why) in [
        (
            "v1",
            "Event",
            "events",
            json!({"firstTimestamp": 5}),
            "number into Go struct field Event.firstTimestamp of type string",
        ),
        (
            "v1",
            "Pod",
            "pods",
            probe(json!([1])),
            "array into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            "v1",
            "Pod",
            "pods",
            json!({"spec": {"os": {"name": 7}}}),
            "number into Go struct field PodOS.spec.os.name of type v1.OSName",
        ),
    ] {
        let object = named(api_version, kind, rest);
        let (code, told) = asked.ask(&format!("POST /api/v1/namespaces/default/{plural}"), Some(&object)).await;
        let expected = format!("{kind} in version \"v1\" cannot be handled as a {kind}: json: cannot unmarshal {why}");
        assert_eq!((code, told["message"].as_str()), (400, Some(&*expected)));
    }
}

#[tokio::test]
async fn of_the_secrets_of_a_service_account_only_names_are_kept() {
    let asked = Asked::start(Options::default()).await;
    let account =
        named("v1", "ServiceAccount", json!({"secrets": [{"kind": "Secret", "name": "s", "namespace": "n"}]}));
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for ask in [format!("POST {accounts}"), format!("PUT {accounts}/a")] {
        let (_, answer) = asked.ask(&ask, Some(&account)).await;
        assert_eq!(answer["secrets"], json!([{"name": "s"}]), "{ask}");
    }
}

#[tokio::test]
async fn admin_access_to_devices_needs_a_label_of_the_namespace() {
    let asked = Asked::start(Options::default()).await;
    let request = json!({"name": "r", "exactly": {"deviceClassName": "c", "adminAccess": true}});
    let claim = named("resource.k8s.io/v1", "ResourceClaim", json!({"spec": {"devices": {"requests": [request]}}}));
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let (code, told) = asked.ask(&format!("POST {claims}"), Some(&claim)).await;
    let expected = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the \
                    `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    assert_eq!((code, &*cause(&told["details"]["causes"][0])), (422, expected));
    let (_, mut namespace) = asked.ask("GET /api/v1/namespaces/default", None).await;
    merge(&mut namespace, &json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}));
    asked.ask("PUT /api/v1/namespaces/default", Some(&namespace)).await;
    assert_eq!(asked.ask(&format!("POST {claims}"), Some(&claim)).await.0, 201);
}

/// What cannot be read may be deleted unread; of some kinds it may not.
#[tokio::test]
async fn what_can_be_read_is_not_deleted_as_unreadable() {
    let asked = Asked::start(Options::default()).await;
    let options =
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "ignoreStoreReadErrorWithClusterBreakingPotential": true});
    let (code, told) = asked.ask("DELETE /api/v1/namespaces/kube-public", Some(&options)).await;
    let expected = "Internal error occurred: no unsafe deleter provided, can not honor \
                    ignoreStoreReadErrorWithClusterBreakingPotential";
    assert_eq!((code, told["message"].as_str()), (500, Some(expected)));
}

#[tokio::test]
async fn a_patch_that_clears_the_revision_is_an_update_without_one() {
    let asked = Asked::start(Options::default()).await;
    let patch = json!({"metadata": {"resourceVersion": ""}});
    let form = (http::header::CONTENT_TYPE, "application/merge-patch+json");
    for (api_version, kind, collection, expected) in [
        ("coordination.k8s.io/v1", "Lease", "/apis/coordination.k8s.io/v1/namespaces/default/leases", 422),
        ("v1", "ConfigMap", "/api/v1/namespaces/default/configmaps", 200),
    ] {
        let (code, made) = asked.ask(&format!("POST {collection}"), Some(&named(api_version, kind, json!({})))).await;
        assert_eq!(code, 201, "{made}");
        let ask = format!("PATCH {collection}/a");
        let answer = asked.send_with("admin", &[server::authn::MASTERS], form.clone(), &ask, Some(&patch)).await;
        assert_eq!(answer.status().as_u16(), expected, "{kind}");
    }
}

/// Warnings about a template come whenever the generation goes up, and about a driver only when it is made.
#[tokio::test]
async fn updates_warn_of_templates_when_anything_changes() {
    let asked = Asked::start(Options::default()).await;
    let template = json!({
        "metadata": {"labels": {"a": "b"}},
        "spec": {"nodeSelector": {"beta.kubernetes.io/arch": "x"}, "containers": [{"name": "c", "image": "i"}]},
    });
    let spec = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let driver = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
    let sets = ("apps/v1", "/apis/apps/v1/namespaces/default");
    for (api_version, kind, collection, object, change, warnings) in [
        (sets.0, "Deployment", format!("{}/deployments", sets.1), &spec, json!({"spec": {"paused": true}}), 1),
        (sets.0, "ReplicaSet", format!("{}/replicasets", sets.1), &spec, json!({"spec": {"replicas": 3}}), 1),
        (sets.0, "DaemonSet", format!("{}/daemonsets", sets.1), &spec, json!({"spec": {"minReadySeconds": 3}}), 0),
        (
            sets.0,
            "Deployment",
            format!("{}/deployments", sets.1),
            &spec,
            json!({"metadata": {"labels": {"c": "d"}}}),
            0,
        ),
        (
            "storage.k8s.io/v1",
            "CSIDriver",
            "/apis/storage.k8s.io/v1/csidrivers".into(),
            &driver,
            json!({"spec": {"storageCapacity": true}}),
            0,
        ),
    ] {
        let object = named(api_version, kind, object.clone());
        let made = asked.send("admin", &[server::authn::MASTERS], &format!("POST {collection}"), Some(&object)).await;
        assert_eq!((made.status().as_u16(), made.headers().get_all("warning").iter().count()), (201, 1), "{kind}");
        let (_, mut new) = asked.ask(&format!("GET {collection}/a"), None).await;
        merge(&mut new, &change);
        let put = asked.send("admin", &[server::authn::MASTERS], &format!("PUT {collection}/a"), Some(&new)).await;
        let told = put.headers().get_all("warning").iter().count();
        assert_eq!((put.status().as_u16(), told), (200, warnings), "{kind} {change}");
        asked.ask(&format!("DELETE {collection}/a"), None).await;
    }
}

#[tokio::test]
async fn what_is_deprecated_is_told_of_though_the_form_is_refused_but_not_by_the_router() {
    let asked = Asked::start(Options::default()).await;
    for (form, warnings) in [("application/json;as=Bogus;v=v1;g=meta.k8s.io", 1), ("text/html", 0)] {
        let accept = (http::header::ACCEPT, form);
        let ask = "GET /api/v1/namespaces/default/endpoints";
        let answer = asked.send_with("admin", &[server::authn::MASTERS], accept, ask, None).await;
        let told = answer.headers().get_all("warning").iter().count();
        assert_eq!((answer.status().as_u16(), told), (406, warnings), "{form}");
    }
}

/// Labels, finalizers and so on of some kinds are not the business of who writes the status, and where an update must
/// name a revision, so must a write of the status.
#[tokio::test]
async fn a_status_is_written_alone() {
    let asked = Asked::start(Options::default()).await;
    let cidr = named("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.97.0.0/16"]}}));
    let labels = json!({"metadata": {"labels": {"a b": "c"}, "finalizers": ["a/b"], "annotations": {"d": "e"}}});
    let (code, made) = asked.ask("POST /apis/networking.k8s.io/v1/servicecidrs", Some(&cidr)).await;
    assert_eq!(code, 201, "{made}");
    let mut new = made.clone();
    merge(&mut new, &labels);
    let (code, put) = asked.ask("PUT /apis/networking.k8s.io/v1/servicecidrs/a/status", Some(&new)).await;
    assert_eq!(code, 200, "{put}");
    for field in ["labels", "finalizers", "annotations"] {
        assert_eq!(put["metadata"][field], made["metadata"][field], "{field}");
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = named("policy/v1", "PodDisruptionBudget", json!({}));
    let (code, made) = asked.ask(&format!("POST {budgets}"), Some(&budget)).await;
    assert_eq!(code, 201, "{made}");
    let (code, told) = asked.ask(&format!("PUT {budgets}/a/status"), Some(&budget)).await;
    assert_eq!(
        (code, cause(&told["details"]["causes"][0])),
        (422, String::from("metadata.resourceVersion: Invalid value: 0: must be specified for an update"))
    );
    let conditions =
        json!([{"type": "", "status": ""}, {"type": "T", "status": "Odd"}, {"type": "T", "status": "True"}]);
    let mut new = made;
    merge(&mut new, &json!({"status": {"conditions": conditions}}));
    let (_, told) = asked.ask(&format!("PUT {budgets}/a/status"), Some(&new)).await;
    let causes: Vec<String> = told["details"]["causes"].as_array().into_iter().flatten().map(cause).collect();
    for expected in [
        "status.conditions[0].type: Required value: is required",
        "status.conditions[0].status: Required value",
        "status.conditions[0].lastTransitionTime: Required value",
        "status.conditions[0].reason: Required value",
        "status.conditions[2]: Duplicate value: \"T\"",
    ] {
        assert!(causes.iter().any(|told| told == expected), "{expected} is not among {causes:#?}");
    }
}

/// What a pod's eviction or binding says of a namespace is the path's.
#[tokio::test]
async fn evictions_and_bindings_are_of_the_namespace_of_their_path() {
    let asked = Asked::start(Options::default()).await;
    for (api_version, kind, subresource) in [("policy/v1", "Eviction", "eviction"), ("v1", "Binding", "binding")] {
        let target = json!({"metadata": {"namespace": "other"}, "target": {"name": "n"}});
        let body = named(api_version, kind, target);
        let ask = format!("POST /api/v1/namespaces/default/pods/a/{subresource}");
        let (code, told) = asked.ask(&ask, Some(&body)).await;
        let expected = "the namespace of the provided object does not match the namespace sent on the request";
        assert_eq!((code, told["message"].as_str()), (400, Some(expected)));
    }
}

/// Strategic patches and applies are converted field by field, where upstream knows less of where it is than a decoder does.
#[tokio::test]
async fn wrong_values_of_patches_are_told_of_as_conversions() {
    let asked = Asked::start(Options::default()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let ranges = "/api/v1/namespaces/default/limitranges";
    let drivers = "/apis/storage.k8s.io/v1/csidrivers";
    for (collection, object) in [
        (maps, named("v1", "ConfigMap", json!({}))),
        (ranges, named("v1", "LimitRange", json!({"spec": {"limits": []}}))),
        (drivers, named("storage.k8s.io/v1", "CSIDriver", json!({"spec": {}}))),
    ] {
        let (code, made) = asked.ask(&format!("POST {collection}"), Some(&object)).await;
        assert_eq!(code, 201, "{made}");
    }
    let quantity = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let base64 = "error decoding from json: illegal base64 data at input byte 0";
    for (collection, patch, why) in [
        (maps, json!({"binaryData": {"a": "%%"}}), base64),
        (maps, json!({"binaryData": {"a": ["b"]}}), "unrecognized type: uint8"),
        (maps, json!({"binaryData": {"a": 5}}), "cannot restore slice from int64"),
        (ranges, json!({"spec": {"limits": [{"default": {"cpu": "x"}}]}}), quantity),
        (drivers, json!({"spec": {"fsGroupPolicy": 7}}), "cannot convert int64 to v1.FSGroupPolicy"),
        (drivers, json!({"spec": {"volumeLifecycleModes": [7]}}), "cannot convert int64 to v1.VolumeLifecycleMode"),
    ] {
        let (form, ask) = ("application/strategic-merge-patch+json", format!("PATCH {collection}/a"));
        let (code, told) = asked.patching(form, &ask, &patch).await;
        let told = told["message"].as_str().unwrap_or_default();
        assert_eq!(code, 422, "{told}");
        assert!(told.ends_with(&format!(": {why}")), "{told}");
    }
    let limits = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "x"}}]}});
    let (code, told) = asked
        .patching(
            "application/apply-patch+yaml",
            &format!("PATCH {ranges}/a?fieldManager=m&force=true"),
            &named("v1", "LimitRange", limits),
        )
        .await;
    let expected = format!(
        "failed to convert new object (/a; /v1, Kind=LimitRange) to proper version: unable to convert unstructured object to \
         /v1, Kind=LimitRange: {quantity}"
    );
    assert_eq!((code, told["message"].as_str()), (500, Some(&*expected)));
}

#[tokio::test]
async fn what_is_wrong_with_a_status_is_told_as_upstream_does() {
    let asked = Asked::start(Options::default()).await;
    let container = json!([{"name": "c", "image": "i"}]);
    let claim = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "k"}}]}});
    let cases = [
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            named(
                "storage.k8s.io/v1",
                "VolumeAttachment",
                json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
            ),
            json!({"attachError": {"errorCode": -1}}),
            "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims",
            named("resource.k8s.io/v1", "ResourceClaim", json!({"spec": claim})),
            json!({"reservedFor": [{"resource": "p", "name": "a", "uid": "u"}, {"resource": "p", "name": "b", "uid": "u"}],
                "devices": [{"driver": "d", "pool": "p", "device": "e", "shareID": "shareIDValue"}]}),
            "status.devices[0]: Invalid value: {\"Driver\":\"d\",\"Pool\":\"p\",\"Device\":\"e\",\"ShareID\":\"shareIDValue\"}: must be an \
             allocated device in the claim\n\
             status.reservedFor: Forbidden: may not be specified when `allocated` is not set\n\
             status.reservedFor[1]: Duplicate value: {\"resource\":\"p\",\"name\":\"b\",\"uid\":\"u\"}\n\
             status.devices[0].shareID: Invalid value: \"shareIDValue\": must be a lowercase UUID in 8-4-4-4-12 format",
        ),
    ];
    for (collection, object, status, expected) in cases {
        let (code, made) = asked.ask(&format!("POST {collection}"), Some(&object)).await;
        assert_eq!(code, 201, "{made}");
        let path = format!("{collection}/a/status");
        let (_, answer) =
            asked.patching("application/merge-patch+json", &format!("PATCH {path}"), &json!({"status": status})).await;
        let causes = answer["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(causes.iter().map(cause).collect::<Vec<_>>().join("\n"), expected);
    }
    // The signal that a container is stopped with is a fact, whether or not one may be chosen.
    let account = named("v1", "ServiceAccount", json!({"metadata": {"name": "default"}}));
    asked.ask("POST /api/v1/namespaces/default/serviceaccounts", Some(&account)).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = named("v1", "Pod", json!({"spec": {"containers": container}}));
    let (code, made) = asked.ask(&format!("POST {pods}"), Some(&pod)).await;
    assert_eq!(code, 201, "{made}");
    // What a volume is of is another matter: all of it is behind a gate.
    let mounts = json!([{"name": "v", "mountPath": "/v", "volumeStatus": {"image": {"imageRef": "x"}}}]);
    let status =
        json!({"status": {"containerStatuses": [{"name": "c", "stopSignal": "SIGTERM", "volumeMounts": mounts}]}});
    let (_, answer) = asked.patching("application/merge-patch+json", &format!("PATCH {pods}/a/status"), &status).await;
    let told = &answer["status"]["containerStatuses"][0];
    assert_eq!(told["stopSignal"], "SIGTERM", "{answer}");
    assert_eq!(told["volumeMounts"], json!([{"name": "v", "mountPath": "/v"}]));
}
