"""Vision transformers with patches of 16 pixels (Dosovitskiy et al., 2021), cut after any block.

Parameters are named as timm names them: `patch_embed/proj`, `blocks_3/attn/qkv`, `norm`, ...
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.backbones.transformer import Block, blocks_to_run, embed, linear
from jaxvpr.models.features import Features
from jaxvpr.models.layers import LayerNorm, recomputed


class ViT(nn.Module):
    """Tokens of patches and a class token, after the last LayerNorm.

    Attributes:
      width, depth, heads, patch: of the transformer.
      side: of the square grid of position embeddings: 14 belongs to images of 224 pixels, 24 to 384. Images of other
        sizes get them interpolated, bicubic to the size.
      antialias: of that interpolation: timm's has it, Hugging Face's has not.
      eps: of LayerNorm: timm's is 1e-6, Hugging Face's 1e-12.
      cut: how many blocks run, None for all; the Deep VG benchmark's `trunc_te`.
      frozen_blocks: how many of the first blocks are frozen (see `frozen_paths`), with the embeddings and the last
        normalisation, as there (`freeze_te` plus one: 0 freezes no block). None freezes nothing.
      pooler: keep the layer that Hugging Face's files have beyond the features, so that they are read and written
        completely. Nothing reads it.
      remat: recompute each block in the backward pass instead of storing its inner activations; a name of
        `layers.KEPT` says what of them is stored all the same.
      dtype: type of the computation; parameters stay float32.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    side: int = 14
    antialias: bool = True
    eps: float = 1e-6
    cut: int | None = None
    frozen_blocks: int | None = None
    pooler: bool = False
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, H / 16, W / 16, width]` and the class token `[B, width]`.

        Raises:
          ValueError: for sides that are not multiples of the patch, or a number of blocks out of range.
        """
        blocks = blocks_to_run(self.depth, self.cut, self.frozen_blocks)
        x, grid = embed(self, images, self.width, self.patch, self.side, 0.0, self.antialias)
        block = recomputed(Block, self.remat)
        for i in range(blocks):
            x = block(self.heads, 4 * self.width, eps=self.eps, dtype=self.dtype, name=f"blocks_{i}")(x)
        x = LayerNorm(self.eps, self.dtype, name="norm")(x)
        if self.pooler and self.is_initializing():
            linear(self.width, self.dtype, "pooler_dense")(x[:, 0])
        return Features(x[:, 1:].reshape(x.shape[0], *grid, self.width), x[:, 0])

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that are frozen, or that nothing reads."""
        blocks_to_run(self.depth, self.cut, self.frozen_blocks)
        unread = ("pooler_dense/",) if self.pooler else ()
        if self.frozen_blocks is None:
            return unread
        frozen = (f"blocks_{i}/" for i in range(self.frozen_blocks))
        return (*unread, "(patch_embed|norm)/", "cls_token|pos_embed", *frozen)
