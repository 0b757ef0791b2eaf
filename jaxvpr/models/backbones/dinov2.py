"""DINOv2's vision transformers with patches of 14 pixels (Oquab et al., 2024), with registers (Darcet et al., 2024).

Parameters are named as in the files of `facebookresearch/dinov2`: `blocks_3/attn/qkv`, `ls1/gamma`, `pos_embed`, ...
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.backbones.transformer import FACETS, Block, embed
from jaxvpr.models.features import Features
from jaxvpr.models.layers import LayerNorm, recomputed

PATCH = 14
EPS = 1e-6


class DINOv2(nn.Module):
    """Tokens of patches and a class token.

    Attributes:
      width, depth, heads: of the transformer.
      swiglu: a gated MLP (ViT-g) of two thirds of the usual hidden width, rounded up to a multiple of 8.
      registers: further tokens that belong to no patch and are dropped at the end, 0 or (in published weights) 4.
        Positions are interpolated without antialiasing and with DINO's offset of 0.1 where there are none, and with
        antialiasing and no offset where there are some: each as the weights were trained.
      side: of the square grid of position embeddings; 37 belongs to images of 518 pixels.
      norm: pass the features through the last LayerNorm (SALAD, MegaLoc, CricaVPR do, BoQ does not). Its parameters
        always exist, so that files are read and written completely.
      train_blocks: only the last n blocks learn, and the last LayerNorm; None trains all. See `frozen_paths`.
      layer: stop after block `layer` (from 0) and give its output, without the last LayerNorm (AnyLoc).
      facet: with a `layer`, "token" gives that block's output, "query", "key" or "value" that part of its attention.
      mask_token: keep the parameter that only DINOv2's pre-training reads, so that files are read and written
        completely; MegaLoc's has none.
      adapters: CricaVPR's, in every block; `adapters_only`: nothing else learns, as there.
      remat: recompute each block in the backward pass instead of storing its inner activations; a name of
        `layers.KEPT` says what of them is stored all the same.
      dtype: type of the computation; parameters stay float32.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    swiglu: bool = False
    registers: int = 0
    side: int = 37
    norm: bool = True
    train_blocks: int | None = None
    layer: int | None = None
    facet: str = "token"
    mask_token: bool = True
    adapters: bool = False
    adapters_only: bool = False
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised images `[B, H, W, 3]` to a map `[B, H / 14, W / 14, width]` and the class token `[B, width]`.

        Raises:
          ValueError: for sides that are not multiples of 14, or a layer, facet or number of blocks out of range.
        """
        last = self._last()
        x, grid = self._tokens(images)
        block = recomputed(Block, self.remat)
        for i in range(last + 1):
            x = block(
                self.heads,
                self._hidden(),
                self.swiglu,
                layer_scale=True,
                eps=EPS,
                facet=self.facet if self.facet in FACETS and i == last else None,
                adapter_grid=grid if self.adapters else None,
                average=not train,
                dtype=self.dtype,
                name=f"blocks_{i}",
            )(x)
        if self.layer is None:
            normed = LayerNorm(EPS, self.dtype, name="norm")(x)
            x = normed if self.norm else x
        cells = x[:, -grid[0] * grid[1] :]
        return Features(cells.reshape(x.shape[0], *grid, self.width), x[:, 0])

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that are frozen, or that nothing reads: pre-training's token, a norm that is left
        out, what follows a facet in its block."""
        last = self._last()
        if self.adapters_only:
            return (r"(?!blocks_\d+/adapter/)",)
        unread = ("mask_token",) * self.mask_token + ("norm/",) * (self.layer is None and not self.norm)
        if self.facet != "token":
            unread += (f"blocks_{last}/(?!norm1/|attn/qkv/)",)
        if self.train_blocks is None:
            return unread
        frozen = (f"blocks_{i}/" for i in range(last + 1 - self.train_blocks))
        return (*unread, "(patch_embed/|cls_token|pos_embed" + "|register_tokens" * bool(self.registers) + ")", *frozen)

    def _tokens(self, images: jax.Array) -> tuple[jax.Array, tuple[int, int]]:
        """The first block's input, and the grid of patches."""
        guarded = self.registers == 0
        x, grid = embed(self, images, self.width, PATCH, self.side, 0.1 if guarded else 0.0, antialias=not guarded)
        if self.mask_token:
            self.param("mask_token", nn.initializers.zeros, (1, self.width))
        if self.registers:
            tokens = self.param("register_tokens", nn.initializers.normal(1e-6), (1, self.registers, self.width))
            tokens = jnp.broadcast_to(tokens.astype(x.dtype), (x.shape[0], self.registers, self.width))
            x = jnp.concatenate([x[:, :1], tokens, x[:, 1:]], 1)
        return x, grid

    def _hidden(self) -> int:
        hidden = 4 * self.width
        return (hidden * 2 // 3 + 7) // 8 * 8 if self.swiglu else hidden

    def _last(self) -> int:
        """The last block that runs."""
        if self.facet != "token" and self.facet not in FACETS:
            raise ValueError(f"facet={self.facet!r}: there are {['token', *FACETS]}")
        if self.facet != "token" and self.layer is None:
            raise ValueError(f"facet={self.facet!r} needs the layer to take it from, 0 to {self.depth - 1}")
        if self.layer is not None and not 0 <= self.layer < self.depth:
            raise ValueError(f"layer={self.layer!r}: there are blocks 0 to {self.depth - 1}")
        last = self.depth - 1 if self.layer is None else self.layer
        if self.train_blocks is not None and not 0 <= self.train_blocks <= last + 1:
            raise ValueError(f"train_blocks={self.train_blocks!r}: 0 to {last + 1} blocks run, or None for all")
        if self.adapters_only and (not self.adapters or self.train_blocks is not None):
            raise ValueError("adapters_only=True needs adapters=True, and train_blocks=None: no block learns with it")
        return last
