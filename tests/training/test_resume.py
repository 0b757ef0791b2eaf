"""A run that is killed and started again ends as the run that was left alone: weights, log and recall, to the bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import clip_recipes
import pytest

SCRIPT = Path(__file__).with_name("killed_run.py")
pytestmark = pytest.mark.long


def run(config, folder, step=-1, name="SIGKILL"):
    file = folder.with_suffix(".json")
    file.write_text(config.to_json())
    environment = {
        **os.environ,
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_NUMPY_DTYPE_PROMOTION": "standard",  # see conftest.py beside this file
    }
    command = [sys.executable, str(SCRIPT), str(file), str(folder), str(step), name]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def with_workers(config, workers):
    changed = config.copy_and_resolve_references().unlock()
    changed.loader.workers, changed.checkpoint.every_steps = workers, 2
    return changed.lock()


@pytest.mark.parametrize("kind", ["images", "both"])
def test_killed_run_equals_the_uninterrupted_one(kind, tiny_config, drive_tree, tmp_path):
    """On images, and on images and clips in one step."""
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    tiny_config = tiny_config if kind == "images" else clip_recipes.both(tiny_config, drive_tree)
    assert run(with_workers(tiny_config, 0), alone).returncode == 0

    # Told to leave in the middle of the first group, killed in the middle of the second, other numbers of workers.
    left = run(with_workers(tiny_config, 0), broken, 3, "SIGTERM")
    assert left.returncode == 0, left.stderr
    assert "stopped before the end" in left.stderr
    assert not (broken / "metrics.json").exists()
    killed = run(with_workers(tiny_config, 1), broken, 9)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    steps = sorted(int(path.name) for path in (broken / "checkpoints").iterdir() if path.name.isdigit())
    assert steps[-1] in (6, 8), "the kill came between checkpoints"
    ended = run(with_workers(tiny_config, 0), broken)
    assert ended.returncode == 0, ended.stderr

    for name in ("model.safetensors", "log.jsonl"):
        assert (alone / name).read_bytes() == (broken / name).read_bytes(), name
    results = [json.loads((folder / "metrics.json").read_text())["results"] for folder in (alone, broken)]
    assert results[0] == results[1]
    assert [r["step"] for r in map(json.loads, (alone / "log.jsonl").read_text().splitlines()) if "loss" in r] == [
        *range(12)
    ]


def test_a_finished_run_trained_longer_equals_a_longer_one(tiny_config, tmp_path):
    """Where nothing depends on the length; the best checkpoint is chosen among all."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective.margin_warmup, config.epochs = 0.0, 3
    for group in ("optimizer", "optimizer_extra"):
        config[group].update(schedule="constant", warmup=0)
    shorter = config.copy_and_resolve_references()
    shorter.epochs = 2
    alone, twice = tmp_path / "alone", tmp_path / "twice"
    for recipe, folder in ((config, alone), (shorter, twice), (config, twice)):
        done = run(recipe, folder)
        assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "log.jsonl"):
        assert (alone / name).read_bytes() == (twice / name).read_bytes(), name
