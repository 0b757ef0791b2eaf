"""Pre-training: softmax against torch and by hand, each image once a pass, a result that other recipes start from."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import common, pretrain
from data_pipelines.errors import DataError
from data_pipelines.partitions import label_cells
from data_pipelines.samplers import open_passes
from jaxvpr import builders, families, models, weights
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.losses import softmax
from jaxvpr.models.features import Features
from jaxvpr.models.place_model import PlaceModel
from jaxvpr.objectives.pretraining import pretraining_objective
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop
from jaxvpr.verbs import export, train

# One residual block: what takes time here is compiling.
SHALLOW = ConfigDict({"widths": (16, 16, 16, 16), "cut": "layer1"})


@pytest.fixture(scope="session")
def class_folders(photo_tree, tmp_path_factory):
    """The training images of `photo_tree`, a folder for each of its 25 places."""
    root = tmp_path_factory.mktemp("classes")
    for photo in sorted((photo_tree / "images" / "train").iterdir()):
        place = re.search(r"@(\d\d)\d@", photo.name)[1]
        (root / place).mkdir(exist_ok=True)
        (root / place / photo.name).symlink_to(photo)
    return root


@pytest.fixture
def config(tiny_config, class_folders):
    """75 images of 25 classes, in batches of 16."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.train_data = common.data("classes", str(class_folders), "train")
    config.objective = pretrain.classes(by="place", min_images=1)
    config.model.backbone_options = SHALLOW
    config.model.aggregator, config.model.aggregator_options = "spoc", ConfigDict({})
    config.batch, config.epochs, config.steps_per_epoch = 16, 2, 24
    config.optimizer, config.optimizer_extra = common.optimizer("adam", 1e-2), common.optimizer("adam", 3e-2)
    return config.lock()


def trained(config, folder, devices=1):
    """The outcome of a run without validation, and its log."""
    with jax.numpy_dtype_promotion("standard"):
        mesh = make_mesh(config.mesh.model, devices=jax.devices()[:devices])
        recipe = families.recipe(config, mesh, [])._replace(validate=lambda variables, extra: {})
        outcome = loop.train(config, folder, recipe, mesh)
    return outcome, [record for record in logs.read(folder) if "loss" in record]


def test_cross_entropy_by_hand():
    features, kernel = jnp.array([[1.0, 0.0]] * 3), jnp.array([[np.log(3.0), 5.0], [0.0, 7.0], [9.0, 9.0]])
    logits = softmax.linear(features, kernel, jnp.zeros((3, 1)), classes=2)  # probabilities 3/4 and 1/4
    np.testing.assert_allclose(logits[0, :2], [np.log(3), 0], rtol=1e-6)
    labels, mask = jnp.array([0, 1, 7]), jnp.array([True, True, False])
    loss = softmax.cross_entropy(logits, labels, mask=mask, classes=2)
    assert float(loss) == pytest.approx((np.log(4 / 3) + np.log(4)) / 2, rel=1e-6)
    smooth = softmax.cross_entropy(logits[:1], labels[:1], classes=2, smoothing=0.2)
    assert float(smooth) == pytest.approx(0.9 * np.log(4 / 3) + 0.1 * np.log(4), rel=1e-6)
    assert float(softmax.accuracy(logits, labels, mask)) == 0.5
    assert float(softmax.accuracy(logits, labels, jnp.zeros(3, bool))) == 0
    with pytest.raises(ValueError, match=r"bias \(2, 1\).*\[B, D\].*\[C, D\].*\[C, 1\]"):
        softmax.linear(features, kernel, jnp.zeros((2, 1)))


