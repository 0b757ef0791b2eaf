"""Several steps in one call of the devices: the run is that of steps one by one, to the bit, wherever it is left."""

import jax
import numpy as np
import pytest
from epoch_runs import Run, assert_same

from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs
from jaxvpr.training.plans import calls

FIVE = {"period": 6, "mines": False, "table": "float32"}


def states(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def test_calls_are_cut_where_they_must_be():
    steps = [(number, str(number)) for number in range(3, 12)]
    cut = [numbers for numbers, _ in calls(steps, 4, lambda step: step in (5, 10))]
    assert cut == [[3, 4], [5, 6, 7, 8], [9], [10, 11]]
    assert [batches for _, batches in calls(steps[:2], 99, lambda _: False)] == [["3", "4"]]


@pytest.mark.parametrize("of", [dict(FIVE), {"period": 6}], ids=["rows on the devices", "mined and read"])
def test_calls_of_several_steps_learn_what_single_ones_do(of, tmp_path, monkeypatch):
    """A call ends with its plan, of six steps; the last of each has two."""
    alone = Run(tmp_path / "alone", monkeypatch, **of)
    many = Run(tmp_path / "many", monkeypatch, steps_per_call=4, **of)
    wanted, found = alone.train(), many.train()
    assert alone.calls == [1] * 12 and many.calls == [4, 2, 4, 2]
    assert_same(found.best, wanted.best)
    assert many.log() == alone.log() and states(many.folder) == states(alone.folder)
    for number, state in many.before.items():
        assert_same(state, alone.before[number])
    for one, other in zip(many.validated, alone.validated, strict=True):
        assert_same(one, other)


def test_a_run_that_is_left_between_saves_goes_on_to_the_bit(tmp_path, monkeypatch):
    """It is told to leave at step 2, and does where the call ends; saves cut calls too."""
    alone = Run(tmp_path / "alone", monkeypatch, **FIVE)
    wanted = alone.train()
    many = Run(tmp_path / "many", monkeypatch, steps_per_call=5, **{"checkpoint.every_steps": 4}, **FIVE)
    assert not many.train(leaves_at=2).finished
    assert states(many.folder) == [4] and many.calls == [4]
    found = many.train()
    assert many.calls == [4, 2, 2, 4]
    assert_same(found.best, wanted.best)
    assert many.log() == alone.log()


def test_a_bad_step_ends_its_call(tmp_path, monkeypatch):
    """What comes after it in the call, or in the next one, changes nothing."""

    def spoilt(folder, **keys):
        run = Run(folder, monkeypatch, seed=1, **FIVE, **keys)
        rows = np.load(folder / "rows.npy")
        rows[8] = np.nan  # the first plan draws from rows 0 to 7, the second from 1 to 8
        np.save(folder / "rows.npy", rows)
        with pytest.raises(UserError, match="not finite") as told:
            run.train()
        return run, str(told.value)

    alone, said = spoilt(tmp_path / "alone")
    many, told = spoilt(tmp_path / "many", steps_per_call=4)
    assert "source: 8.jpg" in said and told == said.replace(str(alone.folder), str(many.folder))
    assert many.log() == alone.log() and states(many.folder) == states(alone.folder)
    assert told.startswith("step 8:") and states(many.folder) == [6, 8], "the third of the call of steps 6 to 9"
    for run in (alone, many):  # both go on from the same state once the row is mended
        np.save(run.folder / "rows.npy", np.nan_to_num(np.load(run.folder / "rows.npy")))
    assert_same(many.train().best, alone.train().best)
    assert many.log() == alone.log()


@pytest.mark.long
def test_one_device_learns_what_eight_do(tmp_path, monkeypatch):
    logged = []
    for devices in (1, 8):
        mesh = make_mesh(devices=jax.devices()[:devices])
        run = Run(tmp_path / str(devices), monkeypatch, mesh=mesh, batch=8, steps_per_call=6, **FIVE)
        run.train()
        logged.append(logs.read(run.folder))
    for one, eight in zip(*logged, strict=True):
        assert one == pytest.approx(eight, rel=1e-5)
