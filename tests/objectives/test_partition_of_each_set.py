"""Each data set may have a partition of its own: places of one, cells of the other."""

import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from jaxvpr import builders, families
from jaxvpr.builders.training_images import partitioned, training_sets
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Embed
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs
from jaxvpr.verbs import train

CELLS = {"by": "cell", "M": 30.0, "alpha": 360.0}


@pytest.fixture(scope="module")
def folders(photo_tree, tmp_path_factory):
    """The 75 training images of `photo_tree`, a folder for each of its 25 places."""
    root = tmp_path_factory.mktemp("folders")
    for file in (photo_tree / "images" / "train").glob("*.jpg"):
        place = root / file.name.split("@")[7][:2]
        place.mkdir(exist_ok=True)
        shutil.copy(file, place)
    return root


@pytest.fixture
def config(tiny_config, folders, photo_tree):
    """Places of 3 images, 8 in a batch: half of them folders, half of them cells of 30 m."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective = common.places(P=8, K=3, by="place")
    config.objective.weights = (1.0, 1.0)
    config.train_data = common.data("classes", str(folders))
    config.more_train_data = ConfigDict({"street": common.data("at_names", str(photo_tree), "train", partition=CELLS)})
    config.batch, config.steps_per_epoch = 24, 8
    return config.lock()


def test_one_set_trains_by_place_and_one_by_cell(config, tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        train.run(config, tmp_path)
    losses = [record["loss"] for record in logs.read(tmp_path) if "loss" in record]
    assert len(losses) == 16 and sum(losses[-4:]) < sum(losses[:4])


def test_places_of_one_set_and_cells_of_the_other_share_a_batch(config):
    sets = training_sets(config)
    plan, _ = families.FAMILIES["places"](config, sets).objective.plan(0, np.random.default_rng(0), {}, None)
    assert ((plan.draws["source"].rows < 75).sum(1) == 12).all() and plan.draws["source"].rows.max() >= 75
    named = partitioned(config, sets)
    assert [len(np.unique(images.place)) for images in named] == [25, 25]
    assert (named[0].place == sets[0].place).all() and (sets[1].place == -1).all()


def test_the_command_line_sets_the_partition_of_a_data_set(config):
    for key, text in (("by", ""), ("M", "0"), ("alpha", "0")):
        override(config, f"more_train_data.street.partition.{key}", text)
    with pytest.raises(UserError, match=r"no place of \['photos\d*'\] has 3 images"):
        families.FAMILIES["places"](config, training_sets(config))
    override(config, "more_train_data.street.partition.by", "cell")
    override(config, "more_train_data.street.partition.M", "60")
    images = partitioned(config, training_sets(config))[1]
    east, north = (np.floor_divide(metres, 60) for metres in (images.east, images.north))
    expected = {*zip(east, north, images.heading // 30, strict=True)}  # alpha is still the objective's 30 degrees
    assert len(np.unique(images.place)) == len(expected)
    with pytest.raises(UserError, match=r"no key config\.train_data\.partition\.bi\b.*\bby\b"):
        override(config, "train_data.partition.bi", "cell")


def test_partitions_that_make_no_sense_are_named(config):
    override(config, "more_train_data.street.partition.by", "street")
    with pytest.raises(UserError, match=r"more_train_data\.street\.partition\.by='street'.*\['cell', 'place'\]"):
        partitioned(config, training_sets(config))
    override(config, "objective.name", "cells")
    with pytest.raises(UserError, match=r"more_train_data\.street\.partition=.*'street'.*'cells' does not look at it"):
        builders.refuse_partitions(config)
    override(config, "val_data.val.partition.by", "cell")
    with pytest.raises(UserError, match=r"\bval\b.*partition\.by='cell'.*train.*'25m'"):
        builders.benchmarks(config, config.val_data)
    with pytest.raises(ValueError, match=r"partition.*\['side'\].*\['by', 'M', 'alpha'\]"):
        common.data("at_names", "", partition={"side": 3})


def test_a_family_that_does_not_look_at_partitions_refuses_them(tiny_config):
    config = tiny_config.copy_and_resolve_references()
    override(config, "train_data.partition.by", "cell")
    with pytest.raises(UserError, match=r"train_data\.partition=.*'cells' does not look at it"):
        families.recipe(config, make_mesh(), [])


def test_megaloc_draws_from_every_data_set_that_it_names(folders, photo_tree):
    """The paper's recipe on small data in place of its own: cliques of MSLS, and SF-XL by cells."""
    roots = {"megascenes": folders, "scannet": folders, "msls": photo_tree, "sf_xl": photo_tree}
    changes = ["train_data.reader=classes", f"train_data.root={folders}", "objective.P=5", "objective.K=3", "batch=15"]
    changes += [f"more_train_data.{name}.root={root}" for name, root in roots.items()]
    config = load_config(",".join(["configs/megaloc.py:megaloc", "steps_per_epoch=4", *changes]))
    sets = training_sets(config)
    assert [len(images) for images in sets] == [75] * 5
    embed = Embed(rows=lambda rows: np.random.default_rng(0).normal(size=(len(rows), 4)), on_mesh=None)
    plan, _ = families.FAMILIES["places"](config, sets).objective.plan(0, np.random.default_rng(0), {}, embed)
    of = plan.draws["source"].rows.reshape(4, 5, 3) // 75
    assert (of == of[..., :1]).all() and (np.sort(of[..., 0], axis=1) == np.arange(5)).all()