@pytest.mark.torch
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_torchs_in_value_and_gradient(smoothing):
    import torch

    rng = np.random.default_rng(3)
    given = {"x": rng.normal(size=(6, 5)), "kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=4)}
    labels, mask = rng.integers(0, 4, 6), np.array([1, 1, 0, 1, 1, 1], bool)
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in given.items()}
    logits = torch.nn.functional.linear(theirs["x"], theirs["kernel"], theirs["bias"])
    wanted = torch.nn.functional.cross_entropy(logits[mask], torch.tensor(labels)[mask], label_smoothing=smoothing)
    wanted.backward()

    def ours(x, kernel, bias):
        padded, above = jnp.pad(kernel, ((0, 3), (0, 0))), jnp.pad(bias, (0, 3))[:, None]
        z = softmax.linear(x, padded, above, classes=4)
        return softmax.cross_entropy(z, jnp.asarray(labels), mask=jnp.asarray(mask), classes=4, smoothing=smoothing)

    arrays = [jnp.asarray(value, jnp.float32) for value in given.values()]
    value, gradients = jax.value_and_grad(ours, argnums=(0, 1, 2))(*arrays)
    assert float(value) == pytest.approx(wanted.item(), rel=1e-5)
    for name, gradient in zip(given, gradients, strict=True):
        np.testing.assert_allclose(gradient, theirs[name].grad, atol=1e-6, err_msg=name)


def test_passes_go_on_from_call_to_call():
    left, drawn = None, []
    for call in range(12):
        rows, left = open_passes(left, 7, 5, np.random.default_rng(call))
        assert len(rows) == 5 and len(left), "an empty array cannot be saved"
        drawn.append(rows)
    passes = np.concatenate(drawn)[:56].reshape(8, 7)
    np.testing.assert_array_equal(np.sort(passes, 1), np.tile(np.arange(7), (8, 1)))
    assert len(np.unique(passes, axis=0)) > 4


def planned(balanced, place):
    objective = pretraining_objective(None, label_cells(place), batch=6, steps=4, width=3, balanced=balanced)
    memory, plans = {}, []
    for index in range(3):
        plan, memory = objective.plan(index, np.random.default_rng([9, index]), memory, None)
        plans.append(plan)
    draws = [plan.draws["source"] for plan in plans]
    rows, labels = (np.concatenate([getattr(draw, name).ravel() for draw in draws]) for name in ("rows", "label"))
    np.testing.assert_array_equal(draws[0].at(2).rows, rows[12:18])
    np.testing.assert_array_equal(draws[0].at(2).label, labels[12:18])
    return rows, labels


@pytest.mark.parametrize("balanced", [False, True])
def test_images_or_classes_weigh_the_same(balanced):
    place = np.array([5, 5, 5, 5, 5, 5, 5, -1, 2, 9, 9, 9])  # 72 drawn of 11 images
    rows, labels = planned(balanced, place)
    np.testing.assert_array_equal(labels, np.searchsorted([2, 5, 9], place[rows]))
    images = np.bincount(rows, minlength=12)
    assert images[7] == 0, "an image without a class"
    if balanced:
        assert np.bincount(labels).tolist() == [24, 24, 24]
    else:
        assert set(images[place >= 0]) == {6, 7}


@pytest.mark.long
def test_devices_do_not_matter(config, tmp_path):
    """ArcFace over 25 classes, padded to 32 and split over two devices."""
    config = config.copy_and_resolve_references().unlock()
    config.objective.update(loss="arcface", margin_warmup=0.5)
    config.epochs, config.steps_per_epoch, config.mesh.model = 1, 4, 2
    _, eight = trained(config.lock(), tmp_path / "eight", devices=8)
    config.mesh.model = 1
    _, one = trained(config, tmp_path / "one")
    assert [record["step"] for record in one] == [0, 1, 2, 3]
    # One device pads to 32 classes as well, so that the heads start alike.
    np.testing.assert_allclose([r["loss"] for r in eight], [r["loss"] for r in one], rtol=2e-4)


