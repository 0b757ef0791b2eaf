"""SFRS: the losses against NumPy, a teacher that is the last generation's network, and a student that starts anew."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common, sfrs
from jaxvpr import builders, families
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.families.sfrs import plans_of_generations
from jaxvpr.objectives.objective import Context
from jaxvpr.objectives.sfrs import sfrs_objective
from jaxvpr.parallel.mesh import batch_sharding, make_mesh
from jaxvpr.training import logs, loop
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.optimisers import split_frozen

AT = Context(*[jnp.int32(0)] * 4, jax.random.key(0))
RATE = 3e-3
COUNTS = np.array([2, 1, 2], np.int32)  # of difficult positives, by query


@pytest.fixture
def config(tiny_config):
    """NetVLAD of 3 clusters behind one residual block; three generations of an epoch, each a plan of 2 steps."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.backbone_options = ConfigDict({"widths": (8, 8, 8, 8), "cut": "layer1"})
    config.model.aggregator, config.model.aggregator_options = "netvlad", ConfigDict({"clusters": 3})
    config.clusters.images, config.clusters.per_image, config.clusters.iterations = 20, 4, 5
    config.objective = sfrs.sfrs(
        generations=(0, 1, 2), temperatures=(0.07, 0.07, 0.05), difficult=2, difficult_pool=3, reciprocal=4,
        positive="12m", soft="18m", negatives=2, pool=10, refresh=16, memory_mib=1,
    )  # fmt: skip
    config.epochs, config.steps_per_epoch, config.batch, config.checkpoint.every_steps = 3, 2, 8, 1
    config.optimizer = common.optimizer("adam", RATE)
    return config


def unit(rng, *shape):
    z = rng.normal(size=shape).astype(np.float32)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def outputs(seed=0, batch=3, negatives=2, difficult=2, dim=5):
    rng = np.random.default_rng(seed)
    return {
        "query": unit(rng, batch, dim),
        "positive": unit(rng, batch, dim),
        "negatives": unit(rng, batch, negatives, 9, dim),
        "student": rng.uniform(-1, 1, (batch, difficult, 9)).astype(np.float32),
        "teacher": rng.uniform(-1, 1, (batch, difficult, 9)).astype(np.float32),
    }


def by_loops(z, mask, generation, temperatures, weight):
    """(hard, soft, whole) loss of a batch, query by query, in float64."""
    hard, soft = [], []
    for b in np.flatnonzero(mask):
        near, terms = float(z["query"][b] @ z["positive"][b]), []
        for regions in z["negatives"][b]:
            far = [float(z["query"][b] @ region) for region in regions]
            chosen = max(far) if generation else far[0]
            terms.append(-np.log(np.exp(near / 0.07) / (np.exp(near / 0.07) + np.exp(chosen / 0.07))))
        hard.append(np.mean(terms))
        s, t = (z[who][b][: COUNTS[b]].astype(float).ravel() for who in ("student", "teacher"))
        s, t = np.exp(s / temperatures[0]), np.exp(t / temperatures[generation])
        soft.append(-(t / t.sum() * np.log(s / s.sum())).sum())
    soft = np.mean(soft) if generation else 0.0
    return np.mean(hard), soft, np.mean(hard) + weight * soft


@pytest.fixture(scope="module")
def objective():
    """The objective of a model that no loss needs."""
    return objective_of()


class Regions:
    """Stands for a model whose aggregator has regions."""

    def __init__(self):
        self.aggregator = self

    def regions(self):
        raise NotImplementedError


def objective_of(**changes):
    settings = {
        "steps": 2,
        "negatives": 2,
        "difficult": 2,
        "begins": (0, 4, 6),
        "temperatures": (0.07, 0.06, 0.2),
        **changes,
    }
    options = settings.pop("options", {"temperature": 0.14})
    return sfrs_objective(Regions(), {}, None, soft_weight=0.5, options=options, **settings)


