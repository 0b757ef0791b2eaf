"""The seam carries every family. A small objective of each kind trains through the real loop, is stopped in the middle
of a plan, goes on, and ends as the run that was not stopped. Cell classification has its own tests; these are the other
six.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.places import Paths
from data_pipelines.readers import read
from data_pipelines.sources import ArraySource
from jaxvpr.objectives.objective import Embed, Objective, Plan, embed_images
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop

STEPS, EPOCHS, SIZE, DIM = 4, 2, (16, 16), 8


class Tiny(nn.Module):
    """Means of image quarters, then a linear layer; anything with fewer axes goes through the layer as it is."""

    @nn.compact
    def __call__(self, x, train=False):
        if x.ndim == 4:
            x = x.astype(jnp.float32) / 255
            x = x.reshape(x.shape[0], 2, x.shape[1] // 2, 2, x.shape[2] // 2, 3).mean((2, 4)).reshape(x.shape[0], -1)
        x = nn.Dense(DIM)(x)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


MODEL = Tiny()


def squares(a, b):
    return jnp.sum(jnp.square(a - b), -1)


class Trial(NamedTuple):
    objective: Objective
    rows: str = "images"


def random_rows(shape):
    def plan(index, rng, memory, embed):
        return Plan({"source": pairs_of(rng.integers(0, 25, (STEPS, *shape)))}), memory

    return plan


def pairs_of(rows):
    """Draws of rows, two of which, one after the other, have one label."""
    return Draw.of_steps(rows, np.tile(np.arange(rows.shape[1]) // 2, (STEPS, 1)))


def places_with_memory():
    """P x K pairs, and a ring of past descriptors in `aux` (cross-batch memory)."""

    def loss(extra, aux, outputs, batches, at):
        z, y = outputs["source"], batches["source"]["label"]
        same = y[:, None] == y[None]
        d = squares(z[:, None], z[None])
        near = jnp.where(same, d, jnp.maximum(0.5 - d, 0)).mean() + jnp.square(z @ aux["ring"].T).mean()
        return near, {"ring": jnp.concatenate([z, aux["ring"]])[: len(aux["ring"])]}, {"pairs": same.sum() * 1.0}

    return Objective(
        ("source",), STEPS, random_rows((8,)), loss, embed_images(MODEL),
        lambda key, dim: ({}, {"ring": jnp.zeros((12, dim))}),
    )  # fmt: skip


def mined_triplets():
    """Rows of [query, positive, negatives], mined with the model of the moment; the last negatives are remembered."""

    def plan(index, rng, memory, embed):
        z = embed.rows(np.arange(25))
        queries = rng.choice(25, (STEPS, 4))
        hardest = np.argsort(-(z @ z.T) + 9 * np.eye(25), axis=1)[:, :3]
        before = memory.get("negatives", np.zeros(25, np.int64))
        rows = np.concatenate([queries[..., None], hardest[queries], before[queries][..., None]], -1)
        return Plan({"source": pairs_of(rows)}), {"negatives": hardest[:, 0]}

    def embed(params, stats, aux, batch, key):
        flat = batch["image"].reshape(-1, *batch["image"].shape[2:])
        return MODEL.apply({"params": params}, flat).reshape(*batch["image"].shape[:2], DIM), stats

    def loss(extra, aux, outputs, batches, at):
        z = outputs["source"]
        gap = squares(z[:, :1], z[:, 1:2]) - squares(z[:, :1], z[:, 2:]) + 0.1
        return jnp.maximum(gap, 0).sum() / len(z), aux, {}

    return Objective(("source",), STEPS, plan, loss, embed)


def domain_adaptation():
    """A second stream of fewer images, embedded in its own way, and a trained head that two slots share."""

    def plan(index, rng, memory, embed):
        rows = rng.integers(0, 25, (STEPS, 8))
        draws = {"source": Draw.of_steps(rows), "target": Draw.of_steps(rows[:, :4])}
        return Plan(draws, slot=index % 2), memory

    def embed_negated(params, stats, aux, batch, key):
        return -MODEL.apply({"params": params}, batch["image"]), stats

    def loss(extra, aux, outputs, batches, at):
        source, target = (outputs[s] @ extra["domain"] for s in ("source", "target"))
        own = (outputs["source"] @ extra["own"]).mean()
        return own + jax.nn.softplus(-source).mean() + at.progress * jax.nn.softplus(target).mean(), aux, {}

    return Objective(
        ("source", "target"), STEPS, plan, loss, {"source": embed_images(MODEL), "target": embed_negated},
        lambda key, dim: ({"own": jnp.ones((2, dim))}, {}), slots=2,
        shared=lambda key: {"domain": jnp.ones((DIM,))},
    )  # fmt: skip


def clips():
    """Batches of [B, F, H, W, 3]."""

    def embed(params, stats, aux, batch, key):
        frames = batch["image"]
        z = MODEL.apply({"params": params}, frames.reshape(-1, *frames.shape[2:]))
        return z.reshape(*frames.shape[:2], DIM).mean(1), stats

    def loss(extra, aux, outputs, batches, at):
        return jnp.square(outputs["source"].mean(0)).sum(), aux, {}

    return Objective(("source",), STEPS, random_rows((4, 3)), loss, embed)


def position_of_cached_descriptors():
    """No images at all: a head on descriptors that lie in a memory-mapped file."""

    def embed(params, stats, aux, batch, key):
        return MODEL.apply({"params": params}, batch["descriptor"]), stats

    def loss(extra, aux, outputs, batches, at):
        where = batches["source"]["label"].astype(jnp.float32)[:, None] / 4
        return squares(outputs["source"][:, :1], where).mean(), aux, {}

    return Objective(("source",), STEPS, random_rows((8,)), loss, embed)


def distillation():
    """A frozen teacher in `aux`."""

    def init(key, dim):
        return {}, {"teacher": Tiny().init(key, jnp.zeros((1, *SIZE, 3)))["params"]}

    def embed(params, stats, aux, batch, key):
        pupil, teacher = (MODEL.apply({"params": p}, batch["image"]) for p in (params, aux["teacher"]))
        return {"pupil": pupil, "teacher": teacher}, stats

    def loss(extra, aux, outputs, batches, at):
        return squares(*outputs["source"].values()).mean(), aux, {}

    return Objective(("source",), STEPS, random_rows((8,)), loss, embed, init)


TRIALS = {f.__name__: f for f in (
    places_with_memory, mined_triplets, domain_adaptation, clips, position_of_cached_descriptors, distillation
)}  # fmt: skip


def recipe(objective, tree, folder):
    images = read("at_names", tree, split="train")
    source = ImageSource(images.path, SIZE, "area")
    example = np.zeros((1, *SIZE, 3), np.uint8)
    if objective.embedding(objective.streams[0]).__qualname__.startswith("position"):
        file = folder.parent / "cached.npy"
        np.save(file, np.random.default_rng(0).normal(size=(25, 5)).astype(np.float32))
        source, example = ArraySource(str(file)), np.zeros((1, 5), np.float32)

    def embed(variables):
        def rows(rows):
            images = np.stack([source.image(row, None) for row in rows])
            return np.asarray(MODEL.apply({"params": jax.device_get(variables["params"])}, images))

        return Embed(rows, on_mesh=None)

    sources = dict.fromkeys(objective.streams, source)
    return loop.Recipe(
        MODEL, objective, sources, example, lambda v: v, embed, lambda v, extra: {"nothing": 1.0}, Paths.of([])
    )


def config():
    settings = common.base().unlock()
    settings.epochs, settings.steps_per_epoch, settings.batch = EPOCHS, STEPS, 8
    settings.checkpoint.every_steps = 1
    settings.optimizer = settings.optimizer_extra = common.optimizer("adam", 1e-2)
    return settings.lock()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", sorted(TRIALS))
def test_family_trains_stops_and_goes_on(name, photo_tree, tmp_path, monkeypatch):
    objective = TRIALS[name]()
    mesh = make_mesh(devices=jax.devices()[:2])
    for folder in ("alone", "broken"):
        (tmp_path / folder).mkdir()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        alone = loop.train(config(), tmp_path / "alone", recipe(objective, photo_tree, tmp_path / "alone"), mesh)
        make_step = loop.make_step

        def breaks(*args, **kwargs):
            step = make_step(*args, **kwargs)

            def run(state, batches, turn):
                if turn.number == STEPS + 2:
                    raise Stopped
                return step(state, batches, turn)

            return run

        broken = recipe(objective, photo_tree, tmp_path / "broken")
        monkeypatch.setattr(loop, "make_step", breaks)
        with pytest.raises(Stopped):
            loop.train(config(), tmp_path / "broken", broken, mesh)
        monkeypatch.setattr(loop, "make_step", make_step)
        resumed = loop.train(config(), tmp_path / "broken", broken, mesh)

    for one, other in zip(jax.tree.leaves(alone.best), jax.tree.leaves(resumed.best), strict=True):
        np.testing.assert_array_equal(one, other)
    written = [logs.read(tmp_path / folder) for folder in ("alone", "broken")]
    assert written[0] == written[1] and len(written[0]) == STEPS * EPOCHS + EPOCHS
    moved = [
        np.abs(a - b).max() for a, b in zip(jax.tree.leaves(alone.best), jax.tree.leaves(alone.initial), strict=True)
    ]
    assert max(moved) > 0
