import com.google.gson.reflect.TypeToken;
import io.kubernetes.client.ProtoClient;
import io.kubernetes.client.common.KubernetesObject;
import io.kubernetes.client.custom.V1Patch;
import io.kubernetes.client.informer.ResourceEventHandler;
import io.kubernetes.client.informer.SharedInformerFactory;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.openapi.ApiException;
import io.kubernetes.client.openapi.apis.AppsV1Api;
import io.kubernetes.client.openapi.apis.CoreV1Api;
import io.kubernetes.client.openapi.models.V1ConfigMap;
import io.kubernetes.client.openapi.models.V1ConfigMapList;
import io.kubernetes.client.openapi.models.V1Container;
import io.kubernetes.client.openapi.models.V1Deployment;
import io.kubernetes.client.openapi.models.V1DeploymentSpec;
import io.kubernetes.client.openapi.models.V1LabelSelector;
import io.kubernetes.client.openapi.models.V1Namespace;
import io.kubernetes.client.openapi.models.V1ObjectMeta;
import io.kubernetes.client.openapi.models.V1OwnerReference;
import io.kubernetes.client.openapi.models.V1PodSpec;
import io.kubernetes.client.openapi.models.V1PodTemplateSpec;
import io.kubernetes.client.openapi.models.V1Status;
import io.kubernetes.client.proto.Meta;
import io.kubernetes.client.proto.V1;
import io.kubernetes.client.util.Config;
import io.kubernetes.client.util.PatchUtils;
import io.kubernetes.client.util.Watch;
import io.kubernetes.client.util.generic.GenericKubernetesApi;
import io.kubernetes.client.util.generic.options.ListOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** The official Java client's calls, outside of any pod: one line a step, {@code ok NAME} or {@code FAIL NAME: why}. */
public final class Calls {
  static final int LIMIT_SECONDS = 20;
  static final String NAMESPACE = "java";
  static ApiClient client;
  static CoreV1Api core;
  static AppsV1Api apps;

  interface Step {
    void run() throws Exception;
  }

  public static void main(String[] args) throws Exception {
    client = Config.defaultClient();
    core = new CoreV1Api(client);
    apps = new AppsV1Api(client);
    step("makeNamespace", Calls::makeNamespace);
    step("createAndRead", Calls::createAndRead);
    step("listInChunks", Calls::listInChunks);
    step("select", Calls::select);
    step("watchFromVersion", Calls::watchFromVersion);
    step("watchMeets410", Calls::watchMeets410);
    step("informer", Calls::informer);
    step("patchJson", Calls::patchJson);
    step("patchMerge", Calls::patchMerge);
    step("patchStrategic", Calls::patchStrategic);
    step("serverSideApply", Calls::serverSideApply);
    step("replaceWithOldVersion", Calls::replaceWithOldVersion);
    step("errorsAreParsed", Calls::errorsAreParsed);
    step("genericApi", Calls::genericApi);
    step("protobuf", Calls::protobuf);
    step("deleteWithPropagation", Calls::deleteWithPropagation);
    // The client's idle threads would hold the program for a minute.
    System.exit(0);
  }

  static void makeNamespace() throws Exception {
    core.createNamespace(new V1Namespace().metadata(new V1ObjectMeta().name(NAMESPACE))).execute();
    same(core.readNamespace(NAMESPACE).execute().getStatus().getPhase(), "Active");
  }

  static void createAndRead() throws Exception {
    for (int n = 10; n < 35; n++) {
      create(configMap("c" + n, Map.of("half", "" + n % 2), Map.of("n", "" + n)));
    }
    V1ConfigMap got = read("c17");
    same(got.getData(), Map.of("n", "17"));
    same(got.getMetadata().getLabels(), Map.of("half", "1"));
  }

  static void listInChunks() throws Exception {
    List<String> seen = new ArrayList<>();
    List<Long> remaining = new ArrayList<>();
    String next = null;
    do {
      var page = core.listNamespacedConfigMap(NAMESPACE).limit(10)._continue(next).execute();
      page.getItems().forEach(item -> seen.add(item.getMetadata().getName()));
      remaining.add(page.getMetadata().getRemainingItemCount());
      next = page.getMetadata().getContinue();
    } while (next != null && !next.isEmpty());
    var made = IntStream.range(10, 35).mapToObj(n -> "c" + n).collect(Collectors.toList());
    same(seen.stream().filter(made::contains).collect(Collectors.toList()), made);
    same(remaining.get(0), (long) seen.size() - 10);
  }

