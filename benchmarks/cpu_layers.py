"""Layers that have a program of their own on CPUs beside the same layer as one operation of lax.

Milliseconds of processor time and of the clock, each the least of all rounds, in which both take turns: a neighbour can
only slow them down. "in a loop" is the same batch in four parts inside `lax.scan`, as gradients are accumulated. The
memory is that of XLA's temporaries.

  taskset -c 0 python -m benchmarks.cpu_layers --out benchmarks/results/cpu_layers_one_core.json
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import side_by_side
from jaxvpr.models import layers, winograd
from jaxvpr.models.platforms import plain
from jaxvpr.parallel import memory

# Where it stands, [B, H, W, C], window, stride, padding, ceil.
POOLS: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, bool]]] = {
    "ResNet, 16 x 224 px": ((16, 112, 112, 64), (3, 2, 1, False)),
    "SqueezeNet, 16 x 224 px": ((16, 109, 109, 96), (3, 2, 0, True)),
    "VGG16's second, 2 x 480x640": ((2, 240, 320, 128), (2, 2, 0, False)),
}
# As many channels out as in.
CONVS: dict[str, tuple[int, int, int, int]] = {
    "ResNet-18's layer1, 16 x 224 px": (16, 56, 56, 64),
    "layer2": (16, 28, 28, 128),
    "layer3": (16, 14, 14, 256),
    "layer4": (16, 7, 7, 512),
    "VGG16's second block, 2 x 480x640": (2, 240, 320, 128),
    "third": (2, 120, 160, 256),
    "fourth": (2, 60, 80, 512),
    "one image, layer4": (1, 7, 7, 512),
    "embedded city, layer4, 64 x 64 px": (64, 4, 4, 128),
}
LOOPED = ("layer2", "layer3")
PARTS = 4
TRAINED = "forward and gradients"


def normal(*shape: int, scale: float = 1.0) -> jax.Array:
    """Noise, the same for every shape."""
    return jnp.asarray(scale * np.random.default_rng(0).normal(size=shape), jnp.float32)


def trained(function: Callable[..., jax.Array], *arrays: jax.Array) -> Any:
    """Forward, and the gradients of all arrays."""
    y, pull = jax.vjp(function, *arrays)
    return y, pull(y)


def looped(x: jax.Array, kernel: jax.Array) -> Any:
    """The same of a convolution, part by part."""
    parts = x.reshape(PARTS, -1, *x.shape[1:])
    return jax.lax.scan(lambda _, part: (0, trained(winograd.conv3x3, part, kernel)), 0, parts)


def least(functions: Mapping[str, Callable[..., Any]], arguments: tuple[jax.Array, ...], rounds: int) -> Any:
    """{side: milliseconds of processor time, of the clock, and MiB of temporaries}."""
    compiled = {side: jax.jit(function).lower(*arguments).compile() for side, function in functions.items()}
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in compiled}
    for number in range(rounds + 1):
        for side, program in compiled.items():
            busy, at = time.process_time(), time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if number:  # the first call is warming up
                times[side].append((1e3 * (time.process_time() - busy), 1e3 * (time.perf_counter() - at)))
    return {
        side: {
            "cpu_ms": round(min(cpu for cpu, _ in times[side]), 3),
            "ms": round(min(wall for _, wall in times[side]), 3),
            "temp_mib": round(program.memory_analysis().temp_size_in_bytes / 2**20),
        }
        for side, program in compiled.items()
    }


def measure(name: str, what: str, function: Callable[..., Any], arguments: tuple[jax.Array, ...], rounds: int) -> Any:
    """One line of the report: both sides, and how many times as fast ours is."""
    found = least({"lax": plain(function), "ours": lambda *given: function(*given)}, arguments, rounds)
    gain = {key: round(found["lax"][key] / found["ours"][key], 2) for key in ("cpu_ms", "ms")}
    return {"layer": name, "what": what, "shape": arguments[0].shape, **found, "times_as_fast": gain}


def main() -> None:
    """Measures all layers and writes the report."""
    parser = side_by_side.flags(__doc__, rounds=3)
    given = parser.parse_args()
    memory.keep_freed()
    results = []
    for name, (shape, window) in POOLS.items():
        pool = partial(layers.max_pool, **dict(zip(("size", "stride", "padding", "ceil"), window, strict=True)))
        for what, function in (("forward", pool), (TRAINED, partial(trained, pool))):
            results.append(measure(f"max pooling, {name}", what, function, (normal(*shape),), given.rounds))
    for name, shape in CONVS.items():
        arrays = normal(*shape), normal(3, 3, shape[-1], shape[-1], scale=0.05)
        kinds = {"forward": winograd.conv3x3, TRAINED: partial(trained, winograd.conv3x3)}
        kinds |= {f"{TRAINED}, in a loop": looped} if name in LOOPED else {}
        for what, function in kinds.items():
            results.append(measure(f"3x3, {name}", what, function, arrays, given.rounds))
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib")), given.out)


if __name__ == "__main__":
    main()