@pytest.mark.parametrize("generation", [0, 1, 2])
@pytest.mark.parametrize("mask", [(1, 1, 1), (0, 1, 1)])
def test_losses_are_those_of_loops(objective, generation, mask):
    z, mask = outputs(), np.array(mask, bool)
    aux = {"generation": jnp.int32(generation)}
    batch = {"mask": jnp.asarray(mask), "label": jnp.asarray(COUNTS)}
    value, kept, parts = objective.loss({}, aux, {"source": z}, {"source": batch}, AT)
    hard, soft, whole = by_loops(z, mask, generation, (0.07, 0.06, 0.2), 0.5)
    assert float(parts["hard"]) == pytest.approx(hard, rel=1e-4)
    assert float(parts["soft"]) == pytest.approx(soft, rel=1e-4)
    assert float(value) == pytest.approx(whole, rel=1e-4) and kept is aux


def test_generations_begin_where_they_are_told_and_the_last_network_teaches(objective):
    assert [index for index in range(9) if objective.new_generation(index)] == [4, 6]
    aux = objective.inherited({"teacher": "before", "generation": jnp.int32(1)}, "last")
    assert aux == {"teacher": "last", "generation": 2}


def drawn(config, seed):
    """Variables of the model at random, without compiling its initialisation."""
    rng, shapes = np.random.default_rng(seed), builders.shapes(config)
    return {
        "params": jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes["params"]),
        "batch_stats": jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes["batch_stats"]),
    }


def test_an_element_is_cut_into_its_parts(config):
    """The regions of every image by itself are what the objective makes of whole elements, spread over two devices."""
    objective, model = families.recipe(config.lock(), make_mesh(), []).objective, builders.model(config)
    student, teacher = drawn(config, 1), drawn(config, 2)
    images = np.random.default_rng(0).integers(0, 255, (2, 6, 32, 32, 3), dtype=np.uint8)
    flat = images.reshape(-1, 32, 32, 3)
    # Statistics of the batch: the student's are those of all twelve images.
    whole = jax.jit(lambda variables, x: model.apply(variables, x, True, mutable=["batch_stats"], method="regions"))
    z, updated = whole(student, flat)
    t = jax.jit(lambda variables, x: model.apply(variables, x, method="regions"))(teacher, flat)
    z, t = (np.asarray(part).reshape(2, 6, 9, -1) for part in (z, t))
    batch = jax.device_put({"image": images}, batch_sharding(make_mesh(devices=jax.devices()[:2])))
    got, stats = jax.jit(objective.embed)(
        student["params"], student["batch_stats"], {"teacher": teacher}, batch, jax.random.key(0)
    )
    for b in range(2):
        np.testing.assert_allclose(got["query"][b], z[b, 0, 0], atol=1e-5)
        np.testing.assert_allclose(got["positive"][b], z[b, 1, 0], atol=1e-5)
        np.testing.assert_allclose(got["negatives"][b], z[b, 2:4], atol=1e-5)
        np.testing.assert_allclose(got["student"][b], z[b, 4:] @ z[b, 0, 0], atol=1e-5)
        np.testing.assert_allclose(got["teacher"][b], t[b, 4:] @ t[b, 0, 0], atol=1e-5)
    assert np.std(got["teacher"]) > 1e-4 and np.abs(got["teacher"] - got["student"]).max() > 1e-3
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), stats, updated["batch_stats"])


