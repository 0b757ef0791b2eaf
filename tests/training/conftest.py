"""Whole training steps run through optax, which mixes integer step counts with floats: strict promotion rests here."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
