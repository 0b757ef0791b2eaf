"""Training on clips through the real loop: triplets, places and JIST; what is drawn, that it learns, and mistakes."""

import clip_recipes
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from stopping import Stopped, losses, stopping_at, trained

from data_pipelines.draws import Draw
from data_pipelines.errors import DataError
from jaxvpr import families
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.objectives.objective import Embed
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.cache import from_host
from jaxvpr.retrieval.extract import Described
from jaxvpr.training import logs, loop
from jaxvpr.verbs import train


@pytest.fixture
def made(tiny_config, drive_tree):
    """The configuration of a kind of training."""
    return lambda kind: clip_recipes.KINDS[kind](tiny_config, drive_tree)


def recipe(config):
    return families.recipe(config.copy_and_resolve_references().lock(), make_mesh(), [])


def planned(made, index=0):
    """The draws of a plan, mined with random descriptors."""
    rng = np.random.default_rng(1)

    def rows(asked):
        return rng.normal(size=(len(asked), 8)).astype(np.float32)

    def on_mesh(asked):
        return from_host(Described(rows(asked), np.zeros(0, np.int64)), make_mesh(), 8)

    return made.objective.plan(index, np.random.default_rng(index), {}, Embed(rows, on_mesh))[0]


@pytest.mark.parametrize("mining", ["full", "partial", "random"])
def test_positives_share_a_stop_nearly_and_negatives_none(mining, made):
    """Stops are 8 m apart, give or take 2 m, and a drive has 24 of them: by hand from the numbers of the frames."""
    config = made("triplets")
    config.objective.mining = mining
    found = recipe(config)
    source, draw = found.sources["source"], planned(found).draws["source"]
    assert draw.rows.shape == (3, 8, 4) and len(source) == 3 * 22
    drive, stop = np.divmod(source.clips[draw.rows], 24)
    assert (drive[..., 0, :] == 2).all() and (drive[..., 1:, :] < 2).all(), "queries are those of their own drive"
    between = np.abs(stop[..., :1, :, None] - stop[..., 1:, None, :]).min((-2, -1))
    assert between[..., 0].max() <= 1 and between[..., 1:].min() >= 3
    assert source.read(draw.at(0), 0, 0, "source")["image"].shape == (8, 4, 3, 32, 32, 3)
    assert found.summary == "triplets of 22 queries (0 more have no positive) and 44 database clips of 3 frames"


def test_a_place_of_clips_is_that_of_their_middle_frames(made):
    found = recipe(made("places"))
    draw, clips = planned(found).draws["source"], found.images
    cell = clips.images.east[clips.rows[draw.rows, 1]] // 16
    for cells, labels in zip(cell, draw.label, strict=True):
        assert len({*zip(cells, labels, strict=True)}) == len({*cells}) == len({*labels}) == 6


def test_both_read_images_and_clips_each_of_its_size(made):
    found = recipe(made("both"))
    draws = planned(found, 2).draws
    shapes = {stream: found.sources[stream].read(draws[stream].at(0), 0, 0, stream)["image"].shape for stream in draws}
    assert shapes == {"images": (16, 24, 24, 3), "clips": (8, 4, 3, 32, 32, 3)}
    assert [planned(found, index).slot for index in range(5)] == [0, 0, 1, 1, 0], "two plans are an epoch"
    clips, rows = found.sources["clips"], np.zeros((1, 1), np.int64)
    once, again = (clips.read(Draw.of(rows), 0, step, "clips")["image"] for step in (0, 1))
    np.testing.assert_array_equal(once, again)  # images alone are augmented


def test_heads_are_as_long_as_what_batches_describe(made):
    """Of a model whose descriptors grow with a clip: images of 16 numbers, clips of three times as many."""
    images, clips = made("both"), made("places")
    images.objective, images.more_train_data = images.objective.images, ConfigDict({})
    clips.objective.loss, clips.objective.miner, clips.objective.loss_options = "arcface", "none", ConfigDict({})
    for config, width in ((images, 16), (clips, 48)):
        config.model.sequence, config.model.sequence_options = "cat", ConfigDict({"frames": 3})
        heads, _ = recipe(config).objective.init(jax.random.key(0), 99)
        assert heads["prototypes"].shape[-1] == width


@pytest.mark.long
@pytest.mark.parametrize("kind", clip_recipes.KINDS)
def test_it_learns_and_is_measured_on_clips(kind, made, tmp_path):
    config = made(kind)
    config.epochs, config.pca.dim = 5, 8 if kind == "triplets" else 0
    with jax.numpy_dtype_promotion("standard"):
        (result,) = train.run(config.copy_and_resolve_references().lock(), tmp_path / "run")["results"]
    found = losses(tmp_path / "run")
    assert len(found) == 30 and np.mean(found[-6:]) < 0.85 * np.mean(found[:6])
    assert (result["protocol"]["clips"]["length"], result["protocol"]["queries"]) == (3, 22)
    assert result["protocol"]["dimension"] == (8 if kind == "triplets" else 16)


