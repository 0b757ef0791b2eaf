"""One device and eight have the same gradients; only a bias whose gradient is zero goes another way under Adam.

The batch normalisation behind the linear layer takes any bias away again, so that its gradient is rounding alone, which
Adam divides by its own size.
"""

import jax
import numpy as np
import pytest

from benchmarks.adam_rounding import FAR, IDLE, on_one_and_all, relative

pytestmark = pytest.mark.long


def test_devices_differ_by_rounding_and_in_the_one_parameter_without_a_gradient(tiny_config):
    config = tiny_config.copy_and_resolve_references().unlock()
    config.val_data = {}
    with jax.numpy_dtype_promotion("standard"):
        one, eight = on_one_and_all(config.lock())
    assert one.losses == pytest.approx(eight.losses, rel=2e-6)

    largest = {path: max(np.abs(step[path]).max() for step in one.gradients) for path in one.gradients[0]}
    noise = largest.pop(IDLE)
    assert noise < 2e-5 and min(largest.values()) > 1e3 * noise
    apart = relative(one.gradients, one.elsewhere)
    assert apart.pop(IDLE) > 0.1, "gradients that are rounding alone"
    assert max(apart.values()) < 1e-4, apart

    far = [path for path, ours in one.weights.items() if np.abs(ours - eight.weights[path]).max() > FAR]
    assert far == [IDLE]
