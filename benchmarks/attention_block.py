"""A transformer's block, forward and backward in bfloat16, compiled ahead of time for a TPU that is not there.

Sides: the attention of the models, the same with all keys in one array, and attention whose gradient is JAX's own,
which multiplies in float32. Nothing runs: memory, and bytes that are read and written, are the compiler's figures, and
the milliseconds those that the stated peaks would take. Needs `libtpu`, from PyPI.

  python -m benchmarks.attention_block --out benchmarks/results/attention_block.json
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from benchmarks import compiled, side_by_side
from jaxvpr.models import attention
from jaxvpr.models.backbones import transformer

PLATFORM, PEAK, BANDWIDTH = "tpu:v5e:2x2", 197e12, 819e9  # bfloat16 FLOP/s and bytes/s of a chip, as Google states them
ONE_ARRAY, JAX, OURS = "all keys in one array", "gradient by JAX", "jaxvpr"


def by_jax(query: jax.Array, key: jax.Array, value: jax.Array, drop: Any = None) -> jax.Array:
    """Attention whose gradient is left to JAX."""
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    return jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(logits, -1).astype(value.dtype), value)


def block(side: str, tokens: int, batch: int, chip: jax.Device) -> dict[str, Any]:
    """The compiler's figures for a block of ViT-B."""
    where = SingleDeviceSharding(chip)

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    made = transformer.Block(12, 3072, layer_scale=True, dtype=jnp.bfloat16)
    x = placed(jax.ShapeDtypeStruct((batch, tokens, 768), jnp.bfloat16))
    with (
        patch.object(transformer, "attend", by_jax if side == JAX else attention.attend),
        patch.object(attention, "LANES", 10**6 if side == ONE_ARRAY else attention.LANES),
    ):
        variables = jax.tree.map(placed, jax.eval_shape(made.init, jax.random.key(0), x))
        gradient = jax.grad(lambda variables, x: made.apply(variables, x).astype(jnp.float32).sum())
        program = jax.jit(gradient).lower(variables, x).compile()
    costs, memory = program.cost_analysis(), program.memory_analysis()
    moved = costs["bytes accessed"]
    return {
        "side": side,
        "tokens": tokens,
        "temporaries_mib": round(memory.temp_size_in_bytes / 2**20),
        "gigabytes_moved": round(moved / 1e9, 2),
        "gflop": round(costs["flops"] / 1e9, 1),
        "least_ms": round(1e3 * max(costs["flops"] / PEAK, moved / BANDWIDTH), 2),
    }


def main() -> None:
    """Compiles all sides."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--batch", type=int, default=60, help="images")
    given = parser.parse_args()
    os.environ.update(compiled.NO_TPU)
    [chip] = compiled.devices(PLATFORM, 1)
    sides = [(OURS, 257), (ONE_ARRAY, 257), (JAX, 257), (ONE_ARRAY, 256)]
    rows = [block(side, tokens, given.batch, chip) for side, tokens in sides]
    side_by_side.finish(side_by_side.report({"batch": given.batch, "rows": rows}, ("jax", "jaxlib", "flax")), given.out)


if __name__ == "__main__":
    main()
