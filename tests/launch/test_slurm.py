"""launch/slurm.sh in a real SLURM: two nodes that are daemons on this machine."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from waiting import steps, until

from jaxvpr.parallel import environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
SwitchType=switch/none
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture
def folder():
    """For the daemons. Its name is short, as sockets lie in it, whose paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def slurm(tool, folder):
    """Starts the daemons; slurm(*command) runs a command of SLURM and gives what it prints."""
    programs = [tool("slurmctld"), tool("slurmd"), tool("sbatch")]
    if os.geteuid():
        pytest.skip("the daemons of SLURM need root")
    (folder / "state").mkdir()
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=socket.gethostname().partition(".")[0], ports=ports, folder=folder))
    # As a user's own, without what a cluster that runs the tests may have set.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment |= {
        "SLURM_CONF": str(config), "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1", "JAX_NUMPY_DTYPE_PROMOTION": "standard",
    }  # fmt: skip

    def call(*command, cwd=ROOT):
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    daemons = [[programs[0], "-D"], *([programs[1], "-D", "-N", f"127.0.0.{node}"] for node in (1, 2))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = [subprocess.Popen(daemon, env=environment, **quiet) for daemon in daemons]
    try:
        until(lambda: call("sinfo", "--noheader", "--format=%D %T").split() == ["2", "idle"])
        yield call
    finally:
        call("scancel", "--user=root", "--signal=KILL")
        for daemon in reversed(running):
            daemon.terminate()
            daemon.wait(30)


def submit(slurm, log, *arguments, cwd=ROOT):
    flags = ("--parsable", "--cpus-per-task=1", f"--output={log}")
    return slurm("sbatch", *flags, "launch/slurm.sh", *arguments, cwd=cwd).strip()


def facts(slurm, job):
    return dict(re.findall(r"(\w+)=(\S+)", slurm("scontrol", "show", "job", job)))


def come_back(slurm, job):
    """Waits until a job is in the queue again, and lets it begin after a moment, as SLURM would after two minutes."""
    until(lambda: (facts(slurm, job)["JobState"], facts(slurm, job)["Restarts"]) == ("PENDING", "1"), 60)
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now+2")


def ended(slurm, job):
    """The state of a job when it has ended, and its exit code."""
    until(lambda: facts(slurm, job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), 180)
    return facts(slurm, job)["JobState"], facts(slurm, job)["ExitCode"]


def test_two_nodes_are_one_run_that_saves_when_told_to_stop_and_goes_on(slurm, tiny_recipe, compiled, tmp_path):
    """By `--coordinator=auto`; and a mistake is neither run again nor queued again."""
    log, run = tmp_path / "log", tmp_path / "run"
    recipe = f"--config={tiny_recipe},epochs=4,eval.baselines=false,test_data={{}}"
    job = submit(slurm, log, recipe, f"--workdir={run}")
    until(lambda: len(steps(run)) > 2, 180)
    slurm("scancel", "--signal=TERM", job)
    come_back(slurm, job)
    assert ended(slurm, job) == ("COMPLETED", "0:0"), log.read_text()
    said = log.read_text()
    assert "2 x cpu, 2 process(es)" in said and re.search(r"resumed at step \d+ of 24", said), said
    assert said.count("ended with status 75, as it was told to") == 2 and steps(run) == list(range(24))
    job = submit(slurm, log, f"--config={tiny_recipe},batch=0", f"--workdir={tmp_path / 'none'}")
    assert ended(slurm, job) == ("FAILED", "2:0")
    assert log.read_text().count("ended with status 2; is not started again") == 2


def test_the_first_of_several_nodes_is_as_slurm_says(slurm):
    """How names of nodes are shortened; SLURM itself writes them out."""
    numbers = {"SLURM_JOB_ID": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    for names in ("a", "a,b", "a[1-2]", "n[007,009-012]", "r[2-3]n[07,09]", "big.example.org,n[1-2]", "127.0.0.[1-2]"):
        first, *_ = slurm("scontrol", "show", "hostnames", names).split()
        assert environment.seat({**numbers, "SLURM_STEP_NODELIST": names}).coordinator == f"{first}:61440"


PROGRAM = """
import os, pathlib, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))  # from SLURM, and from the launcher too
if os.environ.get("SLURM_RESTART_COUNT"):
    print("resumed", *sys.argv[1:], flush=True)
    sys.exit(0)
print("trains", flush=True)
while not told:
    time.sleep(0.1)
time.sleep(1)
print("saved", flush=True)
sys.exit(75)
"""


def test_a_job_that_is_told_to_stop_saves_and_comes_back(slurm, clone, tmp_path):
    """As SLURM tells it before its hours are over, and when another job takes its nodes."""
    log = tmp_path / "log"
    folder = clone(PROGRAM)
    job = submit(slurm, log, "--config=x y", "--workdir=run", cwd=folder)
    until(lambda: log.exists() and log.read_text().count("trains") == 2)
    slurm("scancel", "--signal=TERM", job)
    until(lambda: log.read_text().count("saved") == 2)
    come_back(slurm, job)
    assert ended(slurm, job) == ("COMPLETED", "0:0"), log.read_text()
    assert log.read_text().count("resumed --config=x y --workdir=run --coordinator=auto") == 2


def test_a_job_that_its_user_cancels_does_not_come_back(slurm, clone, tmp_path):
    log = tmp_path / "log"
    job = submit(slurm, log, "--config=x", "--workdir=run", cwd=clone(PROGRAM))
    until(lambda: log.exists() and log.read_text().count("trains") == 2)
    slurm("scancel", job)
    assert ended(slurm, job)[0] == "CANCELLED"
    until(lambda: log.read_text().count("saved") == 2)
    assert facts(slurm, job)["JobState"] == "CANCELLED" and facts(slurm, job)["Restarts"] == "0"


def test_a_job_that_loses_a_node_comes_back(slurm, clone, tmp_path):
    log = tmp_path / "log"
    job = submit(slurm, log, "--config=x", "--workdir=run", cwd=clone(PROGRAM))
    until(lambda: log.exists() and log.read_text().count("trains") == 2)
    slurm("scontrol", "update", "NodeName=127.0.0.2", "State=DOWN", "Reason=test")
    until(lambda: facts(slurm, job)["Restarts"] == "1")
    slurm("scontrol", "update", "NodeName=127.0.0.2", "State=RESUME")
    come_back(slurm, job)
    assert ended(slurm, job) == ("COMPLETED", "0:0"), log.read_text()
    assert log.read_text().count("resumed") == 2
