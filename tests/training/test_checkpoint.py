"""Checkpoints: which are kept, which is best, and what happens to one that was cut short or found no room."""

import errno
import gc
import logging
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxvpr.errors import UserError
from jaxvpr.training import items
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.state import TrainState, abstract

# What orbax leaves behind when a file is cut short: coroutines that were never awaited to their end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """Frees them within the test that made them, where that warning is ignored, and not in whichever comes later."""
    yield
    gc.collect()


# Keeps one checkpoint, and is killed at the first file of another that it deletes.
KILLED = """
import os, sys
from pathlib import Path
from test_checkpoint import save
from jaxvpr.training.checkpoint import Checkpoints

unlink, folder = os.unlink, Path(sys.argv[1])

def kill(path, *args, **kwargs):
    unlink(path, *args, **kwargs)
    if not str(path).endswith(".tmp") and (folder / "2").exists():
        os._exit(9)

checkpoints = Checkpoints(folder, keep=1)
save(checkpoints, 1)
checkpoints.wait()
os.unlink = kill
save(checkpoints, 2)
checkpoints.close()
"""


def test_a_run_killed_while_it_deletes_a_checkpoint_leaves_no_damaged_one(tmp_path):
    folder = tmp_path / "checkpoints"
    path = {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}  # noqa: PTH120
    done = subprocess.run([sys.executable, "-c", KILLED, folder], env=os.environ | path, check=False)
    assert done.returncode == 9
    checkpoints = Checkpoints(folder, keep=1)
    assert checkpoints.steps() == [2] and not (folder / "deleted").exists()
    assert_is(checkpoints.restore(abstract(state(0))), 2)
    checkpoints.close()


VALUES = {10: 50.0, 20: 60.0, 30: 60.0, 40: 55.0, 50: None}


def state(value):
    """A state whose every number tells which checkpoint it is of."""
    weights = {"backbone": {"w": jnp.asarray(value + np.arange(64 * 64, dtype=np.float32).reshape(64, 64))}}
    return TrainState(
        step=jnp.asarray(value, jnp.int32),
        params=weights,
        stats={"mean": jnp.full(3, value, jnp.float32)},
        extra={"prototypes": jnp.full((2, 4, 8), value, jnp.float32)},
        shared={},
        aux={},
        opt={"model": {"mu": weights}, "heads": {}, "shared": {}},
        ema={},
        rate_scale=jnp.float32(1),
        key=jax.random.key(value),
    )


def save(checkpoints, step, value=None):
    checkpoints.save(step, state(step), {"plan.rows": np.arange(step)}, {"log_offset": 7 * step}, value)


def assert_is(restored, step):
    """Every item of a checkpoint belongs to `step`."""
    want = state(step)
    assert restored.step == step and restored.meta["log_offset"] == 7 * step
    np.testing.assert_array_equal(restored.host["plan.rows"], np.arange(step))
    np.testing.assert_array_equal(jax.random.key_data(restored.state.key), jax.random.key_data(want.key))
    for got, wanted in zip(jax.tree.leaves(restored.state[:-1]), jax.tree.leaves(want[:-1]), strict=True):
        np.testing.assert_array_equal(got, wanted)


def shapes():
    template = jax.eval_shape(lambda: state(0))
    return {"params": template.params, "batch_stats": template.stats}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step, value in VALUES.items():
        save(checkpoints, step, value)
    checkpoints.close()
    return folder


def test_two_newest_and_the_best_are_kept_the_earliest_of_equals(written):
    for _ in range(2):  # and a later process knows it too
        checkpoints = Checkpoints(written)
        assert checkpoints.steps() == [20, 40, 50] and checkpoints.best_step() == 20
        for which, step in (("last", 50), ("best", 20), (40, 40)):
            assert_is(checkpoints.restore(abstract(state(0)), which), step)
        checkpoints.close()


def test_a_resumed_run_keeps_the_best_of_the_run_before(written, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(written, folder)
    checkpoints = Checkpoints(folder)
    checkpoints.restore(abstract(state(0)))
    for step, value in ((60, 59.9), (70, None), (80, 60.0)):
        save(checkpoints, step, value)
    checkpoints.wait()
    assert checkpoints.steps() == [20, 70, 80] and checkpoints.best_step() == 20
    save(checkpoints, 90, 60.1)
    checkpoints.close()
    assert Checkpoints(folder).best_step() == 90


def test_the_models_variables_alone(written):
    checkpoints = Checkpoints(written)
    for which, step in (("best", 20), ("last", 50), (40, 40), ("best", 20)):
        found, variables = checkpoints.variables(shapes(), which)
        assert found == step and sorted(variables) == ["batch_stats", "params"]
        np.testing.assert_array_equal(variables["params"]["backbone"]["w"], state(step).params["backbone"]["w"])
        np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.full(3, step))
    assert_is(checkpoints.restore(abstract(state(0)), "last"), 50)
    checkpoints.close()


