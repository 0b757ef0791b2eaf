"""The parts of vision transformers (Dosovitskiy et al., 2021), named as timm and DINOv2 name them.

Tokens are `[B, N, C]` in the compute type; LayerNorm and softmax run in float32.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.attention import attend
from jaxvpr.models.backbones.adapters import ConvAdapter
from jaxvpr.models.backbones.positions import grid_of, interpolate
from jaxvpr.models.layers import Conv, Dense, LayerNorm, small_normal, torch_default

FACETS = ("query", "key", "value")
# CricaVPR's weight of an adapter beside the block's own MLP.
ADAPTER_SHARE = 0.2


def linear(features: int, dtype: Any, name: str, bias: bool = True) -> Dense:
    """A linear layer with a transformer's initialisation."""
    return Dense(features, use_bias=bias, dtype=dtype, kernel_init=small_normal, name=name)


class PatchEmbed(nn.Module):
    """Square patches, each projected to a vector."""

    width: int
    patch: int
    dtype: Any = jnp.float32
    bias: bool = True

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """`[B, H, W, 3]` to `[B, H W / patch², width]`, row by row."""
        conv = Conv(self.width, self.patch, self.patch, 0, self.bias, self.dtype, torch_default, name="proj")
        return conv(images).reshape(images.shape[0], -1, self.width)


class Attention(nn.Module):
    """Multi-head self-attention with query, key and value packed into one product.

    Attributes:
      bias: of that product.
      facet: "query", "key" or "value" gives that third of the product, `[B, N, C]`, instead of the layer's output.
        Initialisation always runs the full layer, so that its parameters are those of the original.
      dropout, attention_dropout: in training, of the output and of the shares that values are mixed by.
    """

    heads: int
    bias: bool = True
    facet: str | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        batch, count, width = x.shape
        qkv = linear(3 * width, self.dtype, "qkv", self.bias)(x).reshape(batch, count, 3, width)
        if self.facet and not self.is_initializing():
            return qkv[:, :, FACETS.index(self.facet)]
        query, key, value = (
            jax.lax.index_in_dim(qkv, i, 2, False).reshape(batch, count, self.heads, -1) for i in range(3)
        )
        y = attend(query, key, value, nn.Dropout(self.attention_dropout, deterministic=not self.train))
        y = linear(width, self.dtype, "proj")(y.reshape(batch, count, width))
        return nn.Dropout(self.dropout, deterministic=not self.train)(y)


def quick_gelu(x: jax.Array) -> jax.Array:
    """CLIP's approximation of GELU, `x sigmoid(1.702 x)`."""
    return x * nn.sigmoid(jnp.asarray(1.702, x.dtype) * x)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them, or CLIP's (`quick`)."""

    hidden: int
    dtype: Any = jnp.float32
    quick: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        y = linear(self.hidden, self.dtype, "fc1")(x)
        y = quick_gelu(y) if self.quick else nn.gelu(y, approximate=False)
        return linear(x.shape[-1], self.dtype, "fc2")(y)


class SwiGLU(nn.Module):
    """A gated MLP (Shazeer, 2020), both halves of its first layer packed into one."""

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        gate, y = jnp.split(linear(2 * self.hidden, self.dtype, "w12")(x), 2, -1)
        return linear(x.shape[-1], self.dtype, "w3")(nn.silu(gate) * y)


class LayerScale(nn.Module):
    """One learned factor a channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        gamma = self.param("gamma", nn.initializers.ones, (x.shape[-1],))
        return x * gamma.astype(x.dtype).reshape(1, 1, -1)


class Block(nn.Module):
    """LayerNorm and attention, LayerNorm and MLP, each added to its input.

    Attributes:
      hidden: width inside the MLP, which is a gated one with `swiglu`, and has CLIP's GELU with `quick`.
      facet: of the attention, instead of the block's output; see `Attention`.
      adapter_grid: (rows, columns) of the patches where an adapter works beside the MLP.
      average: run the adapter's batch normalisation on its running averages.
    """

    heads: int
    hidden: int
    swiglu: bool = False
    layer_scale: bool = False
    eps: float = 1e-6
    facet: str | None = None
    adapter_grid: tuple[int, int] | None = None
    average: bool = True
    quick: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` to `[B, N, C]`."""
        attention = Attention(self.heads, facet=self.facet, dtype=self.dtype, name="attn")
        y = attention(LayerNorm(self.eps, self.dtype, name="norm1")(x))
        if self.facet and not self.is_initializing():
            return y
        x = x + (LayerScale(name="ls1")(y) if self.layer_scale else y)
        z = LayerNorm(self.eps, self.dtype, name="norm2")(x)
        mlp = SwiGLU if self.swiglu else partial(Mlp, quick=self.quick)
        y = mlp(self.hidden, self.dtype, name="mlp")(z)
        if self.adapter_grid:
            side = ConvAdapter(self.adapter_grid, self.average, self.dtype, name="adapter")(z)
            y = y + jnp.asarray(ADAPTER_SHARE, y.dtype) * side
        return x + (LayerScale(name="ls2")(y) if self.layer_scale else y)


def blocks_to_run(depth: int, cut: int | None, frozen: int | None) -> int:
    """`cut`, or all `depth` blocks. Raises ValueError for a number out of range, also of `frozen` blocks."""
    blocks = depth if cut is None else cut
    if not 1 <= blocks <= depth:
        raise ValueError(f"cut={cut!r}: expected 1 to {depth} blocks, or None for all")
    if frozen is not None and not 0 <= frozen <= blocks:
        raise ValueError(f"frozen_blocks={frozen!r}: expected 0 to {blocks}, or None to train all")
    return blocks


def embed(
    backbone: nn.Module, images: jax.Array, width: int, patch: int, side: int, offset: float, antialias: bool
) -> tuple[jax.Array, tuple[int, int]]:
    """Images as tokens: a class token and the patches, with positions added; called inside a compact method.

    Args:
      side: of the square grid that position embeddings were trained for; `offset`, `antialias`: see `interpolate`.

    Returns:
      `[B, 1 + rows columns, width]` and (rows, columns).
    """
    dtype = backbone.dtype
    grid = grid_of(images.shape[1], images.shape[2], patch)
    patches = PatchEmbed(width, patch, dtype, name="patch_embed")(images)
    token = backbone.param("cls_token", nn.initializers.normal(1e-6), (1, 1, width))
    positions = backbone.param("pos_embed", small_normal, (1, 1 + side * side, width))
    token = jnp.broadcast_to(token.astype(dtype), (patches.shape[0], 1, width))
    positions = interpolate(positions, grid, offset, antialias).astype(dtype)
    tokens = jnp.concatenate([token, patches], 1)
    return tokens + jnp.broadcast_to(positions, tokens.shape), grid
