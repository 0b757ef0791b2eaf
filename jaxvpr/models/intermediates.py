"""Features that a model computes on the way to its descriptors, taken from outside.

A classifier of domains needs the descriptors or the backbone's maps of whatever a method embeds: a batch of images, or
triplets of them. No method should have to return them for that, so the calls of the modules are intercepted.
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


class NotComputed(ValueError):
    """No model computed the wanted features in training mode."""


def intermediates(run: Callable[[], Any], at: str) -> tuple[Any, jax.Array]:
    """Runs what embeds images with one `PlaceModel` in training mode, and returns its features too.

    A model in evaluation mode that runs beside it, such as a teacher, is left out.

    Args:
      run: () -> anything. May be traced.
      at: "descriptor" for what the model returns, "map" for the mean of the backbone's map.

    Returns:
      What `run` returns, and float32 [images, features] of all images in their order.

    Raises:
      ValueError: for another `at`. NotComputed: where no model computed it in training mode.
    """
    if at not in AT:
        raise ValueError(f"there are no intermediates {at!r}; there are {AT}")
    found: list[jax.Array] = []

    def intercept(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        trains = kwargs.get("train", args[1] if len(args) > 1 else False)
        if trains and _wanted(context.module, context.method_name, at):
            found.append(_rows(result))
        return result

    with nn.intercept_methods(intercept):
        returned = run()
    if not found:
        raise NotComputed(f"no model made a {at} here")
    return returned, jnp.concatenate(found)


def _wanted(module: nn.Module, method: str, at: str) -> bool:
    if at == "map":
        return module.name == "backbone" and method == "__call__"
    return isinstance(module, PlaceModel) and method in DESCRIBING


def _rows(result: Features | jax.Array) -> jax.Array:
    if isinstance(result, Features):
        return jnp.mean(result.map, (1, 2), jnp.float32)
    # Where regions are described, the first is the whole image.
    return (result if result.ndim == 2 else result[:, 0]).astype(jnp.float32)
