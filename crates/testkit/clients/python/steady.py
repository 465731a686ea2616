"""The official Python client at steady work, for the fault runs: a get and a list in turns, so many a second, and a watch;
a line for each call and each change. With what load_incluster_config gives, and nothing set."""

import sys
import threading
import time

from kubernetes import client, config, watch

config.load_incluster_config()
core = client.CoreV1Api()
with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
    NAMESPACE = file.read()
lock = threading.Lock()
pending = {}


def now():
    return time.time_ns() // 1000


def tell(*words):
    text = " ".join(str(word) for word in words).replace("\n", " ").replace("\r", " ")
    with lock:
        print(text, flush=True)


def call(number):
    begun = pending[number] = now()
    try:
        if number % 2 == 0:
            core.read_namespaced_config_map("still-01", NAMESPACE)
        else:
            core.list_namespaced_config_map(NAMESPACE)
        tell("call", begun, now(), "ok")
    except Exception as error:
        tell("call", begun, now(), "failed", type(error).__name__, error)
    del pending[number]


def follow():
    while True:
        try:
            for event in watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE):
                if event["object"].metadata.name == "beat":
                    tell("beat", event["object"].data["n"], now())
        except Exception as error:
            tell("watch failed", now(), type(error).__name__, error)
            # The library leaves it to its user to begin again.
            time.sleep(0.1)


def pace(calls_per_second):
    begun = time.monotonic()
    number = 0
    while True:
        time.sleep(max(0, begun + number / calls_per_second - time.monotonic()))
        threading.Thread(target=call, args=(number,), daemon=True).start()
        number += 1


threading.Thread(target=follow, daemon=True).start()
threading.Thread(target=pace, args=(int(sys.argv[1]),), daemon=True).start()
sys.stdin.read()
for begun in list(pending.values()):
    tell("open", begun)
