"""The official Python client's calls, outside of any pod: one line a step, `ok NAME` or `FAIL NAME: why`."""

import json
import threading
import time
import traceback

from kubernetes import client, config, dynamic, watch

config.load_kube_config()
NAMESPACE = "python"
LIMIT_SECONDS = 20
core = client.CoreV1Api()
apps = client.AppsV1Api()


def config_map(name, labels=None, data=None):
    metadata = {"name": name, "labels": labels} if labels else {"name": name}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data or {}}


def deployment(name):
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "example/main:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": pod},
    }


def refused(code, reason, call):
    """The call must be refused like this; gives the parsed Status."""
    try:
        call()
    except client.ApiException as error:
        status = json.loads(error.body)
        assert (error.status, status["reason"]) == (code, reason), f"{error.status} {status}"
        return status
    raise AssertionError("it was not refused")


def same(got, want):
    assert got == want, f"{got!r} is not {want!r}"


def make_namespace():
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    same(core.read_namespace(NAMESPACE).status.phase, "Active")


def create_and_read():
    for number in range(25):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"c{number:02}", {"half": str(number % 2)}, {"n": str(number)}))
    got = core.read_namespaced_config_map("c07", NAMESPACE)
    same((got.data, got.metadata.labels), ({"n": "7"}, {"half": "1"}))


def list_in_chunks():
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, limit=10, _continue=token, label_selector="half")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
        same(page.metadata.remaining_item_count, None)
    same(names, [f"c{number:02}" for number in range(25)])


def select():
    odd = core.list_namespaced_config_map(NAMESPACE, label_selector="half=1")
    same(len(odd.items), 12)
    one = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=c03")
    same([item.metadata.name for item in one.items], ["c03"])


def watch_from_version():
    begin = core.list_namespaced_config_map(NAMESPACE, label_selector="watched")
    core.create_namespaced_config_map(NAMESPACE, config_map("w", {"watched": "1"}))
    core.patch_namespaced_config_map("w", NAMESPACE, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("w", NAMESPACE)
    seen = []
    stream = watch.Watch()
    events = stream.stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        label_selector="watched",
        resource_version=begin.metadata.resource_version,
        timeout_seconds=20,
    )
    for event in events:
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            stream.stop()
    same(seen, [("ADDED", "w"), ("MODIFIED", "w"), ("DELETED", "w")])


def watch_ends_in_time():
    seen = watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, label_selector="half=1", timeout_seconds=1)
    same(len([event for event in seen if event["type"] == "ADDED"]), 12)


def watch_meets_410():
    try:
        for _ in watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, resource_version="1", timeout_seconds=2):
            pass
    except client.ApiException as error:
        same(error.status, 410)
        return
    raise AssertionError("an old version was still there")


def patch_json():
    ops = [{"op": "test", "path": "/data/n", "value": "1"}, {"op": "replace", "path": "/data/n", "value": "one"}]
    same(core.patch_namespaced_config_map("c01", NAMESPACE, ops).data, {"n": "one"})
    refused(422, "Invalid", lambda: core.patch_namespaced_config_map("c01", NAMESPACE, ops))


def patch_merge():
    call = {"_content_type": "application/merge-patch+json"}
    got = core.patch_namespaced_config_map("c02", NAMESPACE, {"data": {"n": None, "m": "2"}}, **call)
    same(got.data, {"m": "2"})


def patch_strategic():
    apps.create_namespaced_deployment(NAMESPACE, deployment("strategic"))
    containers = [{"name": "main", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "example/side:1"}]
    body = {"spec": {"template": {"spec": {"containers": containers}}}}
    call = {"_content_type": "application/strategic-merge-patch+json"}
    got = apps.patch_namespaced_deployment("strategic", NAMESPACE, body, **call).spec.template.spec.containers
    same([(one.name, one.image) for one in got], [("main", "example/main:1"), ("side", "example/side:1")])


def server_side_apply():
    def apply(manager, value, **more):
        body = config_map("applied", {}, {"key": value})
        call = {"field_manager": manager, "_content_type": "application/apply-patch+yaml", **more}
        return core.patch_namespaced_config_map("applied", NAMESPACE, body, **call)

    same(apply("one", "1").data, {"key": "1"})
    status = refused(409, "Conflict", lambda: apply("two", "2"))
    same([cause["field"] for cause in status["details"]["causes"]], [".data.key"])
    same(apply("two", "2", force=True).data, {"key": "2"})


