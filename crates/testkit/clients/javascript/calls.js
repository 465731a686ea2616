// The official JavaScript client's calls, outside of any pod: one line a step, `ok NAME` or `FAIL NAME: why`.
import assert from "node:assert/strict";
import { once, EventEmitter } from "node:events";
import { setTimeout } from "node:timers/promises";
import {
  AppsV1Api, CoreV1Api, KubeConfig, KubernetesObjectApi, PatchStrategy, Watch, makeInformer, setHeaderOptions,
} from "@kubernetes/client-node";

const LIMIT_MS = 20_000;
const config = new KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(CoreV1Api);
const apps = config.makeApiClient(AppsV1Api);
const namespace = "javascript";
const path = `/api/v1/namespaces/${namespace}/configmaps`;

const configMap = (name, labels, data) => ({
  apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace, labels }, data,
});
const create = (body) => core.createNamespacedConfigMap({ namespace, body });
const names = (list) => list.items.map((item) => item.metadata.name);
const as = (strategy) => setHeaderOptions("Content-Type", strategy);

async function refused(code, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.code, code, String(error.body ?? error));
    return JSON.parse(error.body);
  }
  assert.fail("it was not refused");
}

async function gone(name) {
  const signal = AbortSignal.timeout(LIMIT_MS);
  for (;;) {
    if ((await core.listNamespacedConfigMap({ namespace, fieldSelector: `metadata.name=${name}` })).items.length === 0) return;
    await setTimeout(20, undefined, { signal });
  }
}

