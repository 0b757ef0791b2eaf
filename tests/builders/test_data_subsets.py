"""Conditions and roles of a data set: what a recipe trains on, and which queries it is measured by."""

import dataclasses
import re
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import common
from data_pipelines import readers
from data_pipelines.conditions import condition_bits
from data_pipelines.errors import DataError
from data_pipelines.minicity import CityConfig, DriveConfig
from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.cli.arguments import parse
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.retrieval import protocol

TEST = ("day", "night", "rain", "night")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Trained on by day and night; a database by day, and queries of three conditions and of none."""
    root = tmp_path_factory.mktemp("subsets") / "town"
    files = {
        "train": ["day", "night", "day"],
        "test/database": ["day", "day", "night"],
        "test/queries": [*TEST, ""],
    }
    for folder, notes in files.items():
        (root / "images" / folder).mkdir(parents=True)
        for east, note in enumerate(notes):
            name = f"@{100 + 30 * east}@200@33@U@@@@@90@@@@2013@{note}@.jpg"
            (root / "images" / folder / name).write_bytes(b"")
    return str(root)


def places(root, **keys) -> Places:
    return builders.places(common.base(), common.data("at_names", root, **keys))


def measured(root, **keys):
    (bench,) = builders.benchmarks(common.base(), ConfigDict({"town": common.data("at_names", root, "test", **keys)}))
    return bench


def test_training_images_of_some_conditions(root):
    assert places(root, split="train").east.tolist() == [100, 130, 160]
    assert places(root, split="train", conditions=("day",)).east.tolist() == [100, 160]
    assert places(root, split="train", conditions=("night", "day")).east.tolist() == [100, 130, 160], "in their order"
    images = places(root, split="test", conditions=("night",))
    assert [images.path.relative(row).split("/")[0] for row in range(len(images))] == ["database", "queries", "queries"]


def test_training_images_of_one_role(root):
    assert places(root, split="test", role="query").east.tolist() == [100, 130, 160, 190, 220]
    assert places(root, split="test", role="database").east.tolist() == [100, 130, 160]
    assert places(root, split="test", role="query", conditions=("night", "rain")).east.tolist() == [130, 160, 190]


def test_only_the_queries_of_a_test_are_filtered_and_the_protocol_says_so(root):
    bench = measured(root, conditions=("night", "rain"))
    assert bench.queries.east.tolist() == [130, 160, 190] and bench.database.east.tolist() == [100, 130, 160]
    assert bench.positives["25m"].counts.tolist() == [1, 1, 0], "of these queries, in their order"
    assert bench.split == "test (night, rain)"
    facts = protocol.protocol(
        dataset=bench.name, split=bench.split, queries=len(bench.queries), database=len(bench.database),
        positives=bench.positives, image_size=(64, 64), resize="area", dimension=8,
    )  # fmt: skip
    line = protocol.line(facts, "25m")
    assert line.startswith("town test (night, rain) | 3 queries (1 without positive) | 3 database images | 25m |")
    assert measured(root).split == "test" and len(measured(root).queries) == 5


def test_conditions_and_the_published_list_go_together(tmp_path, monkeypatch):
    """Queries of day, night, rain, night and none with answers 0 to 4; of night and rain those are 1, 2 and 3."""
    for folder, count in (("query", 5), ("ref", 5)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            (tmp_path / folder / f"{k}.jpg").write_bytes(b"")
    (tmp_path / "ground_truth.csv").write_text("query,references\n" + "".join(f"{k},{k}\n" for k in range(5)))

    def read(root, **options):
        places = readers.pairs.read(root, **options)
        bits = condition_bits([-1] * 5 + [0, 1, 2, 1, -1])
        return dataclasses.replace(places, condition=bits, conditions=("day", "night", "rain"))

    monkeypatch.setitem(readers.READERS, "pairs", read)
    spec = common.data("pairs", str(tmp_path), thresholds=("list",), conditions=("night", "rain"))
    (bench,) = builders.benchmarks(common.base(), ConfigDict({"town": spec}))
    assert [bench.queries.path.relative(row) for row in range(3)] == ["query/1.jpg", "query/2.jpg", "query/3.jpg"]
    assert [bench.positives["list"][query].tolist() for query in range(3)] == [[1], [2], [3]]
    assert len(bench.database) == 5 and bench.split == "all (night, rain)"


def test_recipes_of_before_these_keys_read_everything(root):
    spec = common.data("at_names", root, "test").to_dict()
    del spec["conditions"], spec["role"]
    assert len(builders.places(common.base(), ConfigDict(spec))) == 8
    (bench,) = builders.benchmarks(common.base(), ConfigDict({"town": spec}))
    assert bench.split == "test" and len(bench.queries) == 5


def test_what_is_not_there_is_named(root):
    with pytest.raises(DataError, match=r"town.*condition.*'nigth'.*\['day', 'night', 'rain'\]"):
        places(root, conditions=("day", "nigth"))
    with pytest.raises(DataError, match=r"town.*condition.*'fog'.*\['day'"):
        measured(root, conditions=("fog",))
    with pytest.raises(DataError, match=r"town.*\b8 images.*\['rain'\].*\b3\b.*\{'day': 2, 'night': 1, 'rain'"):
        places(root, split="test", role="database", conditions=("rain",))
    with pytest.raises(DataError, match=r"town.*\b3 images.*role.*'query'.*\b0\b"):
        places(root, split="train", role="query")
    with pytest.raises(DataError, match=r"role.*'querry'.*\['database', 'query'"):
        places(root, role="querry")
    with pytest.raises(UserError, match=r"\btown\b.*role='query'.*database.*queries"):
        measured(root, role="query")
    silent = Places.create("photos", Paths.of(["a.jpg"]))
    with pytest.raises(DataError, match=r"photos.*condition.*'day'.*conditions"):
        silent.only(conditions=["day"])


def test_the_command_line_sets_them():
    changes = ("train_data.conditions=('day','rain')", "test_data.minicity.conditions=night", "train_data.role=query")
    config = parse(["--config=configs/cosplace.py:city", *(f"--config.{change}" for change in changes)]).config
    assert config.train_data.conditions == ("day", "rain") and config.test_data.minicity.conditions == ("night",)
    assert config.train_data.role == "query" and config.val_data.minicity_val.conditions == ()


def test_any_folder_of_images_can_be_read_for_its_files(tmp_path):
    """What a target without labels is: no names, no positions, sub-folders and other formats included."""
    (tmp_path / "target" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg", "@x.webp"):
        Image.fromarray(np.full((4, 6, 3), 9, np.uint8)).save(tmp_path / "target" / name)
    (tmp_path / "target" / "notes.txt").write_text("of a walk")
    images = builders.places(common.base(), common.data("folder", str(tmp_path / "target")))
    assert [images.path.relative(row) for row in range(3)] == ["@x.webp", "a.png", "deep/b.jpg"]
    assert np.isnan(images.east).all() and np.isnan(images.heading).all()
    (tmp_path / "empty").mkdir()
    for folder, said in (("empty", r"no image.*empty"), ("gone", r"not found.*gone\b")):
        with pytest.raises(DataError, match=said):
            builders.places(common.base(), common.data("folder", str(tmp_path / folder)))
    with pytest.raises(DataError, match=r"target.*\b3 images.*role.*'query'"):
        builders.places(common.base(), common.data("folder", str(tmp_path / "target"), role="query"))
    with pytest.raises(DataError, match=r"target.*condition.*'night'.*conditions"):
        builders.places(common.base(), common.data("folder", str(tmp_path / "target"), conditions=("night",)))


@pytest.mark.parametrize("read", [builders.folders, builders.photos])
def test_hosts_compare_the_photos_of_folders_wherever_they_lie(photo_tree, tmp_path, monkeypatch, read):
    seen = []
    monkeypatch.setattr(hosts, "agree", lambda what, facts: seen.append(facts()))
    moved = shutil.copytree(photo_tree / "images" / "val", tmp_path / "photos")
    for folder in (photo_tree / "images" / "val", moved):
        read([str(folder)], Reader())
    next((moved / "queries").iterdir()).unlink()
    read([str(moved)], Reader())
    assert seen[0] == seen[1] and seen[0]["images"] == 50
    assert seen[2]["images"] == 49 and seen[2]["listing"] != seen[0]["listing"]


def test_figures_are_known_by_the_city_and_the_drives_that_they_are_of():
    config, city = common.base(), CityConfig()
    assert builders.identity(config) == {}
    sets = {"views": common.data("minicity", "data/minicity", "test")}
    config.test_data = ConfigDict(sets)
    known = {"city_digest": city.digest(), "city_test_digest": city.test_digest()}
    assert builders.identity(config) == known
    sets["clips"] = common.data("minicity", "data/minicity", "test", drives=True, clips={"length": 5})
    config.test_data = ConfigDict(sets)
    assert builders.identity(config) == known | {"drives_digest": DriveConfig().digest(city)}
    sets["there"] = common.data("minicity", "data/a", "test", drives=True, city={"seed": 1}, drive={"seconds": 2})
    config.test_data = ConfigDict(sets)
    both = sorted([DriveConfig().digest(city), DriveConfig(seconds=2).digest(CityConfig(seed=1))])
    assert builders.identity(config) == known | {"drives_digest": ", ".join(both)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "train_data.hold_out=0.2",
            r"train_data\.hold_out.*val_data \['val'\].*train_data\.hold_out=0, or val_data={}",
        ),
        ("train_data.hold_out=1.0", r"config\.train_data: hold_out=1\.0 must be from 0 to below 1"),
        ("train_data.gap=-1", r"gap=-1\.0 metres at least 0"),
        ("test_data.test.hold_out=0.2", r"config\.test_data\.test\.hold_out=0\.2.*does not train"),
        ("val_data={},train_data.hold_out=0.2,train_data.gap=900", r"hold_out=0\.2 with gap=900 leaves 0 of the 75"),
        (
            "val_data={},train_data.hold_out=0.2,train_data.gap=5,train_data.thresholds=metres",
            r"train_data\.thresholds",
        ),
        ("val_data={},best.patience=2", r"best\.patience=2.*train_data\.hold_out=0\.2"),
        ("val_data={},train_data.hold_out=0.2,best.measure=val/R@1", r"best\.measure.*held_out/R@1"),
    ],
)
def test_what_a_held_out_part_does_not_go_with_is_named(change, message, refused, tiny_recipe, tmp_path):
    said = refused(f"--config={tiny_recipe},{change}", f"--workdir={tmp_path / 'run'}", "--dry-run")
    assert re.search(message, said), said


def test_what_is_held_out_validates_and_is_not_trained_on(tiny_config):
    """Of two training sets one holds images out; a threshold of its own says what answers a query."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.more_train_data = ConfigDict({"again": config.train_data.to_dict()})
    config.more_train_data.again.update(hold_out=0.3, gap=20.0, thresholds=("10m", "25m"))
    config.val_data = ConfigDict({})
    (bench,) = builders.validation(config)
    whole, rest = builders.training_sets(config)
    assert bench.name == "held_out_again" and list(bench.positives) == ["10m", "25m"] and len(whole) == 75
    apart = Places.concat([bench.database, bench.queries])
    assert np.hypot(apart.east[:, None] - rest.east, apart.north[:, None] - rest.north).min() >= 20
    names = [{part.path[row] for row in range(len(part))} for part in (rest, apart)]
    assert not names[0] & names[1] and 75 > len(rest) + len(apart) > 50
    assert [one.name for one in builders.tests(config)] == ["test"], "the recipe has some of its own"
