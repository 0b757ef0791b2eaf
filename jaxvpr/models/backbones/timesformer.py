"""TimeSformer: a vision transformer over clips, with attention over time and over space in turns.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021 ("divided space-time").
Parameters are named as in the original, whose blocks are timm's with three more parts.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.models.backbones.transformer import Attention, Mlp, blocks_to_run, embed
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Dense, LayerNorm, recomputed

zeros = nn.initializers.zeros


class Block(nn.Module):
    """Attention of each place over the frames, of each frame over its places and the class token, and an MLP.

    The class token, one for the clip, takes no part in the first; from the second it gets the mean over the frames.

    Attributes:
      frames: of a clip.
      drop_path: probability with which a branch is skipped in training: by a place, a frame, a clip.
    """

    frames: int
    heads: int
    hidden: int
    eps: float
    drop_path: float
    train: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, 1 + F N, C]`, the class token and frame after frame, to the same shape."""
        batch, _, width = x.shape
        token, cells = x[:, :1], x[:, 1:].reshape(batch, self.frames, -1, width)

        over_time = cells.swapaxes(1, 2)
        found = self._attention(over_time.reshape(-1, self.frames, width), "temporal_attn", "temporal_norm1")
        # Zeros let the network begin as its image model, frame by frame.
        fc = Dense(width, dtype=self.dtype, kernel_init=zeros, name="temporal_fc")
        cells = cells + fc(found.reshape(over_time.shape)).swapaxes(1, 2)

        tokens = jnp.broadcast_to(token[:, None], (batch, self.frames, 1, width))
        of_frames = jnp.concatenate([tokens, cells], 2)
        found = self._attention(of_frames.reshape(batch * self.frames, -1, width), "attn", "norm1")
        found = found.reshape(of_frames.shape)
        token = token + jnp.mean(found[:, :, 0], 1, keepdims=True)
        x = jnp.concatenate([token, (cells + found[:, :, 1:]).reshape(batch, -1, width)], 1)

        y = Mlp(self.hidden, self.dtype, name="mlp")(LayerNorm(self.eps, self.dtype, name="norm2")(x))
        return x + self._drop(y)

    def _attention(self, x: jax.Array, name: str, norm: str) -> jax.Array:
        x = LayerNorm(self.eps, self.dtype, name=norm)(x)
        return self._drop(Attention(self.heads, dtype=self.dtype, name=name)(x))

    def _drop(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not self.train)(x)


class TimeSformer(nn.Module):
    """A vision transformer over clips, with divided attention over time and space; an image is a clip of one frame.

    Attributes:
      width, depth, heads, patch, side, antialias, eps, cut, frozen_blocks, remat, dtype: as of `ViT`. The original does
        not interpolate positions of patches but takes the nearest.
      frames: of the time embedding. Clips of another length get that of the nearest frames, as in the original.
      drop_path: probability that the last block's branches are skipped in training; the others' grow to it linearly.
    """

    takes_clips = True

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    side: int = 14
    antialias: bool = True
    eps: float = 1e-6
    frames: int = 8
    cut: int | None = None
    frozen_blocks: int | None = None
    drop_path: float = 0.1
    remat: bool | str = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        """Normalised clips `[B, F, H, W, 3]` to a map `[B, F, H / 16, W / 16, width]` and a token `[B, width]`.

        Images `[B, H, W, 3]` give maps `[B, H / 16, W / 16, width]`. Training needs the random key "dropout", unless
        `drop_path` is 0.

        Raises:
          ValueError: for sides that are not multiples of the patch, or a number of blocks out of range.
        """
        *lead, height, columns, colours = images.shape
        batch, frames = (*lead, 1)[:2]
        blocks = blocks_to_run(self.depth, self.cut, self.frozen_blocks)
        shown = images.reshape(-1, height, columns, colours)
        x, grid = embed(self, shown, self.width, self.patch, self.side, 0.0, self.antialias)
        x = x.reshape(batch, frames, -1, self.width)
        cells = x[:, :, 1:] + self._times(frames)
        x = jnp.concatenate([x[:, 0, :1], cells.reshape(batch, -1, self.width)], 1)
        block = recomputed(Block, self.remat)
        for i in range(blocks):
            rate = self.drop_path * i / max(self.depth - 1, 1)
            options = (frames, self.heads, 4 * self.width, self.eps, rate, train)
            x = block(*options, self.dtype, name=f"blocks_{i}")(x)
        x = LayerNorm(self.eps, self.dtype, name="norm")(x)
        return Features(x[:, 1:].reshape(*lead, *grid, self.width), x[:, 0])

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that are frozen."""
        blocks_to_run(self.depth, self.cut, self.frozen_blocks)
        if self.frozen_blocks is None:
            return ()
        frozen = (f"blocks_{i}/" for i in range(self.frozen_blocks))
        return ("(patch_embed|norm)/", "cls_token|pos_embed|time_embed", *frozen)

    def _times(self, frames: int) -> jax.Array:
        """The embeddings of so many frames, `[1, F, 1, width]`; torch's "nearest" interpolation."""
        table = self.param("time_embed", zeros, (1, self.frames, self.width))
        step = np.float32(self.frames) / np.float32(frames)
        nearest = np.minimum((np.arange(frames, dtype=np.float32) * step).astype(int), self.frames - 1)
        return table[:, nearest][:, :, None].astype(self.dtype)
