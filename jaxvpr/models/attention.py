"""Softmax attention: cuDNN's on NVIDIA GPUs in 16-bit types, by our own products elsewhere."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models import platforms

AMPERE = 8  # the first compute capability that has cuDNN's fused attention
HEAD_DIM = 128  # the largest that it has on all of them


def attend(query: jax.Array, key: jax.Array, value: jax.Array, drop: nn.Dropout | None = None) -> jax.Array:
    """Softmax attention of queries `[B, Q, heads, D]` to keys and values `[B, K, heads, D]`, all of one type.

    In 16-bit types every product has factors of that type, forward and backward, and logits and softmax are float32. Of
    all `[B, heads, Q, K]` numbers the backward pass keeps one array in that type, and none where cuDNN attends.

    Args:
      drop: dropout of the shares that values are mixed by, `[B, heads, Q, K]`.

    Returns:
      `[B, Q, heads, D]` in the type of the values.
    """
    drops = drop is not None and drop.rate > 0 and not drop.deterministic
    if query.dtype == jnp.float32:
        shares = _shares(query, key)
        return _mixed(drop(shares) if drop and drops else shares, value)
    if drop and drops:
        batch, count, heads, _ = query.shape
        return _rounded(query, key, value, drop(jnp.ones((batch, heads, count, key.shape[1]), query.dtype)))
    if _has_cudnn(query.shape[-1]):
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    return _rounded(query, key, value, None)


def _has_cudnn(dim: int) -> bool:
    """Whether heads of so many numbers are attended to by cuDNN where this process computes."""
    if platforms.is_plain() or jax.default_backend() != "gpu" or dim % 8 or dim > HEAD_DIM:
        return False
    major = str(jax.devices()[0].compute_capability).partition(".")[0]
    return major.isdigit() and int(major) >= AMPERE  # AMD's have letters


def _scale(query: jax.Array) -> jax.Array:
    return jnp.asarray(query.shape[-1] ** -0.5, query.dtype)


def _shares(query: jax.Array, key: jax.Array) -> jax.Array:
    """float32 `[B, heads, Q, K]`, which sum to 1 over K."""
    query = query * _scale(query)
    return nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32), -1)


def _mixed(shares: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.einsum("bhqk,bkhd->bqhd", shares, value)


@jax.custom_vjp
def _rounded(query: jax.Array, key: jax.Array, value: jax.Array, keep: jax.Array | None) -> jax.Array:
    """In 16-bit types; `keep` are factors of the shares. JAX's own gradient would multiply in float32."""
    return _forward(query, key, value, keep)[0]


def _forward(
    query: jax.Array, key: jax.Array, value: jax.Array, keep: jax.Array | None
) -> tuple[jax.Array, tuple[jax.Array | None, ...]]:
    shares = _shares(query, key).astype(value.dtype)
    mixed = _mixed(_times(shares, keep), value)
    return mixed, (query, key, value, keep, shares, mixed)


def _backward(kept: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array | None, ...]:
    query, key, value, keep, shares, mixed = kept
    # The mean of the gradients by shares, weighted by them; from the result it needs none of their products.
    mean = jnp.sum(dy.astype(jnp.float32) * mixed.astype(jnp.float32), -1).swapaxes(1, 2)[..., None]
    by_share = _times(jnp.einsum("bqhd,bkhd->bhqk", dy, value, preferred_element_type=jnp.float32), keep)
    by_logit = (shares.astype(jnp.float32) * (by_share - mean)).astype(query.dtype)
    by_query = _mixed(by_logit, key) * _scale(query)
    by_key = jnp.einsum("bhqk,bqhd->bkhd", by_logit, query * _scale(query))
    by_value = jnp.einsum("bhqk,bqhd->bkhd", _times(shares, keep), dy)
    return by_query, by_key, by_value, None


def _times(shares: jax.Array, keep: jax.Array | None) -> jax.Array:
    return shares if keep is None else shares * keep.astype(shares.dtype)


_rounded.defvjp(_forward, _backward)