  static void select() throws Exception {
    same(core.listNamespacedConfigMap(NAMESPACE).labelSelector("half=1").execute().getItems().size(), 12);
    var one = core.listNamespacedConfigMap(NAMESPACE).fieldSelector("metadata.name=c13").execute();
    same(names(one), List.of("c13"));
  }

  static void watchFromVersion() throws Exception {
    String begin = core.listNamespacedConfigMap(NAMESPACE).execute().getMetadata().getResourceVersion();
    create(configMap("w", Map.of("watched", "1"), Map.of()));
    merge("w", "{\"data\":{\"a\":\"b\"}}");
    core.deleteNamespacedConfigMap("w", NAMESPACE).execute();
    List<String> seen = new ArrayList<>();
    try (var stream = watch(begin)) {
      for (var event : stream) {
        seen.add(event.type + " " + event.object.getMetadata().getName());
        if (event.type.equals("DELETED")) {
          break;
        }
      }
    }
    same(seen, List.of("ADDED w", "MODIFIED w", "DELETED w"));
  }

  static void watchMeets410() throws Exception {
    try (var stream = watch("1")) {
      for (var event : stream) {
        same(event.type, "ERROR");
        same(event.status.getCode(), 410);
        same(event.status.getReason(), "Expired");
        return;
      }
    } catch (ApiException refused) {
      same(refused.getCode(), 410);
      return;
    }
    throw new AssertionError("an old version was still there");
  }

  static Watch<V1ConfigMap> watch(String version) throws ApiException {
    var call = core.listNamespacedConfigMap(NAMESPACE).labelSelector("watched").watch(true);
    call = call.resourceVersion(version).timeoutSeconds(LIMIT_SECONDS);
    return Watch.createWatch(client, call.buildCall(null), new TypeToken<Watch.Response<V1ConfigMap>>() {}.getType());
  }

  static void informer() throws Exception {
    create(configMap("before", Map.of(), Map.of()));
    BlockingQueue<String> seen = new LinkedBlockingQueue<>();
    var maps = new GenericKubernetesApi<>(V1ConfigMap.class, V1ConfigMapList.class, "", "v1", "configmaps", client);
    var factory = new SharedInformerFactory(client);
    var informer = factory.sharedIndexInformerFor(maps, V1ConfigMap.class, 0, NAMESPACE);
    informer.addEventHandler(new ResourceEventHandler<V1ConfigMap>() {
      public void onAdd(V1ConfigMap made) {
        seen.add("add " + made.getMetadata().getName());
      }

      public void onUpdate(V1ConfigMap old, V1ConfigMap changed) {
        seen.add("update " + changed.getMetadata().getName());
      }

      public void onDelete(V1ConfigMap gone, boolean unsure) {
        seen.add("delete " + gone.getMetadata().getName());
      }
    });
    factory.startAllRegisteredInformers();
    until(seen, "add before");
    create(configMap("after", Map.of(), Map.of()));
    until(seen, "add after");
    merge("after", "{\"data\":{\"a\":\"b\"}}");
    until(seen, "update after");
    core.deleteNamespacedConfigMap("before", NAMESPACE).execute();
    until(seen, "delete before");
    same(informer.getIndexer().getByKey(NAMESPACE + "/after").getData(), Map.of("a", "b"));
    same(informer.getIndexer().getByKey(NAMESPACE + "/before"), null);
    factory.stopAllRegisteredInformers();
  }

  static void patchJson() throws Exception {
    String ops = "[{\"op\":\"test\",\"path\":\"/data/n\",\"value\":\"10\"},"
        + "{\"op\":\"replace\",\"path\":\"/data/n\",\"value\":\"ten\"}]";
    same(patch("c10", V1Patch.PATCH_FORMAT_JSON_PATCH, ops).getData(), Map.of("n", "ten"));
    refused(422, "Invalid", () -> patch("c10", V1Patch.PATCH_FORMAT_JSON_PATCH, ops));
  }

  static void patchMerge() throws Exception {
    same(merge("c11", "{\"data\":{\"n\":null,\"m\":\"11\"}}").getData(), Map.of("m", "11"));
  }

