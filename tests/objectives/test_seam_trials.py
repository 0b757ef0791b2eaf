"""What the seam must carry beyond today's families, each through the real loop: heads on cached descriptors, clips,
random losses, penalties of a model, heads of any shape, new heads, and elements that more devices share."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import common
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.places import Paths
from data_pipelines.readers import read
from data_pipelines.sources import ArraySource, ClipSource, TargetSource
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Embed, Objective, Plan
from jaxvpr.objectives.prototypes import Prototypes, head_start, padded
from jaxvpr.objectives.triplets import embed_elements
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.describer import Describer
from jaxvpr.training import logs, loop
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.recipe import Recipe

STEPS, ROWS, SIZE = 4, 24, (16, 16)


class Layer(nn.Module):
    """Means of an image, of the counted frames of a clip, or numbers as they are, through a linear layer."""

    dim: int = 8

    @nn.compact
    def __call__(self, x, train=False):
        if isinstance(x, dict):  # a clip
            count = x["frames"].astype(jnp.float32)[..., None]
            means = x["image"].astype(jnp.float32).mean((-3, -2)) / 255
            x = (means * count).sum(1) / jnp.maximum(count.sum(1), 1)
        elif x.ndim == 4:
            x = x.astype(jnp.float32).mean((1, 2)) / 255
        return nn.Dense(self.dim)(x)


MODEL = Layer()


def apply(params, stats, aux, batch, key):
    """An `embed`: what the model makes of all that is no bookkeeping."""
    shown = {name: x for name, x in batch.items() if name not in ("label", "mask", "target")}
    return MODEL.apply({"params": params}, next(iter(shown.values())) if len(shown) == 1 else shown), stats


def random_rows(shape, **plan_of):
    def plan(index, rng, memory, embed):
        return Plan({"source": Draw.of_steps(rng.integers(0, ROWS, (STEPS, *shape)))}, **plan_of), memory

    return plan


def spread(extra, aux, outputs, batches, at):
    return jnp.square(outputs["source"].mean(0) - 1).sum(), aux, {}


def config(**keys):
    made = common.base().unlock()
    made.epochs, made.steps_per_epoch, made.batch = 2, STEPS, 8
    made.optimizer = made.optimizer_extra = common.optimizer("sgd", 1e-2)
    made.update_from_flattened_dict(keys)
    return made.lock()


def recipe(objective, source, example, embed=None, measured=(), measures=None):
    values = iter(measured)
    return Recipe(
        MODEL, objective, dict.fromkeys(objective.streams, source), example, lambda drawn: drawn,
        embed or (lambda variables: None), lambda variables, extra: next(values, {"val/R@1": 1.0}), Paths.of([]),
        measures or {},
    )  # fmt: skip


def train(folder, made, keys=None, devices=2, model=1):
    folder.mkdir(exist_ok=True)
    mesh = make_mesh(model=model, devices=jax.devices()[:devices])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return loop.train(config(**keys or {}), folder, made, mesh)


def losses(folder):
    return [record["loss"] for record in logs.read(folder) if "loss" in record]


def params(outcome):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(outcome.best["params"])])


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    file = tmp_path_factory.mktemp("numbers") / "cached.npy"
    np.save(file, np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32))
    return file


@pytest.fixture(scope="module")
def images(photo_tree):
    return ImageSource(read("at_names", photo_tree, split="train").path, SIZE, "area")


def test_a_loss_that_is_no_number_on_cached_descriptors_names_the_rows_and_saves_the_good_state(numbers, tmp_path):
    broken = np.load(numbers)
    broken[7] = np.nan
    file = tmp_path / "broken.npy"
    np.save(file, broken)

    def plan(index, rng, memory, embed):
        rows = np.tile(np.arange(8, 16), (STEPS, 1))
        rows[2] = np.arange(8)  # row 7 comes in step 2 of the second plan
        return Plan({"source": Draw.of_steps(rows if index else np.maximum(rows, 8))}), memory

    objective = Objective(("source",), STEPS, plan, spread, apply)
    made = recipe(objective, ArraySource(str(file)), np.zeros((1, 5), np.float32))
    with pytest.raises(UserError, match=r"step 6\b.*not finite") as error:
        train(tmp_path / "run", made)
    named = re.findall(rf"{re.escape(str(file))}, row (\d+)$", str(error.value), re.MULTILINE)
    assert named == [str(row) for row in range(8)]
    saved = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    assert saved.steps()[-1] == 6
    saved.close()
    np.save(file, np.load(numbers))
    assert train(tmp_path / "run", made).finished


def test_float_targets_of_a_row_reach_the_loss(numbers, tmp_path):
    """Least squares from cached descriptors to positions: the linear layer finds the map that made them."""
    wanted = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    positions = np.load(numbers) @ wanted + 3
    source = TargetSource(ArraySource(str(numbers)), {"target": positions})

    def loss(extra, aux, outputs, batches, at):
        return jnp.square(outputs["source"] - batches["source"]["target"]).mean(), aux, {}

    objective = Objective(("source",), STEPS, random_rows((8,)), loss, apply)
    keys = {"epochs": 100, "every_epochs": 100, "optimizer.rate": 0.5}
    outcome = train(tmp_path / "run", recipe(objective, source, np.zeros((1, 5), np.float32)), keys)
    np.testing.assert_allclose(outcome.best["params"]["Dense_0"]["kernel"], wanted, atol=2e-3)
    np.testing.assert_allclose(outcome.best["params"]["Dense_0"]["bias"], 3, atol=2e-3)


@pytest.mark.parametrize("parts", [{}, {"accumulate": 2}, {"grad_cache": 2}])
def test_a_loss_has_random_numbers_of_its_own_that_a_resumed_run_has_again(parts, numbers, tmp_path):
    def loss(extra, aux, outputs, batches, at):
        drawn = jax.random.uniform(at.key)
        return spread(extra, aux, outputs, batches, at)[0], aux, {"drawn": drawn}

    objective = Objective(("source",), STEPS, random_rows((8,)), loss, apply)
    made = recipe(objective, ArraySource(str(numbers)), np.zeros((1, 5), np.float32))
    drawn = []
    for folder, stops in ((tmp_path / "alone", [2]), (tmp_path / "broken", [1, 2])):
        for epochs in stops:
            train(folder, made, {"epochs": epochs, **parts})
        drawn.append([record["drawn"] for record in logs.read(folder) if "drawn" in record])
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 2 * STEPS


@pytest.mark.parametrize("parts", [{}, {"accumulate": 2}, {"grad_cache": 2}])
def test_an_embedding_may_give_scalars(parts, numbers, tmp_path):
    """A penalty of the model beside its descriptors. In parts its mean counts, and its gradient is that of the mean."""

    def embed(params, stats, aux, batch, key):
        z, stats = apply(params, stats, aux, batch, key)
        return {"z": z, "penalty": jnp.square(z).mean()}, stats

    def loss(extra, aux, outputs, batches, at):
        out = outputs["source"]
        return jnp.abs(out["z"] - 1).mean() + 0.5 * out["penalty"], aux, {"penalty": out["penalty"]}

    objective = Objective(("source",), STEPS, random_rows((8,)), loss, embed)
    made = recipe(objective, ArraySource(str(numbers)), np.zeros((1, 5), np.float32))
    whole, taken = train(tmp_path / "whole", made), train(tmp_path / "parts", made, parts)
    np.testing.assert_allclose(losses(tmp_path / "whole"), losses(tmp_path / "parts"), rtol=1e-5)
    np.testing.assert_allclose(params(whole), params(taken), atol=1e-6)


CLIPS = np.array([[0, 1, 2], [3, 4, -1], [5, 6, 7], [8, -1, -1], [9, 10, 11], [12, 13, 14]])


def test_clips_train_are_mined_and_described_from_one_source(images, tmp_path):
    """A draw's row is the number of a clip. Mining describes the source of clips; a batch is [B, T, F, H, W, 3]."""
    source = ClipSource(images, CLIPS)
    describer = Describer(
        lambda variables, shown: MODEL.apply({"params": variables["params"]}, shown), make_mesh(),
        preprocess=common_preprocess(), batch=1, loading={"threads": 1, "workers": 0, "prefetch": 1},
    )  # fmt: skip
    shapes, described = [], []

    def plan(index, rng, memory, embed):
        described.append(embed.rows(np.arange(len(CLIPS))))
        cache = embed.on_mesh(np.arange(len(CLIPS)))
        assert cache.count == len(CLIPS)
        nearest = np.argsort(-described[-1] @ described[-1].T, axis=1)
        elements = np.stack([nearest[:, 0], nearest[:, 1], nearest[:, -1]], 1)[rng.integers(0, len(CLIPS), (STEPS, 8))]
        return Plan({"source": Draw.of_steps(elements)}), memory

    def one(params, stats, aux, batch, key):
        shapes.append((batch["image"].shape, batch["frames"].shape))
        return apply(params, stats, aux, batch, key)

    def embed(variables):
        held = jax.device_get(variables)
        return Embed(
            rows=lambda rows: describer(held, source.take(rows)).descriptors,
            on_mesh=lambda rows: describer.on_mesh(held, source.take(rows)),
        )

    def loss(extra, aux, outputs, batches, at):
        z = outputs["source"]
        gap = jnp.square(z[:, 0] - z[:, 1]).sum(-1) - jnp.square(z[:, 0] - z[:, 2]).sum(-1)
        return jax.nn.softplus(gap).mean(), aux, {}

    objective = Objective(("source",), STEPS, plan, loss, embed_elements(one), images={"source": 3})
    example = {"image": np.zeros((1, 3, *SIZE, 3), np.uint8), "frames": np.ones((1, 3), bool)}
    outcome = train(tmp_path / "run", recipe(objective, source, example, embed))
    assert outcome.finished and set(shapes) == {((24, 3, *SIZE, 3), (24, 3))}
    # Clip 1 has two frames: its descriptor is that of their mean, whatever fills the third place.
    frames = np.stack([images.image(row, None) for row in (3, 4)]).astype(np.float32).mean((0, 1, 2)) / 255
    layer = outcome.initial["params"]["Dense_0"]
    np.testing.assert_allclose(described[0][1], frames @ layer["kernel"] + layer["bias"], atol=1e-5)


