// Lists the pods of its own namespace with the official JavaScript client, from inside a pod.
import { readFileSync } from "node:fs";
import { CoreV1Api, KubeConfig } from "@kubernetes/client-node";

const config = new KubeConfig();
if (process.argv[2] === "default") config.loadFromDefault();
else config.loadFromCluster();

const namespace = readFileSync("/var/run/secrets/kubernetes.io/serviceaccount/namespace", "utf8");
try {
  const pods = await config.makeApiClient(CoreV1Api).listNamespacedPod({ namespace });
  for (const pod of pods.items) console.log([pod.metadata.namespace, pod.metadata.name, pod.status.phase].join("\t"));
} catch (error) {
  console.error(error.body ?? error);
  process.exitCode = 1;
}
