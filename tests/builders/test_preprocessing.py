"""Preprocessing of a recipe through the door: resized on the device, at images' own sizes, with other colours."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest

import jaxvpr
from configs import common
from jaxvpr import builders, models
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD

DEVICE = {"image.size": "(40,24)", "image.resize": "tensor_linear_antialias"}
OWN = {"image.size": "()"}
CROPPED = {"image.size": "(33,24)", "image.resize": "tensor_linear", "image.multiple": "8", "image.crop": "true"}


def flags(changes):
    return [f"--config.{key}={value}" for key, value in changes.items()]


@pytest.fixture
def weights(tiny_recipe, trained_run):
    return [f"--config={tiny_recipe}", f"--checkpoint={trained_run / 'model.safetensors'}"]


@pytest.fixture
def mixed(photo_tree, tmp_path):
    """Database photos, three of them of another shape."""
    folder = shutil.copytree(photo_tree / "images" / "test" / "database", tmp_path / "mixed")
    for file in sorted(folder.iterdir())[4:7]:
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (48, 36)))
    return folder


def test_the_keys_are_those_of_a_published_preprocessing():
    image = common.base().image
    assert set(image) == set(models.Preprocess._fields)
    assert (image.mean, image.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(("changes", "shown"), [(DEVICE, "40x24 tensor_linear_antialias"), (OWN, "own size")])
def test_evaluate(door, weights, changes, shown, trained_run, tmp_path):
    status, out, err = door("evaluate", *weights, *flags(changes), f"--workdir={tmp_path}")
    assert status == 0 and f"| 25m | {shown} | 32-D" in out and "thumbnail" in out, err
    (written,) = tmp_path.glob("evaluate-model-*/metrics.json")
    entry = json.loads(written.read_text())
    protocol = entry["results"][0]["protocol"]
    assert protocol["image_size"] == ([] if changes is OWN else [40, 24]) and entry["costs"]["flops_per_image"] > 0
    assert protocol["resize"] == ("none" if changes is OWN else "tensor_linear_antialias")
    recall = entry["results"][0]["recall"]
    if changes is OWN:  # the photos have the size that the recipe gives them
        assert recall == json.loads((trained_run / "metrics.json").read_text())["results"][0]["recall"]
    else:
        assert recall["25m"]["1"] > 20, "some 4 are chance"


def test_extract_localize_and_the_python_door(door, weights, tiny_recipe, trained_run, mixed, tmp_path):
    change = flags(OWN | {"image.multiple": 8, "image.resize": "tensor_linear"})
    status, out, err = door("extract", *weights, *change, f"--images={mixed}", f"--out={tmp_path / 'db.npy'}")
    assert status == 0 and "50 images, sizes: 2, sizes shown to the model: 2" in err, err
    found = np.load(tmp_path / "db.npy")
    localize = ["localize", *weights, f"--database={tmp_path / 'db.npy'}", f"--images={mixed}", "--top=1"]
    status, out, err = door(*localize, *change, f"--out={tmp_path / 'found'}")
    assert status == 0 and out.count("distance 0.000") == 50, err
    refused = door(*localize, f"--out={tmp_path / 'other'}")
    assert refused.status == 2 and re.search(r"(?s)db\.npy.*image\.multiple: 8 there", refused.err)

    model = jaxvpr.load(f"{tiny_recipe},init={trained_run / 'model.safetensors'}")
    for key, value in (("image.size", "()"), ("image.multiple", "8"), ("image.resize", "tensor_linear")):
        override(model.config, key, value)
    photos = sorted(mixed.iterdir())
    np.testing.assert_allclose(model.describe(photos), found, atol=1e-5)
    arrays = [cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB) for photo in photos[3:8]]
    np.testing.assert_allclose(model.describe(arrays), found[3:8], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said", "facts"),
    [
        (CROPPED, "32x24 of 33x24 tensor_linear", ([32, 24], "tensor_linear", "33x24")),
        (CROPPED | OWN, "own size cropped to multiples of 8", ([], "none", "own size")),
    ],
)
def test_crops_are_told_of(door, weights, changes, said, facts, tmp_path):
    one = ["--config.eval.baselines=false", f"--workdir={tmp_path}"]
    status, out, err = door("evaluate", *weights, *flags(changes), *one)
    assert status == 0 and f"| 25m | {said} | 32-D" in out, err
    (written,) = tmp_path.glob("evaluate-model-*/metrics.json")
    protocol = json.loads(written.read_text())["results"][0]["protocol"]
    assert (protocol["image_size"], protocol["resize"], protocol["cropped_from"]) == facts
    assert protocol["multiple"] == 8


def test_a_program_takes_what_is_left_of_a_crop(door, weights, tmp_path):
    out = tmp_path / "tiny.stablehlo"
    changes = flags(CROPPED | {"image.size": "(30,25)"})
    status, _, err = door("export", *weights, *changes, f"--out={out}", f"--workdir={tmp_path}")
    report = json.loads(out.with_name("tiny.stablehlo.json").read_text())
    assert status == 0 and report["input"] == ["batch", 24, 24, 3] and report["preprocess"]["crop"] is True, err


@pytest.mark.parametrize("changes", [DEVICE, OWN, CROPPED | {"image.resize": "area"}])
def test_training_needs_crops_made_on_the_host(refused, tiny_recipe, changes, tmp_path):
    said = refused(f"--config={tiny_recipe}", *flags(changes), f"--workdir={tmp_path}")
    assert re.search(r"config\.image\b.*\bcrop=.*pil_bilinear, pil_bicubic, linear, area", said)


def test_colours_go_to_the_model(tiny_config):
    config = tiny_config.copy_and_resolve_references()
    config.image.mean, config.image.std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    module = builders.model(config)
    assert module.mean == (0.5, 0.4, 0.3) and module.std == (0.2, 0.3, 0.4)
    assert builders.model(tiny_config).mean == IMAGENET_MEAN


def test_a_recipe_takes_its_own_size_from_the_command_line(tiny_recipe):
    config = load_config(f"{tiny_recipe},image.multiple=14")
    assert builders.image_size(config) == (28, 28)
    override(config, "image.size", "()")
    assert config.image.size == () and builders.image_size(config) == (476, 644)
    override(config, "image.crop", "true")
    assert builders.image_size(config) == (476, 630)


def test_anyloc_shows_the_middle_of_480_by_640():
    config = load_config("configs/zoo.py:anyloc-dinov2g-49152")
    assert config.image.size == (480, 640) and config.image.crop and builders.image_size(config) == (476, 630)
