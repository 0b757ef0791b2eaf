"""Two processes on this machine train as one does, and leave together when one of them is told to."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from host_processes import ROOT, records, train

from jaxvpr import weights

SIMULATOR = ROOT / "launch" / "simulate_hosts.py"
pytestmark = pytest.mark.long


def simulate(arguments, environment, folder=ROOT):
    command = [sys.executable, str(SIMULATOR), *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )


def test_two_processes_train_as_one_and_leave_together(tiny_recipe, tmp_path, environment):
    """Plain SGD at a rate that does not blow rounding up, so that weights can be compared closely. The two processes
    have each a part of the larger parameters, and two steps in a call."""
    changes = "optimizer.name=sgd,optimizer_extra.name=sgd,optimizer.rate=2e-4,optimizer_extra.rate=3e-3"
    changes += ",mesh.model=2,eval.baselines=false,eval.localize=true,ema.decay=0.5"
    one, two = tmp_path / "one", tmp_path / "two"
    train(environment, 1, 2, [f"--config={tiny_recipe},{changes}", f"--workdir={one}"])

    # Process 1 alone is told to leave: both save the same step, and end without measuring.
    both = [f"--config={tiny_recipe},{changes},mesh.fsdp_mib=0.001,steps_per_call=2", f"--workdir={two}"]
    said = train(environment, 2, 1, both, "told", status=75)
    assert "stopped before the end" in said[0]
    assert not (two / "metrics.json").exists()
    left = max(int(path.name) for path in (two / "checkpoints").iterdir())
    assert left in (6, 8, 10) and [r["step"] for r in records(two) if "loss" in r] == list(range(left))
    ended = simulate(["--hosts=2", "--devices=1", "--", *both], environment)
    assert ended.returncode == 0 and f"resumed at step {left} of 12" in ended.stdout, ended.stdout

    results = [json.loads((folder / "metrics.json").read_text())["results"] for folder in (one, two)]
    assert results[0] == results[1] and results[0][0]["localization"]["classes"] > 8
    # Half of each head's prototypes lay with each host.
    ours, theirs = (np.load(folder / "classes.npy") for folder in (one, two))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    first, second = records(one), records(two)
    assert [sorted(record) for record in first] == [sorted(record) for record in second]
    for ours, theirs in zip(first, second, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
    ours, theirs = (weights.read(folder / "model.safetensors") for folder in (one, two))
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        np.testing.assert_allclose(theirs[name], tensor, atol=1e-5, rtol=1e-5, err_msg=name)


def test_a_late_host_is_waited_for_and_named(tiny_recipe, tmp_path, environment):
    """Longer than the 30 seconds after which a collective of gloo ends the run of a host."""
    short = f"--config={tiny_recipe},epochs=1,eval.baselines=false,test_data={{}}"
    said = train(environment, 2, 1, [short, f"--workdir={tmp_path / 'run'}"], "late")
    for what in (r"the data set .*", "compiling the training step"):
        assert re.search(rf"{what}: waiting since 20 s for process \[1\] of 2", said[0]), said[0]
    assert len(records(tmp_path / "run")) == 7


def test_hosts_that_disagree_end_alike(tiny_recipe, photo_tree, tmp_path, environment):
    """Data may lie elsewhere on each host, and threads are its own; all else decides the model."""
    both = [f"--config={tiny_recipe},epochs=1,eval.baselines=false,test_data={{}}", f"--workdir={tmp_path / 'run'}"]
    other = ["--config.optimizer.rate=0.5", "--config.loader.threads=1"]
    for text in train(environment, 2, 1, both, last=other, status=2):
        differ = text.partition("do not agree on the command")[2]
        assert (
            re.search(r"optimizer\.rate: '[\d.]+' on host 0, '0\.5' on host 1", differ) and "threads" not in differ
        ), text
    moved = shutil.copytree(photo_tree, tmp_path / "photos")
    next((moved / "images" / "train").iterdir()).unlink()
    for text in train(environment, 2, 1, both, last=[f"--config.train_data.root={moved}"], status=2):
        assert re.search(r"do not agree on the data set .*photos.*\n.*images: 75 on host 0, 74 on host 1", text), text
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_plans_that_differ_end_all_hosts_and_one_host_decides_which_validation_is_better(
    tiny_recipe, tmp_path, environment
):
    """Every host computes both, perhaps on a processor that rounds to another side."""
    run = f"--workdir={tmp_path / 'run'}"
    both = [f"--config={tiny_recipe},epochs=4,steps_per_epoch=1,eval.baselines=false,test_data={{}}", run]
    for said in train(environment, 2, 1, both, "plans otherwise", status=2):
        assert re.search(r"do not agree on the plan of step 0.*\n +source: '\w+' on host 0, '\w+' on host 1", said), (
            said
        )
    train(environment, 2, 1, [*both, "--config.best.patience=1"], "measures otherwise")
    measured = [record["val/R@1"] for record in records(tmp_path / "run") if "epoch" in record]
    assert measured == [51, 52, 53, 54], "the second host would have ended after the second epoch"
