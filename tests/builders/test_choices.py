"""Values chosen from the data: which, why, who may say otherwise, and that equal data give equal ones."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from data_pipelines import readers
from data_pipelines.images import RULES
from data_pipelines.minicity import CityConfig, layout, poses
from data_pipelines.partitions import cosplace_cells
from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.builders import choices
from jaxvpr.cli import checks
from jaxvpr.cli.arguments import parse
from jaxvpr.errors import UserError
from jaxvpr.runs import which, workdir


def config_of(recipe, *flags):
    return parse(["train", f"--config=configs/{recipe}", *flags]).config


def settled(config):
    return builders.settle(config, builders.training_sets)


def street(city: CityConfig) -> Places:
    """The training images of a drawn street; nothing is drawn."""
    cameras = poses.cameras(city, layout.plan(city))
    train = cameras.part == poses.TRAIN
    east, north = np.repeat(cameras.xy[train] + (poses.EAST, poses.NORTH), city.headings, axis=0).T
    heading = np.tile(poses.headings(0.0, city.headings), int(train.sum()))
    paths = Paths.of([f"{row}.jpg" for row in range(len(east))], ".")
    return Places.create("street", paths, east=east, north=north, zone=33, heading=heading)


def sane(places: Places, config) -> tuple[float, float, int]:
    """Share of images kept, images of the median class, and least classes of a group."""
    keys = {key: config.objective.partition[key] for key in ("M", "alpha", "N", "L", "min_images")}
    cells = cosplace_cells(places.east, places.north, places.heading, **keys)
    return len(cells.rows) / cells.total, float(np.median(np.diff(cells.indptr))), int(cells.counts.min())


def chosen_for(places: Places, recipe="cosplace.py:own"):
    config = config_of(recipe).copy_and_resolve_references()
    for choose in (choices._batch, choices._partition, choices._length, choices._rate):
        choices._take(config, choose(config, places), [])
    checks.check(config)
    return config


@pytest.mark.parametrize(
    ("city", "images", "one_group"),
    [
        (CityConfig(blocks=1, headings=4, train_years=(2013, 2014), style="modern", seed=7), 608, True),
        (CityConfig(train_years=(2013, 2014, 2015)), 5_616, True),
        pytest.param(CityConfig(blocks=20), 513_360, False, marks=pytest.mark.long),
    ],
)
def test_cells_are_those_that_docs_own_street_calls_sane(city, images, one_group):
    places = street(city)
    config = chosen_for(places)
    kept, median, classes = sane(places, config)
    assert len(places) == images and kept >= 0.9 and median >= 4 and classes > config.batch
    keys = config.objective.partition
    assert ((keys.N, keys.L) == (1, 1)) == one_group and keys.groups == 0
    steps = config.epochs * config.steps_per_epoch
    assert 10 <= steps * config.batch / images <= 20 and config.epochs % (keys.N**2 * keys.L) == 0


def test_real_photos_have_cells_too(real_data):
    root = real_data / "sf_xs_val"
    halves = [readers.read("at_names", root, paths_file=root / f"{half}.txt.gz") for half in ("database", "queries")]
    places = Places.concat(halves)
    config = chosen_for(places)
    kept, median, classes = sane(places, config)
    assert len(places) == 16_008 and kept >= 0.9 and median >= 4 and classes > config.batch


def test_images_without_headings_make_squares():
    places = street(CityConfig(train_years=(2013, 2014, 2015)))
    blind = Places.create(
        "blind", places.path, east=places.east, north=places.north, zone=33, heading=np.full(len(places), np.nan)
    )
    keys = chosen_for(blind).objective.partition
    assert keys.by == "square" and keys.N == 1
    numbered = dataclasses.replace(blind, place=np.arange(len(blind)) // 8)
    keys = chosen_for(numbered).objective.partition
    assert (keys.by, keys.min_images) == ("place", 2)
    assert chosen_for(blind, "own.py").objective.partition.angle == 180


@pytest.mark.parametrize(
    "recipe", ["own.py", "cosplace.py:own", "gsv_cities.py:own", "netvlad.py:own", "eigenplaces.py:own"]
)
def test_a_tree_with_splits_is_read_as_such_and_twice_the_same(photo_tree, recipe):
    config, made = settled(config_of(f"{recipe},data={photo_tree}"))
    assert config.auto == () and config == settled(config_of(f"{recipe},data={photo_tree}"))[0]
    assert (config.train_data.reader, config.train_data.split, config.train_data.hold_out) == ("at_names", "train", 0)
    assert list(config.val_data) == ["val"] and list(config.test_data) == ["test"]
    assert all(why and "\n" not in why for _, _, why in made)
    assert config.image.size == (64, 64), "photos are square, of 32 pixels"


def test_what_the_user_says_is_not_chosen(photo_tree):
    config = config_of(f"cosplace.py:own,data={photo_tree},objective.partition.M=17", "--config.epochs=5")
    assert not {"objective.partition.M", "epochs"} & set(config.auto) and "objective.partition.alpha" in config.auto
    found, made = settled(config)
    assert (found.objective.partition.M, found.epochs) == (17.0, 5)
    assert not {"objective.partition.M", "epochs"} & {key for key, _, _ in made}
    assert config_of("own.py,auto=()").auto == ()


@pytest.fixture
def without_split(photo_tree, tmp_path):
    """The same photos in one folder, wider than high; two of them tell no coordinates."""
    folder = tmp_path / "mine"
    shutil.copytree(photo_tree / "images" / "train", folder)
    for number in range(2):
        Image.new("RGB", (64, 32)).save(folder / f"a{number}.jpg")
    return folder


def test_a_folder_without_split_holds_a_part_of_the_map_out(without_split):
    changes = f"own.py,data={without_split},train_data.hold_out=0.3,train_data.gap=20"
    config, _ = settled(config_of(changes))
    assert config.train_data.reader == "folder" and config.train_data.options.without_position == "drop"
    assert config.train_data.hold_out == 0.3 and not config.val_data and not config.test_data
    assert len(builders.validation(config)) == 1


def test_a_table_is_read_as_one(without_split):
    rows = [f"{path.name},{300_000 + 9 * n},5000000" for n, path in enumerate(sorted(without_split.iterdir()))]
    (without_split / "photos.csv").write_text("\n".join(["path,east,north", *rows]))
    config, _ = settled(config_of(f"own.py,data={without_split}"))
    assert config.train_data.reader == "csv" and config.objective.partition.angle == 180


def test_splits_without_one_to_train_on_are_refused(photo_tree, tmp_path):
    shutil.copytree(photo_tree / "images" / "val", tmp_path / "val")
    with pytest.raises(UserError, match=r"has the split val and no train.*train_data\.split=NAME"):
        settled(config_of(f"own.py,data={tmp_path}"))


def test_other_verbs_take_what_the_run_chose(photo_tree, tmp_path):
    given = config_of(f"cosplace.py:own,data={photo_tree},epochs=5")
    assert which.with_choices(given, tmp_path) == given, "no run has been there"
    made, _ = settled(given)
    workdir.claim(tmp_path, made)
    found = which.with_choices(given, tmp_path)
    assert found.auto == () and not workdir.differences(found, made)
    assert found.image.size == made.image.size and found.test_data.to_json() == made.test_data.to_json()


def test_a_run_is_that_of_its_recipe_before_the_choices_too(photo_tree, tmp_path):
    given = config_of(f"own.py,data={photo_tree}")
    made, _ = settled(given)
    assert not workdir.differences(made, given)
    other = config_of(f"own.py,data={photo_tree},objective.K=4")
    assert list(workdir.differences(made, other)) == ["objective.K"]


@pytest.mark.parametrize(
    ("method", "size", "options"),
    [
        ("cosplace-resnet18-512", (64, 64), {"frozen_until": "layer2", "frozen_bn": "all"}),  # of any size
        ("convap-resnet50-4096", (320, 320), {"frozen_until": "layer2", "frozen_bn": "all"}),  # of this size
        ("salad-dinov2b", (322, 322), {"train_blocks": 4}),
    ],
)
def test_a_published_method_is_tuned_on_the_host_s_pixels_with_its_early_blocks_at_rest(
    photo_tree, method, size, options
):
    config, _ = settled(config_of("gsv_cities.py:own", f"--config.data={photo_tree}", f"--config.method={method}"))
    assert tuple(config.image.size) == size and config.image.resize in RULES
    assert config.model.backbone_options.to_dict().items() >= options.items()
    assert config.image.mean == (0.485, 0.456, 0.406)  # the method's own, not the recipe's


def test_what_is_said_of_the_backbone_is_not_chosen(photo_tree):
    given = "method=cosplace-resnet18-512", "model.backbone_options.frozen_until=layer3"
    flags = (f"--config.{change}" for change in (f"data={photo_tree}", *given))
    config, _ = settled(config_of("gsv_cities.py:own", *flags))
    assert config.model.backbone_options.to_dict() == {"frozen_until": "layer3"}
