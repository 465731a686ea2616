# Lists the pods of its own namespace with the official Python client (pip install kubernetes).
#
#   kemudi run --allow 'get,list pods' -- python3 examples/app.py
from kubernetes import client, config

config.load_incluster_config()
with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
    namespace = file.read()
for pod in client.CoreV1Api().list_namespaced_pod(namespace).items:
    print(pod.metadata.name, pod.status.phase)