def replace_with_old_version():
    old = core.read_namespaced_config_map("c04", NAMESPACE)
    new = core.read_namespaced_config_map("c04", NAMESPACE)
    new.data["n"] = "new"
    core.replace_namespaced_config_map("c04", NAMESPACE, new)
    old.data["n"] = "old"
    refused(409, "Conflict", lambda: core.replace_namespaced_config_map("c04", NAMESPACE, old))


def scale_and_status():
    same(apps.patch_namespaced_deployment_scale("strategic", NAMESPACE, {"spec": {"replicas": 3}}).spec.replicas, 3)
    body = {"status": {"observedGeneration": 1, "replicas": 1}}
    same(apps.patch_namespaced_deployment_status("strategic", NAMESPACE, body).status.replicas, 1)


def evict():
    pod = {"metadata": {"name": "evicted"}, "spec": {"containers": [{"name": "main", "image": "example/main:1"}]}}
    core.create_namespaced_pod(NAMESPACE, pod)
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted"))
    core.create_namespaced_pod_eviction("evicted", NAMESPACE, eviction)
    refused(404, "NotFound", lambda: core.read_namespaced_pod("evicted", NAMESPACE))


def errors_are_parsed():
    status = refused(404, "NotFound", lambda: core.read_namespaced_config_map("none", NAMESPACE))
    same(status["message"], 'configmaps "none" not found')
    bad = config_map("Not-A-Name")
    status = refused(422, "Invalid", lambda: core.create_namespaced_config_map(NAMESPACE, bad))
    same([cause["field"] for cause in status["details"]["causes"]], ["metadata.name"])
    refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, config_map("c01")))


def dynamic_client():
    dyn = dynamic.DynamicClient(client.ApiClient())
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
    maps.create(body=config_map("dynamic", {}, {"a": "1"}), namespace=NAMESPACE)
    body = config_map("dynamic", {}, {"b": "2"})
    maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="dynamic", force_conflicts=True)
    same(maps.get(name="dynamic", namespace=NAMESPACE).data.to_dict(), {"a": "1", "b": "2"})
    deployments = dyn.resources.get(api_version="apps/v1", kind="Deployment")
    same([one.metadata.name for one in deployments.get(namespace=NAMESPACE).items], ["strategic"])


def threads():
    wrong = []

    def work(number):
        try:
            own = client.CoreV1Api()
            for turn in range(10):
                name = f"t{number}-{turn}"
                own.create_namespaced_config_map(NAMESPACE, config_map(name, {"thread": str(number)}))
            own.delete_collection_namespaced_config_map(NAMESPACE, label_selector=f"thread={number}")
        except Exception as error:
            wrong.append(error)

    all_threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for one in all_threads:
        one.start()
    for one in all_threads:
        one.join()
    same(wrong, [])
    same(core.list_namespaced_config_map(NAMESPACE, label_selector="thread").items, [])


def delete_with_propagation():
    def until(holds):
        end = time.monotonic() + LIMIT_SECONDS
        while not holds():
            assert time.monotonic() < end, "it never came to hold"
            time.sleep(0.02)

    def gone(name):
        return not core.list_namespaced_config_map(NAMESPACE, field_selector=f"metadata.name={name}").items

    for policy in ["Foreground", "Background", "Orphan"]:
        owner, owned = f"{policy.lower()}-owner", f"{policy.lower()}-owned"
        uid = core.create_namespaced_config_map(NAMESPACE, config_map(owner)).metadata.uid
        body = config_map(owned)
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": True}
        body["metadata"]["ownerReferences"] = [reference]
        core.create_namespaced_config_map(NAMESPACE, body)
        core.delete_namespaced_config_map(owner, NAMESPACE, propagation_policy=policy)
        until(lambda: gone(owner))
        if policy == "Orphan":
            same(core.read_namespaced_config_map(owned, NAMESPACE).metadata.owner_references, None)
        else:
            until(lambda: gone(owned))


def delete():
    core.delete_namespaced_config_map("c00", NAMESPACE)
    refused(404, "NotFound", lambda: core.delete_namespaced_config_map("c00", NAMESPACE))


STEPS = [
    make_namespace,
    create_and_read,
    list_in_chunks,
    select,
    watch_from_version,
    watch_ends_in_time,
    watch_meets_410,
    patch_json,
    patch_merge,
    patch_strategic,
    server_side_apply,
    replace_with_old_version,
    scale_and_status,
    evict,
    errors_are_parsed,
    dynamic_client,
    threads,
    delete_with_propagation,
    delete,
]

for step in STEPS:
    try:
        step()
        print("ok", step.__name__, flush=True)
    except Exception as error:
        traceback.print_exc()
        print(f"FAIL {step.__name__}: {' '.join(str(error).split())}", flush=True)
