"""What the seam must carry beyond today's families, each through the real loop: heads on cached descriptors, targets,
clips, random losses, penalties of a model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from seam_runs import MODEL, SIZE, STEPS, apply, losses, params, random_rows, recipe, spread, train

from data_pipelines.draws import Draw
from data_pipelines.sources import ArraySource, ClipSource, TargetSource
from jaxvpr import families, weights
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.objectives.objective import Embed, Objective, Plan, embed_elements
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.describer import Describer
from jaxvpr.training import logs
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.verbs import train as train_verb


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


CLIPS = np.array([[0, 1, 2], [3, 4, 2], [5, 6, 7], [8, 7, 5], [9, 10, 11], [12, 13, 14]])


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
        shapes.append(batch["image"].shape)
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
    example = np.zeros((1, 3, *SIZE, 3), np.uint8)
    outcome = train(tmp_path / "run", recipe(objective, source, example, embed))
    assert outcome.finished and set(shapes) == {(24, 3, *SIZE, 3)}
    frames = np.stack([images.image(row, None) for row in CLIPS[1]]).astype(np.float32).mean((0, 1, 2)) / 255
    layer = outcome.initial["params"]["Dense_0"]
    np.testing.assert_allclose(described[0][1], frames @ layer["kernel"] + layer["bias"], atol=1e-5)


def common_preprocess():
    from jaxvpr.models import Preprocess

    return Preprocess(size=SIZE, resize="area")


def test_a_family_may_train_a_model_of_its_own(numbers, tiny_config, tmp_path, monkeypatch, caplog):
    """Through the verb: a head on cached numbers, validated in its own way, in a recipe whose model is another."""
    objective = Objective(("source",), STEPS, random_rows((8,)), spread, apply)

    def family(config, sets):
        return Learning(
            objective, sources={"source": ArraySource(str(numbers))}, model=MODEL, example=np.zeros((1, 5), np.float32),
            start=lambda drawn: drawn, validate=lambda variables, extra: {"metres": 2.0}, measures={"metres": "min"},
        )  # fmt: skip

    monkeypatch.setitem(families.FAMILIES, "own", family)
    made = tiny_config.copy_and_resolve_references().unlock()
    made.objective, made.batch, made.steps_per_epoch = ConfigDict({"name": "own"}), 8, STEPS
    made.val_data, made.best.measure = ConfigDict({}), "metres"
    with jax.numpy_dtype_promotion("standard"), caplog.at_level("WARNING", "jaxvpr"):
        assert train_verb.run(made.lock(), tmp_path / "run") is None
    assert "a model of its own: nothing is measured" in caplog.text
    kept = weights.read(tmp_path / "run" / "model.safetensors")
    assert {tensor.shape for tensor in kept.values()} == {(5, 8), (8,)}
    monkeypatch.setitem(families.FAMILIES, "own", lambda config, sets: family(config, sets)._replace(validate=None))
    with pytest.raises(ValueError, match="start and validate"):
        families.recipe(made, make_mesh(), [])
