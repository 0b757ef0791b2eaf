"""Heads that answer a position from a descriptor: a multilayer perceptron, with a coding that says what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.layers import LayerNorm, Linear
from jaxvpr.models.positions.cells import Cells
from jaxvpr.models.positions.codings import Coding, Direct, Hypersphere
from jaxvpr.models.positions.coordinates import area
from jaxvpr.models.positions.gallery import Gallery
from jaxvpr.models.positions.geoclip import GeoCLIP
from jaxvpr.models.positions.mixture import Mixture

ACTIVATIONS = {"silu": nn.silu, "relu": nn.relu}


class FourierFeatures(nn.Module):
    """A descriptor, and beside it the sines and cosines of random projections of it (Tancik et al., 2020).

    A perceptron alone learns what changes slowly with its input long before what changes quickly. The projections do
    not train: they are drawn from `seed`, and saved with the weights as a statistic (`batch_stats`) is.

    Attributes:
      count: projections; twice as many numbers are added.
      scale: standard deviation of their frequencies, in turns over a unit of the descriptor. A larger one tells
        nearer descriptors apart, and answers worse for those between what it has learned.
      seed: of the frequencies.
    """

    count: int
    scale: float = 0.1
    seed: int = 0

    @nn.compact
    def __call__(self, descriptors: jax.Array) -> jax.Array:
        """`[B, D]` to `[B, D + 2 count]`."""

        def drawn() -> jax.Array:
            shape = (descriptors.shape[-1], self.count)
            return self.scale * jax.random.normal(jax.random.key(self.seed), shape, jnp.float32)

        frequencies = self.variable("batch_stats", "frequencies", drawn)
        angles = 2 * np.pi * jnp.matmul(descriptors, frequencies.value)
        return jnp.concatenate([descriptors, jnp.sin(angles), jnp.cos(angles)], -1)


class PositionHead(nn.Module):
    """Hidden layers with an activation between them, and the numbers of a coding (Gaza, section 3.1).

    Attributes:
      coding: what the numbers mean.
      hidden: layers before the last; 0: none.
      width: of each; 0: as the descriptor.
      widths: of each, in place of `hidden` and `width`.
      activation: "silu" or "relu".
      norm: a LayerNorm between each hidden layer and its activation.
      dropout: in training, behind each activation, or before each norm (ReGeo's order); from the generator "dropout".
      fourier: random Fourier features of the descriptor beside it; 0: none. `fourier_scale` and `fourier_seed` are
        their `scale` and `seed`.
    """

    coding: Coding
    hidden: int = 2
    width: int = 0
    widths: tuple[int, ...] = ()
    activation: str = "silu"
    norm: bool = False
    dropout: float = 0.0
    fourier: int = 0
    fourier_scale: float = 0.1
    fourier_seed: int = 0

    @nn.compact
    def __call__(self, descriptors: jax.Array, train: bool = False) -> jax.Array:
        """`[B, D]` to raw outputs `[B, coding.numbers]` in float32.

        Raises:
          ValueError: for an activation that does not exist.
        """
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r}; there are {sorted(ACTIVATIONS)}")
        x = descriptors.astype(jnp.float32)
        if self.fourier:
            x = FourierFeatures(self.fourier, self.fourier_scale, self.fourier_seed, name="fourier")(x)
        activate = ACTIVATIONS[self.activation]
        drop = nn.Dropout(self.dropout, deterministic=not train) if self.dropout else lambda x: x
        for number, width in enumerate(self.layer_widths(descriptors.shape[-1])):
            x = Linear(width, name=f"hidden_{number}")(x)
            x = activate(LayerNorm(name=f"norm_{number}")(drop(x))) if self.norm else drop(activate(x))
        return Linear(self.coding.numbers, bias_init=self._start, name="output")(x)

    def layer_widths(self, length: int) -> tuple[int, ...]:
        """Widths of the hidden layers behind descriptors of `length` numbers."""
        return self.widths or (self.width or length,) * self.hidden

    def _start(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The last layer's biases: those that the coding begins with, else zeros."""
        own = getattr(self.coding, "start", None)
        return jnp.zeros(shape, jnp.float32) if own is None else jnp.asarray(own, jnp.float32)


def head(
    name: str, coding: Callable[..., Coding], module: Callable[..., nn.Module] = PositionHead, **options: Any
) -> nn.Module:
    """A head from options as recipes have them, all in one group: those of the coding and those of the module.

    Args:
      name: of the kind, for the message.
      coding, module: their classes.
      options: `area` is (south, west, north, east) or (), with `metres` where it has metres and not degrees.

    Raises:
      ValueError: for an option that does not exist; lists those that do; or one that makes no sense.
    """
    of_coding, of_head = _options(coding), _options(module)
    known = ["area", "metres", *of_coding, *of_head]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"position {name!r} has no option {unknown}; there are {known}")
    box = area(options.get("area", ()), options.get("metres", False))
    meaning = coding(area=box, **{key: options[key] for key in of_coding if key in options})
    return module(meaning, **{key: options[key] for key in of_head if key in options})


def _options(kind: Any) -> list[str]:
    """Names of the fields of a coding or of the head that are options of their own."""
    return [field.name for field in fields(kind) if field.name not in ("area", "coding", "parent", "name")]


CODINGS: dict[str, Callable[..., Coding]] = {
    "direct": Direct,
    "hypersphere": Hypersphere,
    "cells": Cells,
    "mixture": Mixture,
    "geoclip": Gallery,
}
# Those that are no perceptron.
OWN_HEADS: dict[str, Callable[..., nn.Module]] = {"geoclip": GeoCLIP}
POSITIONS: dict[str, Callable[..., nn.Module]] = {
    name: partial(head, name, coding, OWN_HEADS.get(name, PositionHead)) for name, coding in CODINGS.items()
}
