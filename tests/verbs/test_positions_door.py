"""A head that answers positions, from the command line: trained on kept descriptors, measured beside retrieval."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxvpr import builders, families, weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.main import main
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import logs, loop
from tests.conftest import console

RECIPE = """
import runpy
from ml_collections import ConfigDict
from configs import common


def get_config(preset=""):
    config = runpy.run_path({tiny!r})["get_config"]().unlock()
    config.name = "heads"
    config.augment = common.base().augment
    config.init = {init!r}
    config.maps.cached, config.maps.folder = True, {folder!r}
    config.model.position = "cells"
    config.model.position_options = ConfigDict({{"cells": 5, "hidden": 1, "width": 32}})
    config.objective = common.positions(loss="cross_entropy")
    config.batch, config.epochs, config.steps_per_epoch, config.steps_per_call = 16, 2, 60, 60
    config.optimizer = common.optimizer("adam", 1e-2)
    config.best.measure = "25m"
    config.auto = ("model.position_options.area", "model.position_options.metres")
    if preset == "direct":
        config.model.position = "direct"
        config.model.position_options = ConfigDict({{"hidden": 1, "width": 32, "ending": "none"}})
        config.objective = common.positions(loss="weighted")
        config.objective.noise.metres, config.objective.noise.degrees = 1.0, 5.0
    return config.lock()
"""


@pytest.fixture(scope="module")
def recipe(tiny_recipe, trained_run, tmp_path_factory):
    """Heads behind the network of the shared run."""
    folder = tmp_path_factory.mktemp("positions")
    names = {"tiny": tiny_recipe, "init": trained_run / "model.safetensors", "folder": folder / "features"}
    (folder / "heads.py").write_text(RECIPE.format(**{name: str(value) for name, value in names.items()}))
    return folder / "heads.py"


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("heads") / "run"
    with console(), jax.numpy_dtype_promotion("standard"):
        assert main([f"--config={recipe}", f"--workdir={folder}"]) == 0
    return folder


def trained(door, recipe, run, *changes):
    status, said, err = door("train", f"--config={recipe}", *changes, f"--workdir={run}")
    assert status == 0, err
    return said, err


def figures(folder):
    return json.loads((folder / "metrics.json").read_text())["results"][0]["positions"]


def haversine(north, east, north2, east2):
    """Metres by the arc cosine, in float64: another formula than the project's, good to millimetres here."""
    a, b, c = np.radians(north), np.radians(north2), np.radians(east2 - east)
    cosine = np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(c)
    return 6_371_008.8 * np.arccos(np.clip(cosine, -1, 1))


def test_a_head_is_trained_and_measured(door, recipe, run, trained_run):
    """What metrics.json says follows from the rows of positions.csv, and retrieval from a search of one's own."""
    ours, theirs = (weights.read(folder / "model.safetensors") for folder in (run, trained_run))
    assert {name.split(".")[0] for name in set(ours) - set(theirs)} == {"position"}
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs), "the rest of the model rested"

    with (run / "positions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    column = {name: np.array([float(row[name] or "nan") for row in rows]) for name in list(rows[0])[2:]}
    metres = haversine(column["north"], column["east"], column["answer_north"], column["answer_east"])
    np.testing.assert_allclose(metres, column["metres"], atol=0.02)
    found = figures(run)
    assert found["within"] == {
        d: pytest.approx(100 * np.mean(metres <= float(d[:-1])), abs=1e-3) for d in found["within"]
    }
    assert found["median_m"] == pytest.approx(np.median(metres), abs=0.02)
    assert found["cells"]["right"] == pytest.approx(100 * column["right_cell"].mean(), abs=1e-3)
    assert found["training"]["within"]["25m"] > 30, "one of 25 cells would be 4"

    config = load_config(str(recipe))
    learned, asked = builders.training_sets(config)[0], builders.tests(config)[0].queries
    with jax.numpy_dtype_promotion("standard"):
        variables = builders.filled(config, builders.initial_variables(config))
        describe = builders.describer(config, builders.mesh(config))
        database, queries = (describe(variables, images.path).descriptors for images in (learned, asked))
    nearest = np.argmax(queries @ database.T, axis=1)
    plane = np.hypot(asked.east - learned.east[nearest], asked.north - learned.north[nearest])
    np.testing.assert_allclose(column["retrieval_metres"], plane, rtol=5e-3, atol=0.01)
    assert found["retrieval"]["images"] == 75 and found["retrieval"]["bytes"] == database.nbytes
    assert found["bytes"] == sum(value.nbytes for name, value in ours.items() if name.startswith("position."))

    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    told = [line for line in lines if "val/25m" in line]
    assert len(told) == 2 and {"val/loss", "train/loss", "val/median_m", "val/cells", "val/behind_m"} <= set(told[-1])

    status, said, err = door("evaluate", f"--config={recipe}", f"--workdir={run}")
    assert status == 0 and figures(run / "evaluate") == found, err
    assert "retrieval, 75 images" in said and "heads, its head" in said and "positions.csv" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("objective.loss=l2", "objective.loss"),
        ("objective.loss_options.wrap=true", "objective.loss_options"),
        ("model.position=", "set model.position to direct"),
        ("model.position_options.cells=20000", "makes 4,800,000,000 classes"),
        ("model.position_options.area=(1.0,2.0,3.0,4.0)", "none of 75 images lies in model.position_options.area"),
        ("model.position_options.area=(0.0,0.0,9.0,9.0),model.position_options.metres=true", "positions in degrees"),
        ("eval.distances=('25',)", "config.eval.distances: '25' is no distance"),
        ("augment.brightness=0.3", "nothing of config.augment would happen"),
    ],
)
def test_what_makes_no_sense_is_named(refused, recipe, tmp_path, changes, words):
    assert words in refused("train", f"--config={recipe},{changes}", f"--workdir={tmp_path / 'none'}", "--dry-run")


