"""The model that every objective trains and every evaluation runs: images in, descriptors out."""

from contextlib import AbstractContextManager

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import frozen_in, l2_normalise, normalised_in_groups

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# What products (convolutions too) of float32 numbers are computed in, by JAX's names. A CPU computes float32 in any
# case. NVIDIA GPUs: float32; TF32, whose mantissa of 10 bits is that of float16; TF32. TPUs: six, three, or one pass in
# bfloat16. The last rounds the factors of matrix products to bfloat16 on both and adds up in float32; convolutions are
# at "default" then.
PRECISIONS = ("highest", "high", "default", "BF16_BF16_F32")


class PlaceModel(nn.Module):
    """A backbone and an aggregator, with the normalisation of images before and of descriptors after them.

    Attributes:
      backbone: module, `(images [B, H, W, 3], train) -> Features`.
      aggregator: module, `(Features, train) -> [B, D]`.
      mean, std: of the three colours of images in [0, 1], as the backbone's weights expect them.
      l2_after: descriptors are of unit length. Without, they are as the aggregator makes them: some originals rank
        those.
      precision, head_precision: of the products of float32 numbers in backbone and aggregator, one of `PRECISIONS`;
        those of bfloat16 numbers are what they are.
      train_precision: of both in training, where that is another; empty for the same.
      batch_norm_images: in training, BatchNorm takes the batch in groups of so many images; 0: whole.
    """

    backbone: nn.Module
    aggregator: nn.Module
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    l2_after: bool = True
    precision: str = "highest"
    head_precision: str = "highest"
    train_precision: str = ""
    batch_norm_images: int = 0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Describes images.

        Args:
          images: [B, H, W, 3] RGB in [0, 255], uint8 or floating point.
          train: normalise by the batch and update `batch_stats` (a mutable collection then).

        Returns:
          float32 [B, D], of unit length with `l2_after`.

        Raises:
          ValueError: for images of another shape, or too small for the backbone.
        """
        features = self.features(images, train)
        with self._products(self.head_precision, train), normalised_in_groups(self.batch_norm_images):
            return self._finished(self.aggregator(features, train))

    def pooled(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Features of the backbone alone, for classifiers: its token, else the mean of its map.

        Arguments and errors are those of a call. Returns float32 [B, C], of any length.
        """
        features = self.features(images, train)
        if features.token is None:
            return jnp.mean(features.map, (1, 2), jnp.float32)
        return features.token.astype(jnp.float32)

    def regions(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Describes images and parts of them: the full image, halves and quarters, as `aggregators.vlad.REGIONS`.

        Arguments and errors are those of a call. Returns float32 [B, 9, D]; the first is that of a call.

        Raises:
          ValueError: for an aggregator that has no regions; `netvlad` has.
        """
        if not hasattr(self.aggregator, "regions"):
            raise ValueError(f"the aggregator {type(self.aggregator).__name__} has no regions; use netvlad")
        features = self.features(images, train)
        with self._products(self.head_precision, train), normalised_in_groups(self.batch_norm_images):
            return self._finished(self.aggregator.regions(features, train))

    def features(self, images: jax.Array, train: bool = False) -> Features:
        """What the backbone gives to the aggregator. Arguments and errors are those of a call."""
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images of shape {images.shape}, expected [B, H, W, 3]")
        with self._products(self.precision, train), normalised_in_groups(self.batch_norm_images):
            features = self.backbone(normalise(images, self.mean, self.std), train)
        if 0 in features.map.shape:
            raise ValueError(f"images of {images.shape[1]}x{images.shape[2]} pixels are too small for this backbone")
        return features

    def frozen_paths(self) -> tuple[str, ...]:
        """Regular expressions of the parameter paths that do not train under the options of the two parts.

        They name frozen parameters and those that nothing reads. No gradient is stopped for them: an
        optimiser must leave them out altogether, or its weight decay would shrink them.
        """
        return tuple(f"^{path}" for part in ("backbone", "aggregator") for path in frozen_in(getattr(self, part), part))

    def _finished(self, descriptors: jax.Array) -> jax.Array:
        return l2_normalise(descriptors) if self.l2_after else descriptors

    def _products(self, own: str, train: bool) -> AbstractContextManager[None]:
        """Within it, what is traced multiplies at a precision, forward and backward, unless it names one itself."""
        return jax.default_matmul_precision((train and self.train_precision) or own)


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Images [B, H, W, 3] in [0, 255] as float32 `(images / 255 - mean) / std`."""
    x = images.astype(jnp.float32) / 255
    centre = jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)
    spread = jnp.asarray(std, jnp.float32).reshape(1, 1, 1, -1)
    return (x - centre) / spread
