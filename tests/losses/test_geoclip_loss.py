"""GeoCLIP's loss by hand, and a whole step of it as loops in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.losses.geoclip import image_to_place, own_is_best
from jaxvpr.models import join
from jaxvpr.models.positions import haversine
from jaxvpr.objectives.geoclip import geoclip_objective

AREA = (60.0, 10.0, 60.01, 10.02)
OPTIONS = {"area": AREA, "dim": 6, "hidden": 5, "features": 4, "width": 7, "sigmas": (1.0, 4.0), "projection": "area"}


def test_by_hand():
    logits = np.log(np.array([[[2, 1, 1]], [[1, 3, 4]]], np.float32))
    both = jax.jit(lambda counts: (image_to_place(logits, counts), own_is_best(logits, counts)))
    every, batch_alone, none = np.ones((2, 3), bool), np.array([[True, True, False]] * 2), np.zeros((2, 3), bool)
    for counts, shares, best in (
        (every, (2 / 4, 3 / 8), (1, 0)), (batch_alone, (2 / 3, 3 / 4), (1, 1)), (none, (1, 1), (1, 1)),
    ):  # fmt: skip
        value, hit = both(counts)
        np.testing.assert_allclose(value[:, 0], -np.log(shares), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(hit[:, 0], best)
    with pytest.raises(ValueError, match=r"\(2, 1, 3\) and counts \(2, 4\)"):
        image_to_place(logits, np.ones((2, 4), bool))


@pytest.fixture(scope="module")
def model():
    made = join(backbone="squeezenet", aggregator="gem", position="geoclip", position_options=OPTIONS)
    rng = np.random.default_rng(0)
    head = jax.eval_shape(made.position.init, jax.random.key(0), np.zeros((1, 3), np.float32))
    drawn = jax.tree.map(lambda leaf: rng.normal(0, 0.6, leaf.shape).astype(np.float32), head)
    drawn["params"]["logit_scale"] = np.float32(np.log(7))
    return made, *({"position": drawn[collection]} for collection in ("params", "batch_stats"))


def by_loops(params, stats, batch, queue, near):
    """Loss and the share of images whose own coordinates are the best, element by element in float64."""
    head, kept = params["position"], stats["position"]

    def layer(x, p):
        return x @ p["kernel"].astype(float) + p["bias"]

    def unit(x):
        return x / np.sqrt(sum(x * x))

    def embedded(descriptor):
        return 7 * unit(layer(np.maximum(layer(descriptor, head["image"]["hidden"]), 0), head["image"]["output"]))

    def placed(at):
        south, west, north, east = AREA
        wide = (east - west) * np.cos(np.radians((south + north) / 2))
        longest = max(north - south, wide)
        x = np.array([(2 * at[1] - 1) * wide / longest, (2 * at[0] - 1) * (north - south) / longest])
        whole = np.zeros(6)
        for scale in ("scale_0", "scale_1"):
            turns = [sum(f * x) for f in kept["location"][scale]["frequencies"].astype(float)]
            y = np.array([*(np.cos(2 * np.pi * t) for t in turns), *(np.sin(2 * np.pi * t) for t in turns)])
            for number in range(3):
                y = np.maximum(layer(y, head["location"][scale][f"hidden_{number}"]), 0)
            whole += layer(y, head["location"][scale]["output"])
        return unit(whole)

    def metres(one, other):
        (south, west, north, east), where = AREA, []
        for u, v in (one, other):
            where += [south + u * (north - south), west + v * (east - west)]
        return haversine(*map(np.float64, where))

    losses, hits = [], []
    for i in range(len(batch["descriptor"])):
        if not batch["mask"][i]:
            continue
        image, own, others = embedded(batch["descriptor"][i]), None, []
        known = [(at, j) for j, at in enumerate(batch["at"][:, :2]) if batch["mask"][j]]
        for at, j in [*known, *((at, -1) for at in queue)]:
            logit = image @ placed(at)
            if j == i:
                own = logit
            elif metres(at, batch["at"][i, :2]) >= near:
                others.append(logit)
        losses.append(np.log(sum(np.exp(x) for x in (own, *others))) - own)
        hits.append(own >= max(others))
    return np.mean(losses), np.mean(hits)


def some_batch(seed, count=5):
    rng = np.random.default_rng(seed)
    at = rng.uniform(size=(count, 3)).astype(np.float32)
    at[1] = at[0] + np.float32(1e-4)  # 0.2 m
    return {
        "descriptor": rng.normal(size=(count, 3)).astype(np.float32), "at": at, "mask": np.arange(count) != 3,
    }  # fmt: skip


@pytest.mark.parametrize("near", [0.0, 300.0])
def test_a_step_is_what_loops_give_with_the_queue_of_the_steps_before(model, near):
    made, params, stats = model
    objective = geoclip_objective(
        made, images=9, batch=5, steps=1, queue=7, noise=0.0, queue_noise=0.0, near=near
    )  # fmt: skip
    aux, ring = objective.init(jax.random.key(0), 3)[1], []

    @jax.jit
    def step(aux, batch):
        logits, _ = objective.embed(params, stats, aux, batch, jax.random.key(1))
        return objective.loss({}, aux, {"source": logits}, {"source": batch}, None)

    for seed in range(3):
        batch = some_batch(seed)
        value, aux, metrics = step(aux, batch)
        wanted, hits = by_loops(params, stats, batch, [at for at in ring if at is not None], near)
        np.testing.assert_allclose(value, wanted, rtol=1e-5)
        np.testing.assert_allclose(metrics["own_best"], hits, atol=1e-6)
        seen = [batch["at"][j, :2] if batch["mask"][j] else None for j in range(5)]
        ring = [*seen, *ring][:7]


def test_noise_has_its_metres_and_views_are_compared_each_with_its_own(model):
    made, params, stats = model
    coding = made.position.coding
    at = np.broadcast_to(np.float32([0.3, 0.6]), (4000, 2))
    rng = np.random.default_rng(0)
    off = 100 * rng.normal(size=(4000, 2))
    there = coding.moved(at.astype(float), off[:, 0], off[:, 1])
    north, east = coding.area.placed(there[:, 0], there[:, 1])
    start = coding.area.placed(at[0, 0].astype(float), at[0, 1].astype(float))
    apart = haversine(np.float64(start[0]), np.float64(start[1]), north, east)
    np.testing.assert_allclose(apart, np.hypot(off[:, 0], off[:, 1]), rtol=2e-4)
    objective = geoclip_objective(made, images=9, batch=3, steps=2, queue=0, noise=50.0, views=2)
    plan, _ = objective.plan(0, rng, {}, None)
    rows = plan.draws["source"].rows
    assert rows.shape == (2, 3, 2) and (rows[..., 0] == rows[..., 1]).all() and len(set(rows[..., 0].ravel())) == 6
    batch = {name: np.repeat(value[:3, None], 2, 1) for name, value in some_batch(4).items()}
    batch["mask"] = np.ones(3, bool)
    embed = jax.jit(partial(objective.embed, params, stats, {}))
    logits, _ = embed(batch, jax.random.key(0))
    assert logits.shape == (3, 2, 3)
    views = np.asarray(logits)
    assert np.abs(views[:, 0] - views[:, 1]).max() > 1e-3, "each view has a noise of its own"
    assert np.abs(views - np.asarray(embed(batch, jax.random.key(1))[0])).max() > 1e-3
    value = jax.jit(lambda logits: objective.loss({}, {}, {"source": logits}, {"source": batch}, None)[0])(logits)
    wanted = [np.log(np.exp(views[b, p]).sum()) - views[b, p, b] for b in range(3) for p in range(2)]
    np.testing.assert_allclose(value, np.mean(wanted), rtol=1e-5)


@pytest.mark.long
def test_gradients_are_finite_where_descriptors_are_zero_and_all_spots_are_one(model):
    made, params, stats = model
    objective = geoclip_objective(made, images=9, batch=3, steps=1, queue=4, near=5.0)
    aux = objective.init(jax.random.key(0), 3)[1]
    batch = {"descriptor": np.zeros((3, 3), np.float32), "at": np.full((3, 3), 0.5, np.float32)}
    batch["mask"] = np.ones(3, bool)

    @jax.jit
    def gradient(params):
        def value(params):
            logits, _ = objective.embed(params, stats, aux, batch, jax.random.key(1))
            return objective.loss({}, aux, {"source": logits}, {"source": batch}, None)[0]

        return jax.grad(value)(jax.tree.map(jnp.asarray, params))

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params)))


def test_what_makes_no_sense_is_refused(model):
    for wrong in ({"views": 0}, {"noise": -1.0}, {"queue": -1}, {"batch": 1}):
        with pytest.raises(UserError, match=r"views=.* at least 1"):
            geoclip_objective(model[0], **{"images": 9, "batch": 3, "steps": 1, **wrong})
    with pytest.raises(UserError, match=r"model\.position='geoclip'"):
        geoclip_objective(join(backbone="squeezenet", aggregator="gem"), images=9, batch=3, steps=1)
