"""Charts, map, gallery and tables, each against numbers worked out by hand."""

import base64
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.clips import cut
from data_pipelines.images import ImageError
from data_pipelines.places import Paths, Places
from jaxvpr.reports import gallery, tables
from jaxvpr.reports import map as maps
from jaxvpr.reports.answers import gallery_items, map_data
from jaxvpr.reports.charts import Series, line_chart, smooth, thin, ticks
from jaxvpr.reports.pictures import data_uri, predictions_picture, small
from jaxvpr.retrieval.positives import from_lists


def polylines(svg):
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]+)"', svg)
    ]


def test_a_chart_is_to_scale():
    line = Series("ours", [1, 10, 100], [0, 50, 100], "run", markers=True)
    (points,) = polylines(
        line_chart([line], x_label="N", y_label="%", x_log=True, x_ticks=[1, 10, 100], y_range=(0, 100))
    )
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert x0 < x2 and y0 > y2


def test_a_chart_leaves_out_what_is_not_finite():
    line = Series("loss", [1, 2, 3, 4], [5.0, float("nan"), 4.0, float("inf")], "run")
    svg = line_chart([line, Series("none", [], [], "other")], x_label="step", y_label="loss")
    assert len(polylines(svg)) == 1 and len(polylines(svg)[0]) == 2 and "nan" not in svg
    assert line_chart([], x_label="step", y_label="loss") == ""
    assert "<svg" in line_chart([Series("one", [3], [2.0], "run")], x_label="step", y_label="loss")


def test_names_of_close_lines_stay_apart():
    lines = [Series(f"line {i}", [0, 1], [0, 50 + i / 10], "run") for i in range(4)]
    svg = line_chart(lines, x_label="x", y_label="y", y_range=(0, 100))
    heights = sorted(float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 4 and min(np.diff(heights)) >= 14.9


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low, span):
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_ticks_by_hand():
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0, 1200) == [0, 250, 500, 750, 1000]
    assert ticks(3, 3) == [3]


def test_smooth_and_thin_by_hand():
    assert smooth([0, 3, 6, 30, 0], 1) == [0, 3, 13, 12, 0]
    assert smooth([1, 2], 5) == [1, 2]
    assert thin([1, 2, 3, 4], [1, 3, 5, 9], 2) == ([1.5, 3.5], [2.0, 7.0])
    assert thin([1, 2], [3, 4], 2) == ([1, 2], [3, 4])
    x, y = thin(range(100_000), [1.0] * 100_000, 500)
    assert len(x) == len(y) == 500 and set(y) == {1.0} and np.mean(x) == pytest.approx(49_999.5)


def marks(svg, layer):
    """Absolute positions of a layer's marks."""
    path = re.search(rf'data-layer="{layer}" d="([^"]*)"', svg)[1].replace(maps.DIAMOND, "h0")
    steps = [tuple(map(float, step.split())) for step in re.findall(r"m([^h]+)h0", path)]
    return np.cumsum(np.array(steps).reshape(-1, 2), axis=0)


def test_the_map_is_north_up_and_to_scale():
    data = maps.MapData(
        database=np.array([[0.0, 0], [1000, 0], [1000, 500]]),
        queries=np.array([[0.0, 500], [500, 250], [np.nan, 0]]),
        right=np.array([True, False, False]),
        notes=["day", "</script>", ""],
    )
    svg = maps.draw(data)
    (right,), (wrong,) = marks(svg, "right"), marks(svg, "wrong")
    low, high = marks(svg, "database").min(axis=0), marks(svg, "database").max(axis=0)
    assert (high - low)[0] / (high - low)[1] == pytest.approx(2, rel=0.01)
    assert right == pytest.approx([low[0], low[1]], abs=1)  # north-west corner: small x, small y
    assert wrong == pytest.approx((low + high) / 2, abs=1)
    tips = json.loads(re.search(r'<script type="application/json">(.*?)</script>', svg)[1])
    assert [tip[2] for tip in tips] == ["query 0: right, day", "query 1: wrong, </script>"]
    assert "1 images without coordinates" in svg and "100 m" in svg


