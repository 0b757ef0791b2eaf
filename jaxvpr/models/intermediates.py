"""Intermediate features of a model, by interception of the calls of its modules.

A domain classifier needs the descriptors or maps of all images that a method embeds. So no method has to return them.
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
    """Runs a function that embeds images with one `PlaceModel` in training mode, and returns the features too.

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
        raise ValueError(f"unknown intermediates {at!r}; there are {AT}")
    features: list[jax.Array] = []

    def intercept(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        trains = kwargs.get("train", args[1] if len(args) > 1 else False)
        if trains and _wanted(context.module, context.method_name, at):
            features.append(_rows(result))
        return result

    with nn.intercept_methods(intercept):
        returned = run()
    if not features:
        raise NotComputed(f"no model computed a {at} in training mode")
    return returned, jnp.concatenate(features)


def _wanted(module: nn.Module, method: str, at: str) -> bool:
    if at == "map":
        return module.name == "backbone" and method == "__call__"
    return isinstance(module, PlaceModel) and method in DESCRIBING


def _rows(result: Features | jax.Array) -> jax.Array:
    if isinstance(result, Features):
        return jnp.mean(result.map, tuple(range(1, result.map.ndim - 1)), jnp.float32)
    # The first of several regions is the full image.
    return (result if result.ndim == 2 else result[:, 0]).astype(jnp.float32)
