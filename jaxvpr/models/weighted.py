"""Products with weights in a type of few digits, whose gradients are summed over devices in float32.

Left alone, the compiler sums the gradient of a weight where its product makes it: on a TPU in bfloat16, though the
weight is float32 and was rounded for the product alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

Product = Callable[[jax.Array, jax.Array], jax.Array]
_MESH: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def summed_in_float32(mesh: Mesh) -> Iterator[None]:
    """Within it, gradients by weights are traced so that each device's part is made float32 before they are summed.

    Batches are split over all devices of the mesh; the axis that `weighted` is given first is theirs.
    """
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def weighted(product: Product, x: jax.Array, weight: jax.Array, dtype: Any) -> jax.Array:
    """`product(x, weight)` in `dtype`, of images `[B, ...]` and a float32 weight."""
    mesh = _MESH.get()
    if mesh is None or mesh.size == 1 or jnp.dtype(dtype) == jnp.float32 or x.shape[0] % mesh.size:
        return product(x.astype(dtype), weight.astype(dtype))
    return _summed(product, mesh, x.astype(dtype), weight)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed(product: Product, mesh: Mesh, x: jax.Array, weight: jax.Array) -> jax.Array:
    return product(x, weight.astype(x.dtype))


def _forward(product: Product, mesh: Mesh, x: jax.Array, weight: jax.Array) -> tuple[jax.Array, Any]:
    return _summed(product, mesh, x, weight), (x, weight)


def _backward(product: Product, mesh: Mesh, kept: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    narrow = weight.astype(x.dtype)

    def by_weight(x: jax.Array, narrow: jax.Array, gradient: jax.Array) -> jax.Array:
        (part,) = jax.vjp(lambda w: product(x, w), narrow)[1](gradient)
        return jax.lax.psum(part.astype(weight.dtype), mesh.axis_names)

    rows = P(mesh.axis_names)
    # The checker of varying axes would sum a device's part itself, before it is float32.
    summed = jax.shard_map(by_weight, mesh=mesh, in_specs=(rows, P(), rows), out_specs=P(), check_vma=False)
    (by_x,) = jax.vjp(lambda x: product(x, narrow), x)[1](gradient)
    return by_x, summed(x, narrow, gradient)


_summed.defvjp(_forward, _backward)
