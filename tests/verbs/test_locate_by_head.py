"""localize without a database: the position head of a model says where photos were taken."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

from data_pipelines import geo
from jaxvpr import builders
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.cli.recipes import load_config
from jaxvpr.models.positions import located
from jaxvpr.runs import model_file

AREA = (45.1, 6.45, 45.2, 6.5)  # around the tree's photos in UTM zone 32 or so: any box serves


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def recipe(tiny_recipe, kind, metres=False, **options):
    area = (0.0, 0.0, 100.0, 200.0) if metres else AREA
    changes = {"area": area, "metres": metres, "hidden": 1, **options}
    text = ",".join(f"model.position_options.{key}={value}".replace(" ", "") for key, value in changes.items())
    return f"{tiny_recipe},model.position={kind},{text}"


def saved(text, file, says=None):
    """A model file of random weights; `says` is what its head gives of any photo."""
    config = load_config(text)
    variables = builders.initial_variables(config)
    if says is not None:
        output = variables["params"]["position"]["output"]
        output.update(kernel=np.zeros_like(output["kernel"]), bias=np.asarray(says, np.float32))
    return config, variables, model_file.write_model(file, config, variables)


@pytest.fixture
def photos(photo_tree, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, photo in enumerate(sorted((photo_tree / "images" / "test" / "queries").iterdir())[:3]):
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.imread(str(photo)))
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


def test_cells_give_their_likeliest(door, tiny_recipe, photos, tmp_path):
    text = recipe(tiny_recipe, "cells", cells=4)
    config, variables, file = saved(text, tmp_path / "head.safetensors")
    out = tmp_path / "found"
    start = f"--config={tiny_recipe},init=gone.safetensors"  # the file has all that is needed
    ask = ["localize", start, f"--workdir={tmp_path}", f"--images={photos}", f"--out={out}"]
    status, said, err = door(*ask, f"--database={file}", "--top=3")
    assert status == 0 and "1 of 4 photos could not be read" in said and "confidence" in said, err
    rows = table(out / "predictions.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 3 + [""] and "bad.jpg" in rows[-1]["error"]
    describe = builders.describer(config, builders.mesh(config))
    paths = builders.photos([str(photos)], Reader()).take(np.array([0, 1, 2]))
    raw = builders.head(config)(variables, describe(variables, paths).descriptors)
    expected = located(builders.coding(config), np.asarray(raw))
    first = [row for row in rows if row["rank"] == "1"]
    for name, column in (("lat", expected.north), ("lon", expected.east), ("bearing", expected.bearing)):
        np.testing.assert_allclose([float(row[name]) for row in first], column, atol=1e-9)
    np.testing.assert_allclose([float(row["confidence"]) for row in first], expected.confidence, rtol=1e-4)
    assert {row["outside"] for row in rows[:-1]} == {"0"}
    east, _, zone = geo.to_utm(expected.north, expected.east)
    np.testing.assert_allclose([float(row["east"]) for row in first], east, atol=1e-6)
    assert [row["zone"] for row in first] == [str(number) for number in zone]
    points = json.loads((out / "predictions.geojson").read_text())["features"]
    assert len(points) == 9 and points[0]["geometry"]["coordinates"] == [
        pytest.approx(expected.east[0], abs=1e-7), pytest.approx(expected.north[0], abs=1e-7),
    ]  # fmt: skip
    pictures = sorted(out.glob("*.png"))
    assert len(pictures) == 3 and cv2.imread(str(pictures[0])).shape[1] > 400


def test_answers_outside_the_area_are_flagged(door, refused, tiny_recipe, photos, tmp_path):
    """The head of a recipe, whose weights are those of the run's folder: one that says (0.5, 1.5) of the box."""
    text = recipe(tiny_recipe, "direct", metres=True, ending="none", bearing=False)
    saved(text, tmp_path / "model.safetensors", [0.5, 1.5])
    ask = ["localize", f"--config={text}", f"--workdir={tmp_path}", f"--images={photos}"]
    status, said, err = door(*ask, f"--out={tmp_path / 'found'}")
    assert status == 0, err
    assert "3 of 3 answers lie outside the area that the head was trained on: 0.0 m to 100.0 m north" in said
    assert "300.0 m east, 50.0 m north, outside the trained area" in said
    rows = table(tmp_path / "found" / "predictions.csv")[:3]
    assert {(row["east"], row["north"], row["outside"], row["lat"], row["bearing"]) for row in rows} == {
        ("300.0", "50.0", "1", "", "")
    }
    assert not (tmp_path / "found" / "predictions.geojson").exists()

    for flags, why in (
        (["--track"], "a track is chosen among the places of a database"),
        (["--database=none.safetensors"], "--database=none.safetensors: no such file"),
    ):
        assert re.search(why, refused(*ask, *flags, f"--out={tmp_path / 'other'}")), flags
    plain = [one if not one.startswith("--config=") else f"--config={tiny_recipe}" for one in ask]
    assert "localize needs --database=FILE.npy" in refused(*plain, f"--out={tmp_path / 'other'}")
    open_area = f"{text},model.position_options.area=()"
    said = refused("localize", f"--config={open_area}", *ask[2:], f"--out={tmp_path / 'other'}")
    assert "position_options.area is not chosen" in said
