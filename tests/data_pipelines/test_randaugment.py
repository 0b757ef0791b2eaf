"""RandAugment: each operation against its definition, written here once more pixel by pixel, and what is drawn."""

import math
import pickle

import numpy as np
import pytest
from PIL import Image

from data_pipelines import randaugment
from data_pipelines.augment import Augment
from data_pipelines.images import resize
from data_pipelines.randaugment import NAMES, OPERATIONS, rand_augment

HEIGHT, WIDTH = 30, 44


def photo(seed=0):
    small = np.random.default_rng(seed).integers(20, 240, (4, 6, 3), dtype=np.uint8)
    return resize(small, (HEIGHT, WIDTH), "pil_bicubic")


def read_at(image, source):
    """Bilinear values at `source(x, y)`, in coordinates whose pixel centres lie at halves; black outside."""
    height, width = image.shape[:2]
    out = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            x, y = source(column + 0.5, row + 0.5)
            if not (0 <= x < width and 0 <= y < height):
                continue
            left, top = math.floor(x - 0.5), math.floor(y - 0.5)
            right, below = x - 0.5 - left, y - 0.5 - top
            for dy, dx, weight in (
                (0, 0, (1 - right) * (1 - below)), (0, 1, right * (1 - below)),
                (1, 0, (1 - right) * below), (1, 1, right * below),
            ):  # fmt: skip
                out[row, column] += weight * image[np.clip(top + dy, 0, height - 1), np.clip(left + dx, 0, width - 1)]
    return out


def shifted(image, right, down):
    out = np.zeros_like(image)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            if 0 <= row - down < HEIGHT and 0 <= column - right < WIDTH:
                out[row, column] = image[row - down, column - right]
    return out


def turned(image, degrees):
    """Counter-clockwise about the middle."""
    angle, x0, y0 = math.radians(degrees), WIDTH / 2, HEIGHT / 2
    cos, sin = math.cos(angle), math.sin(angle)
    return read_at(
        image,
        lambda x, y: (
            x0 + cos * (x - x0) - sin * (y - y0),
            y0 + sin * (x - x0) + cos * (y - y0),
        ),
    )


def luma(image):
    return np.round(image @ np.array([0.299, 0.587, 0.114]))[..., None]


def blended(image, other, strength):
    return (other + (1 + strength) * (image - other)).clip(0, 255)


def smooth(image):
    """The mean of nine pixels of which the middle one weighs five; the border as it is."""
    out = image.copy()
    for row in range(1, HEIGHT - 1):
        for column in range(1, WIDTH - 1):
            around = image[row - 1 : row + 2, column - 1 : column + 2].reshape(9, 3)
            out[row, column] = np.round((around.sum(0) + 4 * image[row, column]) / 13)
    return out


def stretched(image):
    low, high = image.min((0, 1)), image.max((0, 1))
    return (image - low) * 255 / (high - low)


def equalised(image):
    out = np.empty(image.shape)
    for channel in range(3):
        values = image[..., channel].astype(int)
        histogram = np.bincount(values.ravel(), minlength=256)
        step = (values.size - histogram[values.max()]) // 255
        table = (step // 2 + np.concatenate([[0], np.cumsum(histogram)[:-1]])) // step
        out[..., channel] = table.clip(0, 255)[values]
    return out


DEFINED = {
    "Identity": lambda image, strength: image,
    "ShearX": lambda image, slope: read_at(image, lambda x, y: (x + slope * y, y)),
    "ShearY": lambda image, slope: read_at(image, lambda x, y: (x, y + slope * x)),
    "TranslateX": lambda image, pixels: shifted(image, int(pixels), 0),
    "TranslateY": lambda image, pixels: shifted(image, 0, int(pixels)),
    "Rotate": turned,
    "Brightness": lambda image, strength: blended(image, 0, strength),
    "Color": lambda image, strength: blended(image, luma(image), strength),
    "Contrast": lambda image, strength: blended(image, np.round(luma(image).mean()), strength),
    "Sharpness": lambda image, strength: blended(image, smooth(image), strength),
    "Posterize": lambda image, bits: image // 2 ** (8 - bits) * 2 ** (8 - bits),
    "Solarize": lambda image, least: np.where(image < least, image, 255 - image),
    "AutoContrast": lambda image, strength: stretched(image),
    "Equalize": lambda image, strength: equalised(image),
}
# name -> strength at magnitude 9 and at 30, of an image of 320x240 (width x height), worked out by hand
STRENGTHS = {
    "ShearX": (0.09, 0.3),
    "ShearY": (0.09, 0.3),
    "TranslateX": (150 / 331 * 96, 150 / 331 * 320),
    "TranslateY": (150 / 331 * 72, 150 / 331 * 240),
    "Rotate": (9, 30),
    "Brightness": (0.27, 0.9),
    "Color": (0.27, 0.9),
    "Contrast": (0.27, 0.9),
    "Sharpness": (0.27, 0.9),
    "Posterize": (7, 4),
    "Solarize": (179, 0),
}
UNSIGNED = ("Identity", "Posterize", "Solarize", "AutoContrast", "Equalize")


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_its_definition(name):
    image, operation = photo(), OPERATIONS[name]
    for magnitude in (0.3, 1.0):
        for sign in (1, -1) if operation.signed else (1,):
            strength = sign * operation.strength(magnitude, (WIDTH, HEIGHT))
            found = np.array(operation.apply(Image.fromarray(image), strength))
            expected = DEFINED[name](image.astype(int), strength)
            # Pillow rounds, or cuts off, twice on the way.
            assert np.abs(found - expected).max() <= 2 and np.abs(found - expected).mean() < 0.6, (magnitude, sign)
            assert found.dtype == np.uint8 and found.shape == image.shape
            assert name == "Identity" or (found != image).any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("AutoContrast", "Equalize")])