  static void patchStrategic() throws Exception {
    var labels = Map.of("app", "strategic");
    var pod = new V1PodSpec().addContainersItem(new V1Container().name("main").image("example/main:1"));
    var template = new V1PodTemplateSpec().metadata(new V1ObjectMeta().labels(labels)).spec(pod);
    var spec = new V1DeploymentSpec().replicas(0).selector(new V1LabelSelector().matchLabels(labels)).template(template);
    apps.createNamespacedDeployment(NAMESPACE, new V1Deployment().metadata(new V1ObjectMeta().name("strategic")).spec(spec)).execute();
    var body = new V1Patch("{\"spec\":{\"template\":{\"spec\":{\"containers\":["
        + "{\"name\":\"main\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}]},{\"name\":\"side\",\"image\":\"example/side:1\"}]}}}}");
    V1Deployment got = PatchUtils.patch(V1Deployment.class,
        () -> apps.patchNamespacedDeployment("strategic", NAMESPACE, body).buildCall(null),
        V1Patch.PATCH_FORMAT_STRATEGIC_MERGE_PATCH, client);
    var images = got.getSpec().getTemplate().getSpec().getContainers().stream().map(V1Container::getImage);
    same(images.sorted().collect(Collectors.toList()), List.of("example/main:1", "example/side:1"));
  }

  static void serverSideApply() throws Exception {
    same(apply("one", "1", false).getData(), Map.of("key", "1"));
    V1Status status = refused(409, "Conflict", () -> apply("two", "2", false));
    same(status.getDetails().getCauses().get(0).getField(), ".data.key");
    same(apply("two", "2", true).getData(), Map.of("key", "2"));
  }

  static V1ConfigMap apply(String manager, String value, boolean force) throws ApiException {
    var body = new V1Patch("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  key: \"" + value + "\"\n");
    return PatchUtils.patch(V1ConfigMap.class,
        () -> core.patchNamespacedConfigMap("applied", NAMESPACE, body).fieldManager(manager).force(force).buildCall(null),
        V1Patch.PATCH_FORMAT_APPLY_YAML, client);
  }

  static void replaceWithOldVersion() throws Exception {
    V1ConfigMap old = read("c14");
    V1ConfigMap changed = read("c14").data(Map.of("n", "new"));
    same(core.replaceNamespacedConfigMap("c14", NAMESPACE, changed).execute().getData(), Map.of("n", "new"));
    refused(409, "Conflict", () -> core.replaceNamespacedConfigMap("c14", NAMESPACE, old).execute());
  }

  static void errorsAreParsed() throws Exception {
    same(refused(404, "NotFound", () -> read("none")).getMessage(), "configmaps \"none\" not found");
    refused(409, "AlreadyExists", () -> create(configMap("c10", Map.of(), Map.of())));
    V1Status status = refused(422, "Invalid", () -> create(configMap("Not-A-Name", Map.of(), Map.of())));
    same(status.getDetails().getCauses().get(0).getField(), "metadata.name");
  }

  static void genericApi() throws Exception {
    var maps = new GenericKubernetesApi<>(V1ConfigMap.class, V1ConfigMapList.class, "", "v1", "configmaps", client);
    var made = maps.create(configMap("generic", Map.of(), Map.of("a", "1"))).throwsApiException().getObject();
    made.putDataItem("b", "2");
    same(maps.update(made).throwsApiException().getObject().getData(), Map.of("a", "1", "b", "2"));
    var list = maps.list(NAMESPACE, new ListOptions().fieldSelector("metadata.name=generic")).throwsApiException();
    same(names(list.getObject()), List.of("generic"));
    same(maps.delete(NAMESPACE, "generic").isSuccess(), true);
    var gone = maps.get(NAMESPACE, "generic");
    same(gone.getHttpStatusCode(), 404);
    same(gone.getStatus().getReason(), "NotFound");
  }

  static void protobuf() throws Exception {
    var proto = new ProtoClient(client);
    String path = "/api/v1/namespaces/" + NAMESPACE + "/configmaps";
    var made = V1.ConfigMap.newBuilder().putData("a", "1");
    made.setMetadata(Meta.ObjectMeta.newBuilder().setName("protobuf").setNamespace(NAMESPACE));
    same(proto.<V1.ConfigMap>create(made.build(), path, "v1", "ConfigMap").object.getDataMap(), Map.of("a", "1"));
    var got = proto.<V1.ConfigMap>get(V1.ConfigMap.newBuilder(), path + "/protobuf").object;
    same(got.getMetadata().getName(), "protobuf");
    var list = proto.<V1.ConfigMapList>list(V1.ConfigMapList.newBuilder(), path + "?fieldSelector=metadata.name%3Dprotobuf");
    same(list.object.getItemsCount(), 1);
    same(proto.<V1.ConfigMap>get(V1.ConfigMap.newBuilder(), path + "/none").status.getReason(), "NotFound");
    proto.<V1.ConfigMap>delete(V1.ConfigMap.newBuilder(), path + "/protobuf");
    refused(404, "NotFound", () -> read("protobuf"));
  }

