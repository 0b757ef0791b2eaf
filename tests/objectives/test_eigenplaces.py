"""EigenPlaces: what a step draws, the loss by hand, both heads train, and the run through the real door."""

import pickle
import re
from functools import cache

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from stopping import Stopped, losses, stopping_at, trained

from configs import common
from data_pipelines.eigen import Views, eigen_classes
from data_pipelines.errors import DataError
from data_pipelines.partitions import label_cells
from data_pipelines.readers import read
from jaxvpr import families
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.objectives.eigenplaces import KINDS, eigenplaces_objective
from jaxvpr.objectives.objective import Context
from jaxvpr.parallel.mesh import make_mesh, to_global
from jaxvpr.training import logs, loop, optimisers
from jaxvpr.training.state import init_state
from jaxvpr.training.step import Turn, make_step

SHALLOW = ConfigDict({"widths": (8, 8, 8, 8), "cut": "layer1"})


class Tiny(nn.Module):
    """Means of image quarters, then a linear layer."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.astype(jnp.float32) / 255
        x = x.reshape(len(x), 2, 4, 2, 4, 3).mean((2, 4)).reshape(len(x), -1)
        x = nn.Dense(16)(x - 0.5)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


MODEL = Tiny()


def city(panoramas=True, **options):
    """Four groups of cells of 15 m, random positions and headings."""
    rng = np.random.default_rng(2)
    east, north = rng.uniform(0, 100, 600), rng.uniform(0, 100, 600)
    time = np.zeros(600, "datetime64[s]")
    heading = rng.uniform(0, 360, 600)
    return eigen_classes(east, north, heading, time, N=2, min_images=2, turn=60, panoramas=panoramas, **options)


def objective(**options):
    settings = {"batch": 8, "steps": 4, "scale": 20.0, "margin": 0.1}
    return eigenplaces_objective(*city(), **settings, **options).embedding_with(MODEL)


@pytest.mark.parametrize("panoramas", [True, False])
def test_a_plan_draws_images_of_both_kinds_from_the_group_of_its_turn(panoramas):
    views = dict(zip(KINDS, city(panoramas), strict=True))
    goal = eigenplaces_objective(*views.values(), batch=6, steps=50)
    assert goal.streams == ("lateral", "frontal") and goal.slots == 4 and goal.period == 50
    for index in (0, 3, 6):
        plan, memory = goal.plan(index, np.random.default_rng(index), {}, None)
        assert plan.slot == index % 4 and memory == {}
        seen = {kind: set() for kind in KINDS}
        for step in range(50):
            for kind, draws in pickle.loads(pickle.dumps(plan.draws)).items():
                drawn = draws.at(step)
                rows, labels = views[kind].cells.labels(index % 4)
                assert [dict(zip(rows, labels, strict=True))[row] for row in drawn.rows] == drawn.label.tolist()
                assert len(set(drawn.label)) == 6 and drawn.mask.all()
                where = dict(zip(views[kind].cells.rows, views[kind].view, strict=True))
                np.testing.assert_array_equal(drawn.view, [where[row] for row in drawn.rows])
                assert drawn.view.dtype == np.float32 and np.isnan(drawn.view).all() == (not panoramas)
                seen[kind] |= set(drawn.rows.tolist())
        assert all(len(seen[kind]) > 0.6 * len(views[kind].cells.group(index % 4)[0]) for kind in KINDS)
    again, _ = goal.plan(6, np.random.default_rng(6), {}, None)
    jax.tree.map(np.testing.assert_array_equal, plan, again)


def test_the_loss_by_hand():
    """Two classes of two dimensions in the group: cosines 1 and 0 at scale 2 and margin 0.5. The third row pads."""
    cells = label_cells(np.array([0, 1]))
    one = Views(cells, np.zeros(2, np.float32))
    goal = eigenplaces_objective(one, one, batch=1, steps=1, scale=2.0, margin=0.5, weights=(3.0, 0.25))
    heads = jnp.array([[5.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    batch = {"label": jnp.array([0]), "mask": jnp.array([True])}
    outputs = {"lateral": jnp.array([[1.0, 0.0]]), "frontal": jnp.array([[0.0, 3.0]])}
    at = Context(
        step=jnp.int32(0), epoch=jnp.int32(0), progress=jnp.float32(0), slot=jnp.int32(0), key=jax.random.key(0)
    )
    arguments = dict.fromkeys(KINDS, heads), {}, outputs, dict.fromkeys(KINDS, batch), at
    value, aux, metrics = jax.jit(goal.loss)(*arguments)
    # Right: logits 2 (1 - 0.5) = 1 and 0. Wrong: 2 (0 - 0.5) = -1 and 2.
    right, wrong = np.log(1 + np.exp(-1)), np.log(1 + np.exp(3))
    assert float(metrics["lateral_loss"]) == pytest.approx(right, rel=1e-5)
    assert float(metrics["frontal_loss"]) == pytest.approx(wrong, rel=1e-5)
    assert float(value) == pytest.approx(3 * right + 0.25 * wrong, rel=1e-5) and aux == {}


@cache
def stepped(weights=(1.0, 1.0), devices=1, model_axis=1):
    """The states before and after two steps of the second group, on the host, and the metrics of the last."""
    goal, mesh = objective(weights=weights), make_mesh(model_axis, devices=jax.devices()[:devices])
    tuners = dict.fromkeys(optimisers.GROUPS, optimisers.build("sgd", rate=5e-3, total=100))
    blank = np.zeros((1, 8, 8, 3), np.uint8)
    state, shardings = init_state(MODEL, goal, tuners, mesh, example=blank, frozen=(), seed=0)
    before = jax.device_get((state.params, state.extra, state.opt["heads"]))
    step = make_step(goal, tuners, mesh, shardings, total=100)
    plan, _ = goal.plan(1, np.random.default_rng(0), {}, None)
    images = np.random.default_rng(1)
    for number in range(2):
        batches = {
            kind: to_global(
                mesh,
                {
                    "image": images.integers(0, 255, (8, 8, 8, 3)).astype(np.uint8),
                    "label": drawn.label,
                    "mask": drawn.mask,
                },
            )
            for kind, drawn in ((kind, draws.at(number)) for kind, draws in plan.draws.items())
        }
        state, metrics = step(state, batches, Turn(np.int32(number), np.int32(plan.slot)))
        assert bool(metrics["ok"])
    return before, jax.device_get((state.params, state.extra, state.opt["heads"])), jax.device_get(metrics)


@pytest.fixture
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(("weights", "learning_kinds"), [((1.0, 1.0), KINDS), ((1.0, 0.0), KINDS[:1])])
def test_heads_of_the_drawn_group_move_and_no_others(weights, learning_kinds, standard_promotion):
    (params, extra, opt), (params_after, extra_after, opt_after), metrics = stepped(weights)
    assert {"lateral_loss", "frontal_loss", "loss"} <= set(metrics)
    total = weights[0] * metrics["lateral_loss"] + weights[1] * metrics["frontal_loss"]
    assert metrics["loss"] == pytest.approx(total, rel=1e-6)
    counts = city()[0].cells.counts
    for kind in KINDS:
        moved = np.abs(extra_after[kind] - extra[kind]).max(2) > 0
        expected = np.zeros_like(moved)
        expected[1, : counts[1]] = kind in learning_kinds
        np.testing.assert_array_equal(moved, expected)
    for old, new in zip(jax.tree.leaves(opt), jax.tree.leaves(opt_after), strict=True):
        np.testing.assert_array_equal(old[[0, 2, 3]], new[[0, 2, 3]])
    kernels = [tree["Dense_0"]["kernel"] for tree in (params, params_after)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def test_devices_do_not_matter(standard_promotion):
    """Eight devices, which split the images in two and the classes in four."""
    if jax.device_count() < 8:
        pytest.skip("needs eight (simulated) devices")
    one, eight = stepped(), stepped(devices=8, model_axis=4)
    assert one[2]["loss"] == pytest.approx(eight[2]["loss"], rel=2e-5)
    for alone, spread in zip(jax.tree.leaves(one[1][:2]), jax.tree.leaves(eight[1][:2]), strict=True):
        np.testing.assert_allclose(alone, spread, atol=3e-6)


def test_classes_and_weights_must_fit():
    lateral, frontal = city()
    other, _ = city(groups=2)
    with pytest.raises(ValueError, match=r"lateral.*\[.*frontal.*\["):
        eigenplaces_objective(other, frontal, batch=8, steps=1)
    for weights in ((1.0,), (0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match=re.escape(f"weights={weights}")):
            eigenplaces_objective(lateral, frontal, batch=8, steps=1, weights=weights)


@pytest.fixture
def config(photo_tree):
    """The preset `tiny` on `photo_tree`: the 25 places are cells of 30 m in four groups, of which two are kept."""
    config = load_config("configs/eigenplaces.py:tiny").unlock()
    config.city, config.test_data = ConfigDict({}), ConfigDict({})
    config.train_data = common.data("at_names", str(photo_tree), "train")
    config.val_data = ConfigDict({"val": common.data("at_names", str(photo_tree), "val")})
    config.model.backbone_options = SHALLOW
    config.objective.update(M=30.0, min_images=3, turn=180.0)
    config.eval.recalls, config.eval.batch = (1, 5), 16
    return config


@pytest.mark.long
def test_it_learns_from_views_of_panoramas_and_a_stopped_run_goes_on_to_the_bit(config, tmp_path, monkeypatch):
    """Photos of 32 pixels, taken for panoramas: a quarter of each is cut. Step 14 lies inside the second plan."""
    config.panorama.update(size=(32, 32), view=8)
    config.objective.groups, config.steps_per_epoch, config.every_epochs = 1, 12, 2
    config.objective.margin_warmup = 0.0  # else the loss rises with the margin
    config.checkpoint.every_steps, config.mesh.model = 5, 2
    alone = trained(config, tmp_path / "alone", devices=2)
    found = losses(tmp_path / "alone")
    assert len(found) == 24 and np.mean(found[-4:]) < 0.6 * np.mean(found[:4])
    with monkeypatch.context() as patched:
        patched.setattr(loop, "make_step", stopping_at(14, loop.make_step))
        with pytest.raises(Stopped):
            trained(config, tmp_path / "broken", devices=2)
    resumed = trained(config, tmp_path / "broken", devices=2)
    jax.tree.map(np.testing.assert_array_equal, alone.best, resumed.best)
    assert logs.read(tmp_path / "alone") == logs.read(tmp_path / "broken")


def test_mistakes_are_named(config, photo_tree, tmp_path):
    sets = [read("at_names", photo_tree, split="train")]
    make = families.FAMILIES["eigenplaces"]
    config.panorama.update(size=(16, 64), view=8)
    with pytest.raises(UserError, match=r"jpg.*\b32x32\b.*panorama\.size=\(16, 64\).*panorama\.size"):
        make(config, sets)
    config.panorama.size = ()
    with pytest.raises(UserError, match=r"config\.objective.*weights=\(0\.0, 0\.0\)"):
        config.objective.weights = (0.0, 0.0)
        make(config, sets)
    with pytest.raises(UserError, match=r"objective\.name='eigenplaces'.*more_train_data"):
        make(config, sets * 2)
    cv2.imwrite(str(tmp_path / "@300000@5000000@33@U@@@@@@@@@@@.jpg"), np.zeros((8, 8, 3), np.uint8))
    nowhere = [read("at_names", tmp_path)]
    with pytest.raises(DataError, match=r"1 of 1.*heading.*row 0\b.*@300000@5000000.*\.jpg"):
        make(config, nowhere)
