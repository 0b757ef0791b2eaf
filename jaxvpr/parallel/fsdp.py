"""Parameters that lie in parts on the devices and are gathered where they are used (FSDP).

After ZeRO (Rajbhandari et al., SC 2020): a device holds its part of large parameters, of their optimiser state and of
their averages, and gets the sum of the gradients of that part alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvpr.parallel.mesh import DATA, MODEL, replicated


def sized_shardings(mesh: Mesh, tree: Any, least_mib: float) -> Any:
    """Shardings of parameters or their optimiser state: leaves of `least_mib` or more are split along the longest of
    their axes that the devices divide, all others are replicated.

    A leaf that all devices together do not divide is split over one axis of the mesh. 0 MiB splits none.
    """

    def rule(leaf: Any) -> NamedSharding:
        large = 0 < least_mib * 2**20 <= prod(leaf.shape) * leaf.dtype.itemsize
        for axes in ((DATA, MODEL), (DATA,), (MODEL,)) if large else ():
            devices = prod(mesh.shape[axis] for axis in axes)
            fits = [axis for axis, length in enumerate(leaf.shape) if length % devices == 0]
            if devices > 1 and fits:
                return NamedSharding(mesh, P(*[None] * max(fits, key=leaf.shape.__getitem__), axes))
        return replicated(mesh)

    return jax.tree.map(rule, tree)


def gathered(params: Mapping[str, jax.Array], shardings: Mapping[str, NamedSharding]) -> dict[str, jax.Array]:
    """Parameters by path, whole on every device; gradients by them are summed and split as `shardings` say.

    Without a say on the gradients they would be whole too, since their norm looks at all of them.
    """
    split = {path for path in params if not shardings[path].is_fully_replicated}
    return {path: _gather(leaf, shardings[path]) if path in split else leaf for path, leaf in params.items()}


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(sharding.mesh, P()))


def _gather_forward(leaf: jax.Array, sharding: NamedSharding) -> tuple[jax.Array, None]:
    return _gather(leaf, sharding), None


def _gather_backward(sharding: NamedSharding, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, sharding),)


_gather.defvjp(_gather_forward, _gather_backward)
