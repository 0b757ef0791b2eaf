"""The step: idle heads rest, bad batches leave no trace, parts add up, devices do not matter."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.device.program import flops
from data_pipelines.draws import Draw
from jaxvpr import models
from jaxvpr.errors import UserError
from jaxvpr.losses.margins import cosface
from jaxvpr.models.layers import BatchNorm, normalised_in_groups
from jaxvpr.objectives.objective import Objective, Plan, embed_images
from jaxvpr.parallel.mesh import batch_sharding, make_mesh, to_global
from jaxvpr.training import optimisers
from jaxvpr.training.state import init_state
from jaxvpr.training.step import Turn, make_step

CLASSES, DIM, BATCH = 8, 16, 16
MODEL = models.join(
    backbone="resnet_small",
    aggregator="cosplace",
    backbone_options={"widths": (8, 8, 8, 8), "cut": "layer2"},
    aggregator_options={"dim": DIM},
)


def objective(slots=3):
    def loss(extra, aux, outputs, batches, at):
        batch = batches["source"]
        value = cosface(
            outputs["source"], batch["label"], extra["prototypes"], scale=20.0, margin=0.1, mask=batch["mask"]
        )
        return value, aux, {"progress": at.progress}

    return Objective(
        streams=("source",),
        period=4,
        slots=slots,
        init=lambda key, dim: ({"prototypes": jax.random.normal(key, (slots, CLASSES, dim))}, {}),
        by_class=("prototypes",),
        plan=lambda index, rng, memory, embed: (Plan({"source": Draw.of_steps([np.arange(BATCH)] * 4)}), memory),
        embed=embed_images(MODEL),
        loss=loss,
    )


def alike(optimiser):
    return dict.fromkeys(optimisers.GROUPS, optimiser)


def setup(mesh=None, frozen=(), accumulate=1, name="adam", rate=1e-2, fsdp_mib=0.0):
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    tuners = alike(optimisers.build(name, rate=rate, total=100))
    state, shardings = init_state(
        MODEL, objective(), tuners, mesh, example=np.zeros((1, 32, 32, 3), np.uint8), frozen=frozen, seed=0,
        fsdp_mib=fsdp_mib,
    )  # fmt: skip
    step = make_step(objective(), tuners, mesh, shardings, total=100, frozen=frozen, accumulate=accumulate)
    return mesh, state, step


def batch(mesh, seed=0, mask=None, bad=False):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (BATCH, 32, 32, 3)).astype(np.float32 if bad else np.uint8)
    if bad:
        image[3, 4, 5, 1] = np.nan
    rows = {
        "image": image,
        "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
        "mask": np.ones(BATCH, bool) if mask is None else mask,
    }
    return {"source": to_global(mesh, rows)}


def leaves(tree):
    return [
        np.asarray(jax.device_get(leaf))
        for leaf in jax.tree.leaves(tree)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


def test_only_the_drawn_slot_moves():
    mesh, state, step = setup()
    work = flops(step.trace(state, batch(mesh), Turn(0, 1)).jaxpr)
    assert set(work) == {"float32 HIGHEST"}, "no product of model, loss or update inherits its precision"
    before = jax.device_get((state.extra, state.opt["heads"]))
    state, metrics = step(state, batch(mesh), Turn(0, 1))
    after = jax.device_get((state.extra, state.opt["heads"]))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        for slot in range(3):
            assert (slot == 1) != np.array_equal(old[slot], new[slot]), (old.shape, slot)
    assert bool(metrics["ok"]) and bool(metrics["counts"]) and int(state.step) == 1
    _, metrics = step(state, batch(mesh, mask=np.zeros(BATCH, bool)), Turn(1, 1))
    assert bool(metrics["ok"]) and not bool(metrics["counts"]), "not one element of this batch counts"


@pytest.mark.parametrize("why", ["nan in an image", "batch of another step"])
def test_a_refused_batch_leaves_no_trace(why):
    mesh, state, step = setup()
    state, _ = step(state, batch(mesh), Turn(0, 0))
    before = leaves(state)
    number = 1 if "nan" in why else 2
    state, metrics = step(state, batch(mesh, 1, bad="nan" in why), Turn(number, 0))
    assert not bool(metrics["ok"])
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(state), strict=True))
    assert np.isfinite(float(metrics["loss"])) == ("nan" not in why)


def test_frozen_parameters_rest_and_their_statistics_move():
    mesh, state, step = setup(frozen=("backbone/(conv1|bn1|layer1_)",))
    before = jax.device_get((state.params, state.stats))
    state, _ = step(state, batch(mesh), Turn(0, 0))
    after = jax.device_get((state.params, state.stats))
    for (path, old), new in zip(jax.tree.leaves_with_path(before[0]), jax.tree.leaves(after[0]), strict=True):
        rests = any(part in jax.tree_util.keystr(path) for part in ("'conv1']['kernel", "bn1", "layer1_"))
        first = jax.tree_util.keystr(path).startswith(
            ("['backbone']['conv1']", "['backbone']['bn1']", "['backbone']['layer1_")
        )
        assert np.array_equal(old, new) == first, (jax.tree_util.keystr(path), rests)
    assert not np.array_equal(before[1]["backbone"]["bn1"]["mean"], after[1]["backbone"]["bn1"]["mean"])


def test_unknown_frozen_pattern_is_an_error():
    with pytest.raises(UserError, match=r"frozen.*'backbone/layer9'.*parameter"):
        setup(frozen=("backbone/layer9",))


def test_accumulated_parts_weigh_by_their_unmasked_rows():
    """Without BatchNorm in batch mode the parts' mean is the whole's mean, also where masked rows gather in one
    part."""
    mask = np.arange(BATCH) % 4 != 1
    mask[:5] = False

    def frozen_statistics(params, stats, aux, batch, key):
        return MODEL.apply({"params": params, "batch_stats": stats}, batch["image"]), stats

    results = []
    for accumulate in (1, 4):
        mesh = make_mesh(devices=jax.devices()[:1])
        tuners = alike(optimisers.build("sgd", rate=0.1, total=100))
        goal = objective()._replace(embed=frozen_statistics)
        state, shardings = init_state(
            MODEL, goal, tuners, mesh, example=np.zeros((1, 32, 32, 3), np.uint8), frozen=(), seed=0
        )
        step = make_step(goal, tuners, mesh, shardings, total=100, accumulate=accumulate)
        state, metrics = step(state, batch(mesh, mask=mask), Turn(0, 0))
        results.append((leaves((state.params, state.extra)), float(metrics["loss"]), float(metrics["grad_norm"])))
    assert results[0][1:] == pytest.approx(results[1][1:], rel=1e-5)
    for one, other in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize(("model_axis", "fsdp_mib", "parts"), [(1, 0, 1), (2, 0.001, 1), (4, 0.001, 2), (0, 0.001, 1)])
def test_eight_devices_equal_one(model_axis, fsdp_mib, parts):
    """With prototypes split over some devices and over all, and with the larger parameters split."""
    # A small rate: ten times this one and three steps of BatchNorm blow rounding up to 1e-4.
    runs = []
    for mesh in (make_mesh(devices=jax.devices()[:1]), make_mesh(model=model_axis)):
        _, state, step = setup(mesh, accumulate=parts, name="sgd", rate=0.005, fsdp_mib=fsdp_mib)
        losses = []
        for number in range(3):
            state, metrics = step(state, batch(mesh, number), Turn(number, number % 2))
            losses.append(float(metrics["loss"]))
        runs.append((losses, leaves((state.params, state.stats, state.extra))))
        if mesh.size > 1:
            shard = state.extra["prototypes"].addressable_shards[0].data.shape
            assert shard == (3, CLASSES // (model_axis or 8), DIM), "prototypes are split by class"
            large = [x for x in jax.tree.leaves((state.params, state.opt["model"])) if x.shape == (3, 3, 8, 8)]
            shards = {x.sharding.shard_shape(x.shape) for x in large}
            assert len(large) == 8 and shards == {(3, 3, 1, 8) if fsdp_mib else (3, 3, 8, 8)}
    np.testing.assert_allclose(runs[0][0], runs[1][0], rtol=2e-5)
    for one, eight in zip(runs[0][1], runs[1][1], strict=True):
        np.testing.assert_allclose(one, eight, atol=3e-6)


def test_groups_of_images_have_batch_norm_statistics_of_their_own():
    """As each GPU of a published run has: here of two devices that see half the batch each."""
    grouped = MODEL.clone(batch_norm_images=BATCH // 2)
    images = batch(make_mesh(devices=jax.devices()[:1]))["source"]["image"]
    variables = MODEL.init(jax.random.key(0), images[:1])
    apply = jax.jit(
        lambda model, images: model.apply(variables, images, train=True, mutable=["batch_stats"]), static_argnums=0
    )
    found, updated = apply(grouped, images)
    halves = [apply(MODEL, half) for half in np.split(np.asarray(images), 2)]
    np.testing.assert_allclose(found, np.concatenate([z for z, _ in halves]), atol=2e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(stats for _, stats in halves))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), updated, mean)
    assert np.abs(found - apply(MODEL, images)[0]).max() > 1e-3
    with pytest.raises(ValueError, match="batch_norm_images=5 must divide the 16 images"):
        apply(MODEL.clone(batch_norm_images=5), images)


@pytest.mark.parametrize(("images", "sums"), [(0, 2), (2, 1)])
def test_groups_of_images_on_a_device_wait_for_no_other(images, sums):
    """Two layers of 16 images on 8 devices: one sum of the running averages is left, which nothing waits for."""
    mesh, model = make_mesh(), nn.Sequential([BatchNorm(False), nn.relu, BatchNorm(False)])
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((16, 4)))

    def apply(variables, x):
        with normalised_in_groups(images):
            return model.apply(variables, x, mutable=["batch_stats"])

    rows = jax.ShapeDtypeStruct((16, 4), np.float32, sharding=batch_sharding(mesh))
    program = jax.jit(apply).lower(shapes, rows).compile().as_text()
    assert program.count(" all-reduce(") == sums


def test_batch_norm_statistics_are_those_of_the_global_batch():
    mesh, state, step = setup(make_mesh())
    images = batch(mesh)
    want = np.asarray(images["source"]["image"], np.float32).mean() / 255
    start = jax.device_get({"params": state.params, "batch_stats": state.stats})
    old = start["batch_stats"]["backbone"]["bn1"]["mean"]
    state, _ = step(state, images, Turn(0, 0))
    new = jax.device_get(state.stats["backbone"]["bn1"]["mean"])
    trained = jax.jit(partial(MODEL.apply, train=True, mutable=["batch_stats"]))
    _, updated = trained(start, np.asarray(images["source"]["image"]))
    np.testing.assert_allclose(new, updated["batch_stats"]["backbone"]["bn1"]["mean"], atol=1e-6)
    assert 0.3 < want < 0.7 and not np.array_equal(old, new)
