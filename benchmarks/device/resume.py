"""A training that is killed after its first checkpoint and started again, beside one that is left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import side_by_side
from benchmarks.device.runner import At

RECIPE = "configs/cosplace.py:tiny"
# Long enough that a kill after the first of its checkpoints comes before its end.
CHANGES = {"epochs": 12, "steps_per_epoch": 8, "every_epochs": 12, "checkpoint.every_steps": 8}
WAYS = {"as it is": False, "deterministic": True}
SAME = ("model.safetensors", "log.jsonl")


def kill_and_resume(at: At) -> dict[str, Any]:
    """Whether weights, log and recall are the same to the bit, with `deterministic` and without.

    The runs of a wave share the device at the same time, which changes none of their numbers. Nothing that was compiled
    is kept between them: a resumed run compiles, and picks its kernels, anew.
    """
    folder = at.folder / "resume"
    ways = {"as it is": False} if at.tiny else WAYS
    started: list[subprocess.Popen[bytes]] = []

    def start(way: str, name: str) -> tuple[subprocess.Popen[bytes], Path]:
        run = folder / way.replace(" ", "_") / name
        started.append(_start(run, ways[way]))
        return started[-1], run

    try:
        alone = {way: start(way, "alone") for way in ways}
        killed = {way: start(way, "killed") for way in ways}
        steps = {way: _kill_after_checkpoint(*run) for way, run in killed.items()}
        again = {way: start(way, "killed") for way in ways}
        for process, run in (*alone.values(), *again.values()):
            if process.wait():
                raise RuntimeError(f"a training failed: {_said(run)}")
    finally:
        for process in started:
            process.kill()
            process.wait()
    same = {way: _same(alone[way][1], again[way][1]) for way in ways}
    differ = [f"{way}: {name} differs" for way, found in same.items() for name, equal in found.items() if not equal]
    return {"killed_after_step": steps, "same_to_the_bit": same, "wrong": "; ".join(differ)}


def _start(folder: Path, deterministic: bool) -> subprocess.Popen[bytes]:
    """A training in a folder, going on where one there had come to."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(side_by_side.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several share a GPU, of which each would take most
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    changes = {**CHANGES, "deterministic": deterministic}
    given = [f"--config={side_by_side.ROOT / RECIPE}", f"--workdir={folder / 'run'}"]
    command = [sys.executable, "-m", "jaxvpr.main", *given, *(f"--config.{key}={n}" for key, n in changes.items())]
    with (folder / "console.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def _said(folder: Path) -> str:
    return (folder / "console.log").read_text()[-600:]


def _kill_after_checkpoint(process: subprocess.Popen[bytes], folder: Path) -> int:
    """The step of the newest checkpoint that the killed run leaves.

    Raises:
      RuntimeError: where the run ends before it can be killed.
    """
    while not (steps := _checkpoints(folder)):
        if process.poll() is not None:
            raise RuntimeError(f"it ended before its first checkpoint: {_said(folder)}")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("it ended before it could be killed: give it more epochs")
    return max(_checkpoints(folder), default=max(steps))


def _checkpoints(folder: Path) -> list[int]:
    return [int(path.name) for path in (folder / "run" / "checkpoints").glob("*") if path.name.isdigit()]


def _same(alone: Path, killed: Path) -> dict[str, bool]:
    same = {name: (alone / "run" / name).read_bytes() == (killed / "run" / name).read_bytes() for name in SAME}
    results = [json.loads((folder / "run" / "metrics.json").read_text())["results"] for folder in (alone, killed)]
    return same | {"recall": results[0] == results[1]}
