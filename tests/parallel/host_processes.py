"""Hosts as processes of this machine: what the tests of several hosts start, end and read."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The command line of one host. "told", it sends itself SIGTERM before step 4 and then takes its time; "late", it reads
# its data and compiles its step for longer than gloo waits; "alone", it finds no data; "killed HOST STEP", that host
# kills itself before the step; "slow to write", the first takes a while to write what was measured; "plans
# otherwise", the second does; "measures otherwise", recalls grow on the first with each epoch and fall on the second.
HOST = """
import itertools, os, signal, sys, time
import numpy as np
from data_pipelines import readers
from data_pipelines.errors import DataError
from jaxvpr.families import learning
from jaxvpr.main import console
from jaxvpr.retrieval import metrics
from jaxvpr.training import loop
from jaxvpr.training.feed import Feed

make_step, read, how = loop.make_step, readers.read, sys.argv.pop(1)


def before_each(step, act):
    def run(state, batches, turn, *tables):
        act(int(np.min(turn.number)))
        return step(state, batches, turn, *tables)

    run.lower = step.lower
    return run


def told(number):
    if number == 4 and "--process=1" in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5 if number > 4 else 0)


def killed(number):
    _, host, step = how.split()
    if number == int(step) and f"--process={host}" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)


class Late:
    def __init__(self, step):
        self.step = step

    def lower(self, *arguments):
        time.sleep(61)
        return self.step.lower(*arguments)

    def __call__(self, *arguments):
        return self.step(*arguments)


def write_late(*args, write=metrics.write_metrics):
    time.sleep(3)
    write(*args)


def read_late(*args, **kwargs):
    readers.read = read
    time.sleep(33)
    return read(*args, **kwargs)


def no_photo(*args, **kwargs):
    raise DataError("no such photo")


if how.split()[0] in ("told", "killed"):
    act = told if how == "told" else killed
    loop.make_step = lambda *args, **kwargs: before_each(make_step(*args, **kwargs), act)
def planned_otherwise(feed, draws, *rest, check=Feed.check):
    first = next(iter(draws.values()))
    first.rows[0, :2] = first.rows[0, 1::-1]
    check(feed, draws, *rest)


def measured_otherwise(*args, validate=learning._validate, of_epoch=itertools.count(1)):
    better = next(of_epoch) * (-1 if "--process=1" in sys.argv else 1)
    return {name: 50.0 + better for name in validate(*args)}


if how == "plans otherwise" and "--process=1" in sys.argv:
    Feed.check = planned_otherwise
if how == "measures otherwise":
    learning._validate = measured_otherwise
if how == "slow to write":
    metrics.write_metrics = write_late
if how == "late" and "--process=1" in sys.argv:
    loop.make_step, readers.read = lambda *args, **kwargs: Late(make_step(*args, **kwargs)), read_late
if how == "alone" and "--process=1" in sys.argv:
    readers.read = no_photo
console()
"""


def start(environment, hosts, devices, arguments, how="in time", last=(), program=HOST):
    """Starts the hosts of one command, each with so many devices, the last with further arguments.

    They have one environment, or each has its own of a list.
    """
    each = environment if isinstance(environment, list) else [environment] * hosts
    flags = {"XLA_FLAGS": re.sub(r"(device_count)=\d+", rf"\1={devices}", each[0]["XLA_FLAGS"])}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    several = [f"--coordinator=127.0.0.1:{port}", f"--processes={hosts}"] if hosts > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, how, *arguments, *several, *([f"--process={host}"] if several else []),
             *(last if host == hosts - 1 else ())],
            env=each[host] | flags, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for host in range(hosts)
    ]  # fmt: skip


def train(environment, hosts, devices, arguments, how="in time", last=(), status=0, program=HOST, seconds=600):
    """Runs the hosts together until all have ended with this status, in so many seconds; what each of them said."""
    running = start(environment, hosts, devices, arguments, how, last, program)
    try:
        said = [host.communicate(timeout=seconds)[0] for host in running]
    finally:
        for host in running:
            host.kill()
            host.wait()
            host.stdout.close()
    assert [host.returncode for host in running] == [status] * hosts, "\n".join(said)
    assert f"{hosts * devices} x cpu, {hosts} process(es)" in said[0] or status
    return said


def kill(environment, hosts, devices, arguments, victim, step):
    """Starts the hosts, of which one is killed before a step, and then the others, as a launcher does."""
    running = start(environment, hosts, devices, arguments, f"killed {victim} {step}")
    try:
        assert running[victim].wait(600) == -signal.SIGKILL
    finally:
        for host in running:
            host.kill()
        said = [host.communicate()[0] for host in running]
    assert "Traceback" not in said[victim], said[victim]


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