def test_the_map_survives_one_place_and_no_place():
    one = np.array([[5.0, 5.0]])
    assert "nan" not in maps.draw(maps.MapData(one, one, np.array([True]), one))
    nowhere = np.full((1, 2), np.nan)
    assert maps.draw(maps.MapData(one, nowhere, np.array([True]))) == ""


def test_a_million_points_stay_a_small_map():
    rng = np.random.default_rng(0)
    database, queries = rng.uniform(0, 5000, (1_000_000, 2)), rng.uniform(0, 5000, (20_000, 2))
    svg = maps.draw(maps.MapData(database, queries, rng.random(20_000) < 0.5, queries + 9))
    assert len(marks(svg, "database")) <= maps.MOST_POINTS
    assert len(svg) < 1_700_000


def test_the_gallery_takes_wrong_ones_first():
    assert gallery.choose_queries([True, False, True, False, True], 10) == [1, 3, 0, 2, 4]
    chosen = gallery.choose_queries([False] * 100 + [True] * 100, 10)
    assert chosen == [0, 14, 28, 42, 57, 71, 85, 100, 133, 166]
    assert gallery.choose_queries([True] * 9, 4) == [0, 2, 4, 6]
    assert gallery.choose_queries([False] * 5 + [True], 4) == [0, 1, 3, 5]
    assert gallery.choose_queries([], 4) == []


def test_the_gallery_keeps_its_budget(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    path = tmp_path / "noise.png"
    item = gallery.GalleryItem(path, [path], [True])
    large = gallery.draw([item])
    monkeypatch.setattr(gallery, "BUDGET", 20_000)
    assert len(gallery.draw([item])) < len(large) / 2


def test_items_and_map_of_predictions():
    database = Places.create("d", Paths.of(f"{i}.jpg" for i in range(4)), east=[0.0, 30, 60, 90], north=0.0)
    queries = Places.create(
        "q", Paths.of(["a", "b"]), east=[1.0, 31], north=0.0, condition=[3, 0], conditions=["snow", "night"]
    )
    predictions, distances = np.array([[3, 1, 0], [1, -1, -1]]), np.array([[0.1, 0.2, 0.3], [0.5, np.inf, np.inf]])
    wrong, right = gallery_items(database, queries, predictions, distances, from_lists([0, 2, 3], [0, 2, 1]))
    assert (wrong.name, wrong.conditions, wrong.truth, wrong.truth_rank) == ("a", ("snow", "night"), "0.jpg", 3)
    assert (wrong.predictions, wrong.right, wrong.metres) == (
        ["3.jpg", "1.jpg", "0.jpg"],
        [False, False, True],
        [89, 29, 1],
    )
    assert (right.name, right.predictions, right.correct, right.conditions) == ("b", ["1.jpg"], True, ())
    data = map_data(database, queries, predictions, from_lists([0, 2, 3], [0, 2, 1]))
    assert data.notes == ["snow, night", ""]
    assert data.right.tolist() == [False, True] and data.predicted.tolist() == [[90, 0], [30, 0]]
    assert map_data(database, Places.create("q", Paths.of(["a"])), predictions[:1], from_lists([0, 0], [])) is None


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (tables.scaled, 25_600_000, "25.6 M"),
        (tables.scaled, 17.29e9, "17.3 G"),
        (tables.in_bytes, 2048, "2 KiB"),
        (tables.in_bytes, 100, "100 B"),
        (tables.milliseconds, 0.0123, "12.3 µs"),
        (tables.milliseconds, 1500, "1.5 s"),
        (tables.duration, 3725, "1 h 2 min"),
        (tables.duration, 171, "2 min 51 s"),
        (tables.duration, 59.6, "1 min 0 s"),
    ],
)
def test_units(write, value, text):
    assert write(value) == text


