"""The official Python client's exec, attach and port-forward into the pod `web`: one line a step, `ok NAME` or `FAIL NAME: why`."""

import traceback

from kubernetes import client, config
from kubernetes.client import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config()
core = client.CoreV1Api()


def same(got, want):
    assert got == want, f"{got!r} is not {want!r}"


def run(command, **options):
    wanted = {"stderr": True, "stdin": False, "stdout": True, "tty": False, **options}
    return stream(core.connect_get_namespaced_pod_exec, "web", "default", container="main", command=command, **wanted)


def exec_gives_output():
    same(run(["sh", "-c", "echo out; echo err >&2"]).replace("err\n", ""), "out\n")


def exec_gives_the_exit_code():
    session = run(["sh", "-c", "echo out; echo err >&2; exit 7"], _preload_content=False)
    session.run_forever(timeout=20)
    same((session.read_stdout(), session.read_stderr(), session.returncode), ("out\n", "err\n", 7))


def exec_takes_input():
    session = run(["sh", "-c", "read word; echo got $word; read word; echo and $word"], stdin=True, _preload_content=False)
    session.write_stdin("one\n")
    same(session.readline_stdout(timeout=20), "got one")
    session.write_stdin("two\n")
    same(session.readline_stdout(timeout=20), "and two")
    session.run_forever(timeout=20)
    same(session.returncode, 0)


def exec_has_a_terminal():
    # What is typed and the size travel apart: either may be there first.
    script = "tty; read size; until [ \"$(stty size)\" = '30 70' ]; do sleep 0.01; done; stty size"
    session = run(["sh", "-c", script], stdin=True, stderr=False, tty=True, _preload_content=False)
    same(session.readline_stdout(timeout=20), "/dev/pts/0\r")
    session.write_channel(4, '{"Width": 70, "Height": 30}')
    session.write_stdin("\n")
    session.run_forever(timeout=20)
    same(session.read_stdout().split(), ["30", "70"])


def exec_carries_bytes():
    session = run(["head", "-c", "300000", "/dev/zero"], _preload_content=False, binary=True)
    session.run_forever(timeout=20)
    same(session.read_stdout(), bytes(300000))


def exec_is_refused():
    try:
        stream(core.connect_get_namespaced_pod_exec, "none", "default", command=["ls"], stdout=True)
    except ApiException as error:
        assert "404" in str(error), error
        return
    raise AssertionError("it was not refused")


def attach_gives_output():
    session = stream(
        core.connect_get_namespaced_pod_attach, "web", "default", container="echo", stdin=True, stdout=True, stderr=True,
        tty=False, _preload_content=False,
    )
    session.write_stdin("hello\n")
    same(session.readline_stdout(timeout=20), "heard hello")
    session.close()


def port_forward_carries_bytes():
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", "default", ports="7000")
    socket = forward.socket(7000)
    socket.setblocking(True)
    socket.sendall(b"stressed\n")
    data = b""
    while piece := socket.recv(1024):
        data += piece
    same((data, forward.error(7000)), (b"desserts", None))


def port_forward_tells_what_is_wrong():
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", "default", ports="9")
    socket = forward.socket(9)
    socket.setblocking(True)
    same(socket.recv(1024), b"")
    assert "connection refused" in forward.error(9), forward.error(9)


STEPS = [
    exec_gives_output,
    exec_gives_the_exit_code,
    exec_takes_input,
    exec_has_a_terminal,
    exec_carries_bytes,
    exec_is_refused,
    attach_gives_output,
    port_forward_carries_bytes,
    port_forward_tells_what_is_wrong,
]

for step in STEPS:
    try:
        step()
        print("ok", step.__name__, flush=True)
    except Exception as error:
        traceback.print_exc()
        print(f"FAIL {step.__name__}: {' '.join(str(error).split())}", flush=True)
