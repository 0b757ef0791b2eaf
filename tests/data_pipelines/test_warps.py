"""Perspective and rotation against NumPy in float64, against exact cases, and the numbers that they draw."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import warps
from data_pipelines.images import resize
from data_pipelines.warps import corners, perspective, perspective_ends, random_perspective, random_rotation, rotate

ENDS = [
    [(4, 3), (50, 1), (44, 33), (2, 39)],
    [(0, 0), (55, 0), (40, 30), (0, 39)],
    [(20, 15), (30, 10), (52, 36), (9, 25)],
]


def photo(height=40, width=56):
    rng = np.random.default_rng(4)
    image = resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (height, width), "pil_bicubic").astype(int)
    return (image + rng.integers(-9, 10, image.shape)).clip(0, 255).astype(np.uint8)


def plane(starts, ends):
    """3 x 3 map from `starts` to `ends`, (x, y) each: the null vector of the cross products (Hartley and Zisserman)."""
    rows = []
    for (x, y), (u, v) in zip(starts, ends, strict=True):
        rows += [(0, 0, 0, -x, -y, -1, v * x, v * y, v), (x, y, 1, 0, 0, 0, -u * x, -u * y, -u)]
    return np.linalg.svd(np.array(rows, float))[2][-1].reshape(3, 3)


def read_at(image, x, y):
    """Bilinear between pixel centres at halves, edges repeated, black outside the image; float64."""
    height, width = image.shape[:2]
    left, top = np.floor(x - 0.5).astype(int), np.floor(y - 0.5).astype(int)
    right, down = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]

    def at(dy, dx):
        return image[(top + dy).clip(0, height - 1), (left + dx).clip(0, width - 1)].astype(float)

    upper = at(0, 0) * (1 - right) + at(0, 1) * right
    lower = at(1, 0) * (1 - right) + at(1, 1) * right
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(inside[..., None], upper * (1 - down) + lower * down, 0)


@pytest.mark.parametrize("ends", ENDS)
def test_perspective_is_the_plane_through_the_moved_corners(ends):
    image = photo()
    back = plane(ends, corners(image.shape[:2]).tolist())
    y, x = np.mgrid[:40, :56] + 0.5
    u, v, w = np.einsum("ij,jhw->ihw", back, np.stack([x, y, np.ones_like(x)]))
    expected = read_at(image, u / w, v / w)
    difference = np.abs(perspective(image, np.array(ends)) - expected)
    # Pillow cuts the fraction off; a position on the very outline may fall on either side of it.
    assert np.quantile(difference, 0.99) <= 1 and difference.mean() < 1
    assert (expected == 0).all(-1).mean() > 0.05, "a part is black"


def test_moving_all_corners_alike_shifts_the_image():
    image = photo()
    moved = perspective(image, corners((40, 56)) + [5, -3])
    assert np.abs(moved[:37, 5:].astype(int) - image[3:, :51]).max() <= 1
    assert not moved[37:].any() and not moved[:, :5].any()


def test_half_the_size_averages_pairs_by_hand():
    # Corners at 0 and 3 go to 0 and 1.5, so that pixel centre 0.5 is read at 1 and 1.5 at 3: between two pixels each.
    row = np.array([10, 30, 50, 90], np.uint8)
    image = np.repeat(np.tile(row, (4, 1))[..., None], 3, axis=2)
    small = perspective(image, np.array([(0, 0), (1.5, 0), (1.5, 1.5), (0, 1.5)]))
    assert small[0, :2, 0].tolist() == [20, 70] and not small[2:].any() and not small[:, 2:].any()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(1, 90), st.floats(0, 1))
def test_corners_move_inwards_by_no_more_than_asked(seed, height, width, distortion):
    ends = perspective_ends(np.random.default_rng(seed), (height, width), distortion)
    x, y = np.abs(ends - corners((height, width))).T
    assert x.max() <= distortion * (width // 2) and y.max() <= distortion * (height // 2)
    assert (ends >= 0).all() and (ends < [width, height]).all()


def test_every_move_inwards_is_met_as_often_as_any_other():
    rng, full = np.random.default_rng(0), (21, 33)  # half of it: 10 x 16
    moves = np.abs(np.array([perspective_ends(rng, full, 0.5) for _ in range(1800)]) - corners(full))
    for axis, most in ((0, 8), (1, 5)):
        for corner in range(4):
            met = np.bincount(moves[:, corner, axis], minlength=most + 1)
            assert len(met) == most + 1
            assert np.abs(met - 1800 / (most + 1)).max() < 5 * math.sqrt(1800 / (most + 1))
    # The four corners are drawn apart from each other, and so are their two coordinates.
    assert np.abs(np.corrcoef(moves.reshape(1800, 8).T) - np.eye(8)).max() < 5 / math.sqrt(1800)


def test_every_second_image_is_seen_from_another_side():
    image, rng = photo(), np.random.default_rng(0)
    changed = sum(not np.array_equal(random_perspective(image, rng, 0.6), image) for _ in range(400))
    assert 150 < changed < 250
    generators = [np.random.default_rng(3), np.random.default_rng(3)]
    never, always = (random_perspective(image, rng, 0.6, p) for rng, p in zip(generators, (0.0, 1.0), strict=True))
    assert np.array_equal(never, image) and not np.array_equal(always, image)
    assert generators[0].random() == generators[1].random(), "as many numbers either way"


@pytest.mark.parametrize("full", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 2), (3, 3)])
def test_images_of_a_few_pixels_stay_images(full):
    image = np.full((*full, 3), 9, np.uint8)
    for seed in range(30):
        for result in (
            random_perspective(image, np.random.default_rng(seed), 1.0, 1.0),
            random_rotation(image, np.random.default_rng(seed), 180.0),
        ):
            assert result.shape == image.shape and set(np.unique(result)) <= {0, 9}


def test_quarter_turns_are_exact_and_anticlockwise():
    square = photo(40, 40)
    for quarters in range(-3, 4):
        assert np.array_equal(rotate(square, 90 * quarters), np.rot90(square, quarters))
    image = photo()
    assert np.array_equal(rotate(image, 180), image[::-1, ::-1]) and np.array_equal(rotate(image, -360), image)


@pytest.mark.parametrize("degrees", [-37.5, 4.0, 13.3, 120.0])
def test_rotation_takes_the_nearest_pixel(degrees):
    image = photo()
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    turn = math.radians(degrees)
    # An image's y points down: what appears at an angle anticlockwise of a pixel came from clockwise of it.
    dx, dy = x - width / 2, y - height / 2
    u = np.floor(math.cos(turn) * dx - math.sin(turn) * dy + width / 2).astype(int)
    v = np.floor(math.sin(turn) * dx + math.cos(turn) * dy + height / 2).astype(int)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    expected = np.where(inside[..., None], image[v.clip(0, height - 1), u.clip(0, width - 1)], 0)
    different = (rotate(image, degrees) != expected).any(-1)
    assert different.mean() < 0.002 and 0.02 < (~inside).mean() < 0.5


def test_angles_are_drawn_evenly_from_both_sides(monkeypatch):
    angles = []
    monkeypatch.setattr(warps, "rotate", lambda image, degrees: angles.append(degrees))
    rng = np.random.default_rng(0)
    for _ in range(2000):
        random_rotation(photo(2, 2), rng, 25.0)
    assert -25 <= min(angles) < -24.7 and 24.7 < max(angles) <= 25
    assert abs(np.mean(angles)) < 5 * 50 / math.sqrt(12 * 2000)
    assert abs(np.mean(np.abs(angles)) - 12.5) < 5 * 25 / math.sqrt(12 * 2000)


def test_results_are_the_callers_own():
    image = photo()
    for result in (perspective(image, np.array(ENDS[0])), rotate(image, 10.0)):
        assert result.flags.writeable and result.flags.c_contiguous and result.dtype == np.uint8
    assert np.array_equal(image, photo()), "the input is left alone"