def test_steps_that_are_not_there(written, tmp_path):
    with pytest.raises(UserError, match=r"\bstep 30\b.*\[20, 40, 50\]"):
        Checkpoints(written).restore(abstract(state(0)), 30)
    assert Checkpoints(tmp_path / "none").restore(abstract(state(0))) is None
    assert Checkpoints(tmp_path / "none").variables(shapes()) is None


CUTS = {
    "weights": "state/d/*",
    "their list": "state/_METADATA",
    "their manifest": "state/manifest.ocdbt",
    "plan": "host/d/*",
    "plan's list": "host/_METADATA",
    "bookkeeping": "meta/metadata",
    "checkpoint's list": "_CHECKPOINT_METADATA",
    "one process's weights": "state/ocdbt.process_0/d/*",
}


@pytest.mark.parametrize("how", ["half", "empty", "gone"])
@pytest.mark.parametrize("what", CUTS)
def test_cut_short_falls_back_to_the_one_before(written, tmp_path, caplog, what, how):
    folder = tmp_path / "checkpoints"
    shutil.copytree(written, folder)
    files = sorted((folder / "50").glob(CUTS[what]))
    assert files
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if how == "half" else b"")
        if how == "gone":
            file.unlink()
    checkpoints = Checkpoints(folder)
    caplog.set_level(logging.WARNING, "jaxvpr")
    restored = checkpoints.restore(abstract(state(0)))
    assert_is(restored, restored.step)
    if restored.step == 50:  # orbax reads a checkpoint without this list too
        assert what == "checkpoint's list" and "cannot be read" not in caplog.text
    else:
        assert "checkpoint 50 cannot be read" in caplog.text and "went back to checkpoint 40" in caplog.text
        save(checkpoints, 45, 1.0)  # the run goes on from 40: what it could not read makes room
        save(checkpoints, 50, 2.0)
        checkpoints.wait()
        assert checkpoints.steps() == [20, 45, 50]
        assert_is(checkpoints.restore(abstract(state(0))), 50)
    checkpoints.close()


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_one_flipped_bit_is_noticed_wherever_it_is(written, tmp_path):
    """Of the weights alone, tensorstore read every tenth as other numbers. Eight bits of every file, one at a time."""
    step = shutil.copytree(written / "50", tmp_path / "50")
    files = [file for file in step.glob("*/**/*") if file.is_file() and file.name != "commit_success.txt"]
    assert len(files) > 10
    for file in files:
        item = step / file.relative_to(step).parts[0]
        assert not items.broken(item)
        for bit in np.random.default_rng(0).integers(0, 8 * file.stat().st_size, 8).tolist():
            flip(file, bit)
            said = items.broken(item)
            assert file.name in said or (file.name == items.FILE and said), (file, bit)
            flip(file, bit)


def test_a_flipped_bit_of_the_weights_makes_a_run_go_back_and_a_reader_stop(written, tmp_path, caplog):
    folder = shutil.copytree(written, tmp_path / "checkpoints")
    for file in (folder / "50" / "state" / "d").iterdir():
        flip(file, 8 * file.stat().st_size - 9)
    checkpoints = Checkpoints(folder)
    with pytest.raises(
        UserError, match=r"checkpoints/50\b.*state/d/\w+ does not hold.*--checkpoint=STEP, of \[20, 40\]"
    ):
        checkpoints.variables(shapes(), "last")
    assert_is(checkpoints.restore(abstract(state(0))), 40)
    assert "state/d/" in caplog.text and "went back to checkpoint 40" in caplog.text
    checkpoints.close()


