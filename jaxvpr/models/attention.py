"""Softmax attention: cuDNN's on NVIDIA GPUs in 16-bit types, by our own products elsewhere."""

from __future__ import annotations

from functools import reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models import platforms

AMPERE = 8  # the first compute capability that has cuDNN's fused attention
HEAD_DIM = 128  # the largest that it has on all of them
LANES = 128  # numbers of a row of a TPU's tile: arrays are filled up to whole ones


def attend(query: jax.Array, key: jax.Array, value: jax.Array, drop: nn.Dropout | None = None) -> jax.Array:
    """Softmax attention of queries `[B, Q, heads, D]` to keys and values `[B, K, heads, D]`, all of one type.

    In 16-bit types every product has factors of that type, forward and backward, and logits and softmax are float32. Of
    all `[B, heads, Q, K]` numbers the backward pass keeps one array in that type, and none where cuDNN attends. Class
    token and 256 patches are 257 keys, which a TPU fills up to 384: the first one is then computed by itself.

    Args:
      drop: dropout of the shares that values are mixed by, `[B, heads, Q, K]`.

    Returns:
      `[B, Q, heads, D]` in the type of the values.
    """
    drops = drop is not None and drop.rate > 0 and not drop.deterministic
    if query.dtype == jnp.float32:
        shares = nn.softmax(_logits(query, key), -1)
        return jnp.einsum("bhqk,bkhd->bqhd", drop(shares) if drop and drops else shares, value)
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


def _logits(query: jax.Array, key: jax.Array) -> jax.Array:
    """float32 `[B, heads, Q, K]`."""
    return jnp.einsum("bqhd,bkhd->bhqk", query * _scale(query), key, preferred_element_type=jnp.float32)


def _parts(keys: jax.Array) -> tuple[jax.Array, ...]:
    """Keys or values `[B, K, heads, D]`, a first one by itself where it alone begins another tile of a TPU."""
    count = keys.shape[1]
    return (keys[:, :1], keys[:, 1:]) if count > 1 and count % LANES == 1 else (keys,)


def _shares(query: jax.Array, key: jax.Array) -> list[jax.Array]:
    """float32 `[B, heads, Q, K]` of each part of the keys, which sum to 1 over K."""
    logits = [_logits(query, part) for part in _parts(key)]
    if len(logits) == 1:
        return [nn.softmax(logits[0], -1)]
    most = reduce(jnp.maximum, (part.max(-1, keepdims=True) for part in logits))
    weights = [jnp.exp(part - most) for part in logits]
    total = sum(part.sum(-1, keepdims=True) for part in weights)
    return [part / total for part in weights]


def _mixed(shares: list[jax.Array], value: jax.Array) -> jax.Array:
    parts = (jnp.einsum("bhqk,bkhd->bqhd", *pair) for pair in zip(shares, _parts(value), strict=True))
    return reduce(jnp.add, parts)


@jax.custom_vjp
def _rounded(query: jax.Array, key: jax.Array, value: jax.Array, keep: jax.Array | None) -> jax.Array:
    """In 16-bit types; `keep` are factors of the shares. JAX's own gradient would multiply in float32."""
    return _forward(query, key, value, keep)[0]


def _forward(query: jax.Array, key: jax.Array, value: jax.Array, keep: jax.Array | None) -> tuple[jax.Array, Any]:
    shares = [part.astype(value.dtype) for part in _shares(query, key)]
    mixed = _mixed(_times(shares, keep), value)
    return mixed, (query, key, value, keep, shares, mixed)


def _backward(kept: Any, dy: jax.Array) -> tuple[jax.Array | None, ...]:
    query, key, value, keep, shares, mixed = kept
    # The mean of the gradients by shares, weighted by them; from the result it needs none of their products.
    mean = jnp.sum(dy.astype(jnp.float32) * mixed.astype(jnp.float32), -1).swapaxes(1, 2)[..., None]
    by_share = [jnp.einsum("bqhd,bkhd->bhqk", dy, part, preferred_element_type=jnp.float32) for part in _parts(value)]
    by_logit = [
        (share.astype(jnp.float32) * (by - mean)).astype(query.dtype)
        for share, by in zip(shares, _times(by_share, keep), strict=True)
    ]
    by_query = _mixed(by_logit, key) * _scale(query)
    by_key = [jnp.einsum("bhqk,bqhd->bkhd", part, query * _scale(query)) for part in by_logit]
    by_value = [jnp.einsum("bhqk,bqhd->bkhd", part, dy) for part in _times(shares, keep)]
    return by_query, jnp.concatenate(by_key, 1), jnp.concatenate(by_value, 1), None


def _times(shares: list[jax.Array], keep: jax.Array | None) -> list[jax.Array]:
    if keep is None:
        return shares
    kept = (keep[..., :1], keep[..., 1:]) if len(shares) > 1 else (keep,)
    return [share * part.astype(share.dtype) for share, part in zip(shares, kept, strict=True)]


_rounded.defvjp(_forward, _backward)
