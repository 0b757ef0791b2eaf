"""GeoCLIP from a recipe: runs on kept descriptors and on augmented views, its gallery, and what is refused."""

import csv
import json
import re
from functools import partial

import jax
import numpy as np
import pytest

from jaxvpr import builders, families, weights
from jaxvpr.cli.overrides import override_all
from jaxvpr.cli.ranges import mistakes
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.models.positions import with_gallery
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop

RECIPE = """
import runpy

from ml_collections import ConfigDict
from configs import common

TINY = runpy.run_path({tiny!r})["get_config"]


def get_config(preset=""):
    config = TINY().unlock()
    config.name = "geo"
    config.augment = common.base().augment
    config.model.position = "geoclip"
    config.model.position_options = ConfigDict(
        {{"projection": "area", "source": "train", "dim": 8, "sigmas": (1.0, 4.0), "features": 8, "width": 16}}
    )
    config.objective = common.geoclip(queue=12, near=5.0)
    config.eval.distances = ("25m", "100m")
    config.objective.noise = ConfigDict({{"metres": 2.0, "queue": 5.0}})
    config.optimizer = common.optimizer("adam", 1e-2)
    config.maps.cached, config.maps.folder = preset != "live", {folder!r}
    config.frozen_random = True
    if preset == "live":
        config.augment.update(brightness=0.2, scale=(0.6, 1.0))
        config.objective.views = 2
        config.frozen = ("^backbone/",)
    config.auto = tuple("model.position_options." + key for key in ("area", "metres", "size"))
    config.val_data["val"].thresholds = ("25m",)
    config.best.measure = "25m"
    config.eval.baselines = False
    return config.lock()
"""
AREA = "model.position_options.area=(45,12,46,13)"


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("geo")
    file = folder / "geo.py"
    file.write_text(RECIPE.format(tiny=str(tiny_recipe), folder=str(folder / "features")))
    return file


def chosen(recipe, *changes):
    config = load_config(str(recipe)).unlock()
    config.auto = ()
    override_all(config, [tuple(change.split("=", 1)) for change in (AREA, *changes)])
    return config


@pytest.mark.long
@pytest.mark.parametrize("preset", ["kept", "live"])
def test_a_run_learns_and_leaves_a_model_with_its_gallery(recipe, door, tmp_path, photo_tree, preset):
    folder = tmp_path / "run"
    status, _, err = door(f"--config={recipe}:{preset}", f"--workdir={folder}", "--config.epochs=6")
    assert status == 0, err
    assert "different places of the training images" in err
    records = list(logs.read(folder))
    losses = [record["loss"] for record in records if "loss" in record]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert {"val/25m", "val/100m", "val/median_m", "train/25m"} <= set().union(*records)
    assert "val/loss" not in set().union(*records), "GeoCLIP's needs a batch"
    tensors = weights.read(folder / "model.safetensors")
    gallery = tensors["position.gallery"]
    assert len(np.unique(gallery, axis=0)) == len(gallery) and 0 <= gallery.min() < gallery.max() <= 1
    assert json.loads((folder / "config.json").read_text())["model"]["position_options"]["size"] == len(gallery)
    if preset == "kept":
        check_answers(recipe, door, folder, photo_tree, gallery)


def check_answers(recipe, door, folder, photo_tree, gallery):
    """localize answers with coordinates of the gallery, the likeliest first; the exported program with the first."""
    photos, out = photo_tree / "images" / "test" / "queries", folder / "answers"
    status, said, err = door(
        "localize", f"--config={recipe}", f"--workdir={folder}", f"--images={photos}", "--top=3", f"--out={out}"
    )
    assert status == 0, err
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    confidence = np.array([float(row["confidence"]) for row in rows]).reshape(-1, 3)
    assert len(confidence) == 25 and (np.diff(confidence, axis=1) <= 0).all() and (confidence.sum(1) < 1).all()
    south, west, north, east = json.loads((folder / "config.json").read_text())["model"]["position_options"]["area"]
    places = gallery.astype(float) * (north - south, east - west) + (south, west)
    at = np.array([[float(row["lat"]), float(row["lon"])] for row in rows])
    assert np.abs(at[:, None] - places[None]).max(-1).min(1).max() < 1e-6
    file = folder / "model.stablehlo"
    status, said, err = door("export", f"--config={recipe}", f"--workdir={folder}", f"--out={file}")
    assert status == 0, err
    assert json.loads(said)["parity"]["batch of 3"]["largest difference of answers"] < 1e-4


