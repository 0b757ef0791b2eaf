"""ReGeo's heads: the order of the regression's layers by hand, its degrees, and the tokens of the location head."""

from functools import partial

import jax
import numpy as np
import pytest
from random_variables import random_variables

from jaxvpr.models import AGGREGATORS, POSITIONS, Features
from jaxvpr.models.positions import located

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
GLOBE = (-90, -180, 90, 180)
OPTIONS = {"area": GLOBE, "bearing": False, "ending": "tanh", "widths": (6, 3), "norm": True, "activation": "relu"}


def test_the_regression_by_hand():
    """Linear, norm, activation twice, then tanh times 90 and 180."""
    head, descriptors = POSITIONS["direct"](**OPTIONS), np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    variables = random_variables(head, descriptors)
    raw = np.asarray(jit(head.apply)(variables, descriptors))
    x, params = descriptors.astype(float), variables["params"]
    for number in range(2):
        layer, norm = params[f"hidden_{number}"], params[f"norm_{number}"]
        x = x @ layer["kernel"] + layer["bias"]
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = np.maximum(x * norm["scale"] + norm["bias"], 0)
    x = np.tanh(x @ params["output"]["kernel"] + params["output"]["bias"])
    answers = located(head.coding, raw)
    np.testing.assert_allclose(answers.north, 90 * x[:, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(answers.east, 180 * x[:, 1], rtol=1e-4, atol=1e-4)
    assert np.isnan(answers.bearing).all() and np.ptp(answers.north) > 1


def test_dropout_stands_before_the_norm():
    """A norm after it gives every answer of one kept number the same length; without a norm numbers stay apart."""
    head = POSITIONS["direct"](**{**OPTIONS, "dropout": 0.999})
    descriptors = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    variables = random_variables(head, descriptors)
    apply = jit(partial(head.apply, train=True))
    raw = apply(variables, descriptors, rngs={"dropout": jax.random.key(0)})
    # All is dropped: a norm of zeros is its bias.
    np.testing.assert_allclose(raw, np.broadcast_to(raw[:1], raw.shape), atol=1e-6)
    assert not np.allclose(jit(head.apply)(variables, descriptors), raw)


@pytest.mark.parametrize("length", [8, 5, 0])
def test_the_location_head_sees_cells_and_a_token_of_their_length(length):
    head, rng = AGGREGATORS["regeo"](dim=7, layers=1, heads=2, hidden=8), np.random.default_rng(1)
    cells = rng.normal(size=(2, 2, 3, 8)).astype(np.float32)
    token = rng.normal(size=(2, length)).astype(np.float32) if length else None
    variables = random_variables(head, Features(cells, token))
    apply = jit(head.apply)
    found = apply(variables, Features(cells, token))
    assert found.shape == (2, 7) and np.abs(found).max() < 1
    assert np.abs(found - apply(variables, Features(cells + 1, token))).max() > 1e-4
    if token is not None:
        other = apply(variables, Features(cells, token[:, ::-1]))
        assert (np.abs(found - other).max() > 1e-4) == (length == 8)
    # Cells have no positions of their own.
    np.testing.assert_allclose(found, apply(variables, Features(cells[:, ::-1], token)), atol=1e-5)