def common_preprocess():
    from jaxvpr.models import Preprocess

    return Preprocess(size=SIZE, resize="area")


def test_more_devices_than_queries_share_the_images_of_a_batch(images, tmp_path):
    """4 elements of 6 images on 8 devices: the same run as on one, and each device reads 3 images."""

    def plan(index, rng, memory, embed):
        return Plan({"source": Draw.of_steps(rng.integers(0, ROWS, (STEPS, 4, 6)), rng.integers(0, 9, (STEPS, 4)))}), {}

    def loss(extra, aux, outputs, batches, at):
        z, batch = outputs["source"], batches["source"]
        assert z.shape == (4, 6, 8) and batch["mask"].shape == batch["label"].shape == (4,)
        gap = jnp.square(z[:, :1] - z[:, 1:2]).sum(-1) - jnp.square(z[:, :1] - z[:, 2:]).sum(-1)
        each = jax.nn.softplus(5 * gap).sum(1) * batch["mask"]
        return each.mean(), aux, {"labels": batch["label"].sum() * 1.0}

    objective = Objective(("source",), STEPS, plan, loss, embed_elements(apply), images={"source": 6})
    made = recipe(objective, images, np.zeros((1, *SIZE, 3), np.uint8))
    one = train(tmp_path / "one", made, {"batch": 4}, devices=1)
    eight = train(tmp_path / "eight", made, {"batch": 4}, devices=8)
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "eight"), rtol=1e-5)
    np.testing.assert_allclose(params(one), params(eight), atol=1e-6)
    with pytest.raises(UserError, match=r"batch=3 elements of 6 images.*multiple of 8"):
        train(tmp_path / "refused", made, {"batch": 3}, devices=8)