def test_a_picture_of_answers(tmp_path):
    red = np.zeros((60, 80, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "red.png")
    data = predictions_picture(
        red, [tmp_path / "red.png", tmp_path / "absent.png"], [True, False], ["a\nb", "c" * 90], side=120
    )
    (tmp_path / "out.png").write_bytes(data)
    with Image.open(tmp_path / "out.png") as opened:
        picture = np.asarray(opened)
    assert opened.format == "PNG" and picture.shape[2] == 3
    step = 120 + 10 + 14
    assert picture.shape[1] == 14 + 3 * step
    assert picture[14 + 1, 14 + step + 1].tolist() == [20, 133, 90]  # the frame of the right one
    assert picture[14 + 1, 14 + 2 * step + 1].tolist() == [204, 53, 48]  # and of the wrong one
    assert picture[14 + 40, 14 + 60].tolist() == [255, 0, 0]  # the query itself, enlarged
    assert len(predictions_picture(red, [red])) > 500


def test_small_pictures_follow_their_exif(tmp_path):
    image = Image.new("RGB", (400, 100), (10, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert small(tmp_path / "turned.jpg", 80).size == (20, 80)
    assert small(np.zeros((10, 20, 3), np.uint8), 80).size == (20, 10)


def test_a_clip_is_a_strip_of_its_frames(tmp_path):
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    frames = tuple(str(tmp_path / f"{number}.png") for number in range(3))
    for frame, colour in zip(frames, colours, strict=True):
        Image.new("RGB", (200, 100), colour).save(frame)
    strip = np.asarray(small(frames, 50))
    assert strip.shape == (25, 3 * 50 + 2 * 2, 3)
    for number, colour in enumerate(colours):
        assert (strip[:, 52 * number : 52 * number + 50] == colour).all()
    assert (strip[:, [50, 51, 102, 103]] == 255).all()
    long = np.asarray(small(frames * 5, 50))  # 15 frames are as long as 5 pictures, but for their seams
    assert long.shape == (8, 15 * 16 + 14 * 2, 3)
    assert small(frames * 100, 50).size == (300 + 299 * 2, 1)
    with pytest.raises(ImageError, match="absent"):
        small((*frames, str(tmp_path / "absent.png")), 50)
    assert data_uri((frames[0], "absent.png"), 50) is None


def test_the_gallery_shows_clips_as_strips_and_single_images_as_they_are(tmp_path):
    files = [f"{number}.png" for number in range(12)]
    for file in files:
        Image.new("RGB", (40, 30), (90, 120, 9)).save(tmp_path / file)
    images = Places.create(
        "drive", Paths.of(files, tmp_path), east=10.0 * np.arange(12), north=0.0, frame=np.arange(12), sequence=0
    )
    database, queries = cut(images, 5, stride=7), cut(images, 1, stride=6)
    near = from_lists([0, 1, 2], [0, 1])
    arguments = (np.array([[0, 1], [0, 1]]), np.zeros((2, 2)), near)
    items = gallery_items(database.places, queries.places, *arguments, (database, queries))
    by_query = {item.number: item for item in items}
    assert by_query[0].query == str(tmp_path / "0.png") and by_query[0].clips
    clips = [tuple(str(tmp_path / files[frame]) for frame in range(first, first + 5)) for first in (0, 7)]
    assert by_query[0].predictions == clips
    page = gallery.draw(items)
    assert page.count("data:image/jpeg") == 2 * 3 and f"{tmp_path / '0.png'} to {tmp_path / '4.png'}" in page
    sizes = {Image.open(io.BytesIO(base64.b64decode(data))).size for data in re.findall(r"base64,([\w+/=]+)", page)}
    assert sizes == {(40, 30), (5 * 40 + 4 * 2, 30)}
    assert "grid-template-columns:repeat(auto-fill" in page
    plain = gallery_items(images, images.take(np.arange(2)), *arguments)
    assert not any(item.clips for item in plain) and "grid-template-columns" not in gallery.draw(plain)
