"""Compact convolutional transformers (Hassani et al., "Escaping the Big Data Paradigm …", arXiv 2104.05704, 2021).

Two convolutions cut the image into tokens, a sixteenth of its size a side, and transformer blocks follow. Module names
are those of the original, which keeps all but the tokenizer under `classifier`: `blocks_3/self_attn/qkv`, `norm`, ...
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.backbones.transformer import Attention, blocks_to_run, linear
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, LayerNorm, max_pool, recomputed

kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Block(nn.Module):
    """Attention beside a shortcut, then a perceptron beside a shortcut that starts *after* the second normalisation.

    `drop_path` is the probability with which an image skips a branch in training (stochastic depth).
    """

    heads: int
    hidden: int
    dropout: float
    attention_dropout: float
    drop_path: float
    train: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        y = LayerNorm(dtype=self.dtype, name="pre_norm")(x)
        attention = Attention(
            self.heads, False, None, self.dropout, self.attention_dropout, self.train, self.dtype, name="self_attn"
        )
        x = x + self._skip(attention(y))
        x = LayerNorm(dtype=self.dtype, name="norm1")(x)
        y = linear(self.hidden, self.dtype, "linear1")(x)
        y = self._drop(nn.gelu(y, approximate=False))
        y = linear(x.shape[-1], self.dtype, "linear2")(y)
        return x + self._skip(self._drop(y))

    def _drop(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)

    def _skip(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not self.train)(x)


class CCT(nn.Module):
    """CCT-14/7x2: a tokenizer of two 7x7 convolutions and 14 blocks; images of any size.

    Attributes:
      size: side in pixels of the square images that the position embedding was learned on. It is interpolated
        (bilinearly, as the original's loader does) for images of another size or shape.
      depth, width, heads, mlp_ratio: blocks, channels, attention heads, hidden channels of a block over its channels.
      stem_width: channels between the two convolutions.
      cut: how many blocks run (`trunc_te` of the Deep VG benchmark and vg-transformers), or None for all.
      frozen_blocks: how many of the first blocks are frozen (see `frozen_paths`); the tokenizer, the position
        embedding and the last normalisation too, as there (`freeze_te` plus one: 0 freezes no block). None: nothing.
      dropout, attention_dropout: after each layer, and of the attention's weights.
      stochastic_depth: probability that the last block's branches are skipped; the others' grow to it linearly.
      remat: recompute each block in the backward pass instead of storing its inner activations; a name of
        `layers.KEPT` says what of them is stored all the same.
      dtype: type of the computation; parameters and normalisations stay float32.
    """

    size: int = 384
    depth: int = 14
    width: int = 384
    heads: int = 6
    mlp_ratio: int = 3
    stem_width: int = 64
    cut: int | None = None
    frozen_blocks: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.1
    stochastic_depth: float = 0.1
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, ceil(H / 16), ceil(W / 16), width]` in `dtype`.

        The token is the first cell: this network has no class token, and that is what Deep VG's `cls` takes from it.
        Training with a dropout or stochastic depth needs the random key "dropout".

        Raises:
          ValueError: for a cut, a frozen part or heads that do not fit the depth and the width.
        """
        blocks = self._blocks()
        x = images
        for i, channels in enumerate((self.stem_width, self.width)):
            x = Conv(channels, 7, 2, 3, dtype=self.dtype, kernel_init=kaiming_fan_in, name=f"tokenizer_{i}")(x)
            x = max_pool(nn.relu(x), 3, 2, 1)
        batch, height, width = x.shape[:3]
        x = (x + self._positions(height, width)).reshape(batch, height * width, self.width)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        block = recomputed(Block, self.remat)
        for i in range(blocks):
            rate = self.stochastic_depth * i / max(self.depth - 1, 1)
            options = (self.heads, self.mlp_ratio * self.width, self.dropout, self.attention_dropout, rate)
            x = block(*options, train, self.dtype, name=f"blocks_{i}")(x)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        return Features(x.reshape(batch, height, width, self.width), x[:, 0])

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that are frozen."""
        self._blocks()
        if self.frozen_blocks is None:
            return ()
        return (r"tokenizer_\d+/", "positional_emb", "norm/", *(f"blocks_{i}/" for i in range(self.frozen_blocks)))

    def _positions(self, height: int, width: int) -> jax.Array:
        side = -(-self.size // 16)
        table = self.param("positional_emb", nn.initializers.normal(0.2), (1, side * side, self.width))
        return positions(table.reshape(1, side, side, self.width), height, width).astype(self.dtype)

    def _blocks(self) -> int:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of {self.heads} heads")
        return blocks_to_run(self.depth, self.cut, self.frozen_blocks)


def positions(grid: jax.Array, height: int, width: int) -> jax.Array:
    """A grid of position embeddings `[1, h, w, C]`, bilinearly interpolated to `[1, height, width, C]`."""
    if grid.shape[1:3] == (height, width):
        return grid
    return jax.image.resize(grid, (1, height, width, grid.shape[-1]), "linear", antialias=False)
