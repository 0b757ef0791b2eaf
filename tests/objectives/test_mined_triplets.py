"""Mined triplets through the real loop: they learn, resume in the middle of a plan, and leave with the benchmark's
names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from stopping import Stopped, losses, stopping_at, trained

from configs import common
from jaxvpr import builders, weights
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Context
from jaxvpr.objectives.triplets import triplets_objective
from jaxvpr.training import logs, loop


@pytest.fixture
def config(tiny_config):
    """NetVLAD of 4 clusters on 25 places of 3 images; two plans an epoch, of 3 steps with 8 queries each."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.aggregator, config.model.aggregator_options = "netvlad", ConfigDict({"clusters": 4})
    config.clusters.images, config.clusters.per_image, config.clusters.iterations = 20, 4, 5
    config.objective = common.mined_triplets(
        mining="full", positive="12m", soft="18m", negatives=2, pool=10, refresh=24, memory_mib=1
    )
    config.epochs, config.steps_per_epoch, config.batch = 2, 6, 8
    config.optimizer = common.optimizer("adam", 3e-3)
    config.best.measure = "R@5"
    return config


@pytest.mark.long
def test_a_run_stopped_inside_a_plan_goes_on_to_the_bit(config, tmp_path, monkeypatch):
    """Step 4 lies inside the second plan of the first epoch: its negatives build on those of the plan before."""
    config.checkpoint.every_steps = 1
    alone = trained(config, tmp_path / "alone")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "make_step", stopping_at(4, loop.make_step))
        with pytest.raises(Stopped):
            trained(config, tmp_path / "broken")
    resumed = trained(config, tmp_path / "broken")
    for one, other in zip(jax.tree.leaves(alone.best), jax.tree.leaves(resumed.best), strict=True):
        np.testing.assert_array_equal(one, other)
    assert logs.read(tmp_path / "alone") == logs.read(tmp_path / "broken")
    assert len(losses(tmp_path / "alone")) == 12


# Among the long ones, which are compiled as for users: without optimisations XLA rounds more than is allowed here.
@pytest.mark.long
@pytest.mark.parametrize("loss", ["triplet", "sare_joint"])
def test_devices_do_not_matter(loss, config, tmp_path):
    config.objective.loss, config.epochs = loss, 1
    config.objective.loss_options = ConfigDict({})
    for devices in (1, 8):
        trained(config, tmp_path / str(devices), devices)
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "8"), rtol=1e-3)


@pytest.mark.parametrize("mining", ["partial", pytest.param("random", marks=pytest.mark.long)])
def test_it_learns(mining, config, tmp_path):
    """The same triplets again and again: what was mined is told apart in the end."""
    config.objective.mining, config.epochs = mining, 10
    trained(config, tmp_path / "run")
    found = losses(tmp_path / "run")
    assert np.mean(found[-6:]) < 0.7 * np.mean(found[:6])


def test_the_model_leaves_and_returns_with_the_benchmarks_names(config, tmp_path):
    config.epochs = 1
    outcome = trained(config, tmp_path / "run")
    names = weights.to_torch("deep_vg", outcome.best)
    assert {"aggregation.centroids", "aggregation.conv.weight", "backbone.0.weight"} <= set(names)
    weights.write(tmp_path / "net.safetensors", names, {})
    config.init = str(tmp_path / "net.safetensors")
    back = builders.initial_variables(config.lock())
    jax.tree.map(np.testing.assert_array_equal, back, outcome.best)


def test_masked_queries_count_for_nothing():
    """By hand: one negative of two is as far as the positive, and lacks the margin of 0.1; the masked query adds."""
    objective = triplets_objective(None, steps=1, negatives=2, options={"eps": 0.0})
    z = jnp.array([[[0, 0], [3, 4], [3, 4], [9, 9]], [[0, 0], [9, 9], [0, 0], [0, 0]]], jnp.float32)
    for mask, wanted in (([True, False], 0.1 / 2), ([False, False], 0.0)):
        batches = {"source": {"mask": jnp.array(mask)}}
        at = Context(*[jnp.int32(0)] * 4, jax.random.key(0))
        value, aux, _ = objective.loss({}, {}, {"source": z}, batches, at)
        assert float(value) == pytest.approx(wanted, abs=1e-6) and aux == {}


MISTAKES = {
    "objective.mining=hard": r"objective\.mining='hard'.*\['full', 'partial', 'random'\]",
    "objective.sets=both": r"objective\.sets='both'.*\['merged', 'in_turn'\]",
    "objective.loss=quadruplet": r"objective.*loss.*'quadruplet'.*triplet, sare_independent",
    "objective.positive=0.01m": r"\b75 queries.*objective\.positive='0\.01m'.*objective\.soft='18m'",
    "objective.soft=5m": r"objective\.soft='5m'.*\bbelow\b.*objective\.positive='12m'",
    "objective.negatives=200": r"objective\.negatives=200",
    "objective.weighted=True": r"objective\.weighted=True.*night.*MSLS",
    "steps_per_epoch=7": r"steps_per_epoch=7",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, config, tmp_path):
    override(config, *change.split("="))
    with pytest.raises(UserError, match=MISTAKES[change]):
        trained(config, tmp_path / "run")
