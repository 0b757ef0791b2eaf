"""A host that is killed in the middle of a training comes back, and the run ends as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import steps, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def simulate(folder, tiny_recipe, compiled):
    """simulate(name, *flags) -> two hosts with their launchers that train into the folder of this name."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUMPY_DTYPE_PROMOTION": "standard"}
    recipe = f"--config={tiny_recipe},epochs=4,checkpoint.every_steps=2,eval.baselines=false,test_data={{}}"
    started = []

    def start(name, *flags):
        command = [sys.executable, str(ROOT / "launch" / "simulate_hosts.py"), "--restarts=4", *flags, "--"]
        with (folder / f"{name}.console").open("w") as console:
            running = subprocess.Popen(
                [*command, recipe, f"--workdir={folder / name}"], env=environment, stdout=console, cwd=ROOT
            )
        started.append(running)
        return running

    yield start
    for running in started:
        running.terminate()
        running.wait(60)


@pytest.fixture(scope="module")
def uninterrupted(simulate, folder):
    assert simulate("alone").wait(500) == 0, (folder / "alone.console").read_text()
    return folder / "alone"


def process_of(host, folder):
    """The number of the process that trains on a host: the launcher's child."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = entry.read_text().split("\0")
            if f"--workdir={folder}" in words and f"--process={host}" in words and words[1] == "-m":
                return int(entry.parent.name)
    return None


@pytest.mark.long
@pytest.mark.parametrize(("host", "pause"), [(0, "40"), (1, "1")])
def test_a_host_killed_at_any_step_comes_back_and_nothing_is_lost(simulate, uninterrupted, folder, host, pause):
    """After one second it comes back before the others have noticed that it was gone."""
    name, kill_after = f"kill {host}", random.randint(3, 14)
    running, run = simulate(name, f"--pause={pause}"), folder / name
    until(lambda: len(steps(run)) >= kill_after, 300)
    os.kill(process_of(host, run), signal.SIGKILL)
    status, said = running.wait(500), (folder / f"{name}.console").read_text()
    assert status == 0 and f"[host {host}] restart.py: ended with status 137; starts again in {pause} s" in said, said
    assert "resumed at step" in said, (kill_after, said)
    assert steps(run) == list(range(24))
    for file in ("model.safetensors", "log.jsonl"):
        assert (run / file).read_bytes() == (uninterrupted / file).read_bytes(), (file, kill_after)