def test_no_map_where_the_images_are_gone_or_nobody_asks(door, recipe, run, tmp_path):
    ask = ["evaluate", f"--config={recipe}", f"--workdir={run}", f"--out={tmp_path / 'out'}", "--overwrite"]
    status, _, err = door(*ask, "--config.train_data.root=nowhere", "--config.eval.distances=('2km',)")
    assert status == 0 and "no retrieval beside the position head" in err, err
    found = figures(tmp_path / "out")
    assert found["within"] == {"2km": 100.0} and "retrieval" not in found and "training" not in found
    status, _, err = door(*ask, "--config.eval.baselines=false")
    assert status == 0 and "retrieval" not in figures(tmp_path / "out"), err


def test_descriptors_of_another_length_are_named(refused, recipe, run, tmp_path):
    ask = ("evaluate", f"--config={recipe},model.aggregator_options.dim=16", f"--workdir={tmp_path / 'none'}")
    said = refused(*ask, f"--checkpoint={run / 'model.safetensors'}")
    assert "position.hidden_0.kernel (32, 32) for position/hidden_0/kernel (16, 32)" in said


@pytest.mark.long
def test_a_file_that_has_a_head_starts_with_it(door, recipe, run, tmp_path):
    """A rate of almost nothing leaves it as it was."""
    start = (f"--config.init={run / 'model.safetensors'}", "--config.optimizer.rate=1e-9", "--config.epochs=1")
    trained(door, recipe, tmp_path / "more", *start)
    assert figures(tmp_path / "more")["within"] == figures(run)["within"]
    close(tmp_path / "more", run)


@pytest.mark.long
@pytest.mark.parametrize("preset", ["", ":direct"])
def test_a_resumed_run_ends_as_the_whole_one(door, recipe, tmp_path, preset):
    """In calls of ten steps, or with noise and learned weights; the learned weights are the loss's own."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    trained(door, f"{recipe}{preset}", whole)
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "120")
    (part / "model.safetensors").unlink()
    _, err = trained(door, f"{recipe}{preset}", part)
    assert "resumed at step 60 of 120" in err
    for name in ("model.safetensors", "log.jsonl", "positions.csv"):
        assert (part / name).read_bytes() == (whole / name).read_bytes(), name
    assert figures(part) == figures(whole)


@pytest.mark.long
@pytest.mark.parametrize("preset", ["", ":direct"])
def test_eight_devices_learn_what_one_does(recipe, tmp_path, preset):
    """By SGD, which does not blow rounding up; descriptors, labels and noise are the same on any mesh."""
    config = load_config(f"{recipe}{preset},optimizer.name=sgd,optimizer.rate=0.1,eval.batch=5")
    runs = {}
    for devices in (1, 8):
        config.maps.folder = str(tmp_path / f"features{devices}")
        own, _ = builders.settle(config.copy_and_resolve_references(), builders.training_sets)
        over = make_mesh(devices=jax.devices()[:devices])
        with jax.numpy_dtype_promotion("standard"):
            validation, sets = builders.validation(own), builders.training_sets(own)
            made = families.recipe(own, over, validation, sets)
            (tmp_path / str(devices)).mkdir()
            runs[devices] = loop.train(own, tmp_path / str(devices), made, over)
    one, eight = (flatten_dict(runs[devices].best["params"], sep="/") for devices in runs)
    for name in one:
        np.testing.assert_allclose(one[name], eight[name], atol=2e-5, err_msg=name)
    losses = [[line["loss"] for line in logs.read(tmp_path / str(devices)) if "loss" in line] for devices in runs]
    np.testing.assert_allclose(*losses, rtol=1e-4, atol=1e-6)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.long
def test_a_call_of_many_steps_is_many_calls(door, recipe, tmp_path):
    many, single = tmp_path / "many", tmp_path / "single"
    trained(door, recipe, many)
    trained(door, recipe, single, "--config.steps_per_call=1")
    close(many, single)


@pytest.mark.long
def test_live_images_teach_what_kept_descriptors_do(door, recipe, trained_run, tmp_path):
    """Where nothing augments, all but the head rests, and no BatchNorm normalises by the batch."""
    kept, live = tmp_path / "kept", tmp_path / "live"
    pooled = [
        "--config.model.aggregator=gem",
        "--config.model.aggregator_options={}",
        f"--config.init={trained_run / 'model.safetensors'}:^backbone",
    ]
    pooled += ["--config.frozen_random=true", "--config.model.backbone_options.frozen_bn=all"]
    trained(door, recipe, kept, *pooled)
    rests = ("--config.maps.cached=false", "--config.frozen=('^(?!position/)',)", "--config.steps_per_call=1")
    trained(door, recipe, live, *pooled, *rests)
    close(kept, live)


def close(run, other):
    ours, theirs = (weights.read(folder / "model.safetensors") for folder in (run, other))
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    assert figures(run)["within"] == figures(other)["within"]
