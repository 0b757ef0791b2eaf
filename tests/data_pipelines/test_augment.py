"""Colour jitter and random resized crop against torchvision's formulas, written here once more in float64."""

import colorsys
import math
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from data_pipelines import augment
from data_pipelines.augment import Augment, color_jitter, crop_box, crop_resize
from data_pipelines.images import resize
from data_pipelines.randaugment import rand_augment
from data_pipelines.warps import random_perspective, random_rotation

FACTORS = [0.0, 0.3, 0.85, 1.0, 1.4, 1.7]


def photo(seed=0, height=40, width=56):
    """Smooth colours of every hue and saturation, with noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = resize(small, (height, width), "pil_bicubic").astype(int) + rng.integers(-9, 10, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)


def blended(image, other, factor):
    return (factor * image + (1 - factor) * other).clip(0, 255)


def grey(image):
    return (0.2989 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2])[..., None]


def hue_turned(image, turns):
    """Pixel by pixel with the standard library."""
    out = np.empty(image.shape)
    for index in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[index] / 255))
        out[index] = [255 * c for c in colorsys.hsv_to_rgb((h + turns) % 1, s, v)]
    return out


def close(result, expected, mean=0.6, most=1.0):
    """Rounding alone moves a pixel by up to 0.5."""
    difference = np.abs(result.astype(float) - expected)
    assert difference.mean() < mean and difference.max() <= most, (difference.mean(), difference.max())
    assert result.dtype == np.uint8


@pytest.mark.parametrize("factor", FACTORS)
def test_brightness_blends_with_black(factor):
    image = photo()
    close(augment.adjust_brightness(image, factor), blended(image.astype(float), 0.0, factor))


@pytest.mark.parametrize("factor", FACTORS)
def test_contrast_blends_with_the_mean_grey(factor):
    image = photo()
    close(augment.adjust_contrast(image, factor), blended(image.astype(float), grey(image).mean(), factor))


@pytest.mark.parametrize("factor", FACTORS)
def test_saturation_blends_with_grey(factor):
    image = photo()
    close(augment.adjust_saturation(image, factor), blended(image.astype(float), grey(image), factor))


@pytest.mark.parametrize("turns", [-0.5, -0.31, -0.02, 0.1, 0.25, 0.5])
def test_hue_turns_the_colour_circle(turns):
    image = photo()
    difference = np.abs(augment.adjust_hue(image, turns) - hue_turned(image, turns))
    assert difference.mean() < 1, difference.mean()
    assert np.abs(augment.adjust_hue(image, turns).max(-1).astype(int) - image.max(-1)).max() <= 1, "value is kept"


def test_a_third_of_a_turn_makes_red_green():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert np.abs(augment.adjust_hue(red, 1 / 3).astype(int) - (0, 255, 0)).max() <= 3
    assert np.abs(augment.adjust_hue(red, 0.5).astype(int) - (0, 255, 255)).max() <= 3


def test_hand_worked_pixels():
    image = np.array([[[100, 50, 200], [10, 20, 30]]], np.uint8)
    assert augment.adjust_brightness(image, 1.5).tolist() == [[[150, 75, 255], [15, 30, 45]]]
    # greys 0.2989 * 100 + 0.587 * 50 + 0.114 * 200 = 82.04 and 18.149, their mean 50.0945
    assert augment.adjust_contrast(image, 0.5).tolist() == [[[75, 50, 125], [30, 35, 40]]]
    assert augment.adjust_saturation(image, 0.0).tolist() == [[[82, 82, 82], [18, 18, 18]]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_strength_zero_is_the_identity(seed):
    image = photo(seed % 7)
    assert np.array_equal(color_jitter(image, np.random.default_rng(seed)), image)
    assert np.array_equal(Augment()(image, np.random.default_rng(seed), image.shape[:2], "area"), image)


class Recorder:
    """Stands for an image: notes which adjustments are called, in which order, with which factors."""

    def __init__(self, monkeypatch):
        self.calls = []
        noted = tuple(self.note(name) for name in ("brightness", "contrast", "saturation", "hue"))
        monkeypatch.setattr(augment, "ADJUSTMENTS", noted)

    def note(self, name):
        return lambda image, factor: (self.calls.append((name, factor)), image)[1]


def test_factors_fill_their_ranges_and_orders_are_all_met(monkeypatch):
    recorder, rng, count = Recorder(monkeypatch), np.random.default_rng(0), 2000
    for _ in range(count):
        color_jitter(photo(height=2, width=2), rng, brightness=0.7, contrast=1.5, saturation=(0.9, 1.0), hue=0.25)
    ranges = {"brightness": (0.3, 1.7), "contrast": (0, 2.5), "saturation": (0.9, 1.0), "hue": (-0.25, 0.25)}
    for name, (low, high) in ranges.items():
        drawn = np.array([factor for called, factor in recorder.calls if called == name])
        assert len(drawn) == count and low <= drawn.min() and drawn.max() <= high
        # A uniform mean of 2000 lies within 5 standard errors of the middle.
        assert abs(drawn.mean() - (low + high) / 2) < 5 * (high - low) / math.sqrt(12 * count)
        assert drawn.min() < low + 0.01 * (high - low) and drawn.max() > high - 0.01 * (high - low)
    names = [name for name, _ in recorder.calls]
    assert len({tuple(names[i : i + 4]) for i in range(0, len(names), 4)}) == 24


@pytest.mark.parametrize(
    "strengths", [{"brightness": -0.1}, {"hue": 0.6}, {"hue": (-0.6, 0)}, {"contrast": (1.2, 0.8)}, {"saturation": -1}]
)
def test_strengths_without_a_meaning_are_refused(strengths):
    with pytest.raises(ValueError, match=next(iter(strengths))):
        color_jitter(photo(), np.random.default_rng(0), **strengths)


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: (min(pair), max(pair))),
)
def test_boxes_lie_inside_the_image(seed, full, scale):
    top, left, height, width = crop_box(np.random.default_rng(seed), full, scale)
    assert top >= 0 and left >= 0 and height > 0 and width > 0
    assert top + height <= full[0] and left + width <= full[1]


def test_boxes_have_the_asked_areas_and_ratios_and_lie_everywhere():
    rng, full = np.random.default_rng(0), (400, 500)
    boxes = np.array([crop_box(rng, full, (0.1, 0.3)) for _ in range(2000)])
    top, left, height, width = boxes.T
    share, ratio = height * width / (400 * 500), width / height
    assert 0.099 < share.min() < 0.102 and 0.298 < share.max() < 0.301
    assert abs(share.mean() - 0.2) < 5 * 0.2 / math.sqrt(12 * 2000)
    assert 0.745 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.34
    assert abs(np.log(ratio).mean()) < 5 * 2 * math.log(4 / 3) / math.sqrt(12 * 2000)
    assert top.min() == 0 and left.min() == 0 and (top + height).max() == 400 and (left + width).max() == 500


@pytest.mark.parametrize(
    ("full", "box"), [((10, 1000), (0, 493, 10, 13)), ((1000, 9), (494, 0, 12, 9)), ((100, 110), (0, 0, 100, 110))]
)
def test_where_no_try_fits_the_middle_is_kept(full, box):
    # Three times the image's area never fits, so the middle is kept: 10 * 4/3 = 13 wide, 9 / (3/4) = 12 high.
    assert crop_box(np.random.default_rng(0), full, (3.0, 3.0)) == box


def test_a_crop_is_the_resized_box():
    image = photo()
    box = crop_box(np.random.default_rng(5), image.shape[:2], (0.2, 0.5))
    crop = Augment(flip=0.0, scale=(0.2, 0.5))(image, np.random.default_rng(5), (20, 30), "area")
    top, left, height, width = box
    assert np.array_equal(crop, resize(image[top : top + height, left : left + width], (20, 30), "area"))


def test_flip_mirrors_as_often_as_asked():
    image, rng = photo(), np.random.default_rng(0)
    results = [Augment(flip=0.25)(image, rng, image.shape[:2], "area") for _ in range(400)]
    mirrored = sum(np.array_equal(result, image[:, ::-1]) for result in results)
    assert mirrored + sum(np.array_equal(result, image) for result in results) == 400
    assert 60 < mirrored < 140


def drawn(count=300, **strengths):
    """A photo, and what an augmentation of one kind makes of it so many times."""
    image, rng = photo(), np.random.default_rng(0)
    return image, [Augment(**strengths)(image, rng, image.shape[:2], "area") for _ in range(count)]


def test_grey_takes_the_colours_away_as_often_as_asked():
    image, results = drawn(grey=0.25)
    greys = [result for result in results if not np.array_equal(result, image)]
    assert 45 < len(greys) < 105  # 75, and four standard deviations
    close(greys[0], np.repeat(grey(image), 3, axis=-1))


def test_blur_is_a_gaussian_of_up_to_so_many_pixels_in_every_second_image():
    image, results = drawn(blur=2.0)
    blurred = [result for result in results if not np.array_equal(result, image)]
    assert 110 < len(blurred) < 190
    rng = np.random.default_rng(5)
    rng.random()  # the flip
    color_jitter(image, rng)
    assert rng.random() < 0.5
    sigma = rng.uniform(0.1, 2.0)
    one = Augment(blur=2.0)(image, np.random.default_rng(5), image.shape[:2], "area")
    expected = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="mirror", truncate=4)
    close(one, expected, mean=0.6, most=2.5)
    assert len({float(result.std()) for result in blurred}) > 50, "each by another amount"


def test_erasing_leaves_a_box_of_the_mean_colour():
    image, results = drawn(erasing=0.5)
    changed = [(result != image).any(axis=-1) for result in results if not np.array_equal(result, image)]
    assert 110 < len(changed) < 190
    for mask in changed:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert mask[box].mean() > 0.98 and 0.01 < mask.mean() < 0.36  # a pixel may have had that very colour
    assert np.ptp([mask.mean() for mask in changed]) > 0.2
    one = next(result for result in results if not np.array_equal(result, image))
    where = np.argwhere((one != image).any(axis=-1))[0]
    assert np.abs(one[tuple(where)] - image.mean((0, 1))).max() <= 0.5


def test_augment_is_a_pure_function_of_its_generator_and_picklable():
    worn = {"grey": 0.5, "blur": 1.0, "erasing": 0.5}
    full = Augment(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5, scale=(0.5, 1.0), flip=0.5, **worn)
    image = photo()
    one = full(image, np.random.default_rng(1), (24, 24), "linear")
    again = pickle.loads(pickle.dumps(full))(image, np.random.default_rng(1), (24, 24), "linear")
    assert np.array_equal(one, again) and one.shape == (24, 24, 3)
    assert not np.array_equal(one, full(image, np.random.default_rng(2), (24, 24), "linear"))
    assert np.array_equal(image, photo()), "the input is left alone"


@pytest.mark.parametrize(
    "wrong",
    [
        {"brightness": -0.1},
        {"hue": 0.51},
        {"flip": 1.5},
        {"flip": -0.5},
        {"perspective": 1.01},
        {"perspective": -0.1},
        {"rotation": 181.0},
        {"rotation": -5.0},
        {"rotation": math.nan},
        {"grey": 1.5},
        {"blur": -1.0},
        {"blur": 31.0},
        {"erasing": 2.0},
        {"scale": (0.5, 1.2)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.5)},
        {"scale": (0.5,)},
        {"ratio": (2.0, 1.0)},
    ],
    ids=str,
)
def test_an_augmentation_that_makes_no_sense_names_its_key_and_range(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name}={re.escape(str(value))}.*\d"):
        Augment(**wrong)


FULL = {"brightness": 0.7, "contrast": 0.7, "saturation": 0.7, "hue": 0.5, "scale": (0.5, 1.0), "flip": 0.5}


@pytest.mark.parametrize("seed", range(4))
def test_without_perspective_the_order_is_crop_flip_colours_randaugment_rotation(seed):
    image, size = photo(seed), (24, 20)

    def expected(rng):
        result = crop_resize(image, crop_box(rng, image.shape[:2], (0.5, 1.0)), size, "area")
        result = result[:, ::-1] if rng.random() < 0.5 else result
        result = color_jitter(np.ascontiguousarray(result), rng, 0.7, 0.7, 0.7, 0.5)
        return rand_augment(result, rng, 2, 15)

    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    assert np.array_equal(Augment(**FULL, randaugment=2, magnitude=15)(image, rng, size, "area"), expected(other))
    assert rng.random() == other.random(), "what is 0 draws no number"
    rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
    turned = Augment(**FULL, randaugment=2, magnitude=15, rotation=30.0)(image, rng, size, "area")
    assert np.array_equal(turned, random_rotation(expected(other), other, 30.0))


def test_with_perspective_the_order_is_colours_perspective_crop_flip_rotation():
    image, size, met = photo(3), (24, 20), set()
    whole = Augment(**FULL, perspective=0.6, rotation=30.0)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        box = crop_box(rng, image.shape[:2], (0.5, 1.0))
        coloured = color_jitter(image, rng, 0.7, 0.7, 0.7, 0.5)
        warped = random_perspective(coloured, rng, 0.6)
        met.add(warped is coloured)
        cut = crop_resize(warped, box, size, "area")
        cut = np.ascontiguousarray(cut[:, ::-1]) if rng.random() < 0.5 else cut
        expected = random_rotation(cut, rng, 30.0)
        assert np.array_equal(whole(image, np.random.default_rng(seed), size, "area"), expected)
    assert met == {True, False}


@pytest.mark.parametrize("name", ["perspective", "rotation"])
def test_what_warps_leave_outside_stays_black_whatever_the_colours(name):
    white, most = np.full((40, 56, 3), 255, np.uint8), {"perspective": 1.0, "rotation": 45.0}[name]
    augment = Augment(contrast=(0.2, 0.2), brightness=(0.9, 0.9), **{name: most})
    results = [augment(white, np.random.default_rng(seed), (40, 56), "area") for seed in range(10)]
    black = [(result == 0).all(-1) for result in results]
    assert max(mask.mean() for mask in black) > 0.05
    for result, mask in zip(results, black, strict=True):
        inside = result[~mask]
        assert (inside > 100).mean() > 0.9, "the rest is the picture"
