"""VGG16 up to its last convolution, `features.28` of torchvision (Simonyan and Zisserman, 2015)."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, max_pool

# Convolutions between two poolings; each is followed by a ReLU.
BLOCKS = (2, 2, 3, 3, 3)


class VGG(nn.Module):
    """Thirteen 3x3 convolutions without batch normalisation; 512 channels at a sixteenth of the image's size.

    Attributes:
      widths: channels of the five blocks.
      cut: the last of torchvision's `features` that runs, 0 to 30. The originals of place recognition (NetVLAD's port,
        SFRS, CosPlace, the Deep VG benchmark) leave out the last ReLU (29) and pooling (30), so that features may be
        negative.
      frozen_until: the last frozen one, or None; see `frozen_paths`. All those originals freeze what comes before the
        last block: 23.
      dtype: type of the computation; parameters stay float32.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    cut: int = 28
    frozen_until: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, h, w, C]` in `dtype`; `train` changes nothing.

        Raises:
          ValueError: for other than five widths, or a layer that VGG16 does not have.
        """
        self._check()
        x = images
        for i, (kind, width) in enumerate(_layers(self.widths)):
            if i > self.cut:
                break
            if kind == "conv":
                x = Conv(width, 3, padding=1, use_bias=True, dtype=self.dtype, name=f"features_{i}")(x)
            else:
                x = nn.relu(x) if kind == "relu" else max_pool(x, 2, 2)
        return Features(x)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of frozen layers."""
        self._check()
        last = -1 if self.frozen_until is None else self.frozen_until
        convolutions = [i for i, (kind, _) in enumerate(_layers(self.widths)) if kind == "conv"]
        return tuple(f"features_{i}/" for i in convolutions if i <= last)

    def _check(self) -> None:
        if len(self.widths) != len(BLOCKS):
            raise ValueError(f"{len(self.widths)} widths, but VGG16 has {len(BLOCKS)} blocks")
        last = len(list(_layers(self.widths))) - 1
        if self.cut not in range(last + 1):
            raise ValueError(f"cut={self.cut!r} is not a layer of VGG16; there are 0 to {last}")
        if self.frozen_until is not None and self.frozen_until not in range(self.cut + 1):
            raise ValueError(
                f"frozen_until={self.frozen_until!r} is not a layer up to the cut; there are 0 to {self.cut}"
            )


def _layers(widths: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """torchvision's Sequential: the kind and the channels of each layer."""
    for count, width in zip(BLOCKS, widths, strict=True):
        for _ in range(count):
            yield from (("conv", width), ("relu", width))
        yield "pool", width