def classes(counts, **options):
    """Classification by stacked prototypes and, beside them, a head of rank 3 that has no classes."""
    head = Prototypes(np.array(counts), "cosface", scale=10.0, margin=0.1)

    def init(key, dim):
        return {"prototypes": head.init(key, dim), "mixer": jnp.tile(jnp.eye(dim)[None], (len(counts), 1, 1))}, {}

    def plan(index, rng, memory, embed):
        slot = index % len(counts)
        rows = rng.integers(0, ROWS, (STEPS, 8))
        start = head_start(options.get("head_steps", 0), index, len(counts))
        return Plan({"source": Draw.of_steps(rows, rows % counts[slot])}, slot, start), memory

    def loss(extra, aux, outputs, batches, at):
        return head(extra["prototypes"], outputs["source"] @ extra["mixer"], batches["source"], at), aux, {}

    return Objective(("source",), STEPS, plan, loss, apply, init, slots=len(counts), by_class=("prototypes",))


def test_a_run_goes_on_with_other_devices_and_another_split_of_its_classes(numbers, tmp_path):
    """4 devices with mesh.model=1, then 8 with mesh.model=2, against a run that changes nothing."""
    made = recipe(classes((5, 7)), ArraySource(str(numbers)), np.zeros((1, 5), np.float32))
    alone = train(tmp_path / "alone", made, {"epochs": 4}, devices=4)
    layouts = []
    make_step = loop.make_step

    def noted(objective, groups, mesh, shardings, **options):
        layouts.append({name: sharding.spec for name, sharding in shardings.extra.items()})
        return make_step(objective, groups, mesh, shardings, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "make_step", noted)
        train(tmp_path / "run", made, {"epochs": 2}, devices=4)
        changed = train(tmp_path / "run", made, {"epochs": 4, "mesh.model": 2}, devices=8, model=2)
    assert layouts[1] == {"prototypes": P(None, "model"), "mixer": P()}, "classes alone are split"
    np.testing.assert_allclose(losses(tmp_path / "alone"), losses(tmp_path / "run"), rtol=2e-5)
    np.testing.assert_allclose(params(alone), params(changed), atol=1e-6)


