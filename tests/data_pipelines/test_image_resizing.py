"""The resize rules against Pillow and torch, and crops of the middle."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.images import RULES, centre_crop, fit, middle, resize


def photo(height=90, width=130, seed=0):
    """A smooth picture of many colours."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(30, 40), (45, 65), (90, 130), (120, 100), (180, 260)])
@pytest.mark.parametrize("rule", ["pil_bilinear", "pil_bicubic"])
def test_pil_rules_equal_pillow(size, rule):
    filters = {"pil_bilinear": Image.Resampling.BILINEAR, "pil_bicubic": Image.Resampling.BICUBIC}
    expected = np.array(Image.fromarray(photo()).resize((size[1], size[0]), filters[rule]))
    assert np.array_equal(resize(photo(), size, rule), expected)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(30, 40), (44, 61), (180, 261)])
def test_linear_equals_torch(size):
    import torch

    image = torch.from_numpy(photo()).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    assert np.abs(resize(photo(), size, "linear") - expected.numpy()).max() <= 1


def test_area_is_the_mean_of_blocks():
    image = photo(64, 96)
    means = image.reshape(16, 4, 24, 4, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resize(image, (16, 24), "area") - means).max() <= 0.5 + 1e-9
    assert resize(image, (128, 30), "area").shape == (128, 30, 3)


@pytest.mark.parametrize(("shape", "size", "full", "corner"), [
    ((90, 130), (40, 40), (40, 57), (0, 8)),
    ((131, 90), (40, 40), (58, 40), (9, 0)),
    ((90, 130), (45, 32), (45, 65), (0, 16)),
    ((80, 80), (40, 40), (40, 40), (0, 0)),
])  # fmt: skip
def test_the_middle_keeps_the_proportions(shape, size, full, corner):
    whole = resize(photo(*shape), full, "pil_bicubic")
    part = whole[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    np.testing.assert_array_equal(resize(photo(*shape), size, "pil_bicubic_middle"), part)


def test_the_rules_are_listed_where_one_is_unknown():
    with pytest.raises(DataError) as caught:
        resize(photo(), (8, 8), "nearest")
    assert all(rule in str(caught.value) for rule in RULES)


@pytest.mark.parametrize("shape", [(90, 130), (131, 90), (80, 80)])
def test_the_centre_crop(shape):
    image = photo(*shape)
    small = resize(image, tuple(40 * side // min(shape) for side in shape), "pil_bilinear")
    square = centre_crop(small, (40, 40))
    top, left = (small.shape[0] - 40) // 2, (small.shape[1] - 40) // 2
    assert np.array_equal(square, small[top : top + 40, left : left + 40])
    with pytest.raises(ValueError, match=rf"\({small.shape[0] + 1}, 40\)"):
        centre_crop(small, (small.shape[0] + 1, 40))


def test_the_middle_begins_where_torchvision_has_it():
    """int(round(half of what is left over)): Python rounds 0.5 and 2.5 down, 1.5 up."""
    starts = [middle((20 + over, 20), (20, 20))[0].start for over in range(8)]
    assert starts == [0, 0, 1, 2, 2, 2, 3, 4]
    assert middle((480, 640), (476, 630)) == (slice(2, 478), slice(5, 635))


@pytest.mark.parametrize(("crop_from", "whole"), [((31, 45), (31, 45)), ((), (50, 70))])
def test_an_image_is_fitted_by_its_middle(crop_from, whole):
    image = photo(50, 70)
    resized = np.array(Image.fromarray(image).resize(whole[::-1], Image.Resampling.BICUBIC))
    height, width = (whole[0] - 28) // 2, (whole[1] - 42) // 2
    top, left = height + (whole[0] == 31), width + (whole[1] == 45)  # 1.5 is rounded to 2
    assert np.array_equal(fit(image, (28, 42), "pil_bicubic", crop_from), resized[top : top + 28, left : left + 42])
    assert np.array_equal(fit(image, (28, 42), "pil_bicubic"), resize(image, (28, 42), "pil_bicubic"))
