"""CLIP's vision transformer (Radford et al., 2021), as Hugging Face's `CLIPModel` has it.

Parts are named as in our other transformers: `blocks_3/attn/qkv`, `patch_embed/proj`, ...; the names of its files are
those of the family `huggingface_clip`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.backbones.positions import grid_of, interpolate
from jaxvpr.models.backbones.transformer import Block, PatchEmbed, linear
from jaxvpr.models.features import Features
from jaxvpr.models.layers import LayerNorm, recomputed, small_normal

EPS = 1e-5


class CLIP(nn.Module):
    """Tokens of patches, and a class token projected to where images and texts are compared.

    Attributes:
      width, depth, heads, patch: of the transformer.
      side: of the square grid of position embeddings; 16 belongs to images of 224 pixels. Images of other sizes get
        them interpolated, bicubic to the size without antialiasing.
      projection: length of the projected class token; 0: the token after its LayerNorm, of the transformer's width.
      train_blocks: only the last n blocks learn, and what follows them; None trains all. See `frozen_paths`.
      remat: recompute each block in the backward pass instead of storing its inner activations; a name of
        `layers.KEPT` says what of them is stored all the same.
      dtype: type of the computation; parameters stay float32.
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch: int = 14
    side: int = 16
    projection: int = 768
    train_blocks: int | None = None
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, H / 14, W / 14, width]` and a token `[B, projection]`.

        The map is that of the last block, which the original leaves without a last LayerNorm; the token is
        `get_image_features` of Hugging Face, of any length.

        Raises:
          ValueError: for sides that are not multiples of the patch, or a number of blocks out of range.
        """
        self._check()
        grid = grid_of(images.shape[1], images.shape[2], self.patch)
        x = LayerNorm(EPS, self.dtype, name="norm_pre")(self._tokens(images, grid))
        block = recomputed(Block, self.remat)
        for i in range(self.depth):
            x = block(self.heads, 4 * self.width, eps=EPS, quick=True, dtype=self.dtype, name=f"blocks_{i}")(x)
        token = LayerNorm(EPS, self.dtype, name="norm")(x[:, 0])
        if self.projection:
            token = linear(self.projection, self.dtype, "projection", bias=False)(token)
        return Features(x[:, 1:].reshape(x.shape[0], *grid, self.width), token)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that are frozen."""
        self._check()
        if self.train_blocks is None:
            return ()
        frozen = (f"blocks_{i}/" for i in range(self.depth - self.train_blocks))
        return ("(patch_embed|norm_pre)/", "class_embedding|position_embedding", *frozen)

    def _tokens(self, images: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Class token and patches with their positions; the parameters have the shapes of the original."""
        patches = PatchEmbed(self.width, self.patch, self.dtype, bias=False, name="patch_embed")(images)
        token = self.param("class_embedding", nn.initializers.normal(self.width**-0.5), (self.width,))
        positions = self.param("position_embedding", small_normal, (1 + self.side**2, self.width))
        token = jnp.broadcast_to(token.astype(self.dtype).reshape(1, 1, -1), (len(patches), 1, self.width))
        tokens = jnp.concatenate([token, patches], 1)
        placed = interpolate(positions[None], grid).astype(self.dtype)
        return tokens + jnp.broadcast_to(placed, tokens.shape)

    def _check(self) -> None:
        if self.train_blocks is not None and not 0 <= self.train_blocks <= self.depth:
            raise ValueError(f"train_blocks={self.train_blocks!r}: 0 to {self.depth} blocks run, or None for all")
