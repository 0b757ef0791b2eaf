"""docs/own_street.md: its table of partitions is true, its recipe is valid, and its Python does what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import readers
from data_pipelines.errors import DataError
from data_pipelines.minicity import CityConfig, layout, poses
from data_pipelines.partitions import cosplace_cells
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.cli import checks, recipes

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "own_street.md").read_text()
# The training images of the page's data sets. Only their positions are needed: nothing is drawn.
CITIES = {
    "my_street": CityConfig(blocks=1, headings=4, train_years=(2013, 2014), style="modern", seed=7),
    "2 x 2 blocks": CityConfig(train_years=(2013, 2014, 2015)),
    "20 x 20 blocks": CityConfig(blocks=20),
}
TABLE = re.findall(r"^\| ([^|]+), ([\d,]+) images \| ([\d, ]+) \| (.+?) \|$", PAGE, re.MULTILINE)


def columns(city: CityConfig) -> tuple[np.ndarray, ...]:
    """float [images]: east, north (metres, rounded as in file names) and heading (degrees) of the training images."""
    cameras = poses.cameras(city, layout.plan(city))
    train = cameras.part == poses.TRAIN
    xy = np.round(cameras.xy[train] + (poses.EAST, poses.NORTH), 2)
    east, north = np.repeat(xy, city.headings, axis=0).T
    return east, north, np.tile(poses.headings(0.0, city.headings), len(xy))


def described(images: tuple[np.ndarray, ...], choice: str) -> str:
    """The cells of a row of the table from its fourth on."""
    M, alpha, N, L, least = (int(number) for number in choice.split(","))
    try:
        cells = cosplace_cells(*images, M=M, alpha=alpha, N=N, L=L, min_images=least)
    except DataError as error:
        return f"error: the largest class has {re.search(r'has ([0-9]+)[.]', str(error))[1]} images"
    of_class, dropped = np.diff(cells.indptr), cells.total - len(cells.rows)
    return (
        f"{len(cells)} | {cells.counts.min():,} to {cells.counts.max():,} "
        f"| {of_class.min()}, {np.median(of_class):.0f}, {of_class.max()} | {dropped / cells.total:.0%}".replace(
            "%", " %"
        )
    )


@pytest.mark.parametrize("name", CITIES)
def test_the_table_of_partitions(name):
    images = columns(CITIES[name])
    rows = [(choice, said) for data, count, choice, said in TABLE if data == name and count == f"{len(images[0]):,}"]
    assert len(rows) >= 2
    for choice, said in rows:
        found = described(images, choice)
        assert said.split(" | | ")[0] == found if found.startswith("error") else said == found


def test_the_table_of_real_photos(real_data):
    root = real_data / "sf_xs_val"
    halves = [readers.read("at_names", root, paths_file=root / f"{half}.txt.gz") for half in ("database", "queries")]
    street = Places.concat(halves)
    rows = [(choice, said) for data, count, choice, said in TABLE if data == "SF-XS val"]
    assert len(rows) >= 2 and len(street) == 16_008
    for choice, said in rows:
        assert said == described((street.east, street.north, street.heading), choice)


@pytest.fixture
def street(tmp_path, monkeypatch):
    """A folder with the names of `my_street`'s training images, as the page's commands draw them; no file is drawn."""
    city = CITIES["my_street"]
    cameras = poses.cameras(city, layout.plan(city))
    folder = tmp_path / "my_street" / "images" / "train"
    folder.mkdir(parents=True)
    for row in np.flatnonzero(cameras.part == poses.TRAIN):
        for heading in poses.headings(0.0, city.headings):
            about = cameras.xy[row], heading, cameras.year[row], cameras.condition[row], cameras.key[row]
            (folder / poses.file_name(city, *about)).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(kind: str, page: str = PAGE) -> list[str]:
    """The page's blocks of code of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


RECIPES = ("own.py", *(f"{name}.py:own" for name in ("cosplace", "gsv_cities", "netvlad", "eigenplaces")))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_of_the_page_choose_for_the_street(street, recipe):
    assert f"configs/{recipe}" in PAGE
    config = recipes.load_config(f"configs/{recipe},data=my_street")
    checks.check(config)
    checks.check_training(config)
    found, made = builders.settle(config, builders.training_sets)
    assert len(builders.places(found, found.train_data)) == 608
    assert (found.train_data.reader, found.train_data.hold_out) == ("at_names", 0.2), "only train is there"
    assert {key for key, _, _ in made} <= set(config.auto) and found.epochs * found.steps_per_epoch >= 300


def test_the_page_has_a_rule_for_every_key_that_is_chosen():
    rules = PAGE.partition("| key | rule |")[2].partition("\n\n")[0]
    for recipe in RECIPES:
        for key in recipes.load_config(f"configs/{recipe}").auto:
            last = key.rpartition(".")[2]
            assert f"`{key}`" in rules or f"`.{last}`" in rules or key.endswith("partition.by") or last in "MN", key


def test_photos_become_a_table_that_is_split_by_day(tmp_path, monkeypatch):
    (tmp_path / "my_photos").mkdir()
    for number, day in enumerate([1, 1, 2, 3, 4, 4]):
        exif = Image.Exif()
        exif.get_ifd(0x8825).update(
            {1: "N", 2: (55.0, 41.0, 50.0 + number), 3: "E", 4: (13.0, 11.0, 43.0), 16: "T", 17: 90.0}
        )
        exif.get_ifd(0x8769)[0x9003] = f"2024:05:{day:02d} 10:00:00"
        Image.new("RGB", (8, 6)).save(tmp_path / "my_photos" / f"{number}.jpg", exif=exif)
    Image.new("RGB", (8, 6)).save(tmp_path / "my_photos" / "nowhere.jpg")
    monkeypatch.chdir(tmp_path)
    section = (DOCS / "data_formats.md").read_text().partition("## `photos`: EXIF")[2].partition("\n## ")[0]
    exec(next(code for code in printed("python", section) if "street.csv" in code), {})
    found = {split: readers.read("csv", "my_photos", split=split) for split in ("train", "val", "test")}
    names = {
        split: [[places.path.relative(row) for row in np.flatnonzero(places.role == role)] for role in (0, 1)]
        for split, places in found.items()
    }
    before = ["0.jpg", "1.jpg", "2.jpg"]
    assert names == {"train": [before, []], "val": [before, ["3.jpg"]], "test": [before, ["4.jpg", "5.jpg"]]}
    assert (found["train"].heading == 90).all() and np.diff(found["train"].north) == pytest.approx(
        [30.9, 30.9], abs=0.1
    )