def trained(config, folder, monkeypatch, stop=None):
    """The start of a run, and its parameters and aux at each checkpoint; `stop` ends it before that step."""
    saved, save, make = {}, Checkpoints.save, loop.make_step

    def watched(self, step, state, *rest):
        saved[step] = jax.device_get((state.params, state.aux))
        return save(self, step, state, *rest)

    def stopping(*args, **kwargs):
        step = make(*args, **kwargs)

        def run(state, batches, turn):
            if turn.number == stop:
                raise InterruptedError
            return step(state, batches, turn)

        return run

    with monkeypatch.context() as patched, jax.numpy_dtype_promotion("standard"):
        patched.setattr(Checkpoints, "save", watched)
        patched.setattr(loop, "make_step", stopping)
        mesh = make_mesh(devices=jax.devices()[:1])
        config = config.copy_and_resolve_references().lock()
        recipe = families.recipe(config, mesh, [])._replace(validate=lambda variables, extra: {})
        folder.mkdir(exist_ok=True)
        try:
            return loop.train(config, folder, recipe, mesh).initial["params"], saved
        except InterruptedError:
            return None, saved


def distance(one, other):
    """The largest difference of two trees."""
    return max(float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@pytest.mark.long
def test_generations_of_a_run_and_of_one_that_is_stopped_and_goes_on(config, tmp_path, monkeypatch):
    initial, saved = trained(config, tmp_path / "alone", monkeypatch)
    assert [int(saved[step][1]["generation"]) for step in range(1, 7)] == [0, 0, 1, 1, 2, 2]
    teachers = {step: aux["teacher"]["params"] for step, (_, aux) in saved.items()}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teachers[2])), "the first generation has no teacher"
    for begin, last in ((3, 2), (5, 4)):
        assert same(teachers[begin], saved[last][0]) and same(teachers[begin + 1], saved[last][0])
        # Adam's first step goes no farther than its rate: the student began at the start, with a fresh optimiser.
        assert 0 < distance(saved[begin][0], initial) <= 1.01 * RATE < distance(saved[last][0], initial)
    records = [record for record in logs.read(tmp_path / "alone") if "soft" in record]
    assert [record["soft"] > 0 for record in records] == [False] * 2 + [True] * 4
    np.testing.assert_allclose([r["loss"] for r in records], [r["hard"] + 0.5 * r["soft"] for r in records], rtol=1e-5)

    for stop in (3, None):  # within the second generation
        _, broken = trained(config, tmp_path / "broken", monkeypatch, stop)
    assert min(broken) == 4 and same(saved[6], broken[6])
    assert logs.read(tmp_path / "alone") == logs.read(tmp_path / "broken")


def test_the_published_recipe():
    config = sfrs.get_config("pitts30k")
    model = builders.model(config)
    descriptor, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), builders.blank(config))
    assert descriptor.shape == (1, 64 * 512) and config.pca.dim == 4096
    trains = split_frozen(variables["params"], (*config.frozen, *model.frozen_paths()))[0]
    assert {path.split("/")[1] for path in trains} == {
        "features_24",
        "features_26",
        "features_28",
        "conv",
        "centroids",
    }
    assert plans_of_generations(config, config.objective.refresh // config.batch) == (0, 35, 70, 105)


MISTAKES = {
    "objective.generations=(0,3)": r"objective\.generations=\(0, 3\).*epochs=3\b",
    "objective.generations=(1,2)": r"objective\.generations=\(1, 2\).*\b0\b.*epochs=3\b",
    "objective.temperatures=(0.07,)": r"objective\.temperatures=\(0\.07,\).*\b3 numbers.*\b0\b",
    "objective.soft_weight=-1.0": r"objective\.soft_weight=-1\.0\b",
    "objective.loss=quadruplet": r"objective.*loss.*'quadruplet'",
    "objective.mining=random": r"objective\.mining='random'.*objective\.mining='full'",
    "objective.difficult=9": r"objective\.difficult=9\b.*objective\.difficult_pool=3\b",
    "model.aggregator=gem": r"regions.*model\.aggregator.*GeM.*netvlad",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, config):
    override(config, *change.split("="))
    if change.startswith("model"):
        config.model.aggregator_options, config.clusters.images = ConfigDict({}), 0
    with pytest.raises(UserError, match=MISTAKES[change]):
        families.recipe(config.lock(), make_mesh(), [])
