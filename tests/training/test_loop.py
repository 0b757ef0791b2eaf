"""The loop: what stops it, what it leaves behind, and that a second start goes on from there."""

import errno
import json
import logging
import os
import shutil

import jax
import numpy as np
import pytest
from epoch_runs import Run

from data_pipelines.draws import Draw
from jaxvpr import builders, families, weights
from jaxvpr.errors import UserError
from jaxvpr.parallel import device_memory, hosts
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.feed import Feed
from jaxvpr.verbs import train


def changed(config, **values):
    config = config.copy_and_resolve_references().unlock()
    for key, value in values.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return config.lock()


def steps_in(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def before_step(monkeypatch, number, act):
    """Calls act(batches) -> batches when the loop is about to run step `number`."""
    make_step = loop.make_step

    def counted(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def run(state, batches, turn):
            return step(state, act(batches) if int(turn.number) == number else batches, turn)

        run.lower = step.lower
        return run

    monkeypatch.setattr(loop, "make_step", counted)


def spoilt_images(monkeypatch, number):
    """Images that are no numbers, at one step."""

    def spoil(batches):
        image = batches["source"]["image"]
        return {"source": {**batches["source"], "image": image * np.float32(np.nan)}}

    before_step(monkeypatch, number, spoil)


def test_a_loss_that_is_no_number_stops_the_run_and_it_goes_on_when_mended(
    tiny_config, trained_run, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        spoilt_images(patched, 8)
        with pytest.raises(UserError, match=r"\bstep 8\b.*loss nan") as error:
            train.run(tiny_config, folder)
    said = str(error.value)
    assert str(folder / "checkpoints" / "8") in said and "--workdir" in said
    paths = [line.strip().removeprefix("source: ") for line in said.splitlines() if line.startswith("  source: ")]
    assert 1 <= len(paths) <= 8 and all(os.path.exists(path) and "/train/" in path for path in paths)  # noqa: PTH110
    assert steps_in(folder) == [6, 8]
    assert [r["step"] for r in logs.read(folder) if "loss" in r] == list(range(8))
    caplog.set_level(logging.INFO, "jaxvpr")
    train.run(tiny_config, folder)
    assert "resumed at step 8 of 12" in caplog.text
    # What was refused left no trace: the run ends as the one that nothing happened to.
    for name in ("model.safetensors", "log.jsonl"):
        assert (folder / name).read_bytes() == (trained_run / name).read_bytes(), name


def test_a_step_that_needs_too_much_memory_is_told_with_the_batch_that_fits(tmp_path, monkeypatch):
    """In place of a device the step says so, in the words of a GPU; its programs are compiled and measured."""

    def too_much(batches):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes.")

    taken, sizes, run = device_memory.taken, [], Run(tmp_path / "run", monkeypatch, mines=False, batch=32)
    with monkeypatch.context() as patched:
        before_step(patched, 0, too_much)
        patched.setattr(device_memory, "taken", lambda program: sizes.append(taken(program)) or sizes[-1])
        patched.setattr(device_memory, "limit", lambda: 2**40)
        with pytest.raises(UserError, match=r"^the training step with batch=32 needs .* allocate 123 bytes\)") as told:
            run.train()
    assert len(sizes) == 2 and sizes[1] < sizes[0]
    for advice in ("batch=16 takes", "--config.batch=16", "--config.accumulate=2", "--config.grad_cache=2"):
        assert advice in str(told.value)
    run.config = changed(run.config, batch=16)
    assert run.train().finished


def test_a_state_that_needs_too_much_memory_is_told(tmp_path, monkeypatch):
    """In place of the state 2^50 bytes are asked for, really."""
    monkeypatch.setattr(loop, "init_state", lambda *_, **__: jax.block_until_ready(jax.numpy.zeros(2**50, np.uint8)))
    words = r"^the model with its heads .* \(Out of memory .*\)\..*--config\.mesh\.fsdp_mib=1$"
    with pytest.raises(UserError, match=words):
        Run(tmp_path / "run", monkeypatch).train()


def test_a_rate_far_too_high_is_caught_and_leaves_finite_weights(tiny_config, tmp_path):
    folder = tmp_path / "run"
    wild = changed(tiny_config, optimizer__rate=1e30, optimizer__schedule="constant", optimizer__warmup=0)
    with pytest.raises(UserError, match=r"not finite"):
        train.run(wild, folder)
    _, variables = Checkpoints(folder / "checkpoints").variables(builders.shapes(wild), "last")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_best_is_the_earliest_of_equals_and_the_last_two_are_kept(tiny_config, tmp_path, monkeypatch):
    values = iter([10.0, 20.0, 30.0, 30.0, 20.0, 25.0])
    monkeypatch.setattr(loop.Recipe, "validate", property(lambda _: lambda variables, extra: {"val/R@1": next(values)}))
    folder = tmp_path / "run"
    config = changed(tiny_config, epochs=6, steps_per_epoch=2)
    outcome = loop.train(config, make(folder), recipe_of(config), builders.mesh(config))
    assert outcome.finished and outcome.best_step == 6
    assert steps_in(folder) == [6, 10, 12]
    checkpoints = Checkpoints(folder / "checkpoints")
    _, best = checkpoints.variables(builders.shapes(tiny_config), "best")
    for one, other in zip(jax.tree.leaves(best), jax.tree.leaves(outcome.best), strict=True):
        np.testing.assert_array_equal(one, other)


def recipe_of(config):
    return families.recipe(config, builders.mesh(config), builders.benchmarks(config, config.val_data))


def make(folder):
    folder.mkdir()
    return folder


class Told(hosts.StopRequest):
    """A wish to leave that comes with a given step."""

    def __init__(self, step):
        super().__init__()
        self._step = step

    def __call__(self, step):
        return step >= self._step


@pytest.mark.parametrize(("leaves_at", "left"), [(4, [4]), (6, [6]), (7, [7])])
def test_told_to_leave_saves_wherever_it_stands(tiny_config, tmp_path, monkeypatch, leaves_at, left):
    """Step 6 is the end of a plan that is not validated: nothing else would save there."""
    monkeypatch.setattr(loop.hosts, "StopRequest", lambda: Told(leaves_at))
    config = changed(tiny_config, every_epochs=2)
    recipe = recipe_of(config)
    outcome = loop.train(config, make(tmp_path / "run"), recipe, builders.mesh(config))
    assert not outcome.finished and steps_in(tmp_path / "run") == left
    assert all("loss" in record for record in logs.read(tmp_path / "run"))


def test_saves_between(tiny_config, tmp_path, monkeypatch):
    seen = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: (seen.append(step), save(self, step, *rest)))
    config = changed(tiny_config, every_epochs=2, checkpoint__every_steps=3)
    loop.train(config, make(tmp_path / "run"), recipe_of(config), builders.mesh(config))
    assert seen == [3, 6, 9, 12], "6 is the end of a plan that is not validated"
    assert [record["step"] for record in logs.read(tmp_path / "run") if "val/R@1" in record] == [12]


def test_no_room_for_the_log_names_the_last_whole_checkpoint(tiny_config, tmp_path, monkeypatch):
    write = logs.Log.write

    def full(self, step, values):
        if step >= 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, step, values)

    monkeypatch.setattr(logs.Log, "write", full)
    with pytest.raises(UserError, match=r"run/checkpoints\b.*checkpoint.*\bstep 6\b"):
        loop.train(tiny_config, make(tmp_path / "run"), recipe_of(tiny_config), builders.mesh(tiny_config))


def test_a_finished_run_trains_no_further(tiny_config, trained_run, tmp_path, caplog):
    folder = tmp_path / "again"
    shutil.copytree(trained_run, folder)
    (folder / "metrics.json").unlink()
    caplog.set_level(logging.INFO, "jaxvpr")
    train.run(tiny_config, folder)
    assert "resumed at step 12 of 12" in caplog.text
    for name in ("model.safetensors", "log.jsonl"):
        assert (folder / name).read_bytes() == (trained_run / name).read_bytes(), name
    again, before = (json.loads((f / "metrics.json").read_text())["results"] for f in (folder, trained_run))
    assert again == before


def test_a_finished_runs_model_is_its_best_checkpoint(tiny_config, trained_run):
    checkpoints = Checkpoints(trained_run / "checkpoints")
    _, best = checkpoints.variables(builders.shapes(tiny_config), "best")
    checkpoints.close()
    written = weights.read(trained_run / "model.safetensors")
    for name, tensor in weights.to_torch("jaxvpr", jax.device_get(best)).items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def test_a_plan_without_an_element_ends_the_run():
    """As a mined one has it, where no positive of any query can be read: every row is -1."""
    feed = Feed({}, make_mesh(), seed=0, loader={})
    rows = np.full((2, 8), -1)
    with pytest.raises(UserError, match=r"not one element for the stream 'source'.*can be read"):
        feed.check({"source": Draw.of_steps(rows)}, ("source",), 2)
    rows[1, 3] = 5
    feed.check({"source": Draw.of_steps(rows)}, ("source",), 2)


def traced_steps(folder):
    """The numbers of the steps in a trace, and the names of all events."""
    (file,) = folder.glob("profile/plugins/profile/*/*.xplane.pb")
    trace = jax.profiler.ProfileData.from_file(str(file))
    events = [event for plane in trace.planes for line in plane.lines for event in line.events]
    return [dict(event.stats)["step_num"] for event in events if event.name == "train"], {e.name for e in events}


def test_a_trace_of_the_steps_that_are_asked_for(tmp_path, monkeypatch):
    run = Run(tmp_path / "run", monkeypatch, **{"profile.first": 3, "profile.steps": 4})
    run.train()
    steps, names = traced_steps(run.folder)
    assert steps == [3, 4, 5, 6] and any("jit_step" in name for name in names), "across a validation"


def test_a_trace_ends_with_a_run_that_fails_or_leaves(tmp_path, monkeypatch, caplog):
    def fail(batches):
        raise KeyError("at step 5")

    run = Run(tmp_path / "run", monkeypatch, **{"profile.first": 4, "profile.steps": 9})
    with monkeypatch.context() as patched:
        before_step(patched, 5, fail)
        with pytest.raises(KeyError, match="step 5"):
            run.train()
    assert traced_steps(run.folder)[0] == [4, 5]
    shutil.rmtree(run.folder / "profile")
    run.config = changed(run.config, profile__first=1)
    run.train(leaves_at=3)
    assert traced_steps(run.folder)[0] == [1, 2]
    shutil.rmtree(run.folder / "profile")
    run.config = changed(run.config, profile__first=10)
    run.train()
    assert "no step was traced: 9 were made, and profile.first=10" in caplog.text