const steps = {
  async makeNamespace() {
    await core.createNamespace({ body: { metadata: { name: namespace } } });
  },

  async listInChunks() {
    for (let n = 10; n < 35; n++) await create(configMap(`c${n}`, { half: String(n % 2) }, { n: String(n) }));
    const seen = [];
    let _continue;
    do {
      const page = await core.listNamespacedConfigMap({ namespace, limit: 10, _continue, labelSelector: "half" });
      seen.push(...names(page));
      _continue = page.metadata._continue;
    } while (_continue);
    assert.deepEqual(seen, Array.from({ length: 25 }, (_, n) => `c${n + 10}`));
  },

  async select() {
    assert.equal((await core.listNamespacedConfigMap({ namespace, labelSelector: "half=1" })).items.length, 12);
    const one = await core.listNamespacedConfigMap({ namespace, fieldSelector: "metadata.name=c13" });
    assert.deepEqual(names(one), ["c13"]);
  },

  async watch() {
    const begin = await core.listNamespacedConfigMap({ namespace });
    await create(configMap("w", { watched: "1" }));
    await core.deleteNamespacedConfigMap({ name: "w", namespace });
    const bus = new EventEmitter();
    const seen = [];
    const query = { resourceVersion: begin.metadata.resourceVersion, labelSelector: "watched" };
    const abort = await new Watch(config).watch(path, query, (type, object) => {
      seen.push(`${type} ${object.metadata.name}`);
      if (type === "DELETED") bus.emit("end");
    }, () => {});
    await once(bus, "end", { signal: AbortSignal.timeout(LIMIT_MS) });
    abort.abort();
    assert.deepEqual(seen, ["ADDED w", "DELETED w"]);
  },

  async informer() {
    const labelSelector = "informed";
    await create(configMap("before", { informed: "1" }));
    const informer = makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace, labelSelector }), labelSelector);
    const bus = new EventEmitter();
    for (const event of ["add", "update", "delete"]) informer.on(event, (object) => bus.emit(`${event} ${object.metadata.name}`));
    const seen = (event) => once(bus, event, { signal: AbortSignal.timeout(LIMIT_MS) });
    await Promise.all([seen("add before"), informer.start()]);
    await Promise.all([seen("add after"), create(configMap("after", { informed: "1" }))]);
    const patch = { name: "after", namespace, body: { data: { a: "b" } } };
    await Promise.all([seen("update after"), core.patchNamespacedConfigMap(patch, as(PatchStrategy.MergePatch))]);
    await Promise.all([seen("delete before"), core.deleteNamespacedConfigMap({ name: "before", namespace })]);
    assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name), ["after"]);
    await informer.stop();
  },

  async patchJson() {
    const body = [{ op: "replace", path: "/data/n", value: "ten" }];
    const got = await core.patchNamespacedConfigMap({ name: "c10", namespace, body }, as(PatchStrategy.JsonPatch));
    assert.deepEqual(got.data, { n: "ten" });
  },

  async patchMerge() {
    const body = { data: { n: null, m: "11" } };
    const got = await core.patchNamespacedConfigMap({ name: "c11", namespace, body }, as(PatchStrategy.MergePatch));
    assert.deepEqual(got.data, { m: "11" });
  },

  async patchStrategic() {
    const labels = { app: "strategic" };
    const template = { metadata: { labels }, spec: { containers: [{ name: "main", image: "example/main:1" }] } };
    const spec = { replicas: 0, selector: { matchLabels: labels }, template };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: "strategic" }, spec } });
    const body = { spec: { template: { spec: { containers: [{ name: "side", image: "example/side:1" }] } } } };
    const call = { name: "strategic", namespace, body };
    const got = await apps.patchNamespacedDeployment(call, as(PatchStrategy.StrategicMergePatch));
    assert.deepEqual(got.spec.template.spec.containers.map((one) => one.name).sort(), ["main", "side"]);
  },

  async serverSideApply() {
    const apply = (fieldManager, value, force) => core.patchNamespacedConfigMap(
      { name: "applied", namespace, fieldManager, force, body: configMap("applied", undefined, { key: value }) },
      as(PatchStrategy.ServerSideApply),
    );
    assert.deepEqual((await apply("one", "1")).data, { key: "1" });
    const status = await refused(409, () => apply("two", "2"));
    assert.deepEqual(status.details.causes.map((cause) => cause.field), [".data.key"]);
    assert.deepEqual((await apply("two", "2", true)).data, { key: "2" });
  },

  async replaceWithOldVersion() {
    const old = await core.readNamespacedConfigMap({ name: "c14", namespace });
    const changed = { ...old, data: { n: "new" } };
    assert.deepEqual((await core.replaceNamespacedConfigMap({ name: "c14", namespace, body: changed })).data, { n: "new" });
    const status = await refused(409, () => core.replaceNamespacedConfigMap({ name: "c14", namespace, body: old }));
    assert.equal(status.reason, "Conflict");
  },

  async objectApi() {
    const objects = KubernetesObjectApi.makeApiClient(config);
    await objects.create(configMap("generic", undefined, { a: "1" }));
    const got = await objects.read({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "generic", namespace } });
    got.data.b = "2";
    assert.deepEqual((await objects.replace(got)).data, { a: "1", b: "2" });
    await objects.delete(got);
    await refused(404, () => objects.read(got));
  },

  async errorsAreParsed() {
    const status = await refused(404, () => core.readNamespacedConfigMap({ name: "none", namespace }));
    assert.equal(status.message, 'configmaps "none" not found');
    assert.equal((await refused(409, () => create(configMap("c10")))).reason, "AlreadyExists");
  },

  async deleteWithPropagation() {
    for (const propagationPolicy of ["Foreground", "Background", "Orphan"]) {
      const [owner, owned] = ["owner", "owned"].map((part) => `${propagationPolicy.toLowerCase()}-${part}`);
      const { uid } = (await create(configMap(owner))).metadata;
      const body = configMap(owned);
      body.metadata.ownerReferences = [{ apiVersion: "v1", kind: "ConfigMap", name: owner, uid, blockOwnerDeletion: true }];
      await create(body);
      await core.deleteNamespacedConfigMap({ name: owner, namespace, propagationPolicy });
      await gone(owner);
      if (propagationPolicy === "Orphan") {
        assert.equal((await core.readNamespacedConfigMap({ name: owned, namespace })).metadata.ownerReferences, undefined);
      } else {
        await gone(owned);
      }
    }
  },
};

for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log("ok", name);
  } catch (error) {
    console.error(error);
    console.log(`FAIL ${name}: ${String(error.message ?? error).replaceAll(/\s+/g, " ")}`);
  }
}
process.exit();
