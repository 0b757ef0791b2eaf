"""Variables for a model without compiling its initialisation, which costs more than the tests that need them."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

START = {"scale": 1, "var": 1, "p": 3, "bias": 0, "mean": 0, "gamma": 1, "explained_variance_": 1}


def random_variables(model, images, seed=0):
    """Kernels drawn at Kaiming's spread; what `START` names where an initialisation starts it; the rest near zero."""
    rng = np.random.default_rng(seed)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), images))

    def draw(name, shape):
        if name in START:
            return np.full(shape, START[name], np.float32)
        spread = (2 / np.prod(shape[:-1])) ** 0.5 if name == "kernel" else 0.5
        return np.asarray(rng.normal(size=shape) * spread, np.float32)

    return unflatten_dict({path: draw(path[-1], leaf.shape) for path, leaf in shapes.items()})
