"""Processes that we start end with the one that started them, also where that is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from data_pipelines.children import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""
CITY = """
import sys
from data_pipelines.minicity import CityConfig, write
if __name__ == "__main__":
    print(0, flush=True)
    write(sys.argv[1], CityConfig(blocks=2, size=128), processes=2)
"""
LOADER = """
import time
import numpy as np
from data_pipelines.loaders import Reader, Span, batches

class Slow(Reader):
    def images(self, step):
        return 1

    def read(self, step, number, count):
        time.sleep(0.01)
        return {"source": Span(0, 1, {"row": np.array([step])})}

if __name__ == "__main__":
    for step, _ in batches(Slow(), 0, 10**6, threads=1, workers=2, prefetch=1):
        time.sleep(0.1)
        print(step, flush=True)
"""


def processes():
    """{number: number of the parent} of all processes that run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            found[int(folder.name)] = int(parent)
    return found


def children(parent):
    running = processes()
    mine = {number for number, of in running.items() if of == parent}
    return mine.union(*map(children, mine))


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are looked up in /proc")
@pytest.mark.parametrize(
    ("program", "workers"),
    [(POOL, 1), pytest.param(CITY, 2, marks=pytest.mark.long), pytest.param(LOADER, 2, marks=pytest.mark.long)],
    ids=["pool", "city", "loader"],
)
def test_workers_of_a_killed_process_end(tmp_path, program, workers):
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, tmp_path / "program.py", tmp_path / "city"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout.readline()
        until = time.monotonic() + 30
        while len(started := children(parent.pid)) <= workers and time.monotonic() < until:  # and the tracker
            time.sleep(0.1)
        time.sleep(2 if program is CITY else 0)  # so that they draw
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while (left := started & processes().keys()) and time.monotonic() < until:
        time.sleep(0.05)
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert len(started) == workers + 1 and not left
