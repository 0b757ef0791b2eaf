"""EfficientNet-B0 to B7 of torchvision's shape, cut after any stage (Tan and Le, 2019).

Module names follow torchvision, whose modules are nested Sequentials: `features_2_0/block_1_0` is the convolution (0;
its normalisation is 1) of the second part of the first block of `features.2`.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import BatchNorm, Conv, DepthwiseConv, recomputed

# Of B0, stages 1 to 7: expansion, kernel, stride, channels, blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, HEAD = 32, 1280
LAST = len(STAGES) + 1


class SqueezeExcitation(nn.Module):
    """Weighs channels by the mean of the map (Hu et al., 2018)."""

    squeezed: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to the same shape."""
        mean = jnp.mean(x.astype(jnp.float32), (1, 2), keepdims=True)
        hidden = nn.silu(Conv(self.squeezed, 1, use_bias=True, dtype=self.dtype, name="fc1")(mean))
        gate = nn.sigmoid(Conv(x.shape[-1], 1, use_bias=True, dtype=self.dtype, name="fc2")(hidden))
        return x * jnp.broadcast_to(gate, x.shape)


class MBConv(nn.Module):
    """Expand, filter each channel, weigh the channels, project; beside a shortcut where the shape stays.

    Attributes:
      norm: makes a normalisation, given its `name`.
      drop: share of images whose block is skipped in training, where there is a shortcut (Huang et al., 2016).
      deterministic: skip no block.
    """

    expansion: int
    size: int
    stride: int
    features: int
    drop: float
    deterministic: bool
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
        inside = x.shape[-1]
        hidden = rounded(inside * self.expansion)
        parts: list[nn.Module] = [Conv(hidden, 1, dtype=self.dtype, name="block_0_0")] if hidden != inside else []
        depthwise = DepthwiseConv(self.size, self.stride, self.dtype, name=f"block_{len(parts)}_0")
        y = x
        for i, part in enumerate([*parts, depthwise]):
            y = nn.silu(self.norm(name=f"block_{i}_1")(part(y)))
        i = len(parts) + 1
        y = SqueezeExcitation(max(1, inside // 4), self.dtype, name=f"block_{i}")(y)
        y = Conv(self.features, 1, dtype=self.dtype, name=f"block_{i + 1}_0")(y)
        y = self.norm(name=f"block_{i + 1}_1")(y)
        if self.stride != 1 or inside != self.features:
            return y
        return x + nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=self.deterministic)(y)


class PartlyFrozen:
    """What both kinds of EfficientNet do with the parts that are frozen, stages or blocks."""

    frozen_until: int | None
    frozen_bn: str
    dtype: Any
    momentum: float
    eps: float

    def _norm(self, average: bool) -> Callable[..., nn.Module]:
        return partial(BatchNorm, average or self.frozen_bn == "all", self.dtype, self.momentum, self.eps)

    def _deterministic(self, number: int, train: bool) -> bool:
        """Whether a part runs as in evaluation."""
        frozen = self.frozen_until is not None and number <= self.frozen_until
        return not train or (frozen and self.frozen_bn != "update")


class EfficientNet(PartlyFrozen, nn.Module):
    """A stem, seven stages of inverted bottlenecks and a last 1x1 convolution.

    Attributes:
      width, depth: factors on the channels and blocks of B0.
      eps, momentum: of the batch normalisations, as in `BatchNorm`.
      drop_path: share of images that skip the last block in training; it rises linearly from 0 at the first one.
      cut: the last of torchvision's `features` that runs, 0 (the stem) to 8 (the last convolution).
      frozen_until: the last frozen one, or None; see `frozen_paths`. CosPlace freezes up to 4.
      frozen_bn: "update" keeps updating BatchNorm statistics (and skipping blocks) in frozen stages, as CosPlace does;
        "fixed" runs those stages as in evaluation; "all" also runs BatchNorm of the others on its running averages.
      remat: recompute each block in the backward pass instead of storing its inner activations; a name of
        `layers.KEPT` says what of them is stored all the same.
      dtype: type of the computation; parameters and statistics stay float32.
    """

    width: float = 1.0
    depth: float = 1.0
    eps: float = 1e-5
    momentum: float = 0.9
    drop_path: float = 0.2
    cut: int = LAST
    frozen_until: int | None = None
    frozen_bn: str = "update"
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, H / 32, W / 32, C]` in `dtype`, C = 1280 in an uncut B0.

        In training it draws from the generator "dropout".

        Raises:
          ValueError: for a stage that does not exist, or an unknown `frozen_bn`.
        """
        self._check()
        x = images
        for number in range(self.cut + 1):
            run = self._stage if 0 < number < LAST else self._convolution
            x = run(number, x, train)
        return Features(x)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of frozen stages."""
        self._check()
        return tuple(f"features_{i}_" for i in range(-1 if self.frozen_until is None else self.frozen_until + 1))

    def _convolution(self, number: int, x: jax.Array, train: bool) -> jax.Array:
        features, size, stride = (rounded(STEM * self.width), 3, 2) if number == 0 else (4 * x.shape[-1], 1, 1)
        name = f"features_{number}"
        x = Conv(features, size, stride, size // 2, dtype=self.dtype, name=f"{name}_0")(x)
        return nn.silu(self._norm(self._deterministic(number, train))(name=f"{name}_1")(x))

    def _stage(self, number: int, x: jax.Array, train: bool) -> jax.Array:
        block = recomputed(MBConv, self.remat)
        counts = [ceil(blocks * self.depth) for *_, blocks in STAGES]
        before, deterministic = sum(counts[: number - 1]), self._deterministic(number, train)
        expansion, size, stride, features, _ = STAGES[number - 1]
        for i in range(counts[number - 1]):
            x = block(
                expansion,
                size,
                stride if i == 0 else 1,
                rounded(features * self.width),
                self.drop_path * (before + i) / sum(counts),
                deterministic,
                self._norm(deterministic),
                self.dtype,
                name=f"features_{number}_{i}",
            )(x)
        return x

    def _check(self) -> None:
        if self.cut not in range(LAST + 1):
            raise ValueError(f"cut={self.cut!r} is not a stage of EfficientNet; there are 0 to {LAST}")
        if self.frozen_until is not None and self.frozen_until not in range(self.cut + 1):
            raise ValueError(
                f"frozen_until={self.frozen_until!r} is not a stage up to the cut; there are 0 to {self.cut}"
            )
        check_frozen_bn(self.frozen_bn)


def check_frozen_bn(choice: str) -> None:
    """Raises ValueError for an unknown `frozen_bn`."""
    choices = ["update", "fixed", "all"]
    if choice not in choices:
        raise ValueError(f"frozen_bn={choice!r}: there are {choices}")


def rounded(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth too few."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
