"""Plans, sources and measures at the edges of the seam: what is refused by name, and what must not count wrongly."""

import jax.numpy as jnp
import numpy as np
import pytest
from seam_runs import ROWS, STEPS, apply, losses, random_rows, recipe, spread, train

from data_pipelines.draws import Draw
from data_pipelines.sources import ArraySource, TargetSource
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective, Plan
from jaxvpr.training import logs

EXAMPLE = np.zeros((1, 5), np.float32)


@pytest.fixture(scope="module")
def cached(numbers):
    return ArraySource(str(numbers))


@pytest.mark.parametrize("parts", [{}, {"accumulate": 2}, {"grad_cache": 2}])
def test_a_count_as_metric_is_no_zero_where_a_batch_is_accumulated(parts, cached, tmp_path):
    """8 rows: a count of the whole batch, and of parts of 4 the mean, 4."""

    def loss(extra, aux, outputs, batches, at):
        return spread(extra, aux, outputs, batches, at)[0], aux, {"rows": batches["source"]["mask"].sum()}

    made = recipe(Objective(("source",), STEPS, random_rows((8,)), loss, apply), cached, EXAMPLE)
    train(tmp_path / "run", made, {"epochs": 1, **parts})
    wanted = 4 if "accumulate" in parts else 8
    assert [record["rows"] for record in logs.read(tmp_path / "run") if "loss" in record] == [wanted] * STEPS


@pytest.mark.parametrize("keys", [{}, {"accumulate": 2}, {"grad_cache": 2}])
def test_elements_of_cached_rows_with_targets_are_split_over_more_devices_than_elements(keys, cached, tmp_path):
    def plan(index, rng, memory, embed):
        rows = rng.integers(0, ROWS, (STEPS, 4, 2))
        rows[:, 3] = -1
        return Plan({"source": Draw.of_steps(rows)}), {}

    def loss(extra, aux, outputs, batches, at):
        z, batch = outputs["source"], batches["source"]
        assert z.shape[1:] == (2, 8) and batch["target"].shape == z.shape[:2]
        each = jnp.square(z.mean(-1) - batch["target"]).mean(1) * batch["mask"]
        return each.sum() / jnp.maximum(batch["mask"].sum(), 1), aux, {}

    source = TargetSource(cached, {"target": np.linspace(0, 1, ROWS)})
    made = recipe(Objective(("source",), STEPS, plan, loss, apply, images={"source": 2}), source, EXAMPLE)
    for devices in (1, 8):
        train(tmp_path / str(devices), made, {"batch": 4, "epochs": 1, **keys}, devices=devices)
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "8"), rtol=1e-5)


def test_rows_that_are_read_one_by_one_keep_label_mask_and_view_of_their_element():
    draw = Draw.of(np.array([[3, 4], [-1, -1]]), np.array([7, 8]), np.array([90.0, np.nan])).by_row()
    np.testing.assert_array_equal(draw.rows, [3, 4, -1, -1])
    np.testing.assert_array_equal(draw.label, [7, 7, 8, 8])
    np.testing.assert_array_equal(draw.mask, [True, True, False, False])
    np.testing.assert_array_equal(draw.view, np.float32([90, 90, np.nan, np.nan]))


PLANS = {
    "too few steps": (lambda rng: {"source": rng.integers(0, ROWS, (STEPS - 1, 8))}, "draws 3 steps.*'source'.*is 4"),
    "another stream": (lambda rng: {"sauce": rng.integers(0, ROWS, (STEPS, 8))}, r"\['sauce'\].*\['source'\]"),
    "a batch of 7": (lambda rng: {"source": rng.integers(0, ROWS, (STEPS, 7))}, "7 elements.*'source'.*2 devices"),
}


@pytest.mark.parametrize("wrong", PLANS)
def test_a_plan_that_does_not_fit_is_refused_by_its_stream(wrong, cached, tmp_path):
    drawn, said = PLANS[wrong]

    def plan(index, rng, memory, embed):
        return Plan({stream: Draw.of_steps(rows) for stream, rows in drawn(rng).items()}), memory

    with pytest.raises(UserError, match=said):
        train(tmp_path / "run", recipe(Objective(("source",), STEPS, plan, spread, apply), cached, EXAMPLE))


@pytest.mark.parametrize(("better", "best"), [("min", 8), ("max", 12)])
def test_a_measure_that_is_no_number_is_never_the_best(better, best, cached, tmp_path):
    """The first validation has nothing to measure. Learning rates follow the others, without any val_data."""
    values = [{"metres": value} for value in (float("nan"), 2.0, 3.0, 3.0)]
    objective = Objective(("source",), STEPS, random_rows((8,)), spread, apply)
    made = recipe(objective, cached, EXAMPLE, measured=values, measures={"metres": better})
    keys = {"epochs": 4, "plateau.factor": 0.5, "plateau.patience": 0}
    assert train(tmp_path / "run", made, keys).best_step == best
