"""Views of panoramas on their way into a batch; every column is painted with the bearing that it looks at."""

import pickle
import re
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import panorama as panoramas
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw, generator
from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource
from data_pipelines.images import ImageError, decode, fit, read
from data_pipelines.loaders import StepReader, batches
from data_pipelines.minicity import CityConfig, strip_size, write
from data_pipelines.panorama import SF_XL, Panorama
from data_pipelines.places import Paths
from data_pipelines.readers import at_names
from data_pipelines.readers import read as read_places

YAWS = np.array([0, 37.5, 180, 301.25], np.float32)
SMALL, VIEW = (64, 416), 64  # an eighth of SF-XL's
HEADINGS = np.array([0, 90, 181.25, 359.5, 14.0, 222.0], np.float32)
ALL = Augment(scale=(1.0, 1.0), ratio=(1.0, 1.0))


def painted(yaw: float, full: tuple[int, int]) -> np.ndarray:
    """RGB whose red and green are the cosine and the sine of each column's bearing, blue its height in the image."""
    bearing = np.radians(yaw + (np.arange(full[1]) + 0.5 - full[1] / 2) / full[1] * 360)
    image = np.empty((*full, 3))
    image[..., 0], image[..., 1] = 127.5 + 127 * np.cos(bearing), 127.5 + 127 * np.sin(bearing)
    image[..., 2] = np.linspace(0, 255, full[0])[:, None]
    return np.round(image).astype(np.uint8)


def bearing(part: np.ndarray) -> float:
    """The mean bearing, degrees, of painted pixels [..., 3]."""
    cosine, sine = (part[..., channel].mean() - 127.5 for channel in (0, 1))
    return float(np.degrees(np.arctan2(sine, cosine)) % 360)


