"""Processes that find one another by what a cluster's environment says, on this machine."""

import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = """
import logging, os, sys
from jaxvpr.errors import AGAIN, HostLost, UserError
from jaxvpr.parallel import joining
import jax

logging.basicConfig(format="%(message)s")
if "GCE_METADATA_IP" in os.environ:  # JAX sets it where it sees no chip
    del os.environ["TPU_SKIP_MDS_QUERY"]
for change in sys.argv[2:]:
    name, _, value = change.partition("=")
    setattr(joining, name, float(value))
try:
    joining.start(*eval(sys.argv[1]))
except UserError as error:
    sys.exit(f"error: {error}")
except HostLost as error:
    print(error, file=sys.stderr)
    os._exit(AGAIN)
print(jax.process_index(), "of", jax.process_count(), "GPUs", jax.config.values["jax_cuda_visible_devices"])
"""
CLUSTERS = ("JAX_COORDINATOR", "JAX_NUM", "JAX_PROCESS", "SLURM", "OMPI", "TPU", "JOB_COMPLETION", "GCE", "KUBERNETES")


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def process(variables, start='("auto",)', *changes):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(CLUSTERS)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, start, *changes],
        env=clean | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(*processes):
    """What each prints, and its status."""
    try:
        texts = [one.communicate(timeout=60) for one in processes]
    finally:
        for one in processes:
            one.kill()
    return [(one.returncode, out.strip(), err) for one, (out, err) in zip(processes, texts, strict=True)]


def joined(both, gpus=("all", "all")):
    """Two processes with these variables are one run."""
    for number, (status, out, err) in enumerate(said(*(process(variables) for variables in both))):
        assert (status, out) == (0, f"{number} of 2 GPUs {gpus[number]}"), err


@pytest.mark.long
def test_by_explicit_variables(port):
    both = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    joined([both | {"JAX_PROCESS_ID": str(number)} for number in (0, 1)])


@pytest.mark.long
def test_by_the_variables_of_a_jobset(port):
    both = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2", "KUBERNETES_SERVICE_HOST": "x"}
    joined([both | {"JOB_COMPLETION_INDEX": str(number)} for number in (0, 1)])


SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.[1-2]",
    "SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1",
}  # fmt: skip


@pytest.mark.long
def test_by_the_variables_of_slurm(port):
    """Two nodes of a task each, which has all GPUs; one node of two tasks, which have one each; and a user's own."""
    both = SLURM | {"JAX_COORDINATOR_PORT": str(port)}
    nodes = both | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}
    joined([nodes | {"SLURM_PROCID": str(number), "SLURM_NODEID": str(number)} for number in (0, 1)])
    tasks = both | {"SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    tasks = [tasks | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in (0, 1)]
    joined(tasks, ("0", "1"))
    joined([one | {"JAX_LOCAL_DEVICE_IDS": "0,1"} for one in tasks], ("0,1", "0,1"))


@pytest.mark.long
def test_by_the_variables_of_a_tpu_pod_of_kubernetes(port):
    both = {
        "JAX_FORCE_TPU_INIT": "1", "TPU_WORKER_HOSTNAMES": "localhost,localhost", "JAX_COORDINATOR_PORT": str(port),
        "JOB_COMPLETION_INDEX": "0", "MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0",
        "MEGASCALE_COORDINATOR_ADDRESS": "localhost:8080",
    }  # fmt: skip
    joined([both | {"TPU_WORKER_ID": str(number)} for number in (0, 1)])


@pytest.mark.long
def test_by_what_the_machines_of_a_tpu_pod_are_told(port):
    """The attributes of a TPU VM, as the metadata service of its cloud gives them."""
    pytest.importorskip("requests")
    servers = [metadata(number) for number in (0, 1)]
    both = {"JAX_FORCE_TPU_INIT": "1", "JAX_COORDINATOR_PORT": str(port)}
    try:
        joined([both | {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"} for server in servers])
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def metadata(number):
    attributes = {
        "agent-worker-number": str(number),
        "worker-network-endpoints": "unknown:unknown:127.0.0.1,unknown:unknown:127.0.0.2",
        "tpu-env": "ACCELERATOR_TYPE: 'v4-16'\n",
    }

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = attributes[self.path.rpartition("/")[2]].encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.long
def test_hosts_that_do_not_come_are_waited_for_a_while(port):
    """Process 0 without the other, and the other without process 0: both leave, and ask for a restart."""
    starts = [f'("localhost:{port}", 2, 0, 4)', f'("localhost:{port + 1}", 2, 1, 4)']
    for status, _, err in said(*(process({}, start) for start in starts)):
        assert status == os.EX_TEMPFAIL and "*** Check failure" not in err
        assert re.search(r"(not all of 2 processes came|process 0 .* did not answer) within 4 s \(hosts.wait\)", err)


@pytest.mark.long
def test_a_port_that_is_held_is_waited_for_and_never_shared(port):
    """JAX shares it: the processes of two runs would meet each other's process 0."""
    other = process({}, f'("localhost:{port}", 2, 0)')
    try:
        while True:  # until it listens
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        late = [process({}, f'("localhost:{port}", 1, 0)', f"PORT_SECONDS={seconds}") for seconds in (1, 60)]
        ((status, _, err),) = said(late[0])
        assert status == 1 and f"port {port} of this host is held" in err
        assert late[1].poll() is None
        other.kill()
        assert said(late[1])[0][:2] == (0, "0 of 1 GPUs all")
    finally:
        said(other)


def test_a_name_that_no_host_has(monkeypatch):
    import jax

    from jaxvpr.errors import UserError
    from jaxvpr.parallel import joining

    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("it must not start"))
    with pytest.raises(UserError, match=r"--coordinator=no-such-host\.invalid:80: no host has this name"):
        joining.start("no-such-host.invalid:80", 2, 1)
    with pytest.raises(UserError, match="--coordinator=localhost:0 must be HOST:PORT"):
        joining.start("localhost:0", 2, 1)


@pytest.mark.long
def test_a_host_whose_process_0_goes_away_before_all_have_come_is_told_so(port):
    """It came back before the others had noticed that it was gone; they then end, and it must not wait for them."""
    over = threading.Event()

    def serve():
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(0.1)
            while not over.is_set():
                with suppress(TimeoutError), server.accept()[0] as connection:
                    connection.settimeout(1)
                    connection.recv(1)

    server = threading.Thread(target=serve)
    server.start()
    try:
        ((status, _, err),) = said(process({}, f'("127.0.0.1:{port}", 2, 1)'))
    finally:
        over.set()
        server.join()
    assert status == 75 and "process 0 has closed the connection before all had come" in err, err
    assert "*** Check failure" not in err