@pytest.mark.long
@pytest.mark.parametrize("head", ["joint", "cat", "seqgem"])
def test_trained_on_images_it_is_measured_on_clips(head, made, drive_tree, tmp_path):
    """Longer clips are described as well, without training again."""
    config = made("both")
    config.objective = config.objective.images
    config.model.sequence, config.more_train_data = head, ConfigDict({})
    if head == "joint":
        config.model.aggregator, config.model.aggregator_options = "netvlad", ConfigDict({"clusters": 4})
    config.test_data = ConfigDict(
        {f"of{length}": clip_recipes.drives(drive_tree, "test", length) for length in (0, 3, 7)}
    )
    with jax.numpy_dtype_promotion("standard"):
        results = train.run(config.copy_and_resolve_references().lock(), tmp_path / "run")["results"]
    assert len(losses(tmp_path / "run")) == 12
    one = results[0]["protocol"]["dimension"]
    wanted = [one * frames for frames in (1, 3, 7)] if head == "cat" else [one] * 3
    assert [result["protocol"]["dimension"] for result in results] == wanted
    assert [result["protocol"]["queries"] for result in results] == [24, 22, 18]


@pytest.mark.long
def test_jist_tells_where_clips_are_by_the_prototypes_of_its_cells(made, tmp_path):
    config = made("both")
    config.epochs, config.eval.localize = 1, True
    with jax.numpy_dtype_promotion("standard"):
        (result,) = train.run(config.copy_and_resolve_references().lock(), tmp_path / "run")["results"]
    found = result["localization"]
    assert found["classes"] > 1 and 0 <= found["without_class"]["10m"] < result["protocol"]["queries"]
    shares = list(found["recall"]["10m"].values())
    assert shares == sorted(shares) and 0 < shares[-1] <= 100


PARTS = [("triplets", "grad_cache"), ("both", "grad_cache"), ("places", "grad_cache"), ("both", "accumulate")]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "parts"), PARTS)
def test_a_batch_in_parts_is_the_batch(kind, parts, made, tmp_path):
    """Where BatchNorm rests: losses of a run in which each depends on the steps before."""
    config = made(kind)
    config.model.backbone_options.frozen_bn, config.frozen_random, config.epochs = "all", True, 1
    if "fc_norm" in config.model.aggregator_options:
        config.model.aggregator_options.fc_norm = False
    trained(config, tmp_path / "whole")
    config[parts] = 2
    trained(config, tmp_path / "parts")
    np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=2e-3)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["triplets", "both"])
def test_devices_do_not_matter(kind, made, tmp_path):
    config = made(kind)
    config.epochs = 1
    for devices in (1, 8):
        trained(config, tmp_path / str(devices), devices)
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "8"), rtol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("kind", clip_recipes.KINDS)
def test_a_run_stopped_inside_a_plan_goes_on_to_the_bit(kind, made, tmp_path, monkeypatch):
    """Full mining, whose negatives build on those of the plan before, and averaged weights."""
    config = made(kind)
    config.checkpoint.every_steps, config.ema.decay = 1, 0.5
    if kind != "places":
        (config.objective.clips if kind == "both" else config.objective).mining = "full"
    alone = trained(config, tmp_path / "alone")
    with monkeypatch.context() as patched:
        patched.setattr(loop, "make_step", stopping_at(8, loop.make_step))
        with pytest.raises(Stopped):
            trained(config, tmp_path / "broken")
    resumed = trained(config, tmp_path / "broken")
    jax.tree.map(np.testing.assert_array_equal, alone.best, resumed.best)
    assert logs.read(tmp_path / "alone") == logs.read(tmp_path / "broken")
    assert len(losses(tmp_path / "alone")) == 12


MISTAKES = {
    "images and clips": (
        "triplets", {"more_train_data.more.clips.length": "0"},
        r"train_data\.clips\.length=3, more_train_data\.more\.clips\.length=0.*share a batch",
    ),
    "lengths that differ": (
        "triplets", {"more_train_data.more.clips.length": "5"},
        r"train_data\.clips\.length=3, more_train_data\.more\.clips\.length=5.*one length",
    ),
    "a model of images": ("triplets", {"model.sequence": ""}, r"config\.\S+\.clips\.length=3.*describes images"),
    "a fixed length": (
        "both", {"model.sequence": "cat", "model.sequence_options": "{'frames': 5}"},
        r"config\.\S+\.clips\.length=3: .*takes 5 frames",
    ),
    "only images": ("both", {"more_train_data.drives.clips.length": "0"}, r"jist.*2 data sets of images, 0 of clips"),
    "a batch that has no parts": ("both", {"accumulate": "3"}, r"objective\.batch=16.*accumulate=3"),
    "weights": ("both", {"objective.weights": "(1.0,)"}, r"objective\.weights.*two numbers"),
    "a task that there is not": (
        "places", {"test_data.test.clips.task": "seq"}, r"config\.test_data\.test\.clips\.task='seq' does not exist"
    ),
    "longer than every drive": ("places", {"train_data.clips.length": "25"}, r"clips\.length=25.*24 frames"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake, made):
    kind, changes, said = MISTAKES[mistake]
    config = made(kind)
    if "more_train_data.more" in "".join(changes):
        config.more_train_data = ConfigDict({"more": config.train_data.copy_and_resolve_references()})
    for key, value in changes.items():
        override(config, key, value)
    with pytest.raises((UserError, DataError), match=said):
        names.check(config)
        recipe(config)


def test_other_families_refuse_clips(made):
    config = made("both")
    config.train_data, config.more_train_data = config.more_train_data.drives, ConfigDict({})
    config.objective = config.objective.images
    with pytest.raises(UserError, match=r"train_data\.clips\.length=3: objective\.name='cells' trains on images"):
        recipe(config)
