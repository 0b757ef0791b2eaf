"""export of a model with a position head: weights that come back whole, and a program that answers."""

import json

import jax
import numpy as np
import pytest

from jaxvpr import builders, weights
from jaxvpr.models.positions import area, located
from jaxvpr.runs import which
from tests.verbs.test_locate_by_head import AREA, recipe, saved


def leaves(variables):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


@pytest.mark.parametrize("ending", [".safetensors", pytest.param(".pth", marks=pytest.mark.torch)])
def test_weights_come_back_whole(door, refused, tiny_recipe, tmp_path, ending):
    text = recipe(tiny_recipe, "mixture", fourier=4, components=2)
    config, variables, file = saved(text, tmp_path / "head.safetensors")
    out = tmp_path / f"out{ending}"
    export = ["export", f"--config={text}", f"--workdir={tmp_path}", f"--checkpoint={file}"]
    status, _, err = door(*export, f"--out={out}")
    assert status == 0, err
    names = weights.read(out)
    assert any(name.startswith("position.") for name in names) and any("frequencies" in name for name in names)
    report = json.loads((tmp_path / f"out{ending}.json").read_text())
    assert report["family"] == "jaxvpr" and report["reads back"] == "bit for bit"
    assert report["position"] == {
        "kind": "mixture", "area": dict(zip(("south", "west", "north", "east"), AREA, strict=True)), "unit": "degrees"
    }  # fmt: skip
    again = which.chosen(config, tmp_path, str(out)).variables
    ours, theirs = leaves(variables), leaves(again)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value)
    said = refused(*export, f"--out={tmp_path / 'other'}{ending}", "--family=cosplace")
    assert "position" in said


@pytest.mark.long
def test_a_program_answers(door, tiny_recipe, photo_tree, tmp_path):
    """Its answers, put into the area in double precision, are those of the head on the host."""
    text = recipe(tiny_recipe, "hypersphere", projection="spread")
    config, variables, file = saved(text, tmp_path / "head.safetensors")
    out = tmp_path / "model.stablehlo"
    status, _, err = door("export", f"--config={text}", f"--workdir={tmp_path}", f"--checkpoint={file}", f"--out={out}")
    assert status == 0, err
    report = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert report["output"][1] == ["batch", ["north", "east", "bearing", "confidence"]]
    assert report["parity"]["batch of 3"]["largest difference of answers"] < 1e-4
    images = np.random.default_rng(0).integers(0, 256, (5, *builders.image_size(config), 3), np.uint8)
    with jax.numpy_dtype_promotion("standard"):
        call = jax.export.deserialize(bytearray(out.read_bytes())).call
        descriptors, answers = (np.asarray(found) for found in call(images))
        expected = np.asarray(builders.apply(config)(variables, images))
        raw = builders.head(config)(variables, expected)
    np.testing.assert_allclose(descriptors, expected, atol=1e-5)
    whole = located(builders.coding(config), np.asarray(raw))
    sides = [report["position"]["area"][name] for name in ("south", "west", "north", "east")]
    north, east = area(sides).placed(*answers[:, :2].astype(np.float64).T)
    assert answers.shape == (5, 4) and answers.dtype == np.float32
    metres = np.hypot(111_200 * (north - whole.north), 78_500 * (east - whole.east))
    assert metres.max() < 0.02
    np.testing.assert_allclose(answers[:, 2], whole.bearing, atol=0.01)
    assert np.isnan(answers[:, 3]).all()
