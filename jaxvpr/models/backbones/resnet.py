"""Residual networks of torchvision's shape, cut after any stage (He et al., 2016).

Module names follow torchvision: `conv1`, `bn1`, `layer1_0/conv1`, `layer1_0/downsample_0`, ... As there, a bottleneck
strides in its 3x3 convolution.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import BatchNorm, Conv, max_pool, recomputed


class Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18 and 34)."""

    width: int
    stride: int
    average: bool
    dtype: Any
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, width]`."""
        y = Conv(self.width, 3, self.stride, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(self.average, self.dtype, name="bn1")(y))
        y = Conv(self.width, 3, 1, 1, dtype=self.dtype, name="conv2")(y)
        y = BatchNorm(self.average, self.dtype, name="bn2")(y)
        return nn.relu(y + _shortcut(self, x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (ResNet-50 and deeper)."""

    width: int
    stride: int
    average: bool
    dtype: Any
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, 4 width]`."""
        y = Conv(self.width, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(self.average, self.dtype, name="bn1")(y))
        y = Conv(self.width, 3, self.stride, 1, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(BatchNorm(self.average, self.dtype, name="bn2")(y))
        y = Conv(4 * self.width, 1, dtype=self.dtype, name="conv3")(y)
        y = BatchNorm(self.average, self.dtype, name="bn3")(y)
        return nn.relu(y + _shortcut(self, x))


def _shortcut(block: Basic | Bottleneck, x: jax.Array) -> jax.Array:
    """`x` itself, or projected where the block changes its shape; called inside the block's compact method."""
    features = block.expansion * block.width
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = Conv(features, 1, block.stride, dtype=block.dtype, name="downsample_0")(x)
    return BatchNorm(block.average, block.dtype, name="downsample_1")(x)


class ResNet(nn.Module):
    """A stem and up to four (or more) stages of residual blocks.

    Attributes:
      sizes: blocks a stage; `widths`: their channels (before a bottleneck's expansion by 4).
      bottleneck: which kind of block.
      stem: "torchvision" is a 7x7 convolution of stride 2 and a 3x3 max pooling of stride 2; "small" a 3x3 convolution
        of stride 2 alone, for images of some 64 to 128 pixels.
      cut: the last stage, "layer1" to "layer4".
      frozen_until: the last frozen stage ("stem", "layer1", ...), or None; see `frozen_paths`.
      frozen_bn: "update" keeps updating BatchNorm statistics in frozen stages, as the originals of CosPlace,
        EigenPlaces, Deep VG and MixVPR do; "fixed" runs those stages on their running averages, "all" every stage.
      remat: recompute each block in the backward pass instead of storing its inner activations; a name of
        `layers.KEPT` says what of them is stored all the same.
      dtype: type of the computation; parameters and statistics stay float32.
    """

    sizes: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    stem: str = "torchvision"
    cut: str = "layer4"
    frozen_until: str | None = None
    frozen_bn: str = "update"
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, h, w, C]` in `dtype`.

        Raises:
          ValueError: for an unknown stem, stage or `frozen_bn`.
        """
        stages, frozen = self._stages()
        kind = Bottleneck if self.bottleneck else Basic
        block = recomputed(kind, self.remat)
        x = self._stem(images, self._average("stem" in frozen, train))
        for number, stage in enumerate(stages):
            average = self._average(stage in frozen, train)
            for i in range(self.sizes[number]):
                stride = 2 if number > 0 and i == 0 else 1
                x = block(self.widths[number], stride, average, self.dtype, name=f"{stage}_{i}")(x)
        return Features(x)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of frozen stages."""
        _, frozen = self._stages()
        return tuple("(conv1|bn1)/" if stage == "stem" else f"{stage}_" for stage in sorted(frozen))

    def _stem(self, x: jax.Array, average: bool) -> jax.Array:
        torchvision = self.stem == "torchvision"
        size, padding = (7, 3) if torchvision else (3, 1)
        x = Conv(self.widths[0], size, 2, padding, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(average, self.dtype, name="bn1")(x))
        return max_pool(x, 3, 2, 1) if torchvision else x

    def _average(self, frozen: bool, train: bool) -> bool:
        return not train or self.frozen_bn == "all" or (frozen and self.frozen_bn == "fixed")

    def _stages(self) -> tuple[list[str], set[str]]:
        """The stages to run, and those of them (and the stem) that are frozen."""
        if len(self.sizes) != len(self.widths):
            raise ValueError(f"{len(self.sizes)} stage sizes but {len(self.widths)} widths")
        stages = [f"layer{i + 1}" for i in range(len(self.sizes))]
        _one_of("cut", self.cut, stages)
        stages = stages[: stages.index(self.cut) + 1]
        _one_of("stem", self.stem, ["torchvision", "small"])
        _one_of("frozen_bn", self.frozen_bn, ["update", "fixed", "all"])
        if self.frozen_until is None:
            return stages, set()
        order = ["stem", *stages]
        _one_of("frozen_until", self.frozen_until, order)
        return stages, set(order[: order.index(self.frozen_until) + 1])


def _one_of(what: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        raise ValueError(f"{what}={value!r}: there are {choices}")
