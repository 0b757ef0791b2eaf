"""One, two and four hosts train the same model; a run of four that loses one goes on with as many, or with others."""

import json
import shutil

import numpy as np
import pytest
from host_processes import kill, records, train

from jaxvpr import weights

pytestmark = pytest.mark.long
STEPS = 12
# Plain SGD at rates that do not blow rounding up, so that weights can be compared closely.
CHANGES = (
    "optimizer.name=sgd,optimizer_extra.name=sgd,optimizer.rate=3e-4,optimizer_extra.rate=3e-3,mesh.model=2,"
    "checkpoint.every_steps=1,checkpoint.keep=99,eval.baselines=false,eval.localize=true"
)


@pytest.fixture(scope="module")
def environment(environment, quick_compiling):
    """Compiled without most optimisations also where other tests are not: most of the time goes there."""
    return environment | quick_compiling


@pytest.fixture(scope="module")
def command(tiny_recipe):
    """The command of a run in a folder, with further changes."""
    return lambda folder, more="": [f"--config={tiny_recipe},{CHANGES}{more}", f"--workdir={folder}"]


@pytest.fixture(scope="module")
def four(command, environment, tmp_path_factory):
    """The folder of a run of four hosts with two devices each that nothing disturbed."""
    folder = tmp_path_factory.mktemp("four") / "run"
    train(environment, 4, 2, command(folder))
    return folder


def assert_close(found, wanted):
    """Log, answers and weights of two runs on other devices are alike but for rounding, and weights moved by more."""
    results = [json.loads((folder / "metrics.json").read_text())["results"] for folder in (found, wanted)]
    assert results[0] == results[1]
    first, second = records(found), records(wanted)
    assert [sorted(record) for record in first] == [sorted(record) for record in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert sum(record["learning_rate"] * record["grad_norm"] for record in second if "loss" in record) > 0.05
    np.testing.assert_allclose(*(np.load(folder / "classes.npy") for folder in (found, wanted)), atol=1e-5)
    ours, theirs = (weights.read(folder / "model.safetensors") for folder in (found, wanted))
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("hosts", "devices"), [(1, 8), (1, 2), (2, 2)])
def test_fewer_hosts_train_the_same_model(four, command, environment, tmp_path, hosts, devices):
    train(environment, hosts, devices, command(tmp_path / "run"))
    assert_close(tmp_path / "run", four)


@pytest.fixture(scope="module")
def killed(command, environment, tmp_path_factory):
    """(folder of a run of four hosts of which any one was killed before any step but the first, and which and when)."""
    victim, step = (int(number) for number in np.random.default_rng().integers((0, 1), (4, STEPS)))
    folder = tmp_path_factory.mktemp("killed") / "run"
    kill(environment, 4, 2, command(folder), victim, step)
    saved = sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert not saved or saved[-1] <= step, (victim, step, saved)
    assert not (folder / "metrics.json").exists()
    return folder, f"host {victim} of 4 was killed before step {step}; checkpoints of steps {saved}"


def test_a_run_that_lost_a_host_ends_as_one_that_lost_none(four, killed, command, environment, tmp_path):
    folder, what = killed
    train(environment, 4, 2, command(shutil.copytree(folder, tmp_path / "run")))
    for name in ("model.safetensors", "classes.npy", "log.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (four / name).read_bytes(), f"{name}: {what}"
    results = [json.loads((of / "metrics.json").read_text())["results"] for of in (tmp_path / "run", four)]
    assert results[0] == results[1], what


# What a run of 4 hosts with 2 devices each, mesh.model=2 and whole parameters goes on as: hosts, devices of each,
# mesh.model, mesh.fsdp_mib.
RESTORES = [(2, 2, 2, 0), (2, 2, 1, 0.001), (2, 4, 0, 0), (1, 8, 8, 0.001), (1, 1, 1, 0)]


@pytest.mark.parametrize(("hosts", "devices", "model", "fsdp"), RESTORES)
def test_a_run_that_lost_a_host_goes_on_with_others(
    four, killed, command, environment, tmp_path, hosts, devices, model, fsdp
):
    folder, what = killed
    run = shutil.copytree(folder, tmp_path / "run")
    said = train(environment, hosts, devices, command(run, f",mesh.model={model},mesh.fsdp_mib={fsdp}"))
    assert ("resumed at step" in said[0]) == ("steps []" not in what), what
    assert_close(run, four)


def test_a_run_of_two_hosts_goes_on_with_four(four, command, environment, tmp_path):
    kill(environment, 2, 2, command(tmp_path / "run", ",mesh.model=4,mesh.fsdp_mib=0.001"), 1, 7)
    said = train(environment, 4, 2, command(tmp_path / "run"))
    assert "resumed at step" in said[0]
    assert_close(tmp_path / "run", four)
