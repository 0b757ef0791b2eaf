"""Position embeddings carried to other grids: PyTorch's bicubic interpolation, with and without its guard."""

import numpy as np
import pytest

from jaxvpr.models.backbones.positions import bicubic, grid_of, interpolate, square_side

EMBEDDING = np.random.default_rng(0).normal(size=(1, 1 + 36, 5)).astype(np.float32)


@pytest.mark.torch
@pytest.mark.parametrize("grid", [(6, 9), (3, 4), (16, 23), (1, 6), (7, 5)])
@pytest.mark.parametrize(("offset", "antialias"), [(0.1, False), (0.0, False), (0.0, True)])
def test_interpolation_is_torchs(grid, offset, antialias):
    import torch

    cells = torch.from_numpy(EMBEDDING[:, 1:]).reshape(1, 6, 6, 5).permute(0, 3, 1, 2)
    where = {"scale_factor": tuple((n + offset) / 6 for n in grid)} if offset else {"size": grid}
    theirs = torch.nn.functional.interpolate(cells, mode="bicubic", antialias=antialias, **where)
    got = interpolate(EMBEDDING, grid, offset, antialias)
    assert got.shape == (1, 1 + grid[0] * grid[1], 5)
    np.testing.assert_array_equal(got[:, 0], EMBEDDING[:, 0])
    np.testing.assert_allclose(got[0, 1:].reshape(*grid, 5), theirs[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_the_guard_moves_the_points_that_are_read():
    without, guarded = (interpolate(EMBEDDING, (6, 9), offset) for offset in (0.0, 0.1))
    assert np.abs(without - guarded).max() > 1e-3


def test_the_embeddings_own_grid_is_left_as_it_is():
    np.testing.assert_array_equal(interpolate(EMBEDDING, (6, 6), 0.1), EMBEDDING)


def test_weights_by_hand():
    # Halfway between two points Keys' filter with a = -0.75 has the weights -3/32, 19/32, 19/32, -3/32.
    np.testing.assert_allclose(bicubic(8, 4, 2.0)[1, 1:5], [-3 / 32, 19 / 32, 19 / 32, -3 / 32], atol=1e-7)
    # Before the first point the border repeats: the two weights beyond it are the first point's own.
    np.testing.assert_allclose(bicubic(8, 4, 2.0)[0, :3], [16 / 32, 19 / 32, -3 / 32], atol=1e-7)
    np.testing.assert_allclose(bicubic(5, 7, 5 / 7.1).sum(1), 1, atol=1e-6)


def test_sides_that_are_no_multiple_of_the_patch_name_the_nearest():
    assert grid_of(322, 224, 14) == (23, 16)
    with pytest.raises(ValueError, match=r"\b320x224\b.*\b14\b.*\b308x224\b.*\b322x224\b"):
        grid_of(320, 224, 14)
    with pytest.raises(ValueError, match=r"\b9x9\b\D*\b14\D*\b14x14\b(?!.*\dx)"):
        grid_of(9, 9, 14)


def test_embeddings_of_no_square_grid_are_an_error():
    with pytest.raises(ValueError, match=r"\b200 position.*\b14x14\b"):
        square_side(200)