def test_a_best_checkpoint_that_is_lost_is_never_replaced_by_another_one_silently(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "checkpoints")
    os.truncate(folder / "20" / "meta" / "metadata", 9)
    checkpoints = Checkpoints(folder)
    with pytest.raises(UserError, match=r"best is not known.*checkpoints/20\b.*--checkpoint=STEP, of \[20, 40, 50\]"):
        checkpoints.variables(shapes(), "best")
    assert checkpoints.variables(shapes(), "last")[0] == 50
    with pytest.raises(UserError, match=r"(?s)/50: checkpoint 20\b.*delete what is damaged, \S+/20:"):
        checkpoints.restore(abstract(state(0)))
    shutil.rmtree(folder / "20")
    advised = Checkpoints(folder)
    assert_is(advised.restore(abstract(state(0))), 50)
    assert advised.best_step() == 40


def test_a_run_whose_best_is_damaged_goes_on_from_before_it(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=3)
    for step, value in ((10, 50.0), (20, 60.0), (30, 40.0)):
        save(checkpoints, step, value)
    checkpoints.close()
    flip(folder / "20" / "host" / "_METADATA", 77)
    checkpoints = Checkpoints(folder, keep=3)
    with pytest.raises(UserError, match=r"checkpoints/20\b.*host/_METADATA"):
        checkpoints.variables(shapes(), "best")
    assert_is(checkpoints.restore(abstract(state(0))), 10)
    save(checkpoints, 20, 60.0)
    checkpoints.wait()
    assert checkpoints.steps() == [10, 20] and checkpoints.variables(shapes(), "best")[0] == 20
    checkpoints.close()


def test_checkpoints_of_before_there_were_checksums_are_read(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "checkpoints")
    for file in folder.rglob(items.FILE):
        file.unlink()
    checkpoints = Checkpoints(folder)
    assert_is(checkpoints.restore(abstract(state(0))), 50)
    assert checkpoints.variables(shapes(), "best")[0] == 20
    checkpoints.close()


def test_none_can_be_read(written, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(written, folder)
    for file in folder.glob("*/meta/metadata"):
        file.write_text("{")
    with pytest.raises(UserError, match=r"(?s)checkpoints/50\b.*checkpoints/40\b.*checkpoints/20\b.*--workdir"):
        Checkpoints(folder).restore(abstract(state(0)))


def test_full_disk_names_folder_and_last_whole_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "part")

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(UserError, match=r"checkpoints\b.*No space left.*no checkpoint"):
            save(checkpoints, 1)
    save(checkpoints, 5)
    checkpoints.wait()
    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", full)
    with pytest.raises(UserError, match=r"checkpoint.*\bstep 5\b"):
        checkpoints.wait()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte; skips where mounting is not permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk, capfd):
    checkpoints = Checkpoints(small_disk / "checkpoints")
    save(checkpoints, 1)
    checkpoints.wait()
    noise = np.random.default_rng(0).normal(size=(4096, 64)).astype(np.float32)
    large = state(2)._replace(params={"backbone": {"w": jnp.asarray(noise)}})
    with pytest.raises(UserError, match=r"small/checkpoints\b.*checkpoint.*\bstep 1\b"):
        checkpoints.save(2, large, {"step": np.asarray(2)}, {"log_offset": 0}, None)
        checkpoints.wait()
    assert_is(Checkpoints(small_disk / "checkpoints").restore(abstract(state(0))), 1)
    assert "Traceback" not in capfd.readouterr().err, "orbax's threads say nothing beside it"


@pytest.mark.long
@pytest.mark.parametrize("left", [4, 12, 64, 300, 700])
def test_a_run_that_fills_the_disk_says_one_thing(small_disk, tiny_recipe, left):
    """The configuration, the log, the first checkpoint, the second, or the results: each is the first not to fit."""
    (small_disk / "ballast").write_bytes(bytes(1024 * (1024 - left)))
    command = [sys.executable, "-m", "jaxvpr.main", f"--config={tiny_recipe}", f"--workdir={small_disk / 'run'}"]
    usual = {"JAX_NUMPY_DTYPE_PROMOTION": "standard", "JAX_NUMPY_RANK_PROMOTION": "allow"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | usual)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert said.startswith("error: ") and str(small_disk / "run") in said and "Free space" in said


def test_looking_disturbs_no_run_that_writes(written, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(written, folder)
    half = folder / "60.orbax-checkpoint-tmp"
    half.mkdir()
    looking = Checkpoints(folder, read_only=True)
    assert looking.variables(shapes(), "last")[0] == 50 and looking.best_step() == 20
    looking.close()
    assert half.is_dir()
    training = Checkpoints(folder)
    save(training, 70)
    training.close()
    assert not half.exists(), "whoever trains sweeps up"
