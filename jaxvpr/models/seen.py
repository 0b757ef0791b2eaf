"""What a model makes of images on its way to their descriptors, for whoever looks over its shoulder.

A classifier of domains looks at descriptors or at the backbone's maps of whatever a method embeds, a batch of images or
triplets of them, and no method should have to know. So it is not the method that hands them out: the modules' calls
are watched while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.place_model import PlaceModel

AT = ("descriptor", "map")
DESCRIBING = ("__call__", "regions")  # the methods of a PlaceModel


class Unseen(ValueError):
    """No model made, in training mode, what was to be seen."""


def seen(run: Callable[[], Any], at: str) -> tuple[Any, jax.Array]:
    """Runs what embeds images with one `PlaceModel` in training mode, and watches the model.

    A model that runs beside it in evaluation mode, such as a teacher, is not watched.

    Args:
      run: () -> anything. May be traced.
      at: "descriptor" for what the model gives, "map" for the mean of the backbone's map.

    Returns:
      What `run` returns, and float32 [images, features] of all images in their order.

    Raises:
      ValueError: for another `at`. Unseen: where no model made it in training mode.
    """
    if at not in AT:
        raise ValueError(f"there is nothing to see at {at!r}; there are {AT}")
    found: list[jax.Array] = []

    def watch(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        trains = kwargs.get("train", args[1] if len(args) > 1 else False)
        if trains and _is_it(context.module, context.method_name, at):
            found.append(_rows(result))
        return result

    with nn.intercept_methods(watch):
        returned = run()
    if not found:
        raise Unseen(f"no model made a {at} here")
    return returned, jnp.concatenate(found)


def _is_it(module: nn.Module, method: str, at: str) -> bool:
    if at == "map":
        return module.name == "backbone" and method == "__call__"
    return isinstance(module, PlaceModel) and method in DESCRIBING


def _rows(result: Features | jax.Array) -> jax.Array:
    if isinstance(result, Features):
        return jnp.mean(result.map, (1, 2), jnp.float32)
    # Of an image described in parts the first is the whole.
    return (result if result.ndim == 2 else result[:, 0]).astype(jnp.float32)