@pytest.mark.long
def test_a_run_in_two_parts_is_the_same_to_the_bit(recipe, door, tmp_path):
    """The queue and what is left of a pass are in the checkpoint."""
    for epochs, folder in ((2, "twice"), (3, "twice"), (3, "alone")):
        assert door(f"--config={recipe}", f"--workdir={tmp_path / folder}", f"--config.epochs={epochs}")[0] == 0
    for name in ("model.safetensors", "log.jsonl"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes(), name


@pytest.mark.long
def test_devices_do_not_matter(recipe, tmp_path):
    """Eight images in two views: so that 16 devices could share them."""
    config = load_config(f"{recipe}:live").unlock()
    config.update(epochs=1, steps_per_epoch=3)
    config, _ = builders.settle(config, builders.training_sets)
    ends = []
    for count in (1, 2, 8):
        over = make_mesh(devices=jax.devices()[:count])
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            made = families.recipe(config, over, builders.validation(config))
            outcome = loop.train(config, tmp_path / str(count), made, over)
        ends.append(outcome.best["params"]["position"])
    for other in ends[1:]:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5), ends[0], other)


def test_names_and_keys_fit(recipe):
    config = chosen(recipe, "model.position_options.size=75")
    names.check(config)
    for change in ("objective.views=0", "objective.near=-1.0", "model.position_options.temperature=0.0"):
        said = list(mistakes(chosen(recipe, "model.position_options.size=75", change)))
        assert len(said) == 1 and change.partition("=")[0] in said[0], said


def test_the_gallery_of_a_table_is_that_of_the_area(recipe, tmp_path):
    table = tmp_path / "places.csv"
    table.write_text("name,LAT,LON\na,45.25,12.5\nb,10,10\nc,45.75,12.25\n")
    config = chosen(recipe, f"model.position_options.source={table}", "model.position_options.size=2")
    np.testing.assert_allclose(builders.table_gallery(config), [[0.25, 0.5], [0.75, 0.25]])
    shapes = builders.shapes(config)
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    filled = builders.with_table(config, blank)["batch_stats"]["position"]["gallery"]
    np.testing.assert_allclose(filled, [[0.25, 0.5], [0.75, 0.25]])
    own = with_gallery(blank, np.full((2, 2), 0.5))
    assert builders.with_table(config, own) is own, "that of a file of weights stays"
    with pytest.raises(UserError, match=r"size=3, .* has 2 coordinates: give size=2"):
        builders.with_table(
            chosen(recipe, f"model.position_options.source={table}", "model.position_options.size=3"), blank
        )
    nowhere = (f"model.position_options.source={table}", "model.position_options.area=(0,0,1,1)")
    with pytest.raises(UserError, match="none of its 3 coordinates lies in"):
        builders.table_gallery(chosen(recipe, *nowhere))


def test_different_places_of_the_training_images_in_order():
    at = np.float32([[0.5, 0.1, 0], [0.2, 0.9, 0.5], [0.5, 0.1, 0.25], [0.2, 0.8, 0]])
    np.testing.assert_allclose(builders.training_gallery(at), [[0.2, 0.8], [0.2, 0.9], [0.5, 0.1]])


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--config.accumulate=2",), "needs accumulate=1"),
        (("--config.objective.views=2",), "views=2 .* maps.cached"),
        (("--config.auto=()", f"--config.{AREA}", "--config.model.position_options.size=4"), "size=4, .* give size="),
        (("--config.model.position=direct", "--config.auto=()", f"--config.{AREA}"), "geoclip.* not 'direct'"),
    ],
)
def test_what_is_refused(recipe, refused, tmp_path, changes, message):
    assert re.search(message, refused(f"--config={recipe}", f"--workdir={tmp_path / 'run'}", *changes))


@pytest.mark.long
def test_regeos_two_heads_train_on_live_images(recipe, door, tmp_path):
    """The location head in the aggregator's place and the regression behind it, on the distance over the globe."""
    options = {"bearing": False, "ending": "tanh", "widths": (8, 4), "norm": True, "activation": "relu", "dropout": 0.1}
    keys = {
        "model.aggregator": "regeo", "model.aggregator_options": {"dim": 12, "layers": 1, "heads": 2, "hidden": 8},
        "model.position": "direct", "model.position_options": {**options, "area": (45.1, 12.4, 45.2, 12.5)},
        "model.l2_after": False, "epochs": 6,
    }  # fmt: skip
    file, folder = tmp_path / "regeo.py", tmp_path / "run"
    file.write_text(REGEO.format(base=str(recipe), keys=keys))
    status, _, err = door(f"--config={file}", f"--workdir={folder}")
    assert status == 0, err
    losses = [record["loss"] for record in logs.read(folder) if "loss" in record]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


REGEO = """
import runpy

from ml_collections import ConfigDict
from configs import common


def get_config(preset=""):
    config = runpy.run_path({base!r})["get_config"]("live").unlock()
    config.objective = common.positions(loss="haversine", metres=1e3)
    for key, value in {keys!r}.items():
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = ConfigDict(value) if isinstance(value, dict) else value
    config.auto = ()
    return config.lock()
"""