def test_it_learns_and_any_recipe_starts_from_it(config, tiny_config, tmp_path):
    config = config.copy_and_resolve_references().unlock()
    config.objective.smoothing, config.test_data = 0.1, ConfigDict({})
    with jax.numpy_dtype_promotion("standard"):
        train.run(config.lock(), tmp_path / "pretrain")
    accuracy = [record["accuracy"] for record in logs.read(tmp_path / "pretrain") if "loss" in record]
    assert len(accuracy) == 48 and np.mean(accuracy[-12:]) > 0.2 > 3 * np.mean(accuracy[:6]), "chance is 0.04"

    file = tmp_path / "pretrain" / "model.safetensors"
    saved = weights.from_torch("jaxvpr", weights.read(file), builders.shapes(config))
    recipe = tiny_config.copy_and_resolve_references().unlock()
    recipe.init, recipe.epochs, recipe.optimizer.warmup, recipe.optimizer_extra.warmup = f"{file}:backbone/", 1, 0, 0
    recipe.steps_per_epoch, recipe.model.backbone_options = 1, SHALLOW
    begun, _ = trained(recipe.lock(), tmp_path / "cosplace")
    initial, kept = (flatten_dict(tree, sep="/") for tree in (begun.initial, saved))
    for path, value in kept.items():
        np.testing.assert_array_equal(initial[path], value)
    recipe.init = ""
    fresh = flatten_dict(builders.initial_variables(recipe), sep="/")
    assert not np.array_equal(kept["params/backbone/conv1/kernel"], fresh["params/backbone/conv1/kernel"])
    head = set(initial) - set(kept)
    assert head and all("/aggregator/" in path and initial[path].shape == fresh[path].shape for path in head)
    assert any(np.std(initial[path]) > 0 for path in head), "a head of its own, drawn as ever"

    out = tmp_path / "backbone.safetensors"
    export.run(config, tmp_path / "pretrain", "best", out, family="torchvision_resnet")
    kernel = kept["params/backbone/layer1_0/conv1/kernel"]
    np.testing.assert_array_equal(weights.read(out)["layer1.0.conv1.weight"], kernel.transpose(3, 2, 0, 1))


class Corners(nn.Module):
    """The colours of the image as its map; the first pixel as its token, where there is one."""

    token: bool

    def __call__(self, images, train):
        return Features(images, images[:, 0, 0] if self.token else None)


@pytest.mark.parametrize("token", [False, True])
def test_pooled_is_the_token_or_the_mean_of_the_map(token):
    images = np.random.default_rng(0).integers(0, 255, (2, 4, 6, 3), dtype=np.uint8)
    model = PlaceModel(Corners(token), models.AGGREGATORS["spoc"](), (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    wanted = ((images[:, 0, 0] if token else images.mean((1, 2))) / 255 - 0.5) / (0.25, 0.5, 1.0)
    pooled = model.apply({}, images, method="pooled")
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(4, 6, 3\).*\[B, H, W, 3\]"):
        model.apply({}, images[0], method="pooled")


MISTAKES = {
    "objective.loss=hinge": r"objective\.loss='hinge'.*\['softmax', 'arcface', 'cosface'\]",
    "objective.smoothing=1.0": r"objective\.smoothing=1\.0\b.*\b0\b.*\b1\b",
    "objective.loss=arcface,objective.smoothing=0.1": r"smoothing=0\.1\b.*softmax.*objective\.loss='arcface'",
    "objective.partition.by=street": r"objective\.partition\.by='street'.*\['cell'",
    "objective.min_images=4": r"class.*\b4 images.*\b25 classes",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, config):
    for one in change.split(","):
        override(config, *one.split("="))
    with pytest.raises((UserError, DataError), match=MISTAKES[change]):
        families.recipe(config, make_mesh(), [])


def test_one_class_is_none():
    with pytest.raises(UserError, match=r"\b75\b.*\bone class\b.*train_data\.root=FOLDER"):
        pretraining_objective(None, label_cells(np.zeros(75, np.int64)), batch=4, steps=1, width=3)


@pytest.mark.parametrize("preset", pretrain.PRESETS)
def test_presets_fit_their_models(preset):
    config = pretrain.get_config(preset)
    assert config.name == f"pretrain-{preset}" and config.objective.name in families.FAMILIES
    assert builders.shapes(config)["params"]
