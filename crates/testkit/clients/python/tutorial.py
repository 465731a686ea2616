from kubernetes import client, config

config.load_incluster_config()
api = client.CoreV1Api()
for pod in api.list_pod_for_all_namespaces().items:
    print(pod.metadata.namespace, pod.metadata.name, pod.status.phase, sep="\t")