def test_padding_depends_on_the_classes_alone():
    assert [padded(count) for count in (1, 8, 9, 4095, 4096, 4097)] == [8, 8, 16, 4096, 4096, 4224]


def test_new_heads_train_alone_when_their_group_begins_for_the_first_time(numbers, tmp_path):
    """Two groups in turns: in the first 3 of 4 steps of each one's first plan the model stands still."""
    objective = classes((5, 7), head_steps=3)
    made = recipe(objective, ArraySource(str(numbers)), np.zeros((1, 5), np.float32))
    states = {}
    make_step = loop.make_step

    def watched(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def run(state, batches, turn):
            states[int(turn.number)] = jax.device_get((state.params, state.extra))
            return step(state, batches, turn)

        return run

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "make_step", watched)
        train(tmp_path / "run", made, {"epochs": 3})

    def moved(part, step):
        pairs = zip(jax.tree.leaves(states[step][part]), jax.tree.leaves(states[step + 1][part]), strict=True)
        return any(np.any(a != b) for a, b in pairs)

    assert [moved(0, step) for step in range(11)] == [False] * 3 + [True] + [False] * 3 + [True] * 4
    assert all(moved(1, step) for step in range(11))


@pytest.mark.parametrize(("better", "best"), [("min", 8), ("max", 4)])
def test_any_measure_of_a_family_decides_and_says_what_is_better(better, best, numbers, tmp_path):
    values = [{"val/metres": value} for value in (30.0, 12.0, 20.0)]
    objective = Objective(("source",), STEPS, random_rows((8,)), spread, apply)
    made = recipe(
        objective, ArraySource(str(numbers)), np.zeros((1, 5), np.float32), measured=values,
        measures={"val/metres": better},
    )  # fmt: skip
    keys = {"epochs": 3, "best.measure": "metres", "val_data": {"val": common.data("at_names", "nowhere")},
            "plateau.factor": 0.5, "plateau.patience": 0}  # fmt: skip
    assert train(tmp_path / "run", made, keys).best_step == best
    rates = [record["learning_rate"] for record in logs.read(tmp_path / "run") if "loss" in record]
    assert rates[STEPS * 2] == pytest.approx(0.01 if better == "min" else 0.005)
