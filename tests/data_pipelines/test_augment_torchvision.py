"""Every augmentation beside torchvision's own with the same parameters; skipped where torchvision is not installed.

Torchvision changes Pillow's images and tensors, not quite alike: Pillow cuts fractions off and has hues of 8 bits. The
Deep VG benchmark trains on Pillow's, which all operations are compared with; colours also with the tensors'.
"""

# ruff: noqa: E402

import importlib.util

import numpy as np
import pytest
from PIL import Image

from data_pipelines import augment
from data_pipelines.images import resize
from data_pipelines.warps import corners, perspective, perspective_ends, rotate

if importlib.util.find_spec("torchvision") is None:
    pytest.skip("torchvision is not installed", allow_module_level=True)
torch = pytest.importorskip("torch")

from beside_torch import load

pytestmark = pytest.mark.torch
functional = load("torchvision.transforms.functional")
MOST = 2.0  # of 255, the mean over an image
COLOURS = {
    "brightness": [0.0, 0.3, 0.85, 1.4, 1.7],
    "contrast": [0.0, 0.3, 0.85, 1.4, 1.7],
    "saturation": [0.0, 0.3, 0.85, 1.4, 1.7],
    "hue": [-0.5, -0.33, -0.2, -0.05, -0.004, 0.01, 0.1, 0.25, 0.37, 0.5],
}


def photos():
    """Smooth colours of every hue with noise; the same faded, as streets are; and of the size of a real image."""
    for seed, size, fade in ((0, (40, 56), 1.0), (1, (61, 47), 0.4), (2, (240, 320), 0.6)):
        rng = np.random.default_rng(seed)
        image = resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), size, "pil_bicubic").astype(float)
        image = image.mean(-1, keepdims=True) * (1 - fade) + image * fade + rng.integers(-9, 10, image.shape)
        yield image.clip(0, 255).astype(np.uint8)


def near(ours, theirs, most=MOST):
    difference = np.abs(ours.astype(float) - np.asarray(theirs)).mean()
    assert difference < most, difference


@pytest.mark.parametrize(
    ("name", "factor"), [(name, factor) for name, factors in COLOURS.items() for factor in factors]
)
def test_colours(name, factor):
    theirs = getattr(functional, f"adjust_{name}")
    for image in photos():
        ours = getattr(augment, f"adjust_{name}")(image, factor)
        near(ours, theirs(Image.fromarray(image), factor))
        near(ours, theirs(torch.from_numpy(image).permute(2, 0, 1), factor).permute(1, 2, 0), 1.1)


@pytest.mark.parametrize("distortion", [0.1, 0.5, 1.0])
def test_perspective_is_theirs_to_the_bit(distortion):
    rng = np.random.default_rng(0)
    for image in photos():
        starts = corners(image.shape[:2])
        for _ in range(5):
            ends = perspective_ends(rng, image.shape[:2], distortion)
            theirs = functional.perspective(Image.fromarray(image), starts.tolist(), ends.tolist(), fill=0)
            near(perspective(image, ends), theirs, 0.01)


@pytest.mark.parametrize("degrees", [-90.0, -12.5, 0.0, 3.0, 45.0, 133.7, 180.0])
def test_rotation_is_theirs_to_the_bit(degrees):
    for image in photos():
        assert np.array_equal(rotate(image, degrees), functional.rotate(Image.fromarray(image), degrees))


def test_resized_crop_and_flip_are_theirs_to_the_bit():
    rng = np.random.default_rng(0)
    for image in photos():
        picture = Image.fromarray(image)
        box = augment.crop_box(rng, image.shape[:2], (0.2, 0.8))
        ours = augment.crop_resize(image, box, (48, 64), "pil_bilinear")
        assert np.array_equal(ours, functional.resized_crop(picture, *box, [48, 64]))
        mirrored = augment.Augment(flip=1.0)(image, rng, image.shape[:2], "pil_bilinear")
        assert np.array_equal(mirrored, functional.hflip(picture))


def test_parameters_are_drawn_from_the_same_ranges():
    transforms = importlib.import_module("torchvision.transforms")
    torch.manual_seed(0)
    starts, full = corners((37, 50)), (37, 50)
    rng = np.random.default_rng(0)
    ours = np.array([perspective_ends(rng, full, 0.5) for _ in range(1500)])
    drawn = [transforms.RandomPerspective.get_params(50, 37, 0.5) for _ in range(1500)]
    assert all(first == starts.tolist() for first, _ in drawn)
    theirs = np.array([ends for _, ends in drawn])
    assert np.array_equal(ours.min(0), theirs.min(0)) and np.array_equal(ours.max(0), theirs.max(0))
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 5 * 12 / np.sqrt(12 * 750)