def test_magnitude_zero_is_the_identity(name):
    image, operation = photo(), OPERATIONS[name]
    found = operation.apply(Image.fromarray(image), operation.strength(0.0, (WIDTH, HEIGHT)))
    np.testing.assert_array_equal(np.array(found), image)


def test_strengths_and_directions_are_torchvisions():
    for name, (usual, most) in STRENGTHS.items():
        for share, expected in ((0.3, usual), (1.0, most)):
            assert OPERATIONS[name].strength(share, (320, 240)) == pytest.approx(expected), name
    # Of its 31 bins: 8 - round(bin / 7.5).
    bits = [OPERATIONS["Posterize"].strength(bin / 30, (1, 1)) for bin in (3, 4, 11, 12, 18, 19, 26, 27)]
    assert bits == [8, 7, 7, 6, 6, 5, 5, 4]
    # And 255 - 8.5 bin.
    least = [OPERATIONS["Solarize"].strength(bin / 30, (1, 1)) for bin in range(31)]
    assert least == [math.ceil((510 - 17 * bin) / 2) for bin in range(31)]
    assert tuple(name for name in NAMES if not OPERATIONS[name].signed) == UNSIGNED and len(NAMES) == 14


def test_operations_and_directions_are_drawn_evenly(monkeypatch):
    calls, count = [], 3000
    noted = {
        name: operation._replace(apply=lambda image, strength, name=name: (calls.append((name, strength)), image)[1])
        for name, operation in OPERATIONS.items()
    }
    monkeypatch.setattr(randaugment, "OPERATIONS", noted)
    rng = np.random.default_rng(0)
    for _ in range(count):
        rand_augment(photo(), rng, 3)
    assert len(calls) == 3 * count
    for name in NAMES:
        strengths = [strength for called, strength in calls if called == name]
        assert abs(len(strengths) - 3 * count / 14) < 5 * math.sqrt(3 * count / 14)
        positive = np.mean(np.array(strengths) > 0)
        if name in ("Identity", "AutoContrast", "Equalize"):
            assert set(strengths) == {0.0}
        else:
            assert positive == 1 if name in UNSIGNED else abs(positive - 0.5) < 0.1


def test_the_same_generator_gives_the_same_image_and_operations_follow_each_other(monkeypatch):
    image = photo()
    one, again, other = (rand_augment(image, np.random.default_rng(seed), 3, 20) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one.astype(int) - other).max() > 5 and one.dtype == np.uint8 and one.flags.writeable
    np.testing.assert_array_equal(image, photo(), "the input is left alone")
    for name, inverted in (("Solarize", 255 - image), ("Posterize", image // 16 * 16)):
        monkeypatch.setattr(randaugment, "NAMES", (name,))
        np.testing.assert_array_equal(rand_augment(image, np.random.default_rng(0), 1, 30), inverted)
        twice = image if name == "Solarize" else inverted
        np.testing.assert_array_equal(rand_augment(image, np.random.default_rng(0), 2, 30), twice)


def test_it_comes_after_the_resize_and_leaves_other_draws_alone():
    image, size = photo(), (20, 24)
    plain = Augment(brightness=0.5, hue=0.1, scale=(0.5, 1.0), flip=0.5)
    both = Augment(brightness=0.5, hue=0.1, scale=(0.5, 1.0), flip=0.5, randaugment=2, magnitude=15)
    rng = np.random.default_rng(3)
    expected = rand_augment(plain(image, rng, size, "area"), rng, 2, 15)
    found = pickle.loads(pickle.dumps(both))(image, np.random.default_rng(3), size, "area")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(rand_augment(image, np.random.default_rng(0), 0), image)


@pytest.mark.parametrize(("count", "magnitude"), [(-1, 9), (2, 31), (2, -1)])
def test_what_makes_no_sense_is_refused(count, magnitude):
    with pytest.raises(ValueError, match=rf"randaugment={count}\b.*magnitude={magnitude}\b.*\b0 to 30"):
        Augment(randaugment=count, magnitude=magnitude).finish(photo(), np.random.default_rng(0))