  static void deleteWithPropagation() throws Exception {
    for (String policy : List.of("Foreground", "Background", "Orphan")) {
      String owner = policy.toLowerCase() + "-owner";
      String owned = policy.toLowerCase() + "-owned";
      var reference = new V1OwnerReference().apiVersion("v1").kind("ConfigMap").name(owner).blockOwnerDeletion(true);
      reference.uid(create(configMap(owner, Map.of(), Map.of())).getMetadata().getUid());
      var dependent = configMap(owned, Map.of(), Map.of());
      dependent.getMetadata().addOwnerReferencesItem(reference);
      create(dependent);
      core.deleteNamespacedConfigMap(owner, NAMESPACE).propagationPolicy(policy).execute();
      until(() -> core.listNamespacedConfigMap(NAMESPACE).fieldSelector("metadata.name=" + owner).execute().getItems().isEmpty());
      if (policy.equals("Orphan")) {
        same(read(owned).getMetadata().getOwnerReferences(), List.of());
      } else {
        until(() -> core.listNamespacedConfigMap(NAMESPACE).fieldSelector("metadata.name=" + owned).execute().getItems().isEmpty());
      }
    }
  }

  static V1ConfigMap configMap(String name, Map<String, String> labels, Map<String, String> data) {
    var metadata = new V1ObjectMeta().name(name).namespace(NAMESPACE).labels(labels);
    return new V1ConfigMap().apiVersion("v1").kind("ConfigMap").metadata(metadata).data(data);
  }

  static V1ConfigMap create(V1ConfigMap made) throws ApiException {
    return core.createNamespacedConfigMap(NAMESPACE, made).execute();
  }

  static V1ConfigMap read(String name) throws ApiException {
    return core.readNamespacedConfigMap(name, NAMESPACE).execute();
  }

  static V1ConfigMap merge(String name, String body) throws ApiException {
    return patch(name, V1Patch.PATCH_FORMAT_JSON_MERGE_PATCH, body);
  }

  static V1ConfigMap patch(String name, String format, String body) throws ApiException {
    return PatchUtils.patch(V1ConfigMap.class,
        () -> core.patchNamespacedConfigMap(name, NAMESPACE, new V1Patch(body)).buildCall(null), format, client);
  }

  static List<String> names(V1ConfigMapList list) {
    return list.getItems().stream().map(KubernetesObject::getMetadata).map(V1ObjectMeta::getName).collect(Collectors.toList());
  }

  /** The call must be refused like this; gives the parsed Status. */
  static V1Status refused(int code, String reason, Step call) throws Exception {
    try {
      call.run();
    } catch (ApiException error) {
      V1Status status = client.getJSON().deserialize(error.getResponseBody(), V1Status.class);
      same(error.getCode(), code);
      same(status.getReason(), reason);
      return status;
    }
    throw new AssertionError("it was not refused");
  }

  /** Waits for this among what comes. */
  static void until(BlockingQueue<String> seen, String want) throws InterruptedException {
    String got;
    do {
      got = seen.poll(LIMIT_SECONDS, TimeUnit.SECONDS);
    } while (got != null && !got.equals(want));
    same(got, want);
  }

  /** Asks until it holds. */
  static void until(Callable<Boolean> holds) throws Exception {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT_SECONDS);
    while (!holds.call()) {
      if (System.nanoTime() > end) {
        throw new AssertionError("it never came to hold");
      }
      Thread.sleep(20);
    }
  }

  static void same(Object got, Object want) {
    if (!Objects.equals(got, want)) {
      throw new AssertionError(got + " is not " + want);
    }
  }

  static void step(String name, Step step) {
    try {
      step.run();
      System.out.println("ok " + name);
    } catch (Throwable error) {
      error.printStackTrace();
      System.out.println("FAIL " + name + ": " + String.valueOf(error).replaceAll("\\s+", " "));
    }
  }
}