def apart(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def written(folder, full) -> Paths:
    names = [f"{row}.jpg" for row in range(len(YAWS))]
    for name, yaw in zip(names, YAWS, strict=True):
        bgr = painted(float(yaw), full)[..., ::-1]
        assert cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 97])
    return Paths.of(names, folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Paths:
    """Four panoramas of SF-XL's size, of `YAWS`."""
    return written(tmp_path_factory.mktemp("large"), SF_XL)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Paths:
    return written(tmp_path_factory.mktemp("small"), SMALL)


def source(paths, full=SMALL, width=VIEW, size=(32, 32), yaw=YAWS, **options) -> ImageSource:
    return ImageSource(paths, size, panorama=Panorama(full, yaw, width), **options)


def looks(step: int) -> dict[str, Draw]:
    """Rows and headings that depend on the step alone; across the edge and the whole strip among them."""
    rng = np.random.default_rng(step)
    view = np.append(rng.uniform(0, 360, 3).astype(np.float32), np.nan)
    return {"source": Draw.of(rng.integers(0, len(YAWS), 4), view=view)}


@pytest.mark.parametrize("options", [{}, {"reduce": True}, {"augment": ALL}, {"augment": ALL, "reduce": False}])
def test_the_asked_heading_is_in_the_middle(large, options):
    rows = np.arange(len(HEADINGS)) % len(YAWS)
    reduced = options.get("reduce", "augment" in options)
    batch = source(large, SF_XL, 512, (64, 64), **options).read(Draw.of(rows, view=HEADINGS), 0, 0, "source")
    for view, heading in zip(batch["image"], HEADINGS, strict=True):
        # All columns, which lie evenly about the middle. At an eighth of the size a column is 0.87 degrees.
        assert apart(bearing(view), heading) < (0.5 if reduced else 0.1)
        assert apart(bearing(view[:, 31:33]), heading) < 1
        assert apart(bearing(view[:, :1]), heading - 360 * 256 / 3328) < 1.5, "and the view has the width asked for"
        assert apart(bearing(view[:, -1:]), heading + 360 * 256 / 3328) < 1.5
        assert np.all(np.diff(view[..., 2].mean(axis=1)) > 0), "all rows, from the top down"


def test_without_resizing_a_view_is_the_cut_of_the_whole_strip(small):
    (view,) = source(small, size=(64, VIEW)).read(Draw.of([1], view=10.0), 0, 0, "source")["image"]
    # Yaw 37.5 lies in the middle, column 208; 27.5 degrees to its left are 31.8 columns.
    assert np.array_equal(view, decode(small[1])[:, 208 - 32 - 32 : 208 - 32 + 32])


def test_a_view_across_the_edge_goes_on_at_the_other_one(small):
    (view,) = source(small, size=(64, VIEW)).read(Draw.of([0], view=180.0), 0, 0, "source")["image"]
    whole = decode(small[0])
    assert np.array_equal(view, np.concatenate([whole[:, -32:], whole[:, :32]], axis=1))


@pytest.mark.parametrize("reduce", [True, False])
def test_crops_are_boxes_of_the_view(large, reduce):
    """What the augmentation cuts lies as far beside the heading as its box lies beside the view's middle."""
    augment, rows = Augment(scale=(0.2, 0.6)), np.zeros(12, int)
    draw = Draw.of(rows, view=np.linspace(100, 260, 12, dtype=np.float32))
    batch = source(large, SF_XL, 512, augment=augment, reduce=reduce).read(draw, 5, 7, "source")
    moved = []
    for position, (image, heading) in enumerate(zip(batch["image"], draw.view, strict=True)):
        _, left, _, width = augment.box(generator(5, 7, "source", position), (512, 512))
        moved.append((left + width / 2 - 256) / 3328 * 360)
        assert apart(bearing(image), heading + moved[-1]) < 0.8
    assert np.ptp(moved) > 15, "the boxes were not all in the middle"


def test_a_view_keeps_the_pixels_that_it_was_asked_for(large, small):
    looked = Panorama(SF_XL, YAWS, 512)
    sizes = {at_least: looked.view(read(large[0]), 0, 33.0, at_least).shape[:2]
             for at_least in [(64, 64), (65, 10), (10, 65), (129, 128), (256, 256), (257, 1), (900, 900)]}  # fmt: skip
    assert sizes == {
        (64, 64): (64, 64), (65, 10): (128, 128), (10, 65): (128, 128), (129, 128): (256, 256),
        (256, 256): (256, 256), (257, 1): (512, 512), (900, 900): (512, 512),
    }  # fmt: skip
    for width in (1, 3, 63, 101, 416):  # not a whole number of columns in the strip's half, quarter and eighth
        odd = Panorama(SMALL, YAWS, width)
        for wanted in range(1, width + 1, 7):
            height, columns = odd.view(read(small[0]), 0, 33.0, (5, wanted)).shape[:2]
            assert height >= 5 and wanted <= columns <= width


def test_without_a_heading_the_whole_strip_is_the_image(small):
    batch = source(small, size=(16, 104)).read(Draw.of([2, 3]), 0, 0, "source")
    for row, image in zip((2, 3), batch["image"], strict=True):
        assert np.array_equal(image, fit(decode(small[row]), (16, 104), "pil_bilinear"))


def test_all_images_of_an_element_look_the_same_way(small):
    draw = Draw.of([[0, 1, 2], [3, 2, 1]], view=np.array([45.0, 200.0]))
    images = source(small).read(draw, 0, 0, "source")["image"]
    assert all(apart(bearing(image), 45) < 1 for image in images[0])
    assert all(apart(bearing(image), 200) < 1 for image in images[1])
    part = source(small).read(draw, 0, 0, "source", slice(1, 2))["image"]
    assert np.array_equal(part, images[1:])


def test_bytes_do_not_depend_on_threads_or_workers(small):
    augment = Augment(brightness=0.5, scale=(0.5, 1.0))
    read_step = StepReader({"source": source(small, augment=augment)}, looks, seed=3)
    expected = [read_step(step)["source"]["image"] for step in range(3)]
    for options in ({"threads": 4}, {"threads": 1, "workers": 1}):
        found = [streams["source"]["image"] for _, streams in batches(read_step, 0, 3, **options)]
        assert np.array_equal(found, expected)
    assert np.array_equal(pickle.loads(pickle.dumps(read_step))(1)["source"]["image"], expected[1])
    assert not np.array_equal(expected[0], expected[1])


@pytest.fixture
def mixed(small, large, tmp_path) -> Paths:
    """A small panorama, one of another size, and one of the right size that is cut short."""
    shutil.copy(small[0], tmp_path / "right.jpg")
    shutil.copy(large[1], tmp_path / "wide.jpg")
    (tmp_path / "short.jpg").write_bytes(Path(small[2]).read_bytes()[:-500])
    return Paths.of(["right.jpg", "wide.jpg", "short.jpg"], tmp_path)


def test_a_panorama_of_another_width_is_named_before_it_is_decoded(mixed, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(panoramas, "pixels", refuse)
    looked = source(mixed, yaw=YAWS[:3])
    with pytest.raises(ImageError, match=r"wide\.jpg.*\b512x3328\b.*\b64x416\b.*panorama\.size"):
        looked.read(Draw.of([1], view=0.0), 0, 0, "source")
    with pytest.raises(AssertionError, match="decoded"):
        looked.read(Draw.of([0], view=0.0), 0, 0, "source")


def test_it_is_skipped_and_named_where_that_is_asked_for(mixed):
    looked = source(mixed, yaw=YAWS[:3], on_error="skip")
    batch = looked.read(Draw.of([0, 1, 2], view=0.0), 0, 0, "source")
    assert batch["bad"].tolist() == [False, True, True] and batch["mask"].tolist() == [True, False, False]
    assert batch["image"][0].any() and not batch["image"][1:].any()
    wide, short = looked.read_errors(batch)
    assert re.search(r"wide\.jpg.*\b512x3328\b", wide) and re.search(r"short\.jpg.*truncated", short)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_unknown_yaw_is_named_and_never_skipped(small, on_error):
    looked = source(small, yaw=np.array([0, np.nan, 0, 0], np.float32), on_error=on_error)
    with pytest.raises(DataError, match=r"1\.jpg.*heading 20\.0.*yaw nan"):
        looked.read(Draw.of([0, 1], view=20.0), 0, 0, "source")
    assert looked.read(Draw.of([1]), 0, 0, "source")["mask"].all(), "its whole strip needs no yaw"


def test_panoramas_that_make_no_sense_are_refused(small):
    with pytest.raises(DataError, match=r"\b3 yaws.*\b4 panoramas"):
        source(small, yaw=YAWS[:3])
    with pytest.raises(DataError, match=r"\b417\b.*\b416\b"):
        source(small, width=417)


def test_names_of_sf_xl_give_the_yaw_of_raw_panoramas(tmp_path):
    """The heading's field of a panorama's name is that of its middle column; folders below the root are read too."""
    name = "@0543256.96@4178906.70@10@S@037.75635@-122.50890@pano{}@@{}@@@@201311@@.jpg"
    for folder, yaw in (("37.75", 186), ("37.76", 7)):
        (tmp_path / "panoramas" / folder).mkdir(parents=True)
        file = tmp_path / "panoramas" / folder / name.format(yaw, yaw)
        assert cv2.imwrite(str(file), painted(yaw, SMALL)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
    images = read_places("at_names", tmp_path / "panoramas", split="train")
    assert images.heading.tolist() == [186, 7] and images.role.tolist() == [0, 0] and images.split.tolist() == [0, 0]
    views = source(images.path, yaw=images.heading).read(Draw.of([0, 1], view=100.0), 0, 0, "source")["image"]
    assert all(apart(bearing(view), 100) < 1 for view in views)


CITY = CityConfig(
    blocks=1, size=32, conditions=("day",), train_years=(2013,), train_spacing=60.0, database_spacing=80.0,
    val_spacing=80.0, test_queries=2, val_queries=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A city that was written without panoramas, read with them."""
    root = write(tmp_path_factory.mktemp("panoramas") / "city", CITY, processes=1)
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*.jpg")}
    settings = {name: getattr(CITY, name) for name in CITY.__dataclass_fields__}
    with_strips = partial(read_places, "minicity", root, city=settings)
    return root, before, with_strips(split="train", panoramas=True), with_strips


def test_the_city_gets_its_panoramas_where_they_are_asked_for(city):
    root, before, strips, reader = city
    after = {file: file.stat().st_mtime_ns for file in root.rglob("*.jpg")}
    assert before.items() <= after.items(), "what was there stays"
    assert {file.parent.name for file in after.keys() - before.keys()} == {"panoramas"}
    views = reader(split="train")
    assert len(views) == 12 * len(strips) > 0 and set(strips.heading.tolist()) == {0.0}
    assert strips.select(split="train", role="database").east.tolist() == strips.east.tolist()
    assert sorted(set(views.east.tolist())) == sorted(strips.east.tolist())
    assert all(decode(path).shape[:2] == strip_size(CITY) for path in strips.path)
    assert reader(panoramas=True).east.tolist() == strips.east.tolist(), "without a split, too"
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*.jpg")} == after, "and are written once"
    with pytest.raises(DataError, match=r"panoramas.*\btrain\b.*'test'"):
        reader(split="test", panoramas=True)


def test_a_cut_of_the_citys_strip_shows_what_the_written_view_shows(city):
    """The middle thirds of the views of 90 degrees against cuts of as many degrees, at each of the twelve headings."""
    root, _, strips, _ = city
    full, size = strip_size(CITY), (32, 10)
    angle = 2 * np.degrees(np.arctan(10 / 32))  # half a view is the tangent 1
    looked = source(strips.path, full, round(full[1] * angle / 360), size, strips.heading, rule="area")
    views = at_names.read(root, split="train")
    found = []
    for row in range(len(strips)):
        there = np.flatnonzero((views.east == strips.east[row]) & (views.north == strips.north[row]))
        assert len(there) == 12
        draw = Draw.of(np.full(12, row), view=views.heading[there])
        cuts = looked.read(draw, 0, 0, "source")["image"].reshape(12, -1)
        seen = np.array([decode(views.path[i])[:, 11:21] for i in there]).reshape(12, -1)
        found.append(np.corrcoef(cuts, seen)[:12, 12:])
    agree = np.array([np.diag(matrix) for matrix in found])
    others = np.array([matrix[~np.eye(12, dtype=bool)] for matrix in found])
    assert agree.min() > 0.85 and np.percentile(others, 95) < 0.7
    assert all(np.array_equal(matrix.argmax(axis=1), np.arange(12)) for matrix in found)
