"""GeoCLIP: images and coordinates embedded side by side (Vivanco Cepeda, Nayak and Shah, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.layers import PRECISE, Linear, l2_normalise
from jaxvpr.models.positions.codings import Coding
from jaxvpr.models.positions.gallery import Filled, Gallery

# So many coordinates are encoded at a time.
PART = 8192


class Capsule(nn.Module):
    """Random Fourier features of one scale and a perceptron of three hidden layers behind them.

    Attributes:
      sigma: standard deviation of the frequencies, in turns over a unit of what is encoded. They do not train and are
        saved with the weights, as statistics are.
      features: projections, each with a cosine and a sine.
      width: of the hidden layers. dim: of the result.
    """

    sigma: float
    features: int = 256
    width: int = 1024
    dim: int = 512

    @nn.compact
    def __call__(self, projected: jax.Array) -> jax.Array:
        """Projected coordinates `[N, 2]` to `[N, dim]`."""

        def drawn() -> jax.Array:
            return self.sigma * jax.random.normal(self.make_rng("params"), (self.features, 2), jnp.float32)

        frequencies = self.variable("batch_stats", "frequencies", drawn)
        # In this order, which rounds as the original does: an angle may be thousands of turns.
        angles = jnp.matmul(2 * np.pi * projected, frequencies.value.T, precision=PRECISE)
        x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
        for number in range(3):
            x = nn.relu(Linear(self.width, name=f"hidden_{number}")(x))
        return Linear(self.dim, name="output")(x)


class LocationEncoder(nn.Module):
    """The sum of a capsule for each of several scales.

    Attributes:
      sigmas: of the scales; the other attributes are those of `Capsule`.
    """

    sigmas: tuple[float, ...] = (1.0, 16.0, 256.0)
    features: int = 256
    width: int = 1024
    dim: int = 512

    @nn.compact
    def __call__(self, projected: jax.Array) -> jax.Array:
        """Projected coordinates `[N, 2]` to `[N, dim]`, of any length."""
        capsules = [
            Capsule(sigma, self.features, self.width, self.dim, name=f"scale_{number}")(projected)
            for number, sigma in enumerate(self.sigmas)
        ]
        return sum(capsules[1:], capsules[0])


class ImageHead(nn.Module):
    """Two linear layers with ReLU between them, from a descriptor to an embedding."""

    hidden: int
    dim: int

    @nn.compact
    def __call__(self, descriptors: jax.Array) -> jax.Array:
        """`[B, D]` to `[B, dim]`; `hidden` 0 is D."""
        x = descriptors.astype(jnp.float32)
        return Linear(self.dim, name="output")(nn.relu(Linear(self.hidden or x.shape[-1], name="hidden")(x)))


class GeoCLIP(nn.Module):
    """Answers with the coordinates of a gallery whose embedding is nearest to the image's.

    The gallery, normalised float32 [size, 2], is a statistic of the model, so that it is saved with the weights;
    whoever trains or imports fills it (`with_gallery`). GeoCLIP's own has 100,000 coordinates of the globe, of which
    float32 keeps 1.2 m; of a city it keeps a millimetre.

    Attributes:
      coding: what its numbers mean.
      hidden: of the image's head; 0: as the descriptor.
      sigmas, features, width: of the location encoder.
      temperature: where the learned one starts from.
      source: where builders take the gallery from; nothing here reads it.
    """

    coding: Gallery
    hidden: int = 0
    sigmas: tuple[float, ...] = (1.0, 16.0, 256.0)
    features: int = 256
    width: int = 1024
    temperature: float = 0.07
    source: str = ""

    def setup(self) -> None:
        """The parts, of which `image` is the original's `image_encoder.mlp`."""
        dim = self.coding.dim
        self.image = ImageHead(self.hidden, dim)
        self.location = LocationEncoder(self.sigmas, self.features, self.width, dim)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(-np.log(self.temperature)), ())
        self.gallery = self.variable("batch_stats", "gallery", jnp.zeros, (self.coding.size, 2), jnp.float32)

    def __call__(self, descriptors: jax.Array, train: bool = False) -> jax.Array:
        """`[B, D]` to `[B, dim]`: embeddings of unit length times the learned inverse of the temperature.

        Their products with the embeddings of coordinates are logits.
        """
        if self.is_initializing():
            self.location(jnp.zeros((1, 2)))
        return jnp.exp(self.logit_scale) * l2_normalise(self.image(descriptors))

    def locations(self, at: jax.Array) -> jax.Array:
        """Embeddings of unit length, `[N, dim]`, of normalised positions `[N, 2]`."""
        return self.encoded(self.coding.encode(at))

    def encoded(self, projected: jax.Array) -> jax.Array:
        """As `locations`, of positions that the coding's `encode` has projected."""
        return l2_normalise(self.location(projected))


def with_gallery(variables: Mapping[str, Any], at: np.ndarray) -> dict[str, Any]:
    """The variables of a model whose head is a `GeoCLIP`, with a gallery of normalised positions [size, 2]."""
    stats = variables["batch_stats"]
    head = {**stats["position"], "gallery": np.asarray(at, np.float32)}
    return {**variables, "batch_stats": {**stats, "position": head}}


def coding_with(head: Any, variables: Mapping[str, Any]) -> Coding:
    """What a head's numbers mean under these variables of its model: its coding, which a gallery's weights complete.

    Args:
      head: `PlaceModel.position`.
      variables: of the model, `{"params", "batch_stats"}`.

    Raises:
      ValueError: for a gallery without coordinates, or that nobody filled.
    """
    if not isinstance(head, GeoCLIP):
        return head.coding
    own = {collection: variables[collection]["position"] for collection in ("params", "batch_stats")}
    at = np.asarray(own["batch_stats"]["gallery"], np.float64)
    if not len(at) or not at.any():
        raise ValueError("the gallery of coordinates is empty: train the head, or name one (position_options.source)")
    encode = _encoding(head)
    projected = head.coding.encode(at).astype(np.float32)
    # Each part is of one size, so that it is one program; the last is filled up with the first coordinates.
    part = min(PART, len(at))
    starts = range(0, len(at), part)
    rows = np.resize(np.arange(len(at)), (len(starts), part))
    embeddings = np.concatenate([np.asarray(encode(own, projected[some])) for some in rows])[: len(at)]
    return Filled(head.coding, at, embeddings)


@lru_cache(maxsize=16)
def _encoding(head: GeoCLIP) -> Callable[..., jax.Array]:
    # The same object for equal heads, so that it is compiled once.
    return jax.jit(partial(head.apply, method="encoded"))
